# SPDX-License-Identifier: Apache-2.0
"""What config.json and --mount ask for, as requests."""

from __future__ import annotations

from typing import Any

from oci_bind_hook.documents import oci
from oci_bind_hook.requests import collect
from oci_bind_hook.requests.request import Request

UIDS = [{"containerID": 0, "hostID": 1000, "size": 1}]
GIDS = [{"containerID": 0, "hostID": 2000, "size": 10}]


def config(*mounts: dict[str, Any], **members: Any) -> oci.Config:
    """A config.json with these mounts, as the hook reads it."""
    return oci.config({"ociVersion": "1.0.2", "root": {"path": "rootfs"}, "mounts": list(mounts), **members})


def from_config(*options: str, **members: Any) -> Request:
    """The request of a config with one mount, by default a bind of /a on /b."""
    mount = {"destination": "/b", "type": "bind", "source": "/a", "options": list(options), **members}
    (found,) = collect.requests(config({name: value for name, value in mount.items() if value is not None}), [])
    return found


def mapped(request: Request) -> tuple[object, object, bool]:
    """The uid and gid mappings of a request, and whether they hold for the mounts below, too."""
    assert request.idmap is not None
    return request.idmap.uids, request.idmap.gids, request.idmap.recursive
