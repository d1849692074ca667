# SPDX-License-Identifier: Apache-2.0
"""Which stage this is, and how the container's mount namespace is got into.

Runtimes tell no hook its stage, and disagree about pid, namespaces and ``/proc``. A stage named by the administrator
decides; else it is told from what holds for every runtime.
"""

from __future__ import annotations

import os

from .errors import KernelError, UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .bundle import Bundle
    from .proc import Namespace, Proc
    from .spec import State
    from .statefile import InitRecord


class Place:
    """Where the runtime has started us, and by which process the container's namespace can be entered.

    ``is_inside`` tells that we are in a pid namespace of the container's already, whatever ``/proc`` belongs to.
    """

    def __init__(self, stage: str | None, state: State, proc: Proc) -> None:
        self.proc = proc
        self.stage = stage or ""
        pids = proc.pids()
        self.is_inside = len(pids) > 1 or pids != [os.getpid()]
        self._pidfd: int | None = None
        self.init: InitRecord | None = None
        self._pid = state.pid if state.pid is not None and state.pid > 1 else None

    def choose(self, bundle: Bundle) -> str:
        """Decides on the stage and opens the process to enter, if any. Returns the stage. UnavailableError."""
        if not self.stage:
            self.stage = "createContainer" if self.is_inside else "createRuntime"
            if self._pid is None and not self.is_inside and not bundle.has_namespace:
                self.stage = "prestart"
        if self.stage == "createContainer":
            self._check_inside(bundle)
            self.init = self._describe(self.proc.parent())
        elif self._pid is not None:
            self._open(self._pid)
        elif self.stage == "createRuntime":
            raise UnavailableError(
                "the state names no process whose mount namespace could be entered",
                hint="name the STAGE as first argument: createContainer, or prestart to mount in this namespace",
            )
        return self.stage

    def _open(self, pid: int) -> None:
        try:
            self._pidfd = os.pidfd_open(pid)
        except OSError as reason:
            raise UnavailableError(f"the container's process {pid} cannot be opened: {reason.strerror}") from reason
        number = self.proc.pid_of(self._pidfd)
        self.init = self._describe(number)
        if self.proc.pid_of(self._pidfd) != number or self.init is None:
            raise UnavailableError(f"the container's process {pid} has ended")

    def _describe(self, pid: int) -> InitRecord | None:
        start = self.proc.start_time(pid) if pid > 0 else None
        return None if start is None else {"pid": pid, "start": start}

    def _check_inside(self, bundle: Bundle) -> None:
        """createContainer is called inside the container's namespaces; anywhere else its mounts would hit the host."""
        if not bundle.has_namespace:
            return
        inside = bundle.rootfs + "/"
        if bundle.config.namespaces.get("pid", "") is None:
            is_right = self.is_inside
        else:
            is_right = any(info.mount_point.startswith(inside) for info in self.proc.mounts())
        if not is_right:
            raise UnavailableError(
                "this is not the container's mount namespace, as it is at createContainer",
                hint="register it for createContainer, or name the right STAGE",
            )

    def enter(self, namespace: Namespace) -> None:
        """Enters the container's namespace, if it is not the one we are in. KernelError."""
        if self._pidfd is not None:
            try:
                namespace.enter(self._pidfd)
            except OSError as reason:
                hint = "CAP_SYS_ADMIN and CAP_SYS_CHROOT are needed; rootless, register for createContainer"
                raise KernelError("setns", "the container's mount namespace", reason, hint=hint) from reason
        if not namespace.entered and not self.is_inside and self.stage == "prestart":
            namespace.kind = "runtime"
