#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Adds the hook to the config.json on stdin and writes it to stdout. The arguments are those of the hook."""

import json
import os
import sys

# The launcher of `oci-bind-hook install`, with and without --prefix /usr.
PLACES = [f"{prefix}/libexec/oci/hooks.d/oci-bind-hook" for prefix in ("/usr/local", "/usr")]
LAUNCHER = next(filter(os.path.exists, PLACES), PLACES[0])
if not os.path.exists(LAUNCHER):
    print(f"{LAUNCHER} does not exist, so no pod would start: run oci-bind-hook install", file=sys.stderr)

config = json.load(sys.stdin)
# ctr's spec has limits of its own, such as 1024 open files. Without them pods have those of containerd.
config.get("process", {}).pop("rlimits", None)
for stage in ("createRuntime", "poststop"):
    hook = {
        "path": LAUNCHER,
        "args": ["oci-bind-hook", stage, *sys.argv[1:]],
        # Required: without it some runtimes give the hook the variables of the image.
        "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
        "timeout": 30,
    }
    config.setdefault("hooks", {}).setdefault(stage, []).append(hook)
json.dump(config, sys.stdout, indent=1)
print()
