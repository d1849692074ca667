# SPDX-License-Identifier: Apache-2.0
"""The commands by name. No start of a container loads this module."""

from __future__ import annotations

import os

from ..errors import UsageError
from ..options import unknown
from . import actions, registering
from .command_line import Command, Example, Given
from .output import answer
from .reference import EXPLAIN, HOOK, UNINSTALL, VALIDATE, Option, options, options_of_running

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..log import Log


def run(argv: list[str], log: Log) -> int:
    """Runs a command and returns its exit code. Raises HookError."""
    commands = {tuple(command.name.split()): command for command in COMMANDS}
    first, *words = argv
    own = words[: words.index("--") if "--" in words else None]
    # An option may select another command, such as "install --check".
    name = next(((first, word) for word in own if (first, word) in commands), (first,))
    command = commands.get(name)
    # After --, "--help" may be the name of a file, unless the words there are options of the hook.
    asked = argv if command is None or command.only_behind else own
    if not {"--help", "-h"}.isdisjoint(asked):
        from . import help

        answer(help.of_command(command, COMMANDS) if command else help.of_words(argv, COMMANDS))
        return os.EX_OK
    if "--version" in asked:
        from . import version

        answer(version.version())
        return os.EX_OK
    if command is None:
        raise unknown(first, tuple(known for known, *_ in commands))
    if command.run is None:
        from .running import run_in

        return run_in(argv, log) or os.EX_OK
    return command.run(Given(command, words), log)


def _uninstall(given: Given, log: Log) -> int:
    from . import unregistering

    return unregistering.uninstall_command(given, log)


def _completion(given: Given, _: Log) -> int:
    from . import completion, help

    shell = given.others[0] if given.others else ""
    if shell == completion.WORDS_OF:
        answer(completion.complete(given.others[1:], COMMANDS, lambda: help.topics(COMMANDS)).text())
    elif shell in completion.SCRIPTS and len(given.others) == 1:
        answer(completion.script(shell))
    else:
        raise UsageError("name one shell", where="completion", hint=f"known: {', '.join(completion.SCRIPTS)}")
    return os.EX_OK


def _help(given: Given, _: Log) -> int:
    from . import help

    answer(help.topic(" ".join(given.others), COMMANDS))
    return os.EX_OK


COMMANDS = (
    Command(
        "explain",
        actions.explain_command,
        "[BUNDLE|FILE|CONTAINER] [STAGE] [OPTION]...",
        "explain what the hook would do for a bundle, given by its folder, its config.json or its container; the "
        "default is the bundle in the current folder",
        options(
            "--mount --allow-annotations --allow-source --root --format --all --strict --allow-shared "
            "--keep-mountpoints --log --log-format --debug",
            (*HOOK, *EXPLAIN),
        ),
        takes=("BUNDLE", "FILE", "ID", "STAGE"),
        examples=(
            Example("Show the bundle in the current folder as a picture", "explain --format tree"),
            Example(
                "Show what a bind would do to a bundle that does not register the hook",
                "explain /srv/bundle --mount src=/srv/models,dst=/models,ro",
            ),
            Example("Explain a container of podman or docker by its name", "explain web"),
        ),
        exits=(
            (0, "a real run would succeed"),
            (73, "neither runc nor crun would start the bundle"),
            (
                69,
                "a real run would fail with 69, or its result is not known here; other codes are those of the real "
                "run, but 78 can also mean a registration without env",
            ),
        ),
    ),
    Command(
        "attach",
        None,
        "CONTAINER --mount SPEC... [OPTION]...",
        "bind into a running container, given by its id, the beginning of the id, its name, bundle or first process",
        options_of_running("attach"),
        takes=("ID",),
        examples=(
            Example(
                "Bind a folder into a container, given by its name",
                "attach web --mount type=bind,src=/srv/db,dst=/data,ro",
            ),
            Example("Show what this would do", "attach web --mount src=/srv/db,dst=/data,ro --dry-run --format tree"),
        ),
        exits=(
            (0, "done, or already mounted"),
            (66, "the container or a source does not exist"),
            (69, "the container cannot be entered from here, or its root is not the rootfs of its bundle"),
            (71, "the kernel refused a call"),
            (77, "a bind would leave the rootfs or appear on the host, or the container could make it writable"),
            (78, "a bind makes no sense"),
        ),
    ),
    Command(
        "detach",
        None,
        "CONTAINER DESTINATION|--all [OPTION]...",
        "remove a bind, or all recorded binds, from a running container; also those made at its start",
        options_of_running("detach"),
        takes=("ID",),
        examples=(
            Example("Remove one bind, given by its destination", "detach web /data"),
            Example(
                "Remove all recorded binds, also those made at its start, from a container given by its first process",
                "detach --pid 4242 --all",
            ),
        ),
        exits=(
            (0, "done"),
            (66, "no such bind is recorded"),
            (69, "the container cannot be entered from here, or its root is not the rootfs of its bundle"),
            (71, "something is mounted on the bind, or the kernel refused a call: the bind stays mounted and recorded"),
        ),
    ),
    Command(
        "list",
        actions.list_command,
        "[--root DIR] [--format text|json]",
        "list the recorded containers, whether they live, and what to do",
        options("--root --format --debug"),
        hint="show ID shows one container",
        examples=(
            Example("List all containers, and what to do", "list"),
            Example(
                "List the containers of a hook that is registered with another state folder",
                "list --root /var/lib/oci-bind-hook",
            ),
        ),
        exits=((0, "done"), (74, "a state file or the state folder cannot be read")),
    ),
    Command(
        "show",
        actions.show_command,
        "ID [--root DIR] [--format text|json]",
        "show the record of one container: its binds, the mount points created for them, and their current state",
        options("--root --format --debug"),
        takes=("ID",),
        examples=(
            Example("Show one container, given by the beginning of its id", "show 4f1c"),
            Example("Print the same as JSON", "show 4f1c --format json"),
        ),
        exits=(
            (0, "done"),
            (64, "several ids have this beginning: they are listed"),
            (66, "no such container is recorded"),
            (74, "its state file cannot be read"),
        ),
    ),
    Command(
        "gc",
        actions.gc_command,
        "[ID]... [--dry-run] [--root DIR] [--keep-mountpoints]",
        "undo what dead containers and killed runs left behind; live containers are not touched",
        (
            *options("--root --format --debug --keep-mountpoints --log --log-format"),
            Option("--dry-run", "", "show what would be undone, and change nothing"),
        ),
        takes=("ID",),
        examples=(
            Example("Show what would be undone", "gc --dry-run"),
            Example("Undo everything that dead containers left", "gc"),
            Example("Undo what one container left, given by the beginning of its id", "gc 4f1c"),
        ),
        exits=(
            (0, "success, or nothing to do"),
            (66, "a container that was passed as an argument is not recorded"),
            (69, "a container that was passed as an argument lives"),
            (71, "something could not be undone, and stays recorded"),
            (74, "a state file cannot be read, and is kept, or the state folder cannot be read"),
        ),
    ),
    Command(
        "validate",
        actions.validate_command,
        "[OPTION]... BUNDLE|FILE|-...",
        "print where a config.json or a state violates the schemas, also in parts that the hook does not use",
        VALIDATE,
        takes=("BUNDLE", "FILE", "-"),
        hint="for a file of that name, put -- before it",
        examples=(
            Example("Check all bundles in a folder", "validate /srv/containers/*"),
            Example("Print annotations of GitHub Actions", "validate --format github /srv/containers/*"),
            Example("Check a plan that a program has saved", "validate --schema plan plan.json"),
        ),
        exits=((0, "all are valid"), (65, "one is invalid"), (66, "one cannot be read, and the others are valid")),
    ),
    Command(
        "schema",
        actions.schema_command,
        "[SCHEMA] [--bundled]",
        "list the JSON schemas of what the hook reads and prints, or print one",
        options("--bundled"),
        takes=("SCHEMA",),
        examples=(
            Example("List the schemas and their purposes", "schema"),
            Example(
                "Print a schema together with those that it refers to, for a validator or an editor",
                "schema state-file --bundled",
            ),
        ),
    ),
    Command(
        "install",
        registering.install_command,
        "[OPTION]... [-- HOOK-OPTION...]",
        "register the hook with engines: in hooks.d for podman and CRI-O, in CDI for engines that read it, or as a "
        "runtime for docker and containerd",
        options(
            "--prefix --name --hooks-dir --stages --annotation --command --has-bind-mounts --always --cdi --cdi-dir "
            "--env --runtime --oci-runtime --apply --engine --gc-timer --units-dir --check --list"
        ),
        takes=("OPTION",),
        only_behind=True,
        hint="put -- before the options of the hook",
        examples=(
            Example(
                "Bind a folder into every container of podman and CRI-O",
                "install --prefix /usr -- --mount src=/srv/models,dst=/models,ro",
            ),
            Example(
                "Bind it only into containers that request it, under docker, podman and containerd",
                "install --cdi models -- --mount src=/srv/models,dst=/models,ro",
            ),
            Example(
                "Register the runtime of `docker run --runtime models`, for older docker",
                "install --runtime models --apply -- --mount src=/srv/models,dst=/models,ro",
            ),
        ),
        exits=(
            (0, "done"),
            (65, "with --check: a problem was found"),
            (
                66,
                "with --gc-timer alone: the hook is not installed; with --check: the bundle, the container or its "
                "config.json does not exist",
            ),
            (
                69,
                "a file that install did not write is in the way, or with --apply: an engine's file cannot be changed",
            ),
            (71, "a file cannot be written; a registration is written completely or not at all"),
            (78, "a bind makes no sense"),
        ),
    ),
    Command(
        "install --check",
        registering.check_command,
        "[OPTION]... [BUNDLE|FILE|CONTAINER]",
        "check the hooks of hooks.d, CDI folders and runtimes, and show which of them a container gets; its "
        "bundle's folder, config.json, id or name selects it",
        options("--check --prefix --hooks-dir --cdi-dir --format"),
        takes=("BUNDLE", "FILE", "ID"),
        examples=(
            Example("Check all hooks that podman and CRI-O find", "install --check"),
            Example(
                "Show which hooks a bundle gets, and why it does not get the others", "install --check /srv/bundle"
            ),
            Example("Show the same for a container of podman by its name", "install --check web"),
        ),
        exits=(
            (0, "no problem"),
            (65, "a hook fails or is ignored, or a source or a hook keeps containers from starting"),
            (66, "the bundle, the container or its config.json does not exist"),
        ),
    ),
    Command(
        "install --list",
        registering.list_command,
        "[OPTION]...",
        "list the registrations of the hook, with their options",
        options("--list --prefix --hooks-dir --cdi-dir --format"),
        examples=(
            Example("List all registrations", "install --list"),
            Example("List the registrations in one hooks.d folder only", "install --list --hooks-dir /etc/hooks.d"),
        ),
    ),
    Command(
        "uninstall",
        _uninstall,
        "[OPTION]...",
        "remove what install wrote",
        options(
            "--prefix --name --hooks-dir --cdi --cdi-dir --runtime --apply --gc-timer --units-dir --all --own",
            UNINSTALL,
        ),
        examples=(
            Example("Remove one of several registrations", "uninstall --prefix /usr --name models"),
            Example("Remove every trace below the prefix", "uninstall --prefix /usr --all"),
        ),
        exits=(
            (0, "done, or with --all nothing to do"),
            (66, "no such registration exists: select one by --name, --cdi or --runtime, or use --all"),
            (69, "the runtime is the default of an engine"),
            (71, "a file cannot be removed"),
        ),
    ),
    Command(
        "doctor",
        actions.doctor_command,
        "[--format text|json]",
        "check this machine for what the hook requires, and show what is missing",
        options("--format"),
        examples=(
            Example("Show what works on this machine", "doctor"),
            Example("Print the same as JSON", "doctor --format json"),
        ),
        exits=((0, "nothing required is missing"), (69, "something required is missing")),
    ),
    Command(
        "help",
        _help,
        "[TOPIC]",
        "print the help of a command or the options, the manual, or a section of it",
        (),
        takes=("TOPIC",),
        examples=(
            Example("Show the options of the hook and the fields of --mount", "help options"),
            Example("Show the help of a command, like --help", "help install"),
            Example("Show a section of the manual", "help troubleshooting"),
            Example("Show the whole manual, even if man is not installed", "help manual"),
        ),
        exits=((0, "done"), (64, "there is no such topic")),
    ),
    Command(
        "completion",
        _completion,
        "bash|zsh|fish",
        "print the completion script of a shell, for shells that do not load it automatically",
        (),
        takes=("SHELL",),
        examples=(
            Example(
                "Write the file that bash-completion loads automatically; its folder must exist",
                "completion bash >~/.local/share/bash-completion/completions/oci-bind-hook",
            ),
            Example(
                "Write the file that fish loads automatically; its folder must exist",
                "completion fish >~/.config/fish/completions/oci-bind-hook.fish",
            ),
            Example(
                "Write a file in a folder of zsh's fpath",
                "completion zsh >/usr/local/share/zsh/site-functions/_oci-bind-hook",
            ),
        ),
    ),
)
