# SPDX-License-Identifier: Apache-2.0
"""Which state folders list, show, gc, doctor and explain look into: those with which the hook is registered."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from helpers.fuse import Fuse
from helpers.mounting import named, request
from oci_bind_hook import cli
from oci_bind_hook.commands.engines import doctor, settings, timer
from oci_bind_hook.commands.explain import containers
from oci_bind_hook.commands.upkeep import folders
from oci_bind_hook.documents import oci
from oci_bind_hook.options import DEFAULT_ROOT, Options
from oci_bind_hook.record.folder import StateFolder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from helpers.mounting import Bench

NOBODY = 2**22 + 1  # no pid is so large


pytestmark = pytest.mark.usefixtures("machine")


def install(*words: str, root: str | None, prefix: str = "/usr") -> None:
    options = [] if root is None else ["--root", root]
    assert cli.main(["install", "--prefix", prefix, *words, "--", "--mount", "src=/,dst=/a", *options]) == 0


def roots(root: str | None = None) -> list[str | None]:
    options = Options()
    options.root = root
    return [one.root for one in folders.of(options)]


def record(bench: Bench, container: str, root: str) -> None:
    """A dead container, with a mount point that it made."""
    made = bench.mount(request(bench.source, f"/{container}"))
    init = {"pid": NOBODY, "start": 1, "first": bench.proc.first_start()}
    folder = StateFolder.open(root, create=True)
    assert folder is not None
    with folder.lock_rootfs(made["rootfs"]) as held:
        held.save(named(made, container, phase="done", init=init))


def say(capfd: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    capfd.readouterr()
    assert cli.main([*words]) == code
    return capfd.readouterr().out


def ask(capfd: pytest.CaptureFixture[str], *words: str, code: int = 0) -> tuple[list[str], list[tuple[str, str]]]:
    """The folders in the JSON, and the containers, each with its folder."""
    document: dict[str, Any] = json.loads(say(capfd, *words, "--format", "json", code=code))
    assert oci.violations(document, "gc" if words[0] == "gc" else "records") == []
    return [each["path"] for each in document["folders"]], [
        (each["id"], each["folder"]) for each in document["records"]
    ]


def test_registrations_of_all_kinds_are_asked_and_the_default_comes_first() -> None:
    assert roots() == [None]
    install(root="/srv/hooks")
    assert roots() == ["/srv/hooks"]
    os.mkdir(DEFAULT_ROOT, 0o700)
    assert roots() == [None, "/srv/hooks"]
    install("--cdi", "x", root="/srv/cdi")
    install("--runtime", "bound", "--oci-runtime", "/bin/true", root="/srv/runtime", prefix="/usr/local")
    install("--name", "same", root="/srv/./hooks/../hooks")
    install("--name", "default", root=DEFAULT_ROOT)
    install("--name", "none", root=None)
    assert roots() == [None, "/srv/hooks", "/srv/cdi", "/srv/runtime"]
    assert roots("/elsewhere") == ["/elsewhere"]


def test_folders_that_only_the_settings_of_engines_name_are_asked(machine: Path) -> None:
    prefix = f"{machine}/p"
    install("--hooks-dir", f"{machine}/hooks", root="/srv/hooks", prefix=prefix)
    install("--cdi", "x", "--cdi-dir", f"{machine}/cdi", root="/srv/cdi", prefix=prefix)
    install("--runtime", "bound", "--oci-runtime", "/bin/true", root="/srv/runtime", prefix=prefix)
    assert roots() == [None]
    lists = f'hooks_dir = ["{machine}/hooks"]\ncdi_spec_dirs = ["{machine}/cdi"]\n'
    Path("/etc/containers/containers.conf").write_text(f"[engine]\n{lists}")
    assert roots() == ["/srv/hooks", "/srv/cdi"]
    path = f"{prefix}/libexec/oci/runtimes.d/oci-bind-hook-bound"
    Path(settings.DAEMON_JSON).write_text(json.dumps({"runtimes": {"bound": {"path": path}}}))
    assert roots() == ["/srv/hooks", "/srv/cdi", "/srv/runtime"]


def test_the_timer_is_asked(machine: Path) -> None:
    install("--hooks-dir", f"{machine}/hooks", "--gc-timer", root="/srv/timer")
    assert roots() == ["/srv/timer"]


@pytest.mark.kernel(6, 11)  # gc: before, the namespace of a dead container may be any
def test_containers_of_all_folders_are_shown_and_collected(
    machine: Path, bench: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    other = f"{machine}/other"
    install(root=other)
    record(bench, "c1", DEFAULT_ROOT)
    record(bench, "c2", other)
    assert ask(capfd, "list") == ([DEFAULT_ROOT, other], [("c1", DEFAULT_ROOT), ("c2", other)])
    text = say(capfd, "list")
    assert text.index(f"recorded in {DEFAULT_ROOT}:\n") < text.index("c1") < text.index(f"recorded in {other}:\n")
    assert f"recorded in    {other}\n" in say(capfd, "show", "c2")
    assert ask(capfd, "list", "--root", other) == ([other], [("c2", other)])
    assert [each.root for each in containers.find("c")] == [DEFAULT_ROOT, other]
    doctor = say(capfd, "doctor", code=cli.main(["doctor"]))
    assert "to do   left behind: dead containers: 1: `oci-bind-hook gc` undoes it\n" in doctor
    assert f"to do   left behind --root {other}: dead containers: 1: `oci-bind-hook gc --root {other}`" in doctor
    assert cli.main(["show", "c3"]) == os.EX_NOINPUT
    missing = f'nothing is recorded for a container "c3" in {DEFAULT_ROOT} or {other}'
    assert missing in capfd.readouterr().err
    assert ask(capfd, "gc", "c2") == ([DEFAULT_ROOT, other], [("c2", other)])
    assert not os.path.lexists(bench.inside("/c2"))
    assert ask(capfd, "gc")[1] == [("c1", DEFAULT_ROOT)]
    assert not os.path.lexists(bench.inside("/c1"))
    assert say(capfd, "list") == f"nothing is recorded in {DEFAULT_ROOT}\n\nnothing is recorded in {other}\n"


@pytest.mark.kernel(6, 11)  # gc: before, the namespace of a dead container may be any
def test_a_folder_that_cannot_be_used_is_told_and_hides_no_other(
    machine: Path, bench: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    other = f"{machine}/other"
    install(root=other)
    record(bench, "c1", DEFAULT_ROOT)
    os.mkdir(other, 0o755)
    told = f"the state folder {other} belongs to uid 0 and has mode 0755"
    text = say(capfd, "list", code=os.EX_IOERR)
    assert "c1" in text
    assert told in text
    assert ask(capfd, "list", code=os.EX_IOERR) == ([DEFAULT_ROOT, other], [("c1", DEFAULT_ROOT)])
    assert "c1" in say(capfd, "show", "c1")
    assert cli.main(["show", "c2"]) == os.EX_IOERR
    assert told in capfd.readouterr().err
    assert ask(capfd, "gc", code=os.EX_IOERR)[1] == [("c1", DEFAULT_ROOT)]
    assert not os.path.lexists(bench.inside("/c1"))


def test_a_timer_without_a_folder_of_its_own_collects_all() -> None:
    def warnings(given: Sequence[str | None]) -> list[str]:
        return [each for each in timer.Timer().warnings(given) if "is not enabled" not in each]

    install("--gc-timer", root=None)
    assert warnings([None, "/srv/other"]) == []
    install("--gc-timer", root="/srv/timer")
    said = "calls gc with --root /srv/timer, but the hook is registered with --root /srv/other"
    assert warnings(["/srv/timer", "/srv/other"]) == [
        f"{said}: for a gc of all registered folders, run install --gc-timer without --root"
    ]


# -- folders of users --------------------------------------------------------------------------------------------------


def users() -> dict[str, str]:
    """State folders of four users: with records, without, one that does not answer, and a link."""
    paths = {
        name: f"/run/user/{uid}/oci-bind-hook" for name, uid in (("two", 7), ("none", 8), ("fuse", 9), ("link", 10))
    }
    for name in ("two", "none"):
        os.makedirs(paths[name])
    for name in ("a.json", "b.json", "c.lock"):
        Path(paths["two"], name).touch()
    os.mkdir("/run/user/10")
    os.symlink(paths["two"], paths["link"])
    Path("/run/user/notes").touch()
    return paths


@pytest.mark.parametrize("words", [("list",), ("gc",), ("gc", "--dry-run"), ("list", "--format", "json")])
def test_root_hears_of_what_users_have_recorded(words: Sequence[str], capfd: pytest.CaptureFixture[str]) -> None:
    with Fuse(users()["fuse"], user=9) as fuse:
        fuse.silence("LOOKUP")
        assert cli.main([*words]) == 0
    told = "/run/user/7/oci-bind-hook has records, too: 2; only `list` and `gc` of user 7 read them"
    assert capfd.readouterr().err == f"oci-bind-hook: {told}\n"


@pytest.mark.usefixtures("machine")
def test_doctor_and_uninstall_name_what_users_have_recorded(capfd: pytest.CaptureFixture[str]) -> None:
    users()
    found = {one.name: one for one in doctor.examine()}
    assert [name for name in found if "of user" in name] == ["state folder of user 7"]
    detail = "/run/user/7/oci-bind-hook, containers recorded: 2; only `list` and `gc` of user 7 read them"
    assert (found["state folder of user 7"].detail, found["state folder of user 7"].is_problem) == (detail, False)
    capfd.readouterr()
    steps = "as user 7, run `uninstall --all`, and `gc` after the containers have ended"
    assert cli.main(["uninstall", "--all"]) == 0
    assert capfd.readouterr() == ("", f"oci-bind-hook: warning: /run/user/7/oci-bind-hook has records: 2; {steps}\n")


def test_a_folder_of_a_user_that_does_not_answer_does_not_block(capfd: pytest.CaptureFixture[str]) -> None:
    with Fuse(users()["fuse"]) as fuse:
        fuse.silence("OPENDIR")
        assert cli.main(["list"]) == 0
        assert fuse.asked() == {"OPENDIR": 1}
    assert capfd.readouterr().err.count("has records") == 1


@pytest.mark.parametrize("words", [("list", "--root", DEFAULT_ROOT), ("gc", "--root", DEFAULT_ROOT)])
def test_nobody_asks_the_users_about_a_folder_that_was_named(
    words: Sequence[str], capfd: pytest.CaptureFixture[str]
) -> None:
    users()
    assert cli.main([*words]) == 0
    assert capfd.readouterr().err == ""


def test_what_is_counted_in_a_folder_are_the_names_of_state_files(tmp_path: Path) -> None:
    """As StateFolder.names: an entry that cannot be followed hides no other."""
    for name in ("c1.json", "c1.lock"):
        (tmp_path / name).touch()
    (tmp_path / "loop.json").symlink_to("loop.json")
    assert folders.state_files(str(tmp_path)) == ["c1", "loop"]
    assert folders.state_files(f"{tmp_path}/absent") == []


def test_the_gc_of_an_ordinary_user_is_that_of_podman(monkeypatch: pytest.MonkeyPatch) -> None:
    assert folders.gc_command("/srv/of all") == "oci-bind-hook gc --root '/srv/of all'"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for program, before in (("/usr/bin/podman", "podman unshare "), ("", "")):
        monkeypatch.setattr(folders, "which", lambda _, program=program: program)
        assert folders.gc_command("/srv/of all") == f"{before}oci-bind-hook gc --root '/srv/of all'"
        assert folders.gc_command(None) == f"{before}oci-bind-hook gc"
