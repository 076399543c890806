"""The shutdown of a life: the runtime's share of the time, SHUTDOWN to those who asked for it, then SIGKILL."""

from __future__ import annotations

import asyncio
import signal
import time

from sandbox.config import Limits
from sandbox.extensions_api import shutdown_event
from sandbox.host import Host
from sandbox.life import Life, TimedOut
from sandbox.processes import Process
from sandbox.registry import SHUTDOWN, Extension
from sandbox.states import ExtensionCall, NotAllowed

_KILL_S = 5.0
_FLUSH_S = 1.0


async def shut_down(life: Life, host: Host, limits: Limits, reason: str) -> None:
    """Afterwards no process of the life is left. `reason`: spindown, timeout or failure."""
    life.stopping = True
    host.thaw()
    external, internal = life.registry.external, life.registry.internal
    began = time.monotonic()
    limit_s = limits.shutdown_limit_s(len(external), len(internal))
    deadline = began + limit_s
    if limit_s > 0:
        if life.runtime is not None:
            share_s = limits.shutdown_runtime_share * limit_s if external else limit_s
            await _end_runtime(life, life.runtime, began + share_s)
        # As AWS's source for Managed Instances: what telemetry has is delivered between the runtime's end and SHUTDOWN.
        await life.hub.flush(min(_FLUSH_S, max(0.0, deadline - time.monotonic())))
        await _end_extensions(life, external, deadline, reason)
    host.kill_all()
    await _all_ended(life)
    life.close()


async def _end_runtime(life: Life, runtime: Process, deadline: float) -> None:
    runtime.signal(signal.SIGTERM)
    try:
        await life.until(lambda: not runtime.alive, deadline, even_after_fault=True)
    except TimedOut:
        runtime.signal(signal.SIGKILL)


async def _end_extensions(life: Life, external: list[Extension], deadline: float, reason: str) -> None:
    left_s = max(0.0, deadline - time.monotonic())
    event = shutdown_event(reason, int((time.time() + left_s) * 1000))
    told = []
    for extension in external:
        process = life.processes.get(extension.name)
        if process is None or not process.alive:
            continue
        if SHUTDOWN in extension.events:
            life.send_event(extension, event)
            told.append((extension, process))
        else:
            process.signal(signal.SIGKILL)
    try:
        await life.until(lambda: not any(process.alive for _, process in told), deadline, even_after_fault=True)
    except TimedOut:
        pass
    for extension, process in told:
        ended = not process.alive and process.returncode == 0
        try:
            extension.change(ExtensionCall.EXITED if ended else ExtensionCall.KILLED)
        except NotAllowed:
            # It never came for its SHUTDOWN, or had reported an error before.
            continue


async def _all_ended(life: Life) -> None:
    waiting = [asyncio.ensure_future(process.ended.wait()) for process in life.processes.values()]
    if waiting:
        _, late = await asyncio.wait(waiting, timeout=_KILL_S)
        if late:
            raise RuntimeError("a process outlived SIGKILL")
