#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes one file of the hook and all that it needs, for the Python that runs this script: its version, its machine.

    python3 hook/packages/onefile.py [FILE]

FILE is `oci-bind-hook.pyz` if it is not said. It is a zip archive that Python runs. What is compiled cannot be loaded
from an archive: it is copied to memory, memfd_create(2), and loaded from there, so that nothing is ever unpacked to a
disk where others could write. Where vm.memfd_noexec is 2, that is refused.
"""

from __future__ import annotations

import compileall
import os
import py_compile
import shutil
import subprocess
import sys
import tempfile
import venv
import zipapp
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]

# In the place of a compiled module, whose code lies beside it.
STUB = """\
import _frozen_importlib
import _frozen_importlib_external
import os
import sys

_fd = os.memfd_create(__name__)
try:
    with open(_fd, "wb", closefd=False) as _file:
        _file.write(__spec__.loader.get_data(__file__.rpartition("/")[0] + "/{data}"))
    # The C library takes a path that it has seen for the same library, so that each has a spelling of its own.
    _path = f"/proc/self/fd/{spelling}{{_fd}}"
    _loader = _frozen_importlib_external.ExtensionFileLoader(__name__, _path)
    _module = _frozen_importlib.module_from_spec(type(__spec__)(__name__, _loader, origin=_path))
    _loader.exec_module(_module)
finally:
    os.close(_fd)
sys.modules[__name__] = _module
"""

CHECK = """\
import os
import sys

if sys.version_info[:2] != {version}:
    message = f"this file is for Python {major}.{minor}, not for {{sys.version.split()[0]}}"
    os.write(2, f"oci-bind-hook: {{message}}\\n".encode())
    os._exit(os.EX_UNAVAILABLE)
"""


def main(target: str) -> None:
    with tempfile.TemporaryDirectory() as work:
        site = Path(work, "site")
        venv.create(f"{work}/venv", with_pip=True)
        pip = [f"{work}/venv/bin/pip", "install", "-q", "--disable-pip-version-check", "--no-compile"]
        subprocess.run([*pip, "--target", str(site), str(PROJECT)], check=True)
        for name in ("bin", "share"):
            shutil.rmtree(site / name)
        for number, compiled in enumerate(sorted(site.rglob("*.so"))):
            name = compiled.name.partition(".")[0]
            compiled.rename(compiled.with_name(f"{name}.code"))
            compiled.with_name(f"{name}.py").write_text(STUB.format(data=f"{name}.code", spelling="./" * number))
        major, minor = sys.version_info[:2]
        check = CHECK.format(version=(major, minor), major=major, minor=minor)
        (site / "__main__.py").write_text(check + launcher(site))
        # Read as they are: whoever changes the archive makes it anew.
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        compileall.compile_dir(site, quiet=1, legacy=True, invalidation_mode=mode, stripdir=str(site))
        zipapp.create_archive(site, target, interpreter=f"{interpreter()} -IS", compressed=True)
        os.chmod(target, 0o755)


def launcher(site: Path) -> str:
    """What `install` writes, with nothing to add to where Python looks for modules: the archive is there already."""
    script = "from oci_bind_hook.commands.engines.launcher import launcher_text; print(launcher_text('/python', ()))"
    environment = {**os.environ, "PYTHONPATH": str(site)}
    text = subprocess.run(
        [sys.executable, "-c", script], env=environment, check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    return text.partition("\n")[2]


def interpreter() -> str:
    """The Python itself, not that of a venv which may go."""
    return sys.executable if sys.prefix == sys.base_prefix else sys._base_executable  # type: ignore[attr-defined]


if __name__ == "__main__":
    main(*sys.argv[1:2] or ["oci-bind-hook.pyz"])
