"""The environment of the tests: the same one, whatever the shell that started them has set."""

from __future__ import annotations

import os
import re

from tools.suite.environment import GIT

# Which lab, box or machine the operator is at work with, how the terminal is drawn, and what a unit gives our programs.
_OPERATORS = re.compile(
    r"RACKSERVE_(LAB|LAB_BACKEND|BOX|BOX_KEY|DRIVER|USER|GROUP|GPU|DIGEST)|VAGRANT_.*|LC_.*|LANGUAGE"
    r"|COLUMNS|LINES|(NO|FORCE)_COLOR|CLICOLOR(_FORCE)?|CUDA_.*|HIP_.*|ROCR_.*|HF_.*|NOTIFY_SOCKET|CURL_HOME"
    r"|PYTHON(UTF8|IOENCODING|WARNINGS|OPTIMIZE|STARTUP)"
    rf"|{GIT}"
)
# How this machine reaches mirrors, and where it keeps things.
_MACHINES = re.compile(
    r"RACKSERVE_LAB_(HOME|CACHE|MIRROR)|XDG_.*|(PIP|UV|NPM|NODE|SSL|REQUESTS)_.*|CURL_CA_BUNDLE"
    r"|(?i:(all|no|ftp|http|https)_proxy)"
)
_SETTLED = {"LANG": "C.UTF-8", "TZ": "UTC", "TERM": "dumb"}
_UMASK = 0o022
# Marks of the tests that may need the machine's mirrors, or keep what they made.
REACHING = frozenset({"lab", "build", "contract", "accuracy", "vagrant"})


def settle() -> None:
    """Make this process's environment the one of the tests: nothing of the operator's is in it."""
    for name in list(os.environ):
        if _OPERATORS.fullmatch(name):
            del os.environ[name]
    os.environ.update(_SETTLED)
    os.umask(_UMASK)


def of_the_machine() -> list[str]:
    """What only the tests with one of the marks REACHING see of the environment."""
    return [name for name in os.environ if _MACHINES.fullmatch(name)]
