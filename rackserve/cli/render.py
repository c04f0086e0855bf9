"""`rackserve render`: the files of every host, byte for byte as they are installed."""

from __future__ import annotations

from pathlib import Path

import click
from rich.markup import escape

from rackserve.catalog.loader import load_catalog
from rackserve.cli.common import console, planned, print_problems
from rackserve.domain.errors import InputError, Problem
from rackserve.planning.driver_plan import DriverPlan, plan_driver
from rackserve.planning.plans import HostPlan
from rackserve.rendering import host_files
from rackserve.rendering.drivers import all_files
from rackserve.rendering.text import RenderedFile

# What the inventory does not say, and nearly all hosts are; a deploy asks the host.
_ARCHITECTURE = "x86_64"


@click.command()
@click.argument("inventory")
@click.option("--limit", multiple=True, help="Only hosts of this name, pattern or group; repeatable.")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder to write into.")
def render(inventory: str, limit: tuple[str, ...], out: Path) -> None:
    """Write OUT/<host>/<path on the host> for every file that a deploy of INVENTORY installs."""
    plans = [host_plan for _, host_plan in planned(inventory, limit)]
    if print_problems(plans):
        raise click.exceptions.Exit(1)
    for host_plan in plans:
        folder = out / folder_name(host_plan.host.name)
        files = (*host_files(host_plan), *_driver_files(host_plan))
        for file in files:
            _write(folder, file)
        console.print(escape(f"{host_plan.host.name}: {len(files)} files in {folder}"), soft_wrap=True)


def _driver_files(host_plan: HostPlan) -> tuple[RenderedFile, ...]:
    """Those of the driver, where the inventory states the system that decides about them."""
    stack = host_plan.stack
    if stack is None or stack.os is None:
        return ()
    catalog = load_catalog(host_plan.host.catalog)
    driver = plan_driver(host_plan.host, host_plan.gpu, stack, _ARCHITECTURE, catalog)
    if not isinstance(driver, DriverPlan):
        raise InputError(driver)
    return all_files(driver)


def folder_name(host: str) -> str:
    """One path component for a host; connectors put a slash into names, as in `@vagrant/g1`."""
    name = host.replace("/", "_")
    return f"_{name}" if name in (".", "..") else name


def _write(folder: Path, file: RenderedFile) -> None:
    path = folder / file.path.lstrip("/")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.text, encoding="utf-8")
        path.chmod(int(file.mode, 8))
    except OSError as error:
        raise InputError([Problem(f"cannot be written: {error.strerror}", where=str(path), key="--out")]) from error
