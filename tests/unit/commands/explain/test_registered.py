# SPDX-License-Identifier: Apache-2.0
"""Which entries of config.json's hooks are ours, and what is said about them."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from oci_bind_hook.commands.explain import registered

PATH = "/usr/libexec/oci/hooks.d/oci-bind-hook"


def entry(*words: str, path: str = PATH, env: object = ("A=1",), name: str = "oci-bind-hook") -> dict[str, Any]:
    return {"path": path, "args": [name, *words], "env": list(env) if isinstance(env, tuple) else env}


def document(*env: str, **hooks: list[dict[str, Any]]) -> dict[str, Any]:
    return {"hooks": hooks, "process": {"env": env and list(env)}}


def test_ours_are_known_by_program_or_name() -> None:
    hooks = [
        entry(path="/x/my-oci-bind-hook", name="other"),
        entry("--debug"),
        entry(path="/opt/launcher", name="/x/oci-bind-hook-2"),
        entry(name="a-name-of-somebody"),
        {"path": PATH},
    ]
    found = registered.find(document(createRuntime=hooks, poststop=[entry("poststop")]))
    places = [f"config.json: /hooks/createRuntime/{number}" for number in (1, 2, 3, 4)]
    assert [each.place for each in found] == [*places, "config.json: /hooks/poststop/0"]
    assert [each.words for each in found] == [["--debug"], [], [], [], ["poststop"]]


@pytest.mark.parametrize(
    ("stages", "asked", "chosen"),
    [
        (("createContainer", "createRuntime", "poststop"), None, "createRuntime"),
        (("poststop", "createContainer"), None, "createContainer"),
        (("createRuntime", "prestart"), "createRuntime", "createRuntime"),
        (("createRuntime",), "prestart", None),
        (("poststop",), None, None),
        ((), None, None),
    ],
)
def test_the_first_that_sets_up(stages: tuple[str, ...], asked: str | None, chosen: str | None) -> None:
    found = registered.choose(registered.find(document(**{stage: [entry()] for stage in stages})), asked)
    assert (found.stage if found else None) == chosen


def test_all_that_set_up_are_called_by_stage() -> None:
    hooks = {
        stage: [entry(stage), entry("again")] for stage in ("poststop", "createContainer", "prestart", "startContainer")
    }
    found = registered.find(document(**hooks))
    called = [(each.stage, each.words) for each in registered.chosen(found, None)]
    assert called == [(stage, [word]) for stage in ("prestart", "createContainer") for word in (stage, "again")]
    assert [each.stage for each in registered.chosen(found, "createContainer")] == ["createContainer"] * 2
    assert registered.chosen(found, "createRuntime") == []


GOOD = {"createRuntime": [entry("createRuntime")], "poststop": [entry("poststop")]}
WHY = (
    "some runtimes then pass the image's variables to the hook, so the image can run its code in the hook: the "
    "loader reads LD_PRELOAD, and python -I reads PYTHONEXECUTABLE (set one variable, such as "
    '"env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], as `install` does)'
)
LOADED = "a hook without its own env would load this as well"
WARNINGS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "good": (document(**GOOD), []),
    "no hooks": ({}, []),
    "nobody's": (document(createRuntime=[entry(path="/x", name="x", env=())]), []),
    "no poststop": (
        document(createRuntime=[entry()]),
        ["config.json: /hooks: poststop is not registered: mount points and state files would stay"],
    ),
    "only poststop": (
        document(poststop=[entry()]),
        ["config.json: /hooks: only poststop is registered: nothing would be mounted"],
    ),
    "wrong stage": (
        document(**GOOD, startContainer=[entry()]),
        ["config.json: /hooks/startContainer/0: at startContainer the hook can neither mount nor unmount anything"],
    ),
    "other stage": (
        document(**{**GOOD, "createRuntime": [entry("createContainer")]}),
        [
            "config.json: /hooks/createRuntime/0/args: the stage is createContainer, but the hook is "
            "called at createRuntime"
        ],
    ),
    "other stage, behind a flag": (
        document(**{**GOOD, "createRuntime": [entry("--keep-mountpoints", "createContainer")]}),
        [
            "config.json: /hooks/createRuntime/0/args: the stage is createContainer, but the hook is "
            "called at createRuntime"
        ],
    ),
    "a source that is called as a stage is": (
        document(**{**GOOD, "createRuntime": [entry("--mount", "createContainer")]}),
        [],
    ),
    "poststop with another --root": (
        document(createRuntime=[entry("--root", "/a"), entry(), entry("--root", "/b")], poststop=[entry("--root=/b")]),
        [
            f"config.json: /hooks/createRuntime/{number}/args: {which} is not that of poststop: mount points and state "
            "files would stay"
            for number, which in ((0, "--root /a"), (1, "the default --root"))
        ],
    ),
    "poststop with another XDG_RUNTIME_DIR": (
        document(createRuntime=[entry(env=("XDG_RUNTIME_DIR=/a",))], poststop=[entry()]),
        [
            "config.json: /hooks/createRuntime/0/args: the default --root, which depends on "
            "XDG_RUNTIME_DIR in its env, is not that of poststop: mount points and state files would stay"
        ],
    ),
    "each --root has a poststop": (
        document(createRuntime=[entry("--root", "/a"), entry()], poststop=[entry(), entry("--root", "/a")]),
        [],
    ),
    "a poststop that nobody understands": (
        document(createRuntime=[entry("--root", "/a")], poststop=[entry("--nonsense")]),
        [],
    ),
    "preload": (
        document("PATH=/bin", "LD_PRELOAD=/x.so", "LD_AUDIT=", **GOOD),
        [f"config.json: /process/env: {name}: {LOADED}" for name in ("LD_PRELOAD", "LD_AUDIT")],
    ),
}


@pytest.mark.parametrize("case", WARNINGS)
def test_warnings(case: str) -> None:
    config, expected = WARNINGS[case]
    assert list(registered.warnings(registered.find(config), config)) == expected
    others = [text for text in expected if "poststop is not registered" not in text]
    assert list(registered.warnings(registered.find(config), config, others_stop=True)) == others


@pytest.mark.parametrize("env", [(), None, "A=1", [1], {"A": "1"}], ids=repr)
@pytest.mark.parametrize("stage", ["createRuntime", "poststop"])
def test_without_an_environment_of_its_own_it_is_a_problem(stage: str, env: object) -> None:
    found = registered.find(document(**{**GOOD, stage: [entry(), entry(env=env), entry(path="/x", name="x", env=())]}))
    [problem] = registered.problems(found)
    assert problem.exit_code == os.EX_CONFIG
    assert str(problem) == f"config.json: /hooks/{stage}/1/env: missing or empty: {WHY}"


ANY = some.recursive(
    some.none() | some.integers() | some.sampled_from(["", PATH, "oci-bind-hook", "LD_PRELOAD=1"]),
    lambda inner: (
        some.lists(inner, max_size=3)
        | some.dictionaries(some.sampled_from(["hooks", "createRuntime", "path", "args", "env", "process"]), inner)
    ),
)


@given(ANY)
def test_no_document_is_too_odd(odd: object) -> None:
    for config in (odd, {"hooks": odd}, {"hooks": {"createRuntime": odd}}, {"hooks": {"createRuntime": [odd]}}):
        found = registered.find(config)
        assert all(isinstance(text, str) for text in registered.warnings(found, config))
        registered.choose(found, None)
