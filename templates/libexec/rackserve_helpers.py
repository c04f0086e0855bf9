# ruff: noqa: INP001 (it lies beside the programs that import it, and is no package)
# Written by rackserve; changes here are overwritten by the next run.
"""What the programs beside a service's unit share: its service file, and how its server and its unit are asked.

Python 3.9 and the standard library only: it runs on hosts. The programs are started isolated (`python3 -I`) and put
this folder on their path themselves.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

SERVICES = "etc/rackserve/services"
GPUS = "run/rackserve/gpus.json"
CARD = ("address", "uuid", "node", "vendor")
NAME = re.compile(r"[a-z]([a-z0-9-]{0,20}[a-z0-9])?")
# Source: sysexits.h, which systemd's RestartPreventExitStatus= goes by here.
NO, BAD_ARGUMENTS, NO_INPUT = 1, 64, 66
SYSTEMCTL_S = 30
OK = 200
# A sample of Prometheus' text format: name, labels, value, time stamp. Labels may hold any character, braces too.
SAMPLE = re.compile(r"([A-Za-z_:][A-Za-z0-9_:]*)(?:\{.*\})?[ \t]+(\S+)(?:[ \t]+-?\d+)?[ \t]*")


class UnusableError(Exception):
    """Why a program cannot do its work; `code` is what it ends with."""

    def __init__(self, sentence: str, code: int = NO) -> None:
        super().__init__(sentence)
        self.code = code


@dataclass(frozen=True)
class Service:
    """A service's file.

    unit: of systemd. url: of its server, without a path, None for a part of an instance whose head on another host
    answers; joins: where that head is met, None where the part looks after that itself. health, metrics: paths.
    key_file: with its API key in the first line; metrics_key: metrics want it too. start_s, drain_s: longest to wait,
    in seconds. in_flight: gauges whose sum is the requests running or queued; progress: counters that grow while it
    computes. gpus: numbers in PCI order.
    gpu_mib: least memory that its processes hold on each of them, 0 for not checked.
    cache: folder of what a container compiles, None for a program of the host.
    """

    name: str
    unit: str
    url: str | None
    health: str
    key_file: str | None
    start_s: int
    drain_s: int
    metrics: str | None
    metrics_key: bool
    in_flight: list[str]
    progress: list[str]
    vendor: str
    gpus: list[int]
    gpu_mib: int
    joins: str | None = None
    cache: str | None = None


def _all(kind: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and all(isinstance(entry, kind) for entry in value)


# By the annotations of Service, which are text at run time.
_KINDS: dict[str, Callable[[Any], bool]] = {
    "str": lambda value: isinstance(value, str),
    "str | None": lambda value: value is None or isinstance(value, str),
    "int": lambda value: isinstance(value, int),
    "bool": lambda value: isinstance(value, bool),
    "list[str]": _all(str),
    "list[int]": _all(int),
}


class Answer(NamedTuple):
    """What a server said. status: of HTTP, 0 where no answer came; `text` then says why."""

    status: int
    text: str
    timed_out: bool = False


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """End with the code for bad arguments, which is not argparse's own."""
        self.exit(BAD_ARGUMENTS, f"{self.format_usage()}{self.prog}: {message}\n")


def arguments(program: str) -> argparse.Namespace:
    """The command line `PROGRAM NAME`: `name` of a service, and `root`, the folder that is looked below."""
    parser = _Parser(prog=program, usage=f"{program} NAME", allow_abbrev=False)
    parser.add_argument("name", type=_service_name)
    parser.add_argument("--root", default=Path("/"), type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _service_name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name of a service")
    return text


def run(program: str, main: Callable[[], int]) -> NoReturn:
    """Run a program to its end; what makes that impossible is told in one line."""
    try:
        sys.exit(main())
    except UnusableError as error:
        sys.stderr.write(f"{program}: {error}\n")
        sys.exit(error.code)


def read_service(name: str, root: Path) -> Service:
    """The file of a service. Raises UnusableError where it is missing or broken."""
    path = f"/{SERVICES}/{name}.json"
    try:
        told = json.loads(text_of(root, path))
        told = {"joins": None, "cache": None, **told}
        service = Service(**{field.name: told[field.name] for field in fields(Service)})
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = f"{type(error).__name__}: {error}"
        raise UnusableError(f"{path} cannot be read ({problem}): run deploys/serve.py", NO_INPUT) from error
    wrong = [field.name for field in fields(Service) if not _KINDS[str(field.type)](told[field.name])]
    if wrong or service.name != name or not (service.url or "http://").startswith("http://"):
        named = ", ".join(wrong) or ("name" if service.name != name else "url")
        raise UnusableError(f"{path} is broken at {named}: run deploys/serve.py", NO_INPUT)
    return service


def text_of(root: Path, *parts: str) -> str:
    """A small file's content. Raises OSError."""
    return root.joinpath(*(part.lstrip("/") for part in parts)).read_text(encoding="utf-8", errors="replace")


def first_line(path: str | Path) -> str:
    """What a key's file holds. Raises OSError, or ValueError where it is no text."""
    return Path(path).read_text(encoding="ascii").partition("\n")[0].strip()


def cards_of(numbers: Sequence[int], root: Path) -> dict[int, dict[str, str]]:
    """The GPUs of these numbers with what CARD names, as gpu-ready wrote it down.

    Raises UnusableError where one is not there.
    """
    try:
        found = json.loads(text_of(root, GPUS))
        cards = {number: {key: str(found[number][key]) for key in CARD} for number in range(len(found))}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnusableError(f"/{GPUS} cannot be read ({error}): see `systemctl status gpu-ready`") from error
    missing = [str(number) for number in numbers if number not in cards]
    if missing:
        raise UnusableError(f"there is no GPU {', '.join(missing)}: gpu-ready has found {len(cards)}, see /{GPUS}")
    return {number: cards[number] for number in numbers}


def unit_state(unit: str) -> dict[str, str]:
    """ActiveState, SubState, MainPID and ControlGroup of a unit."""
    wanted = "--property=ActiveState,SubState,MainPID,ControlGroup"
    try:
        command = ["systemctl", "show", wanted, "--", unit]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SYSTEMCTL_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise UnusableError(f"systemd does not say how {unit} is: {error}") from error
    lines = (line.partition("=") for line in done.stdout.splitlines())
    return {key: value for key, _, value in lines}


class Server:
    """A service's server, asked without any proxy that the environment names.

    Raises UnusableError where the service's key cannot be read.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            self._key = first_line(service.key_file) if service.key_file else ""
        except (OSError, ValueError) as error:
            raise UnusableError(f"the key cannot be read: {error}") from error

    def ask(self, path: str, timeout: float, body: object = None, *, with_key: bool = True) -> Answer:
        """One request, `body` as JSON; `timeout` in seconds without a sign of life."""
        headers = {"Content-Type": "application/json"}
        if self._key and with_key:
            headers["Authorization"] = f"Bearer {self._key}"
        data = None if body is None else json.dumps(body).encode()
        message = urllib.request.Request(f"{self.service.url}{path}", data, headers)  # noqa: S310 (checked to be http)
        try:
            with self._open(message, timeout) as answer:
                return Answer(answer.code, answer.read().decode("utf-8", "replace"))
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            # Python 3.9 does not know it as TimeoutError yet.
            return Answer(0, str(reason) or type(reason).__name__, isinstance(reason, socket.timeout))

    def _open(self, message: urllib.request.Request, timeout: float) -> Any:
        try:
            return self._opener.open(message, timeout=timeout)
        except urllib.error.HTTPError as error:
            return error

    def metrics(self, timeout: float) -> Answer:
        """The server's own metrics, where it has any."""
        return self.ask(self.service.metrics or "", timeout, with_key=self.service.metrics_key)

    def completion(self, timeout: float) -> tuple[Answer, str]:
        """Ask for one token: what came, and what is wrong with it, empty where it is the named model's token."""
        name = self.service.name
        body = {"model": name, "max_tokens": 1, "messages": [{"role": "user", "content": "ping"}]}
        answer = self.ask("/v1/chat/completions", timeout, body)
        return answer, _wrong(answer, name)


def _wrong(answer: Answer, name: str) -> str:
    start = answer.text[:300].strip()
    if answer.status != OK:
        return f"completion: HTTP {answer.status} {start}" if answer.status else f"completion: no answer: {start}"
    try:
        told = json.loads(answer.text)
        model, tokens, choices = told["model"], told["usage"]["completion_tokens"], told["choices"]
    except (ValueError, KeyError, TypeError):
        return f"completion: not understood: {start}"
    if model != name:
        return f"completion: answered by {model!r}, expected {name!r}"
    if not choices or not isinstance(tokens, int) or tokens < 1:
        return f"completion: no token in {start}"
    return ""


def totals(text: str, names: Iterable[str]) -> dict[str, float]:
    """Of these metrics those that are told, each summed over all its label sets."""
    wanted = set(names)
    sums: dict[str, float] = {}
    for line in text.splitlines():
        sample = SAMPLE.fullmatch(line)
        if sample and sample[1] in wanted:
            try:
                value = float(sample[2])
            except ValueError:
                continue
            if math.isfinite(value):
                sums[sample[1]] = sums.get(sample[1], 0.0) + value
    return sums
