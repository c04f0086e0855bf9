"""A signed apt repository of stand-in packages: what a vendor of drivers publishes, made in a second.

Its packages lie in one folder. Its lists do too where it is flat, as NVIDIA's are; with a suite they are below `dists`.
"""

from __future__ import annotations

import gzip
import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

from rackserve.lab.shell import readable_by_all, run

KEY_FILE = "key.pub"
_SCRIPT = 0o755


@dataclass(frozen=True, slots=True)
class Package:
    """A package that is all name. fields: more of its control file. scripts: maintainer scripts by name (postinst).

    files: content by absolute path on the host; programs are told by how they begin.
    """

    name: str
    version: str
    depends: str = ""
    architecture: str = "amd64"
    fields: Mapping[str, str] = field(default_factory=dict)
    scripts: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str | bytes] = field(default_factory=dict)

    @property
    def control(self) -> str:
        """Its control file."""
        stated = {
            "Package": self.name,
            "Version": self.version,
            "Architecture": self.architecture,
            "Maintainer": "rackserve lab <lab@example.invalid>",
            "Section": "misc",
            "Priority": "optional",
            **({"Depends": self.depends} if self.depends else {}),
            **self.fields,
            "Description": f"stand-in for {self.name}",
        }
        return "".join(f"{key}: {value}\n" for key, value in stated.items())


class SigningKey:
    """A throwaway key in a folder of its own; `home` is made where it is not there, the key at the first use."""

    def __init__(self, home: Path, owner: str = "rackserve lab") -> None:
        self.home = home
        self.owner = f"{owner} <lab@example.invalid>"
        if not home.exists():
            home.mkdir(mode=0o700, parents=True)
            self._gpg("--passphrase", "", "--quick-gen-key", self.owner, "ed25519", "sign", "never")

    @property
    def fingerprint(self) -> str:
        """Of the primary key."""
        lines = self._gpg("--list-keys", "--with-colons").splitlines()
        return next(line.split(":")[9] for line in lines if line.startswith("fpr:"))

    @property
    def armored(self) -> str:
        """The public key as vendors publish it."""
        return self._gpg("--armor", "--export")

    def sign(self, release: Path) -> None:
        """Write InRelease and Release.gpg beside a Release file."""
        inline, detached = release.with_name("InRelease"), release.with_name("Release.gpg")
        self._gpg("--yes", "--clearsign", "--output", str(inline), str(release))
        self._gpg("--yes", "--armor", "--detach-sign", "--output", str(detached), str(release))

    def _gpg(self, *arguments: str) -> str:
        # No agent of a throwaway key outlives its command: folders of tests are removed under it.
        return run(["gpg", "--homedir", str(self.home), "--batch", "--quiet", *arguments])

    def close(self) -> None:
        """End the agent that gpg started for the key's folder."""
        run(["gpgconf", "--homedir", str(self.home), "--kill", "all"])


class Repository:
    """A repository in `folder`, signed by `key`. What was added is there for hosts once it is published.

    suite: `/` for a flat one. What the folder holds already stays listed.
    """

    def __init__(self, folder: Path, key: SigningKey, suite: str = "/", component: str = "main") -> None:
        self.folder = folder
        self.key = key
        flat = suite == "/"
        self._release = folder / "Release" if flat else folder / "dists" / suite / "Release"
        self._index = "Packages" if flat else f"{component}/binary-amd64/Packages"
        names = {} if flat else {"Suite": suite, "Codename": suite, "Components": component, "Architectures": "amd64"}
        self._names: Mapping[str, str] = names
        self._entries = _listed(self._release.parent / self._index)

    def add(self, package: Package) -> Path:
        """Build a package and list it; the built file."""
        with readable_by_all():
            self.folder.mkdir(parents=True, exist_ok=True)
            version = package.version.replace(":", "%3a")
            built = self.folder / f"{package.name}_{version}_{package.architecture}.deb"
            with tempfile.TemporaryDirectory() as scratch:
                _lay_out(package, Path(scratch) / "root")
                run(["dpkg-deb", "--root-owner-group", "--build", f"{scratch}/root", str(built)])
        content = built.read_bytes()
        self._entries[built.name] = (
            f"{package.control}Filename: ./{built.name}\nSize: {len(content)}\nSHA256: {_sha256(content)}\n"
        )
        return built

    def publish(self, valid_until: datetime | None = None, date: datetime | None = None) -> None:
        """Write the lists of what was added, and sign them. date: what the Release file claims, now if left out."""
        with readable_by_all():
            self.folder.mkdir(parents=True, exist_ok=True)
            packages = "\n".join(self._entries.values()).encode()
            indexes = {self._index: packages, f"{self._index}.gz": gzip.compress(packages, mtime=0)}
            release = self._release
            for name, content in indexes.items():
                file = release.parent / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
            stated = {"Origin": "NVIDIA", "Label": "rackserve lab", **self._names}
            stated["Date"] = _written(date or datetime.now(UTC))
            if valid_until is not None:
                stated["Valid-Until"] = _written(valid_until)
            sums = "".join(f" {_sha256(content)} {len(content)} {name}\n" for name, content in indexes.items())
            release.write_text("".join(f"{key}: {value}\n" for key, value in stated.items()) + f"SHA256:\n{sums}")
            self.key.sign(release)
            (self.folder / KEY_FILE).write_text(self.key.armored)


def _listed(index: Path) -> dict[str, str]:
    """Paragraphs of an index by the package's file name."""
    text = index.read_text() if index.exists() else ""
    paragraphs = [f"{paragraph.strip()}\n" for paragraph in text.split("\n\n") if paragraph.strip()]
    return {paragraph.partition("Filename: ./")[2].partition("\n")[0]: paragraph for paragraph in paragraphs}


def _lay_out(package: Package, root: Path) -> None:
    control = root / "DEBIAN"
    control.mkdir(parents=True)
    (control / "control").write_text(package.control)
    for name, text in package.scripts.items():
        script = control / name
        script.write_text(text)
        script.chmod(_SCRIPT)
    for path, written in package.files.items():
        file = root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        content = written.encode() if isinstance(written, str) else written
        file.write_bytes(content)
        if content.startswith((b"#!", b"\x7fELF")):
            file.chmod(_SCRIPT)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _written(moment: datetime) -> str:
    return format_datetime(moment.astimezone(UTC), usegmt=True).replace("GMT", "UTC")
