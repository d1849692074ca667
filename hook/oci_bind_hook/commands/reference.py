# SPDX-License-Identifier: Apache-2.0
"""The meanings of options, fields of ``--mount`` and exit codes: one table each, for --help, man page and completions.

No start of a container loads this module. The program itself uses ``options.parse``, ``mount_field.FIELDS`` and the
classes of ``errors``, and a test compares each with its table here. hook/generate.py writes the tables into the man
page and the completions. Texts are Markdown, of which only `code` is used.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ..options import TAKEN_BY
from ..requests import mount_field
from ..requests.mount_field import BELOW, FLAG, ID_MAP, PATH


def first_part(text: str) -> str:
    """Returns the beginning of a text, up to the first comma, colon or semicolon, for a list."""
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
        """The possible values, the default first, if the value's name lists them in lower case."""
        return tuple(self.value.split("|")) if self.value.islower() else ()


HOOK = (
    Option(
        "--mount",
        "SPEC",
        "add a bind: `type=bind,src=/on/host,dst=/in/container[,FIELD]...`; can be repeated",
        ". See MOUNTS",
    ),
    Option("--allow-annotations", "", "also make the binds that annotations of config.json request"),
    Option("--allow-source", "DIR", "allow annotations to use sources below DIR; can be repeated"),
    Option(
        "--root",
        "DIR",
        "the folder of the state files: `/run/oci-bind-hook` by default, or for rootless containers "
        "`$XDG_RUNTIME_DIR/oci-bind-hook` or `/run/user/UID/oci-bind-hook`; other users must not be able to replace it "
        "or its parent folders",
    ),
    Option(
        "--dry-run",
        "",
        "explain what a run would do, and change nothing; without options that request binds, use those registered "
        "in config.json",
    ),
    Option(
        "--bundle",
        "DIR|FILE",
        "explain this bundle, given by its folder or its config.json; requires `--dry-run`, reads no state from "
        "stdin, and also shows what is mounted in a running container",
        ". Requires neither root nor a runtime",
    ),
    Option(
        "--format",
        "text|tree|json",
        "the output format: text, a picture of the rootfs, or JSON",
        ", which follows one of the bundled schemas (`plan`, `validation`, `records`, `gc`, "
        "`hooks-check`, `registrations`, "
        "`doctor`). Only a dry-run supports `tree`",
    ),
    Option("--all", "", "with `--format tree`, show each bind and each mount of the runtime on its own line"),
    Option("--strict", "", "refuse schema violations anywhere in config.json, not only where the hook uses it"),
    Option(
        "--allow-shared",
        "",
        "allow destinations below a mount that is shared with the host",
        ": the bind is also visible there, and outlives the container",
    ),
    Option(
        "--keep-mountpoints",
        "",
        "keep the mount points that earlier calls created",
        ": for a rootfs that containers without this hook also use",
    ),
    Option(
        "--log",
        "FILE",
        "append a log to FILE",
        ": each step with id, stage and the milliseconds since the start. A log that cannot be written, or that other "
        "users can redirect, causes a warning",
    ),
    Option("--log-format", "text|json", "the format of the log: lines of text, or JSON lines like those of runc"),
    Option("--debug", "", "also report each step on stderr"),
    Option(
        "--version",
        "",
        "print the version",
        ", the commit if known, the version of Python, and the release and features of the kernel",
    ),
    Option("--help", "", "print the usage and the commands", "; after a command, its usage, options and examples"),
)

INSTALL = (
    Option(
        "--prefix",
        "DIR",
        "the prefix for the launcher and the hooks.d file: `/usr/local` by default; with `--check` or `--list`, search "
        "for such files and wrappers only below this prefix",
    ),
    Option(
        "--hooks-dir",
        "DIR",
        "the folder for the hooks.d file, if not below the prefix; with `--check` and `--list` a folder to read, can "
        "be repeated",
    ),
    Option(
        "--name",
        "NAME",
        "the name of the registration, if there are several",
        ": `install` does not change the others, `uninstall` removes this one",
    ),
    Option(
        "--cdi",
        "NAME,...",
        "register as the CDI device `oci-bind-hook.github.io/bind=NAME`, for containers that request it, "
        "instead of in hooks.d",
        ". docker, podman, containerd and CRI-O all read CDI",
    ),
    Option(
        "--cdi-dir",
        "DIR",
        "the folder for CDI files: `/etc/cdi` by default; with `--check` and `--list` a folder to read, can be "
        "repeated",
    ),
    Option(
        "--env",
        "KEY=VALUE",
        "with `--cdi`, set an environment variable of the container, replacing the image's; can be repeated",
    ),
    Option(
        "--runtime",
        "NAME",
        "register as the runtime NAME, for containers that use it, instead of in hooks.d: a wrapper that adds the "
        "hook to config.json and calls the real runtime",
        ". Use it for docker without CDI, for every container of an engine, or, with `--annotation`, for those of "
        "containerd that have an annotation",
    ),
    Option(
        "--oci-runtime", "PATH", "with `--runtime`, the real runtime: runc by default, or crun if runc is not installed"
    ),
    Option(
        "--apply",
        "",
        "with `--runtime`, also add it to docker's daemon.json and containerd's config.toml",
        ", keeping a backup copy. Without this option, the lines to add are printed",
    ),
    Option("--engine", "NAME", "with `--apply`, change only the file of this engine: `docker` or `containerd`"),
    Option("--stages", "STAGE,...", "the stages at which the hook is called: `createRuntime,poststop` by default"),
    Option(
        "--annotation",
        "KEY=VALUE",
        "select containers with exactly this annotation; if repeated, all are required",
    ),
    Option(
        "--command",
        "REGEX",
        "select containers whose command matches this regular expression of Go; if repeated, one must match",
    ),
    Option("--has-bind-mounts", "", "select containers with bind mounts"),
    Option("--always", "", "select all containers: the default without the three options above"),
    Option(
        "--gc-timer",
        "",
        "also write a systemd timer that calls `gc` every hour",
        ", with the `--root` of the hook: a system timer if run by root, otherwise a user timer, which uses "
        "`podman unshare` if podman is installed. This option alone adds only the timer, which calls the launcher "
        "that is already installed",
    ),
    Option(
        "--units-dir",
        "DIR",
        "the folder for the timer: `/etc/systemd/system` by default, or `~/.config/systemd/user` for an ordinary user",
    ),
    Option("--check", "", "check hooks.d and CDI folders and runtimes, and change nothing"),
    Option(
        "--all",
        "",
        "remove every trace: all registrations, what `--apply` wrote, the timer, launchers, and state folders in which "
        "nothing is recorded; with `--prefix`, only those of that prefix",
    ),
    Option(
        "--own",
        "",
        "with `--all`, remove only what calls this installation of the program",
        ", not what another virtual environment or package has registered",
    ),
    Option("--list", "", "list the registrations of the hook, and change nothing"),
)

# Options of uninstall, which differ from install's options with the same names.
UNINSTALL = (
    Option("--prefix", "DIR", "the prefix of the registration: `/usr/local` by default; with `--all`, every prefix"),
    Option("--name", "NAME", "remove the registration with this name"),
    Option("--hooks-dir", "DIR", "the folder of the hooks.d file, if not below the prefix; can be repeated"),
    Option("--cdi", "NAME,...", "remove these CDI devices, instead of what is in hooks.d"),
    Option("--cdi-dir", "DIR", "the folder of CDI files: `/etc/cdi` by default; can be repeated"),
    Option("--runtime", "NAME", "remove the wrapper of this runtime, instead of what is in hooks.d"),
    Option("--apply", "", "with `--runtime`, also remove it from docker's daemon.json and containerd's config.toml"),
    Option("--gc-timer", "", "also remove the systemd timer that calls `gc`; this option alone removes only the timer"),
)

# Options of explain, which differ from the hook's options with the same names.
EXPLAIN = (
    Option(
        "--mount",
        "SPEC",
        "explain this bind, not those that config.json registers: "
        "`type=bind,src=/on/host,dst=/in/container[,FIELD]...`; can be repeated",
    ),
    Option(
        "--allow-annotations",
        "",
        "with `--allow-source`, explain the binds that annotations of config.json request, not those that it registers",
    ),
    Option("--log", "FILE", "warn if the hook could not append its log to FILE; no log is written"),
    Option("--log-format", "text|json", "as for the hook; no log is written"),
)

# Options of commands for a running container, which differ from the hook's options with the same names.
RUNNING = (
    Option("--dry-run", "", "show what would be attached, and change nothing"),
    Option("--bundle", "DIR", "select the container by its bundle, instead of by CONTAINER"),
    Option(
        "--pid",
        "PID",
        "select the container by its first process, instead of by CONTAINER; CONTAINER, `--bundle` and `--pid` "
        "together describe one that is not known on this machine",
    ),
    Option("--force", "", "attach a read-only bind even if the container has CAP_SYS_ADMIN"),
)
_DETACH = (Option("--all", "", "remove all recorded binds, including those of the container's start"),)

# Options of single commands. The hook itself also has a --format, with other values.
OF_COMMANDS = (
    Option("--format", "text|json", "the output format"),
    Option("--bundled", "", "include all schemas that the schema refers to"),
)

VALIDATE = (
    Option(
        "--format",
        "text|json|github|sarif",
        "the output format: text, JSON, annotations of GitHub Actions, or SARIF 2.1.0",
    ),
    Option("--schema", "SCHEMA", "check all documents by this schema"),
)

_BY_NAME = {option.name: option for option in (*HOOK, *INSTALL, *OF_COMMANDS)}


def options(names: str, own: tuple[Option, ...] = ()) -> tuple[Option, ...]:
    """Returns the options with these names, which are separated by spaces. Those in ``own`` come first, the last of
    several with one name.
    """
    by_name = {**_BY_NAME, **{option.name: option for option in own}}
    return tuple(by_name[name] for name in names.split())


def options_of_running(command: str) -> tuple[Option, ...]:
    """Returns the options of a command for a running container."""
    own = (*HOOK, *RUNNING, *(_DETACH if command == "detach" else ()))
    return options(" ".join(TAKEN_BY[command]), own)


# Fields of --mount and mount options: names with the same or a related meaning, and what they mean. Options with an
# "r" in front, such as rro, are not listed.
FIELD_TEXTS = (
    (
        "type",
        "`bind` (the default), or `glob`: bind every match of `src` below `dst`, or on `dst` if that contains a `*`",
    ),
    ("src source", "the source, an absolute path on the host"),
    (
        "subpath volume-subpath",
        "bind only this path inside `src`: relative, without `..`, and through no link that leads out of `src`",
    ),
    ("dst destination target", "the destination, an absolute path in the container"),
    (
        "nofollow dest-nofollow",
        "if `dst` ends in a link, bind on the link itself, not on its target; the source must then not be a folder",
    ),
    ("ro readonly rw", "read-only, or writable"),
    ("nosuid suid nodev dev noexec exec nosymfollow symfollow", "as in mount(8)"),
    (
        "noatime atime relatime norelatime strictatime nostrictatime nodiratime diratime",
        "as in mount(8). Each word of this entry and of the two above, except `readonly`, also exists with the prefix "
        "`r`, as in `rro`: it then applies to the mounts below as well",
    ),
    ("bind rbind", "without the mounts below the source, or with them (the default)"),
    (
        "bind-recursive",
        "`enabled`, `disabled`, `writable` or `readonly` (requires `ro`), as in docker: see below",
    ),
    ("bind-nonrecursive", "the same as `bind-recursive=disabled`"),
    ("bind-propagation", "`rprivate` (the default), or one of the eight words below"),
    (
        "private rprivate slave rslave shared rshared unbindable runbindable",
        "the propagation, without `bind-propagation=`",
    ),
    (
        "idmap ridmap",
        "map owners, as in `idmap=uids=0-1000-1;gids=0-1000-1`: id in the source, id on the host, number of ids; "
        "separate further ranges by `#`; without a value, use the maps of the container's user namespace",
    ),
    (
        "optional",
        "ignore a source that does not exist, or a pattern without matches, but not one that cannot be read",
    ),
    ("when-exists", "bind only if this path exists in the container"),
    ("glob", "the same as `type=glob`"),
    (
        "follow-links",
        "allow matches of a pattern that are links out of its folder, the part of `src` before the first `*`, `?` or "
        "`[`; do not use this if anyone but the administrator can write there",
    ),
)

# Exit codes, with a short and a full meaning. Each error class has its code; 0 and 130 are from cli.py. The hook itself
# never exits with 1, 126, 127 or 137: these are reported if it was not started, or was killed.
EXIT_CODES = (
    (0, "done", "success, or nothing to do"),
    (1, "not started", "crun could not start the launcher or the Python in its first line"),
    (64, "usage", "the command line is wrong, or stdin stays open"),
    (
        65,
        "invalid state or config.json",
        "the state or config.json is not strict JSON or violates its schema; `install --check` found a problem",
    ),
    (
        66,
        "something is not there",
        "the bundle, config.json, the rootfs or a source does not exist or cannot be opened",
    ),
    (69, "not possible here", "not possible at this stage, with this runtime or kernel"),
    (70, "a bug", "a bug, or a broken installation"),
    (71, "refused by the kernel", "the kernel refused a call, or something could not be undone"),
    (
        73,
        "refused by runtimes",
        "of a dry-run only: the hook has no problem, but neither runc nor crun would start the bundle",
    ),
    (74, "state file", "the state file is unusable or stays locked, or the id belongs to another live container"),
    (
        77,
        "would leave the rootfs or leak",
        "a bind would leave the rootfs, hide `/`, `/proc` or `/sys`, or leak to the host",
    ),
    (
        78,
        "a request that makes no sense",
        "a bind makes no sense; in a dry-run, also a registration of the hook without an `env`",
    ),
    (126, "not executable", "a shell could not start the launcher or its Python: not executable"),
    (127, "not found", "a shell could not start the launcher or its Python: not found"),
    (130, "interrupted", "interrupted at the terminal (SIGINT)"),
    (137, "killed", "killed (SIGKILL) by a `timeout` of hooks.d or config.json, or out of memory"),
)


def fields() -> str:
    """Returns the fields of ``--mount`` in addition to mount(8)'s options, each by its first name, for --help."""
    values = {FLAG: "", PATH: "=PATH", BELOW: "=PATH", ID_MAP: "[=MAP]"}
    names = [row.split()[0] for row, _ in FIELD_TEXTS if row not in ("type", "src source", "dst destination target")]
    forms = {name: mount_field.FIELDS[name][1] for name in names if name in mount_field.FIELDS}
    return ", ".join(name + ("=WORD" if isinstance(kind, tuple) else values[kind]) for name, kind in forms.items())
