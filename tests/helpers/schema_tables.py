# SPDX-License-Identifier: Apache-2.0
"""Documents for the schemas: what is valid, and for each place what is not. Those of config.json: config_tables."""

from __future__ import annotations

import json
from typing import Any

from oci_bind_hook.documents.acceptor import head

IDS = [{"containerID": 0, "hostID": 100000, "size": 65536}]
HOOK = {"path": "/bin/true", "args": ["true"], "env": ["A=", "B=b=b"], "timeout": 1}
STAGES = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
EDITS = {
    "env": ["A=1"],
    "deviceNodes": [
        {
            "path": "/dev/x",
            "hostPath": "/dev/y",
            "type": "c",
            "major": 1,
            "minor": 3,
            "fileMode": 438,
            "permissions": "rw",
            "uid": 0,
            "gid": 0,
        }
    ],
    "netDevices": [{"hostInterfaceName": "a", "name": "b"}],
    "mounts": [{"hostPath": "/x", "containerPath": "/y", "type": "bind", "options": ["ro"]}],
    "hooks": [{"hookName": "prestart", **HOOK}],
    "intelRdt": {
        "closID": "c",
        "l3CacheSchema": "l",
        "memBwSchema": "m",
        "schemata": ["s"],
        "enableMonitoring": True,
        "enableCMT": True,
        "enableMBM": True,
    },
    "additionalGids": [1],
}
BIND = {
    "destination": "/data",
    "source": "data",
    "subpath": "a/b",
    "type": "bind",
    "options": ["rbind", "ro"],
    "uidMappings": IDS,
    "gidMappings": IDS,
}

# For each schema a valid document that has every member the schema knows.
VALID: dict[str, Any] = {
    "state": {
        "ociVersion": "1.0.2-dev",
        "id": "c-1",
        "status": "creating",
        "pid": 4242,
        "bundle": "/b",
        "annotations": {"a": "1"},
    },
    "config-used": {
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs", "readonly": True},
        "mounts": [
            {
                "destination": "/data",
                "source": "/srv/data",
                "type": "bind",
                "options": ["bind"],
                "uidMappings": IDS,
                "gidMappings": IDS,
            }
        ],
        "hooks": {stage: [HOOK] for stage in STAGES},
        "annotations": {"a": "1"},
        "process": {
            "cwd": "/",
            "capabilities": {name: [] for name in ("bounding", "effective", "inheritable", "permitted", "ambient")},
        },
        "linux": {
            "namespaces": [{"type": "mount"}, {"type": "network", "path": "/run/netns/a"}],
            "rootfsPropagation": "rslave",
            "uidMappings": IDS,
            "gidMappings": IDS,
        },
    },
    "bind-request": BIND,
    "plan": {
        **head("plan"),
        "id": "c-1",
        "stage": "createRuntime",
        "bundle": "/b",
        "rootfs": "/b/rootfs",
        "namespace": "container",
        "registered": ["config.json: /hooks/createRuntime/0"],
        "registrations": ["/etc/containers/oci/hooks.d/a.json"],
        "options": "config.json: /hooks/createRuntime/0",
        "running": {"id": "c-1", "pid": 2, "recorded": True, "visible": True},
        "mounts": [
            {
                "origin": "--mount 1",
                "source": "/srv/data",
                "subpath": "a/b",
                "pattern": "/srv/*",
                "when_exists": "/etc/x",
                "found": {
                    "path": "/srv/data",
                    "kind": "block device",
                    "number": "8:1",
                    "filesystem": "ext4",
                    "device": "8:2",
                    "from": "/dev/sda2",
                    "mount": "/srv",
                    "owner": "0:0",
                    "mode": "0755",
                    "label": "l",
                    "known": "k",
                    "submounts": ["below"],
                },
                "source_links": [{"at": "/srv", "to": "data"}],
                "destination": "/link/data",
                "resolved": "/real/data",
                "links": [{"at": "/link", "to": "real"}],
                "create": [{"path": "/real/data", "kind": "directory"}],
                "asked": ["rbind", "ro", "idmap", "rprivate"],
                "attributes": ["ro", "nosuid"],
                "kept": ["nosuid"],
                "propagation": "rprivate",
                "idmap": {"uids": ["0-1000-1"], "gids": ["0-1000-1"], "namespace": "/proc/1/ns/user"},
                "action": "mount",
                "by": "hook",
                "hides": [{"path": "/real/data", "what": "mount", "origin": "--mount 1"}],
                "now": True,
                "source_now": "same",
                "warnings": ["w"],
            }
        ],
        "own": [{"destination": "proc", "resolved": "/proc", "type": "proc", "source": "proc"}],
        "selinux": {"process": "p", "mount": "m", "mode": "enforcing"},
        "remove": ["/real/data"],
        "problems": [{"where": "--mount 2", "message": "m", "hint": "h", "exit": 66}],
        "runtime": [{"where": "config.json: /mounts/3", "message": "m", "hint": "h", "by": ["runc", "crun"]}],
        "warnings": ["w"],
        "notes": ["n"],
        "verdict": "ready: 1 bind",
    },
    "validation": {
        **head("validation"),
        "documents": [
            {
                "name": "/b/config.json",
                "valid": False,
                "problem": "p",
                "violations": [{"pointer": "/root", "message": "is missing", "line": 1, "column": 2}],
            }
        ],
    },
    "hooks-d": {
        "version": "1.0.0",
        "hook": HOOK,
        "when": {"always": True, "annotations": {"^a$": "^1$"}, "commands": ["^/bin/sh$"], "hasBindMounts": True},
        "stages": ["createRuntime", "poststop"],
    },
    "hooks-d-old": {
        "version": "0.1.0",
        "hook": "/bin/true",
        "arguments": ["-v"],
        "stages": ["prestart"],
        "stage": ["prestart"],
        "cmds": ["^/bin/sh$"],
        "cmd": ["^/bin/sh$"],
        "annotations": ["^1$"],
        "annotation": ["^1$"],
        "hasbindmounts": True,
    },
    "hooks-check": {
        **head("hooks-check"),
        "bundle": "/b",
        "problems": [{"path": "/h/a.json", "pointer": "/hook/path", "message": "m", "effect": "skips"}],
        "folders": [{"path": "/h", "there": True, "refused": False}],
        "hooks": [
            {
                "path": "/h/a.json",
                "hook": "/bin/true",
                "stages": ["prestart"],
                "used": True,
                "matches": True,
                "because": "always",
            }
        ],
        "cdiFolders": [{"path": "/c", "there": True}],
        "devices": [
            {
                "path": "/c/a.json",
                "device": "a.b/cd=e",
                "hook": "/bin/true",
                "stages": ["prestart"],
                "used": True,
                "matches": True,
                "because": "b",
            }
        ],
        "runtimes": [{"path": "/r/a", "runtime": "/bin/true", "stages": ["prestart"], "named": ["/d.json"]}],
        "registered": [{"pointer": "/hooks/prestart/0", "stage": "prestart", "hook": "/bin/true", "because": "b"}],
        "timer": {"path": "/u/x.timer", "command": ["/l", "gc"], "enabled": True},
    },
    "registrations": {
        **head("registrations"),
        "registrations": [
            {
                "kind": "CDI",
                "name": "e",
                "device": "a.b/cd=e",
                "runtime": None,
                "path": "/c/a.json",
                "launcher": "/bin/true",
                "stages": ["prestart"],
                "conditions": ["--always"],
                "env": ["A=1"],
                "arguments": ["--debug"],
                "unread": "a",
            }
        ],
    },
    "cdi": {
        "cdiVersion": "0.5.0",
        "kind": "example.com/models",
        "annotations": {"a": "b"},
        "devices": [
            {"name": "all", "annotations": {"a": "b"}, "containerEdits": EDITS},
            {"name": "none", "containerEdits": {}},
        ],
        "containerEdits": EDITS,
    },
    "doctor": {
        **head("doctor"),
        "findings": [{"name": "pidfd", "there": True, "needed": True, "detail": "", "without": ""}],
    },
    "records": {
        **head("records"),
        "folders": [{"path": "/run/oci-bind-hook", "problem": {"message": "m", "exit": 74}}],
        "records": [
            {
                "id": "c-1",
                "folder": "/run/oci-bind-hook",
                "status": "alive",
                "reason": "r",
                "advice": "a",
                "busy": False,
                "files": ["c-1.json"],
                "phase": "done",
                "created": 1700000000000000000,
                "stage": "createRuntime",
                "bundle": "/b",
                "rootfs": "/b/rootfs",
                "namespace": {"kind": "container", "inode": 4026531840},
                "init": {"pid": 4242, "start": 100, "first": 3},
                "mounts": [
                    {
                        "origin": "attach 1",
                        "time": 1700000000,
                        "source": "/srv/data",
                        "subpath": "a/b",
                        "destination": "/link/data",
                        "resolved": "/real/data",
                        "state": "mounted",
                        "source_now": "another",
                        "registration": "/c/a.json",
                    }
                ],
                "made": [
                    {
                        "path": "/real/data",
                        "kind": "directory",
                        "filesystem": "rootfs",
                        "state": "there",
                        "reason": "r",
                    }
                ],
                "problem": {"message": "m", "exit": 74},
            }
        ],
    },
    "gc": {
        **head("gc"),
        "folders": [{"path": "/run/oci-bind-hook", "problem": {"message": "m", "exit": 74}}],
        "dryRun": False,
        "records": [
            {
                "id": "c-1",
                "folder": "/run/oci-bind-hook",
                "action": "finished",
                "reason": "r",
                "advice": "a",
                "unmount": ["/real/data"],
                "remove": ["/real/data"],
                "remarks": ["r"],
                "problem": {"message": "m", "exit": 71},
            }
        ],
    },
    "state-file": {
        **head("state-file", 2),
        "id": "c-1",
        "phase": "done",
        "created": 1700000000000000000,
        "boot": "0f0e0d0c-0b0a-0908-0706-050403020100",
        "stage": "createRuntime",
        "bundle": {"path": "/b", "dev": 1, "ino": 2},
        "rootfs": {
            "path": "/b/rootfs",
            "dev": 1,
            "ino": 3,
            "overlay": True,
            "upper": {"path": "/upper", "dev": 1, "ino": 6},
            "above": [{"dev": 1, "ino": 2}],
            "mounts": [0],
        },
        "user": {
            "owner": 1000,
            "uids": [{"inside": 0, "outside": 1000, "size": 1}],
            "gids": [{"inside": 0, "outside": None, "size": 1}],
        },
        "namespace": {"kind": "container", "inode": 4026531840, "unique": 9},
        "init": {"pid": 4242, "start": 100, "first": 3},
        "mounts": [
            {
                "origin": "argument",
                "by": "--mount 1",
                "requested": BIND,
                "resolved": "/real/data",
                "source": {"dev": 1, "ino": 4},
                "attached": [{"id": 30, "unique": 4294967300, "root": "/", "source": "/dev/vda1", "type": "ext4"}],
                "time": 1700000000,
            }
        ],
        "uses": [{"in": 0, "name": "real"}, {"in": 1, "name": "data"}],
        "made": [
            {
                "at": 2,
                "kind": "directory",
                "filesystem": "rootfs",
                "identity": {"uid": 0, "gid": 0, "born": 1700000000000000000, "dev": 1, "ino": 5},
            }
        ],
    },
    "state-file-1": {
        "version": 1,
        "id": "c-1",
        "phase": "done",
        "created": 1700000000000000000,
        "boot": "0f0e0d0c-0b0a-0908-0706-050403020100",
        "stage": "createRuntime",
        "bundle": {"path": "/b", "dev": 1, "ino": 2},
        "rootfs": {"path": "/b/rootfs", "dev": 1, "ino": 3, "overlay": False},
        "namespace": {"kind": "container", "inode": 4026531840},
        "init": {"pid": 4242, "start": 100, "first": 3},
        "mounts": [
            {
                "origin": "--mount 1",
                "requested": BIND,
                "resolved": "/real/data",
                "source": {"dev": 1, "ino": 4},
                "attached": [{"id": 30, "unique": 4294967300, "root": "/", "source": "/dev/vda1", "type": "ext4"}],
            }
        ],
        "uses": ["/real"],
        "made": [
            {
                "path": "/real/data",
                "kind": "directory",
                "filesystem": "rootfs",
                "identity": {"uid": 0, "gid": 0, "born": 1700000000000000000, "dev": 1, "ino": 5},
            }
        ],
    },
}

# More documents that must be accepted: what the full ones above cannot show. A place, and what is put there.
GONE = object()
CDI_EDITS = "/devices/0/containerEdits"
ALSO_VALID = [
    ("state", "/pid", GONE),
    ("state", "/pid", 0),
    ("state", "/pid", -1),
    ("state", "/annotations", GONE),
    ("state", "/owner", ""),
    ("state", "/id", "a" * 200),
    ("state", "/id", "..."),
    ("config-used", "/mounts", GONE),
    ("config-used", "/mounts", []),
    ("config-used", "/hooks", {}),
    ("config-used", "/linux", GONE),
    ("config-used", "/linux/rootfsPropagation", ""),
    ("config-used", "/process", None),
    ("config-used", "/mounts/0/source", ""),
    ("config-used", "/mounts/0/destination", "relative"),
    ("bind-request", "/options", []),
    ("hooks-d", "/other", 1),
    ("hooks-d", "/when", {"always": False}),
    ("hooks-d", "/stages", []),
    *[("hooks-d", "/stages/0", stage) for stage in ("precreate", *STAGES)],
    ("hooks-d-old", "/stage", GONE),
    ("hooks-d-old", "/stages", GONE),
    ("hooks-d-old", "/version", GONE),
    ("hooks-check", "/bundle", None),
    ("hooks-check", "/hooks/0/hook", None),
    ("hooks-check", "/hooks/0/matches", None),
    ("hooks-check", "/devices/0/matches", None),
    ("hooks-check", "/timer", None),
    ("registrations", "/registrations/0/kind", "hooks.d"),
    ("registrations", "/registrations/0/name", None),
    ("registrations", "/registrations/0/device", None),
    *[("registrations", "/registrations/0/kind", word) for word in ("runtime", "base spec")],
    ("registrations", "/registrations/0/runtime", "/usr/bin/runc"),
    ("registrations", "/registrations/0/unread", None),
    *[("cdi", place, GONE) for place in ("/annotations", "/containerEdits", "/devices/0/annotations")],
    *[("cdi", f"{CDI_EDITS}/{name}", GONE) for name in EDITS],
    *[("cdi", "/cdiVersion", version) for version in ("0.3.0", "1.1.0")],
    *[("cdi", "/kind", kind) for kind in ("aB/c9", "a_-.9/b_-.9")],
    *[("cdi", "/devices/0/name", name) for name in ("0", "a", "A.b_c-9")],
    *[("cdi", f"{CDI_EDITS}/deviceNodes/0/permissions", word) for word in ("", "none", "rwm")],
    ("plan", "/id", None),
    ("plan", "/stage", None),
    ("plan", "/namespace", None),
    ("plan", "/bundle", None),
    ("plan", "/rootfs", None),
    ("plan", "/mounts/0/resolved", None),
    ("plan", "/remove", GONE),
    *[("plan", f"/{name}", None) for name in ("registered", "registrations", "registrations/0")],
    ("plan", "/options", None),
    ("plan", "/running", None),
    ("plan", "/running/pid", None),
    ("plan", "/mounts/0/found", None),
    *[("plan", f"/mounts/0/found/{name}", None) for name in "number filesystem from mount label known".split()],
    ("plan", "/selinux", None),
    *[("plan", f"/selinux/{name}", None) for name in ("process", "mount", "mode")],
    ("plan", "/mounts/0/idmap", None),
    ("plan", "/mounts/0/idmap/namespace", None),
    ("plan", "/mounts/0/by", None),
    ("plan", "/mounts/0/now", None),
    *[("plan", f"/mounts/0/{name}", GONE) for name in ("pattern", "when_exists")],
    *[("plan", "/mounts/0/hides/0/what", word) for word in ("folder", "file", "link")],
    ("plan", "/mounts/0/hides/0/origin", None),
    ("plan", "/own/0/resolved", None),
    ("plan", "/own/0/source", None),
    *[("plan", "/mounts/0/source_now", word) for word in ("another", "gone", None)],
    *[("records", "/records/0/mounts/0/source_now", word) for word in ("same", "gone", None)],
    *[("records", f"/records/0/{name}", None) for name in ("phase", "created", "stage", "bundle", "rootfs")],
    *[("records", f"/records/0/{name}", None) for name in ("namespace", "init")],
    ("records", "/records/0/mounts/0/time", None),
    ("records", "/records/0/mounts/0/registration", None),
    ("records", "/records/0/problem", GONE),
    ("records", "/records/0/mounts/0/resolved", "/"),
    ("gc", "/records/0/problem", GONE),
    ("state-file", "/init", None),
    ("state-file", "/mounts/0/time", GONE),
    ("state-file", "/rootfs/upper", None),
    ("state-file", "/user/owner", None),
    ("state-file", "/namespace/unique", None),
    ("state-file", "/uses", []),
    *[("state-file", "/uses/0/name", name) for name in ("...", ".a", "..\n", " ", "a" * 5000, "\\xff")],
    *[(name, f"{place}/init/first", None) for name, place in (("state-file", ""), ("records", "/records/0"))],
    ("state-file", "/mounts", []),
    ("state-file", "/mounts/0/resolved", "/"),
    *[
        ("state-file-1", place, path)
        for place in ("/mounts/0/resolved", "/uses/0", "/made/0/path")
        for path in ("/...", "/.a/..b/c..", "/..\n", "/..\n/a\n", "/ / ", "/" + "a/" * 2000 + "a")
    ],
    ("state-file", "/made/0/identity", None),
    ("state-file", "/made/0/identity/born", None),
    ("state-file", "/made/0/identity/dev", None),
    ("state-file", "/made/0/identity/ino", None),
    ("state-file", "/mounts/0/attached/0/id", None),
    ("state-file", "/mounts/0/attached/0/unique", None),
    ("state-file", "/bundle/dev", 2**64 - 1),
]

NUL = "/a\0b"
MAPPINGS = "uidMappings gidMappings uidMappings/0 gidMappings/0"
FOUND = "path kind number filesystem device from mount owner mode label known submounts"
MAPPED = " ".join(f"{which}Mappings/0/{member}" for which in ("uid", "gid") for member in IDS[0])


REGISTERED = "kind name device runtime path launcher stages conditions env arguments unread"


def below(parent: str, members: str) -> str:
    return " ".join(f"{parent}/{member}" for member in members.split())


# The state folders in what list, show and gc print.
STATE_FOLDERS: list[tuple[Any, str]] = [
    ([], ""),
    (GONE, "/folders /folders/0/path /folders/0/problem/message /folders/0/problem/exit"),
    (1, "/folders /folders/0 /folders/0/path /folders/0/problem /folders/0/unknown"),
    (1, "/folders/0/problem/message /folders/0/problem/unknown"),
    ([], "/folders"),
    ("rel", "/folders/0/path"),
    ("1", "/folders/0/problem/exit"),
    (0, "/folders/0/problem/exit"),
    (256, "/folders/0/problem/exit"),
]

# The same of the members with which each document of ours begins.
OF_HEAD: list[tuple[Any, str]] = [
    (GONE, "/$schema /version"),
    ("urn:x", "/$schema"),
    (2, "/version"),
    (1.0, "/version"),
]
# The same of the edits in a CDI file, which stand in two places.
OF_EDITS: list[tuple[Any, str]] = [
    (GONE, "hooks/0/hookName hooks/0/path mounts/0/hostPath mounts/0/containerPath"),
    (GONE, "deviceNodes/0/path netDevices/0/hostInterfaceName netDevices/0/name"),
    (1, f"{' '.join(EDITS)} env/0 deviceNodes/0 netDevices/0 mounts/0 hooks/0 unknown"),
    (1, below("hooks/0", "hookName path args args/0 env env/0 unknown")),
    (1, below("mounts/0", "hostPath containerPath type options options/0 unknown")),
    (1, below("netDevices/0", "hostInterfaceName name unknown")),
    (1, below("deviceNodes/0", "path hostPath type permissions unknown")),
    (1, below("intelRdt", "closID l3CacheSchema memBwSchema schemata schemata/0 unknown")),
    (1, below("intelRdt", "enableMonitoring enableCMT enableMBM")),
    ("1", f"hooks/0/timeout additionalGids/0 {below('deviceNodes/0', 'major minor fileMode uid gid')}"),
    (NUL, "hooks/0/path hooks/0/args/0 mounts/0/hostPath mounts/0/containerPath mounts/0/options/0 env/0"),
    (NUL, "deviceNodes/0/path deviceNodes/0/hostPath netDevices/0/hostInterfaceName netDevices/0/name hooks/0/env/0"),
    ("x", f"hooks/0/hookName hooks/0/path hooks/0/env/0 env/0 {below('deviceNodes/0', 'type path hostPath')}"),
    ("x", "deviceNodes/0/permissions"),
    ("", "mounts/0/hostPath mounts/0/containerPath netDevices/0/name"),
    (-1, f"additionalGids/0 {below('deviceNodes/0', 'major minor fileMode uid gid')}"),
    (2**32, "deviceNodes/0/uid deviceNodes/0/gid additionalGids/0 hooks/0/timeout"),
    (0, "hooks/0/timeout"),
]

# For each schema: put this value at these places of the valid document, and each place is all that is reported.
# What is refused in a state file of either version.
BOTH_VERSIONS: list[tuple[Any, str]] = [
    ([], ""),
    ("..", "/id /phase /created /boot /stage"),
    (-1, "/created"),
    ("0f0e0d0c-0b0a-0908-0706-050403020100\n", "/boot"),
    (GONE, below("/bundle", "path dev ino")),
    ("rel", below("/bundle", "path dev ino")),
    (1, below("/bundle", "path unknown")),
    (-1, below("/bundle", "dev ino")),
    (2**64, below("/bundle", "dev ino")),
    (-1, below("/rootfs", "dev ino")),
    (2**64, below("/rootfs", "dev ino")),
    (1, "/namespace/unknown /init/unknown"),
    (1, "/mounts/0"),
    (1.0, below("/mounts/0/source", "dev ino unknown")),
    (-1, below("/mounts/0/source", "dev ino")),
    (2**64, below("/mounts/0/source", "dev ino")),
    ([], "/mounts/0/attached"),
    (1, "/mounts/0/attached/0"),
    (GONE, below("/mounts/0/attached/0", "id unique root source type")),
    (1, below("/mounts/0/attached/0", "root source type unknown")),
    ("1", below("/mounts/0/attached/0", "id unique")),
    (-1, below("/mounts/0/attached/0", "id unique")),
    (2**64, below("/mounts/0/attached/0", "id unique")),
    (1, "/uses/0 /made/0"),
    (GONE, below("/made/0/identity", "uid gid born dev ino")),
    (1.5, below("/made/0/identity", "uid gid born dev ino unknown")),
    (-1, below("/made/0/identity", "uid gid dev ino")),
    (2**64, below("/made/0/identity", "uid gid dev ino")),
]
REFUSED: dict[str, list[tuple[Any, str]]] = {
    "state": [
        ([], ""),
        (GONE, "/ociVersion /id /status /bundle"),
        (1, "/ociVersion /id /status /bundle /annotations /annotations/a"),
        ("", "/id /status /bundle"),
        (None, "/ociVersion /id /status /pid /bundle /annotations /annotations/a"),
        ("..", "/id /bundle"),
        (".", "/id"),
        ("../x", "/id"),
        ("a\n", "/id"),
        ("a" * 201, "/id"),
        (NUL, "/id /bundle"),
        (-2, "/pid"),
        (2**31, "/pid"),
        (1.0, "/pid"),
        (True, "/pid"),
        ("1", "/pid /annotations/"),
        (NUL, "/annotations/a"),
    ],
    "config-used": [
        ([], ""),
        (GONE, "/ociVersion /root /root/path /mounts/0/destination /mounts/0/uidMappings /mounts/0/gidMappings"),
        (GONE, "/linux/namespaces/0/type"),
        (None, "/ociVersion /root /mounts /mounts/0/options /hooks /annotations /linux"),
        (1, "/root /root/path /root/readonly /mounts /annotations /annotations/a /linux /linux/rootfsPropagation"),
        (1, "/mounts/0 /mounts/0/destination /mounts/0/source /mounts/0/type /mounts/0/options /mounts/0/options/0"),
        (1, "/linux/namespaces /linux/namespaces/0 /linux/namespaces/0/type /linux/namespaces/1/path"),
        ("", "/root/path /mounts/0/destination /linux/namespaces/0/type"),
        (NUL, "/root/path /mounts/0/destination /mounts/0/source /mounts/0/type /linux/namespaces/1/path"),
        ("rel", "/linux/rootfsPropagation /linux/namespaces/0/type /linux/namespaces/1/path"),
        ("1", "/annotations/"),
        (NUL, "/annotations/a /mounts/0/options/0"),
        ("mount", "/linux/namespaces/1/type"),
        *[(1, below(parent, MAPPINGS)) for parent in ("/linux", "/mounts/0")],
        *[(value, below(parent, MAPPED)) for value in (GONE, "0", -1, 2**32) for parent in ("/linux", "/mounts/0")],
        *[
            (value, " ".join(f"/hooks/{stage}{rest}" for stage in STAGES))
            for value, rest in [
                (None, ""),
                ("/bin/true", "/0"),
                (GONE, "/0/path"),
                (1, "/0/path"),
                ("true", "/0/path"),
                (NUL, "/0/path"),
                ("true", "/0/args"),
                (1, "/0/args/0"),
                (NUL, "/0/args/0"),
                (None, "/0/env"),
                (1, "/0/env/0"),
                ("A", "/0/env/0"),
                ("=a", "/0/env/0"),
                ("A=\0", "/0/env/0"),
                ("1", "/0/timeout"),
                (0, "/0/timeout"),
                (2**31, "/0/timeout"),
                (1.0, "/0/timeout"),
            ]
        ],
    ],
    "bind-request": [
        ([], ""),
        (GONE, "/destination /source /type /options /uidMappings /gidMappings"),
        (1, "/destination /source /type /options /options/0 /unknown"),
        ("", "/destination /source /type /options/0"),
        (NUL, "/destination /source"),
        ("rel", "/destination"),
        *[(value, "/subpath") for value in (1, "", "/abs", NUL)],
        ("remount", "/options/0"),
        (1, below("", MAPPINGS)),
        *[(value, below("", MAPPED)) for value in (GONE, "0", -1, 2**32)],
    ],
    "plan": [
        *OF_HEAD,
        ([], ""),
        (GONE, "/id /stage /bundle /rootfs /namespace /mounts /problems"),
        (GONE, "/registered /registrations /options /running /warnings /notes"),
        (1, "/id /stage /bundle /rootfs /namespace /mounts /problems /remove /warnings /unknown"),
        (1, "/registered /registered/0 /registrations /registrations/0 /options /running /notes /notes/0"),
        (1, "/mounts/0 /problems/0 /remove/0 /warnings/0"),
        (GONE, below("/running", "id pid recorded visible")),
        (1, below("/running", "id recorded visible unknown")),
        ("1", "/running/pid"),
        (GONE, below("/mounts/0", "found asked kept idmap by now source_now")),
        (1, below("/mounts/0", "found asked asked/0 kept kept/0 idmap by now source_now")),
        ("rel", "/mounts/0/kept/0 /mounts/0/by /mounts/0/source_now"),
        (["ro", "ro"], "/mounts/0/kept"),
        (1, "/mounts/0/subpath /mounts/0/pattern /mounts/0/when_exists"),
        (GONE, "/mounts/0/hides /own /verdict /runtime /selinux"),
        (GONE, below("/selinux", "process mount mode")),
        (1, below("/selinux", "process mount mode unknown")),
        ("rel", "/selinux /selinux/mode /registrations/0"),
        (1, "/runtime /runtime/0"),
        (GONE, below("/runtime/0", "where message hint by")),
        (1, below("/runtime/0", "where message hint by by/0 unknown")),
        ("rel", "/runtime/0/by/0"),
        ([], "/runtime/0/by"),
        (["runc", "runc"], "/runtime/0/by"),
        (1, "/mounts/0/hides /mounts/0/hides/0 /own /own/0 /verdict"),
        (GONE, below("/mounts/0/hides/0", "path what origin")),
        (1, below("/mounts/0/hides/0", "path what origin unknown")),
        ("rel", "/mounts/0/hides/0/path /mounts/0/hides/0/what /own/0/resolved"),
        (GONE, below("/own/0", "destination resolved type source")),
        (1, below("/own/0", "destination resolved type source unknown")),
        (GONE, below("/mounts/0/idmap", "uids gids namespace")),
        (1, below("/mounts/0/idmap", "uids uids/0 gids gids/0 namespace unknown")),
        ("rel", "/mounts/0/idmap/namespace"),
        (GONE, below("/mounts/0/found", FOUND)),
        (1, below("/mounts/0/found", f"{FOUND} submounts/0 unknown")),
        ("rel", "/mounts/0/found/path /mounts/0/found/kind"),
        ("rel", "/stage /bundle /rootfs /namespace /remove/0"),
        (NUL, "/bundle /rootfs /remove/0"),
        (GONE, below("/mounts/0", "origin source destination resolved links create attributes propagation action")),
        (GONE, below("/mounts/0", "warnings links/0/at links/0/to create/0/path create/0/kind")),
        (1, below("/mounts/0", "origin source destination resolved links create attributes propagation action")),
        (1, below("/mounts/0", "warnings warnings/0 attributes/0 unknown")),
        (1, below("/mounts/0", "links/0 links/0/at links/0/to links/0/unknown")),
        (1, below("/mounts/0", "create/0 create/0/path create/0/kind create/0/unknown")),
        ("rel", below("/mounts/0", "resolved links/0/at create/0/path create/0/kind attributes/0 propagation action")),
        (GONE, below("/mounts/0", "source_links source_links/0/at source_links/0/to")),
        (
            1,
            below(
                "/mounts/0", "source_links source_links/0 source_links/0/at source_links/0/to source_links/0/unknown"
            ),
        ),
        ("rel", "/mounts/0/source_links/0/at"),
        (["ro", "ro"], "/mounts/0/attributes"),
        (GONE, below("/problems/0", "where message hint exit")),
        (1, below("/problems/0", "where message hint unknown")),
        ("1", "/problems/0/exit"),
        (0, "/problems/0/exit"),
        (256, "/problems/0/exit"),
        *[(word, "/mounts/0/action") for word in ("", "Mount", "skip")],
    ],
    "validation": [
        *OF_HEAD,
        ([], ""),
        (GONE, "/documents"),
        (1, "/documents /documents/0 /unknown"),
        (GONE, below("/documents/0", "name valid violations")),
        (1, below("/documents/0", "name valid problem violations violations/0 unknown")),
        (GONE, below("/documents/0/violations/0", "pointer message line column")),
        (1, below("/documents/0/violations/0", "pointer message unknown")),
        ("1", below("/documents/0/violations/0", "line column")),
        (0, below("/documents/0/violations/0", "line column")),
    ],
    "hooks-d": [
        ([], ""),
        (GONE, "/version /hook /when /stages /hook/path"),
        (1, "/version /hook /when /stages /stages/0 /when/unknown /when/annotations /when/annotations/^a$"),
        (1, "/when/always /when/commands /when/commands/0 /when/hasBindMounts /hook/args /hook/env /hook/env/0"),
        ("0.1.0", "/version /stages/0"),
        ("true", "/hook/path /hook/timeout /when/always /when/hasBindMounts"),
        (0, "/hook/timeout"),
        (2**31, "/hook/timeout"),
    ],
    "hooks-d-old": [
        ([], ""),
        (GONE, "/hook"),
        (1, "/version /hook /arguments /arguments/0 /stages /stages/0 /stage /stage/0 /cmds /cmds/0 /cmd /cmd/0"),
        (1, "/annotations /annotations/0 /annotation /annotation/0 /hasbindmounts"),
        ("1.0.0", "/version /hook /stages/0 /stage/0"),
        (NUL, "/hook /arguments/0"),
    ],
    "hooks-check": [
        *OF_HEAD,
        ([], ""),
        (GONE, "/bundle /problems /folders /cdiFolders /hooks /devices /runtimes /registered /timer"),
        (1, "/bundle /problems /problems/0 /folders /folders/0 /hooks /hooks/0 /timer /unknown"),
        (1, "/cdiFolders /cdiFolders/0 /devices /devices/0 /registered /registered/0"),
        (GONE, below("/cdiFolders/0", "path there")),
        (1, below("/cdiFolders/0", "path there unknown")),
        (GONE, below("/devices/0", "path device hook stages used matches because")),
        (1, below("/devices/0", "path device hook stages stages/0 used matches because unknown")),
        (1, "/runtimes /runtimes/0"),
        (GONE, below("/runtimes/0", "path runtime stages named")),
        (1, below("/runtimes/0", "path runtime stages stages/0 named named/0 unknown")),
        (GONE, below("/registered/0", "pointer stage hook because")),
        (1, below("/registered/0", "pointer stage hook because unknown")),
        (GONE, below("/problems/0", "path pointer message effect")),
        (1, below("/problems/0", "path pointer message effect unknown")),
        ("breaks", "/problems/0/effect"),
        (GONE, below("/folders/0", "path there refused")),
        (1, below("/folders/0", "path there refused unknown")),
        (GONE, below("/hooks/0", "path hook stages used matches because")),
        (1, below("/hooks/0", "path hook stages stages/0 used matches because unknown")),
        (GONE, below("/timer", "path command enabled")),
        (1, below("/timer", "path command command/0 enabled unknown")),
    ],
    "registrations": [
        *OF_HEAD,
        ([], ""),
        (GONE, "/registrations"),
        (1, "/registrations /registrations/0 /unknown"),
        (GONE, below("/registrations/0", REGISTERED)),
        (1, below("/registrations/0", f"{REGISTERED} stages/0 conditions/0 env/0 arguments/0 unknown")),
        ("nri", "/registrations/0/kind"),
    ],
    "cdi": [
        ([], ""),
        (GONE, "/cdiVersion /kind /devices /devices/0/name /devices/0/containerEdits"),
        (1, "/cdiVersion /kind /annotations /annotations/a /devices /devices/0 /containerEdits /unknown"),
        (1, "/devices/0/name /devices/0/annotations /devices/0/annotations/a /devices/0/containerEdits"),
        (1, "/devices/0/unknown"),
        (NUL, "/annotations/a /devices/0/annotations/a"),
        ("0.5.1", "/cdiVersion"),
        *[(kind, "/kind") for kind in ("a/b", "example.com/m", "e/models", "example.com/models\n")],
        *[(name, "/devices/0/name") for name in ("a:b", "a\n", "")],
        ([], "/devices"),
        ("all", "/devices/1/name"),
        ("text", "/annotations/ /devices/0/annotations/"),
        *[(value, below(place, members)) for place in ("/containerEdits", CDI_EDITS) for value, members in OF_EDITS],
    ],
    "doctor": [
        *OF_HEAD,
        ([], ""),
        (GONE, "/findings"),
        (1, "/findings /findings/0 /unknown"),
        (GONE, below("/findings/0", "name there needed detail without")),
        (1, below("/findings/0", "name there needed detail without unknown")),
    ],
    "records": [
        *OF_HEAD,
        *STATE_FOLDERS,
        (GONE, "/records"),
        (1, "/records /records/0 /unknown"),
        (GONE, below("/records/0", "id folder status reason advice busy files phase created stage bundle rootfs")),
        (GONE, below("/records/0", "namespace init mounts made")),
        (
            1,
            below(
                "/records/0", "id folder status reason advice busy files files/0 phase stage bundle rootfs namespace"
            ),
        ),
        (1, below("/records/0", "init mounts mounts/0 made made/0 problem unknown")),
        ("rel", below("/records/0", "folder status phase created stage bundle rootfs")),
        (-1, "/records/0/created"),
        (GONE, below("/records/0", "namespace/kind namespace/inode init/pid init/start init/first")),
        ("1", below("/records/0", "namespace/kind namespace/inode init/pid init/start init/first")),
        (-1, below("/records/0", "namespace/inode init/pid init/start init/first")),
        (2**64, below("/records/0", "namespace/inode init/pid init/start init/first")),
        (1, below("/records/0", "namespace/unknown init/unknown")),
        (GONE, below("/records/0/mounts/0", "origin time source destination resolved state source_now registration")),
        ("rel", "/records/0/mounts/0/time"),
        (-1, "/records/0/mounts/0/time"),
        (
            1,
            below(
                "/records/0/mounts/0",
                "origin source subpath destination resolved state source_now registration unknown",
            ),
        ),
        ("rel", below("/records/0/mounts/0", "resolved state source_now registration")),
        (GONE, below("/records/0/made/0", "path kind filesystem state reason")),
        (1, below("/records/0/made/0", "path kind filesystem state reason unknown")),
        ("rel", below("/records/0/made/0", "path kind filesystem state")),
        (GONE, below("/records/0/problem", "message exit")),
        (1, below("/records/0/problem", "message unknown")),
        ("1", "/records/0/problem/exit"),
        (0, "/records/0/problem/exit"),
        (256, "/records/0/problem/exit"),
    ],
    "gc": [
        *OF_HEAD,
        *STATE_FOLDERS,
        (GONE, "/dryRun /records"),
        (1, "/dryRun /records /records/0 /unknown"),
        (GONE, below("/records/0", "id folder action reason advice unmount remove remarks")),
        (1, below("/records/0", "id folder action reason advice unmount remove remarks remarks/0 problem unknown")),
        ("rel", below("/records/0", "folder action unmount/0 remove/0")),
        (1, below("/records/0", "unmount/0 remove/0")),
        (GONE, below("/records/0/problem", "message exit")),
        (1, below("/records/0/problem", "message unknown")),
        ("1", "/records/0/problem/exit"),
        (0, "/records/0/problem/exit"),
        (256, "/records/0/problem/exit"),
    ],
    "state-file": [
        *BOTH_VERSIONS,
        (GONE, "/version /id /phase /created /boot /stage /bundle /rootfs /user /namespace /init /mounts /uses /made"),
        (1, "/version /id /phase /boot /stage /bundle /rootfs /user /namespace /init /mounts /uses /made /unknown"),
        (3, "/version"),
        ("urn:x", "/$schema"),
        (1.0, "/created"),
        (2.0, "/version"),
        (GONE, below("/rootfs", "path dev ino overlay upper above")),
        ("rel", below("/rootfs", "path dev ino overlay upper above")),
        (1, below("/rootfs", "path upper above mounts unknown")),
        ("rel", below("/rootfs", "mounts mounts/0")),
        (-1, "/rootfs/mounts/0"),
        (GONE, f"{below('/rootfs/upper', 'path dev ino')} /rootfs/above/0/dev /rootfs/above/0/ino"),
        ("rel", below("/rootfs/upper", "path dev ino")),
        (1, "/rootfs/upper/path /rootfs/upper/unknown /rootfs/above/0 /rootfs/above/0/unknown"),
        *[
            (value, "/rootfs/upper/dev /rootfs/upper/ino /rootfs/above/0/dev /rootfs/above/0/ino")
            for value in (-1, 1.5, 2**64)
        ],
        (GONE, "/user/owner /user/uids /user/gids"),
        (1, "/user/uids /user/gids /user/unknown"),
        *[
            row
            for which in ("/user/uids/0", "/user/gids/0")
            for row in (
                (GONE, below(which, "inside outside size")),
                (1, f"{which} {which}/unknown"),
                *[(value, f"/user/owner {below(which, 'inside outside size')}") for value in (-1, "1", 1.5, 2**32)],
            )
        ],
        (GONE, "/namespace/kind /namespace/inode /namespace/unique /init/pid /init/start /init/first"),
        ("1", "/namespace/kind /namespace/inode /namespace/unique /init/pid /init/start /init/first"),
        (-1, "/namespace/inode /namespace/unique /init/pid /init/start /init/first"),
        (2**64, "/namespace/inode /namespace/unique /init/pid /init/start /init/first"),
        (GONE, below("/mounts/0", "origin by requested resolved source source/dev source/ino attached")),
        (1, below("/mounts/0", "origin by requested resolved source attached unknown")),
        ("rel", "/mounts/0/time"),
        (-1, "/mounts/0/time"),
        ("rel", "/mounts/0/resolved /mounts/0/origin"),
        *[
            (path, "/mounts/0/resolved /uses/0/name")
            for path in ("//", "/a/", "/a//b", "//a", "/.", "/..", "/a/.", "/a/..", "/./a", "/../a", "/a/../b")
        ],
        *[(name, "/uses/0/name") for name in ("", ".", "..", "a/b", "/", "a\0")],
        *[(number, "/uses/0/in") for number in (GONE, -1, "1", 2**32, 1.5)],
        *[(number, "/made/0/at") for number in (GONE, -1, 0, "1", 2**32, 1.5)],
        (GONE, "/uses/0/name " + below("/made/0", "kind filesystem identity")),
        (1, "/uses/0/name /uses/0/unknown " + below("/made/0", "kind filesystem identity unknown")),
        ("rel", below("/made/0", "kind filesystem")),
    ],
    "state-file-1": [
        *BOTH_VERSIONS,
        (GONE, "/version /id /phase /created /boot /stage /bundle /rootfs /namespace /init /mounts /uses /made"),
        (1, "/id /phase /boot /stage /bundle /rootfs /namespace /init /mounts /uses /made /unknown"),
        (2, "/version"),
        (1.0, "/version /created"),
        (GONE, below("/rootfs", "path dev ino overlay")),
        ("rel", below("/rootfs", "path dev ino overlay")),
        (1, below("/rootfs", "path unknown")),
        (GONE, "/namespace/kind /namespace/inode /init/pid /init/start /init/first"),
        ("1", "/namespace/kind /namespace/inode /init/pid /init/start /init/first"),
        (-1, "/namespace/inode /init/pid /init/start /init/first"),
        (2**64, "/namespace/inode /init/pid /init/start /init/first"),
        (GONE, below("/mounts/0", "origin requested resolved source source/dev source/ino attached")),
        (1, below("/mounts/0", "origin requested resolved source attached unknown")),
        ("rel", "/mounts/0/resolved"),
        ("rel", "/uses/0"),
        *[
            (path, "/mounts/0/resolved /uses/0 /made/0/path")
            for path in ("//", "/a/", "/a//b", "//a", "/.", "/..", "/a/.", "/a/..", "/./a", "/../a", "/a/../b")
        ],
        ("/", "/uses/0 /made/0/path"),
        *[(path, "/made/0/path") for path in ("/a\0", "/a\n/..", "/\n/../a", "/a\n//")],
        (["/a", "/a"], "/uses"),
        (GONE, below("/made/0", "path kind filesystem identity")),
        (1, below("/made/0", "path kind filesystem identity unknown")),
        ("rel", below("/made/0", "path kind filesystem")),
    ],
}
for version in ("state-file", "state-file-1"):
    REFUSED[version] += [
        (value, " ".join(f"/mounts/0/requested{place}" for place in places.split()))
        for value, places in REFUSED["bind-request"]
        if places
    ]


def put(valid: Any, place: str, value: Any) -> Any:
    """A copy of the document ``valid`` with ``value`` at ``place``, a JSON pointer, or without what is there."""
    if not place:
        return value
    document = json.loads(json.dumps(valid))  # shares nothing, not even with itself
    *steps, last = (step.replace("~1", "/").replace("~0", "~") for step in place.split("/")[1:])
    target = document
    for step in steps:
        target = target[int(step) if isinstance(target, list) else step]
    key: Any = int(last) if isinstance(target, list) else last
    if value is GONE:
        del target[key]
    else:
        target[key] = value
    return document
