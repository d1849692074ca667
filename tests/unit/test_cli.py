# SPDX-License-Identifier: Apache-2.0
"""The command line as words: what each option does, and one line on stderr for whatever is wrong with them."""

from __future__ import annotations

import os
import platform
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as some

from oci_bind_hook import __version__, cli
from oci_bind_hook.errors import UsageError
from oci_bind_hook.options import STAGES, Options, parse

if TYPE_CHECKING:
    from pathlib import Path

DEFAULTS = vars(Options())

OPTIONS: dict[str, tuple[list[str], dict[str, object]]] = {
    "nothing": ([], {}),
    **{stage: ([stage], {"stage": stage}) for stage in ("prestart", "createRuntime", "createContainer", "poststop")},
    "stage after options": (["--allow-shared", "poststop"], {"allow_shared": True, "stage": "poststop"}),
    "--mount": (["--mount", "src=/a,dst=/b"], {"mounts": ["src=/a,dst=/b"]}),
    "--mount=": (["--mount=src=/a,dst=/b"], {"mounts": ["src=/a,dst=/b"]}),
    "--mount twice": (["--mount", "a", "--mount=b"], {"mounts": ["a", "b"]}),
    "--mount, value like an option": (["--mount", "--dry-run"], {"mounts": ["--dry-run"]}),
    "--mount, empty value": (["--mount="], {"mounts": [""]}),
    "--root": (["--root", "/x"], {"root": "/x"}),
    "--root=": (["--root=/x/"], {"root": "/x"}),
    "--root, the last wins": (["--root=/x", "--root=/y"], {"root": "/y"}),
    "--root is a stage's name": (["--root", "/poststop", "prestart"], {"root": "/poststop", "stage": "prestart"}),
    "--dry-run": (["--dry-run"], {"dry_run": True}),
    "--bundle": (["--dry-run", "--bundle", "/b"], {"dry_run": True, "bundle": "/b"}),
    "--bundle before --dry-run": (["--bundle=/b", "--dry-run"], {"dry_run": True, "bundle": "/b"}),
    "--bundle, relative": (["--dry-run", "--bundle", "b"], {"dry_run": True, "bundle": os.path.abspath("b")}),
    "--format text": (["--format", "text"], {"format": "text"}),
    "--format json": (["--format=json", "--dry-run"], {"format": "json", "dry_run": True}),
    "--format tree": (["--format=tree", "--dry-run"], {"format": "tree", "dry_run": True}),
    "--format tree --all": (
        ["--format=json", "--all", "--format", "tree", "--dry-run"],
        {"format": "tree", "unfold": True, "dry_run": True},
    ),
    "--log": (["--log", "/x"], {"log": "/x"}),
    "--log-format": (["--log-format=json"], {"log_format": "json"}),
    "--strict": (["--strict"], {"strict": True}),
    "--allow-shared": (["--allow-shared"], {"allow_shared": True}),
    "--allow-annotations": (["--allow-annotations"], {"allow_annotations": True}),
    "--allow-source": (["--allow-source", "/x/", "--allow-source=/y"], {"allowed_sources": ["/x", "/y"]}),
    "--keep-mountpoints": (["--keep-mountpoints"], {"keep_mountpoints": True}),
}


@pytest.mark.parametrize(("words", "changes"), OPTIONS.values(), ids=OPTIONS)
def test_option(words: list[str], changes: dict[str, object]) -> None:
    options, debug = parse(words)
    assert (vars(options), debug) == ({**DEFAULTS, **changes}, False)


def test_debug() -> None:
    options, debug = parse(["--debug", "prestart"])
    assert (vars(options), debug) == ({**DEFAULTS, "stage": "prestart"}, True)


NO_WORD = "unknown command or option"
SEE_HELP = f"{NO_WORD} (see --help)"

# Where a test that fails can install nothing.
NOWHERE = ("install", "--prefix", "/dev/null")

WRONG = {
    "unknown option": (["--verbose"], f'--verbose: {NO_WORD} (did you mean "--version"? see --help)'),
    "unknown option with a value": (["--verbose=1"], f'--verbose: {NO_WORD} (did you mean "--version"? see --help)'),
    "unknown stage": (["poststart"], f'poststart: {NO_WORD} (did you mean "prestart"? see --help)'),
    "stage in capitals": (["Prestart"], f'Prestart: {NO_WORD} (did you mean "prestart"? see --help)'),
    "stage of the container": (
        ["startContainer"],
        f'startContainer: {NO_WORD} (did you mean "createContainer"? see --help)',
    ),
    "empty word": ([""], f"{SEE_HELP}"),
    "two dashes": (["--"], f"--: {SEE_HELP}"),
    "only an equals sign": (["--=x"], f"--: {SEE_HELP}"),
    "abbreviation": (["--dry"], f'--dry: {NO_WORD} (did you mean "--dry-run"? see --help)'),
    "a bundle alone": (["--dry-run", "/"], f"/: {NO_WORD} (pass a bundle with --bundle; see --help)"),
    "install not first": (
        ["--dry-run", "install"],
        f"install: {NO_WORD} (a command comes first, before all options; see --help)",
    ),
    "explain not first": (
        ["--debug", "explain"],
        f"explain: {NO_WORD} (a command comes first, before all options; see --help)",
    ),
    "option of install": (["--prefix=/usr"], f"--prefix: {SEE_HELP}"),
    "second stage": (["prestart", "poststop"], 'prestart: only one stage is allowed, and "poststop" is another'),
    "same stage again": (["prestart", "prestart"], 'prestart: only one stage is allowed, and "prestart" is another'),
    **{
        f"{option} without a value": ([option], f"{option}: the value is missing")
        for option in ("--mount", "--root", "--bundle", "--format", "--log", "--log-format")
    },
    **{
        f"{option} with a value": ([f"{option}=yes"], f"{option}: this option takes no value")
        for option in ("--dry-run", "--allow-shared", "--keep-mountpoints", "--debug")
    },
    "relative --root": (["--root", "x"], '--root: "x" is not an absolute path'),
    "empty --root": (["--root="], '--root: "" is not an absolute path'),
    "relative --log": (["--log=./x"], '--log: "./x" is not an absolute path'),
    "other --format": (["--format", "yaml"], '--format: "yaml" is not text, tree or json'),
    "--all without a tree": (["--dry-run", "--all"], "--all: this option requires --format tree"),
    "--all without a dry-run": (["--all"], "--all: this option requires --dry-run"),
    "other --log-format": (["--log-format=JSON"], '--log-format: "JSON" is not text or json'),
    "--bundle alone": (["--bundle", "/b"], "--bundle: this option requires --dry-run"),
    "escape sequence": (["\x1b[2J\n"], f"\\x1b[2J\\x0a: {SEE_HELP}"),
    "not UTF-8": (["\udcff"], f"\\xff: {SEE_HELP}"),
    "install, unknown word": (
        [*NOWHERE, "prestart"],
        "prestart: unknown argument of install (put -- before the options of the hook)",
    ),
    "install, no value": (["install", "--prefix"], "--prefix: the value is missing"),
    "install, unknown stage": ([*NOWHERE, "--stages=x"], r"--stages: 'x' is not a stage \(known: .*\)"),
    "install, wrong arguments": ([*NOWHERE, "--", "--root", "x"], '--root: "x" is not an absolute path'),
    "install, a stage": (
        [*NOWHERE, "--", "prestart"],
        "prestart: the hook gets the same arguments at each stage",
    ),
    "install, a dry-run": ([*NOWHERE, "--", "--dry-run"], "--dry-run: a registered hook must not be a dry-run"),
    "install, half a bind": ([*NOWHERE, "--", "--mount", "src=/a"], r"--mount 1: the destination is missing (.*)"),
    "install, for all and for some": (
        [*NOWHERE, "--always", "--has-bind-mounts"],
        "--always: cannot be combined with other conditions: it selects all containers",
    ),
    "install, half an annotation": ([*NOWHERE, "--annotation", "a"], '--annotation: "a" is not KEY=VALUE'),
    "install, annotation without a key": ([*NOWHERE, "--annotation==a"], '--annotation: "=a" is not KEY=VALUE'),
    "install, annotation twice": (
        [*NOWHERE, "--annotation=a=b", "--annotation=a=c"],
        "--annotation: a is set twice, but an annotation has one value",
    ),
    "install, no expression": (
        [*NOWHERE, "--command", "(?=x)"],
        '--command: "(?=x)" is not a regular expression of Go: Go does not support (?=',
    ),
    "install, empty folder": ([*NOWHERE, "--hooks-dir="], "--hooks-dir: the folder is empty"),
    "install, flag with a value": (["install", "--always=1"], "--always: this option takes no value"),
    "check, an option of install": (
        ["install", "--check", "--stages=prestart"],
        "--stages: unknown argument of install --check (see --help)",
    ),
    "check, two bundles": (["install", "--check", "/a", "/b"], "/b: only one bundle or container is allowed"),
    "check, other --format": (["install", "--check", "--format=x"], '--format: "x" is not text or json'),
    "check, two bundles behind --": (
        ["install", "--check", "--", "/a", "/b"],
        "/b: only one bundle or container is allowed",
    ),
    "check, no name": (["install", "--check", ""], "the name of the container is empty"),
    "explain, no name": (["explain", ""], "the name of the container is empty"),
    "list, a word": (["list", "c1"], "c1: unknown argument of list (show ID shows one container)"),
    "explain, two words": (["explain", "/a", "/b"], '/a: "/b" is unexpected (explain takes one bundle)'),
    "explain, two stages": (
        ["explain", "/a", "prestart", "poststop"],
        'prestart: only one stage is allowed, and "poststop" is another',
    ),
    "explain, a word misspelt": (
        ["explain", "--mout"],
        '--mout: unknown argument of explain (did you mean "--mount"? see --help)',
    ),
    "show, no word": (["show"], "show takes the id of one container (list shows all containers)"),
    "show, two words": (["show", "c1", "c2"], "show takes the id of one container (list shows all containers)"),
    "gc, another option": (["gc", "--strict"], "--strict: unknown argument of gc (see --help)"),
    "gc, relative --root": (["gc", "--root=x"], '--root: "x" is not an absolute path'),
    "two words in one": (["install --check"], f'install --check: {NO_WORD} (did you mean "install"? see --help)'),
    "a command misspelt": (["unistall"], f'unistall: {NO_WORD} (did you mean "uninstall"? see --help)'),
    "uninstall, a word": (["uninstall", "x"], "x: unknown argument of uninstall (see --help)"),
    "uninstall, empty prefix": (["uninstall", "--prefix="], "--prefix: the prefix is empty"),
    "doctor, a word": (["doctor", "--debug"], "--debug: unknown argument of doctor (see --help)"),
    "json without a dry-run": (["--format=json"], "--format: this option requires --dry-run"),
    "a tree without a dry-run": (["--format=tree"], "--format: this option requires --dry-run"),
    "install, half an argument": ([*NOWHERE, "--", "--mount"], "--mount: the value is missing"),
}


@pytest.mark.parametrize(("words", "message"), WRONG.values(), ids=WRONG)
def test_wrong_words_are_one_line_on_stderr(capfd: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert cli.main(words) == os.EX_USAGE
    out, err = capfd.readouterr()
    pattern = message if ".*" in message else re.escape(message)
    assert (out, bool(re.fullmatch(f"oci-bind-hook: {pattern}\n", err))) == ("", True), err


@given(some.lists(some.text(max_size=8) | some.sampled_from([*STAGES, "--mount", "--bundle=/b", "--dry-run"])))
def test_any_words_are_understood_or_refused(words: list[str]) -> None:
    try:
        options, _ = parse(words)
    except UsageError:
        return
    assert vars(options).keys() == DEFAULTS.keys()


def test_version(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--nonsense", "--version"]) == os.EX_OK
    out, err = capfd.readouterr()
    assert err == ""
    first, *others = out.splitlines()
    assert first == f"oci-bind-hook {__version__}"
    told = dict(line.split(": ", 1) for line in others)
    assert list(told) == ["commit", "Python", "kernel"]
    assert told["Python"] == platform.python_version()
    assert told["kernel"].startswith(f"{platform.release()} (")


def test_unwritable_log_does_not_stop_the_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with open("/dev/null", "rb") as empty:
        saved = os.dup(0)
        os.dup2(empty.fileno(), 0)
        try:
            code = cli.main(["prestart", "--log", str(tmp_path / "absent/log")])
        finally:
            os.dup2(saved, 0)
            os.close(saved)
    assert code == os.EX_DATAERR
    assert capfd.readouterr() == ("", "oci-bind-hook: prestart: state: is empty\n")
