"""What the machine that builds must have. Installed by apt when root; else named."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from layer.recipe.steps import BuildError, say

# What must succeed -> the Debian package that it comes from. Every Debian has a perl, but not with the modules that OpenSSL's
# Configure uses.
BUILD_TOOLS = {
    ("make", "--version"): "make",
    ("tar", "--version"): "tar",
    ("patch", "--version"): "patch",
    ("xz", "--version"): "xz-utils",
    ("perl", "-MFindBin", "-MIPC::Cmd", "-MPod::Usage", "-MFile::Compare", "-e", "1"): "perl",
}
DEBIAN_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def missing(tools: Mapping[tuple[str, ...], str]) -> list[str]:
    """The packages of those commands that are not there or fail."""
    return sorted({package for command, package in tools.items() if not _succeeds(command)})


def _succeeds(command: tuple[str, ...]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False).returncode == 0
    except OSError:
        return False


def install(packages: list[str], why: str) -> None:
    """Installs Debian packages if root. Raises: BuildError: not root, or apt failed; the text says what to install."""
    if not packages:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise BuildError(
            f"{why} needs {', '.join(packages)}: sudo apt-get install {' '.join(packages)}, then run this again"
        )
    say(f"installing {', '.join(packages)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "install", "-q", "-y", "--no-install-recommends", *packages]
    for attempt in ("with the lists as they are", "with new lists"):
        if attempt == "with new lists":
            subprocess.run(
                ["apt-get", "update", "-q"], env=environment, capture_output=True, check=False, stdin=subprocess.DEVNULL
            )
        done = subprocess.run(
            command, env=environment, capture_output=True, check=False, text=True, stdin=subprocess.DEVNULL
        )
        if done.returncode == 0:
            return
    raise BuildError(f"apt-get could not install {' '.join(packages)}:\n{done.stderr.strip()}")
