"""`rackserve render`: the files of every host, byte for byte as they are installed."""

from __future__ import annotations

from pathlib import Path

import click
from rich.markup import escape

from rackserve.cli.common import console, planned, print_problems
from rackserve.domain.errors import InputError, Problem
from rackserve.rendering import RenderedFile, host_files


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
        files = host_files(host_plan)
        for file in files:
            _write(folder, file)
        console.print(escape(f"{host_plan.host.name}: {len(files)} files in {folder}"), soft_wrap=True)


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
