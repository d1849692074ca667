# SPDX-License-Identifier: Apache-2.0
"""Who may import whom, read from the sources: the arrows run one way, and what is slow or dangerous has one place."""

from __future__ import annotations

import ast
import os
import re
from typing import TYPE_CHECKING, NamedTuple

import pytest

import oci_bind_hook

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = os.path.dirname(os.path.abspath(oci_bind_hook.__file__))
SPDX = "# SPDX-License-Identifier: Apache-2.0"


class May(NamedTuple):
    """What a module may import: when it is loaded, only inside a function, and only for types. A dot is ours."""

    loaded: str = ""
    lazy: str = ""
    types: str = ""


# From the ground up: a module may import only what stands above it.
MAY = {
    "__init__": May("os"),
    "errors": May("os", types="collections.abc"),
    "libc": May("_ctypes os", types="typing"),
    "linux": May(".libc _prctl errno os sys", types="collections.abc typing"),
    "reasons": May(".errors .linux errno os"),
    "proc": May(".errors .linux os", types="collections.abc"),
    "log": May("os time", lazy="_socket json"),
    "strictjson": May(".errors .log _json gc itertools", lazy="json", types="collections.abc typing"),
    "lane": May(".strictjson os", lazy="re", types="collections.abc typing"),
    "judge": May(
        ".lane .strictjson json jsonschema referencing referencing.jsonschema",
        types="collections.abc typing",
    ),
    "spec": May(".errors .lane", lazy=".judge", types="typing"),
    "request": May(".errors", lazy="difflib", types=".spec collections.abc"),
    "options": May(".errors os", lazy=".request", types=".proc .spec"),
    "mountspec": May(".errors .request", types=".spec collections.abc"),
    "plan": May(".errors .mountspec .request", types=".spec collections.abc"),
    "bundle": May(".errors .linux .reasons .spec .strictjson os time", types="collections.abc"),
    "rootfs": May(".errors .linux .reasons errno os stat", types="collections.abc"),
    "statefile": May(
        ".errors .linux .reasons .spec .strictjson errno os stat time",
        types=".proc collections.abc typing",
    ),
    "attached": May(".errors .linux .proc os", types=".statefile collections.abc"),
    "undo": May(".attached .errors .linux .proc .reasons .rootfs errno os stat", types=".statefile collections.abc"),
    "teardown": May(
        ".attached .errors .linux .log .options .proc .reasons .rootfs .statefile .undo os",
        types=".log .options .rootfs .spec .statefile",
    ),
    "idmap": May(".errors .linux .reasons os", types=".proc .request .spec"),
    "allowed": May(".errors os", lazy="glob", types=".request collections.abc"),
    "source": May(".errors .linux .proc .reasons errno os stat", lazy=".allowed", types=".proc .request .statefile"),
    "detached": May(".attached .errors .linux .reasons .source errno os", lazy=".idmap", types=".request"),
    "classic": May(".attached .errors .linux .proc .reasons .source errno os", types=".proc .request .statefile"),
    "trees": May(
        ".detached .errors .linux .reasons os",
        lazy=".allowed .classic glob",
        types=".classic .proc .request .source collections.abc",
    ),
    "planner": May(".errors .proc .rootfs os", types=".request .source .statefile collections.abc"),
    "mounts": May(
        ".attached .errors .proc .reasons .rootfs .trees .undo",
        types=".planner .rootfs .statefile collections.abc",
    ),
    "stage": May(".errors .reasons errno os", types=".bundle .proc .rootfs .spec .statefile"),
    "setup": May(
        ".bundle .errors .linux .log .mounts .options .plan .planner .proc .rootfs"
        " .stage .statefile .teardown .trees os",
        types=".log .options .planner .request .source .spec .statefile",
    ),
    "records": May(
        ".attached .errors .linux .log .options .proc .statefile .teardown .undo json os",
        types=".rootfs .statefile collections.abc",
    ),
    "gc": May(
        ".errors .linux .log .records .statefile .teardown json",
        types=".log .options .records .statefile collections.abc",
    ),
    "known": May(types="collections.abc"),
    "registered": May(types="collections.abc typing"),
    "explain": May(".known .source os stat", types=".planner .request .source .statefile collections.abc"),
    "foresee": May(".errors .stage os", types=".planner .proc .spec collections.abc"),
    "running": May(".attached", types=".planner .proc .statefile collections.abc"),
    "report": May(".errors .log json os", types="collections.abc typing"),
    "dryrun": May(
        ".attached .bundle .errors .explain .foresee .known .options .plan .planner .proc .registered .report .rootfs"
        " .running .setup .stage .statefile .teardown .trees os",
        types=".registered .request .spec .statefile collections.abc",
    ),
    "re2": May("re"),
    "hooksd": May(".bundle .errors .re2 .strictjson json os", types="collections.abc re typing"),
    "install": May(
        ".errors .options .re2 .reasons compileall importlib.metadata json os re stat sys tempfile typing",
        types="collections.abc typing",
    ),
    "check": May(".bundle .hooksd .install .log .spec .strictjson json os", types=".hooksd collections.abc"),
    "doctor": May(
        ".__init__ .check .errors .hooksd .install .linux .log .options .proc .statefile"
        " importlib.metadata json os stat sys",
        lazy="subprocess",
        types="collections.abc typing",
    ),
    "validate": May(".bundle .errors .log .spec .strictjson json os", types="collections.abc"),
    "commands": May(
        ".bundle .errors .log .mountspec .options .reasons os",
        lazy=".check .doctor .dryrun .gc .hooksd .install .records .report .validate",
        types=".log",
    ),
    "cli": May(
        ".__init__ .bundle .errors .log .options .reasons os sys",
        lazy=".commands .setup .teardown",
        types="typing",
    ),
}
ORDER = list(MAY)

# Modules that stand in one place only.
ONLY = {
    "_ctypes": "libc",
    "_prctl": "linux",
    "jsonschema": "judge",
    "referencing": "judge",
    "_json": "strictjson",
    "_socket": "log",
    "subprocess": "doctor",
}

# What costs more than a container's start may wait, or would run somebody else's code.
NEVER = ("argparse", "dataclasses", "logging", "multiprocessing", "pathlib", "shutil", "threading")


def source(module: str) -> str:
    with open(os.path.join(PACKAGE, f"{module}.py"), encoding="utf-8") as file:
        return file.read()


def place(module: str, node: ast.AST) -> str:
    return f"{module}.py:{getattr(node, 'lineno', 0)}"


class Import(NamedTuple):
    """One imported module, ``kind`` as the members of May are called, and where that stands."""

    name: str
    kind: str
    place: str


def imports(module: str, text: str) -> list[Import]:
    """All imports in a source text."""
    return list(_imports(module, ast.parse(text), "loaded"))


def _imports(module: str, node: ast.AST, kind: str) -> Iterator[Import]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield from (Import(name, kind, place(module, node)) for name in _names(node))
    elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        for statement in node.body:
            yield from _imports(module, statement, "types")
        for statement in node.orelse:
            yield from _imports(module, statement, kind)
    else:
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from _imports(module, child, "lazy" if is_function and kind == "loaded" else kind)


def _names(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if node.level:
        return [f".{node.module or (alias.name if alias.name in MAY else '__init__')}" for alias in node.names]
    return [str(node.module)]


def breaches(module: str, text: str) -> list[str]:
    """Every import that the table does not have, with its place."""
    return [
        f"{each.place}: {each.name} may not be imported here ({each.kind})"
        for each in imports(module, text)
        if each.name != "__future__" and each.name not in getattr(MAY[module], each.kind).split()
    ]


def test_table_has_every_module() -> None:
    assert sorted(MAY) == sorted(name[:-3] for name in os.listdir(PACKAGE) if name.endswith(".py"))


@pytest.mark.parametrize("module", MAY)
def test_module_imports_only_what_it_may(module: str) -> None:
    assert breaches(module, source(module)) == []


@pytest.mark.parametrize("module", MAY)
def test_table_has_nothing_that_is_not_imported(module: str) -> None:
    found = imports(module, source(module))
    for kind in May._fields:
        assert set(getattr(MAY[module], kind).split()) <= {each.name for each in found if each.kind == kind}, kind


@pytest.mark.parametrize("module", MAY)
def test_arrows_run_one_way(module: str) -> None:
    above = ORDER[: ORDER.index(module)]
    wrong = [
        f"{each.place}: {each.name} stands below {module}"
        for each in imports(module, source(module))
        if each.kind != "types" and each.name[0] == "." and each.name[1:] not in above
    ]
    assert wrong == []


@pytest.mark.parametrize(("name", "owner"), ONLY.items())
def test_one_place_only(name: str, owner: str) -> None:
    users = {module for module in MAY for each in imports(module, source(module)) if each.name == name}
    assert users == {owner}


@pytest.mark.parametrize("name", NEVER)
def test_nobody_imports(name: str) -> None:
    places = [each.place for module in MAY for each in imports(module, source(module)) if each.name == name]
    assert places == []


BREACHES = {
    "loaded": ("import os\n\nimport json\n", "plan.py:3: json may not be imported here (loaded)"),
    "lazy": ("def f():\n    import json\n", "plan.py:2: json may not be imported here (lazy)"),
    "method": ("class C:\n    def f(self):\n        import json\n", "plan.py:3: json may not be imported here (lazy)"),
    "types": ("if TYPE_CHECKING:\n    import json\n", "plan.py:2: json may not be imported here (types)"),
    "else": ("if TYPE_CHECKING:\n    pass\nelse:\n    import json\n", "plan.py:4: json may not be imported"),
    "try": ("try:\n    import json\nexcept ImportError:\n    pass\n", "plan.py:2: json may not be imported"),
    "ours": ("from .rootfs import Rootfs\n", "plan.py:1: .rootfs may not be imported here (loaded)"),
    "ours, whole": ("from . import rootfs\n", "plan.py:1: .rootfs may not be imported here (loaded)"),
    "types only": ("from .spec import Config\n", "plan.py:1: .spec may not be imported here (loaded)"),
    "lazy only": ("import difflib\n", "plan.py:1: difflib may not be imported here (loaded)"),
}


@pytest.mark.parametrize(("text", "message"), BREACHES.values(), ids=BREACHES)
def test_breach_is_named_with_file_and_line(text: str, message: str) -> None:
    assert breaches("plan", text)[-1].startswith(message)


# What a module must never know


def test_cli_names_no_errno() -> None:
    nodes = [node for node in ast.walk(ast.parse(source("cli"))) if isinstance(node, ast.Attribute | ast.Name)]
    names = [(place("cli", node), ast.unparse(node)) for node in nodes]
    assert [each for each in names if each[1].rpartition(".")[2] == "errno"] == []


@pytest.mark.parametrize("module", [module for module in MAY if module not in ("cli", "commands", "errors")])
def test_only_cli_and_errors_know_exit_codes(module: str) -> None:
    nodes = [node for node in ast.walk(ast.parse(source(module))) if isinstance(node, ast.Attribute)]
    # The launcher of `install` is text; report tells the exit code that an error brings with it.
    assert [place(module, node) for node in nodes if node.attr.startswith("EX_")] == []


@pytest.mark.parametrize("module", ["request", "mountspec", "plan", "planner", "known", "registered"])
def test_planning_touches_no_file(module: str) -> None:
    nodes = [node for node in ast.walk(ast.parse(source(module))) if isinstance(node, ast.Attribute | ast.Name)]
    names = {ast.unparse(node) for node in nodes}
    used = {name for name in names if name == "open" or name.startswith("os.")}
    assert used <= {"os.path", "os.path.normpath"}


@pytest.mark.parametrize("module", ["mounts", "trees", "planner", "rootfs", "linux", "proc"])
def test_what_mounts_knows_no_json(module: str) -> None:
    text = "".join(line for line in source(module).splitlines() if "schemas/" not in line)
    assert "json." not in text


# Every module


@pytest.mark.parametrize("module", MAY)
def test_module_says_license_and_purpose(module: str) -> None:
    text = source(module)
    assert text.splitlines()[0] == SPDX
    assert ast.get_docstring(ast.parse(text)), f"{module}.py has no docstring"


def definitions(module: str) -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef]]:
    """Every class and function of a module, and where it stands."""
    for node in ast.walk(ast.parse(source(module))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield f"{place(module, node)}: {node.name}", node


@pytest.mark.parametrize("module", MAY)
def test_public_things_have_docstrings(module: str) -> None:
    tree = ast.parse(source(module))
    public = [node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name[0] != "_"]
    assert [place(module, node) for node in public if not ast.get_docstring(node)] == []


@pytest.mark.parametrize("module", MAY)
def test_functions_are_annotated(module: str) -> None:
    bare = []
    for where, node in definitions(module):
        if isinstance(node, ast.FunctionDef):
            every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
            untyped = [one.arg for one in every if one and one.annotation is None and one.arg not in ("self", "cls")]
            if node.returns is None or untyped:
                bare.append(where)
    assert bare == []


def test_the_readme_has_each_module_below_those_that_it_imports() -> None:
    with open(os.path.join(os.path.dirname(__file__), "../../README.md"), encoding="utf-8") as file:
        house = file.read().partition("## How it is built")[2]
    names = re.findall(r"^\| `(\w+)` \|", house, re.MULTILINE)
    assert sorted(names) == sorted(name for name in MAY if not name.startswith("__"))
    above = {name: {f".{other}" for other in ("__init__", *names[:number])} for number, name in enumerate(names)}
    imported = {name: f"{MAY[name].loaded} {MAY[name].lazy}".split() for name in names}
    wrong = {name: [word for word in imported[name] if word[0] == "." and word not in above[name]] for name in names}
    assert {name: words for name, words in wrong.items() if words} == {}
