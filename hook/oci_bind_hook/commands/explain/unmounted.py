# SPDX-License-Identifier: Apache-2.0
"""What is known of a bundle without its rootfs: it does not answer, or its engine has not mounted it now.

podman, docker and containerd mount a rootfs before they call a runtime, and unmount it after the container has ended.
So a real run never finds it unmounted.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

from ...errors import UnavailableError
from ...mounting.config_mounts import is_runtimes
from ...mounting.plan import Bind, Plan
from . import recognise
from .facts import describe, holds_anything

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...documents.bundle import Bundle
    from ...errors import HookError
    from ...kernel.namespace import Namespace
    from ...kernel.proc import Proc
    from ...mounting.sources import Source
    from ...requests.request import Request
    from ...rootfs.mount_points import Rootfs
    from .containers import Container
    from .report import Report


def is_unmounted(rootfs: str, proc: Proc) -> bool:
    """Whether this rootfs is one that an engine mounts, and is not mounted in this namespace, hence empty."""
    is_mounted = any(mount.mount_point == rootfs for mount in proc.mounts())
    return recognise.is_mounted_by_engine(rootfs) and not is_mounted and not holds_anything(rootfs)


def without_destinations(
    report: Report,
    bundle: Bundle,
    opened: list[list[Source]],
    namespace: Namespace,
    container: Container | None,
    before: Callable[[Request, str], None],
) -> None:
    """Adds what would be bound, and why the destinations cannot be resolved now. ``before``: as for describe."""
    plan = Plan(cast("Rootfs", None), namespace)  # not used, since no destination is resolved
    for source in judge_sources(report, opened, namespace, bundle.rootfs):
        plan.binds.append(Bind(source.request, source))
    if (plan.binds or report.registered) and not report.is_turned_off:
        report.unknown.append(
            _why_elsewhere(report.command, bundle, container, namespace.proc) or _why(bundle, container)
        )
    report.mounts = describe(plan, writable_root=False, before=before)


def judge_sources(report: Report, opened: list[list[Source]], namespace: Namespace, rootfs: str) -> list[Source]:
    """Returns the sources that the hook binds, of all calls. Errors of sources become problems of the report."""
    found = []
    for report.turn, sources in enumerate(opened):
        for source in sources:
            request = source.request
            if is_runtimes(request, namespace.kind, rootfs):
                continue
            found.append(source)
            if source.error is None or (request.optional and source.is_missing):
                continue
            if request.when_exists is None:
                report.add(source.error, "resolve")
            else:
                report.warnings.append(f"if {request.when_exists} is in the rootfs, the hook fails: {source.error}")
    report.turn = 0
    return found


def _why_elsewhere(command: str, bundle: Bundle, container: Container | None, proc: Proc) -> HookError | None:
    """Returns the error for a container that runs, whose rootfs is only in the runtime's mount namespace."""
    if container is None or container.pid is None:
        return None
    try:
        runtime = proc.parent(container.pid)
    except OSError:
        return None  # it has just ended
    if not proc.mounts_of(runtime).at(bundle.rootfs):
        return None
    problem = f"the rootfs {bundle.rootfs} is mounted only in another mount namespace, that of process {runtime}"
    words = " --dry-run --mount ..." if command == "attach" else ""
    command = f"oci-bind-hook {command} {container.name or container.id}{words}"
    if os.geteuid() == 0:
        return UnavailableError(problem, hint=f"run nsenter --mount=/proc/{runtime}/ns/mnt {command}")
    return UnavailableError(problem, hint=f"run podman unshare {command}")


def _why(bundle: Bundle, container: Container | None) -> HookError:
    engine = recognise.engine(bundle.config.annotations, bundle.path, bundle.rootfs)
    problem = f"the rootfs {bundle.rootfs} is not mounted now, so the hook cannot resolve the destinations"
    does_so = f"{engine or 'its engine'} mounts it before it calls the hook"
    if engine != "podman" or recognise.is_intermediate(bundle.rootfs):
        return UnavailableError(problem, hint=f"{does_so}: explain the container while it runs")
    name = container.name or container.id if container is not None else bundle.path.split("/")[-2]
    shell = "" if os.geteuid() == 0 else ", in a shell of `podman unshare`,"
    return UnavailableError(problem, hint=f"{does_so}; `podman mount {name}`{shell} does it now")
