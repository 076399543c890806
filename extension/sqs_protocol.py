"""The failure queue's protocol, without I/O: messages out of records, and what an answer means for each of them.

Sources: Amazon SQS API Reference, SendMessage and SendMessageBatch; Developer Guide, "Amazon SQS message quotas".
"""

from __future__ import annotations

from extension.aws_error import Failure, read_object

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from extension.record import Record

ACCEPTED, RETRY, REFUSED, TOO_LONG, DENIED = "accepted", "retry", "refused", "too long", "denied"
LATER = "later"

MESSAGE_LIMIT = 1_048_576
BATCH_ENTRIES = 10
_LEAST_LIMIT = 1_024  # the smallest MaximumMessageSize that a queue can have
_OLDER_LIMIT = 262_144
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_GROUP_CHARACTERS = frozenset(_LETTERS + "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
_LATER = frozenset(
    (
        *("Throttling", "Throttled", "RequestThrottled", "TooManyRequests", "RequestLimitExceeded", "SlowDown"),
        *("BandwidthLimitExceeded", "PriorRequestNotComplete", "ProvisionedThroughputExceeded", "OverLimit"),
        *("KmsThrottled", "KMS.Throttling", "RequestTimeout", "InternalError", "InternalFailure"),
        *("InternalServerError", "ServiceUnavailable"),
    )
)
# What is wrong with one message. Any other error is about the queue, the caller or the key: about every message.
_ABOUT_THE_MESSAGE = frozenset(
    (
        *("InvalidMessageContents", "InvalidParameterValue", "InvalidParameterCombination", "MissingParameter"),
        *("InvalidAttributeValue", "Validation", "ValidationError"),
    )
)
_TOO_LONG = frozenset(("MessageTooLong", "BatchRequestTooLong"))


class Outcome:
    """What became of one record.

    `kind` is ACCEPTED; RETRY (try later); REFUSED (SQS will never take this record); TOO_LONG (it may take one whose
    message has at most `limit` bytes); DENIED (the queue as a whole is closed to us: permission, name, key); LATER (its event
    cannot be stored now: not in this ship, and no other record is concerned).
    """

    __slots__ = ("kind", "limit", "reason")

    def __init__(self, kind: str, reason: str = "", limit: int = 0) -> None:
        self.kind = kind
        self.reason = reason
        self.limit = limit

    @property
    def about_all(self) -> bool:
        """Whether the next record would fare the same."""
        return self.kind in (RETRY, DENIED)


def attributes(record: Record) -> dict[str, str]:
    """Return the message attributes by which consumers filter without reading a body. SQS refuses empty ones."""
    named = {
        "backstop.id": record.id,
        "backstop.function": record.function,
        "backstop.condition": record.condition,
        "backstop.fingerprint": record.fingerprint,
    }
    return {name: value for name, value in named.items() if value}


def message_bytes(record: Record) -> int:
    """Return the size of a record's message as SQS counts it: the body and each attribute's name, type and value."""
    return len(record.body) + sum(len(f"{name}String{value}".encode()) for name, value in attributes(record).items())


def group_id(text: str) -> str:
    """Make a MessageGroupId: 1 to 128 letters, digits and punctuation marks."""
    return "".join(letter if letter in _GROUP_CHARACTERS else "-" for letter in text[:128]) or "-"


def message(record: Record, *, fifo: bool, grouped: bool) -> dict[str, Any]:
    """Return the members that SendMessage and an entry of SendMessageBatch share. Raises ValueError if not UTF-8.

    On a standard queue the group is the function (fair queues); on FIFO each record is its own, so none blocks another.
    """
    members: dict[str, Any] = {
        "MessageBody": record.body.decode(),
        "MessageAttributes": {
            name: {"DataType": "String", "StringValue": value} for name, value in attributes(record).items()
        },
    }
    if fifo:
        members["MessageGroupId"] = members["MessageDeduplicationId"] = group_id(record.id)
    elif grouped:
        members["MessageGroupId"] = group_id(record.function)
    return members


def batches(records: list[Record], limit: int) -> list[list[Record]]:
    """Cut a list into batches of at most 10 entries and `limit` bytes, in order. One over the limit goes alone."""
    cut: list[list[Record]] = []
    room = 0
    for record in records:
        size = message_bytes(record)
        if not cut or size > room or len(cut[-1]) == BATCH_ENTRIES:
            cut.append([])
            room = limit
        cut[-1].append(record)
        room -= size
    return cut


def named_limit(text: str) -> int | None:
    """Find the limit in `... must be shorter than 262144 bytes` or `... cannot be longer than 262144 bytes`."""
    for phrase in ("shorter than ", "longer than "):
        number = text.partition(phrase)[2].partition(" ")[0]
        if number.isascii() and number.isdigit() and len(number) < 10 and int(number) >= _LEAST_LIMIT:
            return int(number)
    return None


def judge(failure: Failure, size: int) -> Outcome:
    """Return what an error means for a message of `size` bytes."""
    reason = f"{failure.code}: {failure.message}" if failure.message else failure.code
    code = failure.code.removeprefix("AWS.SimpleQueueService.")
    if failure.status in (408, 429) or failure.status >= 500 or code in _LATER:
        return Outcome(RETRY, reason)
    limit = named_limit(failure.message)
    if code in _TOO_LONG or failure.status == 413 or (limit is not None and code in _ABOUT_THE_MESSAGE):
        # Where no limit is named (a 413 counts the request with its escapes), try what older queues take, then halves.
        return Outcome(TOO_LONG, reason, limit or (_OLDER_LIMIT if size > _OLDER_LIMIT else size // 2))
    if code in _ABOUT_THE_MESSAGE:
        return Outcome(REFUSED, reason)
    return Outcome(DENIED, reason)


def about_the_batch(failure: Failure) -> bool:
    """Tell whether an error may be the fault of one entry, or of the batch itself, so that its entries may go alone."""
    code = failure.code.removeprefix("AWS.SimpleQueueService.")
    about_batching = ("TooManyEntriesInBatchRequest", "BatchEntryIdsNotDistinct", "InvalidBatchEntryId")
    return code in about_batching or judge(failure, _LEAST_LIMIT).kind in (REFUSED, TOO_LONG)


def read_sent(body: bytes) -> Outcome:
    """Read a successful answer to SendMessage. Only a message's id says that SQS took it: any middleman can say 200."""
    if _is_message_id(read_object(body).get("MessageId")):
        return Outcome(ACCEPTED)
    return Outcome(RETRY, "an answer without a MessageId: something other than SQS answered")


def read_batch(body: bytes, batch: list[Record]) -> list[Outcome]:
    """Read a successful answer to SendMessageBatch, whose entries' ids are their indexes in `batch`."""
    fields = read_object(body)
    found: dict[str, Outcome] = {}
    for entry in _objects(fields.get("Successful")):
        if _is_message_id(entry.get("MessageId")):
            found[str(entry.get("Id"))] = Outcome(ACCEPTED)
    for entry in _objects(fields.get("Failed")):
        key, code, text = (str(entry.get(name) or "") for name in ("Id", "Code", "Message"))
        failure = Failure(400 if entry.get("SenderFault") else 500, code or "no code", text[:1_024])
        index = int(key) if key.isascii() and key.isdigit() and len(key) < 3 else len(batch)
        if index < len(batch):
            outcome = judge(failure, message_bytes(batch[index]))
            if outcome.kind == DENIED and not code.startswith(("Kms", "AccessDenied")):
                outcome = Outcome(REFUSED, outcome.reason)  # said of one entry only: it must not stop the others
            found.setdefault(key, outcome)
    missing = Outcome(RETRY, "an answer that does not name every entry: something other than SQS answered")
    return [found.get(str(index), missing) for index in range(len(batch))]


def _is_message_id(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _objects(values: object) -> list[dict[str, Any]]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []
