# SPDX-License-Identifier: Apache-2.0
"""containerd's users: pods by a runtime class, by an annotation or a base spec, as kubelet asks for them; and ctr."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from engines.conftest import hook
from engines.cri import Pod
from engines.daemons import IMAGE, Containerd, command

if TYPE_CHECKING:
    from collections.abc import Iterator

RUNTIMES_D = "/usr/local/libexec/oci/runtimes.d"
MODELS = {"org.example/models": "yes"}
EXAMPLES = Path(__file__).parents[2] / "examples/containerd"


@pytest.fixture(scope="module")
def containerd(source: Path) -> Iterator[Containerd]:
    """containerd after the one command that its user types, and the restart; and with a base spec beside it."""
    example = (EXAMPLES / "base-spec.toml").read_text()
    daemon = Containerd(more=example.replace("version = 3\n", ""))
    bind = ("--", "--mount", f"src={source},dst=/link,ro")
    for name, words in (("bind", ()), ("annotated", ("--annotation", "org.example/models=yes"))):
        done = hook("install", "--runtime", name, "--apply", *words, *bind)
        assert done.returncode == 0, done
        assert "for containerd to know it: systemctl restart containerd" in done.stderr
    spec = command("ctr", "oci", "spec").stdout
    script = [sys.executable, str(EXAMPLES / "with-hook.py"), *bind[1:]]
    made = subprocess.run(script, input=spec, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made
    Path("/etc/containerd/models.json").write_text(made.stdout)
    with daemon:
        yield daemon
    assert hook("uninstall", "--all", "--apply").returncode == 0


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """The registrations stay for all tests here."""
    yield
    assert json.loads(hook("list", "--format", "json").stdout)["records"] == []


def reads(pod: Pod, container: str) -> bool:
    """Whether a container has the bind, which is read-only then."""
    out, _ = pod.execute(container, "sh", "-c", "ls /models")
    if out:
        assert pod.execute(container, "cat", "/models/word")[0] == "hello from the host\n"
        assert "Read-only file system" in pod.execute(container, "touch", "/models/x")[1]
    return bool(out)


@pytest.mark.parametrize("handler", ["bind", "models"], ids=["runtime", "base spec"])
def test_a_pod_of_a_runtime_class(containerd: Containerd, handler: str) -> None:
    with Pod(containerd.cri, "one", handler) as pod:
        assert reads(pod, pod.start("first", IMAGE, "sleep", "1000"))
        assert reads(pod, pod.start("second", IMAGE, "sleep", "1000"))


def test_a_pod_without_one(containerd: Containerd) -> None:
    with Pod(containerd.cri, "none") as pod:
        assert not reads(pod, pod.start("first", IMAGE, "sleep", "1000"))


def test_an_annotation_of_the_pod_or_of_the_container(containerd: Containerd) -> None:
    with Pod(containerd.cri, "pod", "annotated", MODELS) as pod:
        assert reads(pod, pod.start("first", IMAGE, "sleep", "1000"))
    with Pod(containerd.cri, "container", "annotated") as pod:
        assert reads(pod, pod.start("with", IMAGE, "sleep", "1000", annotations=MODELS))
        assert not reads(pod, pod.start("without", IMAGE, "sleep", "1000"))


def test_open_files_are_the_engines(containerd: Containerd) -> None:
    """`ctr oci spec` has a limit of 1024, which a pod would otherwise get."""
    with Pod(containerd.cri, "limits", "models") as limited, Pod(containerd.cri, "free") as free:
        each = [pod.execute(pod.start("c", IMAGE, "sleep", "9"), "sh", "-c", "ulimit -n") for pod in (limited, free)]
    assert each[0] == each[1]


def test_the_sentence_is_in_what_kubelet_shows(containerd: Containerd, source: Path) -> None:
    """The text of the event "Failed to create pod sandbox", or "Error: failed to create containerd task"."""
    source.rename("/srv/away")
    try:
        with pytest.raises(grpc.RpcError) as refused:
            Pod(containerd.cri, "missing", "bind")
    finally:
        Path("/srv/away").rename(source)
    assert "oci-bind-hook: " in refused.value.details()
    assert f"{source} cannot be opened: No such file or directory" in refused.value.details()


def test_ctr_takes_the_runtime_by_its_path(containerd: Containerd) -> None:
    words = ("-n", "k8s.io", "run", "--rm", "--runc-binary", f"{RUNTIMES_D}/oci-bind-hook-bind", IMAGE, "c1")
    done = containerd.call(*words, "cat", "/models/word")
    assert done.stdout == "hello from the host\n", done
