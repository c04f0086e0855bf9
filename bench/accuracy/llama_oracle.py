"""Record what llama.cpp itself says about the memory that models take, on a machine without a GPU and without weights.

For each case `llama-fit-params` reads a GGUF file with a real header and no weights, builds llama.cpp's compute graphs
and prints the MiB of weights, context and compute buffer of each device. Run it so:

    python -m bench.accuracy.llama_oracle --configs .../aiconfigurator_core/model_configs --bin .../llama.cpp/build/bin

With a `ggml-rpc-server` beside `llama-fit-params` (cmake -DGGML_RPC=ON), cases with GPU layers are recorded too:
llama.cpp treats an RPC server on this machine like a GPU, so it shows what `--gpu-layers` moves and what stays.

With a `llama-fit-params-server` beside it (see fit_params_server.patch), the compute buffers of llama-server itself are
recorded as well, and cases with one KV cache for all slots.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.accuracy.gguf_shapes import Shape, shape_of
from bench.accuracy.llama_models import MAIN_QUANTIZATION, MODELS, ONLY_MXFP4, OTHER_QUANTIZATIONS
from bench.accuracy.sparse_gguf import Placed, write_sparse_gguf

RESULTS = Path(__file__).parent / "results" / "llamacpp.json"
RPC_ADDRESS = "127.0.0.1"
TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class Case:
    """The arguments of one run. `ctx` counts all slots together, as llama-server's --ctx-size does."""

    ctx: int
    slots: int = 1
    kv_type: str = "f16"
    ubatch: int = 512
    unified: bool = False
    swa_full: bool = False
    flash: bool = True
    gpu_layers: int | None = None
    cpu_moe: bool = False

    def arguments(self) -> list[str]:
        """For llama-fit-params. The logical batch is as large as the physical one, which it limits."""
        result = ["-c", self.ctx, "-np", self.slots, "-ctk", self.kv_type, "-ctv", self.kv_type]
        result += ["-b", max(2048, self.ubatch), "-ub", self.ubatch, "-fa", "on" if self.flash else "off"]
        result += ["--swa-full"] if self.swa_full else []
        result += [] if self.gpu_layers is None else ["-ngl", self.gpu_layers]
        result += ["--cpu-moe"] if self.cpu_moe else []
        return [str(argument) for argument in result]

    def record(self) -> dict[str, Any]:
        """The four main settings, and the others where they are not the default."""
        result: dict[str, Any] = {
            "ctx": self.ctx,
            "slots": self.slots,
            "kv_type": self.kv_type,
            "ubatch": self.ubatch,
        }
        others = {"unified": False, "swa_full": False, "flash": True, "gpu_layers": None, "cpu_moe": False}
        return result | {name: getattr(self, name) for name, usual in others.items() if getattr(self, name) != usual}


MAIN_CASES = (
    Case(4096),
    Case(4096, slots=4, ubatch=2048),
    Case(16_384, kv_type="q8_0"),
    Case(16_384, slots=4),
    Case(16_384, slots=4, unified=True, kv_type="q8_0", ubatch=2048),
    Case(65_536),
    Case(65_536, kv_type="q8_0", ubatch=2048),
    Case(65_536, slots=4, kv_type="q8_0", ubatch=2048),
)
# A context that is no multiple of 256, neither as a whole nor for each slot.
PADDED_CASES = (Case(5000), Case(5000, slots=3))
WITHOUT_FLASH_CASES = (Case(16_384, flash=False), Case(4096, slots=4, ubatch=2048, flash=False))
SWA_CASES = (
    Case(16_384, swa_full=True),
    Case(65_536, slots=4, unified=True),
    Case(65_536, slots=4, unified=True, ubatch=2048),
)
PADDED_MODELS = frozenset({"Llama 3.1 8B", "Gemma 3 27B", "DeepSeek V3", "Qwen3.5 27B"})
WITHOUT_FLASH_MODELS = PADDED_MODELS | {"gpt-oss 20B", "Qwen3 30B A3B", "Gemma 4 26B A4B"}
GPU_MODELS = WITHOUT_FLASH_MODELS | {"Llama 3.1 70B", "Qwen3 8B", "Gemma 4 26B A4B", "Command R 35B"}


def main() -> None:
    """Write RESULTS."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", type=Path, required=True, help="folder with NAME_config.json files")
    parser.add_argument("--bin", type=Path, required=True, help="folder with llama-fit-params")
    parser.add_argument("--rpc-port", type=int, default=50_052, help="a free port for the RPC server")
    options = parser.parse_args()
    models: dict[str, Any] = {}
    cases: list[dict[str, Any]] = []
    with _rpc_server(options.bin, options.rpc_port) as rpc, tempfile.TemporaryDirectory() as folder:
        programs = _Programs(options.bin, rpc)
        for name, source in MODELS.items():
            shape = shape_of(_config(options.configs, source))
            models[name] = {"architecture": shape.architecture, "metadata": shape.metadata, "tensor_bytes": {}}
            for quantization in _quantizations(name):
                path = Path(folder) / "model.gguf"
                placed = write_sparse_gguf(path, shape, quantization)
                models[name]["tensor_bytes"][quantization] = _weight_facts(placed, shape.layers)
                for case in filter(programs.can, _cases(name, quantization, shape)):
                    head = {"model": name, "quantization": quantization, "file_bytes": path.stat().st_size}
                    cases.append(head | case.record() | programs.measure(path, case))
            print(f"{name}: {len(cases)} cases")  # noqa: T201 - progress of a script
        _write(programs.version(), models, cases)


def _config(folder: Path, source: str | dict[str, Any]) -> dict[str, Any]:
    if isinstance(source, dict):
        return source
    config: dict[str, Any] = json.loads((folder / f"{source}_config.json").read_text())
    return config


def _quantizations(model: str) -> tuple[str, ...]:
    return ("MXFP4",) if model in ONLY_MXFP4 else (MAIN_QUANTIZATION, *OTHER_QUANTIZATIONS)


def _cases(model: str, quantization: str, shape: Shape) -> Iterator[Case]:
    if quantization in OTHER_QUANTIZATIONS:
        yield Case(4096)
        return
    yield from MAIN_CASES
    yield from PADDED_CASES if model in PADDED_MODELS else ()
    yield from WITHOUT_FLASH_CASES if model in WITHOUT_FLASH_MODELS else ()
    yield from SWA_CASES if "attention.sliding_window" in shape.metadata else ()
    yield from _gpu_cases(shape) if model in GPU_MODELS else ()


def _gpu_cases(shape: Shape) -> Iterator[Case]:
    layers = shape.layers
    for gpu_layers in (0, 1, layers // 2, layers, layers + 1):
        yield Case(16_384, gpu_layers=gpu_layers)
    yield Case(16_384, slots=4, ubatch=2048, gpu_layers=layers + 1)
    if "expert_count" in shape.metadata:
        yield Case(16_384, gpu_layers=layers + 1, cpu_moe=True)


def _weight_facts(placed: list[Placed], layers: int) -> dict[str, int | list[int]]:
    """Bytes of all tensors, of each layer, and of those that matter by themselves when layers go to a GPU."""
    sizes = {tensor.name: tensor.size for tensor in placed}
    by_layer = [0] * layers
    for name, size in sizes.items():
        if name.startswith("blk."):
            by_layer[int(name.split(".")[1])] += size
    return {
        "total": sum(sizes.values()),
        "token_embd": sizes["token_embd.weight"],
        "output": sizes.get("output.weight", 0),
        "output_norm": sizes["output_norm.weight"],
        "experts": sum(size for name, size in sizes.items() if re.search(r"_exps\.", name)),
        "largest": max(size for name, size in sizes.items() if name != "token_embd.weight"),
        "layers": by_layer,
    }


class _Programs:
    """llama-fit-params, and what lies beside it."""

    def __init__(self, folder: Path, rpc: str | None) -> None:
        self._plain = folder / "llama-fit-params"
        patched = folder / "llama-fit-params-server"
        self._patched = patched if patched.exists() else None
        self._rpc = rpc

    def can(self, case: Case) -> bool:
        """Whether the programs at hand can measure `case`."""
        return (self._patched is not None or not case.unified) and (self._rpc is not None or case.gpu_layers is None)

    def measure(self, model: Path, case: Case) -> dict[str, Any]:
        """MiB, rounded down by the program: `gpu_mib` is model, context, compute, and the server's compute."""
        plain = self._run(model, case, outputs=None)
        if isinstance(plain, str):
            return {"error": plain}
        result: dict[str, Any] = dict(zip(("model_mib", "context_mib", "compute_mib"), plain["Host"], strict=True))
        server = self._run(model, case, outputs=case.slots) if self._patched else None
        if isinstance(server, dict):
            result["server_compute_mib"] = server["Host"][2]
        if "RPC0" in plain:
            result["gpu_mib"] = plain["RPC0"] + (server["RPC0"][2:] if isinstance(server, dict) else [])
        return result

    def version(self) -> str:
        """The first line of what llama-fit-params says about itself."""
        done = subprocess.run([self._plain, "--version"], capture_output=True, text=True, check=True)
        return (done.stdout + done.stderr).splitlines()[0]

    def _run(self, model: Path, case: Case, outputs: int | None) -> dict[str, list[int]] | str:
        """By device, the MiB of model, context and compute; or what went wrong."""
        program, variables = self._plain, {}
        if self._patched and (case.unified or outputs is not None):
            program = self._patched
            variables = {"ORACLE_UNIFIED": "1"} if case.unified else {}
            variables |= {} if outputs is None else {"ORACLE_OUTPUTS": str(outputs)}
        # Repacked weights are not counted unless repacking is off.
        command = [str(program), "-m", str(model), "-nr", "-fitp", "on", *case.arguments()]
        if case.gpu_layers is not None and self._rpc:
            command += ["--rpc", self._rpc]
        environment = {**os.environ, **variables}
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, env=environment)
        lines = re.findall(r"^(Host|RPC\d+) (\d+) (\d+) (\d+) *$", done.stdout, re.MULTILINE)
        if not lines:
            return " ".join((done.stdout + done.stderr).split())[-300:]
        return {device: [int(number) for number in numbers] for device, *numbers in lines}


@contextmanager
def _rpc_server(folder: Path, port: int) -> Iterator[str | None]:
    """The address of an RPC server that stands in for a GPU, or None without the program for it."""
    program = folder / "ggml-rpc-server"
    if not program.exists():
        yield None
        return
    process = subprocess.Popen([program, "-H", RPC_ADDRESS, "-p", str(port)], stdout=subprocess.DEVNULL)
    try:
        # It takes no option to say when it listens.
        time.sleep(1)
        yield f"{RPC_ADDRESS}:{port}"
    finally:
        process.terminate()
        process.wait()


def _write(version: str, models: dict[str, Any], cases: list[dict[str, Any]]) -> None:
    """One line for each model and case, which keeps differences between runs readable."""
    lines = [f'{{"llama_cpp": {json.dumps(version)},', '"models": {']
    lines += [",\n".join(f"{json.dumps(name)}: {json.dumps(facts)}" for name, facts in models.items()), "},"]
    lines += ['"cases": [', ",\n".join(json.dumps(case) for case in cases), "]}"]
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
