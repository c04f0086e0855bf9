"""What each runtime's unit says, byte for byte.

After a wanted change: RACKSERVE_WRITE_GOLDEN=1 pytest tests/rendering/test_golden_runtimes.py, then read the diff.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from rackserve.rendering import host_files
from tests.rendering.fleet import plan_of

GOLDEN = Path(__file__).parent / "golden" / "runtimes"
CASES = (
    ("vllm", "h100-pcie", {}),
    ("vllm", "v100-32gb-sxm", {}),
    ("vllm", "mi300x", {}),
    ("vllm", "cpu", {}),
    ("sglang", "h200", {"structured_output": "xgrammar"}),
    ("tensorrt-llm", "h100-pcie", {}),
    ("llama.cpp", "rtx-4090", {}),
    ("llama.cpp", "arc-b580", {}),
    ("ollama", "rtx-4070", {}),
    ("lmstudio", "rtx-4060-ti-16gb", {}),
)
OWN = ("10-plan.conf", ".container", "/services/chat.json", "/ollama/chat/manifests/", "/lmstudio/chat.json")


@pytest.mark.parametrize(("runtime", "tag", "service"), CASES, ids=[f"{runtime}-{tag}" for runtime, tag, _ in CASES])
def test_a_services_own_files_are_the_golden_ones(runtime, tag, service):
    plan = plan_of(tag, runtime, **service)
    assert plan is not None
    files = [file for file in host_files(plan) if any(part in file.path for part in OWN)]
    text = "".join(f"==> {file.path} {file.mode}\n{file.text}" for file in files)
    # The digest covers more than these files; it has tests of its own.
    text = re.sub(r"(RACKSERVE_DIGEST=|Plan digest )[0-9a-f]{64}", r"\1DIGEST", text)
    golden = GOLDEN / f"{runtime}-{tag}.txt"
    if os.environ.get("RACKSERVE_WRITE_GOLDEN"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")
