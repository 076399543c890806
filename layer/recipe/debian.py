"""Debian's source archive through an apt of our own: the host's lists, caches and settings stay as they are.

The mirror is the host's own, read from its apt sources. A host that has none (Ubuntu) names one in BACKSTOP_DEBIAN_MIRROR.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from layer.recipe.lock import LockedFile, Source
from layer.recipe.steps import BuildError, cache_folder, say

RELEASE = "trixie"
MIRROR_VARIABLE = "BACKSTOP_DEBIAN_MIRROR"
SECURITY_VARIABLE = "BACKSTOP_DEBIAN_SECURITY_MIRROR"
APT_HELPER = Path("/usr/lib/apt/apt-helper")


@dataclass(frozen=True, slots=True)
class Entry:
    """One repository of an apt sources file."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str


@dataclass(frozen=True, slots=True)
class Mirrors:
    """The roots of the main and of the security archive, without a slash at the end."""

    debian: str
    security: str

    def of(self, archive: str) -> str:
        return self.security if archive == "debian-security" else self.debian


def entries(text: str, deb822: bool) -> Iterator[Entry]:
    """The enabled repositories of a sources file: one a line (sources.list(5)), or in deb822 stanzas (.sources)."""
    if not deb822:
        for line in text.splitlines():
            found = re.match(r"\s*deb(?:-src)?\s+(?:\[([^]]*)\]\s*)?(\S+)\s+(\S+)\s*([^#]*)", line)
            if found:
                signed_by = re.search(r"signed-by=(\S+)", found[1] or "")
                yield Entry(
                    found[2].rstrip("/"), (found[3],), tuple(found[4].split()), signed_by[1] if signed_by else ""
                )
        return
    for stanza in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            field = re.match(r"([A-Za-z0-9-]+):\s*(.*)", line)
            if field:
                name = field[1].lower()
                fields[name] = field[2]
            elif name:
                fields[name] += " " + line.strip()
        if fields.get("enabled", "yes").lower() in ("no", "false", "off", "0"):
            continue
        for uri in fields.get("uris", "").split():
            suites, components = fields.get("suites", "").split(), fields.get("components", "").split()
            yield Entry(uri.rstrip("/"), tuple(suites), tuple(components), fields.get("signed-by", ""))


def find_mirrors(etc: Path = Path("/etc/apt"), environment: Mapping[str, str] = os.environ) -> Mirrors:
    """The mirrors to use: the environment's, else the ones this Debian installs its own packages from.

    Raises:
        BuildError: none is known; the text names the variable to set.
    """
    debian = environment.get(MIRROR_VARIABLE, "").rstrip("/")
    security = environment.get(SECURITY_VARIABLE, "").rstrip("/")
    if not debian:
        main, secure = _host_mirrors(etc)
        debian, security = main, security or secure
    if not debian:
        raise BuildError(
            "this host's apt sources name no Debian mirror, and the interpreter's sources come from Debian: set "
            f"{MIRROR_VARIABLE} to the address of one (the folder that holds dists/ and pool/), and, unless the security "
            f"archive lies beside it as <mirror>-security, {SECURITY_VARIABLE} too"
        )
    return Mirrors(debian, security or f"{debian}-security")


def _host_mirrors(etc: Path) -> tuple[str, str]:
    files = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]
    main: list[tuple[int, str]] = []
    secure: list[tuple[int, str]] = []
    for file in files:
        if file.suffix not in (".list", ".sources") or not file.is_file():
            continue
        for entry in entries(file.read_text(errors="replace"), file.suffix == ".sources"):
            if "main" not in entry.components:
                continue
            # Others publish for Debian releases too; only Debian's own archive has Debian's name or Debian's key on it.
            path = entry.uri.split("://", 1)[-1]
            own = re.search(r"/debian(-security)?(/|$)", path) is not None, "debian-archive" in entry.signed_by
            if not any(own) or not any(_is_debian_suite(suite) for suite in entry.suites):
                continue
            security = any(re.search(r"[-/](security|updates/security)$|/updates$", suite) for suite in entry.suites)
            (secure if security else main).append((-sum(own), _plain(entry.uri)))
    return min(main, default=(0, ""))[1], min(secure, default=(0, ""))[1]


def _is_debian_suite(suite: str) -> bool:
    names = "stable|oldstable|testing|unstable|sid|bullseye|bookworm|trixie|forky|duke"
    return re.fullmatch(rf"({names})([-/](updates|security|backports|proposed-updates))?(/updates)?", suite) is not None


def _plain(uri: str) -> str:
    """Cloud images point at a file that lists mirrors; its first one will do."""
    if uri.startswith("mirror+file:"):
        try:
            lines = Path(uri.removeprefix("mirror+file:")).read_text().split()
        except OSError:
            return uri
        return lines[0].rstrip("/") if lines else uri
    return uri


class Apt:
    """apt with lists and caches of its own, and of the host's settings only how to reach the network."""

    def __init__(self, mirrors: Mirrors, folder: Path | None = None) -> None:
        if not APT_HELPER.exists():
            raise BuildError("apt is needed to fetch and verify Debian's sources: build on Debian or Ubuntu")
        self.mirrors = mirrors
        self.folder = folder or cache_folder() / "apt"
        for name in ("lists/partial", "cache/archives/partial", "etc/empty", "log"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._config = self.folder / "apt.conf"
        self._config.write_text(self._configuration())
        self._environment = {**os.environ, "APT_CONFIG": str(self._config), "LC_ALL": "C.UTF-8"}

    def _configuration(self) -> str:
        host = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
        reach = [line for line in host.splitlines() if re.match(r"Acquire::(https?|ftp|tor|Retries|Check-)", line)]
        return "\n".join(
            [
                f'Dir "{self.folder}";',
                f'Dir::State "{self.folder}";',
                'Dir::State::lists "lists";',
                'Dir::State::status "/dev/null";',
                'Dir::Cache "cache";',
                'Dir::Log "log";',
                'Dir::Etc "etc";',
                'Dir::Etc::main "/dev/null";',
                'Dir::Etc::parts "empty";',
                'Dir::Etc::sourcelist "debian.sources";',
                'Dir::Etc::sourceparts "empty";',
                'Dir::Etc::preferencesparts "empty";',
                'Acquire::Languages "none";',
                # Downloads go to folders that only we can write; what arrives is checked, so root may fetch it.
                'APT::Sandbox::User "root";',
                *reach,
                "",
            ]
        )

    def download(self, source: Source, file: LockedFile, folder: Path) -> Path:
        """Fetches one file of a source package into folder, unless it is there, and checks its SHA-256.

        Raises:
            BuildError: the pool has dropped it, or what came is not what the lock says. Both name layer/update-lock.
        """
        target = folder / file.name
        if target.is_file() and sha256_of(target) == file.sha256:
            return target
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{file.name}.{os.getpid()}.part"
        address = (
            f"{self.mirrors.of(source.archive)}/{source.directory}/{file.name.replace('~', '%7e').replace('+', '%2b')}"
        )
        command = [str(APT_HELPER), "-qq", "-o", "Acquire::Retries=3", "download-file", address, str(partial)]
        try:
            done = subprocess.run(
                command, env=self._environment, capture_output=True, check=False, text=True, stdin=subprocess.DEVNULL
            )
            if done.returncode != 0 or not partial.is_file():
                why = "; ".join((done.stderr or done.stdout).split("\n")).strip("; ")
                raise BuildError(
                    f"{file.name} of {source.package} {source.version} could not be fetched: {why}\n"
                    "If the pool has dropped this version, run layer/update-lock: it locks the newest one that can be had"
                )
            actual = sha256_of(partial)
            if actual != file.sha256:
                raise BuildError(
                    f"{file.name} of {source.package} {source.version} has the SHA-256 {actual}, "
                    f"layer/sources.lock says {file.sha256}.\n"
                    "It was not used. If Debian has replaced the file, layer/update-lock verifies and locks the new one"
                )
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        return target

    def refresh(self, keyring: Path) -> None:
        """Fetches the release's source indexes and verifies their signatures with Debian's keyring.

        Raises:
            BuildError: an index could not be fetched, or its signature is not Debian's.
        """
        stanza = "Types: deb-src\nURIs: {}\nSuites: {}\nComponents: main\nSigned-By: {}\n"
        (self.folder / "etc/debian.sources").write_text(
            stanza.format(self.mirrors.debian, f"{RELEASE} {RELEASE}-updates", keyring)
            + "\n"
            + stanza.format(self.mirrors.security, f"{RELEASE}-security", keyring)
        )
        shutil.rmtree(self.folder / "lists")
        (self.folder / "lists/partial").mkdir(parents=True)
        say(f"reading Debian's source indexes of {RELEASE}")
        # By default apt-get update puts up with an index that cannot be had; here that would be a silent fallback.
        command = ["apt-get", "-q", "update", "-o", "APT::Update::Error-Mode=any", "-o", "Acquire::Retries=3"]
        done = subprocess.run(
            command, env=self._environment, capture_output=True, check=False, text=True, stdin=subprocess.DEVNULL
        )
        if done.returncode != 0:
            raise BuildError(f"apt-get update failed, nothing was locked:\n{done.stderr.strip()}")

    def candidates(self, package: str) -> list[Source]:
        """All versions of a source package in the verified indexes, newest first.

        Raises:
            BuildError: the indexes have none.
        """
        command = ["apt-cache", "showsrc", "--only-source", package]
        text = subprocess.run(command, env=self._environment, capture_output=True, check=False, text=True).stdout
        found = {(source.version, source.archive): source for source in parse_showsrc(text, package)}
        if not found:
            raise BuildError(f"Debian {RELEASE} has no source package {package}")
        return sorted(found.values(), key=lambda source: Version(source.version), reverse=True)


class Version:
    """Debian's order of versions, as dpkg has it."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __lt__(self, other: Version) -> bool:
        return subprocess.run(["dpkg", "--compare-versions", self.text, "lt", other.text], check=False).returncode == 0


def parse_showsrc(text: str, package: str) -> Iterator[Source]:
    """Reads `apt-cache showsrc`: one stanza a version, with its files under Checksums-Sha256."""
    for stanza in re.split(r"\n\s*\n", text):
        fields = dict(re.findall(r"^([A-Za-z0-9-]+):(.*(?:\n[ \t].*)*)", stanza, re.MULTILINE))
        if fields.get("Package", "").strip() != package:
            continue
        rows = [line.split() for line in fields["Checksums-Sha256"].strip().splitlines()]
        directory = fields["Directory"].strip()
        # The security archive keeps its packages under pool/updates.
        archive = "debian-security" if directory.startswith("pool/updates/") else "debian"
        files = [LockedFile(name, int(size), sha256) for sha256, size, name in rows if not name.endswith(".asc")]
        yield Source(package, fields["Version"].strip(), archive, directory, tuple(files))


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
