"""ask-intel, run as a program with loaders that are compiled for it: what they say reaches whoever asks."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests import needs

pytestmark = needs.programs("gcc")
PROGRAM = Path(__file__).resolve().parents[2] / "templates" / "libexec" / "ask-intel"
LEVEL_ZERO = """
int zeInit(unsigned f) {{ return {init}; }}
int zeDriverGet(unsigned *n, void **d) {{ *n = 2; if (d) {{ d[0] = (void *)0x1122334455667788; d[1] = 0; }} return 0; }}
int zeDeviceGet(void *d, unsigned *n, void **v) {{ *n = d == (void *)0x1122334455667788 ? 2 : 1; return 0; }}
"""
OPENCL = """
int clGetPlatformIDs(unsigned room, void **p, unsigned *n) {{ if (n) *n = {platforms}; return {code}; }}
int clGetDeviceIDs(void *p, unsigned long t, unsigned r, void **d, unsigned *n) {{ if (t == 4) *n = 3; return 0; }}
"""


def ask(folder: Path, count: int, level_zero: str = "", opencl: str = "") -> list[str]:
    for name, source in (("libze_loader.so.1", level_zero), ("libOpenCL.so.1", opencl)):
        if source:
            command = ["gcc", "-shared", "-fPIC", "-x", "c", "-o", str(folder / name), "-"]
            subprocess.run(command, input=source, text=True, check=True)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
    done = subprocess.run([PROGRAM, str(count)], capture_output=True, text=True, env=environment, check=True)
    problems, _ = json.loads(done.stdout)
    return list(problems)


def test_cards_of_all_drivers_and_platforms_are_counted(tmp_path):
    both = (LEVEL_ZERO.format(init=0), OPENCL.format(platforms=2, code=0))
    assert ask(tmp_path, 3, *both) == []
    assert ask(tmp_path, 7, *both) == ["Level Zero sees 3 of 7 cards", "OpenCL sees 6 of 7 cards"]


def test_an_interface_that_is_not_ready_says_its_code(tmp_path):
    assert ask(tmp_path, 1, LEVEL_ZERO.format(init=0x78000001), OPENCL.format(platforms=0, code=-1001)) == [
        "Level Zero: zeInit: 0x78000001: are libze-intel-gpu1 and intel-opencl-icd installed?",
        "OpenCL sees 0 of 1 cards",
    ]


def test_a_platform_that_fails_says_its_code(tmp_path):
    assert ask(tmp_path, 1, opencl=OPENCL.format(platforms=1, code=-6))[-1] == (
        "OpenCL: clGetPlatformIDs: -6: are libze-intel-gpu1 and intel-opencl-icd installed?"
    )


@pytest.mark.parametrize(("code", "answers"), [(-1, True), (-2, False), (-1000, False), (-1001, True), (-1002, False)])
def test_no_device_and_no_platform_are_answers(tmp_path, code, answers):
    told = ask(tmp_path, 1, opencl=OPENCL.format(platforms=0, code=code))[-1]
    assert (told == "OpenCL sees 0 of 1 cards") is answers
