"""From a failed invocation to a record on its way: written to the spool at once, completed with its log lines, handed to delivery.

One thread, started by the first failure: neither the proxy nor the main loop ever waits for a disk.
"""

from __future__ import annotations

import _thread
import os
import time

from extension import last_resort, say
from extension import record as records
from extension.flag import Flag
from extension.outcome import TIMEOUT, Outcome

TYPE_CHECKING = False
if TYPE_CHECKING:
    from extension.delivery import Delivery, Sender
    from extension.inflight import Invocation
    from extension.settings import Settings
    from extension.spool import Spool

_BACKGROUND_SHIP_S = 10.0
_MINUTE_S = 60.0
_AT_LEAST_S = 0.1  # for the spool, at SHUTDOWN, even where Lambda's deadline is over
_PRINT_S = 0.3


class Clerk:
    """Files failures. `telemetry_on` says whether log lines can come at all; `environment_nonce` names this life."""

    def __init__(self, settings: Settings, spool: Spool, delivery: Delivery, environment_nonce: str) -> None:
        self._settings = settings
        self._spool = spool
        self.delivery = delivery
        self._nonce = environment_nonce
        self._lock = _thread.allocate_lock()
        self._inbox: list[Invocation] = []
        self._waiting: list[tuple[float, Invocation]] = []
        self._wake = Flag()
        self._idle = Flag()
        self._idle.set()
        self._started = False
        self._closing = False
        self._minute_began = time.monotonic()
        self._in_minute = 0
        self._suppressed = 0
        self.telemetry_on = False
        self.counters = {"written": 0, "recovered": 0, "faults": 0}

    def report(self, invocation: Invocation) -> None:
        """Take a failure, or a stronger signal about one. Returns at once; never raises."""
        if not invocation.spooled.is_set and self._is_over_the_rate():
            invocation.settled = True
            invocation.spooled.set()
            invocation.filed.set()
            return
        with self._lock:
            self._inbox.append(invocation)
            if self._idle.is_set:
                self._idle = Flag()
            self._wake.set()
            start, self._started = not self._started, True
        if start:
            try:
                _thread.start_new_thread(self._run, ())
            except RuntimeError as error:  # no thread to be had: do it here, late but done
                say.fault("clerk: thread", error)
                self._started = False
                self._turn()

    def _is_over_the_rate(self) -> bool:
        """Count a failure against MAX_RECORDS_PER_MINUTE."""
        limit = self._settings.max_records_per_minute
        if not limit:
            return False
        now = time.monotonic()
        with self._lock:
            if now - self._minute_began >= _MINUTE_S:
                self._minute_began, self._in_minute = now, 0
            self._in_minute += 1
            if self._in_minute <= limit:
                return False
            self._suppressed += 1
        say.warn_once("clerk", f"more than {limit} failures in a minute; the rest are counted, not recorded")
        return True

    def provisional(self, invocation: Invocation) -> None:
        """Put the event of an invocation near its deadline in the spool, in case nobody lives to see how it ends."""
        try:
            event = invocation.payload
            made = records.build(invocation, Outcome(TIMEOUT), event, self._settings, self._nonce)
            if invocation.ended:
                return
            invocation.provisional = True
            self._spool.put(made.id, made.encode(), provisional=True)
            ended = invocation.outcome
            if ended is not None and ended.failed:
                self.report(invocation)  # it failed in another way while this was written: write that over it
            elif ended is not None:
                self.recovered(invocation)
        except BaseException as error:
            self._fault("clerk: provisional record", error)

    def recovered(self, invocation: Invocation) -> None:
        """The invocation ended well after all: take its provisional record out of the spool."""
        invocation.provisional = False
        self.counters["recovered"] += 1
        try:
            self._spool.remove(records.identify(invocation, self._settings, self._nonce))
        except BaseException as error:
            self._fault("clerk: provisional record", error)

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until every failure that was reported is on its way. Returns whether it is so."""
        return self._idle.wait(timeout_s)

    def resume(self) -> None:
        """Send again what is still in the spool, beside the running function."""
        if self._spool.pending():
            self.delivery.kick(time.monotonic() + _BACKGROUND_SHIP_S)

    def close(self, until: float) -> None:
        """SHUTDOWN: send what is left until `until` (monotonic seconds), then print what could not be sent."""
        left_s = until - time.monotonic()
        if not self.wait_idle(min(self._settings.log_wait_ms / 1000 + 0.1, left_s / 2)):
            with self._lock:
                self._closing = True  # whatever log lines may still come: without them it can at least be sent
                self._wake.set()
            self.wait_idle(max(_AT_LEAST_S, until - time.monotonic()))
        if self._settings.queue_url is not None and self._spool.pending():
            self.delivery.kick(until, last_chance=True)
            self.delivery.wait_idle(until - time.monotonic())
        if self._settings.last_resort != "off":
            self._print_undelivered(time.monotonic() + _PRINT_S)

    def _print_undelivered(self, until: float) -> None:
        pending = self._spool.pending()
        for number, record_id in enumerate(pending):
            if time.monotonic() > until:
                say.warn_once("last resort", f"{len(pending) - number} more records wait in the spool")
                return
            data = self._spool.read(record_id)
            if data is None:
                continue
            try:
                made = records.Record.decode(data)
                say.write_line(last_resort.line(made, self._settings.last_resort, self._why(record_id)))
            except Exception as error:
                self._fault("last resort", error)
                continue
            if self._settings.queue_url is None:
                self._spool.remove(record_id)  # the line was its destination: a later life would print it again

    def _why(self, record_id: str) -> str:
        if self._settings.queue_url is None:
            return "BACKSTOP_QUEUE_URL is not set"
        return self.delivery.why(record_id) or "no time was left to send it"

    # -- the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            try:
                self._wake.wait(self._pause())
                self._turn()
            except BaseException as error:  # the guard of this thread
                self._fault("clerk", error)

    def _pause(self) -> float | None:
        if not self._waiting:
            return None
        return max(0.0, self._waiting[0][0] - time.monotonic())

    def _turn(self) -> None:
        with self._lock:
            self._wake = Flag()
            new, self._inbox = self._inbox, []
        due = time.monotonic() + self._settings.log_wait_ms / 1000
        for invocation in new:
            waits = self.telemetry_on and not invocation.logs_done.is_set
            try:
                self._file(invocation, hidden=waits)
            except BaseException as error:
                self._fault("clerk: record", error)
                invocation.spooled.set()
                invocation.filed.set()
                continue
            invocation.spooled.set()
            if waits:
                self._waiting.append((due, invocation))
            else:
                self._ship(invocation)
        now = time.monotonic()
        ready = [one for one in self._waiting if self._closing or one[0] <= now or one[1].logs_done.is_set]
        self._waiting = [one for one in self._waiting if one not in ready]
        for _, invocation in ready:
            try:
                self._file(invocation)  # once more, now with the log lines
            except BaseException as error:
                self._fault("clerk: record", error)
                self._spool.commit(records.identify(invocation, self._settings, self._nonce))
            self._ship(invocation)
        with self._lock:
            if not self._inbox and not self._waiting:
                self._idle.set()

    def logs_arrived(self) -> None:
        """Telemetry delivered the end of an invocation: look whether a record waited for it."""
        if self._waiting:
            with self._lock:
                self._wake.set()

    def _file(self, invocation: Invocation, hidden: bool = False) -> None:
        """Write the record, or write it again with what is known by now; `hidden` from delivery while log lines may come."""
        ended, event = invocation.outcome, invocation.payload
        assert ended is not None
        if event is None and invocation.settled and self._settings.capture == "payload" and invocation.observed.is_set:
            return  # amended after its event was let go: the record that went out says more
        suppressed = 0
        if not invocation.spooled.is_set:
            with self._lock:
                suppressed, self._suppressed = self._suppressed, 0
        invocation.suppressed_before += suppressed
        for made in records.build_all(invocation, ended, event, self._settings, self._nonce):
            self._spool.put(made.id, made.encode(), provisional=hidden)
            self.counters["written"] += 1

    def _ship(self, invocation: Invocation) -> None:
        invocation.settled = True
        self.delivery.kick(time.monotonic() + _BACKGROUND_SHIP_S)
        invocation.filed.set()

    def _fault(self, what: str, error: BaseException) -> None:
        self.counters["faults"] += 1
        say.fault(what, error)


def open_clerk(settings: Settings, environ: dict[str, str]) -> Clerk:
    """Make the clerk and what it needs: the spool, the queue, the delivery."""
    from extension.delivery import Delivery
    from extension.spool import Spool

    def open_queue() -> Sender:
        from extension.sqs import Queue

        queue = Queue(settings, environ)
        if settings.bucket is None:
            return queue
        from extension.bucket import Bucket
        from extension.claim_check import ClaimCheck

        return ClaimCheck(queue, settings.bucket, lambda name: Bucket(name, settings, environ))

    spool = Spool(f"{settings.state_dir}/spool", settings.spool_bytes)
    delivery = Delivery(spool, open_queue)
    return Clerk(settings, spool, delivery, os.urandom(16).hex())
