"""Keys of the single table `Failures`, and how they spread. Pure.

Every item has `id` (partition key), `sk` (sort key) and `itemType`, as the tables behind the pipe have.

| itemType | id | sk |
| --- | --- | --- |
| Failure | FAILURE#<id> | FAILURE#<id> |
| Body: the event's bytes, logs, the runtime's error | FAILURE#<id> | BODY |
| Sighting: this request id was captured as that failure | REQUEST#<request id> | FAILURE#<id> |
| Exhausted: AWS retries this request no more | REQUEST#<request id> | EXHAUSTED |
| Replay: this request id was a replay of that root | REQUEST#<request id> | REPLAY |
| Group | GROUP#<fingerprint> | GROUP#<fingerprint> |
| Tally: a part of a group's counts | TALLY#<fingerprint>#<shard> | TALLY |
| Redrive | REDRIVE#<id> | REDRIVE#<id> |
| Entry: what a redrive did with a failure | ENTRIES#<redrive>#<shard> | FAILURE#<id> |
| Poison: a queue whose messages came back | QUEUE#<arn> | POISON |

A failure's id is a hash, so its own items spread by themselves. What many failures share (a group, a function, a
status, a redrive)
has the failure's shard in its key: `docs/redrive.md` has the arithmetic, `capacity.py` computes it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

SHARDS = 16

GROUP_INDEX = "byGroup"
FUNCTION_INDEX = "byFunction"
STATUS_INDEX = "byStatus"

_NAMESPACE = b"backstop:failure:"


def shard(failure_id: str) -> int:
    """Return a failure's shard, 0 to SHARDS - 1: the same for ever, so that a shared counter is found again."""
    return hashlib.sha256(failure_id.encode()).digest()[0] % SHARDS


def shards() -> Iterator[int]:
    """Every shard."""
    return iter(range(SHARDS))


def failure(failure_id: str) -> dict[str, str]:
    """Key of a failure."""
    return {"id": f"FAILURE#{failure_id}", "sk": f"FAILURE#{failure_id}"}


def body(failure_id: str) -> dict[str, str]:
    """Key of a failure's event, logs and error."""
    return {"id": f"FAILURE#{failure_id}", "sk": "BODY"}


def request(request_id: str) -> str:
    """Partition of all that is known of a request id."""
    return f"REQUEST#{request_id}"


def sighting(request_id: str, failure_id: str) -> dict[str, str]:
    """Key of the note that a request id was captured as this failure."""
    return {"id": request(request_id), "sk": f"FAILURE#{failure_id}"}


def exhausted(request_id: str) -> dict[str, str]:
    """Key of the note that AWS retries a request no more."""
    return {"id": request(request_id), "sk": "EXHAUSTED"}


def replay(request_id: str) -> dict[str, str]:
    """Key of the note that a request id was one of our replays."""
    return {"id": request(request_id), "sk": "REPLAY"}


def group(fingerprint: str) -> dict[str, str]:
    """Key of a group."""
    return {"id": f"GROUP#{fingerprint}", "sk": f"GROUP#{fingerprint}"}


def tally(fingerprint: str, part: int) -> dict[str, str]:
    """Key of one shard of a group's counts."""
    return {"id": f"TALLY#{fingerprint}#{part:02d}", "sk": "TALLY"}


def redrive(redrive_id: str) -> dict[str, str]:
    """Key of a redrive."""
    return {"id": f"REDRIVE#{redrive_id}", "sk": f"REDRIVE#{redrive_id}"}


def entries(redrive_id: str, part: int) -> str:
    """Partition of one shard of a redrive's entries."""
    return f"ENTRIES#{redrive_id}#{part:02d}"


def entry(redrive_id: str, failure_id: str) -> dict[str, str]:
    """Key of what a redrive did with a failure."""
    return {"id": entries(redrive_id, shard(failure_id)), "sk": f"FAILURE#{failure_id}"}


def poison(queue_arn: str) -> dict[str, str]:
    """Key of the mark of a queue whose messages came back."""
    return {"id": f"QUEUE#{queue_arn}", "sk": "POISON"}


def group_part(fingerprint: str, part: int) -> str:
    """Partition of GROUP_INDEX."""
    return f"{fingerprint}#{part:02d}"


def function_part(function: str, part: int) -> str:
    """Partition of FUNCTION_INDEX."""
    return f"{function}#{part:02d}"


def status_part(status: str, part: int) -> str:
    """Partition of STATUS_INDEX."""
    return f"{status}#{part:02d}"


def seen(timestamp: str, failure_id: str) -> str:
    """Sort key of every index: by time, then by id."""
    return f"{timestamp}#{failure_id}"


def derived_id(*parts: str) -> str:
    """Return a UUIDv8-like id (RFC 9562, section 5.8) for a failure that AWS recorded and no sidecar did: the same
    parts, the same id."""
    digest = bytearray(hashlib.sha256(_NAMESPACE + "\n".join(parts).encode("utf-8", "replace")).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    text = digest.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
