"""What `vllm serve ARGV...` would end with before it loads anything; questions and answers as in worker.py."""

from __future__ import annotations

from worker import answer_all  # isort: skip -- it takes standard output away from what is imported next

import torchvision_operators  # noqa: F401 -- before anything imports torchvision
import vllm.envs
from vllm import AsyncEngineArgs
from vllm.entrypoints.cli.serve import ServeSubcommand
from vllm.model_executor.models import registry
from vllm.usage.usage_lib import UsageContext
from vllm.utils.argparse_utils import FlexibleArgumentParser

# vLLM looks at a model's class in a process of its own, which takes 9 s to import what is imported here already.
registry._run_in_subprocess = lambda function: function()
COMMAND = ServeSubcommand()
PARSER = FlexibleArgumentParser()
SERVE = COMMAND.subparser_init(PARSER.add_subparsers(dest="subparser"))


def take(argv: list[str], environment: dict[str, str]) -> None:
    _read_variables(environment)
    args = PARSER.parse_args(["serve", *argv])
    COMMAND.validate(args)
    args.model = args.model_tag or args.model
    engine = AsyncEngineArgs.from_cli_args(args)
    config = engine.create_engine_config(usage_context=UsageContext.OPENAI_API_SERVER, headless=args.headless)
    scheduler, longest = config.scheduler_config, config.model_config.max_model_len
    if not scheduler.enable_chunked_prefill and scheduler.max_num_batched_tokens < longest:
        # It decides for some models by itself, after it has looked at the numbers.
        message = f"prompts are computed whole, {scheduler.max_num_batched_tokens} tokens of {longest} at most"
        raise ValueError(message)


def _read_variables(environment: dict[str, str]) -> None:
    """As --fail-on-environ-validation does, and their values are read."""
    known = vllm.envs.environment_variables
    ours = [name for name in environment if name.startswith("VLLM_")]
    unknown = [name for name in ours if name not in known]
    if unknown:
        message = f"unknown environment variables: {', '.join(unknown)}"
        raise ValueError(message)
    for name in ours:
        known[name]()


answer_all(set(SERVE._option_string_actions), take)
