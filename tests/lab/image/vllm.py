"""vllm, as the test's image has it: it serves whoever has the key in its environment."""

from __future__ import annotations

import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

KEY = os.environ["VLLM_API_KEY"]
OPTIONS = dict(zip(sys.argv[3::2], sys.argv[4::2], strict=False))


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_POST(self) -> None:
        model = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["model"]
        allowed = self.headers["Authorization"] == f"Bearer {KEY}"
        self.send_response(200 if allowed else 401)
        self.end_headers()
        if allowed:
            answer = {"model": model, "choices": [{"index": 0}], "usage": {"completion_tokens": 1}}
            self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
HTTPServer((OPTIONS["--host"], int(OPTIONS["--port"])), Handler).serve_forever()
