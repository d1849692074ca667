# SPDX-License-Identifier: Apache-2.0
"""Binds into a container that runs: the steps of set_up, in the place that lifecycle.running describes.

If anything fails, only this call is undone, because the container runs on.
"""

from __future__ import annotations

import time

from ..errors import At, EscapeError, UnavailableError
from ..kernel import linux, rights
from ..kernel.proc import Proc
from ..mounting.sources import expand
from ..requests import collect
from .running import Running, check_process
from .set_up import Call, before, mount, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..documents.bundle import Bundle
    from ..documents.oci import State
    from ..kernel.namespace import Namespace
    from ..log import Log
    from ..mounting.plan import Bind, Plan, Planner
    from ..options import Options
    from ..record.state_file import Record
    from ..requests.request import Request
    from ..rootfs.mount_points import Rootfs


class Attach(Call):
    """A call for a container that runs. ``binds`` are those of the plan that was carried out."""

    is_start = False

    def __init__(self, options: Options, state: State, log: Log) -> None:
        super().__init__(options, state, log)
        self._place = self.running = Running(state, Proc(options.root))
        self.binds: list[Bind] = []
        self._is_admin = False

    def prepare(self) -> tuple[Bundle, list[Request]]:
        """Holds the process, reads the bundle, and returns it with what is asked for. HookError."""
        with At("read"):
            bundle = self.bundle = read(self, None)
        with At("ask"):
            return bundle, self._requests(bundle)

    def _requests(self, bundle: Bundle) -> list[Request]:
        """What is asked for, after the container's own mounts. HookError."""
        self._is_admin = bundle.config.is_admin or self.running.may_have(linux.CAP_SYS_ADMIN)
        asked = collect.requests(bundle.config, self.options.mounts)
        for request in asked:
            if request.origin_kind == "argument":
                request.origin_kind, request.time = "attach", int(time.time())
        found = expand(asked, before(self.log))
        for request in found:
            if request.origin_kind == "attach" and request.is_read_only and self._is_admin and not self.options.force:
                raise EscapeError(
                    "root in the container has CAP_SYS_ADMIN, and can make the bind writable again",
                    where=request.at("options"),
                    hint="use a source on a read-only file system, such as squashfs, and omit ro; or pass --force",
                )
        return found

    def begin(self, record: Record, requests: list[Request]) -> None:
        check_process(record, self.running)
        known = [mount["by"].removeprefix("attach ") for mount in record["mounts"] if mount["origin"] == "attach"]
        last = max((int(number) for number in known if number.isdigit()), default=0)
        for request in requests:
            if request.origin_kind == "attach":
                request.origin = f"attach {last + int(request.place.removeprefix('--mount '))}"

    def planner(self, rootfs: Rootfs, namespace: Namespace, record: Record) -> Planner:
        planner = super().planner(rootfs, namespace, record)
        # The runtime has mounted all of its own. What is not there any more, the container has unmounted.
        planner.is_late = True
        planner.is_admin = self._is_admin
        return planner

    def check_attached(self, plan: Plan) -> None:
        """Refuses binds that have propagated, since the mount below joined a peer group of the host. EscapeError."""
        table = plan.namespace.proc.mounts()
        for bind in plan.to_mount if not self.options.allow_shared else ():
            info = table.get(bind.source.attached[0]["id"])
            below = table.get(info.parent) if info is not None else None
            if info is None and table.get(plan.rootfs.stat.mnt_id) is None:
                raise UnavailableError("the container has just changed its root")
            if info is None:
                place = bind.request.destination if bind.target is None else bind.target.path
                raise UnavailableError(f"the bind on {place} has just been unmounted", hint="run the command again")
            if below is not None and below.shared is not None and below.shared in plan.namespace.groups_started_in():
                raise EscapeError(f"the mount on {below.mount_point} has just become shared with the host")

    def tell(self, plan: Plan) -> None:
        super().tell(plan)
        self.binds = [bind for bind in plan.binds if not bind.request.is_from_mounts]


def attach(options: Options, state: State, log: Log) -> list[Bind]:
    """Binds what ``options`` ask for into the container of ``state``, and returns the binds. HookError."""
    rights.hide()
    call = Attach(options, state, log)
    bundle, requests = call.prepare()
    mount(call, bundle, requests, "container")
    return call.binds
