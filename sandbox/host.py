"""The processes of an environment: started in their place, watched, frozen, thawed and killed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from pathlib import Path

from sandbox.cgroups import Groups
from sandbox.journal import Journal
from sandbox.life import Fault, Life
from sandbox.memory import MemoryWatch
from sandbox.places import Place
from sandbox.processes import Process, describe_exit, is_running, members, signal_all
from sandbox.states import ExtensionState

RUNTIME = "runtime"
_CONFIRM_EVERY_S = 0.002
_EXTENSION_FAULTS = {
    ExtensionState.INIT_ERROR: "Extension.InitError",
    ExtensionState.EXIT_ERROR: "Extension.ExitError",
}


class Host:
    """`freezes` False leaves processes running between invocations, as on Managed Instances."""

    def __init__(
        self,
        place: Place,
        groups: Groups | None,
        journal: Journal,
        memory_mb: int,
        *,
        freezes: bool,
        freeze_after_s: float,
    ) -> None:
        self._place = place
        self._groups = groups
        self._journal = journal
        self._freezes = freezes
        self._freeze_after_s = freeze_after_s
        self._leaders: list[int] = []
        self._frozen: list[int] = []
        self._timer: asyncio.TimerHandle | None = None
        self.thawed = asyncio.Event()
        self.thawed.set()
        self.frozen = asyncio.Event()
        self.memory = MemoryWatch(memory_mb, groups, lambda: self._leaders)

    def outside(self, path: str) -> Path:
        """Where this process sees what is `path` in the environment."""
        return self._place.outside(path)

    def extensions(self) -> list[str]:
        """The names of the files in /opt/extensions, in the order in which they are started."""
        try:
            found = sorted(self._place.outside("/opt/extensions").iterdir())
        except OSError:
            return []
        return [entry.name for entry in found if not entry.is_dir()]

    # -- start -----------------------------------------------------------------------------------------------------

    def start(self, life: Life, path: str, name: str, variables: Mapping[str, str], folder: str) -> Process:
        """Start a file of the environment as `name` (RUNTIME, or an extension's). Raises OSError."""
        # Behind a shell or nsenter, a file that cannot be executed would only be an exit status.
        if not os.access(self._place.outside(path), os.X_OK):
            raise PermissionError(13, "permission denied", path)
        kind = "function" if name == RUNTIME else "extension"

        def take(line: str) -> None:
            self._journal.add("log", name, line)
            life.hub.emit(kind, line)

        process = Process(
            name,
            self._place.command([path], self._groups.procs if self._groups else [], folder),
            self._place.environment(variables),
            Path("/"),
            take,
        )
        self._leaders.append(process.pid)
        life.processes[name] = process
        self._journal.add("process", name, "started", pid=process.pid)
        life.watch(self._watch(life, process))
        return process

    async def _watch(self, life: Life, process: Process) -> None:
        await process.ended.wait()
        self._journal.add("process", process.name, "ended", returncode=process.returncode)
        life.fail(self._fault(life, process))

    def _fault(self, life: Life, process: Process) -> Fault:
        how = describe_exit(process.returncode)
        if process.name != RUNTIME:
            extension = life.registry.extensions[process.name]
            return Fault(_EXTENSION_FAULTS.get(extension.state, "Extension.Crash"), how)
        if self.memory.killed(process.pid, process.returncode):
            return Fault("Runtime.OutOfMemory", f"Runtime exited with error: {how}")
        if process.returncode == 0:
            return Fault("Runtime.ExitError", "Runtime exited without providing a reason")
        return Fault("Runtime.ExitError", f"Runtime exited with error: {how}")

    # -- stop and go on --------------------------------------------------------------------------------------------

    def freeze_soon(self) -> None:
        """After a moment, unless an invocation comes first."""
        if self._freezes:
            self._timer = asyncio.get_running_loop().call_later(self._freeze_after_s, self.freeze)

    def freeze(self) -> None:
        """Stop every process where it is."""
        self._timer = None
        if not self._freezes or not self.thawed.is_set():
            return
        self.thawed.clear()
        self._frozen = self.members()
        signal_all(self._frozen, signal.SIGSTOP)
        self._confirm_frozen()

    def _confirm_frozen(self) -> None:
        """A signal takes its time: the environment counts as frozen once every process has stopped."""
        if not self.thawed.is_set() and any(is_running(pid) for pid in self._frozen):
            self._timer = asyncio.get_running_loop().call_later(_CONFIRM_EVERY_S, self._confirm_frozen)
        elif not self.thawed.is_set():
            self._timer = None
            self.frozen.set()
            self._journal.add("phase", "platform", "frozen")

    def thaw(self) -> None:
        """Let them go on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self.thawed.is_set():
            signal_all(self._frozen, signal.SIGCONT)
            self._frozen = []
            self.frozen.clear()
            self.thawed.set()
            self._journal.add("phase", "platform", "thawed")

    def members(self) -> list[int]:
        """Every living process of the environment."""
        listed = self._groups.members() if self._groups is not None else []
        return listed or members(self._leaders)

    # -- end -------------------------------------------------------------------------------------------------------

    def kill_all(self) -> None:
        """Kill every process, children that were left behind included."""
        for _ in range(3):
            # A process may start another between the look and the kill.
            left = sorted({*members(self._leaders), *(self._groups.members() if self._groups else [])})
            if not left:
                break
            signal_all(left, signal.SIGKILL)
        self._leaders.clear()
        self._frozen = []

    def close(self) -> None:
        """Take down what was set up on the machine; every process has ended."""
        self.memory.close()
        if self._timer is not None:
            self._timer.cancel()
        self._place.close()
        if self._groups is not None:
            self._groups.close()
