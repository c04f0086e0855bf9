"""`rackserve verify`: read back from the hosts that everything is as planned, ending in a completion."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import click
from rich.markup import escape

from rackserve.checks.findings import Finding, connected, reason
from rackserve.checks.host import check_host
from rackserve.cli.common import console, inventory_arguments, planned, print_json, print_problems
from rackserve.domain.errors import HostError
from rackserve.planning.macos import is_mac
from rackserve.planning.plans import HostPlan
from rackserve.rollout.inventory import InventoryHost

_PARALLEL_HOSTS = 16


@dataclass(frozen=True, slots=True)
class _Verified:
    name: str
    findings: tuple[Finding, ...]
    error: str = ""
    left_out: str = ""

    @property
    def ok(self) -> bool:
        return not self.error and all(finding.ok for finding in self.findings)


@click.command()
@inventory_arguments
@click.option("-v", "--verbose", is_flag=True, help="Show what is right too.")
def verify(inventory: str, limit: tuple[str, ...], as_json: bool, verbose: bool) -> None:
    """Check that the hosts of INVENTORY are as planned and answer completions; exit 1 if not.

    Macs are left out and named: there are no checks for them yet.
    """
    hosts = planned(inventory, limit)
    if print_problems([host_plan for _, host_plan in hosts]):
        raise click.exceptions.Exit(1)
    with ThreadPoolExecutor(_PARALLEL_HOSTS) as pool:
        results = []
        for result in pool.map(_verify, hosts):
            _show(result, verbose=verbose)
            results.append(result)
    if as_json:
        print_json({"hosts": [_object(result) for result in results]})
    raise click.exceptions.Exit(0 if all(result.ok for result in results) else 1)


def _verify(pair: tuple[InventoryHost, HostPlan]) -> _Verified:
    entry, host_plan = pair
    if is_mac(host_plan):
        return _Verified(entry.name, (), left_out="macOS has no checks yet")
    findings: list[Finding] = []
    try:
        with connected(entry.name, entry.data) as host:
            findings.extend(check_host(host, host_plan))
    except HostError as error:
        return _Verified(entry.name, (), str(error))
    except (RuntimeError, AssertionError) as error:
        # testinfra's: ssh has lost the host, or a command failed that never does.
        return _Verified(entry.name, tuple(findings), f"{entry.name}: the checks broke off: {reason(error)}")
    return _Verified(entry.name, tuple(findings))


def _object(result: _Verified) -> dict[str, object]:
    findings = [finding.as_dict() for finding in result.findings]
    return {
        "name": result.name,
        "ok": result.ok,
        "error": result.error,
        "left_out": result.left_out,
        "findings": findings,
    }


def _show(result: _Verified, *, verbose: bool) -> None:
    wrong = [finding for finding in result.findings if not finding.ok]
    if result.left_out:
        console.print(f"{escape(result.name)}: [yellow]not looked at[/yellow], {result.left_out}", soft_wrap=True)
        return
    verdict = "[green]as planned[/green]" if result.ok else "[red]not as planned[/red]"
    counts = result.error or f"{len(result.findings) - len(wrong)} of {len(result.findings)} checks passed"
    console.print(f"{escape(result.name)}: {verdict}, {escape(counts)}", soft_wrap=True)
    for finding in result.findings if verbose else wrong:
        mark = "[green]yes[/green]" if finding.ok else "[red]no [/red]"
        about = f"{finding.service}: {finding.check}" if finding.service else finding.check
        detail = "" if finding.ok else f": expected {finding.expected}, found {finding.found}"
        console.print(f"  {mark} {escape(about + detail)}", soft_wrap=True)
