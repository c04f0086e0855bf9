"""A host with real apt, a vendor's repository on a mirror beside it, and what may be wrong between them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rackserve.lab.repository import KEY_FILE, Package, Repository, SigningKey
from rackserve.planning.driver_plan import PlannedRepository
from rackserve.rendering.repositories import keyring_path, repository_file
from tests.operations.private_root import PrivateRoot
from tests.operations.scripting import Mirror, mirroring

# The pauses between tries, and nobody else's.
_HASTY_SLEEP = '#!/bin/sh\ncase $1 in 2|6) echo "$1" >>/run/pauses;; *) exec /bin/sleep "$@";; esac\n'


class Bench:
    """A host, a vendor with a repository, and a key that is not the vendor's."""

    def __init__(self, folder: Path, mirror: Mirror) -> None:
        self.root = PrivateRoot(folder / "root")
        self.root.program("sleep", _HASTY_SLEEP)
        self.root.path("/etc/apt/apt.conf.d/fast").write_text('Acquire::Retries "0";\n')
        self.mirror = mirror
        self.key, self.other = SigningKey(folder / "key"), SigningKey(folder / "other", "somebody else")
        self.repository = Repository(mirror.folder, self.key)
        self.repository.add(Package("nv-driver", "580.95.05-1"))
        self.repository.publish()
        self.key_file = mirror.folder / KEY_FILE

    def planned(self, **values: object) -> PlannedRepository:
        stated = {
            "name": "nv",
            "format": "deb",
            "url": self.mirror.url,
            "suite": "/",
            "components": (),
            "architecture": "amd64",
            "key_url": self.mirror.url + KEY_FILE,
            "fingerprints": (self.key.fingerprint,),
            "key_sha256": None,
        }
        return PlannedRepository(**(stated | values))  # type: ignore[arg-type]

    def add(self, *aside: str, **values: object) -> tuple[int, str, str]:
        planned = self.planned(**values)
        file = repository_file(planned)
        done = self.root.script(
            f"repository-{planned.format}.sh",
            planned.url,
            planned.key_url,
            " ".join(planned.fingerprints),
            planned.key_sha256 or "",
            keyring_path(planned),
            file.path,
            file.text,
            *aside,
        )
        return done.returncode, done.stdout, done.stderr

    def refused(self, *aside: str, **values: object) -> str:
        """Why it was not added; nothing on the host is another than before."""
        before = self.everything()
        code, out, err = self.add(*aside, **values)
        assert (code, out) == (1, "")
        assert self.everything() == before
        url = self.planned(**values).url
        assert err.startswith(f"repository {url} not added: ")
        return err.removeprefix(f"repository {url} not added: ")

    def everything(self) -> dict[str, tuple[int, bytes]]:
        """Each file that this host has of its own."""
        found = {}
        for top in ("own", "upper"):
            for path in sorted((self.root.folder / top).rglob("*")):
                name = str(path.relative_to(self.root.folder / top))
                if path.is_file() and name not in ("var/lib/rackserve/.repository.lock", "run/pauses"):
                    found[f"/{name}"] = (path.stat().st_mode & 0o7777, path.read_bytes())
        return found

    def pauses(self) -> list[str]:
        path = self.root.path("/run/pauses")
        return path.read_text().split() if path.exists() else []

    def define(self, name: str, text: str, mode: int = 0o644) -> Path:
        path = self.root.path(f"/etc/apt/sources.list.d/{name}")
        path.write_text(text)
        path.chmod(mode)
        return path

    def forge(self) -> None:
        """Have the lists signed by the other key, and the pinned one still published."""
        self.repository.key = self.other
        self.repository.publish()
        self.key_file.write_text(self.key.armored)

    def tamper(self, *, longer: bool) -> None:
        """Change the list of packages behind the signature's back."""
        for name in ("Packages", "Packages.gz"):
            path = self.mirror.folder / name
            content = path.read_bytes()
            path.write_bytes(content + b"\n\n" if longer else content[:-4] + b"\1\2\3\4")


@contextmanager
def working_bench(folder: Path) -> Iterator[Bench]:
    with mirroring(folder / "published") as mirror:
        made = Bench(folder, mirror)
        yield made
        made.key.close()
        made.other.close()


def closed_address() -> str:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}/"
