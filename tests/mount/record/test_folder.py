# SPDX-License-Identifier: Apache-2.0
"""State files: only our own are believed, each is whole at every instant, and who works on one works alone."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from helpers import support
from helpers.mounting import fds, forked, named, tmpfs
from oci_bind_hook.documents.strictjson import MAX_BYTES
from oci_bind_hook.errors import RecordError
from oci_bind_hook.record import document
from oci_bind_hook.record.folder import StateFolder
from oci_bind_hook.record.held import peek
from oci_bind_hook.rootfs.identity import keys

if TYPE_CHECKING:
    from collections.abc import Callable

    from oci_bind_hook.record.state_file import MadeRecord, Record, RootfsRecord


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
    "group-writable": (lambda path: folder_as(path, mode=0o720), ["belongs to uid 0 and has mode 0720"] * 2),
    "readable": (lambda path: folder_as(path, mode=0o755), ["belongs to uid 0 and has mode 0755"] * 2),
    "of-another": (lambda path: folder_as(path, owner=1000), ["belongs to uid 1000 and has mode 0700"] * 2),
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


def test_root_hears_who_can_use_the_folder_of_another_user(path: str) -> None:
    folder_as(path, owner=1000)
    with pytest.raises(RecordError) as refused:
        StateFolder.open(path, create=False)
    assert refused.value.hint == (
        "it must belong to uid 0 and have mode 0700; to use that user's records, run the command as that user, for"
        " rootless podman in `podman unshare`"
    )


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
    "hard-link": (lambda file, data: link(file, data, os.link), "is not a valid state file"),
    "fifo": (lambda file, _: os.mkfifo(file, 0o600), "is not a valid state file"),
    "folder": (lambda file, _: os.mkdir(file, 0o700), "is not a valid state file"),
    "group-readable": (lambda file, data: write(file, data, 0o640), "is not a valid state file"),
    "of-another-user": (of_another, "is not a valid state file"),
    "of-another-id": (
        lambda file, data: write(file, changed(data, id="c2")),
        'contains the record of another container, "c2"',
    ),
    "empty": (lambda file, _: write(file, b""), "c1.json: is empty"),
    "truncated": (lambda file, data: write(file, data[:-20]), "c1.json: "),
    "no-record": (lambda file, _: write(file, b"[]"), "c1.json: "),
    "wrong-schema": (lambda file, data: write(file, changed(data, uses=["x"])), "c1.json: /uses/0: "),
    "more-members": (lambda file, data: write(file, changed(data, more=1)), "c1.json: /more: "),
    "version-3": (
        lambda file, data: write(file, changed(data, version=3)),
        "c1.json: /version: is 3, written by a newer",
    ),
    "17-MiB": (large, "cannot be read: File too large"),
}


@pytest.mark.parametrize(("plant", "problem"), PLANTED.values(), ids=list(PLANTED))
def test_what_is_not_a_record_of_ours_is_refused_and_stays(
    folder: StateFolder, path: str, record: Record, plant: Callable[[str, bytes], object], problem: str
) -> None:
    plant(f"{path}/c1.json", document.write(record))
    before, held = support.tree(path), fds()
    with pytest.raises(RecordError, match=problem) as refused:
        folder.load("c1")
    assert refused.value.exit_code == os.EX_IOERR
    assert refused.value.hint.endswith("then delete the file")
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
    write(f"{path}/c1.new", document.write(record)[:100])
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


def save(folder: StateFolder, record: Record, container: str, **members: object) -> None:
    """Saves the record of another container as a run does."""
    one = named(record, container, **members)
    with folder.lock_rootfs(one["rootfs"]) as held:
        held.users(one["rootfs"], record["boot"])
        held.save(one)


OTHER_BOOT = "0" * 8 + "-0000" * 3 + "-" + "0" * 12


def test_neighbours_are_all_others_on_the_same_rootfs(folder: StateFolder, path: str, record: Record) -> None:
    at, boot = record["rootfs"], record["boot"]
    save(folder, record, "c1")
    save(folder, record, "c2")
    save(folder, record, "c3", rootfs={**at, "path": "/moved"})
    save(folder, record, "c4", rootfs={**at, "ino": at["ino"] + 1})
    save(folder, record, "c5", rootfs={**at, "dev": 1})
    # Of an earlier boot, when devices had other numbers.
    save(folder, record, "c6", rootfs={**at, "dev": 1}, boot=OTHER_BOOT)
    save(folder, record, "c7", boot=OTHER_BOOT)
    save(folder, record, "c8", rootfs={**at, "path": "/moved"}, boot=OTHER_BOOT)
    # One bad file must not keep all others from starting.
    write(f"{path}/d1.json", b"{")
    with folder.lock_rootfs(at) as held:
        users = held.users(at, boot)
        assert [one["id"] for one in users.besides("c1")] == ["c2", "c3", "c6", "c7"]
        assert users.unread == []
    # Each may be on this rootfs.
    write(f"{path}/c2.json", b"{")
    os.unlink(f"{path}/c3.json")
    os.mkfifo(f"{path}/c3.json")
    users = peek(folder, at, boot)
    assert [one["id"] for one in users.besides("c1")] == ["c6", "c7"]
    assert [remark.partition(".json")[0] for remark in users.unread] == [
        f"a container whose record cannot be read may use the same mount points: {path}/{name}" for name in ("c2", "c3")
    ]


def overlay(record: Record, dev: int, upper: int | None, **members: object) -> RootfsRecord:
    found = None if upper is None else {"path": "/upper", "dev": 7, "ino": upper}
    return cast("RootfsRecord", {**record["rootfs"], "overlay": True, "dev": dev, "upper": found, **members})


def test_an_overlay_is_known_by_its_upper_folder_wherever_it_is_mounted(folder: StateFolder, record: Record) -> None:
    at = overlay(record, 50, 3)
    rows = {
        "c1": overlay(record, 50, 3),
        "c2": overlay(record, 51, 3, path="/elsewhere"),  # mounted anew, or twice
        "c3": overlay(record, 50, 4),  # another one, with the number of one that was unmounted
        "c4": overlay(record, 50, None),  # this one, by somebody who could not see the upper folder
        "c5": overlay(record, 51, None),
    }
    for container, rootfs in rows.items():
        save(folder, record, container, rootfs=rootfs)
    with folder.lock_rootfs(at) as held:
        assert [*held.users(at, record["boot"]).records] == ["c1", "c2", "c4"]


def test_records_on_other_rootfs_are_not_opened(path: str, record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a start takes no longer, however many there are."""
    folder = opened(path)
    at = record["rootfs"]
    for number in range(20):
        rootfs: RootfsRecord = {**at, "ino": at["ino"] + number // 2, "path": f"/rootfs{number // 2}"}
        with folder.lock_rootfs(rootfs) as held:
            held.save(named(record, f"c{number}", rootfs=rootfs))
            held.users(rootfs, record["boot"])
    read = []
    real = StateFolder._read

    def count(self: StateFolder, container: str) -> bytes | None:
        read.append(container)
        return real(self, container)

    monkeypatch.setattr(StateFolder, "_read", count)
    here: RootfsRecord = {**at, "path": "/rootfs0"}
    with opened(path).lock_rootfs(here) as held:
        assert [*held.users(here, record["boot"]).records] == ["c0", "c1"]
    assert read == ["c0", "c1"]


def test_a_folder_of_an_earlier_version_is_looked_through_until_none_of_its_records_is_left(
    path: str, record: Record
) -> None:
    """They are in no list."""
    at = record["rootfs"]
    old = json.loads((Path(__file__).resolve().parents[2] / "data/state-files/1.json").read_bytes())
    old.update(boot=record["boot"], rootfs={name: at[name] for name in ("path", "dev", "ino", "overlay")})
    opened(path)
    write(f"{path}/c1.json", json.dumps(old).encode())
    for is_left in (True, False):
        if not is_left:
            os.unlink(f"{path}/c1.json")
        folder = opened(path)
        with folder.lock_rootfs(at) as held:
            assert [*held.users(at, record["boot"]).records] == ["c1"] * is_left
            assert folder.indexes.is_whole() is not is_left


def test_an_id_is_listed_from_before_its_record_is_written_until_it_is_removed(
    folder: StateFolder, path: str, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = record["rootfs"]

    def listed() -> list[list[str]]:
        return [folder.indexes.listed(key) for key in keys(at)]

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with folder.lock_rootfs(at) as held:
        monkeypatch.setattr(StateFolder, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            held.save(record)
        assert listed() == [["c1"], ["c1"]]
        monkeypatch.undo()
        held.save(record)
        held.save(record)
        monkeypatch.setattr(StateFolder, "remove", killed)
        with pytest.raises(KeyboardInterrupt):
            held.remove("c1")
    assert listed() == [["c1"], ["c1"]]
    monkeypatch.undo()
    with folder.lock_rootfs(at) as held:
        held.remove("c1")
    assert os.listdir(path) == []
    # One that has no record any more is taken away by who looks next.
    save(folder, record, "c1")
    os.unlink(f"{path}/c1.json")
    with folder.lock_rootfs(at) as held:
        assert held.users(at, record["boot"]).records == {}
    assert os.listdir(path) == []


def test_what_a_neighbour_uses_becomes_its_own_once(folder: StateFolder, record: Record) -> None:
    used = ["/new", "/new/b", "/new/b/c"]
    other = named(record, "c2", uses=used, made=[made("/new/b/c")])
    with folder.lock_rootfs(record["rootfs"]) as held:
        held.save(other)
        held.save(named(record, "c3"))
        users = held.users(record["rootfs"], record["boot"])
        assert held.hand_over(made("/new/x"), users, "c1") is False
        assert held.hand_over(made("/new"), users, "c2") is False
        for path in ("/new/b", "/new", "/new/b", "/new/b/c"):
            assert held.hand_over(made(path), users, "c1") is True
        held.remove("c1")
    found = folder.load("c2")
    assert found is not None
    assert found["made"] == [made(path) for path in used]
    found = folder.load("c3")
    assert found is not None
    assert found["made"] == []
