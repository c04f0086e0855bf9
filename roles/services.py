"""Users, keys and units of the planned services, and the services running."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.operations import server

from rackserve.operations.environment import python_current
from rackserve.operations.files import links, text_files
from rackserve.operations.secret import api_key
from rackserve.operations.service import cleared, compiles, only, serving, together
from rackserve.planning.macos import is_mac
from rackserve.planning.plans import AnyServicePlan, GpuServicePlan, HostPlan
from rackserve.rendering import host_files
from rackserve.rendering.caches import kept_apart
from rackserve.rendering.compile_checks import check_files, check_unit, checked
from rackserve.rendering.text import RenderedFile
from rackserve.rendering.units import CREDENTIALS, key_path, unit_digest
from rackserve.runtimes.launch import RELEASES
from rackserve.runtimes.member import Member
from roles.planned import bound_hosts, host_plan, python_environments

# Seconds that systemd's own limits come after the unit's start timeout, so that the unit's message is what is shown.
_START_GRACE_S = 120


@deploy("Services")
def services() -> None:
    """Exactly the planned services, each answering completions with the plan that is on disk."""
    plan = host_plan()
    if is_mac(plan):
        return
    asked = [service for service, _ in checked(plan)]
    only(
        name="Services that are not planned gone",
        names=[service.name for service in plan.all_services],
        checked=[service.name for service in asked],
    )
    for service in host.loop(list(plan.all_services)):
        server.user(  # noqa: S604 (its `shell` is the login shell)
            name="Service user present",
            user=service.user,
            system=True,
            home=f"/var/lib/rackserve/{service.name}",
            shell="/usr/sbin/nologin",
            ensure_home=False,
        )
    for service in host.loop(keyed(plan)):
        api_key(
            name="API key in place",
            path=f"{CREDENTIALS}/{service.name}/api-key",
            source=service.service.api_key_file,
        )
    check = check_files(plan)
    releases_current(asked, check)
    # Instances over several hosts: pyinfra runs a line on all hosts before it runs the next. A head that is to change
    # finishes its requests before a part of it is touched, and waits for parts that run already.
    for service in host.loop([service for service, member in spread_out(plan) if member.is_head]):
        cleared(
            name="Head of an instance at rest or as planned",
            unit=service.unit,
            digest=unit_digest(service),
            program=program(service),
            key_file=key_path(service),
            hosts=beside(service),
        )
    text_files(name="Units and helpers as planned", files=[file for file in host_files(plan) if file not in check])
    for service in host.loop([service for service in plan.all_services if service.launch.links]):
        links(name="Links to the model as planned", wanted=service.launch.links)
    for service, _ in host.loop([entry for entry in spread_out(plan) if not entry[1].is_head]):
        serving(
            name="Part of an instance running",
            unit=service.unit,
            digest=unit_digest(service),
            program=program(service),
            key_file=None,
            timeout=_START_GRACE_S,
            hosts=beside(service),
            caches=kept_apart(service),
        )
    for service in host.loop([service for service in plan.all_services if service.answers]):
        serving(
            name="Service serving its plan",
            unit=service.unit,
            digest=unit_digest(service),
            program=program(service),
            key_file=key_path(service),
            timeout=service.start_timeout + _START_GRACE_S,
            hosts=beside(service),
            caches=kept_apart(service),
        )


def releases_current(asked: list[AnyServicePlan], check: tuple[RenderedFile, ...]) -> None:
    """The planned releases asked whether they compile, then current.

    Before anything of a service in use is touched: the link to its release, its unit, its process.
    """
    releases = python_environments()
    if check:
        text_files(name="Compile checks as planned", files=check)
    for service in host.loop([service for service in asked if service.runtime_name in releases]):
        compiles(
            name="Planned release compiles",
            unit=service.unit,
            digest=unit_digest(service),
            program=f"{RELEASES}/{releases[service.runtime_name].release}/lib",
            key_file=key_path(service),
            check=check_unit(service.name),
        )
    if others := bound_hosts():
        together(name="Hosts of the same instances in this run still", hosts=others)
    for origin in host.loop(list(releases.values())):
        python_current(name="Planned release current", origin=origin)


def spread_out(plan: HostPlan) -> list[tuple[GpuServicePlan, Member]]:
    """Services that are parts of instances over several hosts."""
    return [(service, service.member) for service in plan.gpu_services if service.member is not None]


def beside(service: AnyServicePlan) -> tuple[str, ...]:
    """The hosts of the other parts of an instance; none where the service is all of it."""
    member = service.member if isinstance(service, GpuServicePlan) else None
    return (*member.hosts[: member.rank], *member.hosts[member.rank + 1 :]) if member is not None else ()


def program(service: AnyServicePlan) -> str | None:
    """What of the host the service's process has to be an image of: nothing where it is in a container."""
    return None if service.launch.container is not None else service.launch.program


def keyed(plan: HostPlan) -> list[AnyServicePlan]:
    """Services whose server knows keys."""
    return [service for service in plan.all_services if key_path(service) is not None]
