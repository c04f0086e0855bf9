"""One service on one host, as the operator asks for it."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from rackserve.domain.base import Frozen, ServiceName


def _ipv4(value: str) -> str:
    return str(ipaddress.IPv4Address(value))


def _network(value: str) -> str:
    # An IPv6 scope may hold anything, a newline included, and a network has none.
    if "%" in value:
        msg = "a network has no scope"
        raise ValueError(msg)
    return str(ipaddress.ip_network(value))


class Service(Frozen):
    """What to serve, for how many, and to whom.

    Token counts are tokens of prompt plus completion. Left out, `max_model_len` becomes 80 % of the model's nominal
    context, or what fits, and `port` the next free one from 8001. `avg_tokens` is a lower limit for max_model_len.
    """

    name: ServiceName
    model: str
    runtime: Literal["llama.cpp"] = "llama.cpp"
    quantization: str | None = None
    kv_cache_dtype: Literal["f16", "q8_0", "q4_0"] = "f16"
    max_model_len: int | None = Field(default=None, ge=256)
    concurrency: int = Field(default=2, ge=1, le=256)
    avg_tokens: int | None = Field(default=None, ge=1)
    threads: int | None = Field(default=None, ge=1, le=1024)
    listen: Annotated[str, AfterValidator(_ipv4)] = "127.0.0.1"
    allow_from: tuple[Annotated[str, AfterValidator(_network)], ...] = ()
    port: int | None = Field(default=None, ge=1024, le=65535)
    api_key_file: str | None = None
