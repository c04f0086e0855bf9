"""ask-cuda, run as a program with a libcuda that is compiled for it: what it says, and what that means."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests import needs

pytestmark = needs.programs("gcc")
PROGRAM = Path(__file__).resolve().parents[2] / "templates" / "libexec" / "ask-cuda"
LIBRARY = """
int cuInit(unsigned f) {{ return {code}; }}
int cuDeviceGetCount(int *n) {{ *n = 2; return 0; }}
int cuDeviceGet(int *d, int n) {{ *d = n; return 0; }}
int cuDeviceTotalMem_v2(unsigned long *b, int d) {{ *b = (46068UL + d) << 20; return 0; }}
"""


def ask(folder: Path, count: int, code: int = 0) -> tuple[list[str], list[int]]:
    command = ["gcc", "-shared", "-fPIC", "-x", "c", "-o", str(folder / "libcuda.so.1"), "-"]
    subprocess.run(command, input=LIBRARY.format(code=code), text=True, check=True)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
    done = subprocess.run([PROGRAM, str(count)], capture_output=True, text=True, env=environment, check=True)
    problems, memory = json.loads(done.stdout)
    return problems, memory


def test_cards_and_their_memory_are_told(tmp_path):
    assert ask(tmp_path, 2) == ([], [46068, 46069])
    assert ask(tmp_path, 8) == (["CUDA sees 2 of 8 cards"], [46068, 46069])
    assert ask(tmp_path, 0) == ([], [46068, 46069])


@pytest.mark.parametrize(
    ("code", "words"), [(803, "driver/library mismatch"), (802, "fabric not ready"), (7, "CUresult")]
)
def test_a_code_of_cuinit_is_told_with_what_it_means(tmp_path, code, words):
    (line,), memory = ask(tmp_path, 2, code)
    assert line.startswith(f"cuInit: {code}, ")
    assert words in line
    assert memory == []
