"""A one-shot event on a bare lock: `threading` would cost 2.9 ms of every cold start (DESIGN, "First figures")."""

from __future__ import annotations

import _thread

_FOREVER = -1.0


class Flag:
    """Set once, waited for by any number of threads."""

    __slots__ = ("_lock", "is_set")

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._lock.acquire()
        self.is_set = False

    def set(self) -> None:
        """Set the flag; again is harmless."""
        self.is_set = True
        try:
            self._lock.release()
        except RuntimeError:
            pass  # already free: set before, or between a waiter's acquire and release

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the flag is set, at most `timeout_s` seconds (None: for ever). Returns whether it is set."""
        if self.is_set:
            return True
        if timeout_s is not None and timeout_s <= 0:
            return False
        limit = _FOREVER if timeout_s is None else min(timeout_s, _thread.TIMEOUT_MAX)
        if self._lock.acquire(True, limit):
            self.set()  # passes it on to the next waiter
        return self.is_set
