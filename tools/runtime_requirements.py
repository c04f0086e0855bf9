"""runtime_requirements.py [ID...]: compile the files named in rackserve/catalog/requirements.toml anew, all or these.

Each holds what the index had before the entry's day `as_of`, which is soon after the runtime's release: old releases do
not run with what their dependencies have become. A file is written once it resolves, from wheels and by its hashes, for
every interpreter and CPU that its entry promises. The index is the one that pip is set up with here; no file names it.
"""

# ruff: noqa: INP001 -- a script, no package

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

CATALOG = Path(__file__).parent.parent / "rackserve" / "catalog"
# What uv calls the settings that it does not read from pip's configuration. Other indexes that pip knows are left out:
# they may hold a part of the packages only.
SETTINGS = {"index-url": "UV_DEFAULT_INDEX", "cert": "SSL_CERT_FILE"}


def main(wanted: list[str]) -> None:
    """Compile, check and write each file."""
    catalog = tomllib.loads((CATALOG / "requirements.toml").read_text(encoding="utf-8"))
    entries = catalog["requirements"]
    with tempfile.TemporaryDirectory() as folder:
        uv = install_uv(catalog["uv"], Path(folder))
        for name in wanted or entries:
            file = Path(folder) / f"{name}.txt"
            sys.stderr.write(f"compiling {entries[name]['file']}\n")
            compile_entry(uv, entries[name], file)
            for python, architecture in hosts(entries[name]):
                check(uv, entries[name], file, python, architecture)
            (CATALOG / entries[name]["file"]).write_bytes(file.read_bytes())


def install_uv(pinned: dict[str, Any], folder: Path) -> Path:
    """Install the catalogue's uv."""
    hashes = "".join(f" --hash=sha256:{sha256}" for sha256 in pinned["wheels"].values())
    (folder / "uv.txt").write_text(f"uv=={pinned['version']}{hashes}\n", encoding="utf-8")
    subprocess.run([sys.executable, "-m", "venv", folder / "uv"], check=True)
    pip = [folder / "uv" / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--require-hashes", "--requirement", folder / "uv.txt"], check=True)
    return folder / "uv" / "bin" / "uv"


def settings() -> dict[str, str]:
    """What pip is told here, by its environment, its section for `install` and its global one, as uv's variables."""
    found = {}
    for key, variable in SETTINGS.items():
        for section in (":env:", "install", "global"):
            said = subprocess.run(
                [sys.executable, "-m", "pip", "config", "get", f"{section}.{key}"],
                capture_output=True,
                text=True,
                check=False,
            )
            if said.returncode == 0:
                found[variable] = said.stdout.strip()
                break
    return found


def run(uv: Path, *words: str | Path) -> None:
    """Run uv as this machine reaches the index."""
    environment = {"UV_SYSTEM_CERTS": "1", **os.environ, **settings()}
    subprocess.run([uv, "pip", *words, "--quiet", "--no-config"], check=True, env=environment)


def compile_entry(uv: Path, entry: dict[str, Any], file: Path) -> None:
    """Write all packages of an entry with all of their hashes."""
    source = file.with_suffix(".in")
    source.write_text(f"{entry['runtime']}=={entry['version']}\n", encoding="utf-8")
    constraints = listed(entry.get("constraints", ()), file.with_suffix(".constraints"))
    options = ("--no-header", "--no-annotate", "--no-emit-index-url", "--generate-hashes", "--only-binary", ":all:")
    as_of = ("--exclude-newer", entry["as_of"], "--python-version", entry["python_min"])
    chosen = ("--constraint", constraints, *without(entry, file))
    run(uv, "compile", source, "--universal", *as_of, *options, *chosen, "--output-file", file)
    said = f"# What the Python package index had before {entry['as_of']}, by `make runtime-requirements`.\n"
    file.write_text(said + file.read_text(encoding="utf-8"), encoding="utf-8")


def without(entry: dict[str, Any], file: Path) -> tuple[str | Path, ...]:
    """Options of uv for what an entry leaves out."""
    return ("--excludes", listed(entry.get("without", ()), file.with_suffix(".excludes")))


def listed(lines: Iterable[str], file: Path) -> Path:
    """A file with these lines."""
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return file


def hosts(entry: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The interpreters and CPUs that an entry promises."""
    first, before = (int(entry[key].partition(".")[2]) for key in ("python_min", "python_before"))
    for minor in range(first, before):
        for architecture in entry["architectures"]:
            yield f"3.{minor}", architecture


def check(uv: Path, entry: dict[str, Any], file: Path, python: str, architecture: str) -> None:
    """Fail unless wheels of exactly these hashes suit a host."""
    platform = f"{architecture}-manylinux_{entry['glibc'].replace('.', '_')}"
    host = ("--python-version", python, "--python-platform", platform, "--target", file.parent / "nowhere")
    pinned = ("--require-hashes", "--no-build", *without(entry, file))
    run(uv, "install", "--dry-run", *pinned, *host, "--requirement", file)


if __name__ == "__main__":
    main(sys.argv[1:])
