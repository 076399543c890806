"""AWS's own Runtime Interface Emulator (RIE), taken from the `aws-sam-cli` wheel and kept in the cache folder.

`python -m tests.e2e.harness.fetch` downloads it (build.sh does so); the tests themselves never use the internet.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WHEEL = "aws-sam-cli==1.170.0"
WHEEL_SHA256 = "24ebaf5ecba38dc1758089968cb89ab61e124b84e92a344fc7a2771a47f4d0bf"
# Inside the wheel, for each machine that `platform.machine()` may name.
MEMBERS = {
    "x86_64": ("aws-lambda-rie-x86_64", "6b1e686e62ab2baf5759c412c4864276ef2a88b094fca53ec070637ccba9b9a5"),
    "aarch64": ("aws-lambda-rie-arm64", "ec2e5d09633d853834c008b1ef264bf834b258a94d551d2b2074966494b39a21"),
}
COMMAND = "python -m tests.e2e.harness.fetch"


class EmulatorMissing(RuntimeError):
    """The emulator is not in the cache; the message names the command that gets it."""


def cache_dir() -> Path:
    """The folder outside the clone where downloads and built roots are kept (BACKSTOP_CACHE, else the user's cache)."""
    chosen = os.environ.get("BACKSTOP_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lambda-backstop"


def emulator() -> Path:
    """Path of the RIE binary for this machine; raises EmulatorMissing where it was not fetched yet."""
    name, sha256 = _member()
    path = cache_dir() / f"{name}-{sha256[:16]}"
    if not path.is_file():
        raise EmulatorMissing(f"AWS's emulator is not in {path.parent}; get it with `{COMMAND}` or `./build.sh test`")
    return path


def fetch() -> Path:
    """Downloads the wheel if needed, checks its hash and the binary's, and returns the binary's path.

    Raises CalledProcessError where pip cannot download, ValueError where a hash is not the pinned one.
    """
    name, sha256 = _member()
    try:
        return emulator()
    except EmulatorMissing:
        pass
    target = cache_dir() / f"{name}-{sha256[:16]}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        requirement = Path(folder) / "requirement.txt"
        requirement.write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        command = [*pip, "--require-hashes", "--dest", folder, "--requirement", str(requirement)]
        subprocess.run(command, check=True, stdout=sys.stderr)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            data = archive.read(f"samcli/local/rapid/{name}")
        found = hashlib.sha256(data).hexdigest()
        if found != sha256:
            raise ValueError(f"{name} in {WHEEL} has sha256 {found}, expected {sha256}")
        new = Path(folder) / name
        new.write_bytes(data)
        new.chmod(0o755)
        shutil.move(new, target)
    return target


def _member() -> tuple[str, str]:
    machine = platform.machine()
    if machine not in MEMBERS:
        raise EmulatorMissing(f"{WHEEL} has no emulator for {machine}")
    return MEMBERS[machine]


if __name__ == "__main__":
    print(fetch())
