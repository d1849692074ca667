# SPDX-License-Identifier: Apache-2.0
"""The picture of documents that no bundle here gives: of poststop, of what runs, of hostile images, in any width."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from helpers.properties import examples
from oci_bind_hook.commands.explain.drawing import cells
from oci_bind_hook.commands.explain.tree import as_tree
from oci_bind_hook.documents import oci
from oci_bind_hook.documents.acceptor import head

Document = dict[str, Any]


def mount(source: str, destination: str, **members: Any) -> Document:
    return {
        "origin": "--mount 1",
        "source": source,
        "source_links": [],
        "destination": destination,
        "resolved": destination,
        "links": [],
        "create": [],
        "asked": ["rbind", "rprivate"],
        "attributes": ["relatime"],
        "kept": [],
        "propagation": "rprivate",
        "idmap": None,
        "action": "mount",
        "by": "hook",
        "found": None,
        "hides": [],
        "now": None,
        "source_now": None,
        "warnings": [],
        **members,
    }


def document(*mounts: Document, **members: Any) -> Document:
    found = {
        **head("plan"),
        "id": None,
        "stage": "createRuntime",
        "bundle": "/b",
        "rootfs": "/b/rootfs",
        "namespace": "container",
        "registered": [],
        "registrations": [],
        "options": None,
        "running": None,
        "mounts": list(mounts),
        "own": [],
        "selinux": None,
        "problems": [],
        "runtime": [],
        "warnings": [],
        "notes": [],
        "verdict": "ready: 1 bind",
        **members,
    }
    assert [place for place, _ in oci.violations(found, "plan") if place != "/runtime"] == []
    return found


def problem(where: str, message: str = "it is not there", hint: str = "") -> Document:
    return {"where": where, "message": message, "hint": hint, "exit": 66}


def refused(where: str, *runtimes: str) -> Document:
    return {"where": where, "message": "it is not there", "hint": "", "by": list(runtimes)}


def body(picture: str) -> list[str]:
    """The lines below the head and above the verdict."""
    return picture.splitlines()[1:-2]


def of_pattern(*names: str, **members: Any) -> list[Document]:
    return [mount(f"/s/{name}", f"/d/{name}", pattern="/s/*", **members) for name in names]


def link(at: str, to: str) -> list[Document]:
    return [{"at": at, "to": to}]


# What stands behind a source

WORDS: list[tuple[Document, str]] = [
    ({"attributes": ["ro", "nosuid"], "asked": ["rbind", "rro", "rprivate"]}, "  rro nosuid"),
    ({"idmap": {"uids": [], "gids": [], "namespace": None}}, "  idmap"),
    ({"idmap": {"uids": [], "gids": [], "namespace": None}, "asked": ["rbind", "ridmap"]}, "  ridmap"),
    ({"propagation": "rslave"}, "  rslave"),
    ({"action": "present"}, "  already mounted"),
    ({"action": "present", "by": "runtime", "warnings": ["w"]}, "  by the runtime"),
    ({"action": "unmount", "now": True}, "  will be unmounted"),
    ({"action": "gone", "now": False}, "  already gone"),
    ({"now": True}, "  mounted now"),
    ({"now": False}, "  not mounted now"),
    ({"now": True, "source_now": "another"}, "  mounted now, but the source path now leads to another file"),
    ({"hides": [{"path": "/d", "what": "folder", "origin": None}]}, "  over the image's folder"),
    ({"origin": "config.json#/annotations/a"}, "  config.json#/annotations/a"),
    ({"subpath": "x"}, "/x"),
    ({"when_exists": "/lib/a"}, "  only if /lib/a exists"),
    ({"when_exists": "/lib/a", "action": "skipped", "by": None, "warnings": ["w"]}, ""),
]


@pytest.mark.parametrize(("members", "words"), WORDS, ids=[row[1] for row in WORDS])
def test_what_stands_behind_a_source(members: Document, words: str) -> None:
    assert body(as_tree(document(mount("/s", "/d", **members))))[0] == f"└─ d  ← /s{words}"


# Folding


def test_what_is_alike_is_folded_and_what_differs_is_not() -> None:
    mounts = of_pattern(*"abcde")
    mounts[2]["warnings"] = ["w"]
    assert body(as_tree(document(*mounts))) == [
        "└─ d",
        "   ├─ a … and 3 more  ← /s/*",
        "   └─ c               ← /s/c",
        "      warning: w",
    ]
    assert len(body(as_tree(document(*mounts), everything=True))) == 7


def test_what_is_made_and_what_is_there_are_folded_apart() -> None:
    mounts = of_pattern(*"abcdefgh")
    for each in mounts[:4]:
        each["create"] = [{"path": each["resolved"], "kind": "file"}]
    lines = body(as_tree(document(*mounts)))
    assert lines == ["└─ d", "   ├─ + a … and 3 more  ← /s/*", "   └─ e … and 3 more    ← /s/*"]


def test_links_of_one_pattern_are_folded() -> None:
    mounts = of_pattern(*"abcd")
    for each in mounts:
        each["links"] = link(each["destination"], f"{each['destination'][-1]}.1")
        each["resolved"] = f"{each['destination']}.1"
    lines = body(as_tree(document(*mounts)))
    assert lines == ["└─ d", "   ├─ a → a.1 … and 3 more", "   └─ a.1 … and 3 more  ← /s/*"]


def test_many_mounts_of_the_runtime_are_counted() -> None:
    own = [{"destination": f"m{n}", "resolved": None, "type": "tmpfs", "source": None} for n in range(20)]
    binds = [mount("/s", f"/b{n}", by="runtime", action="present") for n in range(14)]
    names, paths = (", ".join(f"/{letter}{n}" for n in range(12)) for letter in "mb")
    lines = body(as_tree(document(*binds, own=own)))
    assert lines == [f"└─ by the runtime: {names} and 8 more; binds on {paths} and 2 more"]


# What is said where


def test_problems_are_below_the_mount_that_they_concern() -> None:
    mounts = [mount("/s", "/d"), mount("/t", "/e", origin="config.json#/mounts/3", by="runtime", action="left")]
    found = document(
        *mounts,
        problems=[problem("--mount 1", hint="h"), problem("--mount 10"), problem("config.json: /mounts/30")],
        runtime=[
            refused("config.json: /mounts/3/source", "crun", "runc"),
            refused("config.json: /process/cwd", "runc"),
        ],
        warnings=["w"],
        notes=["n"],
        verdict="would fail: 66, --mount 1: it is not there",
    )
    assert as_tree(found).splitlines()[1:] == [
        "├─ d  ← /s",
        "│  problem: --mount 1: it is not there",
        "│  hint: h",
        "└─ e  ← /t  by the runtime",
        "   the runtime refuses: config.json: /mounts/3/source: it is not there",
        "",
        "problem: --mount 10: it is not there",
        "problem: config.json: /mounts/30: it is not there",
        "runc refuses: config.json: /process/cwd: it is not there",
        "warning: w",
        "note: n",
        "",
        "would fail: 66, --mount 1: it is not there",
    ]


def test_a_problem_of_a_pattern_is_below_the_match_that_it_names() -> None:
    lines = body(as_tree(document(*of_pattern(*"abc"), problems=[problem("--mount 1", "/d/b is a folder")])))
    assert lines[2:4] == ["   ├─ b  ← /s/b", "   │  problem: --mount 1: /d/b is a folder"]


@pytest.mark.parametrize("name", ["a", "a b", "a/c", "ab", "b"])
@pytest.mark.parametrize("about", ["/s", "/d"])
def test_a_problem_names_the_longest_path_that_it_has(name: str, about: str) -> None:
    mounts = of_pattern("a", "a b", "a/c", "ab", "b")
    problems = [problem("--mount 1", f"{about}/{name} is not there, as /b is")]
    lines = body(as_tree(document(*mounts, problems=problems), everything=True))
    [number] = [number for number, line in enumerate(lines) if "problem:" in line]
    assert lines[number - 1].replace('"', "").endswith(f"  ← /s/{name}"), lines


def test_what_each_match_is_wrong_with_takes_twice_as_long_for_twice_as_many() -> None:
    calls = []
    for number in (300, 600):
        names = [f"lib{each}.so" for each in range(number)]
        problems = [problem("--mount 1", f"/d/{name} is a folder") for name in names]
        found, counted = document(*of_pattern(*names), problems=problems), [0]

        def count(_frame: object, event: str, _arg: object, counted: list[int] = counted) -> None:
            counted[0] += event in ("call", "c_call")

        before = sys.getprofile()
        sys.setprofile(count)
        try:
            as_tree(found)
        finally:
            sys.setprofile(before)
        calls += counted
    assert calls[1] < 2.2 * calls[0]


def test_what_the_verdict_says_does_not_stand_right_above_it() -> None:
    sentence = "config.json: /process/cwd: it is not there"
    found = document(
        runtime=[refused("config.json: /process/cwd", "crun", "runc"), refused("config.json: /x", "crun", "runc")],
        verdict=f"the runtime would refuse it: 73, {sentence} (and 1 more)",
    )
    assert as_tree(found).splitlines()[1:] == [
        "",
        "the runtime refuses: config.json: /x: it is not there",
        "",
        f"the runtime would refuse it: 73, {sentence} (and 1 more)",
    ]
    found["runtime"][0]["hint"] = "h"
    assert f"the runtime refuses: {sentence}\nhint: h\n" in as_tree(found)


def test_poststop() -> None:
    mounts = [mount("/s", "/data/d", action="unmount", now=True), mount("/t", "/e", action="gone", now=False)]
    found = document(
        *mounts,
        id="c1",
        stage="poststop",
        remove=["/data/d", "/data"],
        verdict="would undo 1 bind and remove 2 mount points",
    )
    assert as_tree(found).splitlines() == [
        "/b/rootfs  container c1, at poststop, in the container's own namespace",
        "├─ - data/d  ← /s  will be unmounted",
        "└─ e         ← /t  already gone",
        "",
        "would undo 1 bind and remove 2 mount points",
    ]


def test_a_container_for_which_nobody_calls_the_hook() -> None:
    of_runtime = mount("/t", "/e", origin="config.json#/mounts/3", by="runtime", action="left")
    said = "config.json does not register the hook"
    for found, is_said in (
        (document(of_runtime), True),
        (document(mount("/s", "/d")), False),
        (document(registered=["config.json: /hooks/createRuntime/0"]), False),
    ):
        assert (said in as_tree(found).splitlines()[0]) == is_said


def test_without_a_rootfs() -> None:
    found = document(
        **{"rootfs": None, "namespace": None, "registered": None, "problems": [problem("/b")]},
        verdict="would fail: 66, /b: it is not there",
    )
    assert as_tree(found).splitlines() == [
        "/b  at createRuntime",
        "",
        "would fail: 66, /b: it is not there",
    ]


# How it is drawn

SEVERAL = document(
    mount("/srv/some/where/far/away/models", "/data/models", links=link("/models", "/data/models"), attributes=["ro"]),
    mount("/srv/日本語/深い", "/opt/日本/x", create=[{"path": "/opt/日本", "kind": "directory"}]),
    own=[{"destination": f"/{name}", "resolved": f"/{name}", "type": name, "source": name} for name in ("proc", "sys")],
    warnings=["a warning that takes more than forty columns, and so is folded"],
)

DRAWN: dict[str, tuple[dict[str, Any], str]] = {
    "in a pipe": (
        {},
        "/b/rootfs  at createRuntime, in the container's own namespace\n"
        "├─ models → /data/models\n"
        "├─ data/models  ← /srv/some/where/far/away/models  ro\n"
        "├─ opt\n"
        "│  └─ + 日本\n"
        "│     └─ x      ← /srv/日本語/深い\n"
        "└─ by the runtime: /proc, /sys\n"
        "\n"
        "warning: a warning that takes more than forty columns, and so is folded\n"
        "\n"
        "ready: 1 bind\n",
    ),
    "40 columns": (
        {"width": 40},
        "/b/rootfs\n"
        "at createRuntime, in the container's\n"
        "  own namespace\n"
        "├─ models → /data/models\n"
        "├─ data/models  ← /srv/som…ay/models  ro\n"
        "├─ opt\n"
        "│  └─ + 日本\n"
        "│     └─ x      ← /srv/日本語/深い\n"
        "└─ by the runtime: /proc, /sys\n"
        "\n"
        "warning: a warning that takes more\n"
        "  than forty columns, and so is folded\n"
        "\n"
        "ready: 1 bind\n",
    ),
    "24 columns, ASCII": (
        {"width": 24, "is_unicode": False},
        "/b/rootfs\n"
        "at createRuntime, in\n"
        "  the container's own\n"
        "  namespace\n"
        "|- models -> /dat...dels\n"
        "|- data/models\n"
        "|    <- /srv...odels  ro\n"
        "|- opt\n"
        "|  `- + 日本\n"
        "|     `- x\n"
        "|          <- /sr...深い\n"
        "`- by the runtime:\n"
        "   /proc, /sys\n"
        "\n"
        "warning: a warning\n"
        "  that takes more than\n"
        "  forty columns, and so\n"
        "  is folded\n"
        "\n"
        "ready: 1 bind\n",
    ),
}


@pytest.mark.parametrize("case", DRAWN)
def test_it_is_drawn_to_fit(case: str) -> None:
    how, expected = DRAWN[case]
    assert as_tree(SEVERAL, **how) == expected


def test_what_does_not_fit_beside_a_source_stands_below_it() -> None:
    members = {"attributes": ["ro", "nosuid"], "hides": [{"path": "/d", "what": "folder", "origin": None}]}
    found = document(mount("/srv/a/long/source/path", "/data/models", **members))
    assert body(as_tree(found, width=44))[-1] == "     ro nosuid  over the image's folder"
    assert body(as_tree(found, width=30))[-2:] == ["     ro nosuid over the", "       image's folder"]


def test_colours() -> None:
    picture = as_tree(document(mount("/s", "/d", warnings=["w"]), verdict="would fail: x"), colour=True)
    assert "\x1b[2m└─ \x1b[0m\x1b[1;32md\x1b[0m" in picture
    assert "\x1b[33mwarning:\x1b[0m w\n" in picture
    assert picture.endswith("\x1b[1;31mwould fail:\x1b[0m x\n")


def test_a_deep_image_is_drawn_as_well() -> None:
    paths = ["/d" * depth for depth in range(1, 400)]
    picture = as_tree(document(*(mount("/s", path, links=link(f"{path}l", "d")) for path in paths)), width=60)
    assert len(picture.splitlines()) == 2 * len(paths) + 4
    assert max(map(cells, picture.splitlines())) <= 60
    assert "              …               └─ d  ← /s\n" in picture


# Whatever an image, an engine or a person wrote

TEXTS = some.text(
    some.characters(codec="utf-8", exclude_characters="\0/") | some.sampled_from("\x1b\n\r\t\u202e\udcf6 ←→├─日"),
    min_size=1,
)
PATHS = some.lists(TEXTS, min_size=1, max_size=4).map(lambda names: "/" + "/".join(names))


@some.composite
def documents(draw: some.DrawFn) -> Document:
    mounts = []
    for number in range(draw(some.integers(0, 5))):
        path = draw(PATHS)
        mounts.append(
            mount(
                draw(PATHS),
                path,
                origin=draw(some.sampled_from(("--mount 1", f"config.json#/mounts/{number}"))),
                links=draw(some.lists(some.builds(lambda at, to: {"at": at, "to": to}, PATHS, TEXTS), max_size=2)),
                create=draw(some.sampled_from(([], [{"path": path, "kind": "file"}]))),
                attributes=draw(some.sampled_from(([], ["ro", "nosuid", "nodev"]))),
                action=draw(some.sampled_from(("mount", "present", "left", "skipped"))),
                by=draw(some.sampled_from(("hook", "runtime"))),
                warnings=draw(some.lists(TEXTS, max_size=1)),
                hides=draw(some.lists(some.just({"path": path, "what": "mount", "origin": "--mount 9"}), max_size=1)),
                **draw(some.sampled_from(({}, {"pattern": "/s/*\x1b"}))),
            )
        )
    own = [
        {
            "destination": each,
            "resolved": draw(some.sampled_from((None, each))),
            "type": draw(TEXTS),
            "source": draw(TEXTS),
        }
        for each in draw(some.lists(PATHS, max_size=3))
    ]
    return document(
        *mounts,
        own=own,
        rootfs=draw(PATHS),
        problems=draw(
            some.lists(some.builds(problem, some.sampled_from(("--mount 1", "x")), TEXTS, TEXTS), max_size=2)
        ),
        warnings=draw(some.lists(TEXTS, max_size=1)),
        verdict=draw(TEXTS),
    )


BLANK = r"\x20"
HOSTILE = document(
    mount("/s", "/a\nready: all is well", links=link("/\x1b[2J", "x  ← /etc\r")), verdict="would fail: \x1b[2J"
)


@given(found=documents(), width=some.integers(1, 200), is_unicode=some.booleans(), everything=some.booleans())
@example(found=HOSTILE, width=30, is_unicode=True, everything=True)
@examples(60)
def test_no_line_is_wider_than_the_terminal_and_nothing_comes_raw_from_the_image(
    found: Document, width: int, is_unicode: bool, everything: bool
) -> None:
    picture = as_tree(found, width=width, is_unicode=is_unicode, colour=True, everything=everything)
    plain = re.sub("\x1b\\[[0-9;]*m", "", picture)
    assert all(cells(line) <= max(width, 24) for line in plain.splitlines())
    assert plain.replace("\n", "").isprintable()
    # The colours are those of the drawing: the same lines without them.
    assert as_tree(found, width=width, is_unicode=is_unicode, everything=everything) == plain


@given(documents())
@examples(40)
def test_in_a_pipe_nothing_is_cut(found: Document) -> None:
    lines = as_tree(found, everything=True).splitlines()
    unfolded = len(re.findall("←", as_tree(found, everything=True)))
    assert unfolded >= len(found["mounts"]) + len([each for each in found["own"] if each["resolved"] != "/"])
    assert not any("…" in line for line in lines if "…" not in str(found))


def test_a_name_cannot_begin_a_line_with_what_stands_behind_its_blanks() -> None:
    name = f"x{' ' * 40}ready: all is well"
    found = document(mount("/s", f"/d/{name}"), problems=[problem("--mount 1", f"/d/{name} is a file")])
    for width in range(24, 100):
        remark = as_tree(found, width=width).partition("problem:")[2]
        assert f"/d/x{BLANK * 39}ready:alliswell" in "".join(remark.split()), remark
    assert as_tree(found).splitlines()[1] == rf'└─ d/"x {BLANK * 39}ready: all is well"  ← /s'


def test_a_name_cannot_look_like_a_line_of_the_tree() -> None:
    picture = as_tree(HOSTILE)
    assert '├─ \\x1b[2J → "x \\x20← /etc\\x0d"\n' in picture
    assert '└─ "a\\x0aready: all is well"  ← /s\n' in picture
