"""How this machine reaches its mirrors, and what of that a host needs as well.

Companies put their own certificate authority, proxy and package index in front of the internet; a host in the lab sits
behind the same wall as the machine that carries it.
"""

from __future__ import annotations

import configparser
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from rackserve.lab.shell import attempt

CERTIFICATES = Path("/usr/local/share/ca-certificates")
SYSTEM_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
PIP_FILES = (Path("/etc/pip.conf"), Path.home() / ".pip/pip.conf", Path.home() / ".config/pip/pip.conf")

_APT_SETTING = re.compile(r"^Acquire::(https?(::.*)?|Retries|ForceIPv[46]) ", re.IGNORECASE)
_PIP_KEYS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout")
_LOOPBACK = re.compile(r"//(localhost|127\.|\[::1\])")


@dataclass(frozen=True, slots=True)
class Reach:
    """apt settings for building here, those that hold inside a host too, and files for the host."""

    apt_settings: tuple[str, ...] = ()
    host_apt_settings: tuple[str, ...] = ()
    files: dict[str, str] = field(default_factory=dict)


def machine_reach() -> Reach:
    """Read this machine's apt settings, added certificates and pip configuration."""
    settings = mirror_settings(attempt(["apt-config", "dump"]).stdout)
    certificates = {
        f"{CERTIFICATES}/{file.name}": file.read_text() for file in sorted(CERTIFICATES.glob("*.crt")) if file.is_file()
    }
    pip = host_pip_configuration((f.read_text() for f in PIP_FILES if f.is_file()), own_authority=bool(certificates))
    files = {**certificates, "/etc/pip.conf": pip} if pip else certificates
    return Reach(settings, tuple(line for line in settings if not _LOOPBACK.search(line)), files)


def mirror_settings(dump: str) -> tuple[str, ...]:
    """The lines of `apt-config dump` that decide how a mirror is reached (proxies, TLS, retries)."""
    lines = (line.strip() for line in dump.splitlines())
    return tuple(line for line in lines if _APT_SETTING.match(line) and not line.endswith(' "";'))


def host_pip_configuration(texts: Iterable[str], *, own_authority: bool) -> str:
    """A pip.conf for hosts: network settings of the machine's, without paths that exist only here; "" if none.

    pip in a virtual environment ignores the system's certificates unless told, hence `cert`.
    """
    merged: dict[str, str] = {}
    for text in texts:
        parser = configparser.RawConfigParser(strict=False)
        parser.read_string(text)
        if parser.has_section("global"):
            merged.update({key: parser["global"][key] for key in _PIP_KEYS if key in parser["global"]})
    kept = {key: " ".join(word for word in value.split() if not _only_here(word)) for key, value in merged.items()}
    wanted = {key: value for key, value in kept.items() if value}
    if own_authority:
        wanted["cert"] = SYSTEM_BUNDLE
    if not wanted:
        return ""
    written = configparser.RawConfigParser()
    written["global"] = wanted
    output = io.StringIO()
    written.write(output)
    return output.getvalue()


def _only_here(word: str) -> bool:
    return word.startswith(("file:", "/")) or bool(_LOOPBACK.search(word))
