# SPDX-License-Identifier: Apache-2.0
"""What engines really write into config.json, by name: tests/data/configs."""

from __future__ import annotations

import glob
import os
from typing import Any

from oci_bind_hook.documents import strictjson

FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "data", "configs")
CONFIGS = sorted(os.path.basename(path).removesuffix(".json") for path in glob.glob(f"{FOLDER}/*.json"))


def config(name: str) -> tuple[bytes, Any]:
    """A config that an engine wrote: as it is, and read."""
    with open(f"{FOLDER}/{name}.json", "rb") as file:
        data = file.read()
    [document] = strictjson.documents(data, name)
    return data, document
