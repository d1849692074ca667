# SPDX-License-Identifier: Apache-2.0
"""Each mount or e2e test in a mount namespace of its own, and three promises held for the whole session.

The promises: no test changes the host's mounts, no mount or e2e test is skipped unseen, none of them outlives its
time. A skip counts as a failure because a machine on which the kernel is never asked proves nothing.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import resource
import signal
import sys
import traceback
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

from helpers import kernels, properties, support

TESTS = os.path.dirname(os.path.abspath(__file__))
MARKED_FOLDERS = ("mount", "e2e")
OPEN_FILES = 20_000
SECONDS = 120 * support.PATIENCE
SECONDS_LONG = 1800 * support.PATIENCE
KERNEL = tuple(int(number) for number in os.uname().release.split("-")[0].split(".")[:2])

CLONE_NEWNS = 0x20000
MS_REC = 0x4000
MS_PRIVATE = 0x40000

libc = ctypes.CDLL(None, use_errno=True)

properties.load()


# If there are containers of podman on this machine, our commands ask podman for theirs, and it mounts its storage.
OF_PODMAN = ("/run/containers", "/var/lib/containers", os.path.expanduser("~/.local/share/containers"))


def own_mount_namespace() -> None:
    """Leave the host's mount namespace for a private copy, without podman's containers. Raises OSError."""
    made = libc.unshare(CLONE_NEWNS) == 0 and libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None) == 0
    hidden = (libc.mount(b"none", os.fsencode(path), b"tmpfs", 0, None) for path in OF_PODMAN if os.path.isdir(path))
    if not made or any(code != 0 for code in hidden):
        number = ctypes.get_errno()
        raise OSError(number, f"a mount test needs a mount namespace of its own: {os.strerror(number)}")


def run_in_child(item: pytest.Item, result: int) -> None:
    """Run one test and write its reports, or what prevented them, to the file ``result``. Never returns."""
    answer: list[Any] | str
    try:
        signal.alarm(SECONDS_LONG if item.get_closest_marker("long") else SECONDS)
        own_mount_namespace()
        reports = runtestprotocol(item, log=False, nextitem=None)
        answer = [item.config.hook.pytest_report_to_serializable(config=item.config, report=one) for one in reports]
    except BaseException:  # noqa: BLE001 - a forked child must not get back into pytest's own loop
        answer = traceback.format_exc()
    with open(result, "wb", closefd=False) as file:
        pickle.dump(answer, file)
    os._exit(0)


def forked_reports(item: pytest.Item) -> list[pytest.TestReport]:
    """Run one test in a child process and return what it reported; a child that died is a failed test."""
    # A memory file, not a pipe: a process that the test left behind cannot keep us waiting on it.
    result = os.memfd_create("reports")
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        try:
            os.setpgid(0, 0)
            run_in_child(item, result)
        finally:
            os._exit(1)
    try:
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    finally:
        # Not reaped yet, so the number still means this child and what it started.
        try:
            os.killpg(child, signal.SIGKILL)
        except ProcessLookupError:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    with open(result, "rb") as file:
        file.seek(0)
        written = file.read()
    if os.WIFSIGNALED(status):
        return [broken(item, f"the test was killed by {signal.Signals(os.WTERMSIG(status)).name}")]
    if status != 0:
        return [broken(item, f"the test's process ended with {os.WEXITSTATUS(status)} and without a report")]
    answer = pickle.loads(written)
    if isinstance(answer, str):
        return [broken(item, answer)]
    return [item.config.hook.pytest_report_from_serializable(config=item.config, data=one) for one in answer]


def broken(item: pytest.Item, why: str) -> pytest.TestReport:
    """The report of a test that could not write one, with the output it left."""
    capture = item.config.pluginmanager.getplugin("capturemanager")
    output = capture.read_global_capture() if capture else ("", "")
    sections = [(f"Captured {name}", text) for name, text in zip(("stdout", "stderr"), output, strict=True) if text]
    return pytest.TestReport(
        item.nodeid, item.location, {name: 1 for name in item.keywords}, "failed", why, "call", sections=sections
    )


class Promises:
    """The plugin that holds the promises; a broken one fails the session and is named in its summary."""

    def __init__(self) -> None:
        self.mounts = support.mounts()
        self.guarded: set[str] = set()
        self.broken: list[str] = []

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        # Made here once; else every child would make, and leave, a base folder of its own.
        session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        if any(item.get_closest_marker(name) for name in MARKED_FOLDERS):
            self.guarded.add(item.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped and report.nodeid.startswith(tuple(f"tests/{name}/" for name in MARKED_FOLDERS)):
            self.broken.append(f"skipped as a whole: {report.nodeid}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail") and report.nodeid in self.guarded:
            self.broken.append(f"skipped: {report.nodeid}")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        now = support.mounts()
        self.broken += [f"left on the host: {line}" for line in now if line not in self.mounts]
        self.broken += [f"gone from the host: {line}" for line in self.mounts if line not in now]
        if self.broken and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.broken:
            terminalreporter.section("broken promises", red=True, bold=True)
            for line in self.broken:
                terminalreporter.line(line, red=True)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Promises())
    # A command leaves what it holds to the end of its process, and tests/unit runs thousands in one. Shells have 1024.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


@pytest.hookimpl(tryfirst=True)
def pytest_itemcollected(item: pytest.Item) -> None:
    folder = os.path.relpath(item.path, TESTS).split(os.sep)[0]
    if folder in MARKED_FOLDERS:
        item.add_marker(folder)
    if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
        item.add_marker("property")


# The files that take longest begin: the processes of a run take whole files, and one that is begun last is waited for.
LONGEST = ("fault_sweep", "verdict", "races", "kill_sweep", "explain", "kinds_of_sources", "poison", "wanted", "attack")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Puts the longest first. Leaves out, and counts as deselected, what this kernel does not have."""
    files = [f"test_{name}.py" for name in LONGEST]
    items.sort(key=lambda item: files.index(item.path.name) if item.path.name in files else len(files))
    newer = [item for item in items if any(mark.args > KERNEL for mark in item.iter_markers("kernel"))]
    if newer:
        items[:] = [item for item in items if item not in newer]
        config.hook.pytest_deselected(items=newer)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    if not any(item.get_closest_marker(name) for name in MARKED_FOLDERS):
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in forked_reports(item):
        item.ihook.pytest_runtest_logreport(report=report)
    # What an earlier test of the same module set up in this process.
    item.session._setupstate.teardown_exact(nextitem)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


# Each call is asked with EPERM, as a filter says it, in tests/mount/mounting/test_by_mount.py.
OLDER = [pytest.param(name, marks=pytest.mark.long) if name == "filtered" else name for name in kernels.OLDER]
OLDEST = [name if name == "before 4.11" else pytest.param(name, marks=pytest.mark.long) for name in kernels.OLDER]


@pytest.fixture(params=OLDER)
def older_kernel(request: pytest.FixtureRequest) -> str:
    """What the rest of this test, and all programs that it runs, take for the kernel. Only for what runs forked."""
    name: str = request.param
    kernels.play(name)
    return name


@pytest.fixture(params=["this", *OLDEST])
def kernel(request: pytest.FixtureRequest) -> str:
    """The same, and this kernel as it is."""
    name: str = request.param
    kernels.play(name)
    return name
