# SPDX-License-Identifier: Apache-2.0
"""The examples: run for real where the engine is here, else held against what the engine's documents say."""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from helpers import configs, mounting, support
from helpers.podman import configured, covered, isolated
from oci_bind_hook.commands.engines import check, hooks_d
from oci_bind_hook.commands.engines.launcher import import_folders
from oci_bind_hook.commands.engines.settings import Docker
from oci_bind_hook.documents import oci

if TYPE_CHECKING:
    from collections.abc import Sequence

PROJECT = Path(__file__).resolve().parents[2]
EXAMPLES = PROJECT / "examples"
BIN = os.path.dirname(sys.executable)
PATH = f"{BIN}:{support.PATH}"
RUNTIMES = pytest.mark.parametrize("runtime", support.RUNTIMES)
UID = 1000


# -- podman ------------------------------------------------------------------------------------------------------------


def test_podman(tmp_path: Path) -> None:
    rootfs = support.busybox_rootfs(tmp_path / "rootfs")
    script = f"{EXAMPLES}/podman.sh --rootfs {rootfs}"
    done = isolated(script, {**configured(tmp_path), "PATH": PATH, "TMPDIR": "/tmp"}, tmp_path)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "hello from the host"), done.stderr
    assert "models" not in os.listdir(rootfs)


def test_rootless_podman(tmp_path: Path) -> None:
    """Of a user who has just one id, as it is where nothing was set up for him."""
    home = tmp_path / "home"
    rootfs = support.busybox_rootfs(home / "rootfs")
    environment = {**configured(home), "HOME": str(home), "PATH": PATH, "XDG_RUNTIME_DIR": f"/run/user/{UID}"}
    (home / "storage.conf").write_text(
        f'[storage]\ndriver = "vfs"\nrootless_storage_path = "{home}/storage"\nrunroot = "/run/user/{UID}/containers"\n'
    )
    for path in (home, *home.rglob("*")):
        os.chown(path, UID, UID, follow_symlinks=False)
    tmp_path.chmod(0o755)
    mounting.show(str(tmp_path), str(PROJECT), sys.base_prefix, *import_folders(), BIN)
    for name, line in (("passwd", f"me:x:{UID}:{UID}::{home}:/bin/sh"), ("group", f"me:x:{UID}:")):
        (tmp_path / name).write_text(f"root:x:0:0::/root:/bin/sh\n{line}\n")
        mounting.bind(str(tmp_path / name), f"/etc/{name}")
    user = f"setpriv --reuid={UID} --regid={UID} --clear-groups"
    script = f"mkdir -p /run/user/{UID}; chown {UID}:{UID} /run/user/{UID}; chmod 700 /run/user/{UID}; cd {home}\n"
    done = isolated(f"{script} {user} {EXAMPLES}/rootless-podman.sh --rootfs {rootfs}", environment, tmp_path)
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["hello from the host"]), done.stderr
    assert "models" not in os.listdir(rootfs)


# -- runc and crun -----------------------------------------------------------------------------------------------------


def installed(tmp_path: Path, script: str, **variables: object) -> dict[str, list[dict[str, Any]]]:
    """The hooks that an example registers, as engines put them into config.json."""
    words = [EXAMPLES / script, "--prefix", tmp_path / "prefix", "--hooks-dir", tmp_path / "hooks.d"]
    environment = {**os.environ, "PATH": PATH, **{name: str(value) for name, value in variables.items()}}
    subprocess.run([*map(str, words)], env=environment, check=True, capture_output=True)
    document = json.loads((tmp_path / "hooks.d/oci-bind-hook.json").read_text())
    document["hook"]["args"] += ["--root", str(tmp_path / "state")]
    return {stage: [document["hook"]] for stage in document["stages"]}


def run(runtime: str, tmp_path: Path, script: str, hooks: dict[str, list[dict[str, Any]]], **members: Any) -> list[str]:
    """What a container that runs a script prints, which leaves its rootfs as it was."""
    before = support.tree(tmp_path / "bundle/rootfs")
    bundle = support.bundle(tmp_path / "bundle", ["/bin/sh", "-c", script], hooks=hooks, **members)
    done = support.run_container(runtime, bundle, "c1")
    assert done.returncode == 0, done.stderr
    assert support.tree(tmp_path / "bundle/rootfs") == before
    return done.stdout.splitlines()


def files(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"the host's {name}\n")
    return folder


@RUNTIMES
def test_hpc(runtime: str, tmp_path: Path) -> None:
    host = files(
        tmp_path / "host",
        *("slurm/etc/slurm.conf", "slurm/bin/srun", "slurm/bin/sbatch", "slurm/lib/libslurm.so.40", "munge/socket"),
        *("mpi/lib/libmpi.so.40", "mpi/lib/libmpi.so", "mpi/lib/other.so"),
    )
    places = {"SLURM": host / "slurm", "MPI": host / "mpi", "MUNGE": host / "munge", "LIBRARIES": "/usr/lib/here"}
    hooks = installed(tmp_path, "hpc.sh", **places)
    rootfs = support.busybox_rootfs(tmp_path / "bundle/rootfs")
    look = "ls /usr/lib/here; cat /etc/slurm/slurm.conf; ls /usr/bin /run/munge; touch /usr/bin/srun 2>&1"
    # An image without MPI gets none.
    seen = run(runtime, tmp_path, f"{look}; true", hooks)
    assert [name for name in seen if "lib" in name] == ["libslurm.so.40"]
    assert {"the host's slurm/etc/slurm.conf", "srun", "sbatch", "socket"} <= set(seen)
    assert "Read-only file system" in seen[-1]
    # One with an MPI of its own gets the host's in its place.
    files(Path(rootfs), "usr/lib/here/libmpi.so")
    seen = run(runtime, tmp_path, "cd /usr/lib/here; ls; cat libmpi.so", hooks)
    assert seen == ["libmpi.so", "libmpi.so.40", "libslurm.so.40", "the host's mpi/lib/libmpi.so"]


@RUNTIMES
def test_hpc_on_a_node_without_it(runtime: str, tmp_path: Path) -> None:
    support.busybox_rootfs(tmp_path / "bundle/rootfs")
    nowhere = {name: tmp_path / "nowhere" for name in ("SLURM", "MPI", "MUNGE")}
    assert run(runtime, tmp_path, "ls /usr /run; true", installed(tmp_path, "hpc.sh", **nowhere)) == []


@RUNTIMES
def test_gpu(runtime: str, tmp_path: Path) -> None:
    devices = tmp_path / "dev"
    devices.mkdir()
    for name, minor in (("gpu0", 3), ("gpu1", 5), ("other", 3)):  # of the kind of /dev/null and /dev/zero
        os.mknod(devices / name, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
        (devices / name).chmod(0o666)
    driver = files(tmp_path / "driver", "libgpu.so.1", "libgpu.so", "readme")
    support.busybox_rootfs(tmp_path / "bundle/rootfs")
    hooks = installed(tmp_path, "gpu.sh", DEVICES=devices, DRIVER=driver, LIBRARIES="/usr/local/lib/gpu")
    script = "stat -c '%n %F %t:%T' /dev/gpu*; ls /usr/local/lib/gpu; echo x > /dev/gpu0 && cat /dev/gpu0"
    seen = run(runtime, tmp_path, f"{script}; dd if=/dev/gpu1 bs=4 count=1 2>/dev/null | wc -c || true", hooks)
    assert seen[:2] == ["/dev/gpu0 character special file 1:3", "/dev/gpu1 character special file 1:5"]
    assert seen[2:4] == ["libgpu.so", "libgpu.so.1"]


# -- engines that are not here -----------------------------------------------------------------------------------------


def shown(file: Path, verb: str) -> list[str]:
    """The command in a comment of an example, behind a dollar sign."""
    [line] = re.findall(rf"^#\s+\$ (oci-bind-hook {verb} .*)$", file.read_text(), re.MULTILINE)
    return shlex.split(str(line))[1:]


def registered(words: Sequence[str], tmp_path: Path, folder: str) -> tuple[Path, dict[str, Any]]:
    """What an `install` that an example shows has written, below another top."""
    moved = [word.replace("/usr", f"{tmp_path}/usr").replace("/etc", f"{tmp_path}/etc") for word in words]
    subprocess.run([f"{BIN}/oci-bind-hook", *moved], check=True, capture_output=True)
    path = tmp_path / folder[1:]
    assert check.Check([str(path)]).problems == []
    document = json.loads((path / "oci-bind-hook.json").read_text())
    assert oci.violations(document, "hooks-d") == []
    return path, document


def is_called(folder: Path, annotations: dict[str, str]) -> bool:
    container = hooks_d.Container({"process": {"args": ["/x"]}, "annotations": annotations})
    [one] = hooks_d.in_order(hooks_d.read([str(folder)]))
    return one.match(container)[0] is True


def test_crio(tmp_path: Path) -> None:
    example = EXAMPLES / "crio/10-oci-bind-hook.conf"
    document = tomllib.loads(example.read_text())
    # crio.conf(5): hooks_dir, an array of strings in the table crio.runtime.
    assert document == {"crio": {"runtime": {"hooks_dir": [*hooks_d.FOLDERS]}}}
    folder, _ = registered(shown(example, "install --prefix"), tmp_path, "/etc/containers/oci/hooks.d")
    assert is_called(folder, {"io.example.models": "yes"})
    assert not is_called(folder, {"io.example.models": "no"})
    assert shown(example, "install --check")[2:] == ["--hooks-dir", hooks_d.FOLDERS[1]]


def test_containerd_by_nri(tmp_path: Path) -> None:
    example = EXAMPLES / "containerd/nri.toml"
    document = tomllib.loads(example.read_text())
    # docs/NRI.md of containerd.
    known = {"disable": bool, "plugin_path": str, "plugin_config_path": str, "socket_path": str}
    known |= {"disable_connections": bool, "plugin_registration_timeout": str, "plugin_request_timeout": str}
    [(plugin, options)] = document["plugins"].items()
    assert (document["version"], plugin, options["disable"]) == (3, "io.containerd.nri.v1.nri", False)
    assert {name: type(value) for name, value in options.items()}.items() <= known.items()
    # The injector reads this folder, as it is built, with podman's code.
    folder, hook = registered(shown(example, "install"), tmp_path, hooks_d.FOLDERS[0])
    assert is_called(folder, {"io.example.models": "yes"})
    assert set(hook["when"]) == {"annotations"}


@pytest.mark.parametrize("name", ["containerd-1.6.20-default", "containerd-2.1.9-default"])
def test_containerd_by_a_base_spec(name: str) -> None:
    example = EXAMPLES / "containerd/base-spec.toml"
    document = tomllib.loads(example.read_text())
    [(plugin, options)] = document["plugins"].items()
    runtimes = options["containerd"]["runtimes"]
    # Once a runtime is named, containerd knows runc no longer by itself.
    assert runtimes.pop("runc") == {"runtime_type": "io.containerd.runc.v2"}
    [(runtime, members)] = runtimes.items()
    install, line = re.findall(r"^#\s+\$ (.*)$", example.read_text(), re.MULTILINE)
    assert install == "oci-bind-hook install"
    producer, command = line.split(" | ")
    words, _, written = command.partition(" >")
    assert (document["version"], plugin, runtime) == (3, "io.containerd.cri.v1.runtime", "models")
    assert (producer, members) == (
        "ctr oci spec",
        {"runtime_type": "io.containerd.runc.v2", "base_runtime_spec": written},
    )
    before = configs.config(name)[0].decode()
    done = subprocess.run(words.split(), cwd=PROJECT, input=before, capture_output=True, text=True, check=True)
    after = json.loads(done.stdout)
    assert oci.violations(after, "config") == []
    hooks = after.pop("hooks")
    expected = json.loads(before)
    del expected["process"]["rlimits"]  # ctr's own, which are lower than those that pods have
    assert after == expected
    assert set(hooks) == {"createRuntime", "poststop"}
    assert all(hook["env"] and hook["args"][1] == stage for stage in hooks for hook in hooks[stage])


def test_the_cdi_file_is_what_install_writes(tmp_path: Path) -> None:
    """But for the prefix, which here is the test's own."""
    example = EXAMPLES / "cdi/oci-bind-hook-models.json"
    words = ["install", "--prefix", str(tmp_path), "--cdi", "models", "--cdi-dir", str(tmp_path / "cdi")]
    mount = ["--", "--mount", "src=/srv/models,dst=/models,ro"]
    subprocess.run([f"{BIN}/oci-bind-hook", *words, *mount], env={"PATH": PATH}, check=True, capture_output=True)
    written = (tmp_path / "cdi" / example.name).read_text()
    assert written.replace(f"{tmp_path}/", "/usr/local/") == example.read_text()
    assert oci.violations(json.loads(written), "cdi") == []


def daemonset() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((EXAMPLES / "kubernetes/daemonset.yaml").read_text())
    return document


def test_the_daemonset_is_one() -> None:
    document = daemonset()
    assert (document["apiVersion"], document["kind"]) == ("apps/v1", "DaemonSet")
    assert set(document["spec"]) == {"selector", "updateStrategy", "template"}
    labels = document["spec"]["template"]["metadata"]["labels"]
    assert document["spec"]["selector"]["matchLabels"].items() <= labels.items()
    pod = document["spec"]["template"]["spec"]
    [container], [volume] = pod["containers"], pod["volumes"]
    assert container["volumeMounts"] == [{"name": volume["name"], "mountPath": "/node"}]
    assert container["env"] == [{"name": "NODE", "value": "/node"}]
    assert volume["hostPath"] == {"path": "/", "type": "Directory"}
    assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
    assert "/" not in container["image"]
    for text in [*pod["tolerations"], *container["args"], *container["command"]]:
        assert isinstance(text, str | dict)


def test_the_daemonset_installs_on_its_node(tmp_path: Path) -> None:
    """Its script, with the wheels of its Containerfile, on a node that is this machine, and what it writes its own."""
    [container] = daemonset()["spec"]["template"]["spec"]["containers"]
    [script] = container["args"]
    [build] = re.findall(r"^RUN (pip wheel .*)$", (EXAMPLES / "kubernetes/Containerfile").read_text(), re.MULTILINE)
    tree = tmp_path / "project"
    tree.mkdir()
    copy = f"tar -C {PROJECT} --exclude='./.?*' --exclude=__pycache__ -c . | tar -C {tree} -x"
    wheels = f"{BIN}/{build}".replace("/project", str(tree)).replace("/wheels", f"{tmp_path}/wheels")
    lines = [
        covered(tmp_path / "over", "/etc", "/usr", "/opt", "/srv"),
        f"({copy}; {wheels}) >&2",
        # The image has the wheels at its top.
        "mkdir /srv/models",
        f"NODE={tmp_path}/node; mkdir $NODE; mount --rbind / $NODE",
        "cat >/srv/script <<'END'",
        script.replace("exec sleep infinity", "").replace('/wheels "', f'{tmp_path}/wheels "'),
        "END",
        f'NODE=$NODE {shlex.join(container["command"])} "$(cat /srv/script)"',
        "/opt/oci-bind-hook/bin/oci-bind-hook install --check",
    ]
    done = isolated("\n".join(lines), {}, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "\ninstalled\n" in done.stdout
    assert "hook /usr/share/containers/oci/hooks.d/oci-bind-hook.json is for createRuntime, poststop" in done.stdout
    assert "device oci-bind-hook.github.io/bind=models of /etc/cdi/oci-bind-hook-models.json" in done.stdout


def test_the_runtime_class_names_what_install_writes() -> None:
    text = (EXAMPLES / "kubernetes/runtimeclass.yaml").read_text()
    document = yaml.safe_load(text)
    assert (document["apiVersion"], document["kind"]) == ("node.k8s.io/v1", "RuntimeClass")
    assert f"install --runtime {document['handler']} --apply" in text


def test_the_daemon_json_is_what_install_writes() -> None:
    path = "/usr/local/libexec/oci/runtimes.d/oci-bind-hook-models"
    assert (EXAMPLES / "docker/daemon.json").read_text() == Docker("daemon.json", "models", path).added("")


def test_each_example_is_told() -> None:
    table = (EXAMPLES / "README.md").read_text()
    told = {name.partition("/")[0] for name in re.findall(r"\]\(([^)]+)\)", table)}
    assert told == set(os.listdir(EXAMPLES)) - {"README.md"}
