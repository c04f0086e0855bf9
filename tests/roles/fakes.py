"""Run a deploy script in this process, as pyinfra's command line does, on hosts that are a function of the command."""

from __future__ import annotations

import functools
import hashlib
import inspect
import re
import shlex
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gevent
import pyinfra
from pyinfra.api import Config, FactBase, Host, Inventory, State, arguments, util
from pyinfra.api import host as host_module
from pyinfra.api.connect import connect_all, disconnect_all
from pyinfra.api.facts import get_fact
from pyinfra.api.operations import run_ops
from pyinfra.api.state import StateStage
from pyinfra.connectors import fake
from pyinfra.connectors.util import CommandOutput, OutputLine
from pyinfra.context import ctx_config, ctx_host, ctx_inventory, ctx_state
from pyinfra_cli.util import load_deploy_file

from rackserve.catalog.loader import load_catalog
from rackserve.facts.node import parse_node
from rackserve.fleet import plan_fleet
from rackserve.planning.container_host import COMMANDS
from rackserve.planning.driver_plan import DriverPlan
from rackserve.planning.model_source import GgufSource
from rackserve.planning.node_driver import driver_for
from rackserve.planning.plans import AnyServicePlan, HostPlan
from rackserve.rendering import host_files
from rackserve.rendering.units import unit_digest

ROOT = Path(__file__).resolve().parents[2]
_REFUSAL = "exit 1' sh"
_hints = functools.cache(typing.get_type_hints)
# A role keeps plans by the inventory's id: an inventory that is kept is one whose id is not used again.
_kept: list[Inventory] = []


class Command(str):
    """A command line as a host sees it. fact: the class that asks with it, empty for what an operation sends.

    stdin: what travels beside it.
    """

    __slots__ = ("fact", "stdin")
    fact: str
    stdin: str


class FailedError(Exception):
    """A command that ends in an error, with what it says."""


# What a host says to a command; None is success without a word, as from a command that changes something.
Answers = Callable[[Command], str | None]


@dataclass
class Run:
    """What happened: names per operation hash in order, and per host the operations and the commands that change."""

    names: list[set[str]] = field(default_factory=list)
    operations: dict[str, list[str]] = field(default_factory=dict)
    changes: dict[str, list[Command]] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)


@contextmanager
def _pyinfra(inventory: Inventory, config: Config) -> Iterator[State]:
    state = State(check_for_changes=True)
    before = [(context, context.get()) for context in (ctx_state, ctx_inventory, ctx_config, ctx_host)]
    was_cli, pyinfra.is_cli = pyinfra.is_cli, True
    try:
        ctx_state.set(state)
        ctx_inventory.set(inventory)
        ctx_config.set(config)
        state.cwd = str(ROOT)
        state.init(inventory, config)
        yield state
    finally:
        pyinfra.is_cli = was_cli
        for context, value in before:
            context.set(value)


def deploy(script: str, hosts: dict[str, dict[str, Any]], answers: dict[str, Answers], monkeypatch: Any) -> Run:
    """Run deploys/SCRIPT on these hosts. Raises what pyinfra would end the run with."""
    run = Run(changes={name: [] for name in hosts})
    asking: dict[str, str] = {}

    def asked(state: State, host: Host, cls: type[FactBase[Any]], **options: Any) -> Any:
        asking[host.name] = cls.__name__
        try:
            return get_fact(state, host, cls, **options)
        finally:
            del asking[host.name]

    def respond(connector: fake.FakeConnector, line: Any, **options: Any) -> tuple[bool, CommandOutput]:
        command = Command(line if isinstance(line, str) else line.get_raw_value())
        command.fact, command.stdin = asking.get(connector.host.name, ""), "".join(options.get("_stdin") or ())
        name = connector.host.name.removeprefix("@fake/")
        # Other hosts get their turn here, as they do while a real one is waited for.
        gevent.sleep(0)
        if not command.fact:
            run.changes[name].append(command)
        try:
            said, failed = answers[name](command), _REFUSAL in command and "transfer cut off" not in command
        except FailedError as error:
            return False, CommandOutput([OutputLine("stderr", line) for line in str(error).splitlines()])
        return not failed, CommandOutput([OutputLine("stdout", line) for line in (said or "").splitlines()])

    monkeypatch.setattr(host_module, "get_fact", asked)
    # pyinfra reads each caller's source and its own annotations anew for every operation, and looks at neither.
    monkeypatch.setattr(util, "getframeinfo", functools.partial(inspect.getframeinfo, context=0))
    monkeypatch.setattr(util, "stack", functools.partial(inspect.stack, context=0))
    monkeypatch.setattr(arguments, "get_type_hints", _hints)
    monkeypatch.setattr(fake.FakeConnector, "run_shell_command", respond)
    inventory = Inventory(([(f"@fake/{name}", data) for name, data in hosts.items()], {}))
    _kept.append(inventory)
    with _pyinfra(inventory, Config()) as state:
        state.set_stage(StateStage.Connect)
        connect_all(state)
        state.set_stage(StateStage.Prepare)
        try:
            load_deploy_file(state, str(ROOT / "deploys" / script))
            order = state.get_op_order()
            run.names = [state.op_meta[op_hash].names for op_hash in order]
            for host in inventory:
                mine = [op_hash for op_hash in order if op_hash in state.ops[host]]
                run.operations[host.name.removeprefix("@fake/")] = mine
            state.set_stage(StateStage.Execute)
            run_ops(state)
        finally:
            run.failed = {host.name.removeprefix("@fake/") for host in state.failed_hosts}
            disconnect_all(state)
    return run


def bare(node: str) -> Answers:
    """A host on which nothing of ours is."""

    def answer(command: str) -> str | None:
        if "/etc/os-release" in command:
            return node
        return "Linux" if "uname" in command else ("/usr/sbin/useradd" if "command -v" in command else None)

    return answer


def driven(name: str, data: dict[str, Any], node: str) -> Answers:
    """A host whose GPUs are driven as planned, and on which nothing else of ours is."""
    (plan,) = plan_fleet([(f"@fake/{name}", data)])
    return lambda command: _ready(plan, node) if command.fact == "Ready" else bare(node)(command)


def converged(name: str, data: dict[str, Any], node: str, release: str, packages: list[str]) -> Answers:
    """A host on which everything is as planned. release, packages: what its services need."""
    (plan,) = plan_fleet([(f"@fake/{name}", data)])
    return lambda command: _as_planned(plan, command, node, release, packages)


def _as_planned(plan: HostPlan, command: Command, node: str, release: str, packages: list[str]) -> str | None:
    services = plan.all_services
    told: dict[str, Callable[[], str]] = {
        "NodeFact": lambda: node,
        "Ready": lambda: _ready(plan, node),
        "Dpkg": lambda: "\n".join(f"{package}|ii " for package in packages),
        "Releases": lambda: f"complete={release}\ncurrent={release}",
        "Podman": lambda: "\n".join(_podman(plan)),
        "PathStates": lambda: "\n".join(_stat(plan, path) for path in _listed(command)),
        "Snapshot": lambda: '{"files": []}\nsizes:',
        "Links": lambda: "\n".join(word for service in services for link in service.launch.links for word in link),
        "InstalledServices": lambda: "\n".join(f"/etc/systemd/system/{service.unit}.d" for service in services),
        "Users": lambda: "\n".join(_passwd(service) for service in services),
        "Unit": lambda: next(_unit(service) for service in services if service.unit in command),
    }
    return told[command.fact]() if command.fact in told else bare(node)(command)


def _ready(plan: HostPlan, node: str) -> str:
    found = driver_for(plan.host, plan.gpu, parse_node(node.splitlines()), load_catalog())
    if not isinstance(found, DriverPlan):
        return ""
    ready = '{"gpus": [{"uuid": "GPU-1"}], "problems": []}'
    units = (f"unit={unit} enabled active oneshot" for unit in ("gpu-ready.service", *found.units))
    return "\n".join([f'marker={{"digest": "{found.digest}", "ready": {ready}}}', f"ready={ready}", *units])


def _podman(plan: HostPlan) -> Iterator[str]:
    yield from (f"command={command}" for command in COMMANDS)
    yield from (f"image={container.image}" for service in plan.all_services if (container := service.launch.container))


def _passwd(service: AnyServicePlan) -> str:
    user = service.user
    return f"{user}:x:99:99::/var/lib/rackserve/{service.name}:/usr/sbin/nologin|{user}|{user}||!"


def _unit(service: AnyServicePlan) -> str:
    state = "generated" if service.launch.container else "enabled"
    return (
        f"ActiveState=active\nUnitFileState={state}\nNeedDaemonReload=no\nMainPID=7\n"
        f"RACKSERVE_DIGEST={unit_digest(service)}\nexe=/p\nprogram=/p\nkey=current\nwatch=current"
    )


def _listed(command: str) -> list[str]:
    """The paths of a loop `for p in PATHS; do`."""
    found = re.search(r"for p in (.*?); do", _unwrapped(command))
    assert found, command
    return shlex.split(found[1])


def _unwrapped(command: str) -> str:
    """The command inside `sh -c '...'`."""
    return shlex.split(command)[-1] if command.startswith("sh -c") else command


def _stat(plan: HostPlan, path: str) -> str:
    for file in host_files(plan):
        if file.path == path:
            return f"{file.mode} root root 1 {hashlib.sha256(file.text.encode()).hexdigest()} {path}"
    for service in plan.all_services:
        if isinstance(service.source, GgufSource) and service.source.path == path:
            return f"644 root root {service.source.size_bytes} - {path}"
    return f"600 root root 47 {'0' * 64} {path}"
