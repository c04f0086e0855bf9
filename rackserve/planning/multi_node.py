"""Instances over several hosts: an entry at the head becomes a part on each of them, planned on all or on none. Pure.

The entry's copy on another host takes its cards there like a service of that host's own, after all of those.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from rackserve.domain.errors import Problem, suggestion
from rackserve.domain.host import Host
from rackserve.domain.service import Service
from rackserve.planning.gpu_fit import assign, ceilings
from rackserve.planning.part import Part
from rackserve.planning.plans import GpuServicePlan, HostPlan
from rackserve.runtimes.member import Distributed
from rackserve.runtimes.vllm_nodes import RAY_PORTS

# By host and service.
Parts = Mapping[tuple[str, str], Part]
# vLLM's own default; blocks for Ray end below the ports that Linux hands out by itself (32768).
_FIRST_PORT: Mapping[Distributed, int] = {"native": 29501, "ray": 20000}
_PORTS: Mapping[Distributed, int] = {"native": 1, "ray": RAY_PORTS}
# What a copy has not: clients, their key, and hosts of its own.
_COPY = {"nodes": (), "listen": "127.0.0.1", "allow_from": (), "port": None, "api_key_file": None}
_SAME_FAMILY = {"rocky": "rhel"}


@dataclass(frozen=True, slots=True)
class Spread:
    """hosts: with the copies that others' instances bring to them. problems: with any of them, there are no parts."""

    hosts: tuple[Host, ...]
    parts: Parts
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class _Instance:
    """hosts: the head, then its nodes."""

    service: Service
    hosts: tuple[Host, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(host.name for host in self.hosts)


def spread(hosts: tuple[Host, ...], inventory: Collection[str]) -> Spread:
    """Hand out the parts of all instances. inventory: the names of all its hosts, which may be more than `hosts`."""
    known = {host.name: host for host in hosts}
    instances: list[_Instance] = []
    problems: list[Problem] = []
    for host in hosts:
        for service in host.services:
            found = list(_problems(host, service, known, inventory))
            problems.extend(found)
            if service.nodes and not found:
                instances.append(_Instance(service, (host, *(known[node] for node in service.nodes))))
    problems.extend(_same_names(instances))
    joined = tuple(_with_copies(host, instances) for host in hosts)
    return Spread(joined, {} if problems else _parts(joined, instances), tuple(problems))


def _problems(head: Host, service: Service, known: Mapping[str, Host], inventory: Collection[str]) -> Iterator[Problem]:
    """What is wrong with one entry, whatever it needs."""
    where = {"host": head.name, "service": service.name}
    if not service.nodes:
        if service.distributed is not None:
            yield Problem("has no meaning without nodes", key="distributed", hint="leave it out", **where)
        return
    for node in dict.fromkeys(service.nodes):
        if node == head.name:
            yield Problem(f"{node} is the host that it stands on", key="nodes", hint="name the others only", **where)
        elif service.nodes.count(node) > 1:
            yield Problem(f"{node} is named twice", key="nodes", **where)
        elif node not in known:
            hint = suggestion(node, set(inventory) - {head.name})
            yield Problem(f"{node} is no host of the inventory", key="nodes", hint=hint, **where)
        else:
            yield from _unlike(head, known[node], service)
    taking_part = [head, *(known[node] for node in dict.fromkeys(service.nodes) if node in known and node != head.name)]
    for host in taking_part:
        yield from _unfit(host, head, service)
    addresses = [host.node_address for host in taking_part if host.node_address is not None]
    for address in sorted({address for address in addresses if addresses.count(address) > 1}):
        yield Problem(f"two of its hosts have node_address {address}", key="nodes", **where)


def _unlike(head: Host, node: Host, service: Service) -> Iterator[Problem]:
    """In what a node differs from its head."""
    where = {"host": head.name, "service": service.name, "key": "nodes"}
    if node.gpu_tag != head.gpu_tag:
        yield Problem(
            f"{node.name} has {node.gpu_tag}, {head.name} has {head.gpu_tag}: all of its GPUs are equal", **where
        )
    if head.os is not None and node.os is not None and _family(node.os) != _family(head.os):
        yield Problem(f"{node.name} runs {node.os}, {head.name} runs {head.os}: one family of systems", **where)
    if service.name in {other.name for other in node.services}:
        message = f"{node.name} has a service of this name of its own"
        yield Problem(message, hint="give each service its own name", **where)


def _unfit(host: Host, head: Host, service: Service) -> Iterator[Problem]:
    """Why a host can be no part of any instance."""
    whose = f"{service.name} on {head.name} is spread over this host"
    if host.gpu_tag == "cpu" or host.gpu_simulated:
        what = "gpu_simulated" if host.gpu_simulated else "gpu_tag"
        yield Problem(
            f"has no GPU, and {whose}", host=host.name, key=what, hint="instances over several hosts need GPUs"
        )
    if host.node_address is None:
        hint = "the address by which its other hosts reach this one"
        yield Problem(f"is needed: {whose}", host=host.name, key="node_address", hint=hint)


def _family(system: str) -> str:
    name = system.partition("-")[0]
    return _SAME_FAMILY.get(name, name)


def _same_names(instances: Iterable[_Instance]) -> Iterator[Problem]:
    """Instances of one name that meet on a host."""
    for first, second in itertools.combinations(instances, 2):
        shared = sorted(set(first.names[1:]) & set(second.names[1:]))
        if first.service.name == second.service.name and shared:
            message = f"{first.names[0]} has an instance of this name, and {shared[0]} would be part of both"
            hint = "give each service its own name"
            yield Problem(message, host=second.names[0], service=second.service.name, key="nodes", hint=hint)


def _with_copies(host: Host, instances: Iterable[_Instance]) -> Host:
    copies = [instance.service.model_copy(update=_COPY) for instance in instances if host.name in instance.names[1:]]
    return host.model_copy(update={"services": (*host.services, *copies)}) if copies else host


def _parts(hosts: tuple[Host, ...], instances: Iterable[_Instance]) -> Parts:
    """Every host's part in every instance, with the cards that each host gives."""
    cards = {host.name: assign(host)[0] for host in hosts}
    shares = {host.name: ceilings(host, cards[host.name], []) for host in hosts}
    busy = {host.name: {service.port for service in host.services if service.port is not None} for host in hosts}
    parts: dict[tuple[str, str], Part] = {}
    for instance in instances:
        service, names = instance.service.name, instance.names
        memory = [host.memory_mib for host in instance.hosts if host.memory_mib is not None]
        ports = tuple((way, _free(way, [busy[host] for host in names])) for way in _FIRST_PORT)
        for rank, host in enumerate(instance.hosts):
            parts[host.name, service] = Part(
                rank=rank,
                hosts=names,
                addresses=tuple(str(other.node_address) for other in instance.hosts),
                cards=tuple(cards[other].get(service, ()) if service in shares[other] else () for other in names),
                interface=host.node_interface,
                ceiling=min((shares[other][service] for other in names if service in shares[other]), default=0.0),
                memory_mib=min(memory) if len(memory) == len(names) else None,
                ports=ports,
            )
        for name in names:
            busy[name].update(port for way, first in ports for port in range(first, first + _PORTS[way]))
    return parts


def _free(way: Distributed, busy: Iterable[set[int]]) -> int:
    """The first of a block of ports that no host of an instance uses."""
    taken, size = set().union(*busy), _PORTS[way]
    return next(
        first for first in itertools.count(_FIRST_PORT[way], size) if taken.isdisjoint(range(first, first + size))
    )


def agree(plans: Iterable[HostPlan], parts: Parts) -> tuple[HostPlan, ...]:
    """The plans, with each instance on all of its hosts, or on none of them and with the reason on each."""
    agreed = {plan.host.name: plan for plan in plans}
    for (head, name), part in parts.items():
        if part.rank == 0:
            found = [_service(agreed[host], name) for host in part.hosts]
            reason = _refused(agreed, part, name) if None in found else _differing(found, part)
            if reason:
                agreed |= {host: _without(agreed[host], name, head, reason) for host in part.hosts}
    return tuple(agreed.values())


def taken_apart(plans: Mapping[str, HostPlan]) -> Iterator[Problem]:
    """Instances of which a run leaves out hosts: it would change some of their parts under the others."""
    for host, plan in plans.items():
        for service in plan.gpu_services:
            outside = [name for name in service.member.hosts if name not in plans] if service.member is not None else []
            if outside:
                message = f"is spread over {', '.join(outside)} too, which this run leaves out"
                yield Problem(message, host=host, service=service.name, key="nodes", hint="add them to --limit")


def bound(plans: Mapping[str, HostPlan], host: str) -> tuple[str, ...]:
    """The other hosts that share an instance with this one, those that share another with them, and so on."""
    found, ahead = {host: None}, [host]
    while ahead:
        services = plans[ahead.pop()].gpu_services
        names = [name for service in services if service.member is not None for name in service.member.hosts]
        ahead += [name for name in dict.fromkeys(names) if name in plans and name not in found]
        found |= dict.fromkeys(ahead)
    return tuple(name for name in found if name != host)


def _service(plan: HostPlan, name: str) -> GpuServicePlan | None:
    return next((service for service in plan.gpu_services if service.name == name), None)


def _refused(plans: Mapping[str, HostPlan], part: Part, name: str) -> str:
    """What stands against the instance, and on which host: the first reason that is the host's own."""
    for host in part.hosts:
        errors = plans[host].errors
        own = [problem for problem in errors if problem.service == name]
        if _service(plans[host], name) is None and (own or errors):
            return f"{host}: {(own or errors)[0].message}"
    return f"{part.hosts[0]} does not serve it"


def _differing(found: Iterable[GpuServicePlan | None], part: Part) -> str:
    """Why plans that each fit do not go together; empty where they do."""
    first, *others = (plan for plan in found if plan is not None)
    for host, other in zip(part.hosts[1:], others, strict=True):
        if other.runtime != first.runtime:
            builds = f"{host} gets {_build(other)}, {part.hosts[0]} {_build(first)}"
            return f"{builds}: state runtime_version, and the same os on each host"
        if other.sizing != first.sizing:
            return f"{host} plans with other numbers than {part.hosts[0]}: one `catalog` for all of its hosts"
    return ""


def _build(plan: GpuServicePlan) -> str:
    build = plan.runtime
    made_with = build.cuda or build.rocm or build.backend
    return f"{plan.runtime_name} {build.version} ({build.install}, {build.backend} {made_with}, Python {build.python})"


def _without(plan: HostPlan, name: str, head: str, reason: str) -> HostPlan:
    """A plan that has no part in an instance, and says so where it does not yet."""
    told = any(problem.service == name for problem in plan.errors)
    on = "" if plan.host.name == head else f", whose head is {head},"
    problem = Problem(f"the instance{on} cannot be spread: {reason}", host=plan.host.name, service=name, key="nodes")
    left = tuple(service for service in plan.gpu_services if service.name != name)
    return replace(plan, gpu_services=left, errors=plan.errors if told else (*plan.errors, problem))
