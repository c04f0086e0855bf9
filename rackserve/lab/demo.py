"""The main job from end to end on a throwaway host: bare Debian to an answered completion, told step by step."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from rackserve.cache import builds_folder
from rackserve.catalog.loader import load_catalog
from rackserve.domain.errors import HostError, InputError, LabError, Problem
from rackserve.lab import model, podman
from rackserve.lab.lab import Lab
from rackserve.lab.shell import require_machine
from rackserve.lab.state import NSPAWN, PODMAN
from rackserve.rendering.units import CREDENTIALS

INVENTORY = "inventories/lab.py"
DEPLOY = "deploys/serve.py"
# Debian's next release carries llama-server as a package: the quickest way that is real.
SUITE = "forky"
# Where that suite's systemd does not run: cgroup 1 machines, in podman.
OLDER_SUITE = "bookworm"
BACKEND_VARIABLE = "RACKSERVE_LAB_BACKEND"
SERVICE = "chat"
# A lab of its own, so that a demo takes nobody's hosts down.
NAME = "demo"
_HOST = "h1"
_PROMPT = "Why do servers have racks?"
_TOKENS = 24
_ANSWER_TIMEOUT_S = 120
_VIRTUAL_MACHINES = "or use virtual machines: docs/vagrant.md"
_NOT_ENFORCED = (
    "This host is a container: systemd accepts the unit's sandbox in it and does not enforce it. The score is what a "
    "server would get."
)
_Result = TypeVar("_Result")


def run(*, keep: bool, say: Callable[[str], None]) -> None:
    """Bring a host up, deploy to it, ask it, look at it, and take it down again unless `keep`.

    Raises LabError or HostError for whatever did not work; the host is taken down then too.
    """
    lab = Lab(NAME)
    started = time.monotonic()
    in_podman = _backend(say) == PODMAN
    options: tuple[str, ...] = ()
    try:
        if in_podman:
            options = _lap(say, "lab host up", lambda: _podman_host(lab, say))
        else:
            _lap(say, "lab host up", lambda: lab.up(1, SUITE, say))
        model.provide(lab.names.folder, lab.depot_dir, lab.depot_url, tiny=False, progress=say)
        _lap(say, "plan", lambda: _rackserve("plan"))
        _lap(say, "deploy", lambda: _deploy(options))
        _lap(say, "deploy again", lambda: _deploy(options))
        _lap(say, "completion through the API key", lambda: _ask(lab, say))
        _lap(say, "the unit", lambda: _show_unit(lab, say))
        if in_podman:
            say(_NOT_ENFORCED)
        _lap(say, "verify", lambda: _rackserve("verify", "--verbose"))
    finally:
        if keep:
            command = f"RACKSERVE_LAB={NAME} rackserve lab"
            say(f"\nkept: {command} ssh {_HOST}; away with {command} down")
        else:
            lab.down()
    say(
        f"\nbare host to answered completion, looked at and {'kept' if keep else 'gone'}: "
        f"{time.monotonic() - started:.0f} s in all"
    )


def _backend(say: Callable[[str], None], environ: Mapping[str, str] = os.environ) -> str:
    """What carries the host: nspawn where it can be used, else podman; LabError with what to install if neither."""
    asked = environ.get(BACKEND_VARIABLE, "")
    if asked not in ("", NSPAWN, PODMAN):
        raise InputError([Problem(f"{asked!r} is no backend", key=BACKEND_VARIABLE, hint=f"{NSPAWN} or {PODMAN}")])
    if asked != PODMAN:
        try:
            require_machine()
        except LabError as error:
            if asked == NSPAWN:
                raise
            reason = str(error)
        else:
            return NSPAWN
        if podman.missing():
            raise LabError(f"{reason}; or, for a podman container instead: {podman.INSTALL}; {_VIRTUAL_MACHINES}")
        say(f"a podman container instead of a lab host: {reason}")
    elif podman.missing():
        raise LabError(podman.missing())
    return PODMAN


def _podman_host(lab: Lab, say: Callable[[str], None]) -> tuple[str, ...]:
    """Bring the host up in podman; returns the options with which its suite is deployed to."""
    try:
        _container(lab, SUITE, say)
    except LabError as newer:
        say(f"not with Debian {SUITE}: {newer}")
        lab.down()
    else:
        return ()
    try:
        options = _runtime_options(OLDER_SUITE)
        _container(lab, OLDER_SUITE, say)
    except LabError as older:
        raise LabError(f"podman carries no host on this machine: {older}; {_VIRTUAL_MACHINES}") from older
    return options


def _container(lab: Lab, suite: str, say: Callable[[str], None]) -> None:
    podman.up(lab.names, lab.login, suite, say)
    lab.wait(_HOST)
    host = lab.state().host(_HOST)
    say(f"{_HOST} is up at {host.address}, SSH on port {host.ssh_port}")


def _runtime_options(suite: str) -> tuple[str, ...]:
    """How llama-server gets onto a suite without a package of it: an earlier build, else the release archive."""
    if any(builds_folder().glob(f"llama.cpp-*-{suite}-{platform.machine()}.tar.gz")):
        return ("--data", "llamacpp_install=build")
    archives = [archive for archive in load_catalog().llamacpp.archives if archive.architecture == platform.machine()]
    if any(model.hub_answers(archive.url) for archive in archives):
        return ()
    raise LabError(f"Debian {suite} has no llama-server package, and the release archive cannot be reached")


def _lap(say: Callable[[str], None], title: str, step: Callable[[], _Result]) -> _Result:
    say(f"\n=== {title}")
    started = time.monotonic()
    result = step()
    say(f"--- {title}: {time.monotonic() - started:.1f} s")
    return result


def _deploy(options: Sequence[str]) -> None:
    _program("pyinfra", "-y", *options, INVENTORY, DEPLOY)


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
    host = lab.state().host(_HOST)
    url = f"http://{host.address}:{host.port}/v1/chat/completions"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    # A proxy of the machine knows nothing of the lab's addresses.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=_ANSWER_TIMEOUT_S) as response:
        answer = json.load(response)
    say(f"POST {url}\n{_PROMPT}\n> {answer['choices'][0]['message']['content'].strip()}")
    say(f"{answer['usage']['completion_tokens']} tokens from {answer['model']}")
    if model.provided(lab.names.folder)["model"] == model.TINY:
        say("(The model's weights are random: the answer is real, its words mean nothing.)")


def _show_unit(lab: Lab, say: Callable[[str], None]) -> None:
    unit = f"rackserve@{SERVICE}.service"
    say(lab.ssh(_HOST, f"systemctl cat {unit}").stdout.rstrip())
    say(lab.ssh(_HOST, f"systemd-analyze security --no-pager {unit} | tail -n 1").stdout.strip())
