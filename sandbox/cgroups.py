"""Memory and CPU limits by control groups, version 1 or 2, where this user may make them."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
# "Configure Lambda function memory": at 1,769 MB a function has the equivalent of one vCPU.
MB_PER_CPU = 1_769
_PERIOD_US = 20_000


@dataclass(slots=True)
class Groups:
    """The groups of one environment. `procs` are the files that take a process id."""

    memory: Path | None
    cpu: Path | None
    unified: bool
    _kills_before: int = 0

    @property
    def procs(self) -> list[Path]:
        return [group / "cgroup.procs" for group in dict.fromkeys((self.memory, self.cpu)) if group is not None]

    def members(self) -> list[int]:
        """The processes in the memory group, or else in the CPU group."""
        group = self.memory or self.cpu
        try:
            return [int(line) for line in (group / "cgroup.procs").read_text().split()] if group else []
        except OSError:
            return []

    def peak_mb(self) -> int | None:
        """The most memory ever used, in MiB; None where the kernel does not say."""
        if self.memory is None:
            return None
        name = "memory.peak" if self.unified else "memory.max_usage_in_bytes"
        try:
            return int((self.memory / name).read_text()) // (1024 * 1024)
        except (OSError, ValueError):
            return None

    def killed_since_last_asked(self) -> bool:
        """Whether the kernel killed a process of the group for want of memory since this was last asked."""
        kills = self._kills()
        before, self._kills_before = self._kills_before, kills
        return kills > before

    def close(self) -> None:
        """Remove the groups; every process in them must have ended."""
        for group in dict.fromkeys((self.memory, self.cpu)):
            if group is None:
                continue
            for _ in range(50):
                # The kernel needs a moment after the last process's end.
                with contextlib.suppress(FileNotFoundError):
                    try:
                        group.rmdir()
                    except OSError:
                        time.sleep(0.002)
                        continue
                break

    def _kills(self) -> int:
        if self.memory is None:
            return 0
        name = "memory.events" if self.unified else "memory.oom_control"
        try:
            for line in (self.memory / name).read_text().splitlines():
                word, _, number = line.partition(" ")
                if word == "oom_kill":
                    return int(number)
        except (OSError, ValueError):
            pass
        return 0


def make(name: str, memory_mb: int | None, cpu_share: float | None) -> Groups | None:
    """Groups called `name` with these limits, or None where this machine does not allow any.

    `memory_mb` in MiB; `cpu_share` in CPUs (0.07 for 128 MB). Either may be None: no limit.
    """
    if (ROOT / "cgroup.controllers").exists():
        return _make_v2(name, memory_mb, cpu_share)
    memory = _make_v1("memory", name, {} if memory_mb is None else {"memory.limit_in_bytes": memory_mb << 20})
    cpu = None
    if cpu_share is not None:
        quota = max(1_000, int(cpu_share * _PERIOD_US))
        cpu = _make_v1("cpu", name, {"cpu.cfs_period_us": _PERIOD_US, "cpu.cfs_quota_us": quota})
    if memory is None and cpu is None:
        return None
    groups = Groups(memory if memory_mb is not None else None, cpu, unified=False)
    if memory_mb is None and memory is not None:
        memory.rmdir()
    return groups if groups.procs else None


def cpu_share(memory_mb: int) -> float:
    """The share of CPUs that a function of that size has."""
    return memory_mb / MB_PER_CPU


def _make_v1(controller: str, name: str, limits: dict[str, int]) -> Path | None:
    group = ROOT / controller / name
    try:
        group.mkdir()
        for file, value in limits.items():
            (group / file).write_text(str(value))
    except OSError:
        with contextlib.suppress(OSError):
            group.rmdir()
        return None
    return group


def _make_v2(name: str, memory_mb: int | None, share: float | None) -> Groups | None:
    group = ROOT / name
    try:
        group.mkdir()
        if memory_mb is not None:
            (group / "memory.max").write_text(str(memory_mb << 20))
            with contextlib.suppress(FileNotFoundError):
                (group / "memory.swap.max").write_text("0")
        if share is not None:
            (group / "cpu.max").write_text(f"{max(1_000, int(share * _PERIOD_US))} {_PERIOD_US}")
    except OSError:
        with contextlib.suppress(OSError):
            group.rmdir()
        return None
    return Groups(group if memory_mb is not None else None, group if share is not None else None, unified=True)


def unique_name() -> str:
    return f"backstop-sandbox-{os.getpid()}-{time.monotonic_ns()}"
