"""What both workers do: read questions, and say what a server would end with. Run by the runtimes' own Python.

One question a line on standard input, one answer a line on standard output, both JSON. {"ask": "options"} -> the names
that the server knows. {"ask": "check", "argv": [...], "environment": {...}} -> null where the server would go on to
load the model, else what it would end with. Nothing is loaded or listened to.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable

# What a runtime prints, while it is imported too, must not get between the answers.
_ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def answer_all(names: set[str], take: Callable[[list[str], dict[str, str]], None]) -> None:
    """names: every option that the server knows. take: does what it does with argv and environment before it loads."""
    for line in sys.stdin:
        question = json.loads(line)
        if question["ask"] == "options":
            answer: object = sorted(names)
        else:
            answer = _refusal(names, take, question["argv"], question["environment"])
        print(json.dumps(answer), file=_ANSWERS, flush=True)


def _refusal(
    names: set[str], take: Callable[[list[str], dict[str, str]], None], argv: list[str], environment: dict[str, str]
) -> str | None:
    # Parsers take abbreviations, which end to be any once another option begins likewise.
    unknown = [word for word in argv if word.startswith("--") and word.partition("=")[0] not in names]
    if unknown:
        return f"no such options: {' '.join(unknown)}"
    before, said = dict(os.environ), io.StringIO()
    os.environ.update(environment)
    try:
        with contextlib.redirect_stderr(said):
            take(argv, environment)
    except SystemExit:
        # Without the usage, which is above it and hundreds of lines long.
        return said.getvalue().rpartition(": error: ")[2].strip()
    except Exception as error:  # noqa: BLE001 -- whatever it is, the server would end with it
        return f"{type(error).__name__}: {error}"
    finally:
        # Variables are left for the processes that would be started.
        os.environ.clear()
        os.environ.update(before)
    return None
