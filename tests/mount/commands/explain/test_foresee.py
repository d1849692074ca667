# SPDX-License-Identifier: Apache-2.0
"""What a kernel of another version would refuse, foreseen by its version."""

from __future__ import annotations

import pytest

from helpers.mounting import Bench, request, tmpfs
from oci_bind_hook.commands.explain.foresee import problems_of_sources
from oci_bind_hook.documents.oci import Config
from oci_bind_hook.kernel import linux
from oci_bind_hook.kernel.proc import Namespace
from oci_bind_hook.mounting.sources import open_sources
from oci_bind_hook.requests.request import IdMap


@pytest.mark.parametrize(("version", "refused"), [((6, 2), True), ((6, 3), False), ((6, 12), False)])
def test_a_tmpfs_can_be_mapped_since_linux_6_3(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, version: tuple[int, int], refused: bool
) -> None:
    volume = tmpfs(f"{bench.path}/volume")
    asked = request(volume, "/mnt")
    runs = ((0, 1000, 1),)
    asked.idmap = IdMap(runs, runs, recursive=False)
    sources = open_sources([asked], bench.path, Namespace(bench.proc, bench.kind))
    monkeypatch.setattr(linux, "version", lambda: version)
    config = Config({"ociVersion": "1.0.2", "root": {"path": "rootfs"}})
    problems = list(problems_of_sources(sources, config, "createRuntime", bench.proc))
    told = [f"the tmpfs file system of {volume} cannot be id-mapped"] if refused else []
    assert [problem.problem for problem in problems] == told
