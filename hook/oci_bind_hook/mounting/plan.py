# SPDX-License-Identifier: Apache-2.0
"""From requests to a plan: every request is resolved before anything is changed.

A dry-run describes this plan, and a real run carries it out: both use the same code.
"""

from __future__ import annotations

from ..errors import EscapeError, HookError, RequestError, UnavailableError
from ..kernel.namespace import Namespace
from ..requests.request import Recorded
from ..rootfs.admit import admit
from ..rootfs.mount_points import MountPoint, Rootfs
from ..rootfs.walk import Cover, Target, by_link
from .config_mounts import Hiders, below_rootfs, is_runtimes, lexical, upwards

HIDDEN = "a later mount on"  # the start of a warning

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Literal

    from ..record.state_file import MountRecord
    from ..requests.request import Request
    from .sources import Source

    # "left": the runtime makes it, and it is not mounted yet.
    Action = Literal["mount", "present", "left", "skipped"]


class Bind:
    """A resolved request: its ``source``, its ``target`` in the rootfs, and the ``action`` to take.

    ``by`` mounts it; None for a bind that is skipped. ``create`` are the mount points to create first.
    ``is_hidden``: a later mount covers it. ``problem`` is why it cannot be mounted, None if it can.
    """

    def __init__(self, request: Request, source: Source | None) -> None:
        self.request = request
        self._source = source
        self.target: Target | None = None
        self.action: Action = "mount"
        self.by: Literal["hook", "runtime"] | None = "hook"
        self.is_hidden = False
        self.create: list[MountPoint] = []
        self.warnings = list(request.warnings)
        self.problem: HookError | None = None

    @property
    def source(self) -> Source:
        """Its source. A real run opens none for a bind that only the runtime makes."""
        assert self._source is not None
        return self._source

    def summary(self) -> str:
        """One line for the log: what was done."""
        path = self.target.path if self.target else self.request.destination
        if self.action == "skipped":
            return f"{self.request.origin}: skipped, {self.warnings[-1]}"
        if self.action == "left":
            return f"{self.request.origin}: {self.warnings[-1]}"
        if self.action == "present":
            return f"{self.request.origin}: already mounted on {path}"
        made = "".join(f", created {point.path}" for point in self.create)
        words = " ".join(self.request.options)
        return f"{self.request.origin}: bound {self.source.path} on {path} ({words}){made}"


class Plan:
    """The ``binds`` in their order, and ``uses``, every path in the rootfs that a mount depends on."""

    def __init__(self, rootfs: Rootfs, namespace: Namespace) -> None:
        self.rootfs = rootfs
        self.namespace = namespace
        self.binds: list[Bind] = []
        self.uses: set[str] = set()

    @property
    def problems(self) -> list[HookError]:
        return [bind.problem for bind in self.binds if bind.problem is not None]

    @property
    def to_mount(self) -> list[Bind]:
        return [bind for bind in self.binds if bind.action == "mount"]


class Planner:
    """Resolves requests in order. Each destination is looked up as if the mounts planned before it existed.

    ``recorded`` are the binds that an earlier call mounted for the same container. ``allow_shared``: --allow-shared.
    ``is_admin``: the container has CAP_SYS_ADMIN.
    """

    def __init__(
        self,
        rootfs: Rootfs,
        namespace: Namespace,
        recorded: Sequence[MountRecord] = (),
        *,
        allow_shared: bool = False,
        is_admin: bool = False,
    ) -> None:
        self.plan = Plan(rootfs, namespace)
        self.rootfs = rootfs
        self.namespace = namespace
        self.recorded = Recorded(recorded)
        # By destination, the --mount that binds there; and by folder above one, such a destination. Annotations must
        # not change either.
        self._administrators: dict[str, str] = {}
        self._above_them: dict[str, str] = {}
        # By destination, the origin of what earlier calls bound for --mount, annotations and attach.
        self._taken: dict[str, str] = {}
        for mount in recorded:
            if mount["origin"] == "argument":
                self._protect(mount["resolved"], mount["by"])
            if mount["origin"] in ("argument", "annotation", "attach"):
                self._taken[mount["resolved"]] = mount["by"]
        self.allow_shared = allow_shared
        self.is_admin = is_admin
        self._by_cover: dict[Cover, Bind] = {}
        # For a dry-run, where the container's namespace does not exist yet: whether the runtime will leave the mount
        # below a target shared with the host. Arguments: the bind, its target, the runtime's bind that this is in.
        self.foresees_leak: Callable[[Bind, Target, Bind | None], bool] = lambda *_: False
        self._left: dict[Cover, Bind] = {}
        # Whether the runtime should have mounted something, and whether any of it is visible. With ``recorded`` binds
        # it counts as visible, because these may cover everything.
        self._is_awaited, self._is_seen = False, bool(recorded)
        self.is_late = False  # true for a container that runs: it may have unmounted anything
        self._hiders = Hiders(rootfs, [mount["resolved"] for mount in recorded])
        self._order: list[tuple[Request, str, Bind | None]] = []
        self._unasked: list[Request] = []  # each tmpfs that a dry-run assumes, until all mounts of config.json are

    def resolve(self, requests: Sequence[Request], sources: Sequence[Source]) -> Plan:
        """The plan for ``requests``. ``sources`` are those of the binds that is_runtimes does not leave to the runtime.

        A request that cannot be carried out raises no error: its bind has the ``problem``. Raises UnavailableError if
        the runtime has not mounted anything yet.
        """
        source_of = {source.request: source for source in sources}
        self._hiders.await_requests(requests)
        for request in requests:
            if not request.is_from_mounts:
                self._ask_assumed()
            if request.is_bind:
                bind = Bind(request, source_of.get(request))
                self.plan.binds.append(bind)
                try:
                    if request.is_root:
                        self._resolve_root(bind)
                    elif is_runtimes(request, self.namespace.kind, self.rootfs.path):
                        self._leave(bind)
                    else:
                        self._resolve(bind)
                except HookError as problem:
                    problem.where = problem.where or request.at("destination")
                    bind.problem = problem
                if self.is_admin and bind.action == "mount" and request.is_read_only:
                    bind.warnings.append("the container has CAP_SYS_ADMIN and can make the bind writable again")
                if bind.action == "mount" and not request.is_root:
                    bind.warnings += bind.source.warnings
                if bind.target is not None and bind.action != "skipped":
                    self._order.append((request, bind.target.path, bind))
            else:
                self._pass(request)
        self._check_runtime()
        self._warn_of_hidden()
        return self.plan

    @property
    def order(self) -> Sequence[tuple[Request, str, Bind | None]]:
        """All mounts in their order, as (request, resolved path, Bind); None instead of a Bind for other mounts."""
        return self._order

    def _check_runtime(self) -> None:
        """Raises UnavailableError if a runtime should have mounted something by now, and has not."""
        if self._is_awaited and not self._is_seen and not self.is_late:
            raise UnavailableError(
                "no mount of config.json is visible in the container's mount namespace",
                hint="the runtime called the hook before mounting, restores a checkpoint, or uses another config.json, "
                "as with crun --config; in this state the hook cannot bind anything",
            )

    def _warn_of_hidden(self) -> None:
        """Adds a warning to every bind that a later mount covers, the runtime's or the hook's."""
        later: dict[str, str] = {}
        for request, path, bind in reversed(self._order):
            if bind is not None and not bind.is_hidden:
                for above in upwards(path):
                    if above in later:
                        bind.is_hidden = True
                        if bind.problem is None:  # otherwise it is not mounted at all
                            bind.warnings.append(f"{HIDDEN} {later[above]} hides it")
                        break
            later[path] = request.destination

    def _pass(self, request: Request) -> None:
        """Notes a mount that only the runtime makes. If it cannot be resolved, the runtime reports that."""
        if request.type == "remount":
            return
        try:
            target = self._find(request)
        except HookError:
            return
        self.plan.uses.update(target.uses)
        self._order.append((request, target.path, None))
        self._note(request, target)
        if self.namespace.assumed and self.namespace.kind == "container" and not self._is_elsewhere(request):
            self.rootfs.assume(target, Cover(request.type))
            self._unasked += [request] if request.type == "tmpfs" else []
        elif request.type == "tmpfs":
            self._ask(target)
        target.close()

    def _ask_assumed(self) -> None:
        """Calls ``_ask`` for each tmpfs that a dry-run assumes. A run finds it after all mounts of config.json."""
        while self._unasked:
            try:
                target = self._find(self._unasked.pop())
            except HookError:
                continue
            self._ask(target)
            target.close()

    def _ask(self, target: Target) -> None:
        """Notes the mount on the destination of a tmpfs of config.json.

        What cannot be found there, such as a tmpfs that hides a link on its own path, is not known as the container's.
        """
        last = target.last
        if last.cover is not None and last.exists:
            self.rootfs.asked.add(last.cover)
        elif last.stat is not None and last.stat.mount_root:
            self.rootfs.asked.add(last.stat.mnt_id)

    def _find(self, request: Request) -> Target:
        """Where a mount of the runtime is or, if it is not mounted, where its destination leads. Raises HookError."""
        target = self._walk(request)
        inside = below_rootfs(self.rootfs.path, request.destination)
        if inside and not _is_mount(target):
            other = self.rootfs.resolve(inside)
            if _is_mount(other):
                target.close()
                return other
            other.close()
        return target

    def _is_elsewhere(self, request: Request) -> bool:
        """Whether the runtime may not mount on this destination: it may do something else, or use another one."""
        return request.is_runtimes_alone or below_rootfs(self.rootfs.path, request.destination) != ""

    def _note(self, request: Request, target: Target) -> None:
        """Notes whether the runtime should have mounted something on ``target`` by now, and whether it has."""
        if self.namespace.kind == "container" and not self.namespace.assumed and not self._is_elsewhere(request):
            self._is_awaited = True
        self._is_seen = self._is_seen or _is_mount(target)

    def _resolve(self, bind: Bind) -> None:
        request, source = bind.request, bind.source
        target = bind.target = self._walk(request)
        if request.is_from_mounts:
            self._note(request, target)
        elif inside := below_rootfs(self.rootfs.path, request.destination):
            bind.warnings.append(f"the destination starts with the path of the rootfs; if you mean {inside}, use that")
        is_recorded = self.recorded.find(request) is not None
        if is_recorded or self._is_present(bind, target):
            bind.action = "present"
            bind.by = "hook" if is_recorded else "runtime"
            self.plan.uses.update(target.uses)
            target.close()
            return
        if skipped := self._why_skipped(bind):
            bind.action, bind.by = "skipped", None
            bind.warnings.append(skipped)
            target.close()
            return
        self.plan.uses.update(target.uses)
        if source.error:
            raise source.error
        try:
            self._plan_on(bind, target)
        except (EscapeError, RequestError) as problem:
            problem.problem += by_link(target.links)
            raise

    def _plan_on(self, bind: Bind, target: Target) -> None:
        """Plans a bind on its destination ``target``. Raises HookError if it must not or cannot be mounted there."""
        request, source = bind.request, bind.source
        if request.origin_kind == "annotation":
            self._check_administrators(target.path)
        admit(self.rootfs, target, directory=source.is_folder)
        self._check_double(request, target)
        self._check_leak(bind, target)
        cover = _cover(source)
        self._by_cover[cover] = bind
        if request.origin_kind == "argument":
            self._protect(target.path, request.origin)
        try:
            bind.create = self.rootfs.reserve(target, cover, directory=source.is_folder)
            if request.may_mean_star and any("*" in point.path for point in bind.create):
                bind.warnings.append(
                    f"the * in {target.path} is a literal star; with type=glob it would stand for a match"
                )
        except RequestError as problem:
            self._name_mount(problem, target)
            raise

    def _walk(self, request: Request) -> Target:
        """The resolved destination of a request. Raises HookError."""
        nofollow = request.nofollow or request.is_runtimes_alone
        target = self.rootfs.resolve(request.destination, nofollow=nofollow)
        if not (
            request.nofollow and target.last.is_link and is_runtimes(request, self.namespace.kind, self.rootfs.path)
        ):
            return target
        # runc does not support dest-nofollow: if nothing is mounted on the link, the mount may be on the link's target.
        if not self.namespace.assumed and target.last.stat is not None and not target.last.stat.mount_root:
            target.close()
            return self.rootfs.resolve(request.destination)
        return target

    def _name_mount(self, problem: RequestError, target: Target) -> None:
        """Adds to ``problem`` the mount in which the mount point would have to be created, and where on the host."""
        inside = next((path for step, path in target.paths() if step is target.anchor), "/")
        for request, path, bind in reversed(self._order):
            if request.is_root or path not in upwards(inside):
                continue
            if not request.is_bind:
                break
            source = request.source if bind is None or bind.action != "mount" else bind.source.path
            problem.problem = f"{problem.problem}, the one on {path}"
            problem.hint = f"create {source}{target.path[len(path) :]} on the host, in the source of {request.origin}"
            return
        anchor = target.anchor
        info = self.namespace.mount_of(anchor.stat) if anchor.stat is not None else None
        if info is not None:
            problem.problem = f"{problem.problem}, the {info.type} on {info.mount_point}"
        elif anchor.stat is None and anchor.cover is not None:
            problem.problem = f"{problem.problem}, the {anchor.cover.type} on {self.rootfs.place(inside)}"

    def _resolve_root(self, bind: Bind) -> None:
        """Plans the read-only root on top of the rootfs: later destinations are resolved in that mount."""
        target = bind.target = self.rootfs.resolve("/")
        if self.recorded.find(bind.request):
            bind.action = "present"
            self.rootfs.unlock = not self.namespace.is_locked_by_host(self.rootfs.stat)
            return
        if bind.source.error:
            raise bind.source.error
        self._check_leak(bind, target)
        self.rootfs.push_root(bind.source.fd)

    def _why_skipped(self, bind: Bind) -> str:
        """The condition of the request because of which the bind is skipped, "" if none applies."""
        request = bind.request
        if request.optional and bind.source.is_missing:
            hint = bind.source.error.hint if bind.source.error is not None and "*" in request.source else ""
            return "the source is optional and does not exist" + (f": {hint}" if hint else "")
        if request.when_exists is not None:
            condition = self.rootfs.resolve(request.when_exists)
            condition.close()
            if not self.rootfs.exists(condition):
                return f"{request.when_exists} does not exist in the container"
        return ""

    def _leave(self, bind: Bind) -> None:
        """Notes a bind that only the runtime makes, as present or left. Its source is not accessed."""
        bind.action, bind.by = "left", "runtime"
        is_elsewhere = self._is_elsewhere(bind.request)
        if is_elsewhere and not bind.request.is_runtimes_alone:
            said = "the destination starts with the path of the rootfs, a prefix that only runc removes"
            bind.warnings.append(f"{said}; the hook leaves this bind to the runtime")
        try:
            target = bind.target = self._find(bind.request)
            self.plan.uses.update(target.uses)
            self._note(bind.request, target)
            if self.namespace.assumed and not is_elsewhere:  # the runtime will mount it later
                cover = _cover(bind.source)
                self._left[cover] = bind
                self.rootfs.assume(target, cover)
            elif _is_mount(target) or (not is_elsewhere and self._is_hidden(bind, target)):
                bind.action = "present"
            elif not is_elsewhere:
                bind.warnings.append(f"left to the runtime: nothing is mounted on {target.path}")
            target.close()
        except HookError as problem:
            bind.warnings.append(f"left to the runtime: {problem.problem}")

    def _is_present(self, bind: Bind, target: Target) -> bool:
        """Whether a bind of config.json is already mounted, in a namespace that the runtime did not create."""
        source, stat = bind.source, target.last.stat
        if not bind.request.is_from_mounts or stat is None or not stat.mount_root:
            return False
        return source.error is None and (stat.dev, stat.ino) == (source.stat.dev, source.stat.ino)

    def _is_hidden(self, bind: Bind, target: Target) -> bool:
        """Whether a later mount of the runtime, or an earlier bind of the hook, covers this bind of config.json.

        Its destination, looked up now, would be another place, for example behind a link inside the covering mount.
        """
        passed = [lexical(bind.request.destination), target.path, *(at for at, _ in target.links)]
        name = self._hiders.find(bind.request, passed)
        if name is None:
            return False
        bind.warnings.append(f"{HIDDEN} {name} hides it")
        bind.is_hidden = True
        return True

    def _protect(self, place: str, origin: str) -> None:
        self._administrators[place] = origin
        for above in upwards(place):
            self._above_them.setdefault(above, place)

    def _check_administrators(self, path: str) -> None:
        """Refuses an annotation that would cover a bind of ``--mount``, or a part of it. Raises EscapeError."""
        if place := self._above_them.get(path):
            origin = self._administrators[place]
            raise EscapeError(f"{path} would cover {place}, the destination of {origin}: annotations must not do this")
        for place in upwards(path):
            if origin := self._administrators.get(place, ""):
                raise EscapeError(
                    f"{path} is inside {place}, the destination of {origin}: annotations must not change this"
                )

    def _check_double(self, request: Request, target: Target) -> None:
        """Refuses a second bind on one destination, which would cover the first. Raises RequestError.

        The first may be from an earlier call, for another registration of this hook.
        """
        # A dry-run does not see the first one: its mount is in the container's namespace.
        if target.path in self._taken and (_is_mount(target) or self.namespace.assumed):
            origin = self._taken[target.path]
            raise RequestError(f"{target.path} is already the destination of {origin} in an earlier call of the hook")
        cover = target.last.cover
        is_root = cover is not None and cover.held == (target.last.fd, target.last.stat)
        first = self._by_cover.get(cover) if cover is not None and is_root else None
        if first is None or first.request.is_from_mounts:
            return
        if request.pattern is not None and request.pattern is first.request.pattern:
            problem = f"{first.request.source} and {request.source} would both be bound on {target.path}"
            raise RequestError(problem, hint=request.pattern.apart)
        of = f", for {first.request.source}" if first.request.pattern is not None else ""
        raise RequestError(f"{target.path} is already the destination of {first.request.origin}{of}")

    def _check_leak(self, bind: Bind, target: Target) -> None:
        """Refuses to attach to a mount that is shared with the host. Raises EscapeError.

        The propagation of the mount that the bind is attached to decides, not that of the bind itself: when a bind is
        attached to a shared mount, the kernel attaches a copy to every peer, mount_namespaces(7). A copy on the host
        stays after the container ends, and no record has its id. After setns(2) the host's peer groups are known,
        because its mountinfo was opened before: only a group that the host also has is refused. At createContainer the
        hook starts inside the container's namespace and cannot read the host's table. There any peer group is refused,
        although it may be private to the container, because nothing would undo a copy on the host.
        """
        anchor = target.anchor
        planned = self._by_cover.get(anchor.cover) if anchor.cover is not None else None
        if anchor.stat is None:
            return
        if planned is None and self.namespace.assumed and self.namespace.kind == "container":
            left = self._left.get(anchor.cover) if anchor.cover is not None else None
            is_shared = self.foresees_leak(bind, target, left)
        elif planned is not None:
            is_shared = planned.source.shares(anchor.stat.mnt_id)
        else:
            info = self.namespace.mount_of(anchor.stat)
            is_shared = info is not None and info.shared is not None
            if is_shared and self.namespace.entered:
                is_shared = info is not None and info.shared in self.namespace.groups_started_in()
        if not is_shared:
            return
        if self.namespace.kind == "runtime" or self.allow_shared:
            bind.warnings.append(
                f"{target.path} is below a shared mount: the bind also appears in other mount namespaces"
            )
            return
        raise EscapeError(
            f"{target.path} is below a mount that is shared with the host: the bind would appear on the "
            "host and stay there",
            hint="to allow this, pass --allow-shared",
        )


def _cover(source: Source) -> Cover:
    """What a bind puts in place of its destination, without a further access to the source's file system."""
    if source.error is not None:
        return Cover("bind")
    types = {number: info.type for number, info in source.infos.items() if info is not None}
    return Cover("bind", (source.fd, source.stat), types)


def _is_mount(target: Target) -> bool:
    """Whether the target is the root of a mount."""
    return target.last.stat is not None and target.last.stat.mount_root
