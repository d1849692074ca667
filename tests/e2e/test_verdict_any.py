# SPDX-License-Identifier: Apache-2.0
"""Any image, any mounts of config.json and any ``--mount``s: the dry-run ends as the real run does.

The long form draws new ones for an hour: ``tests/run --long -- tests/e2e/test_verdict_any.py``. MINUTES in the
environment makes it shorter.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import event, example, given, reject, settings
from hypothesis import strategies as some

from helpers.verdicts import FORMS, WAYS, Case, Scene

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from helpers.mounting import Tree

NAMES = ("a", "b", "c")
WORDS = some.sampled_from((*NAMES, *NAMES, *NAMES, "..", "."))
PATHS = some.builds(
    lambda words, end: "/" + "/".join(words) + end,
    some.lists(WORDS, min_size=1, max_size=4),
    some.sampled_from(("", "", "", "/")),
)
LINKS = some.one_of(PATHS, some.lists(WORDS, min_size=1, max_size=3).map("/".join))
LEAVES = some.one_of(some.just(b""), LINKS)
TREES = some.recursive(
    some.dictionaries(some.sampled_from(NAMES), LEAVES, max_size=3),
    lambda trees: some.dictionaries(some.sampled_from(NAMES), some.one_of(LEAVES, trees), min_size=1, max_size=3),
    max_leaves=8,
)
IDMAP = "idmap=uids=0-1000-1;gids=0-1000-1"
SOURCES = some.sampled_from(
    (
        *("source", "source", "source", "file", "drawn", "drawn", "drawn", "rootfs", "absent", "dangling"),
        *("loop", "deleted", "unbindable", "closed/source", "drawn/a", "drawn/b/c", "fixed/rootfs"),
    )
)
FIELDS = some.one_of(
    some.sampled_from(
        (
            *("ro", "rro", "rw", "nosuid", "optional", "nofollow", "bind-recursive=disabled", "subpath=a"),
            *("subpath=b/c", "bind-propagation=rslave", "bind-propagation=rshared", "type=glob", "noatime"),
            IDMAP,
        )
    ),
    PATHS.map(lambda path: f"when-exists={path}"),
)
MOUNTS = some.lists(
    some.tuples(SOURCES, some.sampled_from(("", "", "", "/*", "/a*")), PATHS, some.lists(FIELDS, max_size=2)),
    min_size=1,
    max_size=4,
)
RUNTIMES = some.lists(
    some.tuples(some.sampled_from(("tmpfs", "proc", "source", "drawn", "file")), PATHS.map(os.path.normpath)),
    max_size=3,
)
PLACES = some.tuples(
    some.sampled_from(("", "", "", "stage: createContainer", "by hand")), some.booleans(), some.booleans()
)
NOWHERE = ("", False, False)  # in particular
LATE = ("stage: createContainer", False, False)
MINUTES = float(os.environ.get("MINUTES", "60"))


def runtimes(path: str, kind: str, destination: str) -> dict[str, Any]:
    """An entry of config.json's mounts."""
    if kind in ("tmpfs", "proc"):
        return {"destination": destination, "type": kind, "source": kind}
    return {"destination": destination, "type": "bind", "source": f"{path}/{kind}", "options": ["rbind"]}


def compare(scene: Scene, case: Case, rootfs: str, forms: Sequence[str] = FORMS) -> str:
    """How the verdict of a dry-run, in these ``forms``, differs from the real run's, "" if it does not."""
    # Before a container begins, as people ask; and then with its state.
    told = {"bundle": scene.dry(case, "bundle")}
    if "pid" in case.state:  # else no runtime makes anything
        try:
            scene.begin(rootfs)
        except ChildProcessError:
            reject()  # a runtime would refuse the bundle
        case.state["pid"] = scene.init
    told["state"] = scene.dry(case, "state")
    real, said = scene.real(case)
    event(f"real run: {real.code}")
    return "\n".join(
        f"by {form}:\n  real {real.code} {said}\n  dry  {told[form][0]} ({told[form][1]})"
        for form in forms
        if not scene.is_same(real, *told[form], form)
    )


@pytest.mark.parametrize(("way", "examples"), [*zip(WAYS, (40, 15, 15), strict=True)])
def test_any_bundle(tmp_path: Path, way: str, examples: int) -> None:
    search(tmp_path, way, examples)


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
def test_any_bundle_for_long(tmp_path: Path, way: str) -> None:
    search(tmp_path, way, 200, seconds=60 * MINUTES / len(WAYS))


def search(path: Path, way: str, examples: int, seconds: float = 0) -> None:
    """Draws so many bundles, again until the time is over, and compares the verdicts on each."""
    end = time.monotonic() + seconds
    compared = 0
    with Scene(path, way) as scene:

        @settings(max_examples=examples)
        @given(TREES, TREES, MOUNTS, RUNTIMES, PLACES)
        # What the runtime makes for its own mounts is there when the hook is called.
        @example({}, {}, [("absent", "", "/a", ["when-exists=/b"])], [("source", "/b/c")], NOWHERE)
        @example({}, {}, [("file", "", "/b", [])], [("source", "/b/c")], NOWHERE)
        # In a copy of a mount namespace, such as a container's, no mount is unbindable.
        @example({}, {}, [("source", "", "/a", []), ("unbindable", "", "/a", [IDMAP])], [], LATE)
        # By another bind of the same folder as well.
        @example({}, {}, [("source", "", "/b/b", [])], [("drawn", "/b"), ("drawn", "/c"), ("tmpfs", "/c/b/c")], NOWHERE)
        # A bind is hidden, and its destination leads through a link of the volume that hides it.
        @example(
            {"a": {}, "x": {"y": {}}},
            {"y": "/a"},
            [("source", "", "/a/new", [])],
            [("tmpfs", "/a"), ("source", "/x/y"), ("drawn", "/x")],
            NOWHERE,
        )
        # A tmpfs hides links on its own path.
        @example({"a": "/b", "b": {"a": "/a"}}, {}, [("source", "", "/a/a", [])], [("tmpfs", "/a/a")], NOWHERE)
        def holds(
            image: Tree,
            drawn: Tree,
            mounts: list[tuple[str, str, str, list[str]]],
            others: list[tuple[str, str]],
            place: tuple[str, bool, bool],
        ) -> None:
            nonlocal compared
            where, is_fixed, is_readonly = place
            scene.drawn = drawn
            entries = [runtimes(scene.path, *each) for each in others]
            # Of the file systems that every container has, one shows at createContainer where the hook is.
            scene.draw(image, [{"destination": "/proc", "type": "proc", "source": "proc"}, *entries])
            case = Case(scene)
            rootfs = f"{scene.path}/{'fixed/rootfs' if is_fixed else 'rootfs'}"
            case.config["root"] = {"path": rootfs, "readonly": is_readonly}
            for source, end_of_path, destination, fields in mounts:
                case.mount(",".join((f"src={scene.path}/{source}{end_of_path},dst={destination}", *fields)))
            if where == "by hand":
                case.stage = "prestart"
                del case.state["pid"]
            elif where:
                case.stage = "createContainer"
            # What the runtime makes in the rootfs is not foreseen in a source there: the manual says so.
            is_inside = any(
                source.endswith("rootfs") and (end_of_path or any(field.startswith("subpath") for field in fields))
                for source, end_of_path, _, fields in mounts
            )
            difference = compare(scene, case, rootfs, ("state",) if is_inside else FORMS)
            compared += 1
            assert not difference, difference

        holds()
        while time.monotonic() < end:
            holds()
    print(f"{way}: {compared} bundles compared")
