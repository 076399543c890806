"""Managed Instances: several invocations at a time, never frozen, no reset; a timeout ends the answer, not the code."""

from __future__ import annotations

import json

from sandbox import events, reports
from sandbox.config import Function
from sandbox.invocation import Invocation
from sandbox.life import Failed, Life, TimedOut


async def serve(life: Life, function: Function, invocation: Invocation) -> None:
    """One invocation, from its start to its report. There is no runtimeDone. Afterwards `life.fault` tells whether all is well."""
    life.running[invocation.request_id] = invocation
    invocation.begin(function.timeout_s)
    life.hub.emit("platform.start", events.start(function, invocation.request_id, invocation.trace))
    life.deliver(invocation)
    status, error_type = "success", None
    try:
        await life.until(lambda: invocation.responded, invocation.deadline)
        if invocation.result.failed:
            status, error_type = "error", invocation.result.error_type
    except Failed as failed:
        status, error_type = failed.fault.status, failed.fault.error_type
        # As the source has it: the type alone.
        invocation.result.give_error(error_type, json.dumps({"errorType": error_type}).encode())
    except TimedOut:
        # The code goes on running; its late answer is refused.
        status, error_type = "timeout", "Sandbox.Timedout"
        life.timed_out.add(invocation.request_id)
        invocation.result.fail(error_type, f"Task timed out after {function.timeout_s:.2f} seconds")
    finally:
        invocation.closed = True
        life.running.pop(invocation.request_id, None)
        life.poke()
    life.drain()
    spans = reports.response_spans(invocation)
    life.hub.emit("platform.report", reports.report(function, invocation, status, error_type, spans, {}))
