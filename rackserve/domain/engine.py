"""What an inference engine occupies beside weights and KV cache, by version: the catalogue's `engines` tables."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from rackserve.domain.base import Frozen, Tag

Version = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)*([a-z]+[0-9]*)?$")]


class BatchTier(Frozen):
    """An engine's own defaults on GPUs with at least this much memory; names in `not_for` fall to the next tier.

    total_gib: memory as the runtime sees it, in GiB. batched_tokens: tokens of one step. seqs: requests of one step.
    """

    total_gib: float = Field(ge=0)
    batched_tokens: int = Field(ge=1)
    seqs: int = Field(ge=1)
    not_for: tuple[str, ...] = ()


class WholePrompts(Frozen):
    """Where an engine computes every prompt in one step: the step's tokens then bound the prompt's length.

    All that is stated has to hold. families: types of the models, as their config has them; empty: any. latent: models
    with MLA. towers: models with an encoder for images or sound. on, not_on: compute capabilities of the cards.
    since, before: versions of the engine, as for options. why: what keeps it from chunks, as a clause.
    """

    families: tuple[str, ...] = ()
    latent: bool = False
    towers: bool = False
    on: tuple[str, ...] = ()
    not_on: tuple[str, ...] = ()
    since: Version | None = None
    before: Version | None = None
    why: str
    source: str
    date: str


class Engine(Frozen):
    """One engine from one version on, until the next entry of the same runtime.

    sampler_copies: fp32 copies of the logits of all sequences that the sampler's dry run holds at its peak.
    hidden_copies: copies of the hidden state, of one step's tokens, that a layer holds at its peak; the widest
        feed-forward layer is held three times. non_torch_mib, non_torch_parallel_mib: memory outside the allocator
        on one GPU and with tensor parallelism (communication buffers). context_mib: taken by the process before the
        engine looks.
    graph_mib, graph_layer_mib: CUDA graphs, in all and per layer, captured for all batch sizes up to 512.
    graphs_counted: the engine takes graphs out of its share of memory; older ones put them on top.
    steps_ahead: steps scheduled before the running ones end, whose tokens a sliding window cannot yet forget (vLLM's
        asynchronous scheduling: one more than there are pipeline stages).
    whole_prompts: the exceptions to chunked prefill.
    """

    id: Annotated[str, StringConstraints(pattern=r"^[a-z0-9.-]+$")]
    runtime: Tag
    since: Version
    sampler_copies: float = Field(ge=0)
    hidden_copies: float = Field(ge=0)
    non_torch_mib: int = Field(ge=0)
    non_torch_parallel_mib: int = Field(ge=0)
    context_mib: int = Field(ge=0)
    graph_mib: float = Field(ge=0)
    graph_layer_mib: float = Field(ge=0)
    graphs_counted: bool
    steps_ahead: int = Field(ge=0)
    tiers: tuple[BatchTier, ...] = Field(min_length=1)
    whole_prompts: tuple[WholePrompts, ...] = ()
    source: str
    date: str
