# SPDX-License-Identifier: Apache-2.0
"""How long the hook takes for what is very large: sizes that grow twice take about twice. Run by tests/bench --sizes.

Tests hold the same without a clock: tests/helpers/work.py.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING

from helpers import configs, support
from oci_bind_hook.commands.engines.install import install
from oci_bind_hook.errors import REFUSED
from oci_bind_hook.record.folder import StateFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from oci_bind_hook.record.state_file import Record, RootfsRecord

ANNOTATION = "io.github.oci-bind-hook.mount.x"
TEXTS = {"commas": ",", "quotes": '"', "quoted fields": '"a",', "words": "rw,"}
# 8000 binds take more open files than some machines allow.
BINDS = (1500, 3000, 6000)
DEAD = (500, 1000, 2000)
ELSEWHERE = (0, 2500, 5000)
TIMES = 15
CONFIGS = (2500, 5000, 10000)
BYTES = (1 << 20, 1 << 21, 1 << 22)
LETTERS = (1 << 20, 1 << 21, 1 << 22)


class Ground:
    """A folder in memory with a bundle, a source, a state folder and the installed hook."""

    def __init__(self, path: str) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=0", "tmpfs", path], check=True)
        self.path = path
        self.launcher = install(f"{path}/prefix")[0]
        for name in ("bundle/rootfs/etc", "source", "hooks.d"):
            os.makedirs(f"{path}/{name}")
        os.mkdir(f"{path}/state", 0o700)

    def config(self, *namespaces: str, **members: object) -> None:
        document = {
            "ociVersion": "1.0.2",
            "root": {"path": "rootfs"},
            "process": {"args": ["x"], "cwd": "/"},
            "linux": {"namespaces": [{"type": each} for each in namespaces]},
        }
        with open(f"{self.path}/bundle/config.json", "w", encoding="utf-8") as file:
            json.dump({**document, **members}, file)

    def state(self, status: str, pid: int | None = None) -> str:
        state = {"ociVersion": "1.0", "id": "c", "status": status, "bundle": f"{self.path}/bundle"}
        return json.dumps(state if pid is None else {**state, "pid": pid})

    def seconds(self, *words: str, stdin: str = "", code: int | None = 0) -> float:
        """How long one call of the hook takes that ends with ``code``; None for any."""
        begun = time.perf_counter()
        root = [] if words[0] == "install" else ["--root", f"{self.path}/state"]
        command = [self.launcher, *words, *root]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, env={"PATH": support.PATH})
        took = time.perf_counter() - begun
        if code is not None and done.returncode != code:
            raise SystemExit(f"{words}: ended with {done.returncode}, not {code}: {done.stderr[:500]}")
        return took

    def take_record(self) -> tuple[Record, StateFolder]:
        """The record that a set-up has just written, taken out of the state folder."""
        folder = StateFolder.open(f"{self.path}/state", create=False)
        record = folder.load("c") if folder is not None else None
        assert folder is not None
        assert record is not None
        with folder.lock_rootfs(record["rootfs"]) as held:
            held.remove("c")
        return record, folder

    def end(self) -> None:
        subprocess.run(["umount", "--lazy", self.path], check=True)


@contextlib.contextmanager
def container(ground: Ground) -> Iterator[str]:
    """The state of a container that is being created and ends with the block: a process in a mount namespace."""
    command = ["unshare", "-m", "--propagation", "private", "sh", "-c", "echo; read end"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield ground.state("creating", process.pid)


def annotation(ground: Ground, unit: str, size: int) -> dict[str, float]:
    """A dry-run for an annotation of so many bytes."""
    text = "src=/srv/x,dst=/x," + (unit * size)[:size]
    ground.config("mount", annotations={ANNOTATION: text})
    words = ["--dry-run", "--bundle", f"{ground.path}/bundle", "--allow-annotations", "--allow-source", "/srv"]
    return {"dry-run": ground.seconds(*words, code=None)}


def binds(ground: Ground, count: int) -> dict[str, float]:
    """Binds of config.json that the runtime has not made, in a namespace of the container's own."""
    mounts = [
        {"destination": f"/d/{n}", "source": f"{ground.path}/source", "type": "bind", "options": ["bind", "ro"]}
        for n in range(count)
    ]
    ground.config("mount", mounts=mounts)
    for number in range(count):
        os.makedirs(f"{ground.path}/bundle/rootfs/d/{number}")
    # Its rootfs has no program, which a runtime would refuse.
    words = ["createRuntime", "--dry-run", "--bundle", f"{ground.path}/bundle"]
    took = {"dry-run": ground.seconds(*words, code=REFUSED)}
    with container(ground) as creating:
        took["set-up"] = ground.seconds("createRuntime", stdin=creating)
        took["second set-up"] = ground.seconds("createRuntime", stdin=creating)
        took["list"] = ground.seconds("list")
    took["tear-down"] = ground.seconds("poststop", stdin=ground.state("stopped"))
    return took


def dead(ground: Ground, count: int) -> dict[str, float]:
    """Containers that died without poststop on one rootfs, each with a mount point of its own below one of all."""
    ground.config("mount")
    with container(ground) as creating:
        ground.seconds("createRuntime", "--mount", f"src={ground.path}/source,dst=/new/0", stdin=creating)
    record, folder = ground.take_record()
    with folder.lock_rootfs(record["rootfs"]) as held:
        for number in range(count):
            one, path = copy.deepcopy(record), f"/new/{number}"
            one["id"] = f"c{number}"
            if number:
                os.mkdir(f"{ground.path}/bundle/rootfs{path}")
                one["made"] = one["made"][-1:]
                stat = os.stat(f"{ground.path}/bundle/rootfs{path}")
                one["made"][0]["identity"] = {"uid": 0, "gid": 0, "dev": stat.st_dev, "ino": stat.st_ino, "born": None}
            one["made"][-1]["path"] = one["mounts"][0]["resolved"] = path
            one["uses"] = ["/new", path]
            held.save(one)
    took = {"list": ground.seconds("list"), "gc --dry-run": ground.seconds("gc", "--dry-run")}
    took["gc"] = ground.seconds("gc")
    if os.listdir(f"{ground.path}/state") or "new" in os.listdir(f"{ground.path}/bundle/rootfs"):
        raise SystemExit("gc has left something")
    return took


def elsewhere(ground: Ground, count: int) -> dict[str, float]:
    """A start and an end, while so many containers are recorded on other rootfs; of several the shortest."""
    ground.config("mount")
    words = ["--mount", f"src={ground.path}/source,dst=/etc"]

    def set_up() -> float:
        with container(ground) as creating:
            return ground.seconds("createRuntime", *words, stdin=creating)

    set_up()
    record, folder = ground.take_record()
    for number in range(count):
        rootfs: RootfsRecord = {**record["rootfs"], "path": f"/srv/{number}", "ino": 1 << 40 | number}
        with folder.lock_rootfs(rootfs) as held:
            held.save({**record, "id": f"other{number}", "rootfs": rootfs})
    took: dict[str, list[float]] = {"set-up": [], "tear-down": []}
    for _ in range(TIMES):
        took["set-up"].append(set_up())
        took["tear-down"].append(ground.seconds("poststop", stdin=ground.state("stopped")))
    return {step: min(times) for step, times in took.items()}


def expression(ground: Ground, size: int) -> dict[str, float]:
    """``install --check`` with an expression that Python's re needs exponential time for."""
    ground.config(annotations={"a": "a" * size + "!"})
    hook = {"path": ground.launcher, "env": ["PATH=/usr/bin"], "timeout": 10}
    when = {"annotations": {"^a$": "^([a-z]+,?)+$"}}
    with open(f"{ground.path}/hooks.d/x.json", "w", encoding="utf-8") as file:
        json.dump({"version": "1.0.0", "hook": hook, "when": when, "stages": ["createRuntime", "poststop"]}, file)
    words = ["install", "--check", "--hooks-dir", f"{ground.path}/hooks.d", f"{ground.path}/bundle"]
    return {"install --check": ground.seconds(*words)}


def validation(ground: Ground, size: int) -> dict[str, float]:
    """So many configs as engines write them, one in twenty of them invalid in two places."""
    for number in range(size):
        _, document = configs.config(configs.CONFIGS[number % len(configs.CONFIGS)])
        if number % 20 == 0:
            document["process"]["cwd"] = document["root"]["path"] = 5
        with open(f"{ground.path}/{number}.json", "w", encoding="utf-8") as file:
            json.dump(document, file, indent=2)
    begun = time.perf_counter()
    command = [ground.launcher, "validate", *(f"{number}.json" for number in range(size))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ground.path, env={"PATH": support.PATH})
    lines = done.stdout.splitlines()
    if (done.returncode, len(lines)) != (65, 2 * len(range(0, size, 20))):
        raise SystemExit(f"validate: ended with {done.returncode} and {len(lines)} lines: {done.stderr[:500]}")
    return {"validate": time.perf_counter() - begun}


def row(name: str, measure: Callable[[Ground, int], dict[str, float]], sizes: Sequence[int]) -> None:
    """Prints the seconds of each size, and how many times those of the one before the last takes."""
    found: dict[str, list[float]] = {}
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="bench-") as path:
            ground = Ground(path)
            try:
                for step, took in measure(ground, size).items():
                    found.setdefault(step, []).append(took)
            finally:
                ground.end()
    for step, taken in found.items():
        times = " | ".join(f"{took:.4f}" if took < 1 else f"{took:.2f}" for took in taken)
        print(f"| {name}, {step} | {' | '.join(map(str, sizes))} | {times} | {taken[-1] / taken[-2]:.1f} |", flush=True)


def main() -> None:
    print("| what | sizes | | | seconds | | | last by the one before |\n|---|---|---|---|---|---|---|---|")
    for name, unit in TEXTS.items():

        def measure(ground: Ground, size: int, unit: str = unit) -> dict[str, float]:
            return annotation(ground, unit, size)

        row(f"annotation of {name}", measure, BYTES)
    row("binds of config.json", binds, BINDS)
    row("dead containers on one rootfs", dead, DEAD)
    row("containers on other rootfs", elsewhere, ELSEWHERE)
    row("an expression of hooks.d", expression, LETTERS)
    row("configs, one in twenty invalid", validation, CONFIGS)


if __name__ == "__main__":
    main()
