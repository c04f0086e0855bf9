"""One service on one host, as the operator asks for it."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from rackserve.domain.base import Frozen, ServiceName
from rackserve.domain.model import Revision
from rackserve.domain.policy import MOST_CEILING

# Two requests at once are what a small host without a GPU can serve at a readable speed.
DEFAULT_SLOTS = 2


def _ipv4(value: str) -> str:
    return str(ipaddress.IPv4Address(value))


def _network(value: str) -> str:
    # An IPv6 scope may hold anything, a newline included, and a network has none.
    if "%" in value:
        msg = "a network has no scope"
        raise ValueError(msg)
    return str(ipaddress.ip_network(value))


Ipv4 = Annotated[str, AfterValidator(_ipv4)]
RuntimeName = Literal["vllm", "sglang", "tensorrt-llm", "llama.cpp", "ollama", "lmstudio"]
_MOST_GPUS = 64


def _is_number(value: Any, least: int, most: int) -> bool:
    # True is 1 to Python, and a mistake to an operator.
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _gpus(value: Any) -> int | tuple[int, ...]:
    if _is_number(value, 1, _MOST_GPUS):
        return int(value)
    if not isinstance(value, list | tuple) or not value or not all(_is_number(n, 0, _MOST_GPUS - 1) for n in value):
        msg = f"expected a number of GPUs from 1 to {_MOST_GPUS}, or a list of GPU numbers"
        raise ValueError(msg)
    if len(set(value)) < len(value):
        msg = "expected each GPU number once"
        raise ValueError(msg)
    return tuple(value)


# A number of GPUs, or GPUs of the host by their numbers in PCI order.
Gpus = Annotated[int | tuple[int, ...], BeforeValidator(_gpus)]


class Service(Frozen):
    """What to serve, for how many, and to whom.

    Token counts are tokens of prompt plus completion. Left out, `max_model_len` becomes 80 % of the model's nominal
    context, or what fits, and `port` the next free one from 8001. `avg_tokens` is the length of an average request.
    runtime: None is vLLM where the host's GPU and the model allow it, else llama.cpp.
    revision: the commit of the repository to serve, of checkpoints only: the catalogue pins files for llama.cpp.
    gpus: a number of GPUs of its own, or a list of GPU numbers, which other services may name too.
    gpu_share: the part of each of its GPUs that the service may use, where it shares them; left out, equal parts.
    nodes: further hosts of the inventory that the instance is spread over; each gives as many GPUs, or those numbers.
    distributed: how its processes on several hosts find each other; left out, vLLM's own way where the version has it.
    shared_prompts: whether its requests begin alike (a long system prompt, documents asked about again).
    structured_output: what constrains the output to a grammar or JSON schema, where the runtime has several.
    max_output_tokens: what one request gets at most, or, where the runtime has no such limit, if it states nothing.
    temperature, top_p, repetition_penalty: for requests that state none; a penalty just above 1 keeps small models from
    repeating themselves for ever, and no temperature below 0.1 does.
    """

    name: ServiceName
    model: str
    revision: Revision | None = None
    runtime: RuntimeName | None = None
    runtime_version: Annotated[str, StringConstraints(pattern=r"^[0-9a-z][0-9a-z.-]{0,19}$")] | None = None
    quantization: str | None = None
    kv_cache_dtype: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]{1,20}$", to_lower=True)] | None = None
    max_model_len: int | None = Field(default=None, ge=256)
    concurrency: int | None = Field(default=None, ge=1, le=4096)
    avg_tokens: int | None = Field(default=None, ge=1)
    threads: int | None = Field(default=None, ge=1, le=1024)
    gpus: Gpus = 1
    gpu_share: float | None = Field(default=None, gt=0, le=MOST_CEILING)
    nodes: tuple[str, ...] = ()
    distributed: Literal["native", "ray"] | None = None
    tensor_parallel: int | None = Field(default=None, ge=1, le=64)
    pipeline_parallel: int | None = Field(default=None, ge=1, le=64)
    shared_prompts: bool | None = None
    structured_output: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z_-]{0,20}$")] | None = None
    max_output_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0.1, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    repetition_penalty: float | None = Field(default=1.05, ge=1, le=2)
    listen: Ipv4 = "127.0.0.1"
    allow_from: tuple[Annotated[str, AfterValidator(_network)], ...] = ()
    port: int | None = Field(default=None, ge=1024, le=65535)
    api_key_file: str | None = None

    @property
    def slots(self) -> int:
        """Requests at once of a runtime with fixed slots (llama.cpp)."""
        return self.concurrency or DEFAULT_SLOTS

    @property
    def llamacpp_kv(self) -> str:
        """llama.cpp's name for the KV cache's type."""
        return "f16" if self.kv_cache_dtype in {None, "auto"} else self.kv_cache_dtype
