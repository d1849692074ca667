# SPDX-License-Identifier: Apache-2.0
"""State files: only our own are believed, each is whole at every instant, and who works on one works alone."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING

import pytest

from helpers import support
from helpers.mounting import fds, forked, named, tmpfs
from oci_bind_hook.documents.strictjson import MAX_BYTES
from oci_bind_hook.errors import RecordError
from oci_bind_hook.record.folder import StateFolder
from oci_bind_hook.record.state_file import parse_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from oci_bind_hook.record.state_file import MadeRecord, Record


def opened(path: str) -> StateFolder:
    folder = StateFolder.open(path, create=True)
    assert folder is not None
    return folder


def made(path: str) -> MadeRecord:
    return {"path": path, "kind": "directory", "filesystem": "rootfs", "identity": None}


# -- the folder --------------------------------------------------------------------------------------------------------


def test_it_is_made_for_us_alone(path: str) -> None:
    os.umask(0)
    assert StateFolder.open(f"{path}/deep/er", create=False) is None
    opened(f"{path}/deep/er")
    assert stat.S_IMODE(os.stat(f"{path}/deep/er").st_mode) == 0o700
    opened(f"{path}/deep/er")


def folder_as(path: str, mode: int = 0o700, owner: int = 0) -> None:
    os.mkdir(path)
    os.chown(path, owner, 0)
    os.chmod(path, mode)


def linked_folder(path: str) -> None:
    folder_as(path + "2")
    os.symlink(path + "2", path)


# What stands there, and what is said of it where a folder may be made, and where not.
FOLDERS: dict[str, tuple[Callable[[str], object], list[str]]] = {
    "group-writable": (lambda path: folder_as(path, mode=0o720), ["is owned by uid 0 with mode 0720"] * 2),
    "readable": (lambda path: folder_as(path, mode=0o755), ["is owned by uid 0 with mode 0755"] * 2),
    "of-another": (lambda path: folder_as(path, owner=1000), ["is owned by uid 1000 with mode 0700"] * 2),
    "link": (linked_folder, ["cannot be opened: Not a directory"] * 2),
    "dangling-link": (
        lambda path: os.symlink("absent", path),
        ["cannot be opened: File exists", "cannot be opened: Not a directory"],
    ),
    "file": (
        lambda path: os.close(os.open(path, os.O_CREAT, 0o600)),
        ["cannot be opened: File exists", "cannot be opened: Not a directory"],
    ),
}


@pytest.mark.parametrize("create", [True, False], ids=["create", "open"])
@pytest.mark.parametrize(("plant", "problems"), FOLDERS.values(), ids=list(FOLDERS))
def test_another_folder_is_refused(
    path: str, plant: Callable[[str], object], problems: list[str], create: bool
) -> None:
    plant(path)
    before, held = support.tree(os.path.dirname(path)), fds()
    problem = f"the state folder {path} {problems[not create]}"
    with pytest.raises(RecordError, match=problem) as refused:
        StateFolder.open(path, create=create)
    assert refused.value.hint
    assert support.tree(os.path.dirname(path)) == before
    assert fds() == held


def test_a_folder_that_cannot_be_made_is_an_error() -> None:
    with pytest.raises(RecordError, match="/proc/absent/x cannot be opened: No such file"):
        StateFolder.open("/proc/absent/x", create=True)


# -- a state file ------------------------------------------------------------------------------------------------------


def test_what_was_saved_is_loaded(folder: StateFolder, path: str, record: Record) -> None:
    assert folder.load("c1") is None
    folder.save(record)
    assert folder.load("c1") == record
    assert folder.load("c2") is None
    assert {name: entry[:3] for name, entry in support.tree(path).items()} == {
        ".": ("drwx------", 0, 0),
        "c1.json": ("-rw-------", 0, 0),
    }
    folder.remove("c1")
    folder.remove("c1")
    assert os.listdir(path) == []


def test_the_folder_is_found_wherever_it_is(folder: StateFolder, path: str, record: Record) -> None:
    os.rename(path, path + "2")
    os.mkdir(path)
    folder.save(record)
    assert folder.load("c1") == record
    assert (os.listdir(path), os.listdir(path + "2")) == ([], ["c1.json"])


def write(path: str, data: bytes, mode: int = 0o600) -> None:
    with open(path, "wb") as file:
        file.write(data)
    os.chmod(path, mode)


def link(file: str, data: bytes, how: Callable[[str, str], None]) -> None:
    write(file + "2", data)
    how(file + "2", file)


def changed(data: bytes, **members: object) -> bytes:
    return json.dumps({**json.loads(data), **members}).encode()


def of_another(file: str, data: bytes) -> None:
    write(file, data)
    os.chown(file, 1000, 0)


def large(file: str, data: bytes) -> None:
    write(file, data)
    os.truncate(file, MAX_BYTES + 1)


PLANTED: dict[str, tuple[Callable[[str, bytes], object], str]] = {
    "link": (lambda file, data: link(file, data, os.symlink), "cannot be read: Too many levels of symbolic links"),
    "hard-link": (lambda file, data: link(file, data, os.link), "is not a state file of ours"),
    "fifo": (lambda file, _: os.mkfifo(file, 0o600), "is not a state file of ours"),
    "folder": (lambda file, _: os.mkdir(file, 0o700), "is not a state file of ours"),
    "group-readable": (lambda file, data: write(file, data, 0o640), "is not a state file of ours"),
    "of-another-user": (of_another, "is not a state file of ours"),
    "of-another-id": (lambda file, data: write(file, changed(data, id="c2")), 'is of the container "c2"'),
    "empty": (lambda file, _: write(file, b""), "c1.json: is empty"),
    "truncated": (lambda file, data: write(file, data[:-20]), "c1.json: "),
    "no-record": (lambda file, _: write(file, b"[]"), "c1.json: "),
    "wrong-schema": (lambda file, data: write(file, changed(data, uses=["x"])), "c1.json: /uses/0: "),
    "more-members": (lambda file, data: write(file, changed(data, more=1)), "c1.json: /more: "),
    "version-2": (lambda file, data: write(file, changed(data, version=2)), "c1.json: /version: "),
    "17-MiB": (large, "cannot be read: File too large"),
}


@pytest.mark.parametrize(("plant", "problem"), PLANTED.values(), ids=list(PLANTED))
def test_what_is_not_a_record_of_ours_is_refused_and_stays(
    folder: StateFolder, path: str, record: Record, plant: Callable[[str, bytes], object], problem: str
) -> None:
    plant(f"{path}/c1.json", json.dumps(record).encode())
    before, held = support.tree(path), fds()
    with pytest.raises(RecordError, match=problem) as refused:
        folder.load("c1")
    assert refused.value.exit_code == os.EX_IOERR
    assert refused.value.hint.endswith("move it away")
    assert f"{path}/c1.json" in str(refused.value)
    assert support.tree(path) == before
    assert fds() == held


@pytest.mark.parametrize("name", ["c1.new", "c1.json"])
def test_a_link_in_the_place_of_a_file_to_be_written_is_not_followed(
    folder: StateFolder, path: str, record: Record, name: str
) -> None:
    write(f"{path}/victim", b"precious")
    os.symlink("victim", f"{path}/{name}")
    folder.save(record)
    assert folder.load("c1") == record
    with open(f"{path}/victim", "rb") as file:
        assert file.read() == b"precious"
    assert sorted(os.listdir(path)) == ["c1.json", "victim"]


def test_what_a_killed_writer_has_left_is_in_nobodys_way(folder: StateFolder, path: str, record: Record) -> None:
    folder.save(record)
    write(f"{path}/c1.new", json.dumps(record).encode()[:100])
    assert folder.load("c1") == record
    folder.save(named(record, "c1", uses=["/new"]))
    assert folder.load("c1") == named(record, "c1", uses=["/new"])
    assert os.listdir(path) == ["c1.json"]
    write(f"{path}/c1.new", b"")
    folder.remove("c1")
    assert os.listdir(path) == []


def test_a_write_that_fails_leaves_the_record_as_it_was(path: str, record: Record) -> None:
    tmpfs(path, "size=64k,mode=700")
    folder = opened(path)
    folder.save(record)
    with pytest.raises(RecordError, match=r"c1\.json cannot be written: No space left on device"):
        folder.save(named(record, "c1", uses=["/" + "x" * 100_000]))
    assert folder.load("c1") == record


@pytest.mark.parametrize("name", ["c1.new", "c1.json"])
def test_what_cannot_be_replaced_is_an_error(folder: StateFolder, path: str, record: Record, name: str) -> None:
    os.mkdir(f"{path}/{name}")
    with pytest.raises(RecordError, match=r"c1\.json cannot be written: Is a directory"):
        folder.save(record)
    with pytest.raises(RecordError, match="cannot be removed: Is a directory"):
        folder.remove("c1")


def test_a_record_that_is_replaced_or_removed_while_it_is_read_is_still_whole(
    folder: StateFolder, path: str, record: Record
) -> None:
    def writer() -> None:
        for number in range(300):
            folder.save(named(record, "c1", created=number))
            if number % 10 == 0:
                folder.remove("c1")

    child = forked(writer)
    loaded = 0
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        found = folder.load("c1")
        if found is not None:
            assert found == named(record, "c1", created=found["created"])
            loaded += 1
    assert loaded > 10
    assert os.listdir(path) == ["c1.json"]


# -- neighbours --------------------------------------------------------------------------------------------------------


def test_neighbours_are_all_others_on_the_same_rootfs(folder: StateFolder, path: str, record: Record) -> None:
    at = record["rootfs"]
    for one in (
        *(record, named(record, "c2"), named(record, "c3", rootfs={**at, "path": "/moved"})),
        *(named(record, "c4", rootfs={**at, "ino": at["ino"] + 1}), named(record, "c5", rootfs={**at, "dev": 1})),
    ):
        folder.save(one)
    # One bad file must not keep all others from starting.
    write(f"{path}/c6.json", b"{")
    os.mkfifo(f"{path}/c7.json")
    for rootfs in (at, os.stat(at["path"])):
        found, remarks = folder.on_rootfs(rootfs, "c1")
        assert [one["id"] for one in found] == ["c2", "c3"]
        assert [remark.partition(".json")[0] for remark in remarks] == [
            *(f"left out: {path}/c6", f"left out: {path}/c7")
        ]


def test_those_on_another_rootfs_cost_no_more_than_a_look(
    path: str, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless they are not as we write them: then it is found out what they are."""
    judged = []

    def parse(data: bytes, name: str) -> Record:
        judged.append(os.path.basename(name))
        return parse_record(data, name)

    monkeypatch.setattr("oci_bind_hook.record.folder.parse_record", parse)
    folder = opened(path)
    at = record["rootfs"]
    theirs = {**at, "path": '/"dev":1,"ino":1,"overlay":', "ino": at["ino"] + 1}
    for number, rootfs in enumerate((at, theirs, {**at, "dev": 10 * at["dev"]}, {**at, "ino": 10 * at["ino"]})):
        folder.save(named(record, f"c{number}", rootfs=rootfs))
    last_first = {name: at[name] for name in ("ino", "dev", "overlay", "path")}
    texts = {
        "d0": json.dumps(named(record, "d0"), indent=2),
        "d1": json.dumps(named(record, "d1", rootfs=theirs), indent=2),
        "d2": json.dumps(named(record, "d2", rootfs=last_first), separators=(",", ":")),
        "e0": json.dumps(named(record, "e0", rootfs=theirs, version=2), separators=(",", ":")),
        "e1": json.dumps(named(record, "e1", rootfs=theirs), separators=(",", ":"))[:-9],
        "e2": '{"version":1,"dev":1,"ino":1}',
    }
    for name, text in texts.items():
        write(f"{path}/{name}.json", text.encode())
    found, remarks = folder.on_rootfs(at, "none")
    assert [one["id"] for one in found] == ["c0", "d0", "d2"]
    assert [os.path.basename(remark.partition(":")[2].partition(":")[0]) for remark in remarks] == [
        *("e0.json", "e1.json", "e2.json")
    ]
    assert judged == ["c0.json", *(f"{name}.json" for name in texts)]


def test_what_a_neighbour_uses_becomes_its_own_once(folder: StateFolder, record: Record) -> None:
    used = ["/new", "/new/b", "/new/b/c"]
    other = named(record, "c2", uses=used, made=[made("/new/b/c")])
    folder.save(other)
    assert folder.hand_over(made("/new/x"), [other]) is False
    assert folder.hand_over(made("/new"), []) is False
    for path in ("/new/b", "/new", "/new/b", "/new/b/c"):
        assert folder.hand_over(made(path), [named(record, "c3"), other]) is True
    found = folder.load("c2")
    assert found is not None
    assert found["made"] == [made(path) for path in used]
    assert folder.load("c3") is None
