"""Say at the end of a run where the services of each host answer."""

from __future__ import annotations

import click
from pyinfra import host, state
from pyinfra.api import Host as PyinfraHost
from pyinfra.api.state import BaseStateCallback, State

from rackserve.planning.plans import HostPlan
from rackserve.rendering.units import key_path
from roles.planned import host_plan


class _Endpoints(BaseStateCallback):
    """Prints a host's endpoints when pyinfra lets go of it, if everything on it succeeded."""

    def __init__(self) -> None:
        self.plans: dict[str, HostPlan] = {}

    def host_disconnect(self, state: State, host: PyinfraHost) -> None:  # type: ignore[override]  # a static method there
        """Called once per host at the end of a run."""
        plan = self.plans.get(host.name)
        results = state.results[host]
        if plan is None or host in state.failed_hosts or results.error_ops or not results.ops:
            return
        for service in plan.all_services:
            if not service.answers:
                continue
            url, key = service.probe_url, key_path(service)
            click.echo(f"{host.name}: {service.name} serves {service.model.name} at {url}/v1", err=True)
            told = f"{key} on {host.name}" if key else f"none, {service.runtime_name} knows no keys"
            click.echo(f"    key: {told}", err=True)


_reporters: dict[int, _Endpoints] = {}


def endpoints() -> None:
    """Remember the current host's plan for the report. No operation: a report is no change."""
    key = id(state.inventory)
    if key not in _reporters:
        _reporters[key] = _Endpoints()
        state.add_callback_handler(_reporters[key])
    _reporters[key].plans[host.name] = host_plan()
