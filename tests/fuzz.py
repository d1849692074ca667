# SPDX-License-Identifier: Apache-2.0
"""Fuzzing of all that reads what others wrote: whatever comes, the answer is a value or one of our errors.

``fuzz.py TARGET SECONDS [OPTION]...`` runs one target by atheris, which looks for inputs that reach new code, from the
seeds in tests/data/seeds; the options are libFuzzer's. Without arguments the names of the targets are printed.
"""

from __future__ import annotations

import os
import sys
import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SEEDS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data/seeds")


def targets() -> dict[str, Callable[[bytes], bool]]:
    """What is fuzzed, by name: each tells whether an input was accepted, and raises what no input may cause.

    The hook is imported only here, so that the fuzzer can watch which lines of it are run.
    """
    from oci_bind_hook.documents import bundle, oci, strictjson
    from oci_bind_hook.errors import HookError
    from oci_bind_hook.mounting.confined import Allowed
    from oci_bind_hook.record import document
    from oci_bind_hook.requests import collect
    from oci_bind_hook.requests.mount_field import parse_mount

    def state(data: bytes) -> None:
        """stdin: a state, and perhaps a config behind it."""
        found, document = bundle.read_state(data)
        assert isinstance(found.id, str)
        if document is not None:
            oci.config(document)

    def config(data: bytes) -> None:
        """config.json, with annotations that count."""
        document = strictjson.documents(data, "config.json")[0]
        violations = oci.config_violations(document)
        assert len(violations) == len(set(violations))
        refused: list[HookError] = []
        asked = collect.requests(oci.config(document), [], Allowed(["/"]), refused.append)
        for error in refused:
            check(error)
        for request in asked:
            request.as_mount()

    def mount(data: bytes) -> None:
        """The argument of --mount, as Python decodes arguments."""
        request = parse_mount(os.fsdecode(data), "--mount 1", "--mount 1")
        assert request.source.startswith("/")
        assert request.destination.startswith("/")
        request.as_mount()

    def record(data: bytes) -> None:
        """A state file."""
        found = document.read(data, "c1.json")
        assert document.read(document.write(found), "c1.json") == found

    def check(error: HookError) -> None:
        """An error can be told, whatever words it repeats, and has an exit code of its own."""
        assert str(error)
        assert error.exit_code != os.EX_SOFTWARE

    def judged(read: Callable[[bytes], None]) -> Callable[[bytes], bool]:
        def target(data: bytes) -> bool:
            try:
                read(data)
            except HookError as error:
                check(error)
                return False
            return True

        return target

    return {read.__name__: judged(read) for read in (state, config, mount, record)}


def seeds(name: str) -> Iterator[tuple[str, bytes]]:
    """The seeds of a target: their names and what is in them."""
    for file in sorted(os.listdir(os.path.join(SEEDS, name))):
        with open(os.path.join(SEEDS, name, file), "rb") as stream:
            yield file, stream.read()


def words() -> set[str]:
    """What has a meaning somewhere: the names and words in the schemas, and those of --mount."""
    from oci_bind_hook.documents import acceptor
    from oci_bind_hook.requests import mount_field, request

    found = {*mount_field.FIELDS, *request.WORDS}
    pending: list[object] = [acceptor.schema(name) for name in acceptor.SCHEMAS]
    while pending:
        each = pending.pop()
        if isinstance(each, dict):
            found.update(each.get("properties", ()))
            pending += each.values()
        elif isinstance(each, list):
            pending += each
            found.update(word for word in each if isinstance(word, str))
    return {word for word in found if word and word.isascii() and word.isprintable() and len(word) < 32}


def main(name: str, seconds: int, *options: str) -> None:
    """Fuzzes one target. Ends the process: with 0 if nothing was found."""
    import atheris

    with atheris.instrument_imports(include=["oci_bind_hook"]):
        target = targets()[name]
    with tempfile.TemporaryDirectory(prefix="fuzz-") as found:
        dictionary = os.path.join(found, "words")
        with open(dictionary, "w", encoding="utf-8") as file:
            for word in sorted(words()):
                escaped = word.replace("\\", "\\\\").replace('"', '\\"')
                file.write(f'"{escaped}"\n')
        corpus = os.path.join(found, "corpus")
        os.mkdir(corpus)
        limits = [f"-max_total_time={seconds}", "-max_len=8192", "-timeout=10", f"-dict={dictionary}"]
        arguments = [sys.argv[0], *limits, "-print_final_stats=1", *options, corpus, os.path.join(SEEDS, name)]
        # libFuzzer ends its process itself; the folder is removed here.
        child = os.fork()
        if child == 0:
            atheris.Setup(arguments, lambda data: target(data) and None)
            atheris.Fuzz()
            os._exit(0)
        _, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status) != 0)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        print(*sorted(os.listdir(SEEDS)))
    else:
        main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
