"""docs/drivers.md, written from the decision table: `python -m rackserve.report.stack_page` (make docs)."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping

from rackserve.catalog.loader import Catalog, load_catalog
from rackserve.domain.repository import DriverFacts
from rackserve.planning.decision_table import Cell, table

_HEAD = """\
# Which driver, CUDA or ROCm and runtime goes on which host

Written by `make docs` from the catalogue and the solver that `rackserve plan` uses; a test keeps it up to date. Tags
with the same answers share a table. Every cell is what the solver chooses where the inventory states nothing but
`gpu_tag` and `os`; `driver_branch`, `driver_version`, `kernel_module`, `runtime_version`, `allow_eol` and
`secure_boot` narrow the choice, and `rackserve plan` gives its reasons. `pyinfra INVENTORY deploys/drivers.py` installs
it; which packages and from where, and which keys sign them, stands at the end. Facts and their sources:
`rackserve/catalog/stacks.toml` and `drivers.toml`.
"""
_PACKAGES_HEAD = """\
## What is installed

`{branch}` is the driver's, `{release}` a kernel's, `{suffix}` what the kernel's metapackage ends in (generic, amd64).
Beside NVIDIA's driver: Fabric Manager where the boards carry NVSwitches, and the subnet manager from NVLink 5 on, of
exactly the driver's version; the data-centre GPU manager on data-centre cards (`dcgm`); the Container Toolkit where a
runtime comes as an image, or `container_engines` asks for it.
"""
_KEYS_HEAD = """\
## Repositories and their keys

A repository whose key file holds anything but these primary keys is not used. `package_mirrors` replaces the address by
name, not the key.
"""


def page(catalog: Catalog) -> str:
    """The whole page."""
    groups: dict[tuple[tuple[str, Cell], ...], list[str]] = {}
    for tag, cells in table(catalog).items():
        groups.setdefault(tuple(cells.items()), []).append(tag)
    sections = (_section(tags, dict(cells)) for cells, tags in groups.items())
    return "\n".join([_HEAD, *sections, _packages(catalog.drivers), _keys(catalog.drivers)])


def _packages(facts: DriverFacts) -> str:
    lines = [_PACKAGES_HEAD, "| what | systems | packages | beside | modules |", "| --- | --- | --- | --- | --- |"]
    for recipe in facts.driver_recipes.values():
        beside = (*recipe.fabric, *recipe.nvlsm, *recipe.dcgm)
        names = (*recipe.prerequisites, *recipe.headers, *recipe.packages)
        lines.append(_row(recipe.id, recipe.systems, names, beside, recipe.modules))
    lines += [
        _row(recipe.id, recipe.systems, (*recipe.packages, *recipe.firmware), (), ())
        for recipe in facts.user_mode_recipes.values()
    ]
    lines += [
        _row(
            recipe.id,
            recipe.systems,
            (f"{name} {recipe.version}" for name in recipe.packages),
            recipe.hook_packages,
            (),
        )
        for recipe in facts.toolkit_recipes.values()
    ]
    return "\n".join([*lines, ""])


def _keys(facts: DriverFacts) -> str:
    lines = [_KEYS_HEAD, "| name | systems | address | key |", "| --- | --- | --- | --- |"]
    for entry in facts.repositories.values():
        keys = [f"`{fingerprint}`" for fingerprint in entry.fingerprints]
        pinned = "<br>".join(keys) or f"file, SHA-256 `{entry.key_sha256}`"
        lines.append(f"| {entry.name} | {', '.join(entry.systems)} | {entry.url} | {pinned} |")
    return "\n".join([*lines, ""])


def _row(name: str, systems: Iterable[str], *columns: Iterable[str]) -> str:
    listed = [", ".join(f"`{word}`" for word in words) for words in columns]
    return f"| {name} | {', '.join(systems)} | {' | '.join(listed)} |"


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
