"""Refuse one host, with a reason, before anything on it is changed."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from pyinfra import host, logger, state
from pyinfra.api import StringCommand, operation
from pyinfra.api.state import StateStage

from rackserve.facts.vendor_server import VendorServerFact
from rackserve.operations import commands
from rackserve.planning.plans import HostPlan
from rackserve.planning.vendor_server import clashes


@operation()
def require(problems: list[str]) -> Generator[StringCommand, None, None]:
    """Fail on this host if there are problems; each is one line for the operator."""
    yield from refusing(problems, "as required")


@operation()
def undisturbed(plan: HostPlan) -> Generator[StringCommand, None, None]:
    """Fail on this host if Ollama's own unit has what a planned service needs; say so where it may come to have it."""
    problems, warnings = clashes(plan, host.get_fact(VendorServerFact))
    for warning in warnings:
        logger.warning(f"{host.print_prefix}{warning}")
    yield from refusing(problems, "nothing in the way")


def refusing(problems: Sequence[str], otherwise: str) -> Generator[StringCommand, None, None]:
    """For operations: fail with these lines, or say why there is nothing to do."""
    if not problems:
        host.noop(otherwise)
        return
    if state.current_stage == StateStage.Prepare:
        # A dry run ends here and would only count a change: say now what the run will be refused for.
        for problem in problems:
            logger.error(f"{host.print_prefix}{problem}")
    yield commands.refuse("\n".join(problems))
