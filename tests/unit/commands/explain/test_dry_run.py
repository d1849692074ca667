# SPDX-License-Identifier: Apache-2.0
"""The plan as it is told, to a person and to a program, and that making it changes nothing."""

from __future__ import annotations

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from helpers import support
from oci_bind_hook.commands.explain import dry_run
from oci_bind_hook.commands.explain.report import Report, as_json, as_text
from oci_bind_hook.commands.explain.tree import as_tree
from oci_bind_hook.documents import oci
from oci_bind_hook.errors import UsageError
from oci_bind_hook.options import Options, parse

TREE = {"etc": None, "real": None, "etc/file": "", "absolute": "->/real", "etc/up": "->../real/", "loop": "->loop"}


def make(folder: Path, tree: dict[str, str | None]) -> None:
    """Make what ``tree`` says: None is a folder, "->x" a link, other text a file's."""
    for name, what in tree.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if what is None:
            path.mkdir(exist_ok=True)
        elif what.startswith("->"):
            path.symlink_to(what[2:])
        else:
            path.write_text(what)


class Desk:
    """A bundle, a folder and a file to bind, and reports on them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bundle = path / "bundle"
        self.rootfs = self.bundle / "rootfs"
        make(self.rootfs, TREE)
        make(path, {"source/inner": None, "source/link": "->/etc/new", "file": "one file\n"})
        self.source = f"{path}/source"
        self.file = f"{path}/file"

    def config(self, *mounts: dict[str, Any], namespaces: tuple[str, ...] = ("mount",), root: str = "rootfs") -> None:
        linux = {"namespaces": [{"type": kind} for kind in namespaces]}
        document = {"ociVersion": "1.0.2", "root": {"path": root}, "mounts": mounts, "linux": linux}
        (self.bundle / "config.json").write_text(json.dumps(document))

    def options(self, *arguments: str, **members: Any) -> Options:
        options = Options()
        options.bundle = str(self.bundle)
        options.mounts = list(arguments)
        for name, value in members.items():
            setattr(options, name, value)
        return options

    def report(self, *arguments: str, **members: Any) -> Report:
        """The report on the bundle; what holds of every report is looked at here."""
        return self.report_on(b"", self.options(*arguments, **members))

    def report_on(self, state: bytes, options: Options) -> Report:
        before = support.tree(self.path)
        report = dry_run.dry_run(options, lambda: state)
        assert support.tree(self.path) == before
        assert oci.violations(json.loads(as_json(report)), "plan") == []
        assert all(line.isprintable() for line in as_text(report).split("\n"))
        return report


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk(tmp_path)
    desk.config()
    return desk


def kept(path: str, *without: str) -> list[str]:
    """The attributes that a bind of ``path`` has from its source."""
    flags = os.statvfs(path).f_flag
    words = ("ro", "nosuid", "nodev", "noexec", "nodiratime", "noatime", "relatime")
    bits = {word: getattr(os, f"ST_{'RDONLY' if word == 'ro' else word.upper()}") for word in words}
    return [word for word in words if flags & bits[word] and word not in without]


RENAMED = "the container keeps the old file if this one is replaced by rename; to follow the change, bind its folder"
CHECK = "oci-bind-hook install --check"
NOTHING = "config.json mounts nothing on /proc, /sys, /dev, /dev/pts, which programs usually need"


# The bundles here have no more than what the hook looks at, with which no runtime starts anything.
NO_PROC = {
    "where": "config.json: /mounts",
    "message": "nothing is mounted on /proc, which runc needs",
    "hint": "",
    "by": ["runc"],
}
NO_PROCESS = {
    "where": "config.json: /process",
    "message": "missing: no program to run",
    "hint": "",
    "by": ["crun", "runc"],
}
NO_PROC_LINE = f"refused    by runc: config.json: /mounts: {NO_PROC['message']}"
NO_PROCESS_LINE = "refused    by runc and crun: config.json: /process: missing: no program to run"


def found(path: str) -> dict[str, object]:
    """What is said of a source that is a folder."""
    status = os.stat(path)
    device = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
    points = {line.split(" ")[4]: line.split(" ") for line in support.mounts() if line.split(" ")[2] == device}
    point = max((each for each in points if f"{path}/".startswith(f"{each.rstrip('/')}/")), key=len)
    kind, origin = points[point][points[point].index("-") + 1 :][:2]
    return {
        "path": path,
        "kind": "folder",
        "number": None,
        "filesystem": kind,
        "device": device,
        "from": origin,
        "mount": point,
        "owner": f"{status.st_uid}:{status.st_gid}",
        "mode": f"{status.st_mode & 0o7777:04o}",
        "label": None,
        "known": None,
        "submounts": [],
    }


# What is told of a bind


def test_everything_about_a_bind(desk: Desk) -> None:
    report = desk.report(f"type=bind,src={desk.source},dst=/absolute/../etc/up/a/b", stage="createRuntime")
    assert report.document() == {
        "$schema": "urn:oci-bind-hook:plan",
        "version": 1,
        "id": None,
        "stage": "createRuntime",
        "bundle": str(desk.bundle),
        "rootfs": str(desk.rootfs),
        "namespace": "container",
        "registered": [],
        "registrations": [],
        "options": None,
        "running": None,
        "mounts": [
            {
                "origin": "--mount 1",
                "source": desk.source,
                "source_links": [],
                "found": found(desk.source),
                "destination": "/absolute/../etc/up/a/b",
                "resolved": "/real/a/b",
                "links": [{"at": "/absolute", "to": "/real"}, {"at": "/etc/up", "to": "../real/"}],
                "create": [{"path": "/real/a", "kind": "directory"}, {"path": "/real/a/b", "kind": "directory"}],
                "asked": ["rbind", "rprivate"],
                "attributes": kept(desk.source),
                "kept": kept(desk.source),
                "propagation": "rprivate",
                "idmap": None,
                "action": "mount",
                "by": "hook",
                "hides": [],
                "now": None,
                "source_now": None,
                "warnings": [],
            }
        ],
        "own": [],
        "selinux": {"process": None, "mount": None, "mode": None},
        "problems": [],
        "runtime": [NO_PROC, NO_PROCESS],
        "warnings": [],
        "notes": [NOTHING],
        "verdict": "the runtime would refuse it: 73, config.json: /mounts: nothing is mounted on /proc, "
        "which runc needs (and 1 more)",
    }
    assert report.exit_code == os.EX_CANTCREAT
    assert json.loads(as_json(report)) == report.document()


def source_line(path: str, kind: str) -> str:
    facts = found(path)
    filesystem = f"{facts['filesystem']} of {facts['from']} ({facts['device']})"
    return f"  source   {kind}, {filesystem}, owner {facts['owner']}, mode {facts['mode']}\n"


def test_text_for_a_person(desk: Desk) -> None:
    desk.config(support.bind("../source", "/config", "ro", "sync"), {"destination": "/proc", "type": "proc"})
    report = desk.report(
        f"src={desk.file},dst=/absolute/new,ro,bind-propagation=private", f"src={desk.source},dst=/etc"
    )
    assert as_text(report) == (
        f"{NO_PROCESS_LINE}\n"
        "so         neither runc nor crun would start it: the exit code is 73\n"
        "\n"
        f"bundle     {desk.bundle}\n"
        f"rootfs     {desk.rootfs}\n"
        "stage      createRuntime\n"
        "namespace  the container's own\n"
        "registered not in config.json\n"
        f"note       --mount 1: {RENAMED}\n"
        "note       config.json mounts nothing on /sys, /dev, /dev/pts, which programs usually need\n"
        "\n"
        f"left       {desk.bundle}/../source on /config\n"
        "  asked    config.json#/mounts/0, destination /config\n"
        "  by       left to the runtime\n"
        f"{source_line(desk.source, 'folder')}"
        f"  really   {desk.source}\n"
        '  warning  option "sync" applies to a whole file system and has no effect on a bind\n'
        "\n"
        f"bind       {desk.file} on /real/new\n"
        "  asked    --mount 1, destination /absolute/new\n"
        "  by       the hook\n"
        f"{source_line(desk.file, 'file')}"
        "  link     /absolute -> /real\n"
        "  create   file /real/new\n"
        "  options  rbind ro private\n"
        f"  kept     {' '.join(kept(desk.file, 'ro'))}, as the source has it\n"
        "\n"
        f"bind       {desk.source} on /etc\n"
        "  asked    --mount 2, destination /etc\n"
        "  by       the hook\n"
        f"{source_line(desk.source, 'folder')}"
        "  options  rbind rprivate\n"
        f"  kept     {' '.join(kept(desk.source))}, as the source has it\n"
    )


def test_a_condition_is_named(desk: Desk) -> None:
    binds = [f"src={desk.file},dst=/new,when-exists={path}" for path in ("/etc/file", "/absent")]
    report = desk.report(*binds, f"src={desk.file},dst=/other")
    assert [mount.get("when_exists") for mount in report.mounts] == ["/etc/file", "/absent", None]
    first, second, third = as_text(report).split("\n\n")[-3:]
    assert "\n  only if  /etc/file exists in the container\n" in first
    assert second == (
        f"skip       {desk.file} on /new\n"
        "  asked    --mount 2, destination /new\n"
        "  only if  /absent exists in the container\n"
        "  note     /absent does not exist in the container"
    )
    assert "only if" not in third


def test_a_condition_is_named_if_the_rootfs_is_not_mounted(desk: Desk) -> None:
    """Then whether it is met is not known."""
    desk.config(root=str(desk.path / "overlay/1/merged"))
    report = desk.report(f"src={desk.file},dst=/new,when-exists=/etc/a b")
    assert str(report.document()["verdict"]).startswith("not known: ")
    assert "\n  only if  /etc/a b exists in the container\n" in as_text(report)
    assert f'`- new  <- {desk.file}  only if "/etc/a b" exists\n' in as_tree(report.document(), is_unicode=False)


def test_text_without_binds(desk: Desk) -> None:
    text = as_text(desk.report(stage="prestart"))
    assert "namespace  the runtime's\n" in text
    assert text.endswith(
        "note       config.json does not register prestart, so this explains a call by hand, without a pid: the hook "
        "then mounts in this namespace\n"
        f"note       {NOTHING}\nbinds      none requested\n"
    )


@pytest.mark.parametrize("width", [80, 40, 20])
def test_text_is_folded_between_words_and_nothing_is_lost(desk: Desk, width: int) -> None:
    report = desk.report(f"src={desk.source},dst=/etc,ro", "src=/absent,dst=/x")
    flat, folded = as_text(report), as_text(report, width=width)
    assert folded.split() == flat.split()
    for line in folded.splitlines():
        assert len(line) <= width or " " not in line[11:]
    assert max(map(len, folded.splitlines())) < max(map(len, flat.splitlines()))


def test_colours_stand_around_labels_only(desk: Desk) -> None:
    report = desk.report(f"src={desk.source},dst=/etc,ro", "src=/absent,dst=/x")
    coloured = as_text(report, colour=True)
    assert re.sub("\x1b\\[[0-9;]*m", "", coloured) == as_text(report)
    assert "\x1b[1;31mproblem\x1b[0m    --mount 2: " in coloured
    assert "\x1b[" not in as_text(report, width=80)


# What moves a cursor, ends a line, or turns the direction of text around.
TRICKS = (
    *("\x07", "\t", "\n", "\r", "\x1b", "\x7f", "\x85", "\x9b", "\u00ad", "\u061c", "\u200b", "\u200e", "\u200f"),
    *("\u2028", "\u2029", "\u202a", "\u202b", "\u202c", "\u202d", "\u202e", "\u2066", "\u2067", "\u2068", "\u2069"),
)


@pytest.mark.parametrize("trick", TRICKS, ids=[f"U+{ord(each):04X}" for each in TRICKS])
def test_no_name_of_an_image_can_move_or_turn_the_text(desk: Desk, trick: str) -> None:
    os.symlink(f"/real/a{trick}b", desk.rootfs / "odd")
    text = as_text(desk.report(f"src={desk.source},dst=/odd"), colour=True)
    code = ord(trick)
    escaped = f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    assert f"/real/a{escaped}b" in text
    assert f"a{trick}b" not in text


ATTRIBUTES: list[tuple[str, list[str]]] = [
    ("ro", ["ro"]),
    ("nosuid nodev noexec", ["nosuid", "nodev", "noexec"]),
    ("rro nodiratime nosymfollow", ["ro", "nodiratime", "nosymfollow"]),
    ("rro rw", []),
    ("ro rrw", []),
    ("noatime", ["noatime"]),
    ("strictatime", ["strictatime"]),
    ("ratime", ["relatime"]),
]


@pytest.mark.parametrize(("options", "attributes"), ATTRIBUTES, ids=[case[0] for case in ATTRIBUTES])
def test_attributes_are_those_of_the_mount_as_it_will_be(desk: Desk, options: str, attributes: list[str]) -> None:
    cleared = "suid dev exec diratime symfollow rw relatime"
    desk.config(support.bind(desk.source, "/etc", *cleared.split(), *options.split(), "shared"))
    (mount,) = desk.report().mounts
    atimes = ("noatime", "strictatime", "relatime")
    expected = attributes if set(attributes) & set(atimes) else [*attributes, "relatime"]
    assert (mount["attributes"], mount["propagation"]) == (expected, "shared")


@pytest.mark.parametrize(
    ("namespaces", "stage", "namespace", "action"),
    [
        (("mount",), None, "container", "left"),
        (("mount",), "createRuntime", "container", "left"),
        (("mount",), "createContainer", "container", "left"),
        (("mount",), "prestart", "runtime", "mount"),
        (("pid",), None, "runtime", "mount"),
    ],
)
def test_binds_of_config_are_left_to_the_runtime_in_a_namespace_of_its_own(
    desk: Desk, namespaces: tuple[str, ...], stage: str | None, namespace: str, action: str
) -> None:
    desk.config(support.bind(desk.source, "/new"), namespaces=namespaces)
    report = desk.report(stage=stage)
    created = [{"path": "/new", "kind": "directory"}] if action == "mount" else []
    assert (report.namespace, report.stage) == (namespace, stage or "createRuntime")
    assert [(each["action"], each["create"]) for each in report.mounts] == [(action, created)]


def test_later_bind_sees_the_earlier_one(desk: Desk) -> None:
    report = desk.report(
        f"src={desk.source},dst=/absolute",
        f"src={desk.source},dst=/real/inner",
        f"src={desk.file},dst=/absolute/link",
    )
    assert [(each["resolved"], each["create"]) for each in report.mounts] == [
        ("/real", []),
        ("/real/inner", []),
        ("/etc/new", [{"path": "/etc/new", "kind": "file"}]),
    ]
    assert report.mounts[2]["links"] == [{"at": "/absolute", "to": "/real"}, {"at": "/real/link", "to": "/etc/new"}]
    assert report.problems == []


def test_runtimes_own_mounts_are_taken_as_made(desk: Desk) -> None:
    desk.config({"destination": "/dev", "type": "tmpfs"})
    (mount,) = desk.report(f"src={desk.file},dst=/dev/a/b").mounts
    assert mount["create"] == [{"path": "/dev/a", "kind": "directory"}, {"path": "/dev/a/b", "kind": "file"}]


def test_files_of_a_procfs_that_is_not_there_yet_may_be_hidden(desk: Desk) -> None:
    desk.config({"destination": "/proc", "type": "proc", "source": "proc"})
    report = desk.report(f"src={desk.file},dst=/proc/uptime", f"src={desk.file},dst=/proc/version")
    assert [mount["create"] for mount in report.mounts] == [[], []]
    assert [problem["where"] for problem in report.problems] == ["--mount 2"]
    assert [problem["exit"] for problem in report.problems] == [77]


def test_odd_characters_of_an_image_are_escaped(desk: Desk) -> None:
    os.symlink("/real/\x1b[2J\n\u202e", desk.rootfs / "odd")
    text = as_text(desk.report(f"src={desk.source},dst=/odd"))
    assert "  link     /odd -> /real/\\x1b[2J\\x0a\\u202e\n" in text


# Problems


def test_problems_come_first_and_all_of_them(desk: Desk) -> None:
    report = desk.report("src=/absent,dst=/etc", f"src={desk.file},dst=/", f"src={desk.file},dst=/ok")
    assert report.problems == [
        {
            "where": "--mount 1",
            "message": "the source /absent cannot be opened: No such file or directory",
            "hint": "",
            "exit": 66,
        },
        {"where": "--mount 2", "message": "the destination is the rootfs itself", "hint": "", "exit": 77},
    ]
    assert (report.exit_code, len(report.mounts)) == (66, 3)
    assert as_text(report).splitlines()[:7] == [
        "problem    --mount 1: the source /absent cannot be opened: No such file or directory",
        "problem    --mount 2: the destination is the rootfs itself",
        "so         the real run would exit with 66 and change nothing",
        NO_PROC_LINE,
        NO_PROCESS_LINE,
        "",
        f"bundle     {desk.bundle}",
    ]


def test_destination_that_cannot_be_resolved(desk: Desk) -> None:
    report = desk.report(f"src={desk.file},dst=/loop")
    (mount,) = report.mounts
    assert (mount["resolved"], mount["links"], mount["create"]) == (None, [], [])
    assert report.problems == [
        {
            "where": "--mount 1",
            "message": "/loop leads through more than 40 links",
            "hint": "check for a loop",
            "exit": 78,
        }
    ]
    assert "  hint     check for a loop\n" in as_text(report)
    assert f"bind       {desk.file} on /loop\n" in as_text(report)


def test_every_violation_of_a_schema_is_told(desk: Desk) -> None:
    (desk.bundle / "config.json").write_text('{"root": {"path": 1}}')
    report = desk.report()
    assert report.problems == [
        {"where": "config.json: /ociVersion", "message": "is missing", "hint": "", "exit": 65},
        {"where": "config.json: /root/path", "message": "must be of type string, not 1", "hint": "", "exit": 65},
    ]
    assert as_text(report) == (
        "problem    config.json: /ociVersion: is missing\n"
        "problem    config.json: /root/path: must be of type string, not 1\n"
        "so         the real run would exit with 65 and change nothing\n"
        "\n"
        f"bundle     {desk.bundle}\n"
        "stage      createRuntime\n"
    )


def test_state_that_is_none(desk: Desk) -> None:
    report = desk.report_on(b"", desk.options(bundle=None))
    assert report.problems == [{"where": "state", "message": "is empty", "hint": "", "exit": 65}]
    assert (report.id, report.stage, report.bundle, report.rootfs, report.namespace) == (None,) * 5
    assert as_text(report).splitlines()[-1] == ""


@pytest.mark.parametrize(("stage", "problems"), [("createContainer", []), ("createRuntime", [69]), (None, [69])])
@pytest.mark.parametrize("pid", [{}, {"pid": 0}, {"pid": 1}, {"pid": -1}], ids=str)
def test_only_inside_the_container_no_process_is_needed(
    desk: Desk, pid: dict[str, int], stage: str | None, problems: list[int]
) -> None:
    state = {"ociVersion": "1.0", "id": "c1", "status": "created", "bundle": str(desk.bundle), **pid}
    report = desk.report_on(json.dumps(state).encode(), desk.options(bundle=None, stage=stage))
    assert [problem["exit"] for problem in report.problems] == problems
    assert (report.id, report.namespace) == ("c1", "container")


def test_poststop_needs_a_state() -> None:
    with pytest.raises(UsageError, match="--bundle: poststop requires a state on stdin"):
        parse(["poststop", "--dry-run", "--bundle", "/b"])


# What is worth knowing beforehand


def warned(mount: dict[str, Any]) -> list[str]:
    return [str(warning) for warning in mount["warnings"]]


def test_bind_that_a_later_one_hides(desk: Desk) -> None:
    desk.config(support.bind(desk.source, "/etc/a"), {"destination": "/etc", "type": "tmpfs"})
    report = desk.report(
        f"src={desk.source},dst=/absolute/x",
        f"src={desk.source},dst=/realm",
        f"src={desk.source},dst=/absolute",
        f"src={desk.source},dst=/real/inner",
    )
    hidden = [warned(mount) for mount in report.mounts]
    assert hidden == [
        ["a later mount on /etc hides it"],
        ["a later mount on /absolute hides it"],
        [],
        [],
        [],
    ]


def test_a_bind_that_is_refused_is_not_called_hidden(desk: Desk) -> None:
    desk.config({"destination": "/etc", "type": "tmpfs"})
    report = desk.report(f"src={desk.path}/absent,dst=/real/inner", f"src={desk.source},dst=/real")
    assert [problem["where"] for problem in report.problems] == ["--mount 1"]
    assert [warned(mount) for mount in report.mounts] == [[], []]


def test_a_bind_that_the_runtime_refuses_is_not_called_hidden(desk: Desk) -> None:
    desk.config(support.bind(f"{desk.path}/absent", "/etc/a"), {"destination": "/etc", "type": "tmpfs"})
    report = desk.report()
    assert "config.json: /mounts/0/source" in [each["where"] for each in report.runtime]
    assert [warned(mount) for mount in report.mounts] == [[]]


def test_source_that_the_container_can_replace(desk: Desk) -> None:
    inside = f"src={desk.rootfs}/etc,dst=/a"
    text = "the source is below the rootfs: the container can replace it"
    assert [warned(mount) for mount in desk.report(inside, f"src={desk.file},dst=/b").mounts] == [[text], []]
    below = [f"src={desk.source},dst=/a", f"src={desk.source}/inner,dst=/b"]
    text = "the source is below the writable bind on /a: the container can replace it"
    assert [warned(mount) for mount in desk.report(*below).mounts] == [[], [text]]
    assert [warned(mount) for mount in desk.report(f"{below[0]},ro", below[1]).mounts] == [[], []]


def test_source_is_known_by_where_its_links_lead(desk: Desk) -> None:
    volume = desk.path / "docker/volumes/models/_data"
    volume.mkdir(parents=True)
    os.symlink(volume, desk.path / "link")
    (mount,) = desk.report(f"src={desk.path}/link,dst=/etc").mounts
    assert (mount["found"]["known"], mount["found"]["path"]) == ('Docker volume "models"', str(volume))
    text = as_text(desk.report(f"src={desk.path}/link,dst=/etc"))
    assert f'  known as Docker volume "models"\n  really   {volume}\n' in text


def test_device_is_told_by_its_number(desk: Desk) -> None:
    (mount,) = desk.report("src=/dev/null,dst=/etc/null").mounts
    assert [mount["found"][name] for name in ("kind", "number", "known")] == ["character device", "1:3", "host device"]
    assert "  source   character device 1:3, " in as_text(desk.report("src=/dev/null,dst=/etc/null"))


def test_ro_rro_and_id_maps_are_told_apart(desk: Desk) -> None:
    idmap = "uids=0-1000-1;gids=0-1000-1#5-5-2"
    for words, asked in {
        "ro": "rbind ro rprivate",
        "rro": "rbind rro rprivate",
        f"ro,idmap={idmap}": "rbind ro idmap rprivate",
        f"rro,ridmap={idmap}": "rbind rro ridmap rprivate",
    }.items():
        report = desk.report(f"src={desk.source},dst=/etc,{words}")
        text = as_text(report)
        assert report.mounts[0]["asked"] == asked.split()
        assert f"  options  {asked}\n" in text
        ids = "  ids      uids 0-1000-1; gids 0-1000-1 5-5-2 (in the source, on the host, how many)\n"
        assert (ids in text) == ("idmap" in words)


@pytest.mark.parametrize("half", [{"allow_annotations": True}, {"allowed_sources": ["/srv"]}], ids=str)
def test_what_is_allowed_by_halves_is_told(desk: Desk, half: dict[str, Any]) -> None:
    (warning,) = desk.report(**half).warnings
    assert warning.partition(" has no effect without ")[1]


def test_log_that_cannot_be_written_is_told(desk: Desk) -> None:
    assert desk.report(log=f"{desk.path}/log").warnings == []
    assert desk.report(log=f"{desk.path}/absent/log").warnings == [f"--log {desk.path}/absent/log cannot be written"]


def edit(desk: Desk, **members: Any) -> None:
    """Lay members over those of config.json."""
    file = desk.bundle / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **members}))


def test_annotations_of_others_are_named_and_ours_if_they_do_not_count(desk: Desk) -> None:
    edit(
        desk, annotations={"cdi.k8s.io/a": "v.com/gpu=0", "io.github.oci-bind-hook.mount.x": f"src={desk.file},dst=/x"}
    )
    ignored = "annotations request binds (1 here), which require --allow-annotations and --allow-source"
    devices = "CDI devices, cdi.k8s.io/a: v.com/gpu=0: the engine adds their mounts to config.json"
    # The next step of a user whose registration has a condition that this container does not meet.
    check = f"to see why no registration of the hook applies to this container, run {CHECK} {desk.bundle}"
    assert desk.report().notes == [check, ignored, devices, NOTHING]
    allowed = desk.report(allow_annotations=True, allowed_sources=[str(desk.path)])
    renamed = f"config.json#/annotations/io.github.oci-bind-hook.mount.x: {RENAMED}"
    assert (allowed.notes, len(allowed.mounts)) == ([renamed, devices, NOTHING], 1)


# The hook as config.json registers it


def register(desk: Desk, stage: str, *words: str) -> None:
    entry = {"path": "/bin/true", "args": ["oci-bind-hook", *words], "env": ["A=1"]}
    edit(desk, hooks={stage: [entry], "poststop": [entry]})


def planned(desk: Desk, *arguments: str, **members: Any) -> Report:
    return dry_run.dry_run(desk.options(*arguments, **members), bytes)


def test_options_are_those_of_the_registered_hook(desk: Desk) -> None:
    register(desk, "createContainer", "createContainer", "--mount", f"src={desk.file},dst=/etc/x")
    report = planned(desk)
    place = "config.json: /hooks/createContainer/0"
    assert [mount["resolved"] for mount in report.mounts] == ["/etc/x"]
    assert (report.stage, report.options) == ("createContainer", place)
    assert report.registered == [place, "config.json: /hooks/poststop/0"]
    assert f"options    from {place}\n" in as_text(report)
    assert report.problems == []


def test_options_of_the_command_line_go_first(desk: Desk) -> None:
    register(desk, "createRuntime", "--mount", f"src={desk.file},dst=/etc/x")
    report = planned(desk, f"src={desk.file},dst=/etc/y")
    assert ([mount["resolved"] for mount in report.mounts], report.options) == (["/etc/y"], None)


def test_entries_with_the_same_options_give_a_warning_once(desk: Desk) -> None:
    words = ["oci-bind-hook", "--mount", f"src={desk.file},dst=/etc/x", "--log", f"{desk.path}/absent/log"]
    entries = [
        {"path": "/bin/true", "args": [*words, f"--mount=src={desk.file},dst=/{each}"], "env": ["A=1"]} for each in "ab"
    ]
    edit(desk, hooks={"createContainer": entries, "poststop": entries})
    assert planned(desk).warnings == [f"--log {desk.path}/absent/log cannot be written"]


def test_registered_words_that_cannot_be_understood_are_a_problem(desk: Desk) -> None:
    register(desk, "createRuntime", "--mont")
    (problem,) = planned(desk).problems
    assert (problem["where"], problem["exit"]) == ("config.json: /hooks/createRuntime/0/args: --mont", 64)


def test_without_an_environment_of_its_own_the_dry_run_fails_and_the_real_run_might_not(desk: Desk) -> None:
    entry = {"path": "/bin/true", "args": ["oci-bind-hook", "--mount", f"src={desk.file},dst=/etc/x"]}
    edit(desk, hooks={"createRuntime": [entry], "poststop": [{**entry, "env": ["A=1"]}]})
    report = planned(desk)
    assert [(one["where"], one["exit"]) for one in report.problems] == [
        ("config.json: /hooks/createRuntime/0/env", os.EX_CONFIG)
    ]
    assert (report.exit_code, [mount["action"] for mount in report.mounts]) == (os.EX_CONFIG, ["mount"])
    text = as_text(report)
    assert text.startswith("problem    config.json: /hooks/createRuntime/0/env: missing or empty: some runtimes")
    assert "the real run would exit" not in text
    # What a real run would meet goes first.
    report = planned(desk, "src=/absent,dst=/etc/y")
    assert [one["exit"] for one in report.problems] == [os.EX_NOINPUT, os.EX_CONFIG]
    assert report.exit_code == os.EX_NOINPUT


def register_all(desk: Desk, *calls: list[str]) -> None:
    """Several entries of one stage, as of several CDI devices."""
    entries = [{"path": "/bin/true", "args": ["oci-bind-hook", *words], "env": ["A=1"]} for words in calls]
    edit(desk, hooks={"createRuntime": entries, "poststop": entries})


def test_all_entries_of_a_stage_are_planned_together(desk: Desk) -> None:
    bind = [f"--mount=src={desk.source},dst={path}" for path in ("/etc/a", "/etc/a/inner", "/etc/b")]
    register_all(desk, [bind[0]], [bind[1], bind[0]], ["--allow-shared", bind[2]])
    report = planned(desk)
    place = "config.json: /hooks/createRuntime"
    assert [(mount["origin"], mount["resolved"], mount["create"]) for mount in report.mounts] == [
        (f"{place}/0: --mount 1", "/etc/a", [{"path": "/etc/a", "kind": "directory"}]),
        (f"{place}/1: --mount 1", "/etc/a/inner", []),
        (f"{place}/2: --mount 1", "/etc/b", [{"path": "/etc/b", "kind": "directory"}]),
    ]
    assert report.options == ", ".join(f"{place}/{number}" for number in range(3))
    assert (report.problems, report.exit_code) == ([], os.EX_CANTCREAT)


def test_the_verdict_is_that_of_the_first_entry_that_fails(desk: Desk) -> None:
    """Each is a run of its own: what the second meets early comes after what the first meets late."""
    late, early = ["--mount", f"src={desk.file},dst=/proc"], ["--mont"]
    missing = ["--mount", "src=/absent,dst=/etc/x"]
    edit(desk, mounts=[{"destination": "/proc", "type": "proc"}])
    for calls, codes in (
        ([late, early, missing], [os.EX_NOPERM, os.EX_USAGE, os.EX_NOINPUT]),
        ([missing, late], [os.EX_NOINPUT, os.EX_NOPERM]),
    ):
        register_all(desk, *calls)
        report = planned(desk)
        assert [problem["exit"] for problem in report.problems] == codes
        assert report.exit_code == codes[0]
    register_all(desk, missing, [*late, "--strict"])
    edit(desk, hostname=1)
    assert [problem["exit"] for problem in planned(desk).problems] == [os.EX_NOINPUT, os.EX_DATAERR, os.EX_NOPERM]


def test_entries_that_bind_on_one_place_are_told(desk: Desk) -> None:
    register_all(desk, ["--mount", f"src={desk.source},dst=/etc/a"], ["--mount", f"src={desk.source},dst=/etc/a,ro"])
    (problem,) = planned(desk).problems
    place = "config.json: /hooks/createRuntime"
    assert (problem["where"], problem["message"]) == (
        f"{place}/1: --mount 1",
        f"/etc/a is already the destination of {place}/0: --mount 1",
    )


def test_state_folders_that_differ_are_told(desk: Desk) -> None:
    register_all(desk, ["--root", "/run/a"], ["--root", "/run/b"])
    told = "the entries have different --root values, so a failure of one does not undo the others"
    assert f"config.json: /hooks/createRuntime/0: {told}" in planned(desk).warnings


def test_prestart_that_is_registered_has_a_container(desk: Desk) -> None:
    assert planned(desk, stage="prestart").namespace == "runtime"
    register(desk, "prestart")
    assert planned(desk, stage="prestart").namespace == "container"


def test_program_that_cannot_be_run_is_told(desk: Desk) -> None:
    entry = {"path": "/absent/oci-bind-hook", "env": ["A=1"]}
    edit(desk, hooks={"createRuntime": [entry, entry], "poststop": [{**entry, "path": "/bin/oci-bind-hook"}]})
    report = planned(desk)
    missing = "/absent/oci-bind-hook does not exist"
    assert [(each["where"], each["message"]) for each in report.runtime if "/hooks" in each["where"]] == [
        (f"config.json: /hooks/createRuntime/{number}/path", missing) for number in (0, 1)
    ]
    assert [warning for warning in report.warnings if "path" in warning] == [
        "config.json: /hooks/poststop/0/path: /bin/oci-bind-hook does not exist: run install again"
    ]


# Rights that will be lacking

SHIFTED = [{"containerID": 0, "hostID": 100000, "size": 65536}]


def test_id_maps_and_new_mount_points_in_a_user_namespace(desk: Desk) -> None:
    user = {"namespaces": [{"type": "mount"}, {"type": "user"}], "uidMappings": SHIFTED, "gidMappings": SHIFTED}
    edit(desk, linux=user)
    binds = [f"src={desk.source},dst=/etc,idmap", f"src={desk.source},dst=/new", f"src={desk.source},dst=/real"]
    outside = desk.report(*binds, stage="createRuntime")
    assert outside.problems == []
    inside = desk.report(*binds, stage="createContainer")
    assert [(problem["where"], problem["exit"]) for problem in inside.problems] == [
        ("--mount 1", 69),
        ("", 69),
    ]
    assert inside.problems[0]["message"] == "ids cannot be mapped inside a user namespace"
    # The sentence of the real run.
    problem = "mount points are missing, and nothing can be recorded in the user namespace of another user"
    assert inside.problems[1]["message"] == problem


# Any bundle

NAMES = some.sampled_from(["a", "b", "..", ".", "", "link", "file"])
INSIDE = some.lists(NAMES, min_size=1, max_size=4).map("/".join)
THINGS = some.sampled_from([None, "text", "->/a", "->../b", "->link", "->a/./b/", "->/file/x", "->"])
WORDS = some.sampled_from(["bind", "rbind", "ro", "rro", "noatime", "shared", "tmpfs", "idmap", "remount", "x\n"])
MOUNTS = some.fixed_dictionaries(
    {"destination": INSIDE.filter(bool)},
    optional={
        "source": some.sampled_from(["rootfs", "rootfs/file", "/absent", "config.json", "", "."]),
        "type": some.sampled_from(["bind", "tmpfs", "none", "proc", "sysfs"]),
        "options": some.lists(WORDS, max_size=4),
    },
)


@given(
    some.dictionaries(some.sampled_from(["a", "b", "link", "file", "a/b", "b/link"]), THINGS),
    some.lists(MOUNTS, max_size=4),
    some.lists(INSIDE, max_size=3),
    some.sampled_from([None, "prestart", "createRuntime", "createContainer", "poststop"]),
    some.booleans(),
)
def test_report_on_any_bundle_is_valid(
    tree: dict[str, str | None], mounts: list[dict[str, Any]], more: list[str], stage: str | None, own: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        desk = Desk(Path(folder))
        for name, what in sorted(tree.items()):
            parent = desk.rootfs / os.path.dirname(name)
            if parent.is_dir() and not parent.is_symlink() and what != "->":
                make(desk.rootfs, {name: what})
        desk.config(*mounts, namespaces=("mount",) if own else ())
        report = desk.report(*(f"src={desk.source},dst=/{path}" for path in more), stage=stage)
        assert report.exit_code in (0, 64, 66, 69, 73, 77, 78)
        for mount in report.mounts:
            assert mount["action"] in ("mount", "present", "left")
