# SPDX-License-Identifier: Apache-2.0
"""The commands by name. No start of a container loads any of them."""

from __future__ import annotations

import os

from ..errors import UsageError
from ..options import unknown
from . import actions, registering
from .command_line import Command, Example, Given
from .output import answer
from .reference import VALIDATE, Option, options, options_of_hook, options_of_running

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..log import Log


def run(argv: list[str], log: Log) -> int:
    """Runs a command and returns its exit code. Raises HookError."""
    commands = {tuple(command.name.split()): command for command in COMMANDS}
    first, *words = argv
    own = words[: words.index("--") if "--" in words else None]
    # An option may make it another command, such as "install --check".
    name = next(((first, word) for word in own if (first, word) in commands), (first,))
    command = commands.get(name)
    # What stands behind -- may be the name of a file; but of an option of the hook somebody asks what it means.
    asked = argv if command is None or command.only_behind else own
    if not {"--help", "-h"}.isdisjoint(asked):
        from . import help

        answer(help.of_command(command, COMMANDS) if command else help.of_words(argv, COMMANDS))
        return os.EX_OK
    if "--version" in asked:
        from .engines import doctor

        answer(doctor.version())
        return os.EX_OK
    if command is None:
        raise unknown(first, tuple(known for known, *_ in commands))
    if command.run is None:
        from .running import run_in

        return run_in(argv, log) or os.EX_OK
    return command.run(Given(command, words), log)


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
        "explain what the hook does for a bundle, as --dry-run does: by folder or config.json, or by id or name of a "
        "container; of the current folder if none is named",
        options_of_hook(
            "--mount --allow-annotations --allow-source --root --format --all --strict --allow-shared "
            "--keep-mountpoints --log --log-format --debug"
        ),
        takes=("BUNDLE", "FILE", "ID", "STAGE"),
        examples=(
            Example("The bundle in the current folder, as a picture", "explain --format tree"),
            Example(
                "What a bind would do to a bundle that does not register the hook",
                "explain /srv/bundle --mount src=/srv/models,dst=/models,ro",
            ),
            Example("A container of podman or docker, by its name", "explain web"),
        ),
        exits=(
            (0, "a real run would succeed"),
            (73, "neither runc nor crun would start the bundle"),
            (69, "or another code: that of the real run, which would fail so"),
        ),
    ),
    Command(
        "attach",
        None,
        "CONTAINER --mount SPEC... [OPTION]...",
        "bind into a container that runs: by its id, the beginning of one, or name, by its bundle or first process",
        options_of_running("attach"),
        takes=("ID",),
        examples=(
            Example("A folder for a container by its name", "attach web --mount type=bind,src=/srv/db,dst=/data,ro"),
            Example("What that would do", "attach web --mount src=/srv/db,dst=/data --dry-run --format tree"),
        ),
        exits=(
            (0, "done, or there already"),
            (66, "there is no such container, or a source is not there"),
            (69, "the container cannot be entered from here, or has another root"),
            (71, "the kernel refused"),
            (77, "it would leave the rootfs or leak, or `ro` would bind nobody"),
            (78, "a bind that makes no sense"),
        ),
    ),
    Command(
        "detach",
        None,
        "CONTAINER DESTINATION|--all [OPTION]...",
        "take a bind out of a container that runs, or all that are recorded of it",
        options_of_running("detach"),
        takes=("ID",),
        examples=(
            Example("One bind, by where it is", "detach web /data"),
            Example("All of a container, by its first process", "detach --pid 4242 --all"),
        ),
        exits=(
            (0, "done"),
            (66, "nothing is recorded there"),
            (69, "the container cannot be entered from here, or has another root"),
            (71, "something is mounted on it, or the kernel refused: it stays, and stays recorded"),
        ),
    ),
    Command(
        "list",
        actions.list_command,
        "[--root DIR] [--format text|json]",
        "show the records of all containers, whether they still hold, and what to do",
        options("--root --format --debug"),
        hint="show ID shows one container",
        examples=(
            Example("All containers, and what to do about those that need it", "list"),
            Example(
                "Those of a hook that is registered with another state folder", "list --root /var/lib/oci-bind-hook"
            ),
        ),
        exits=((0, "done"), (74, "a state file cannot be read")),
    ),
    Command(
        "show",
        actions.show_command,
        "ID [--root DIR] [--format text|json]",
        "show what is recorded of one container: its binds, what was made for them, and whether that is still so",
        options("--root --format --debug"),
        takes=("ID",),
        examples=(
            Example("One container, by the beginning of its id", "show 4f1c"),
            Example("The same for a program", "show 4f1c --format json"),
        ),
        exits=(
            (0, "done"),
            (64, "the beginning of an id is that of several, which are listed"),
            (66, "nothing is recorded for such a container"),
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
            Example("What would be undone", "gc --dry-run"),
            Example("All that dead containers left", "gc"),
            Example("What one container left, by the beginning of its id", "gc 4f1c"),
        ),
        exits=(
            (0, "success, or nothing to do"),
            (69, "a container that is named lives"),
            (71, "something could not be undone, and stays recorded"),
            (74, "a state file cannot be read, and stays"),
        ),
    ),
    Command(
        "validate",
        actions.validate_command,
        "[OPTION]... BUNDLE|FILE|-...",
        "print where a config.json or a state breaks the schemas, used by the hook or not",
        VALIDATE,
        takes=("BUNDLE", "FILE", "-"),
        hint="for a file of that name, put -- before it",
        examples=(
            Example("All bundles of a folder", "validate /srv/containers/*"),
            Example("The same as annotations of GitHub Actions", "validate --format github /srv/containers/*"),
            Example("A plan that a program has kept", "validate --schema plan plan.json"),
        ),
        exits=((0, "all are valid"), (65, "one is not"), (66, "one cannot be read, and the others are valid")),
    ),
    Command(
        "schema",
        actions.schema_command,
        "[SCHEMA] [--bundled]",
        "list the JSON schemas of what the hook reads and prints, or print one",
        options("--bundled"),
        takes=("SCHEMA",),
        examples=(
            Example("The schemas, each with a line on what it is for", "schema"),
            Example("One for a validator or an editor, without references to others", "schema state-file --bundled"),
        ),
    ),
    Command(
        "install",
        registering.install_command,
        "[--prefix DIR] [WHERE AND WHEN]... [-- OPTION...]",
        "register the hook with engines: in hooks.d for podman and CRI-O, in CDI for all, or as a runtime for docker",
        options(
            "--prefix --name --hooks-dir --stages --annotation --command --has-bind-mounts --always --cdi --cdi-dir "
            "--env --runtime --oci-runtime --apply --engine --gc-timer --units-dir"
        ),
        takes=("OPTION",),
        only_behind=True,
        hint="put -- before the options of the hook",
        examples=(
            Example(
                "A folder for every container of podman and CRI-O",
                "install --prefix /usr -- --mount src=/srv/models,dst=/models,ro",
            ),
            Example(
                "The same for containers that ask for it, under docker, podman and containerd",
                "install --cdi models -- --mount src=/srv/models,dst=/models,ro",
            ),
            Example(
                "For docker before 25, as a runtime: docker run --runtime models",
                "install --runtime models --apply -- --mount src=/srv/models,dst=/models,ro",
            ),
        ),
        exits=((0, "done"), (71, "a file cannot be written: all are as before"), (78, "a bind makes no sense")),
    ),
    Command(
        "install --check",
        registering.check_command,
        "[--prefix DIR] [WHERE]... [BUNDLE]",
        "show the hooks in hooks.d, in CDI folders and of runtimes, their problems, and which of them a bundle gets",
        options("--check --prefix --hooks-dir --cdi-dir --format"),
        takes=("BUNDLE",),
        examples=(
            Example("All hooks that podman and CRI-O would find", "install --check"),
            Example("Which of them a bundle gets, and why not the others", "install --check /srv/bundle"),
        ),
        exits=((0, "nothing is wrong"), (65, "a hook fails, is passed over, or keeps containers from starting")),
    ),
    Command(
        "install --list",
        registering.list_command,
        "[--prefix DIR] [WHERE]...",
        "show the registrations of the hook, with its arguments",
        options("--list --prefix --hooks-dir --cdi-dir --format"),
        examples=(
            Example("What registers the hook", "install --list"),
            Example(
                "Also in a folder that only the engine's hooks_dir names", "install --list --hooks-dir /etc/hooks.d"
            ),
        ),
    ),
    Command(
        "uninstall",
        registering.uninstall_command,
        "[--prefix DIR] [WHERE]...",
        "remove what install wrote",
        options("--prefix --name --hooks-dir --cdi --cdi-dir --runtime --apply --all --own --units-dir"),
        examples=(
            Example("One registration of several", "uninstall --prefix /usr --name models"),
            Example("All that call the launcher below the prefix", "uninstall --prefix /usr --all"),
        ),
        exits=(
            (0, "done; with --all, or nothing to do"),
            (66, "there is no such registration: name it by --name, --cdi or --runtime, or remove all by --all"),
            (69, "an engine needs it: as the default runtime"),
            (71, "a file cannot be removed"),
        ),
    ),
    Command(
        "doctor",
        actions.doctor_command,
        "[--format text|json]",
        "show which features the hook uses this machine has, and which it lacks",
        options("--format"),
        examples=(
            Example("What works here", "doctor"),
            Example("The same for a program", "doctor --format json"),
        ),
        exits=((0, "all that is needed is there"), (69, "something that is needed is missing")),
    ),
    Command(
        "help",
        _help,
        "[TOPIC]",
        "print the help of a command or of options, or the manual or a section of it",
        (),
        takes=("TOPIC",),
        examples=(
            Example("The options of the hook and of --mount", "help options"),
            Example("A command, as by its --help", "help install"),
            Example("A section of the manual", "help troubleshooting"),
            Example("All of it, where man is not installed", "help manual"),
        ),
        exits=((0, "done"), (64, "there is no such topic")),
    ),
    Command(
        "completion",
        _completion,
        "bash|zsh|fish",
        "print the completion of a shell, for where none is loaded by itself",
        (),
        takes=("SHELL",),
        examples=(
            Example(
                "Where bash-completion looks by itself",
                "completion bash >~/.local/share/bash-completion/completions/oci-bind-hook",
            ),
            Example("Where fish looks by itself", "completion fish >~/.config/fish/completions/oci-bind-hook.fish"),
            Example("In a folder of zsh's fpath", "completion zsh >/usr/local/share/zsh/site-functions/_oci-bind-hook"),
        ),
    ),
)
