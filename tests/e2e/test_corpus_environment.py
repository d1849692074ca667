# SPDX-License-Identifier: Apache-2.0
"""The attack corpus, E: what a process inherits, from an image or from a careless runtime, decides nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from helpers import support
from helpers.corpus import fails, gone, lands, look, plant, prepare, refused, succeeds
from helpers.world import call, hands_over, mount, mounted, state
from oci_bind_hook.commands.engines.registration import HOOKS_PATH

if TYPE_CHECKING:
    from helpers.world import World

SHELL = ("sh", "-c")
BLOCK = "import os, signal, sys; signal.pthread_sigmask(0, signal.valid_signals()); os.execv(sys.argv[1], sys.argv[1:])"


def shell(script: str) -> tuple[str, ...]:
    """The command that does something before it becomes the command after it."""
    return (*SHELL, f'{script}; exec "$@"', "sh")


def poison(world: World, names: set[str]) -> Path:
    """Modules in the rootfs that tell when they are run, where Python could look; returns where they tell."""
    told = world.path / "told"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    user = f"{world.rootfs}/root/.local/lib/{version}/site-packages"
    for folder in (world.rootfs, f"{world.rootfs}/lib/{version}", f"{world.rootfs}/lib/{version}/encodings", user):
        os.makedirs(folder, exist_ok=True)
        for name in names:
            with open(f"{folder}/{name}.py", "w", encoding="utf-8") as file:
                file.write(f"open({str(told)!r}, 'a').write(__name__ + ' ')\n")
    return told


def evil_environment(world: World) -> list[str]:
    root = world.rootfs
    return [
        *(f"PYTHONPATH=.:{root}", f"PYTHONHOME={root}", f"PYTHONSTARTUP={root}/os.py", f"HOME={root}/root"),
        *("PYTHONINSPECT=1", "PYTHONWARNINGS=error::json.Evil", "PYTHONBREAKPOINT=json.x", f"PYTHONUSERBASE={root}"),
        *("PYTHONMALLOC=debug", "PYTHONVERBOSE=1", "PYTHONPLATLIBDIR=lib", "PYTHONEXECUTABLE=/evil", "LANG=xx_XX"),
    ]


def evil(world: World, *changes: str) -> tuple[str, ...]:
    return ("env", "-C", world.rootfs, *changes)


def test_E01_modules_where_the_hook_is_started_are_not_imported(world: World) -> None:
    prepare(world)
    told = poison(world, {"json", "os", "prctl", "_prctl", "ctypes", "oci_bind_hook", "sitecustomize", "jsonschema"})
    lands(world, *mount(world, "/a"), at=["/a"], before=evil(world, "PYTHONPATH=."))
    refused(world, *mount(world, "/a/../.."), code=77, before=evil(world, "PYTHONPATH=."))
    (world.path / "bundle/config.json").write_text("{}")
    refused(world, *mount(world, "/a"), code=65, before=evil(world, "PYTHONPATH=."))
    assert not told.exists()
    # They would do it, if anybody imported them.
    subprocess.run([sys.executable, "-S", "-c", "import prctl"], cwd=world.rootfs, check=True)
    assert told.read_text() == "prctl "


def test_E02_variables_for_python_are_not_read(world: World) -> None:
    prepare(world)
    told = poison(world, {*sys.stdlib_module_names, "prctl", "jsonschema", "usercustomize", "sitecustomize"})
    before = evil(world, *evil_environment(world))
    lands(world, *mount(world, "/a"), at=["/a"], before=before)
    refused(world, *mount(world, "/proc/x"), code=77, before=before)
    assert not told.exists()


@pytest.mark.parametrize("runtime", support.RUNTIMES)
@pytest.mark.parametrize("own", [[], None, ["PATH=/bin"]], ids=["empty", "none", "one"])
def test_E02_the_environment_of_the_image_in_a_real_container(
    world: World, runtime: str, own: list[str] | None
) -> None:
    prepare(world)
    told = poison(world, {*sys.stdlib_module_names, "prctl", "jsonschema", "usercustomize", "sitecustomize"})
    os.makedirs(f"{world.rootfs}/a")
    inside = [word.replace(world.rootfs, "") or "/" for word in evil_environment(world)]
    hook = world.hook("createContainer", *mount(world, "/a"))
    del hook["env"]
    hooks = {"createContainer": [hook if own is None else {**hook, "env": own}], "poststop": [world.hook("poststop")]}
    bundle = support.bundle(
        world.path / "bundle", ["cat", "/a/word"], hooks=hooks, env=[f"PATH={support.PATH}", *inside]
    )
    before = look(world)
    done = support.run_container(runtime, bundle, "c1")
    assert (done.returncode, done.stdout) == (0, "hello from the host\n"), done.stderr
    assert not told.exists()
    assert look(world) == before


@pytest.mark.parametrize("runtime", support.RUNTIMES)
@pytest.mark.parametrize("own", [None, [], ["PATH=/bin"]], ids=["none", "empty", "one"])
def test_E02_a_variable_that_leads_to_a_python_library_in_the_image(
    world: World, runtime: str, own: list[str] | None
) -> None:
    """``python -I`` looks for its library beside PYTHONEXECUTABLE. Only an env of the hook's own keeps it away."""
    prepare(world)
    told = world.path / "told"
    library = f"/lib/python{sys.version_info.major}.{sys.version_info.minor}"
    plant(world, {"/bin/python3": "busybox", f"{library}/encodings": None})
    # So early in Python's life there is no open() yet.
    script = f"import posix\nposix.mkdir({str(told)!r})\n"
    for name in ("os.py", "encodings/__init__.py"):
        Path(world.rootfs + library, name).write_text(script)
    evil_word = "PYTHONEXECUTABLE=/proc/self/cwd/bin/python3"
    hook = world.hook("createContainer", *mount(world, "/data"))
    hook = {**hook, "env": own} if own is not None else {key: hook[key] for key in ("path", "args")}
    hooks = {"createContainer": [hook], "poststop": [world.hook("poststop")]}
    env = [f"PATH={support.PATH}", evil_word]
    bundle = support.bundle(world.path / "bundle", ["cat", "/data/word"], hooks=hooks, env=env)
    dry = subprocess.run([world.launcher, "--dry-run", "--bundle", bundle], capture_output=True, text=True, check=False)
    told_of_it = "/createContainer/0/env: missing or empty" in dry.stdout
    assert (dry.returncode, told_of_it) == ((0, False) if own else (78, True))
    done = support.run_container(runtime, bundle, "c1")
    if own is not None or not hands_over(runtime):
        assert (done.returncode, done.stdout) == (0, "hello from the host\n"), done.stderr
        assert not told.exists()
    else:
        assert told.exists()
        told.rmdir()
    # The value leads there, whichever runtime hands it over.
    call(world, "--version", stdin="", before=evil(world, evil_word))
    assert told.exists()


@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_E03_as_it_is_registered_the_linker_sees_nothing_of_the_image(world: World, runtime: str) -> None:
    prepare(world)
    registration = json.loads((Path(world.launcher).parents[3] / HOOKS_PATH / "oci-bind-hook.json").read_text())["hook"]
    assert registration["env"]
    told = world.path / "linker"
    told.mkdir()
    words = ["oci-bind-hook", "createContainer", *mount(world, "/data"), *world.root_option()]
    evil_words = ["LD_DEBUG=files", f"LD_DEBUG_OUTPUT={told}/log", "LD_PRELOAD=/proc/self/cwd/poc.so"]
    hooks = {"createContainer": [{**registration, "args": words}], "poststop": [world.hook("poststop")]}
    bundle = support.bundle(world.path / "bundle", ["/bin/cat", "/data/word"], hooks=hooks, env=evil_words)
    done = support.run_container(runtime, bundle, "c1")
    assert (done.returncode, done.stdout) == (0, "hello from the host\n"), done.stderr
    assert "poc.so" not in "".join(file.read_text() for file in told.iterdir())
    # The linker would tell, if it were asked.
    call(world, "--version", stdin="", before=("env", *evil_words))
    assert "poc.so" in "".join(file.read_text() for file in told.iterdir())


def test_E04_no_command_is_looked_for(world: World) -> None:
    prepare(world)
    fake = world.path / "fake"
    fake.mkdir()
    told = world.path / "told"
    for name in (
        "mount",
        "umount",
        "nsenter",
        "fusermount",
        "fusermount3",
        "python3",
        "env",
        "sh",
        "ldconfig",
        "newuidmap",
    ):
        (fake / name).write_text(f"#!/bin/sh\necho {name} >> {told}\n")
        (fake / name).chmod(0o755)
    before = ("env", f"PATH={fake}")
    lands(world, *mount(world, "/a"), at=["/a"], before=before)
    succeeds(call(world, "prestart", *mount(world, "/a"), stdin=state(world), before=before))
    succeeds(call(world, "poststop", stdin=state(world, status="stopped"), before=before))
    refused(world, *mount(world, "/sys/x"), code=77, before=before)
    assert not told.exists()


def test_E05_variables_are_no_configuration(world: World) -> None:
    outside = prepare(world)
    subprocess.run(["mount", "-t", "tmpfs", "run", "/run"], check=True)
    names = [f"OCI_BIND_HOOK_{name}" for name in ("ROOT", "LOG", "DEBUG", "MOUNT", "CONFIG")]
    variables = [f"{name}={outside}/secret" for name in (*names, "XDG_RUNTIME_DIR", "TMPDIR", "LOG", "ROOT")]
    untouched = look(world)
    command = ["env", *variables, world.launcher, "prestart", *mount(world, "/a")]
    done = subprocess.run(command, input=state(world), capture_output=True, text=True, timeout=60, check=False)
    succeeds(done)
    assert mounted(world) == ["/a"]
    assert support.records("/run/oci-bind-hook") == ["c1.json"]
    assert look(world)["outside"] == untouched["outside"]
    command = ["env", *variables, world.launcher, "poststop"]
    stopped = state(world, status="stopped")
    done = subprocess.run(command, input=stopped, capture_output=True, text=True, timeout=60, check=False)
    succeeds(done)
    assert look(world) == untouched


INHERITED = {
    "folders of the host": "exec 3</ 4</etc 5<. 9</root",
    "a file to write": "exec 3>>OUTSIDE 4<>OUTSIDE",
    "no stdout": "exec >&-",
    "no stderr": "exec 2>&-",
    "neither": "exec >&- 2>&-",
    "nothing of both, and folders": "exec >&- 2>&- 3</ 4</etc",
}


@pytest.mark.parametrize("case", INHERITED)
def test_E06_open_and_closed_files_that_are_inherited(world: World, case: str) -> None:
    outside = prepare(world)
    before = shell(INHERITED[case].replace("OUTSIDE", f"{outside}/secret"))
    lands(world, *mount(world, "/a"), at=["/a"], before=before, dry=False)
    untouched = look(world)
    done = call(world, "prestart", *mount(world, "/.."), stdin=state(world), before=before)
    assert (done.returncode, done.stdout) == (77, "")
    assert done.stderr.count("\n") == ("2>&-" not in before[2])
    assert look(world) == untouched


@pytest.mark.parametrize("close", ["<&-", "<&- >&- 2>&-"])
def test_E06_without_stdin_there_is_no_state(world: World, close: str) -> None:
    prepare(world)
    untouched = look(world)
    done = call(world, "prestart", *mount(world, "/a"), stdin="", before=shell(f"exec {close}"))
    assert (done.returncode, done.stdout) == (65, "")
    assert done.stderr.count("\n") == (close == "<&-")
    assert look(world) == untouched


@pytest.mark.parametrize("mask", ["0", "0777", "077"])
def test_E08_modes_do_not_depend_on_the_umask(world: World, mask: str) -> None:
    prepare(world)
    world.state.rmdir()
    before = shell(f"umask {mask}")
    words = [*mount(world, "/new/a"), "--mount", f"src={world.file},dst=/new/b"]
    # Below what is mounted the mount points themselves are seen from a copy of the mount.
    succeeds(call(world, "prestart", *words, stdin=state(world), before=before))
    assert world.state.stat().st_mode & 0o7777 == 0o700
    assert (world.state / "c1.json").stat().st_mode & 0o7777 == 0o600
    assert os.stat(f"{world.rootfs}/new").st_mode & 0o7777 == 0o755
    for line in reversed(mounted(world)):
        subprocess.run(["umount", world.rootfs + line], check=True)
    assert os.stat(f"{world.rootfs}/new/a").st_mode & 0o7777 == 0o755
    assert os.stat(f"{world.rootfs}/new/b").st_mode & 0o7777 == 0o644
    succeeds(call(world, "poststop", stdin=state(world, status="stopped"), before=before))
    assert not os.path.exists(f"{world.rootfs}/new")
    assert support.records(world.state) == []


def test_E08_a_soft_limit_of_open_files_is_no_limit(world: World) -> None:
    prepare(world)
    lands(world, *mount(world, "/a", "/b/c"), at=["/a", "/b/c"], before=("prlimit", "--nofile=8:"))


@pytest.mark.parametrize("limit", [4, 5, 6, 7, 8, 10, 12, 14, 16, 69, 72])
def test_E08_too_few_open_files_change_nothing(world: World, limit: int) -> None:
    prepare(world)
    untouched = look(world)
    before = ("prlimit", f"--nofile={limit}:{limit}")
    done = call(world, "prestart", *mount(world, "/a", "/b/c"), stdin=state(world), before=before)
    if limit < 10:  # what is refused first depends on how many Python itself has open
        assert done.returncode in (69, 71, 74)
        fails(done, done.returncode)
        assert "Too many open files" in done.stderr or f"more than {limit} open files" in done.stderr
        assert "move the file" not in done.stderr
    else:
        fails(done, 69, f"need more than {limit} open files, the current limit (raise the hard limit RLIMIT_NOFILE")
    assert look(world) == untouched


def test_E08_so_many_open_files_are_enough(world: World) -> None:
    prepare(world)
    lands(world, *mount(world, "/a", "/b/c"), at=["/a", "/b/c"], before=("prlimit", "--nofile=73:73"))


def test_E08_where_nothing_can_be_written_nothing_is_mounted(world: World) -> None:
    prepare(world)
    refused(world, *mount(world, "/a"), code=74, before=("prlimit", "--fsize=0"), dry=False)


@pytest.mark.parametrize("how", ["blocked", "ignored"])
def test_E08_signals_that_are_blocked_or_ignored(world: World, how: str) -> None:
    prepare(world)
    ignore = shell("trap '' PIPE CHLD HUP INT TERM XFSZ USR1")
    before = (sys.executable, "-c", BLOCK) if how == "blocked" else ignore
    lands(world, *mount(world, "/a"), at=["/a"], before=before)
    refused(world, *mount(world, "/.."), code=77, before=before)


ODD = "\x1b[2J\n\u202e\u2066\x07\r"


def test_E09_names_of_the_image_move_no_cursor(world: World) -> None:
    key = "io.github.oci-bind-hook.mount.a"
    prepare(world, annotations={key: f"src=/absent{ODD},dst=/x{ODD}"})
    plant(world, {"/link": f"file{ODD}", "/fine": f"odd{ODD}"})
    os.link(world.file, f"{world.rootfs}/file{ODD}")
    log = world.path / "log"
    words = ["--log", str(log), "--log-format"]
    allow = ["--allow-annotations", "--allow-source=/"]
    for text in ("text", "json"):
        done = call(world, "prestart", *mount(world, "/link"), *words, text, stdin=state(world))
        fails(done, 78, r"\x1b")
        done = call(world, "prestart", *allow, *words, text, stdin=state(world))
        fails(done, 66, r"\x1b")
    untouched = look(world)
    succeeds(call(world, "prestart", *mount(world, "/fine"), *words, "text", stdin=state(world)))
    assert all(line.isprintable() for line in log.read_text().split("\n"))
    shown = call(world, "poststop", "--dry-run", stdin=state(world, status="stopped"))
    assert all(line.isprintable() for line in shown.stdout.split("\n"))
    succeeds(call(world, "poststop", stdin=state(world, status="stopped")))
    for arguments in (mount(world, "/link"), mount(world, "/fine"), allow):
        shown = call(world, "prestart", "--dry-run", *arguments, stdin=state(world))
        assert r"\x1b" in shown.stdout
        assert all(line.isprintable() for line in shown.stdout.split("\n"))
    assert look(world)["rootfs"] == untouched["rootfs"]
    gone(world, look(world))
