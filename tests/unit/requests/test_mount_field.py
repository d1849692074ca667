# SPDX-License-Identifier: Apache-2.0
"""``--mount``: docker's words and Go's quoting, and one sentence with the right exit code for what is wrong."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from helpers import support, work
from oci_bind_hook.errors import HookError, UsageError
from oci_bind_hook.requests import mount_field
from oci_bind_hook.requests.request import DEFAULT_PROPAGATION, Recorded, Request
from oci_bind_hook.requests.request import WORDS as ALL_WORDS

TRUE = ("1", "t", "T", "true", "TRUE", "True")
FALSE = ("0", "f", "F", "false", "FALSE", "False")
PROPAGATIONS = ("private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable")
# Option of runtime-spec -> what it comes out as.
WORDS = {
    **{word: word for word in ("ro", "rw", "nosuid", "suid", "nodev", "dev", "noexec", "exec", "nodiratime")},
    **{word: word for word in ("diratime", "nosymfollow", "symfollow", "noatime", "relatime", "strictatime")},
    **dict.fromkeys(("atime", "norelatime", "nostrictatime"), "relatime"),
}


def parse_mount(text: str, number: int) -> Request:
    return mount_field.parse_mount(text, f"--mount {number}", f"--mount {number}")


GOOD = {
    "least": ("src=/a,dst=/b", ["rbind", "rprivate"]),
    "type": ("type=bind,src=/a,dst=/b", ["rbind", "rprivate"]),
    "source, destination": ("source=/a,destination=/b", ["rbind", "rprivate"]),
    "target": ("src=/a,target=/b", ["rbind", "rprivate"]),
    "any order": ("dst=/b,ro,type=bind,src=/a", ["rbind", "ro", "rprivate"]),
    "ro": ("src=/a,dst=/b,ro", ["rbind", "ro", "rprivate"]),
    "readonly": ("src=/a,dst=/b,readonly", ["rbind", "ro", "rprivate"]),
    "bind": ("src=/a,dst=/b,bind", ["bind", "rprivate"]),
    "rbind": ("src=/a,dst=/b,rbind", ["rbind", "rprivate"]),
    "ro and rw=false": ("src=/a,dst=/b,rw,ro=false", ["rbind", "rw", "rprivate"]),
    "one word twice": ("src=/a,dst=/b,nosuid,nosuid", ["rbind", "nosuid", "rprivate"]),
    "ro and rro": ("src=/a,dst=/b,ro,rro", ["rbind", "rro", "rprivate"]),
    "words without effect": ("src=/a,dst=/b,defaults,silent,loud", ["rbind", "rprivate"]),
    "many words": (
        "src=/a,dst=/b,noexec,rslave,rnosuid,noatime,nodiratime,ro",
        ["rbind", "rnosuid", "noatime", "nodiratime", "noexec", "ro", "rslave"],
    ),
    # strconv.ParseBool
    **{
        f"{key}={value}": (f"src=/a,dst=/b,{key}={value}", ["rbind", "ro", "rprivate"])
        for key in ("ro", "readonly")
        for value in TRUE
    },
    **{f"ro={value}": (f"src=/a,dst=/b,ro={value}", ["rbind", "rprivate"]) for value in FALSE},
    **{
        f"bind-nonrecursive={value}": (f"src=/a,dst=/b,bind-nonrecursive={value}", ["bind", "rprivate"])
        for value in TRUE
    },
    **{
        f"bind-nonrecursive={value}": (f"src=/a,dst=/b,bind-nonrecursive={value}", ["rbind", "rprivate"])
        for value in FALSE
    },
    "bind-nonrecursive": ("src=/a,dst=/b,bind-nonrecursive", ["bind", "rprivate"]),
    "bind-nonrecursive and bind": ("src=/a,dst=/b,bind-nonrecursive,bind", ["bind", "rprivate"]),
    "bind-recursive=enabled": ("src=/a,dst=/b,bind-recursive=enabled", ["rbind", "rprivate"]),
    "bind-recursive=disabled": ("src=/a,dst=/b,bind-recursive=disabled", ["bind", "rprivate"]),
    "bind-recursive=writable": ("src=/a,dst=/b,bind-recursive=writable,ro", ["rbind", "ro", "rprivate"]),
    "bind-recursive=writable alone": ("src=/a,dst=/b,bind-recursive=writable", ["rbind", "rprivate"]),
    "bind-recursive=enabled, ro": ("src=/a,dst=/b,ro,bind-recursive=enabled", ["rbind", "rro", "rprivate"]),
    "bind-recursive=enabled, rw": ("src=/a,dst=/b,bind-recursive=enabled,rw", ["rbind", "rw", "rprivate"]),
    "bind-recursive=enabled, slave": ("src=/a,dst=/b,bind-recursive=enabled,ro,rslave", ["rbind", "rro", "rslave"]),
    "bind-recursive=disabled, ro": ("src=/a,dst=/b,readonly,bind-recursive=disabled", ["bind", "ro", "rprivate"]),
    "bind-nonrecursive=0, ro": ("src=/a,dst=/b,ro,bind-nonrecursive=0", ["rbind", "ro", "rprivate"]),
    "ro alone": ("src=/a,dst=/b,ro", ["rbind", "ro", "rprivate"]),
    "bind-recursive=readonly": ("src=/a,dst=/b,bind-recursive=readonly,ro", ["rbind", "rro", "rprivate"]),
    **{word: (f"src=/a,dst=/b,{word}", ["rbind", says, "rprivate"]) for word, says in WORDS.items()},
    **{f"r{word}": (f"src=/a,dst=/b,r{word}", ["rbind", f"r{says}", "rprivate"]) for word, says in WORDS.items()},
    **{word: (f"src=/a,dst=/b,{word}", ["rbind", word]) for word in PROPAGATIONS},
    **{
        f"bind-propagation={word}": (f"src=/a,dst=/b,bind-propagation={word}", ["rbind", word]) for word in PROPAGATIONS
    },
}


@pytest.mark.parametrize(("text", "options"), GOOD.values(), ids=GOOD)
def test_good_argument(text: str, options: list[str]) -> None:
    request = parse_mount(text, 7)
    assert request.as_mount() == {"destination": "/b", "source": "/a", "type": "bind", "options": options}
    assert (request.origin, request.place, request.is_from_mounts) == ("--mount 7", "--mount 7", False)
    assert (request.warnings, request.idmap, request.is_bind) == ([], None, True)
    assert (request.optional, request.when_exists, request.is_glob) == (False, None, False)


@pytest.mark.parametrize("field", ["subpath", "volume-subpath"])
@pytest.mark.parametrize("path", ["a", "a/b", "a/", ".", "./a", "...", "a..", "..b/c", "a=b", "ä", "a//b"])
def test_a_part_of_the_source(field: str, path: str) -> None:
    request = parse_mount(f"src=/a,dst=/b,{field}={path}", 1)
    assert (request.source, request.subpath) == ("/a", path)
    expected = {"destination": "/b", "source": "/a", "type": "bind", "options": ["rbind", "rprivate"]}
    assert request.as_mount() == {**expected, "subpath": path}


@pytest.mark.parametrize("field", ["nofollow", "dest-nofollow=true"])
def test_on_a_link_itself(field: str) -> None:
    request = parse_mount(f"src=/a,dst=/b,{field},ro", 1)
    assert request.nofollow
    assert request.options == ("rbind", "ro", "nofollow", "rprivate")
    assert not parse_mount("src=/a,dst=/b,nofollow=false", 1).nofollow


MEMBERS: dict[str, tuple[str, dict[str, object]]] = {
    "optional": ("optional", {"optional": True}),
    "optional=1": ("optional=1", {"optional": True}),
    "optional=false": ("optional=false", {"optional": False}),
    "glob": ("glob", {"is_glob": True}),
    "glob=F": ("glob=F", {"is_glob": False}),
    "type=glob": ("type=glob", {"is_glob": True, "type": "bind"}),
    "type=bind,glob": ("type=bind,glob", {"is_glob": True, "type": "bind"}),
    "when-exists": ("when-exists=/etc/../x", {"when_exists": "/etc/../x"}),
    "follow-links": ("glob,follow-links", {"is_glob": True, "follow_links": True}),
    "follow-links=0": ("follow-links=0", {"is_glob": False, "follow_links": False}),
    "all": ("when-exists=/x,glob,optional", {"when_exists": "/x", "is_glob": True, "optional": True}),
}


@pytest.mark.parametrize(("text", "members"), MEMBERS.values(), ids=MEMBERS)
def test_what_is_no_option_of_a_mount(text: str, members: dict[str, object]) -> None:
    request = parse_mount(f"src=/a,dst=/b,{text}", 1)
    assert {name: getattr(request, name) for name in members} == members
    assert request.options == ("rbind", "rprivate")


IDMAPS: dict[str, tuple[str, tuple[object, object, bool]]] = {
    "idmap": ("idmap", (None, None, False)),
    "ridmap": ("ridmap", (None, None, True)),
    "one": ("idmap=uids=0-1000-1;gids=0-2000-65536", (((0, 1000, 1),), ((0, 2000, 65536),), False)),
    "gids first": ("idmap=gids=0-2-3;uids=4-5-6", (((4, 5, 6),), ((0, 2, 3),), False)),
    "several": (
        "ridmap=uids=0-1000-1#1-0-1#2-5-9;gids=0-0-1#1-1-1",
        (((0, 1000, 1), (1, 0, 1), (2, 5, 9)), ((0, 0, 1), (1, 1, 1)), True),
    ),
    "the largest": (
        "idmap=uids=4294967295-0-1;gids=0-0-4294967295",
        (((2**32 - 1, 0, 1),), ((0, 0, 2**32 - 1),), False),
    ),
}


@pytest.mark.parametrize(("text", "idmap"), IDMAPS.values(), ids=IDMAPS)
def test_id_map(text: str, idmap: tuple[object, object, bool]) -> None:
    request = parse_mount(f"src=/a,dst=/b,{text}", 1)
    assert request.idmap is not None
    assert (request.idmap.uids, request.idmap.gids, request.idmap.recursive) == idmap
    assert request.options == ("rbind", "ridmap" if idmap[2] else "idmap", "rprivate")


PATHS = {
    "equals sign": ("src=/a=b,dst=/c=d", "/a=b", "/c=d"),
    "nofollow, a folder for matches": ("type=glob,src=/a*,dst=/b/,nofollow", "/a*", "/b/"),
    "nofollow, a folder with a star": ("type=glob,src=/a*,dst=/b/[*]/,nofollow", "/a*", "/b/[*]/"),
    "nofollow, two dots": ("src=/a,dst=/b/..,nofollow", "/a", "/b/.."),
    "blanks are kept": ("src=/a b ,dst=/c", "/a b ", "/c"),
    "comma in quotes": ('"src=/a,b",dst=/c', "/a,b", "/c"),
    "quote in quotes": ('"src=/a""b",dst=/c', '/a"b', "/c"),
    "links and dots are kept": ("src=/a/../b,dst=/c/./..//d/", "/a/../b", "/c/./..//d/"),
    "not ASCII": ("src=/ä,dst=/→", "/ä", "/→"),
    "newline": ("src=/a\nb,dst=/c", "/a\nb", "/c"),
}


@pytest.mark.parametrize(("text", "source", "destination"), PATHS.values(), ids=PATHS)
def test_path_is_taken_as_it_is(text: str, source: str, destination: str) -> None:
    request = parse_mount(text, 1)
    assert (request.source, request.destination) == (source, destination)


HINT = " (for example type=bind,src=/on/host,dst=/in/container)"
FORM = " (for example type=bind,src=/a,dst=/b)"
KEYS = f"one of {', '.join(mount_field.FIELDS)}, or an option of runtime-spec"
RUN = " (id in the source, id on the host, number of ids)"

MALFORMED = {
    "empty": ("", f'the field "" has no name{FORM}'),
    "empty field": ("src=/a,,dst=/b", f'the field "" has no name{FORM}'),
    "comma at the end": ("src=/a,dst=/b,", f'the field "" has no name{FORM}'),
    "no key": ("src=/a,dst=/b,=x", f'the field "=x" has no name{FORM}'),
    "no source": ("dst=/b", f"the source is missing{HINT}"),
    "no destination": ("src=/a", f"the destination is missing{HINT}"),
    "only a type": ("type=bind", f"the source is missing{HINT}"),
    "source empty": ("src=,dst=/b", '"src" requires a value (src=...)'),
    "source bare": ("src,dst=/b", '"src" requires a value (src=...)'),
    "destination empty": ("src=/a,target=", '"target" requires a value (target=...)'),
    "type empty": ("type=,src=/a,dst=/b", '"type" requires a value (type=...)'),
    "propagation empty": (
        "src=/a,dst=/b,bind-propagation=",
        '"bind-propagation" requires a value (bind-propagation=...)',
    ),
    **{
        f"{key}={value}": (f"src=/a,dst=/b,{key}={value}", f'"{key}" must be true or false, not "{value}"')
        for key in (name for name, (_, kind, _) in mount_field.FIELDS.items() if kind == mount_field.FLAG)
        for value in ("", "yes", "tRUE", "2", " 1")
    },
    **{
        f"{word}=": (f"src=/a,dst=/b,{word}={value}", f'"{word}" takes no value')
        for word, value in (
            ("rw", "true"),
            ("nosuid", ""),
            ("rro", "1"),
            ("rslave", "0"),
            ("bind", "1"),
            ("atime", "x"),
        )
    },
    "bind-recursive empty": ("src=/a,dst=/b,bind-recursive=", '"bind-recursive" requires a value (bind-recursive=...)'),
    "bind-recursive by two names": (
        "src=/a,dst=/b,bind-recursive=disabled,bind-nonrecursive",
        'the bind-recursive is set twice, the second time by "bind-nonrecursive"',
    ),
    "when-exists empty": ("src=/a,dst=/b,when-exists", '"when-exists" requires a value (when-exists=...)'),
    "subpath empty": ("src=/a,dst=/b,subpath=", '"subpath" requires a value (subpath=...)'),
    "subpath bare": ("src=/a,dst=/b,volume-subpath", '"volume-subpath" requires a value (volume-subpath=...)'),
    "subpath by two names": (
        "src=/a,dst=/b,volume-subpath=a,subpath=a",
        'the subpath is set twice, the second time by "subpath"',
    ),
    "nofollow by two names": (
        "src=/a,dst=/b,nofollow,dest-nofollow",
        'the nofollow is set twice, the second time by "dest-nofollow"',
    ),
    "optional twice": ("src=/a,dst=/b,optional,optional", 'the optional is set twice, the second time by "optional"'),
    "idmap twice": ("src=/a,dst=/b,idmap,ridmap", 'the idmap is set twice, the second time by "ridmap"'),
    "idmap empty": ("src=/a,dst=/b,idmap=", '"idmap" requires a value (idmap=...)'),
    "idmap, no kind": (
        "src=/a,dst=/b,idmap=0-0-1",
        'idmap: "0-0-1" is unexpected: an id map takes uids=... once and gids=... once',
    ),
    "idmap, other kind": (
        "src=/a,dst=/b,idmap=pids=0-0-1",
        'idmap: "pids=0-0-1" is unexpected: an id map takes uids=... once and gids=... once',
    ),
    "idmap, one kind twice": (
        "src=/a,dst=/b,ridmap=uids=0-0-1;uids=1-1-1",
        'ridmap: "uids=1-1-1" is unexpected: an id map takes uids=... once and gids=... once',
    ),
    **{
        f"idmap, run {run}": (
            f"src=/a,dst=/b,idmap=uids=0-0-1;gids={run}",
            f'idmap: "{run}" does not have the form 0-1000-1{RUN}',
        )
        for run in (
            "",
            "0",
            "0-0",
            "0-0-1-1",
            "a-0-1",
            "0--1-1",
            "0-0-",
            "0-0-+1",
            "0:0:1",
            "@0-0-1",
            "0-0-1 ",
            "0-0-²",
        )
    },
    "idmap, a run missing": (
        "src=/a,dst=/b,idmap=uids=0-0-1#;gids=0-0-1",
        f'idmap: "" does not have the form 0-1000-1{RUN}',
    ),
    "source twice": ("src=/a,src=/a,dst=/b", 'the source is set twice, the second time by "src"'),
    "source by two names": ("src=/a,source=/c,dst=/b", 'the source is set twice, the second time by "source"'),
    "destination by two names": (
        "src=/a,dst=/b,target=/c",
        'the destination is set twice, the second time by "target"',
    ),
    "ro by two names": ("src=/a,dst=/b,ro,readonly", 'the ro is set twice, the second time by "readonly"'),
    "type twice": ("type=bind,type=bind,src=/a,dst=/b", 'the type is set twice, the second time by "type"'),
    "quote inside": ('src=/a"b,dst=/c', 'the field src=/a"b contains a quote (quote the whole field: "a,b")'),
    "quote not closed": ('"src=/a,dst=/b', "the closing quote is missing"),
    "text after a quote": ('"src=/a"x,dst=/b', "the comma is missing before x,dst=/b"),
    # Malformed counts before not known, wherever it stands.
    "type not known, source bare": ("type=1,ro,source,dst=/d", '"source" requires a value (source=...)'),
    "type not known, a flag of no kind": ("type=1,src=/a,dst=/d,ro=x", '"ro" must be true or false, not "x"'),
}

_SUPERBLOCK = "applies to a whole file system and has no effect on a bind"
REFUSED = {
    "remount": "changes an existing mount, but a bind creates a new one",
    **dict.fromkeys(("sync", "async", "dirsync", "mand", "nomand", "lazytime", "nolazytime"), _SUPERBLOCK),
    **dict.fromkeys(("iversion", "noiversion", "acl", "noacl", "tmpcopyup"), _SUPERBLOCK),
    **dict.fromkeys(
        ("z", "Z", "relabel=shared", "relabel=private"), "relabels the source for SELinux; only the engine can do that"
    ),
    "U": "changes the owner of the source; only the engine can do that",
    "copy-symlink": "copies a link and mounts nothing; only the runtime can do that",
    "src-nofollow": "binds a link itself; only the runtime can do that",
    "U=true": "changes the owner of the source; only the engine can do that",
}

QUOTE = "if it belongs to the path before it, quote both: "
SENSELESS = {
    "unknown key": ("src=/a,dst=/b,ro,x=y", f'"x" is not known ({KEYS})'),
    "unknown key after a path": ("src=/a,dst=/b,x=y", f'"x" is not known ({KEYS}; {QUOTE}"dst=/b,x=y")'),
    "comma in a path": (
        "src=/a,share=b,dst=/c",
        f'"share" is not known (use "shared", or {QUOTE}"src=/a,share=b")',
    ),
    "variable": (
        "src=$H/x,dst=/b",
        'the source "$H/x" is not an absolute path (variables and ~ are not expanded)',
    ),
    "home": ("src=~/x,dst=/b", 'the source "~/x" is not an absolute path (variables and ~ are not expanded)'),
    "near key": ("src=/a,dts=/b", '"dts" is not known (did you mean "dst"?)'),
    "nearer key": ("src=/a,dst=/b,read-only", '"read-only" is not known (did you mean "readonly"?)'),
    "key in capitals": ("src=/a,dst=/b,READONLY", f'"READONLY" is not known ({KEYS}; {QUOTE}"dst=/b,READONLY")'),
    "key with a blank": ("src=/a, dst=/b", '" dst" is not known (did you mean "dst"?)'),
    "near option": ("src=/a,dst=/b,nosiud", '"nosiud" is not known (did you mean "nosuid"?)'),
    "near option with a digit": ("src=/a,dst=/b,r0", '"r0" is not known (did you mean "ro"?)'),
    "near option with a value": ("src=/a,dst=/b,ro,rnoexe=1", '"rnoexe" is not known (did you mean "rnoexec"?)'),
    "option of a file system": ("src=/a,dst=/b,ro,size=10m", f'"size" is not known ({KEYS})'),
    "quote in a word": ('src=/a,dst=/b,ro,"x""y"', f'"x"y" is not known ({KEYS})'),
    "source and destination relative": ("dst=d,src=rel", 'the source "rel" is not an absolute path'),
    **{
        f"subpath {path}": (f"src=/a,dst=/b,subpath={path}", f'the subpath "{path}" {problem}')
        for path, problem in {
            "/": "is absolute (use a path relative to the source)",
            "/a": "is absolute (use a path relative to the source)",
            **dict.fromkeys(("..", "../a", "a/..", "a/../b", "a//../"), 'contains ".." (use the path without "..")'),
        }.items()
    },
    "subpath with a NUL": ("src=/a,dst=/b,subpath=a\0", '"subpath" contains a NUL byte'),
    "subpath of a pattern": (
        "type=glob,src=/a/*,dst=/b,subpath=a",
        '"subpath" cannot be combined with a pattern as source',
    ),
    "comma in a subpath": (
        "src=/a,dst=/c,subpath=a,share=b",
        f'"share" is not known (use "shared", or {QUOTE}"subpath=a,share=b")',
    ),
    **{
        f"nofollow on {path}": (
            f"src=/a,dst={path},nofollow",
            f'with "nofollow", the destination "{path}" must end with a name (a trailing slash follows the link)',
        )
        for path in ("/", "/b/", "/b/.", "/.")
    },
    "long destination": (
        f"src=/a,dst=/{'a/../' * 819}",
        "the destination has 4096 characters, and the limit is 4095",
    ),
    "long when-exists": (
        f"src=/a,dst=/{'b' * 4094},when-exists=/{'b' * 4096}",
        "the when-exists has 4097 characters, and the limit is 4095",
    ),
    "nofollow on what a star makes": (
        "type=glob,src=/a/*,dst=/b/*/,nofollow",
        'with "nofollow", the destination "/b/*/" must end with a name (a trailing slash follows the link)',
    ),
    "links without a pattern": (
        "src=/a,dst=/b,follow-links",
        '"follow-links" requires a pattern (links of a plain source are always followed)',
    ),
    "other type": ("type=tmpfs,src=/a,dst=/b", 'type "tmpfs" is not known (one of bind, glob)'),
    "near type": ("type=blob,src=/a,dst=/b", 'type "blob" is not known (did you mean "glob"?)'),
    "rw and ro": ("src=/a,dst=/b,rw,ro", '"rw" contradicts "ro"'),
    "rro and rw": ("src=/a,dst=/b,rro,rw", '"rw" contradicts "rro"'),
    "nosuid and suid": ("src=/a,dst=/b,nosuid,suid", '"suid" contradicts "nosuid"'),
    "exec and rnoexec": ("src=/a,dst=/b,exec,rnoexec", '"rnoexec" contradicts "exec"'),
    "noatime and relatime": ("src=/a,dst=/b,noatime,relatime", '"relatime" contradicts "noatime"'),
    "bind and rbind": ("src=/a,dst=/b,bind,rbind", '"rbind" contradicts "bind"'),
    "bind and bind-recursive": ("src=/a,dst=/b,bind,bind-recursive=enabled", '"bind" contradicts "rbind"'),
    "rbind and bind-nonrecursive": ("src=/a,dst=/b,rbind,bind-nonrecursive", '"rbind" contradicts "bind"'),
    "two propagations": ("src=/a,dst=/b,slave,rslave", '"rslave" contradicts "slave"'),
    "two propagations, two spellings": (
        "src=/a,dst=/b,bind-propagation=shared,private",
        '"private" contradicts "shared"',
    ),
    "readonly and writable": (
        "src=/a,dst=/b,bind-recursive=readonly,rw",
        "bind-recursive=readonly also requires ro",
    ),
    "bind-recursive=readonly, ro=false": (
        "src=/a,dst=/b,bind-recursive=readonly,ro=0",
        "bind-recursive=readonly also requires ro",
    ),
    "bind-recursive=readonly, rw and ro": (
        "src=/a,dst=/b,bind-recursive=readonly,ro,rw",
        '"rw" contradicts "rro"',
    ),
    **{
        f"bind-recursive=readonly, {word}": (
            f"src=/a,dst=/b,bind-recursive=readonly,ro,{word}",
            "bind-recursive=readonly requires rprivate "
            "(mounts that propagate later would be writable; to allow that, use rro instead)",
        )
        for word in ("private", "rslave", "bind-propagation=rshared")
    },
    "bind-recursive=writable and rro": (
        "src=/a,dst=/b,bind-recursive=writable,rro",
        '"rro" contradicts "bind-recursive=writable"',
    ),
    "bind and bind-nonrecursive=0": ("src=/a,dst=/b,bind,bind-nonrecursive=0", '"bind" contradicts "rbind"'),
    "near bind-recursive": (
        "src=/a,dst=/b,bind-recursive=enable",
        'bind-recursive "enable" is not known (did you mean "enabled"?)',
    ),
    "unknown bind-recursive": (
        "src=/a,dst=/b,bind-recursive=1",
        'bind-recursive "1" is not known (one of enabled, disabled, writable, readonly)',
    ),
    **{word: (f"src=/a,dst=/b,{word}", f'"{word.partition("=")[0]}" {why}') for word, why in REFUSED.items()},
    "relative when-exists": ("src=/a,dst=/b,when-exists=x", 'the when-exists "x" is not an absolute path'),
    "NUL in when-exists": ("src=/a,dst=/b,when-exists=/x\0", '"when-exists" contains a NUL byte'),
    "idmap, uids only": ("src=/a,dst=/b,idmap=uids=0-0-1", "idmap: uids and gids must both be set"),
    "ridmap, gids only": ("src=/a,dst=/b,ridmap=gids=0-0-1;", "ridmap: uids and gids must both be set"),
    **{
        f"idmap, run {run}": (
            f"src=/a,dst=/b,idmap=uids={run};gids=0-0-1",
            f'idmap: "{run}" is empty or exceeds the largest id',
        )
        for run in ("0-0-0", "4294967296-0-1", "0-4294967295-2", "1-0-4294967296")
    },
    "relative source": ("src=a,dst=/b", 'the source "a" is not an absolute path'),
    "relative destination": ("src=/a,dst=./b", 'the destination "./b" is not an absolute path'),
    "NUL in the source": ("src=/a\0,dst=/b", '"src" contains a NUL byte'),
    "NUL in the destination": ("src=/a,dst=/\0b", '"dst" contains a NUL byte'),
    "near propagation": (
        "src=/a,dst=/b,bind-propagation=rshare",
        'bind-propagation "rshare" is not known (did you mean "rshared"?)',
    ),
    "unknown propagation": (
        "src=/a,dst=/b,bind-propagation=x",
        'bind-propagation "x" is not known (one of private, rprivate, slave, rslave, shared, rshared, unbindable, '
        "runbindable)",
    ),
}


@pytest.mark.parametrize(("text", "message"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_argument(text: str, message: str) -> None:
    with pytest.raises(HookError) as raised:
        parse_mount(text, 2)
    assert (str(raised.value), raised.value.exit_code) == (f"--mount 2: {message}", os.EX_USAGE)


@pytest.mark.parametrize(("text", "message"), SENSELESS.values(), ids=SENSELESS)
def test_senseless_argument(text: str, message: str) -> None:
    with pytest.raises(HookError) as raised:
        parse_mount(text, 2)
    assert (str(raised.value), raised.value.exit_code) == (f"--mount 2: {message}", os.EX_CONFIG)


# Each field with two values. "{}" stands for what is needed besides, "src=/a,dst=/b", where it is not the field itself.
VALUES = {
    "src": ("src=/a,dst=/b", "src=/c,dst=/b"),
    "source": ("source=/a,dst=/b", "source=/c,dst=/b"),
    "subpath": ("{},subpath=a", "{},subpath=a/b"),
    "volume-subpath": ("{},volume-subpath=a", "{}"),
    "nofollow": ("{},nofollow", "{},nofollow=0"),
    "dest-nofollow": ("{},dest-nofollow", "{}"),
    "dst": ("src=/a,dst=/b", "src=/a,dst=/c"),
    "destination": ("src=/a,destination=/b", "src=/a,destination=/c"),
    "target": ("src=/a,target=/b", "src=/a,target=/c"),
    "type": ("{},type=bind", "{},type=glob"),
    "bind-propagation": ("{},bind-propagation=rslave", "{},bind-propagation=shared"),
    "bind-recursive": ("{},bind-recursive=enabled", "{},bind-recursive=disabled"),
    "when-exists": ("{},when-exists=/x", "{},when-exists=/y"),
    "idmap": ("{},idmap=uids=0-1-1;gids=0-1-1", "{},idmap=uids=0-2-1;gids=0-1-1"),
    "ridmap": ("{},ridmap=uids=0-1-1;gids=0-1-1", "{},ridmap=uids=0-1-1;gids=0-2-1"),
    "ro": ("{},ro", "{},ro=false"),
    "readonly": ("{},readonly=true", "{},readonly=0"),
    "bind-nonrecursive": ("{},bind-nonrecursive", "{},bind-nonrecursive=0"),
    "optional": ("{},optional", "{},optional=0"),
    "glob": ("{},glob", "{},glob=0"),
    "follow-links": ("{},glob,follow-links", "{},glob,follow-links=0"),
}


def is_recorded(text: str, recorded: str) -> bool:
    """Whether one bind is taken for the other, when that is in a state file."""
    mount: Any = {"requested": parse_mount(recorded.format("src=/a,dst=/b"), 1).as_mount()}
    return Recorded([mount]).find(parse_mount(text.format("src=/a,dst=/b"), 2)) is mount


@pytest.mark.parametrize("field", mount_field.FIELDS)
def test_another_value_makes_another_bind_where_the_table_says_so(field: str) -> None:
    one, other = VALUES[field]
    assert is_recorded(one, one)
    assert is_recorded(other, other)
    assert is_recorded(other, one) is not mount_field.FIELDS[field][2]


@pytest.mark.parametrize("word", ALL_WORDS)
def test_another_option_makes_another_bind(word: str) -> None:
    says_what_holds_anyway = word in ("rbind", DEFAULT_PROPAGATION)
    assert is_recorded(f"{{}},{word}", "{}") is says_what_holds_anyway


# As Go's encoding/csv reads a line (RFC 4180, blanks are part of a field, no quote inside a field without quotes).
CSV = {
    "plain": ("a,b", ["a", "b"]),
    "empty fields": (",", ["", ""]),
    "quoted": ('"a,b",c', ["a,b", "c"]),
    "doubled quote": ('"a""b"', ['a"b']),
    "only quotes": ('""', [""]),
    "a quoted quote": ('""""', ['"']),
    "quoted at the end": ('a,"b"', ["a", "b"]),
    "blank before": (" a, b", [" a", " b"]),
    "newline in quotes": ('"a\nb"', ["a\nb"]),
}
STRAY = ('a"', 'a"b"', ' "a"', '"a', '"', '"a"b', '"""', '"a" ,b')


@pytest.mark.parametrize(("text", "fields"), CSV.values(), ids=CSV)
def test_quoting(text: str, fields: list[str]) -> None:
    assert mount_field.split_csv(text, "here") == fields


@pytest.mark.parametrize("text", STRAY)
def test_stray_quote(text: str) -> None:
    with pytest.raises(UsageError, match=r"quote|comma") as raised:
        mount_field.split_csv(text, "here")
    assert raised.value.where == "here"


@given(some.lists(some.text(max_size=5), min_size=1))
def test_quoted_fields_come_out_as_they_went_in(fields: list[str]) -> None:
    quoted = ",".join('"' + field.replace('"', '""') + '"' for field in fields)
    assert mount_field.split_csv(quoted, "here") == fields


@pytest.mark.parametrize("text", [",", '"', '"",', "a,", '"a""', "a"], ids=str)
def test_a_long_text_is_split_in_one_pass(text: str) -> None:
    """As an annotation can be. 4 MB took minutes when each field copied the rest."""

    def split(times: int) -> None:
        with contextlib.suppress(UsageError):
            mount_field.split_csv(text * times, "here")

    assert support.calls(lambda: split(2000)) < 2.2 * support.calls(lambda: split(1000)) + 20
    split(1_000_000 // len(text))


# Repeated as often as there is room for, and what stands before and behind.
LONG = {
    "commas": ("", ",", ""),
    "quotes": ("", '"', ""),
    "doubled quotes": ('"', '""', '"'),
    "fields": ("", "a,", ""),
    "quoted fields": ("", '"a",', ""),
    "empty quoted fields": ("", '"",', ""),
    "a quote inside at the end": ("", "a,", 'a"'),
    "one field": ("", "a", ""),
    "a quote that is not closed": ('"', "a,", ""),
    "text behind a quote": ('"a"', "a,", ""),
}


@pytest.mark.parametrize(("before", "unit", "after"), LONG.values(), ids=LONG)
def test_more_text_is_so_much_more_work(before: str, unit: str, after: str) -> None:
    def split(text: str) -> None:
        with contextlib.suppress(UsageError):
            mount_field.split_csv(text, "here")

    work.check_growth(lambda size: work.touched(split, before + unit * size + after), 500)
