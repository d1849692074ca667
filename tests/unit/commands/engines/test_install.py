# SPDX-License-Identifier: Apache-2.0
"""The launcher and the hooks.d file, as files on disk and as a process that starts."""

from __future__ import annotations

import json
import os
import re
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from helpers import support
from oci_bind_hook import cli
from oci_bind_hook.commands.engines import cdi, hooks_d, install, machine
from oci_bind_hook.commands.engines.cdi_file import Devices
from oci_bind_hook.commands.engines.conditions import When
from oci_bind_hook.commands.engines.launcher import LAUNCHER_PATH
from oci_bind_hook.commands.engines.registration import HOOKS_PATH
from oci_bind_hook.commands.engines.uninstall import uninstall
from oci_bind_hook.errors import KernelError, MissingError, UnavailableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

REGISTRATION_PATH = f"{HOOKS_PATH}/oci-bind-hook.json"


# What is written


def test_the_files_and_their_modes_do_not_depend_on_the_umask(tmp_path: Path) -> None:
    umask = os.umask(0o077)
    try:
        paths = install.install(str(tmp_path / "new/prefix"))
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(umask)
    written = support.tree(tmp_path / "new")
    assert {name: entry[0] for name, entry in written.items()} == {
        ".": "drwxr-xr-x",
        "prefix": "drwxr-xr-x",
        "prefix/libexec": "drwxr-xr-x",
        "prefix/libexec/oci": "drwxr-xr-x",
        "prefix/libexec/oci/hooks.d": "drwxr-xr-x",
        "prefix/libexec/oci/hooks.d/oci-bind-hook": "-rwxr-xr-x",
        "prefix/share": "drwxr-xr-x",
        "prefix/share/containers": "drwxr-xr-x",
        "prefix/share/containers/oci": "drwxr-xr-x",
        "prefix/share/containers/oci/hooks.d": "drwxr-xr-x",
        "prefix/share/containers/oci/hooks.d/oci-bind-hook.json": "-rw-r--r--",
    }
    assert paths == [
        str(tmp_path / "new/prefix/libexec/oci/hooks.d/oci-bind-hook"),
        str(tmp_path / "new/prefix/share/containers/oci/hooks.d/oci-bind-hook.json"),
    ]


def test_the_hooks_d_file_is_what_oci_hooks_5_asks_for(tmp_path: Path) -> None:
    stages, arguments = ["prestart", "poststop"], ["--mount", "type=bind,src=/ä,dst=/b"]
    launcher, registration = install.install(str(tmp_path), stages, arguments)
    with open(registration, encoding="utf-8") as file:
        assert json.load(file) == {
            "version": "1.0.0",
            "hook": {
                "path": launcher,
                "args": ["oci-bind-hook", *arguments],
                "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
                "timeout": 30,
            },
            "when": {"always": True},
            "stages": stages,
        }


def test_the_stages_are_create_runtime_and_poststop_unless_given(tmp_path: Path) -> None:
    _, registration = install.install(str(tmp_path))
    with open(registration, encoding="utf-8") as file:
        document = json.load(file)
    assert document["stages"] == ["createRuntime", "poststop"]
    assert document["hook"]["args"] == ["oci-bind-hook"]


def test_a_stage_given_twice_is_registered_once(tmp_path: Path) -> None:
    _, registration = install.install(str(tmp_path), ["poststop", "createContainer", "poststop"])
    with open(registration, encoding="utf-8") as file:
        assert json.load(file)["stages"] == ["poststop", "createContainer"]


def test_installing_again_gives_the_same_bytes_and_leaves_nothing_beside(tmp_path: Path) -> None:
    first = install.install(str(tmp_path), ["prestart"], ["--strict"])
    before = support.tree(tmp_path)
    assert install.install(str(tmp_path), ["prestart"], ["--strict"]) == first
    assert support.tree(tmp_path) == before


def test_a_planted_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    victim.chmod(0o600)
    prefix = tmp_path / "prefix"
    for name in (LAUNCHER_PATH, REGISTRATION_PATH):
        (prefix / name).parent.mkdir(parents=True)
        (prefix / name).symlink_to(victim)
    for path in install.install(str(prefix)):
        assert stat.S_ISREG(os.lstat(path).st_mode)
    assert victim.read_text() == "precious"
    assert stat.S_IMODE(victim.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", [LAUNCHER_PATH, REGISTRATION_PATH])
@pytest.mark.parametrize("text", ["", "#!/bin/sh\nexit 0\n", '{"version": "1.0.0", "hook": {"path": "/bin/true"}}'])
def test_what_somebody_else_has_put_there_is_not_replaced(name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text(text)
    before = support.tree(tmp_path)
    with pytest.raises(UnavailableError, match=f"^{re.escape(str(path))}: was not written by install"):
        install.install(str(tmp_path))
    assert support.tree(tmp_path) == before


@pytest.mark.parametrize("prefix", ["odd", "./odd/../odd/", "odd//"])
def test_a_relative_prefix_becomes_absolute(prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    launcher, registration = install.install(prefix)
    assert launcher == str(tmp_path / "odd" / LAUNCHER_PATH)
    with open(registration, encoding="utf-8") as file:
        assert json.load(file)["hook"]["path"] == launcher


def test_a_prefix_with_odd_characters_works(tmp_path: Path) -> None:
    launcher, registration = install.install(str(tmp_path / "a b'\"\\ü\n{x}"))
    with open(registration, encoding="utf-8") as file:
        assert json.load(file)["hook"]["path"] == launcher
    assert os.access(launcher, os.X_OK)


def test_the_hooks_d_file_can_be_put_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = install.install("p", hooks_dir="etc/hooks.d")
    assert paths == [str(tmp_path / "p" / LAUNCHER_PATH), str(tmp_path / "etc/hooks.d/oci-bind-hook.json")]
    assert not (tmp_path / "p/share").exists()


CONDITIONS: dict[str, tuple[dict[str, Any], dict[str, object]]] = {
    "none": ({}, {"always": True}),
    "always": ({"always": True}, {"always": True}),
    "annotation": ({"annotations": ["a.b/c=x y"]}, {"annotations": {"^a\\.b/c$": "^x y$"}}),
    "value with an equals sign": ({"annotations": ["a=b=c"]}, {"annotations": {"^a$": "^b=c$"}}),
    "empty value": ({"annotations": ["a="]}, {"annotations": {"^a$": "^$"}}),
    "special characters": (
        {"annotations": ["\\^$.|?*+()[]{}-=\\"]},
        {"annotations": {"^\\\\\\^\\$\\.\\|\\?\\*\\+\\(\\)\\[\\]\\{\\}-$": "^\\\\$"}},
    ),
    "all": (
        {"annotations": ["a=1", "b=2"], "commands": ["x", r"^\pN"], "has_bind_mounts": True},
        {"annotations": {"^a$": "^1$", "^b$": "^2$"}, "commands": ["x", r"^\pN"], "hasBindMounts": True},
    ),
}


@pytest.mark.parametrize(("given", "expected"), CONDITIONS.values(), ids=CONDITIONS)
def test_the_containers_it_is_for(given: dict[str, Any], expected: dict[str, object], tmp_path: Path) -> None:
    _, registration = install.install(str(tmp_path), when=When(**given))
    with open(registration, encoding="utf-8") as file:
        assert json.load(file)["when"] == expected


# What keeps others from using it


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can get into, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


def closed_to_others(prefix: Path) -> list[str]:
    told = install.warnings(install.Places(str(prefix)))
    before = "other users cannot read "
    closed = [
        line.removeprefix(before).partition(": ")[0] for line in told if line.startswith(f"{before}{prefix.parent}")
    ]
    return [each.partition(", and so ")[0] for each in closed]


def test_what_is_closed_to_others_is_named_once(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "is_system", lambda: True)
    closed = open_folder / "closed"
    launcher, _ = install.install(str(closed))
    assert closed_to_others(closed) == []
    os.chmod(launcher, 0o700)
    assert closed_to_others(closed) == [launcher]
    (closed / "share/containers").chmod(0o700)
    assert closed_to_others(closed) == [launcher, str(closed / "share/containers")]
    closed.chmod(0o750)
    assert closed_to_others(closed) == [str(closed)]


def test_what_a_link_leads_to_may_be_closed(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "is_system", lambda: True)
    (open_folder / "closed/open").mkdir(parents=True)
    os.symlink("closed/open", open_folder / "link")
    install.install(str(open_folder / "link"))
    assert closed_to_others(open_folder / "link") == []
    (open_folder / "closed").chmod(0o700)
    assert closed_to_others(open_folder / "link") == [str(open_folder / "closed")]


def test_a_file_of_the_same_name_in_another_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """podman and CRI-O read only the one in the last folder."""
    folders = [str(tmp_path / name) for name in ("first", "second")]
    monkeypatch.setattr(install, "HOOKS_FOLDERS", folders)
    for folder in folders:
        install.install(str(tmp_path / "prefix"), hooks_dir=folder)

    def namesakes(name: str | None) -> list[str]:
        told = install.warnings(install.Places(str(tmp_path / "prefix"), folders[1], name))
        return [line.partition(" has the same name: ")[0] for line in told if " has the same name: " in line]

    assert namesakes(None) == [f"{folders[0]}/oci-bind-hook.json"]
    assert namesakes("mine") == []


@pytest.mark.parametrize("is_cdi", [False, True])
def test_what_is_closed_to_others_concerns_only_what_is_for_them(
    is_cdi: bool, open_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed, conf, folder = open_folder / "closed", tmp_path / "containers.conf", str(open_folder / "folder")
    closed.mkdir(mode=0o700)
    monkeypatch.setitem(machine.FILES, "podman", (str(conf),))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    places = install.Places(str(closed), folder, instead=Devices(["x"], folder, ()) if is_cdi else None)

    def is_named(*, is_root: bool) -> bool:
        monkeypatch.setattr(machine, "is_system", lambda: is_root)
        return any(
            line.startswith(f"other users cannot read {closed}, and so {closed}/") for line in install.warnings(places)
        )

    assert (is_named(is_root=True), is_named(is_root=False)) == (True, False)
    name = "cdi_spec_dirs" if is_cdi else "hooks_dir"
    # This user's own settings concern no other user, those of the machine do.
    for path, expected in ((tmp_path / "containers/containers.conf", False), (conf, True)):
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'[engine]\n{name} = ["{folder}"]\n')
        assert is_named(is_root=False) == expected
    conf.unlink()
    places.folder = cdi.FOLDERS[0] if is_cdi else hooks_d.FOLDERS[0]
    assert is_named(is_root=False)


# What is removed


def test_uninstall_removes_what_install_wrote_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "libexec/oci/hooks.d").mkdir(parents=True)
    (tmp_path / "libexec/oci/hooks.d/other").write_text("x")
    paths = install.install(str(tmp_path), (), ["--root", "/x"])
    removed = uninstall(str(tmp_path))
    assert (removed.paths, removed.kept, removed.arguments) == (paths[::-1], [], [["--root", "/x"]])
    files = [name for name, entry in support.tree(tmp_path).items() if str(entry[0]).startswith("-")]
    assert files == ["libexec/oci/hooks.d/other"]


def test_uninstall_finds_the_launcher_by_the_hooks_d_file(tmp_path: Path) -> None:
    folder = str(tmp_path / "etc")
    launcher, registration = install.install(str(tmp_path / "p"), hooks_dir=folder)
    assert uninstall("/not/there", folder).paths == [registration, launcher]


def test_uninstall_leaves_a_launcher_that_another_file_names(tmp_path: Path) -> None:
    launcher, registration = install.install(str(tmp_path))
    folder = str(tmp_path / "etc")
    _, other = install.install(str(tmp_path), hooks_dir=folder)
    removed = uninstall(str(tmp_path), folder)
    assert (removed.paths, removed.kept) == ([other], [f"{launcher} is still used by {registration}"])
    assert uninstall(str(tmp_path)).paths == [registration, launcher]


def test_uninstall_knows_a_file_that_somebody_has_edited(tmp_path: Path) -> None:
    _, registration = install.install(str(tmp_path))
    with open(registration, encoding="utf-8") as file:
        document = json.load(file)
    document["when"], document["hook"]["timeout"] = {"commands": ["x"]}, 5
    with open(registration, "w", encoding="utf-8") as file:
        json.dump(document, file)
    assert len(uninstall(str(tmp_path)).paths) == 2


FOREIGN = {
    "text": "no JSON",
    "another hook": json.dumps({"hook": {"path": "/usr/bin/other", "args": ["oci-bind-hook"]}}),
    "another name": json.dumps({"hook": {"path": "/usr/bin/oci-bind-hook", "args": ["other"]}}),
    "no arguments": json.dumps({"hook": {"path": "/usr/bin/oci-bind-hook"}}),
    "old": json.dumps({"hook": "/usr/bin/oci-bind-hook"}),
    "an array": "[]",
    "odd arguments": json.dumps({"hook": {"path": "/usr/bin/oci-bind-hook", "args": ["oci-bind-hook", 1]}}),
}


@pytest.mark.parametrize("text", FOREIGN.values(), ids=FOREIGN)
def test_uninstall_leaves_what_others_wrote(text: str, tmp_path: Path) -> None:
    places = install.Places(str(tmp_path))
    for path in (places.launcher, *places.registrations):
        os.makedirs(os.path.dirname(path))
        with open(path, "w", encoding="utf-8") as file:
            file.write(text if path in places.registrations else f"#!/usr/bin/python3 -IS\n# {text}\n")
    before = support.tree(tmp_path)
    with pytest.raises(MissingError, match=r"^install wrote nothing at .* was not written by install; .*\)$"):
        uninstall(str(tmp_path))
    assert support.tree(tmp_path) == before


def test_uninstall_follows_no_link(tmp_path: Path) -> None:
    for path in install.install(str(tmp_path)):
        os.rename(path, f"{path}.real")
        os.symlink(f"{path}.real", path)
    before = support.tree(tmp_path)
    with pytest.raises(MissingError):
        uninstall(str(tmp_path))
    assert support.tree(tmp_path) == before


# The folders that install makes below an empty prefix, as uninstall removes them.
FOLDERS = (
    *("share/containers/oci/hooks.d", "share/containers/oci", "share/containers", "share"),
    *("libexec/oci/hooks.d", "libexec/oci", "libexec"),
)


def test_uninstalling_twice_is_exit_66(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    paths = install.install(str(tmp_path), (), ["--root", str(tmp_path / "state")])
    (tmp_path / "state").mkdir()
    (tmp_path / "state/c1.json").write_text("{}")
    assert cli.main(["uninstall", "--prefix", str(tmp_path)]) == os.EX_OK
    left = (
        f"{tmp_path}/state has records of c1, for which poststop is no longer called: once they have ended, "
        f'run "oci-bind-hook gc --root {tmp_path}/state"'
    )
    gone = [*paths[::-1], *(f"{tmp_path}/{each}/" for each in FOLDERS)]
    out = "".join(f"removed {path}\n" for path in gone)
    assert capfd.readouterr() == (out, f"oci-bind-hook: warning: {left}\n")
    assert cli.main(["uninstall", "--prefix", str(tmp_path)]) == os.EX_NOINPUT
    assert capfd.readouterr().err.startswith("oci-bind-hook: install wrote nothing at ")


@pytest.mark.parametrize("word", ["a/\0b", "\ud800/"])
def test_a_registration_with_any_words_is_uninstalled(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], word: str
) -> None:
    paths = install.install(str(tmp_path))
    with open(paths[1], encoding="utf-8") as file:
        document = json.load(file)
    document["hook"]["args"].append(word)
    with open(paths[1], "w", encoding="utf-8") as file:
        json.dump(document, file)
    assert cli.main(["uninstall", "--prefix", str(tmp_path)]) == os.EX_OK
    gone = [*paths[::-1], *(f"{tmp_path}/{each}/" for each in FOLDERS)]
    assert capfd.readouterr().out == "".join(f"removed {path}\n" for path in gone)
    assert not any(map(os.path.exists, paths))


def test_the_command_prints_only_what_it_did_on_stdout(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["--prefix", str(tmp_path), "--hooks-dir", str(tmp_path / "h"), "--annotation", "a=b", "--command=^x"]
    assert cli.main(["install", *words, "--has-bind-mounts", "--stages", "prestart,poststop", "--", "--strict"]) == 0
    out, err = capfd.readouterr()
    assert out == f"wrote {tmp_path}/{LAUNCHER_PATH}\nwrote {tmp_path}/h/oci-bind-hook.json\n"
    assert f"warning: podman and CRI-O read {tmp_path}/h only if their hooks_dir contains it: for podman" in err
    with open(tmp_path / "h/oci-bind-hook.json", encoding="utf-8") as file:
        document = json.load(file)
    assert document["when"] == {"annotations": {"^a$": "^b$"}, "commands": ["^x"], "hasBindMounts": True}
    assert (document["stages"], document["hook"]["args"][1:]) == (["prestart", "poststop"], ["--strict"])


# What is refused


def test_an_empty_prefix_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^--prefix: the prefix is empty$"):
        install.install("")


def test_an_unknown_stage_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"^--stages: 'startContainer' is not a stage \(known: prestart, createRuntime, "
    ):
        install.install(str(tmp_path), ["poststop", "startContainer"])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("prefix", "argument"), [("\udcff", "-"), ("p", "\udcff")])
def test_what_json_cannot_hold_is_refused_before_anything_is_written(
    prefix: str, argument: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"'\\udcff.*' is not UTF-8$"):
        install.install(str(tmp_path / prefix), arguments=[argument])
    assert os.listdir(tmp_path) == []


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "share").write_text("in the way")
    path = tmp_path / REGISTRATION_PATH
    with pytest.raises(KernelError) as caught:
        install.install(str(tmp_path))
    assert str(caught.value) == f"write {path}: Not a directory (a component of the path is not a folder)"


def test_a_folder_in_the_place_of_a_file_is_an_error_that_leaves_nothing_beside(tmp_path: Path) -> None:
    launcher = tmp_path / LAUNCHER_PATH
    launcher.mkdir(parents=True)
    with pytest.raises(KernelError, match=r"^write .*: Is a directory$"):
        install.install(str(tmp_path))
    assert os.listdir(launcher.parent) == ["oci-bind-hook"]
