"""Out of memory: the kernel's kill in a control group where there is one, else a watcher that does what the kernel would."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterable
from pathlib import Path

from sandbox.cgroups import Groups
from sandbox.processes import members, resident_kib, signal_all

_LOOK_EVERY_S = 0.02


class MemoryWatch:
    """The memory of all processes together, against `memory_mb` (MiB). `leaders` gives the sessions' first processes."""

    def __init__(self, memory_mb: int, groups: Groups | None, leaders: Callable[[], Iterable[int]]) -> None:
        self._limit_kib = memory_mb * 1024
        self._groups = groups if groups is not None and groups.memory is not None else None
        self._leaders = leaders
        self._killed: set[int] = set()
        self._peak_kib = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch, where no control group does."""
        if self._groups is None:
            self._task = asyncio.get_running_loop().create_task(self._look())

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def killed(self, pid: int, returncode: int | None) -> bool:
        """Whether the process `pid`, which ended with `returncode`, was killed for want of memory."""
        if returncode != -signal.SIGKILL:
            return False
        return pid in self._killed if self._groups is None else self._groups.killed_since_last_asked()

    def peak_mb(self) -> int:
        """The most memory that was used, in MiB."""
        peak = self._groups.peak_mb() if self._groups is not None else None
        if peak is None:
            self._measure()
            peak = self._peak_kib // 1024
        return peak

    def _measure(self) -> dict[int, int]:
        sizes = {pid: resident_kib(pid) for pid in members(self._leaders())}
        self._peak_kib = max(self._peak_kib, sum(sizes.values()))
        return sizes

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            sizes = self._measure()
            if sum(sizes.values()) <= self._limit_kib:
                continue
            # As the kernel: the highest adjustment first, then the largest.
            victim = max(sizes, key=lambda pid: (_adjustment(pid), sizes[pid]))
            self._killed.add(victim)
            signal_all([victim], signal.SIGKILL)


def _adjustment(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/oom_score_adj").read_text())
    except (OSError, ValueError):
        return 0
