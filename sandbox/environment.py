"""The execution environment and its phases ("Understanding the Lambda execution environment lifecycle").

Runs on one event loop. It serves one invocation at a time, but for Managed Instances.
"""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from typing import Any

from sandbox import events, managed, reports, variables
from sandbox.cgroups import Groups
from sandbox.config import Function, Limits, Mode
from sandbox.extensions_api import invoke_event
from sandbox.host import Host
from sandbox.http import Server
from sandbox.invocation import Call, Invocation
from sandbox.journal import Journal
from sandbox.life import Failed, Fault, Life, TimedOut
from sandbox.places import Place
from sandbox.registry import INVOKE
from sandbox.router import Router
from sandbox.shutdown import shut_down
from sandbox.startup import InitFailed, Startup
from sandbox.states import Phase, check_phase


class Environment:
    """One execution environment of one function. `groups` limit memory and CPU; without them memory is watched."""

    def __init__(
        self,
        function: Function,
        place: Place,
        limits: Limits,
        journal: Journal,
        groups: Groups | None = None,
        *,
        freezes: bool = True,
    ) -> None:
        self.function = function
        self.limits = limits
        self.journal = journal
        self.phase = Phase.NEW
        self.credentials_token = str(uuid.uuid4())
        # A snapshot is of a frozen environment, whatever is wished for between invocations.
        freezes = (freezes or function.mode is Mode.SNAP_START) and not function.managed
        self.host = Host(
            place, groups, journal, function.memory_mb, freezes=freezes, freeze_after_s=limits.freeze_after_s
        )
        self._server = Server(Router(self).handle)
        self._startup: Startup | None = None
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._watcher: asyncio.Task[None] | None = None
        self._init_seconds: float | None = None
        self._restore_seconds: float | None = None
        self._was_reset = False
        self._interrupted: str | None = None
        self.life = self._new_life()

    # -- what callers use ------------------------------------------------------------------------------------------

    async def listen(self) -> None:
        """Serve the local APIs. Raises OSError."""
        await self._server.start("127.0.0.1")
        self.host.memory.start()
        self._startup = Startup(
            self.function, self.limits, self.host, self.api, uuid.uuid4().hex, self.credentials_token
        )

    async def initialize_ahead(self) -> None:
        """Initialize now, where that does not wait for an invocation. Raises InitFailed."""
        if self.function.mode is Mode.ON_DEMAND:
            return
        snapshot = self.function.mode is Mode.SNAP_START
        try:
            await self._initialize("snap-start" if snapshot else "init")
        except InitFailed:
            await self._end_life("failure", ended=self.function.managed)
            raise
        self._enter(Phase.SNAPSHOT if snapshot else Phase.READY)
        if self.function.managed:
            self._watcher = asyncio.get_running_loop().create_task(self._end_on_fault())
        elif snapshot:
            self.host.freeze()
            await self.host.frozen.wait()
        else:
            self.host.freeze_soon()

    @property
    def api(self) -> str:
        """host:port of AWS_LAMBDA_RUNTIME_API."""
        return f"127.0.0.1:{self._server.port}"

    def begin(self, call: Call) -> Invocation:
        """Start an invocation; its result fills as the answer comes, and what follows the answer goes on by itself."""
        invocation = Invocation(call)
        task = asyncio.get_running_loop().create_task(self._guarded(invocation))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return invocation

    async def settle(self) -> None:
        """Until no invocation is under way, what follows the answer included."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def stop(self, reason: str = "spindown", *, interrupt: bool = False) -> None:
        """The environment is no longer needed: SHUTDOWN, then the end. Nothing of it is left.

        An invocation under way is waited for, or, with `interrupt`, ended by the same SHUTDOWN.
        """
        if interrupt and self.phase is Phase.INVOKE:
            self._interrupted = reason
            self.life.fail(Fault("Sandbox.Failure", "the environment is shutting down"))
        async with self._turn:
            if self.phase not in (Phase.ENDED, Phase.NEW):
                await self._end_life(reason, ended=True)
            else:
                self.phase = Phase.ENDED
                self.life.close()
        await self.settle()
        await self._close()

    async def kill(self) -> None:
        """End everything at once, as a machine that fails does."""
        self.life.stopping = True
        for task in list(self._tasks):
            task.cancel()
        self.host.kill_all()
        await asyncio.gather(*(process.ended.wait() for process in self.life.processes.values()))
        self.life.close()
        self.phase = Phase.ENDED
        await self._close()

    def credentials(self) -> dict[str, str]:
        """What the local credentials endpoint gives; each answer has a later expiry."""
        return {
            "AccessKeyId": variables.ACCESS_KEY,
            "SecretAccessKey": variables.SECRET_KEY,
            "Token": variables.SESSION_TOKEN,
            "Expiration": events.iso(time.time() + 900),
        }

    def drop_connections(self) -> None:
        """End every connection to the local APIs."""
        self._server.drop_connections()

    # -- one invocation --------------------------------------------------------------------------------------------

    async def _guarded(self, invocation: Invocation) -> None:
        """The guard at the task's top: a caller is never left without an answer."""
        try:
            await (self._run_managed(invocation) if self.function.managed else self._run(invocation))
        finally:
            invocation.result.fail("Sandbox.Failure", "the sandbox itself failed")

    async def _run(self, invocation: Invocation) -> None:
        async with self._turn:
            if self.phase is Phase.ENDED:
                invocation.result.fail("Sandbox.Failure", "the environment has ended")
                return
            try:
                await self._make_ready(invocation)
                await self._serve(invocation)
            except InitFailed as failed:
                await self._fail(invocation, failed.fault)
            except Failed as failed:
                await self._fail(invocation, failed.fault)
            except TimedOut:
                await self._time_out(invocation)
            else:
                self._enter(Phase.READY)
                self.host.freeze_soon()

    async def _make_ready(self, invocation: Invocation) -> None:
        """Cold start, restore, or nothing. Raises InitFailed; or TimedOut, of the invocation."""
        if self.phase is Phase.SNAPSHOT:
            await self._restore()
            return
        if self.phase is Phase.NEW and not self._was_reset:
            try:
                self._init_seconds = await self._initialize("init")
                return
            except InitFailed as failed:
                self.journal.add("note", "platform", "init failed", why=failed.fault.message)
                await self._end_life("failure")
        if self.phase is Phase.NEW:
            # A suppressed init: in the invocation's own time.
            invocation.begin(self.function.timeout_s)
            await self._initialize("invoke", invocation.deadline)

    async def _serve(self, invocation: Invocation) -> None:
        """Raises Failed or TimedOut."""
        life = self.life
        self.host.thaw()
        self._enter(Phase.INVOKE)
        if not invocation.deadline:
            invocation.begin(self.function.timeout_s)
        life.current = invocation
        self._announce(invocation)
        listeners = life.registry.subscribed(INVOKE)
        event = invoke_event(invocation.request_id, invocation.deadline_ms, self.function.arn, invocation.trace.value)
        for extension in listeners:
            life.send_event(extension, event)
        life.deliver(invocation)
        await life.until(lambda: invocation.responded, invocation.deadline)
        await life.until(lambda: invocation.runtime_ready is not None, invocation.deadline)
        life.drain()
        life.hub.emit("platform.runtimeDone", reports.runtime_done(invocation, "success", None))
        began = time.monotonic()
        await life.until(lambda: life.all_idle(listeners), invocation.deadline)
        overhead = events.span("extensionOverhead", invocation.at(began), time.monotonic() - began)
        life.current = None
        invocation.closed = True
        self._report(invocation, "success", None, [overhead] if life.registry.extensions else [])

    def _announce(self, invocation: Invocation) -> None:
        if not invocation.announced:
            invocation.announced = True
            record = events.start(self.function, invocation.request_id, invocation.trace)
            self.life.hub.emit("platform.start", record)

    async def _fail(self, invocation: Invocation, fault: Fault) -> None:
        """A process ended before its time: the caller is told, and the environment is reset."""
        if not invocation.deadline:
            invocation.begin(self.function.timeout_s)
        if fault.payload is not None:
            invocation.result.give_error(fault.own_type or fault.error_type, fault.payload)
        else:
            invocation.result.fail(fault.error_type, f"RequestId: {invocation.request_id} Error: {fault.message}")
        await self._reset(invocation, fault.status, fault.error_type, self._interrupted or "failure")

    async def _time_out(self, invocation: Invocation) -> None:
        self.life.timed_out.add(invocation.request_id)
        message = f"Task timed out after {self.function.timeout_s:.2f} seconds"
        invocation.result.fail("Sandbox.Timedout", f"RequestId: {invocation.request_id} Error: {message}")
        await self._reset(invocation, "timeout", None, "timeout")

    async def _reset(self, invocation: Invocation, status: str, error_type: str | None, reason: str) -> None:
        invocation.closed = True
        self.life.drain()
        self._announce(invocation)
        if invocation.runtime_ready is None:
            self.life.hub.emit("platform.runtimeDone", reports.runtime_done(invocation, status, error_type))
        self._report(invocation, status, error_type, [])
        self._enter(Phase.FAILED)
        await self._end_life(reason, ended=self._interrupted is not None)

    def _report(self, invocation: Invocation, status: str, error_type: str | None, spans: list[dict[str, Any]]) -> None:
        more: dict[str, float | int | None] = {
            "maxMemoryUsedMB": self.host.memory.peak_mb(),
            "initDurationMs": _milliseconds(self._init_seconds),
            "restoreDurationMs": _milliseconds(self._restore_seconds),
        }
        self._init_seconds = self._restore_seconds = None
        record = reports.report(self.function, invocation, status, error_type, spans, more)
        self.life.hub.emit("platform.report", record)

    async def _run_managed(self, invocation: Invocation) -> None:
        life = self.life
        if self.phase is not Phase.READY or life.fault is not None:
            invocation.result.fail("Sandbox.Failure", "the environment is not available")
            return
        if len(life.running) >= self.function.concurrency:
            invocation.result.fail("TooManyRequestsException", "every runtime worker is busy")
            return
        await managed.serve(life, self.function, invocation)

    async def _end_on_fault(self) -> None:
        """Managed Instances have no reset: where a process ends before its time, the environment ends."""
        life = self.life
        try:
            await life.until(lambda: life.stopping, math.inf)
        except Failed:
            await life.until(lambda: not life.running, math.inf, even_after_fault=True)
            async with self._turn:
                if self.phase is Phase.READY:
                    self._enter(Phase.FAILED)
                    await self._end_life("failure", ended=True)

    # -- phases ----------------------------------------------------------------------------------------------------

    async def _initialize(self, phase: str, deadline: float | None = None) -> float:
        assert self._startup is not None
        self._enter(Phase.INIT)
        return await self._startup.run(self.life, phase, deadline)

    async def _restore(self) -> None:
        assert self._startup is not None
        self._enter(Phase.RESTORE)
        self.host.thaw()
        self._restore_seconds = await self._startup.restore(self.life)
        self._enter(Phase.READY)

    async def _end_life(self, reason: str, *, ended: bool = False) -> None:
        """Shut down; then a new life is ready to begin, with the same /tmp."""
        self._enter(Phase.SHUTDOWN, reason=reason)
        await shut_down(self.life, self.host, self.limits, reason)
        self._was_reset = True
        if ended:
            self._enter(Phase.ENDED)
        else:
            self.life = self._new_life()
            self._enter(Phase.NEW)

    def _new_life(self) -> Life:
        return Life(self.function, self.limits, self.journal, self.host.thawed, self.host.extensions())

    def _enter(self, phase: Phase, **detail: str) -> None:
        self.phase = check_phase(self.phase, phase)
        self.journal.add("phase", "platform", phase.value, **detail)

    async def _close(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
        await self._server.close()
        self.host.close()


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else events.milliseconds(seconds)
