"""Lengths and limits of the programs on hosts: what is waited for and what is not, with nothing that really waits."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.clock import Clock
from tests.libexec.helper_host import HELPERS

Loader = Callable[[str], ModuleType]


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loader]:
    """A program of this name as a module, with what it imports from beside it."""
    known = set(sys.modules)
    monkeypatch.setattr(sys, "path", [str(HELPERS), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def load(name: str) -> ModuleType:
        if name.endswith(".py"):
            return import_module(name.removesuffix(".py"))
        loader = SourceFileLoader(f"libexec_{name.replace('-', '_')}", str(HELPERS / name))
        spec = spec_from_loader(loader.name, loader)
        assert spec is not None
        module = module_from_spec(spec)
        sys.modules[loader.name] = module
        loader.exec_module(module)
        return module

    yield load
    for name in set(sys.modules) - known:
        if name.startswith(("libexec_", "rackserve_")):
            del sys.modules[name]


@pytest.fixture
def needs(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have every command end after so many seconds, with these words."""

    def need(seconds: float, stdout: str = "", code: int = 0) -> None:
        def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
            if options.get("timeout", seconds) < seconds:
                raise subprocess.TimeoutExpired(command, options["timeout"])
            return subprocess.CompletedProcess(command, code, stdout, "")

        monkeypatch.setattr(subprocess, "run", run)

    return need


def waits(function: Callable[..., Any], *arguments: Any) -> bool:
    """Whether it bears with what it calls."""
    try:
        function(*arguments)
    except sys.modules["rackserve_helpers"].UnusableError as error:
        return not re.search("timed out|is not done", str(error))
    return True


def slow_server(program: ModuleType, seconds: float, **service: Any) -> Any:
    """A server that takes so long for every answer."""

    class Slow(program.Server):  # type: ignore[name-defined, misc]
        def ask(self, _path: str, timeout: float, _body: object = None, **_: Any) -> Any:
            from_helpers = sys.modules["rackserve_helpers"]
            late = from_helpers.Answer(0, "timed out", timed_out=True)
            return late if timeout < seconds else from_helpers.Answer(200, '{"lmstudio": true}\nx 1\n')

    facts = {"name": "chat", "key_file": None, "url": "http://127.0.0.1:1", "metrics": "/metrics", "metrics_key": False}
    return Slow(SimpleNamespace(**facts, health="/health", in_flight=["x"], progress=["x"], **service))


# what is waited for


@pytest.mark.parametrize(("seconds", "waited"), [(30, True), (30.1, False)])
def test_systemd_has_30_seconds_to_answer(program, needs, seconds, waited):
    helpers = program("rackserve_helpers.py")
    needs(seconds, "ActiveState=active\n")
    assert waits(helpers.unit_state, "x.service") is waited


@pytest.mark.parametrize(("seconds", "waited"), [(45, True), (45.1, False)])
def test_a_driver_has_45_seconds_to_answer(program, needs, seconds, waited):
    ready, in_use = program("gpu-ready"), program("gpu-in-use")
    needs(seconds, "[[], [1024]]")
    assert (ready.ask("ask-cuda", "CUDA", 1)[1] == [1024]) is waited
    assert bool(ready.run(["modinfo"])) is waited
    needs(seconds)
    assert waits(in_use.on_nvidia, {"1"}, [], None) is waited


@pytest.mark.parametrize(("seconds", "waited"), [(60, True), (60.1, False)])
def test_podman_has_a_minute(program, needs, seconds, waited):
    needs(seconds)
    assert waits(program("prepare-container").podman, ["secret", "rm", "x"]) is waited


@pytest.mark.parametrize(("seconds", "waited"), [(120, True), (120.1, False)])
def test_the_container_toolkit_has_two_minutes(program, needs, seconds, waited):
    needs(seconds, "nvidia.com/gpu=GPU-1\n")
    assert (program("prepare-container").missing(["GPU-1"]) == []) is waited


@pytest.mark.parametrize(("seconds", "waited"), [(300, True), (300.1, False)])
def test_a_compiler_has_five_minutes(program, monkeypatch, seconds, waited):
    def run(command: list[str], timeout: float, **_: Any) -> subprocess.CompletedProcess[bytes]:
        if timeout < seconds:
            raise subprocess.TimeoutExpired(command, timeout)
        return subprocess.CompletedProcess(command, 0, b"")

    monkeypatch.setattr(subprocess, "run", run)
    assert waits(program("compile-check").tool, "gcc", ["gcc"], ".") is waited


@pytest.mark.parametrize(("seconds", "waited"), [(60, True), (60.1, False)])
def test_lms_has_a_minute(program, needs, tmp_path, seconds, waited):
    needs(seconds)
    assert waits(program("lmstudio").lms, SimpleNamespace(studio=tmp_path), "ls") is waited


@pytest.mark.parametrize(("seconds", "waited"), [(10, True), (10.1, False)])
def test_llmster_has_10_seconds_to_greet(program, seconds, waited):
    lmstudio = program("lmstudio")
    helpers = sys.modules["rackserve_helpers"]
    server = slow_server(lmstudio, seconds)
    server.ask = lambda _, timeout: helpers.Answer(*((200, '{"lmstudio": true}') if timeout >= seconds else (0, "")))
    assert lmstudio.greeting(server) is waited


@pytest.mark.parametrize(("after", "found"), [(180, True), (181, False)])
def test_what_llmster_unpacks_has_three_minutes_to_appear(program, monkeypatch, after, found):
    lmstudio, clock = program("lmstudio"), Clock()
    monkeypatch.setattr(lmstudio, "time", clock)
    monkeypatch.delenv("MAINPID", raising=False)
    service = SimpleNamespace(start_s=3600, key_file=None)
    monkeypatch.setattr(lmstudio, "read_service", lambda *_: service)
    monkeypatch.setattr(lmstudio, "greeting", lambda _: True)
    monkeypatch.setattr(lmstudio, "newest", lambda _: ("cpu", "1", True) if clock.now >= after else None)
    monkeypatch.setattr(lmstudio, "known", lambda _: True)
    monkeypatch.setattr(lmstudio, "lms", lambda *_, **__: "")
    monkeypatch.setattr(lmstudio, "check", lambda *_: None)
    names = ("name", "root", "engine", "model_path", "identifier", "gpu", "context_length", "parallel")
    planned = SimpleNamespace(**dict.fromkeys(names, "x"))
    if found:
        lmstudio.load(planned)
    else:
        with pytest.raises(sys.modules["rackserve_helpers"].UnusableError, match="offers no engine"):
            lmstudio.load(planned)


@pytest.mark.parametrize(("after", "ready"), [(60, True), (61, False)])
def test_cards_have_a_minute_to_appear(program, monkeypatch, tmp_path, after, ready):
    module, clock = program("gpu-ready"), Clock()
    (tmp_path / "etc/rackserve").mkdir(parents=True)
    (tmp_path / "etc/rackserve/gpus.json").write_text('{"pci_ids": [], "vendor": "amd"}')
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "problems", lambda *_: [] if clock.now >= after else ["0 of 1 cards"])
    monkeypatch.setattr(module, "publish", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["gpu-ready", "--root", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == (0 if ready else 78)


@pytest.mark.parametrize(("seconds", "told"), [(5, True), (5.1, False)])
def test_a_server_has_5_seconds_to_tell_what_it_has_to_do(program, tmp_path, seconds, told):
    drain = program("drain")
    assert (drain.Load(slow_server(drain, seconds), tmp_path).busy() == 1) is told


@pytest.mark.parametrize(("seconds", "healthy"), [(5, True), (5.1, False)])
def test_health_is_answered_within_5_seconds(program, monkeypatch, seconds, healthy):
    wait_ready, clock = program("wait-ready"), Clock()
    monkeypatch.setattr(wait_ready, "time", clock)
    monkeypatch.delenv("MAINPID", raising=False)
    assert wait_ready.wait_for_health(slow_server(wait_ready, seconds), 1) is healthy


@pytest.mark.parametrize(("seconds", "told"), [(60, True), (60.1, False)])
def test_a_look_waits_a_minute_for_a_token_and_for_metrics(program, seconds, told):
    health = program("health")
    server = slow_server(health, seconds)
    assert ("timed out" in health.probe(server)[1]) is not told
    assert bool(health.work(server, {}, None)) is told


# what is decided


@pytest.mark.parametrize(("mib", "told"), [(90, False), (89, True)])
def test_a_card_has_nine_tenths_of_the_memory_that_is_sold(program, mib, told):
    problems = program("gpu-ready").memory_problems({"vram_mib": 100, "tag": "x"}, {"GPU 0": mib})
    assert bool(list(problems)) is told


@pytest.mark.parametrize(("seconds", "computes"), [(5, False), (5.1, True)])
def test_more_than_5_seconds_of_cpu_time_are_work(program, seconds, computes):
    health = program("health")
    before, now = ({health.CPU: used} for used in (100, 100 + seconds))
    assert bool(health.grown(before, now)) is computes
    assert health.grown({"tokens": 100}, {"tokens": 101})


@pytest.mark.parametrize(
    ("status", "failures"),
    # A client's error is an answer, but for those that say that it is full; all others are counted.
    [(400, 0), (401, 0), (404, 0), (429, 1), (499, 0), (500, 1), (503, 1), (0, 1)],
)
def test_a_refusal_is_an_answer_and_too_many_requests_are_none(program, status, failures):
    health = program("health")
    answer = sys.modules["rackserve_helpers"].Answer(status, "")
    assert health.judge(answer, "problem", {"failures": 0, "work": {}}, {})[0] == failures


@pytest.mark.parametrize(("status", "asked"), [(200, 1), (429, 1), (499, 1), (500, 2), (502, 2), (503, 1), (599, 2)])
def test_an_error_of_the_server_is_asked_for_twice(program, monkeypatch, status, asked):
    health, clock, times = program("health"), Clock(), []
    monkeypatch.setattr(health, "time", clock)
    answer = sys.modules["rackserve_helpers"].Answer(status, "")
    server = SimpleNamespace(completion=lambda _: (times.append(clock.now), (answer, "problem"))[1])
    health.probe(server)
    assert times == [0, 2][:asked]


@pytest.mark.parametrize(
    ("lines", "told"), [(["a", "b", "c", "d"], "b / c / d"), (["error 1", "error 2", "error 3", "error 4"], None)]
)
def test_three_lines_of_a_tool_are_told(program, lines, told):
    found = program("compile-check").reason("\n".join(lines))
    assert found == (told or "error 1 / error 2 / error 3")


def test_a_server_without_a_port_is_at_80(program, tmp_path):
    server = SimpleNamespace(service=SimpleNamespace(url="http://x", in_flight=[]))
    assert program("drain").Load(server, tmp_path).port == 80


@pytest.mark.parametrize(
    ("code", "words"),
    # CUDA_ERROR_NOT_INITIALIZED, NO_DEVICE, SYSTEM_NOT_READY, SYSTEM_DRIVER_MISMATCH, COMPAT_NOT_SUPPORTED_ON_DEVICE.
    [(3, "not initialised"), (100, "no card"), (802, "fabric"), (803, "mismatch"), (804, "forward compatibility")],
)
def test_what_cuda_answers_is_told_in_words(program, code, words):
    (line,) = program("ask-cuda").problems(code, 0, 1)
    assert words in line


def test_what_cannot_be_done_ends_in_1(program, capsys):
    helpers = program("rackserve_helpers.py")

    def fails() -> int:
        raise helpers.UnusableError("a sentence")

    with pytest.raises(SystemExit) as ended:
        helpers.run("health", fails)
    assert (ended.value.code, capsys.readouterr().err) == (1, "health: a sentence\n")


def test_a_mac_looks_after_a_server_by_the_same_numbers(program):
    text = (HELPERS.parent / "libexec-macos" / "health").read_text(encoding="utf-8")
    health = program("health")
    for name in ("LOOKS", "PROBE_S", "METRICS_S", "CPU_LEAST_S"):
        assert re.findall(rf"^{name.lower()}=(\d+)$", text, re.MULTILINE) == [str(getattr(health, name))]
