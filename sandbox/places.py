"""Where the processes live: a root of their own (mount namespace), or plain folders where this user may not make one.

In a root of their own, /opt, /var/task, /var/runtime and /tmp are what they are in Lambda, and `sandbox.localdomain` resolves.
In plain folders nothing is hidden and nothing is mounted: variables that name those paths are rewritten, and TMPDIR is set.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from sandbox.config import Function

ENTER = Path(__file__).parent / "enter.sh"
_HOSTS = "127.0.0.1 localhost sandbox.localdomain sandbox\n"


class NoNamespaces(RuntimeError):
    """This user may not make a mount namespace on this machine."""


class Place(Protocol):
    """What differs between the two."""

    def outside(self, path: str) -> Path:
        """The path, as this process sees it, of what is `path` inside."""

    def command(self, argv: Sequence[str], procs: Sequence[Path], folder: str) -> list[str]:
        """The words that run `argv` there, in `folder`, as a member of the control groups."""

    def environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        """The variables as they must be there."""

    def close(self) -> None:
        """Take down what was set up; the processes have ended."""


def prepare(folder: Path) -> Path:
    """Make `folder`/tmp, which is /tmp of every life of this environment, and return it."""
    tmp = folder / "tmp"
    tmp.mkdir(parents=True, exist_ok=True)
    tmp.chmod(0o1777)
    return tmp


def _mounts(function: Function, empty: Path) -> dict[str, Path]:
    empty.mkdir(exist_ok=True)
    return {
        "var/task": function.task,
        "var/runtime": function.runtime or empty,
        "opt": function.opt or empty,
    }


def _join(procs: Sequence[Path], argv: Sequence[str]) -> list[str]:
    """A shell that enters the control groups, then becomes the command: the process id stays."""
    if not procs:
        return list(argv)
    script = 'for group in $1; do echo $$ >"$group"; done; shift; exec "$@"'
    return ["sh", "-c", script, "sh", " ".join(map(str, procs)), *argv]


class PlainFolders:
    """No isolation: works for any user, everywhere."""

    def __init__(self, function: Function, folder: Path) -> None:
        self._tmp = prepare(folder)
        self._mounts = {f"/{name}": path for name, path in _mounts(function, folder / "empty").items()}
        self._mounts["/tmp"] = self._tmp

    def outside(self, path: str) -> Path:
        for inside, outside in self._mounts.items():
            if path == inside or path.startswith(inside + "/"):
                return outside / path[len(inside) :].lstrip("/")
        return Path(path)

    def command(self, argv: Sequence[str], procs: Sequence[Path], folder: str) -> list[str]:
        return _join(procs, [str(self.outside(argv[0])), *argv[1:]])

    def environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        rewritten = {name: self._rewrite(value) for name, value in variables.items()}
        rewritten.setdefault("TMPDIR", str(self._tmp))
        # Backstop's own default is below /tmp, which cannot be moved without a namespace.
        rewritten.setdefault("BACKSTOP_STATE_DIR", str(self._tmp / ".backstop"))
        return rewritten

    def _rewrite(self, value: str) -> str:
        """Each part of a value such as PATH that lies in a folder of Lambda's."""
        return ":".join(str(self.outside(part)) if part.startswith("/") else part for part in value.split(":"))

    def close(self) -> None:
        return


def _hidden_by_tmp() -> list[Path]:
    """Folders of ours that the environment's own /tmp would hide: a clone, a virtual environment or a cache below /tmp."""
    cache = os.environ.get("BACKSTOP_CACHE", "")
    ours = {Path(sys.prefix), Path(sys.base_prefix), Path(__file__).resolve().parent.parent, Path(cache or "/")}
    return sorted(path for path in ours if path.is_relative_to("/tmp") and path.is_dir())


class OwnRoot:
    """A mount namespace with a root made for this environment. Raises NoNamespaces, or OSError."""

    def __init__(self, function: Function, folder: Path, base: Path | None = None) -> None:
        self._tmp = prepare(folder)
        self._mounts = {f"/{name}": path for name, path in _mounts(function, folder / "empty").items()}
        root = folder / "root"
        root.mkdir(exist_ok=True)
        hosts = folder / "hosts"
        hosts.write_text(_HOSTS)
        pairs = [f"{name}={path.resolve()}" for name, path in _mounts(function, folder / "empty").items()]
        pairs += [f"{path.relative_to('/')}={path}" for path in _hidden_by_tmp()]
        fixed = [str(root), str(base or ""), str(self._tmp), str(hosts)]
        self._keeper = subprocess.Popen(
            [*unshare_command(), "sh", str(ENTER), *fixed, *pairs],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._root = root
        assert self._keeper.stdout is not None
        if self._keeper.stdout.readline() != b"ready\n":
            _, problem = self._keeper.communicate()
            raise NoNamespaces(f"the root could not be made: {problem.decode('utf-8', 'replace').strip()}")

    def outside(self, path: str) -> Path:
        """Through /proc: the root is only there for those in the namespace."""
        if path == "/tmp" or path.startswith("/tmp/"):
            return self._tmp / path[4:].lstrip("/")
        for inside, outside in self._mounts.items():
            if path == inside or path.startswith(inside + "/"):
                return outside / path[len(inside) :].lstrip("/")
        return Path(f"/proc/{self._keeper.pid}/root{self._root}{path}")

    def command(self, argv: Sequence[str], procs: Sequence[Path], folder: str) -> list[str]:
        target = str(self._keeper.pid)
        # As an ordinary user the namespace of users has to be entered first, keeping the one identity that is mapped there.
        user = ["--user", "--preserve-credentials"] if os.geteuid() != 0 else []
        enter = [_tool("nsenter"), "--target", target, *user, "--mount", f"--root=/proc/{target}/root{self._root}"]
        return _join(procs, [*enter, f"--wd=/proc/{target}/root{self._root}{folder}", "--", *argv])

    def environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        return dict(variables)

    def close(self) -> None:
        self._keeper.communicate()


@functools.cache
def unshare_command() -> list[str]:
    """The words before a command that give it a mount namespace of its own. Raises NoNamespaces."""
    user = ["--user", "--map-root-user"] if os.geteuid() != 0 else []
    command = [_tool("unshare"), *user, "--mount", "--"]
    trial = subprocess.run([*command, "mount", "-t", "tmpfs", "tmpfs", "/tmp"], capture_output=True, check=False)
    if trial.returncode != 0:
        raise NoNamespaces(trial.stderr.decode("utf-8", "replace").strip())
    return command


def choose(function: Function, folder: Path, base: Path | None = None) -> Place:
    """A root of its own if this machine allows it, else plain folders. Raises NoNamespaces where `base` needs one."""
    try:
        return OwnRoot(function, folder, base)
    except NoNamespaces:
        if base is not None:
            raise
        return PlainFolders(function, folder)


def _tool(name: str) -> str:
    """Path of a system tool; /usr/sbin is not on every ordinary user's PATH."""
    found = shutil.which(name, path=os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin")
    if found is None:
        raise NoNamespaces(f"{name} is missing (Debian: apt-get install util-linux)")
    return found
