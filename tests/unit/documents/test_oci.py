# SPDX-License-Identifier: Apache-2.0
"""What real engines send is accepted; what two JSON readers would understand differently is refused, with its place."""

from __future__ import annotations

import gc
import json
import os
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from oci_bind_hook.documents import oci, strictjson
from oci_bind_hook.errors import DataError

BUNDLE = "/run/containers/storage/overlay-containers/c1/userdata"

STATES: dict[str, dict[str, Any]] = {
    "runc-prestart": {"ociVersion": "1.0.2-dev", "id": "c1", "status": "creating", "pid": 16778, "bundle": "/b"},
    "runc-createContainer": {"ociVersion": "1.0.2-dev", "id": "c1", "status": "creating", "pid": 1, "bundle": "/b"},
    "runc-poststop": {"ociVersion": "1.0.2-dev", "id": "c1", "status": "stopped", "bundle": "/b"},
    "crun-createRuntime": {
        "ociVersion": "1.0",
        "id": "c1",
        "pid": 16778,
        "root": "rootfs",
        "bundle": "/b",
        "status": "created",
        "annotations": {"eq=key": "a=b", "bundle": "x"},
    },
    "crun-createContainer": {"ociVersion": "1.0", "id": "c1", "pid": 0, "bundle": "/b", "status": "created"},
    "crun-startContainer": {"ociVersion": "1.0", "id": "c1", "pid": 0, "bundle": "/", "status": "starting"},
    "crun-poststop": {"ociVersion": "1.0", "id": "c1", "pid": 0, "bundle": "/b", "status": "stopped"},
    "crun-state-command": {
        "ociVersion": "1.0.0",
        "id": "c1",
        "pid": 16778,
        "status": "paused",
        "bundle": "/b",
        "rootfs": "/b/rootfs",
        "created": "2026-01-01T00:00:00.000000Z",
        "systemd-scope": "c1.scope",
        "owner": "",
    },
    "runsc-createRuntime": {"ociVersion": "1.0.2-dev", "id": "c1", "status": "created", "pid": 99, "bundle": "/b"},
    "runsc-createContainer": {"ociVersion": "1.1.0", "id": "c1", "status": "creating", "pid": -1, "bundle": "/b"},
    "runsc-poststop": {"ociVersion": "1.0.2-dev", "id": "c1", "status": "stopped", "pid": -1, "bundle": "/b"},
    "youki-createRuntime": {
        "ociVersion": "v1.0.2",
        "id": "c1",
        "status": "creating",
        "bundle": "/b",
        "creator": 0,
        "useSystemd": False,
        "cleanUpIntelRdtSubdirectory": None,
    },
    "podman": {
        "ociVersion": "1.0",
        "id": "0123456789abcdef" * 4,
        "pid": 16778,
        "root": "/var/lib/containers/storage/overlay/abc/merged",
        "bundle": BUNDLE,
        "status": "created",
        "annotations": {"io.podman.annotations.autoremove": "FALSE", "run.oci.keep_original_groups": ""},
    },
    "podman-poststop": {"ociVersion": "1.0.2-dev", "id": "c1", "status": "stopped", "bundle": BUNDLE},
}

CONFIGS: dict[str, dict[str, Any]] = {
    "least": {"ociVersion": "1.0.2", "root": {"path": "rootfs"}},
    "runc-spec": {
        "ociVersion": "1.0.2-dev",
        "process": {"args": ["sh"], "cwd": "/", "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}]},
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "runc",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {
                "destination": "/dev",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["nosuid", "mode=755", "size=65536k"],
            },
        ],
        "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}], "maskedPaths": ["/proc/kcore"]},
    },
    "podman": {
        "ociVersion": "1.0.2-dev",
        "root": {"path": "/var/lib/containers/storage/overlay/abc/merged"},
        "mounts": [
            {"destination": "/etc/hosts", "type": "bind", "source": f"{BUNDLE}/hosts", "options": ["bind", "rprivate"]},
            {"destination": "/data", "source": "/srv/data", "options": ["rbind", "U", "z"]},
        ],
        "annotations": {"org.opencontainers.image.stopSignal": "15"},
        "hooks": {"createRuntime": [{"path": "/usr/libexec/x", "args": ["x", "y"], "env": ["PATH=/bin"]}]},
        "linux": {
            "uidMappings": [{"containerID": 0, "hostID": 100000, "size": 65536}],
            "gidMappings": [{"containerID": 0, "hostID": 100000, "size": 65536}],
            "devices": [{"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 8630}],
            "namespaces": [{"type": "network", "path": "/run/netns/cni"}, {"type": "mount"}, {"type": "cgroup"}],
            "rootfsPropagation": "rslave",
        },
    },
}


def refusal(data: bytes, most: int = 1) -> tuple[tuple[str, str], ...]:
    """The violations for which ``data`` is refused as JSON."""
    with pytest.raises(DataError) as caught:
        strictjson.documents(data, "config.json", most)
    assert caught.value.exit_code == os.EX_DATAERR
    assert str(caught.value).startswith("config.json")
    assert str(caught.value).isprintable()
    return caught.value.violations


class TestRealEngines:
    @pytest.mark.parametrize("name", STATES)
    def test_states(self, name: str) -> None:
        [document] = strictjson.documents(json.dumps(STATES[name]).encode(), "state")
        state = oci.state(document)
        assert (state.id, state.status, state.bundle) == tuple(STATES[name][key] for key in ("id", "status", "bundle"))
        assert state.oci_version == STATES[name]["ociVersion"]
        assert state.pid == STATES[name].get("pid")
        assert state.annotations == STATES[name].get("annotations", {})

    @pytest.mark.parametrize("name", CONFIGS)
    def test_configs(self, name: str) -> None:
        [document] = strictjson.documents(json.dumps(CONFIGS[name], indent=2).encode(), "config.json")
        config = oci.config(document)
        assert config.root_path == CONFIGS[name]["root"]["path"]
        assert [mount.destination for mount in config.mounts] == [
            mount["destination"] for mount in CONFIGS[name].get("mounts", ())
        ]


class TestObjects:
    def test_a_config_with_nothing(self) -> None:
        config = oci.config(CONFIGS["least"])
        assert config.root_readonly is False
        assert config.mounts == ()
        assert config.annotations == {}
        assert config.namespaces == {}
        assert (config.uid_mappings, config.gid_mappings) == (None, None)

    def test_a_config_with_much(self) -> None:
        config = oci.config(CONFIGS["podman"])
        assert config.annotations == {"org.opencontainers.image.stopSignal": "15"}
        assert config.namespaces == {"network": "/run/netns/cni", "mount": None, "cgroup": None}
        assert oci.config(CONFIGS["runc-spec"]).root_readonly is True

    def test_the_mappings_of_a_user_namespace(self) -> None:
        uids = [{"containerID": 0, "hostID": 1000, "size": 1}, {"containerID": 1, "hostID": 0, "size": 9}]
        config = oci.config(CONFIGS["least"] | {"linux": {"uidMappings": uids, "gidMappings": uids[1:]}})
        assert (config.uid_mappings, config.gid_mappings) == (((0, 1000, 1), (1, 0, 9)), ((1, 0, 9),))

    def test_mounts(self) -> None:
        runs = [{"containerID": 0, "hostID": 1000, "size": 1}, {"containerID": 1, "hostID": 0, "size": 9}]
        full = {
            "destination": "/d",
            "source": "/s",
            "type": "bind",
            "options": ["rbind", "ro"],
            "uidMappings": runs,
            "gidMappings": [],
        }
        config = oci.config(CONFIGS["least"] | {"mounts": [{"destination": "/bare"}, full]})
        bare, mount = config.mounts
        assert (bare.index, bare.destination, bare.options) == (0, "/bare", ())
        assert (bare.source, bare.type, bare.uid_mappings, bare.gid_mappings) == (None, None, None, None)
        assert (mount.index, mount.source, mount.type, mount.options) == (1, "/s", "bind", ("rbind", "ro"))
        assert (mount.uid_mappings, mount.gid_mappings) == (((0, 1000, 1), (1, 0, 9)), ())

    def test_a_broken_state_names_the_place(self) -> None:
        with pytest.raises(DataError, match=r'^state: /id: must be 1 to 200 .*, not "\.\./x"$'):
            oci.state(STATES["runc-prestart"] | {"id": "../x"})

    def test_a_broken_config_names_its_file_and_counts_the_rest(self) -> None:
        with pytest.raises(
            DataError, match=r"^b/config\.json: /mounts/0/destination: is missing \(and 1 more "
        ) as caught:
            oci.config({"ociVersion": "1.0", "mounts": [{}]}, "b/config.json")
        assert caught.value.violations == (("/mounts/0/destination", "is missing"), ("/root", "is missing"))


# Bytes that are no strict JSON, and the message: a place in the text is part of it.
NOT_JSON = {
    "empty": (b"", "is empty"),
    "blank": (b" \n\t\r", "is empty"),
    "bom": (b"\xef\xbb\xbf{}", "byte order mark"),
    "utf-16-bom": ("{}".encode("utf-16"), "UTF-16"),
    "utf-16-le": ("{}".encode("utf-16-le"), "UTF-16"),
    "utf-16-be": ("{}".encode("utf-16-be"), "UTF-16"),
    "utf-32": ("{}".encode("utf-32-be"), "UTF-16 or UTF-32"),
    "invalid-utf-8": (b'{"a": "b\xff"}', "not UTF-8 at byte offset 8"),
    "utf-8-surrogate": (b'["\xed\xa0\x80"]', "not UTF-8 at byte offset 2"),
    "overlong-nul": (b'["\xc0\x80"]', "not UTF-8 at byte offset 2"),
    "too-large": (b" " * (strictjson.MAX_BYTES + 1), "larger than 16 MiB"),
    "word": (b"banana", "Expecting value: line 1 column 1"),
    "cut-off": (b'{"a":\n [1', "line 2 column 4"),
    "trailing-garbage": (b'{}\n {"b": 1}', "Text after the end of the document: line 2 column 2"),
    "trailing-garbage-close": (b"{}x", "Text after the end of the document: line 1 column 3"),
    "trailing-nul": (b'{"a": 1}\0', "Text after the end of the document: line 1 column 9"),
    "comment": (b'{\n /* c */ "a": 1}', "line 2 column 2"),
    "line-comment": (b"// c\n{}", "line 1 column 1"),
    "trailing-comma": (b"[1,]", "line 1 column"),
    "single-quotes": (b"{'a': 1}", "line 1 column 2"),
    "leading-zero": (b"[01]", "line 1 column 3"),
    "control-character": (b'["a\nb"]', "line 1 column 4"),
    "bad-escape": (b'["\\x"]', "line 1 column 3"),
    "form-feed": (b"\x0c{}", "line 1 column 1"),
    "arrays-too-deep": (b"[" * 100_000, "Nested deeper than 200 levels: line 1 column 201"),
    "objects-too-deep": (b'{"a":\n' * 100_000, "Nested deeper than 200 levels: line 201 column 1"),
    "closed-too-deep": (b"[" * 201 + b"]" * 201, "Nested deeper than 200 levels: line 1 column 201"),
    "deep-after-strings": (b'["]]\\"]","\\\\",' + b"[" * 200, "Nested deeper than 200 levels: line 1 column 214"),
}

# JSON whose values cannot be accepted, and where.
REFUSED = {
    "twice": ('{"a": 1, "a": 1}', "/a"),
    "twice-below": ('{"root": {"path": "A", "path": "B"}}', "/root/path"),
    "twice-root-merged": ('{"root": {"path": "A"}, "root": {}}', "/root"),
    "twice-in-array": ('{"mounts": [{}, {"source": 1, "x": 0, "source": 2}]}', "/mounts/1/source"),
    "twice-in-disguise": ('{"path": 1, "p\\u0061th": 2}', "/path"),
    "nan": ('{"x": NaN}', "/x"),
    "infinity": ("[[0, Infinity]]", "/0/1"),
    "minus-infinity": ("-Infinity", ""),
    "float-overflow": ('{"a": {"b": 1e400}}', "/a/b"),
    "float-negative-overflow": ('{"a": -1e400}', "/a"),
    "long-integer": ('{"pid": ' + "9" * 5000 + "}", "/pid"),
    "long-negative": ("[-" + "9" * 5000 + "]", "/0"),
    "65-bits": (f'{{"unknown": [{{"x": {2**64}}}]}}', "/unknown/0/x"),
    "65-bits-negative": (f'{{"linux": {{"unknown": {-(2**63) - 1}}}}}', "/linux/unknown"),
    "surrogate": ('{"a": "\\ud800"}', "/a"),
    "surrogate-low": ('["x", "\\uDC2F"]', "/1"),
    "surrogate-in-name": ('{"a": {"\\udcff": 1}}', "/a/\\udcff"),
    "escaped-pointer": ('{"a/b~c\\n": NaN}', "/a~1b~0c\\x0a"),
}


class TestStrictJson:
    @pytest.mark.parametrize("name", NOT_JSON)
    def test_text_is_refused(self, name: str) -> None:
        data, expected = NOT_JSON[name]
        [(pointer, message)] = refusal(data)
        assert pointer == ""
        assert expected in message

    @pytest.mark.parametrize("name", REFUSED)
    def test_values_are_refused_at_their_place(self, name: str) -> None:
        text, expected = REFUSED[name]
        [(pointer, message)] = refusal(text.encode())
        assert pointer == expected
        assert len(message) < 100

    def test_all_are_collected_in_order(self) -> None:
        found = refusal(b'{"b": [' + b"0, " * 9 + b'NaN, 1, 1e999], "a": {"x": 1, "x": 2}}')
        assert [pointer for pointer, _ in found] == ["/a/x", "/b/9", "/b/11"]

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("{}", {}),
            (' \r\n\t["a"]\n', ["a"]),
            ("0", 0),
            ("-1", -1),
            ("1.5e3", 1500.0),
            ('"\\ud83d\\ude00\\u00e9"', "\U0001f600\u00e9"),
            ('"\\\\ud800"', "\\ud800"),
            ('"\u00e9\u20ac"', "\u00e9\u20ac"),
            (str(2**64 - 1), 2**64 - 1),
            (str(-(2**63)), -(2**63)),
            ("1234567890123456789", 1234567890123456789),
            ('{"Root": 1, "root": 2}', {"Root": 1, "root": 2}),
        ],
    )
    def test_accepted(self, text: str, value: object) -> None:
        assert strictjson.documents(text.encode(), "x") == [value]

    def test_the_depth_that_is_allowed(self) -> None:
        text = '{"a":' * 100 + "[" * 100 + '"[[["' + "]" * 100 + "}" * 100
        assert strictjson.documents(text.encode(), "x") == [json.loads(text)]

    def test_many_brackets_are_not_depth(self) -> None:
        text = json.dumps([[{"a": "[{"}, {"b": '\\"['}]] * 500)
        assert strictjson.documents(text.encode(), "x") == [json.loads(text)]

    def test_many_deep_ones_take_no_longer_than_to_decode_them(self) -> None:
        text = "[" + ("[" * 198 + "]" * 198 + ",") * 5000 + "0]"
        gc.disable()
        try:
            start = time.process_time()
            json.loads(text)
            alone = time.process_time() - start
        finally:
            gc.enable()
        start = time.process_time()
        strictjson.documents(text.encode(), "x")
        assert time.process_time() - start < 5 * alone

    @pytest.mark.parametrize("text", ["[" * 300, '"' + "[" * 300, '["' + "[" * 300 + '"', "]" * 300 + "[" * 201])
    def test_brackets_that_are_left_open(self, text: str) -> None:
        assert len(refusal(text.encode())) == 1

    def test_of_very_many_faults_some_are_told(self) -> None:
        found = refusal(b"[" + b"NaN," * 1000 + b"0]")
        assert [pointer for pointer, _ in found] == [f"/{index}" for index in range(1000)]
        found = refusal(b"[" + b"NaN," * 5000 + b"0]")
        assert [pointer for pointer, _ in found] == [*(f"/{index}" for index in range(1000)), ""]
        assert found[-1][1] == "is wrong in more places than the 1000 found first"

    def test_a_long_name_is_cut_before_it_is_escaped(self) -> None:
        [(pointer, _)] = refusal(b'{"' + b"a" * 199 + b'~b": NaN}')
        assert pointer == "/" + "a" * 199 + "~0..."

    def test_depth_holds_with_little_stack_left(self) -> None:
        def deeper(levels: int) -> list[object]:
            return deeper(levels - 1) if levels else strictjson.documents(b"[" * 200 + b"]" * 200, "x")

        assert len(deeper(500)) == 1

    def test_the_size_that_is_allowed(self) -> None:
        assert strictjson.documents(b"{}".ljust(strictjson.MAX_BYTES), "x") == [{}]

    @given(some.recursive(some.none() | some.booleans() | some.integers(-(2**63), 2**64 - 1) | some.text(), some.lists))
    def test_what_json_writes_is_read(self, value: object) -> None:
        assert strictjson.documents(json.dumps(value).encode(), "x") == [value]

    @given(some.binary(max_size=40) | some.text('[]{}",:0eE-\\ud8 \n', max_size=40).map(str.encode))
    def test_anything_is_read_or_refused(self, data: bytes) -> None:
        try:
            accepted = len(strictjson.documents(data, "x", 2))
        except DataError as error:
            accepted = len(error.violations) if str(error).isprintable() else 0
        assert accepted > 0


class TestTwoDocuments:
    def test_state_and_config(self) -> None:
        assert strictjson.documents(b'{"a": 1}\n{"b": 2}\n', "stdin", most=2) == [{"a": 1}, {"b": 2}]

    def test_one_is_enough(self) -> None:
        assert strictjson.documents(b"{} \n", "stdin", most=2) == [{}]

    @pytest.mark.parametrize(("data", "place"), [(b"{} {}\n{}", "line 2 column 1"), (b"{}{}{}", "line 1 column 5")])
    def test_not_three(self, data: bytes, place: str) -> None:
        [(_, message)] = refusal(data, 2)
        assert place in message

    def test_a_fault_in_the_second(self) -> None:
        assert refusal(b'[1] {"a": 1, "a": 2}', 2) == (
            ("/a", "is there twice; runtimes disagree about which one counts"),
        )


class TestPlaces:
    @pytest.mark.parametrize(
        ("schema", "document", "pointer"),
        [
            ("config", {"Root": {"path": "x"}}, "/Root"),
            ("config", {"root": {"PATH": "x"}}, "/root/PATH"),
            ("config", {"mounts": [{"destination": "/a", "Source": "/b"}]}, "/mounts/0/Source"),
            ("config", {"mount\u017f": []}, "/mount\u017f"),  # Go folds the long s too
            ("config", {"hoo\u212as": {}}, "/hoo\u212as"),  # and the sign for kelvin
            ("config", {"LINUX": {}}, "/LINUX"),
            ("config", {"hooks": {"Prestart": []}}, "/hooks/Prestart"),
            ("state", {"Bundle": "/b"}, "/Bundle"),
            # C readers end a name at NUL: for crun this is the root.
            ("config", {"root\0": {"path": "other"}}, r"/root\x00"),
            ("config", {"root": {"path\0x": "other", "path": "rootfs"}}, r"/root/path\x00x"),
            ("config", {"ROOT\0": 1}, r"/ROOT\x00"),
            ("config-used", {"linux": {"namespaces\0": []}}, r"/linux/namespaces\x00"),
        ],
    )
    def test_a_name_in_other_letter_case_is_refused(self, schema: str, document: dict[str, Any], pointer: str) -> None:
        base = CONFIGS["least"] if schema.startswith("config") else STATES["runc-poststop"]
        [(found, message)] = [each for each in oci.violations(base | document, schema) if each[1] != "is missing"]
        assert found == pointer
        assert message.startswith("must be spelled ")

    def test_annotations_may_differ_by_letter_case(self) -> None:
        assert oci.violations(CONFIGS["least"] | {"annotations": {"a": "1", "A": "2"}}, "config") == []

    def test_nul_is_named_and_not_printed(self) -> None:
        [(pointer, message)] = oci.violations(CONFIGS["least"] | {"root": {"path": "/tmp\0/../etc"}}, "config")
        assert pointer == "/root/path"
        assert message == r'must be a non-empty path without NUL characters, not "/tmp\x00/../etc"'

    def test_what_acts_on_a_terminal_is_escaped(self) -> None:
        [(pointer, message)] = oci.violations(
            CONFIGS["least"] | {"annotations": {"\x1b[2J\n": "x"}, "linux": "\u202e\x7f\x85"}, "config"
        )
        assert (pointer, message) == ("/linux", r'must be of type object, not "\u202e\x7f\x85"')
        [(pointer, message)] = oci.violations(CONFIGS["least"] | {"annotations": {"\x1b[2J\n": 1}}, "config")
        assert (pointer, message) == (r"/annotations/\x1b[2J\x0a", "must be of type string, not 1")

    def test_long_values_are_cut(self) -> None:
        [(_, message)] = oci.violations(CONFIGS["least"] | {"root": {"path": "\0" + "a" * 100_000}}, "config")
        assert message.endswith('aaa..."')
        assert len(message) < 300

    def test_of_very_many_some_are_told(self) -> None:
        found = oci.violations(CONFIGS["least"] | {"mounts": [1] * 5000}, "config-used")
        assert len(found) == 1001
        assert found[-1] == ("", "is wrong in more places than the 1000 found first")

    def test_documents_are_not_dumped(self) -> None:
        [(_, message)] = oci.violations(CONFIGS["least"] | {"mounts": {"a": ["b"]}}, "config")
        assert message == "must be of type array, not an object"

    def test_choices_are_listed(self) -> None:
        [(_, message)] = oci.violations(CONFIGS["least"] | {"linux": {"namespaces": [{"type": "mnt"}]}}, "config")
        assert message == ('must be "pid", "network", "mount", "ipc", "uts", "user", "cgroup" or "time", not "mnt"')

    def test_none_is_named_twice(self) -> None:
        assert oci.violations({}, "config") == [("/ociVersion", "is missing"), ("/root", "is missing")]

    def test_mappings_go_together(self) -> None:
        mount = {"destination": "/a", "gidMappings": []}
        found = oci.violations(CONFIGS["least"] | {"mounts": [mount]}, "config")
        assert found == [("/mounts/0/uidMappings", "is missing, but gidMappings is there")]
