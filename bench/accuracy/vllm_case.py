"""Build one model with vLLM's own code on the meta device and read off its memory.

Nothing here computes a size by a formula of ours: parameters come from vLLM's model class, KV pages from vLLM's
attention layers, block counts from vLLM's KV cache planner.  The module only makes a CPU build of vLLM take the
decisions it would take on one rank of a GPU server (see `emulate_gpu`).
"""

# vLLM is imported inside functions because the environment must be set first; its planner's parts are private names.
# ruff: noqa: PLC0415, SLF001

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_emulation import quantize_online

GIB = 1 << 30
FREE_GIB = (10, 20, 40)
MODEL_LENGTHS = (8192, 32768)
LONGEST_LENGTH = 131072
# What `vllm serve` picks on a GPU with at least 70 GiB; smaller cards get 2048.
BATCHED_TOKENS = 8192
# Batch sizes to try where the capacity depends on them.  Asynchronous scheduling, the default on GPUs, keeps two
# batches in flight, so 4096 stands for 8192 without it.
OTHER_BATCHED_TOKENS = (4096, 2048)


@dataclass(frozen=True)
class Case:
    """One row of the results: a config file and how it is served."""

    config: str
    tp: int = 1
    pp: int = 1
    quantization: str | None = None
    kv_cache_dtype: str = "auto"

    def key(self) -> tuple[Any, ...]:
        """What makes a row unique in the results file."""
        return (self.config, self.tp, self.pp, self.quantization, self.kv_cache_dtype)


def engine_config(folder: str, case: Case) -> Any:
    """The engine configuration `vllm serve` would build, with the CPU-only overrides taken back."""
    from vllm.engine.arg_utils import EngineArgs

    args = EngineArgs(
        model=folder,
        skip_tokenizer_init=True,
        load_format="dummy",
        enforce_eager=True,
        max_num_seqs=256,
        max_num_batched_tokens=BATCHED_TOKENS,
        tensor_parallel_size=case.tp,
        pipeline_parallel_size=case.pp,
        distributed_executor_backend="mp",
        gpu_memory_utilization=0.2,
        block_size=16,
        quantization=case.quantization,
        kv_cache_dtype=case.kv_cache_dtype,
    )
    config = args.create_engine_config()
    config.cache_config.user_specified_block_size = False
    config.scheduler_config.max_num_batched_tokens = BATCHED_TOKENS
    # Both are GPU defaults.  They put one batch more in flight than there are pipeline stages, and sliding windows
    # reserve for all tokens in flight.  The runner cannot be asked for earlier: creating the config would refuse it.
    config.scheduler_config.async_scheduling = True
    os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "1"
    return config


def start_one_rank(config: Any) -> None:
    """Start torch.distributed with a single process."""
    import vllm.distributed.parallel_state as state

    store = Path(tempfile.mkdtemp()) / "store"
    parallel = config.parallel_config
    tp, pp, world = parallel.tensor_parallel_size, parallel.pipeline_parallel_size, parallel.world_size
    # vLLM checks the group sizes against the world; this process is a world of one.
    parallel.tensor_parallel_size = parallel.pipeline_parallel_size = parallel.world_size = 1
    state.init_distributed_environment(1, 0, f"file://{store}", 0, "gloo")
    state.initialize_model_parallel(1, 1)
    parallel.tensor_parallel_size, parallel.pipeline_parallel_size, parallel.world_size = tp, pp, world


def pretend_rank(tp: int, pp: int, stage: int) -> None:
    """Make the one process look like tensor rank 0 of pipeline stage `stage`."""
    import vllm.distributed.parallel_state as state

    for name in ("_TP", "_EP", "_ETP"):
        group = getattr(state, name, None)
        if group is not None:
            group.world_size = tp
    state._PP.world_size = pp
    state._PP.ranks = list(range(pp))
    state._PP.rank = state._PP.rank_in_group = stage


def build_stage(config: Any, case: Case, stage: int) -> Any:
    """Build the model of one pipeline stage without allocating a byte."""
    import torch
    from vllm.model_executor.model_loader.utils import initialize_model
    from vllm.utils.torch_utils import set_default_torch_dtype

    pretend_rank(case.tp, case.pp, stage)
    config.compilation_config.static_forward_context.clear()
    with set_default_torch_dtype(config.model_config.dtype), torch.device("meta"):
        model = initialize_model(config)
        if case.quantization:
            quantize_online(model)
        return model


def nbytes(tensor: Any) -> int:
    """Bytes of a tensor's elements."""
    return tensor.numel() * tensor.element_size()


def unshared_bytes(tensors: Iterable[Any], seen: set[int]) -> int:
    """Bytes of the tensors whose storage is not in `seen` yet; some buffers are views of a parameter."""
    total = 0
    for tensor in tensors:
        storage = tensor.untyped_storage()._cdata
        if storage not in seen:
            seen.add(storage)
            total += nbytes(tensor)
    return total


def weigh(model: Any) -> dict[str, Any]:
    """Bytes of parameters, of buffers, and of other tensors hanging on the modules."""
    import torch

    by_dtype: Counter[str] = Counter()
    for parameter in model.parameters():
        by_dtype[str(parameter.dtype).removeprefix("torch.")] += nbytes(parameter)
    seen = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    attributes = (value for module in model.modules() for value in vars(module).values())
    return {
        "weights_bytes": sum(by_dtype.values()),
        "buffers_bytes": unshared_bytes(model.buffers(), seen),
        "other_tensor_bytes": unshared_bytes((item for item in attributes if isinstance(item, torch.Tensor)), seen),
        "params_by_dtype": dict(by_dtype),
    }


def settle_layout(config: Any) -> None:
    """Choose block size and KV layout as the engine core does once the model exists."""
    from vllm.distributed.kv_transfer.kv_connector.utils import get_current_attn_backends
    from vllm.platforms import current_platform
    from vllm.platforms.interface import Platform
    from vllm.v1.attention.backends.utils import get_supported_kv_cache_layouts, resolve_kv_cache_layout
    from vllm.v1.worker.gpu.attn_utils import get_kv_cache_spec

    # The base class holds the GPU rules; the CPU platform overrides them.
    Platform.update_block_size_for_backend.__func__(type(current_platform), config)
    layouts = [layout.name for layout in get_supported_kv_cache_layouts(get_current_attn_backends(config))]
    resolve_kv_cache_layout(config, [layouts], get_kv_cache_spec(config).values())


def describe_spec(spec: Any) -> dict[str, Any]:
    """The numbers of a KV cache spec that decide its size."""
    row = {"type": type(spec).__name__, "block_size": spec.block_size, "page_size_bytes": spec.page_size_bytes}
    for name in ("num_kv_heads", "head_size", "head_size_v", "sliding_window", "attention_chunk_size", "shapes"):
        value = getattr(spec, name, None)
        if value is not None:
            row[name] = value
    unpadded = getattr(spec, "real_page_size_bytes", None)
    if unpadded is not None and unpadded != spec.page_size_bytes:
        row["unpadded_page_bytes"] = unpadded
    dtypes = getattr(spec, "dtypes", None) or (spec.dtype,) if hasattr(spec, "dtype") else spec.dtypes
    row["dtype"] = ",".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
    return row


def describe_group(group: Any) -> list[dict[str, Any]]:
    """One row per distinct spec of a KV cache group; most groups have exactly one."""
    inner = getattr(group.kv_cache_spec, "kv_cache_specs", None)
    specs = list(inner.values()) if inner else [group.kv_cache_spec] * len(group.layer_names)
    counts = Counter(specs)
    return [{"layers": number, **describe_spec(spec)} for spec, number in counts.items()]


def set_length(config: Any, length: int, batched: int) -> None:
    """Change the context length and batch size of an existing configuration."""
    config.model_config.max_model_len = length
    config.scheduler_config.max_num_batched_tokens = batched
    if config.cache_config.mamba_cache_mode == "none" and config.cache_config.mamba_block_size is not None:
        config.cache_config.mamba_block_size = length


def capacity(config: Any, specs: list[dict[str, Any]], free_gib: int) -> dict[str, Any]:
    """What vLLM reports as KV cache size and concurrency for this much free memory on each rank."""
    from vllm.v1.core import kv_cache_utils as planner

    length, batched = config.model_config.max_model_len, config.scheduler_config.max_num_batched_tokens
    row: dict[str, Any] = {"free_gib": free_gib, "max_model_len": length}
    if batched != BATCHED_TOKENS:
        row["max_num_batched_tokens"] = batched
    try:
        configs = planner.get_kv_cache_configs(config, [dict(spec) for spec in specs], [free_gib * GIB] * len(specs))
    except ValueError as error:
        if "max seq len" not in str(error):
            raise
        return {**row, "error": "one request does not fit"}
    scheduler = planner.generate_scheduler_kv_cache_config(configs)
    tokens, concurrency = planner.get_kv_cache_capacity(config, scheduler)
    return {**row, "num_blocks": scheduler.num_blocks, "tokens": tokens, "max_concurrency": round(concurrency, 4)}


def recycles(specs: list[dict[str, Any]]) -> bool:
    """Whether some layer frees old tokens, which makes the capacity depend on the batch size."""
    fields = ("sliding_window", "attention_chunk_size")
    return any(getattr(spec, name, None) for stage in specs for spec in stage.values() for name in fields)


def measure_kv(config: Any, specs: list[dict[str, Any]], own_length: int) -> dict[str, Any]:
    """Groups, bytes per block, bytes per longest request, and capacities."""
    from vllm.v1.core import kv_cache_utils as planner

    lengths = sorted({min(own_length, LONGEST_LENGTH), *(n for n in MODEL_LENGTHS if n <= own_length)})
    result: dict[str, Any] = {"request_bytes": {}, "capacities": []}
    for batched in (BATCHED_TOKENS, *(OTHER_BATCHED_TOKENS if recycles(specs) else ())):
        for length in lengths:
            set_length(config, length, batched)
            result["capacities"] += [capacity(config, specs, free) for free in FREE_GIB]
    set_length(config, lengths[-1], BATCHED_TOKENS)
    merged = {name: spec for stage in specs for name, spec in stage.items()}
    groups = planner.get_kv_cache_groups(config, merged)
    result["kv_groups"] = [{"group": n, **row} for n, group in enumerate(groups) for row in describe_group(group)]
    result["groups"] = len(groups)
    result["bytes_per_block"] = planner._pool_bytes_per_block(config, groups) if groups else 0
    for length in lengths:
        set_length(config, length, BATCHED_TOKENS)
        result["request_bytes"][str(length)] = planner._max_memory_usage_bytes_from_groups(config, groups)
    layers = Counter(spec for stage in specs for spec in stage.values())
    result["kv_layers"] = [{"layers": number, **describe_spec(spec)} for spec, number in layers.items()]
    return result


def largest_stage(stages: list[dict[str, Any]]) -> dict[str, Any]:
    """The heaviest pipeline stage, with the weights of all stages beside it."""
    heaviest = dict(max(stages, key=lambda stage: stage["weights_bytes"]))
    if len(stages) > 1:
        heaviest["stage_weights_bytes"] = [stage["weights_bytes"] for stage in stages]
    return heaviest


def measure(folder: str, case: Case) -> dict[str, Any]:
    """All numbers of one case.  Raises what vLLM raises."""
    from vllm.config import set_current_vllm_config
    from vllm.v1.worker.gpu.attn_utils import get_kv_cache_spec

    config = engine_config(folder, case)
    model_config = config.model_config
    own_length = model_config.max_model_len
    row: dict[str, Any] = {
        "architecture": model_config.architecture,
        "model_type": model_config.hf_config.model_type,
        "resolved_quantization": model_config.quantization,
        "dtype": str(model_config.dtype).removeprefix("torch."),
    }
    stages: list[dict[str, Any]] = []
    specs: list[dict[str, Any]] = []
    with set_current_vllm_config(config):
        start_one_rank(config)
        for stage in range(case.pp):
            stages.append(weigh(build_stage(config, case, stage)))
            settle_layout(config)
            specs.append(get_kv_cache_spec(config))
        row.update(largest_stage(stages))
        cache = config.cache_config
        row["in_flight_tokens"] = config.max_in_flight_tokens
        row.update(block_size=cache.block_size, kv_layout=cache.kv_cache_layout, resolved_kv_dtype=cache.cache_dtype)
        row.update(measure_kv(config, specs, own_length))
    return row
