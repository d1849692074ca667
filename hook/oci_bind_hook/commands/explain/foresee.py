# SPDX-License-Identifier: Apache-2.0
"""What the kernel will refuse to a real run, for want of rights or of a file system's features.

Any user may call a dry-run, while the real run belongs to whoever starts the runtime. So only what config.json itself
shows of that user counts here.
"""

from __future__ import annotations

import os

from ...errors import HookError, UnavailableError
from ...lifecycle.stage import ROOTLESS

# File systems that cannot be id-mapped, as of Linux 6.18. Of the others it depends on the kernel, which tells who may
# try it.
_NEVER_MAPPED = frozenset("cgroup cgroup2 devpts devtmpfs mqueue proc sysfs".split())

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ...documents.oci import Config
    from ...errors import Step
    from ...kernel.proc import Proc
    from ...mounting.plan import Plan
    from ...mounting.sources import Source


def problems_of_stage(config: Config, stage: str | None, namespace: str | None) -> Iterator[HookError]:
    """A rootless runtime of this user cannot let a hook enter the container's mount namespace."""
    uid = os.geteuid()
    is_rootless = uid != 0 and any(host == uid for _, host, _ in config.uid_mappings or ())
    if is_rootless and stage in ("prestart", "createRuntime") and namespace == "container":
        problem = f"at {stage} the runtime of the user {uid} cannot let the hook into the container's mount namespace"
        yield _at("enter", UnavailableError(problem, hint=ROOTLESS))


def problems_of_sources(
    sources: Iterable[Source], config: Config, stage: str | None, proc: Proc
) -> Iterator[HookError]:
    """Sources whose ids the kernel will not map.

    As in a real run, mounting.sources.clone_sources, one of config.json is no problem yet: it gets the error, which
    counts if the hook has to mount it.
    """
    is_inside = _is_nested(config, stage) or proc.in_user_namespace()
    for source in sources:
        request, top = source.request, source.info
        if request.idmap is None or source.error is not None:
            continue
        problem: HookError
        if is_inside:
            problem = UnavailableError(
                "ids cannot be mapped from inside a user namespace",
                where=request.at("options"),
                hint="register for createRuntime, with a runtime that root starts",
            )
        elif top is not None and top.type in _NEVER_MAPPED:
            text = f"the {top.type} file system of {source.path} cannot be id-mapped"
            problem = UnavailableError(text, where=request.at("options"))
        elif refusal := source.refused_map():
            problem = refusal
        else:
            continue
        if request.is_from_mounts:
            source.error = problem
        else:
            yield _at("clone", problem)


def problems_of_plan(plan: Plan, config: Config, stage: str | None, proc: Proc) -> Iterator[HookError]:
    """Mount points that must be made where nothing can be recorded."""
    is_nested = _is_nested(config, stage)
    if not is_nested or not config.uid_mappings or _is_mapped(config, proc.uid_outside(os.geteuid())):
        return
    for bind in plan.to_mount:
        if bind.create and bind.problem is None:
            problem = UnavailableError(
                f"the mount point {bind.create[0].path} must be made, and nothing can be recorded in a user namespace"
                " that another user made",
                where=bind.request.at("destination"),
                hint="make it in the image, or register for createRuntime",
            )
            yield _at("make", problem)


def _is_nested(config: Config, stage: str | None) -> bool:
    """Whether the hook will run in the container's own user namespace."""
    return stage == "createContainer" and "user" in config.namespaces


def _at(step: Step, problem: HookError) -> HookError:
    """The problem, which a real run meets at ``step``."""
    problem.step = step
    return problem


def _is_mapped(config: Config, uid: int) -> bool:
    """Whether the container's user namespace maps a uid of the host."""
    return any(host <= uid < host + size for _, host, size in config.uid_mappings or ())
