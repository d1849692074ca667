# SPDX-License-Identifier: Apache-2.0
"""What runtimes refuse of the rest of config.json: settings that are invalid or contradict each other."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

from ...documents.strictjson import step
from ...errors import HookError, RequestError
from ...kernel import files, linux
from .refusals import BOTH, CRUN, RUNC
from .registered import members, texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from ...documents.bundle import Bundle
    from ...rootfs.walk import Root
    from .refusals import Refusals

_UINT32 = 0xFFFFFFFF
_MOST_OF_RUNC = 0x7FFFFFFF  # runc uses a C int
_HOSTNAME_MAX = 64  # uname(2)
_RLIMITS = frozenset(
    f"RLIMIT_{name}"
    for name in (
        "AS CORE CPU DATA FSIZE LOCKS MEMLOCK MSGQUEUE NICE NOFILE NPROC RSS RTPRIO RTTIME SIGPENDING STACK".split()
    )
)
_ACTIONS = frozenset(
    f"SCMP_ACT_{name}" for name in "ALLOW ERRNO KILL KILL_PROCESS KILL_THREAD LOG NOTIFY TRACE TRAP".split()
)
_OPERATORS = frozenset(f"SCMP_CMP_{name}" for name in "EQ GE GT LE LT MASKED_EQ NE".split())
_KINDS = {
    0x80: "time",
    0x20000: "mount",
    0x2000000: "cgroup",
    0x4000000: "uts",
    0x8000000: "ipc",
    0x10000000: "user",
    0x20000000: "pid",
    0x40000000: "network",
}
_OF_IPC = frozenset(
    f"kernel.{name}" for name in "msgmax msgmnb msgmni sem shmall shmmax shmmni shm_rmid_forced".split()
)
_OF_THE_HOST = ("debug.", "dev.", "fs.", "kernel.", "vm.")  # no namespace has its own, except for those above


def judge(found: Refusals, document: dict[str, Any], may_ask: Callable[[str, str], bool]) -> None:
    """Checks what needs no rootfs. ``may_ask``: whether a path of the host, named at a place, may be inspected."""
    if not isinstance(document.get("linux"), dict):
        found.add("/linux", "missing", by=CRUN)
    settings = members(document.get("linux"))
    kinds = {}
    for number, entry in enumerate(_objects(settings.get("namespaces"))):
        kinds[entry.get("type")] = entry.get("path") or None
        _judge_namespace(found, f"/linux/namespaces/{number}", entry, may_ask)
    process = members(document.get("process"))
    is_mapped = "user" in kinds and kinds["user"] is None
    _judge_user(found, members(process.get("user")), settings if is_mapped else {})
    if is_mapped:
        _judge_mappings(found, settings)
    _judge_names(found, document, has_uts="uts" in kinds)
    _judge_sysctl(found, members(settings.get("sysctl")), kinds)
    _judge_process(found, process)
    _judge_seccomp(found, members(settings.get("seccomp")))
    if settings.get("rootfsPropagation") in ("unbindable", "runbindable"):
        found.warn(
            "/linux/rootfsPropagation", "runc 1.1.5 refuses unbindable, because it binds the rootfs itself afterwards"
        )
    for number, device in enumerate(_objects(settings.get("devices"))):
        at, path = f"/linux/devices/{number}", device.get("path")
        if device.get("type") not in ("b", "c", "p", "u"):
            found.add(f"{at}/type", "is not b, c, u or p", by=RUNC)
        if device.get("type") != "p" and isinstance(path, str) and not path.startswith("/"):
            found.add(f"{at}/path", f'"{path}" is not absolute', by=CRUN)


def judge_rootfs(found: Refusals, bundle: Bundle) -> None:
    """Checks the path of the rootfs for links. ``bundle`` has it resolved."""
    named = bundle.config.root_path
    try:
        path = files.clean_path(files.below(files.real_path(bundle.path), named))
    except OSError:
        return
    if path != bundle.rootfs:
        found.add("/root/path", f"{named} leads through a link to {bundle.rootfs}", by=RUNC)


def judge_places(found: Refusals, document: dict[str, Any], root: Root) -> None:
    """Checks the paths in ``root`` that are masked, made read-only or become devices: none may be below a file."""
    settings = members(document.get("linux"))
    named = [
        *(
            (f"/linux/{member}/{number}", path)
            for member in ("maskedPaths", "readonlyPaths")
            for number, path in enumerate(texts(settings.get(member)))
        ),
        *(
            (f"/linux/devices/{number}/path", str(device.get("path", "")))
            for number, device in enumerate(_objects(settings.get("devices")))
        ),
    ]
    for at, path in named:
        try:
            root.resolve(path).close()
        except RequestError as problem:
            found.add(at, problem.problem)
        except (HookError, ValueError):
            continue


def _judge_namespace(found: Refusals, at: str, entry: dict[str, Any], may_ask: Callable[[str, str], bool]) -> None:
    kind, path = entry.get("type"), entry.get("path")
    if path == "":
        found.add(f"{at}/path", "empty", by=CRUN)
    if not path or not isinstance(path, str) or not path.startswith("/") or not may_ask(f"{at}/path", path):
        return
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        found.add_missing(f"{at}/path", path, f"{path} does not exist")
        return
    except (OSError, ValueError):
        return
    try:
        if linux.fstatfs_type(fd) != linux.NSFS_MAGIC:
            found.add(f"{at}/path", f"{path} is not a namespace")
        elif _kind_of(fd) != kind:
            found.add(f"{at}/path", f"{path} is a namespace of another kind than {kind}")
    except OSError:
        pass
    finally:
        os.close(fd)


def _kind_of(fd: int) -> str | None:
    """Returns the kind of a namespace opened with O_PATH, None if this version does not know it. Raises OSError."""
    opened = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return _KINDS.get(linux.namespace_type(opened))
    finally:
        os.close(opened)


def _judge_user(found: Refusals, user: dict[str, Any], settings: dict[str, Any]) -> None:
    """Checks ids. ``settings`` has the id maps of a user namespace that will be created for the container, if any."""
    gids = user.get("additionalGids")
    ids = [("uid", user.get("uid"), "uidMappings"), ("gid", user.get("gid"), "gidMappings")]
    ids += [(f"additionalGids/{number}", gid, "gidMappings") for number, gid in enumerate(_list(gids))]
    for name, number, member in ids:
        at = f"/process/user/{name}"
        if not isinstance(number, int) or isinstance(number, bool):
            continue  # missing, or for another platform
        runs = list(_runs(settings.get(member)))
        if not 0 <= number <= _UINT32 or (number == _UINT32 and member == "gidMappings" and "/" in name):
            found.add(at, f"{number} is not a valid id")
        elif runs and not any(inside <= number < inside + size for inside, _, size in runs):
            found.add(at, f"{number} is not mapped in the container's user namespace, by /linux/{member}")
        elif number > _MOST_OF_RUNC:
            found.warn(at, f"runc 1.1 refuses ids above {_MOST_OF_RUNC}")


def _judge_mappings(found: Refusals, settings: dict[str, Any]) -> None:
    """Checks the id maps of a new user namespace, user_namespaces(7)."""
    for member in ("uidMappings", "gidMappings"):
        at, runs = f"/linux/{member}", list(_runs(settings.get(member)))
        if not runs:
            found.add(at, "missing or empty, but required with a new user namespace", by=RUNC)
        elif any(not size for _, _, size in runs):
            found.add(at, "a range has no ids, which the kernel refuses")
        elif _overlap([(inside, size) for inside, _, size in runs]) or _overlap([(id_, size) for _, id_, size in runs]):
            found.add(at, "two ranges overlap, which the kernel refuses")
        elif not any(inside == 0 for inside, _, _ in runs):
            found.add(at, "0 is not mapped, but the runtime starts the container as 0")


def _judge_names(found: Refusals, document: dict[str, Any], *, has_uts: bool) -> None:
    for member, by in (("hostname", BOTH), ("domainname", CRUN)):
        name = document.get(member)
        if not isinstance(name, str) or not name:
            continue
        if not has_uts:
            found.add(f"/{member}", "this requires a uts namespace", 'add {"type": "uts"} to namespaces', by)
        elif member == "hostname" and len(linux.encode_path(name)) > _HOSTNAME_MAX:
            found.add(f"/{member}", f"longer than {_HOSTNAME_MAX} bytes")


def _judge_sysctl(found: Refusals, values: dict[str, Any], kinds: dict[Any, Any]) -> None:
    for key in values:
        name = key if "." in key.partition("/")[0] else key.replace("/", ".")
        at = f"/linux/sysctl{step(key)}"
        needs = ""
        if name in _OF_IPC or name.startswith("fs.mqueue."):
            needs = "ipc"
        elif name.startswith("net."):
            needs = "network"
        elif name == "kernel.domainname":
            needs = "uts"
        if needs and needs not in kinds:
            found.add(at, f"the container has no {needs} namespace, and runtimes do not change that of the host")
        elif name == "kernel.hostname":
            found.add(at, "set the hostname by /hostname in config.json, not by a sysctl")
        elif name.startswith(_OF_THE_HOST) and not needs:
            found.add(at, "no namespace isolates it: it would change the host", "set it on the host")
        elif not needs:
            found.warn(at, "runc 1.1 and crun 1.8 take sysctls of ipc, network and uts namespaces only")


def _judge_process(found: Refusals, process: dict[str, Any]) -> None:
    for number, variable in enumerate(texts(process.get("env"))):
        name, equals, _ = variable.partition("=")
        if not name or not equals:
            found.add(f"/process/env/{number}", f'"{variable}" is not NAME=VALUE', by=RUNC)
    for number, limit in enumerate(_objects(process.get("rlimits"))):
        at, kind = f"/process/rlimits/{number}", limit.get("type")
        soft, hard = limit.get("soft"), limit.get("hard")
        if not _is_one_of(kind, _RLIMITS):
            found.add(f"{at}/type", f'"{kind}" is not a resource of setrlimit(2)')
        elif isinstance(soft, int) and isinstance(hard, int) and soft > hard >= 0:
            found.add(f"{at}/soft", f"{soft} exceeds hard, {hard}")
    score = process.get("oomScoreAdj")
    if isinstance(score, int) and not -1000 <= score <= 1000:
        found.add("/process/oomScoreAdj", f"{score} is not from -1000 to 1000")


def _judge_seccomp(found: Refusals, seccomp: dict[str, Any]) -> None:
    at = "/linux/seccomp"
    named = [("defaultAction", seccomp.get("defaultAction", "SCMP_ACT_ALLOW"))]
    for number, rule in enumerate(_objects(seccomp.get("syscalls"))):
        named.append((f"syscalls/{number}/action", rule.get("action")))
        for index, argument in enumerate(_objects(rule.get("args"))):
            if not _is_one_of(argument.get("op"), _OPERATORS):
                place = f"{at}/syscalls/{number}/args/{index}/op"
                found.add(place, f'"{argument.get("op")}" is not an operator of libseccomp')
    for place, action in named:
        if not _is_one_of(action, _ACTIONS):
            found.add(f"{at}/{place}", f'"{action}" is not an action of libseccomp')


def _is_one_of(value: object, words: frozenset[str]) -> bool:
    return isinstance(value, str) and value in words


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _objects(value: object) -> list[dict[str, Any]]:
    """Returns the objects of an array. Anything else becomes an empty object, so that the numbers stay the same."""
    return [members(each) for each in _list(value)]


def _runs(value: object) -> Iterator[tuple[int, int, int]]:
    """Yields the runs of a valid id map."""
    for run in _objects(value):
        yield run.get("containerID", 0), run.get("hostID", 0), run.get("size", 0)


def _overlap(runs: list[tuple[int, int]]) -> bool:
    runs = sorted(runs)
    return any(first + size > second for (first, size), (second, _) in itertools.pairwise(runs))
