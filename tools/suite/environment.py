"""What a job, and git, may see of the environment that the run was started in."""

from __future__ import annotations

import re
from collections.abc import Mapping

# How git tells what it runs, a hook or a step of `git rebase -x`, which repository it is at work in: a git command of a
# test would write into that one.
GIT = "GIT_(DIR|WORK_TREE|INDEX_FILE|PREFIX|COMMON_DIR|NAMESPACE|(ALTERNATE_)?OBJECT_DIRECTOR(Y|IES))"
# What makes pytest run less than it is told to, or other code than this checkout's.
_PYTHONS = "PYTEST_.*|PYTHON(PATH|SAFEPATH|HOME|OPTIMIZE|WARNINGS)"
_DROPPED = re.compile(f"{GIT}|{_PYTHONS}")


def clean(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without what would change what is run."""
    return {name: value for name, value in environ.items() if not _DROPPED.fullmatch(name)}
