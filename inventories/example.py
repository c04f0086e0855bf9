"""An example fleet: one host or more of every GPU tag that rackserve knows, with services that fit.

Start here: copy the entries that look like your hosts, change names, tags and models, and ask

    rackserve plan inventories/example.py                    # does it fit, with which flags, and why
    rackserve where qwen3-32b inventories/example.py         # which of the hosts could run another model

Both are offline: no host is contacted. An inventory is plain Python. Every module-level list is a group of hosts, a
host is a name with a dictionary, and names that start with `_` are helpers. docs/inventory.md lists every key,
docs/planning.md says how the numbers come about. What you leave out is decided: runtime, number format, max-model-len,
tensor parallelism, port. State what you know of your load instead: `concurrency` is requests at once at the peak,
`avg_tokens` the prompt plus completion of an average one; KV cache is then set aside for 1.2 times that.

Services are named after their use, tenant or model, never after their host: the name is also the systemd instance
`rackserve@NAME`, the Unix user `rackserve-NAME` and the model name that clients ask for.
"""

from typing import Any as _Any

# Systems and their kernels. Leave them out while you only compare GPUs: the plan then says what it could not check.
# With them driver branch, kernel module, CUDA or ROCm and runtime are solved together. secure_boot matters where
# NVIDIA's modules are built on the host: signed ones come with Ubuntu only.
_noble: dict[str, _Any] = {"os": "ubuntu-24.04", "kernel": "6.8.0-51-generic"}
_noble_hwe: dict[str, _Any] = {"os": "ubuntu-24.04", "kernel": "6.17.0-8-generic"}
_resolute: dict[str, _Any] = {"os": "ubuntu-26.04"}
_trixie: dict[str, _Any] = {"os": "debian-13", "kernel": "6.12", "secure_boot": False}
_rocky: dict[str, _Any] = {"os": "rocky-9", "kernel": "5.14.0", "secure_boot": False}
_rhel10: dict[str, _Any] = {"os": "rhel-10", "secure_boot": False}
_macos: dict[str, _Any] = {"os": "macos-15"}
# LM Studio is not free software: https://lmstudio.ai/app-terms has to be agreed to.
_studio: dict[str, _Any] = {**_noble, "lmstudio_accept_license": True}


def _one(tag: str, model: str, base: dict[str, _Any], count: int = 1, **service: _Any) -> dict[str, _Any]:
    """A host whose GPUs all serve one model to a few users; what `service` leaves out is decided by the plan."""
    load = {"name": "chat", "model": model, "gpus": count, "max_model_len": 8192, "concurrency": 4, "avg_tokens": 2000}
    return {**base, "gpu_tag": tag, "gpu_count": count, "services": [{**load, **service}]}


# ---------------------------------------------------------------------------------------------- data-centre GPUs
datacentre = [
    # Eight H200 of one board: the largest model takes them all. Fabric Manager is planned with the driver.
    (
        "gpu01.example.org",
        {
            **_noble,
            "gpu_tag": "h200",
            "gpu_count": 8,
            "memory_mib": 2_000_000,
            "services": [
                {
                    "name": "frontier",
                    "model": "deepseek-v3",  # published in FP8 only: 629 GiB of weights
                    "runtime": "sglang",  # structured output, radix prefix cache
                    "gpus": 8,
                    "max_model_len": 32768,
                    "concurrency": 64,
                    "avg_tokens": 6000,
                    "shared_prompts": True,  # a long system prompt: keeps the prefix cache on
                },
            ],
        },
    ),
    # Tenants never share an instance: each service has GPUs, a key and a Unix user of its own. Three GPUs stay free.
    (
        "gpu02.example.org",
        {
            **_rocky,
            "gpu_tag": "h100-sxm-80gb",
            "gpu_count": 8,
            "services": [
                {
                    "name": "tenant-red-chat",
                    "model": "llama-3.3-70b-instruct",
                    "gpus": 2,
                    "concurrency": 24,
                    "avg_tokens": 4000,
                },
                {
                    "name": "tenant-blue-chat",
                    "model": "llama-3.3-70b-instruct",
                    "gpus": 2,
                    "concurrency": 24,
                    "avg_tokens": 4000,
                },
                {
                    "name": "tenant-blue-code",
                    "model": "qwen3-coder-30b-a3b-instruct",
                    "max_model_len": 65536,
                    "concurrency": 16,
                    "avg_tokens": 6000,
                },
            ],
        },
    ),
    # NVIDIA's own runtime: needs the Container Toolkit, and long preparation of a model.
    (
        "gpu03.example.org",
        {
            **_noble,
            "gpu_tag": "h100-pcie",
            "gpu_count": 2,
            "services": [
                {
                    "name": "support",
                    "model": "qwen3-32b",
                    "runtime": "tensorrt-llm",
                    "gpus": 1,
                    "max_model_len": 16384,
                    "concurrency": 16,
                    "avg_tokens": 2500,
                },
                {
                    "name": "translate",
                    "model": "aya-expanse-32b",
                    "gpus": 1,
                    "max_model_len": 6144,
                    "concurrency": 12,
                    "avg_tokens": 1500,
                },
            ],
        },
    ),
    # Blackwell multiplies NVFP4: chosen where the model is published in it.
    (
        "gpu04.example.org",
        _one("b200", "deepseek-v4-pro", _noble, 8, name="frontier-long", max_model_len=65536, concurrency=16),
    ),
    # Ampere has no FP8: the same model in INT8 or AWQ.
    ("gpu05.example.org", _one("a100-80gb-sxm", "command-r-plus-08-2024", _rocky, 4, name="rag", max_model_len=32768)),
    ("gpu06.example.org", _one("a100-40gb", "qwen3-30b-a3b", _rocky, 2, name="batch")),
    # AMD: ROCm in place of CUDA, everything else alike.
    (
        "gpu07.example.org",
        {
            **_noble,
            "gpu_tag": "mi300x",
            "gpu_count": 8,
            "services": [
                {"name": "chat", "model": "llama-3.3-70b-instruct", "gpus": 1, "concurrency": 32, "avg_tokens": 3000},
                {"name": "reasoning", "model": "qwen3-235b-a22b", "gpus": 4, "concurrency": 32, "avg_tokens": 8000},
            ],
        },
    ),
    # Two services share each GPU on purpose: GPUs are named by number, and each service has its share of the memory.
    # What nobody asked for of the 85 % ceiling goes to those that state no gpu_share.
    (
        "gpu08.example.org",
        {
            **_noble,
            "gpu_tag": "l40s",
            "gpu_count": 2,
            "services": [
                {
                    "name": "draft",
                    "model": "qwen3-8b",
                    "gpus": [0],
                    "gpu_share": 0.4,
                    "max_model_len": 8192,
                    "concurrency": 8,
                    "avg_tokens": 1500,
                },
                {
                    "name": "classify",
                    "model": "qwen3-4b",
                    "gpus": [0],
                    "max_model_len": 4096,
                    "concurrency": 16,
                    "avg_tokens": 600,
                    "shared_prompts": False,
                },
                {
                    "name": "vision",
                    "model": "gemma-4-31b-it",
                    "gpus": [1],
                    "quantization": "fp8",
                    "kv_cache_dtype": "fp8",
                    "max_model_len": 8192,
                    "concurrency": 2,
                },
            ],
        },
    ),
]

# ------------------------------------------------------------------------------------- workstation and desktop GPUs
workstations = [
    ("ws01.example.org", _one("rtx-6000-ada", "qwen3-32b", _noble, name="assistant")),
    ("ws02.example.org", _one("rtx-a6000", "command-r-35b", _trixie, name="rag", quantization="awq")),
    # Two cards of 24 GB are 48 GB for one model: tensor parallel over PCIe.
    ("ws03.example.org", _one("rtx-3090", "qwen3-32b", _trixie, 2, name="assistant", concurrency=2)),
    ("ws04.example.org", _one("rtx-4090", "qwen3-14b", _noble, name="assistant")),
    ("ws05.example.org", _one("rtx-5090", "qwen3-30b-a3b", _noble, name="code", concurrency=4)),
    ("ws06.example.org", _one("rtx-4070", "qwen3-8b", _noble, runtime="ollama", concurrency=1)),
    ("ws07.example.org", _one("rtx-4060-ti-16gb", "qwen3-8b", _studio, runtime="lmstudio", concurrency=2)),
    # Weights that a small card cannot hold stay in RAM in part: llama.cpp's offload, slow but working.
    (
        "ws08.example.org",
        _one("rtx-3060-12gb", "qwen3-14b", {**_trixie, "memory_mib": 64000}, runtime="llama.cpp", concurrency=1),
    ),
    # Intel's driver needs a new kernel: Battlemage from 6.12 on.
    ("ws09.example.org", _one("arc-b580", "llama-3.1-8b-instruct", _noble_hwe, runtime="llama.cpp", concurrency=1)),
]

# -------------------------------------------------------------------------------- Apple and hosts without a GPU
# Both serve from the host's RAM, whose size has to be stated.
unified = [
    (
        "mac01.example.org",
        _one("apple-m4-max", "qwen3-30b-a3b", {**_macos, "memory_mib": 65536}, concurrency=2),
    ),
    (
        "mac02.example.org",
        _one("apple-m3-ultra", "llama-3.3-70b-instruct", {**_macos, "memory_mib": 262144}, concurrency=2),
    ),
    ("mac03.example.org", _one("apple-m2-ultra", "qwen3-32b", {**_macos, "memory_mib": 131072}, concurrency=2)),
    (
        "mac04.example.org",
        _one("apple-m4-pro", "qwen3-8b", {**_macos, "memory_mib": 24576}, runtime="ollama", concurrency=1),
    ),
    (
        "cpu01.example.org",
        {
            **_trixie,
            "gpu_tag": "cpu",
            "memory_mib": 64000,
            "services": [
                {"name": "summaries", "model": "qwen3-8b", "concurrency": 4, "max_model_len": 16384},
                {"name": "tags", "model": "qwen3-0.6b", "concurrency": 4, "max_model_len": 4096},
            ],
        },
    ),
]

# ------------------------------------------------------------- every other tag of the catalogue, one host of each
_other = [
    ("rtx-3080-10gb", "qwen3-4b", _noble, 1),
    ("rtx-3080-12gb", "qwen3-4b", _noble, 1),
    ("rtx-3080-ti", "qwen3-4b", _noble, 1),
    ("rtx-3090-ti", "qwen3-14b", _trixie, 1),
    ("rtx-4060-ti-8gb", "llama-3.2-3b-instruct", _noble, 1),
    ("rtx-4070-super", "qwen3-4b", _noble, 1),
    ("rtx-4070-ti", "qwen3-4b", _noble, 1),
    ("rtx-4070-ti-super", "qwen3-8b", _noble, 1),
    ("rtx-4080", "qwen3-8b", _noble, 1),
    ("rtx-4080-super", "qwen3-8b", _noble, 1),
    ("rtx-5060-ti-16gb", "qwen3-8b", _noble, 1),
    ("rtx-5070", "qwen3-8b", _noble, 1),
    ("rtx-5070-ti", "qwen3-8b", _resolute, 1),
    ("rtx-5080", "qwen3-8b", _resolute, 1),
    ("rtx-a4000", "qwen3-8b", _rocky, 1),
    ("rtx-a5000", "qwen3-14b", _rocky, 1),
    ("rtx-4000-ada", "qwen3-8b", _noble, 1),
    ("rtx-5000-ada", "mistral-small-24b-instruct-2501", _noble, 1),
    ("rtx-pro-6000-blackwell", "llama-3.3-70b-instruct", _noble, 1),
    ("rtx-pro-6000-blackwell-server", "gpt-oss-120b", _noble, 1),
    ("v100-32gb-sxm", "qwen3-8b", _noble, 1),
    ("t4", "qwen3-4b", _noble, 1),
    ("a10", "qwen3-8b", _rocky, 1),
    ("a10g", "qwen3-8b", _noble, 1),
    ("a30", "qwen3-14b", _rocky, 1),
    ("a40", "qwen2.5-32b-instruct", _rocky, 1),
    ("a100-40gb-sxm", "qwen3-32b", _noble, 8),
    ("a100-80gb-pcie", "qwen3-32b", _rhel10, 1),
    ("l4", "qwen3-8b", _noble, 1),
    ("l40", "qwen3-32b", _noble, 1),
    ("h100-nvl", "llama-3.3-70b-instruct", _noble, 2),
    ("h20", "qwen3-32b", _noble, 1),
    ("h20-141gb", "deepseek-v4-flash", _noble, 8),
    ("h200-nvl", "qwen3-next-80b-a3b-instruct", _noble, 2),
    ("b300", "kimi-k2-instruct", _noble, 8),
    ("mi210", "qwen3-32b", _noble, 2),
    ("mi325x", "glm-4.5-air", _noble, 1),
    ("mi350x", "qwen3-235b-a22b", _noble, 2),
    ("mi355x", "qwen3-235b-a22b", _noble, 2),
    ("rx-7900-xtx", "qwen3-8b", _noble, 1),
    ("radeon-pro-w7900", "qwen3-14b", _noble, 1),
    ("rx-9070-xt", "qwen3-4b", _noble, 1),
    ("radeon-ai-pro-r9700", "qwen3-14b", _noble, 1),
    ("arc-a770-16gb", "qwen3-8b", _noble, 1),
    ("arc-pro-b60", "qwen3-14b", _noble_hwe, 1),
]
others = [(f"{_tag}.example.org", _one(_tag, _model, _base, _count)) for _tag, _model, _base, _count in _other]
