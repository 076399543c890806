"""Large events on their way: the event into the bucket first, then the record that names its place onto the queue.

The pattern is the claim check (Hohpe and Woolf, "Enterprise Integration Patterns").
"""

from __future__ import annotations

from extension import record as records
from extension.bucket import Closed, NotNow
from extension.sqs_protocol import LATER, REFUSED, TOO_LONG, Outcome

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from extension.bucket import Bucket
    from extension.record import Record
    from extension.sqs import Queue

_REMEMBERED = 256
_HEADERS = [("Content-Type", "application/json"), ("Content-Encoding", "gzip")]


class ClaimCheck:
    """A queue for records that may have large events, which go to a bucket."""

    def __init__(self, queue: Queue, bucket_name: str, open_bucket: Callable[[str], Bucket]) -> None:
        self._queue = queue
        self._bucket_name = bucket_name
        self._open_bucket = open_bucket
        self._buckets: dict[str, Bucket] = {}
        self._stored: list[tuple[str, int]] = []

    def close(self) -> None:
        """Close all connections."""
        self._queue.close()
        for bucket in self._buckets.values():
            bucket.close()

    def send(self, given: list[Record], deadline: float) -> list[Outcome]:
        """Store large events, then send the records, before `deadline`. Returns an outcome for each, in order."""
        prepared = [self._store(record, deadline) for record in given]
        ready = [entry for entry in prepared if not isinstance(entry, Outcome)]
        sent = iter(self._queue.send(ready, deadline) if ready else [])
        outcomes = [entry if isinstance(entry, Outcome) else next(sent) for entry in prepared]
        return [
            self._smaller(record, outcome, deadline) if outcome.kind == TOO_LONG else outcome
            for record, outcome in zip(given, outcomes, strict=True)
        ]

    def _store(self, record: Record, deadline: float) -> Record | Outcome:
        """Store the record's event if it has one to store. Returns what goes onto the queue, or why nothing does."""
        event = record.large_event
        if (
            event is None or (record.id, len(event)) in self._stored
        ):  # by an earlier try, whose message was not accepted
            return record
        name, key = records.place(record)
        try:
            self._bucket(name).put(key, _gzip(event), _HEADERS, deadline)
        except NotNow as error:
            return Outcome(LATER, str(error))
        except (Closed, ValueError) as error:
            # Better the start of the event, marked as cut, than nothing of the failure.
            return records.take_back(record, records.QUEUE_LIMIT) or Outcome(REFUSED, str(error))
        self._stored = [*self._stored[-_REMEMBERED:], (record.id, len(event))]
        return record

    def _smaller(self, record: Record, outcome: Outcome, deadline: float) -> Outcome:
        """The queue has a lower limit: so the event goes to the bucket. Where that does not help, the caller cuts it."""
        out = records.check_in(record, self._bucket_name)
        if out is record or not records.fits(out, outcome.limit):
            return outcome
        stored = self._store(out, deadline)
        if isinstance(stored, Outcome):
            return stored
        return self._queue.send([stored], deadline)[0] if stored.large_event is not None else outcome

    def _bucket(self, name: str) -> Bucket:
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = self._open_bucket(name)
        return bucket


def _gzip(data: bytes) -> bytes:
    """Return data as gzip. Level 1: small functions have a fraction of a core, and the sender waits."""
    import zlib

    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()
