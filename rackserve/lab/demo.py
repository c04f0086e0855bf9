"""The main job from end to end on a throwaway host: bare Debian to an answered completion, told step by step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable

from rackserve.domain.errors import HostError
from rackserve.lab import model
from rackserve.lab.lab import Lab
from rackserve.rendering import CREDENTIALS

INVENTORY = "inventories/lab.py"
DEPLOY = "deploys/serve.py"
# Debian's next release carries llama-server as a package: the quickest way that is real.
SUITE = "forky"
SERVICE = "chat"
# A lab of its own, so that a demo takes nobody's hosts down.
NAME = "demo"
_HOST = "h1"
_PROMPT = "Why do servers have racks?"
_TOKENS = 24
_ANSWER_TIMEOUT_S = 120


def run(*, keep: bool, say: Callable[[str], None]) -> None:
    """Bring a host up, deploy to it, ask it, look at it, and take it down again unless `keep`.

    Raises LabError or HostError for whatever did not work; the host is taken down then too.
    """
    lab = Lab(NAME)
    started = time.monotonic()
    try:
        _lap(say, "lab host up", lambda: lab.up(1, SUITE, say))
        model.provide(lab.names.folder, lab.depot_dir, lab.depot_url, tiny=False, progress=say)
        _lap(say, "plan", lambda: _rackserve("plan"))
        _lap(say, "deploy", _deploy)
        _lap(say, "second deploy, which changes nothing", _deploy)
        _lap(say, "completion through the API key", lambda: _ask(lab, say))
        _lap(say, "the unit", lambda: _show_unit(lab, say))
        _lap(say, "verify", lambda: _rackserve("verify", "--verbose"))
    finally:
        if keep:
            say(f"\nkept: RACKSERVE_LAB={NAME} rackserve lab ssh {_HOST}; away with RACKSERVE_LAB={NAME} rackserve lab down")
        else:
            lab.down()
    say(
        f"\nbare host to answered completion, looked at and {'kept' if keep else 'gone'}: "
        f"{time.monotonic() - started:.0f} s in all"
    )


def _lap(say: Callable[[str], None], title: str, step: Callable[[], object]) -> None:
    say(f"\n=== {title}")
    started = time.monotonic()
    step()
    say(f"--- {title}: {time.monotonic() - started:.1f} s")


def _deploy() -> None:
    _program("pyinfra", "-y", INVENTORY, DEPLOY)


def _rackserve(command: str, *options: str) -> None:
    _program("rackserve", command, INVENTORY, *options)


def _program(module: str, *arguments: str) -> None:
    """Show the command as an operator would type it, and run it."""
    typed = " ".join((module, *arguments))
    print(f"$ {typed}", file=sys.stderr, flush=True)  # noqa: T201 (before the program's own output)
    environment = {**os.environ, "RACKSERVE_LAB": NAME}
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, env=environment, check=False)
    if done.returncode != 0:
        raise HostError(f"`{typed}` ended with exit code {done.returncode}")


def _ask(lab: Lab, say: Callable[[str], None]) -> None:
    """Ask as a client would: over the network, with the key that only root on the host can read."""
    key = lab.ssh(_HOST, f"cat {CREDENTIALS}/{SERVICE}/api-key").stdout.strip()
    body = {"model": SERVICE, "max_tokens": _TOKENS, "messages": [{"role": "user", "content": _PROMPT}]}
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    url = f"http://{lab.address(_HOST)}:8001/v1/chat/completions"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    # A proxy of the machine knows nothing of the lab's addresses.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=_ANSWER_TIMEOUT_S) as response:
        answer = json.load(response)
    say(f"POST {url}\n{_PROMPT}\n> {answer['choices'][0]['message']['content'].strip()}")
    say(f"{answer['usage']['completion_tokens']} tokens from {answer['model']}")


def _show_unit(lab: Lab, say: Callable[[str], None]) -> None:
    unit = f"rackserve@{SERVICE}.service"
    say(lab.ssh(_HOST, f"systemctl cat {unit}").stdout.rstrip())
    say(lab.ssh(_HOST, f"systemd-analyze security --no-pager {unit} | tail -n 1").stdout.strip())
