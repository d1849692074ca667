# SPDX-License-Identifier: Apache-2.0
"""A pytest report as rows: for each runtime and stage, how many end-to-end tests passed.

The argument is a file that pytest wrote for ``--junit-xml``.
"""

from __future__ import annotations

import re
import subprocess
import sys
from xml.etree import ElementTree

from helpers import support

STAGES = ("prestart", "createRuntime", "createContainer")


def passed(cases: list[ElementTree.Element], *parameters: str) -> str:
    """How many of the tests with all these parameters passed, and of how many if not of all."""
    named = [case for case in cases if set(parameters) <= set(re.split(r"[][-]", case.get("name", "")))]
    good = sum(len(case.findall("*")) == len(case.findall("system-*")) for case in named)
    return str(good) if good == len(named) else f"{good} of {len(named)}"


def main(report: str) -> None:
    cases = list(ElementTree.parse(report).iter("testcase"))
    # Unit tests have parameters of the same names: a runtime's state, read from a text.
    real = [case for case in cases if "tests.e2e." in case.get("classname", "")]
    print(f"| runtime | {' | '.join(STAGES)} | at any stage |")
    print(f"|---|{'---|' * (len(STAGES) + 1)}")
    for runtime in support.RUNTIMES:
        version = subprocess.run([runtime, "--version"], capture_output=True, text=True, check=True)
        name = " ".join(version.stdout.splitlines()[0].split()[::2])
        counts = [*(passed(real, runtime, stage) for stage in STAGES), passed(real, runtime)]
        print(f"| {name} | {' | '.join(counts)} |")
    print(f"tests/e2e: {passed(real)}, all tests: {passed(cases)}")


if __name__ == "__main__":
    main(sys.argv[1])
