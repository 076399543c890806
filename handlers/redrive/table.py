"""The table, as few operations as the handlers need. Values are plain Python; conflicts come back as answers, not as
exceptions."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from handlers.redrive import keys
from handlers.redrive.attributes import from_item, to_item, to_value

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_dynamodb.type_defs import TransactWriteItemTypeDef

_CONFLICT_TRIES = 8
_FIRST_WAIT_S = 0.02
_LONGEST_WAIT_S = 1.0
_BATCH_GET = 100
_BATCH_WRITE = 25
_BATCH_TRIES = 10


@dataclass(frozen=True, slots=True)
class Change:
    """One conditional write. `sets` and `adds` are attributes (values None are removed); `condition` uses #name and
    :name placeholders
    whose names and values are filled in from `names` (attributes) and `values`."""

    key: Mapping[str, str]
    sets: Mapping[str, Any] = field(default_factory=dict)
    adds: Mapping[str, Any] = field(default_factory=dict)
    once: Mapping[str, Any] = field(default_factory=dict)
    condition: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)

    def arguments(self, table: str) -> dict[str, Any]:
        """Return the arguments of UpdateItem. `once` sets an attribute only where it is not there."""
        names: dict[str, str] = {}
        values: dict[str, Any] = {}
        clauses: dict[str, list[str]] = {"SET": [], "REMOVE": [], "ADD": []}
        for index, (name, value) in enumerate(self.sets.items()):
            names[f"#SET_{index}"] = name
            if value is None:
                clauses["REMOVE"].append(f"#SET_{index}")
            else:
                clauses["SET"].append(f"#SET_{index} = :SET_{index}")
                values[f":SET_{index}"] = to_value(value)
        for index, (name, value) in enumerate(self.once.items()):
            names[f"#ONCE_{index}"] = name
            clauses["SET"].append(f"#ONCE_{index} = if_not_exists(#ONCE_{index}, :ONCE_{index})")
            values[f":ONCE_{index}"] = to_value(value)
        for index, (name, value) in enumerate(self.adds.items()):
            names[f"#ADD_{index}"] = name
            clauses["ADD"].append(f"#ADD_{index} :ADD_{index}")
            values[f":ADD_{index}"] = to_value(value)
        arguments: dict[str, Any] = {
            "TableName": table,
            "Key": to_item(self.key),
            "UpdateExpression": " ".join(f"{verb} {', '.join(parts)}" for verb, parts in clauses.items() if parts),
        }
        if self.condition is not None:
            arguments["ConditionExpression"] = self.condition
            names |= {f"#{word}": word for word in _placeholders(self.condition, "#")}
            values |= {f":{word}": to_value(self.values[word]) for word in _placeholders(self.condition, ":")}
        if names:
            arguments["ExpressionAttributeNames"] = names
        if values:
            arguments["ExpressionAttributeValues"] = values
        return arguments


@dataclass(frozen=True, slots=True)
class Insert:
    """One conditional put of a whole item."""

    item: Mapping[str, Any]
    condition: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)

    def arguments(self, table: str) -> dict[str, Any]:
        """Return the arguments of PutItem."""
        arguments: dict[str, Any] = {"TableName": table, "Item": to_item(self.item)}
        if self.condition is not None:
            arguments["ConditionExpression"] = self.condition
            names = {f"#{word}": word for word in _placeholders(self.condition, "#")}
            values = {f":{word}": to_value(self.values[word]) for word in _placeholders(self.condition, ":")}
            if names:
                arguments["ExpressionAttributeNames"] = names
            if values:
                arguments["ExpressionAttributeValues"] = values
        return arguments


def _placeholders(expression: str, sign: str) -> set[str]:
    words = "".join(letter if letter.isalnum() or letter in "#:_" else " " for letter in expression).split()
    return {word[1:] for word in words if word.startswith(sign)}


class Conflict(RuntimeError):
    """Others kept writing the same items; the caller's message or task is to be tried again later."""


class Table:
    """DynamoDB behind the names the handlers use."""

    def __init__(
        self, client: DynamoDBClient, name: str, sleep: Callable[[float], None] = time.sleep, seed: int | None = None
    ) -> None:
        self._client = client
        self.name = name
        self._sleep = sleep
        self._random = random.Random(seed)

    def get(self, key: Mapping[str, str], *, consistent: bool = True) -> dict[str, Any] | None:
        """Return an item, or None."""
        answer = self._client.get_item(TableName=self.name, Key=to_item(key), ConsistentRead=consistent)
        return from_item(answer["Item"]) if "Item" in answer else None

    def get_many(self, wanted: Sequence[Mapping[str, str]], *, consistent: bool = True) -> list[dict[str, Any]]:
        """Return the items that are there, in no order. Raises Conflict where DynamoDB kept leaving keys out (throttling)."""
        items: list[dict[str, Any]] = []
        for start in range(0, len(wanted), _BATCH_GET):
            left: Any = {
                self.name: {
                    "Keys": [to_item(key) for key in wanted[start : start + _BATCH_GET]],
                    "ConsistentRead": consistent,
                }
            }
            for attempt in range(_BATCH_TRIES):
                answer = self._client.batch_get_item(RequestItems=left)
                items += map(from_item, answer["Responses"].get(self.name, []))
                left = answer.get("UnprocessedKeys")
                if not left:
                    break
                self._back_off(attempt)
            else:
                raise Conflict("DynamoDB left keys out of every answer: the table is throttled")
        return items

    def query(
        self,
        partition: str,
        *,
        index: str | None = None,
        attribute: str = "id",
        sort: str = "sk",
        between: tuple[str, str] | None = None,
        newest_first: bool = False,
        page_size: int | None = None,
        start: Mapping[str, Any] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Yield a partition's items in the order of the sort key; consistent where there is no index."""
        arguments: dict[str, Any] = {
            "TableName": self.name,
            "KeyConditionExpression": "#p = :p",
            "ExpressionAttributeNames": {"#p": attribute},
            "ExpressionAttributeValues": {":p": to_value(partition)},
            "ScanIndexForward": not newest_first,
        }
        if between is not None:
            arguments["KeyConditionExpression"] += " AND #s BETWEEN :low AND :high"
            arguments["ExpressionAttributeNames"]["#s"] = sort
            arguments["ExpressionAttributeValues"] |= {":low": to_value(between[0]), ":high": to_value(between[1])}
        if index is not None:
            arguments["IndexName"] = index
        else:
            arguments["ConsistentRead"] = True
        if page_size is not None:
            arguments["Limit"] = page_size
        if start is not None:
            arguments["ExclusiveStartKey"] = to_item(start)
        while True:
            answer = self._client.query(**arguments)
            yield from map(from_item, answer["Items"])
            if "LastEvaluatedKey" not in answer:
                return
            arguments["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def change(self, change: Change) -> bool:
        """Write, and return whether the condition held."""
        return self._conditional(self._client.update_item, change.arguments(self.name))

    def insert(self, insert: Insert) -> bool:
        """Write, and return whether the condition held."""
        return self._conditional(self._client.put_item, insert.arguments(self.name))

    def remove(self, wanted: Sequence[Mapping[str, str]]) -> None:
        """Delete items, there or not."""
        for start in range(0, len(wanted), _BATCH_WRITE):
            left: Any = {
                self.name: [{"DeleteRequest": {"Key": to_item(key)}} for key in wanted[start : start + _BATCH_WRITE]]
            }
            for attempt in range(_BATCH_TRIES):
                left = self._client.batch_write_item(RequestItems=left).get("UnprocessedItems")
                if not left:
                    break
                self._back_off(attempt)
            else:
                raise Conflict("DynamoDB did not take every deletion: the table is throttled")

    def transact(self, *writes: Change | Insert) -> list[bool] | None:
        """Write all or nothing. Returns None when written, else for each write whether its own condition held.

        Raises Conflict where other transactions kept holding the items.
        """
        items: list[TransactWriteItemTypeDef] = []
        for write in writes:
            arguments: Any = write.arguments(self.name)
            items.append({"Update": arguments} if isinstance(write, Change) else {"Put": arguments})
        for attempt in range(_CONFLICT_TRIES):
            try:
                self._client.transact_write_items(TransactItems=items)
            except self._client.exceptions.TransactionCanceledException as error:
                reasons = [reason.get("Code") for reason in error.response.get("CancellationReasons", [])]
                if "ConditionalCheckFailed" in reasons:
                    return [reason != "ConditionalCheckFailed" for reason in reasons]
                if not {"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"} & set(reasons):
                    raise
                self._back_off(attempt)
            else:
                return None
        raise Conflict("other writes kept holding the same items")

    def _conditional(self, call: Callable[..., Any], arguments: dict[str, Any]) -> bool:
        for attempt in range(_CONFLICT_TRIES):
            try:
                call(**arguments)
            except ClientError as error:
                code = error.response.get("Error", {}).get("Code")
                if code == "ConditionalCheckFailedException":
                    return False
                if code != "TransactionConflictException":
                    raise
                self._back_off(attempt)
            else:
                return True
        raise Conflict("other writes kept holding the same item")

    def _back_off(self, attempt: int) -> None:
        self._sleep(self._random.uniform(0, min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2**attempt)))


def definition(name: str) -> dict[str, Any]:
    """Return CreateTable's arguments: what template.yaml declares, for tests and local stand-ins."""

    def index(index_name: str, partition: str) -> dict[str, Any]:
        return {
            "IndexName": index_name,
            "KeySchema": [
                {"AttributeName": partition, "KeyType": "HASH"},
                {"AttributeName": "seenKey", "KeyType": "RANGE"},
            ],
            "Projection": {"ProjectionType": "KEYS_ONLY"},
        }

    attributes = ("id", "sk", "groupPart", "functionPart", "statusPart", "seenKey")
    return {
        "TableName": name,
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{"AttributeName": one, "AttributeType": "S"} for one in attributes],
        "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        "GlobalSecondaryIndexes": [
            index(keys.GROUP_INDEX, "groupPart"),
            index(keys.FUNCTION_INDEX, "functionPart"),
            index(keys.STATUS_INDEX, "statusPart"),
        ],
        "StreamSpecification": {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    }
