# SPDX-License-Identifier: Apache-2.0
"""What the kernel will refuse a real run, for want of rights or of what a file system can do, told before it is tried.

A dry-run may be made by anybody, the real one by whoever starts the runtime: only what the config itself shows of that
counts here.
"""

from __future__ import annotations

import os

from ...errors import UnavailableError
from ...lifecycle.stage import ROOTLESS

# Whose owners Linux does not map, up to 6.18 at least. Of others that depends on its release.
_NEVER_MAPPED = frozenset("cgroup cgroup2 devpts devtmpfs mqueue proc sysfs".split())

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...documents.oci import Config
    from ...kernel.proc import Proc
    from ...mounting.plan import Plan


def problems_of_stage(config: Config, stage: str | None, namespace: str | None) -> Iterator[UnavailableError]:
    """That a runtime started by this ordinary user, who maps themself in, has no right to enter its container."""
    uid = os.geteuid()
    is_rootless = uid != 0 and any(host == uid for _, host, _ in config.uid_mappings or ())
    if is_rootless and stage in ("prestart", "createRuntime") and namespace == "container":
        yield UnavailableError(
            f"at {stage} the runtime of the user {uid} cannot let the hook into the container's mount namespace",
            hint=ROOTLESS,
        )


def problems_of_plan(plan: Plan, config: Config, stage: str | None, proc: Proc) -> Iterator[UnavailableError]:
    """What needs more rights than there are inside the user namespace of a container."""
    is_nested = stage == "createContainer" and "user" in config.namespaces
    is_foreign = is_nested and bool(config.uid_mappings) and not _is_mapped(config, proc.uid_outside(os.geteuid()))
    for bind in plan.binds:
        if bind.action != "mount" or bind.problem is not None:
            continue
        request = bind.request
        if request.idmap is not None and (is_nested or proc.in_user_namespace()):
            yield UnavailableError(
                "ids cannot be mapped from inside a user namespace",
                where=request.at("options"),
                hint="register for createRuntime, with a runtime that root starts",
            )
        top = bind.source.info
        if request.idmap is not None and top is not None and top.type in _NEVER_MAPPED:
            yield UnavailableError(
                f"the {top.type} file system of {bind.source.path} cannot be id-mapped", where=request.at("options")
            )
        if is_foreign and bind.create:
            yield UnavailableError(
                f"the mount point {bind.create[0].path} must be made, and nothing can be recorded in a user namespace"
                " that another user made",
                where=request.at("destination"),
                hint="make it in the image, or register for createRuntime",
            )


def _is_mapped(config: Config, uid: int) -> bool:
    """Whether a user of the machine is somebody inside the container."""
    return any(host <= uid < host + size for _, host, size in config.uid_mappings or ())
