"""Facts of how a GPU's driver gets onto a host: package repositories with their keys, and recipes of packages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import StringConstraints, model_validator

from rackserve.domain.base import Frozen, Sha256, Url
from rackserve.domain.gpu import Vendor, Version
from rackserve.domain.stack import Flavour, Some, SystemId

# A primary key's, as `gpg --with-colons` prints it: subkeys change, the primary key is what a vendor publishes.
Fingerprint = Annotated[str, StringConstraints(pattern=r"^[0-9A-F]{40}$")]
EntryId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+([.-][a-z0-9]+)*$", max_length=60)]
RepositoryName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=40)]
# Names and globs of packages; {branch}, {version}, {release} and {suffix} are filled in per host, see driver_plan.
PackagePattern = Annotated[str, StringConstraints(pattern=r"^[a-z0-9*?][a-z0-9.+*?{}_:-]*$", max_length=100)]
UnitName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9@-]*\.(service|path|timer)$", max_length=80)]


class Repository(Frozen):
    """One package repository of a vendor, for some systems, with the key that signs it.

    name: what it is called on a host and in `package_mirrors`; the same for all systems.
    url: base URL; `{arch}` stands for the system's word for the CPU, out of `architectures` (by `uname -m`).
    suite, components: of an apt repository; suite `/` is one without a pool.
    key: the file of the signing key, relative to a mirror's base URL; key_url: where the vendor has it.
    fingerprints: of all primary keys in that file, no more and no fewer. key_sha256: of the file, where no fingerprint
        was found published.
    series: it holds one series of AMD's driver, or one release of ROCm, only.
    only: globs of the packages that are taken from it, where it has many that nobody asked for; empty for all. For dnf.
    """

    id: EntryId
    name: RepositoryName
    format: Literal["deb", "rpm"]
    systems: Some[SystemId]
    url: Annotated[str, StringConstraints(pattern=r"^https?://[A-Za-z0-9._~:/{}-]+$", max_length=500)]
    architectures: Mapping[str, str]
    suite: str = "/"
    components: tuple[str, ...] = ()
    key_url: Url
    fingerprints: tuple[Fingerprint, ...] = ()
    key_sha256: Sha256 | None = None
    series: Version | None = None
    only: tuple[PackagePattern, ...] = ()
    source: str
    date: str

    @model_validator(mode="after")
    def _key_is_pinned(self) -> Self:
        if not self.fingerprints and self.key_sha256 is None:
            msg = "fingerprints or key_sha256 has to pin the key"
            raise ValueError(msg)
        return self

    @property
    def key_file(self) -> str:
        """The last part of key_url that names a file; a mirror has it beside the packages."""
        return self.key_url.partition("?")[0].rpartition("/")[2]


class DriverRecipe(Frozen):
    """The packages of one driver, from one place, on some systems.

    origin: `distribution` where the system's own archive has it, `vendor` where a repository of `repositories` does.
    targets: GPU targets that it is for (xe2); empty for all of the vendor's.
    flavour: of NVIDIA's kernel module. first, before: branches that these names hold for: first <= branch < before.
    repositories: names of the repositories to add.
    built: the module is compiled on the host by DKMS, for which `headers` have to be there.
    headers: packages of headers for one kernel; {release} is what `uname -r` prints.
    signed_module: the package of the ready-made module for one kernel, {release}; its metapackage is in `packages`.
    packages: what is installed. {branch} and {version} of the driver; {suffix} of the kernel's metapackage (generic).
    fabric: beside it where the boards carry NVSwitches. nvlsm: and NVLink 5.
    together: globs of the packages that have to be of one version: pinned, and never upgraded by anybody else.
    apart: globs of packages that those globs match too, and that have versions of their own.
    rivals: globs of packages of another stack for the same GPU, which must not be installed.
    module: the kernel module that has to be there in the end. modules: all that are to be loaded.
    units, fabric_units: enabled where their packages bring them.
    dnf_module: the module stream to enable, on systems with modularity.
    dcgm: packages of the data-centre GPU manager, {cuda} is CUDA's major version.
    beside_repositories: where those and the ones of `nvlsm` are.
    """

    id: EntryId
    vendor: Vendor
    origin: Literal["distribution", "vendor"]
    systems: Some[SystemId]
    targets: tuple[str, ...] = ()
    flavour: Flavour | None = None
    first: Version | None = None
    before: Version | None = None
    repositories: tuple[RepositoryName, ...] = ()
    built: bool = False
    prerequisites: tuple[PackagePattern, ...] = ()
    headers: tuple[PackagePattern, ...] = ()
    signed_module: PackagePattern | Literal[""] = ""
    packages: tuple[PackagePattern, ...] = ()
    fabric: tuple[PackagePattern, ...] = ()
    nvlsm: tuple[PackagePattern, ...] = ()
    together: tuple[PackagePattern, ...] = ()
    apart: tuple[PackagePattern, ...] = ()
    rivals: tuple[PackagePattern, ...] = ()
    module: str
    modules: tuple[str, ...]
    units: tuple[UnitName, ...] = ()
    fabric_units: tuple[UnitName, ...] = ()
    dnf_module: str = ""
    dcgm: tuple[PackagePattern, ...] = ()
    beside_repositories: tuple[RepositoryName, ...] = ()
    source: str
    date: str


class ToolkitRecipe(Frozen):
    """NVIDIA's Container Toolkit: packages that move together, and the unit that keeps the CDI specification fresh.

    packages: enough for CDI. hook_packages: for engines of the operator's own.
    refresh_environment: lines for the environment of that unit.
    """

    id: EntryId
    systems: Some[SystemId]
    repositories: Some[RepositoryName]
    packages: Some[PackagePattern]
    hook_packages: tuple[PackagePattern, ...] = ()
    version: Version
    refresh_unit: UnitName
    refresh_environment: tuple[Annotated[str, StringConstraints(pattern=r"^[A-Z_]+=[A-Za-z0-9,_-]*$")], ...] = ()
    source: str
    date: str


class UserModeRecipe(Frozen):
    """User-mode packages that a GPU needs beside a driver which is part of the kernel, or ROCm's.

    firmware: packages of the firmware that the kernel driver loads.
    """

    id: EntryId
    vendor: Vendor
    systems: Some[SystemId]
    release: Version | None = None
    repositories: tuple[RepositoryName, ...] = ()
    packages: Some[PackagePattern]
    firmware: tuple[PackagePattern, ...] = ()
    source: str
    date: str


class DriverFacts(Frozen):
    """All of it. Each field is a section of the catalogue's files."""

    repositories: Mapping[EntryId, Repository] = {}
    driver_recipes: Mapping[EntryId, DriverRecipe] = {}
    toolkit_recipes: Mapping[EntryId, ToolkitRecipe] = {}
    user_mode_recipes: Mapping[EntryId, UserModeRecipe] = {}


DRIVER_ENTRY_TYPES: Mapping[str, tuple[type[Frozen], str]] = {
    "repositories": (Repository, "id"),
    "driver_recipes": (DriverRecipe, "id"),
    "toolkit_recipes": (ToolkitRecipe, "id"),
    "user_mode_recipes": (UserModeRecipe, "id"),
}
