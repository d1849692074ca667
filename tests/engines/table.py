# SPDX-License-Identifier: Apache-2.0
"""What a run of tests/engines found, as a table in docs/ENGINES.md: compared with it, or with WRITE=yes put there.

The arguments are a Debian suite and the file that the run wrote. The rows of other suites stay as they are. Versions
may have changed since, by an update of the suite: only the rest must be the same.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import sys
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/ENGINES.md"
BEGIN, END = "<!-- engines: begin -->\n", "<!-- engines: end -->\n"
HEAD = """\

| Debian | engine | runtime | registration | passed |
|---|---|---|---|---|
"""
# Where all of these pass, the table has one word for them: "life".
LIFE = ("bound", "started again", "killed", "two binds", "reports a missing source")
NAMES = {
    "config.json": "`config.json`",
    "runtime": "`install --runtime`",
    "CDI": "`install --cdi`",
    "hooks.d": "hooks.d",
}


def rows(suite: str, found: list[list[str | list[str]]]) -> list[str]:
    """The lines of a suite."""
    lines = []
    for engine, runtime, registration, tests in found:
        passed = [*dict.fromkeys(tests)]
        if set(LIFE).issubset(passed):
            passed = ["life", *(test for test in passed if test not in LIFE)]
        way = f"{engine} | {runtime} | {NAMES.get(str(registration), registration)}"
        lines.append(f"| {suite} | {way} | {', '.join(passed)} |\n")
    return lines


def without_versions(lines: list[str]) -> list[str]:
    return [re.sub(r"\d+(\.\d+)+", "VERSION", line) for line in lines]


def main(suite: str, path: str) -> None:
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    block, _, after = rest.partition(END)
    known = [line for line in block.splitlines(keepends=True) if line.startswith("| ") and "| engine |" not in line]
    there = [line for line in known if line.startswith(f"| {suite} |")]
    found = rows(suite, json.loads(Path(path).read_text()))
    if os.environ.get("WRITE") == "yes":
        others = [line for line in known if line not in there]
        lines = sorted([*others, *found], key=lambda line: line.split(" | ")[0])
        DOCUMENT.write_text(f"{before}{BEGIN}{HEAD}{''.join(lines)}\n{END}{after}")
        return
    there, found = without_versions(there), without_versions(found)
    sys.stdout.writelines(difflib.unified_diff(there, found, "docs/ENGINES.md", "this run"))
    sys.exit(there != found)


if __name__ == "__main__":
    main(*sys.argv[1:])
