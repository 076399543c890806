"""`layer/update-lock`: locks the newest versions that Debian and PyPI have, after verifying them."""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path

from layer.recipe import compiler, lock, sources, tools
from layer.recipe.debian import Apt, find_mirrors, sha256_of
from layer.recipe.lock import Compiler, Lock, LockedFile, Source
from layer.recipe.steps import BuildError, cache_folder, say

PACKAGES = ("python3.13", "openssl", "zlib")
COMPILER = "ziglang"
# pip's names for the machines that can build the layer; the wheels are static programs, good for any libc.
PLATFORMS = {"x86_64": "manylinux_2_12_x86_64", "aarch64": "manylinux_2_17_aarch64"}


def newest(apt: Apt, package: str, downloads: Path) -> Source:
    """The newest version of a source package whose files can all be had and have the checksums of the signed index.

    An index can be ahead of the pool. That is said, never passed over in silence.

    Raises:
        BuildError: no version can be had.
    """
    for candidate in apt.candidates(package):
        try:
            sources.fetch(apt, candidate, downloads)
        except BuildError as error:
            say(f"NOT {package} {candidate.version} ({candidate.archive}): {str(error).splitlines()[0]}")
            continue
        return candidate
    raise BuildError(f"no version of {package} in Debian's index can be fetched")


def newest_compiler(version: str) -> Compiler:
    """The compiler's wheels for all machines that build; version "": the newest. Raises: BuildError."""
    files = []
    for platform in PLATFORMS.values():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            compiler.download(COMPILER, version, [], folder, "--platform", platform)
            (wheel,) = folder.glob("*.whl")
            found = re.match(rf"{COMPILER}-([^-]+)-", wheel.name)
            if found is None:
                raise BuildError(f"pip downloaded {wheel.name}, which is no wheel of {COMPILER}")
            version = found[1]
            files.append(LockedFile(wheel.name, wheel.stat().st_size, sha256_of(wheel)))
    return Compiler(COMPILER, version, tuple(files))


def update(with_compiler: bool) -> bool:
    """Writes the new lock; returns whether it changed. Raises: BuildError: the lock is as it was."""
    if not tools.DEBIAN_KEYRING.is_file():
        tools.install(["debian-archive-keyring"], "verifying Debian's signatures")
    compiler.ensure_pip()
    apt = Apt(find_mirrors())
    apt.refresh(tools.DEBIAN_KEYRING)
    downloads = cache_folder() / "downloads"
    found = tuple(newest(apt, package, downloads) for package in PACKAGES)
    old = lock.LOCK_FILE.read_text() if lock.LOCK_FILE.is_file() else ""
    before = lock.parse(old) if old else None
    if before is None or with_compiler:
        say(f"looking up {COMPILER}")
        chosen = newest_compiler("")
    else:
        chosen = before.compiler
    new = lock.render(Lock(chosen, found))
    for source in found:
        previous = (
            next((one.version for one in before.sources if one.package == source.package), None) if before else None
        )
        say(
            f"{source.package}: {source.version}" + ("" if previous in (None, source.version) else f" (was {previous})")
        )
    say(f"{chosen.package}: {chosen.version}")
    if new == old:
        say("the lock is up to date")
        return False
    partial = lock.LOCK_FILE.with_name(lock.LOCK_FILE.name + ".part")
    partial.write_text(new)
    partial.replace(lock.LOCK_FILE)
    say("layer/sources.lock is written; layer/build builds from it, tests/layer says whether it may be committed")
    return True


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="layer/update-lock", description="Renews layer/sources.lock with Debian's newest security patches."
    )
    parser.add_argument(
        "--compiler", action="store_true", help=f"take the newest {COMPILER} too; else the locked one stays"
    )
    arguments = parser.parse_args()
    try:
        update(arguments.compiler)
    except BuildError as error:
        print(f"layer/update-lock: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
