"""Which layers each GPU holds in llama.cpp's split by layers, and the bytes of any run of them. Pure.

The last layers go to the GPUs, and the output matrix counts as one layer after them (llama-model.cpp, load_tensors).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rackserve.domain.shape import AttentionCache, LatentCache, Layer, Shape, StateCache
from rackserve.planning.gguf_weights import GgufWeights, layer_shares
from rackserve.planning.memory import KV_BYTES_PER_ELEMENT, STATE_BYTES, cache_elements, kept_cells, window_of


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes on one GPU. per_token: of each token in its layers that keep every token."""

    weights: float
    context: float
    per_token: float


@dataclass(frozen=True, slots=True)
class Run:
    """The layers of one GPU, from `first` up to `end`, and whether the output matrix follows them."""

    first: int
    end: int
    output: bool


@dataclass(frozen=True, slots=True)
class LayerSums:
    """What the layers before each one take together, so that any run of layers is a subtraction.

    weights: bytes. states: bytes of one slot, whatever its length. elements: of one token, by the tokens that a layer
    looks back (0: all of them).
    """

    weights: tuple[float, ...]
    states: tuple[float, ...]
    elements: tuple[tuple[int, tuple[float, ...]], ...]

    def weights_of(self, first: int, end: int) -> float:
        """Bytes of the weights of a run of layers."""
        return self.weights[end] - self.weights[first]

    def context_of(self, first: int, end: int, cells: tuple[tuple[int, float], ...], slots: int) -> float:
        """Bytes of the context of a run of layers. cells: bytes that a slot keeps of one element, by window."""
        kept = sum((sums[end] - sums[first]) * size for (_, sums), (_, size) in zip(self.elements, cells, strict=True))
        return slots * (kept + self.states[end] - self.states[first])

    def cells(self, kv_cache_dtype: str, length: int, ubatch: int) -> tuple[tuple[int, float], ...]:
        """Bytes that a slot keeps of one element, by window."""
        item = KV_BYTES_PER_ELEMENT[kv_cache_dtype]
        return tuple((window, kept_cells(window, length, ubatch) * item) for window, _ in self.elements)

    def per_token(self, first: int, end: int, kv_cache_dtype: str) -> float:
        """Bytes of each token in the layers of a run that keep every token."""
        item = KV_BYTES_PER_ELEMENT[kv_cache_dtype]
        return sum((sums[end] - sums[first]) * item for window, sums in self.elements if not window)


def layer_sums(shape: Shape, quantization: str, weights: GgufWeights) -> LayerSums:
    """The sums of a model with this file."""
    windows = sorted({window_of(cache) for cache in shape.caches if isinstance(cache, AttentionCache | LatentCache)})
    return LayerSums(
        weights=_sums(weights.layers * share for share in layer_shares(shape, quantization)),
        states=_sums(_state_bytes(layer) for layer in shape.layers),
        elements=tuple((window, _sums(_elements(layer, window) for layer in shape.layers)) for window in windows),
    )


def runs(layers: int, on_gpus: int, gpus: int) -> Iterator[Run]:
    """The run of each GPU that holds something, with the last `on_gpus` of all layers on equal shares of the GPUs."""
    entries, first = on_gpus + 1, layers - on_gpus
    for number in range(gpus):
        start, end = -(-number * entries // gpus), -(-(number + 1) * entries // gpus)
        if start < end:
            yield Run(first + start, first + min(end, on_gpus), output=end > on_gpus)


def _sums(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(itertools.accumulate(values, initial=0.0))


def _elements(layer: Layer, window: int) -> float:
    kept = [cache for cache in layer.caches if isinstance(cache, AttentionCache | LatentCache)]
    return float(sum(cache_elements(cache) for cache in kept if window_of(cache) == window))


def _state_bytes(layer: Layer) -> float:
    return float(sum(cache.conv + cache.ssm for cache in layer.caches if isinstance(cache, StateCache)) * STATE_BYTES)
