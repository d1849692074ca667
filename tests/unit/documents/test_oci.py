# SPDX-License-Identifier: Apache-2.0
"""What real engines send is accepted; what is wrong is refused, with its place and in words that can be printed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from oci_bind_hook.documents import oci, strictjson
from oci_bind_hook.errors import DataError

BUNDLE = "/run/containers/storage/overlay-containers/c1/userdata"

# What a process may be that was not judged, and whether it gives CAP_SYS_ADMIN.
ADMINS: list[tuple[object, bool]] = [
    (None, False),
    ([], False),
    ({}, False),
    ({"capabilities": None}, False),
    ({"capabilities": ["CAP_SYS_ADMIN"]}, False),
    ({"capabilities": {"bounding": "CAP_SYS_ADMIN"}}, False),
    ({"capabilities": {"bounding": [["CAP_SYS_ADMIN"], {}, 1]}}, False),
    ({"capabilities": {"effective": [1, "CAP_SYS_ADMIN"]}}, True),
]


@pytest.mark.parametrize(("process", "is_admin"), ADMINS)
def test_a_process_that_is_not_judged_may_be_anything(process: object, *, is_admin: bool) -> None:
    config = {"ociVersion": "1.0.2", "root": {"path": "rootfs"}, "process": process}
    assert oci.config(config).is_admin is is_admin


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
        with pytest.raises(DataError, match=r"^b/config\.json: /mounts/0/destination: is missing \(1 more ") as caught:
            oci.config({"ociVersion": "1.0", "mounts": [{}]}, "b/config.json")
        assert caught.value.violations == (("/mounts/0/destination", "is missing"), ("/root", "is missing"))


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
            *(("config-used", {name: 1}, f"/{name}") for name in ("Hooks", "MOUNTS", "Root", "Annotations", "Process")),
            ("config-used", {"hooks": {"CREATERUNTIME": 1}}, "/hooks/CREATERUNTIME"),
            ("config-used", {"hooks": {"poststop": [{"path": "/a", "Env": 1}]}}, "/hooks/poststop/0/Env"),
            ("config-used", {"process": {"Capabilities": {}}}, "/process/Capabilities"),
            ("config-used", {"process": {"capabilities": {"Bounding": 1}}}, "/process/capabilities/Bounding"),
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
        assert found[-1] == ("", "has more errors than the 1000 listed")

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
        assert found == [("/mounts/0/uidMappings", "is missing, but required with gidMappings")]
