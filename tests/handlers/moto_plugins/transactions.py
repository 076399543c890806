"""moto copies the whole table before each transaction, and lets threads run into one: here only what the transaction
names is copied,
and one write is made at a time."""

from __future__ import annotations

import copy
import threading
from collections import defaultdict
from functools import wraps
from types import SimpleNamespace
from typing import Any

from moto.dynamodb import models
from moto.dynamodb.models import DynamoDBBackend
from moto.dynamodb.models.table import Table

_lock = threading.RLock()
_named = threading.local()
_WRITES = ("put_item", "update_item", "delete_item", "transact_write_items")


def _partitions(transact_items: list[dict[str, Any]]) -> set[str]:
    """The partition keys' values that a transaction names. Tables here have string keys called `id`."""
    keys = (next(iter(item.values())) for item in transact_items)
    return {str((one.get("Key") or one["Item"])["id"]["S"]) for one in keys}


def _deepcopy(value: Any, memo: dict[int, Any] | None = None) -> Any:
    names = getattr(_named, "partitions", None)
    if not isinstance(value, Table) or names is None:
        return copy.deepcopy(value, memo)
    snapshot = copy.copy(value)
    kept: Any = defaultdict(dict, value.items)
    for partition in [one for one in value.items if one.value in names]:
        kept[partition] = copy.deepcopy(value.items[partition])
    for missing in names - {one.value for one in kept}:
        assert missing not in kept
    snapshot.items = kept
    return snapshot


def _one_at_a_time(method: Any) -> Any:
    @wraps(method)
    def run(self: DynamoDBBackend, *args: Any, **kwargs: Any) -> Any:
        with _lock:
            if method.__name__ == "transact_write_items":
                _named.partitions = _partitions(kwargs.get("transact_items") or args[0])
            try:
                return method(self, *args, **kwargs)
            finally:
                if method.__name__ == "transact_write_items":
                    _named.partitions = None

    run._one_at_a_time = True  # type: ignore[attr-defined]
    return run


def install() -> None:
    models.copy = SimpleNamespace(deepcopy=_deepcopy, copy=copy.copy)  # type: ignore[attr-defined,assignment]
    for name in _WRITES:
        method = getattr(DynamoDBBackend, name)
        if not getattr(method, "_one_at_a_time", False):
            setattr(DynamoDBBackend, name, _one_at_a_time(method))
