"""One life of an environment, from its initialization to its shutdown: who is in it, in which state, and what waits for what.

It holds state and lets others wait for it; environment.py decides what happens when.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from sandbox.config import Function, Limits
from sandbox.invocation import Invocation
from sandbox.journal import Journal
from sandbox.processes import Process
from sandbox.registry import Extension, Registry
from sandbox.states import ExtensionCall, ExtensionState, RuntimeCall, RuntimeState, runtime_after
from sandbox.telemetry import Hub


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a life cannot go on. `message` in Lambda's words; `payload` and `own_type` are the runtime's account, if it gave one."""

    error_type: str
    message: str
    payload: bytes | None = None
    own_type: str | None = None

    @property
    def status(self) -> str:
        """As telemetry shows it: `failure` is the platform's, `error` the customer's."""
        return "failure" if self.error_type.startswith("Sandbox.") else "error"


class Failed(Exception):
    """A life ended before its time."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


class TimedOut(Exception):
    """The time for a step is over."""


class Life:
    """The participants of one life. Every change must be followed by `poke`."""

    def __init__(
        self, function: Function, limits: Limits, journal: Journal, thawed: asyncio.Event, external: list[str]
    ) -> None:
        self.function = function
        self.registry = Registry(function, limits, external)
        self.hub = Hub(function, limits, journal, thawed)
        self.processes: dict[str, Process] = {}
        self.runtime: Process | None = None
        self.runtime_state = RuntimeState.STARTED
        self.current: Invocation | None = None
        self.running: dict[str, Invocation] = {}
        self.timed_out: set[str] = set()
        self.init_error: tuple[str, bytes] | None = None
        self.stopping = False
        self.fault: Fault | None = None
        self._watchers: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._next_waiters: deque[asyncio.Future[Invocation]] = deque()
        self._undelivered: deque[Invocation] = deque()
        self._restore_waiter: asyncio.Future[None] | None = None
        self._extension_waiters: dict[Extension, asyncio.Future[dict[str, Any]]] = {}
        self._extension_events: dict[Extension, dict[str, Any]] = {}

    # -- waiting ---------------------------------------------------------------------------------------------------

    def poke(self) -> None:
        """Something changed: whoever waits looks again. Each change has its own event, since several may wait."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def fail(self, fault: Fault) -> None:
        """The first fault counts."""
        if self.fault is None and not self.stopping:
            self.fault = fault
        self.poke()

    async def until(self, done: Callable[[], bool], deadline: float, *, even_after_fault: bool = False) -> None:
        """Waits for `done` until `deadline` (monotonic). Raises Failed or TimedOut."""
        while True:
            if self.fault is not None and not even_after_fault:
                raise Failed(self.fault)
            if done():
                return
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimedOut
            try:
                async with asyncio.timeout(None if math.isinf(left) else left):
                    await self._changed.wait()
            except TimeoutError:
                continue

    # -- the runtime -----------------------------------------------------------------------------------------------

    def runtime_does(self, call: RuntimeCall) -> RuntimeState:
        """Change the runtime's state; returns the one before. Raises NotAllowed."""
        before = self.runtime_state
        self.runtime_state = runtime_after(before, call)
        self.poke()
        return before

    async def next_invocation(self) -> Invocation:
        """Waits for the event that the runtime's /next gets. Cancelled where the runtime goes away."""
        if self._undelivered:
            return self._undelivered.popleft()
        waiter: asyncio.Future[Invocation] = asyncio.get_running_loop().create_future()
        self._next_waiters.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._undelivered.appendleft(waiter.result())
            raise
        finally:
            if waiter in self._next_waiters:
                self._next_waiters.remove(waiter)

    @property
    def idle_runtimes(self) -> int:
        """How many /next calls wait for an event."""
        return sum(1 for waiter in self._next_waiters if not waiter.done())

    def deliver(self, invocation: Invocation) -> None:
        """Give the event to the /next that has waited longest, or keep it for the next one."""
        while self._next_waiters:
            waiter = self._next_waiters.popleft()
            if not waiter.done():
                waiter.set_result(invocation)
                return
        self._undelivered.append(invocation)

    async def wait_for_restore(self) -> None:
        """The runtime's GET restore/next."""
        self._restore_waiter = asyncio.get_running_loop().create_future()
        await self._restore_waiter

    def restore(self) -> None:
        if self._restore_waiter is not None and not self._restore_waiter.done():
            self._restore_waiter.set_result(None)

    # -- extensions ------------------------------------------------------------------------------------------------

    async def next_event(self, extension: Extension) -> dict[str, Any]:
        """Waits for the event that this extension's /next gets; one that is due already is given at once."""
        pending = self._extension_events.pop(extension, None)
        if pending is not None:
            extension.change(ExtensionCall.DELIVER)
            self.poke()
            return pending
        waiter: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._extension_waiters[extension] = waiter
        try:
            return await waiter
        finally:
            if self._extension_waiters.get(extension) is waiter:
                del self._extension_waiters[extension]

    def send_event(self, extension: Extension, event: dict[str, Any]) -> None:
        """Give the event to the extension's /next, now or when it comes."""
        waiter = self._extension_waiters.pop(extension, None)
        if waiter is None or waiter.done():
            self._extension_events[extension] = event
            return
        extension.change(ExtensionCall.DELIVER)
        waiter.set_result(event)
        self.poke()

    def all_idle(self, extensions: list[Extension]) -> bool:
        """Whether each of them has called /next again."""
        return all(one.state is ExtensionState.READY for one in extensions)

    # -- processes -------------------------------------------------------------------------------------------------

    def watch(self, watcher: Coroutine[Any, Any, None]) -> None:
        """Run `watcher` as long as this life lasts."""
        task = asyncio.get_running_loop().create_task(watcher)
        self._watchers.add(task)
        task.add_done_callback(self._watchers.discard)

    def drain(self) -> None:
        """Take every log line that was written until now."""
        for process in self.processes.values():
            process.drain()

    def close(self) -> None:
        """Nobody waits for anything any more; the processes have ended."""
        self.hub.close()
        for waiter in self._next_waiters:
            waiter.cancel()
        for waiting in self._extension_waiters.values():
            waiting.cancel()
        if self._restore_waiter is not None:
            self._restore_waiter.cancel()
        for process in self.processes.values():
            process.close()
        for task in self._watchers:
            task.cancel()
