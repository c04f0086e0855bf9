"""What the programs beside a service's unit have in common: arguments, service file, metrics, and how they are run."""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.libexec.helper_host import HELPERS, assert_refused

PROGRAMS = ["wait-ready", "drain", "health", "gpu-in-use"]


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, HELPERS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Its dataclass looks its own module up.
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, name, module)
        spec.loader.exec_module(module)
    return module


shared = load("rackserve_helpers")


@pytest.mark.parametrize(
    "name", ["", "Chat", "-", "--help-me", "chat-", "1chat", "../chat", "a/../b", "a" * 23, "chat\n", "ch at", "chät"]
)
def test_hostile_names_are_bad_arguments(host, name):
    assert_refused(host.run("health", name, "--root", str(host.root)), "health: ", 64)
    assert host.systemctl_calls == []


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("words", [["--root", "/nowhere"], ["chat", "more"], ["../chat"]])
def test_wrong_arguments_are_answered_with_the_usage(host, program, words):
    done = host.run(program, *words)
    assert done.returncode == 64
    assert done.stderr.startswith(f"usage: {program} NAME\n")


@pytest.mark.parametrize("name", ["a", "a1", "small-one", "a" * 22])
def test_names_of_services_are_taken(host, name):
    assert_refused(host.run("wait-ready", name, "--root", str(host.root)), f"/{name}.json cannot be read", 66)


@pytest.mark.parametrize("program", ["wait-ready", "health", "gpu-in-use"])
def test_a_missing_service_file_is_told(host, program):
    (host.root / "etc/rackserve/services/chat.json").unlink()
    assert_refused(host.run(program), "/etc/rackserve/services/chat.json cannot be read (FileNotFound", 66)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "other"}, "broken at name"),
        ({"url": "file:///etc/passwd"}, "broken at url"),
        ({"start_s": "10"}, "broken at start_s"),
        ({"gpus": ["0"], "in_flight": "x"}, "broken at in_flight, gpus"),
        ({"key_file": 3}, "broken at key_file"),
    ],
)
def test_a_broken_service_file_is_told_with_the_place(host, change, words):
    host.service(**change)
    assert_refused(host.run("wait-ready"), words, 66)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": "chat"', '{"name": "chat"}'])
def test_half_a_service_file_is_told(host, text):
    host.write("etc/rackserve/services/chat.json", text)
    assert_refused(host.run("wait-ready"), "cannot be read", 66)


def test_facts_that_a_later_rackserve_adds_are_no_error(server, host):
    host.service(later=1)
    assert host.run("wait-ready").returncode == 0
    assert server.asked


@pytest.mark.parametrize("program", ["wait-ready", "drain", "health"])
def test_proxies_of_the_environment_are_not_used(server, host, program):
    proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY", "all_proxy", "https_proxy"), "http://127.0.0.1:9")
    assert host.run(program, **proxies).returncode == 0
    assert server.asked


@pytest.mark.parametrize(
    "said", [b"SSH-2.0-OpenSSH_9.2\r\n", b"", b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nhalf"]
)
def test_something_else_behind_the_port_is_no_exception(host, said):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(said)

        threading.Thread(target=talk, daemon=True).start()
        host.service(url=f"http://127.0.0.1:{listener.getsockname()[1]}", start_s=1, drain_s=1)
        drained, ready, well = (host.run(program) for program in ("drain", "wait-ready", "health"))
        listener.shutdown(socket.SHUT_RDWR)
    assert drained.returncode == 0
    assert_refused(ready, "wait-ready:")
    assert_refused(well, "look 1 of 3")


def test_programs_run_isolated_and_leave_no_compiled_files(host):
    for program in (*PROGRAMS, "launch", "gpu-ready"):
        first = (host.libexec / program).read_text().splitlines()[0]
        assert first == "#!/usr/bin/python3 -IB"
        host.run(program)
    assert not list(host.libexec.glob("**/__pycache__"))


def test_a_module_in_the_working_folder_is_not_taken_for_ours(host, tmp_path):
    (tmp_path / "json.py").write_text("raise SystemExit('taken in')")
    command = [host.libexec / "wait-ready", "chat", "--root", host.root]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# metrics

NAMES = st.from_regex(r"[a-z][a-z_:]{0,6}", fullmatch=True)
VALUES = st.integers(-(10**6), 10**6)


def exposed(name: str, labels: dict[str, str], value: int, stamp: int | None) -> str:
    """A sample as Prometheus' text format has it; quotes, backslashes and line feeds are escaped."""
    escaped = {key: text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for key, text in labels.items()}
    inside = ",".join(f'{key}="{text}"' for key, text in escaped.items())
    return f"{name}{{{inside}}} {value}{'' if stamp is None else f' {stamp}'}" if labels else f"{name} {value}"


@given(
    st.lists(
        st.tuples(
            NAMES,
            st.dictionaries(NAMES, st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"])), max_size=3),
            VALUES,
            st.none() | st.integers(0, 2**40),
        ),
        max_size=8,
    ),
    st.sets(NAMES, max_size=3),
)
def test_samples_are_summed_over_all_label_sets(samples, others):
    wanted = {name for name, *_ in samples[::2]} | others
    text = "\n".join(["# HELP x y", *(exposed(*sample) for sample in samples), "", "broken {", "x_total NaN"])
    expected: dict[str, float] = {}
    for name, _, value, _ in samples:
        if name in wanted:
            expected[name] = expected.get(name, 0) + value
    assert shared.totals(text, wanted) == expected


@given(st.text())
def test_no_text_breaks_the_reading_of_metrics(text):
    assert set(shared.totals(text, ["x"])) <= {"x"}


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda part: st.lists(part, max_size=3)))
def test_no_answer_of_a_server_breaks_its_reading(answer):
    said = shared.Answer(200, json.dumps({"model": "chat", "usage": answer, "choices": answer}))
    assert shared._wrong(said, "chat").startswith("completion: ")


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        (tmp_path / "run/rackserve").mkdir(parents=True, exist_ok=True)
        (tmp_path / "run/rackserve/gpus.json").write_text(text)
        return tmp_path

    return write


CARD = {"address": "0000:41:00.0", "uuid": "GPU-a", "node": "/dev/nvidia0", "vendor": "nvidia"}


def test_cards_are_found_by_their_numbers(written):
    root = written(json.dumps([CARD, CARD | {"uuid": "GPU-b"}]))
    assert shared.cards_of([1], root)[1]["uuid"] == "GPU-b"
    with pytest.raises(shared.UnusableError, match="no GPU 2: gpu-ready has found 2"):
        shared.cards_of([0, 2], root)


@pytest.mark.parametrize("text", ["", "{", "[1]", '[{"address": "x"}]', "3"])
def test_half_a_list_of_cards_is_told(written, text):
    with pytest.raises(shared.UnusableError, match="systemctl status gpu-ready"):
        shared.cards_of([0], written(text))
