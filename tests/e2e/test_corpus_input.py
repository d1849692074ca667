# SPDX-License-Identifier: Apache-2.0
"""The attack corpus, I: states, configs, ids, pids, options and sources that somebody made up."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import subprocess
import termios
import time
from typing import TYPE_CHECKING, Any

import pytest

from helpers import support
from helpers.corpus import fails, gone, lands, look, options, plant, prepare, refused, succeeds
from helpers.world import call, mount, mounted, state

if TYPE_CHECKING:
    from collections.abc import Callable

    from helpers.world import World


def config(world: World) -> dict[str, Any]:
    document = json.loads((world.path / "bundle/config.json").read_text())
    assert isinstance(document, dict)
    return document


def write(world: World, content: bytes | dict[str, Any]) -> None:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    (world.path / "bundle/config.json").write_bytes(data)


def test_I01_a_state_without_end_is_cut_off(world: World) -> None:
    prepare(world)
    before = look(world)
    command = [world.launcher, "prestart", *world.root_option(), *mount(world, "/a")]
    with open("/dev/zero", "rb") as endless:
        done = subprocess.run(command, stdin=endless, capture_output=True, text=True, timeout=60, check=False)
    fails(done, 65, "larger than 16 MiB")
    assert look(world) == before


STUCK = (
    "stdin is still open after 20 seconds, so the state may be incomplete (the process that writes "
    "the state must close stdin)"
)


def test_I01_who_never_closes_stdin_is_told(world: World) -> None:
    """The kernel tells at once, and untruly, that the time is up; how long it was asked to wait is in the trace."""
    prepare(world)
    before = look(world)
    trace = world.path / "trace"
    hurry = ["strace", "-qq", "-o", str(trace), "-e", "trace=poll", "-e", "inject=poll:retval=0:when=2"]
    reader, writer = os.pipe()
    os.write(writer, state(world).encode())
    command = [*hurry, world.launcher, "prestart", *world.root_option(), *mount(world, "/a")]
    done = subprocess.run(command, stdin=reader, capture_output=True, text=True, timeout=60, check=False)
    fails(done, 64, STUCK)
    [first, second] = trace.read_text().splitlines()
    trace.unlink()
    assert first.startswith("poll([{fd=0, events=POLLIN}], 1, ")
    assert 19000 < int(second.split("1, ")[1].split(")")[0]) <= int(first.split("1, ")[1].split(")")[0]) <= 20000
    assert look(world) == before


@pytest.mark.long
@pytest.mark.parametrize("trickles", [False, True])
def test_I01_the_time_is_up_for_all(world: World, trickles: bool) -> None:
    """However often a little more comes."""
    prepare(world)
    before = look(world)
    command = [world.launcher, "prestart", *world.root_option(), *mount(world, "/a")]
    start = time.monotonic()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as hook:
        assert hook.stdin is not None
        assert hook.stderr is not None
        hook.stdin.write(state(world))
        hook.stdin.flush()
        while trickles and not support.is_readable(hook.stderr.fileno(), 1):
            hook.stdin.write(" ")
            hook.stdin.flush()
        assert STUCK in hook.stderr.read()
    assert 19 < time.monotonic() - start < 30
    assert look(world) == before


@pytest.mark.parametrize("text", ["", " \n", "hello", "STATE STATE STATE", "STATE hello", "[STATE]", "null"])
def test_I01_what_is_no_state_is_refused(world: World, text: str) -> None:
    prepare(world)
    refused(world, *mount(world, "/a"), code=65, stdin=text.replace("STATE", state(world)))


def test_I01_a_second_document_is_the_config(world: World) -> None:
    prepare(world)
    other = support.busybox_rootfs(world.path / "other")
    text = state(world) + json.dumps({**config(world), "root": {"path": other}})
    before = look(world)
    world.rootfs, kept = other, world.rootfs
    lands(world, *mount(world, "/a"), at=["/a"], stdin=text)
    world.rootfs = kept
    assert look(world) == before


def test_I01_a_state_that_is_not_closed_has_no_effect(world: World) -> None:
    """The runtime's timeout kills the hook that waits for the end: until then nothing was locked or changed."""
    prepare(world)
    before = look(world)
    command = [world.launcher, "prestart", *world.root_option(), *mount(world, "/a")]
    reader, writer = os.pipe()
    with subprocess.Popen(command, stdin=reader, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as hook:
        os.write(writer, state(world).encode())
        while struct.unpack("i", fcntl.ioctl(reader, termios.FIONREAD, bytes(4)))[0]:
            os.sched_yield()
        assert look(world) == before
        hook.kill()
        assert hook.stdout is not None
        assert hook.stdout.read() == b""
    assert look(world) == before


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000], ids=["arrays", "objects"])
@pytest.mark.parametrize("place", ["state", "config"])
def test_I02_what_nests_too_deep_is_refused(world: World, place: str, text: str) -> None:
    prepare(world)
    if place == "config":
        write(world, text.encode())
    stdin = text if place == "state" else state(world)
    refused(world, *mount(world, "/a"), code=65, says="deeper than", stdin=stdin, dry=False)


STATES: dict[str, Callable[[bytes], bytes]] = {
    "id twice": lambda text: text.replace(b'"id"', b'"id": "c2", "id"'),
    "Bundle beside bundle": lambda text: text.replace(b'"bundle"', b'"Bundle": "/", "bundle"'),
    "only BUNDLE": lambda text: text.replace(b'"bundle"', b'"BUNDLE"'),
    "NaN": lambda text: text.replace(b"{", b'{"x": NaN, ', 1),
    "1e400": lambda text: text.replace(b"{", b'{"x": 1e400, ', 1),
    "true as pid": lambda text: text.replace(b"{", b'{"pid": true, ', 1),
    "pid 1.0": lambda text: text.replace(b"{", b'{"pid": 1.0, ', 1),
    "5000 digits": lambda text: text.replace(b"{", b'{"x": ' + b"7" * 5000 + b", ", 1),
    "pid 5000 digits": lambda text: text.replace(b"{", b'{"pid": ' + b"7" * 5000 + b", ", 1),
    "BOM": lambda text: b"\xef\xbb\xbf" + text,
    "UTF-16": lambda text: text.decode().encode("utf-16"),
    "comment": lambda text: b"/* comment */" + text,
    "bad UTF-8": lambda text: text.replace(b"{", b'{"x": "\xff", ', 1),
}

# What is read differently by runc, crun or Python, or by one of them only.
CONFIGS: dict[str, Callable[[bytes], bytes]] = {
    "root twice": lambda text: text.replace(b'"root":', b'"root": {"path": "evil"}, "root":'),
    "root twice, once without a path": lambda text: text.replace(b'"mounts":', b'"root": {}, "mounts":'),
    "Root beside root": lambda text: text.replace(b'"root":', b'"Root": {"path": "evil"}, "root":'),
    "only ROOT": lambda text: text.replace(b'"root":', b'"ROOT":').replace(b'"path":', b'"PATH":'),
    "Path beside path": lambda text: text.replace(b'"path":', b'"Path": "evil", "path":'),
    "mounts twice": lambda text: text.replace(b'"mounts":', b'"mounts": [], "mounts":'),
    "Mounts beside mounts": lambda text: text.replace(b'"mounts":', b'"Mounts": [], "mounts":'),
    "mounts with a long s": lambda text: text.replace(b'"mounts":', '"mount\u017f": [], "mounts":'.encode()),
    "Destination": lambda text: text.replace(b'"destination":', b'"Destination": "/evil", "destination":', 1),
    "Options": lambda text: text.replace(b'"options":', b'"Options": [], "options":', 1),
    "Linux beside linux": lambda text: text.replace(b'"linux":', b'"Linux": {}, "linux":'),
    "Annotations alone": lambda text: text.replace(b'"mounts":', b'"Annotations": {}, "mounts":'),
    "text behind it": lambda text: text + b" x",
    "a document behind it": lambda text: text + text,
    "bad UTF-8 in a path": lambda text: text.replace(b'"rootfs"', b'"rootfs\xff"'),
    "NaN where nobody looks": lambda text: text.replace(b"{", b'{"x": NaN, ', 1),
    "Infinity": lambda text: text.replace(b"{", b'{"x": -Infinity, ', 1),
    "1e400": lambda text: text.replace(b"{", b'{"x": 1e400, ', 1),
    "5000 digits": lambda text: text.replace(b"{", b'{"x": ' + b"7" * 5000 + b", ", 1),
    "BOM": lambda text: b"\xef\xbb\xbf" + text,
    "UTF-16": lambda text: text.decode().encode("utf-16"),
    "UTF-32": lambda text: text.decode().encode("utf-32-le"),
    "comment": lambda text: b"/* comment */" + text,
    "comma at the end": lambda text: text.rstrip()[:-1] + b",}",
    "single quotes": lambda text: text.replace(b'"root"', b"'root'"),
    "true as a string": lambda text: text.replace(b'"readonly": false', b'"readonly": "true"'),
}


@pytest.mark.parametrize("how", STATES)
def test_I03_a_state_that_readers_could_take_differently_is_refused(world: World, how: str) -> None:
    prepare(world)
    text = STATES[how](state(world).encode())
    before = look(world)
    command = [world.launcher, "prestart", *world.root_option(), *mount(world, "/a")]
    done = subprocess.run(command, input=text, capture_output=True, timeout=60, check=False)
    fails(subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode()), 65)
    assert look(world) == before


@pytest.mark.parametrize("how", CONFIGS)
def test_I03_a_config_that_readers_could_take_differently_is_refused(world: World, how: str) -> None:
    prepare(world, support.bind(world.source, "/real"))
    support.busybox_rootfs(world.path / "bundle/evil")
    text = (world.path / "bundle/config.json").read_bytes()
    assert CONFIGS[how](text) != text
    write(world, CONFIGS[how](text))
    refused(world, *mount(world, "/a"), code=65, dry=how == "root twice")


@pytest.mark.parametrize("runtime", support.RUNTIMES)
@pytest.mark.parametrize("how", ["root twice", "Root beside root"])
def test_I03_a_real_container_with_two_roots_is_not_started(world: World, runtime: str, how: str) -> None:
    prepare(world)
    support.busybox_rootfs(world.path / "bundle/evil")
    log = world.path / "log"
    bundle = world.bundle("echo started", "createRuntime", *mount(world, "/a"), "--log", str(log))
    write(world, CONFIGS[how]((world.path / "bundle/config.json").read_bytes()))
    before = look(world)
    done = support.run_container(runtime, bundle, "c1")
    assert (done.returncode != 0, done.stdout) == (True, "")
    said = log.read_text()
    assert "appears twice" in said or "must be spelled" in said
    log.unlink()
    assert look(world) == before


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "..", ".", "", "x" * 300, "c1\n", "c1\x00", "c 1", "/abs", "c1\u202e", "\u00e4", "*"]
)
def test_I04_an_id_that_is_no_plain_name_is_refused(world: World, name: str) -> None:
    prepare(world)
    refused(world, *mount(world, "/a"), code=65, says="/id", stdin=state(world, name), dry=False)
    refused(world, code=65, says="/id", stage="poststop", stdin=state(world, name, status="stopped"), dry=False)


@pytest.mark.parametrize("name", ["-rf", "--help", "+x", "c1.json", "c1.lock", ".hidden"])
def test_I04_an_odd_id_is_only_a_name(world: World, name: str) -> None:
    prepare(world)
    before = look(world)
    succeeds(call(world, "prestart", *mount(world, "/a"), stdin=state(world, name)))
    assert support.records(world.state) == [f"{name}.json"]
    gone(world, before, name)


ROOTS = {
    "/": 77,
    "../" * 40: 77,
    "link-to-slash": 77,
    "/proc/self/root": 77,
    "absent": 66,
    "config.json": 66,
    "": 65,
    "absent/..": 66,
}


@pytest.mark.parametrize("path", ROOTS)
def test_I05_a_root_that_is_the_hosts_or_none_is_refused(world: World, path: str) -> None:
    prepare(world)
    (world.path / "bundle/link-to-slash").symlink_to("/")
    write(world, {**config(world), "root": {"path": path}})
    refused(world, *mount(world, "/a"), code=ROOTS[path], dry=path == "absent/..")


@pytest.mark.parametrize("kind", ["absolute", "outside", "link"])
def test_I05_a_root_may_be_anywhere(world: World, kind: str) -> None:
    prepare(world)
    world.rootfs = support.busybox_rootfs(world.path / "elsewhere/root")
    (world.path / "bundle/link").symlink_to("../elsewhere/root")
    path = {"absolute": world.rootfs, "outside": "../elsewhere/root", "link": "link"}[kind]
    write(world, {**config(world), "root": {"path": path}})
    before = _other(world)
    succeeds(call(world, "prestart", *mount(world, "/a"), stdin=state(world)))
    assert mounted(world) == ["/a"]
    assert call(world, "poststop", stdin=state(world, status="stopped")).returncode == 0
    assert _other(world) == before


def _other(world: World) -> tuple[object, ...]:
    return support.tree(world.path), support.mounts()


def test_I06_a_bundle_that_is_a_link_is_that_bundle(world: World) -> None:
    prepare(world)
    (world.path / "run").mkdir()
    (world.path / "run/link").symlink_to("../bundle")
    for path in ("run/link", "run/../run/link/.", "run/link/"):
        lands(world, *mount(world, "/a"), at=["/a"], stdin=state(world, bundle=str(world.path / path)), dry=False)


@pytest.mark.parametrize("pid", [None, 0, -1, 1])
def test_I07_without_a_pid_that_could_be_entered(world: World, pid: int | None) -> None:
    prepare(world)
    members: dict[str, Any] = {} if pid is None else {"pid": pid}
    text = state(world, **members)
    refused(world, *mount(world, "/a"), code=69, stage="createRuntime", stdin=text, dry=False)
    refused(world, *mount(world, "/a"), code=69, stage="createContainer", stdin=text, dry=False)
    refused(world, *mount(world, "/a"), code=69, stage="", stdin=text, dry=False)
    lands(world, *mount(world, "/a"), at=["/a"], stdin=text, dry=False)


@pytest.mark.parametrize(("pid", "code"), [(2**31, 65), (2**63, 65), (-2, 65), (2**31 - 1, 69), ("1", 65)])
def test_I07_a_pid_of_nobody(world: World, pid: object, code: int) -> None:
    prepare(world)
    for stage in ("prestart", "createRuntime"):
        refused(world, *mount(world, "/a"), code=code, stage=stage, stdin=state(world, pid=pid), dry=False)


def test_I07_the_pid_of_a_process_that_has_ended(world: World) -> None:
    prepare(world)
    dead = subprocess.Popen(["true"])
    os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)
    before = look(world)
    done = call(world, "createRuntime", *mount(world, "/a"), stdin=state(world, pid=dead.pid))
    fails(done, done.returncode)
    assert done.returncode in (69, 71)
    assert look(world) == before
    assert dead.wait() == 0


def test_I07_a_pid_of_this_namespace_means_here(world: World) -> None:
    prepare(world)
    before = look(world)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        text = state(world, pid=process.pid)
        succeeds_beside(call(world, "prestart", *mount(world, "/a"), stdin=text))
        assert mounted(world) == ["/a"]
        # It lives: nothing is undone, and nobody is killed for it.
        stopped = state(world, status="stopped")
        record = json.loads((world.state / "c1.json").read_text())
        # The number of somebody else who started later.
        record["init"]["start"] -= 1
        (world.state / "c1.json").write_text(json.dumps(record))
        succeeds_beside(call(world, "poststop", stdin=stopped))
        assert mounted(world) == []
        process.communicate()
    assert process.returncode == 0
    assert look(world) == before


def test_I07_poststop_undoes_nothing_while_the_first_process_lives(world: World) -> None:
    prepare(world)
    before = look(world)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        succeeds_beside(call(world, "prestart", *mount(world, "/a"), stdin=state(world, pid=process.pid)))
        there = look(world)
        succeeds_beside(call(world, "poststop", stdin=state(world, status="stopped")))
        assert look(world) == there
        process.communicate()
    assert process.returncode == 0
    gone(world, before)


def succeeds_beside(done: subprocess.CompletedProcess[str]) -> None:
    """As ``succeeds``, while this test has a process of its own."""
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_I07_createContainer_enters_nothing(world: World) -> None:
    prepare(world)
    with support.RuntimeNamespace("runc") as namespace:
        there = support.mounts(namespace.holder.pid)
        before = look(world)
        text = state(world, pid=namespace.holder.pid)
        done = call(world, "createContainer", *mount(world, "/a"), stdin=text)
        fails(done, 69, "requires the container's mount namespace")
        assert look(world) == before
        assert support.mounts(namespace.holder.pid) == there


OPTIONS: dict[str, tuple[list[str], set[str], set[str]]] = {
    "rw": (["rw"], {"rw"}, {"ro"}),
    "last wins": (["ro", "rw"], {"rw"}, {"ro"}),
    "last wins too": (["rw", "ro"], {"ro"}, {"rw"}),
    "nothing is toggled": (["suid", "dev", "exec", "suid"], {"rw"}, {"nosuid", "nodev", "noexec"}),
    "ro twice": (["ro", "ro", "nosuid", "nosuid"], {"ro", "nosuid"}, {"rw"}),
    "10000": (["ro", "nosuid"] * 4999 + ["noexec", "nodev"], {"ro", "nosuid", "noexec", "nodev"}, set()),
    "none": ([], {"rw"}, set()),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_I08_options_set_and_clear_and_the_last_one_counts(world: World, case: str) -> None:
    words, has, lacks = OPTIONS[case]
    prepare(world, support.bind(world.source, "/a", *words))

    def check() -> None:
        found = options(world, "/a")
        assert has <= found
        assert not lacks & found

    lands(world, at=["/a"], check=check, dry=False)


@pytest.mark.parametrize("words", ["remount", "ro,rw", "suid,nosuid", "nonsense", "z", "mand", "RO", "size=1", ""])
def test_I08_words_that_make_no_sense_are_refused(world: World, words: str) -> None:
    prepare(world)
    done = call(world, "prestart", *mount(world, "/a", options=f",{words}"), stdin=state(world))
    fails(done, 64 if not words else 78)
    refused(world, *mount(world, "/a", options=f",{words}"), code=done.returncode, dry=False)


@pytest.mark.parametrize("word", ["nonsense", "size=1", "RO", ""])
def test_I08_words_of_the_config_that_are_not_known_are_told_and_do_nothing(world: World, word: str) -> None:
    """The runtime has the last word on config.json; in a --mount the same is refused."""
    prepare(world, support.bind(world.source, "/a", "nosuid", word))
    done = call(world, "prestart", "--debug", stdin=state(world))
    assert (done.returncode, "is not known to the hook; the runtime decides" in done.stderr) == (0, True), done.stderr
    found = options(world, "/a")
    assert {"rw", "nosuid"} <= found
    assert not {"noexec", "nodev", "ro"} & found


def test_I08_remount_makes_no_new_bind(world: World) -> None:
    prepare(world, support.bind(world.source, "/a", "remount", "ro"))
    lands(world, at=[], dry=False)


def test_I08_a_shared_bind_takes_part_in_nothing_it_was_not_part_of(world: World) -> None:
    prepare(world, support.bind(world.source, "/a", "shared"))
    lands(world, at=["/a"], dry=False)


SOURCES = ["fifo", "socket", "null", "block", "file"]


@pytest.mark.parametrize("kind", SOURCES)
def test_I09_a_source_is_bound_and_never_opened(world: World, kind: str) -> None:
    prepare(world)
    source = world.path / kind
    if kind == "fifo":
        os.mkfifo(source)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(os.path.relpath(source))
    elif kind == "file":
        source.write_text("x")
    else:
        os.mknod(source, 0o600 | (0o020000 if kind == "null" else 0o060000), os.makedev(1, 3 if kind == "null" else 0))
    words = ["--mount", f"src={source},dst=/new", "--mount", f"src={source},dst=/etc/passwd"]
    lands(world, *words, at=["/new", "/etc/passwd"], check=lambda: os.path.samefile(source, f"{world.rootfs}/new"))
    refused(world, "--mount", f"src={source},dst=/etc", code=78, says="is a folder", dry=False)


def test_I09_a_source_that_is_not_there_or_does_not_fit(world: World) -> None:
    prepare(world, support.bind("absent", "/a"))
    refused(world, code=66)
    prepare_again(world)
    refused(world, "--mount", "src=/absent,dst=/a", code=66)
    refused(world, "--mount", "src=relative,dst=/a", code=78, dry=False)
    refused(world, *mount(world, "/etc/passwd"), code=78, says="/etc/passwd is a file")
    refused(world, "--mount", f"src={world.file}/below,dst=/a", code=66, dry=False)
    plant(world, {"/loop": "loop"})
    refused(world, "--mount", f"src={world.rootfs}/loop,dst=/a", code=66, dry=False)


def test_I09_a_relative_source_of_the_config_is_in_the_bundle(world: World) -> None:
    prepare(world, support.bind("../source", "/a"))
    lands(world, at=["/a"], check=lambda: os.stat(f"{world.rootfs}/a/word"))


def prepare_again(world: World) -> None:
    support.bundle(world.path / "bundle", ["true"])
