"""docs/drivers.md, written from the decision table: `python -m rackserve.report.stack_page` (make docs)."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from rackserve.catalog.loader import Catalog, load_catalog
from rackserve.planning.decision_table import Cell, table

_HEAD = """\
# Which driver, CUDA or ROCm and runtime goes on which host

Written by `make docs` from the catalogue and the solver that `rackserve plan` uses; a test keeps it up to date. Tags
with the same answers share a table. Every cell is what the solver chooses where the inventory states nothing but
`gpu_tag` and `os`; `driver_branch`, `kernel_module`, `runtime_version`, `allow_eol` and `secure_boot` narrow the
choice, and `rackserve plan` gives its reasons. Facts and their sources: `rackserve/catalog/stacks.toml`.
"""


def page(catalog: Catalog) -> str:
    """The whole page."""
    groups: dict[tuple[tuple[str, Cell], ...], list[str]] = {}
    for tag, cells in table(catalog).items():
        groups.setdefault(tuple(cells.items()), []).append(tag)
    parts = [_HEAD, *(_section(tags, dict(cells)) for cells, tags in groups.items())]
    return "\n".join(parts)


def _section(tags: list[str], cells: Mapping[str, Cell]) -> str:
    names = ", ".join(f"`{tag}`" for tag in tags)
    lines = [f"## {_title(tags)}", "", f"{names}", "", "| system | driver | runtimes |", "| --- | --- | --- |"]
    lines += [f"| {system} | {_driver(cell)} | {_runtimes(cell)} |" for system, cell in cells.items()]
    return "\n".join([*lines, ""])


def _title(tags: list[str]) -> str:
    return tags[0] if len(tags) == 1 else f"{tags[0]} and {len(tags) - 1} more"


def _driver(cell: Cell) -> str:
    if cell.refused:
        return f"no: {cell.refused}"
    kernel = f" on the kernel of `{cell.kernel}`" if cell.kernel else ""
    return f"{cell.driver or 'none'}{kernel}"


def _runtimes(cell: Cell) -> str:
    if cell.refused:
        return ""
    return ", ".join(cell.runtimes) or "none"


if __name__ == "__main__":
    sys.stdout.write(page(load_catalog()))
