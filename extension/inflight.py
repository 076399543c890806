"""The table of invocations in flight, keyed by request id. Every signal comes here; a failure leaves through `on_failure`.

Signals come from four threads (proxy, runtime watcher, telemetry, main); each method takes the one lock for a moment only.
"""

from __future__ import annotations

import _thread
import time

from extension import outcome as rules
from extension import say
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
_ANSWER_S = 1.0  # how long the end of the runtime's process waits for an answer that it had begun to post
_RETRY_MS = 500  # deadlines this far apart belong to different attempts; both APIs' clocks agree better than that
_STALE_MS = 60_000  # past its deadline: its end was missed


class Invocation:
    """One invocation, or (request_id None) one initialization of the runtime.

    `released` ends the sidecar's hold. Of a failure, `spooled` is set once its record is in the spool, and `filed` once it is
    complete and handed to delivery; `suppressed_before` counts failures that the rate bound left out before it. `answering` is
    there while the runtime posts its answer, and set when that exchange is over; `overtaken` says that the runtime asked for
    another event, though the end of this one was not seen.
    """

    __slots__ = (
        "answering",
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
        "overtaken",
        "payload",
        "provisional",
        "received_ms",
        "released",
        "request_id",
        "settled",
        "spooled",
        "suppressed_before",
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
        self.answering: Flag | None = None
        self.overtaken = False
        self.provisional = False
        self.settled = False
        self.suppressed_before = 0

    @property
    def ended(self) -> bool:
        """Whether its outcome is known."""
        return self.outcome is not None

    @property
    def with_the_runtime(self) -> bool:
        """Whether the runtime has it: its event passed the proxy, and no answer to it is under way."""
        answering = self.answering
        return self.observed.is_set and not self.ended and (answering is None or answering.is_set)


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
        self._init_failed: Invocation | None = None
        self._init_logs_done = Flag()
        self._just_posted: Invocation | None = None
        self._latest: Invocation | None = None
        self._asked = 0
        self._started = False
        self.runtime_ready = False
        self.on_failure: Callable[[Invocation], None] = _ignore
        self.on_recovery: Callable[[Invocation], None] = _ignore
        self.counters = {"opened": 0, "succeeded": 0, "failed": 0, "payloads_cut": 0}

    # -- the proxy's signals -------------------------------------------------------------------------------------

    def asked_next(self) -> None:
        """The runtime asks for an event: it has started, and it has outlived the error that it posted last."""
        self.runtime_ready = True
        with self._lock:
            self._asked += 1
            self._just_posted = None
            overtaken = self._latest
            if self.concurrent or overtaken is None or not overtaken.with_the_runtime:
                return
            overtaken.overtaken = True
        overtaken.released.set()  # whatever was missed: nothing is held until the deadline

    def open(self, head: ResponseHead) -> Invocation | None:
        """An event begins to pass: the answer to GET /next. Returns None where it names no request."""
        request_id = head.text(b"lambda-runtime-aws-request-id")
        if head.status != 200 or not request_id:
            return None
        deadline = head.get(b"lambda-runtime-deadline-ms") or b""
        with self._lock:
            invocation = self._by_id.get(request_id)
            if invocation is None or invocation.ended or invocation.observed.is_set:
                invocation = self._new(request_id)  # an asynchronous retry keeps its request id
            invocation.deadline_ms = int(deadline) if deadline.isdigit() and len(deadline) < 16 else 0
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
        with self._lock:
            if len(part) > self._room:
                self._release_settled()
            payload = invocation.payload
            if payload is None:
                return
            was_cut = payload.cut
            self._room -= payload.add(part, self._room)
            self.counters["payloads_cut"] += payload.cut and not was_cut

    def whole(self, invocation: Invocation) -> None:
        """The event has been seen to its last byte."""
        payload = invocation.payload
        if payload is not None:
            payload.whole = True

    def event_of(self, request_id: str) -> bytes | None:
        """Return the event of an invocation in flight; None where it was not kept whole."""
        invocation = self._by_id.get(request_id)
        payload = None if invocation is None else invocation.payload
        return payload.raw() if payload is not None and payload.whole and not payload.cut else None

    def answer_begins(self, request_id: str) -> tuple[Flag, int]:
        """The runtime begins to post an answer. Set the flag when the exchange is over; give the number to `posted`."""
        over = Flag()
        with self._lock:
            invocation = self._by_id.get(request_id)
            if invocation is not None:
                invocation.answering = over
            return over, self._asked

    def posted(self, request_id: str, outcome: Outcome, asked: int) -> None:
        """The runtime's own answer. After an error its process may still end; until it asks for an event, that is one failure."""
        self.end(request_id, outcome)
        with self._lock:
            if outcome.condition == rules.HANDLED_ERROR and asked == self._asked:
                self._just_posted = self._by_id.get(request_id)

    def end(self, request_id: str, outcome: Outcome) -> None:
        """A signal about an invocation's end. Later, stronger ones amend it."""
        with self._lock:
            invocation = self._by_id.get(request_id)
            changed = invocation is not None and self._settle(invocation, outcome)
        if invocation is not None and changed:
            self._tell(invocation)

    def init_error(self, error: bytes | None, error_type: str | None, *, cut: bool = False) -> None:
        """The runtime could not start: it said so, or it ended before its first GET /next. Once in a life."""
        with self._lock:
            if self._init_failed is not None:
                return
            self._init_failed = invocation = Invocation(None, log_tail_lines=self._log_tail_lines)
            invocation.log_lines = self._init_lines
            invocation.logs_done = self._init_logs_done
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

    def runtime_started(self) -> None:
        """The platform says that the runtime is up: if it passes the proxy by, its end is no failed initialization."""
        self._started = True

    def expect(self, request_id: str, deadline_ms: int, arn: str) -> Invocation:
        """INVOKE, or the platform's start line, names an invocation; the proxy may have seen it already."""
        self._started = True
        with self._lock:
            invocation = self._by_id.get(request_id)
            if invocation is None or (
                invocation.ended
                and deadline_ms
                and abs(deadline_ms - (invocation.deadline_ms or deadline_ms)) > _RETRY_MS
            ):
                invocation = self._new(request_id)
            invocation.deadline_ms = invocation.deadline_ms or deadline_ms
            invocation.arn = invocation.arn or arn
            return invocation

    def runtime_exited(self) -> None:
        """The runtime's process ended. What it had in flight has failed, and an error that it had just posted was a crash.

        Where invocations overlap, a runtime may wait for its next event while it posts an error, and an end long after that error
        has nothing to do with it: there SHUTDOWN tells, by its reason.
        """
        if not self.runtime_ready:
            if not self._started:
                self.init_error(None, None)
            return
        now_ms = time.time() * 1000
        with self._lock:
            answering = [one.answering for one in self._by_id.values() if one.answering is not None]
        until = time.monotonic() + _ANSWER_S
        for over in answering:
            over.wait(until - time.monotonic())
        with self._lock:
            suspects = [one for one in self._by_id.values() if one.observed.is_set and not one.ended]
            if self._just_posted is not None and not self.concurrent:
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
            just_posted = self._just_posted if self.concurrent and rules.means_failure(reason) else None
            touched = [
                one
                for one in self._by_id.values()
                if (one.outcome is None or (one.outcome.condition == rules.CRASH and (one.ended_at or 0.0) > since))
                and self._in_flight_at_shutdown(one, reason)
                and self._settle(one, outcome)
            ]
            if just_posted is not None and (just_posted.ended_at or 0.0) > since and self._settle(just_posted, outcome):
                touched.append(just_posted)
        for invocation in touched:
            self._tell(invocation)

    def unwritten(self) -> list[Invocation]:
        """Return the failures whose records are not in the spool yet."""
        with self._lock:
            known = list(self._by_id.values())
            if self._init_failed is not None:
                known.append(self._init_failed)
        return [one for one in known if one.outcome is not None and one.outcome.failed and not one.spooled.is_set]

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

    def init_logs_done(self) -> None:
        """Every log line of the initialization has been delivered."""
        self._init_logs_done.set()

    def judged_by_platform(self, request_id: str, outcome: Outcome) -> None:
        """The platform says how an invocation ended. An error that the function handled passes the proxy, with its details.

        One that never reached the runtime, because it could not start, has its record already: that of the initialization.
        """
        invocation = self._by_id.get(request_id)
        if invocation is None or (outcome.condition == rules.HANDLED_ERROR and invocation.observed.is_set):
            return
        if self._init_failed is not None and not self.runtime_ready and not invocation.observed.is_set:
            return
        self.end(request_id, outcome)

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
        replaced = self._by_id.pop(request_id, None)
        if replaced is not None:
            self._drop(replaced)
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
        except Exception as error:
            say.fault("filing a failure", error)
        finally:
            invocation.released.set()

    def _forget_ended(self) -> None:
        """Drop what ended, oldest first, but for the last few: bounded however much traffic there is."""
        over = [key for key, invocation in self._by_id.items() if self._is_over(invocation)]
        for key in over[: max(0, len(over) - _MAX_ENDED)]:
            self._drop(self._by_id.pop(key))
        if not self.concurrent:
            self._release_settled()

    def _is_over(self, invocation: Invocation) -> bool:
        """Whether nothing is under way: it ended, was never seen here, or its end was missed."""
        if invocation.ended or not invocation.observed.is_set or invocation.overtaken:
            return True
        return 0 < invocation.deadline_ms < time.time() * 1000 - _STALE_MS

    def _drop(self, invocation: Invocation) -> None:
        """Let go of an invocation that is no longer in the table: nobody shall wait for it."""
        self._release(invocation)
        invocation.released.set()

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
