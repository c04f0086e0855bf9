"""Templates to text: every file of a host's services, byte for byte as it is installed."""

from __future__ import annotations

from rackserve.planning.macos import is_mac
from rackserve.planning.plans import AnyServicePlan, GpuServicePlan, HostPlan
from rackserve.rendering.compile_checks import check_files
from rackserve.rendering.launchd import daemon_digest, daemon_files, mac_common_files
from rackserve.rendering.text import RenderedFile
from rackserve.rendering.units import common_files, service_files, unit_digest


def host_files(plan: HostPlan) -> tuple[RenderedFile, ...]:
    """Every text file of a host's services, sorted by path: systemd's units, or launchd's daemons on a Mac."""
    if not plan.all_services:
        return ()
    if is_mac(plan):
        files = [*mac_common_files(), *(file for service in plan.gpu_services for file in daemon_files(service))]
    else:
        own = (file for service in plan.all_services for file in service_files(service))
        files = [*common_files(), *own, *check_files(plan)]
    # What several services bring along is there once.
    return tuple(file for _, file in sorted({file.path: file for file in files}.items()))


def service_digest(plan: AnyServicePlan) -> str:
    """SHA-256 over all text that decides how a service runs, under systemd or launchd."""
    if isinstance(plan, GpuServicePlan) and plan.launch.vendor == "apple":
        return daemon_digest(plan)
    return unit_digest(plan)
