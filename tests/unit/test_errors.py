# SPDX-License-Identifier: Apache-2.0
"""Each error's sentence, and the exit code that stands in the manual."""

from __future__ import annotations

import errno
import os

import pytest

from oci_bind_hook import errors
from oci_bind_hook.errors import DataError, HookError, KernelError, RequestError

EXIT_CODES = {
    "HookError": 70,
    "UsageError": 64,
    "DataError": 65,
    "MissingError": 66,
    "UnavailableError": 69,
    "KernelError": 71,
    "LeftoverError": 71,
    "RecordError": 74,
    "EscapeError": 77,
    "RequestError": 78,
}


def test_exit_codes_are_those_of_the_manual() -> None:
    classes = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, HookError)]
    assert {each.__name__: each.exit_code for each in classes} == EXIT_CODES


SENTENCES = {
    "problem": (RequestError("it is wrong"), "it is wrong"),
    "place": (RequestError("it is wrong", where="--mount 2"), "--mount 2: it is wrong"),
    "hint": (RequestError("it is wrong", hint="mend it"), "it is wrong (mend it)"),
    "all": (RequestError("it is wrong", where="--mount 2", hint="mend it"), "--mount 2: it is wrong (mend it)"),
    "kernel": (
        KernelError("mkdirat", "/a/b", OSError(errno.EROFS, os.strerror(errno.EROFS)), where="--mount 1", hint="why"),
        "--mount 1: mkdirat /a/b: Read-only file system (why)",
    ),
    "kernel, own words": (KernelError("move_mount", "/a", OSError(errno.EIO, "no ro")), "move_mount /a: no ro"),
    "kernel, no words": (KernelError("open", "/a", OSError("odd")), "open /a: odd"),
    "whole document": (DataError("state", [("", "is empty")]), "state: is empty"),
    "one violation": (DataError("state", [("/id", "is missing")]), "state: /id: is missing"),
    "two violations": (
        DataError("config.json", [("/a", "is wrong"), ("/b", "is missing")]),
        "config.json: /a: is wrong (1 more violation: --dry-run lists all)",
    ),
    "three violations": (
        DataError("config.json", [("/a", "is wrong"), ("/b", "is missing"), ("/c", "is missing")]),
        "config.json: /a: is wrong (2 more violations: --dry-run lists all)",
    ),
}


@pytest.mark.parametrize(("error", "sentence"), SENTENCES.values(), ids=SENTENCES)
def test_sentence(error: HookError, sentence: str) -> None:
    assert str(error) == sentence


def test_place_and_hint_given_later_are_in_the_sentence() -> None:
    error = RequestError("it is wrong")
    error.where, error.hint = "--mount 3", "mend it"
    assert str(error) == "--mount 3: it is wrong (mend it)"


def test_kernel_error_keeps_its_facts() -> None:
    error = KernelError("mkdirat", "/a", OSError(errno.EROFS, "Read-only file system"))
    assert (error.call, error.subject, error.errno) == ("mkdirat", "/a", errno.EROFS)


def test_data_error_keeps_every_violation() -> None:
    places = [("/a", "is wrong"), ("/b", "is missing")]
    error = DataError("state", places)
    assert (error.document, error.violations) == ("state", tuple(places))
