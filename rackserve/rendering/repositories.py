"""Package repositories as text: apt's deb822 sources and dnf's .repo files, and where they and their keys lie."""

from __future__ import annotations

from rackserve.planning.driver_plan import PlannedRepository
from rackserve.rendering.text import RenderedFile

_HEADER = "# Written by rackserve; changes here are overwritten by the next run.\n"
_RPM_KEYS = "/etc/pki/rpm-gpg"
# Where ours lie, whatever they are called.
REPOSITORY_FILES = ("/etc/apt/sources.list.d/rackserve-*.sources", "/etc/yum.repos.d/rackserve-*.repo")
KEY_FILES = ("/etc/apt/keyrings/rackserve-*", f"{_RPM_KEYS}/RPM-GPG-KEY-rackserve-*")


def repository_file(planned: PlannedRepository) -> RenderedFile:
    """The file that makes the system's package manager use a repository."""
    if planned.format == "deb":
        return RenderedFile(f"/etc/apt/sources.list.d/rackserve-{planned.name}.sources", _deb822(planned))
    return RenderedFile(f"/etc/yum.repos.d/rackserve-{planned.name}.repo", _repo(planned))


def keyring_path(planned: PlannedRepository) -> str:
    """Where the package manager reads the repository's key."""
    if planned.format == "deb":
        return f"/etc/apt/keyrings/rackserve-{planned.name}.gpg"
    return f"{_RPM_KEYS}/RPM-GPG-KEY-rackserve-{planned.name}"


def key_original_path(planned: PlannedRepository) -> str:
    """Where the key lies byte for byte as the vendor publishes it: what a pinned checksum of the file is compared with.

    apt gets the key in binary form, so the original is kept beside it.
    """
    path = keyring_path(planned)
    return f"{path.removesuffix('.gpg')}.asc" if planned.format == "deb" else path


def _deb822(planned: PlannedRepository) -> str:
    # A suite that ends in a slash is a folder without a pool, which has no components.
    components = "" if planned.suite.endswith("/") else f"Components: {' '.join(planned.components)}\n"
    return (
        f"{_HEADER}Types: deb\nURIs: {planned.url}\nSuites: {planned.suite}\n{components}"
        f"Architectures: {planned.architecture}\nSigned-By: {keyring_path(planned)}\n"
    )


def _repo(planned: PlannedRepository) -> str:
    only = f"includepkgs={' '.join(planned.only)}\n" if planned.only else ""
    return (
        f"{_HEADER}[rackserve-{planned.name}]\nname={planned.name} (rackserve)\nbaseurl={planned.url}\nenabled=1\n"
        f"gpgcheck=1\ngpgkey=file://{keyring_path(planned)}\n"
        # dnf would refuse metadata without a signature, which these vendors do not give it.
        "# Vendors of GPUs sign their packages and not the list of them; each package's signature is checked.\n"
        f"repo_gpgcheck=0\n{only}"
    )
