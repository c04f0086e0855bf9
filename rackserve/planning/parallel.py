"""How one instance is split over GPUs: tensor parallel within, pipeline parallel where that does not divide. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from rackserve.domain.shape import AttentionCache, Shape
from rackserve.planning.request import HOST_GPUS
from rackserve.planning.weights import VOCAB_PADDING


@dataclass(frozen=True, slots=True)
class Parallel:
    """GPUs of one replica, and how many replicas the group of GPUs holds."""

    tensor: int
    pipeline: int
    replicas: int
    reason: str


ONE_GPU = "one GPU"


def tensor_parallel_problem(shape: Shape, tensor: int) -> str:
    """Why a model cannot be split this many ways, empty if it can: heads and vocabulary have to divide."""
    for name, number in shape.divisors:
        if number % tensor:
            return f"tensor parallel {tensor} does not divide {name} {number}"
    vocab = -(-shape.vocab // VOCAB_PADDING) * VOCAB_PADDING
    if vocab % tensor:
        return f"tensor parallel {tensor} does not divide the padded vocabulary {vocab}"
    heads = sorted(
        {cache.kv_heads for layer in shape.layers for cache in layer.caches if isinstance(cache, AttentionCache)}
    )
    for kv in heads:
        if kv % tensor and tensor % kv:
            return f"tensor parallel {tensor} and the {kv} KV heads do not divide one another"
    return ""


def decide(
    shape: Shape, gpus: int, tensor: int | None, pipeline: int | None, host_gpus: int = HOST_GPUS
) -> Parallel | str:
    """The split over `gpus` GPUs, or the sentence that says why there is none.

    Every layer waits for all of its tensor-parallel GPUs, so they share a host's NVLink or PCIe; more GPUs than
    `host_gpus` are in several hosts, and stages cross the network (vLLM's guide on parallelism).
    """
    if tensor is None:
        return _chosen(shape, gpus, pipeline, host_gpus)
    problem = tensor_parallel_problem(shape, tensor)
    if problem:
        return f"{problem}; {_suggestion(shape, gpus)}"
    stages = pipeline or 1
    return _checked(shape, gpus, tensor, stages, f"tensor parallel {tensor}, pipeline parallel {stages}: asked for")


def _chosen(shape: Shape, gpus: int, pipeline: int | None, host_gpus: int) -> Parallel | str:
    stages = pipeline or 1
    if gpus % stages:
        return f"pipeline parallel {stages} does not divide {gpus} GPUs"
    across = gpus // stages
    largest = min(across, host_gpus)
    # Ranks are handed out host by host: a group that does not divide a host's GPUs would reach into the next one.
    whole = host_gpus if gpus > host_gpus else across
    tensor = next(
        size
        for size in range(largest, 0, -1)
        if across % size == 0 and whole % size == 0 and not tensor_parallel_problem(shape, size)
    )
    if pipeline is not None:
        reason = f"tensor parallel {tensor} in each of {stages} stages"
        return _checked(shape, gpus, tensor, stages, reason)
    stages = across // tensor
    if stages == 1:
        reason = f"tensor parallel {tensor}: all {gpus} GPUs" if gpus > 1 else ONE_GPU
    else:
        within = f"tensor parallelism stays within the {host_gpus} GPUs of one host"
        why = tensor_parallel_problem(shape, across) or within
        reason = f"tensor parallel {tensor} x pipeline parallel {stages}: {why}"
    return _checked(shape, gpus, tensor, stages, reason)


def _checked(shape: Shape, gpus: int, tensor: int, pipeline: int, reason: str) -> Parallel | str:
    if pipeline > len(shape.layers):
        stages = f"pipeline parallel {pipeline} is more than the model's {len(shape.layers)} layers"
        return f"{gpus} GPUs do not divide among heads and layers: {stages}; {_suggestion(shape, gpus)}"
    if gpus % (tensor * pipeline):
        return f"tensor parallel {tensor} x pipeline parallel {pipeline} does not divide {gpus} GPUs"
    replicas = gpus // (tensor * pipeline)
    suffix = f", {replicas} replicas" if replicas > 1 else ""
    return Parallel(tensor, pipeline, replicas, reason + suffix)


def _suggestion(shape: Shape, gpus: int) -> str:
    sizes = [str(size) for size in range(1, gpus + 1) if not tensor_parallel_problem(shape, size)]
    return f"tensor parallel can be {', '.join(sizes[:8])}"
