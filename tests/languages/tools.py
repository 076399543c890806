"""The compilers and package clients that the builder calls: found, installed from Debian's packages, or asked for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


class ToolMissing(RuntimeError):
    """A tool is not on this machine and cannot be installed by us; the message says what to install."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A command, the Debian package that has it, and the oldest version that will do (with the words that print it)."""

    command: str
    package: str
    at_least: tuple[int, ...] = ()
    version_words: tuple[str, ...] = ("--version",)


# aws-lambda-ric compiles its native part, and with it its own copies of curl and aws-lambda-cpp.
NODE = [
    Tool("node", "nodejs", (20,)),
    Tool("npm", "npm"),
    Tool("autoconf", "autoconf"),
    Tool("automake", "automake"),
    Tool("libtoolize", "libtool"),
    Tool("cmake", "cmake"),
    Tool("make", "make"),
    Tool("g++", "g++"),
    Tool("xz", "xz-utils"),
    Tool("python3", "python3"),
]
JAVA = [Tool("javac", "default-jdk-headless", (17,)), Tool("mvn", "maven")]
# An older go fetches the one that go.mod names, as a module; from 1.21 on it can.
GO = [Tool("go", "golang-go", (1, 21), ("version",))]
RUST = [Tool("cargo", "cargo", (1, 84)), Tool("cc", "gcc")]


def provide(tools: Iterable[Tool]) -> None:
    """Installs the packages of missing tools when root, then checks versions. Raises ToolMissing."""
    wanted = list(tools)
    missing = sorted({tool.package for tool in wanted if shutil.which(tool.command) is None})
    if missing:
        _install(missing)
    for tool in wanted:
        found = shutil.which(tool.command)
        if found is None:
            raise ToolMissing(f"{tool.command} is not on PATH, though {tool.package} is installed")
        if tool.at_least and (version := _version(tool)) < tool.at_least:
            needed = ".".join(map(str, tool.at_least))
            raise ToolMissing(
                f"{found} is {'.'.join(map(str, version))}; {needed} or newer is needed, on PATH before it"
            )


def version_text(tool: Tool) -> str:
    """What the tool says of its version, in one line."""
    said = subprocess.run([tool.command, *tool.version_words], capture_output=True, text=True, check=True)
    return (said.stdout or said.stderr).splitlines()[0].strip()


def _version(tool: Tool) -> tuple[int, ...]:
    match = re.search(r"(\d+(?:\.\d+)*)", version_text(tool))
    return tuple(map(int, match.group(1).split("."))) if match else ()


def _install(packages: list[str]) -> None:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise ToolMissing(f"please install: {' '.join(packages)} (on Debian or Ubuntu: sudo apt-get install …)")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-qq", "-y", "--no-install-recommends", *packages]
    said = ""
    for command in (install, ["apt-get", "update", "-qq"], install):
        result = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        said = result.stdout + result.stderr
        if command is install and result.returncode == 0:
            return
    raise ToolMissing(f"apt-get could not install {' '.join(packages)}:\n{said.strip()}")


def java_home() -> Path:
    """The JDK that `javac` on PATH belongs to: its other tools are beside it."""
    javac = shutil.which("javac")
    if javac is None:
        raise ToolMissing("javac is not on PATH")
    return Path(os.path.realpath(javac)).parent.parent
