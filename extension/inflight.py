"""The table of invocations in flight, keyed by request id. Every signal comes here; a failure leaves through `on_failure`.

Signals come from four threads (proxy, runtime watcher, telemetry, main); each method takes the one lock for a moment only.
"""

from __future__ import annotations

import _thread
import time

from extension import outcome as rules
from extension.flag import Flag
from extension.outcome import Outcome
from extension.payload import Payload

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable

    from extension.http1 import ResponseHead
else:
    from _collections import deque  # the C type alone

_MAX_ENDED = 64
_AMENDABLE_S = 3.0  # after a crash or a timeout Lambda gives extensions 2 s; later signals belong to something else
_LINE_BYTES = 4_096


class Invocation:
    """One invocation, or (request_id None) one initialization of the runtime.

    `released` ends the sidecar's hold. Of a failure, `spooled` is set once its record is in the spool, and `filed` once it is
    complete and handed to delivery.
    """

    __slots__ = (
        "arn",
        "client_context",
        "deadline_ms",
        "ended_at",
        "filed",
        "invocation_id",
        "log_lines",
        "logs_done",
        "observed",
        "opened_at",
        "outcome",
        "payload",
        "provisional",
        "received_ms",
        "released",
        "request_id",
        "settled",
        "spooled",
        "tenant_id",
        "trace_id",
    )

    def __init__(self, request_id: str | None, deadline_ms: int = 0, arn: str = "", log_tail_lines: int = 0) -> None:
        self.request_id = request_id
        self.deadline_ms = deadline_ms
        self.arn = arn
        self.invocation_id: str | None = None
        self.trace_id: str | None = None
        self.tenant_id: str | None = None
        self.client_context: str | None = None
        self.received_ms = time.time() * 1000
        self.opened_at = time.monotonic()
        self.ended_at: float | None = None
        self.payload: Payload | None = None
        self.outcome: Outcome | None = None
        self.log_lines: deque[str] = deque(maxlen=log_tail_lines)
        self.observed = Flag()
        self.released = Flag()
        self.spooled = Flag()
        self.filed = Flag()
        self.logs_done = Flag()
        self.provisional = False
        self.settled = False

    @property
    def ended(self) -> bool:
        """Whether its outcome is known."""
        return self.outcome is not None


class Table:
    """All invocations in flight, and the last few that ended (a stronger signal may still come)."""

    def __init__(self, memory_bytes: int, log_tail_lines: int, *, keep_payloads: bool, concurrent: bool) -> None:
        self._lock = _thread.allocate_lock()
        self._by_id: dict[str, Invocation] = {}
        self._room = memory_bytes
        self._log_tail_lines = log_tail_lines
        self._keep_payloads = keep_payloads
        self.concurrent = concurrent
        self._init_lines: deque[str] = deque(maxlen=log_tail_lines)
        self._init_failed = False
        self._just_posted: Invocation | None = None
        self._latest: Invocation | None = None
        self.runtime_ready = False
        self.on_failure: Callable[[Invocation], None] = _ignore
        self.on_recovery: Callable[[Invocation], None] = _ignore
        self.counters = {"opened": 0, "succeeded": 0, "failed": 0, "payloads_cut": 0}

    # -- the proxy's signals -------------------------------------------------------------------------------------

    def asked_next(self) -> None:
        """The runtime asks for an event: it has started, and it has outlived the error that it posted last."""
        self.runtime_ready = True
        self._just_posted = None

    def open(self, head: ResponseHead) -> Invocation | None:
        """An event begins to pass: the answer to GET /next. Returns None where it names no request."""
        request_id = head.text(b"lambda-runtime-aws-request-id")
        if head.status != 200 or not request_id:
            return None
        deadline = head.get(b"lambda-runtime-deadline-ms") or b""
        with self._lock:
            invocation = self._by_id.get(request_id)
            if invocation is None or invocation.ended:  # an asynchronous retry keeps its request id
                invocation = self._new(request_id)
            invocation.deadline_ms = int(deadline) if deadline.isdigit() else 0
            invocation.arn = head.text(b"lambda-runtime-invoked-function-arn") or ""
            invocation.invocation_id = head.text(b"lambda-runtime-invocation-id")
            invocation.trace_id = head.text(b"lambda-runtime-trace-id")
            invocation.tenant_id = head.text(b"lambda-runtime-aws-tenant-id")
            invocation.client_context = head.text(b"lambda-runtime-client-context")
            if self._keep_payloads:
                invocation.payload = Payload()
            self.counters["opened"] += 1
        invocation.observed.set()
        return invocation

    def keep(self, invocation: Invocation, part: bytes) -> None:
        """Keep a piece of the event, as far as MEMORY_BYTES allows."""
        payload = invocation.payload
        if payload is None:
            return
        with self._lock:
            if len(part) > self._room:
                self._release_settled()
            was_cut = payload.cut
            self._room -= payload.add(part, self._room)
            self.counters["payloads_cut"] += payload.cut and not was_cut

    def end(self, request_id: str, outcome: Outcome) -> None:
        """A signal about an invocation's end. Later, stronger ones amend it."""
        with self._lock:
            invocation = self._by_id.get(request_id)
            changed = invocation is not None and self._settle(invocation, outcome)
            if outcome.condition == rules.HANDLED_ERROR:
                self._just_posted = invocation
        if invocation is not None and changed:
            self._tell(invocation)

    def init_error(self, error: bytes | None, error_type: str | None, *, cut: bool = False) -> None:
        """The runtime could not start: it said so, or it ended before its first GET /next. Once in a life."""
        with self._lock:
            if self._init_failed:
                return
            self._init_failed = True
            invocation = Invocation(None, log_tail_lines=self._log_tail_lines)
            invocation.log_lines = self._init_lines
            invocation.outcome = Outcome(rules.INIT_ERROR, error, error_type, error_cut=cut)
            self.counters["failed"] += 1
        self._tell(invocation)

    def suspect(self, request_id: str) -> None:
        """The runtime's connection ended before it answered, and its process cannot be watched: do not hold any longer."""
        with self._lock:
            invocation = self._by_id.get(request_id)
        if invocation is not None:
            invocation.released.set()

    # -- the platform's signals ----------------------------------------------------------------------------------

    def expect(self, request_id: str, deadline_ms: int, arn: str) -> Invocation:
        """INVOKE, or the platform's start line, names an invocation; the proxy may have seen it already."""
        with self._lock:
            invocation = self._by_id.get(request_id)
            if invocation is None:
                invocation = self._new(request_id)
            invocation.deadline_ms = invocation.deadline_ms or deadline_ms
            invocation.arn = invocation.arn or arn
            return invocation

    def runtime_exited(self) -> None:
        """The runtime's process ended. What it had in flight has failed, and an error that it had just posted was a crash."""
        if not self.runtime_ready:
            self.init_error(None, None)
            return
        now_ms = time.time() * 1000
        with self._lock:
            suspects = [one for one in self._by_id.values() if one.observed.is_set and not one.ended]
            if self._just_posted is not None:
                suspects.append(self._just_posted)
                self._just_posted = None
            touched = [one for one in suspects if self._settle(one, rules.of_exit(now_ms, one.deadline_ms))]
        for invocation in touched:
            self._tell(invocation)

    def shutdown(self, reason: str) -> None:
        """SHUTDOWN came: what is still in flight has failed, and the reason says how; a crash just seen may be a timeout."""
        outcome = rules.of_shutdown(reason)
        since = time.monotonic() - _AMENDABLE_S
        with self._lock:
            touched = [
                one
                for one in self._by_id.values()
                if (one.outcome is None or (one.outcome.condition == rules.CRASH and (one.ended_at or 0.0) > since))
                and self._in_flight_at_shutdown(one, reason)
                and self._settle(one, outcome)
            ]
        for invocation in touched:
            self._tell(invocation)

    # -- telemetry's signals -------------------------------------------------------------------------------------

    def log(self, request_id: str | None, line: str) -> None:
        """A line that the function logged; with no request id it belongs to the initialization."""
        if len(line) > _LINE_BYTES:
            line = line[:_LINE_BYTES] + "…"
        if request_id is None:
            self._init_lines.append(line)
            return
        invocation = self._by_id.get(request_id)
        if invocation is not None:
            invocation.log_lines.append(line)

    def succeeded_unseen(self, request_id: str) -> None:
        """The platform saw a success that did not pass the proxy; one that did is judged by the proxy alone."""
        invocation = self._by_id.get(request_id)
        if invocation is not None and not invocation.observed.is_set:
            self.end(request_id, Outcome(rules.SUCCESS))

    def logs_done(self, request_id: str) -> None:
        """Every log line of this invocation has been delivered."""
        invocation = self._by_id.get(request_id)
        if invocation is not None:
            invocation.logs_done.set()

    # -- inside --------------------------------------------------------------------------------------------------

    def _new(self, request_id: str) -> Invocation:
        self._forget_ended()
        invocation = Invocation(request_id, log_tail_lines=self._log_tail_lines)
        self._by_id[request_id] = self._latest = invocation
        return invocation

    def _in_flight_at_shutdown(self, invocation: Invocation, reason: str) -> bool:
        """Without the proxy nobody tells of a success: then only a reason that means failure makes one."""
        return invocation.observed.is_set or (invocation is self._latest and rules.means_failure(reason))

    def _settle(self, invocation: Invocation, outcome: Outcome) -> bool:
        known = invocation.outcome
        combined = rules.combine(known, outcome)
        if combined is known:
            return False
        invocation.outcome = combined
        if known is None:
            invocation.ended_at = time.monotonic()
            self.counters["failed" if combined.failed else "succeeded"] += 1
            if not combined.failed:
                self._release(invocation)
        return True

    def _tell(self, invocation: Invocation) -> None:
        """Outside the lock: hand a failure on, then let the hold go on."""
        assert invocation.outcome is not None
        try:
            if invocation.outcome.failed:
                self.on_failure(invocation)
            elif invocation.provisional:
                self.on_recovery(invocation)
        finally:
            invocation.released.set()

    def _forget_ended(self) -> None:
        """Drop what ended, oldest first, but for the last few: bounded however much traffic there is."""
        ended = [key for key, invocation in self._by_id.items() if invocation.ended or not invocation.observed.is_set]
        for key in ended[: max(0, len(ended) - _MAX_ENDED)]:
            self._release(self._by_id.pop(key))
        if not self.concurrent:
            self._release_settled()

    def _release_settled(self) -> None:
        """Make room: events of failures that are in the spool already need not be kept here."""
        for invocation in self._by_id.values():
            if invocation.settled:
                self._release(invocation)

    def _release(self, invocation: Invocation) -> None:
        if invocation.payload is not None:
            self._room += invocation.payload.kept
            invocation.payload = None


def _ignore(invocation: Invocation) -> None:
    del invocation
