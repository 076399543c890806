"""sources.lock: exactly what the interpreter is made of. Written by `layer/update-lock`, read by `layer/build`."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layer.recipe.steps import LAYER, BuildError

LOCK_FILE = LAYER / "sources.lock"
FORMAT = 1
ARCHIVES = ("debian", "debian-security")

_HEADER = """\
# Written by layer/update-lock; not by hand. Every file the interpreter is built from, with its SHA-256.
# archive: debian is the main mirror, debian-security the security mirror. directory: the folder in it.
"""


@dataclass(frozen=True, slots=True)
class LockedFile:
    """A file to download: its plain name, its size in bytes (0: not known) and its SHA-256 in hex."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Source:
    """A Debian source package: .dsc, original tarball and Debian's tarball with the patches."""

    package: str
    version: str
    archive: str
    directory: str
    files: tuple[LockedFile, ...]

    def file(self, *endings: str) -> LockedFile:
        """The one file whose name matches one of the regular expressions.

        Raises:
            BuildError: none matches, or several do.
        """
        found = [file for file in self.files if any(re.search(ending, file.name) for ending in endings)]
        if len(found) != 1:
            raise BuildError(
                f"{LOCK_FILE.name}: {self.package} should have one file like {endings[0]}, it has {len(found)}"
            )
        return found[0]


@dataclass(frozen=True, slots=True)
class Compiler:
    """The PyPI package that holds the compiler, and its wheel for each machine that can build."""

    package: str
    version: str
    files: tuple[LockedFile, ...]


@dataclass(frozen=True, slots=True)
class Lock:
    compiler: Compiler
    sources: tuple[Source, ...]

    def source(self, package: str) -> Source:
        """Raises: BuildError: the lock has no such package."""
        for source in self.sources:
            if source.package == package:
                return source
        raise BuildError(f"{LOCK_FILE.name} has no source package {package}; run layer/update-lock")


def parse(text: str) -> Lock:
    """Reads a lock strictly: what is missing, malformed or not known is an error.

    Raises:
        BuildError: says which entry is wrong, and that layer/update-lock writes a new lock.
    """
    try:
        raw = tomllib.loads(text)
        if raw["format"] != FORMAT:
            raise ValueError(f"format is {raw['format']!r}, this recipe reads {FORMAT}")
        compiler = raw["compiler"]
        lock = Lock(
            Compiler(_word(compiler, "package"), _word(compiler, "version"), _files(compiler, "compiler")),
            tuple(_source(entry) for entry in raw["source"]),
        )
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise BuildError(
            f"{LOCK_FILE.name} cannot be used: {what}. Run layer/update-lock to write a new one"
        ) from error
    if len({source.package for source in lock.sources}) != len(lock.sources):
        raise BuildError(f"{LOCK_FILE.name} names a source package twice. Run layer/update-lock to write a new one")
    return lock


def read(path: Path = LOCK_FILE) -> Lock:
    """Raises: BuildError: the lock is missing or cannot be used."""
    try:
        text = path.read_text()
    except OSError as error:
        raise BuildError(f"{path} cannot be read ({error.strerror}); layer/update-lock writes it") from error
    return parse(text)


def render(lock: Lock) -> str:
    """The lock as text; parse(render(lock)) == lock."""
    lines = [_HEADER, f"format = {FORMAT}\n", "[compiler]"]
    lines += [
        f'package = "{lock.compiler.package}"',
        f'version = "{lock.compiler.version}"',
        _render_files(lock.compiler.files),
    ]
    for source in lock.sources:
        lines += ["[[source]]", f'package = "{source.package}"', f'version = "{source.version}"']
        lines += [f'archive = "{source.archive}"', f'directory = "{source.directory}"', _render_files(source.files)]
    return "\n".join(lines).rstrip("\n") + "\n"


def _render_files(files: tuple[LockedFile, ...]) -> str:
    rows = [f'    {{ name = "{file.name}", size = {file.size}, sha256 = "{file.sha256}" }},' for file in files]
    return "\n".join(["files = [", *rows, "]", ""])


def _word(table: dict[str, Any], key: str) -> str:
    value = table[key]
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+:~_/-]*", value):
        raise ValueError(f"{key} is {value!r}")
    return value


def _files(table: dict[str, Any], owner: str) -> tuple[LockedFile, ...]:
    files = []
    for entry in table["files"]:
        name, size, sha256 = _word(entry, "name"), entry["size"], _word(entry, "sha256")
        if "/" in name:
            raise ValueError(f"{owner}: {name} is not a plain file name")
        if not isinstance(size, int) or size < 0:
            raise ValueError(f"{owner}: the size of {name} is {size!r}")
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise ValueError(f"{owner}: the sha256 of {name} is not 64 hex digits")
        files.append(LockedFile(name, size, sha256))
    if not files:
        raise ValueError(f"{owner} has no files")
    return tuple(files)


def _source(entry: dict[str, Any]) -> Source:
    source = Source(
        _word(entry, "package"),
        _word(entry, "version"),
        _word(entry, "archive"),
        _word(entry, "directory"),
        _files(entry, str(entry["package"])),
    )
    if source.archive not in ARCHIVES:
        raise ValueError(f"{source.package}: archive is {source.archive!r}, not one of {', '.join(ARCHIVES)}")
    if ".." in source.directory.split("/"):
        raise ValueError(f"{source.package}: directory is {source.directory!r}")
    return source
