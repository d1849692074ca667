# SPDX-License-Identifier: Apache-2.0
"""Write the config.json files of every engine that is installed to tests/data/configs, as the tests read them.

    sudo python3 tests/data/make_configs.py

runc, crun and containerd print theirs. podman and buildah write theirs for a runtime, so they get a stub for one that
keeps the file and fails: no container is run, and all they write is in a temporary folder or in a mount namespace of
its own. An engine that is not installed is left out, and its files stay; those with "byhand" in their names are made by
hand, after what the engines document.

What tells this machine from others (paths, ids, host names) is replaced. Mounts and variables are sorted, since podman
writes them in another order each time. Of the devices that --privileged brings one of each kind is kept.
"""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = os.path.dirname(os.path.abspath(__file__))
PROPAGATIONS = "private rprivate slave rslave shared rshared unbindable runbindable".split()
UNCONFINED = ("--security-opt", "seccomp=unconfined")  # the seccomp profile is half a file, and in `plain` already

STUB = """#!/bin/sh
while [ $# -gt 0 ]; do
    case $1 in
        --bundle | -b) bundle=$2 ;;
        --bundle=*) bundle=${1#*=} ;;
    esac
    shift
done
[ -z "$bundle" ] || cp "$bundle/config.json" "$(dirname "$0")/kept.json"
exit 1
"""

PODMAN: dict[str, Sequence[str]] = {
    "plain": (),
    "device": (*UNCONFINED, "--device=/dev/null:/dev/mynull", "--device=/dev/zero:/dev/myzero:r"),
    "privileged": ("--privileged",),
    "volumes": (*UNCONFINED, *(f"--volume=VOLUME:/v/{each}:{each}" for each in PROPAGATIONS)),
    **{each: (*UNCONFINED, f"--volume=VOLUME:/v:{each},ro,nosuid") for each in ("rslave", "rshared")},
    "userns": (*UNCONFINED, "--uidmap=0:100000:65536", "--gidmap=0:100000:65536"),
    "host": (*UNCONFINED, "--pid=host", "--ipc=host", "--uts=host", "--cgroupns=host", "--user=1000:100"),
    "limits": (
        *UNCONFINED,
        *("--memory=64m", "--memory-swap=-1", "--memory-reservation=32m", "--memory-swappiness=0"),
        *("--cpu-shares=512", "--cpu-period=100000", "--cpu-quota=50000", "--cpuset-cpus=0", "--cpuset-mems=0"),
        *("--pids-limit=100", "--blkio-weight=100", "--oom-kill-disable", "--oom-score-adj=100"),
        *("--ulimit=nofile=512:1024", "--ulimit=core=-1:-1", "--ulimit=nproc=64:64"),
        "--device-cgroup-rule=c 10:229 rw",
    ),
    "much": (
        *("--hostname=box", "--tty", "--interactive", "--read-only", "--tmpfs=/tmp:size=1m", "--shm-size=1m"),
        *("--cap-drop=all", "--cap-add=net_bind_service", "--security-opt=no-new-privileges"),
        *("--security-opt=mask=/proc/acpi", "--security-opt=label=disable", "--sysctl=net.ipv4.ip_forward=1"),
        *("--annotation=a.b/c=d", "--env=EMPTY=", "--env=A=b=c", "--umask=0077", "--personality=LINUX32"),
        *("--group-add=7", "--workdir=/bin", "--stop-signal=9", "--mount=type=bind,src=VOLUME,dst=/m,ro"),
    ),
}


def run(*command: str, status: int | None = 0) -> str:
    """What a command prints; its exit status must be ``status``, unless that is None."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if status is not None and done.returncode != status:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def version(engine: str) -> str:
    """The version an engine says it has."""
    match = re.search(r"\d+\.\d+(\.\d+)?", run(engine, "--version"))
    assert match
    return match[0]


def specs(folder: str) -> dict[str, Any]:
    """The configs that runtimes print, and what containerd starts from."""
    found = {}
    for runtime in filter(shutil.which, ("runc", "crun")):
        for variant, options in {"spec": (), "rootless": ("--rootless",)}.items():
            bundle = os.path.join(folder, runtime, variant)
            os.makedirs(bundle)
            run("sh", "-c", 'cd "$1" && shift && "$@"', "sh", bundle, runtime, "spec", *options)
            found[f"{runtime}-{version(runtime)}-{variant}"] = read(os.path.join(bundle, "config.json"))
    if shutil.which("ctr"):
        found[f"containerd-{version('ctr')}-default"] = json.loads(run("ctr", "oci", "spec"))
    return found


def podman(folder: str, stub: str) -> dict[str, Any]:
    """The configs that podman writes for ``PODMAN``."""
    store = [f"--{option}={folder}/podman/{option}" for option in ("root", "runroot", "tmpdir")]
    options = ("--storage-driver=vfs", "--cgroup-manager=cgroupfs", "--events-backend=file", f"--runtime={stub}")
    command = ("podman", *store, *options)
    ulimits = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")  # the defaults are the machine's
    found = {}
    for variant, more in PODMAN.items():
        own = [option.replace("VOLUME", f"{folder}/volume") for option in more]
        common = ("--network=none", *(() if variant == "limits" else ulimits), "--rootfs", f"{folder}/rootfs", "sh")
        container = run(*command, "create", *own, *common).strip()
        run(*command, "start", container, status=None)
        run(*command, "rm", "--force", container)
        found[f"podman-{version('podman')}-{variant}"] = kept(stub)
    return found


def buildah(folder: str, stub: str) -> dict[str, Any]:
    """The configs that buildah writes for a RUN."""
    store = [f"--{option}={folder}/buildah/{option}" for option in ("root", "runroot")]
    command = ("buildah", *store, "--storage-driver=vfs")
    found = {}
    for variant, options in {
        "plain": (),
        "volume": (f"--volume={folder}/volume:/v:rslave,ro", "--cap-add=CAP_SYS_ADMIN", "--hostname=box"),
    }.items():
        container = run(*command, "from", "scratch").strip()
        run(*command, "copy", container, f"{folder}/rootfs", "/")
        isolation = (f"--runtime={stub}", "--isolation=oci", "--network=none")
        run(*command, "run", *isolation, *options, container, "sh", status=None)
        run(*command, "rm", container)
        found[f"buildah-{version('buildah')}-{variant}"] = kept(stub)
    return found


def remove_cgroups() -> None:
    """Remove the cgroups that podman makes for its monitor and leaves."""
    for path in glob.glob("/sys/fs/cgroup/**/libpod_parent", recursive=True):
        for each in (*glob.glob(f"{path}/*/"), path):
            os.rmdir(each)


def read(path: str) -> Any:
    """The JSON document in a file."""
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def kept(stub: str) -> Any:
    """The config that the stub kept, which is forgotten."""
    path = os.path.join(os.path.dirname(stub), "kept.json")
    document = read(path)
    os.unlink(path)
    return document


def scrub(document: dict[str, Any], folder: str) -> str:
    """A config as text, without what tells this machine and run from others."""
    linux = document.get("linux", {})
    kinds = {(each["type"], each.get("fileMode"), each.get("gid")): each for each in linux.get("devices", ())}
    if len(kinds) < len(linux.get("devices", ())):
        linux["devices"] = list(kinds.values())
    document["mounts"].sort(key=lambda mount: mount["destination"])
    document["process"].get("env", []).sort()
    text = json.dumps(document, indent=1, ensure_ascii=False)
    text = re.sub(rf"\b{re.escape(os.uname().nodename)}\b", "host", text.replace(folder, "/srv/test"))
    ids = re.findall(r"\b[0-9a-f]{64}\b", text)
    for number, long in enumerate(dict.fromkeys(ids), start=1):
        new = f"{number:x}" * 64
        text = text.replace(long, new[:64]).replace(long[:12], new[:12])
    text = re.sub(r"\bbuildah-?\d+\b", "buildah1", text)
    text = re.sub(r"\b[0-9a-f]{12}\b", "1" * 12, text)
    return re.sub(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.\d]*(Z|[+-][\d:]+)", "2026-01-01T00:00:00Z", text) + "\n"


def main() -> None:
    """All of it, in a mount namespace of its own."""
    if sys.argv[1:] != ["inside"]:
        os.execvp("unshare", ["unshare", "-m", "--propagation", "private", sys.executable, __file__, "inside"])
    for place in ("/run", "/dev/shm"):
        run("mount", "-t", "tmpfs", "tmpfs", place)
    with tempfile.TemporaryDirectory(prefix="make-configs-") as folder:
        for name in ("volume", "rootfs/bin", "rootfs/etc", "stub"):
            os.makedirs(f"{folder}/{name}")
        os.environ["TMPDIR"] = folder
        stub = f"{folder}/stub/stub"
        with open(stub, "w", encoding="utf-8") as file:
            file.write(STUB)
        os.chmod(stub, 0o755)
        found = specs(folder)
        for engine, make in (("podman", podman), ("buildah", buildah)):
            if shutil.which(engine):
                found |= make(folder, stub)
        remove_cgroups()
        for name, document in found.items():
            with open(f"{HERE}/configs/{name}.json", "w", encoding="utf-8") as file:
                file.write(scrub(document, folder))
    print(*found, sep="\n")


if __name__ == "__main__":
    main()
