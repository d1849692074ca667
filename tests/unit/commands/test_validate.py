# SPDX-License-Identifier: Apache-2.0
"""Documents judged without a container: what is printed, and what the exit code says."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from helpers.schema_tables import VALID
from oci_bind_hook import cli
from oci_bind_hook.commands.explain import dry_run
from oci_bind_hook.documents import oci
from oci_bind_hook.options import Options

if TYPE_CHECKING:
    Captured = pytest.CaptureFixture[str]

MANUAL = Path(__file__).resolve().parents[3] / "hook/man/oci-bind-hook.8.md"
CONFIG: dict[str, Any] = {"ociVersion": "1.2.0", "root": {"path": "rootfs"}}
STATE = {"ociVersion": "1.0.2", "id": "c1", "status": "created", "pid": 12, "bundle": "/b"}
UNUSED = {**CONFIG, "process": {"cwd": 5}}  # wrong where the hook does not look


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "rootfs").mkdir()
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def judge(capfd: Captured, *arguments: object, stdin: str | None = None) -> tuple[int, list[str]]:
    """The exit code of validate, and what it prints."""
    with contextlib.ExitStack() as stack:
        if stdin is not None:
            saved = os.dup(0)
            stack.callback(os.close, saved)
            stack.callback(os.dup2, saved, 0)
            file = stack.enter_context(tempfile.TemporaryFile())
            file.write(stdin.encode(errors="surrogateescape"))
            file.seek(0)
            os.dup2(file.fileno(), 0)
        code = cli.main(["validate", *map(str, arguments)])
    printed, told = capfd.readouterr()
    assert told == ""
    return code, printed.splitlines()


def test_nothing_is_said_of_a_valid_one(bundle: Path, capfd: Captured) -> None:
    assert judge(capfd, bundle) == (0, [])
    assert judge(capfd, bundle / "config.json", bundle) == (0, [])
    assert judge(capfd, "-", stdin=json.dumps(CONFIG)) == (0, [])
    assert judge(capfd, "-", stdin=json.dumps(STATE)) == (0, [])
    assert judge(capfd, "-", stdin=json.dumps(STATE) + json.dumps(CONFIG)) == (0, [])


def test_it_is_as_the_manual_shows(bundle: Path, capfd: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    command = re.escape("$ oci-bind-hook validate bundles/*")
    [shown] = re.findall(rf"^    {command}\n    (.*)\n", MANUAL.read_text(encoding="utf-8"), re.MULTILINE)
    (bundle / "bundles/web").mkdir(parents=True)
    (bundle / "bundles/db").mkdir()
    process = {"cwd": "/", "capabilities": {"bounding": ["CHOWN"]}}
    (bundle / "bundles/web/config.json").write_text(json.dumps({**CONFIG, "process": process}, indent=2))
    (bundle / "bundles/db/config.json").write_text(json.dumps(CONFIG))
    monkeypatch.chdir(bundle)
    assert judge(capfd, "bundles/db", "bundles/web") == (65, [shown])


def test_every_place_is_named_used_or_not(bundle: Path, capfd: Captured) -> None:
    file = bundle / "config.json"
    file.write_text(json.dumps({**UNUSED, "root": {}}))
    code, lines = judge(capfd, bundle)
    assert code == 65
    assert f"{file}:1:49: /process/cwd: must be of type string, not 5" in lines
    assert f"{file}:1:25: /root/path: is missing" in lines


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "-:1:1: is empty"),
        ("{}\n x", "-:2:2: Expecting value"),
        ('{"é":\n"\udcff"}', "-:2:2: is not UTF-8 at byte offset 8"),
        (json.dumps(CONFIG) + "\n{}", "-:2:1: is a second document: only a state can be followed by one"),
        (json.dumps({**STATE, "pid": "1"}, indent=1), '-:5:2: /pid: must be of type integer, not "1"'),
        (json.dumps(STATE) + "\n {}", "-:2:2: /ociVersion: is missing (in the config.json after the state)"),
        (
            '{"ociVersion": "1",\n "ociVersion": "1"}',
            "-:2:2: /ociVersion: appears twice; runtimes",
        ),
    ],
    ids=["empty", "trailing", "not UTF-8", "two configs", "state", "config behind a state", "twice"],
)
def test_what_is_wrong_is_told(capfd: Captured, text: str, line: str) -> None:
    code, lines = judge(capfd, "-", stdin=text)
    assert code == 65
    assert lines[0].startswith(line)
    assert "(char " not in lines[0]  # the place is not printed twice


def test_violations_come_in_the_order_of_lines(capfd: Captured) -> None:
    text = '{"root": {"path": 1},\n "process": {"cwd": 5},\n "ociVersion": 3,\n "hostname": 4}'
    code, lines = judge(capfd, "-", stdin=text)
    numbers = [int(line.split(":")[1]) for line in lines]
    assert (code, numbers) == (65, sorted(numbers))
    assert set(numbers) == {1, 2, 3, 4}


def test_many_at_once(bundle: Path, tmp_path: Path, capfd: Captured) -> None:
    bad = tmp_path / "bad\n.json"
    bad.write_text("{}")
    code, lines = judge(capfd, bundle, bad, bundle / "absent", bundle)
    assert code == 65
    assert lines[0] == f"{tmp_path}/bad\\x0a.json:1:1: /ociVersion: is missing"
    assert lines[-1] == f"{bundle}/absent cannot be opened: No such file or directory"
    assert judge(capfd, bundle, bundle / "absent")[0] == 66


def test_one_that_cannot_be_read_does_not_keep_the_others_from_being_judged(
    bundle: Path, tmp_path: Path, capfd: Captured
) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text("{}")
    code, lines = judge(capfd, bundle, "/proc/self/mem", bad)  # a regular file, and its first byte an I/O error
    assert code == 65
    why = "Input/output error (the disk or its server reports an error: see dmesg(1))"
    assert lines[0] == f"/proc/self/mem cannot be read: {why}"
    assert lines[1] == f"{bad}:1:1: /ociVersion: is missing"
    assert judge(capfd, "/proc/self/mem", bundle) == (66, lines[:1])


def test_a_stdin_that_cannot_be_read(bundle: Path, capfd: Captured) -> None:
    saved = os.dup(0)
    folder = os.open(bundle, os.O_RDONLY)
    try:
        os.dup2(folder, 0)
        assert judge(capfd, "-") == (66, ["stdin cannot be read: Is a directory"])
    finally:
        os.dup2(saved, 0)
        os.close(saved)
        os.close(folder)


def test_as_json(bundle: Path, capfd: Captured) -> None:
    code, lines = judge(capfd, "--format", "json", bundle, "-", bundle / "absent", stdin="[]")
    document = json.loads("\n".join(lines))
    assert oci.violations(document, "validation") == []
    assert code == 65
    assert [(one["name"], one["valid"]) for one in document["documents"]] == [
        (f"{bundle}/config.json", True),
        ("-", False),
        (f"{bundle}/absent", False),
    ]
    assert document["documents"][1]["violations"] == [
        {"pointer": "", "message": "must be of type object, not an array", "line": 1, "column": 1}
    ]
    assert "cannot be opened" in document["documents"][2]["problem"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "nothing to validate (pass bundles, files, or - for stdin)"),
        (
            ["--frmat=json"],
            '--frmat: unknown argument of validate (did you mean "--format"? for a file of that '
            "name, put -- before it)",
        ),
        (["--format"], "--format: the value is missing"),
        (["-", "x", "-"], "-: stdin can only be read once"),
        (
            ["--schema=plam", "x"],
            '--schema: there is no schema "plam" (did you mean "plan"? oci-bind-hook schema lists all)',
        ),
        (["--format=yaml", "x"], '--format: "yaml" is not text, json, github or sarif'),
    ],
)
def test_wrong_words(capfd: Captured, words: list[str], line: str) -> None:
    assert cli.main(["validate", *words]) == 64
    assert capfd.readouterr() == ("", f"oci-bind-hook: {line}\n")


def test_a_name_like_an_option(bundle: Path, capfd: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bundle)
    (bundle / "--format").write_text("{}")
    code, lines = judge(capfd, "--", "--format")
    assert (code, lines[0]) == (65, "--format:1:1: /ociVersion: is missing")


@pytest.mark.parametrize("name", ["plan", "state-file", "records"])
def test_a_document_with_our_address_is_checked_by_that_schema(capfd: Captured, name: str) -> None:
    address = f"urn:oci-bind-hook:{name}"
    assert judge(capfd, "-", stdin=json.dumps(VALID[name])) == (0, [])
    code, lines = judge(capfd, "-", stdin=json.dumps({"$schema": address, "version": "x"}))
    assert code == 65
    assert all(line.endswith(f"(by the schema {name})") for line in lines)
    assert judge(capfd, "--schema", "config", "-", stdin=json.dumps(VALID[name]))[0] == 65
    for other in ("urn:oci-bind-hook:plam", 5, None):
        found = judge(capfd, "-", stdin=json.dumps({"$schema": other}))
        assert (found[0], found[1][0]) == (65, "-:1:1: /ociVersion: is missing")


# -- by another schema -------------------------------------------------------------------------------------------------


def test_a_document_of_ours(capfd: Captured, tmp_path: Path) -> None:
    file = tmp_path / "c1.json"
    file.write_text(json.dumps({**VALID["state-file"], "phase": "x"}))
    assert judge(capfd, "--schema", "state-file", "-", stdin=json.dumps(VALID["state-file"])) == (0, [])
    code, lines = judge(capfd, "--schema=urn:oci-bind-hook:state-file", file)
    assert (code, len(lines)) == (65, 1)
    assert re.search(r'c1.json:1:\d+: /phase: must be "intent", "made" or "done", not "x"$', lines[0])
    assert judge(capfd, "--schema=plan", "-", stdin=json.dumps(STATE))[0] == 65


def test_a_state_is_no_config_where_a_config_is_asked_for(bundle: Path, capfd: Captured) -> None:
    assert judge(capfd, "--schema=config", bundle) == (0, [])
    assert "-:1:1: /root: is missing" in judge(capfd, "--schema=config", "-", stdin=json.dumps(STATE))[1]
    # Nothing but a bundle has a config.json.
    assert judge(capfd, "--schema=plan", bundle) == (66, [f"{bundle} is not a regular file"])


# -- the same judgement in a run ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("strict", [False, True])
def test_a_dry_run_tells_what_is_not_used_as_well(bundle: Path, *, strict: bool) -> None:
    (bundle / "config.json").write_text(json.dumps(UNUSED))
    options = Options()
    options.bundle, options.strict = str(bundle), strict
    report = dry_run.dry_run(options, io.BytesIO().read)
    told = [warning for warning in report.warnings if "/process/cwd" in warning]
    remark = "config.json: /process/cwd: must be of type string, not 5 (not used by the hook)"
    assert told == ([] if strict else [remark])
    assert report.exit_code == (65 if strict else 73)  # no runtime starts anything there


def test_a_dry_run_stops_at_what_is_used_and_tells_all_of_it(bundle: Path) -> None:
    (bundle / "config.json").write_text(json.dumps({**UNUSED, "annotations": []}))
    options = Options()
    options.bundle = str(bundle)
    report = dry_run.dry_run(options, io.BytesIO().read)
    assert {"config.json: /annotations", "config.json: /process/cwd"} <= {one["where"] for one in report.problems}
    assert report.exit_code == 65
