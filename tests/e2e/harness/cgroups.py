"""A memory limit for one execution environment, by a cgroup of version 1 or 2: beyond it the kernel kills, as it does on AWS."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")


class NoMemoryCgroup(RuntimeError):
    """This machine lets nobody limit memory, or not this user."""


@contextlib.contextmanager
def memory_limit(limit_mib: int) -> Iterator[Path]:
    """A new cgroup whose processes may use `limit_mib` MiB together, swap included. Raises NoMemoryCgroup."""
    version_1 = (_ROOT / "memory" / "memory.limit_in_bytes").exists()
    folder = (_ROOT / "memory" if version_1 else _ROOT) / f"backstop-test-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir()
        names = (
            ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes") if version_1 else ("memory.max", "memory.swap.max")
        )
        (folder / names[0]).write_text(str(limit_mib << 20))
        # Without swap accounting the second file is not there, and where it is it must not add to the first.
        if (folder / names[1]).exists():
            (folder / names[1]).write_text(str(limit_mib << 20) if version_1 else "0")
    except OSError as error:
        with contextlib.suppress(OSError):
            folder.rmdir()
        raise NoMemoryCgroup(f"no memory cgroup can be made: {error}") from error
    try:
        yield folder
    finally:
        # Killed processes stay members until they are reaped.
        deadline = time.monotonic() + 5
        while True:
            try:
                folder.rmdir()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)


def kill_counter(folder: Path) -> Path:
    """The kernel's file that counts, on its line `oom_kill N`, the processes it killed for memory in this cgroup.

    Version 2 has it in memory.events, version 1 in memory.oom_control. AWS's emulator reads it as /sys/fs/cgroup/memory.events.
    """
    version_2 = folder / "memory.events"
    return version_2 if version_2.exists() else folder / "memory.oom_control"
