"""A server with our options against the same server with its own defaults: start, memory and throughput, in one run.

    python -m bench.serving llama.cpp --program /opt/rackserve/current/llama.cpp/bin/llama-server --model tiny.gguf
    python -m bench.serving vllm --program /opt/rackserve/current/vllm/bin/vllm --model /srv/models/tiny

Both are started in turn, several times over, on this machine; what is shown is the median of each. Answers are not
looked at: with random weights they are noise. Throughput is tokens per second of all requests,
at 1, 8 and 32 at once. On a CPU host vLLM's defaults may start only --defaults-with=--gpu-memory-utilization=0.5.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bench.serving_commands import Served, served

PORT = 18231
AT_ONCE = (1, 8, 32)
TOKENS = 64
START_S = 900
_MIB = 1024


@dataclass(frozen=True)
class Result:
    """One start. seconds: until the first completion. memory_mib: of all processes, shared pages counted once."""

    seconds: float
    memory_mib: float
    tokens_per_second: tuple[float, ...]


def main(arguments: Sequence[str]) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="bench.serving", description=__doc__.splitlines()[0])
    parser.add_argument("runtime", choices=("llama.cpp", "vllm"))
    parser.add_argument("--program", required=True, help="the server's program")
    parser.add_argument("--model", required=True, help="GGUF file, or folder of a checkpoint")
    parser.add_argument("--memory-mib", type=int, default=16384, help="RAM to plan with")
    parser.add_argument("--gpu", default="cpu", help="GPU tag to plan for")
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--max-model-len", type=int, default=1024)
    parser.add_argument("--defaults-with", default="", help="what the defaults do not start without, in one word")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        show(compare(served(options, PORT, Path(folder)), options.rounds))


def compare(variants: Sequence[Served], rounds: int) -> dict[str, list[Result]]:
    """Each in turn, so that a slower hour of the machine meets both."""
    results: dict[str, list[Result]] = {variant.name: [] for variant in variants}
    for number in range(rounds):
        for variant in variants:
            print(f"round {number + 1}: {variant.name}", file=sys.stderr)  # noqa: T201  progress
            results[variant.name].append(measure(variant))
    return results


def measure(variant: Served) -> Result:
    """Start the server, ask it, and end it again."""
    with running(variant) as (process, started):
        wait(process, variant)
        seconds = time.perf_counter() - started
        speeds = tuple(throughput(variant, at_once) for at_once in AT_ONCE)
        return Result(seconds, memory_mib(process.pid), speeds)


@contextmanager
def running(variant: Served) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """The server in a session of its own, so that all of its processes end with it."""
    with tempfile.TemporaryFile() as log:
        started = time.perf_counter()
        process = subprocess.Popen(
            variant.argv, env=os.environ | dict(variant.environment), stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield process, started
        except RuntimeError as error:
            log.seek(0)
            raise SystemExit(f"{error}\n{log.read()[-3000:].decode(errors='replace')}") from error
        finally:
            # One that has ended by itself is told by what was raised.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait(process: subprocess.Popen[bytes], variant: Served) -> None:
    """Until one token has come."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{variant.name} ended with {process.returncode}")
        try:
            complete(variant, 1)
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"{variant.name} does not answer")


def complete(variant: Served, tokens: int) -> int:
    """Tokens of one answer."""
    body = {
        "model": variant.model,
        "max_tokens": tokens,
        "ignore_eos": True,
        "messages": [{"role": "user", "content": "count"}],
    }
    request = urllib.request.Request(
        f"http://127.0.0.1:{PORT}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {variant.key}"},
    )
    with urllib.request.urlopen(request, timeout=START_S) as answer:  # noqa: S310  our own address
        return int(json.load(answer)["usage"]["completion_tokens"])


def throughput(variant: Served, at_once: int) -> float:
    """Tokens per second of `at_once` clients that each ask twice."""
    with ThreadPoolExecutor(at_once) as pool:
        started = time.perf_counter()
        tokens = sum(pool.map(lambda _: complete(variant, TOKENS), range(2 * at_once)))
        return tokens / (time.perf_counter() - started)


def memory_mib(leader: int) -> float:
    """Proportional set size of the session, in MiB."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(folder.name)) == leader:
                rollup = (folder / "smaps_rollup").read_text()
                total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
        except (OSError, StopIteration):
            continue
    return total / _MIB


def show(results: dict[str, list[Result]]) -> None:
    """One line for each variant."""
    speeds = "  ".join(f"{f'{count} at once':>12}" for count in AT_ONCE)
    print(f"{'':24} start s  memory MiB  {speeds}   (tokens per second)")  # noqa: T201  this is the result
    for name, rounds in results.items():
        seconds = statistics.median(result.seconds for result in rounds)
        memory = statistics.median(result.memory_mib for result in rounds)
        columns = [statistics.median(result.tokens_per_second[index] for result in rounds) for index in range(3)]
        listed = "  ".join(f"{value:12.0f}" for value in columns)
        print(f"{name:24} {seconds:7.1f}  {memory:10.0f}  {listed}")  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
