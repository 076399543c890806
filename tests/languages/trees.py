"""What AWS's images have in /var/lang: a language's own programs, with the libraries they need beside them."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.e2e.harness.roots import GLIBC, libraries

# Nothing of these runs in a function.
_UNUSED = ("__pycache__", "test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "config-*")
_PACKAGES = ("site-packages", "dist-packages")


def place_program(lang: Path, name: str, source: Path) -> None:
    """Copies a program to `lang`/bin/`name`."""
    (lang / "bin").mkdir(parents=True, exist_ok=True)
    shutil.copy2(source.resolve(), lang / "bin" / name)


def place_python(lang: Path) -> None:
    """Copies the Python that runs this (not its virtual environment, nor packages) to `lang`, without what no function needs."""
    program = Path(getattr(sys, "_base_executable", sys.executable))
    place_program(lang, "python3", program)
    library = Path(sysconfig.get_path("stdlib"))
    shutil.copytree(library, lang / "lib" / library.name, ignore=shutil.ignore_patterns(*_UNUSED, *_PACKAGES))


def place_libraries(lang: Path, *folders: Path) -> None:
    """Copies every shared library that files under `folders` need to `lang`/lib, but for glibc's: each base root has those."""
    (lang / "lib").mkdir(parents=True, exist_ok=True)
    own = {path.name for path in _binaries([lang])}
    for binary in _binaries(folders):
        for library in map(Path, libraries(binary)):
            if library.name not in own and not GLIBC.fullmatch(library.name):
                shutil.copy2(library.resolve(), lang / "lib" / library.name)
                own.add(library.name)


def _binaries(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink():
                with path.open("rb") as file:
                    if file.read(4) == b"\x7fELF":
                        yield path
