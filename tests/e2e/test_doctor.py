# SPDX-License-Identifier: Apache-2.0
"""What is said of kernels that lack something, and of users who may do less."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from helpers import kernels, mounting, support
from helpers.terminal import on_terminal
from oci_bind_hook import FOLDER
from oci_bind_hook.commands.engines import registration, sources
from oci_bind_hook.commands.engines.doctor import FEATURES
from oci_bind_hook.commands.engines.install import install
from oci_bind_hook.commands.engines.launcher import import_folders
from oci_bind_hook.commands.explain import patience
from oci_bind_hook.kernel import asking, linux
from oci_bind_hook.kernel.proc import Proc, boot_id
from oci_bind_hook.record.folder import StateFolder

if TYPE_CHECKING:
    from helpers.world import World


def test_the_features_are_those_of_the_kernel_that_runs() -> None:
    release = tuple(map(int, platform.release().split("-")[0].split(".")[:2]))
    since = {
        "pidfd": (5, 8),  # setns(2) takes one
        "openat2": (5, 6),
        "statx mnt_id": (5, 8),
        "mount_setattr": (5, 12),
        "idmapped tmpfs": (6, 3),
        "statx mnt_id_unique": (6, 8),
        "statmount": (6, 8),
        "mount namespace id": (6, 11),
    }
    there = linux.features()
    assert there.keys() == FEATURES.keys()
    assert {name: there[name] for name in since} == {name: release >= first for name, first in since.items()}


UID = 1000
OTHER_BOOT = "00000000-0000-0000-0000-000000000000"
RECORD = Path(__file__).parents[1] / "data/state-files/1.json"
LACKS = {
    "before 5.12": {"mount_setattr", "idmapped mounts", "idmapped tmpfs"},
    "filtered": {"open_tree", "move_mount", "mount_setattr", "idmapped mounts", "idmapped tmpfs", "openat2"},
}
NEVER_DENIED = {"filtered": {"move_mount"}}  # which says EPERM to whoever lacks the right, too


def doctor(world: World, *before: str) -> tuple[int, dict[str, str]]:
    """The exit code, and what is said of each thing, by its name."""
    done = subprocess.run([*before, world.launcher, "doctor"], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    lines = [line[8:].split(":")[0] + "\n" + line for line in done.stdout.splitlines()]
    return done.returncode, dict(line.split("\n") for line in lines)


@pytest.mark.parametrize("name", LACKS)
def test_what_an_older_kernel_lacks_is_named_and_no_failure(name: str, world: World) -> None:
    code, before = doctor(world)
    kernels.play(name)
    again, found = doctor(world)
    assert again == code
    lost = {each for each in found if found[each].startswith("without ") and each in FEATURES}
    had = {each for each in FEATURES if before[each].startswith("ok ")}
    assert lost & had == (LACKS[name] - NEVER_DENIED.get(name, set())) & had
    assert {each for each in found if found[each] != before[each]} == lost & had
    assert all(found[each].startswith("without ") and len(found[each].split(": ")) > 1 for each in lost)


def test_a_user_without_rights_has_the_same_features(world: World) -> None:
    mounting.show(sys.base_prefix, *import_folders(), str(Path(world.launcher).parents[3]))
    found = doctor(world, *support.as_user(UID))[1]
    assert found["pidfd"] == "ok      pidfd"


@pytest.mark.parametrize("error", [errno.EINVAL, errno.EPERM, errno.ENOSYS])
def test_setns_that_takes_no_pidfd_is_missing(error: int, world: World) -> None:
    """EINVAL as before Linux 5.8, where it takes the fd of a namespace only; the others as by a seccomp filter."""
    kernels.refuse("setns", error=error)
    code, found = doctor(world)
    assert code == os.EX_UNAVAILABLE
    assert found["pidfd"].startswith("MISSING pidfd: the hook cannot enter containers: ")


def test_what_is_left_behind_is_counted_and_no_rootfs_is_asked(world: World, mute: int) -> None:
    """The rootfs of these containers is on a file system that never answers."""
    mounting.tmpfs("/run", "mode=755")
    folder = Path("/run/oci-bind-hook")
    folder.mkdir(mode=0o700)
    assert doctor(world)[1]["left behind"] == "ok      left behind: nothing"
    record = json.loads(RECORD.read_text())
    record["rootfs"]["path"] = f"{world.rootfs}/mute/rootfs"
    proc, me = Proc(), os.getpid()
    alive = {"pid": me, "start": proc.start_time(me), "first": proc.first_start()}
    members: dict[str, dict[str, object]] = {
        "boot": {"boot": OTHER_BOOT},
        "process": {"boot": boot_id(), "init": {**alive, "start": 1}},
        "alive": {"boot": boot_id(), "init": alive},
        "busy": {"boot": OTHER_BOOT},
    }
    for name in members:
        (folder / f"{name}.json").write_text(json.dumps({**record, "id": name, **members[name]}))
        (folder / f"{name}.json").chmod(0o600)
    for name in ("unreadable.json", "killed.new"):
        (folder / name).write_text("")
    state = StateFolder.open(str(folder), create=False)
    assert state is not None
    with state.lock_id("busy"):
        code, found = doctor(world)
    counts = "dead containers: 2, killed runs: 1, unreadable state files: 1"
    assert (
        found["left behind"]
        == f"to do   left behind: {counts}: `oci-bind-hook gc` undoes what it can, and says what else to do"
    )
    assert code == doctor(world)[0]
    os.fstat(mute)


def test_what_is_left_behind_is_counted_where_the_hook_is_registered(world: World) -> None:
    mounting.tmpfs("/usr/share")
    hooks = "/usr/share/containers/oci/hooks.d"
    install(str(world.path / "p"), (), ["--root", str(world.state)], hooks_dir=hooks)
    (world.state / "killed.new").touch()
    _, found = doctor(world)
    assert found[f"state folder --root {world.state}"].startswith(f"ok      state folder --root {world.state}: ")
    name = f"left behind --root {world.state}"
    assert found[name] == f"to do   {name}: killed runs: 1: `oci-bind-hook gc --root {world.state}` undoes it"


def test_a_user_is_not_told_to_make_the_folder_that_root_needs(world: World) -> None:
    mounting.tmpfs("/usr/share")
    mounting.show(sys.base_prefix, *import_folders(), str(Path(world.launcher).parents[3]))
    root = "/var/lib/oci-bind-hook-of-root"
    install(str(world.path / "p"), (), ["--root", root], hooks_dir="/usr/share/containers/oci/hooks.d")
    done = subprocess.run(
        [*support.as_user(UID), world.launcher, "doctor"], capture_output=True, text=True, check=False
    )
    advice = "register the hook without --root: each user then has a state folder of their own"
    assert done.stdout.endswith(f"\nNot everything works here. First: state folder --root {root}: {advice}\n")


@pytest.mark.parametrize("what", ["launcher", "interpreter", "package"])
def test_a_user_is_told_which_folder_keeps_them_from_running_the_hook(world: World, what: str) -> None:
    """It exists: nothing is to be removed."""
    mounting.tmpfs("/usr/share")
    mounting.tmpfs("/run", "mode=755")
    mounting.show(sys.base_prefix, *import_folders(), str(Path(world.launcher).parents[3]))
    os.mkdir("/run/closed", 0o700)
    hooks = "/usr/share/containers/oci/hooks.d"
    path, _ = install("/run/closed/p" if what == "launcher" else "/run/p", (), [], hooks_dir=hooks)
    text = Path(path).read_text()
    if what == "interpreter":
        os.symlink(sys.executable, "/run/closed/python3")
        Path(path).write_text(re.sub("^#!.* ", "#!/run/closed/python3 ", text))
    elif what == "package":
        Path(path).write_text(re.sub("(?m)^sys.path .*", "sys.path += ['/run/closed/lib']", text))
    told = (
        f"this user cannot read /run/closed, so rootless containers of this user cannot run {path}: install the "
        "package where all users can read it, then run install again as root"
    )
    found = doctor(world, *support.as_user(UID))[1]
    assert found[f"launcher {path}"] == f"MISSING launcher {path}: {told}"
    command = [*support.as_user(UID), world.launcher, "install", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if what == "launcher":  # podman inspects it at the start of any container
        told = f"{path} cannot be inspected: Permission denied"
    assert (done.returncode, told in done.stdout) == (os.EX_DATAERR, True), done
    if what != "package":
        assert "cannot read" not in doctor(world)[1].get(f"launcher {path}", "")


def test_a_source_that_never_answers_is_named(world: World, mute: int) -> None:
    mounting.tmpfs("/usr/share")
    hooks = "/usr/share/containers/oci/hooks.d"
    words = ["--mount", f"src={world.path}/no,dst=/a", "--mount", f"src={world.rootfs}/mute/x,dst=/b"]
    install(str(world.path / "p"), (), words, hooks_dir=hooks)
    code, found = doctor(world)
    assert code == os.EX_UNAVAILABLE
    place = f"of {hooks}/oci-bind-hook.json"
    assert f"the source {world.path}/no cannot be opened: No such file or directory" in found[f"--mount 1 {place}"]
    said = f"the source {world.rootfs}/mute/x cannot be inspected: {world.rootfs}/mute (fuse) does not answer"
    assert said in found[f"--mount 2 {place}"]
    os.fstat(mute)


def test_what_could_not_be_inspected_within_the_time_limit_is_no_success(
    world: World, mute: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with many file systems that do not answer."""
    monkeypatch.setattr(patience, "DEADLINE", asking.SECONDS / 2)
    hooks = str(world.path / "hooks.d")
    install(str(world.path / "p"), (), ["--mount", f"src={world.rootfs}/mute/x,dst=/b"], hooks_dir=hooks)
    [found] = sources.problems(registration.find([hooks], (), ()))
    said = f"arguments: what is requested cannot be inspected: {world.rootfs}/mute (fuse) does not answer"
    assert (found.effect, found.message[: len(said)]) == ("fails", said)
    os.fstat(mute)


def test_a_source_that_only_root_may_inspect_is_no_failure_for_a_user(world: World) -> None:
    mounting.tmpfs("/run", "mode=755")
    mounting.show(sys.base_prefix, *import_folders(), str(Path(world.launcher).parents[3]))
    hooks = "/run/hooks.d"
    os.mkdir("/run/closed", 0o700)
    install("/run/p", (), ["--mount", "src=/run/closed/x,dst=/a"], hooks_dir=hooks)
    command = [world.launcher, "install", "--check", "--hooks-dir", hooks]
    for before, code in (((), os.EX_DATAERR), (support.as_user(UID), os.EX_OK)):
        done = subprocess.run([*before, *command], capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (code, "")
        [line] = [line for line in done.stdout.splitlines() if "--mount 1: " in line]
        assert ("this user cannot inspect it (run this as root)" in line) == bool(before)


def test_without_a_dependency_each_command_is_one_line_that_names_it() -> None:
    """Without site-packages there is neither python-prctl nor jsonschema."""
    code = (
        f"import sys; sys.path.append({str(Path(FOLDER).parent)!r}); from oci_bind_hook.cli import console; console()"
    )
    for words in (["doctor"], ["install", "--check"], ["--version"], ["prestart"]):
        done = subprocess.run([sys.executable, "-ISc", code, *words], capture_output=True, text=True, check=False)
        again = "reinstall python-prctl, for example with pip; if its folder changes, repeat your oci-bind-hook install"
        said = f"No module named '_prctl' ({again})"
        assert (done.returncode, done.stdout) == (os.EX_SOFTWARE, "")
        assert done.stderr == f"oci-bind-hook: the installation is broken: {said}\n"


def test_without_procfs_only_that_is_examined() -> None:
    code = f"import sys; sys.path += {import_folders()}; from oci_bind_hook.cli import console; console()"
    script = 'mount -t tmpfs none /proc && exec "$@"'
    for words in (["doctor"], ["install", "--check", "--hooks-dir", "/none"]):
        command = ["unshare", "-m", "--propagation=private", "sh", "-c", script, "sh", sys.executable, "-ISc", code]
        done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=60, check=False)
        assert done.stderr == ""
        said = "MISSING procfs: /proc/self cannot be opened: No such file or directory (mount procfs): nothing works\n"
        assert done.returncode == (os.EX_UNAVAILABLE if words == ["doctor"] else os.EX_OK)
        assert (said in done.stdout) == (words == ["doctor"])


def test_a_dependency_that_is_missing_is_named(world: World) -> None:
    """python-prctl is here, and jsonschema is not."""
    folders = [str(Path(FOLDER).parent), str(world.path)]
    prctl = importlib.util.find_spec("_prctl")
    assert prctl is not None
    assert prctl.origin is not None
    for each in (Path(prctl.origin), *Path(prctl.origin).parent.glob("python_prctl-*")):
        (world.path / each.name).symlink_to(each)
    code = f"import sys; sys.path += {folders}; from oci_bind_hook.cli import console; console()"
    done = subprocess.run([sys.executable, "-ISc", code, "doctor"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (os.EX_UNAVAILABLE, "")
    assert "MISSING jsonschema: a run that needs it fails with exit code 70\n" in done.stdout


def test_without_a_capability_of_root_it_says_what_fails(world: World) -> None:
    code, found = doctor(world, "setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin")
    assert code == os.EX_UNAVAILABLE
    assert found["CAP_SYS_ADMIN"].startswith("MISSING CAP_SYS_ADMIN: setns(2)")


def test_an_ordinary_user_gets_the_rights_from_the_runtime_and_needs_a_folder(world: World) -> None:
    mounting.tmpfs("/run", "mode=755")
    mounting.show(sys.base_prefix, *import_folders(), str(Path(world.launcher).parents[3]))
    code, found = doctor(world, *support.as_user(UID))
    assert (code, found["state folder"]) == (
        os.EX_UNAVAILABLE,
        f"MISSING state folder: /run/user/{UID}/oci-bind-hook does not exist, and /run is not writable:"
        " nothing can be recorded, so nothing is mounted",
    )
    os.makedirs(f"/run/user/{UID}")
    os.chown(f"/run/user/{UID}", UID, UID)
    code, found = doctor(world, *support.as_user(UID))
    assert (code, found["CAP_SYS_ADMIN"]) == (
        os.EX_OK,
        "without CAP_SYS_ADMIN: the runtime grants it at createContainer in a rootless container",
    )
    where = f"/run/user/{UID}/oci-bind-hook is created at first use, on tmpfs (lost at reboot)"
    assert found["state folder"] == f"ok      state folder: {where}"
    folder = Path(f"/run/user/{UID}/oci-bind-hook")
    folder.mkdir(mode=0o700)
    (folder / "killed.new").touch()
    os.chown(folder, UID, UID)
    _, found = doctor(world, *support.as_user(UID))
    told = "to do   left behind: killed runs: 1: `podman unshare oci-bind-hook gc` undoes it"
    assert found["left behind"] == told


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_on_a_terminal_it_is_as_wide_and_coloured_where_that_is_wanted(environment: dict[str, str]) -> None:
    told = on_terminal(60, ["doctor"], **environment)
    assert ("\x1b[1;32mok      \x1b[0mPython: " in told) == (not environment)
    lines = re.sub("\x1b\\[[0-9;]*m", "", told).splitlines()
    assert lines[0] == f"ok      Python: {platform.python_version()}"
    assert max(map(len, lines)) <= 60
    assert re.search(
        r"All is well\.|The hook works here\.|The hook does not work here\.|Not everything works here\.",
        " ".join(lines[-4:]),
    )
