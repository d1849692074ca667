# SPDX-License-Identifier: Apache-2.0
"""A runtime around another, as `install --runtime` writes it: under runc and crun, and what it hands through."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from helpers import support
from helpers.podman import Podman
from oci_bind_hook.commands.engines.install import install
from oci_bind_hook.commands.engines.uninstall import uninstall
from oci_bind_hook.commands.engines.wrapper_file import Wrapper
from oci_bind_hook.wrapper import bundle_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from helpers.world import World

# What a runtime is told that only shows how it was called.
PROBE = """\
#!/bin/sh
printf '%s\\n' "$@" > "{out}/words"
cat /proc/$$/status > "{out}/status"
echo $$ > "{out}/pid"
cat "/proc/self/fd/$PASSED" > "{out}/passed"
env > "{out}/env"
"""


# What asks for help, behind the command.
ASKING = ("--help", "-h", "-help", "--h", "--hel", "-?", "--usage")
ASKED = [f"{command} {word}" for command in ("create", "run", "restore") for word in ASKING]


class Wrapped:
    """A wrapper, installed below a folder of its own, around a runtime."""

    def __init__(self, world: World, runtime: str, *annotations: str, options: Sequence[str] = ()) -> None:
        self.world = world
        self.prefix = str(world.path / "prefix")
        words = ["--mount", f"src={world.source},dst=/absolute/models,ro", *world.root_option(), *options]
        self.wrapper = Wrapper("bind", self.prefix, runtime, annotations)
        self.launcher, self.path = install(self.prefix, (), words, instead=self.wrapper)

    def run(self, *words: str, **settings: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run([self.path, *words], capture_output=True, text=True, timeout=60, check=False, **settings)


def which(runtime: str) -> str:
    path = shutil.which(runtime)
    assert path is not None
    return path


def config(world: World) -> dict[str, Any]:
    return dict(json.loads((world.path / "bundle/config.json").read_text()))


@pytest.fixture
def probe(world: World) -> Path:
    """A runtime that tells how it was called."""
    path = world.path / "probe"
    path.write_text(PROBE.format(out=world.path))
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_a_container_gets_the_bind_and_leaves_nothing(world: World, runtime: str) -> None:
    support.bundle(world.path / "bundle", ["sh", "-c", "cat /real/models/word; touch /real/models/x"])
    before = world.snapshot()
    wrapped = Wrapped(world, which(runtime))
    with support.RuntimeNamespace(runtime) as namespace:
        namespace.runtime = wrapped.path
        for container in ("first", "again"):
            done = namespace.run_container(str(world.path / "bundle"), container)
            assert done.stdout == "hello from the host\n", done
            assert "Read-only file system" in done.stderr
            assert {stage: len(entries) for stage, entries in config(world)["hooks"].items()} == {
                "createRuntime": 1,
                "poststop": 1,
            }
    assert world.snapshot() == before


@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_each_step_of_a_life(world: World, runtime: str) -> None:
    """As containerd and conmon start one: in steps, from another folder, with the options that they give."""
    support.bundle(world.path / "bundle", ["sleep", "1000"])
    wrapped = Wrapped(world, which(runtime))
    with support.RuntimeNamespace(runtime) as namespace:
        namespace.runtime = wrapped.path
        log = ("--log", f"{world.path}/log", "--log-format", "json")
        pid = ("--pid-file", f"{world.path}/pid")
        assert namespace.call(*log, "create", "--bundle", f"{world.path}/bundle", *pid, "c1").returncode == 0
        assert namespace.start("c1").returncode == 0
        assert namespace.execute("c1", "cat", "/real/models/word").stdout == "hello from the host\n"
        assert int((world.path / "pid").read_text()) == namespace.state("c1")["pid"]
        assert namespace.stop("c1").returncode == 0
    assert support.records(world.state) == []


@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_the_sentence_of_a_missing_source_is_the_hooks(world: World, runtime: str) -> None:
    shutil.rmtree(world.source)
    support.bundle(world.path / "bundle", ["true"])
    wrapped = Wrapped(world, which(runtime))
    with support.RuntimeNamespace(runtime) as namespace:
        namespace.runtime = wrapped.path
        done = namespace.run_container(str(world.path / "bundle"), "c1")
    assert done.returncode != 0
    if runtime == "runc":
        assert f"source {world.source} cannot be opened" in done.stderr


@pytest.mark.parametrize("way", ["option", "variable"])
@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_a_container_gets_an_open_file_and_gives_its_exit_code(world: World, runtime: str, way: str) -> None:
    """By --preserve-fds, and by LISTEN_FDS as from systemd."""
    support.bundle(world.path / "bundle", ["sh", "-c", "cat <&3; cat /real/models/word; exit 7"])
    wrapped = Wrapped(world, which(runtime))
    caller = world.path / "caller"
    variables = "LISTEN_FDS=1 LISTEN_PID=$$; export LISTEN_FDS LISTEN_PID" if way == "variable" else ":"
    caller.write_text(f'#!/bin/sh\n{variables}\nexec 3<"{world.file}"\nexec {wrapped.path} "$@"\n')
    caller.chmod(0o755)
    words = ["--preserve-fds", "1"] if way == "option" else []
    with support.RuntimeNamespace(runtime) as namespace:
        namespace.runtime = str(caller)
        done = namespace.call("run", *words, "-b", f"{world.path}/bundle", "c1")
    assert (done.returncode, done.stdout) == (7, "one file\nhello from the host\n"), done


def test_podman_takes_it_by_its_path(tmp_path: Path, world: World) -> None:
    (tmp_path / "podman").mkdir()
    podman = Podman(tmp_path / "podman")
    wrapped = Wrapped(world, which("crun"))
    done = podman.run([], "cat", "/real/models/word", runtime=wrapped.path)
    assert (done.returncode, done.stdout) == (0, "hello from the host\n"), done
    assert support.records(world.state) == []


@pytest.mark.parametrize(
    "words",
    [
        ["state", "c1"],
        ["--root", "/run/create", "delete", "--force", "create"],
        ["--log", "create", "--log-format=json", "exec", "c1", "run", "a b", "", "*", "$HOME", "'", "\\"],
        ["--version"],
        [],
        ["features"],
        ["--root", "run", "kill", "run", "KILL"],
    ],
    ids=" ".join,
)
def test_all_other_commands_go_through(world: World, probe: Path, words: list[str]) -> None:
    """Whatever is broken: config.json is, and so is the package."""
    wrapped = Wrapped(world, str(probe))
    text = Path(wrapped.path).read_text()
    Path(wrapped.path).write_text(text.replace("oci_bind_hook.wrapper", "oci_bind_hook.broken"))
    with open(world.file, "rb") as file:
        env = {"word": "a", "LISTEN_FDS": "5", "PASSED": str(file.fileno())}
        done = wrapped.run(*words, pass_fds=(file.fileno(),), env=env, cwd=world.path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (world.path / "words").read_text() == "".join(f"{word}\n" for word in words or [""])
    assert (world.path / "passed").read_text() == "one file\n"
    lines = (world.path / "env").read_text().split("\n")
    assert {"word=a", "LISTEN_FDS=5"} <= {*lines}
    assert not [line for line in lines if line.startswith("obh_")]


@pytest.mark.parametrize("ignored", [False, True], ids=["default", "ignored"])
def test_a_start_keeps_words_fds_pid_and_signals(world: World, probe: Path, *, ignored: bool) -> None:
    support.bundle(world.path / "bundle", ["true"])
    wrapped = Wrapped(world, str(probe))
    words = ["--unknown", "value", "--root=/x", "create", "--bundle", "bundle", "--preserve-fds", "5", "a b", ""]

    def before() -> None:
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN if ignored else signal.SIG_DFL)

    with open(world.file, "rb") as file:
        env, passed = {"PASSED": str(file.fileno())}, (file.fileno(),)
        started = subprocess.Popen([wrapped.path, *words], pass_fds=passed, env=env, cwd=world.path, preexec_fn=before)
        assert started.wait(60) == 0
    assert (world.path / "passed").read_text() == "one file\n"
    assert (world.path / "words").read_text() == "".join(f"{word}\n" for word in words)
    assert int((world.path / "pid").read_text()) == started.pid
    found = re.search(r"SigIgn:\s*(\w+)", (world.path / "status").read_text())
    assert found is not None
    mask = int(found[1], 16)
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
        assert bool(mask & 1 << (number - 1)) is ignored
    assert list(config(world)["hooks"]) == ["createRuntime", "poststop"]


@pytest.mark.parametrize(
    ("words", "bundle"),
    [
        (["--bundle", "/b", "c1"], "/b"),
        (["--bundle=/b", "c1"], "/b"),
        (["-b", "/b", "c1"], "/b"),
        (["-b=/b", "c1"], "/b"),
        (["-b/b", "c1"], "/b"),
        (["-bundle", "/b", "c1"], "/b"),
        (["-bundle=/b", "c1"], "/b"),
        (["--pid-file", "--bundle", "--bundle", "/b", "c1"], "/b"),
        (["--console-socket=-b", "-b", "/b"], "/b"),
        (["--b", "/b", "c1"], "/b"),
        (["--bun=/b", "c1"], "/b"),
        (["--pid", "--bundle", "-b", "/b", "pid-file", "c1"], "/b"),
        (["-pid-file", "-b", "-b", "/b", "c1"], "/b"),
        (["pid-file", "-b", "/b"], "/b"),
        (["--bundle", "/a", "--bundle", "/b", "c1"], "/b"),
        (["c1", "--bundle", "/b"], "/b"),
        (["c1"], "."),
        (["--", "--bundle", "/b"], "."),
        (["--no-pivot", "-d", "--detach", "-b", "/b=c", "c1"], "/b=c"),
        (["-db", "/b", "c1"], "/b"),
        (["-ddb/b", "c1"], "/b"),
        (["-db=b", "c1"], "=b"),
        (["--unknown", "--help", "-b", "/b"], "/b"),
        (["--pid-file", "--help", "--help=false", "-b", "/b"], "/b"),
        (["-b", "-h", "c1"], "-h"),
        (["help"], "."),
        (["--", "--help"], "."),
        *((["-b", "/b", *options, word], None) for word in ASKING for options in ([], ["-d"], ["--no-pivot", "c1"])),
        *(([word, "-b", "/b"], None) for word in ASKING),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_the_bundle_is_found_in_all_spellings(words: list[str], bundle: str | None) -> None:
    """As runc 1.1 and crun 1.8 take them; None where they only show their help."""
    assert bundle_of(words) == bundle


SPELLINGS = {
    "runc": ["-b bundle", "-b=bundle", "-bundle bundle", "--bundle bundle", "--b=bundle"],
    "crun": ["-b bundle", "-bbundle", "-db bundle", "-dbbundle", "--bundle=bundle", "--b bundle", "--bun=bundle"],
}


@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_runtimes_take_these_spellings(world: World, runtime: str) -> None:
    """Each gives the container its bind: so both sides have read the same."""
    support.bundle(world.path / "bundle", ["sleep", "1000"])
    wrapped = Wrapped(world, which(runtime))
    plain = (world.path / "bundle/config.json").read_bytes()
    with support.RuntimeNamespace(runtime) as namespace:
        caller = world.path / "caller"
        caller.write_text(f'#!/bin/sh\ncd "{world.path}"\nexec {wrapped.path} "$@"\n')
        caller.chmod(0o755)
        namespace.runtime = str(caller)
        for spelling in SPELLINGS[runtime]:
            (world.path / "bundle/config.json").write_bytes(plain)
            words = spelling.split()
            done = namespace.call("run", "-d", *words, "c1")
            assert done.returncode == 0, (spelling, done)
            assert namespace.execute("c1", "cat", "/real/models/word").stdout == "hello from the host\n", spelling
            assert namespace.stop("c1").returncode == 0
        assert support.records(world.state) == []


@pytest.mark.parametrize("word", ["-b=bundle", "-bundle"])
def test_a_word_that_runtimes_read_otherwise_starts_nothing(world: World, probe: Path, word: str) -> None:
    support.bundle(world.path / "bundle", ["true"])
    wrapped = Wrapped(world, str(probe))
    (world.path / word[2:]).mkdir()
    done = wrapped.run("create", word, *(["bundle"] if word == "-bundle" else []), "c1", cwd=world.path)
    assert (done.returncode, "use --bundle" in done.stderr) == (69, True), done
    assert not (world.path / "words").exists()


@pytest.mark.parametrize("words", [*ASKED, *(f"{word} run c1" for word in ("--help", "-h", "--version", "-help"))])
def test_who_asks_for_help_changes_no_bundle(world: World, probe: Path, words: str) -> None:
    support.bundle(world.path / "bundle", ["true"])
    before = (world.path / "bundle/config.json").read_bytes()
    assert Wrapped(world, str(probe)).run(*words.split(), cwd=world.path / "bundle").returncode == 0
    assert (world.path / "bundle/config.json").read_bytes() == before
    assert (world.path / "words").read_text().split() == words.split()


def test_a_kept_bundle_gets_what_is_registered_now(world: World, probe: Path) -> None:
    support.bundle(world.path / "bundle", ["true"], annotations={"org.example/bind": "yes"})
    own = {"path": "/bin/true", "env": ["PATH=/bin"]}
    path = world.path / "bundle/config.json"
    path.write_text(json.dumps({**config(world), "hooks": {"createRuntime": [own]}}))

    def run(*annotations: str, options: Sequence[str]) -> dict[str, list[list[str]]]:
        wrapped = Wrapped(world, str(probe), *annotations, options=options)
        assert wrapped.run("create", "-b", f"{world.path}/bundle", "c1").returncode == 0
        hooks: dict[str, list[dict[str, Any]]] = config(world)["hooks"]
        assert hooks["createRuntime"][0] == own
        return {stage: [entry["args"][-1:] for entry in entries if entry != own] for stage, entries in hooks.items()}

    assert run(options=["--debug"]) == {"createRuntime": [["--debug"]], "poststop": [["--debug"]]}
    log = f"--log={world.path}/log"
    assert run("org.example/bind=yes", options=[log]) == {"createRuntime": [[log]], "poststop": [[log]]}
    assert run("org.example/bind=no", options=[log]) == {"createRuntime": [], "poststop": []}


@pytest.mark.parametrize("command", ["create", "run", "restore"])
def test_the_current_folder_is_the_bundle_where_none_is_named(world: World, probe: Path, command: str) -> None:
    support.bundle(world.path / "bundle", ["true"])
    assert Wrapped(world, str(probe)).run(command, "c1", cwd=world.path / "bundle").returncode == 0
    assert list(config(world)["hooks"]) == ["createRuntime", "poststop"]


@pytest.mark.parametrize(
    ("annotations", "has"),
    [({"org.example/bind": "yes"}, True), ({"org.example/bind": "no"}, False), ({}, False), (None, False)],
    ids=["it is there", "another value", "none", "no member"],
)
def test_only_containers_with_the_annotation(
    world: World, probe: Path, annotations: dict[str, str] | None, *, has: bool
) -> None:
    support.bundle(world.path / "bundle", ["true"], annotations=annotations)
    before = (world.path / "bundle/config.json").read_bytes()
    wrapped = Wrapped(world, str(probe), "org.example/bind=yes")
    assert wrapped.run("create", "-b", f"{world.path}/bundle", "c1").returncode == 0
    assert ("hooks" in config(world)) is has
    assert ((world.path / "bundle/config.json").read_bytes() == before) is not has


def test_what_was_there_stays_as_it_is_written(world: World, probe: Path) -> None:
    """Numbers and strings that another writer would change, the hooks of others before ours, owner and mode."""
    path = world.path / "bundle/config.json"
    path.write_text(
        '{ "hooks" : {"prestart":[{"path":"/bin/true"}], "poststop" : [ ]},\n'
        ' "a": 1.50, "b": 1E2, "c": "\\u00e9\\/", "d": 18446744073709551615, "ociVersion": "1.0.2" }\n'
    )
    os.chown(path, 1234, 4321)
    path.chmod(0o640)
    assert Wrapped(world, str(probe)).run("create", "--bundle", f"{world.path}/bundle", "c1").returncode == 0
    text = path.read_text()
    assert text.endswith('"a": 1.50, "b": 1E2, "c": "\\u00e9\\/", "d": 18446744073709551615, "ociVersion": "1.0.2" }\n')
    hooks = json.loads(text)["hooks"]
    assert {stage: len(entries) for stage, entries in hooks.items()} == {
        "createRuntime": 1,
        "prestart": 1,
        "poststop": 1,
    }
    assert hooks["createRuntime"] == hooks["poststop"]
    status = path.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1234, 4321, 0o640)
    assert sorted(os.listdir(path.parent)) == ["config.json", "rootfs"]


def test_a_link_is_replaced_and_what_it_leads_to_stays(world: World, probe: Path) -> None:
    support.bundle(world.path / "bundle", ["true"])
    path, other = world.path / "bundle/config.json", world.path / "other.json"
    path.rename(other)
    path.symlink_to(other)
    before = other.read_bytes()
    assert Wrapped(world, str(probe)).run("create", "--bundle", f"{world.path}/bundle", "c1").returncode == 0
    assert other.read_bytes() == before
    assert not path.is_symlink()
    assert "hooks" in config(world)


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


TROUBLES: dict[str, tuple[Callable[[Path], object], int, str]] = {
    "no config.json": (lambda path: path.unlink(), 66, "config.json cannot be opened: No such file or directory"),
    "not JSON": (lambda path: path.write_text("{"), 65, "config.json: "),
    "no object": (lambda path: path.write_text("[]"), 65, "config.json: is not an object"),
    "hooks that are none": (lambda path: path.write_text('{"hooks":[]}'), 65, "config.json: /hooks: is not an object"),
    "a stage that is none": (
        lambda path: path.write_text('{"hooks":{"poststop":{}}}'),
        65,
        "config.json: /hooks/poststop: is not an array",
    ),
    "hooks of another case": (
        lambda path: path.write_text('{"HOOKS":null}'),
        65,
        'config.json: /HOOKS: some runtimes read this as "hooks"',
    ),
    "hooks with a long s": (
        lambda path: path.write_text('{"hook\\u017f":null}', encoding="utf-8"),
        65,
        'some runtimes read this as "hooks"',
    ),
    "hooks that end with NUL for crun": (
        lambda path: path.write_text('{"hooks\\u0000x":null}'),
        65,
        'some runtimes read this as "hooks"',
    ),
    "a stage of another case": (
        lambda path: path.write_text('{"hooks":{"CreateRuntime":[]}}'),
        65,
        'config.json: /hooks/CreateRuntime: some runtimes read this as "createRuntime"',
    ),
    "a member twice": (lambda path: path.write_text('{"hooks":{},"hooks":{}}'), 65, "config.json: "),
    "a FIFO": (fifo, 66, "config.json is not a regular file"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_what_it_cannot_do_starts_no_container_and_is_in_the_log(world: World, probe: Path, trouble: str) -> None:
    support.bundle(world.path / "bundle", ["true"])
    act, code, said = TROUBLES[trouble]
    act(world.path / "bundle/config.json")
    log = world.path / "log"
    wrapped = Wrapped(world, str(probe))
    done = wrapped.run("--log", str(log), "--log-format", "json", "create", "--bundle", f"{world.path}/bundle", "c1")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1), done
    assert said in done.stderr
    assert done.stderr.endswith("; the container is not started\n")
    entry = json.loads(log.read_text())
    assert (entry["level"], f"{entry['msg']}\n") == ("error", done.stderr)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", entry["time"])
    assert not (world.path / "words").exists()


def test_without_the_package_no_container_starts(world: World, probe: Path) -> None:
    support.bundle(world.path / "bundle", ["true"])
    wrapped = Wrapped(world, str(probe))
    text = Path(wrapped.path).read_text()
    Path(wrapped.path).write_text(text.replace("oci_bind_hook.wrapper", "oci_bind_hook.broken"))
    done = wrapped.run("create", "--bundle", f"{world.path}/bundle", "c1")
    assert done.returncode == 70
    assert done.stderr.startswith("oci-bind-hook: the installation is broken: ModuleNotFoundError")
    assert done.stderr.endswith("; the container is not started\n")
    assert not (world.path / "words").exists()


def test_without_the_runtime_the_log_says_so(world: World, probe: Path) -> None:
    support.bundle(world.path / "bundle", ["true"])
    wrapped = Wrapped(world, str(probe))
    probe.unlink()
    log = world.path / "log"
    done = wrapped.run(f"--log={log}", "create", "--bundle", f"{world.path}/bundle", "c1")
    assert done.returncode == 66
    assert log.read_text() == done.stderr
    assert f"the runtime {probe} cannot be executed" in done.stderr


def test_crun_is_given_no_other_configuration(world: World, probe: Path) -> None:
    support.bundle(world.path / "bundle", ["true"])
    done = Wrapped(world, str(probe)).run("run", "--config", "other.json", "--bundle", f"{world.path}/bundle", "c1")
    assert done.returncode == 69
    assert "--config selects a file other than the bundle's config.json (omit this option)" in done.stderr


def test_it_goes_as_it_came(world: World, probe: Path) -> None:
    wrapped = Wrapped(world, str(probe))
    removed = uninstall(wrapped.prefix, instead=wrapped.wrapper)
    assert sorted(removed.paths) == sorted([wrapped.launcher, wrapped.path])
    assert not removed.kept
