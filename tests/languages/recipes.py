"""How each language's function is built: real runtime client, real handler, laid out as Lambda has them.

Each recipe fills a folder with `lang` (becomes /var/lang), `runtime` (/var/runtime) and `task` (/var/task), from the sources in
functions/ and from package registries, every package at a pinned version with a pinned hash.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.harness.functions import SAMPLES
from tests.languages import tools
from tests.languages.tools import Tool
from tests.languages.trees import place_libraries, place_program, place_python

FUNCTIONS = Path(__file__).with_name("functions")
_MAVEN_COPY = "org.apache.maven.plugins:maven-dependency-plugin:2.8:copy-dependencies"
_JAVA_MODULES = "java.base,java.logging,java.management,java.naming,java.sql,java.xml,jdk.crypto.ec,jdk.unsupported"


class BuildFailed(RuntimeError):
    """A compiler or package client failed; the message is the command and what it said."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """`build(out, scratch)` fills `out`; what it leaves in `scratch` is thrown away.

    Its result depends on `sources`, on the versions of `tools`, and on `made_with`.
    """

    tools: list[Tool]
    sources: list[Path]
    build: Callable[[Path, Path], None]
    made_with: str = ""


def _python(out: Path, scratch: Path) -> None:
    source = FUNCTIONS / "python"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
    pinned = ["--require-hashes", "--only-binary", ":all:", "--requirement", str(source / "requirements.txt")]
    _run([*pip, *pinned, "--target", str(out / "runtime")], scratch)
    place_python(out / "lang")
    shutil.copy2(source / "function.py", out / "task")
    shutil.copy2(source / "bootstrap", out / "runtime")
    place_libraries(out / "lang", out / "lang", out / "runtime")


def _node(out: Path, scratch: Path) -> None:
    source = FUNCTIONS / "node"
    for name in ("package.json", "package-lock.json"):
        shutil.copy2(source / name, scratch)
    # The native part is compiled against the headers of the node that will run it; some packages put them beside it.
    node = Path(_which("node"))
    prefixes = [
        prefix for prefix in (node.resolve().parents[1], Path("/usr")) if (prefix / "include/node/node.h").exists()
    ]
    headers = {"npm_config_nodedir": str(prefixes[0])} if prefixes else {}
    _run(
        ["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"],
        scratch,
        {**headers, "MAKEFLAGS": "-j1", "JOBS": "1"},
    )
    if not (scratch / "node_modules/aws-lambda-ric/rapid-client.node").is_file():
        raise BuildFailed("npm did not build aws-lambda-ric's native part (are install scripts switched off?)")
    for name in ("aws-lambda-ric", "@aws"):
        shutil.copytree(scratch / "node_modules" / name, out / "runtime" / "node_modules" / name)
    place_program(out / "lang", "node", node)
    shutil.copy2(source / "index.mjs", out / "task")
    shutil.copy2(source / "bootstrap", out / "runtime")
    place_libraries(out / "lang", out / "lang", out / "runtime")


def _java(out: Path, scratch: Path) -> None:
    source = FUNCTIONS / "java"
    jars = out / "runtime" / "lib"
    shutil.copy2(source / "pom.xml", scratch)
    _run(["mvn", "-q", "-B", "-ntp", _MAVEN_COPY, f"-DoutputDirectory={jars}"], scratch)
    # Maven has no lock: the versions follow from the pom, the hashes from us.
    pinned = {line[66:]: line[:64] for line in (source / "jars.sha256").read_text().splitlines()}
    found = {jar.name: hashlib.sha256(jar.read_bytes()).hexdigest() for jar in jars.iterdir()}
    if found != pinned:
        raise BuildFailed(f"Maven brought {found}, jars.sha256 has {pinned}")
    home = tools.java_home()
    handler = source / "backstop" / "Handler.java"
    _run([str(home / "bin/javac"), "-nowarn", "-cp", f"{jars}/*", "-d", str(out / "task"), str(handler)], scratch)
    _run(
        [
            str(home / "bin/jlink"),
            "--add-modules",
            _JAVA_MODULES,
            "--no-header-files",
            "--no-man-pages",
            "--output",
            "java",
        ],
        scratch,
    )
    shutil.copytree(scratch / "java", out / "lang", dirs_exist_ok=True, symlinks=True)
    # As AWS's images have it: classes of the JDK itself come from an archive, which halves the start.
    _run([str(out / "lang/bin/java"), "-XX:+UseSerialGC", "-Xshare:dump"], scratch)
    shutil.copy2(source / "bootstrap", out / "runtime")
    place_libraries(out / "lang", out / "lang")


def _go(out: Path, scratch: Path) -> None:
    source = FUNCTIONS / "go"
    flags = ["-p", "1", "-trimpath", "-mod=readonly", "-buildvcs=false", "-ldflags=-s"]
    _run(["go", "-C", str(source), "build", *flags, "-o", str(out / "task/app"), "."], scratch, {"CGO_ENABLED": "0"})
    shutil.copy2(source / "bootstrap", out / "task")


def _rust(out: Path, scratch: Path) -> None:
    source = FUNCTIONS / "rust"
    shutil.copy2(source / "Cargo.toml", scratch)
    shutil.copytree(source / "src", scratch / "src")
    _run(["cargo", "generate-lockfile", "--quiet"], scratch)
    lock = scratch / "Cargo.lock"
    lock.write_text(complete_lock((source / "Cargo.lock.in").read_text(), lock.read_text()))
    _run(["cargo", "build", "--locked", "--quiet", "--jobs", "1", "--target-dir", "target"], scratch)
    shutil.copy2(scratch / "target/debug/function", out / "task/app")
    shutil.copy2(source / "bootstrap", out / "task")
    place_libraries(out / "lang", out / "task")


def _bash(out: Path, scratch: Path) -> None:
    del scratch
    shutil.copy2(SAMPLES / "bash" / "bootstrap", out / "task")
    shutil.copy2(FUNCTIONS / "bash" / "handler.sh", out / "task")


RECIPES: Mapping[str, Recipe] = {
    "python": Recipe([], [FUNCTIONS / "python"], _python, made_with=sys.version),
    "node": Recipe(tools.NODE, [FUNCTIONS / "node"], _node),
    "java": Recipe(tools.JAVA, [FUNCTIONS / "java"], _java),
    "go": Recipe(tools.GO, [FUNCTIONS / "go"], _go),
    "rust": Recipe(tools.RUST, [FUNCTIONS / "rust"], _rust),
    "bash": Recipe([], [FUNCTIONS / "bash", SAMPLES / "bash"], _bash),
}


def complete_lock(pinned: str, generated: str) -> str:
    """Cargo.lock from Cargo.lock.in, which names no registry: each package with a checksum gets the source that cargo writes.

    `generated` is any lock that this cargo made. Raises BuildFailed where it names no source.
    """
    source = re.search(r'^source = ".*"\n', generated, re.MULTILINE)
    if source is None:
        raise BuildFailed("cargo's lock names no source")
    return re.sub(r"^checksum = ", lambda match: source.group() + match.group(), pinned, flags=re.MULTILINE)


def _which(command: str) -> str:
    found = shutil.which(command)
    if found is None:
        raise BuildFailed(f"{command} is not on PATH")
    return found


def _run(command: list[str], folder: Path, environment: Mapping[str, str] | None = None) -> None:
    """Runs a command; raises BuildFailed with the end of what it said."""
    result = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        raise BuildFailed(f"{' '.join(command)} ended with {result.returncode}:\n{result.stdout[-4000:]}")
