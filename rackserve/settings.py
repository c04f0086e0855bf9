"""Host data of the inventory to nouns, with every problem of every host told at once.

Inventory keys are flat, because pyinfra replaces whole keys and never merges deeper: `llamacpp_install` here is
`Host.llamacpp.install` inside. Keys that are neither ours nor close to one of ours belong to somebody else's deploy
and are left alone.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from rackserve.domain.errors import InputError, Problem
from rackserve.domain.host import Host, LlamaCppSettings
from rackserve.domain.policy import KV_HEADROOM, UNSEEN_FOLDERS

_LLAMACPP_PREFIX = "llamacpp_"
_HOST_KEYS = frozenset(Host.model_fields) - {"name", "llamacpp"}
_LLAMACPP_KEYS = frozenset(f"{_LLAMACPP_PREFIX}{field}" for field in LlamaCppSettings.model_fields)
KNOWN_KEYS = _HOST_KEYS | _LLAMACPP_KEYS
# Looser and `ssh_user` or `vagrant_box` would be taken for a typing mistake.
_TYPO_SIMILARITY = 0.85


def load_hosts(inventory: Iterable[tuple[str, Mapping[str, Any]]]) -> tuple[Host, ...]:
    """Validate the data of all hosts. Raises InputError that carries every problem of every host."""
    hosts: list[Host] = []
    problems: list[Problem] = []
    for name, data in inventory:
        problems.extend(_misspelt(name, data))
        try:
            hosts.append(_load(name, data))
        except ValidationError as error:
            problems.extend(_problem(name, data, detail) for detail in error.errors(include_url=False))
    for host in hosts:
        problems.extend(_clashes(host))
    if problems:
        raise InputError(problems)
    return tuple(hosts)


def tied(
    inventory: Iterable[tuple[str, Mapping[str, Any]]], names: Iterable[str]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The named hosts and those that instances over several hosts tie to them, in the inventory's order."""
    entries = tuple(inventory)
    ties = [{name, *_nodes(data)} for name, data in entries]
    wanted = set(names)
    while more := {name for tie in ties if tie & wanted for name in tie} - wanted:
        wanted |= more
    return (entry for entry in entries if entry[0] in wanted)


def _nodes(data: Mapping[str, Any]) -> Iterator[str]:
    """What services name as their nodes, whatever else stands there: nothing of it was validated yet."""
    services = data.get("services")
    for service in services if isinstance(services, list | tuple) else ():
        nodes = service.get("nodes") if isinstance(service, Mapping) else ()
        yield from (node for node in nodes if isinstance(node, str)) if isinstance(nodes, list | tuple) else ()


def _load(name: str, data: Mapping[str, Any]) -> Host:
    ours = {key: value for key, value in data.items() if key in _HOST_KEYS}
    llamacpp = {key.removeprefix(_LLAMACPP_PREFIX): value for key, value in data.items() if key in _LLAMACPP_KEYS}
    return Host.model_validate({**ours, "name": name, "llamacpp": llamacpp})


def _misspelt(name: str, data: Mapping[str, Any]) -> Iterable[Problem]:
    for key in data:
        if key in KNOWN_KEYS or key.startswith("_"):
            continue
        close = difflib.get_close_matches(key, KNOWN_KEYS, n=1, cutoff=_TYPO_SIMILARITY)
        if close:
            yield Problem("is not a setting", host=name, key=key, hint=f"did you mean {close[0]}?")


def _problem(name: str, data: Mapping[str, Any], detail: Any) -> Problem:
    location = list(detail["loc"])
    service = ""
    if location[:1] == ["services"] and len(location) > 1:
        service = _service_name(data, location[1])
        location = location[2:]
    elif location[:1] == ["llamacpp"]:
        location[:2] = [f"{_LLAMACPP_PREFIX}{location[1]}"] if len(location) > 1 else ["llamacpp"]
    message = detail["msg"].removeprefix("Value error, ")
    # An inventory is Python, so a value can be anything: show what was written, but never a page of it.
    found = repr(detail["input"])[:120] if detail["type"] != "missing" else ""
    return Problem(
        message[:1].lower() + message[1:] + (f", found {found}" if found else ""),
        host=name,
        service=service,
        key=".".join(str(part) for part in location),
    )


def _service_name(data: Mapping[str, Any], index: Any) -> str:
    try:
        return str(data["services"][index]["name"])[:40]
    except (KeyError, IndexError, TypeError):
        return f"number {index + 1}" if isinstance(index, int) else str(index)[:40]


def _clashes(host: Host) -> Iterable[Problem]:
    """What is wrong between fields that are each right."""
    names = [service.name for service in host.services]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield Problem("stands twice on this host", host=host.name, service=name, hint="give each service its own name")
    ports = [service.port for service in host.services if service.port is not None]
    for port in sorted({port for port in ports if ports.count(port) > 1}):
        yield Problem(f"{port} is used by two services", host=host.name, key="port")
    for service in host.services:
        limit, average = service.max_model_len, service.avg_tokens
        if limit is not None and average is not None and KV_HEADROOM * average > limit:
            message = f"{average} x {KV_HEADROOM} is more than max_model_len {limit}"
            yield Problem(message, host=host.name, service=service.name, key="avg_tokens")
    if host.gpu_tag == "cpu" and host.services and host.memory_mib is None:
        yield Problem("is needed for a cpu host: its services live in RAM", host=host.name, key="memory_mib")
    if any(f"{host.models_dir}/".startswith(f"{folder}/") for folder in UNSEEN_FOLDERS):
        message = f"{host.models_dir}: services do not see {', '.join(UNSEEN_FOLDERS)}"
        yield Problem(message, host=host.name, key="models_dir")
    wants_mirror = host.llamacpp.install == "mirror"
    if wants_mirror and host.llamacpp.mirror is None:
        yield Problem("is needed for llamacpp_install = 'mirror'", host=host.name, key="llamacpp_mirror")
    if (host.llamacpp.archive_url is None) != (host.llamacpp.archive_sha256 is None):
        yield Problem("llamacpp_archive_url and llamacpp_archive_sha256 go together", host=host.name)
