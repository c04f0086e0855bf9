"""Run by a Python that has what SGLang imports; questions and answers as in vllm_worker.py."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys

ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import torchvision_operators  # noqa: E402, F401 -- before anything imports torchvision
from sglang.srt.configs.model_config import ModelConfig  # noqa: E402
from sglang.srt.layers import quantization  # noqa: E402
from sglang.srt.server_args import ServerArgs, prepare_server_args  # noqa: E402

# SGLang takes this one off its list where it finds no GPU.
quantization.QUANTIZATION_METHODS.setdefault("mxfp4", quantization.Mxfp4Config)

PARSER = argparse.ArgumentParser()
ServerArgs.add_cli_args(PARSER)
NAMES = set(PARSER._option_string_actions)


def check(argv: list[str], environment: dict[str, str]) -> str | None:
    # As in vllm_worker.py.
    unknown = [word for word in argv if word.startswith("--") and word.partition("=")[0] not in NAMES]
    if unknown:
        return f"no such options: {' '.join(unknown)}"
    before, said = dict(os.environ), io.StringIO()
    os.environ.update(environment)
    try:
        with contextlib.redirect_stderr(said):
            ModelConfig.from_server_args(prepare_server_args(argv))
    except SystemExit:
        # Without the usage, which is above it and hundreds of lines long.
        return said.getvalue().rpartition(": error: ")[2].strip()
    except Exception as error:  # noqa: BLE001 -- whatever it is, the server would end with it
        return f"{type(error).__name__}: {error}"
    finally:
        os.environ.clear()
        os.environ.update(before)
    return None


for line in sys.stdin:
    question = json.loads(line)
    if question["ask"] == "options":
        answer: object = sorted(NAMES)
    else:
        answer = check(question["argv"], question["environment"])
    print(json.dumps(answer), file=ANSWERS, flush=True)
