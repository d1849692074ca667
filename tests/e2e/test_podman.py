# SPDX-License-Identifier: Apache-2.0
"""The hook registered with podman: what `install` writes works, and `install --check` knows what podman does."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from helpers import hooks_d_tables as tables
from helpers import support
from helpers.podman import Podman
from oci_bind_hook.commands.engines import check, conditions, hooks_d, install
from oci_bind_hook.commands.engines.uninstall import uninstall

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def podman(tmp_path: Path) -> Podman:
    return Podman(tmp_path)


def annotated(members: dict[str, str]) -> tuple[str, ...]:
    """The options for these annotations: podman 4 reads them as CSV, and says so."""
    words = [f"{key}={value}" for key, value in members.items()]
    told = subprocess.run(["podman", "run", "--help"], capture_output=True, text=True, check=True).stdout
    if re.search(r"--annotation strings", told):
        words = ['"' + word.replace('"', '""') + '"' for word in words]
    return tuple(f"--annotation={word}" for word in words)


def used(folders: list[str], container: hooks_d.Container | None = None) -> list[str] | None:
    """The names that our reading of folders calls, None where the engine starts nothing."""
    read = hooks_d.read(folders)
    if any(folder.refusal for folder in read):
        return None
    found = []
    for one in hooks_d.in_order(read):
        if one.is_used and one.match(container or hooks_d.Container({"process": {"args": ["/bin/true"]}}))[0]:
            assert one.args is not None
            found += [one.args[1]] * len(one.stages)
    return found


@pytest.mark.parametrize("name", tables.cases(""))
def test_a_folder_is_read_as_podman_reads_it(name: str, podman: Podman) -> None:
    files, expected = tables.cases(podman.probe)[name]
    folder = str(tables.write(podman.folder / "hooks.d", files))
    done = podman.run([folder], "/bin/true")
    ran = podman.ran()
    assert (ran if done.returncode == 0 else None, used([folder])) == (expected, expected), done.stderr
    assert expected is not None or "setting up OCI Hooks" in done.stderr


@pytest.mark.parametrize("name", tables.masks(""))
def test_folders_mask_each_other_as_in_podman(name: str, podman: Podman) -> None:
    first, second, expected = tables.masks(podman.probe)[name]
    folders = [str(tables.write(podman.folder / each, files)) for each, files in (("1", first), ("2", second))]
    folders.insert(1, str(podman.folder / "not there"))
    done = podman.run(folders, "/bin/true")
    assert (done.returncode, podman.ran(), used(folders)) == (0, expected, expected), done.stderr


def test_podman_reads_the_first_folder_by_itself(podman: Podman) -> None:
    """And the other one only if it is told, which is what `install` warns of."""
    prepare = ""
    for folder in hooks_d.FOLDERS:
        files = tables.write(podman.folder / folder[1:], {f"{len(prepare)}.json": tables.current(podman.probe, folder)})
        top = "/usr/share" if folder.startswith("/usr") else "/etc/containers"
        prepare += f"mount -t tmpfs tmpfs {top} && mkdir -p {folder} && cp {files}/* {folder}/; "
    assert podman.run([], "/bin/true", prepare=prepare).returncode == 0
    assert podman.ran() == [hooks_d.FOLDERS[0]]
    assert podman.run([*hooks_d.FOLDERS], "/bin/true", prepare=prepare).returncode == 0
    assert podman.ran() == [*hooks_d.FOLDERS]


@pytest.mark.parametrize("has_bind", [False, True], ids=["no bind", "bind"])
def test_hooks_match_the_containers_that_check_says(has_bind: bool, podman: Podman) -> None:
    rows = {**tables.WHEN, **tables.OLD}
    expected = {name for name, (_, *matches) in rows.items() if matches[has_bind]}
    bundle = podman.folder / "config.json"
    copy = podman.folder / "copy"
    # To ask about the very config.json that podman made.
    copy.write_text(
        f"#!{sys.executable} -IS\nimport json, shutil, sys\n"
        f"shutil.copy(json.load(sys.stdin)['bundle'] + '/config.json', {str(bundle)!r})\n"
    )
    copy.chmod(0o755)
    files = tables.conditions(podman.probe)
    folder = str(tables.write(podman.folder / "hooks.d", files))
    (podman.folder / "hooks.d/copying.json").write_text(json.dumps(tables.current(copy, "copy")))
    options = (*annotated(tables.ANNOTATIONS), *([f"--volume={podman.folder}:/data"] if has_bind else []))
    done = podman.run([folder], tables.COMMAND, options=options)
    assert done.returncode == 0, done.stderr
    assert set(podman.ran()) == expected
    verdicts = json.loads(check.as_json(check.Check([folder], str(bundle))))["hooks"]
    called = {os.path.basename(each["path"])[:-5] for each in verdicts if each["matches"]}
    assert called == expected | {"copying"}


def test_regular_expressions_mean_what_they_mean_to_podman(podman: Podman) -> None:
    valid = [row for row in tables.REGEXPS if row[2] is not None]
    files = {
        f"{number}.json": tables.current(podman.probe, str(number), when={"annotations": {f"^k{number}$": pattern}})
        for number, (pattern, _, _) in enumerate(valid)
    }
    folder = str(tables.write(podman.folder / "hooks.d", files))
    options = annotated({f"k{number}": text for number, (_, text, _) in enumerate(valid)})
    done = podman.run([folder], "/bin/true", options=options)
    assert done.returncode == 0, done.stderr
    ran = set(map(int, podman.ran()))
    assert [row for number, row in enumerate(valid) if (number in ran) != row[2]] == []


def test_podman_refuses_the_same_regular_expressions(podman: Podman) -> None:
    invalid = [pattern for pattern, _, is_match in tables.REGEXPS if is_match is None]
    files = {
        f"{number}.json": tables.current(podman.probe, "x", when={"commands": [pattern]})
        for number, pattern in enumerate(invalid)
    }
    done = podman.run([str(tables.write(podman.folder / "hooks.d", files))], "/bin/true")
    assert done.returncode != 0
    assert done.stderr.count("error parsing regexp") == len(invalid) > 20, done.stderr


def test_an_installed_hook_binds_in_the_containers_it_is_for(podman: Podman) -> None:
    source = podman.folder / "source"
    source.mkdir()
    (source / "word").write_text("hello\n")
    state = podman.folder / "state"
    before = support.tree(podman.rootfs)
    words = ["--mount", f"src={source},dst=/new/place,ro", "--root", str(state)]
    when = conditions.When(annotations=["io.example.models=a+b (c)"])
    prefix, folder = str(podman.folder / "prefix"), str(podman.folder / "etc/hooks.d")
    install.install(prefix, (), words, hooks_dir=folder, when=when)
    assert check.Check([folder]).problems == []
    wanted = annotated({"io.example.models": "a+b (c)"})
    other = annotated({"io.example.models": "aab (c)", "xio.example.models": "a+b (c)"})
    seen = podman.run([folder], "/bin/cat", "/new/place/word", options=wanted)
    assert (seen.returncode, seen.stdout) == (0, "hello\n"), seen.stderr
    assert podman.run([folder], "/bin/cat", "/new/place/word", options=other).returncode != 0
    # podman calls poststop itself: nothing is left behind.
    assert [name for name in os.listdir(state) if name.endswith(".json")] == []
    assert "new" not in support.tree(podman.rootfs)
    uninstall(prefix, folder)
    assert podman.run([folder], "/bin/cat", "/new/place/word", options=wanted).returncode != 0
    now: dict[str, Any] = support.tree(podman.rootfs)
    podmans_own = {"run", "run/.containerenv", "etc/hosts", "etc/hostname", "etc/mtab"}
    assert {name for name in now if name not in before} <= podmans_own
