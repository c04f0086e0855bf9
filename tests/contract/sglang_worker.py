"""What `python -m sglang.launch_server ARGV...` would end with; questions and answers as in worker.py."""

from __future__ import annotations

from worker import answer_all  # isort: skip -- it takes standard output away from what is imported next

import argparse

import torchvision_operators  # noqa: F401 -- before anything imports torchvision
from sglang.srt.configs.model_config import ModelConfig
from sglang.srt.layers import quantization
from sglang.srt.server_args import ServerArgs, prepare_server_args

# SGLang takes this one off its list where it finds no GPU.
quantization.QUANTIZATION_METHODS.setdefault("mxfp4", quantization.Mxfp4Config)

PARSER = argparse.ArgumentParser()
ServerArgs.add_cli_args(PARSER)


def take(argv: list[str], _: dict[str, str]) -> None:
    args = prepare_server_args(argv)
    model = ModelConfig.from_server_args(args)
    if args.chunked_prefill_size == -1 or (model.is_multimodal and not model.is_multimodal_chunked_prefill_supported):
        # It does so for some models by itself and refuses nothing: it runs out of memory at a long prompt.
        message = "prompts are computed whole, in memory that no plan has counted"
        raise ValueError(message)


answer_all(set(PARSER._option_string_actions), take)
