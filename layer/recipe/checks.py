"""What must hold of the finished zip. Each check takes the archive's files and returns what is wrong, in words."""

from __future__ import annotations

import re
import stat
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from layer.recipe import elf

MAX_ZIP_BYTES = 10_000_000
MAX_UNPACKED_BYTES = 25_000_000
NEWEST_GLIBC = (2, 34)  # Amazon Linux 2023
# These folders of /opt are on the function's own search paths: a file there would leak into other teams' code.
FORBIDDEN_FOLDERS = ("lib", "bin", "python", "nodejs")
GLIBC_LIBRARIES = re.compile(
    r"(libc\.so\.6|libm\.so\.6|libpthread\.so\.0|libdl\.so\.2|librt\.so\.1|libutil\.so\.1|ld-linux-[a-z0-9-]+\.so\.\d)$"
)
EXECUTABLES = ("extensions/backstop", "backstop-wrapper", "backstop/bin/python")
REQUIRED = (*EXECUTABLES, "backstop/lib/modules.bundle", "backstop/notices/README.txt")


@dataclass(frozen=True, slots=True)
class Member:
    """A file of the zip: its path under /opt, its Unix mode (type and permissions) and its bytes."""

    path: str
    mode: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Archive:
    """The zip: its own size in bytes and its files. arch: as `uname -m` has it."""

    zip_bytes: int
    arch: str
    members: tuple[Member, ...]


def load(path: Path, arch: str) -> Archive:
    """Raises: OSError, zipfile.BadZipFile."""
    with zipfile.ZipFile(path) as opened:
        members = [Member(info.filename, info.external_attr >> 16, opened.read(info)) for info in opened.infolist()]
    return Archive(path.stat().st_size, arch, tuple(members))


def size(archive: Archive) -> list[str]:
    unpacked = sum(len(member.data) for member in archive.members)
    problems = []
    if archive.zip_bytes > MAX_ZIP_BYTES:
        problems.append(f"the zip has {archive.zip_bytes:,} bytes, at most {MAX_ZIP_BYTES:,} are allowed")
    if unpacked > MAX_UNPACKED_BYTES:
        problems.append(f"unpacked it has {unpacked:,} bytes, at most {MAX_UNPACKED_BYTES:,} are allowed")
    return problems


def places(archive: Archive) -> list[str]:
    problems = []
    for member in archive.members:
        parts = member.path.split("/")
        if parts[0] in FORBIDDEN_FOLDERS:
            problems.append(f"{member.path}: /opt/{parts[0]} is on the function's own search path")
        if member.path.startswith("/") or ".." in parts or "\\" in member.path:
            problems.append(f"{member.path}: leads out of the layer")
        if parts[0] == "extensions" and member.path != "extensions/backstop":
            problems.append(f"{member.path}: Lambda would start it as one more extension")
    paths = [member.path for member in archive.members]
    problems += [f"{path}: is in the zip twice" for path in sorted(set(paths)) if paths.count(path) > 1]
    return problems


def contents(archive: Archive) -> list[str]:
    paths = {member.path for member in archive.members}
    problems = [f"{path}: is missing" for path in REQUIRED if path not in paths]
    for member in archive.members:
        if member.path.endswith((".py", ".pyc")):
            problems.append(f"{member.path}: source; all Python code is in backstop/lib/modules.bundle")
    return problems


def modes(archive: Archive) -> list[str]:
    """Managed Instances run extensions as a user of their own, so all must be readable by all."""
    problems = []
    for member in archive.members:
        expected = 0o755 if member.path in EXECUTABLES else 0o644
        if not stat.S_ISREG(member.mode):
            problems.append(f"{member.path}: not a plain file (mode {member.mode:o})")
        elif stat.S_IMODE(member.mode) != expected:
            problems.append(f"{member.path}: mode {stat.S_IMODE(member.mode):04o}, should be {expected:04o}")
    return problems


def binaries(archive: Archive) -> list[str]:
    problems = []
    for member in archive.members:
        if not elf.is_elf(member.data):
            if member.path in EXECUTABLES:
                problems.append(f"{member.path}: not an ELF file")
            continue
        try:
            needs = elf.needs(member.data)
        except elf.NotElf as error:
            problems.append(f"{member.path}: {error}")
            continue
        problems += [f"{member.path}: {problem}" for problem in machine_problems(needs, archive.arch)]
    return problems


def machine_problems(needs: elf.Needs, arch: str) -> list[str]:
    """What an ELF file asks for that an execution environment with glibc 2.34 and nothing else does not have."""
    problems = []
    if needs.machine != arch:
        problems.append(f"is for {needs.machine}, not for {arch}")
    problems += [f"needs {library}" for library in needs.libraries if not GLIBC_LIBRARIES.match(library)]
    for library, version in needs.versions:
        number = re.fullmatch(r"GLIBC_(\d+)\.(\d+)(?:\.\d+)?", version)
        if number is None:
            problems.append(f"needs {version} of {library}")
        elif (int(number[1]), int(number[2])) > NEWEST_GLIBC:
            problems.append(f"needs {version} of {library}, newer than {NEWEST_GLIBC[0]}.{NEWEST_GLIBC[1]}")
    return problems


CHECKS: tuple[Callable[[Archive], list[str]], ...] = (size, places, contents, modes, binaries)


def problems(archive: Archive) -> list[str]:
    """All that is wrong with the archive; empty if it may be published."""
    return [problem for check in CHECKS for problem in check(archive)]
