"""From the spool to the queue: one thread that ships what is pending whenever it is asked to, within the time it is given.

A record leaves the spool only when the queue has accepted it. What the queue will never take stays there, set aside
for this life, so that it becomes a last-resort line and blocks no other.
"""

from __future__ import annotations

import _thread
import os
import time

from extension import say
from extension.breaker import CLOSED_TO_US, DONE, FAILED, OPEN, PARTLY, UNDECIDED, Breaker, Plan
from extension.flag import Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from extension.record import Record
    from extension.spool import Spool
    from extension.sqs_protocol import Outcome

    class Sender(Protocol):
        """What delivery needs of a queue; `sqs.Queue` is one."""

        def send(self, records: list[Record], deadline: float) -> list[Outcome]: ...

        def close(self) -> None: ...


_ATTEMPT_S = 3.0  # a connection that died in a freeze says nothing: do not wait for it as long as a ship may last
_BATCH_BYTES = 1_048_576
_BATCH_ENTRIES = 10
_UNREADABLE = (ValueError, TypeError, KeyError, IndexError, AttributeError)


def _random() -> float:
    return int.from_bytes(os.urandom(4), "big") / (1 << 32)


class _Parcel:
    """A record under way: its id and version in the spool, and what is sent, which may be a cut copy."""

    __slots__ = ("id", "record", "version")

    def __init__(self, record_id: str, version: int, record: Record) -> None:
        self.id = record_id
        self.version = version
        self.record = record


class Delivery:
    """Ships records. `open_queue` is called once, by the thread, at the first ship: what it imports costs no start."""

    def __init__(
        self, spool: Spool, open_queue: Callable[[], Sender], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._spool = spool
        self._open_queue = open_queue
        self._clock = clock
        self._lock = _thread.allocate_lock()
        self._wake = Flag()
        self._idle = Flag()
        self._idle.set()
        self._started = False
        self._deadline = 0.0
        self._last_chance = False
        self._queue: Sender | None = None
        self._breaker = Breaker(_random)
        self._aside: dict[str, tuple[int, str]] = {}  # version, reason
        self._cut: dict[str, _Parcel] = {}
        self._put_off: dict[str, str] = {}
        self._said: set[tuple[str, str]] = set()
        self.last_reason = ""
        self.counters = {
            "attempts": 0,
            "accepted": 0,
            "retried": 0,
            "cut": 0,
            "put_off": 0,
            "refused": 0,
            "denied": 0,
            "unreadable": 0,
            "breaker_opened": 0,
            "faults": 0,
        }

    def kick(self, deadline: float, last_chance: bool = False) -> None:
        """Ask for everything pending to be shipped until `deadline` (seconds on the clock). Returns at once.

        While a ship is under way it is extended. With `last_chance` (SHUTDOWN) one attempt is made even if the breaker
        is open.
        """
        with self._lock:
            self._deadline = max(self._deadline, deadline)
            self._last_chance = self._last_chance or last_chance
            if self._idle.is_set:
                self._idle = Flag()
            self._wake.set()
            start, self._started = not self._started, True
        if start:
            try:
                _thread.start_new_thread(self._run, ())
            except RuntimeError as error:
                self._fault("no thread for delivery", error)
                with self._lock:
                    self._started = False
                    self._idle.set()

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until all that was pending is accepted, or given up for now. Returns whether it is."""
        with self._lock:
            idle = self._idle
        return idle.wait(timeout_s)

    def why(self, record_id: str) -> str:
        """Return why a record is still in the spool: what was said of it, else of the last that failed; else nothing."""
        aside = self._aside.get(record_id)
        return aside[1] if aside is not None else self._put_off.get(record_id, self.last_reason)

    def _run(self) -> None:
        while True:
            try:
                self._wake.wait()
                self._ship()
            except BaseException as error:  # the guard of this thread
                self._fault("delivery", error)
            self._rest()

    def _fault(self, what: str, error: BaseException) -> None:
        self.counters["faults"] += 1
        say.fault(what, error)

    def _rest(self) -> None:
        """End a ship: no connection outlives it, since a freeze may follow. Whoever waits is told."""
        self._cut.clear()
        try:
            if self._queue is not None:
                self._queue.close()
        except BaseException as error:
            self._fault("delivery", error)
        with self._lock:
            if not self._wake.is_set:
                self._idle.set()

    def _ship(self) -> None:
        plan = Plan(self._breaker, _random)
        self._put_off.clear()
        while True:
            with self._lock:
                self._wake = Flag()  # before the look at the spool, so that what is put after it wakes us again
                deadline = self._deadline
                last_chance, self._last_chance = self._last_chance, False
            parcels = self._load()
            if last_chance:
                self._breaker.probe()
            began = self._clock()
            if not parcels or not plan.may_begin(began, deadline):
                return
            verdict, reason = self._settle(parcels, self._send(parcels, min(deadline, began + _ATTEMPT_S)))
            pause = plan.after(verdict, began, self._clock(), deadline)
            if self._breaker.state == OPEN:
                self.counters["breaker_opened"] += 1
                self._say("the queue is out of reach; records wait in the spool", reason)
            if pause is None:
                return
            if pause:
                self._wake.wait(pause)

    def _load(self) -> list[_Parcel]:
        """Read the oldest pending records that fit a batch, all but those set aside."""
        parcels: list[_Parcel] = []
        room = _BATCH_BYTES
        pending = self._spool.pending()
        self._aside = {record_id: self._aside[record_id] for record_id in pending if record_id in self._aside}
        for record_id in pending:
            if len(parcels) == _BATCH_ENTRIES:
                break
            aside = self._aside.get(record_id)
            if record_id in self._put_off or (aside is not None and aside[0] == self._spool.version(record_id)):
                continue
            parcel = self._read(record_id)
            if parcel is None:
                continue
            size = len(parcel.record.body)
            if parcels and size > room:
                break
            parcels.append(parcel)
            room -= size
        return parcels

    def _read(self, record_id: str) -> _Parcel | None:
        from extension.record import Record

        version = self._spool.version(record_id)
        cut = self._cut.get(record_id)
        if cut is not None and cut.version == version:
            return cut
        found = self._spool.read_version(record_id)
        if found is None:
            self._set_aside(record_id, version, "its file cannot be read")
            return None
        version, data = found
        try:
            return _Parcel(record_id, version, Record.decode(data))
        except _UNREADABLE as error:
            self.counters["unreadable"] += 1
            reason = f"{type(error).__name__}: {error}"
            self._set_aside(record_id, version, reason)
            self._say("a record in the spool cannot be read and stays there", reason)
            return None

    def _send(self, parcels: list[_Parcel], deadline: float) -> list[Outcome]:
        from extension.sqs_protocol import DENIED, Outcome

        self.counters["attempts"] += 1
        try:
            if self._queue is None:
                try:
                    self._queue = self._open_queue()
                except ValueError as error:
                    return [Outcome(DENIED, str(error))] * len(parcels)
            return self._queue.send([parcel.record for parcel in parcels], deadline)
        except BaseException as error:
            # A bug, perhaps of this very batch: without it the others can still go.
            for parcel in parcels:
                self._set_aside(parcel.id, parcel.version, f"{type(error).__name__}: {error}")
            raise

    def _settle(self, parcels: list[_Parcel], outcomes: list[Outcome]) -> tuple[str, str]:
        """Do what each outcome asks for. Returns the verdict on the attempt, and why it is a bad one."""
        from extension import sqs_protocol as sqs

        reasons: dict[str, str] = {}
        for parcel, outcome in zip(parcels, outcomes, strict=True):
            reasons[outcome.kind] = outcome.reason
            if outcome.kind == sqs.ACCEPTED:
                self.counters["accepted"] += 1
                self._spool.remove(parcel.id, parcel.version)
            elif outcome.kind == sqs.TOO_LONG:
                self._shrink(parcel, outcome)
            elif outcome.kind == sqs.LATER:
                self.counters["put_off"] += 1
                self._put_off[parcel.id] = outcome.reason
                self._say("a large event cannot be stored now; its record waits in the spool", outcome.reason)
            elif outcome.kind == sqs.REFUSED:
                self.counters["refused"] += 1
                self._set_aside(parcel.id, parcel.version, outcome.reason)
                self._say("the queue refuses a record; it stays in the spool", outcome.reason)
            else:
                self.counters["denied" if outcome.kind == sqs.DENIED else "retried"] += 1
        if sqs.DENIED in reasons:
            self.last_reason = reasons[sqs.DENIED]
            return CLOSED_TO_US, reasons[sqs.DENIED]
        taken = sqs.ACCEPTED in reasons or sqs.REFUSED in reasons or sqs.LATER in reasons
        if sqs.RETRY in reasons:
            self.last_reason = reasons[sqs.RETRY]
            return PARTLY if taken else FAILED, reasons[sqs.RETRY]
        return DONE if taken else UNDECIDED, ""

    def _shrink(self, parcel: _Parcel, outcome: Outcome) -> None:
        """Cut a copy to the queue's limit. The spool keeps the whole record until the queue has the copy."""
        from extension.record import shrink

        try:
            smaller = shrink(parcel.record, outcome.limit)
        except _UNREADABLE as error:
            smaller = None
            self._say("a record cannot be cut", f"{type(error).__name__}: {error}")
        if smaller is None or len(smaller.body) >= len(parcel.record.body):
            self.counters["refused"] += 1
            self._set_aside(parcel.id, parcel.version, outcome.reason)
            self._say("a record is too long for the queue; it stays in the spool", outcome.reason)
            return
        self.counters["cut"] += 1
        self._cut[parcel.id] = _Parcel(parcel.id, parcel.version, smaller)

    def _set_aside(self, record_id: str, version: int | None, reason: str) -> None:
        self.last_reason = reason
        if version is not None:
            self._aside[record_id] = (version, reason)

    def _say(self, what: str, reason: str) -> None:
        """Say something once for each kind of reason: what follows an error's code may differ every time."""
        key = (what, reason.partition(":")[0])
        if key not in self._said and len(self._said) < 64:
            self._said.add(key)
            say.warn_once(what, reason[:400])
