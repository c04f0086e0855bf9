"""Stand-ins for compiled things: kernel modules that real modinfo and depmod read, libcuda, and programs."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from rackserve.domain.errors import LabError
from rackserve.lab.shell import run

STANDINS = Path(__file__).with_name("standins")


def require_compiler() -> None:
    """Refuse with one sentence where there is no C compiler."""
    if shutil.which("gcc") is None:
        raise LabError("simulated GPUs need a C compiler for their stand-in drivers: apt-get install gcc libc6-dev")


def kernel_module(fields: Mapping[str, str]) -> bytes:
    """An object file with what modinfo shows of a module, and no code."""
    lines = [
        f'static const char f{number}[] __attribute__((section(".modinfo"), used)) = {json.dumps(f"{key}={value}")};'
        for number, (key, value) in enumerate(fields.items())
    ]
    return _compiled("\n".join(lines), "-c")


def libcuda(version: str) -> bytes:
    """The shared library of this driver version."""
    options = ("-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", f'-DVERSION="{version}"')
    return _compiled((STANDINS / "libcuda.c").read_text(), *options)


def intel_compute(soname: str) -> bytes:
    """The shared library of Level Zero's or OpenCL's loader: both interfaces are in it."""
    return _compiled((STANDINS / "intel_compute.c").read_text(), "-shared", "-fPIC", f"-Wl,-soname,{soname}")


def program(script: str) -> bytes:
    """A program that is a process of its own and has a Python program, beside it at this path, do its work."""
    return _compiled((STANDINS / "server.c").read_text(), f'-DSCRIPT="{script}"')


def _compiled(source: str, *options: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        text, built = Path(folder, "source.c"), Path(folder, "built")
        text.write_text(f"{source}\n")
        run(["gcc", "-O1", "-o", str(built), *options, str(text)])
        return built.read_bytes()
