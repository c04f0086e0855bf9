"""The program `rackserve`: its commands, and one place where errors become words and exit codes."""

from __future__ import annotations

import sys

import click

from rackserve import __version__
from rackserve.cli.box import box, depot
from rackserve.cli.cost import cost
from rackserve.cli.lab import lab
from rackserve.cli.plan import plan
from rackserve.cli.render import render
from rackserve.cli.size import size
from rackserve.cli.verify import verify
from rackserve.cli.where import where
from rackserve.domain.errors import InputError, RackserveError

_INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """Turn bare GPU hosts into LLM servers, over SSH."""


lab.add_command(box)
lab.add_command(depot)
cli.add_command(cost)
cli.add_command(lab)
cli.add_command(plan)
cli.add_command(render)
cli.add_command(size)
cli.add_command(verify)
cli.add_command(where)


def main() -> None:
    """Run the command line. Exit codes: 0 yes, 1 no, 2 usage or invalid input, 75 locked, 130 interrupted."""
    try:
        sys.exit(cli.main(standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(_INTERRUPTED)
    except InputError as error:
        for problem in error.problems:
            click.echo(f"rackserve: {problem}", err=True)
        sys.exit(error.exit_code)
    except RackserveError as error:
        click.echo(f"rackserve: {error}", err=True)
        sys.exit(error.exit_code)
