"""moto copies the whole table before each transaction, reads it all for each query, and lets threads run into one another.

Here only what a transaction or query names is touched, and one request is served at a time. What comes out is the same.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from types import SimpleNamespace
from typing import Any

from moto.dynamodb import models
from moto.dynamodb.models import DynamoDBBackend
from moto.dynamodb.models.dynamo_type import DynamoType
from moto.dynamodb.models.table import Table

_lock = threading.RLock()
_ONE_AT_A_TIME = ("put_item", "update_item", "delete_item", "query", "scan", "get_item")
_original_transact = DynamoDBBackend.transact_write_items
_original_query = Table.query
_original_all_items = Table.all_items
_only = threading.local()


def _deepcopy(value: Any, memo: dict[int, Any] | None = None) -> Any:
    """moto's backup of a table is the table itself: `_restoring` puts back what a cancelled transaction has changed."""
    return value if isinstance(value, Table) and getattr(_only, "transaction", False) else copy.deepcopy(value, memo)


@contextmanager
def _restoring(backend: DynamoDBBackend, transact_items: list[dict[str, Any]]) -> Iterator[None]:
    saved: list[tuple[Table, DynamoType, Any]] = []
    for item in transact_items:
        operation = next(iter(item.values()))
        table = backend.tables[operation["TableName"]]
        partition = DynamoType((operation.get("Key") or operation["Item"])[table.hash_key_attr])
        saved.append((table, partition, copy.deepcopy(table.items.get(partition))))
    _only.transaction = True
    try:
        yield
    except Exception:
        for table, partition, former in saved:
            if former is None:
                table.items.pop(partition, None)
            else:
                table.items[partition] = former
        raise
    finally:
        _only.transaction = False


def _transact(self: DynamoDBBackend, transact_items: list[dict[str, Any]]) -> None:
    with _lock, _restoring(self, transact_items):
        _original_transact(self, transact_items)


def _query(self: Table, hash_key: Any, *args: Any, **kwargs: Any) -> Any:
    # The index's name is the eighth of moto's positional arguments.
    by_index = kwargs.get("index_name") or (len(args) > 6 and args[6])
    _only.partition = None if by_index else hash_key
    try:
        return _original_query(self, hash_key, *args, **kwargs)
    finally:
        _only.partition = None


def _all_items(self: Table) -> Any:
    partition = getattr(_only, "partition", None)
    if partition is None or not self.range_key_attr:
        return _original_all_items(self)
    return list(self.items[partition].values()) if partition in self.items else []


def _one_at_a_time(method: Any) -> Any:
    @wraps(method)
    def run(self: DynamoDBBackend, *args: Any, **kwargs: Any) -> Any:
        with _lock:
            return method(self, *args, **kwargs)

    return run


def install() -> None:
    if DynamoDBBackend.transact_write_items is _transact:
        return
    vars(models)["copy"] = SimpleNamespace(deepcopy=_deepcopy, copy=copy.copy)
    DynamoDBBackend.transact_write_items = _transact  # type: ignore[method-assign]
    Table.query = _query  # type: ignore[method-assign]
    Table.all_items = _all_items  # type: ignore[method-assign]
    for name in _ONE_AT_A_TIME:
        setattr(DynamoDBBackend, name, _one_at_a_time(getattr(DynamoDBBackend, name)))
