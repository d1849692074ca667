# SPDX-License-Identifier: Apache-2.0
"""The launcher as a runtime starts it: whatever it is given, it ends with one line and the right exit code."""

from __future__ import annotations

import json
import os
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from helpers import support

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

CONFIG: dict[str, Any] = {"ociVersion": "1.0.2", "root": {"path": "rootfs"}}


class Hook:
    """The launcher, a bundle without mounts, and a state folder that does not exist yet."""

    def __init__(self, path: Path, launcher: str) -> None:
        self.launcher = launcher
        self.bundle = path / "bundle"
        self.rootfs = self.bundle / "rootfs"
        self.rootfs.mkdir(parents=True)
        self.source = path / "source"
        self.source.mkdir()
        self.root = path / "state"
        self.config(CONFIG)

    def config(self, document: Mapping[str, Any]) -> None:
        (self.bundle / "config.json").write_text(json.dumps(document))

    def state(self, **members: Any) -> dict[str, Any]:
        state = {"ociVersion": "1.0.2", "id": "c1", "status": "creating", "bundle": str(self.bundle), **members}
        return {name: value for name, value in state.items() if value is not None}

    def run(
        self, *arguments: str, stdin: Mapping[str, Any] | str | bytes | int, redirect: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run the launcher; ``redirect`` is what the shell does to its fds first."""
        command = ["sh", "-c", f'cd /; exec "$@" {redirect}', "sh", self.launcher, "--root", str(self.root), *arguments]
        data = None
        if not isinstance(stdin, int):
            text = stdin if isinstance(stdin, str | bytes) else json.dumps(stdin)
            data = text.encode() if isinstance(text, str) else text
        done = subprocess.run(
            command,
            **({"input": data} if data is not None else {"stdin": stdin}),
            capture_output=True,
            check=False,
            env={"PATH": support.PATH},
            timeout=60,
        )
        return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())

    def fails(self, *arguments: str, stdin: Mapping[str, Any] | str | bytes | int) -> tuple[int, str]:
        """The exit code and the one line of a run that fails, without what every line begins with."""
        before = (support.tree(self.bundle), support.mounts())
        done = self.run(*arguments, stdin=stdin)
        assert done.stdout == ""
        line = re.fullmatch(r"oci-bind-hook: (.*)\n", done.stderr)
        assert line, done.stderr
        assert line[1].isprintable()
        assert (support.tree(self.bundle), support.mounts()) == before
        return done.returncode, line[1].replace(str(self.bundle), "BUNDLE")


@pytest.fixture
def hook(tmp_path: Path, launcher: str) -> Hook:
    return Hook(tmp_path, launcher)


# What is no state

STATE = '{"ociVersion":"1.0.2","id":"c1","status":"creating","bundle":"/absent"}'
FILE = " (a component of the path is not a folder)"
OTHER_FILE = " (crun --config uses another file and does not pass its name to hooks)"
LOOP = " (the path contains too many symbolic links, or a loop of them)"
NOT_THERE = "c1 prestart: the bundle /absent cannot be opened: No such file or directory"
ID = "must be 1 to 200 of the characters A-Z a-z 0-9 _ + . - but not . or .. alone"

DATA: dict[str, tuple[str | bytes, int, str]] = {
    "empty": ("", 65, "prestart: state: is empty"),
    "blanks": (" \n\t\r\n", 65, "prestart: state: is empty"),
    "not JSON": ("hello", 65, "prestart: state: Expecting value: line 1 column 1 (char 0)"),
    "cut off": (STATE[:-1], 65, "prestart: state: Expecting ',' delimiter: line 1 column 71 (char 70)"),
    "array": ("[]", 65, "prestart: state: must be of type object, not an array"),
    "null": ("null", 65, "prestart: state: must be of type object, not null"),
    "nothing in it": (
        "{}",
        65,
        "prestart: state: /bundle: is missing (3 more violations: --dry-run lists all)",
    ),
    "blanks around": (f" \n{STATE}\n ", 66, NOT_THERE),
    "two documents": (f'{STATE} {{"ociVersion":"1.0"}}', 66, NOT_THERE),
    "two documents, no blank": (STATE + STATE, 66, NOT_THERE),
    "three documents": (
        f"{STATE}\n{STATE}\n{STATE}",
        65,
        "prestart: state: Text after the end of the document: line 3 column 1 (char 144)",
    ),
    "BOM": (
        b"\xef\xbb\xbf" + STATE.encode(),
        65,
        "prestart: state: starts with a byte order mark, which JSON does not allow",
    ),
    "UTF-16": (STATE.encode("utf-16"), 65, "prestart: state: is not UTF-8 (it looks like UTF-16 or UTF-32)"),
    "UTF-16 without BOM": (
        STATE.encode("utf-16-le"),
        65,
        "prestart: state: is not UTF-8 (it looks like UTF-16 or UTF-32)",
    ),
    "Latin-1": (b'{"id": "\xe4"}', 65, "prestart: state: is not UTF-8 at byte offset 8"),
    "17 MiB": (STATE + " " * (17 << 20), 65, "prestart: state: is larger than 16 MiB"),
    "deep": ("[" * 100_000, 65, "prestart: state: Nested deeper than 200 levels: line 1 column 201 (char 200)"),
    "deep objects": (
        '{"a":' * 100_000,
        65,
        "prestart: state: Nested deeper than 200 levels: line 1 column 1001 (char 1000)",
    ),
    "twice the same": (
        STATE.replace('"id"', '"id":"c2","id"'),
        65,
        "prestart: state: /id: appears twice; runtimes disagree about which one applies",
    ),
    "NaN": (STATE.replace('"c1"', "NaN"), 65, "prestart: state: /id: is NaN, which is not valid JSON"),
}


@pytest.mark.parametrize(("data", "code", "line"), DATA.values(), ids=DATA)
def test_what_is_no_state(hook: Hook, data: str | bytes, code: int, line: str) -> None:
    assert hook.fails("prestart", stdin=data) == (code, line)


MEMBERS: dict[str, tuple[dict[str, Any], int, str]] = {
    "id ../x": ({"id": "../x"}, 65, f'state: /id: {ID}, not "../x"'),
    "id ..": ({"id": ".."}, 65, f'state: /id: {ID}, not ".."'),
    "id a/b": ({"id": "a/b"}, 65, f'state: /id: {ID}, not "a/b"'),
    "empty id": ({"id": ""}, 65, f'state: /id: {ID}, not ""'),
    "id with a newline": ({"id": "c1\n"}, 65, f'state: /id: {ID}, not "c1\\x0a"'),
    "id with an escape": ({"id": "\x1b[2J"}, 65, f'state: /id: {ID}, not "\\x1b[2J"'),
    "id right to left": ({"id": "a\u202eb"}, 65, f'state: /id: {ID}, not "a\\u202eb"'),
    "id too long": ({"id": "x" * 300}, 65, f'state: /id: {ID}, not "{"x" * 200}..."'),
    "id a number": ({"id": 1}, 65, "state: /id: must be of type string, not 1"),
    "relative bundle": (
        {"bundle": "b"},
        65,
        'state: /bundle: must be an absolute path without NUL characters, not "b"',
    ),
    "bundle with a NUL": (
        {"bundle": "/\0"},
        65,
        'state: /bundle: must be an absolute path without NUL characters, not "/\\x00"',
    ),
    "bundle with odd characters": (
        {"bundle": "/a\x1b[1m\n\u202e"},
        66,
        "c1 prestart: the bundle /a\\x1b[1m\\x0a\\u202e cannot be opened: No such file or directory",
    ),
    "bundle a file": (
        {"bundle": "/dev/null"},
        66,
        f"c1 prestart: /dev/null/config.json cannot be opened: Not a directory{FILE}",
    ),
    "true as pid": ({"pid": True}, 65, "state: /pid: must be of type integer, not true"),
    "1.0 as pid": ({"pid": 1.0}, 65, "state: /pid: must be of type integer, not 1.0"),
    "pid too small": ({"pid": -2}, 65, "state: /pid: must be at least -1, not -2"),
    "pid too large": ({"pid": 1 << 31}, 65, f"state: /pid: must be at most {(1 << 31) - 1}, not {1 << 31}"),
    "pid of nobody": (
        {"pid": (1 << 31) - 1},
        69,
        f"c1 prestart: the container's process {(1 << 31) - 1} has ended (see the runtime's log and the messages of "
        "other hooks, and check the pid in the state)",
    ),
    "unknown status": (
        {"status": "dead"},
        65,
        'state: /status: must be "creating", "created", "starting", "running", "paused" or "stopped", not "dead"',
    ),
}


@pytest.mark.parametrize(("members", "code", "line"), MEMBERS.values(), ids=MEMBERS)
def test_wrong_member_of_a_state(hook: Hook, members: dict[str, Any], code: int, line: str) -> None:
    found = hook.fails("prestart", stdin=hook.state(**members))
    assert found == (code, line if line.startswith("c1 ") else f"prestart: {line}")


@pytest.mark.parametrize("arguments", [[], ["prestart"], ["createRuntime"], ["createContainer"]], ids=str)
@pytest.mark.parametrize("status", ["starting", "running", "paused"])
def test_container_that_is_past_its_creation(hook: Hook, status: str, arguments: list[str]) -> None:
    hint = "register the hook for createRuntime, createContainer or prestart; for a running container, use attach"
    line = f'the container is "{status}", but a hook binds only while it is being created ({hint})'
    expected = (69, " ".join(["c1", *arguments]) + f": {line}")
    assert hook.fails(*arguments, stdin=hook.state(status=status)) == expected


@pytest.mark.parametrize("status", ["creating", "created"])
def test_container_that_is_being_created(hook: Hook, status: str) -> None:
    done = hook.run("prestart", stdin=hook.state(status=status))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# The bundle


def spoil(hook: Hook, kind: str) -> None:
    config = hook.bundle / "config.json"
    if kind.startswith("rootfs"):
        path = {"rootfs missing": "absent", "rootfs a file": "config.json", "rootfs /": "/", "rootfs ../..": "../" * 40}
        bind = {"destination": "/a", "source": str(hook.source), "options": ["bind"]}
        hook.config({**CONFIG, "root": {"path": path[kind]}, "mounts": [bind]})
        return
    content = config.read_bytes()
    config.unlink()
    if kind == "fifo":
        os.mkfifo(config)
    elif kind == "folder":
        config.mkdir()
    elif kind == "loop":
        config.symlink_to("config.json")
    elif kind == "link to a fifo":
        os.mkfifo(hook.bundle / "fifo")
        config.symlink_to("fifo")
    elif kind == "two documents":
        config.write_bytes(content + b" " + content)
    elif kind == "empty":
        config.write_bytes(b"")


BUNDLES = {
    "missing": (66, f"BUNDLE/config.json cannot be opened: No such file or directory{OTHER_FILE}"),
    "fifo": (66, "BUNDLE/config.json is not a regular file"),
    "folder": (66, "BUNDLE/config.json is not a regular file"),
    "loop": (66, f"BUNDLE/config.json cannot be opened: Too many levels of symbolic links{LOOP}"),
    "link to a fifo": (66, "BUNDLE/config.json is not a regular file"),
    "empty": (65, "config.json: is empty"),
    "two documents": (65, "config.json: Text after the end of the document: line 1 column 53 (char 52)"),
    "rootfs missing": (66, "the rootfs BUNDLE/absent cannot be opened: No such file or directory"),
    "rootfs a file": (66, f"the rootfs BUNDLE/config.json cannot be opened: Not a directory{FILE}"),
    "rootfs /": (77, "the rootfs / is the root folder of the host"),
    "rootfs ../..": (77, "the rootfs / is the root folder of the host"),
}


@pytest.mark.parametrize(("kind", "code", "line"), [(kind, *row) for kind, row in BUNDLES.items()], ids=BUNDLES)
def test_spoilt_bundle(hook: Hook, kind: str, code: int, line: str) -> None:
    spoil(hook, kind)
    assert hook.fails("prestart", stdin=hook.state()) == (code, f"c1 prestart: {line}")


def test_config_may_be_a_link_and_the_bundle_too(hook: Hook, tmp_path: Path) -> None:
    (hook.bundle / "config.json").rename(tmp_path / "config")
    (hook.bundle / "config.json").symlink_to("../config")
    (tmp_path / "link").symlink_to("bundle")
    done = hook.run("prestart", stdin=hook.state(bundle=str(tmp_path / "link")))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_config_on_stdin_is_the_config(hook: Hook) -> None:
    (hook.bundle / "config.json").unlink()
    bind = {"destination": "a", "source": str(hook.source), "options": ["bind"]}
    data = f"{json.dumps(hook.state())}\n{json.dumps({**CONFIG, 'mounts': [bind]})}"
    done = hook.run("prestart", stdin=data)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert os.path.samefile(hook.rootfs / "a", hook.source)


# Tear-down


@pytest.mark.parametrize("arguments", [["poststop"], []], ids=["named", "told from the state"])
def test_nothing_recorded_is_nothing_to_do(hook: Hook, arguments: list[str]) -> None:
    for _ in range(2):
        done = hook.run(*arguments, stdin=hook.state(status="stopped", bundle="/absent"))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert not hook.root.exists()


@pytest.mark.parametrize("destination", ["/a/b", "a/b"], ids=["absolute", "relative"])
def test_by_hand_and_back_twice(hook: Hook, destination: str) -> None:
    before = (support.tree(hook.bundle), support.mounts())
    bind = {"destination": destination, "source": str(hook.source), "options": ["bind"]}
    hook.config({**CONFIG, "mounts": [bind]})
    done = hook.run("prestart", stdin=hook.state())
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert os.path.samefile(hook.rootfs / "a/b", hook.source)
    hook.config(CONFIG)
    for _ in range(2):
        done = hook.run("poststop", stdin=hook.state(status="stopped"))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert (support.tree(hook.bundle), support.mounts()) == before
        assert os.listdir(hook.root) == []


# Odd fds


def test_terminal_on_stdin(hook: Hook) -> None:
    _, terminal = os.openpty()
    hint = "to explain a bundle, use --dry-run --bundle DIR; see --help"
    assert hook.fails("prestart", stdin=terminal) == (
        64,
        f"prestart: stdin is a terminal, but the hook reads the state from stdin ({hint})",
    )


def test_stdin_that_cannot_be_read(hook: Hook) -> None:
    null = os.open("/dev/null", os.O_WRONLY)
    line = "prestart: the state cannot be read from stdin: Bad file descriptor"
    assert hook.fails("prestart", stdin=null) == (64, line)


EMPTY = "oci-bind-hook: prestart: state: is empty\n"
CLOSED = {
    "stdin": ("<&-", 65, EMPTY),
    "stdout": (">&-", 66, f"oci-bind-hook: {NOT_THERE}\n"),
    "stderr": ("2>&-", 66, ""),
    "all": ("<&- >&- 2>&-", 65, ""),
}


@pytest.mark.parametrize(("redirect", "code", "line"), CLOSED.values(), ids=CLOSED)
def test_closed_fds(hook: Hook, tmp_path: Path, redirect: str, code: int, line: str) -> None:
    done = hook.run("prestart", "--log", str(tmp_path / "log"), stdin=STATE, redirect=redirect)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", line)
    # A file of ours that got the number of a closed one would have the line a second time.
    levels = [logged.partition(" ")[0] for logged in (tmp_path / "log").read_text().splitlines()]
    assert [level for level in levels if level != 'level="debug"'] == ['level="error"']


@pytest.mark.parametrize("redirect", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_fds_do_no_harm_to_a_run_that_is_fine(hook: Hook, redirect: str) -> None:
    hook.rootfs.rmdir()
    support.bundle(hook.bundle, ["true"])
    arguments = ["--dry-run", "--bundle", str(hook.bundle)]
    usual = hook.run(*arguments, stdin=b"")
    assert (usual.returncode, usual.stderr) == (0, "")
    assert usual.stdout.startswith("bundle     /")
    done = hook.run(*arguments, stdin=b"", redirect=redirect)
    assert (done.returncode, done.stdout, done.stderr) == (0, "" if ">&-" in redirect.split() else usual.stdout, "")


def test_log_that_nobody_reads_does_not_hold_us(hook: Hook, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    done = hook.run("prestart", "--debug", "--log", str(tmp_path / "fifo"), stdin=hook.state())
    first = re.sub(r"\d+\.\d ms: ", "", done.stderr.splitlines()[0])
    expected = f"oci-bind-hook: warning: the log {tmp_path}/fifo cannot be written: No such device or address"
    assert (done.returncode, first) == (0, expected)


def test_broken_pipe_is_no_error(hook: Hook) -> None:
    read, write = os.pipe()
    os.close(read)
    done = hook.run("--help", stdin=b"", redirect=f">/proc/{os.getpid()}/fd/{write}")
    assert (done.returncode, done.stderr) == (0, "")
