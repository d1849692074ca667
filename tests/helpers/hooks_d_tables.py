# SPDX-License-Identifier: Apache-2.0
"""hooks.d folders for a unit test of what we think that engines do, and for podman, which tells what they do."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from oci_bind_hook.commands.engines import hooks_d

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# A regular expression, a text, and whether Go finds it there; None where Go refuses the expression.
REGEXPS: list[tuple[str, str, bool | None]] = [
    ("", "x", True),
    ("b", "abc", True),  # anywhere
    ("^b", "abc", False),
    ("^b", "a\nb", False),
    ("a$", "a\nb", False),
    ("^abc$", "abc", True),
    ("^abc$", "abc\n", False),  # in Python $ is also before a last newline
    (r"\Aabc\z", "abc", True),
    ("(?m)^b$", "a\nb\nc", True),
    ("a.c", "a\nc", False),
    ("(?s)a.c", "a\nc", True),
    ("(?i)ABC", "abc", True),
    ("a(?i)b|c", "aB", True),  # the flag goes on behind the |
    ("a(?i)b|c", "C", True),
    ("(a(?i)b)c", "aBC", False),
    ("(?i:a)b", "AB", False),
    ("(?i-i)a", "A", False),
    ("(?i)[a-c]", "B", True),
    ("(?i)[^a-c]", "B", False),
    ("^(a|b)*$", "abab", True),
    ("^(?:a|)b$", "b", True),
    ("^a{2,3}$", "aaaa", False),
    ("^a{2,}?$", "aaaa", True),
    ("a{,3}", "aa", False),  # no repetition but a text
    ("a{,3}", "a{,3}", True),
    ("a{02}", "aa", False),
    ("^(b|(a{1,5}){1,200})$", "a" * 1000, True),
    ("^(a{600}){0,}(a{0,600}){1}(b{600}){0}c{2}", "cc", True),
    ("a{", "a{", True),
    ("^*", "x", True),
    ("(?P<name>x)y", "xy", True),
    ("(?P<a>x)(?P<a>y)", "xy", True),
    (r"^\d$", "\u0663", False),  # only the ten digits of ASCII
    (r"^\w+$", "\u00e4", False),
    (r"\s", "\v", False),
    (r"[[:space:]]", "\v", True),
    (r"^[[:alpha:]_]+$", "a_b", True),
    (r"^[[:^alpha:]]$", "a", False),
    (r"^[^\D]$", "5", True),
    (r"^[\w-]+$", "a-b", True),
    ("^[]a]$", "]", True),
    ("^[^]a]$", "b", True),
    ("^[a-]$", "-", True),
    ("^[^a]$", "\n", True),
    (r"^\x41\x{42}\103$", "ABC", True),
    (r"^\Qa.b\E$", "a.b", True),
    (r"^\Qa.b\E$", "axb", False),
    (r"^io\.github\.x$", "ioxgithub.x", False),
    (r"a\bb", "ab", False),
    (r"\bb", "a b", True),
    (r"\_\-\/", "_-/", True),
    ("^\u00e4.$", "\u00e4\u20ac", True),
    ("a**", "a", None),
    ("a{2}{3}", "a", None),
    ("*", "a", None),
    ("(|*)", "a", None),
    ("a{1001}", "a", None),
    ("a{3,2}", "a", None),
    ("(a{100}){11}", "a", None),
    ("((a{2}|b)*c){501}", "a", None),
    ("(a{600})(?i){2}", "a", None),
    ("(", "", None),
    (")", "", None),
    ("[a", "a", None),
    ("[b-a]", "a", None),
    ("[[:word", "[", None),
    ("[[:nothing:]]", "a", None),
    (r"[a-\d]", "a", None),
    ("\\", "", None),
    (r"\Z", "", None),
    (r"\1", "", None),
    (r"\x{110000}", "", None),
    ("(?=a)", "a", None),
    ("(?<!a)", "a", None),
    ("(?>a)", "a", None),
    ("(?P=name)", "a", None),
    ("(?-)", "a", None),
]

# The container that is asked about: its annotations, command, and whether it has a bind.
ANNOTATIONS = {"com.example.kind": "gpu", "com.example.flag": "1"}
COMMAND = "/bin/true"

# Conditions, and whether they hold for a container without a bind, and for one with.
WHEN: dict[str, tuple[dict[str, Any] | None, bool, bool]] = {
    "always": ({"always": True}, True, True),
    "never": ({"always": False}, False, False),
    "nothing": ({}, False, False),
    "null": (None, False, False),
    "annotation": ({"annotations": {"^com\\.example\\.kind$": "^gpu$"}}, True, True),
    "part": ({"annotations": {"kind": "p"}}, True, True),
    "value": ({"annotations": {"kind": "^cpu$"}}, False, False),
    "absent": ({"annotations": {"other": ""}}, False, False),
    "two": ({"annotations": {"kind": "gpu", "flag": "^1$"}}, True, True),
    "one-of-two": ({"annotations": {"kind": "gpu", "flag": "2"}}, False, False),
    "engine": ({"annotations": {"^io\\.container\\.manager$": ""}}, True, True),
    "command": ({"commands": ["^/bin/t"]}, True, True),
    "commands": ({"commands": ["^x", "true$"]}, True, True),
    "no-command": ({"commands": ["^true"]}, False, False),
    "no-commands": ({"always": True, "commands": []}, True, True),
    "all-hold": ({"always": True, "annotations": {"kind": ""}, "commands": ["true"]}, True, True),
    "one-does-not": ({"always": True, "annotations": {"kind": ""}, "commands": ["false"]}, False, False),
    "binds": ({"hasBindMounts": True}, False, True),
    "no-binds": ({"hasBindMounts": False}, False, False),
    "binds-and": ({"hasBindMounts": True, "annotations": {"kind": "cpu"}}, False, False),
    "folded": ({"ALWAYS": True, "hasbindmounts": True}, False, True),
    "unknown": ({"always": True, "annotation": {"x": "y"}}, True, True),
}
OLD: dict[str, tuple[dict[str, Any], bool, bool]] = {
    "old-nothing": ({}, False, False),
    "old-cmd": ({"cmd": ["true"]}, True, True),
    "old-cmds": ({"cmds": ["false"]}, False, False),
    "old-annotation": ({"annotation": ["gpu"]}, True, True),
    "old-joined": ({"annotations": ["cpu", "^gpu$"]}, True, True),
    "old-any": ({"cmds": ["true"], "annotations": ["cpu"]}, True, True),
    "old-other": ({"cmds": ["false"], "annotations": ["gpu"]}, True, True),
    "old-binds": ({"hasbindmounts": True}, False, True),
    "old-binds-or": ({"hasbindmounts": True, "cmds": ["true"]}, True, True),
    "old-no-binds": ({"hasbindmounts": False, "cmds": ["true"]}, True, True),
}


def current(probe: object, name: str, **changes: Any) -> dict[str, Any]:
    """A file of version 1.0.0 that lets ``probe`` write down ``name``, with some members changed."""
    hook = {"path": str(probe), "args": ["probe", name], "env": ["A=1"], "timeout": 9, **changes.pop("hook", {})}
    return {"version": "1.0.0", "hook": hook, "when": {"always": True}, "stages": ["createRuntime"], **changes}


def old(probe: object, name: str, **changes: Any) -> dict[str, Any]:
    """The same of version 0.1.0."""
    return {"hook": str(probe), "arguments": [name], "stages": ["createRuntime"], "cmds": [""], **changes}


def cases(probe: object) -> dict[str, tuple[dict[str, Any], list[str] | None]]:
    """Folders: their files, and the names written down, in this order; None where no container starts."""

    def new(name: str, **changes: Any) -> dict[str, Any]:
        return current(probe, name, **changes)

    def bare(name: str, member: str) -> dict[str, Any]:
        return {key: value for key, value in new(name).items() if key != member}

    good = new("good")
    absent, wrong = new("absent", hook={"path": "/not/there"}), new("wrong", stages=["nowhere"])
    twice = json.dumps(good)[:-1] + ', "when": {"always": false}, "when": {"always": true}}'
    return {
        "order": (
            {name: new(name) for name in ("B.json", "a.json", "c.json", ".d.json")},
            [".d.json", "a.json", "B.json", "c.json"],
        ),
        "other endings": ({"a.JSON": new("x"), "b.json5": "no JSON", "c": "no JSON", "d.json": good}, ["good"]),
        "absent": ({"a.json": absent, "b.json": good}, ["good"]),
        "wrong": ({"a.json": wrong, "b.json": good}, None),
        "absent before wrong": ({"a.json": absent, "b.json": wrong, "c.json": good}, ["good"]),
        "wrong before absent": ({"a.json": wrong, "b.json": absent, "c.json": good}, None),
        "below a file": ({"a.json": new("x", hook={"path": f"{probe}/x"})}, None),
        "no path": ({"a.json": new("x", hook={"path": ""})}, None),
        "no hook": ({"a.json": bare("x", "hook")}, None),
        "no when": ({"a.json": bare("x", "when"), "b.json": good}, ["good"]),
        "no stages": ({"a.json": bare("x", "stages")}, None),
        "null stages": ({"a.json": new("x", stages=None)}, None),
        "empty stages": ({"a.json": new("x", stages=[]), "b.json": good}, ["good"]),
        "all stages twice": ({"a.json": new("x", stages=["createRuntime", "createRuntime"])}, ["x", "x"]),
        "other version": ({"a.json": new("x", version="1.0.1")}, None),
        "number for a version": ({"a.json": new("x", version=1)}, None),
        "text for a number": ({"a.json": new("x", hook={"timeout": "1"})}, None),
        "true for a number": ({"a.json": new("x", hook={"timeout": True})}, None),
        "more than 64 bits": ({"a.json": new("x", hook={"timeout": 1 << 63})}, None),
        "fraction": ({"a.json": new("x", hook={"timeout": 1.0})}, None),
        "null in a list": ({"a.json": new("x", hook={"args": ["probe", "x", None]})}, ["x"]),
        "false in a list": ({"a.json": new("x", hook={"args": ["probe", "x", False]})}, None),
        "null for a condition": ({"a.json": new("x", when={"always": True, "commands": None})}, ["x"]),
        "text for a condition": ({"a.json": new("x", when={"always": "true"})}, None),
        "names in other case": (
            {"a.json": {key.upper(): value for key, value in good.items()}},
            ["good"],
        ),
        "unknown members": ({"a.json": {**good, "other": 1}}, ["good"]),
        "a name twice": ({"a.json": twice}, ["good"]),
        "NaN": ({"a.json": json.dumps({**good, "other": float("nan")})}, None),
        "byte order mark": ({"a.json": "\ufeff" + json.dumps(good)}, None),
        "an array": ({"a.json": [good]}, None),
        "null": ({"a.json": "null"}, None),
        "empty": ({"a.json": ""}, None),
        "two documents": ({"a.json": json.dumps(good) * 2}, None),
        "old": ({"a.json": old(probe, "x")}, ["x"]),
        "old with a version": ({"a.json": old(probe, "x", version="0.1.0")}, ["x"]),
        "old, no hook": ({"a.json": {"stages": ["createRuntime"], "cmds": [""]}}, None),
        "old, stage": ({"a.json": {**old(probe, "x", stage=["createRuntime"]), "stages": None}}, ["x"]),
        "old, both": ({"a.json": old(probe, "x", stage=["createRuntime"])}, None),
        "old, both commands": ({"a.json": old(probe, "x", cmd=["x"])}, None),
        "old, both annotations": ({"a.json": old(probe, "x", annotation=[], annotations=[])}, None),
    }


# Two folders, the second one more important.
def masks(probe: object) -> dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]]:
    """The files of both, and the names written down."""
    one, two = current(probe, "one"), current(probe, "two")
    return {
        "replaced": ({"a.json": one}, {"a.json": two}, ["two"]),
        "beside": ({"b.json": one}, {"a.json": two}, ["two", "one"]),
        "other case": ({"A.json": one}, {"b.json": two}, ["one", "two"]),
        "by one for nobody": ({"a.json": one}, {"a.json": {**two, "when": {"always": False}}}, []),
        "by one that is passed over": ({"a.json": one}, {"a.json": current(probe, "x", hook={"path": "/no"})}, ["one"]),
    }


def write(folder: Path, files: Mapping[str, Any]) -> Path:
    """Make a folder of these files: documents, or text as it is."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name).write_text(text)
    return folder


def write_probe(folder: Path) -> Path:
    """Make a hook that writes its first argument to the file ``ran`` beside it."""
    probe = folder / "probe"
    probe.write_text(f'#!/bin/sh\n/bin/cat >/dev/null\necho "$1" >>{folder}/ran\n')
    os.chmod(probe, 0o755)
    return probe


def conditions(probe: object) -> dict[str, Any]:
    """The files for all rows of WHEN and OLD."""
    files = {f"{name}.json": current(probe, name, when=when) for name, (when, *_) in WHEN.items()}
    for name, (members, *_) in OLD.items():
        files[f"{name}.json"] = {**old(probe, name), "cmds": None, **members}
    return files


# The config.json of a container for which the hooks are looked for.
BIND = {"destination": "/data", "type": "bind", "source": "/srv", "options": ["rbind"]}

CONFIG: dict[str, Any] = {
    "process": {"args": [COMMAND]},
    "annotations": {**ANNOTATIONS, "io.container.manager": "libpod"},
    "mounts": [
        {"destination": "/proc", "type": "proc"},
        *[{**BIND, "destination": place} for place in hooks_d.OWN_BINDS],
    ],
}
