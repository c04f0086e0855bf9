"""trtllm-serve, as the test's image has it: it takes what the real one of 1.2 takes, and tells what it was given.

It refuses what the real one refuses, or what would go wrong in it: unknown options, a configuration file with unknown
keys, a model that it cannot read, a home that it cannot write, a prompt of more tokens than a step has while it is not
told to compute prompts in chunks.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CACHE_KEYS = {"free_gpu_memory_fraction", "dtype", "enable_block_reuse", "max_tokens", "tokens_per_block"}
CONFIG_KEYS = {"kv_cache_config", "guided_decoding_backend", "return_perf_metrics", "enable_iter_perf_stats"}
LOADING_S = 2


def arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="trtllm-serve", allow_abbrev=False)
    parser.add_argument("model", type=Path)
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--config", "--extra_llm_api_options", type=Path)
    parser.add_argument("--free_gpu_memory_fraction", type=float)
    for name in ("port", "max_seq_len", "max_batch_size", "max_num_tokens", "tp_size", "pp_size"):
        parser.add_argument(f"--{name}", type=int)
    for name in ("fail_fast_on_attention_window_too_large", "enable_chunked_prefill"):
        parser.add_argument(f"--{name}", action="store_true")
    return parser.parse_args(words)


def checked(options: argparse.Namespace) -> dict[str, object]:
    # Its YAML is JSON.
    config = json.loads(options.config.read_text())
    unknown = {*config} - CONFIG_KEYS | {*config.get("kv_cache_config", {})} - CACHE_KEYS
    if unknown:
        sys.exit(f"unknown keys in {options.config}: {unknown}")
    # The file's group takes the place of what the command line says of it.
    if "kv_cache_config" in config and options.free_gpu_memory_fraction is not None:
        sys.exit("free_gpu_memory_fraction stands in the command line and is lost")
    json.loads((options.model / "config.json").read_text())
    Path(os.environ["HOME"], "compiled").write_text("kernels")
    return config


def refusal(options: argparse.Namespace, messages: list[dict[str, str]]) -> str:
    """Why it does not take the prompt, in its own words (llmapi/llm.py, _check_arguments). A token is a word here."""
    tokens = sum(len(message["content"].split()) for message in messages)
    if options.enable_chunked_prefill or tokens <= options.max_num_tokens:
        return ""
    sums = f"The sum of prompt length ({float(tokens)}), query length (0)"
    return f"{sums} should not exceed max_num_tokens ({options.max_num_tokens})"


def forbidden(path: str) -> str:
    """What keeps it from writing there."""
    try:
        Path(path).write_text("x")
    except OSError as error:
        return error.strerror or "?"
    return "nothing"


def told(options: argparse.Namespace, config: dict[str, object]) -> dict[str, object]:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    (card,) = Path("/dev").glob("nvidia[0-9]*")
    card.open("rb").close()
    return {
        "argv": sys.argv[1:],
        "config": config,
        "environment": dict(os.environ),
        "ids": [os.getuid(), os.getgid()],
        "capabilities": {status[name].strip() for name in ("CapPrm", "CapEff", "CapBnd")} == {"0" * 16},
        "no_new_privileges": status["NoNewPrivs"].strip() == "1",
        "cards": sorted(path.name for path in Path("/dev").glob("nvidia*")),
        "libraries": sorted(path.name for path in Path("/etc/ld.so.conf.d").iterdir()),
        "forbidden": {
            path: forbidden(path)
            for path in ("/usr/bin/x", "/etc/x", f"{options.model}/x", "/models/x", "/etc/rackserve/x", "/sys/x")
        },
        "allowed": {path: forbidden(path) for path in ("/tmp/x", "/dev/shm/x", "/cache/x")},
        "shm_mib": os.statvfs("/dev/shm").f_frsize * os.statvfs("/dev/shm").f_blocks >> 20,
        "processes": [path.name for path in Path("/proc").glob("[0-9]*")],
    }


class Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True
    running = 0

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.config = options, checked(options)
        self.name, self.told = options.model.name, told(options, self.config)
        self.ready_at = time.monotonic() + LOADING_S
        super().__init__((options.host, options.port), Handler)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        ready = time.monotonic() >= self.server.ready_at
        if self.path == "/health":
            self.answer(200 if ready else 503, "")
        elif self.path == "/told":
            self.answer(200, json.dumps(self.server.told))
        elif self.path == "/prometheus/metrics" and self.server.config.get("return_perf_metrics"):
            self.answer(200, f"trtllm_num_requests_running {self.server.running}\ntrtllm_num_requests_waiting 0\n")
        else:
            self.answer(404, "")

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions" or asked["model"] != self.server.name:
            self.answer(404, json.dumps({"error": f"{self.path} {asked.get('model')}"}))
            return
        message = refusal(self.server.options, asked["messages"])
        if message:
            error = {"object": "error", "message": message, "type": "BadRequestError", "param": None, "code": 400}
            self.answer(400, json.dumps(error))
            return
        self.server.running += 1
        # A second for ten tokens.
        time.sleep(asked["max_tokens"] / 10)
        self.server.running -= 1
        tokens = asked["max_tokens"]
        choice = {"index": 0, "message": {"role": "assistant", "content": "word " * tokens}}
        self.answer(
            200,
            json.dumps({"model": self.server.name, "choices": [choice], "usage": {"completion_tokens": tokens}}),
        )

    def answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def main() -> None:
    server = Server(arguments(sys.argv[1:]))
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever(poll_interval=0.1)
    server.server_close()
    # As a process that ends by the signal after all.
    sys.exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    main()
