# SPDX-License-Identifier: Apache-2.0
"""The SELinux labels that config.json names, in the text and in the picture. No kernel is asked here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from helpers.schema_tables import VALID
from oci_bind_hook.commands.explain.report import Report, as_text
from oci_bind_hook.commands.explain.selinux import Labels
from oci_bind_hook.commands.explain.tree import as_tree

from .test_tree import document, mount

if TYPE_CHECKING:
    from pathlib import Path

PROCESS = "system_u:system_r:container_t:s0:c1,c2"
MOUNT = "system_u:object_r:container_file_t:s0:c1,c2"
DOCUMENTS = [
    ({"process": {"selinuxLabel": PROCESS}, "linux": {"mountLabel": MOUNT}}, PROCESS, MOUNT),
    ({"process": {"selinuxLabel": ""}, "linux": {}}, None, None),
    ({"process": {"selinuxLabel": 1}, "linux": []}, None, None),
    ([], None, None),
]


@pytest.mark.parametrize(("config", "process", "mount"), DOCUMENTS, ids=["both", "empty", "wrong", "no object"])
def test_labels_are_read_from_any_document(tmp_path: Path, config: Any, process: str | None, mount: str | None) -> None:
    facts = Labels(config, f"{tmp_path}/no-selinuxfs").facts()
    assert facts == {"process": process, "mount": mount, "mode": None}


LINES = [
    ({"process": PROCESS, "mount": "m", "mode": None}, f"processes {PROCESS}, file systems m; here it is not on"),
    ({"process": PROCESS, "mount": None, "mode": "enforcing"}, f"processes {PROCESS}; here it is enforcing"),
    ({"process": None, "mount": MOUNT, "mode": "permissive"}, f"file systems {MOUNT}; here it is permissive"),
    ({"process": None, "mount": None, "mode": "enforcing"}, None),
    (None, None),
]


@pytest.mark.parametrize(("selinux", "line"), LINES, ids=["both", "process", "mount", "none", "not known"])
def test_the_text_has_a_line_where_config_json_names_a_label(selinux: dict[str, Any] | None, line: str | None) -> None:
    report = Report()
    report.selinux = selinux
    lines = [each for each in as_text(report).splitlines() if each.startswith("SELinux")]
    assert lines == ([] if line is None else [f"SELinux    {line}"])


def found(label: str | None) -> dict[str, Any]:
    return {**VALID["plan"]["mounts"][0]["found"], "path": "/srv/a", "label": label}


@pytest.mark.parametrize(
    ("process", "label", "word"),
    [
        (PROCESS, MOUNT, "container_file_t"),
        (PROCESS, "one", "one"),
        (PROCESS, "a:b:two\x1b", r"two\x1b"),
        (PROCESS, None, ""),
        (None, MOUNT, ""),
    ],
)
def test_the_picture_has_the_type_of_a_source_where_processes_have_a_label(
    process: str | None, label: str | None, word: str
) -> None:
    selinux = {"process": process, "mount": None, "mode": None}
    drawn = as_tree(document(mount("/srv/a", "/new", found=found(label)), selinux=selinux))
    (line,) = [each for each in drawn.splitlines() if "new" in each]
    assert line.rstrip().removeprefix(line.partition("/srv/a")[0]) == f"/srv/a  {word}".rstrip()
