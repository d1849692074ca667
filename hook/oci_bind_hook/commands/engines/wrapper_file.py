# SPDX-License-Identifier: Apache-2.0
"""The wrapper that ``install --runtime`` writes: a shell script that engines call as their OCI runtime."""

from __future__ import annotations

import json
import os
import shlex
import sys

from ... import FOLDER, RUNTIME_MARK
from ...errors import UnavailableError, UsageError
from .conditions import annotations_of
from .launcher import NAME, hook_entry
from .registration import checked_name
from .runtimes import MARK, RUNTIMES_PATH, settings_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .registration import Kind

RUNTIMES = ("runc", "crun")
_FOLDERS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")

# Options with a value before the command, of runc, crun, youki and Kata. runc and Kata use Go's flags, which also allow
# one dash.
_VALUED = ("root", "log", "log-format", "log-level", "criu", "rootless", "cgroup-manager", "config", "kata-config")
# The other commands, which end the search for a command that creates a container. An unknown word does not end it,
# because it may be the value of an unknown option.
_OTHERS = (
    *("checkpoint", "delete", "events", "exec", "features", "help", "kill", "list", "pause", "ps", "resume"),
    *("spec", "start", "state", "update", "version"),
)

_ARGUMENT_BYTES = 32 * 4096  # MAX_ARG_STRLEN, execve(2)

# Words, fds and signals are the runtime's. A shell passes all of them on unchanged; Python would ignore SIGPIPE.
WRAPPER = """\
#!/bin/sh
{mark}
obh_settings={settings}
obh_runtime={runtime}
obh_skip=
obh_before=0
for obh_word do
    if [ -z "$obh_skip" ]; then
        case $obh_word in
            create | run | restore)
                {interpreter} -IS -c {program} "$obh_settings" "$obh_before" "$@" || exit
                break ;;
            {others}) break ;;
            {valued}) obh_skip=yes ;;
        esac
    else
        obh_skip=
    fi
    obh_before=$((obh_before + 1))
done
exec "$obh_runtime" "$@"
"""

# As in the launcher, nothing is collected or finalized. Only this package is imported.
PROGRAM = """\
import gc, posix, sys
gc.disable()
sys.dont_write_bytecode = True
sys.path.append({folder})
try:
    from oci_bind_hook.wrapper import main
    code = main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
except BaseException as error:
    reason = " ".join(f"{{type(error).__name__}}: {{error}}".split())
    line = f"oci-bind-hook: the installation is broken: {{reason}}; the container is not started\\n"
    try:
        posix.write(2, line.encode(errors="backslashreplace"))
    finally:
        posix._exit(posix.EX_SOFTWARE)
posix._exit(code)
"""


class Wrapper:
    """The wrapper ``name`` around the OCI runtime at ``runtime``, for containers with the annotations ``KEY=VALUE``.

    Without ``runtime``: runc or crun, whichever is found first. Raises UsageError, and UnavailableError for a runtime
    that cannot be wrapped.
    """

    kind: Kind = "runtime"
    mode = 0o755

    def __init__(self, name: str, prefix: str, runtime: str | None = None, annotations: Sequence[str] = ()) -> None:
        self.name = checked_name("--runtime", name)
        if name in RUNTIMES or name.startswith("io.containerd"):
            raise UsageError(f'engines already have a runtime "{name}"', where="--runtime", hint="choose another name")
        self.annotations = annotations_of(annotations)
        self.folder = os.path.join(os.path.abspath(prefix), RUNTIMES_PATH)
        self.paths = [os.path.join(self.folder, f"{NAME}-{name}")]
        self._runtime = runtime

    def runtime(self) -> str:
        """Returns the path of the OCI runtime. Raises UsageError, UnavailableError."""
        where = "--oci-runtime"
        if self._runtime is None:
            places = (f"{folder}/{name}" for name in RUNTIMES for folder in _FOLDERS)
            found = next((path for path in places if os.access(path, os.X_OK)), None)
            if found is None:
                raise UnavailableError("neither runc nor crun is installed", hint=f"set the runtime with {where}")
            return found
        path = self._runtime
        if not os.path.isabs(path):
            raise UsageError(f'"{path}" is not an absolute path', where=where)
        if "runsc" in (os.path.basename(path), os.path.basename(os.path.realpath(path))):
            hint = "use the engine's binds: docker run -v, or mounts of the pod"
            raise UnavailableError("no hook can mount into the sandbox of runsc", where=where, hint=hint)
        if not os.path.isfile(path) or not os.access(path, os.X_OK):
            raise UnavailableError(f"{path} is not an executable file", where=where)
        if os.path.realpath(path) == os.path.realpath(self.paths[0]) or settings_of(path) is not None:
            raise UsageError(f"{path} is a wrapper as well", where=where, hint="set the runtime behind it")
        return path

    @property
    def uses(self) -> Iterator[str]:
        """Yields the beginnings of the commands that start a container with it."""
        yield f"docker run --runtime {self.name} ..."
        yield f"podman --runtime {self.paths[0]} run ..."

    def texts(self, launcher: str, stages: Sequence[str], arguments: Sequence[str]) -> list[str]:
        """Returns the content of the file. Raises UsageError for text that JSON cannot contain, UnavailableError."""
        runtime = self.runtime()
        entry = hook_entry(launcher, arguments, f"{RUNTIME_MARK}{self.name}")
        hooks = {stage: [entry] for stage in dict.fromkeys(stages)}
        settings = {"runtime": runtime, "hooks": hooks, "annotations": self.annotations}
        text = json.dumps(settings, ensure_ascii=False)
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            raise UsageError("config.json can only contain UTF-8", where="--") from None
        if size >= _ARGUMENT_BYTES:
            problem = f"its options have {size} bytes, and an argument of a process is limited to {_ARGUMENT_BYTES}"
            raise UnavailableError(problem, where="--runtime", hint="use patterns as sources")
        # The shell keeps a newline in quotes. One line for each setting helps people, and settings_of.
        return [
            WRAPPER.format(
                mark=MARK,
                settings=shlex.quote(text),
                runtime=shlex.quote(runtime),
                interpreter=shlex.quote(sys.executable),
                program=shlex.quote(PROGRAM.format(folder=ascii(os.path.dirname(os.path.abspath(FOLDER))))),
                others=" | ".join(_OTHERS),
                valued=" | ".join(f"{dash}{name}" for name in _VALUED for dash in ("--", "-")),
            )
        ]
