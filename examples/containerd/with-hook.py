#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the config.json on stdin to stdout, with the hook: the arguments are what the hook is given."""

import json
import sys

LAUNCHER = "/usr/libexec/oci/hooks.d/oci-bind-hook"

config = json.load(sys.stdin)
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
