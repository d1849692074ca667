# SPDX-License-Identifier: Apache-2.0
"""The dry-run says what runc and crun refuse before they call a hook: never what they take, and which of the two.

The table in docs/RUNTIMES.md has every fault and the versions that were tried. WRITE=yes writes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from helpers import configs, faults, podman, support
from oci_bind_hook.commands.explain import refused_settings
from oci_bind_hook.commands.explain.dry_run import dry_run
from oci_bind_hook.commands.explain.refusals import Refusals
from oci_bind_hook.documents import oci
from oci_bind_hook.options import Options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oci_bind_hook.commands.explain.report import Report

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/RUNTIMES.md"
BEGIN, END = "<!-- faults: begin -->\n", "<!-- faults: end -->\n"
FAULT, DRY_RUN = "fault", "dry-run"
SHOWN = ("runc", "crun", DRY_RUN)  # the columns after the first: a runtime in all its versions
# crun lets a poststart hook fail, but not if the hook ends before crun has written the state to it. One that does not
# exist may: 8 of 400 starts failed with crun 1.8.1.
BY_CHANCE = {("crun", "a poststart hook does not exist")}
BROKEN_PIPE = "writing to pipe: Broken pipe\n"
IS_WRITING = os.environ.get("WRITE") == "yes"


@functools.cache
def version(runtime: str) -> str:
    """The runtime with its version, as a column is called: runc 1.1.5."""
    line = subprocess.run([runtime, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    return f"{runtime} {line.split()[-1].partition('+')[0]}"


def columns() -> dict[str, dict[str, str]]:
    """The table in the document, with a column for each version: column -> fault -> word."""
    block = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    lines = [line.strip("|\n ").split(" | ") for line in block.splitlines() if line.startswith("|")]
    if not lines:
        return {}
    head, _, *rows = [[cell.strip() for cell in line] for line in lines]
    found = {}
    for at, title in enumerate(head[1:], 1):
        runtime, _, versions = title.partition(" ")
        for each in versions.split(", "):
            found[f"{runtime} {each}".strip()] = {row[0]: word(row[at], each) for row in rows}
    return found


def word(cell: str, version: str) -> str:
    """What a cell says of one version: it is a word for all, or "starts: 1.1.5, 1.1.15; refuses: 1.3.6"."""
    for part in cell.split("; "):
        said, _, versions = part.partition(": ")
        if not versions or version in versions.split(", "):
            return said
    return "?"


def cell(words: dict[str, str]) -> str:
    """The cell for the word of each version, the reverse of ``word``."""
    versions: dict[str, list[str]] = {}
    for version, said in words.items():
        versions.setdefault(said, []).append(version)
    if len(versions) == 1:
        return next(iter(versions))
    return "; ".join(f"{said}: {', '.join(each)}" for said, each in versions.items())


def planned(path: Path) -> Report:
    options = Options()
    options.bundle, options.root = str(path), str(path / "state")
    return dry_run(options, lambda: b"")


@pytest.fixture(scope="module")
def runtimes() -> Iterator[list[support.RuntimeNamespace]]:
    """Every runtime, ready."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(support.RuntimeNamespace(name)) for name in support.RUNTIMES]


def tried(path: Path, fault: str, runtimes: list[support.RuntimeNamespace]) -> dict[str, str]:
    """What the dry-run says of a fault and what each runtime does: the cells of its row by column."""
    row = {}
    for runtime in runtimes:
        folder = path / runtime.runtime
        config = faults.bundle(folder)
        faults.FAULTS[fault](config, folder)
        (folder / "config.json").write_text(json.dumps(config))
        if DRY_RUN not in row:
            row[DRY_RUN] = said(planned(folder))
        done = runtime.run_container(str(folder), "refused")
        runtime.delete("refused", "--force")
        row[version(runtime.runtime)] = outcome(runtime.runtime, fault, done)
        shutil.rmtree(folder)
    return row


def outcome(runtime: str, fault: str, done: subprocess.CompletedProcess[str]) -> str:
    """What a runtime does with a fault, in a word; the same in each run."""
    is_by_chance = (runtime, fault) in BY_CHANCE and (done.returncode == 0 or done.stderr.endswith(BROKEN_PIPE))
    return "starts or refuses" if is_by_chance else "starts" if done.returncode == 0 else "refuses"


def said(report: Report) -> str:
    document: Any = json.loads(json.dumps(report.document()))
    assert oci.violations(document, "plan") == []
    if report.problems:
        return f"{report.exit_code}, by the hook"
    by = sorted({each for refused in document["runtime"] for each in refused["by"]}, reverse=True)
    assert report.exit_code == (73 if len(by) == len(support.RUNTIMES) else 0)
    if by:
        return f"refused by {' and '.join(by)}"
    return "a warning" if any("(not used by the hook)" not in warning for warning in report.warnings) else "nothing"


@pytest.mark.parametrize("fault", faults.FAULTS)
def test_what_is_called_refused_is_refused(
    tmp_path: Path, fault: str, runtimes: list[support.RuntimeNamespace]
) -> None:
    row = tried(tmp_path, fault, runtimes)
    if IS_WRITING:
        write(fault, row)
    for runtime in support.RUNTIMES:
        assert row[version(runtime)] == "refuses" or runtime not in row[DRY_RUN], "a false alarm"
    known = {title: cells[fault] for title, cells in columns().items() if title in row}
    assert known == {title: row[title] for title in known}
    assert DRY_RUN in known


def test_a_cell_has_the_word_of_each_version() -> None:
    words = {"1.1.5": "starts", "1.1.15": "starts", "1.3.6": "refuses"}
    assert cell(words) == "starts: 1.1.5, 1.1.15; refuses: 1.3.6"
    assert {version: word(cell(words), version) for version in words} == words
    assert (cell({"1.1.5": "starts", "1.3.6": "starts"}), word("starts", "1.3.6")) == ("starts", "starts")


def test_the_table_has_each_fault_once() -> None:
    for title, cells in columns().items():
        assert [*cells] == [*faults.FAULTS], title


@pytest.mark.parametrize("option", ["exec", "noexec"])
def test_a_bind_of_the_hook_may_forbid_the_program(
    tmp_path: Path, launcher: str, runtimes: list[support.RuntimeNamespace], option: str
) -> None:
    for runtime in runtimes:
        folder = tmp_path / runtime.runtime
        config = faults.bundle(folder)
        shutil.copy(folder / "rootfs/bin/busybox", folder / "source/true")
        words = ["hook", "createRuntime", f"--root={folder}/state", f"--mount=src={folder}/source,dst=/bin,{option}"]
        config["hooks"] = {"createRuntime": [{"path": launcher, "args": words, "env": [f"PATH={support.PATH}"]}]}
        (folder / "config.json").write_text(json.dumps(config))
        report = planned(folder)
        done = runtime.run_container(str(folder), "refused")
        runtime.delete("refused", "--force")
        assert report.problems == []
        refused = [(each["message"], each["by"]) for each in report.runtime]
        assert refused == [("/bin/true is on a noexec mount", ["crun", "runc"])] * (option == "noexec")
        assert (done.returncode != 0) == bool(refused), done.stderr


def write(fault: str, row: dict[str, str]) -> None:
    """Puts a row into the document, in the columns of the versions here; what others have stays."""
    with open(DOCUMENT, encoding="utf-8") as alone:
        # The tests run side by side, and each writes the whole table.
        fcntl.flock(alone, fcntl.LOCK_EX)
        found = columns()
        for title, said in row.items():
            found.setdefault(title, {})[fault] = said
        versions = {name: sorted((each for each in found if each.startswith(name)), key=_numbers) for name in SHOWN}
        numbers = {name: [title.removeprefix(name).strip() for title in versions[name]] for name in SHOWN}
        titles = [f"{name} {', '.join(numbers[name])}".strip() for name in SHOWN]
        lines = [f"| {' | '.join((FAULT, *titles))} |\n", f"|{'---|' * (len(titles) + 1)}\n"]
        for each in faults.FAULTS:
            words = [[found[title].get(each, "?") for title in versions[name]] for name in SHOWN]
            cells = [cell(dict(zip(numbers[name], said, strict=True))) for name, said in zip(SHOWN, words, strict=True)]
            lines.append(f"| {' | '.join((each, *cells))} |\n")
        before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        DOCUMENT.write_text(f"{before}{BEGIN}\n{''.join(lines)}\n{END}{after}", encoding="utf-8")


# No false alarms

ENGINES = {
    "plain": (),
    "volumes": ("--volume={}:/v:rslave", "--mount=type=bind,src={},dst=/m,ro", "--tmpfs=/t:size=1m"),
    "privileged": ("--privileged",),
    "the host's namespaces": ("--pid=host", "--ipc=host", "--uts=host", "--user=1000:100"),
    "much": (
        *("--hostname=box", "--read-only", "--shm-size=1m", "--cap-drop=all", "--workdir=/bin"),
        *("--security-opt=mask=/proc/acpi", "--security-opt=no-new-privileges", "--sysctl=kernel.msgmax=8192"),
    ),
}


@pytest.mark.parametrize("variant", ENGINES)
def test_what_podman_starts_is_not_refused(tmp_path: Path, launcher: str, variant: str) -> None:
    engine = podman.Podman(tmp_path)
    (tmp_path / "source").mkdir()
    options = [option.replace("{}", f"{tmp_path}/source") for option in ENGINES[variant]]
    # Between podman and the runtime, which gets a bundle in which all is there.
    explain = f"{launcher} --dry-run --format json --root {tmp_path}/state --bundle"
    script = tmp_path / "crun"
    script.write_text(
        f"""#!/bin/sh
before=
for word; do
    [ "$before" != --bundle ] || {explain} "$word" >{tmp_path}/said
    before=$word
done
exec crun "$@"
"""
    )
    script.chmod(0o755)
    done = engine.run([], "/bin/true", options=tuple(options), runtime=str(script))
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "said").read_text())
    assert (report["runtime"], report["problems"]) == ([], [])


@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_what_a_runtime_writes_itself_is_not_refused(tmp_path: Path, runtime: str) -> None:
    support.busybox_rootfs(tmp_path / "rootfs")
    subprocess.run([runtime, "spec"], cwd=tmp_path, check=True)
    report = planned(tmp_path)
    assert (report.runtime, report.warnings, report.exit_code) == ([], [], 0)


@pytest.mark.parametrize("name", configs.CONFIGS)
def test_settings_that_engines_write_are_not_refused(name: str) -> None:
    _, document = configs.config(name)
    found = Refusals()
    refused_settings.judge(found, document, lambda *_: False)
    # Where crun maps by itself, runc refuses: each is tried above.
    places = [f"config.json: /linux/{kind}Mappings" for kind in ("uid", "gid") if re.match("crun.*rootless", name)]
    assert ([each["where"] for each in found.refused], found.warnings) == (places, [])


PARTS = (
    *("args", "cwd", "env", "user", "uid", "additionalGids", "rlimits", "type", "soft", "hard", "sysctl", "a.b"),
    *("seccomp", "defaultAction", "syscalls", "action", "op", "devices", "path", "maskedPaths", "hostname"),
)
VALUES = some.recursive(
    some.none() | some.booleans() | some.integers() | some.sampled_from(["", "/", "/bin", "x", "user"]),
    lambda inner: some.lists(inner, max_size=2) | some.dictionaries(some.sampled_from(PARTS), inner, max_size=4),
    max_leaves=8,
)


@given(some.dictionaries(some.sampled_from(PARTS), VALUES), some.dictionaries(some.sampled_from(PARTS), VALUES))
def test_any_document_is_judged(process: object, linux: dict[str, object]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "rootfs/bin").mkdir(parents=True)
        document = {"ociVersion": "1.0.2", "root": {"path": "rootfs"}, "process": process, "linux": linux}
        (folder / "config.json").write_text(json.dumps(document))
        said(planned(folder))


def _numbers(title: str) -> list[int]:
    return [int(number) for number in title.split()[-1].split(".") if number.isdigit()]
