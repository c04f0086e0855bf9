"""What holds for every test: its environment, how Hypothesis looks for examples, and what a skip means."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests import environment, examples, needs

examples.register()
_NOTHING_RAN = "everything was skipped: this run has shown nothing"


def pytest_configure() -> None:
    environment.settle()
    # As Ctrl-C does, it ends the labs and machines of the tests too.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)


def _interrupt(number: int, _frame: object) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


@pytest.fixture(scope="session")
def _home(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("home"))


@pytest.fixture(autouse=True)
def _nothing_of_the_machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, _home: str) -> None:
    """A test that stays on this machine sees neither its mirrors nor its home."""
    if not environment.REACHING & {mark.name for mark in request.node.iter_markers()}:
        for name in environment.of_the_machine():
            monkeypatch.delenv(name)
        monkeypatch.setenv("HOME", _home)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A skip is a failure where everything is required, unless there was nothing to ask."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and needs.all_required():
        *_, why = report.longrepr
        if needs.DOES_NOT_ARISE not in why:
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid}: {why}, and everything is required here"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """The same for a module that skips itself as a whole."""
    report = yield
    if report.skipped and needs.all_required():
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid}: {report.longrepr[-1]}, and everything is required here"
    return report


def _nothing_ran(session: pytest.Session) -> bool:
    stats = session.config.pluginmanager.get_plugin("terminalreporter").stats
    wanting = [one for one in stats.get("skipped", ()) if needs.DOES_NOT_ARISE not in str(one.longrepr)]
    return bool(wanting) and not any(stats.get(kind) for kind in ("passed", "xfailed", "failed", "error"))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if exitstatus == pytest.ExitCode.OK and _nothing_ran(session):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _nothing_ran(terminalreporter._session):
        terminalreporter.write_line(_NOTHING_RAN, red=True)
