# SPDX-License-Identifier: Apache-2.0
"""How long the hook takes, told in ratios that hold on other machines, too. Run by tests/bench.

Every round runs each command once, and the unit, a bare ``python3 -I -S -c pass``, between them: what is told is the
median of the ratios to the units beside it, so that a machine which is busy now and then changes little.
"""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING

from helpers import configs, support
from helpers.running import init, without_admin
from oci_bind_hook.commands.engines.install import install
from oci_bind_hook.commands.engines.wrapper_file import Wrapper
from oci_bind_hook.documents import acceptor, judge, strictjson

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

COUNTS = (1, 10, 100, 1000)
OWN = (5, 50, 500)
ROUNDS = 15
UNIT = [sys.executable, "-I", "-S", "-c", "pass"]

# What a set-up does before its own work begins, each step with all that stands above it. Nothing is undone at the end.
STEPS = {
    "Python, up to its first line": "import posix as os",
    "C modules": "import gc; gc.disable(); import _ctypes, _json, _prctl, errno, itertools",
    "modules of the hook": "from oci_bind_hook import cli; from oci_bind_hook.lifecycle import set_up",
}


def run(command: Sequence[str], stdin: str = "") -> float:
    """Runs a command to its end, which must be a good one, and returns the milliseconds that it took."""
    into, out_of = os.pipe()
    os.write(out_of, stdin.encode())
    os.close(out_of)
    null = os.open(os.devnull, os.O_WRONLY)
    actions = [(os.POSIX_SPAWN_DUP2, into, 0), (os.POSIX_SPAWN_DUP2, null, 1)]
    begun = time.perf_counter()
    child = os.posix_spawn(command[0], list(command), {"PATH": support.PATH}, file_actions=actions)
    _, status = os.waitpid(child, 0)
    took = (time.perf_counter() - begun) * 1000
    os.close(into)
    os.close(null)
    if status:
        raise SystemExit(f"{' '.join(command)[:200]}: ended with {os.waitstatus_to_exitcode(status)}")
    return took


# What a process had before execve(2) counts as its own, so that a small one must be its parent.
_TELL_MEMORY = """if True:
    import os, sys
    child = os.posix_spawn(sys.argv[1], sys.argv[1:], {})
    _, status, usage = os.wait4(child, 0)
    assert status == 0
    print(usage.ru_maxrss)
"""


def peak_memory(*command: str, stdin: str = "") -> int:
    """Runs a command to its end, which must be a good one, and returns the most memory it had, in KiB."""
    told = [*UNIT[:-1], _TELL_MEMORY, *command]
    return int(subprocess.run(told, input=stdin, stdout=subprocess.PIPE, text=True, check=True).stdout)


class Books:
    """What was measured: the ratios of each row, and the units beside them."""

    def __init__(self) -> None:
        self.ratios: dict[str, list[float]] = {}
        self.units: list[float] = []

    def measure(self, row: str, command: Sequence[str], stdin: str = "") -> None:
        """One run of a row between two of the unit."""
        before, took, after = run(UNIT), run(command, stdin), run(UNIT)
        self.units += [before, after]
        self.ratios.setdefault(row, []).append(2 * took / (before + after))

    def median(self, row: str) -> float:
        return statistics.median(self.ratios[row])

    @property
    def unit(self) -> float:
        return statistics.median(self.units)


class Bench:
    """A folder with a bundle, things to bind, the installed launcher, and a shell script that does the same."""

    def __init__(self, path: str, most: int) -> None:
        self.path = path
        self.launcher = install(f"{path}/prefix")[0]
        self.rootfs = support.busybox_rootfs(f"{path}/bundle/rootfs")
        for number in range(most):
            os.makedirs(f"{path}/sources/{number}")
            os.makedirs(f"{self.rootfs}/real/{number}")
        self.script = f"{path}/shell-hook"
        with open(self.script, "w", encoding="utf-8") as file:
            file.write("#!/bin/sh\nroot=$1\nshift\ncat >/dev/null\n")
            file.write('for n; do mount --bind -o ro "$root/sources/$n" "$root/bundle/rootfs/real/$n"; done\n')
        os.chmod(self.script, 0o755)

    def mounts(self, count: int) -> list[str]:
        """Read-only binds, in folders of the image that are there."""
        binds = (f"src={self.path}/sources/{number},dst=/real/{number},ro" for number in range(count))
        return [word for bind in binds for word in ("--mount", bind)]

    def write_config(self, **members: object) -> None:
        """config.json as podman writes it, for a container without a namespace of its own."""
        _, config = configs.config("podman-5.8.6-plain")
        config.pop("hooks", None)
        config["root"] = {"path": "rootfs"}
        config["linux"]["namespaces"] = [one for one in config["linux"]["namespaces"] if one["type"] != "mount"]
        config["mounts"] = [one for one in config["mounts"] if "bind" not in (one["type"], *one.get("options", ()))]
        with open(f"{self.path}/bundle/config.json", "w", encoding="utf-8") as file:
            json.dump({**config, **members}, file)

    def state(self, status: str) -> str:
        return json.dumps({"ociVersion": "1.0", "id": "c", "status": status, "bundle": f"{self.path}/bundle"})

    def hook(self, *arguments: str) -> list[str]:
        return [self.launcher, *arguments, "--root", f"{self.path}/state"]


def scale(bench: Bench, books: Books, rounds: int) -> None:
    """Set-up and tear-down, in the namespace we are in, where tear-down has everything to undo."""
    bench.write_config()
    for number in range(rounds):
        for count in COUNTS:
            if count == 1000 and number >= max(3, rounds // 3):
                continue
            books.measure(f"set up {count}", bench.hook("prestart", *bench.mounts(count)), bench.state("creating"))
            books.measure(f"tear down {count}", bench.hook("poststop"), bench.state("stopped"))
            if count <= 100:
                names = [str(number) for number in range(count)]
                books.measure(f"shell {count}", ["/bin/sh", bench.script, bench.path, *names])
                subprocess.run(["umount", *(f"{bench.rootfs}/real/{name}" for name in names)], check=True)
    for _ in range(max(3, rounds // 3)):
        dry = bench.hook("prestart", "--dry-run", "--bundle", f"{bench.path}/bundle", *bench.mounts(1000))
        books.measure("dry-run 1000", dry)


def runtimes_own(bench: Bench, books: Books, rounds: int) -> None:
    """One bind of ours, in a namespace where the runtime has mounted so many of its own; and what reading takes."""
    with open(bench.launcher, encoding="utf-8") as file:
        import_path = next(line for line in file.read().splitlines() if line.startswith("sys.path"))
    reading = f"{STEPS['modules of the hook']}; from oci_bind_hook.documents.bundle import Bundle"
    bundle = f"{bench.path}/bundle"
    program = ["import sys; sys.dont_write_bytecode = True", import_path, *STEPS.values(), reading]
    program += [f"assert Bundle({bundle!r}, None).violations == []", "os._exit(0)"]
    for count in OWN:
        places = [f"{bench.rootfs}/real/{number}" for number in range(count)]
        bench.write_config(
            mounts=[support.bind(f"{bench.path}/sources/{number}", f"/real/{number}") for number in range(count)],
            linux={"namespaces": [{"type": "mount"}]},
        )
        script = f'for place; do mount --bind {bench.path}/sources/0 "$place"; done; echo; read end'
        command = ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", *places]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as init:
            assert init.stdout is not None
            init.stdout.readline()
            creating = json.dumps({**json.loads(bench.state("creating")), "pid": init.pid})
            for _ in range(rounds):
                set_up = bench.hook("createRuntime", "--mount", f"src={bench.path}/sources/0,dst=/mnt")
                books.measure(f"beside {count}", set_up, creating)
                books.measure(f"read {count}", [*UNIT[:-1], "\n".join(program)])
                os.unlink(f"{bench.path}/state/c.json")
                subprocess.run(["nsenter", "-m", "-t", str(init.pid), "umount", f"{bench.rootfs}/mnt"], check=True)


def containers(bench: Bench, books: Books, rounds: int) -> None:
    """A whole container that ends at once, without the hook and with it."""
    rows = {}
    for runtime in support.RUNTIMES:
        for hooked in (False, True):
            path = f"{bench.path}/{runtime}-{hooked}"
            hook = {"path": bench.launcher, "env": ["PATH=/usr/bin:/bin"]}
            hooks = {
                "createRuntime": [hook | {"args": bench.hook("createRuntime", *bench.mounts(10))}],
                "poststop": [hook | {"args": bench.hook("poststop")}],
            }
            support.bundle(path, ["/bin/true"], rootfs=bench.rootfs, hooks=hooks if hooked else {})
            program = f"/usr/sbin/{runtime}" if os.path.exists(f"/usr/sbin/{runtime}") else f"/usr/bin/{runtime}"
            command = [program, "--root", f"{bench.path}/{runtime}", "run", "--bundle", path, f"b{hooked}"]
            rows[f"{runtime} run{' with the hook' if hooked else ''}"] = command
    for _ in range(rounds):
        for row, command in rows.items():
            books.measure(row, command)


def wrapper(bench: Bench, books: Books, rounds: int) -> None:
    """What a wrapper adds to a start of a container, and to any other command: its runtime does nothing at all."""
    wrapped = Wrapper("bench", f"{bench.path}/prefix", "/bin/true")
    _, path = install(f"{bench.path}/prefix", (), bench.mounts(10), instead=wrapped)
    for _ in range(rounds):
        bench.write_config()
        books.measure("wrapper at create", [path, "create", "--bundle", f"{bench.path}/bundle", "c"])
        books.measure("wrapper at state", [path, "state", "c"])
        books.measure("true", ["/bin/true"])


def running(bench: Bench, books: Books, rounds: int) -> None:
    """One bind into a container that runs, found by its recorded id, and out of it."""
    support.bundle(f"{bench.path}/running", ["true"], rootfs=bench.rootfs)
    without_admin(f"{bench.path}/running")
    pid = init(bench.rootfs)
    spec = ["--mount", f"src={bench.path}/sources/0,dst=/real/0,ro"]
    known = ["--bundle", f"{bench.path}/running", "--pid", str(pid)]
    run(bench.hook("attach", "r", *known, "--mount", f"src={bench.path}/sources/1,dst=/real/1"))
    for _ in range(rounds):
        books.measure("attach 1", bench.hook("attach", "r", *spec))
        books.measure("detach 1", bench.hook("detach", "r", "/real/0"))
    run(bench.hook("detach", "r", "--all"))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    run(bench.hook("gc"))


def steps(bench: Bench) -> dict[str, list[str]]:
    """Python's arguments to go so far as a set-up has come when its own work begins, step by step."""
    with open(bench.launcher, encoding="utf-8") as file:
        text = file.read()
    program = [next(line for line in text.splitlines() if line.startswith("sys.path"))]
    program.insert(0, "import sys; sys.dont_write_bytecode = True")
    found = {}
    for step, line in STEPS.items():
        program.append(line)
        found[step] = [*UNIT[1:-1], "\n".join([*program, "os._exit(0)"])]
    found["to import jsonschema"] = [*UNIT[1:-1], "\n".join([*program[:2], "import jsonschema"])]
    return found


def best_of(times: int, work: Callable[..., object], *arguments: object) -> float:
    """The shortest time, in milliseconds, that some work took in this process."""
    took = []
    for _ in range(times):
        begun = time.perf_counter()
        work(*arguments)
        took.append(time.perf_counter() - begun)
    return min(took) * 1000


def validation(bench: Bench) -> list[tuple[str, float, float]]:
    """A small and a large config.json: milliseconds by the acceptor and by jsonschema, imports left out."""
    rows = []
    many = [{"destination": f"/d/{n}", "source": "/s", "type": "bind", "options": ["rbind", "ro"]} for n in range(1000)]
    for name, members in (("podman's config.json", {}), ("the same with 1000 mounts", {"mounts": many})):
        bench.write_config(**members)
        with open(f"{bench.path}/bundle/config.json", "rb") as file:
            data = file.read()
        [document] = strictjson.documents(data, name)
        quick = acceptor.Acceptor(acceptor.schema)
        taken = best_of(20, quick.accepts, document, f"{acceptor.ADDRESS}config-used")
        rows.append((name, taken, best_of(3, judge.violations, document, "config-used")))
    return rows


def count_instructions(command: Sequence[str], stdin: str = "") -> int:
    """The user instructions that a command executes, valgrind(1). They differ by 0.2 % from one run to the next."""
    tool = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    done = subprocess.run([*tool, *command], input=stdin, capture_output=True, text=True, check=True)
    found = re.search(r"Collected : (\d+)", done.stderr)
    assert found is not None, done.stderr
    return int(found[1])


def instructions(python: str) -> None:
    """What ``python`` executes for the unit, to set up and to tear down 10 binds, and for what: medians of five.

    valgrind 3.19 does not know open_tree(2), so the way of kernels before Linux 5.12 is counted, which is longer.
    """
    counted: dict[str, list[int]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as path:
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", path], check=True)
        bench = Bench(path, 10)
        bench.write_config()
        up, down = bench.hook("prestart", *bench.mounts(10)), bench.hook("poststop")
        rows = [
            ("python3 -I -S -c pass", UNIT[1:], ""),
            *((step, command, "") for step, command in steps(bench).items()),
            ("set-up of 10 binds", ["-I", "-S", *up], bench.state("creating")),
            ("tear-down of 10 binds", ["-I", "-S", *down], bench.state("stopped")),
        ]
        # The first run compiles what this interpreter has not loaded yet.
        for number in range(6):
            for row, command, stdin in rows:
                count = count_instructions([python, *command], stdin)
                counted.setdefault(row, [])
                if number:
                    counted[row].append(count)
        subprocess.run(["umount", path], check=True)
    version = subprocess.run([python, "-V"], capture_output=True, text=True, check=True).stdout.strip()
    print(f"user instructions by callgrind, {version}, {platform.machine()}: medians of five\n")
    million = {row: statistics.median(counts) / 1e6 for row, counts in counted.items()}
    print("| | million |\n|---|---|")
    for row, value in million.items():
        if row not in STEPS:
            print(f"| {row} | {value:.1f} |")
    before = 0.0
    print("\n| what a set-up of 10 binds executes | million |\n|---|---|")
    for step in (*STEPS, "set-up of 10 binds"):
        print(f"| {step if step in STEPS else 'the work itself'} | {million[step] - before:.1f} |")
        before = million[step]


def main(rounds: int) -> None:
    books = Books()
    with tempfile.TemporaryDirectory(prefix="bench-") as path:
        # As /run is: in memory.
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", path], check=True)
        bench = Bench(path, max(COUNTS))
        subprocess.run(["sh", "-c", support.RuntimeNamespace.HOLD], stdin=subprocess.DEVNULL, check=True)
        for _ in range(2):
            run(UNIT)
        scale(bench, books, rounds)
        containers(bench, books, rounds)
        wrapper(bench, books, rounds)
        running(bench, books, rounds)
        runtimes_own(bench, books, rounds)
        bench.write_config()
        memory = peak_memory(*bench.hook("prestart", *bench.mounts(10)), stdin=bench.state("creating"))
        run(bench.hook("poststop"), bench.state("stopped"))
        compared = validation(bench)
        subprocess.run(["umount", path], check=True)
    print(
        f"Linux {platform.release()}, {platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    )
    print(f"the unit, python3 -I -S -c pass, takes {books.unit:.1f} ms here; medians of {rounds} rounds\n")
    print("| binds | set-up | tear-down | a shell script with mount(8) |")
    print("|---|---|---|---|")
    for count in COUNTS:
        shell = f"{books.median(f'shell {count}'):.1f}" if f"shell {count}" in books.ratios else ""
        print(
            f"| {count} | {books.median(f'set up {count}'):.2f} | {books.median(f'tear down {count}'):.2f} | {shell} |"
        )
    rows = " and ".join(f"{word} {books.median(f'{word} 1'):.2f}" for word in ("attach", "detach"))
    print(f"\none bind into a container that runs, and out of it: {rows}\n")
    for row in ("set up", "tear down"):
        for less, more in ((100, 1000), (10, 100)):
            each = (books.median(f"{row} {more}") - books.median(f"{row} {less}")) * books.unit * 1000 / (more - less)
            print(f"{row}, each bind from {less} to {more}: {each:.0f} us")
    print(f"dry-run of 1000 binds: {books.median('dry-run 1000') * books.unit / 1000:.3f} s")
    print(f"memory, set-up of 10 binds: {memory / peak_memory(*UNIT):.2f} of the unit's\n")
    print("| a whole container | units | ms |\n|---|---|---|")
    for runtime in support.RUNTIMES:
        for row in (f"{runtime} run", f"{runtime} run with the hook"):
            print(f"| `{row}` | {books.median(row):.2f} | {books.median(row) * books.unit:.1f} |")
    for command in ("create", "state"):
        added = books.median(f"wrapper at {command}") - books.median("true")
        print(f"a wrapper of `install --runtime` adds to {command}: {added:.2f} units")
    print("\n| binds of the runtime's own | set-up of one of ours | reading and validation alone |\n|---|---|---|")
    for count in OWN:
        print(f"| {count} | {books.median(f'beside {count}'):.2f} | {books.median(f'read {count}'):.2f} |")
    for row in ("beside", "read"):
        slope = (books.median(f"{row} {OWN[-1]}") - books.median(f"{row} {OWN[0]}")) / (OWN[-1] - OWN[0])
        print(f"{row}, each of the runtime's binds: {slope * books.unit * 1000:.0f} us")
    print("\n| validation | acceptor | jsonschema |\n|---|---|---|")
    for name, quick, judged in compared:
        print(f"| {name} | {quick:.2f} ms | {judged:.1f} ms |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--instructions"]:
        instructions(*sys.argv[2:] or [sys.executable])
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
