# SPDX-License-Identifier: Apache-2.0
"""A dry-run tells what the real run does, with its exit code, and asks the kernel for no change; nobody may run it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from typing import TYPE_CHECKING, Any

import pytest

from helpers import support
from helpers import world as worlds
from oci_bind_hook.commands.explain import dry_run
from oci_bind_hook.commands.explain.report import as_json
from oci_bind_hook.documents import oci
from oci_bind_hook.options import Options

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from helpers.world import World

NOBODY = 65534

# An ordinary user, who may change nothing, but may look behind a folder of mode 0700: such a one is above the
# interpreter or above pytest's temporary folders on some machines.
AS_NOBODY = (
    *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
    *(
        "--inh-caps=-all,+dac_read_search",
        "--ambient-caps=-all,+dac_read_search",
        "--bounding-set=-all,+dac_read_search",
    ),
)


def call(command: Sequence[str], stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, check=False, timeout=60, env={"PATH": support.PATH}
    )


def state_of(world: World, **members: Any) -> str:
    bundle = str(world.path / "bundle")
    return json.dumps({"ociVersion": "1.0.2", "id": "c1", "status": "creating", "bundle": bundle, **members})


def by_hand(world: World, *arguments: str) -> list[str]:
    return [world.launcher, "prestart", "--root", str(world.state), *arguments]


# A real run ends with the same code, for the same reason

MOUNT = "type=bind,src={source},dst="
IDS_OF_PROC = "src=/proc,dst=/p,idmap=uids=0-1000-1;gids=0-1000-1"
IDS = [{"containerID": 0, "hostID": 1000, "size": 1}]


def proc_by_config(destination: str) -> dict[str, Any]:
    """A bind of config.json whose ids the kernel will not map."""
    return {**support.bind("/proc", destination), "uidMappings": IDS, "gidMappings": IDS}


BAD: dict[str, tuple[list[dict[str, Any]], list[str], int]] = {
    "malformed": ([], ["src=/a"], 64),
    "unknown key": ([], [f"{MOUNT}/a,x=y"], 78),
    "other type": ([], ["type=tmpfs,dst=/a"], 78),
    "relative destination": ([], [f"{MOUNT}a"], 78),
    "relative source": ([], ["src=a,dst=/a"], 78),
    "source missing": ([], ["src=/absent,dst=/a"], 66),
    "source of config.json missing": ([support.bind("/absent", "/a")], [], 66),
    "source not given": ([{"destination": "/a", "type": "bind"}], [], 78),
    "the root": ([], [f"{MOUNT}/"], 77),
    "the root by a way round": ([], [f"{MOUNT}/etc/../../.."], 77),
    "procfs": ([], [f"{MOUNT}/proc"], 77),
    "in procfs": ([], [f"{MOUNT}/proc/self/attr"], 77),
    "sysfs": ([], [f"{MOUNT}/sys/kernel"], 77),
    "folder on a file": ([], [f"{MOUNT}/etc/passwd"], 78),
    "file on a folder": ([], ["src={file},dst=/etc"], 78),
    "file on a folder to be made": ([], ["src={file},dst=/new/"], 78),
    "below a file": ([], [f"{MOUNT}/etc/passwd/x"], 78),
    "links in a loop": ([], [f"{MOUNT}/loop/x"], 78),
    "name too long": ([], [f"{MOUNT}/{'x' * 300}"], 78),
    "inside a volume": ([], [f"{MOUNT}/data", f"{MOUNT}/data/new"], 78),
    "inside a volume of config.json": ([support.bind("{source}", "/data")], [f"{MOUNT}/data/new"], 78),
    "no ids to map": ([support.bind("{source}", "/a", "idmap")], [], 78),
    "the first of two counts": ([], [f"{MOUNT}/", "src=/absent,dst=/a"], 77),
    "the other first": ([], ["src=/absent,dst=/a", f"{MOUNT}/"], 66),
    # All sources are cloned before the first destination is resolved, which is where a missing one counts.
    "ids of procfs, then a source missing": ([], [IDS_OF_PROC, "src=/absent,dst=/b"], 69),
    "a source missing, then ids of procfs": ([], ["src=/absent,dst=/b", IDS_OF_PROC], 69),
    "ids of procfs, then the root": ([], [IDS_OF_PROC, f"{MOUNT}/"], 69),
    "the root, then ids of procfs": ([], [f"{MOUNT}/", IDS_OF_PROC], 69),
    "ids of procfs, of a bind that nothing asks for": ([], [f"{IDS_OF_PROC},when-exists=/absent"], 69),
    "ids of procfs, and the root": ([], [IDS_OF_PROC.replace("/p,", "/,")], 69),
    # A bind of config.json counts in its turn.
    "a file on a folder, then ids of procfs by config.json": (
        [support.bind("{file}", "/etc"), proc_by_config("/p")],
        [],
        78,
    ),
    "ids of procfs by config.json, then a file on a folder": (
        [proc_by_config("/p"), support.bind("{file}", "/etc")],
        [],
        69,
    ),
    "ids of procfs by config.json, on the root": ([proc_by_config("/")], [], 69),
    "ids of procfs by config.json, on a file": ([proc_by_config("/etc/passwd")], [], 69),
    "schema": ([{"destination": "/a", "type": 1}], [], 65),
    "two violations": ([{"destination": "", "type": 1}], [], 65),
    "id": ([], [f"{MOUNT}/a"], 65),
    "status": ([], [f"{MOUNT}/a"], 69),
    "good": ([support.bind("{source}", "/a")], [f"{MOUNT}/climb", "src={file},dst=/new/file,ro"], 0),
}
STATES = {"id": {"id": "../x"}, "status": {"status": "running"}}


@pytest.mark.parametrize("case", BAD)
def test_exit_code_is_that_of_the_real_run(world: World, case: str) -> None:
    mounts, arguments, code = BAD[case]
    text = json.dumps([mounts, [f"--mount={each}" for each in arguments]])
    mounts, options = json.loads(text.replace("{source}", str(world.source)).replace("{file}", str(world.file)))
    support.bundle(world.path / "bundle", ["true"], mounts=mounts)
    os.symlink("loop", f"{world.rootfs}/loop")
    state = state_of(world, **STATES.get(case, {}))
    command = by_hand(world, *options)
    before = world.snapshot()
    planned = call([*command, "--dry-run", "--format", "json"], state)
    assert world.snapshot() == before
    real = call(command, state)
    assert (planned.returncode, real.returncode) == (code, code), real.stderr
    report = json.loads(planned.stdout)
    assert oci.violations(report, "plan") == []
    assert [problem["exit"] for problem in report["problems"][:1]] == ([code] if code else [])
    assert report["verdict"].startswith(f"would fail: {code}, " if code else "ready: ")
    if code:
        first = report["problems"][0]
        place = f"{first['where']}: " if first["where"] else ""
        assert f": {place}{first['message']}" in real.stderr
        assert first["hint"] in real.stderr
        assert world.snapshot() == before
    else:
        assert world.snapshot() != before


def test_only_a_relative_bundle_needs_the_folder_that_we_are_in(world: World) -> None:
    bundle = support.bundle(world.path / "bundle", ["true"], mounts=[support.bind(world.source, "/data")])
    (world.path / "gone").mkdir()
    command = ["sh", "-c", 'cd "$1"; rmdir "$1"; shift; exec "$@"', "sh", str(world.path / "gone"), world.launcher]
    done = call([*command, "--dry-run", "--bundle", bundle])
    assert (done.returncode, f"{world.source} on /data" in done.stdout) == (0, True), done.stderr
    (world.path / "gone").mkdir()
    done = call([*command, "--dry-run", "--bundle", "bundle"])
    told = "oci-bind-hook: --bundle: bundle is relative to the current folder, which has been removed\n"
    assert (done.returncode, done.stdout, done.stderr) == (os.EX_NOINPUT, "", told)


@pytest.mark.parametrize(
    ("words", "namespaces", "stage", "code"),
    [
        ([], ["mount"], "createRuntime", 69),
        ([], ["pid"], "prestart", 0),
        (["prestart"], ["mount"], "prestart", 0),
        (["createRuntime"], ["pid"], "createRuntime", 69),
        (["createContainer"], ["pid"], "createContainer", 0),
    ],
)
def test_state_without_a_process(world: World, words: list[str], namespaces: list[str], stage: str, code: int) -> None:
    support.bundle(world.path / "bundle", ["true"], namespaces=namespaces)
    command = [world.launcher, *words, "--root", str(world.state), f"--mount=src={world.source},dst=/a"]
    planned = call([*command, "--dry-run", "--format=json"], state_of(world))
    real = call(command, state_of(world))
    assert (planned.returncode, real.returncode) == (code, code), real.stderr
    report = json.loads(planned.stdout)
    assert (report["stage"], [mount["resolved"] for mount in report["mounts"]]) == (stage, ["/a"])
    if not code:
        assert json.loads((world.state / "c1.json").read_text())["stage"] == stage


def test_plan_is_what_the_real_run_does(world: World) -> None:
    support.bundle(world.path / "bundle", ["true"], mounts=[support.bind(world.source, "/data/link/x", "ro")])
    binds = [f"src={world.source},dst=/dangling,bind-propagation=rslave", f"src={world.file},dst=/real/x/word,ro"]
    command = by_hand(world, *(f"--mount={each}" for each in binds))
    plan = json.loads(call([*command, "--dry-run", "--format=json"], state_of(world)).stdout)
    assert call(command, state_of(world)).returncode == 0
    record = json.loads((world.state / "c1.json").read_text())
    assert [mount["resolved"] for mount in plan["mounts"]] == [mount["resolved"] for mount in record["mounts"]]
    assert [mount["origin"] for mount in plan["mounts"]] == [mount["by"] for mount in record["mounts"]]
    created = [made for mount in plan["mounts"] for made in mount["create"]]
    kinds = [made["kind"] for made in record["made"]]
    assert [(made["path"], made["kind"]) for made in created] == [*zip(support.made_paths(record), kinds, strict=True)]
    # The last line for a mount point is the mount on top.
    lines = {line.split(" ")[4]: line.split(" ") for line in support.mounts()}
    for mount in plan["mounts"]:
        fields = lines[world.rootfs + mount["resolved"]]
        assert [word for word in mount["attributes"] if word not in fields[5].split(",")] == []
        assert ("ro" in fields[5].split(",")) == ("ro" in mount["attributes"])
    # Everything that was planned is there; asked again, the dry-run says the same, now of what it finds.
    again = json.loads(call([*command, "--dry-run", "--format=json"], state_of(world)).stdout)
    assert again["mounts"][0]["action"] == "present"


# Tear-down


@pytest.mark.parametrize("keep", [False, True], ids=["remove", "keep"])
@pytest.mark.parametrize("words", [["poststop"], []], ids=["named", "told from the state"])
def test_tear_down_is_told_from_the_state_file(world: World, words: list[str], *, keep: bool) -> None:
    support.bundle(world.path / "bundle", ["true"])
    binds = [f"--mount=src={world.source},dst=/absolute/a/b", f"--mount=src={world.file},dst=/etc/new,ro"]
    assert call(by_hand(world, *binds), state_of(world)).returncode == 0
    os.unlink(world.path / "bundle/config.json")
    before = world.snapshot()
    options = ["--root", str(world.state), *(["--keep-mountpoints"] if keep else [])]
    stopped = state_of(world, status="stopped")
    command = [world.launcher, *words, *options, "--dry-run"]
    text = call(command, stopped)
    assert (text.returncode, text.stderr) == (0, "")
    removed = [] if keep else ["remove     /etc/new", "remove     /real/a/b", "remove     /real/a"]
    assert text.stdout.splitlines() == [
        "container  c1",
        f"bundle     {world.path}/bundle",
        f"rootfs     {world.rootfs}",
        "stage      poststop",
        "namespace  the runtime's",
        "",
        f"unmount    {world.file} on /etc/new",
        "  asked    --mount 2, destination /etc/new",
        "  now      mounted",
        "",
        f"unmount    {world.source} on /real/a/b",
        "  asked    --mount 1, destination /absolute/a/b",
        "  now      mounted",
        *([""] if removed else []),
        *removed,
    ]
    report = json.loads(call([*command, "--format=json"], stopped).stdout)
    assert oci.violations(report, "plan") == []
    assert report["remove"] == [line.split()[1] for line in removed]
    assert call([*command, "--format=tree"], stopped).stdout.splitlines() == [
        f"{world.rootfs}  container c1, at poststop, in the runtime's namespace",
        "|- etc" if removed else "|- etc/new   <- " + f'"{world.file}"  will be unmounted',
        *([f'|  `- - new  <- "{world.file}"  will be unmounted'] if removed else []),
        "`- real" if removed else f"`- real/a/b  <- {world.source}  will be unmounted",
        *([f"   `- - a/b  <- {world.source}  will be unmounted"] if removed else []),
        "",
        f"would undo 2 binds{' and remove 3 mount points' if removed else ''}",
    ]
    elsewhere = call(["unshare", "-m", *command, "--format=json"], stopped)
    assert (elsewhere.returncode, json.loads(elsewhere.stdout)["mounts"]) == (71, [])
    assert call(["unshare", "-m", world.launcher, *words, *options], stopped).returncode == 71
    assert world.snapshot() == before


def test_nothing_recorded_is_nothing_to_tear_down(world: World) -> None:
    done = call([world.launcher, "--root", f"{world.state}/absent", "--dry-run"], state_of(world, status="stopped"))
    expected = [f"warning    {world.state}/absent has no record of this container", "", "container  c1"]
    expected += [f"bundle     {world.path}/bundle", "stage      poststop", "binds      nothing to undo"]
    assert (done.returncode, done.stdout.splitlines(), done.stderr) == (0, expected, "")
    assert support.records(world.state) == []


# By nobody, and without a change

CHANGES = (
    *("mkdir", "mkdirat", "rmdir", "unlink", "unlinkat", "rename", "renameat", "renameat2", "link", "linkat"),
    *("symlink", "symlinkat", "mknod", "mknodat", "creat", "truncate", "ftruncate", "fallocate"),
    *("chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat"),
    *("utime", "utimes", "utimensat", "futimesat", "setxattr", "lsetxattr", "fsetxattr", "removexattr"),
    *("mount", "umount", "umount2", "pivot_root", "move_mount", "mount_setattr", "fsopen", "fsmount", "fspick"),
    *("setns", "unshare", "chroot", "kill", "tgkill", "sendmsg", "sendto", "connect", "flock"),
)
WRITES = re.compile(r"\b(O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|O_APPEND|OPEN_TREE_CLONE)\b")


def changes(trace: Path, program: str) -> list[str]:
    """The lines of a trace, from the start of ``program`` on, that tell of a call that changes something."""
    lines = trace.read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if f'execve("{program}"' in line)
    found = []
    for line in lines[start:]:
        name = re.match(r"(?:\d+ +)?(\w+)\(", line)
        is_change = name is not None and (name[1] in CHANGES or (name[1].startswith("open") and WRITES.search(line)))
        # Nothing is at the fd -1: with it the kernel is asked whether it has a call at all.
        if is_change and '"/dev/null"' not in line and '(-1, ""' not in line:
            found.append(line)
    return found


@pytest.mark.parametrize("namespaces", [support.NAMESPACES, ("pid",)], ids=["container", "runtime"])
def test_nobody_can_run_it_and_nothing_is_changed(world: World, tmp_path: Path, namespaces: Sequence[str]) -> None:
    mounts = [support.bind(world.source, "/config/a"), {"destination": "/tmp", "type": "tmpfs"}]
    bundle = support.bundle(world.path / "bundle", ["true"], mounts=mounts, namespaces=namespaces)
    destinations = ("absolute/x", "climb/y", "dangling", "data/link/z", "tmp/w")
    binds = [f"--mount=src={world.source},dst=/{name}" for name in destinations]
    trace = tmp_path / "trace"
    before = world.snapshot()
    command = [world.launcher, "--dry-run", "--bundle", bundle, "--format=json", *binds]
    done = call(["strace", "-f", "-qq", "-o", str(trace), *AS_NOBODY, *command])
    assert (done.returncode, done.stderr) == (0, "")
    assert changes(trace, world.launcher) == []
    trace.unlink()
    assert world.snapshot() == before
    report = json.loads(done.stdout)
    assert [mount["links"] for mount in report["mounts"][1:]] == [
        [{"at": "/absolute", "to": "/real"}],
        [{"at": "/climb", "to": "../../../../real"}],
        [{"at": "/dangling", "to": "/absent/place"}],
        [{"at": "/data/link", "to": "../real"}],
        [],
    ]
    resolved = ["/config/a", "/real/x", "/real/y", "/absent/place", "/real/z", "/tmp/w"]
    assert [mount["resolved"] for mount in report["mounts"]] == resolved


@pytest.mark.kernel(5, 12)
def test_trace_would_show_a_change(world: World, tmp_path: Path) -> None:
    support.bundle(world.path / "bundle", ["true"])
    trace = tmp_path / "trace"
    command = by_hand(world, f"--mount=src={world.source},dst=/new", f"--mount=src={world.file},dst=/file")
    assert call(["strace", "-f", "-qq", "-o", str(trace), *command], state_of(world)).returncode == 0
    names = {re.sub(r"^(?:\d+ +)?(\w+)\(.*", r"\1", line) for line in changes(trace, world.launcher)}
    assert {"mkdir", "mkdirat"} & names
    assert {"open_tree", "mount_setattr", "move_mount", "openat", "flock"} <= names


def test_what_nobody_may_see_is_told() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        for name in ("rootfs/closed", "source"):
            os.makedirs(f"{folder}/{name}")
        os.chmod(f"{folder}/rootfs/closed", 0o700)
        with open(f"{folder}/config.json", "w", encoding="utf-8") as file:
            json.dump({"ociVersion": "1.0", "root": {"path": "rootfs"}}, file)
        options = Options()
        options.bundle = folder
        options.mounts = [f"src={folder}/source,dst=/closed/x", f"src={folder}/source,dst=/open"]
        # By root first: it loads what nobody else might be allowed to read.
        assert dry_run.dry_run(options, bytes).problems == []
        read, write = os.pipe()
        if os.fork() == 0:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            os.write(write, as_json(dry_run.dry_run(options, bytes)).encode())
            os._exit(0)
        os.close(write)
        with open(read, encoding="utf-8") as pipe:
            report = json.load(pipe)
    message = "this user has no access: openat /closed/x: Permission denied"
    expected = {"where": "--mount 1", "message": message, "hint": "run this as root", "exit": 69}
    assert report["problems"] == [expected]
    assert [mount["resolved"] for mount in report["mounts"]] == [None, "/open"]


@pytest.mark.parametrize(("stage", "code"), [("createRuntime", 69), ("prestart", 69), ("createContainer", 0)])
@pytest.mark.parametrize("host", [NOBODY, 100000], ids=["mapped", "shifted"])
def test_runtime_of_an_ordinary_user_cannot_enter(world: World, stage: str, code: int, host: int) -> None:
    ids = [{"containerID": 0, "hostID": host, "size": 1}]
    linux = {"uidMappings": ids, "gidMappings": ids}
    bundle = support.bundle(world.path / "bundle", ["true"], namespaces=["mount", "user"], linux=linux)
    world.path.chmod(0o755)
    os.chown(world.state, NOBODY if host == NOBODY else 0, -1)
    command = [
        world.launcher,
        stage,
        *world.root_option(),
        "--dry-run",
        "--bundle",
        bundle,
        "--format=json",
        f"--mount=src={world.file},dst=/etc/passwd",
    ]
    done = call([*AS_NOBODY, *command])
    assert done.returncode == (code if host == NOBODY else 0), done.stdout
    hints = [problem["hint"] for problem in json.loads(done.stdout)["problems"]]
    assert hints == (["rootless, register the hook for createContainer"] if done.returncode else [])


# What is there now


def now(report: dict[str, Any]) -> dict[str, bool | None]:
    return {mount["resolved"]: mount["now"] for mount in report["mounts"]}


def test_bundle_of_a_container_that_runs_by_hand(world: World) -> None:
    bundle = support.bundle(world.path / "bundle", ["true"], namespaces=["pid"])
    binds = [f"--mount=src={world.source},dst=/{name}" for name in ("a", "b")]
    command = [world.launcher, "--root", str(world.state), "--dry-run", "--format=json", "--bundle", bundle]
    before = json.loads(call([*command, *binds]).stdout)
    assert (before["running"], now(before)) == (None, {"/a": None, "/b": None})
    assert call(by_hand(world, *binds), state_of(world)).returncode == 0
    subprocess.run(["umount", f"{world.rootfs}/b"], check=True)
    done = call([*command, *binds, f"--mount=src={world.source},dst=/etc"])
    report = json.loads(done.stdout)
    assert oci.violations(report, "plan") == []
    assert report["running"] == {"id": "c1", "pid": None, "recorded": True, "visible": True}
    assert now(report) == {"/a": True, "/b": False, "/etc": False}
    report = json.loads(call([*command, binds[0]]).stdout)
    (warning,) = [text for text in report["warnings"] if "running" in text]
    assert warning.startswith(f"{world.source} on /b, requested by --mount 2, is recorded for the running container")


@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_bundle_and_state_of_a_container_that_runs(world: World, runtime: str) -> None:
    mounts = [support.bind(world.source, "/real")]
    words = ["--mount", f"src={world.file},dst=/etc/new"]
    bundle = world.bundle("exec sleep 1000", "createRuntime", *words, mounts=mounts)
    with support.RuntimeNamespace(runtime) as namespace:
        options = [*world.root_option(), "--dry-run", "--format=json"]
        before = json.loads(namespace.run(world.launcher, *options, "--bundle", bundle).stdout)
        assert namespace.create(bundle, "c1").returncode == 0
        assert namespace.start("c1").returncode == 0
        state = namespace.state("c1")
        done = namespace.run(world.launcher, *options, "--bundle", bundle)
        report = json.loads(done.stdout)
        piped = call([world.launcher, *options], json.dumps(state))
        namespace.stop("c1")
    assert done.returncode == 0, done.stderr
    assert oci.violations(report, "plan") == []
    assert report["options"] == "config.json: /hooks/createRuntime/0"
    assert report["running"] == {"id": "c1", "pid": state["pid"], "recorded": True, "visible": True}
    assert now(report) == {"/real": True, "/etc/new": True}
    # What is the runtime's is present when it was seen, not before.
    assert [each["mounts"][0]["action"] for each in (before, report)] == ["left", "present"]
    # Too late for a real run, but what is there is told.
    told = json.loads(piped.stdout)
    assert piped.returncode == 69
    assert (told["running"], now(told)) == (report["running"], now(report))


# What is deep


@pytest.mark.parametrize("binds", [1, 9])
@pytest.mark.parametrize("link", ["/\x01" * 255, "/x" * 255], ids=["control characters", "letters"])
def test_what_a_link_in_the_image_makes_deep_is_undone_like_all_else(world: World, link: str, binds: int) -> None:
    """Every name on the way is recorded, and a file that is too large to be read undoes nothing."""
    support.bundle(world.path / "bundle", ["true"])
    os.symlink(link, f"{world.rootfs}/models")
    words = worlds.mount(world, *(f"/models/{number}" for number in range(binds)))
    before = world.snapshot()
    assert call([world.launcher, "prestart", *words, *world.root_option()], state_of(world)).returncode == 0
    assert (world.state / "c1.json").stat().st_size < 100_000
    stop = state_of(world, status="stopped")
    assert call([world.launcher, "poststop", *world.root_option()], stop).returncode == 0
    assert world.snapshot() == before


# Several entries of this hook at one stage, as of several CDI devices: what each is given, and how they end.
SEVERAL: dict[str, tuple[list[str], int, str]] = {
    "all well": (["dst=/new/a", "dst=/new/a/inner", "dst=/new/a"], os.EX_OK, "/new/a"),
    "one source is missing": (["dst=/new/a", "src=/absent,dst=/new/b"], os.EX_NOINPUT, "/absent"),
    "on one place": (["dst=/new/a", "dst=/new/a,ro"], os.EX_CONFIG, "--mount 1: /new/a is already the destination of "),
    "the first fails late": (["dst=/proc", "src=/absent,dst=/new/b"], os.EX_NOPERM, "--mount 1: /proc "),
}


@pytest.mark.parametrize("case", SEVERAL)
@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_several_entries_end_as_the_dry_run_says(world: World, runtime: str, case: str) -> None:
    (world.source / "inner").mkdir()
    fields, code, words = SEVERAL[case]
    fields = [text if text.startswith("src=") else f"src={world.source},{text}" for text in fields]
    log = str(world.path / "log")
    entries = [world.hook("--mount", text, "--log", log) for text in fields]
    hooks = {"createRuntime": entries, "poststop": entries}
    bundle = support.bundle(world.path / "bundle", ["/bin/sh", "-c", "ls /new/a"], hooks=hooks)
    before = world.snapshot()
    said = worlds.call(world, "--dry-run", "--bundle", bundle, stdin="")
    assert (said.returncode, world.snapshot()) == (code, before), said.stdout
    done = support.run_container(runtime, bundle, "c1")
    assert (done.returncode == 0, done.stdout) == (code == 0, "" if code else "inner\nword\n")
    with open(log) as file:  # crun throws away what hooks print
        assert (words in said.stdout, words in file.read()) == (True, True), said.stdout
    assert world.snapshot() == before


@pytest.mark.parametrize("link", ["/\x01" * 1900, "/x" * 256], ids=["control characters", "letters"])
def test_what_a_link_in_the_image_makes_deeper_is_refused_before_anything_is_made(world: World, link: str) -> None:
    support.bundle(world.path / "bundle", ["true"])
    os.symlink(link, f"{world.rootfs}/models")
    words = worlds.mount(world, "/new", "/models/here")
    before = world.snapshot()
    for more in ((), ("--dry-run",)):
        done = call([world.launcher, "prestart", *more, *words, *world.root_option()], state_of(world))
        problem = "folders or files are missing behind the link /models, and the hook creates at most 256 for one bind"
        assert (done.returncode, problem in " ".join((done.stdout + done.stderr).split())) == (78, True), done
    assert world.snapshot() == before
