"""A host's disk and simulated hardware at one moment: kept while it stands still, put back while it is off."""

from __future__ import annotations

from pathlib import Path

from rackserve.domain.errors import LabError
from rackserve.lab.nspawn import HostFolder
from rackserve.lab.shell import remove_folder, run

# overlayfs keeps what it knows of a layer in extended attributes, and deleted files as devices: -a copies both.
_COPY = ("cp", "-a", "--reflink=auto", "--")


def keep(folder: HostFolder, label: str) -> None:
    """Copy all that makes the host, in place of an older snapshot of this label; a copy that broke off has no label."""
    final, fresh = folder.snapshots / label, folder.snapshots / f".{label}"
    remove_folder(fresh)
    fresh.mkdir(parents=True)
    for part in _parts(folder):
        run([*_COPY, str(part), str(fresh)])
    remove_folder(final)
    fresh.rename(final)


def put_back(folder: HostFolder, label: str) -> None:
    """Make the host what it was. It has to be off. LabError with the labels there are if this is none of them."""
    kept = folder.snapshots / label
    if not kept.is_dir():
        known = ", ".join(sorted(place.name for place in folder.snapshots.glob("[!.]*"))) or "none"
        raise LabError(f"{folder.path.name} has no snapshot {label!r} (it has {known})")
    for part in _parts(folder):
        remove_folder(part)
        run([*_COPY, str(kept / part.name), str(part)])
    # What overlayfs had begun there belongs to the layer that is gone.
    remove_folder(folder.work)
    folder.work.mkdir()


def _parts(folder: HostFolder) -> tuple[Path, ...]:
    return folder.upper, folder.pci, folder.modules
