# SPDX-License-Identifier: Apache-2.0
"""The hook's command line: its options, and what follows from them alone.

Every start of a container loads this module, so it imports only posix: argparse imports slower than Python starts.
"""

from __future__ import annotations

import posix

from .errors import MissingError, UnavailableError, UsageError
from .kernel import files, linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Literal

    from .documents.oci import State
    from .kernel.proc import Proc

    Stage = Literal["prestart", "createRuntime", "createContainer", "poststop"]

STAGES: tuple[Stage, ...] = ("prestart", "createRuntime", "createContainer", "poststop")
FORMATS = ("text", "tree", "json")
LOG_FORMATS = ("text", "json")
DEFAULT_ROOT = "/run/oci-bind-hook"


class Options:
    """The options of one call, as ``parse`` reads them."""

    def __init__(self) -> None:
        self.stage: Stage | None = None
        self.mounts: list[str] = []
        self.root: str | None = None
        self.dry_run = False
        self.bundle: str | None = None
        self.format = "text"
        self.unfold = False
        self.strict = False
        self.allow_annotations = False
        self.allowed_sources: list[str] = []
        self.allow_shared = False
        # Only for attach and detach, of which ``command`` is one. ``others`` are the words that are not options.
        self.command: str | None = None
        self.others: list[str] = []
        self.pid: int | None = None
        self.force = False
        self.keep_mountpoints = False
        self.log: str | None = None
        self.log_format = "text"

    @property
    def annotation_sources(self) -> list[str]:
        """The folders below which annotations may name sources. If empty, annotations are ignored."""
        return self.allowed_sources if self.allow_annotations else []


def remarks(options: Options) -> list[str]:
    """Returns warnings about options that have no effect without another one."""
    found = []
    if options.allow_annotations and not options.allowed_sources:
        found.append("--allow-annotations has no effect without --allow-source")
    if options.allowed_sources and not options.allow_annotations:
        found.append("--allow-source has no effect without --allow-annotations")
    return found


def is_teardown(stage: Stage | None, state: State) -> bool:
    """Whether this call is poststop. Raises UnavailableError if the container's status does not fit the stage."""
    if state.status == "stopped" and stage in (None, "poststop"):
        return True
    if stage == "poststop":
        raise not_stopped(state.status)
    if state.status not in ("creating", "created"):
        raise UnavailableError(
            f'the container is "{state.status}", but a hook binds only while it is being created',
            hint="register the hook for createRuntime, createContainer or prestart; for a running container, "
            "use attach",
        )
    return False


def not_stopped(status: str) -> UnavailableError:
    """Returns the error for poststop of a container that has not ended."""
    return UnavailableError(
        f'poststop needs a container that is "stopped", but this one is "{status}"',
        hint="pass the stage that the hook is registered for, or omit STAGE",
    )


def state_folder(options: Options, proc: Proc, environment: Mapping[bytes, bytes] = posix.environ) -> str:
    """Returns the state folder: --root, else /run/oci-bind-hook, or for an ordinary user one in their runtime folder.

    An ordinary user is root inside the user namespace of their container. The uid outside decides, so that poststop,
    which runs there, finds the same folder. ``environment`` is that of the hook.
    """
    if options.root is not None:
        return options.root
    uid = proc.uid_outside(posix.geteuid())
    if uid == 0:
        return DEFAULT_ROOT
    runtime = linux.decode_path(environment.get(b"XDG_RUNTIME_DIR", b""))
    return f"{runtime if runtime.startswith('/') else f'{files.USERS}/{uid}'}/oci-bind-hook"


# -- the parser ------------------------------------------------------------------------------------------------------


class Arguments:
    """The arguments of a command line, taken one by one."""

    def __init__(self, words: list[str]) -> None:
        self._words = words[::-1]

    def __bool__(self) -> bool:
        return bool(self._words)

    def next(self) -> str:
        return self._words.pop()

    def value(self, option: str) -> str:
        """Returns the value of ``option``, which is the next argument. Raises UsageError without one."""
        if not self._words:
            raise UsageError("the value is missing", where=option)
        return self._words.pop()

    def rest(self) -> list[str]:
        rest, self._words = self._words[::-1], []
        return rest

    def option(self, flags: Sequence[str]) -> str:
        """Returns the next argument; of ``--option=value`` the option. UsageError for one of ``flags`` with a value."""
        word = self.next()
        if word.startswith("--") and "=" in word:
            word, _, value = word.partition("=")
            if word in flags:
                raise UsageError("this option takes no value", where=word)
            self._words.append(value)
        return word


# Options without a value, and the member of Options that each sets.
_SWITCHES = {
    "--dry-run": "dry_run",
    "--all": "unfold",
    "--strict": "strict",
    "--allow-annotations": "allow_annotations",
    "--allow-shared": "allow_shared",
    "--keep-mountpoints": "keep_mountpoints",
}
FLAGS = (*_SWITCHES, "--debug")
_OPTIONS = (
    *("--mount", "--allow-source", "--root", "--bundle", "--format", "--log", "--log-format", "--help", "--version"),
    *FLAGS,
)
# The options of the commands for a running container, which are parsed here too.
TAKEN_BY = {
    "attach": (
        *("--mount", "--root", "--dry-run", "--format", "--all", "--strict", "--allow-shared", "--log", "--log-format"),
        *("--debug", "--bundle", "--pid", "--force"),
    ),
    "detach": ("--root", "--keep-mountpoints", "--log", "--log-format", "--debug", "--bundle", "--pid", "--all"),
}


def parse(words: list[str], command: str | None = None) -> tuple[Options, bool]:
    """Returns the options in ``words``, and whether ``--debug`` is among them. UsageError names the wrong argument.

    The options are those of ``command``, one of TAKEN_BY, or by default those of the hook.
    """
    is_hook = command is None
    taken = () if command is None else TAKEN_BY[command]
    options = Options()
    options.command = command
    debug = False
    arguments = Arguments(words)
    while arguments:
        word = arguments.option(FLAGS if is_hook else (*FLAGS, "--force"))
        if not is_hook and not word.startswith("-"):
            options.others.append(word)
        elif not is_hook and word not in taken:
            is_known = word in (*_OPTIONS, *TAKEN_BY["attach"])
            raise UsageError(f"{command} does not take it", where=word) if is_known else unknown(word, taken)
        elif word in STAGES:
            if options.stage is not None:
                raise UsageError(f'only one stage is allowed, and "{word}" is another', where=options.stage)
            options.stage = word
        elif word in _SWITCHES:
            setattr(options, _SWITCHES[word], True)
        elif word == "--mount":
            options.mounts.append(arguments.value(word))
        elif word == "--root":
            options.root = _absolute(word, arguments.value(word))
        elif word == "--bundle":
            options.bundle = absolute_to_here(word, arguments.value(word))
        elif word == "--format":
            options.format = one_of(word, arguments.value(word), FORMATS)
        elif word == "--log":
            options.log = _absolute(word, arguments.value(word))
        elif word == "--log-format":
            options.log_format = one_of(word, arguments.value(word), LOG_FORMATS)
        elif word == "--allow-source":
            options.allowed_sources.append(_absolute(word, arguments.value(word)))
        elif word == "--debug":
            debug = True
        elif word == "--pid" and word in taken:
            options.pid = _pid(word, arguments.value(word))
        elif word == "--force" and word in taken:
            options.force = True
        else:
            raise unknown(word)
    if options.format != "text" and not options.dry_run:
        raise UsageError("this option requires --dry-run", where="--format")
    if options.unfold and not options.dry_run and is_hook:
        raise UsageError("this option requires --dry-run", where="--all")
    if options.bundle is not None and not options.dry_run and is_hook:
        raise UsageError("this option requires --dry-run", where="--bundle")
    if options.bundle is not None and options.stage == "poststop":
        raise UsageError(
            "poststop requires a state on stdin: a bundle does not contain the container's id", where="--bundle"
        )
    return options, debug


def unknown(word: str, commands: tuple[str, ...] = ()) -> UsageError:
    """Returns the error for an unknown ``word``, with the nearest known one."""
    import os

    from .requests.request import nearest

    if "/" in word and os.path.isdir(word):
        near = "pass a bundle with --bundle;"
    else:
        near = nearest(word, (*STAGES, *_OPTIONS, *commands))
        if not (near or commands) and word.isalpha():
            near = "a command comes first, before all options;"
    return UsageError("unknown command or option", where=word, hint=f"{near} see --help".lstrip())


def absolute_to_here(option: str, path: str) -> str:
    """Returns a path as absolute, links not followed. MissingError if relative and there is no current folder."""
    if not path.startswith("/"):
        try:
            path = files.below(posix.getcwd(), path)
        except OSError:
            problem = f"{path} is relative to the current folder, which has been removed"
            raise MissingError(problem, where=option) from None
    return files.clean_path(path)


def _absolute(option: str, path: str) -> str:
    """Returns an absolute path. UsageError for a relative one, since each runtime starts hooks in another folder."""
    if not path.startswith("/"):
        raise UsageError(f'"{path}" is not an absolute path', where=option)
    return files.clean_path(path)


def _pid(option: str, word: str) -> int:
    """Returns a process number. Raises UsageError."""
    if not (word.isascii() and word.isdigit() and 0 < int(word[:10]) < 1 << 31):
        raise UsageError(f'"{word}" is not a process id', where=option)
    return int(word)


def one_of(option: str, word: str, choices: Sequence[str]) -> str:
    """Returns the value of an option if it is among ``choices``. Raises UsageError for any other."""
    if word not in choices:
        *first, last = choices
        raise UsageError(f'"{word}" is not {", ".join(first)} or {last}', where=option)
    return word
