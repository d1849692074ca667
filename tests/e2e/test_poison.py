# SPDX-License-Identifier: Apache-2.0
"""An image that carries its own copy of everything Python could import: none of it is ever run."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from typing import TYPE_CHECKING

import pytest

from helpers import support

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.world import World

STAGES = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")

# Seen whether it runs below the host's root or below the container's.
POISON = """
for place in ({outside!r}, "/poisoned"):
    try:
        with open(place, "a") as file:
            file.write(__name__ + chr(10))
        break
    except OSError:
        pass
"""

FAILURES = {
    "good": ["--mount", "src={source},dst=/inside"],
    "missing-source": ["--mount", "src=/absent,dst=/inside"],
    "outside": ["--mount", "src={source},dst=/.."],
    "wrong-kind": ["--mount", "src={source},dst=/etc/passwd"],
    "usage": ["--mount", "nonsense", "--debug"],
    "debug": ["--mount", "src={source},dst=/proc/1", "--debug", "--log", "{log}", "--log-format", "json"],
}


def poison(world: World) -> Path:
    """Fills the rootfs; returns the file in which a module that was run outside writes its name."""
    outside = world.path / "poisoned"
    text = POISON.format(outside=str(outside))
    with open(world.launcher, encoding="utf-8") as file:
        written = next(line for line in file if line.startswith("sys.path += "))
    folders = [*sys.path[1:], *eval(written.partition("+= ")[2]), sysconfig.get_path("platstdlib"), ""]
    folders += [f"{sysconfig.get_path('stdlib')}/{name}" for name in ("encodings", "json", "ctypes", "collections")]
    names = {*sys.stdlib_module_names, *sys.modules, "oci_bind_hook", "decoder", "encoder", "aliases", "utf_8"}
    drop = f"{world.rootfs}/poison"
    with open(drop, "w", encoding="utf-8") as file:
        file.write(text)
    for folder in {f"{world.rootfs}/{folder}" for folder in folders if not folder.endswith(".zip")}:
        os.makedirs(folder, exist_ok=True)
        for name in names:
            if "." not in name:
                # Thousands of names, and one file: a link takes no time.
                os.link(drop, f"{folder}/{name}.py")
    return outside


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_nothing_of_the_image_is_run(world: World, runtime: str, stage: str, failure: str) -> None:
    outside = poison(world)
    log = world.path / "log"
    arguments = [word.format(source=world.source, log=log) for word in FAILURES[failure]]
    # The image's environment is what runc 1.1 gives to a createContainer hook that has none of its own.
    poisoned = ["PYTHONPATH=/", "PYTHONHOME=/", "PYTHONSTARTUP=/os.py", "PATH=/bin"]
    hook = {name: value for name, value in world.hook(*arguments).items() if name != "env"}
    bundle = support.bundle(world.path / "bundle", ["true"], hooks={stage: [hook]}, env=poisoned)
    done = support.run_container(runtime, bundle, "c1")
    assert not outside.exists(), (done.stderr, outside.read_text())
    assert not os.path.exists(f"{world.rootfs}/poisoned"), done.stderr
    assert not os.path.exists("/poisoned")


def test_poison_is_poisonous(world: World) -> None:
    """The same files do run where somebody imports them: else the test above could not fail."""
    outside = poison(world)
    # A file, not -c: before it looks at what -c says, Python 3.14 imports modules to remember that text.
    importer = f"{world.rootfs}/importer.py"
    with open(importer, "w", encoding="utf-8") as file:
        file.write("import this\n")
    subprocess.run([sys.executable, "-S", importer], check=False)
    assert outside.read_text().splitlines() == ["this"]
