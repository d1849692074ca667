# SPDX-License-Identifier: Apache-2.0
"""Bundles that runtimes refuse, or might: each a good one with one fault. docs/RUNTIMES.md is the table of them."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

from helpers import support

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Config = dict[str, Any]

    # Breaks a config and its bundle, in which ``source`` is a folder and ``file`` a file, beside ``rootfs``.
    Break = Callable[[Config, Path], object]

FAULTS: dict[str, Break] = {}
_PROGRAM = "/bin/program"


def bundle(path: Path) -> Config:
    """Makes the good bundle at ``path``, and returns its config, which is not written yet."""
    (path / "source").mkdir(parents=True)
    (path / "file").write_text("x")
    support.bundle(path, ["true"])
    config: Config = json.loads((path / "config.json").read_text())
    return config


def _fault(name: str) -> Callable[[Break], Break]:
    def note(breaks: Break) -> Break:
        FAULTS[name] = breaks
        return breaks

    return note


def _mounts(name: str, *mounts: dict[str, Any], link: tuple[str, str] = ("", "")) -> None:
    """A fault of more mounts, in whose sources {} is the bundle, and perhaps of a link in the rootfs."""

    def breaks(config: Config, path: Path) -> None:
        if link[0]:
            os.symlink(link[1], path / "rootfs" / link[0])
        for mount in mounts:
            config["mounts"].append({**mount, "source": mount.get("source", "").replace("{}", str(path))})

    FAULTS[name] = breaks


def _set(name: str, pointer: str, value: object) -> None:
    """A fault of one member."""
    *above, last = pointer.split("/")[1:]

    def breaks(config: Config, _: Path) -> None:
        place = config
        for member in above:
            place = place.setdefault(member, {})
        place[last] = value

    FAULTS[name] = breaks


def _without(name: str, pointer: str) -> None:
    *above, last = pointer.split("/")[1:]

    def breaks(config: Config, _: Path) -> None:
        place = config
        for member in above:
            place = place[member]
        del place[last]

    FAULTS[name] = breaks


def _program(name: str, text: str | None, mode: int = 0o755) -> None:
    """A fault of the program that is run; without a text it is a folder."""

    def breaks(config: Config, path: Path) -> None:
        program = path / f"rootfs{_PROGRAM}"
        if text is None:
            program.mkdir()
        else:
            program.write_text(text)
            program.chmod(mode)
        config["process"]["args"] = [_PROGRAM]

    FAULTS[name] = breaks


def _namespaces(name: str, *, without: str = "", path: str = "", **members: object) -> None:
    """A fault of a namespace that is not there, or of the ``path`` of that for ipc, with more members."""

    def breaks(config: Config, folder: Path) -> None:
        namespaces = config["linux"]["namespaces"]
        namespaces[:] = [each for each in namespaces if each["type"] != without]
        if path:
            [each] = [each for each in namespaces if each["type"] == "ipc"]
            each["path"] = path.replace("{}", str(folder))
        if without == "uts":
            del config["hostname"]
        config.update(members)

    FAULTS[name] = breaks


def _user_namespace(name: str, *, uids: object = None, gids: object = None, **user: object) -> None:
    """A fault with a user namespace of 1000 ids."""
    mapped = [{"containerID": 0, "hostID": 0, "size": 1000}]

    def breaks(config: Config, _: Path) -> None:
        config["linux"]["namespaces"].append({"type": "user"})
        config["linux"]["uidMappings"] = mapped if uids is None else uids
        config["linux"]["gidMappings"] = mapped if gids is None else gids
        config["process"]["user"].update(user)

    FAULTS[name] = breaks


def _hook(name: str, stage: str, path: str, text: str | None = None, mode: int = 0o755) -> None:
    """A fault of a hook, which with a text is made in the bundle, at {}."""

    def breaks(config: Config, folder: Path) -> None:
        program = path.replace("{}", str(folder))
        if text is not None:
            (folder / "hook").write_text(text)
            (folder / "hook").chmod(mode)
        config["hooks"] = {stage: [{"path": program, "args": ["hook"], "env": ["A=b"]}]}

    FAULTS[name] = breaks


FOLDER, FILE = "{}/source", "{}/file"

_mounts("no fault", support.bind(FOLDER, "/new/a"))
_mounts("a source does not exist", support.bind("/absent", "/data"))
_mounts("a source is below a file", support.bind(f"{FILE}/x", "/data"))
_mounts("a relative source does not exist in the bundle", support.bind("absent", "/data"))
_mounts("a source in /run does not exist", support.bind("/run/absent", "/data"))
_mounts("a folder is bound on a file", support.bind(FOLDER, "/etc/passwd"))
_mounts("a file is bound on a folder", support.bind(FILE, "/data"))
_mounts("a folder is bound on a link to a file", support.bind(FOLDER, "/to"), link=("to", "/etc/passwd"))
_mounts("a tmpfs on a file", {"destination": "/etc/passwd", "type": "tmpfs", "source": "tmpfs"})
_mounts("a destination is below a file", support.bind(FOLDER, "/etc/passwd/x"))
_mounts("a destination is a loop of links", support.bind(FOLDER, "/loop"), link=("loop", "loop"))
_mounts("a name in a destination is too long", support.bind(FOLDER, f"/{'x' * 300}"))
_mounts("a destination is relative", support.bind(FOLDER, "data"))
_mounts("a destination is empty", support.bind(FOLDER, ""))
_mounts("a folder is bound on a dangling link", support.bind(FOLDER, "/dangling"))
_mounts("a folder is bound below a dangling link", support.bind(FOLDER, "/dangling/x"))
_mounts("a file is bound on a dangling link", support.bind(FILE, "/dangling"))
_mounts("a tmpfs on a dangling link", {"destination": "/dangling", "type": "tmpfs", "source": "tmpfs"})
_mounts("a destination is a link that leads above the root", support.bind(FOLDER, "/climb"))
_mounts("sysfs on a link", {"destination": "/to", "type": "sysfs", "source": "sysfs"}, link=("to", "/data"))
_mounts("a destination does not exist in procfs", support.bind(FOLDER, "/proc/absent"))
_mounts("a folder of procfs is covered", support.bind(FOLDER, "/proc/fs"))
_mounts("a file of procfs is covered where that is allowed", support.bind(FILE, "/proc/uptime"))
_mounts("a bind covers /proc", support.bind(FOLDER, "/proc"))
_mounts(
    "a mount point does not exist in a read-only bind",
    support.bind(FOLDER, "/data", "ro"),
    support.bind(FOLDER, "/data/x"),
)
_mounts("type bind without the option bind", {"destination": "/data", "type": "bind", "source": FOLDER})
_mounts("neither type bind nor the option bind", {"destination": "/data", "source": FOLDER})
_mounts("the option bind without a type", {"destination": "/data", "source": FOLDER, "options": ["bind"]})
_mounts("an unknown file system", {"destination": "/data", "type": "absentfs", "source": "x"})
_mounts("`readonly` on a bind", support.bind(FOLDER, "/data", "readonly"))
_mounts("`readonly` on a tmpfs", {"destination": "/data", "type": "tmpfs", "source": "x", "options": ["readonly"]})
_mounts("`nosuids` on procfs", {"destination": "/data", "type": "proc", "source": "x", "options": ["nosuids"]})
_without("no mounts in config.json", "/mounts")
_set("nothing is mounted on /proc", "/mounts", [])

_set("the rootfs does not exist", "/root/path", "absent")
_set("the rootfs is a file", "/root/path", "file")
_set("root.path is empty", "/root/path", "")


@_fault("the rootfs is a link")
def _(_: Config, path: Path) -> None:
    os.rename(path / "rootfs", path / "other")
    os.symlink("other", path / "rootfs")


@_fault("the rootfs is empty")
def _(_: Config, path: Path) -> None:
    shutil.rmtree(path / "rootfs")
    os.mkdir(path / "rootfs")


_without("no process", "/process")
_without("no linux", "/linux")
_set("process.cwd is empty", "/process/cwd", "")
_set("process.cwd is relative", "/process/cwd", "data")
_set("process.cwd does not exist in the image", "/process/cwd", "/absent/x")
_set("process.cwd is a file", "/process/cwd", "/etc/passwd")
_set("process.cwd is below a file", "/process/cwd", "/etc/passwd/x")
_set("process.cwd is a dangling link", "/process/cwd", "/dangling")
_without("no process.args", "/process/args")
_set("process.args is empty", "/process/args", [])
_set("args[0] is empty", "/process/args", [""])
_set("args[0] is not found in PATH", "/process/args", ["absent"])
_set("args[0] does not exist", "/process/args", ["/bin/absent"])
_set("args[0] is a dangling link", "/process/args", ["/dangling"])
_set("args[0] is below a file", "/process/args", ["/etc/passwd/x"])
_set("args[0] is in no folder of PATH", "/process/env", ["PATH=/absent"])
_set("only a second PATH has the program", "/process/env", ["PATH=/absent", f"PATH={support.PATH}"])
_set("process.env has no PATH", "/process/env", [])


def _found_in_cwd(name: str, path: str, cwd: str) -> None:
    """A fault of a PATH that has the program only in the folder where it is run."""

    def breaks(config: Config, _: Path) -> None:
        config["process"].update(cwd=cwd, env=[f"PATH={path}"])

    FAULTS[name] = breaks


_found_in_cwd("PATH begins with an empty folder, which is cwd", ":/absent", "/bin")
_found_in_cwd("PATH ends with an empty folder, which is cwd", "/absent:", "/bin")
_found_in_cwd("PATH has an empty folder before the program's", ":/bin", "/etc")
_found_in_cwd("PATH has a relative folder", "bin:/absent", "/")
_found_in_cwd("PATH is empty", "", "/bin")
_program("args[0] is not executable", "#!/bin/sh\n", 0o644)
_program("args[0] is a folder", None)
_program("args[0] is an empty file", "")
_program("args[0] is a script without #!", "true\n")
_program("the interpreter of a script does not exist", "#!/absent/sh\n")
_program("the interpreter of a script is a folder", "#!/bin\n")
_program("the interpreter of a script is a link", "#!/bin/sh\ntrue\n")
_mounts("a bind covers the program", support.bind(FOLDER, "/bin"))
_mounts("a tmpfs covers the program", {"destination": "/bin", "type": "tmpfs", "source": "tmpfs"})


@_fault("the program is in a bind")
def _(config: Config, path: Path) -> None:
    shutil.copy(path / "rootfs/bin/busybox", path / "source/true")
    config["mounts"].append(support.bind(path / "source", "/data"))
    config["process"]["args"] = ["/data/true"]


@_fault("the program is in a bind with noexec")
def _(config: Config, path: Path) -> None:
    FAULTS["the program is in a bind"](config, path)
    config["mounts"][-1]["options"].append("noexec")


@_fault("the dynamic linker does not exist")
def _(config: Config, path: Path) -> None:
    shutil.copy("/usr/bin/true", path / f"rootfs{_PROGRAM}")
    config["process"]["args"] = [_PROGRAM]


_set("process.env has a name without a value", "/process/env", [f"PATH={support.PATH}", "NAME"])
_set("process.user.uid is negative", "/process/user/uid", -1)
_set("process.user.uid is 2^31", "/process/user/uid", 1 << 31)
_set("an additional gid is 2^32-1", "/process/user/additionalGids", [0xFFFFFFFF])
_set("an unknown capability", "/process/capabilities", {"bounding": ["CAP_ABSENT"]})
_set("an unknown rlimit", "/process/rlimits", [{"type": "RLIMIT_ABSENT", "soft": 1, "hard": 1}])
_set("a soft rlimit above the hard one", "/process/rlimits", [{"type": "RLIMIT_NOFILE", "soft": 200, "hard": 100}])
_set("oomScoreAdj is 2000", "/process/oomScoreAdj", 2000)

_user_namespace("no fault, with a user namespace")
_user_namespace("process.user.uid is not mapped", uid=2000)
_user_namespace("process.user.gid is not mapped", gid=2000)
_user_namespace("an additional gid is not mapped", additionalGids=[2000])
_user_namespace("a user namespace without id maps", uids=[], gids=[])
_user_namespace("id maps overlap", uids=[{"containerID": at, "hostID": 0, "size": 9} for at in (0, 9)])
_user_namespace("an id map of size 0", uids=[{"containerID": 0, "hostID": 0, "size": 0}])
_user_namespace("0 is not mapped", uids=[{"containerID": 1, "hostID": 0, "size": 9}])
_set("id maps without a user namespace", "/linux/uidMappings", [{"containerID": 0, "hostID": 0, "size": 9}])


@_fault("a namespace is listed twice")
def _(config: Config, _: Path) -> None:
    config["linux"]["namespaces"].append({"type": "pid"})


@_fault("an unknown namespace")
def _(config: Config, _: Path) -> None:
    config["linux"]["namespaces"].append({"type": "absent"})


_namespaces("a namespace to join does not exist", path="/absent/ipc")
_namespaces("a namespace to join in /run does not exist", path="/run/absent/ipc")
_namespaces("a namespace to join is a file", path=FILE)
_namespaces("a namespace to join is of another kind", path="/proc/self/ns/net")
_namespaces("a namespace to join exists", path="/proc/self/ns/ipc")
_namespaces("a hostname without a uts namespace", without="uts", hostname="name")
_namespaces("a domainname without a uts namespace", without="uts", domainname="name")
_set("a hostname of 65 bytes", "/hostname", "x" * 65)


def _sysctl(name: str, key: str, *, without: str = "") -> None:
    def breaks(config: Config, _: Path) -> None:
        namespaces = config["linux"]["namespaces"]
        namespaces[:] = [each for each in namespaces if each["type"] != without]
        if without == "uts":
            del config["hostname"]
        config["linux"]["sysctl"] = {key: "1"}

    FAULTS[name] = breaks


_sysctl("an ipc sysctl without an ipc namespace", "kernel.shm_rmid_forced", without="ipc")
_sysctl("a net sysctl without a network namespace", "net.ipv4.ip_forward", without="network")
_sysctl("an mqueue sysctl without an ipc namespace", "fs.mqueue.msg_max", without="ipc")
_sysctl("a uts sysctl without a uts namespace", "kernel.domainname", without="uts")
_sysctl("a uts sysctl", "kernel.domainname")
_sysctl("a sysctl of user namespaces", "user.max_user_namespaces")
_sysctl("kernel.pid_max as a sysctl", "kernel.pid_max")
_sysctl("a net sysctl", "net/ipv4/ip_forward")
_sysctl("vm.swappiness as a sysctl", "vm.swappiness")
_sysctl("kernel.hostname as a sysctl", "kernel.hostname")

_set("an unknown default action of seccomp", "/linux/seccomp", {"defaultAction": "SCMP_ACT_ABSENT"})
_set(
    "an unknown action of seccomp",
    "/linux/seccomp",
    {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["getcwd"], "action": "SCMP_ACT_ABSENT"}]},
)
_set(
    "an unknown system call in seccomp",
    "/linux/seccomp",
    {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["absent"], "action": "SCMP_ACT_ERRNO"}]},
)
_set("rootfsPropagation is unknown", "/linux/rootfsPropagation", "absent")
_set("rootfsPropagation is unbindable", "/linux/rootfsPropagation", "unbindable")
_set("a masked path is below a file", "/linux/maskedPaths", ["/etc/passwd/x"])
_set("a masked path does not exist, another is relative", "/linux/maskedPaths", ["/absent", "proc/kcore"])
_set("a read-only path is below a file", "/linux/readonlyPaths", ["/etc/passwd/x"])
_set("an unknown type of device", "/linux/devices", [{"path": "/dev/x", "type": "x", "major": 1, "minor": 3}])
_set("a device with a relative path", "/linux/devices", [{"path": "dev/x", "type": "c", "major": 1, "minor": 3}])
_set("a device below a file", "/linux/devices", [{"path": "/etc/passwd/x", "type": "c", "major": 1, "minor": 3}])
_set("ociVersion is 2.0.0", "/ociVersion", "2.0.0")

for _stage in ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"):
    _hook(f"a {_stage} hook does not exist", _stage, "/absent/hook")
_hook("a hook in /run does not exist", "createRuntime", "/run/absent/hook")
_hook("a hook is not executable", "createRuntime", "{}/hook", "#!/bin/sh\n", 0o644)
_hook("a hook is an empty file", "createRuntime", "{}/hook", "", 0o755)
_hook("a hook without #!", "createRuntime", "{}/hook", support.READS, 0o755)
_hook("a hook without #!, at createContainer", "createContainer", "{}/hook", support.READS, 0o755)
_hook("a hook is a folder", "createRuntime", "{}/source")
_hook("the interpreter of a hook does not exist", "createRuntime", "{}/hook", "#!/absent/sh\n")
_hook("the path of a hook is relative", "createRuntime", "bin/absent")
