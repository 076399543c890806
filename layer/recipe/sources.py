"""From the lock to patched source trees: download, unpack, apply Debian's patches."""

from __future__ import annotations

import os
from pathlib import Path

from layer.recipe.debian import Apt
from layer.recipe.lock import Source
from layer.recipe.steps import BuildError, run, say

# As dpkg-source calls it: exact context only, so a patch lands where it was meant to or nowhere.
PATCH = ("patch", "-t", "-F", "0", "-N", "-p1", "-u", "-V", "never", "-E")


def fetch(apt: Apt, source: Source, downloads: Path) -> list[Path]:
    """Downloads all files of a source package that are not there yet. Raises: BuildError."""
    return [apt.download(source, file, downloads / source.package) for file in source.files]


def unpack(source: Source, downloads: Path, folder: Path, log: Path) -> Path:
    """Unpacks a source package of format 3.0 (quilt) into folder and applies its whole patch series, as dpkg-source does.

    Returns the source tree. Raises: BuildError: a patch does not apply, or the archive is not what it should be.
    """
    original = downloads / source.package / source.file(r"\.orig\.tar\.\w+$").name
    packaging = downloads / source.package / source.file(r"\.debian\.tar\.\w+$").name
    tree = folder / source.package
    tree.mkdir(parents=True)
    for archive, strip in ((original, 1), (packaging, 0)):
        run(["tar", "--extract", "--no-same-owner", f"--strip-components={strip}", "--file", archive], tree, log)
    patches = tree / "debian" / "patches"
    series = patches / "series"
    names = []
    if series.is_file():
        for line in series.read_text().splitlines():
            name = line.split("#", 1)[0].strip()
            if name:
                names.append(name.split()[0])
    for name in names:
        try:
            run([*PATCH, "-i", patches / name], tree, log, {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"})
        except BuildError as error:
            raise BuildError(
                f"{source.package} {source.version}: Debian's patch {name} does not apply\n{error}"
            ) from error
    say(f"{source.package} {source.version}: unpacked, {len(names)} patches applied")
    return tree
