"""How many writes a second each partition key gets, by the key design. Pure arithmetic; docs/redrive.md tells it in words.

DynamoDB gives one partition 1,000 write units a second; one unit is 1 KB, a transaction takes two for one
(Developer Guide, "Best practices for designing and using partition keys effectively", "Read/write capacity mode").
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from handlers.redrive.keys import SHARDS

PARTITION_WRITE_UNITS = 1000
TRANSACTION_FACTOR = 2
_INDEX_ENTRY_BYTES = 512


@dataclass(frozen=True, slots=True)
class Load:
    """Failures collected and replays finished, a second; sizes in bytes of one failure's items."""

    failures_per_s: float
    replays_per_s: float = 0.0
    head_bytes: int = 2048
    body_bytes: int = 4096


def units(size_bytes: int) -> int:
    """Return the write units of an item."""
    return max(1, math.ceil(size_bytes / 1024))


def hottest_keys(load: Load) -> dict[str, float]:
    """Return the write units a second of the busiest partition key of each kind, in the worst case:
    all failures of one function, one cause and one status, and all replays of one redrive.

    Failures' and requests' own items are one key each, so their number there is that of one failure.
    """
    in_transaction = TRANSACTION_FACTOR
    return {
        "failure": units(load.body_bytes) + in_transaction * units(load.head_bytes),
        "request": in_transaction * 1 + 1,
        # the count in the transaction, and the last time seen
        "tally": load.failures_per_s / SHARDS * (in_transaction + 1),
        "group index": load.failures_per_s / SHARDS * units(_INDEX_ENTRY_BYTES),
        "function index": load.failures_per_s / SHARDS * units(_INDEX_ENTRY_BYTES),
        # a new failure's entry, and for each replay one taken out of `captured` and one put into `inflight`
        "status index": (load.failures_per_s + load.replays_per_s) / SHARDS * units(_INDEX_ENTRY_BYTES),
        # claimed, then its outcome; both in transactions
        "redrive entries": load.replays_per_s / SHARDS * 2 * in_transaction,
        # only failed and ambiguous replays count on the redrive's own item; at most as many as are tolerated
        "redrive": load.replays_per_s,
    }


def units_per_failure(load: Load) -> int:
    """Return the table's and its indexes' write units for one collected failure."""
    transaction = TRANSACTION_FACTOR * (units(load.head_bytes) + 1 + 1)
    indexes = 3 * units(_INDEX_ENTRY_BYTES)
    return units(load.body_bytes) + transaction + 1 + indexes
