"""Base roots: the files that Node.js, or bash with curl, need to run, copied into a folder of their own. No Python is among them.

A root is built once and kept in the cache folder; each execution environment mounts its own /opt, /var/task and /tmp over it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.harness.fetch import cache_dir

# Bump when the way a root is built changes, so that cached ones are not used again.
_RECIPE = "3"

# AWS's base images start the runtime with a shell script, so each root has one shell.
_SHELL = ["sh"]
_BASH_TOOLS = [
    "bash",
    "curl",
    "cat",
    "sleep",
    "mkdir",
    "mktemp",
    "rm",
    "head",
    "tail",
    "sed",
    "grep",
    "tr",
    "date",
    "dd",
    "id",
    "ls",
    "od",
]

# All of glibc, not only what Node.js links: every image of AWS has it, and the layer's interpreter may ask for any of it.
_GLIBC = re.compile(
    r"lib(c|m|dl|rt|pthread|util|resolv|nss_files|nss_dns)\.so\.\d+$|ld-linux-[\w-]+\.so\.\d+$|ld-linux\.so\.\d+$"
)

_FOLDERS = "dev etc opt proc sys/fs/cgroup tmp var/task var/runtime var/lang mnt/small mnt/readonly root usr/local/bin"
_EMULATOR = "usr/local/bin/aws-lambda-rie"
# Where the emulator (Managed Instances mode) looks whether the kernel killed the runtime for memory.
_OOM_COUNTER = "sys/fs/cgroup/memory.events"


@dataclass(frozen=True, slots=True)
class BaseRoot:
    """A folder that can become `/` of an execution environment."""

    path: Path


def have_node() -> bool:
    return shutil.which("node") is not None


def node_root(*, shell: bool = True) -> BaseRoot:
    """Node.js and its libraries, and one shell if wanted. Raises FileNotFoundError where Node.js is not installed."""
    return BaseRoot(_build("node" if shell else "node-only", _SHELL if shell else [], {"node": "usr/bin/node"}))


def bash_root() -> BaseRoot:
    """bash, curl, a few of coreutils, and their libraries."""
    return BaseRoot(_build("bash", [*_SHELL, *_BASH_TOOLS], {}))


def python_files(root: Path, layer_at: str = "opt/backstop") -> list[str]:
    """Every Python executable or libpython under `root`, outside the layer's own folder.

    A real walk: names are compared (python, python3.11, pypy3, libpython3.so …) whatever the folder, links included.
    `root` may be `/proc/PID/root`, to see what that process sees. /proc, /sys and /dev are the machine's, not files of the root.
    """
    pattern = re.compile(
        r"(python|pypy)[\d.]*[a-z]?(-config)?$|lib(python|pypy)[\w.-]*\.(so|a)([\d.]*)$", re.IGNORECASE
    )
    skipped = {Path(root, name) for name in ("proc", "sys", "dev", layer_at)}
    found = []
    for folder, names, files in os.walk(root):
        names[:] = [name for name in names if Path(folder, name) not in skipped]
        for name in files + [name for name in names if Path(folder, name).is_symlink()]:
            if pattern.match(name):
                found.append("/" + str(Path(folder, name).relative_to(root)))
    return sorted(found)


def _build(kind: str, commands: Iterable[str], placed: dict[str, str]) -> Path:
    files = dict(_files([*commands], placed))
    digest = hashlib.sha256(_RECIPE.encode())
    for target, source in sorted(files.items()):
        stat = source.stat()
        digest.update(f"{target}\0{source}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    path = cache_dir() / "roots" / f"{kind}-{digest.hexdigest()[:16]}"
    if path.is_dir():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=path.parent))
    scratch.chmod(0o755)
    for name in _FOLDERS.split():
        (scratch / name).mkdir(parents=True, exist_ok=True)
    for target, source in files.items():
        place = scratch / target
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, place)
    (scratch / _EMULATOR).touch(mode=0o755)
    (scratch / _OOM_COUNTER).touch()
    (scratch / "etc/hosts").write_text("127.0.0.1 localhost\n")
    (scratch / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nsbx_user:x:993:990::/:/bin/sh\n")
    (scratch / "etc/group").write_text("root:x:0:\nsbx_user:x:990:\n")
    (scratch / "etc/nsswitch.conf").write_text("hosts: files dns\n")
    try:
        scratch.rename(path)
    except OSError:
        # Another process built the same root meanwhile.
        shutil.rmtree(scratch)
    return path


def _files(commands: list[str], placed: dict[str, str]) -> Iterator[tuple[str, Path]]:
    """Pairs of a path inside the root and the host file to copy there."""
    libraries: set[str] = set()
    for name in [*commands, *placed]:
        found = shutil.which(name)
        if found is None:
            raise FileNotFoundError(f"{name} is not installed")
        source = Path(found).resolve()
        target = placed.get(name, f"usr/bin/{name}")
        yield target, source
        if not target.startswith("usr/bin/") or name in ("sh", "bash"):
            yield f"bin/{name}", source
        libraries |= _libraries(source)
    for folder in {str(Path(library).parent) for library in libraries}:
        libraries |= {str(path) for path in Path(folder).iterdir() if _GLIBC.fullmatch(path.name)}
    for library in libraries:
        yield library.lstrip("/"), Path(library).resolve()
    certificates = Path("/etc/ssl/certs/ca-certificates.crt")
    if certificates.exists():
        yield str(certificates).lstrip("/"), certificates


def _libraries(binary: Path) -> set[str]:
    """Absolute paths of the shared libraries a binary needs, as the loader reports them."""
    result = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False)
    paths = set()
    for line in result.stdout.splitlines():
        match = re.search(r"(?:=> )?(/\S+) \(0x", line)
        if match:
            paths.add(match.group(1))
    return paths
