"""What of a model decides its memory: its matrices and how they split over GPUs, and what each layer keeps per token.

Plain values, read from a config.json, the catalogue or a GGUF header, and never validated again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Split = Literal["column", "row", "replicated"]


@dataclass(frozen=True, slots=True)
class Matrix:
    """`count` equal matrices of `rows` outputs by `columns` inputs; a vector has one column.

    split: how tensor parallelism divides it: by rows (column parallel in the engines' words), by columns, or not at
    all.
    heads: KV heads that the rows hold. With more GPUs than KV heads each GPU keeps one whole head, so they are
    repeated.
    linear: a weight that quantization may convert. Embeddings, norms, routers and convolutions are none.
    stored: the format that the checkpoint has it in (a key of FORMATS), empty for the model's own data type.
    bias: outputs also have a bias. Row-parallel layers keep all of it on every GPU.
    units: what tensor parallelism has to divide for the split to happen at all, 0 for always.
    """

    name: str
    rows: int
    columns: int = 1
    split: Split = "replicated"
    count: int = 1
    heads: int = 0
    linear: bool = True
    stored: str = ""
    bias: bool = False
    units: int = 0

    @property
    def elements(self) -> int:
        """Numbers in it, bias included, on one GPU that holds all of it."""
        return self.count * self.rows * (self.columns + (1 if self.bias else 0))

    def shard(self, tensor_parallel: int) -> tuple[int, int]:
        """Rows and columns of one GPU's part."""
        if self.units % tensor_parallel:
            return self.rows, self.columns
        if self.split == "column":
            if self.heads:
                return self.rows // self.heads * math.ceil(self.heads / tensor_parallel), self.columns
            return math.ceil(self.rows / tensor_parallel), self.columns
        if self.split == "row":
            return self.rows, math.ceil(self.columns / tensor_parallel)
        return self.rows, self.columns


@dataclass(frozen=True, slots=True)
class AttentionCache:
    """Keys and values of one attention layer.

    window: tokens that a sliding-window layer looks back on. chunk: tokens of a chunked-attention layer's chunk.
    indexer: bytes per token of the key that a block-sparse layer chooses blocks by, repeated on every GPU (MiniMax M3).
    """

    kv_heads: int
    key_length: int
    value_length: int
    window: int | None = None
    chunk: int | None = None
    indexer: int = 0


@dataclass(frozen=True, slots=True)
class LatentCache:
    """The compressed latent of one MLA layer, and the keys of a sparse-attention indexer. Repeated on every GPU.

    length: elements per token (kv_lora_rank + qk_rope_head_dim). indexer: bytes per token of the indexer's own cache, 0
    where the layer has none. sparse: the layer attends to what an indexer chose, its own or that of a layer before.
    """

    length: int
    rope: int = 0
    indexer: int = 0
    sparse: bool = False


@dataclass(frozen=True, slots=True)
class StateCache:
    """The state that a linear-attention or Mamba layer keeps per request, whatever its length.

    conv: elements of the convolution's state (its split dimension first), ssm: of the recurrent state.
    Both are divided by tensor parallelism. kind: the recurrence (gdn, kda, mamba2).
    """

    conv: int
    ssm: int
    ssm_bytes: int = 4
    kind: str = "mamba"

    def shard(self, tensor_parallel: int) -> tuple[int, int]:
        """Elements of both states on one GPU."""
        return math.ceil(self.conv / tensor_parallel), math.ceil(self.ssm / tensor_parallel)


@dataclass(frozen=True, slots=True)
class CompressedCache:
    """One of the pools that a DeepSeek V4 layer keeps, all of it on every GPU (vLLM 0.33, models/deepseek_v4).

    state: bytes of one entry. tokens: tokens that one entry stands for (1, 4 or 128). block: tokens of one page.
    window: tokens that are kept of a request, None for all of them. Pages are rounded up to `alignment` bytes.
    """

    name: str
    state: int
    tokens: int
    block: int
    window: int | None = None
    alignment: int = 576

    @property
    def page_bytes(self) -> int:
        """Bytes of one page: `block` tokens."""
        return -(-(self.block // self.tokens * self.state) // self.alignment) * self.alignment


Cache = AttentionCache | LatentCache | StateCache | CompressedCache


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of the model: its matrices, and its caches (none where it shares those of another layer)."""

    matrices: tuple[Matrix, ...]
    caches: tuple[Cache, ...] = ()


@dataclass(frozen=True, slots=True)
class Shape:
    """A model as far as memory goes.

    architecture: the class that the checkpoint names; model_type: its family in the config.
    context_length: tokens that it was made for. dtype_bytes: bytes of an unquantized weight.
    intermediate: the widest hidden layer of a dense feed-forward block, or of one expert.
    head: the output matrix, None where it is the embedding.
    extras: towers for images or sound and what joins them to the model; they live on the first pipeline stage.
    buffers_bytes: tables kept on every GPU that are no weights (rotary embeddings of the whole context).
    divisors: what tensor parallelism has to divide, by the name it has in the config.
    expert_intermediate, query: width of one expert's hidden layer, and of all query heads (MLA: of all values), where
    matrices do not tell, as in a GGUF header; 0 where they do.
    quantization: how the checkpoint is quantized, empty if it is not. kv_cache_dtype: what it wants the KV cache in.
    embedded_everywhere: vLLM's class keeps embedding and head on every pipeline stage, not only on those that use them.
    """

    architecture: str
    model_type: str
    context_length: int
    hidden: int
    vocab: int
    heads: int
    intermediate: int
    layers: tuple[Layer, ...]
    embedding: Matrix
    head: Matrix | None
    final: tuple[Matrix, ...] = ()
    extras: tuple[Matrix, ...] = ()
    buffers_bytes: int = 0
    dtype_bytes: int = 2
    experts: int = 0
    experts_per_token: int = 0
    expert_intermediate: int = 0
    query: int = 0
    divisors: tuple[tuple[str, int], ...] = ()
    quantization: str = ""
    kv_cache_dtype: str = ""
    embedded_everywhere: bool = False

    @property
    def caches(self) -> tuple[Cache, ...]:
        """The caches of all layers."""
        return tuple(cache for layer in self.layers for cache in layer.caches)

    @property
    def parameters(self) -> int:
        """Weights in all, each counted once."""
        loose: tuple[Matrix, ...] = (self.embedding, *((self.head,) if self.head else ()), *self.final, *self.extras)
        return sum(matrix.elements for layer in self.layers for matrix in layer.matrices) + sum(
            matrix.elements for matrix in loose
        )

    @property
    def active_parameters(self) -> int:
        """Weights that one token passes through: of the experts, only the chosen ones. The embedding is a look-up."""
        return self.parameters - self._idle_parameters()

    def _idle_parameters(self) -> int:
        idle: int = sum(
            matrix.elements * (matrix.count - self.experts_per_token) // matrix.count
            for layer in self.layers
            for matrix in layer.matrices
            if matrix.count > max(1, self.experts_per_token)
        )
        return idle + (self.embedding.elements if self.head else 0)

    @property
    def latent(self) -> bool:
        """Whether attention is MLA."""
        return any(isinstance(cache, LatentCache) for layer in self.layers for cache in layer.caches)

    @property
    def windowed(self) -> bool:
        """Whether some layers do not keep the whole context."""
        return any(
            isinstance(cache, StateCache | CompressedCache)
            or (isinstance(cache, AttentionCache) and (cache.window or cache.chunk))
            for layer in self.layers
            for cache in layer.caches
        )
