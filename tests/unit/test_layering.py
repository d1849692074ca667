# SPDX-License-Identifier: Apache-2.0
"""The house: each folder stands above all that it imports, and what is slow or dangerous has one place.

Read from the sources. docs/ARCHITECTURE.md shows the same floors to people.
"""

from __future__ import annotations

import ast
import graphlib
import os
from typing import TYPE_CHECKING, NamedTuple

import pytest

import oci_bind_hook

if TYPE_CHECKING:
    from collections.abc import Iterator

SPDX = "# SPDX-License-Identifier: Apache-2.0"

# Rooms (folders, and the modules beside them) by floor. A room imports from floors below it, and from itself.
FLOORS = (
    ("__init__",),
    ("errors", "log"),
    ("kernel",),
    ("documents", "rootfs"),
    ("record", "requests"),
    ("mounting", "options"),
    ("lifecycle",),
    ("commands",),
    ("cli", "wrapper"),
)

# What a start of a container may load besides ours: each costs nearly nothing, or has its reason where it stands.
HOT = {"_ctypes", "_json", "_prctl", "errno", "gc", "itertools", "posix", "stat", "sys", "time"}
# What it may load later, when it is asked for, by module. None of them runs after setns(2), when nothing can be loaded.
LATER = {
    "documents.acceptor": {"re"},
    "documents.strictjson": {"json"},
    "kernel.asking": {"_signal", "marshal"},
    "kernel.locks": {"_signal"},
    "log": {"_socket", "json"},
    "mounting.patterns": {"fnmatch", "glob"},
    "options": {"os"},
    "record.folder": {"os"},
    "requests.request": {"difflib"},
    "requests.stars": {"fnmatch", "functools"},
}
# Modules that are themselves loaded only when they are asked for.
ON_DEMAND = (
    "kernel.asking",
    "kernel.locks",
    "mounting.confined",
    "mounting.patterns",
    "mounting.propagation",
    "requests.stars",
)
# What nothing of ours loads, the commands neither: slow, or a second way to something.
NOWHERE = {"argparse", "dataclasses", "logging", "multiprocessing", "pathlib", "shutil", "threading"}

# Modules that stand in one place only.
OWNERS = {
    "_ctypes": {"kernel.linux"},
    "_json": {"documents.strictjson"},
    "_prctl": {"kernel.rights"},
    "_socket": {"log"},
    "jsonschema": {"documents.judge"},
    "referencing": {"documents.judge"},
    "subprocess": {"commands.engines.doctor", "commands.explain.answers"},
}

# What no floor tells: rooms and modules, and what they must never know, by the beginning of its name.
NEVER = {
    # What is asked for is text: the file system is never looked at.
    "requests": ("kernel", "os", "posix"),
    "commands.explain.recognise": ("kernel", "os", "posix"),
    "commands.explain.registered": ("kernel", "os", "posix"),
    # Poststop and detach read nothing that the container could have changed.
    "lifecycle.detach": ("documents", "requests"),
    "lifecycle.tear_down": ("documents", "requests"),
    "lifecycle.reach": ("documents", "requests"),
    "mounting.undo": ("documents", "requests"),
    # The walk knows where a path leads, not what is allowed there.
    "rootfs.walk": ("rootfs.admit", "rootfs.mount_points"),
    # What mounts is told what to do by objects: it reads no document.
    "mounting": ("documents.strictjson", "documents.acceptor", "documents.judge", "documents.bundle", "json"),
}

# Only what is called knows with which code a process ends; errors bring theirs.
EXIT_CODES = (
    *("cli", "wrapper", "errors"),
    *(f"commands.{name}" for name in ("actions", "dispatch", "registering", "unregistering")),
)


class Import(NamedTuple):
    """One imported module, ours without the package's name, where it stands and for what: "run", "later", "types"."""

    module: str
    name: str
    line: int
    kind: str

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.name}"

    @property
    def is_ours(self) -> bool:
        return self.name in MODULES


def _sources() -> dict[str, str]:
    found = {}
    for folder, _, names in os.walk(oci_bind_hook.FOLDER):
        for name in names:
            if name.endswith(".py"):
                path = os.path.join(folder, name)
                dotted = os.path.relpath(path, oci_bind_hook.FOLDER)[:-3].replace("/", ".")
                with open(path, encoding="utf-8") as file:
                    found[dotted.removesuffix(".__init__")] = file.read()
    return found


MODULES = _sources()


def imports(module: str, text: str) -> list[Import]:
    """All imports in a source text that stands in ``module``."""
    return list(_imports(module, ast.parse(text), "run"))


def _imports(module: str, node: ast.AST, kind: str) -> Iterator[Import]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield from (Import(module, name, node.lineno, kind) for name in _names(module, node) if name != "__future__")
    elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        for statement in node.body:
            yield from _imports(module, statement, "types")
        for statement in node.orelse:
            yield from _imports(module, statement, kind)
    else:
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from _imports(module, child, "later" if is_function and kind == "run" else kind)


def _names(module: str, node: ast.Import | ast.ImportFrom) -> list[str]:
    """What an import names: modules of ours by their path in the package, ``__init__`` for the package itself."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not node.level:
        return [str(node.module)]
    above = module.split(".")[: -node.level] if module in MODULES and not _is_folder(module) else module.split(".")
    base = ".".join([*above, *(node.module or "").split(".")]).strip(".")
    if base and not _is_folder(base):
        return [base]
    within = [f"{base}.{alias.name}".strip(".") for alias in node.names]
    return [name if name in MODULES else base or "__init__" for name in within]


def _is_folder(module: str) -> bool:
    return os.path.isdir(os.path.join(oci_bind_hook.FOLDER, module.replace(".", "/")))


EVERY = [each for module, text in MODULES.items() for each in imports(module, text)]


def room(module: str) -> str:
    return module.partition(".")[0]


def floor(module: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room(module) in rooms)


def is_hot(module: str) -> bool:
    """Whether a start of a container may load it."""
    return room(module) != "commands" and module != "documents.judge"


def breaches(found: list[Import]) -> list[str]:
    """What is against a rule, of imports."""
    wrong = []
    for each in found:
        if each.is_ours and each.kind != "types":
            if room(each.name) != room(each.module) and floor(each.name) >= floor(each.module):
                wrong.append(f"{each}, which stands no lower")
        elif each.kind != "types" and is_hot(each.module):
            is_later = each.kind == "later" or each.module in ON_DEMAND
            allowed = HOT | LATER.get(each.module, set()) if is_later else HOT
            if each.name.partition(".")[0] not in allowed:
                wrong.append(f"{each}, which a start of a container may not load")
        elif each.name.partition(".")[0] in NOWHERE:
            wrong.append(f"{each}, which nothing may load")
        if each.module not in OWNERS.get(each.name.partition(".")[0], {each.module}):
            wrong.append(f"{each}, which has its own place")
        for above, names in NEVER.items():
            if _is_in(each.module, above) and any(_is_in(each.name, name) for name in names) and each.kind != "types":
                wrong.append(f"{each}, of which {above} must know nothing")
    return wrong


def _is_in(module: str, folder: str) -> bool:
    return module == folder or module.startswith(f"{folder}.")


def test_every_room_has_a_floor() -> None:
    assert {room(module) for module in MODULES} == {name for rooms in FLOORS for name in rooms}
    beside = [name for name in os.listdir(oci_bind_hook.FOLDER) if name.endswith(".py")]
    assert len(beside) <= 8, "the folders are the map"


def test_every_import_keeps_the_rules() -> None:
    assert breaches(EVERY) == []


def test_no_module_imports_itself_by_a_detour() -> None:
    graph: dict[str, set[str]] = {}
    for each in EVERY:
        if each.is_ours and each.kind != "types":
            graph.setdefault(each.module, set()).add(each.name)
    assert list(graphlib.TopologicalSorter(graph).static_order())


BREACHES = {
    "mounting.plan": {
        "import os\n": "mounting.plan:1 imports os, which a start of a container may not load",
        "import re\n": "mounting.plan:1 imports re, which a start of a container may not load",
        "def f():\n    import logging\n": "mounting.plan:2 imports logging, which a start of a container may not load",
        "class C:\n    def f(self):\n        import glob\n": "mounting.plan:3 imports glob, which a start of a con",
        "try:\n    import typing\nexcept ImportError:\n    pass\n": "mounting.plan:2 imports typing, which a start of",
        "if TYPE_CHECKING:\n    pass\nelse:\n    import typing\n": "mounting.plan:4 imports typing, which a start of",
        "from ..lifecycle.set_up import set_up\n": "mounting.plan:1 imports lifecycle.set_up, which stands no lower",
        "from ..lifecycle import set_up\n": "mounting.plan:1 imports lifecycle.set_up, which stands no lower",
        "from ..options import parse\n": "mounting.plan:1 imports options, which stands no lower",
        "def f():\n    from ..cli import main\n": "mounting.plan:2 imports cli, which stands no lower",
        "import _ctypes\n": "mounting.plan:1 imports _ctypes, which has its own place",
    },
    "rootfs.walk": {"def f():\n    import re\n": "rootfs.walk:2 imports re, which a start of a container may not load"},
    "mounting.undo": {"def f():\n    import os\n": "mounting.undo:2 imports os, which a start of a container may not"},
    "commands.help": {
        "import argparse\n": "commands.help:1 imports argparse, which nothing may load",
        "def f():\n    import pathlib\n": "commands.help:2 imports pathlib, which nothing may load",
    },
    "requests.collect": {"import posix\n": "requests.collect:1 imports posix, of which requests must know nothing"},
    "lifecycle.tear_down": {
        "from ..documents import bundle\n": "lifecycle.tear_down:1 imports documents.bundle, of which lifecycle.tear_d"
    },
}


@pytest.mark.parametrize(
    ("module", "text", "message"),
    [(module, text, message) for module, rows in BREACHES.items() for text, message in rows.items()],
)
def test_a_breach_is_told_with_its_place(module: str, text: str, message: str) -> None:
    told = breaches(imports(module, text))
    assert len(told) == 1
    assert told[0].startswith(message)


def test_what_types_alone_need_may_be_anywhere() -> None:
    text = "if TYPE_CHECKING:\n    from typing import Any\n    from ..lifecycle.stage import Place\n"
    assert breaches(imports("mounting.plan", text)) == []


def test_exit_codes_are_known_in_few_places() -> None:
    places = [
        f"{module}:{node.lineno}"
        for module, text in MODULES.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Attribute) and node.attr.startswith("EX_") and module not in EXIT_CODES
    ]
    # The launcher that `install` writes is text.
    assert places == []


@pytest.mark.parametrize(
    "module",
    [name for name in MODULES if _is_in(name, "requests")]
    + ["mounting.plan", "commands.explain.recognise", "commands.explain.registered"],
)
def test_what_plans_looks_up_no_path(module: str) -> None:
    nodes = [node for node in ast.walk(ast.parse(MODULES[module])) if isinstance(node, ast.Attribute | ast.Name)]
    used = {ast.unparse(node) for node in nodes}
    lookups = {name for name in used if name == "open" or name.startswith(("os.", "posix.", "linux.", "files."))}
    assert lookups <= {"files.clean_path"}


def test_the_command_line_knows_no_errno() -> None:
    nodes = [node for node in ast.walk(ast.parse(MODULES["cli"])) if isinstance(node, ast.Attribute | ast.Name)]
    assert [name for name in map(ast.unparse, nodes) if name.rpartition(".")[2] == "errno"] == []


def test_every_module_says_its_licence_and_its_purpose() -> None:
    wrong = []
    for module, text in MODULES.items():
        docstring = ast.get_docstring(ast.parse(text))
        if not text.startswith(f"{SPDX}\n") or not docstring:
            wrong.append(module)
        if _is_folder(module) and is_hot(module) and "every start of a container" not in str(docstring):
            wrong.append(f"{module} does not say what it may import")
    assert wrong == []


def test_everything_public_is_described_and_everything_is_typed() -> None:
    wrong = []
    for module, text in MODULES.items():
        tree = ast.parse(text)
        for node in tree.body:
            is_public = isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name[0] != "_"
            if is_public and not ast.get_docstring(node):  # type: ignore[arg-type]
                wrong.append(f"{module}:{node.lineno} has no docstring")
        for node in (each for each in ast.walk(tree) if isinstance(each, ast.FunctionDef)):
            given = node.args
            every = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
            bare = [one.arg for one in every if one and one.annotation is None and one.arg not in ("self", "cls")]
            if bare or node.returns is None:
                wrong.append(f"{module}:{node.lineno} {node.name} has no types")
    assert wrong == []
