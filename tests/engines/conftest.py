# SPDX-License-Identifier: Apache-2.0
"""One of each engine for the whole session, and what the tests found of each, for the table in docs/ENGINES.md."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from engines import base, docker, podman
from engines.containerd import ByCri, ByCtr, Containerd
from engines.cri import Client
from helpers import support

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SUITE = os.environ["SUITE"]
# podman 4.3.1 may leave a mount in the folder of such a container, and then cannot remove the container.
collect_ignore = ["test_user_namespaces.py"] if SUITE == "bookworm" else []
Made = TypeVar("Made")
PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """A folder for all, with a name that is short enough for sockets, and into which any user may look."""
    path = Path("/tmp/engines")
    path.mkdir(mode=0o755)
    mounts, groups = support.mounts(), base.cgroups()
    yield path
    left = [
        *base.processes(path),
        *base.remove_cgroups(groups),
        *(line for line in support.mounts() if line not in mounts),
    ]
    shutil.rmtree(path)
    assert left == []


@pytest.fixture(scope="session")
def image(folder: Path) -> str:
    return base.make_image(folder)


@pytest.fixture(scope="session")
def hook(folder: Path) -> base.Hook:
    """The hook with all that is registered outside of an engine's own folders."""
    hook = base.Hook(folder)
    podman.install_devices(hook)
    docker.install_wrappers(hook)
    return hook


class Engines:
    """Starts an engine when the first test asks for it; all of them end with the session."""

    def __init__(self, folder: Path, hook: base.Hook, image: str, stack: ExitStack) -> None:
        self.folder, self.hook, self.image, self.stack = folder, hook, image, stack
        self.known: dict[str, Any] = {}

    def once(self, name: str, make: Callable[[], Made]) -> Made:
        """What is made only once, by its name."""
        if name not in self.known:
            self.known[name] = make()
        made: Made = self.known[name]
        return made

    def containerd(self) -> Containerd:
        def make() -> Containerd:
            return self.stack.enter_context(Containerd(self.folder / "containerd", self.hook, self.image))

        return self.once("containerd", make)

    def client(self) -> Client:
        return self.once("client", lambda: self.stack.enter_context(closing(Client(self.containerd().socket))))

    def docker(self, name: str, **settings: object) -> docker.Docker:
        def make() -> docker.Docker:
            more = {**docker.settings(SUITE), **settings}
            made = docker.Docker(self.folder / name, self.hook, self.image, self.containerd().socket, **more)
            return self.stack.enter_context(made)

        return self.once(name, make)

    def way(self, name: str) -> base.Way:
        return self.once(name, lambda: self._way(*name.split(" ", 2)))

    def _way(self, engine: str, runtime: str, registration: str) -> base.Way:
        match engine:
            case "podman":
                folder = self.folder / f"podman-{runtime}-{registration}"
                made = podman.Podman(folder, self.hook, self.image, runtime, registration)
                self.stack.callback(made.end)
                return made
            case "rootless":
                return podman.Rootless(self.folder / "rootless", self.hook, self.image)
            case "ctr":
                return ByCtr(self.containerd())
            case "CRI":
                return ByCri(self.containerd(), self.client(), runtime, registration)
            case "docker":
                return docker.ByDocker(self.docker("docker"), registration)
            case _:
                remapped = self.docker("remapped", **{"userns-remap": "default"})
                return docker.ByDocker(remapped, registration, ", userns-remap")


@pytest.fixture(scope="session")
def engines(folder: Path, hook: base.Hook, image: str) -> Iterator[Engines]:
    with ExitStack() as stack:
        yield Engines(folder, hook, image, stack)


WAYS = [
    *(f"podman {runtime} {registration}" for registration in ("hooks.d", "CDI") for runtime in support.RUNTIMES),
    "rootless crun CDI",
    "ctr runc config.json",
    *(f"CRI {runtime} base spec" for runtime in support.RUNTIMES),
    *(f"{kind} runc {each}" for kind in ("CRI", "docker", "remapped") for each in docker.registrations(SUITE)),
]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, engines: Engines) -> Iterator[base.Way]:
    found = engines.way(request.param)
    request.node.user_properties.append(("way", (found.engine, found.runtime, found.registration)))
    yield found
    # Also of a test that failed.
    found.remove("box")


class Table:
    """The plugin that notes of each way which tests passed."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, ...], list[str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, value in report.user_properties:
            if name == "way" and report.when == "call" and report.passed:
                test = report.nodeid.partition("::test_")[2].partition("[")[0]
                assert isinstance(value, tuple)
                self.rows.setdefault(value, []).append(test.replace("_", " "))

    def pytest_sessionfinish(self) -> None:
        document = [[*row, tests] for row, tests in self.rows.items()]
        (PROJECT / "engines.json").write_text(json.dumps(document))


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Table())
