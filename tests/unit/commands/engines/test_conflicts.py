# SPDX-License-Identifier: Apache-2.0
"""Two registrations that bind different things on one destination: what install and install --check say of them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from oci_bind_hook import cli
from oci_bind_hook.commands.engines import cdi

if TYPE_CHECKING:
    from pathlib import Path

FIRST = ["--mount", "src=/usr,dst=/data,ro"]
ON_A = ["--annotation", "a=1"]
B = ["--command", "^b"]

# The options before and after -- of the first and of the second registration, and whether they are in conflict.
PAIRS: dict[str, tuple[list[str], list[str], list[str], list[str], bool]] = {
    "another source": ([], FIRST, [], ["--mount", "src=/etc,dst=/data,ro"], True),
    "other options": ([], FIRST, [], ["--mount", "src=/usr,dst=/data"], True),
    "another spelling": ([], FIRST, [], ["--mount", "src=/etc,dst=//./data/"], True),
    "the same": ([], FIRST, [], ["--mount", "ro,destination=/data,source=/usr"], False),
    "another destination": ([], FIRST, [], ["--mount", "src=/etc,dst=/data/below"], False),
    "a bind of several": ([], FIRST, [], ["--mount", "src=/etc,dst=/x", "--mount", "src=/etc,dst=/data"], True),
    "the same annotation": (ON_A, FIRST, ON_A, ["--mount", "src=/etc,dst=/data"], True),
    "the same two conditions": ([*ON_A, *B], FIRST, [*B, *ON_A], ["--mount", "src=/etc,dst=/data"], True),
    "one for all": (ON_A, FIRST, [], ["--mount", "src=/etc,dst=/data"], True),
    "the other for all": ([], FIRST, ON_A, ["--mount", "src=/etc,dst=/data"], True),
    "another annotation": (ON_A, FIRST, ["--annotation", "a=2"], ["--mount", "src=/etc,dst=/data"], False),
    "one more condition": (ON_A, FIRST, [*ON_A, *B], ["--mount", "src=/etc,dst=/data"], False),
    "a pattern": ([], FIRST, [], ["--mount", "type=glob,src=/et[c],dst=/data"], False),
    "a bind with a condition": ([], FIRST, [], ["--mount", "src=/etc,dst=/data,when-exists=/x"], False),
    "an optional bind": ([], FIRST, [], ["--mount", "src=/etc,dst=/data,optional"], False),
    "a link there": ([], FIRST, [], ["--mount", "src=/etc,dst=/data,dest-nofollow"], False),
    "another state folder": ([], FIRST, [], ["--root", "/x", "--mount", "src=/etc,dst=/data"], False),
    "poststop alone": (["--stages", "poststop"], FIRST, [], ["--mount", "src=/etc,dst=/data"], False),
}


@pytest.mark.parametrize("case", PAIRS)
def test_two_registrations(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    when, words, when_second, words_second, is_conflict = PAIRS[case]
    monkeypatch.setattr(cdi, "FOLDERS", ())
    hooks = tmp_path / "hooks.d"
    where = ["--prefix", str(tmp_path), "--hooks-dir", str(hooks)]
    assert cli.main(["install", *where, "--name", "a", *when, "--", *words]) == os.EX_OK
    assert "is also the destination" not in capfd.readouterr().err
    assert cli.main(["install", *where, "--name", "b", *when_second, "--", *words_second]) == os.EX_OK
    first, second = (f"{hooks}/oci-bind-hook-{name}.json" for name in "ab")
    number = words_second.count("--mount")
    destination = "//./data/" if "//./data/" in words_second[-1] else "/data"
    said = (
        f"{second}: --mount {number}: {destination} is also the destination of --mount 1 in {first}, with another "
        "source or other options (use another destination): containers for which both are registered do not start"
    )
    warning = f"oci-bind-hook: warning: {said}\n"
    assert (warning in capfd.readouterr().err) == is_conflict
    code = cli.main(["install", "--check", "--hooks-dir", str(hooks)])
    lines = capfd.readouterr().out.splitlines()
    assert (code, f"problem: {said}" in lines) == ((65, True) if is_conflict else (0, False)), lines
    # The first one, written again, is named with the other, too.
    assert cli.main(["install", *where, "--name", "a", *when, "--", *words]) == os.EX_OK
    assert (warning in capfd.readouterr().err) == is_conflict


def test_a_registration_of_the_same_name_replaces_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cdi, "FOLDERS", ())
    folders = [f"--hooks-dir={tmp_path}/{name}" for name in "ab"]
    for folder, source in zip(folders, ("/usr", "/etc"), strict=True):
        words = ["--prefix", str(tmp_path), folder, "--", "--mount", f"src={source},dst=/data"]
        assert cli.main(["install", *words]) == os.EX_OK
    assert cli.main(["install", "--check", *folders]) == os.EX_OK
    assert "is also the destination" not in "".join(capfd.readouterr())
