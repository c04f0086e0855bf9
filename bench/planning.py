"""How long planning takes as a fleet grows: seconds for 1 to 1,000 hosts of three services, side by side in one run.

    python -m bench.planning

Reading an inventory is not in it: pyinfra executes that file in a process of its own, once.
"""

from __future__ import annotations

import time
from typing import Any

from rackserve.catalog.loader import load_catalog
from rackserve.fleet import plan_fleet

_TAGS = ("h100-sxm-80gb", "l40s", "a100-80gb-sxm", "mi300x")
_SERVICES: list[dict[str, Any]] = [
    {"name": "chat", "model": "llama-3.3-70b-instruct", "gpus": 4, "max_model_len": 16384, "concurrency": 8},
    {"name": "search", "model": "qwen3-8b", "gpus": [4]},
    {"name": "code", "model": "qwen3-14b", "gpus": [4]},
]


def hosts(count: int) -> list[tuple[str, dict[str, Any]]]:
    """`count` hosts of eight GPUs; the tags take turns."""
    data = {"gpu_count": 8, "os": "ubuntu-24.04", "services": _SERVICES}
    return [(f"gpu{index:04d}", data | {"gpu_tag": _TAGS[index % len(_TAGS)]}) for index in range(count)]


def main() -> None:
    """Print one line for each size of fleet; the first plan warms the caches that a process has anyway."""
    load_catalog()
    plan_fleet(hosts(1))
    print("hosts  seconds  milliseconds a host")  # noqa: T201  this is the result
    for count in (1, 10, 100, 1000):
        fleet = hosts(count)
        start = time.perf_counter()
        plan_fleet(fleet)
        taken = time.perf_counter() - start
        print(f"{count:5d}  {taken:7.3f}  {1000 * taken / count:6.2f}")  # noqa: T201


if __name__ == "__main__":
    main()
