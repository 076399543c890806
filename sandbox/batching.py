"""When telemetry is sent, and what becomes of a batch that is not taken. No I/O: time comes in as an argument.

Rules ("Lambda Telemetry API reference"): a batch goes when maxItems or maxBytes is reached or timeoutMs after its first record.
What is not answered with 2xx is sent again, later and later; what is still not taken is dropped and counted, and
`platform.logsDropped` tells of it. How often, and how much may wait, is not documented: see Limits.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from sandbox.config import Limits
from sandbox.subscription import Subscription


@dataclass(slots=True, eq=False)
class Batch:
    """Encoded records, in order. `attempts` counts deliveries that failed."""

    records: list[bytes] = field(default_factory=list)
    size: int = 0
    attempts: int = 0

    def body(self) -> bytes:
        """The JSON array that an HTTP destination gets."""
        return b"[" + b",".join(self.records) + b"]"

    def lines(self) -> bytes:
        """What a TCP destination gets: one object a line."""
        return b"".join(record + b"\n" for record in self.records)


@dataclass(frozen=True, slots=True)
class Dropped:
    """Records that nobody will get."""

    reason: str
    records: int
    size: int


class Batcher:
    """The records of one subscription on their way out. Times are seconds on any one monotonic clock."""

    def __init__(self, subscription: Subscription, limits: Limits) -> None:
        self._subscription = subscription
        self._limits = limits
        self._open = Batch()
        self._open_since = 0.0
        self._waiting: deque[Batch] = deque()
        self._retry_at = 0.0

    def add(self, record: bytes, now: float) -> Dropped | None:
        """Take one record. Returns what had to be dropped because too much waits already."""
        if not self._open.records:
            self._open_since = now
        self._open.records.append(record)
        self._open.size += len(record)
        full = (
            len(self._open.records) >= self._subscription.max_items or self._open.size >= self._subscription.max_bytes
        )
        return self._close() if full else None

    def flush(self) -> Dropped | None:
        """End the open batch now: the environment is about to end."""
        return self._close() if self._open.records else None

    def due(self, now: float) -> Batch | None:
        """The batch to send now, if there is one. It stays first until `delivered` or `failed` tells what became of it."""
        if self._open.records and now - self._open_since >= self._subscription.timeout_ms / 1000 and not self._waiting:
            self._close()
        if self._waiting and now >= self._retry_at:
            return self._waiting[0]
        return None

    def next_time(self) -> float | None:
        """When `due` should be asked again; None while nothing waits."""
        if self._waiting:
            return self._retry_at
        if self._open.records:
            return self._open_since + self._subscription.timeout_ms / 1000
        return None

    def delivered(self) -> None:
        """The first batch was taken."""
        self._waiting.popleft()
        self._retry_at = 0.0

    def failed(self, now: float, why: str) -> Dropped | None:
        """The first batch was not taken. It will be tried again, or is dropped, which is returned."""
        batch = self._waiting[0]
        batch.attempts += 1
        if batch.attempts < self._limits.telemetry_attempts:
            self._retry_at = now + self._limits.telemetry_first_backoff_s * 2 ** (batch.attempts - 1)
            return None
        self.delivered()
        return Dropped(f"could not send events: {why}", len(batch.records), batch.size)

    @property
    def empty(self) -> bool:
        return not self._waiting and not self._open.records

    def _close(self) -> Dropped | None:
        batch, self._open = self._open, Batch()
        if len(self._waiting) >= self._limits.telemetry_backlog_batches:
            reason = "Some logs were dropped because the downstream consumer is slower than the logs production rate"
            return Dropped(reason, len(batch.records), batch.size)
        self._waiting.append(batch)
        return None
