# SPDX-License-Identifier: Apache-2.0
"""Checks what the hook needs on this machine, and reports what does not work without it.

Starts runtimes and engines to get their versions. No container is involved.
"""

from __future__ import annotations

import importlib.metadata
import os
import shlex
import stat
import sys

from ...errors import HookError, RecordError
from ...kernel import files, linux, rights
from ...kernel.chroot import is_in_chroot
from ...kernel.proc import Proc
from ...lifecycle.stage import CHROOT_HINT
from ...log import JOURNAL_SOCKET, SYSLOG_SOCKET, few
from ...options import state_folder
from ...record import missing
from ...record.folder import StateFolder
from ..upkeep import folders
from ..upkeep.listing import Registry
from . import cdi, hooks_d, launcher, machine, registration, settings, sources
from .check import Check
from .finding import Finding
from .problems import EXPOSES, WARNS
from .timer import which
from .written import existing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

RUNTIMES = ("runc", "crun", "runsc", "youki")
SECONDS = 10

# What is lost without each kernel feature. Only pidfds have no replacement.
FEATURES = {
    "open_tree": "binds are made by mount(2)",
    "move_mount": "binds are made by mount(2)",
    "mount_setattr": "binds are made by mount(2), and owners cannot be mapped",
    "idmapped mounts": "owners cannot be mapped (idmap)",
    "idmapped tmpfs": "owners of a tmpfs cannot be mapped (idmap)",
    "openat2": "destinations are not checked a second time",
    "statx mnt_id": "mounts are identified through procfs",
    "statx mnt_id_unique": "a mount is identified by its id and its path; a moved one must be unmounted by hand",
    "statmount": "mountinfo shows whether a mount still exists",
    "mount namespace id": "a mount namespace is identified by a number that the kernel reuses",
    "pidfd": "the hook cannot enter containers: createRuntime and prestart do not work",
}
NEEDED_FEATURES = ("pidfd",)

_CHECK = "oci-bind-hook install --check"


def examine() -> list[Finding]:
    """Returns all findings, as far as this user can see."""
    if (procfs := _procfs()).is_problem:
        return [*_software(), procfs]  # all others depend on it
    hooks_folders, cdi_folders = machine.searched()
    check = Check(hooks_folders, None, cdi_folders)
    recorded = [
        each for one in folders.of(folders.at(None)) for each in (*_state_folder(one.root), *_left_behind(one.root))
    ]
    recorded += _of_users()
    # What is wrong with a launcher or a source is also a problem of its folder, which says less.
    unread = machine.unread([*machine.everywhere(), *check.ours])
    hooks = [*_launchers(), *_sources(check), *_hooks(check, unread), *_unread(unread), _timer(check)]
    for each in hooks:
        each.is_general = False
    programs = [*_programs(), *_engines(check, unread)]
    system = [*_software(), *_kernel(), procfs, *_chroot(), *_capabilities()]
    return [*system, *recorded, *hooks, *programs, _syslog(check)]


def _software() -> Iterator[Finding]:
    yield Finding("Python", sys.version.split()[0], is_there=True)
    for name in launcher.DEPENDENCIES:
        try:
            yield Finding(name, importlib.metadata.version(name), is_there=True)
        except importlib.metadata.PackageNotFoundError:
            without = "a run that needs it fails with exit code 70"
            advice = f"reinstall the package, or install {name} for {sys.executable}"
            yield Finding(name, "", is_there=False, is_needed=True, without=without, advice=advice)


def _kernel() -> Iterator[Finding]:
    yield Finding("kernel", os.uname().release, is_there=True)
    there = linux.features()
    for name, without in FEATURES.items():
        is_needed = name in NEEDED_FEATURES
        advice = "run Linux 5.8 or later" if is_needed else ""
        yield Finding(name, "", is_there=there[name], is_needed=is_needed, without=without, advice=advice)


def _chroot() -> Iterator[Finding]:
    if is_in_chroot():
        name, without = "mount namespace", "the hook cannot enter containers: createRuntime and prestart do not work"
        detail = "/ is not its root, but that of a chroot"
        yield Finding(name, detail, is_there=False, is_needed=True, without=without, advice=CHROOT_HINT)


def _procfs() -> Finding:
    try:
        Proc()
    except HookError as problem:
        advice, without = "mount procfs on /proc", "nothing works"
        return Finding("procfs", str(problem), is_there=False, is_needed=True, without=without, advice=advice)
    return Finding("procfs", "", is_there=True)


def _capabilities() -> Iterator[Finding]:
    is_root = os.geteuid() == 0
    for name, use in rights.CAPABILITIES.items():
        # For an ordinary user, the runtime grants it in a user namespace.
        without = use if is_root else "the runtime grants it at createContainer in a rootless container"
        advice = f"run it with the capability {name}, which root has outside of containers"
        has = rights.has_capability(name)
        yield Finding(name, "", is_there=has, is_needed=is_root, without=without, advice=advice if is_root else "")


def _state_folder(root: str | None) -> Iterator[Finding]:
    name = _named("state folder", root)
    try:
        proc = Proc()
        path = state_folder(folders.at(root), proc)
        folder = StateFolder.open(path, create=False)
        kind = _file_system(proc, path)
    except HookError as problem:
        yield _unusable(root, str(problem), problem.hint)
        return
    lasting = "lost at reboot" if kind in ("tmpfs", "ramfs") else "kept across reboots"
    if folder is not None:
        mode = stat.S_IMODE(os.stat(path).st_mode)
        number = len(folders.state_files(path))
        detail = f"{path}, mode {mode:04o}, uid {os.stat(path).st_uid}, on {kind} ({lasting}), containers recorded:"
        yield Finding(name, f"{detail} {number}", is_there=True)
    elif os.access(existing(path), os.W_OK | os.X_OK):
        yield Finding(name, f"{path} is created at first use, on {kind} ({lasting})", is_there=True)
    else:
        detail = f"{path} does not exist, and {existing(path)} is not writable"
        advice = missing.hint(path)
        if root is not None and os.geteuid() != 0:
            # A folder that this user creates would be refused to root, whose containers may have the registration, too.
            advice = "register the hook without --root: each user then has a state folder of their own"
        yield _unusable(root, detail, advice)


def _unusable(root: str | None, detail: str, advice: str) -> Finding:
    name, without = _named("state folder", root), "nothing can be recorded, so nothing is mounted"
    is_general = root is None  # other registrations may have another folder
    return Finding(name, detail, is_there=False, is_needed=True, without=without, advice=advice, is_general=is_general)


def _of_users() -> Iterator[Finding]:
    """Reports the records of users, which root's list and gc do not read."""
    for uid, path, count in folders.of_users():
        detail = f"{path}, containers recorded: {count}; only `list` and `gc` of user {uid} read them"
        yield Finding(f"state folder of user {uid}", detail, is_there=True)


def _named(name: str, root: str | None) -> str:
    """Returns the name of a finding for one of several state folders."""
    return name if root is None else f"{name} --root {root}"


def _left_behind(root: str | None) -> Iterator[Finding]:
    """Reports what gc would undo, by boot and process only: a rootfs may never answer, so none is inspected."""
    try:
        registry = Registry(folders.at(state_folder(folders.at(root), Proc())))
    except HookError:
        return  # the finding on the state folder reports it
    if (folder := registry.folder) is None:
        return
    dead = leftovers = unreadable = 0
    for container in registry.names():
        if folder.is_locked(container):
            continue
        try:
            record = folder.load(container)
        except RecordError:
            unreadable += 1
        else:
            leftovers += record is None
            dead += record is not None and registry.witness.judge(record)[0] == "dead"
    counts = {"dead containers": dead, "killed runs": leftovers, "unreadable state files": unreadable}
    detail = ", ".join(f"{name}: {number}" for name, number in counts.items() if number) or "nothing"
    command = folders.gc_command(root)
    is_clean = not any(counts.values())
    without = (
        f"`{command}` undoes it" if not unreadable else f"`{command}` undoes what it can, and says what else to do"
    )
    yield Finding(_named("left behind", root), detail, is_there=is_clean, without=without, advice=command)


def _file_system(proc: Proc, path: str) -> str:
    fd = os.open(existing(path), os.O_PATH | os.O_CLOEXEC)
    try:
        mount = proc.mounts().get(files.statx(fd).mnt_id)
    finally:
        os.close(fd)
    return mount.type if mount else "an unknown file system"


def _hooks(check: Check, unread: Mapping[str, str]) -> Iterator[Finding]:
    for folder in check.folders:
        yield _folder(f"hooks.d {folder.path}", folder, check)
    for cdi_folder in check.cdi_folders:
        yield _folder(f"CDI {cdi_folder.path}", cdi_folder, check, len(cdi_folder.unread))
    for path in dict.fromkeys([*(file.path for file in check.runtimes), *(path for path, _ in settings.dangling())]):
        bad = [each.message for each in check.problems if each.path == path and each.effect != WARNS]
        yield Finding(f"runtimes in {path}", "", is_there=not bad, is_needed=bool(bad), without="; ".join(bad))
    known = [one for one in (*check.ours, *machine.base_specs()) if one.path not in unread]
    ours = [f"{one.path}, {one.device}" if one.device else one.path for one in known]
    exposed = [each for each in check.problems if each.effect == EXPOSES]
    if exposed:
        detail = ": ".join(filter(None, (exposed[0].path, exposed[0].pointer)))
        message = exposed[0].message
        yield Finding("registration", detail, is_there=False, is_needed=True, without=message, advice=_CHECK)
        return
    without = "no engine calls the hook; `install` registers it"
    if yaml := [file.path for folder in check.cdi_folders for file in folder.unread if file.names_us]:
        without = f"{', '.join(yaml)} may register it, but doctor does not read YAML; `install` writes JSON"
    # If an engine is installed, its own finding has the command.
    has_own = any(not machine.serves_docker(name) for name, _ in machine.programs())
    advice = "" if yaml or has_own else "oci-bind-hook install --help, to register the hook"
    yield Finding("registration", ", ".join(ours), is_there=bool(ours), without=without, advice=advice)


def _launchers() -> Iterator[Finding]:
    """Checks the launchers of registrations. Their Python or package may have been deleted without uninstall."""
    kinds: dict[str, set[str]] = {}
    for one in machine.everywhere():
        kinds.setdefault(one.launcher, set()).add(one.kind)
    for path in sorted(kinds):
        fault = launcher.fault(path)
        name, without, advice = f"launcher {path}", fault, ""
        if not launcher.hidden(path):
            again = "" if fault.endswith("run install again") else ": run install again"
            without, advice = f"{without}{again}", "install again"
            if prefix := launcher.prefix_of(path):
                removal = f"oci-bind-hook uninstall --all --prefix {shlex.quote(prefix)}"
                without, advice = f"{without}, or {removal}", f"{removal}, or install again"
            if "hooks.d" in kinds[path] and not os.path.lexists(path):
                without += "; until then podman and CRI-O start containers without the binds"
        yield Finding(name, "", is_there=not fault, is_needed=bool(fault), without=without, advice=advice)


def _sources(check: Check) -> Iterator[Finding]:
    """Reports sources of registrations that cannot be bound now."""
    found = check.judge_sources()
    found += sources.problems(machine.base_specs())
    for each in found:
        is_needed = each.effect != WARNS
        name, without = f"{each.place} of {each.path}", ": ".join(filter(None, (each.detail, each.consequence)))
        advice = "" if is_needed else _CHECK
        yield Finding(name, "", is_there=False, is_needed=is_needed, without=without, advice=advice)


def _folder(name: str, folder: hooks_d.Folder | cdi.Folder, check: Check, unread: int = 0) -> Finding:
    problems = [each for each in check.problems if f"{each.path}/".startswith(f"{folder.path}/")]
    bad = [each for each in problems if each.effect != WARNS]
    detail = "does not exist" if not folder.is_there else f"files: {len(folder.files)}, problems: {len(bad)}"
    detail += f", warnings: {len(problems) - len(bad)}" if len(bad) < len(problems) else ""
    detail += f", not checked (YAML): {unread}" if unread else ""
    is_good, without = folder.is_there and not bad, "`install --check` has the details" if bad else ""
    advice = _CHECK if bad else ""
    return Finding(name, detail, is_there=is_good, is_needed=bool(bad), without=without, advice=advice)


def _timer(check: Check) -> Finding:
    timer = check.timer
    warnings = timer.warnings(check.roots)
    if not timer.launcher:
        commands = [f"`oci-bind-hook install --gc-timer --prefix {shlex.quote(each)}`" for each in machine.prefixes()]
        adding = f"{' or '.join(commands)} adds a timer" if commands else "`install` adds a timer if it has --gc-timer"
        without = f"nothing runs gc regularly; {adding}"
        return Finding("gc timer", "", is_there=False, without=without)
    advice = f"gc timer: {warnings[0]}" if warnings else ""
    return Finding("gc timer", timer.timer, is_there=not warnings, without="; ".join(warnings), advice=advice)


def _programs() -> Iterator[Finding]:
    found = {name: path for name in RUNTIMES if (path := which(name))}
    if not found:
        detail = "none of " + ", ".join(RUNTIMES) + " is on PATH"
        without, advice = "nothing calls the hook", "install runc or crun"
        yield Finding("runtime", detail, is_there=False, is_needed=True, without=without, advice=advice)
    for name, path in found.items():
        version = version_of(path)
        detail = f"{path}, {version}" if version else f"{path} does not report its version"
        yield Finding(name, detail, is_there=bool(version), without="it may not work")


def _unread(unread: Mapping[str, str]) -> Iterator[Finding]:
    """Reports the registrations that no engine reads, each with the reason."""
    for path, why in unread.items():
        advice = machine.to_read(os.path.dirname(path))
        yield Finding(f"hooks.d file {path}", "no engine reads it", is_there=False, without=why, advice=advice)


def _engines(check: Check, unread: Mapping[str, str]) -> Iterator[Finding]:
    """Reports the installed engines, and whether a registration is for them."""
    # Engines skip a file whose launcher does not exist. Another registration would not help.
    skipped = [one for file in check.files if file.is_absent and (one := registration.of_hooks_d(file)) is not None]
    # Each engine reads these, and the folders that its own settings name.
    common = (*hooks_d.FOLDERS, *cdi.FOLDERS)
    called = [one for one in (*check.ours, *skipped) if one.path not in unread]
    known = {one.kind for one in called if one.kind == "runtime" or os.path.dirname(one.path) in common}
    for name, path in machine.programs():
        version = version_of(path)
        kinds = known | {one.kind for one in registration.find(*machine.folders(name), ())}
        command = machine.missing(name, version, kinds)
        advice = f"oci-bind-hook {command}"
        without = f"it does not call the hook yet: run {advice}"
        if unread and name in machine.FILES:
            # Another registration would bind a second time once the setting is made.
            advice, without = "", "it does not call the hook yet, because it does not read the file in hooks.d above"
        detail = f"{path}, {version or 'version not reported'}"
        detail += ", without its CRI plugin: it only runs containers of docker" if machine.serves_docker(name) else ""
        yield Finding(name, detail, is_there=not command, without=without, advice=advice)


def version_of(path: str) -> str:
    """Returns the first line of a program's --version, "" if it prints none."""
    import subprocess

    try:
        command = [path, "--version"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode(errors="replace").strip().partition("\n")[0]


def _syslog(check: Check) -> Finding:
    path = machine.syslog()
    detail = path or f"neither {JOURNAL_SOCKET} nor {SYSLOG_SOCKET} exists"
    options = [(one.path, registration.options_of(one.arguments)) for one in check.ours]
    unheard = [path for path, given in options if given is not None and given.log is None]
    without = "crun discards what hooks print, so only --log FILE shows failures"
    if unheard:
        again = f"install {few(unheard)} again with --log FILE after --"
        without = f"crun discards what hooks print: to see failures, {again}"
    return Finding("syslog", detail, is_there=bool(path), without=without)
