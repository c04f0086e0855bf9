"""What tests/conftest.py does to every test, tried on small ones in a process of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PASSES = "def test_passes():\n    assert sorted([2, 1]) == [1, 2]\n"
SKIPS = "import pytest\n\ndef test_skips():\n    pytest.skip('no shellcheck here')\n"
NOTHING_TO_ASK = """
from tests import needs

@needs.does_not_arise(True, "this machine has no cards")
def test_cards():
    assert False
"""
HOSTILE = {
    "RACKSERVE_LAB": "nobodys",
    "RACKSERVE_LAB_HOME": "/nonexistent/home",
    "RACKSERVE_LAB_CACHE": "/nonexistent/cache",
    "RACKSERVE_BOX": "another/box",
    "RACKSERVE_DIGEST": "0" * 64,
    "XDG_CACHE_HOME": "/nonexistent/cache",
    "XDG_STATE_HOME": "/nonexistent/state",
    "XDG_CONFIG_HOME": "/nonexistent/config",
    "HOME": "/nonexistent",
    "LANG": "tr_TR.UTF-8",
    "LC_ALL": "C",
    "TZ": "Asia/Kathmandu",
    "COLUMNS": "20",
    "FORCE_COLOR": "1",
    "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
    "PIP_REQUIRE_VIRTUALENV": "1",
    "UV_OFFLINE": "1",
    "http_proxy": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "ALL_PROXY": "socks5://127.0.0.1:9",
    "CUDA_VISIBLE_DEVICES": "7",
    "GIT_DIR": "/nonexistent/.git",
    "GIT_WORK_TREE": "/nonexistent",
    "GIT_INDEX_FILE": "/nonexistent/.git/index",
}
# What reads most of the environment: the command line, the settings, the lab's names, programs that are called.
SAMPLE = ("tests/settings", "tests/labunit", "tests/cli/test_example.py", "tests/cli/test_refusals.py", "tests/checks")


def pytest_of(folder: Path, text: str, **environ: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_it.py").write_text(text)
    return subprocess.run(
        [*_COMMAND, str(folder / "test_it.py")],
        cwd=ROOT,
        env={**_environ(), **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


_COMMAND = (
    sys.executable,
    "-m",
    "pytest",
    "-q",
    "-p",
    "no:cacheprovider",
    "-p",
    "tests.conftest",
    "-c",
    "pyproject.toml",
)


def _environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in {"CI", "RACKSERVE_REQUIRE_ALL"}}


@pytest.mark.parametrize("name", ["RACKSERVE_REQUIRE_ALL", "CI"])
def test_a_skip_is_a_failure_where_everything_is_required(tmp_path, name):
    done = pytest_of(tmp_path, PASSES + SKIPS, **{name: "1"})
    assert done.returncode == 1, done.stdout
    assert "no shellcheck here, and everything is required here" in done.stdout
    assert "1 failed, 1 passed" in done.stdout


@pytest.mark.parametrize("value", ["", "0", "false"])
def test_a_skip_is_a_skip_elsewhere(tmp_path, value):
    done = pytest_of(tmp_path, PASSES + SKIPS, CI=value)
    assert (done.returncode, "1 passed, 1 skipped" in done.stdout) == (0, True), done.stdout


def test_a_question_that_does_not_arise_is_no_failure(tmp_path):
    done = pytest_of(tmp_path, PASSES + NOTHING_TO_ASK, CI="1")
    assert (done.returncode, "1 passed, 1 skipped" in done.stdout) == (0, True), done.stdout


def test_nor_is_a_run_that_has_nothing_else_to_ask(tmp_path):
    done = pytest_of(tmp_path, NOTHING_TO_ASK, CI="1")
    assert (done.returncode, "1 skipped" in done.stdout) == (0, True), done.stdout


def test_a_module_that_skips_itself_is_a_failure_where_everything_is_required(tmp_path):
    done = pytest_of(tmp_path, "import pytest\n\npytest.importorskip('nowhere_to_be_found')\n", CI="1")
    assert done.returncode != 0
    assert "everything is required here" in done.stdout


def test_a_run_in_which_everything_was_skipped_fails(tmp_path):
    done = pytest_of(tmp_path, SKIPS)
    assert done.returncode == 1, done.stdout
    assert "everything was skipped" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_fixtures_clean_up_behind_a_run_that_is_interrupted(tmp_path, number):
    up, gone = tmp_path / "up", tmp_path / "gone"
    (tmp_path / "test_it.py").write_text(
        "import time\nfrom pathlib import Path\nimport pytest\n\n@pytest.fixture(scope='module')\ndef lab():\n"
        f"    Path({str(up)!r}).touch()\n    yield\n    Path({str(gone)!r}).touch()\n\n"
        "def test_it(lab):\n    time.sleep(300)\n    assert lab\n"
    )
    with subprocess.Popen([*_COMMAND, str(tmp_path / "test_it.py")], cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        try:
            while not up.exists():
                assert process.poll() is None
                time.sleep(0.1)
            process.send_signal(number)
            assert process.wait(120) == pytest.ExitCode.INTERRUPTED
        finally:
            process.kill()
    assert gone.exists()


def hostile(*arguments: str) -> subprocess.CompletedProcess[str]:
    """pytest from another folder, with another umask, in an environment that is against it."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(str(ROOT / path) for path in arguments)],
        cwd="/",
        env={**_environ(), **HOSTILE},
        umask=0o077,
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )


def test_tests_of_settings_do_not_see_the_shell_that_started_them():
    done = hostile("tests/labunit/test_box.py", "tests/cli/test_example.py", "tests/tools/test_code.py")
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.full
def test_no_test_sees_the_shell_that_started_it():
    done = hostile(*SAMPLE)
    assert done.returncode == 0, done.stdout[-3000:]
