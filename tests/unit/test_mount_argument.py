# SPDX-License-Identifier: Apache-2.0
"""``--mount``: docker's words and Go's quoting, and one sentence with the right exit code for what is wrong."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as some

from oci_bind_hook import plan
from oci_bind_hook.errors import HookError, UsageError

GOOD = {
    "least": ("src=/a,dst=/b", ["rbind", "rprivate"]),
    "type": ("type=bind,src=/a,dst=/b", ["rbind", "rprivate"]),
    "source, destination": ("source=/a,destination=/b", ["rbind", "rprivate"]),
    "target": ("src=/a,target=/b", ["rbind", "rprivate"]),
    "any order": ("dst=/b,ro,type=bind,src=/a", ["rbind", "ro", "rprivate"]),
    "ro": ("src=/a,dst=/b,ro", ["rbind", "ro", "rprivate"]),
    "readonly": ("src=/a,dst=/b,readonly", ["rbind", "ro", "rprivate"]),
    **{
        f"bind-propagation={word}": (f"src=/a,dst=/b,bind-propagation={word}", ["rbind", word])
        for word in ("private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable")
    },
}


@pytest.mark.parametrize(("text", "options"), GOOD.values(), ids=GOOD)
def test_good_argument(text: str, options: list[str]) -> None:
    request = plan.parse_mount(text, 7)
    assert request.as_mount() == {"destination": "/b", "source": "/a", "type": "bind", "options": options}
    assert (request.origin, request.place, request.from_config) == ("--mount 7", "--mount 7", False)
    assert (request.warnings, request.unsupported, request.is_bind) == ([], "", True)


PATHS = {
    "equals sign": ("src=/a=b,dst=/c=d", "/a=b", "/c=d"),
    "blanks are kept": ("src=/a b ,dst=/c", "/a b ", "/c"),
    "comma in quotes": ('"src=/a,b",dst=/c', "/a,b", "/c"),
    "quote in quotes": ('"src=/a""b",dst=/c', '/a"b', "/c"),
    "links and dots are kept": ("src=/a/../b,dst=/c/./..//d/", "/a/../b", "/c/./..//d/"),
    "not ASCII": ("src=/ä,dst=/→", "/ä", "/→"),
    "newline": ("src=/a\nb,dst=/c", "/a\nb", "/c"),
}


@pytest.mark.parametrize(("text", "source", "destination"), PATHS.values(), ids=PATHS)
def test_path_is_taken_as_it_is(text: str, source: str, destination: str) -> None:
    request = plan.parse_mount(text, 1)
    assert (request.source, request.destination) == (source, destination)


HINT = " (type=bind,src=/on/host,dst=/in/container)"
FORM = " (type=bind,src=/a,dst=/b)"
KEYS = "destination, dst, source, src, target, ro, readonly, type, bind-propagation"

MALFORMED = {
    "empty": ("", f'the field "" has no name{FORM}'),
    "empty field": ("src=/a,,dst=/b", f'the field "" has no name{FORM}'),
    "comma at the end": ("src=/a,dst=/b,", f'the field "" has no name{FORM}'),
    "no key": ("src=/a,dst=/b,=x", f'the field "=x" has no name{FORM}'),
    "no source": ("dst=/b", f"no source is given{HINT}"),
    "no destination": ("src=/a", f"no destination is given{HINT}"),
    "only a type": ("type=bind", f"no source is given{HINT}"),
    "source empty": ("src=,dst=/b", '"src" needs a value (src=...)'),
    "source bare": ("src,dst=/b", '"src" needs a value (src=...)'),
    "destination empty": ("src=/a,target=", '"target" needs a value (target=...)'),
    "type empty": ("type=,src=/a,dst=/b", '"type" needs a value (type=...)'),
    "propagation empty": ("src=/a,dst=/b,bind-propagation=", '"bind-propagation" needs a value (bind-propagation=...)'),
    "ro with a value": ("src=/a,dst=/b,ro=true", '"ro" takes no value'),
    "readonly with a value": ("src=/a,dst=/b,readonly=", '"readonly" takes no value'),
    "source twice": ("src=/a,src=/a,dst=/b", 'the source is given twice, the second time as "src"'),
    "source by two names": ("src=/a,source=/c,dst=/b", 'the source is given twice, the second time as "source"'),
    "destination by two names": (
        "src=/a,dst=/b,target=/c",
        'the destination is given twice, the second time as "target"',
    ),
    "ro by two names": ("src=/a,dst=/b,ro,readonly", 'the ro is given twice, the second time as "readonly"'),
    "type twice": ("type=bind,type=bind,src=/a,dst=/b", 'the type is given twice, the second time as "type"'),
    "quote inside": ('src=/a"b,dst=/c', 'a quote stands inside the field src=/a"b (quote it whole: "a,b")'),
    "quote not closed": ('"src=/a,dst=/b', "a quote is not closed"),
    "text after a quote": ('"src=/a"x,dst=/b', "a comma is missing before x,dst=/b"),
    "not UTF-8": ("src=/\udcff,dst=/b", "src=/\udcff,dst=/b is not UTF-8, and the state file can hold nothing else"),
}

SENSELESS = {
    "unknown key": ("src=/a,dst=/b,x=y", f'"x" is not known (one of {KEYS})'),
    "near key": ("src=/a,dts=/b", '"dts" is not known (did you mean "dst"?)'),
    "nearer key": ("src=/a,dst=/b,read-only", '"read-only" is not known (did you mean "readonly"?)'),
    "key in capitals": ("src=/a,dst=/b,READONLY", f'"READONLY" is not known (one of {KEYS})'),
    "key with a blank": ("src=/a, dst=/b", '" dst" is not known (did you mean "dst"?)'),
    "option word": ("src=/a,dst=/b,nosuid", f'"nosuid" is not known (one of {KEYS})'),
    "other type": ("type=tmpfs,dst=/b", 'type "tmpfs" cannot be mounted by this hook (type=bind)'),
    "relative source": ("src=a,dst=/b", 'the source "a" is not an absolute path'),
    "relative destination": ("src=/a,dst=./b", 'the destination "./b" is not an absolute path'),
    "NUL in the source": ("src=/a\0,dst=/b", "the source holds a NUL"),
    "NUL in the destination": ("src=/a,dst=/\0b", "the destination holds a NUL"),
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
        plan.parse_mount(text, 2)
    assert (str(raised.value), raised.value.exit_code) == (f"--mount 2: {message}", os.EX_USAGE)


@pytest.mark.parametrize(("text", "message"), SENSELESS.values(), ids=SENSELESS)
def test_senseless_argument(text: str, message: str) -> None:
    with pytest.raises(HookError) as raised:
        plan.parse_mount(text, 2)
    assert (str(raised.value), raised.value.exit_code) == (f"--mount 2: {message}", os.EX_CONFIG)


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
    assert plan.split_csv(text, "here") == fields


@pytest.mark.parametrize("text", STRAY)
def test_stray_quote(text: str) -> None:
    with pytest.raises(UsageError, match=r"quote|comma") as raised:
        plan.split_csv(text, "here")
    assert raised.value.where == "here"


@given(some.lists(some.text(max_size=5), min_size=1))
def test_quoted_fields_come_out_as_they_went_in(fields: list[str]) -> None:
    quoted = ",".join('"' + field.replace('"', '""') + '"' for field in fields)
    assert plan.split_csv(quoted, "here") == fields
