"""The image a podman host stands on: imported from a base of the nspawn lab where there is one, else built."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from rackserve.domain.errors import LabError
from rackserve.lab.base import PACKAGES, Recipe, cache_folder, make_recipe
from rackserve.lab.machine import machine_reach
from rackserve.lab.shell import attempt, readable_by_all
from rackserve.lab.sources import apt_lines, machine_mirror

INIT = "/sbin/init"
_WORDS = 300
# As `base.FINISH`, for a root filesystem that is being built from within.
_FINISH = (
    "update-ca-certificates",
    "useradd --create-home --shell /bin/bash deploy",
    "chmod 0440 /etc/sudoers.d/deploy",
    "systemctl mask apt-daily.timer apt-daily-upgrade.timer systemd-networkd-wait-online.service",
    "rm -rf /etc/ssh/ssh_host_* /var/lib/apt/lists/*",
    ": > /etc/machine-id",
)


def ensure_image(suite: str, progress: Callable[[str], None]) -> str:
    """The name of the image for `suite`, which is made now if podman has none by the same recipe."""
    recipe = make_recipe(suite, _sources(suite), machine_reach())
    image = image_name(recipe)
    if attempt(["podman", "image", "exists", image]).returncode != 0:
        base = cache_folder() / recipe.folder_name
        # Bases are root's, and readable by nobody else.
        if os.geteuid() == 0 and base.is_dir():
            progress(f"importing the Debian {suite} base into podman")
            _import(base, image)
        else:
            progress(f"building the image {image} with podman, once, from debian:{suite}")
            _build(recipe, image)
    return image


def _sources(suite: str) -> tuple[str, ...]:
    """Where this machine would get the suite from; nothing where it is not Debian: then the image knows best."""
    try:
        mirror = machine_mirror()
    except LabError:
        return ()
    return tuple(apt_lines(mirror, suite))


def image_name(recipe: Recipe) -> str:
    """One image per suite and recipe."""
    key = hashlib.sha256((recipe.key + containerfile(recipe)).encode()).hexdigest()[:12]
    return f"localhost/rackserve-lab-{recipe.suite}:{key}"


def containerfile(recipe: Recipe) -> str:
    """What `podman build` follows; the files of the recipe lie in `seed` beside it."""
    install = f"apt-get install --yes --no-install-recommends {' '.join(PACKAGES)}"
    # The image's own sources would be asked beside the machine's.
    steps = [*(["rm -f /etc/apt/sources.list.d/debian.sources"] if recipe.sources else []), "apt-get update", install]
    return (
        # A short name: which registry it comes from is podman's own configuration.
        f"FROM debian:{recipe.suite}\n"
        "COPY seed/ /\n"
        f"RUN export DEBIAN_FRONTEND=noninteractive && {' && '.join((*steps, *_FINISH))}\n"
        f'CMD ["{INIT}"]\n'
    )


def _import(base: Path, image: str) -> None:
    with subprocess.Popen(["tar", "-C", str(base), "-c", "."], stdout=subprocess.PIPE) as archive:
        command = ["podman", "import", "--quiet", "--change", f'CMD ["{INIT}"]', "-", image]
        done = subprocess.run(command, stdin=archive.stdout, capture_output=True, text=True, check=False)
    if done.returncode != 0 or archive.returncode != 0:
        attempt(["podman", "image", "rm", "--force", image])
        raise LabError(f"podman could not import {base}: {done.stderr.strip()[:_WORDS] or 'tar failed'}")


@readable_by_all()
def _build(recipe: Recipe, image: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        context = Path(place)
        files = dict(recipe.files) | ({"/etc/apt/sources.list": _lines(recipe.sources)} if recipe.sources else {})
        for name, content in files.items():
            file = context / "seed" / name.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        (context / "Containerfile").write_text(containerfile(recipe))
        # The machine's own network: building leaves no bridge behind, and a resolver on its loopback is reached.
        command = ["podman", "build", "--quiet", "--pull=missing", "--network=host", f"--tag={image}", place]
        done = attempt([*command, f"--file={context / 'Containerfile'}"])
    if done.returncode != 0:
        words = (done.stderr.strip() or "no reason given").splitlines()[-1][:_WORDS]
        raise LabError(f"podman could not build an image from debian:{recipe.suite}: {words}")


def _lines(sources: tuple[str, ...]) -> str:
    return "".join(f"{line}\n" for line in sources)
