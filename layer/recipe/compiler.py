"""The compiler: zig, from the PyPI package ziglang. It builds against any old glibc, for any processor, from one machine."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from layer.recipe import tools
from layer.recipe.debian import sha256_of
from layer.recipe.lock import Compiler, LockedFile
from layer.recipe.steps import REPOSITORY, BuildError, cache_folder, say

# The oldest glibc that zig offers for both architectures. The layer must run on 2.34 (Amazon Linux 2023); 2.26 is Amazon Linux 2.
GLIBC = "2.17"


@dataclass(frozen=True, slots=True)
class Target:
    """What is built for: Debian's, zig's and OpenSSL's words for one processor."""

    arch: str  # as `uname -m` has it
    layer_arch: str  # as Lambda has it
    openssl: str

    @property
    def gnu(self) -> str:
        return f"{self.arch}-linux-gnu.{GLIBC}"

    @property
    def musl(self) -> str:
        return f"{self.arch}-linux-musl"


TARGETS = {
    "x86_64": Target("x86_64", "x86_64", "linux-x86_64"),
}


def host_arch() -> str:
    return platform.machine()


def fetch(compiler: Compiler) -> Path:
    """Makes the locked compiler available; returns the zig executable.

    Raises:
        BuildError: it cannot be downloaded, or is not what the lock says.
    """
    wheel = _wheel_for_host(compiler)
    folder = cache_folder() / "compiler" / wheel.sha256[:16]
    zig = folder / "ziglang" / "zig"
    if zig.is_file():
        return zig
    say(f"fetching the compiler ({compiler.package} {compiler.version}, {wheel.size / 1e6:.0f} MB)")
    working = folder.with_name(f"{folder.name}.{os.getpid()}")
    shutil.rmtree(working, ignore_errors=True)
    working.mkdir(parents=True)
    try:
        download(compiler.package, compiler.version, [wheel], working)
        archive = working / wheel.name
        if not archive.is_file() or sha256_of(archive) != wheel.sha256:
            raise BuildError(
                f"{wheel.name} did not arrive as layer/sources.lock says; layer/update-lock renews the lock"
            )
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(working)
        archive.unlink()
        (working / "ziglang" / "zig").chmod(0o755)
        if folder.exists():  # another build was faster
            return zig
        working.rename(folder)
    finally:
        shutil.rmtree(working, ignore_errors=True)
    return zig


def _wheel_for_host(compiler: Compiler) -> LockedFile:
    for file in compiler.files:
        if file.name.endswith(f"_{host_arch()}.whl"):
            return file
    raise BuildError(f"{compiler.package} {compiler.version} has no locked wheel for a {host_arch()} machine")


def download(package: str, version: str, wheels: list[LockedFile], folder: Path, *options: str) -> None:
    """pip downloads one wheel into folder; with wheels given, only if its SHA-256 is one of theirs.

    Raises:
        BuildError: there is no pip, or pip refused or failed.
    """
    requirements = folder / "requirements.txt"
    hashes = "".join(f" --hash=sha256:{wheel.sha256}" for wheel in wheels)
    requirements.write_text(f"{package}=={version}{hashes}\n" if version else f"{package}\n")
    command = [
        *_pip(),
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--no-cache-dir",
        "--dest",
        str(folder),
    ]
    command += ["--require-hashes"] if wheels else []
    done = subprocess.run(
        [*command, *options, "--requirement", str(requirements)], capture_output=True, check=False, text=True
    )
    requirements.unlink()
    if done.returncode != 0:
        raise BuildError(f"pip could not download {package} {version}:\n{done.stderr.strip()}")


def _find_pip() -> list[str] | None:
    for python in (sys.executable, str(REPOSITORY / ".venv/bin/python"), "/usr/bin/python3"):
        if (
            Path(python).exists()
            and subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0
        ):
            return [python, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    return None


def _pip() -> list[str]:
    found = _find_pip()
    if found is None:
        raise BuildError("pip is needed to fetch the compiler: apt-get install python3-pip")
    return found


def ensure_pip() -> None:
    """Raises: BuildError: there is no pip and it could not be installed."""
    if _find_pip() is None:
        tools.install(["python3-pip"], "fetching the compiler")


def environment(working: Path) -> dict[str, str]:
    """An environment for builds: nothing of the caller's flags, the same bytes every time."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    return {
        **kept,
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "SOURCE_DATE_EPOCH": "315532800",  # 1980-01-01, the first day a zip can name
        "PYTHONHASHSEED": "0",
        # One of its own for each build: out of a local cache that another build had filled, zig 0.17 was seen to hand out
        # objects compiled with that build's pyconfig.h. The global one holds zig's own libc and compiler-rt, seconds to make.
        "ZIG_LOCAL_CACHE_DIR": str(working / "zig-cache"),
        "ZIG_GLOBAL_CACHE_DIR": str(cache_folder() / "zig"),
    }


def write_tools(zig: Path, target: Target, folder: Path, environment: dict[str, str]) -> dict[str, str]:
    """Writes zig-cc, zig-ar and zig-ranlib for target into folder; returns environment with them in PATH, CC, AR and RANLIB.

    By name, not by path: OpenSSL writes the compiler's command line into its library, and builds should be the same bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # zig's C front end turns undefined-behaviour traps on by default; CPython and OpenSSL are not written for that. And it
    # writes debug information by default, with the build's own paths in it.
    compile_c = f"cc -target {target.gnu} -g0 -fno-sanitize=undefined -Wno-date-time"
    commands = {"cc": compile_c, "ar": "ar", "ranlib": "ranlib"}
    for name, words in commands.items():
        script = folder / f"zig-{name}"
        script.write_text(f"#!/bin/sh\nexec '{zig}' {words} \"$@\"\n")
        script.chmod(0o755)
    tools = {name.upper(): f"zig-{name}" for name in commands}
    return {**environment, **tools, "PATH": f"{folder}:{environment.get('PATH', os.defpath)}"}
