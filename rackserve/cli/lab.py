"""`rackserve lab`: throwaway Debian hosts on this machine."""

from __future__ import annotations

import json
import os
import shlex
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from rackserve.lab import model
from rackserve.lab.demo import run as run_demo
from rackserve.lab.gpu import GpuChoice
from rackserve.lab.gpu_host import MAX_GPUS
from rackserve.lab.lab import MAX_HOSTS, Lab
from rackserve.lab.sources import SUITES


@click.group()
def lab() -> None:
    """Throwaway Debian hosts with systemd and SSH on this machine (needs root)."""


def _progress(text: str) -> None:
    click.echo(text, err=True)


@lab.command()
@click.option("--hosts", "count", type=click.IntRange(1, MAX_HOSTS), default=3, show_default=True, help="h1 to hN.")
@click.option("--suite", type=click.Choice(SUITES), default=SUITES[0], show_default=True, help="Debian of new hosts.")
@click.option("--gpu", "tag", help="Tag of the GPUs that new hosts pretend to have.")
@click.option("--gpus", type=click.IntRange(1, MAX_GPUS), default=1, show_default=True, help="GPUs of each new host.")
@click.option("--os", "system", default="", help="System that new hosts pretend to run, as in ubuntu-24.04.")
def up(count: int, suite: str, tag: str | None, gpus: int, system: str) -> None:
    """Make and boot what is missing of N hosts, and have a model for them to serve.

    A host with simulated GPUs has no model to serve but a driver to be installed, from stand-in packages.
    """
    chosen = Lab()
    if tag is not None:
        chosen.up(count, suite, _progress, GpuChoice(tag, gpus, system))
        return
    chosen.up(count, suite, _progress)
    if not model.provided(chosen.names.folder):
        model.provide(chosen.names.folder, chosen.depot_dir, chosen.depot_url, tiny=False, progress=_progress)


@lab.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def status(as_json: bool) -> None:
    """Show the hosts and whether they answer."""
    chosen = Lab()
    report = _report(chosen)
    if as_json:
        click.echo(json.dumps(report, indent=2))
    elif not report["exists"]:
        click.echo(f"there is no lab {chosen.names.lab}: make one with `rackserve lab up`")
    else:
        table = Table(title=f"lab {report['name']}, {report['network']}, depot {report['depot_url']}")
        for column in ("name", "suite", "address", "condition"):
            table.add_column(column)
        for host in report["hosts"]:
            table.add_row(*host.values())
        Console().print(table)


def _report(chosen: Lab) -> dict[str, Any]:
    if not chosen.exists():
        return {"name": chosen.names.lab, "exists": False, "hosts": []}
    return {
        "name": chosen.names.lab,
        "exists": True,
        "network": chosen.state().network,
        "folder": str(chosen.names.folder),
        "depot_url": chosen.depot_url,
        "depot_running": chosen.depot_running(),
        "hosts": [
            {
                "name": host.name,
                "suite": host.suite,
                "address": host.address,
                "condition": chosen.condition(host.name),
            }
            for host in chosen.hosts()
        ],
    }


@lab.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--user", default="root", show_default=True, help="root or deploy.")
@click.argument("host")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def ssh(user: str, host: str, command: tuple[str, ...]) -> None:
    """Log in to HOST, or run COMMAND there; one argument is taken as a shell command line."""
    chosen = Lab()
    line = [command[0] if len(command) == 1 else shlex.join(command)] if command else []
    argv = [*chosen.login.argv(chosen.state().host(host), user), *(["--", *line] if line else [])]
    os.execvp(argv[0], argv)  # noqa: S606  ssh takes this process's place, and with it terminal and exit code


@lab.command()
@click.argument("host")
def kill(host: str) -> None:
    """Cut HOST's power."""
    Lab().kill(host)
    _progress(f"{host} is off")


@lab.command()
@click.argument("host")
def boot(host: str) -> None:
    """Switch HOST on again and wait until it answers."""
    Lab().boot(host)
    _progress(f"{host} is up")


@lab.command()
@click.option("--keep", is_flag=True, help="Leave the host up.")
def demo(keep: bool) -> None:
    """Take a fresh host to an answered completion, and show every step."""
    run_demo(keep=keep, say=_progress)


@lab.command()
def down() -> None:
    """Remove the lab and everything it made on this machine, except the cached bases."""
    chosen = Lab()
    removed = chosen.down()
    _progress(f"the lab {chosen.names.lab} is gone" if removed else f"there was no lab {chosen.names.lab}")
