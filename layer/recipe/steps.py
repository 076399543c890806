"""Progress on stderr, errors that say what to do, and running other programs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
LAYER = REPOSITORY / "layer"
_STARTED = time.monotonic()


class BuildError(Exception):
    """Something a person has to put right. Its text says what was wrong and what to do."""


def say(text: str) -> None:
    """One line of progress on stderr, with the seconds since the start."""
    print(f"[{time.monotonic() - _STARTED:5.0f}s] {text}", file=sys.stderr, flush=True)


def cache_folder() -> Path:
    """Where downloads and built things are kept, outside the tree. BACKSTOP_CACHE moves it."""
    chosen = os.environ.get("BACKSTOP_CACHE")
    if chosen:
        return Path(chosen).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base).absolute() / "lambda-backstop"


def run(command: Sequence[str | Path], cwd: Path, log: Path, environment: Mapping[str, str] | None = None) -> None:
    """Runs a command with its output appended to log.

    Raises:
        BuildError: the command could not be started or did not exit with 0; the text ends with the log's last lines.
    """
    words = [str(word) for word in command]
    with log.open("ab") as output:
        output.write(f"$ {' '.join(words)}\n".encode())
        output.flush()
        try:
            done = subprocess.run(
                words, check=False, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        except OSError as error:
            raise BuildError(f"{words[0]} could not be started: {error}") from error
    if done.returncode != 0:
        tail = log.read_text(errors="replace").splitlines()[-25:]
        raise BuildError(f"{words[0]} ended with {done.returncode}; the end of {log}:\n  " + "\n  ".join(tail))
