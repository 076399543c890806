"""The crate lambda-simulator as a process: built once into the cache folder (`python -m tests.sandbox.rust_peer`), then run."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.e2e.harness.fetch import cache_dir

_SOURCES = ("Cargo.toml", "src/main.rs", "src/bin/their_extension.rs")
HERE = Path(__file__).parent
COMMAND = "python -m tests.sandbox.rust_peer"


class PeerMissing(RuntimeError):
    """The program is not built; the message names the command that builds it."""


def program(name: str = "rust_peer") -> Path:
    """Path of a built program: `rust_peer`, or `their_extension`. Raises PeerMissing."""
    path = _folder() / "debug" / name
    if not path.is_file():
        raise PeerMissing(f"{path} is not there; build it with `{COMMAND}` (cargo is needed)")
    return path


def build() -> Path:
    """Builds the program in the cache folder. Minutes the first time, nothing later. Raises CalledProcessError."""
    try:
        program("their_extension")
        return program()
    except PeerMissing:
        pass
    source = _folder() / "source"
    (source / "src" / "bin").mkdir(parents=True, exist_ok=True)
    # Beside the clone, so that neither a lock file nor build output appears in it.
    for name in _SOURCES:
        shutil.copy(HERE / name, source / name)
    command = [
        "cargo",
        "build",
        "--quiet",
        "--target-dir",
        str(_folder()),
        "--manifest-path",
        str(source / "Cargo.toml"),
    ]
    subprocess.run(command, check=True)
    return program()


def _folder() -> Path:
    digest = hashlib.sha256()
    for name in _SOURCES:
        digest.update((HERE / name).read_bytes())
    return cache_dir() / f"rust-peer-{digest.hexdigest()[:16]}"


class RustPeer:
    """Use it as a context manager; `api` is AWS_LAMBDA_RUNTIME_API then."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [program()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.api: str = self._answer()["api"]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, command: str) -> Any:
        """One command, and its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the peer has ended"
        return json.loads(line)
