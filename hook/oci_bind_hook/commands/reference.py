# SPDX-License-Identifier: Apache-2.0
"""What options, fields of ``--mount`` and exit codes mean: one table each, for --help, the man page and completions.

No start of a container loads it. The program works by ``options.parse``, ``mount_field.FIELDS`` and the classes of
``errors``: each has its table here, and a test that holds the two together. hook/generate.py writes the tables into the
man page and the completions. Texts are Markdown, of which only `code` is used.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ..requests import mount_field
from ..requests.mount_field import BELOW, FLAG, ID_MAP, PATH


def first_part(text: str) -> str:
    """The beginning of a text, up to the first comma, colon or semicolon: enough for a list."""
    return re.split("[:;,] ", text.replace("`", ""))[0]


class Option(NamedTuple):
    """An option and its value's name, "" for a flag. ``text`` is its help; the man page appends ``more``."""

    name: str
    value: str
    text: str
    more: str = ""

    @property
    def form(self) -> str:
        """The option with its value, as in a usage line."""
        return f"{self.name} {self.value}".strip()

    @property
    def choices(self) -> tuple[str, ...]:
        """The values that it takes, the default first, where these are few: they are in small letters."""
        return tuple(self.value.split("|")) if self.value.islower() else ()


HOOK = (
    Option(
        "--mount",
        "SPEC",
        "one more bind: `type=bind,src=/on/host,dst=/in/container[,FIELD]...`; may be repeated",
        ". See MOUNTS",
    ),
    Option("--allow-annotations", "", "take binds from annotations of config.json as well"),
    Option("--allow-source", "DIR", "the sources that annotations may name are below DIR; may be repeated"),
    Option(
        "--root",
        "DIR",
        "where the state files are: `/run/oci-bind-hook` by default, rootless `$XDG_RUNTIME_DIR/oci-bind-hook` or "
        "`/run/user/UID/oci-bind-hook`; others must not be able to change a folder above",
    ),
    Option(
        "--dry-run",
        "",
        "explain what would be done, and change nothing; without `--mount` by the options that config.json registers",
    ),
    Option(
        "--bundle",
        "DIR|FILE",
        "explain this bundle, named by its folder or by its config.json, with `--dry-run` and without a state on "
        "stdin; of a container that runs, also what is there",
        ". Neither root nor a runtime is needed",
    ),
    Option(
        "--format",
        "text|tree|json",
        "what is printed: for a person, as a picture of the rootfs, or for a program",
        " by one of the bundled schemas (`plan`, `validation`, `records`, `gc`, `hooks-check`, `registrations`, "
        "`doctor`). Only a dry-run has the picture",
    ),
    Option("--all", "", "a line for each bind and each mount of the runtime, with `--format tree`"),
    Option("--strict", "", "refuse what breaks the schema anywhere in config.json, not only where the hook uses it"),
    Option(
        "--allow-shared",
        "",
        "allow destinations below a mount that is shared with the host",
        ": the bind is seen there, too, and outlives the container",
    ),
    Option(
        "--keep-mountpoints",
        "",
        "never remove mount points of an earlier call",
        ": for a rootfs that containers without this hook use as well",
    ),
    Option(
        "--log",
        "FILE",
        "append a log to FILE",
        ": each step with id, stage and the milliseconds since the start. A log that cannot be written, or that others "
        "could lead elsewhere, is a warning",
    ),
    Option("--log-format", "text|json", "the log in lines of text, or of JSON as runc's are"),
    Option("--debug", "", "report each step on stderr as well"),
    Option(
        "--version",
        "",
        "print the version",
        ", the commit it was built from if that is known, Python and what the kernel has",
    ),
    Option("--help", "", "print the usage and the commands", "; behind a command its usage, options and examples"),
)

INSTALL = (
    Option("--prefix", "DIR", "below which the launcher and the hooks.d file are: `/usr/local` by default"),
    Option(
        "--hooks-dir",
        "DIR",
        "the folder for the hooks.d file, if not below the prefix; with `--check` and `--list` a folder to read, may "
        "be repeated",
    ),
    Option(
        "--name",
        "NAME",
        "the name of one registration of several",
        ": `install` leaves those of other names as they are, `uninstall` removes that one",
    ),
    Option(
        "--cdi",
        "NAME,...",
        "for containers that ask for the CDI device `oci-bind-hook.github.io/bind=NAME`, instead of by hooks.d",
        ". docker, podman, containerd and CRI-O all read CDI",
    ),
    Option(
        "--cdi-dir",
        "DIR",
        "the folder for CDI files: `/etc/cdi` by default; with `--check` and `--list` a folder to read, may be "
        "repeated",
    ),
    Option(
        "--env",
        "KEY=VALUE",
        "with `--cdi`, a variable that the container gets in place of the image's; may be repeated",
    ),
    Option(
        "--runtime",
        "NAME",
        "for containers that are started with the runtime NAME, instead of by hooks.d: a wrapper, which adds the hook "
        "to config.json and calls the runtime behind it",
        ". For docker before CDI, for every container of an engine, and for containerd by annotation",
    ),
    Option("--oci-runtime", "PATH", "with `--runtime`, the runtime behind it: runc by default, crun where that is not"),
    Option(
        "--apply",
        "",
        "with `--runtime`, write it into docker's daemon.json and containerd's config.toml as well",
        ", with a copy of what was there beside it. Without, what to write is printed",
    ),
    Option("--engine", "NAME", "with `--apply`, write into the file of this engine alone: `docker` or `containerd`"),
    Option("--stages", "STAGE,...", "when the hook is called: `createRuntime,poststop` by default"),
    Option(
        "--annotation",
        "KEY=VALUE",
        "for containers with just this annotation; may be repeated, and all must be there",
    ),
    Option(
        "--command",
        "REGEX",
        "for containers whose command matches, a regular expression of Go; may be repeated, and one must match",
    ),
    Option("--has-bind-mounts", "", "for containers with bind mounts"),
    Option("--always", "", "for all containers: the default without the three above"),
    Option(
        "--gc-timer",
        "",
        "write a systemd timer as well that calls `gc` each hour",
        ", with the `--root` of the hook: root's for the system, an ordinary user's for that user, by way of "
        "`podman unshare` where podman is",
    ),
    Option(
        "--units-dir",
        "DIR",
        "the folder for the timer: `/etc/systemd/system` by default, for an ordinary user `~/.config/systemd/user`",
    ),
    Option("--check", "", "explain hooks.d and CDI folders, and change nothing"),
    Option(
        "--all",
        "",
        "remove every trace: all registrations, what `--apply` wrote, the timer, launchers, and state folders in which "
        "nothing is recorded; with `--prefix` those of that prefix",
    ),
    Option("--list", "", "show what registers the hook, and change nothing"),
)

# Of commands for a container that runs.
RUNNING = (
    Option("--bundle", "DIR", "the container of this bundle"),
    Option(
        "--pid", "PID", "the container with this first process; with an id and `--bundle`, of one nobody knows here"
    ),
    Option("--force", "", "attach what is to be read-only even if the container has CAP_SYS_ADMIN"),
)

# What single commands have. The hook itself has a --format as well, with other values.
OF_COMMANDS = (
    Option("--format", "text|json", "what is printed: for a person, or for a program"),
    Option("--bundled", "", "as one document that refers to nothing outside"),
)

VALIDATE = (
    Option(
        "--format",
        "text|json|github|sarif",
        "what is printed: for a person, for a program, as annotations of GitHub Actions, or by SARIF 2.1.0",
    ),
    Option("--schema", "SCHEMA", "judge all documents by this schema"),
)

_OF_HOOK = {option.name: option for option in HOOK}
_BY_NAME = {option.name: option for option in (*HOOK, *INSTALL, *OF_COMMANDS)}


def options(names: str) -> tuple[Option, ...]:
    """The options with these names, which are separated by blanks."""
    return tuple(_BY_NAME[name] for name in names.split())


def options_of_hook(names: str) -> tuple[Option, ...]:
    """The same, as the hook itself has them."""
    return tuple(_OF_HOOK[name] for name in names.split())


# Fields of --mount, and options of mounts: names that mean the same, or go together, and what they mean. Of the options
# those with an "r" before them, as in rro, are not in it.
FIELD_TEXTS = (
    (
        "type",
        "`bind`, the default, or `glob`: all that matches `src`, below `dst` or where its `*` say",
    ),
    ("src source", "what is bound, an absolute path on the host"),
    (
        "subpath volume-subpath",
        "what is bound of `src`, a path inside it: neither absolute nor with `..`, and by no link that leads out",
    ),
    ("dst destination target", "where, an absolute path in the container"),
    (
        "nofollow dest-nofollow",
        "if the last name of `dst` is a link, bind on the link itself, which takes no folder: not where it leads to",
    ),
    ("ro readonly rw", "read-only, or not"),
    ("nosuid suid nodev dev noexec exec nosymfollow symfollow", "as mount(8) has them"),
    (
        "noatime atime relatime norelatime strictatime nostrictatime nodiratime diratime",
        "as mount(8) has them. Each word of this row and of the two above, but `readonly`, also comes with an r before "
        "it, as in `rro`: for the mounts below as well",
    ),
    ("bind rbind", "without the mounts below the source, or with them, which is the default"),
    (
        "bind-recursive",
        "`enabled`, `disabled`, `writable`, `readonly` (needs `ro`), as docker has them: see the table below",
    ),
    ("bind-nonrecursive", "the same as `bind-recursive=disabled`"),
    ("bind-propagation", "`rprivate` (the default), or one of the eight words below"),
    (
        "private rprivate slave rslave shared rshared unbindable runbindable",
        "the propagation, as a word of its own",
    ),
    (
        "idmap ridmap",
        "owners mapped, `idmap=uids=0-1000-1;gids=0-1000-1`: the id in the source, the id on the host, and how many, "
        "further runs after `#`; without a value as in the container's user namespace",
    ),
    (
        "optional",
        "a source that is not there, or a pattern that matches nothing, is no error; one that cannot be looked at is",
    ),
    ("when-exists", "only if this path exists in the container"),
    ("glob", "the same as `type=glob`"),
    (
        "follow-links",
        "matches of a pattern may be links that lead out of its folder, the part of `src` before the first `*`, `?` or "
        "`[`: only where nobody but the administrator can write there",
    ),
)

# What a process ends with, in a few words and in a sentence. Each error brings its code, and cli.py has 0 and 130. The
# hook itself never ends with 1, 126, 127 and 137: they are what is reported where it was not started, or was killed.
EXIT_CODES = (
    (0, "done", "done, or nothing to do"),
    (1, "not started", "crun could not start the launcher, or the Python in its first line"),
    (64, "usage", "the command line cannot be understood, or nobody closes stdin"),
    (
        65,
        "invalid state or config.json",
        "the state or config.json is not strict JSON, or breaks its schema; `install --check` found what does not work",
    ),
    (66, "something is not there", "the bundle, config.json, the rootfs or a source is not there"),
    (69, "not possible here", "not possible at this stage, with this runtime or kernel"),
    (70, "a bug", "a bug, or a broken installation"),
    (71, "refused by the kernel", "the kernel refused, or something could not be undone"),
    (
        73,
        "refused by runtimes",
        "of a dry-run only: the hook has no problem, but neither runc nor crun would start the bundle",
    ),
    (74, "state file", "the state file cannot be used or stays locked, or the id belongs to another live container"),
    (
        77,
        "would leave the rootfs or leak",
        "it would leave the rootfs, hide `/`, `/proc` or `/sys`, or leak to the host",
    ),
    (
        78,
        "a request that makes no sense",
        "a bind that makes no sense; in a dry-run, also a registration of the hook without an `env`",
    ),
    (126, "not executable", "a shell could not start the launcher, or its Python: it is not executable"),
    (127, "not found", "a shell could not start the launcher, or its Python: it is not there"),
    (130, "interrupted", "interrupted at the terminal (SIGINT)"),
    (137, "killed", "killed (SIGKILL): by a `timeout` of hooks.d or config.json, or for lack of memory"),
)


def fields() -> str:
    """The fields of ``--mount`` beyond mount(8)'s options, each by its first name, for --help."""
    values = {FLAG: "", PATH: "=PATH", BELOW: "=DIR", ID_MAP: "[=MAP]"}
    names = [row.split()[0] for row, _ in FIELD_TEXTS if row not in ("type", "src source", "dst destination target")]
    forms = {name: mount_field.FIELDS[name][1] for name in names if name in mount_field.FIELDS}
    return ", ".join(name + ("=WORD" if isinstance(kind, tuple) else values[kind]) for name, kind in forms.items())
