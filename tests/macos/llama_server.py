# ruff: noqa: T201 (a program)
"""What stands in for llama-server: a real HTTP server with its routes, options and key, in the moods that servers have.

`mood` is a file of JSON beside the program, read anew at each request: health, completion, metrics (HTTP status, or
"hang"), model, tokens, busy, worked, text; dies and ends at its start. It is run as a program, without our modules.
"""

from __future__ import annotations

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

OPTIONS = dict(zip(sys.argv[1:], sys.argv[2:], strict=False))
MOOD = Path(sys.argv[0]).with_name("mood")


def mood(key, otherwise):
    return json.loads(MOOD.read_text() or "{}").get(key, otherwise) if MOOD.exists() else otherwise


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/health":
            self.say(mood("health", 200), {"status": "ok"})
        elif self.path == "/metrics" and self.may():
            busy, worked = mood("busy", 0), mood("worked", 0)
            text = (
                "# HELP llamacpp:requests_processing busy\n"
                f"llamacpp:requests_processing {busy}\nllamacpp:requests_deferred 0\n"
                f'llamacpp:prompt_tokens_total{{slot="a b"}} {worked}\nllamacpp:tokens_predicted_total {worked}\n'
            )
            self.say(mood("metrics", 200), text)

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.may():
            tokens, text = mood("tokens", 1), mood("text", "pong")
            answer = {
                "choices": [{"message": {"content": text}}],
                "model": mood("model", asked["model"]),
                "usage": {"completion_tokens": tokens, "prompt_tokens": 4},
            }
            self.say(mood("completion", 200), answer)

    def may(self):
        key = Path(OPTIONS["--api-key-file"]).read_text().strip() if "--api-key-file" in OPTIONS else ""
        if key and self.headers.get("Authorization") != f"Bearer {key}":
            self.say(401, {"error": "Invalid API Key"})
            return False
        return True

    def say(self, status, body):
        if status == "hang":
            time.sleep(60)
        data = (body if isinstance(body, str) else json.dumps(body, indent=1)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        """Say nothing."""


def main():
    if "--version" in sys.argv:
        print("version: 6000")
        return
    if mood("dies", ""):
        sys.exit(f"main: {mood('dies', '')}")
    if mood("ends", ""):
        return
    print("main: listening", flush=True)
    server = ThreadingHTTPServer((OPTIONS["--host"], int(OPTIONS["--port"])), Handler)
    server.daemon_threads = True
    server.serve_forever()


if __name__ == "__main__":
    main()
