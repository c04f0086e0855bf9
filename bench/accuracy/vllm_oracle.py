"""Record how much memory vLLM itself gives to weights and KV cache, for many configs, on a machine without a GPU.

Run inside an environment that holds the CPU build of vLLM (see README.md):

    python vllm_oracle.py --configs FOLDER --out results/vllm-0.32.0.json --tp 1,2,4,8

Each case runs in its own forked process, so a crash or a hang costs one row.  Rows already in the results file are
kept, so a run can be stopped and continued, and several runs with other options add up in one file.
"""

# Imports wait for the environment, and a command line prints.
# ruff: noqa: PLC0415, T201

from __future__ import annotations

import argparse
import fnmatch
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpu_emulation import emulate_gpu, prepare_environment
from vllm_case import Case, measure

CONFIG_SUFFIX = "_config.json"
QUANT_SUFFIX = "_hf_quant_config.json"
ERROR_LENGTH = 300
# What a shortened quantization file leaves out, filled with what NVIDIA's tool does by default.
ASSUMED = {"group_size": 16, "exclude_modules": ["lm_head"]}


def config_names(folder: Path, pattern: str) -> list[str]:
    """Model configs in the folder, without the quantization files that lie beside some of them."""
    names = [path.name for path in sorted(folder.glob("*" + CONFIG_SUFFIX))]
    return [name for name in names if not name.endswith(QUANT_SUFFIX) and fnmatch.fnmatch(name, pattern)]


def model_folder(configs: Path, name: str, target: Path) -> bool:
    """Lay out one config the way a model repository does; true if something had to be assumed."""
    assumed = False
    config = json.loads((configs / name).read_text())
    # Remote code would be downloaded; vLLM knows these architectures without it.
    config.pop("auto_map", None)
    quant = configs / name.replace(CONFIG_SUFFIX, QUANT_SUFFIX)
    if quant.exists():
        shutil.copy(quant, target / "hf_quant_config.json")
        assumed = name_method(config, json.loads(quant.read_text()))
    (target / "config.json").write_text(json.dumps(config))
    return assumed


def name_method(config: dict[str, Any], side: dict[str, Any]) -> bool:
    """Name the quantization method where a shortened file does not, or vLLM would build the model in 16 bit.

    The original checkpoints name it.  Rows of such configs carry the field `assumed`.
    """
    inline, quantization = config.get("quantization_config"), side["quantization"]
    if inline is not None:
        named = "quant_method" in inline
        inline.setdefault("quant_method", "modelopt")
        return not named
    if "producer" in side and quantization["quant_algo"] != "MIXED_PRECISION":
        return False
    config["quantization_config"] = {"quant_method": "modelopt", "quantization": {**ASSUMED, **quantization}}
    return True


def reason(error: BaseException) -> str:
    """The last meaningful line of an exception, short enough for a table."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # pydantic puts the message on its second or third line and a help link on the last one
    useful = [line for line in lines if not line.startswith("For further information")] or [""]
    message = next((line for line in useful if line.startswith("Value error")), useful[-1])
    return f"{type(error).__name__}: {message.split(' [type=')[0]}"[:ERROR_LENGTH]


def run_here(configs: Path, case: Case, connection: Any, verbose: bool) -> None:
    """Body of the child process: send back a row, or the reason why there is none."""
    folder = Path(tempfile.mkdtemp())
    try:
        assumed = model_folder(configs, case.config, folder)
        row = measure(str(folder), case) | ({"assumed": "quantization method"} if assumed else {})
    except BaseException as error:  # noqa: BLE001 - a refusal of any kind is a result here
        if verbose:
            import traceback

            traceback.print_exc()
        row = {"error": reason(error)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    connection.send(row)
    connection.close()


def run_case(configs: Path, case: Case, timeout: float, verbose: bool) -> dict[str, Any]:
    """Run one case in a fork of this process, which has vLLM imported already."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=run_here, args=(configs, case, sender, verbose))
    child.start()
    sender.close()
    try:
        row = receiver.recv() if receiver.poll(timeout) else {"error": f"timeout after {timeout:.0f} s"}
    except EOFError:
        row = {"error": "the process died without a message"}
    child.join(5)
    if child.is_alive():
        child.kill()
        child.join()
    return row


def identity(case: Case, configs: Path) -> dict[str, Any]:
    """The leading columns of a row; also filled for a case that fails."""
    config = json.loads((configs / case.config).read_text())
    return {
        "config": case.config,
        "architecture": (config.get("architectures") or [None])[0],
        "model_type": config.get("model_type"),
        "tp": case.tp,
        "pp": case.pp,
        "quantization": case.quantization,
        "kv_cache_dtype": case.kv_cache_dtype,
    }


def row_key(row: dict[str, Any]) -> tuple[Any, ...]:
    """The same key as `Case.key`, read from a row."""
    return tuple(row[name] for name in ("config", "tp", "pp", "quantization", "kv_cache_dtype"))


def load(path: Path) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Rows of an earlier run."""
    return {row_key(row): row for row in json.loads(path.read_text())} if path.exists() else {}


def save(path: Path, rows: dict[tuple[Any, ...], dict[str, Any]]) -> None:
    """Write one case per line, and never leave half a file behind."""
    ordered = sorted(rows.values(), key=lambda row: [str(part) for part in row_key(row)])
    text = "[\n" + ",\n".join(json.dumps(row, separators=(",", ":")) for row in ordered) + "\n]\n"
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """Every case asked for, TP by TP so that a stopped run has all configs for the small ones."""
    names = config_names(options.configs, options.only)
    for pp in options.pp:
        for tp in options.tp:
            for name in names:
                yield Case(name, tp, pp, options.quantization, options.kv_cache_dtype)


def numbers(text: str) -> list[int]:
    """Parse `1,2,4`."""
    return [int(part) for part in text.split(",")]


def parse(argv: list[str]) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", type=Path, required=True, help="folder of *_config.json files")
    parser.add_argument("--out", type=Path, required=True, help="results file, extended in place")
    parser.add_argument("--only", default="*", help="shell pattern on the file names")
    parser.add_argument("--tp", type=numbers, default=[1], help="tensor parallel sizes, as 1,2,4,8")
    parser.add_argument("--pp", type=numbers, default=[1], help="pipeline parallel sizes")
    parser.add_argument("--quantization", help="online quantization, as vllm serve --quantization")
    parser.add_argument("--kv-cache-dtype", default="auto")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds per case")
    parser.add_argument("--redo", choices=("none", "failed", "all"), default="none", help="rows to run again")
    parser.add_argument("--verbose", action="store_true", help="print the traceback of a failed case")
    return parser.parse_args(argv)


def wanted(row: dict[str, Any] | None, redo: str) -> bool:
    """Whether a case still has to run."""
    return row is None or redo == "all" or (redo == "failed" and "error" in row)


def main(argv: list[str]) -> int:
    """Run the cases and keep the results file current."""
    options = parse(argv)
    prepare_environment()
    import vllm.engine.arg_utils  # noqa: F401 - imported once here, inherited by every fork

    emulate_gpu()
    rows = load(options.out)
    for case in cases(options):
        if not wanted(rows.get(case.key()), options.redo):
            continue
        started = time.monotonic()
        result = run_case(options.configs, case, options.timeout, options.verbose)
        rows[case.key()] = {**identity(case, options.configs), **result}
        save(options.out, rows)
        gib = (result.get("weights_bytes", 0) + result.get("buffers_bytes", 0)) / (1 << 30)
        outcome = result.get("error") or f"{gib:.3f} GiB"
        print(f"{time.monotonic() - started:5.1f} s  tp={case.tp} pp={case.pp}  {case.config}: {outcome}", flush=True)
    return 0


if __name__ == "__main__":
    # vLLM binds threads at import; a child must not inherit a surprising count.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main(sys.argv[1:]))
