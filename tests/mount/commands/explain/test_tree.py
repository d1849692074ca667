# SPDX-License-Identifier: Apache-2.0
"""The picture of a dry-run of real bundles, and what it says that each bind hides."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from helpers import support
from helpers.mounting import plant, tmpfs
from helpers.terminal import on_terminal
from oci_bind_hook.commands.explain import dry_run
from oci_bind_hook.commands.explain.tree import as_tree
from oci_bind_hook.documents import oci
from oci_bind_hook.options import parse

if TYPE_CHECKING:
    from helpers.mounting import Tree

IMAGE: Tree = {
    "bin": {"sh": b"\x7fELF"},
    "data": {},
    "etc": {"hosts": b""},
    "models": "/data/models",
    "opt": {"mpi": "../usr/lib/mpi"},
    "usr": {"lib": {"mpi": {"libmpi.so": b""}, "gpu": {}}},
    "dev": {},
    "proc": {},
    "sys": {},
}
HOST: Tree = {
    "models": {},
    "mpi": {},
    "file": b"",
    "gpu": {f"lib{name}.so": b"" for name in "abcdef"},
    "real": {},
    "link": "real",
}
FILE_SYSTEMS = {"/proc": "proc", "/dev": "tmpfs", "/dev/pts": "devpts", "/sys": "sysfs"}
OWN = [{"destination": path, "type": kind, "source": kind} for path, kind in FILE_SYSTEMS.items()]


class Desk:
    """A bundle and a host's folders, on a file system that gives binds no attributes."""

    def __init__(self, path: Path) -> None:
        self.path = tmpfs(f"{path}/T")
        os.chmod(f"{plant(f'{self.path}/bundle/rootfs', IMAGE)}/bin/sh", 0o755)
        plant(self.path, HOST)
        self.config()

    def config(self, *mounts: dict[str, Any], **members: Any) -> None:
        linux = {"namespaces": [{"type": "mount"}]}
        process = {"args": ["/bin/sh"], "cwd": "/", "user": {"uid": 0, "gid": 0}}
        document: dict[str, Any] = {
            "ociVersion": "1.0.2",
            "process": process,
            "root": {"path": "rootfs"},
            "linux": linux,
            **members,
        }
        document["mounts"] = [*OWN, *mounts]
        Path(f"{self.path}/bundle/config.json").write_text(json.dumps(document))

    def document(self, *mounts: str) -> dict[str, Any]:
        words = [f"--mount={mount.replace('T/', f'{self.path}/')}" for mount in mounts]
        options, _ = parse(["--dry-run", "--bundle", f"{self.path}/bundle", *words])
        document = json.loads(json.dumps(dry_run.dry_run(options, lambda: b"").document()))
        assert oci.violations(document, "plan") == []
        return dict(document)

    def picture(self, *mounts: str, **how: Any) -> str:
        return self.short(as_tree(self.document(*mounts), **how))

    def short(self, text: str) -> str:
        return text.replace(self.path, "T")


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


HEAD = "T/bundle/rootfs  at createRuntime, in the container's own namespace\n"
RUNTIME = "└─ by the runtime: /proc, /dev, /dev/pts, /sys\n\n"
NOTE = "the container keeps the old file if this one is replaced by rename; to follow the change, bind its folder\n\n"

PICTURES = {
    "one, behind a link": (
        ["src=T/models,dst=/models,ro"],
        "├─ models → /data/models\n"
        "├─ data\n"
        "│  └─ + models  ← T/models  ro\n"
        f"{RUNTIME}"
        "ready: 1 bind, 1 folder to create\n",
    ),
    "several": (
        [
            "src=T/models,dst=/models,ro,nosuid",
            "src=T/mpi,dst=/opt/mpi,rro,bind-propagation=private",
            "src=T/link,dst=/usr/local/a/b",
            "src=T/file,dst=/etc/hosts",
        ],
        "├─ models → /data/models\n"
        "├─ data\n"
        "│  └─ + models     ← T/models  ro nosuid\n"
        "├─ opt/mpi → ../usr/lib/mpi\n"
        "├─ usr\n"
        "│  ├─ lib/mpi      ← T/mpi  rro private  over the image's folder\n"
        "│  └─ + local/a/b  ← T/link → T/real\n"
        "├─ etc/hosts       ← T/file  over the image's file\n"
        f"{RUNTIME}"
        f"note: --mount 4: {NOTE}"
        "ready: 4 binds, 4 folders to create\n",
    ),
    "a pattern": (
        ["type=glob,src=T/gpu/*.so,dst=/usr/lib/gpu,ro"],
        "├─ usr/lib/gpu\n"
        "│  └─ + liba.so … and 5 more  ← T/gpu/*.so  ro\n"
        f"{RUNTIME}"
        f"note: --mount 1: {NOTE}"
        "ready: 6 binds, 6 files to create\n",
    ),
    "few of a pattern": (
        ["type=glob,src=T/gpu/lib[abc].so,dst=/usr/lib/gpu"],
        "├─ usr/lib/gpu\n"
        "│  ├─ + liba.so  ← T/gpu/liba.so\n"
        "│  ├─ + libb.so  ← T/gpu/libb.so\n"
        "│  └─ + libc.so  ← T/gpu/libc.so\n"
        f"{RUNTIME}"
        f"note: --mount 1: {NOTE}"
        "ready: 3 binds, 3 files to create\n",
    ),
    "what hides what": (
        ["src=T/models,dst=/data/a", "src=T/mpi,dst=/data", "src=T/absent,dst=/x,optional"],
        "├─ data    ← T/mpi\n"
        "│  hides: --mount 1 on /data/a\n"
        "│  └─ + a  ← T/models\n"
        "│     warning: a later mount on /data hides it\n"
        "├─ x       ← T/absent\n"
        "│  skipped: the source is optional and does not exist\n"
        f"{RUNTIME}"
        "ready: 2 binds, 1 skipped, 1 folder to create; 1 warning\n",
    ),
    "in a mount of the runtime": (
        ["src=T/models,dst=/dev/x"],
        "├─ dev     ← tmpfs  by the runtime\n"
        "│  └─ + x  ← T/models\n"
        "└─ by the runtime: /proc, /dev/pts, /sys\n\n"
        "ready: 1 bind, 1 folder to create\n",
    ),
    "what fails": (
        ["src=T/absent,dst=/models", "src=T/mpi,dst=/proc", "nonsense"],
        "├─ models → /data/models\n"
        "├─ data/models  ← T/absent\n"
        "│  problem: --mount 1: the source T/absent cannot be opened: No such file or directory\n"
        "├─ proc         ← proc  by the runtime\n"
        "│               ← T/mpi\n"
        "│  problem: --mount 2: /proc is on procfs, where only a few files may be covered, as in runc\n"
        "└─ by the runtime: /dev, /dev/pts, /sys\n\n"
        'problem: --mount 3: "nonsense" is not known\n',
    ),
    "nothing": (
        [],
        f"{RUNTIME}note: to see why no registration of the hook applies to this container, run "
        "oci-bind-hook install --check T/bundle\n\nready: no bind is requested\n",
    ),
}


@pytest.mark.parametrize("case", PICTURES)
def test_the_picture(desk: Desk, case: str) -> None:
    mounts, expected = PICTURES[case]
    lines = [
        line for line in desk.picture(*mounts).splitlines(keepends=True) if not line.lstrip("│ ").startswith("hint:")
    ]
    head = HEAD if mounts else HEAD.replace("\n", ", config.json does not register the hook\n")
    assert "".join(lines).startswith(head + expected)
    assert lines[-1].startswith(("ready: ", "would fail: 78, --mount 3: "))


def test_everything(desk: Desk) -> None:
    desk.config(support.bind(f"{desk.path}/file", "/etc/hosts"))
    picture = as_tree(desk.document("type=glob,src=T/gpu/lib[a-d].so,dst=/usr/lib/gpu"), everything=True)
    assert desk.short(picture) == (
        f"{HEAD}"
        "├─ usr/lib/gpu\n"
        "│  ├─ + liba.so  ← T/gpu/liba.so\n"
        "│  ├─ + libb.so  ← T/gpu/libb.so\n"
        "│  ├─ + libc.so  ← T/gpu/libc.so\n"
        "│  └─ + libd.so  ← T/gpu/libd.so\n"
        "├─ proc          ← proc  by the runtime\n"
        "├─ dev           ← tmpfs  by the runtime\n"
        "│  └─ pts        ← devpts  by the runtime\n"
        "├─ sys           ← sysfs  by the runtime\n"
        "└─ etc/hosts     ← T/file  by the runtime\n\n"
        f"note: --mount 1: {NOTE}"
        "ready: 4 binds, 4 files to create\n"
    )


def test_podmans_bundle(desk: Desk) -> None:
    """The runtime's nine mounts and five binds in one line, and who asks for the one that counts."""
    env = ["PATH=/usr/bin"]
    hook = {
        "path": "/bin/sh",
        "args": ["oci-bind-hook", "--mount", f"src={desk.path}/models,dst=/models,ro"],
        "env": env,
    }
    binds = ("/etc/resolv.conf", "/etc/hosts", "/run/.containerenv", "/run/secrets", "/etc/hostname")
    desk.config(
        *({"destination": f"/own/{name}", "type": "tmpfs"} for name in "abcde"),
        *(support.bind(f"{desk.path}/file", path) for path in binds),
        hooks={"createRuntime": [hook]},
        annotations={"io.container.manager": "libpod"},
    )
    assert desk.picture() == (
        "T/bundle/rootfs  at createRuntime, in the container's own namespace, "
        "options from config.json: /hooks/createRuntime/0\n"
        "├─ models → /data/models\n"
        "├─ data\n"
        "│  └─ + models  ← T/models  ro\n"
        "└─ by the runtime: /proc, /dev, /dev/pts, /sys, /own/a, /own/b, /own/c, /own/d, /own/e; binds on "
        "/etc/resolv.conf, /etc/hosts, /run/.containerenv, /run/secrets, /etc/hostname\n\n"
        "note: config.json is the one of the last start: podman writes a new one at the next start\n\n"
        "ready: 1 bind, 1 folder to create\n"
    )


def test_what_each_bind_hides(desk: Desk) -> None:
    desk.config({"destination": "/data/own", "type": "tmpfs"}, support.bind(f"{desk.path}/file", "/etc/hosts"))
    document = desk.document("src=T/mpi,dst=/etc", "src=T/mpi,dst=/data", "src=T/mpi,dst=/usr/lib/gpu")
    there = {"path": "/etc", "what": "folder", "origin": None}
    hosts = {"path": "/etc/hosts", "what": "mount", "origin": "config.json#/mounts/5"}
    own = {"path": "/data/own", "what": "mount", "origin": "config.json#/mounts/4"}
    assert [mount["hides"] for mount in document["mounts"]] == [
        [],
        [there, hosts],
        [own],
        [],
    ]


def test_on_a_terminal_and_in_a_pipe(desk: Desk) -> None:
    long = f"{desk.path}/{'/'.join(['deep'] * 20)}"
    os.makedirs(long)
    words = ["--dry-run", "--format", "tree", "--bundle", f"{desk.path}/bundle", "--mount", f"src={long},dst=/models"]
    coloured = on_terminal(60, words, LANG="en_GB.UTF-8")
    assert "\x1b[1;32mmodels\x1b[0m" in coloured
    assert "\x1b[1;32mready:\x1b[0m 1 bind, 1 folder to create\n" in coloured
    plain = on_terminal(60, words, LANG="en_GB.utf8", NO_COLOR="1")
    assert "\x1b" not in plain
    assert "…" in plain
    assert max(map(len, plain.splitlines())) <= 60
    ascii_only = on_terminal(60, words, LANG="C", NO_COLOR="1")
    assert ascii_only.isascii()
    assert "`- + models  <- " in ascii_only
    code = "from oci_bind_hook.cli import console; console()"
    command = [sys.executable, "-c", code, *words]
    piped = subprocess.run(command, env={"LC_ALL": "C.UTF-8"}, capture_output=True, text=True, check=True).stdout
    assert f"└─ + models  ← {long}\n" in piped
