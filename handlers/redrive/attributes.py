"""Python values to DynamoDB's attribute values and back. Pure but for boto3's own converters."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from boto3.dynamodb.types import Binary, TypeDeserializer, TypeSerializer

if TYPE_CHECKING:
    from types_boto3_dynamodb.type_defs import AttributeValueTypeDef

_serializer = TypeSerializer()
_deserializer = TypeDeserializer()


def to_item(values: Mapping[str, Any]) -> dict[str, AttributeValueTypeDef]:
    """Return an item as the low-level client takes it; members that are None are left out."""
    return {name: to_value(value) for name, value in values.items() if value is not None}


def to_value(value: Any) -> AttributeValueTypeDef:
    """Return one attribute value. Floats become Decimals: DynamoDB has no binary floats."""
    serialized: AttributeValueTypeDef = _serializer.serialize(_decimals(value))
    return serialized


def from_item(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return an item as plain Python values: whole numbers as int, others as float, binary as bytes."""
    return {name: _plain(_deserializer.deserialize(value)) for name, value in item.items()}


def size(values: Mapping[str, Any]) -> int:
    """Return an item's size in bytes as DynamoDB counts it, rounded up (Developer Guide, "DynamoDB item sizes and formats")."""
    return sum(len(name.encode()) + _size(value) for name, value in values.items() if value is not None)


def _size(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode("utf-8", "replace"))
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, bool) or value is None:
        return 1
    if isinstance(value, int | float | Decimal):
        return 21
    if isinstance(value, Mapping):
        return 3 + sum(1 + len(str(name).encode()) + _size(inner) for name, inner in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return 3 + sum(1 + _size(inner) for inner in value)
    raise TypeError(f"no attribute value: {type(value).__name__}")


def _decimals(value: Any) -> Any:
    if isinstance(value, float):
        return Decimal(repr(value))
    if isinstance(value, Mapping):
        return {name: _decimals(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_decimals(inner) for inner in value]
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, Binary):
        return bytes(value)  # type: ignore[call-overload]
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, set):
        return {_plain(inner) for inner in value}
    return value
