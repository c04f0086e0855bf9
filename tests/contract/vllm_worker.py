"""Run by vLLM's own Python: reads one question a line on standard input, answers one line each, both JSON.

{"ask": "options"} -> the names that `vllm serve` knows. {"ask": "check", "argv": [...], "environment": {...}} -> null
where `vllm serve ARGV...` would go on to load the model, else what it would end with. Nothing is loaded or listened to.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys

# What vLLM prints must not get between the answers.
ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import torchvision_operators  # noqa: E402, F401 -- before anything imports torchvision
import vllm.envs  # noqa: E402
from vllm import AsyncEngineArgs  # noqa: E402
from vllm.entrypoints.cli.serve import ServeSubcommand  # noqa: E402
from vllm.model_executor.models import registry  # noqa: E402
from vllm.usage.usage_lib import UsageContext  # noqa: E402
from vllm.utils.argparse_utils import FlexibleArgumentParser  # noqa: E402

# vLLM looks at a model's class in a process of its own, which takes 9 s to import what is imported here already.
registry._run_in_subprocess = lambda function: function()
COMMAND = ServeSubcommand()
PARSER = FlexibleArgumentParser()
SERVE = COMMAND.subparser_init(PARSER.add_subparsers(dest="subparser"))


NAMES = set(SERVE._option_string_actions)


def check(argv: list[str], environment: dict[str, str]) -> str | None:
    # The parser takes abbreviations, which end to be any once another option begins likewise.
    unknown = [word for word in argv if word.startswith("--") and word.partition("=")[0] not in NAMES]
    if unknown:
        return f"no such options: {' '.join(unknown)}"
    before, said = dict(os.environ), io.StringIO()
    os.environ.update(environment)
    try:
        with contextlib.redirect_stderr(said):
            _unknown_variables(environment)
            args = PARSER.parse_args(["serve", *argv])
            COMMAND.validate(args)
            args.model = args.model_tag or args.model
            engine = AsyncEngineArgs.from_cli_args(args)
            engine.create_engine_config(usage_context=UsageContext.OPENAI_API_SERVER, headless=args.headless)
    except SystemExit:
        # Without the usage, which is above it and hundreds of lines long.
        return said.getvalue().rpartition(": error: ")[2].strip()
    except Exception as error:  # noqa: BLE001 -- whatever it is, the server would end with it
        return f"{type(error).__name__}: {error}"
    finally:
        # The platform leaves variables for the processes that it would start.
        os.environ.clear()
        os.environ.update(before)
    return None


def _unknown_variables(environment: dict[str, str]) -> None:
    """As --fail-on-environ-validation does, and their values are read."""
    known = vllm.envs.environment_variables
    ours = [name for name in environment if name.startswith("VLLM_")]
    unknown = [name for name in ours if name not in known]
    if unknown:
        message = f"unknown environment variables: {', '.join(unknown)}"
        raise ValueError(message)
    for name in ours:
        known[name]()


for line in sys.stdin:
    question = json.loads(line)
    if question["ask"] == "options":
        answer: object = sorted(NAMES)
    else:
        answer = check(question["argv"], question["environment"])
    print(json.dumps(answer), file=ANSWERS, flush=True)
