"""Does one request of full length fit? The planner's answer beside what is known.

Two sets of cases, neither of which asks the planner for the truth:

Measured. A start log says what the KV cache got at one share of memory. Another share moves that by exactly the
difference times the GPU's total (vLLM's gpu_worker.py), as nothing else depends on it. What one request needs is the KV
cache divided by the logged concurrency, and proportional to its length where every layer attends to everything. So each
start answers the question for every share from 2 % to 95 %, which is that model on a smaller slice of the same GPU.
The planner is held to the batch sizes of that start here; by itself it takes smaller ones where these do not fit.

Oracle. Weights, buffers and the bytes of one request are those of vLLM's own code. What else a start takes is known
between two bounds (LEAST, MOST), read off the measured starts. "Fits" is said where it does with the most of
everything, "does not fit" where it does not with the least; the band between them is undecided and counted apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from bench.accuracy.measured import Case
from bench.accuracy.oracle import BATCHED_TOKENS, OracleCase
from bench.accuracy.spread import GIB
from rackserve.planning.budget import tiers
from rackserve.planning.request import Request
from rackserve.planning.sized import Sizing
from rackserve.planning.sizing import size

SHARES = tuple(percent / 100 for percent in range(2, 96))
LENGTHS = (2048, 8192, 16384, 32768, 131072)
TOTALS_GIB = (24, 48, 80, 141, 192)
SHARE = 0.9
# vLLM's own, by the GPU's memory in GiB.
_DEFAULT_SEQS = {total: 1024 if total >= 70 else 256 for total in TOTALS_GIB}  # noqa: PLR2004


@dataclass(frozen=True, slots=True)
class Bound:
    """What a start takes beside weights and KV cache, at one end of what was measured.

    activation: factor on the sampler's and the step's formula. experts: bytes more with experts or MLA.
    graphs, expert_graphs: CUDA graphs. outside, outside_parallel: outside the allocator, on one GPU and with several.
    """

    activation: float
    experts: float
    graphs: float
    expert_graphs: float
    outside: float
    outside_parallel: float


# vLLM 0.19 on H100, 54 starts (llm-d-planner, pull request 205): graphs 0.51 to 1.85 GiB, the most with experts.
LEAST = Bound(0.94, 0.0, 0.51 * GIB, 0.51 * GIB, 0.07 * GIB, 2.06 * GIB)
MOST = Bound(1.06, 0.65 * GIB, 1.1 * GIB, 1.85 * GIB, 0.27 * GIB, 2.21 * GIB)
# The logs give hundredths of a GiB.
_ROUNDING_GIB = 0.01
# fp32 copies of the logits that the sampler's dry run holds.
_SAMPLER_COPIES = 3.8


@dataclass(frozen=True, slots=True)
class Question:
    """Whether a request of `length` tokens fits into `budget` bytes of each GPU.

    truth: None where it is too close to say. margin_gib: what is surely left, negative: what is surely missing.
    planner: rackserve's answer.
    """

    name: str
    subject: Case | OracleCase
    length: int
    budget: float
    truth: bool | None
    margin_gib: float
    planner: bool


def measured_questions(cases: Iterable[Case]) -> Iterator[Question]:
    """Each kind of start once, over shares of memory and lengths."""
    seen = set()
    for case in cases:
        request, kind = case.request(), case.name + case.row["weight_dtype"] + case.row["kv_dtype"]
        known = request is not None and request.engine is not None and case.number("max_concurrency")
        if request is None or not known or not case.starts or kind in seen:
            continue
        seen.add(kind)
        yield from _shares(case, request)


def _shares(case: Case, request: Request) -> Iterator[Question]:
    kv_gib, concurrency = case.number("kv_gib"), case.number("max_concurrency")
    total, logged = case.number("gpu_total_gib"), request.utilization
    if not kv_gib or not concurrency or not total or not logged:
        return
    own, shape = int(case.row["max_model_len"]), request.shape
    lengths = [own] if shape.windowed else [length for length in LENGTHS if length <= shape.context_length]
    for length in lengths:
        need = kv_gib / concurrency * length / own
        for share in SHARES:
            margin = kv_gib + total * (share - logged) - need
            truth = None if abs(margin) <= _ROUNDING_GIB else margin > 0
            name = f"{case.name}, {length} tokens, share {share:.2f}"
            fits = _fits(replace(request, utilization=share, max_model_len=length))
            yield Question(name, case, length, share * total * GIB, truth, margin, fits)


def oracle_questions(cases: Iterable[OracleCase]) -> Iterator[Question]:
    """Every case without pipeline stages, over GPU sizes and lengths."""
    for case in cases:
        if case.row["pp"] == 1:
            yield from _totals(case)


def _totals(case: OracleCase) -> Iterator[Question]:
    for total in TOTALS_GIB:
        budget = math.ceil(total * GIB * SHARE)
        for text, need in case.row["request_bytes"].items():
            # The pool keeps one block for itself.
            wanted, length = need + case.row["bytes_per_block"], int(text)
            sized = _sized(case.request(total, length, SHARE))
            seqs = sized.max_num_seqs if sized else _DEFAULT_SEQS[total]
            least, most = (budget - overhead(case, bound, seqs) for bound in (LEAST, MOST))
            truth = True if most >= wanted else None if least >= wanted else False
            margin = ((most if truth else least) - wanted) / GIB
            name = f"{case.name}, {length} tokens, {total} GiB"
            yield Question(name, case, length, budget, truth, margin, sized is not None and sized.fits)


def _fits(request: Request) -> bool:
    sized = _sized(request)
    return sized is not None and sized.fits


def _sized(request: Request) -> Sizing | None:
    """The planner's answer for the engine's own batch sizes; it would choose smaller ones itself.

    Of recurrent models it states fewer sequences even so, where the cache has no more states; the truth is that of the
    number that it states.
    """
    if request.engine is None:
        return None
    default = tiers(request.engine, request.gpu, request.total_bytes)[0]
    sized = size(replace(request, engine=request.engine.model_copy(update={"tiers": (default,)})))
    return None if isinstance(sized, str) else sized


def overhead(case: OracleCase, bound: Bound, seqs: int) -> float:
    """Bytes of one GPU before the KV cache: vLLM's weights, MLA's copies, and one bound of the rest."""
    shape, parallel = case.shape, case.row["tp"]
    special = shape.experts > 0 or shape.latent
    sampler = _SAMPLER_COPIES * seqs * shape.vocab * 4
    step = BATCHED_TOKENS * (3 * shape.intermediate / parallel + 4 * shape.hidden) * 2
    activation = bound.activation * max(sampler, step) + (bound.experts if special else 0)
    outside = bound.outside_parallel if parallel > 1 else bound.outside
    graphs = bound.expert_graphs if special else bound.graphs
    loaded = case.weights_bytes + case.copies(0)
    return float(loaded + activation + outside + graphs)
