# SPDX-License-Identifier: Apache-2.0
"""hooks.d folders as engines read them, and what is said of them. tests/e2e/test_podman.py asks podman the same."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from helpers import hooks_d_tables as tables
from oci_bind_hook.commands.engines import conditions, hooks_d
from oci_bind_hook.commands.engines.conditions import When
from oci_bind_hook.documents import oci

if TYPE_CHECKING:
    from pathlib import Path


def called(folders: list[hooks_d.Folder], container: hooks_d.Container) -> list[str]:
    used = [one for one in hooks_d.in_order(folders) if one.is_used and one.match(container)[0]]
    return [one.args[1] for one in used if one.args for _ in one.stages]


# As engines do


@pytest.mark.parametrize("name", tables.cases(""))
def test_a_folder(name: str, tmp_path: Path, probe: Path) -> None:
    files, expected = tables.cases(probe)[name]
    folders = hooks_d.read([str(tables.write(tmp_path / "hooks.d", files))])
    found = None if folders[0].refusal else called(folders, hooks_d.Container(tables.CONFIG))
    assert found == expected


@pytest.mark.parametrize("name", tables.masks(""))
def test_two_folders(name: str, tmp_path: Path, probe: Path) -> None:
    first, second, expected = tables.masks(probe)[name]
    paths = [tables.write(tmp_path / each, files) for each, files in (("1", first), ("2", second))]
    assert called(hooks_d.read(map(str, paths)), hooks_d.Container(tables.CONFIG)) == expected


@pytest.mark.parametrize("has_bind", [False, True], ids=["no bind", "bind"])
def test_conditions(has_bind: bool, tmp_path: Path, probe: Path) -> None:
    rows = {**tables.WHEN, **tables.OLD}
    folders = hooks_d.read([str(tables.write(tmp_path / "hooks.d", tables.conditions(probe)))])
    container = hooks_d.Container(
        {**tables.CONFIG, "mounts": [*tables.CONFIG["mounts"], *([tables.BIND] if has_bind else [])]}
    )
    assert set(called(folders, container)) == {name for name, (_, *holds) in rows.items() if holds[has_bind]}


@pytest.mark.parametrize(
    "document", [None, [], {}, {"process": 1, "mounts": 1, "annotations": 1}, {"process": {"args": []}, "mounts": [1]}]
)
def test_a_container_of_any_form_has_nothing(document: Any) -> None:
    container = hooks_d.Container(document)
    assert (container.annotations, container.command, container.has_bind_mounts) == ({}, None, False)


@pytest.mark.parametrize(
    ("mount", "is_bind"),
    [
        ({"type": "bind"}, True),
        ({"type": "none", "options": ["ro", "bind"]}, True),
        ({"options": ["rbind"]}, True),
        ({"type": "tmpfs", "options": ["rw"]}, False),
    ],
)
def test_a_bind_is_told_by_its_type_or_its_options(mount: dict[str, Any], is_bind: bool) -> None:
    assert hooks_d.Container({"mounts": [{"destination": "/a", **mount}]}).has_bind_mounts == is_bind


def test_a_folder_that_is_not_there_is_no_matter_and_what_is_no_folder_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    absent, file = hooks_d.read([str(tmp_path / "absent"), str(tmp_path / "file")])
    assert (absent.is_there, absent.refusal) == (False, "")
    assert file.refusal == "it cannot be read: Not a directory"


def test_a_link_to_nothing_is_passed_over_and_a_folder_is_not(tmp_path: Path, probe: Path) -> None:
    folder = tables.write(tmp_path / "hooks.d", {"b.json": tables.current(probe, "b")})
    (folder / "a.json").symlink_to("absent")
    assert [one.name for one in hooks_d.read([str(folder)])[0].files] == ["b.json"]
    (folder / "c.json").mkdir()
    assert "c.json" in hooks_d.read([str(folder)])[0].refusal


# Why, and why not

REASONS: dict[str, tuple[dict[str, Any], bool | None, str]] = {
    "always": ({"always": True}, True, "always"),
    "never": ({"always": False}, False, "always is false"),
    "nothing": ({}, False, "it has no condition, so it matches no container"),
    "binds": ({"hasBindMounts": True}, False, "the container has no bind mounts except those of the engine"),
    "no binds": ({"hasBindMounts": False}, False, "hasBindMounts is false, so it matches no container"),
    "name": ({"annotations": {"^x$": ""}}, False, 'no annotation has a name that matches "^x$"'),
    "value": (
        {"annotations": {"kind": "^cpu$"}},
        False,
        'the annotation com.example.kind is "gpu", which does not match "^cpu$"',
    ),
    "command": ({"commands": ["^x", "y"]}, False, "the command /bin/true matches none of its commands"),
    "several": ({"always": True, "annotations": {"kind": ""}}, True, "always and the annotation com.example.kind"),
    "matching command": ({"commands": ["true$"]}, True, 'the command /bin/true matches "true$"'),
    "unknown": ({"annotations": {r"\pN": ""}}, None, r'"\pN": the Unicode class \p cannot be checked here'),
}


@pytest.mark.parametrize(("when", "matches", "because"), REASONS.values(), ids=REASONS)
def test_reason(when: dict[str, Any], matches: bool | None, because: str, tmp_path: Path, probe: Path) -> None:
    folder = tables.write(tmp_path / "hooks.d", {"a.json": tables.current(probe, "a", when=when)})
    [one] = hooks_d.read([str(folder)])[0].files
    assert one.match(hooks_d.Container(tables.CONFIG)) == (matches, because)


def test_without_a_process_commands_do_not_count_and_without_a_command_the_engine_stops(probe: Path) -> None:
    file = probe.parent / "a.json"
    file.write_text(json.dumps(tables.current(probe, "a", when={"always": True, "commands": ["x"]})))
    one = hooks_d.File(str(file))
    assert one.match(hooks_d.Container({})) == (True, "always")
    empty = hooks_d.Container({"process": {"args": []}})
    assert one.match(empty) == (False, "process.args is empty, and engines refuse the container")


@pytest.mark.parametrize("name", ["hooks-d", "hooks-d-old"])
def test_what_the_schemas_call_valid_engines_read(name: str, tmp_path: Path) -> None:
    from helpers.schema_tables import VALID

    document = {key: value for key, value in VALID[name].items() if key not in ("stage", "cmd", "annotation")}
    file = tmp_path / "a.json"
    file.write_text(json.dumps(document))
    assert hooks_d.File(str(file)).refusal is None


@pytest.mark.parametrize("when", [When(), When(annotations=["a/b=c d"], commands=["^/bin"])])
def test_what_install_writes_is_valid(when: When) -> None:
    document = json.loads(conditions.text("/l", ["prestart", "poststop"], ["--debug"], when))
    assert oci.violations(document, "hooks-d") == []
