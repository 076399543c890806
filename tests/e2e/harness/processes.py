"""What /proc tells about the processes of an execution environment, read from outside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Process:
    """A running process: its pid as this machine counts it, its parent's, and its command line."""

    pid: int
    parent: int
    command: tuple[str, ...]

    @property
    def rss_kib(self) -> int:
        """Resident memory in KiB now; raises FileNotFoundError if the process has ended."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        return 0

    @property
    def uids(self) -> str:
        """The process's real user id as this machine counts it."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("Uid:"):
                return line.split()[1]
        return ""


def descendants(pid: int) -> list[Process]:
    """All living processes below `pid`, parents before children."""
    children: dict[int, list[Process]] = {}
    for process in _all():
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    queue = [pid]
    while queue:
        for child in children.get(queue.pop(0), []):
            found.append(child)
            queue.append(child.pid)
    return found


def _all() -> Iterator[Process]:
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            # The name in parentheses may hold spaces and parentheses: what follows the last one is plain.
            state, parent = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()[:2]
            command = Path("/proc", entry, "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state not in "ZX":
            yield Process(int(entry), int(parent), tuple(os.fsdecode(part) for part in command))
