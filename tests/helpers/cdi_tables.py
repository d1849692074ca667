# SPDX-License-Identifier: Apache-2.0
"""CDI files for a unit test of what we think that engines make of them, and for podman, which tells what they do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

HOOK: dict[str, Any] = {
    "hookName": "createContainer",
    "path": "/usr/libexec/oci/hooks.d/oci-bind-hook",
    "env": ["A=1"],
    "timeout": 9,
}


def document(*edits: dict[str, Any], **members: Any) -> dict[str, Any]:
    """A CDI file with a device for each of these edits, by default one that sets a variable."""
    devices = [
        {"name": f"d{number}", "containerEdits": each} for number, each in enumerate(edits or ({"env": ["CDI=1"]},))
    ]
    found = {"cdiVersion": "0.5.0", "kind": "example.com/models", "devices": devices, **members}
    return {name: value for name, value in found.items() if value is not None}


def device(name: Any = "d0", **edits: Any) -> dict[str, Any]:
    return {"name": name, "containerEdits": edits or {"env": ["CDI=1"]}}


def hook(**members: Any) -> dict[str, Any]:
    found = {**HOOK, **members}
    return {"hooks": [{name: value for name, value in found.items() if value is not None}]}


EDITS = "/devices/0/containerEdits"

# What engines of every version agree on: a file, and the place and the words of our refusal, None where they take it.
AGREED: dict[str, tuple[dict[str, Any], tuple[str, str] | None]] = {
    "plain": (document(), None),
    "names in other letter case": ({"CDIVersion": "0.5.0", "Kind": "example.com/cases", "DEVICES": [device()]}, None),
    "null for absent": (document(containerEdits=None) | {"containerEdits": None}, None),
    "0.3.0": (document(cdiVersion="0.3.0"), None),
    "no version": (document(cdiVersion=None), ("/cdiVersion", 'is "", but engines accept 0.3.0 to 1.1.0')),
    "a version": (document(cdiVersion="0.5.1"), ("/cdiVersion", 'is "0.5.1", but engines accept 0.3.0 to 1.1.0')),
    "a number as version": (document(cdiVersion=5), ("/cdiVersion", "must be a string")),
    "no kind": (document(kind=None), ("/kind", '"" is not VENDOR/CLASS')),
    "no class": (document(kind="example.com/"), ("/kind", '"example.com/" is not VENDOR/CLASS')),
    "two slashes": (
        document(kind="example.com/a/b"),
        ("/kind", 'the class "a/b" may only contain letters, digits, -, _ and .'),
    ),
    "a digit before the class": (
        document(kind="example.com/3d"),
        ("/kind", 'the class "3d" must start with a letter'),
    ),
    "a dash behind the vendor": (
        document(kind="example-/models"),
        ("/kind", 'the vendor "example-" must start and end with a letter or digit'),
    ),
    "an unknown member": (document(kinds="x"), ("/kinds", "is not a known member")),
    "an unknown edit": (document({"binds": []}), (f"{EDITS}/binds", "is not a known member")),
    "an array": ([], ("", "must be an object")),  # type: ignore[dict-item]
    "no edits": (document({"env": []}), (EDITS, "is missing or empty")),
    "no name": (document(devices=[device("")]), ("/devices/0/name", '"" is empty')),
    "a colon in the name": (document(devices=[device("d:0")]), None),
    "a slash in the name": (
        document(devices=[device("d/0")]),
        ("/devices/0/name", '"d/0" may only contain letters, digits, -, _ and . and :'),
    ),
    "a dot behind the name": (
        document(devices=[device("d.")]),
        ("/devices/0/name", '"d." must start and end with a letter or digit'),
    ),
    "a name twice": (document(devices=[device(), device()]), ("/devices/1/name", '"d0" appears twice')),
    "a digit before the name": (document(devices=[device("0")]), None),
    "a variable without a value": (document({"env": ["A"]}), (f"{EDITS}/env/0", '"A" is not NAME=VALUE')),
    "a variable without a name": (document({"env": ["=A"]}), (f"{EDITS}/env/0", '"=A" is not NAME=VALUE')),
    "a variable of all": (document(containerEdits={"env": ["A"]}), ("/containerEdits/env/0", '"A" is not NAME=VALUE')),
    "hooks": (document(*(hook(hookName=stage) for stage in ("prestart", "startContainer", "poststop"))), None),
    "a stage": (
        document(hook(hookName="precreate")),
        (
            f"{EDITS}/hooks/0/hookName",
            '"precreate" is not one of prestart, createRuntime, createContainer, startContainer, poststart, poststop',
        ),
    ),
    "a hook without a path": (document(hook(path=None)), (f"{EDITS}/hooks/0/path", "is missing or empty")),
    "a hook's variable": (document(hook(env=["A"])), (f"{EDITS}/hooks/0/env/0", '"A" is not NAME=VALUE')),
    "a hook's member": (document(hook(stage="x")), (f"{EDITS}/hooks/0/stage", "is not a known member")),
    "a hook's timeout": (document(hook(timeout="1")), (f"{EDITS}/hooks/0/timeout", "must be an integer")),
    "a mount": (
        document({"mounts": [{"hostPath": "/x"}]}),
        (f"{EDITS}/mounts/0/containerPath", "is missing or empty"),
    ),
    "a device node": (document({"deviceNodes": [{}]}), (f"{EDITS}/deviceNodes/0/path", "is missing or empty")),
    "its type": (
        document({"deviceNodes": [{"path": "/dev/x", "type": "d"}]}),
        (f"{EDITS}/deviceNodes/0/type", '"d" is not b, c, u or p'),
    ),
    "its permissions": (
        document({"deviceNodes": [{"path": "/dev/x", "permissions": "rx"}]}),
        (f"{EDITS}/deviceNodes/0/permissions", '"rx" is neither "none" nor made of r, w and m'),
    ),
}

# What only some versions refuse.
NEWER: dict[str, tuple[dict[str, Any], tuple[str, str] | None]] = {
    "1.1.0": (document({"netDevices": [{"hostInterfaceName": "a", "name": "b"}]}, cdiVersion="1.1.0"), None),
    "0.6.0": (document(kind="example.com/models.x", cdiVersion="0.6.0", annotations={"a": "b"}), None),
    "before any that podman 5 knows": (
        document(cdiVersion="0.2.0"),
        ("/cdiVersion", 'is "0.2.0", but engines accept 0.3.0 to 1.1.0'),
    ),
    "a class of 0.6.0": (
        document(kind="example.com/models.x"),
        ("/cdiVersion", 'is "0.5.0", but the dot in the class of /kind requires 0.6.0'),
    ),
    "a name of 0.5.0": (
        document(devices=[device("0")], cdiVersion="0.4.0"),
        ("/cdiVersion", 'is "0.4.0", but the digit at the start of /devices/0/name requires 0.5.0'),
    ),
    "a mount of 0.4.0": (
        document({"mounts": [{"hostPath": "/x", "containerPath": "/x", "type": "bind"}]}, cdiVersion="0.3.0"),
        ("/cdiVersion", f'is "0.3.0", but {EDITS}/mounts/type requires 0.4.0'),
    ),
    "edits of 0.7.0": (
        document({"additionalGids": [1]}),
        ("/cdiVersion", f'is "0.5.0", but {EDITS}/additionalGids requires 0.7.0'),
    ),
    "annotations": (document(annotations={"a": "b"}), ("/cdiVersion", 'is "0.5.0", but /annotations requires 0.6.0')),
    "no devices": (document(devices=[]), ("/devices", "is missing or empty")),
}

# What ends some engine when it reads the file.
FATAL: dict[str, tuple[dict[str, Any], tuple[str, str] | None]] = {
    "a class of one letter": (
        document(kind="example.com/m"),
        ("/kind", 'the class "m" has one letter, which makes docker crash'),
    ),
    "a vendor of one letter": (
        document(kind="e/models"),
        ("/kind", 'the vendor "e" has one letter, which makes docker crash'),
    ),
    "a hook that is null": (document({"hooks": [None]}), (f"{EDITS}/hooks/0", "is null")),
}


def write(folder: Path, name: str, text: object) -> Path:
    """Writes one file into a CDI folder: a document, or text as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    return path
