"""What asks, before a service is restarted with another release, whether that release compiles what it will have to.

A oneshot of the service's own template and drop-in, with another command: it sees the same environment, folders, user,
devices, limits and sandbox. Nothing of it decides how the service runs, so no digest covers it.
"""

from __future__ import annotations

from rackserve.planning.plans import AnyServicePlan, HostPlan
from rackserve.rendering.text import LIBEXEC, UNIT_FOLDER, RenderedFile, program
from rackserve.rendering.units import base_text, card_options, drop_in_text, unit_digest
from rackserve.runtimes.launch import Compiling, Launch

CHECK_BASE_UNIT = f"{UNIT_FOLDER}/rackserve-check@.service"
_HELPER = "compile-check"
# What it is started by and what it imports, which services have too.
_PROGRAMS = (_HELPER, "launch", "rackserve_helpers.py")


def check_unit(name: str) -> str:
    """The unit that asks for the service of this name."""
    return f"rackserve-check@{name}.service"


def checked(plan: HostPlan) -> list[tuple[AnyServicePlan, Compiling]]:
    """Services that compile while they serve, with tools of the host's, and what they compile."""
    found = ((service, service.launch.compiling) for service in plan.all_services)
    return [(service, compiling) for service, compiling in found if compiling is not None]


def check_files(plan: HostPlan) -> tuple[RenderedFile, ...]:
    """All that the checks of a host need; none where nothing is compiled."""
    services = checked(plan)
    if not services:
        return ()
    drop_ins = (_drop_in(service, compiling) for service, compiling in services)
    return (RenderedFile(CHECK_BASE_UNIT, base_text(check=True)), *drop_ins, *(program(name) for name in _PROGRAMS))


def _drop_in(plan: AnyServicePlan, compiling: Compiling) -> RenderedFile:
    text = drop_in_text(plan, plan.launch, unit_digest(plan), command=_command(plan.launch, compiling))
    return RenderedFile(f"{UNIT_FOLDER}/{check_unit(plan.name)}.d/10-plan.conf", text)


def _command(launch: Launch, compiling: Compiling) -> tuple[str, ...]:
    """Started as the service is, without its key, by the interpreter that the release has."""
    lists = {"--programs": compiling.programs, "--headers": compiling.headers, "--libraries": compiling.libraries}
    return (
        *(f"{LIBEXEC}/launch", *card_options(launch), "--"),
        *(compiling.python, "-IB", f"{LIBEXEC}/{_HELPER}"),
        *(word for option, names in lists.items() if names for word in (option, ",".join(names))),
        *(("--architecture", compiling.architecture) if compiling.architecture else ()),
        *(("--python-headers",) if compiling.python_headers else ()),
    )
