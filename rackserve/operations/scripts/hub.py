"""hub.py: what snapshot.py knows of model hubs, sent before it in one text. Runs on hosts: Python 3.9, and curl."""  # noqa: INP001 (no package: it travels as text)

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import time
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

# What servers read: settings, tokenizers, templates, weights. Code that a repository brings along is never fetched.
_TAKEN = re.compile(
    r"[^/.][^/]*\.(json|jinja|model|tiktoken|safetensors)|(vocab|merges)\.txt|additional_chat_templates/[^/.][^/]*\.jinja"
)
_INDEX_OF_OTHERS = re.compile(r".*\.(bin|pt|pth|h5|msgpack)\.index\.json")
_HEX = {"sha1": re.compile(r"[0-9a-f]{40}"), "sha256": re.compile(r"[0-9a-f]{64}")}
_MOST_PAGES, _LARGEST_ANSWER = 1000, 64 * 2**20
# A redirection has a body too, which curl 7.88 holds against --max-filesize.
_REDIRECTION = 64 * 1024
_TRIES, _PAUSE_S = 3, 2
_WAITS = ("--connect-timeout", "15", "--speed-limit", "1024", "--speed-time", "60")
# curl's 33 and 36, and HTTP 416: what is there is no beginning of this file, or the server cannot go on with it.
_CODES_NOT_RESUMED, _NOT_RESUMED = (33, 36), 416
_FORBIDDEN = (401, 403)
# Client errors that pass; the others stay, and what is no client error is a server's or a connection's trouble.
_PASSING = (408, _NOT_RESUMED, 429)


class Refused(Exception):  # noqa: N818 (a sentence for the operator, no fault of the program)
    """Why the model is not in place."""


@dataclass(frozen=True)
class File:
    """A file of a repository. `size` in bytes; `digest` is its SHA-256, or of small files git's SHA-1 of the blob."""

    path: str
    size: int
    algorithm: str
    digest: str


@dataclass(frozen=True)
class Answer:
    """What became of a transfer: curl's exit code, the last HTTP status (0: none came), and curl's last words."""

    code: int
    status: int
    message: str

    @property
    def stays(self) -> bool:
        """Whether another try would end alike."""
        return 400 <= self.status < 500 and self.status not in _PASSING  # noqa: PLR2004 (client errors)


def size_of(path: Path) -> int:
    """Bytes of a file, 0 where there is none."""
    return path.stat().st_size if path.is_file() else 0


def needed(entries: Iterable[Any]) -> list[File]:
    """The files of a listing that a server needs, small ones first. Refused: what no honest hub would list."""
    files: dict[str, File] = {}
    for entry in entries:
        path = entry.get("path") if isinstance(entry, dict) else None
        if not isinstance(path, str) or not _is_harmless(path):
            raise Refused(f"the hub lists a file under a name that is none: {ascii(path)[:200]}")
        if _TAKEN.fullmatch(path) and not _INDEX_OF_OTHERS.fullmatch(path) and entry.get("type") != "directory":
            files[path] = _file(path, entry)
    weights = [path for path in files if path.endswith(".safetensors")]
    if not weights or not {"config.json", "params.json"} & set(files):
        raise Refused("no config.json and *.safetensors in it: name a repository that has them")
    if any(not path.startswith("consolidated") for path in weights):
        # Mistral publishes all weights twice, and vLLM 0.33 prefers those in Mistral's own format where both are there.
        files = {path: file for path, file in files.items() if not path.startswith("consolidated")}
    return sorted(files.values(), key=lambda file: (file.size, file.path))


def _is_harmless(path: str) -> bool:
    """Whether a name stays below the folder that it is put in, and prints as what it is."""
    return path.isprintable() and all(part not in {"", ".", ".."} for part in path.split("/"))


def _file(path: str, entry: Mapping[str, Any]) -> File:
    if entry.get("type") != "file":
        raise Refused(f"{path} is no file, but {ascii(entry.get('type'))[:40]}")
    lfs = entry.get("lfs")
    algorithm, told = ("sha256", lfs) if isinstance(lfs, dict) else ("sha1", entry)
    size, digest = told.get("size"), str(told.get("oid"))
    if type(size) is not int or size < 0 or not _HEX[algorithm].fullmatch(digest):
        raise Refused(f"{path} is listed without its size or checksum")
    return File(path, size, algorithm, digest)


def next_query(link: str) -> str | None:
    """The query of the next page, from a Link header; no more of it: a mirror may hand on its hub's addresses."""
    found = re.search(r'<([^<>]*)>\s*;[^,<>]*\brel="?next\b', link)
    return urllib.parse.urlsplit(found[1]).query if found else None


class Hub:
    """A repository on a hub. `lock` stays open in what transfers for us: who finds us dead waits for that too."""

    def __init__(self, url: str, repo: str, token: str, lock: int) -> None:
        self.url, self.repo, self._token, self._lock = url.rstrip("/"), repo, token, lock
        self._api = f"{self.url}/api/models/{repo}"

    def commit(self, branch: str) -> str:
        """The commit that a branch is now."""
        told, _ = self._ask(f"{self._api}/revision/{branch}")
        sha = str(told.get("sha")) if isinstance(told, dict) else ""
        if not _HEX["sha1"].fullmatch(sha):
            raise Refused(f"not fetched: {self.url} does not say which commit {branch} of {self.repo} is")
        return sha

    def files(self, revision: str) -> list[File]:
        """What a server needs of the repository at this commit."""
        entries = self._listing(f"{self._api}/tree/{revision}")
        try:
            return needed(entries)
        except Refused as error:
            raise Refused(f"not fetched: {self.repo} at {revision}: {error}") from None

    def _listing(self, address: str) -> list[Any]:
        entries: list[Any] = []
        query: str | None = "recursive=true&expand=false"
        for _ in range(_MOST_PAGES):
            page, link = self._ask(f"{address}?{query}")
            if not isinstance(page, list):
                raise Refused(f"not fetched: {address} answers with something else than a list")
            entries += page
            query = next_query(link)
            if query is None:
                return entries
        raise Refused(f"not fetched: {address} has more than {_MOST_PAGES} pages")

    def fetch(self, revision: str, file: File, part: Path) -> None:
        """Append what is missing of a file to `part`; goes on as long as every few connections bring it further."""
        url = f"{self.url}/{self.repo}/resolve/{revision}/{urllib.parse.quote(file.path)}"
        furthest, tries = size_of(part), 0
        while True:
            # curl's own --retry would first throw away what the broken connection had brought.
            most = str(file.size + _REDIRECTION)
            answer = self._curl(url, "--continue-at", "-", "--max-filesize", most, "--output", str(part))
            if answer.code == 0:
                return
            restarts = answer.code in _CODES_NOT_RESUMED or answer.status == _NOT_RESUMED
            if restarts:
                part.unlink()
            tries = 0 if size_of(part) > furthest else tries + 1
            furthest = max(furthest, size_of(part))
            if tries == _TRIES or answer.stays:
                self._fail(url, answer)
            time.sleep(0 if restarts else _PAUSE_S)

    def _ask(self, url: str) -> tuple[Any, str]:
        """What the hub's API answers, and the Link header that comes with it."""
        with tempfile.TemporaryDirectory() as folder:
            head, body = Path(folder, "head"), Path(folder, "body")
            body.touch()
            limits = ("--max-filesize", str(_LARGEST_ANSWER), "--max-time", "120")
            for remaining in reversed(range(_TRIES)):
                answer = self._curl(url, *limits, "--dump-header", str(head), "--output", str(body))
                if answer.code == 0:
                    break
                if not remaining or answer.stays:
                    self._fail(url, answer)
                time.sleep(_PAUSE_S)
            try:
                return json.loads(body.read_bytes()), _link(head.read_text("latin-1"))
            except ValueError:
                raise Refused(
                    f"not fetched: {url} does not answer as a hub: model_hub has to be one, or its mirror"
                ) from None

    def _curl(self, url: str, *options: str) -> Answer:
        # Standard input, because anybody can read arguments. curl keeps the header from hosts it is sent on to.
        header = ("--header", "@-") if self._token else ()
        done = subprocess.run(
            [
                *("curl", "--fail", "--location", "--silent", "--show-error", "--globoff", *_WAITS, *header, *options),
                *("--write-out", "%{http_code}", "--", url),
            ],
            input=f"Authorization: Bearer {self._token}\n" if self._token else "",
            capture_output=True,
            text=True,
            errors="replace",
            pass_fds=(self._lock,),
            check=False,
        )
        words = done.stderr.strip().splitlines()
        status = done.stdout.strip()
        message = words[-1] if words else f"curl failed with {done.returncode}"
        return Answer(done.returncode, int(status) if status.isdecimal() else 0, message)

    def _fail(self, url: str, answer: Answer) -> NoReturn:
        if answer.status not in _FORBIDDEN:
            raise Refused(f"not fetched: {url}: {answer.message}")
        if self._token:
            hint = f"the token in hf_token_file may not read it: ask for access at {self.url}/{self.repo}"
        else:
            hint = "it asks who fetches it, or is not there: name a file with a token that may read it as hf_token_file"
        raise Refused(f"not fetched: {self.repo}: {self.url} answers {answer.status}: {hint}")


def _link(head: str) -> str:
    """The Link header of the last answer: redirections came before it."""
    lines = re.split(r"(?m)^HTTP/", head)[-1].splitlines()
    return ",".join(line.partition(":")[2] for line in lines if line.lower().startswith("link:"))
