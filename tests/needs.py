"""What a test needs of the machine, and what it means that it is not there.

`make test` and CI promise everything, and say so by RACKSERVE_REQUIRE_ALL or CI: there a skipped test is a failed one
(tests/conftest.py). A program that is missing would otherwise take its tests with it, unseen.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping

import pytest

from tools.suite.results import DOES_NOT_ARISE

_NO = {"", "0", "false", "no"}


def programs(*names: str) -> pytest.MarkDecorator:
    """A mark: the test runs these programs."""
    return _having(_missing(names))


def root(*names: str) -> pytest.MarkDecorator:
    """A mark: the test does what only root may, with these programs."""
    return _having([*(["root's rights"] if os.geteuid() != 0 else []), *_missing(names)])


def each_of(*names: str) -> list[object]:
    """Parameters: the test is run with each of these programs."""
    return [pytest.param(name, marks=programs(name)) for name in names]


def _missing(names: Iterable[str]) -> list[str]:
    return [name for name in names if shutil.which(name) is None]


def _having(missing: list[str]) -> pytest.MarkDecorator:
    return pytest.mark.skipif(bool(missing), reason=f"not here: {', '.join(missing)}")


def does_not_arise(condition: bool, why: str) -> pytest.MarkDecorator:
    """A mark: on a machine like this one there is nothing to ask, and that is no failure anywhere."""
    return pytest.mark.skipif(condition, reason=DOES_NOT_ARISE + why)


def all_required(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a skipped test is a failed one."""
    return any(environ.get(name, "").lower() not in _NO for name in ("RACKSERVE_REQUIRE_ALL", "CI"))
