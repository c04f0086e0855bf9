"""A source distribution in the place of llama-cpp-python's, whose llama-server is compiled in seconds."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from importlib import resources
from pathlib import Path

from rackserve.lab.lab import Lab

VERSION = "9.9.0"
_NAME = f"llama_cpp_python-{VERSION}"
_SOURCE = Path(__file__).parent / "standin_source"
# pip asks the real one's build backend for its metadata.
_PROJECT = f"""[build-system]
requires = ["scikit-build-core"]
build-backend = "scikit_build_core.build"

[project]
name = "llama_cpp_python"
version = "{VERSION}"
"""


def offer(lab: Lab, folder: Path) -> str:
    """Have it where the hosts' pip looks, beside their index; path of the catalogue that names it."""
    packed = _packed()
    (lab.depot_dir / f"{_NAME}.tar.gz").write_bytes(packed)
    (lab.depot_dir / "links.html").write_text(f'<a href="{_NAME}.tar.gz">{_NAME}.tar.gz</a>\n')
    settings = f"\n[download]\nfind-links = {lab.depot_url}/links.html\ntrusted-host = {lab.state().gateway}\n"
    for host in lab.hosts():
        lab.ssh(host.name, "cat >>/etc/pip.conf", input=settings)
    catalogue = folder / "source.toml"
    catalogue.write_text(_catalogue(hashlib.sha256(packed).hexdigest()))
    return str(catalogue)


def _packed() -> bytes:
    """The distribution, laid out as the real one is."""
    files = {f"vendor/llama.cpp/{path.name}": path.read_bytes() for path in _SOURCE.iterdir()}
    metadata = f"Metadata-Version: 2.1\nName: llama_cpp_python\nVersion: {VERSION}\n"
    files |= {"PKG-INFO": metadata.encode(), "pyproject.toml": _PROJECT.encode(), "vendor/llama.cpp/LICENSE": b"none\n"}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for path, content in files.items():
            entry = tarfile.TarInfo(f"{_NAME}/{path}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def _catalogue(digest: str) -> str:
    """The catalogue's own facts of llama.cpp, with this source."""
    text = (resources.files("rackserve.catalog") / "runtimes.toml").read_text(encoding="utf-8")
    before, mark, build = text.partition("[llamacpp.build]\n")
    assert mark
    changes = {
        "version": VERSION,
        "file": f"{_NAME}.tar.gz",
        "sha256": digest,
        "folder": f"{_NAME}/vendor/llama.cpp",
    }
    for key, value in changes.items():
        build, count = re.subn(rf'(?m)^{key} = ".*"$', f'{key} = "{value}"', build, count=1)
        assert count == 1
    return f"{before}{mark}{build}"
