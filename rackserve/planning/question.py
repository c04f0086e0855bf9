"""A model that could be served in several places: what is asked of it, before runtime and GPU are known."""

from __future__ import annotations

from dataclasses import dataclass

from rackserve.catalog.loader import Catalog
from rackserve.domain.gpu import Gpu
from rackserve.domain.shape import Shape
from rackserve.planning.engine_facts import engine_for
from rackserve.planning.instance import GGUF_RUNTIMES
from rackserve.planning.request import Request


@dataclass(frozen=True, slots=True)
class Question:
    """A model, and what the operator wants of it; None and empty: rackserve decides, as in Request.

    formats: number formats that it is published in for vLLM, SGLang and TensorRT-LLM, empty to serve it as it is.
    files: GGUF files by quantization, with their bytes. file_parts: as in Request.
    has_checkpoint: whether vLLM, SGLang and TensorRT-LLM can load it at all.
    max_model_len, avg_tokens: tokens of prompt plus completion. concurrency: requests at the peak.
    """

    model: str
    shape: Shape
    formats: tuple[str, ...] = ()
    files: tuple[tuple[str, int], ...] = ()
    file_parts: tuple[int, int] | None = None
    has_checkpoint: bool = True
    runtime: str | None = None
    quantization: str = ""
    kv_cache_dtype: str = "auto"
    max_model_len: int | None = None
    concurrency: int | None = None
    avg_tokens: int | None = None

    def request(self, gpu: Gpu, total_mib: int, runtime: str, version: str, catalog: Catalog) -> Request:
        """The sizing request on one such GPU."""
        gguf = runtime in GGUF_RUNTIMES
        return Request(
            model=self.model,
            shape=self.shape,
            gpu=gpu,
            total_mib=total_mib,
            runtime=runtime,
            version=version,
            engine=engine_for(catalog, runtime, version),
            quantization=self.quantization,
            offered=tuple(name for name, _ in self.files) if gguf else self.formats,
            files=self.files,
            file_parts=self.file_parts,
            kv_cache_dtype=self.kv_cache_dtype,
            max_model_len=self.max_model_len,
            concurrency=self.concurrency,
            avg_tokens=self.avg_tokens,
        )
