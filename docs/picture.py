#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes docs/explain.svg, the picture in README.md: sudo .venv/bin/python docs/picture.py [FILE]

It is what a real dry-run of a real bundle prints on a terminal. The bundle stands on a tmpfs of a mount namespace of
its own, so that its paths are the same on every machine, and nothing stays. A test makes the picture again.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(DOCS), "tests"))

from helpers.terminal import ended_on_terminal  # noqa: E402 - it is beside this folder

PICTURE = os.path.join(DOCS, "explain.svg")
IN_A_NAMESPACE = ("unshare", "--mount", "--propagation", "private", "--")

# -- the bundle --------------------------------------------------------------------------------------------------------

PLACE = "/srv"
FOLDERS = (
    *("models/large", "models/small", "mpi/lib", "tools"),
    *(f"bundle/rootfs/{name}" for name in ("bin", "data", "etc", "opt", "usr/lib/x86_64-linux-gnu", "usr/local/bin")),
)
GPU = (
    *("cuda", "cudadebugger", "nvcuvid", "nvoptix", "nvidia-allocator", "nvidia-cfg", "nvidia-egl-gbm"),
    *("nvidia-encode", "nvidia-eglcore", "nvidia-fbc", "nvidia-glcore", "nvidia-glsi", "nvidia-glvkspirv"),
    *("nvidia-gpucomp", "nvidia-ml", "nvidia-ngx", "nvidia-nvvm", "nvidia-opencl", "nvidia-opticalflow"),
    *("nvidia-pkcs11", "nvidia-ptxjitcompiler", "nvidia-rtcore", "nvidia-tls", "nvidia-vksc-core"),
)
FILES = (
    *(f"gpu/lib{name}.so.1" for name in GPU),
    "bundle/rootfs/usr/lib/mpi/libmpi.so",
)
PROGRAMS = {
    "bundle/rootfs/bin/sh": b"\x7fELF",
    **dict.fromkeys(("bundle/rootfs/usr/local/bin/serve", "tools/serve"), b"#!/bin/sh\n"),
}
LINKS = {"bundle/rootfs/models": "/data/models", "bundle/rootfs/opt/mpi": "../usr/lib/mpi"}
OWN = {
    "/proc": "proc",
    "/dev": "tmpfs",
    "/dev/pts": "devpts",
    "/dev/shm": "tmpfs",
    "/dev/mqueue": "mqueue",
    "/sys": "sysfs",
    "/sys/fs/cgroup": "cgroup2",
}
CONFIG = {
    "ociVersion": "1.0.2",
    "process": {"args": ["/usr/local/bin/serve"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
    "root": {"path": "rootfs"},
    "mounts": [{"destination": path, "type": kind, "source": kind} for path, kind in OWN.items()],
    "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]},
}
COMMAND = (
    "oci-bind-hook --dry-run --format tree --bundle bundle",
    "--mount src=/srv/models,dst=/models,ro",
    "--mount src=/srv/mpi,dst=/opt/mpi,ro,nosuid",
    "--mount type=glob,src=/srv/gpu/*.so.1,dst=/usr/lib/x86_64-linux-gnu,ro",
    "--mount src=/srv/tools,dst=/usr/local/bin,ro",
)


def build() -> None:
    """Puts the bundle, and what is bound, below PLACE, here. OSError."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", PLACE], check=True)
    os.chdir(PLACE)
    os.umask(0o022)
    for folder in FOLDERS:
        os.makedirs(folder)
    for path, content in {**dict.fromkeys(FILES, b""), **PROGRAMS}.items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "xb") as file:
            file.write(content)
            os.fchmod(file.fileno(), 0o755)
    for path, text in LINKS.items():
        os.symlink(text, path)
    with open("bundle/config.json", "w", encoding="utf-8") as config:
        json.dump(CONFIG, config)


# -- the terminal ------------------------------------------------------------------------------------------------------

COLUMNS = 100


def run() -> str:
    """What the command prints on a terminal, with its colours."""
    _, *words = " ".join(COMMAND).split(" ")
    environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
    code, text = ended_on_terminal(COLUMNS, words, **environment)
    if code:
        raise SystemExit(f"the dry-run ended with {code}:\n{text}")
    return text


# -- the picture -------------------------------------------------------------------------------------------------------

FONT = "ui-monospace, SFMono-Regular, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', 'Liberation Mono', monospace"
SIZE, COLUMN, LINE, MARGIN = 14, 8.43, 18, 20
# Each colour of the terminal: its class here, and how it looks on light and on dark ground.
COLOURS = {
    "1": ("strong", None, None),
    "2": ("dim", "#6a737d", "#8b949e"),
    "31": ("red", "#cf222e", "#ff7b72"),
    "32": ("green", "#1a7f37", "#56d364"),
    "33": ("yellow", "#8f5b00", "#e3b341"),
    "36": ("cyan", "#0b6e99", "#56d4dd"),
}
GROUND, TEXT = ("#f6f8fa", "#0d1117"), ("#24292f", "#e6edf3")
SGR = re.compile(r"\x1b\[([\d;]*)m")


def runs(line: str) -> Iterator[tuple[int, str, str]]:
    """The pieces of a line: the column of each, its classes, its text as XML."""
    column, classes = 0, ""
    for number, part in enumerate(SGR.split(line)):
        if number % 2:
            classes = " ".join(COLOURS[code][0] for code in part.split(";") if code in COLOURS)
            continue
        if part:
            yield column, classes, escape(part, quote=False)
        column += len(part)


def style() -> str:
    """The style sheet: one for each ground, as whoever looks at it prefers."""
    sheets = []
    for ground in (0, 1):
        rules = [f".ground {{ fill: {GROUND[ground]} }}", f"text {{ fill: {TEXT[ground]} }}"]
        rules += [f".{name} {{ fill: {colours[ground]} }}" for name, *colours in COLOURS.values() if colours[ground]]
        sheets.append("\n".join(rules))
    common = f"text {{ font: {SIZE}px {FONT}; white-space: pre }}\n.strong {{ font-weight: bold }}"
    return f"{common}\n{sheets[0]}\n@media (prefers-color-scheme: dark) {{\n{sheets[1]}\n}}"


def svg(lines: list[str]) -> str:
    """Lines of a terminal as a picture, whose text is text: it can be selected, read aloud and searched."""
    width = round(2 * MARGIN + COLUMNS * COLUMN)
    height = 2 * MARGIN + LINE * len(lines)
    rows = []
    for number, line in enumerate(lines):
        y = MARGIN + LINE * number + SIZE
        pieces = [
            f'<tspan x="{MARGIN + column * COLUMN:.1f}" class="{classes or "plain"}">{text}</tspan>'
            for column, classes, text in runs(line)
        ]
        if pieces:
            rows.append(f'<text y="{y}" xml:space="preserve">{"".join(pieces)}</text>')
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" role="img" aria-labelledby="title">',
            '<title id="title">What a dry-run of oci-bind-hook prints</title>',
            f"<style>\n{style()}\n</style>",
            f'<rect class="ground" width="{width}" height="{height}" rx="8"/>',
            *rows,
            "</svg>\n",
        )
    )


def main(path: str) -> None:
    if os.environ.get("PICTURE_INSIDE") != "yes":
        command = [*IN_A_NAMESPACE, sys.executable, os.path.abspath(__file__), os.path.abspath(path)]
        raise SystemExit(subprocess.run(command, env={**os.environ, "PICTURE_INSIDE": "yes"}, check=False).returncode)
    build()
    shown = [f"$ {COMMAND[0]} \\", *(f"    {words} \\" for words in COMMAND[1:-1]), f"    {COMMAND[-1]}", ""]
    lines = [*(f"\x1b[1m{line}\x1b[0m" if line else "" for line in shown), *run().rstrip("\n").split("\n")]
    with open(path, "w", encoding="utf-8") as file:
        file.write(svg(lines))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else PICTURE)
