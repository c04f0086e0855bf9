"""Every name in llama.cpp's option table exists in the llama-server of this machine, where there is one."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from rackserve.catalog.loader import load_catalog

PROGRAM = shutil.which("llama-server")
pytestmark = [
    pytest.mark.contract,
    pytest.mark.skipif(
        PROGRAM is None, reason="no llama-server on PATH; tests/runtimes compares with lists of its options"
    ),
]


def test_llama_server_knows_every_option_of_the_table():
    said = subprocess.run([PROGRAM, "--help"], capture_output=True, text=True, check=True).stdout
    known = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", said))
    settings = load_catalog().options["llama.cpp"].settings
    names = {spelling.name for spellings in settings.values() for spelling in spellings if spelling.name[:2] == "--"}
    assert names - known == set()
    assert len(names) > 30
