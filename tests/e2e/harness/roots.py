"""Base roots: the files that Node.js, or bash with curl, need to run, copied into a folder of their own. No Python is among them.

A root is built once and kept in the cache folder; each execution environment mounts its own /opt, /var/task and /tmp over it.
Where Node.js does not run from such a copy (it may be installed in ways that ldd cannot see through), the machine's own folders
are mounted instead: then the function sees whatever Python the machine has, and `own` says so.
"""

from __future__ import annotations

import atexit
import functools
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
from tests.e2e.harness.namespaces import unshare_command

# Bump when the way a root is built changes, so that cached ones are not used again.
_RECIPE = "6"

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
GLIBC = re.compile(
    r"lib(c|m|dl|rt|pthread|util|resolv|nss_files|nss_dns)\.so\.\d+$|ld-linux-[\w-]+\.so\.\d+$|ld-linux\.so\.\d+$"
)

_FOLDERS = """
    dev etc opt proc root sys/fs/cgroup tmp
    var/task var/runtime var/lang/bin var/emulator mnt/small mnt/readonly
"""
_EMULATOR = "var/emulator/aws-lambda-rie"
# Where AWS's images have it.
NODE = "/var/lang/bin/node"
# Where the emulator (Managed Instances mode) looks whether the kernel killed the runtime for memory.
_OOM_COUNTER = "sys/fs/cgroup/memory.events"


@dataclass(frozen=True, slots=True)
class BaseRoot:
    """A folder that can become `/` of an execution environment, with what has to be mounted on it (enter.sh's words).

    `own`: it holds nothing but what was put there; else it shows the machine's own folders.
    """

    path: Path
    mounts: tuple[str, ...] = ()
    own: bool = True


def have_node() -> bool:
    return shutil.which("node") is not None


@functools.cache
def node_root(*, shell: bool = True) -> BaseRoot:
    """Node.js and its libraries, and one shell if wanted. Raises FileNotFoundError where Node.js is not installed."""
    copied = BaseRoot(_build("node" if shell else "node-only", _SHELL if shell else [], {"node": NODE.lstrip("/")}))
    if not shell:
        return copied
    # The shell must run: were the fault ours, the machine's folders would only hide it.
    trial = _run(copied, ["/bin/sh", "-c", ":"])
    if trial.returncode != 0:
        raise RuntimeError(f"nothing runs in a root of its own: {trial.stderr}")
    return copied if _run(copied, [NODE, "-e", "0"]).returncode == 0 else _machine_root()


def bash_root() -> BaseRoot:
    """bash, curl, a few of coreutils, and their libraries."""
    return BaseRoot(_build("bash", [*_SHELL, *_BASH_TOOLS], {}))


def python_files(root: Path, layer_at: str = "opt/backstop") -> list[str]:
    """Every Python executable or libpython under `root`, outside the layer's own folder.

    A real walk: names are compared (python, python3.11, pypy3, libpython3.so …) whatever the folder, links included.
    `root` may be `/proc/PID/root`, to see what that process sees. /proc, /sys and /dev are the machine's, not files of the root.
    Raises OSError if any folder cannot be read: what was not looked at cannot be called free of Python.
    """
    pattern = re.compile(
        r"(python|pypy)[\d.]*[a-z]?(-config)?$|lib(python|pypy)[\w.-]*\.(so|a)([\d.]*)$", re.IGNORECASE
    )
    skipped = {root / name for name in ("proc", "sys", "dev", layer_at)}
    found = []
    for folder, names, files in os.walk(root, onerror=_raise):
        names[:] = [name for name in names if Path(folder, name) not in skipped]
        for name in files + [name for name in names if Path(folder, name).is_symlink()]:
            if pattern.match(name):
                found.append("/" + str(Path(folder, name).relative_to(root)))
    return sorted(found)


def _raise(error: OSError) -> None:
    raise error


def _run(root: BaseRoot, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs a command in a root."""
    script = str(Path(__file__).with_name("enter.sh"))
    enter = [*unshare_command(), "sh", script, str(root.path), "", "0", *root.mounts, "--", *command]
    return subprocess.run(enter, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def _machine_root() -> BaseRoot:
    """The machine's own folders, but for those that an execution environment has of its own."""
    private = {"dev", "mnt", "opt", "proc", "sys", "tmp", "var"}
    path = Path(tempfile.mkdtemp(prefix="machine-", dir=_roots_dir()))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    path.chmod(0o755)
    _furnish(path)
    mounts = []
    for entry in sorted(Path("/").iterdir()):
        target = path / entry.name
        if entry.name in private:
            continue
        if entry.is_symlink():
            shutil.rmtree(target, ignore_errors=True)
            target.symlink_to(os.readlink(entry))
        elif entry.is_dir():
            target.mkdir(exist_ok=True)
            mounts.append(f"rbind:{entry}:/{entry.name}")
    node = shutil.which("node")
    assert node is not None
    (path / NODE.lstrip("/")).symlink_to(os.path.realpath(node))
    return BaseRoot(path, tuple(mounts), own=False)


def _roots_dir() -> Path:
    path = cache_dir() / "roots"
    path.mkdir(parents=True, exist_ok=True)
    return path


def _furnish(root: Path) -> None:
    """The folders and files that every root has, and that others are mounted on."""
    for name in _FOLDERS.split():
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in (_EMULATOR, _OOM_COUNTER):
        (root / name).touch(mode=0o755)


def _build(kind: str, commands: Iterable[str], placed: dict[str, str]) -> Path:
    files = dict(_files([*commands], placed))
    digest = hashlib.sha256(_RECIPE.encode())
    for target, source in sorted(files.items()):
        stat = source.stat()
        digest.update(f"{target}\0{source}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    path = _roots_dir() / f"{kind}-{digest.hexdigest()[:16]}"
    if path.is_dir():
        return path
    scratch = Path(tempfile.mkdtemp(dir=_roots_dir()))
    scratch.chmod(0o755)
    _furnish(scratch)
    for target, source in files.items():
        place = scratch / target
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, place)
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
    needed: set[str] = set()
    for name in [*commands, *placed]:
        found = shutil.which(name)
        if found is None:
            raise FileNotFoundError(f"{name} is not installed")
        source = Path(found).resolve()
        target = placed.get(name, f"usr/bin/{name}")
        yield target, source
        if name in ("sh", "bash"):
            yield f"bin/{name}", source
        needed |= libraries(source)
    for folder in {str(Path(library).parent) for library in needed}:
        needed |= {str(path) for path in Path(folder).iterdir() if GLIBC.fullmatch(path.name)}
    for library in needed:
        yield library.lstrip("/"), Path(library).resolve()
    if "node" in placed:
        yield from _node_modules([Path(str(shutil.which("node"))), *map(Path, needed)])
    certificates = Path("/etc/ssl/certs/ca-certificates.crt")
    if certificates.exists():
        yield str(certificates).lstrip("/"), certificates


def _node_modules(binaries: list[Path]) -> Iterator[tuple[str, Path]]:
    """Debian's Node.js keeps some of its built-in modules in files, whose paths its binary or libnode holds."""
    for binary in binaries:
        if re.match(r"(lib)?node", binary.name):
            for path in sorted(set(re.findall(rb"/usr/share/nodejs/[\w./-]+\.js", binary.read_bytes()))):
                source = Path(os.fsdecode(path))
                if source.exists():
                    yield str(source).lstrip("/"), source.resolve()


def libraries(binary: Path) -> set[str]:
    """Absolute paths of the shared libraries a binary needs, as the loader reports them."""
    result = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False)
    paths = set()
    for line in result.stdout.splitlines():
        match = re.search(r"(?:=> )?(/\S+) \(0x", line)
        if match:
            paths.add(match.group(1))
    return paths
