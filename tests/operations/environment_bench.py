"""A package index of wheels made here, and a host's folders on which environments are installed from it for real."""

from __future__ import annotations

import base64
import hashlib
import io
import ssl
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from rackserve.catalog.loader import load_catalog
from rackserve.operations.commands import script_text
from tests.operations.scripting import ENVIRONMENT

SYSTEM_PYTHON = "/usr/bin/python3"
PYTHON = subprocess.run(
    [SYSTEM_PYTHON, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
    capture_output=True,
    text=True,
    check=True,
).stdout.strip()


def wheel(name: str, version: str, files: dict[str, str], metadata: str = "", scripts: str = "") -> tuple[str, bytes]:
    """File name and bytes of a wheel; `metadata` are further lines, `scripts` its console scripts."""
    info = f"{name}-{version}.dist-info"
    content = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{metadata}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if scripts:
        content[f"{info}/entry_points.txt"] = f"[console_scripts]\n{scripts}\n"
    record = "".join(f"{path},{_record_hash(text)},{len(text)}\n" for path, text in content.items())
    content[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path, text in content.items():
            # With a fixed date, so that the same wheel is the same bytes.
            entry = zipfile.ZipInfo(path)
            entry.external_attr = (0o755 if "/bin/" in path else 0o644) << 16
            archive.writestr(entry, text)
    return f"{name}-{version}-py3-none-any.whl", packed.getvalue()


def _record_hash(text: str) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def torch(cuda: str | None = None, hip: str | None = None) -> tuple[str, bytes]:
    """A stand-in for PyTorch that says what it was built for."""
    files = {
        "torch/__init__.py": "from torch import version\n__version__ = '9.9'\n",
        "torch/version.py": f"cuda = {cuda!r}\nhip = {hip!r}\n",
    }
    return wheel("torch", "9.9", files)


def engine(version: str = "1.0") -> tuple[str, bytes]:
    """A stand-in for a runtime."""
    files = {"engine.py": "import torch\n\n\ndef main():\n    print('serving with', torch.version.cuda)\n"}
    return wheel("engine", version, files, "Requires-Dist: torch\n", "engine = engine:main")


def toolkit(rsqrt: str = "rsqrt(double x);") -> dict[str, str]:
    """Files of a stand-in for a CUDA toolkit, laid out as in the wheels for CUDA 13; rsqrt: how it declares that."""
    files = {
        "bin/nvcc": "#!/bin/sh\necho nvcc of $(basename $(dirname $(dirname $0)))\n",
        "bin/crt/link.stub": "",
        "include/cuda.h": CUDA_H,
        "include/crt/math_functions.h": f"#  include <features.h> /* For GLIBC macros */\nextern double {rsqrt}\n",
        "include/crt/host_config.h": "",
        "lib/libcudart.so.13": "",
        "lib/libcudadevrt.a": "",
        "nvvm/bin/cicc": "",
    }
    return {f"nvidia/cu13/{path}": text for path, text in files.items()}


# As the real one names what it declares.
CUDA_H = """\
typedef int CUresult;
typedef void (*CUhostFn)(void *);
#ifdef CUDA_API_PER_THREAD_DEFAULT_STREAM
#define cuLaunchKernel cuLaunchKernel_ptsz
#endif
#define cuMemAlloc cuMemAlloc_v2
CUresult cuInit(unsigned int Flags);
CUresult cuMemAlloc(void **pointer, unsigned long size);
CUresult
cuLaunchKernel (void *kernel);
"""


@dataclass
class Index:
    """A package index. files: by name. stalled: where set, downloads begin only once the event is."""

    files: dict[str, bytes] = field(default_factory=dict)
    stalled: threading.Event | None = None
    asked: list[str] = field(default_factory=list)
    downloading: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def add(self, *wheels: tuple[str, bytes]) -> Index:
        self.files.update(dict(wheels))
        return self

    def page(self, project: str) -> bytes:
        names = [name for name in self.files if name.startswith(f"{project.replace('-', '_')}-")]
        return "".join(f'<a href="../../files/{name}">{name}</a>\n' for name in names).encode()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.asked.append(handler.path)
        # A proxy is asked for whole URLs.
        folder, _, name = urlsplit(handler.path).path.strip("/").rpartition("/")
        body = self.page(name) if folder == "simple" else self.files.get(name) if folder == "files" else None
        if folder == "files" and self.stalled is not None:
            self.downloading.set()
            self.stalled.wait(60)
        handler.send_response(200 if body else 404)
        handler.send_header("Content-Type", "text/html" if folder == "simple" else "application/octet-stream")
        handler.send_header("Content-Length", str(len(body or b"")))
        # Files never change, as the package index says of its own.
        handler.send_header("Cache-Control", "no-cache" if folder == "simple" else "max-age=365000000, immutable")
        handler.end_headers()
        if handler.command == "GET":
            handler.wfile.write(body or b"")


@contextmanager
def indexing(index: Index, tls: ssl.SSLContext | None = None) -> Iterator[Index]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            index.answer(self)

        def do_HEAD(self) -> None:
            index.answer(self)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A client that goes away is what some tests are about."""

    with Server(("127.0.0.1", 0), Handler) as http:
        if tls:
            http.socket = tls.wrap_socket(http.socket, server_side=True)
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            index.url = f"{'https' if tls else 'http'}://127.0.0.1:{http.server_port}"
            yield index
        finally:
            if index.stalled:
                index.stalled.set()
            http.shutdown()
            thread.join()


def pinned(*wheels: tuple[str, bytes]) -> str:
    """The requirements file for these wheels."""
    lines = []
    for name, content in wheels:
        project, version = name.split("-")[:2]
        lines.append(f"{project}=={version} --hash=sha256:{hashlib.sha256(content).hexdigest()}\n")
    return "".join(lines)


def _section(name: str, values: dict[str, str]) -> str:
    return f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in values.items())


@dataclass
class EnvironmentHost:
    """Folders of a host, and what its pip is told, in general and to install. uv: an installed uv."""

    folder: Path
    uv: Path
    # The machine's other places would be asked too.
    pip: dict[str, str] = field(default_factory=lambda: {"extra-index-url": "", "find-links": ""})
    pip_install: dict[str, str] = field(default_factory=dict)

    @property
    def releases(self) -> Path:
        return self.folder / "releases"

    @property
    def work(self) -> Path:
        return self.folder / "cache"

    def release(self, name: str = "engine-1") -> Path:
        return self.releases / name

    def start(self, script: str, *arguments: object) -> subprocess.Popen[str]:
        config = self.folder / "pip.conf"
        config.write_text(_section("global", self.pip) + _section("install", self.pip_install))
        process = subprocess.Popen(
            ["sh", "-s", "--", *map(str, arguments)],
            env={**ENVIRONMENT, "PIP_CONFIG_FILE": str(config)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stdin
        process.stdin.write(script_text(script))
        process.stdin.close()
        process.stdin = None
        return process

    def run(self, script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        process = self.start(script, *arguments)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def words(self, requirements: str, name: str = "engine-1", **changed: object) -> list[object]:
        """The arguments of environment.sh, and the requirements file where it looks for it."""
        (self.work / "environments").mkdir(parents=True, exist_ok=True)
        (self.work / "environments" / f"{name}.txt").write_text(requirements)
        plan: dict[str, object] = {
            "program": SYSTEM_PYTHON,
            "python": PYTHON,
            "distribution": "engine",
            "version": "1.0",
            "backend": "cuda",
            "family": "13.0",
            "gib": 0,
            "mirror": "",
            "gcc": "",
            "without": "",
            "keep": 3,
        }
        return [self.release(name), self.work, self.uv, *(plan | changed).values()]

    def install(self, requirements: str, name: str = "engine-1", **changed: object) -> subprocess.CompletedProcess[str]:
        return self.run("environment.sh", *self.words(requirements, name, **changed))

    def left(self) -> set[str]:
        """What lies where releases do."""
        return {path.name for path in self.releases.glob("*")}


def install_uv(folder: Path, requirement: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run uv.sh as this machine reaches the package index; by default for the uv that the catalogue pins."""
    uv = load_catalog().uv
    name = f"uv-{uv.version}"
    (folder / "cache" / "environments").mkdir(parents=True, exist_ok=True)
    (folder / "cache" / "environments" / f"{name}.txt").write_text(requirement or uv.requirement)
    return subprocess.run(
        ["sh", "-s", "--", str(folder / "releases" / name), str(folder / "cache")],
        env=ENVIRONMENT,
        input=script_text("uv.sh"),
        capture_output=True,
        text=True,
        check=False,
    )
