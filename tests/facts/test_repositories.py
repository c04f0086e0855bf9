"""Package repositories as hosts define them: every spelling of one place is recognized, and none of another."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rackserve.facts.repositories import Definition, RepositoryFiles, RepositoryState, comparable, parse_repositories
from rackserve.lab.repository import SigningKey
from tests.operations.private_root import PrivateRoot, needs_private_root

CUDA = "http://mirror.lan/cuda/debian12/x86_64"
SOURCES, LIST, REPO = "/etc/apt/sources.list.d/a.sources", "/etc/apt/sources.list.d/a.list", "/etc/yum.repos.d/a.repo"


def definitions(path: str, text: str, *more: str) -> list[Definition]:
    lines = [*more, f"file={path}", *(f"|{line}" for line in text.splitlines())]
    return list(parse_repositories(lines).definitions)


def urls(path: str, text: str, *more: str) -> list[str]:
    return [url for entry in definitions(path, text, *more) for url in entry.urls]


# places


@pytest.mark.parametrize(
    "spelling",
    [
        f"{CUDA}/",
        CUDA,
        f"{CUDA}//",
        f"{CUDA}/./",
        "https://mirror.lan/cuda/debian12/x86_64/",
        "http://MIRROR.lan/cuda//debian12/x86_64",
        "http://user:word@mirror.lan/cuda/debian12/x86_64",
        "http://mirror.lan/cuda/./debian12/x86_64",
        "http://mirror.lan/cuda/debian$releasever/$basearch/",
    ],
)
def test_one_place_has_one_spelling(spelling):
    assert comparable(spelling, "x86_64", "12") == CUDA


def test_apt_has_its_own_word_for_the_architecture():
    assert comparable("http://mirror.lan/$(ARCH)/", "amd64") == "http://mirror.lan/amd64"


@pytest.mark.parametrize(
    "other",
    [
        "http://mirror.lan/cuda/debian13/x86_64",
        "http://mirror.lan/Cuda/debian12/x86_64",
        "http://mirror.lan:8080/cuda/debian12/x86_64",
        "http://mirror.lan/cuda/debian12",
        "http://other.lan/cuda/debian12/x86_64",
        "file:///cuda/debian12/x86_64",
    ],
)
def test_another_place_is_another(other):
    assert comparable(other) != CUDA


# apt's paragraphs


def test_every_paragraph_of_a_sources_file_is_an_entry():
    text = f"""# NVIDIA's
Types: deb
URIs: {CUDA}/ https://second.lan/cuda/
Suites: /
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 URIs: http://in-a-key.lan/
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb deb-src
# URIs: http://commented.lan/debian
uris: http://deb.lan/debian
  http://other.lan/debian
Suites: bookworm bookworm-updates
Components: main
"""
    first, second = definitions(SOURCES, text)
    assert first.urls == (CUDA, "http://second.lan/cuda")
    assert second.urls == ("http://deb.lan/debian", "http://other.lan/debian")
    assert not first.alone
    assert not second.alone
    assert (first.file, first.where) == (SOURCES, "")


@pytest.mark.parametrize("word", ["no", "No", "false", "off", "0"])
def test_a_paragraph_that_is_switched_off_is_no_entry(word):
    kept = "Types: deb\nURIs: http://deb.lan/debian\nSuites: bookworm\nEnabled: yes\n"
    off = f"Enabled: {word}\nTypes: deb\nURIs: {CUDA}\nSuites: /\n"
    (entry,) = definitions(SOURCES, f"{off}\n{kept}")
    assert entry.urls == ("http://deb.lan/debian",)
    # All that apt still sees of the file.
    assert entry.alone


def test_a_line_of_blanks_ends_a_paragraph():
    assert urls(SOURCES, f"URIs: {CUDA}\nSuites: /\n \t\nURIs: http://b.lan/\nSuites: /\n") == [CUDA, "http://b.lan"]


def test_a_suite_that_is_a_folder_belongs_to_the_place():
    text = "Types: deb\nURIs: http://mirror.lan/cuda\nSuites: debian12/x86_64/\n"
    assert urls(SOURCES, text) == ["http://mirror.lan/cuda", CUDA]
    assert urls(SOURCES, f"URIs: {CUDA}\nSuites: ./\n") == [CUDA]
    assert CUDA in urls(SOURCES, "URIs: http://mirror.lan/cuda\nSuites: ./debian12/x86_64/\n")
    assert "http://mirror.lan/cuda/amd64" in urls(
        SOURCES, "URIs: http://mirror.lan/cuda\nSuites: $(ARCH)/\n", "architecture=amd64"
    )
    # A suite with a pool is none.
    assert urls(SOURCES, "URIs: http://mirror.lan/cuda\nSuites: bookworm/updates\n") == ["http://mirror.lan/cuda"]


# apt's lines


@pytest.mark.parametrize(
    "line",
    [
        f"deb {CUDA}/ /",
        f"deb\t{CUDA}  /",
        f"  deb [arch=amd64 signed-by=/etc/apt/keyrings/a.gpg] {CUDA}/ /",
        f"deb [ arch=amd64,arm64 ] {CUDA}/ / # added by hand",
        f"deb-src {CUDA}/ /",
        "deb http://mirror.lan/cuda/ debian12/x86_64/",
    ],
)
def test_a_line_is_an_entry_with_itself_as_its_place(line):
    (entry,) = definitions(LIST, f"# a comment\n\n{line}\n")
    assert CUDA in entry.urls
    assert (entry.where, entry.alone) == (line, True)


def test_lines_that_say_nothing_to_apt_are_no_entries():
    text = f"# deb {CUDA}/ /\n#deb {CUDA}/ /\nrpm {CUDA}/ /\ndeb\ndeb {CUDA}\n"
    assert definitions(LIST, text) == []


def test_one_line_among_others_is_not_alone():
    entries = definitions(LIST, f"deb {CUDA} /\ndeb http://deb.lan/debian bookworm main\ndeb cdrom:[Debian 12]/ a b\n")
    assert [entry.alone for entry in entries] == [False] * 3
    assert entries[1].urls == ("http://deb.lan/debian",)


# dnf's sections


def test_every_section_of_a_repo_file_is_an_entry():
    text = """[main]
gpgcheck=1
[cuda]
name=cuda
baseurl = https://mirror.lan/cuda/debian$releasever/$basearch/
enabled=1
[cuda-off]
baseurl=http://off.lan/
enabled = 0
#[commented]
[two]
baseurl=http://a.lan/x/, http://b.lan/x/
        http://c.lan/x/
#baseurl=http://commented.lan/
[mirrorlist]
mirrorlist=http://list.lan/
"""
    cuda, two = definitions(REPO, text, "architecture=x86_64", "release=12.5")
    assert (cuda.urls, cuda.where, cuda.alone) == ((CUDA,), "[cuda]", False)
    assert two.urls == ("http://a.lan/x", "http://b.lan/x", "http://c.lan/x")


def test_the_only_section_that_is_on_is_alone():
    (entry,) = definitions(REPO, f"[a]\nbaseurl={CUDA}\n\n[b]\nbaseurl=http://b.lan/\nenabled=false\n")
    assert (entry.where, entry.alone) == ("[a]", True)


def test_a_section_is_found_again_by_the_very_line_it_stands_in():
    entries = definitions(REPO, f"[a] \nbaseurl={CUDA}\n[b]\nbaseurl=http://b.lan/\n")
    assert [entry.where for entry in entries] == ["[a] ", "[b]"]


# the rest


def test_checksums_fingerprints_and_missing_programs_are_told_by_path():
    state = parse_repositories(
        [
            "sha256=aa /etc/a b.sources",
            "stripped=bb /etc/k.asc",
            "fingerprint=FF /etc/k.gpg",
            "fingerprint=EE /etc/k.gpg",
            "missing=gpg",
        ]
    )
    assert state == RepositoryState(
        {"/etc/a b.sources": "aa"}, {"/etc/k.asc": "bb"}, {"/etc/k.gpg": ("EE", "FF")}, (), ("gpg",)
    )


anything = st.text(max_size=40) | st.sampled_from(
    ["URIs:", "URIs: http://[", "Suites: /", "[a]", "[", "baseurl=//[", "deb http://[::1 /", "Enabled: no", " ", ""]
)


@given(st.sampled_from([SOURCES, LIST, REPO]), st.lists(anything, max_size=6), st.lists(anything, max_size=3))
@example(LIST, ["deb http://[mirror /"], [])
@example(SOURCES, ["URIs: http://[mirror", "Suites: /"], ["|orphan"])
@example(REPO, ["[a]", "baseurl=http://\u2100.lan/"], [])
def test_no_file_of_a_host_makes_the_parser_raise(path, lines, before):
    # An exception here would end the run for all hosts.
    state = parse_repositories([*before, f"file={path}", *(f"|{line}" for line in lines)])
    assert {definition.file for definition in state.definitions} <= {path}


# the command


@pytest.fixture
def root(tmp_path: Path) -> PrivateRoot:
    return PrivateRoot(tmp_path / "root")


@pytest.fixture
def key(tmp_path: Path):
    made = SigningKey(tmp_path / "key")
    yield made
    made.close()


def ask(root: PrivateRoot, *files: str, shell: str = "sh", **values: list[str]) -> RepositoryState:
    stated = {"files": list(files), "keyrings": [], "originals": [], "programs": []} | values
    done = root.run(shell, "-c", RepositoryFiles().command(**stated))
    assert (done.returncode, done.stderr) == (0, "")
    return RepositoryFiles().process(done.stdout.splitlines())


@needs_private_root
def test_a_host_without_repositories_has_none(root):
    assert ask(root) == RepositoryFiles.default()
    assert ask(root, "/etc/apt/absent", keyrings=["/etc/absent"], originals=["/etc/absent"]) == RepositoryState(
        {}, {}, {}, (), ()
    )


@needs_private_root
@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_files_and_keys_of_a_host_are_told(root, key, shell):
    text = key.armored.replace("-----\n", "-----\nVersion: GnuPG v2\n", 1)
    root.path("/etc/apt/keyrings").mkdir()
    root.path("/etc/apt/keyrings/it's.asc").write_text(text)
    root.path("/etc/apt/a b.sources").write_text("Types: deb\n")
    state = ask(
        root,
        "/etc/apt/a b.sources",
        keyrings=["/etc/apt/keyrings/it's.asc", "/etc/apt/a b.sources"],
        originals=["/etc/apt/keyrings/it's.asc"],
        programs=["sh", "no-such-program"],
        shell=shell,
    )
    assert state.sha256 == {"/etc/apt/a b.sources": hashlib.sha256(b"Types: deb\n").hexdigest()}
    stripped = text.replace("Version: GnuPG v2\n", "")
    assert state.stripped == {"/etc/apt/keyrings/it's.asc": hashlib.sha256(stripped.encode()).hexdigest()}
    assert state.fingerprints == {"/etc/apt/keyrings/it's.asc": (key.fingerprint,)}
    assert state.missing == ("no-such-program",)
    # gpg has left nothing in root's own folder.
    assert not root.path("/root/.gnupg").exists()


@needs_private_root
def test_definitions_of_a_host_are_told_wherever_they_stand(root):
    # Without a newline at its end a file must not swallow the next one.
    root.path("/etc/apt/sources.list").write_text("deb http://deb.lan/debian bookworm main")
    folder = root.path("/etc/apt/sources.list.d")
    (folder / "a.list").write_text("deb http://mirror.lan/$(ARCH)/ /\n")
    (folder / "b.sources").write_text(f"Types: deb\nURIs: {CUDA}/\nSuites: /\n\nURIs: http://b.lan/\nSuites: /")
    (folder / "c.list.disabled-by-rackserve").write_text(f"deb {CUDA}/ /\n")
    root.path("/etc/yum.repos.d/d.repo").write_text("[d]\nbaseurl=http://d.lan/$releasever/\n")
    architecture = root.shell("dpkg --print-architecture").strip()
    release = root.shell('. /etc/os-release; echo "$VERSION_ID"').strip().partition(".")[0]
    assert ask(root).definitions == (
        Definition(
            "/etc/apt/sources.list", ("http://deb.lan/debian",), "deb http://deb.lan/debian bookworm main", True
        ),
        Definition(LIST, (f"http://mirror.lan/{architecture}",), "deb http://mirror.lan/$(ARCH)/ /", True),
        Definition("/etc/apt/sources.list.d/b.sources", (CUDA,), "", False),
        Definition("/etc/apt/sources.list.d/b.sources", ("http://b.lan",), "", False),
        Definition("/etc/yum.repos.d/d.repo", (f"http://d.lan/{release}",), "[d]", True),
    )
