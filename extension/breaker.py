"""When to try the queue again: the circuit breaker and the pauses between attempts. No clock, no sleep, no thread here.

Pauses have full jitter ("Exponential Backoff And Jitter", AWS Architecture Blog): environments that failed together
must not come back together.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

FAILURES_TO_OPEN = 3
FIRST_OPEN_S, LONGEST_OPEN_S = 1.0, 60.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0

LEAST_S = 0.02  # with less time than this no attempt begins
_TELLING_S = 0.5

# Verdicts on an attempt. UNDECIDED: nothing was sent (records are to be cut first).
DONE, PARTLY, FAILED, CLOSED_TO_US, UNDECIDED = "done", "partly", "failed", "closed to us", "undecided"
CLOSED, OPEN, HALF_OPEN = "closed", "open", "half-open"


class Breaker:
    """Closed: every attempt is allowed. Open: none, until a time that doubles with each failed probe.

    Half-open: one attempt is let through, and its outcome closes or opens the breaker. Times are seconds on any clock
    that does not go back. `random` gives numbers from 0 to 1.
    """

    __slots__ = ("_failures", "_openings", "_random", "_until", "state")

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._failures = 0
        self._openings = 0
        self._until = 0.0
        self.state = CLOSED

    def allows(self, now: float) -> bool:
        """Tell whether an attempt may be made now; the caller then makes it and reports how it went."""
        if self.state == OPEN and now >= self._until:
            self.state = HALF_OPEN
        return self.state != OPEN

    def probe(self) -> None:
        """Allow one attempt whatever the time: there will be no later one (SHUTDOWN)."""
        if self.state == OPEN:
            self.state = HALF_OPEN

    def succeeded(self) -> None:
        """The queue answered and took what it could."""
        self._failures = self._openings = 0
        self.state = CLOSED

    def failed(self, now: float) -> None:
        """An attempt failed in a way that a later one may not."""
        self._failures += 1
        if self.state == HALF_OPEN or self._failures >= FAILURES_TO_OPEN:
            self.denied(now)

    def denied(self, now: float) -> None:
        """The queue is closed to us: that will not change within seconds, so open at once."""
        longest = min(LONGEST_OPEN_S, FIRST_OPEN_S * (1 << min(self._openings, 16)))
        self._until = now + longest * (0.5 + 0.5 * self._random())
        self._openings += 1
        self.state = OPEN


class Plan:
    """What one ship does next: an attempt, a pause, or giving up for now. A ship is made of attempts before a deadline."""

    __slots__ = ("_attempt", "_breaker", "_random")

    def __init__(self, breaker: Breaker, random: Callable[[], float]) -> None:
        self._breaker = breaker
        self._random = random
        self._attempt = 0

    def may_begin(self, now: float, deadline: float) -> bool:
        """Tell whether an attempt may begin now."""
        return deadline - now >= LEAST_S and self._breaker.allows(now)

    def after(self, verdict: str, began: float, now: float, deadline: float) -> float | None:
        """Take the verdict on an attempt. Returns how long to wait before the next one, in seconds; None to give up.

        A partial success (some taken, some to be tried again) shows that the queue is there, yet waits before the rest.
        """
        if verdict == FAILED and now >= deadline and deadline - began < _TELLING_S:
            return None  # it ran out of so little time that this says nothing about the queue
        if verdict == CLOSED_TO_US:
            self._breaker.denied(now)
            return None
        if verdict == FAILED:
            self._breaker.failed(now)
        elif verdict in (DONE, PARTLY):
            self._breaker.succeeded()
        if verdict in (DONE, UNDECIDED):
            self._attempt = 0
            return 0.0
        pause = self._random() * min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * (1 << min(self._attempt, 16)))
        self._attempt += 1
        if self._breaker.state == OPEN or now + pause + LEAST_S > deadline:
            return None
        return pause
