#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the config.json on stdin to stdout, with the hook: the arguments are what the hook is given."""

import json
import os
import sys

# Where `oci-bind-hook install` puts it, and where the Debian package does.
PLACES = [f"{prefix}/libexec/oci/hooks.d/oci-bind-hook" for prefix in ("/usr/local", "/usr")]
LAUNCHER = next(filter(os.path.exists, PLACES), PLACES[0])
if not os.path.exists(LAUNCHER):
    print(f"{LAUNCHER} is not there: no pod would start; run oci-bind-hook install", file=sys.stderr)

config = json.load(sys.stdin)
# ctr's spec has limits of its own, such as 1024 open files, where pods otherwise have those of containerd.
config.get("process", {}).pop("rlimits", None)
for stage in ("createRuntime", "poststop"):
    hook = {
        "path": LAUNCHER,
        "args": ["oci-bind-hook", stage, *sys.argv[1:]],
        # Never without: some runtimes would hand the hook the image's own variables.
        "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
        "timeout": 30,
    }
    config.setdefault("hooks", {}).setdefault(stage, []).append(hook)
json.dump(config, sys.stdout, indent=1)
print()
