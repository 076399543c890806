"""What happened, in order: phases, API calls, processes, telemetry, log lines. Tests and the timeline read it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Entry:
    """`at` is time.monotonic(). `kind`: phase, call, answer, process, telemetry, log, note. `who` did it or had it done."""

    at: float
    kind: str
    who: str
    what: str
    detail: dict[str, Any] = field(default_factory=dict)


class Journal:
    """Thread-safe: the sandbox writes from its own thread, tests read and wait from theirs."""

    def __init__(self, listener: Callable[[Entry], None] | None = None) -> None:
        self._entries: list[Entry] = []
        self._changed = threading.Condition()
        self._listener = listener

    def add(self, kind: str, who: str, what: str, **detail: Any) -> Entry:
        entry = Entry(time.monotonic(), kind, who, what, detail)
        with self._changed:
            self._entries.append(entry)
            self._changed.notify_all()
        if self._listener is not None:
            self._listener(entry)
        return entry

    def entries(self, kind: str | None = None, who: str | None = None) -> list[Entry]:
        with self._changed:
            return [one for one in self._entries if kind in (None, one.kind) and who in (None, one.who)]

    def wait_for(self, found: Callable[[list[Entry]], bool], what: str, timeout_s: float = 10.0) -> None:
        """Waits until `found` holds for all entries so far. Raises TimeoutError with `what` and the last entries."""
        with self._changed:
            if not self._changed.wait_for(lambda: found(self._entries), timeout_s):
                last = "\n".join(f"{one.kind} {one.who} {one.what} {one.detail}" for one in self._entries[-40:])
                raise TimeoutError(f"{what} did not happen in {timeout_s} s; last entries:\n{last}")
