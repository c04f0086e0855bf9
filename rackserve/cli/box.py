"""`rackserve lab box` and `rackserve lab depot`: what virtual machines under Vagrant need from this machine."""

from __future__ import annotations

import click

from rackserve.lab import vagrant
from rackserve.lab.box import SUITES, ensure_box


def _progress(text: str) -> None:
    click.echo(text, err=True)


@click.command()
@click.option("--suite", type=click.Choice(SUITES), default=SUITES[0], show_default=True, help="Debian in the box.")
def box(suite: str) -> None:
    """Build a libvirt box with a bare Debian for Vagrant (needs root) and print how it is used."""
    made = ensure_box(suite, _progress)
    click.echo(made.file)
    click.echo(f"vagrant box add --name {made.name} {made.file}")
    click.echo(f"export RACKSERVE_BOX={made.name} RACKSERVE_BOX_KEY={made.private_key}")


@click.command()
@click.option("--stop", is_flag=True, help="Stop offering it: the inventory serves the hub's model again.")
def depot(*, stop: bool) -> None:
    """Offer a tiny random model to the running Vagrant machines, where no model hub is reachable."""
    if stop:
        _progress("the tiny model is gone" if vagrant.withdraw() else "no model was offered")
    else:
        click.echo(vagrant.offer(_progress))
