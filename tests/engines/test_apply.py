# SPDX-License-Identifier: Apache-2.0
"""install --runtime --apply: after one command and the reload the engine knows the runtime; uninstall takes it away."""

from __future__ import annotations

import json
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from engines.base import IMAGE, await_that, good
from engines.containerd import HEAD, ByCri, Containerd
from engines.cri import Client
from engines.test_lives import is_bound, started

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engines.base import Hook
    from engines.conftest import Engines

DAEMON_JSON = Path("/etc/docker/daemon.json")
CONFIG_TOML = Path("/etc/containerd/config.toml")


@contextmanager
def applied(hook: Hook, file: Path, text: str, *options: str) -> Iterator[str]:
    """What --apply makes of an engine's file, which names the runtime no more then.

    In containerd's it leaves runc, without which the engine would know none beside those that others have added since.
    """
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    hook.install("--runtime", "applied", *options, "--apply", binds=["models"])
    yield file.read_text()
    hook.uninstall("--runtime", "applied", "--apply")
    assert "applied" not in file.read_text()
    assert file != DAEMON_JSON or json.loads(file.read_text()) == json.loads(text)
    # Both engines are there, and both get the runtime.
    for each in (*DAEMON_JSON.parent.iterdir(), *CONFIG_TOML.parent.iterdir()):
        each.unlink()


def test_docker_knows_it_after_a_reload(engines: Engines, hook: Hook) -> None:
    daemon = engines.docker("docker")
    own = daemon.folder / "daemon.json"
    before = own.read_text()
    with applied(hook, DAEMON_JSON, before) as text:
        own.write_text(text)
        daemon.reload()
        known = [*daemon.words, "info", "--format", "{{json .Runtimes}}"]
        await_that("it is not known", lambda: '"applied"' in good(*known))
        words = ("run", "--rm", "--network=none", "--runtime=applied", IMAGE, "cat", "/real/models/word")
        assert good(*daemon.words, *words) == "models of the host"
        assert good(*daemon.words, "run", "--rm", "--network=none", IMAGE, "ls", "/real") == ""
    own.write_text(before)
    daemon.reload()
    await_that("it is known still", lambda: '"applied"' not in good(*known))


def test_containerd_hands_over_the_annotation(engines: Engines, hook: Hook) -> None:
    folder = engines.folder / "annotated"
    options = ("--annotation", "org.example/models=yes")
    plain = HEAD.format(folder=folder, image=IMAGE)
    with (
        applied(hook, CONFIG_TOML, plain, *options) as text,
        Containerd(folder, hook, engines.image, text) as daemon,
        closing(Client(daemon.socket)) as client,
    ):
        way = ByCri(daemon, client, "runc", "runtime")
        way.handler = "applied"
        started(way)
        assert way.execute("box", "ls", "/real").stdout == ""
        way.remove("box")
        way.annotation = {1: "org.example/models", 2: "yes"}
        started(way)
        is_bound(way)
        way.remove("box")
        assert way.left() == []
