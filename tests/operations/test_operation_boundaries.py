"""Limits of what operations wait for, keep and fetch: at the number and one step beyond it."""

from __future__ import annotations

import contextlib
import fcntl
import threading
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rackserve.domain.host import Host
from rackserve.operations import reboot
from roles import uninstall
from tests.clock import Clock

MIB = 2**20
SCRIPTS = resources.files("rackserve.operations") / "scripts"
FILES = ("hub.py", "snapshot.py")


@pytest.fixture
def program() -> dict[str, Any]:
    """What hub.py and snapshot.py define, as one text, with a clock of its own."""
    text = "\n".join((SCRIPTS / name).read_text("utf-8") for name in FILES)
    names: dict[str, Any] = {"__name__": __name__}
    exec(compile(text, "snapshot", "exec", dont_inherit=True), names)  # noqa: S102 (what a host runs)
    names["time"] = Clock()
    return names


# fetching a model


@pytest.mark.parametrize(("spare", "enough"), [(0, True), (-1, False)])
def test_16_mib_of_a_file_system_are_left_free(program, tmp_path, spare, enough):
    missing = 1000
    disk = SimpleNamespace(disk_usage=lambda _: SimpleNamespace(free=missing + 16 * MIB + spare))
    program["shutil"] = disk
    with contextlib.nullcontext() if enough else pytest.raises(program["Refused"], match="MiB are needed"):
        program["require_space"]("repo", tmp_path, missing)


@pytest.mark.parametrize(("after", "waited"), [(7200, True), (7200.5, False)])
def test_another_run_is_waited_for_for_two_hours(program, tmp_path, after, waited):
    clock = program["time"]
    other = (tmp_path / "lock").open("w")
    fcntl.flock(other, fcntl.LOCK_EX)

    def sleep(seconds: float) -> None:
        clock.now += seconds
        if clock.now > after:
            fcntl.flock(other, fcntl.LOCK_UN)

    clock.sleep = sleep
    expected = contextlib.nullcontext() if waited else pytest.raises(program["Refused"], match="for two hours")
    with other, expected, program["locked"](tmp_path / "lock", "repo"):
        assert waited


@pytest.mark.parametrize(("every", "told"), [(15, True), (16, False)])
def test_something_is_said_every_15_seconds(program, capsys, every, told):
    waited: list[float] = []

    class Event:
        def wait(self, seconds: float) -> bool:
            waited.append(seconds)
            return len(waited) > 1

        def set(self) -> None:
            pass

    program["threading"] = SimpleNamespace(Event=Event, Thread=threading.Thread)
    with program["heartbeat"](lambda: "still there"):
        pass
    assert capsys.readouterr().out == "still there\n"
    assert (every <= waited[0]) is told


def hub(program: dict[str, Any], *answers: tuple[int, int]) -> Any:
    """A hub of which curl ends with these codes and statuses, one after the other, and then well."""
    made = program["Hub"]("https://hub", "org/model", "", 0)
    made.tried = 0

    def curl(_url: str, *options: str) -> Any:
        made.options = options
        made.tried += 1
        code, status = answers[made.tried - 1] if made.tried <= len(answers) else (0, 200)
        if code == 0 and "--dump-header" in options:
            words = dict(zip(options[::2], options[1::2], strict=False))
            Path(words["--output"]).write_text("[]")
            Path(words["--dump-header"]).write_text("HTTP/1.1 200\n")
        return program["Answer"](code, status, "trouble")

    made._curl = curl
    return made


def fetched(program: dict[str, Any], made: Any, part: Path) -> bool:
    part.write_bytes(b"x")
    try:
        made.fetch("main", program["File"]("a", 10, "sha1", ""), part)
    except program["Refused"]:
        return False
    return True


@pytest.mark.parametrize(("failures", "there", "seconds"), [(2, True, 4), (3, False, 4)])
def test_three_tries_in_a_row_with_two_seconds_between_them(program, tmp_path, failures, there, seconds):
    assert fetched(program, hub(program, *[(7, 0)] * failures), tmp_path / "part") is there
    assert program["time"].now == seconds
    made, program["time"] = hub(program, *[(7, 0)] * failures), Clock()
    try:
        assert made._ask("https://hub/api")[0] == []
        assert there
    except program["Refused"]:
        assert not there
    assert program["time"].now == seconds


@pytest.mark.parametrize(
    ("status", "tries"),
    # Client errors stay, but for a time-out, a range that is none, and too many requests.
    [(399, 2), (400, 1), (401, 1), (404, 1), (408, 2), (409, 1), (416, 2), (429, 2), (430, 1), (499, 1), (500, 2)],
)
def test_client_errors_stay_but_for_408_416_and_429(program, tmp_path, status, tries):
    made = hub(program, (22, status))
    assert fetched(program, made, tmp_path / "part") is (tries > 1)
    assert made.tried == tries


@pytest.mark.parametrize(
    ("code", "status", "kept"), [(33, 206, False), (36, 206, False), (22, 416, False), (34, 206, True), (22, 429, True)]
)
def test_a_file_begins_anew_where_the_server_cannot_go_on_with_it(program, tmp_path, code, status, kept):
    assert fetched(program, hub(program, (code, status)), tmp_path / "part")
    assert (tmp_path / "part").exists() is kept
    assert program["time"].now == (2 if kept else 0)


@pytest.mark.parametrize(("pages", "read"), [(1000, True), (1001, False)])
def test_a_listing_has_1000_pages_at_most(program, pages, read):
    made = hub(program)
    made.asked = 0

    def ask(_url: str) -> tuple[list[int], str]:
        made.asked += 1
        return [made.asked], "" if made.asked == pages else f'<x?page={made.asked}>; rel="next"'

    made._ask = ask
    try:
        assert len(made._listing("https://hub/api")) == pages
        assert read
    except program["Refused"]:
        assert not read


def test_an_answer_of_the_api_has_64_mib_at_most_and_a_file_64_kib_more_than_is_listed(program, tmp_path):
    made = hub(program)
    made._ask("https://hub/api")
    assert made.options[made.options.index("--max-filesize") + 1] == str(64 * MIB)
    assert fetched(program, made, tmp_path / "part")
    assert made.options[made.options.index("--max-filesize") + 1] == str(10 + 65536)


# hosts


@pytest.mark.parametrize(("seconds", "answers"), [(20, True), (20.1, False)])
def test_a_host_on_its_way_down_has_20_seconds_to_answer(monkeypatch, seconds, answers):
    limits: list[float] = []

    @contextlib.contextmanager
    def timeout(limit: float, exception: bool) -> Iterator[None]:
        assert exception is False
        limits.append(limit)
        yield

    def run(_command: str) -> Any:
        if limits[-1] < seconds:
            raise TimeoutError
        return True, SimpleNamespace(stdout="boot\n")

    monkeypatch.setattr(reboot.gevent, "Timeout", timeout)
    assert (reboot._boot_id(SimpleNamespace(run_shell_command=run)) == "boot") is answers  # type: ignore[arg-type]


def test_uninstalling_waits_for_the_package_lock_as_long_as_a_host_that_states_nothing():
    assert Host.model_fields["apt_lock_timeout"].default == uninstall._LOCK_TIMEOUT_S == 600
