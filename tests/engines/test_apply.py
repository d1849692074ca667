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
def applied(hook: Hook, file: Path, text: str, *options: str) -> Iterator[list[str]]:
    """What --apply makes of an engine's file, and afterwards what uninstall does, which names the runtime no more.

    In containerd's it leaves runc, without which the engine would know none beside those that others have added since.
    """
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    hook.install("--runtime", "applied", *options, "--apply", binds=["models"])
    texts = [file.read_text()]
    yield texts
    hook.uninstall("--runtime", "applied", "--apply")
    texts.append(file.read_text())
    assert "applied" not in file.read_text()
    # Both engines are there, and both get the runtime.
    for each in (*DAEMON_JSON.parent.iterdir(), *CONFIG_TOML.parent.iterdir()):
        each.unlink()


def test_docker_knows_it_after_a_reload(engines: Engines, hook: Hook) -> None:
    daemon = engines.docker("docker")
    own = daemon.folder / "daemon.json"
    before = own.read_text()
    # As most have it, who have no other runtime: what uninstall leaves must let docker forget the only one.
    plain = {key: value for key, value in json.loads(before).items() if key != "runtimes"}
    with applied(hook, DAEMON_JSON, json.dumps(plain)) as texts:
        own.write_text(texts[0])
        daemon.reload()
        known = [*daemon.words, "info", "--format", "{{json .Runtimes}}"]
        await_that("it is not known", lambda: '"applied"' in good(*known))
        words = ("run", "--rm", "--network=none", "--runtime=applied", IMAGE, "cat", "/real/models/word")
        assert good(*daemon.words, *words) == "models of the host"
        assert good(*daemon.words, "run", "--rm", "--network=none", IMAGE, "ls", "/real") == ""
    assert json.loads(texts[-1]) == {**plain, "runtimes": {}}
    own.write_text(texts[-1])
    daemon.reload()
    await_that("it is known still", lambda: '"applied"' not in good(*known))
    own.write_text(before)
    daemon.reload()
    await_that("the others are not known again", lambda: '"bind-models"' in good(*known))


def test_containerd_hands_over_the_annotation(engines: Engines, hook: Hook) -> None:
    folder = engines.folder / "annotated"
    options = ("--annotation", "org.example/models=yes")
    plain = HEAD.format(folder=folder, image=IMAGE)
    with (
        applied(hook, CONFIG_TOML, plain, *options) as texts,
        Containerd(folder, hook, engines.image, texts[0]) as daemon,
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
