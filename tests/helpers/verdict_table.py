# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with a call of the hook: for each kind a name, and the exit code that it has alone, for root."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from helpers.verdicts import Case


class Fault(NamedTuple):
    """A change that makes a good call a bad one, and the code with which root's run ends then.

    ``is_variant``: it is of the same kind as another one, and meets others in the long form only.
    """

    name: str
    code: int
    make: Callable[[Case], object]
    is_variant: bool = False


def _variant(name: str, code: int, make: Callable[[Case], object]) -> Fault:
    return Fault(name, code, make, is_variant=True)


def _mount(text: str) -> Callable[[Case], None]:
    return lambda case: case.mount(text.replace("{}/", f"{case.scene.path}/"))


def _words(*words: str) -> Callable[[Case], None]:
    return lambda case: case.words.extend(word.replace("{}/", f"{case.scene.path}/") for word in words)


def _root(path: str) -> Callable[[Case], None]:
    def make(case: Case) -> None:
        case.root = path.replace("{}/", f"{case.scene.path}/")

    return make


def _rootfs(path: str) -> Callable[[Case], None]:
    def make(case: Case) -> None:
        case.config["root"]["path"] = path.replace("{}/", f"{case.scene.path}/")

    return make


def _state(**members: object) -> Callable[[Case], None]:
    def make(case: Case) -> None:
        for name, value in members.items():
            case.state[name] = value.replace("{}/", f"{case.scene.path}/") if isinstance(value, str) else value
        case.needs_state = case.needs_state or "bundle" not in members

    return make


def _without(member: str) -> Callable[[Case], None]:
    def make(case: Case) -> None:
        case.state.pop(member, None)
        case.needs_state = True

    return make


def _bundle_is_a_file(case: Case) -> None:
    """A dry-run of a file takes that for the config.json."""
    _state(bundle="{}/file")(case)
    case.needs_state = True


def _is_registered_nowhere(case: Case) -> None:
    """Without a state prestart is explained as called by hand then, which ends otherwise."""
    case.needs_state = True


def _state_text(change: Callable[[str], str]) -> Callable[[Case], None]:
    def make(case: Case) -> None:
        case.state_text, case.needs_state = change, True

    return make


def _config_text(change: Callable[[str], str]) -> Callable[[Case], None]:
    def make(case: Case) -> None:
        case.config_text = change

    return make


def _config(*mounts: dict[str, object], **members: object) -> Callable[[Case], None]:
    def make(case: Case) -> None:
        filled = json.loads(json.dumps([mounts, members]).replace("{}/", f"{case.scene.path}/"))
        case.config["mounts"] += filled[0]
        case.config.update(filled[1])

    return make


def _without_namespace(case: Case) -> None:
    linux = case.config["linux"]
    linux["namespaces"] = [each for each in linux["namespaces"] if each["type"] != "mount"]


def _without_id_maps(case: Case) -> None:
    """As `crun spec --rootless` writes it: crun maps root to its caller, as the scene does."""
    for name in ("uidMappings", "gidMappings"):
        case.config["linux"].pop(name, None)


def _stage(stage: str) -> Callable[[Case], None]:
    def make(case: Case) -> None:
        case.stage = stage

    return make


def _all(*makes: Callable[[Case], object]) -> Callable[[Case], None]:
    def make(case: Case) -> None:
        for each in makes:
            each(case)

    return make


def _annotation(name: str, value: str, *words: str) -> Callable[[Case], None]:
    def make(case: Case) -> None:
        key = f"io.github.oci-bind-hook.mount.{name}"
        case.config.setdefault("annotations", {})[key] = value.replace("{}/", f"{case.scene.path}/")
        _words(*words)(case)

    return make


ALLOWED = ("--allow-annotations", "--allow-source={}/allowed")
STRICT = {"process": {"args": 1}}
S = "src={}/source"

FAULTS = [
    # nothing, and what is no fault: it may hide one, or make one of another
    Fault("nothing is asked for", 0, lambda _: None),
    Fault("a good bind", 0, _mount(f"{S},dst=/new/good")),
    _variant("a good file", 0, _mount("src={}/file,dst=/etc/passwd,ro")),
    Fault("optional, and not there", 0, _mount("src={}/absent,dst=/new/optional,optional")),
    _variant("when-exists, and it does not", 0, _mount("src={}/absent,dst=/new/when,when-exists=/nowhere")),
    _variant("the same of a pattern", 0, _mount("glob,src={}/*.no,dst=/new/when,when-exists=/nowhere")),
    _variant("config.json: a violation that nobody uses", 0, _config(process={"args": 1})),
    _variant("annotation that is allowed", 0, _annotation("ok", "src={}/allowed/inside,dst=/new/asked", *ALLOWED)),
    _variant("annotation that does not count", 0, _annotation("not", "src={}/absent,dst=/new/not")),
    # read: documents
    Fault("state: no JSON", 65, _state_text(lambda text: text[:-1])),
    _variant("state: a name twice", 65, _state_text(lambda text: '{"id": "x",' + text[1:])),
    _variant("state: an id that is a path", 65, _state(id="../x")),
    _variant("state: no bundle", 65, _without("bundle")),
    _variant("state: nothing", 65, _state_text(lambda _: "")),
    Fault("bundle: not there", 66, _state(bundle="{}/absent")),
    _variant("bundle: a file", 66, _bundle_is_a_file),
    _variant("bundle: no config.json", 66, _state(bundle="{}/source")),
    _variant("config.json: no JSON", 65, _config_text(lambda text: text + "}")),
    _variant("config.json: a name twice", 65, _config_text(lambda text: '{"root": {},' + text[1:])),
    _variant("config.json: a mount without destination", 65, _config({"type": "bind"})),
    Fault("config.json: --strict", 65, _all(_config(**STRICT), _words("--strict"))),
    Fault("rootfs: not there", 66, _rootfs("{}/absent")),
    _variant("rootfs: a file", 66, _rootfs("{}/file")),
    _variant("rootfs: the host's", 77, _all(_rootfs("/"), _mount(f"{S},dst=/mnt"))),
    # read: stage and namespace
    _variant("stage: too late", 69, _state(status="running")),
    _variant("stage: poststop, too early", 69, _all(_stage("poststop"), _state())),
    _variant("stage: not one of ours", 64, _stage("startContainer")),
    _variant("stage: none", 0, _all(_stage(""), _mount(f"{S},dst=/new/by-state"))),
    Fault("stage: createRuntime without a pid", 69, _without("pid")),
    _variant("stage: pid of nobody", 69, _state(pid=4194303)),
    _variant("stage: prestart", 0, _all(_stage("prestart"), _mount(f"{S},dst=/new/early"))),
    _variant(
        "stage: prestart, and nothing to clone",
        0,
        _all(_stage("prestart"), _is_registered_nowhere, _mount("src={}/absent,dst=/new/early,optional")),
    ),
    _variant(
        "stage: prestart, in a shared namespace",
        0,
        lambda case: _all(_stage("prestart"), _without_namespace, _state(pid=case.scene.shared))(case),
    ),
    Fault("stage: prestart by hand", 0, _all(_stage("prestart"), _without("pid"))),
    Fault("stage: createContainer", 0, _all(_stage("createContainer"), _mount(f"{S},dst=/real"))),
    _variant("no id maps", 0, _all(_without_id_maps, _mount(f"{S},dst=/tmp"))),
    _variant("no id maps, too early", 0, _all(_without_id_maps, _stage("createRuntime"), _mount(f"{S},dst=/tmp/in"))),
    Fault("namespace: the state has one, config.json none", 69, _all(_without_namespace, _state())),
    Fault(
        "namespace: shared with the host",
        0,
        lambda case: _all(_without_namespace, _state(pid=case.scene.shared))(case),
    ),
    # ask: options
    Fault("option: unknown", 64, _words("--strct")),
    _variant("option: --root relative", 64, _words("--root", "run")),
    _variant("--mount: no source", 64, _mount("dst=/a")),
    _variant("--mount: unknown", 78, _mount(f"{S},dst=/a,fast")),
    Fault("--mount: contradiction", 78, _mount(f"{S},dst=/a,ro,rw")),
    _variant("--mount: source relative", 78, _mount("src=a,dst=/a")),
    _variant("--mount: destination relative", 78, _mount(f"{S},dst=a")),
    Fault("--mount: id map overlaps", 78, _mount(f"{S},dst=/a,idmap=uids=0-1000-2#1-2000-1;gids=0-1000-1")),
    _variant("--mount: id map of nobody", 78, _mount(f"{S},dst=/a,idmap")),
    _variant("--mount: subpath climbs", 78, _mount(f"{S},dst=/a,subpath=../x")),
    Fault("pattern: no match", 66, _mount("src={}/empty/*,dst=/new,type=glob")),
    _variant("pattern: no folder", 66, _mount("src={}/absent/*,dst=/new,type=glob")),
    _variant("pattern: a file's folder", 66, _mount("src={}/file/*,dst=/new,type=glob")),
    _variant("pattern: a closed folder", 0, _mount("src={}/closed/*,dst=/new,type=glob")),
    _variant("annotation: no name", 78, _annotation("a b", "src={}/allowed/inside,dst=/a", *ALLOWED)),
    _variant("annotation: asks for more", 77, _annotation("more", "src={}/allowed/inside,dst=/a,rw", *ALLOWED)),
    _variant("annotation: malformed", 64, _annotation("bad", "src", *ALLOWED)),
    _variant("config.json: a bind without a source", 78, _config({"destination": "/a", "type": "bind"})),
    # open
    Fault("source: not there", 66, _mount("src={}/absent,dst=/new/absent")),
    _variant("source: link to nowhere", 66, _mount("src={}/dangling,dst=/new/dangling")),
    _variant("source: link loop", 66, _mount("src={}/loop,dst=/new/loop")),
    _variant("source: through a file", 66, _mount("src={}/file/x,dst=/new/through")),
    Fault("source: deleted", 66, _mount("src={}/deleted,dst=/new/deleted")),
    Fault("source: subpath leads out", 77, _mount(f"{S},dst=/new/out,subpath=out")),
    _variant("source: subpath not there", 66, _mount(f"{S},dst=/new/sub,subpath=absent")),
    Fault("source: closed", 0, _mount("src={}/closed/source,dst=/new/closed")),
    _variant("annotation: source not there", 66, _annotation("gone", "src={}/allowed/absent,dst=/a", *ALLOWED)),
    _variant("annotation: source elsewhere", 77, _annotation("else", f"{S},dst=/a", *ALLOWED)),
    Fault("annotation: source leads out", 77, _annotation("out", "src={}/allowed/out,dst=/a", *ALLOWED)),
    _variant(
        "annotation: allowed folder missing", 77, _annotation("a", f"{S},dst=/a", ALLOWED[0], "--allow-source=/no")
    ),
    # clone
    Fault("clone: procfs cannot be id-mapped", 69, _mount("src=/proc,dst=/p,idmap=uids=0-1000-1;gids=0-1000-1")),
    _variant("clone: procfs, and never asked for", 69, _mount("src=/proc,dst=/,optional,idmap=uids=0-1-1;gids=0-1-1")),
    _variant(
        "clone: procfs, at prestart",
        69,
        _all(_stage("prestart"), _mount("src=/proc,dst=/p,idmap=uids=0-1000-1;gids=0-1000-1")),
    ),
    _variant("clone: an id map with ids of others", 0, _mount(f"{S},dst=/m,idmap=uids=0-1000-1;gids=0-1000-1")),
    Fault("clone: unbindable", 71, _mount("src={}/unbindable,dst=/new/unbindable")),
    # in a user namespace these are locked
    Fault("clone: another atime", 0, _mount(f"{S},dst=/new/atime,noatime")),
    _variant(
        "clone: another atime, at createContainer",
        0,
        _all(_stage("createContainer"), _mount(f"{S},dst=/new/atime,noatime")),
    ),
    _variant("clone: nodiratime", 0, _mount(f"{S},dst=/new/diratime,nodiratime")),
    # state folder
    Fault("state folder: open to others", 74, _root("{}/states/open")),
    Fault("state folder: a file", 74, _root("{}/file")),
    _variant("state folder: below a file", 74, _root("{}/file/state")),
    _variant("state folder: a link", 74, _root("{}/linked")),
    Fault("state folder: read-only", 74, _root("{}/fixed/state")),
    Fault("state folder: made in vain", 74, _all(_root("{}/fixed/absent/state"), _mount(f"{S},dst=/new/x"))),
    _variant("state folder: of another user", 74, _root("{}/states/foreign")),
    _variant("state folder: others can rename it", 74, _root("{}/changeable/state")),
    _variant("state folder: to be made", 0, _all(_root("{}/states/new/state"), _mount(f"{S},dst=/new/y"))),
    _variant("state folder: to be made in a closed one", 0, _all(_root("{}/shut/state"), _mount(f"{S},dst=/new/z"))),
    Fault("record: another container's, which lives", 74, _all(_root("{}/states/live"), _state())),
    Fault("record: unreadable", 74, _all(_root("{}/states/broken"), _state())),
    _variant("record: no file", 74, _all(_root("{}/states/fifo"), _state())),
    # resolve
    Fault("destination: the rootfs", 77, _mount(f"{S},dst=/")),
    _variant("destination: the rootfs, by climbing", 77, _mount(f"{S},dst=/etc/../../..")),
    Fault("destination: procfs", 77, _mount(f"{S},dst=/proc")),
    _variant("destination: in procfs", 77, _mount(f"{S},dst=/proc/self/attr")),
    _variant("destination: in sysfs", 77, _mount(f"{S},dst=/sys/kernel")),
    Fault("destination: links in a loop", 78, _mount(f"{S},dst=/loop/x")),
    _variant("destination: through a file", 78, _mount(f"{S},dst=/plain/x")),
    _variant("destination: folder on a file", 78, _mount(f"{S},dst=/plain")),
    _variant("destination: file on a folder", 78, _mount("src={}/file,dst=/data")),
    _variant("destination: file on a folder to be made", 78, _mount("src={}/file,dst=/new/folder/")),
    _variant("destination: name too long", 78, _mount(f"{S},dst=/{'x' * 300}")),
    _variant("destination: path too long", 78, _mount(f"{S},dst={'/x' * 2000}")),
    Fault("destination: in a volume", 78, _mount(f"{S},dst=/volume/new")),
    _variant("destination: in what is bound before", 78, _all(_mount(f"{S},dst=/data"), _mount(f"{S},dst=/data/new"))),
    Fault("destination: twice", 78, _all(_mount(f"{S},dst=/tmp/a"), _mount(f"{S},dst=/tmp/a,ro"))),
    Fault(
        "annotation: what --mount binds",
        77,
        _all(_mount(f"{S},dst=/data/mine"), _annotation("cover", "src={}/allowed/inside,dst=/data", *ALLOWED)),
    ),
    # make
    _variant("rootfs: read-only, nothing to make", 0, _all(_rootfs("{}/fixed/rootfs"), _mount(f"{S},dst=/real"))),
    Fault("rootfs: read-only, a folder to make", 71, _all(_rootfs("{}/fixed/rootfs"), _mount(f"{S},dst=/new/a"))),
    Fault("destination: too deep", 78, _mount(f"{S},dst=/deep/here")),
]
