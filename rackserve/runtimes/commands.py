"""The command line that a sizing becomes, for every runtime: each planned limit that it has a flag for is stated.

These are the options that planning decides, as `rackserve size` shows them; a unit has more, see each runtime's module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rackserve.planning.sized import Sizing
from rackserve.runtimes import llamacpp, lmstudio, ollama, sglang, tensorrt_llm, vllm
from rackserve.runtimes.compiling import with_compiling
from rackserve.runtimes.containers import in_container
from rackserve.runtimes.endpoint import Endpoint
from rackserve.runtimes.job import Job
from rackserve.runtimes.launch import Launch


def argv(sizing: Sizing, endpoint: Endpoint) -> tuple[str, ...]:
    """The program and its planned options, one word per element; Ollama's are its environment, as env(1) takes it."""
    program, words = _PLANNED[sizing.request.runtime]
    return (*program, *words(sizing, endpoint))


def launch(job: Job) -> Launch:
    """What the unit of this instance says."""
    made = _LAUNCHES[job.sizing.request.runtime](job)
    if job.install == "wheel":
        return with_compiling(job, made)
    return in_container(job, made) if job.install == "image" and made.container is None else made


_PLANNED: Mapping[str, tuple[tuple[str, ...], Callable[[Sizing, Endpoint], tuple[str, ...]]]] = {
    "vllm": (("vllm",), vllm.planned_words),
    "sglang": (("python",), sglang.planned_words),
    "tensorrt-llm": (("trtllm-serve",), tensorrt_llm.planned_words),
    "llama.cpp": (("llama-server",), llamacpp.planned_words),
    "ollama": (("env",), ollama.planned_words),
    "lmstudio": (("lms",), lmstudio.planned_words),
}
_LAUNCHES: Mapping[str, Callable[[Job], Launch]] = {
    "vllm": vllm.launch,
    "sglang": sglang.launch,
    "tensorrt-llm": tensorrt_llm.launch,
    "llama.cpp": llamacpp.launch,
    "ollama": ollama.launch,
    "lmstudio": lmstudio.launch,
}
