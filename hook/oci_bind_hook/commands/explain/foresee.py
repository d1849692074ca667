# SPDX-License-Identifier: Apache-2.0
"""What the kernel will refuse to a real run, for want of rights or of a file system's features.

Any user may call a dry-run, while the real run belongs to whoever starts the runtime. So only what config.json itself
shows of that user counts here.
"""

from __future__ import annotations

import os

from ...errors import UnavailableError
from ...lifecycle.stage import ROOTLESS

# File systems that cannot be id-mapped, as of Linux 6.18. Of the others it depends on the kernel version.
_NEVER_MAPPED = frozenset("cgroup cgroup2 devpts devtmpfs mqueue proc sysfs".split())

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...documents.oci import Config
    from ...errors import Step
    from ...kernel.proc import Proc
    from ...mounting.plan import Plan


def problems_of_stage(config: Config, stage: str | None, namespace: str | None) -> Iterator[UnavailableError]:
    """A rootless runtime of this user cannot let a hook enter the container's mount namespace."""
    uid = os.geteuid()
    is_rootless = uid != 0 and any(host == uid for _, host, _ in config.uid_mappings or ())
    if is_rootless and stage in ("prestart", "createRuntime") and namespace == "container":
        problem = f"at {stage} the runtime of the user {uid} cannot let the hook into the container's mount namespace"
        yield _at("enter", UnavailableError(problem, hint=ROOTLESS))


def problems_of_plan(plan: Plan, config: Config, stage: str | None, proc: Proc) -> Iterator[UnavailableError]:
    """Binds that need more rights, or another file system, than a real run will have."""
    is_nested = stage == "createContainer" and "user" in config.namespaces
    is_foreign = is_nested and bool(config.uid_mappings) and not _is_mapped(config, proc.uid_outside(os.geteuid()))
    for bind in plan.binds:
        if bind.action != "mount" or bind.problem is not None:
            continue
        request = bind.request
        if request.idmap is not None and (is_nested or proc.in_user_namespace()):
            problem = UnavailableError(
                "ids cannot be mapped from inside a user namespace",
                where=request.at("options"),
                hint="register for createRuntime, with a runtime that root starts",
            )
            yield _at("clone", problem)
        top = bind.source.info
        if request.idmap is not None and top is not None and top.type in _NEVER_MAPPED:
            text = f"the {top.type} file system of {bind.source.path} cannot be id-mapped"
            yield _at("clone", UnavailableError(text, where=request.at("options")))
        if is_foreign and bind.create:
            problem = UnavailableError(
                f"the mount point {bind.create[0].path} must be made, and nothing can be recorded in a user namespace"
                " that another user made",
                where=request.at("destination"),
                hint="make it in the image, or register for createRuntime",
            )
            yield _at("make", problem)


def _at(step: Step, problem: UnavailableError) -> UnavailableError:
    """The problem, which a real run meets at ``step``."""
    problem.step = step
    return problem


def _is_mapped(config: Config, uid: int) -> bool:
    """Whether the container's user namespace maps a uid of the host."""
    return any(host <= uid < host + size for _, host, size in config.uid_mappings or ())
