# SPDX-License-Identifier: Apache-2.0
"""What the documents for contributors say of the code: the tree, its floors, and every name that they give."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from oci_bind_hook.errors import STEPS
from unit.test_layering import FLOORS, MODULES

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).resolve().parents[2]
PACKAGE = PROJECT / "hook/oci_bind_hook"
DOCUMENTS = ("docs/ARCHITECTURE.md", "CONTRIBUTING.md")

# What stands in backticks and has a dot, and is neither a file of the project nor a name in the package.
OTHERS = {"config.json"}


def read(document: str) -> str:
    return (PROJECT / document).read_text(encoding="utf-8")


def tree() -> Iterator[tuple[str, int]]:
    """Each path in the drawing, below the package, with the floor that it stands on. That of a folder ends with /."""
    drawing = read("docs/ARCHITECTURE.md").split("```")[1].strip("\n")
    floor = -1
    folders: dict[int, str] = {}
    for line in drawing.splitlines():
        row = re.fullmatch(r"(\d| )( +)(\S+) {2,}\S.*", line)
        assert row is not None, f"neither a folder nor a module with its duty: {line}"
        floor = floor if row[1] == " " else int(row[1])
        folders = {depth: name for depth, name in folders.items() if depth < len(row[2])}
        yield "".join([*folders.values(), row[3]]), floor
        if row[3].endswith("/"):
            folders[len(row[2])] = row[3]


def test_the_tree_has_every_folder_and_module_once() -> None:
    paths = [module.replace(".", "/") for module in MODULES]
    there = {f"{path}/" if (PACKAGE / path).is_dir() else f"{path}.py" for path in paths}
    drawn = [path for path, _ in tree()]
    assert [path for path in drawn if path not in there] == []
    assert sorted(there.difference(drawn)) == []
    assert len(drawn) == len(there)


def test_the_floors_are_those_that_imports_keep() -> None:
    floors = [floor for _, floor in tree()]
    assert floors == sorted(floors, reverse=True), "the highest stands on top"
    rooms = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
    wrong = {path: floor for path, floor in tree() if rooms.get(path.partition("/")[0].removesuffix(".py")) != floor}
    assert wrong == {}


def test_the_steps_are_those_of_a_set_up() -> None:
    assert re.findall(r"^\d+\. \*\*(.+?)\*\*: ", read("docs/ARCHITECTURE.md"), re.MULTILINE) == list(STEPS)


def names(document: str) -> set[str]:
    """All in backticks that can only be a file, a module or something in one: words with dots between them."""
    return set(re.findall(r"`([\w/.-]*\w\.\w+)`", read(document))) - OTHERS


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_name_is_there(document: str) -> None:
    assert [name for name in sorted(names(document)) if not is_file(name) and not is_in_the_package(name)] == []


def is_file(name: str) -> bool:
    return any((folder / name).is_file() for folder in (PROJECT, PACKAGE))


def is_in_the_package(name: str) -> bool:
    """Whether a dotted name is that of a module, or of a class, function or constant in one."""
    parts = name.split(".")
    inside: list[str] = []
    while parts and ".".join(parts) not in MODULES:
        inside.insert(0, parts.pop())
    found: object = importlib.import_module(".".join(["oci_bind_hook", *parts]))
    for attribute in inside:
        found = getattr(found, attribute, None)
    return bool(parts) and found is not None


def test_what_is_not_there_is_told() -> None:
    wrong = ("mounting.plan.Planner.resolved", "mounting.plans", "plan.Planner", "os.stat", "mounting/plans.py")
    assert [name for name in wrong if is_file(name) or is_in_the_package(name)] == []
