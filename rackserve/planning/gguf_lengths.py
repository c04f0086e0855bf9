"""Which max_model_len an instance of llama.cpp's engine gets. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable

from rackserve.domain.policy import KV_HEADROOM, USABLE_SHARE
from rackserve.planning.gguf_instance import GgufInstance
from rackserve.planning.memory import CELL_STEP

# A window that is still useful: rather than less than this, layers are left in the host's memory.
_USEFUL_TOKENS = 8192


def chosen_length(instance: GgufInstance) -> tuple[int, str]:
    """max_model_len and why: as asked for, 80 % of the nominal context, or the longest that fits beside all layers.

    With RAM to leave layers in, a useful window comes before having all of them on the GPUs.
    """
    request = instance.request
    nominal, average = request.shape.context_length, request.avg_tokens
    of = f"the nominal {nominal}"
    if request.runtime == "lmstudio" and instance.slots > 1:
        # Its requests share one context, which is no longer than the model's.
        of = f"a part of {nominal // instance.slots} in the nominal {nominal}"
        nominal //= instance.slots
    if request.max_model_len is not None:
        return request.max_model_len, "asked for"
    usable = int(nominal * USABLE_SHARE) // CELL_STEP * CELL_STEP
    wanted = usable or min(CELL_STEP, nominal)
    least = min(nominal, math.ceil(KV_HEADROOM * (average or 1) / CELL_STEP) * CELL_STEP)
    most = max(wanted, least)
    headroom = f"{KV_HEADROOM} x avg_tokens {average}" if average else "the shortest there is"
    if _all_on_gpus(instance, most):
        return most, f"{USABLE_SHARE:.0%} of {of}" if most == usable else headroom
    longest = _longest(least, most, lambda tokens: _all_on_gpus(instance, tokens)) if least < most else 0
    useful = max(least, min(_USEFUL_TOKENS, wanted))
    offloads = longest < useful and instance.offloads(useful, instance.gpu_layers(useful))
    if longest and not offloads:
        return longest, f"the longest that fits; {USABLE_SHARE:.0%} of {of} does not"
    if instance.one_memory:
        return least, f"{headroom}; no length fits"
    return useful, "not all layers fit beside a useful context"


def _all_on_gpus(instance: GgufInstance, length: int) -> bool:
    return instance.gpu_bytes(length, instance.layers) <= instance.allowed


def _longest(least: int, most: int, fits: Callable[[int], bool]) -> int:
    """The longest of whole steps that fits, 0 where not even `least`, one of them, does."""
    low, high = least // CELL_STEP - 1, most // CELL_STEP
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle * CELL_STEP) else (low, middle - 1)
    return low * CELL_STEP if low * CELL_STEP >= least else 0
