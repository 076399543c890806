"""Real processes: start, output line by line, end, stop and go on. Each leads a session of its own, so that its children are found.

Everything here runs on the event loop's thread.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

_CHUNK = 65_536
# As a frame of the managed runtimes' log: what is longer comes as several lines.
_LONGEST_LINE = 262_144


class Output:
    """One pipe's lines. `drain` takes what is there now, so that what a process wrote before it made a call comes first."""

    def __init__(self, descriptor: int, take: Callable[[str], None]) -> None:
        self._descriptor = descriptor
        self._take = take
        self._rest = b""
        os.set_blocking(descriptor, False)
        asyncio.get_running_loop().add_reader(descriptor, self.drain)

    def drain(self) -> None:
        while self._descriptor >= 0:
            try:
                data = os.read(self._descriptor, _CHUNK)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.close()
                return
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                self._emit(line)
            while len(self._rest) > _LONGEST_LINE:
                self._emit(self._rest[:_LONGEST_LINE])
                self._rest = self._rest[_LONGEST_LINE:]

    def close(self) -> None:
        if self._descriptor < 0:
            return
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = -1
        if self._rest:
            self._emit(self._rest)
            self._rest = b""

    def _emit(self, line: bytes) -> None:
        self._take(line.decode("utf-8", "replace"))


class Process:
    """A started process. `ended` is set, and `returncode` known, once it has ended (negative: the signal that ended it)."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        take_line: Callable[[str], None],
    ) -> None:
        """Raises OSError where the command cannot be executed."""
        self.name = name
        self.ended = asyncio.Event()
        readers: list[int] = []
        writers: list[int] = []
        try:
            for _ in range(2):
                reader, writer = os.pipe()
                readers.append(reader)
                writers.append(writer)
            self._popen = subprocess.Popen(
                command,
                env=dict(environment),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=writers[0],
                stderr=writers[1],
                start_new_session=True,
            )
        except BaseException:
            for descriptor in readers:
                os.close(descriptor)
            raise
        finally:
            for descriptor in writers:
                os.close(descriptor)
        self.pid = self._popen.pid
        self._outputs = [Output(descriptor, take_line) for descriptor in readers]
        self._pidfd = os.pidfd_open(self.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._exited)

    @property
    def returncode(self) -> int | None:
        return self._popen.returncode

    @property
    def alive(self) -> bool:
        return not self.ended.is_set()

    def drain(self) -> None:
        """Take every line that was written until now."""
        for output in self._outputs:
            output.drain()

    def signal(self, number: int) -> None:
        """To the process itself; nothing happens where it has ended."""
        if self.alive:
            try:
                signal.pidfd_send_signal(self._pidfd, number)
            except ProcessLookupError:
                pass

    def close(self) -> None:
        """Stop reading its output. It must have ended."""
        for output in self._outputs:
            output.drain()
            output.close()

    def _exited(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._popen.wait()
        self.drain()
        self.ended.set()


def describe_exit(returncode: int | None) -> str:
    """As Lambda words it: `exit status 1`, `signal: killed`."""
    if returncode is None or returncode >= 0:
        return f"exit status {returncode}"
    words = {signal.SIGKILL: "killed", signal.SIGSEGV: "segmentation fault", signal.SIGABRT: "aborted"}
    number = signal.Signals(-returncode)
    return f"signal: {words.get(number, number.name.removeprefix('SIG').lower())}"


def members(leaders: Iterable[int]) -> list[int]:
    """The living processes of the sessions that `leaders` lead, and the descendants of those."""
    sessions = set(leaders)
    found: set[int] = set()
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            # The name in parentheses may hold anything: what follows the last one is plain.
            state, parent, _, session = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()[:4]
        except (OSError, ValueError):
            continue
        if state in "ZX":
            continue
        children.setdefault(int(parent), []).append(int(entry))
        if int(session) in sessions:
            found.add(int(entry))
    queue = list(found)
    while queue:
        for child in children.get(queue.pop(), ()):
            if child not in found:
                found.add(child)
                queue.append(child)
    return sorted(found)


def is_running(pid: int) -> bool:
    """Whether the process lives and is not stopped; one that waits in the kernel counts as running."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "TtZX"
    except OSError:
        return False


def signal_all(pids: Iterable[int], number: int) -> None:
    """Processes that have ended meanwhile are passed over."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def resident_kib(pid: int) -> int:
    """Resident memory now; 0 if the process has ended."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0
