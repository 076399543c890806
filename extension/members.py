"""Finds the members of a JSON object or array as they stand in the text: a part of an event is kept to the letter."""

from __future__ import annotations

from extension import fastjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

_WHITESPACE = " \t\n\r"
_scan: Callable[[str, int], tuple[Any, int]] = fastjson.scan_loose


def object_members(text: str, start: int = 0) -> Iterator[tuple[str, int, int]]:
    """Yield name, start and end of each value in the object that begins at `start`. Raises ValueError."""
    at = _skip(text, start)
    if text[at : at + 1] != "{":
        raise ValueError("not a JSON object")
    at = _skip(text, at + 1)
    if text[at : at + 1] == "}":
        return
    while True:
        if text[at : at + 1] != '"':
            raise ValueError("a name that is not a string")
        name, at = _value(text, at)
        at = _expect(text, at, ":")
        begin = _skip(text, at)
        _, at = _value(text, begin)
        yield name, begin, at
        at = _skip(text, at)
        if text[at : at + 1] == "}":
            return
        at = _skip(text, _expect(text, at, ","))


def array_items(text: str, start: int = 0) -> Iterator[tuple[int, int]]:
    """Yield start and end of each item in the array that begins at `start`. Raises ValueError."""
    at = _skip(text, start)
    if text[at : at + 1] != "[":
        raise ValueError("not a JSON array")
    at = _skip(text, at + 1)
    if text[at : at + 1] == "]":
        return
    while True:
        begin = at
        _, at = _value(text, begin)
        yield begin, at
        at = _skip(text, at)
        if text[at : at + 1] == "]":
            return
        at = _skip(text, _expect(text, at, ","))


def _skip(text: str, at: int) -> int:
    while text[at : at + 1] in _WHITESPACE and at < len(text):
        at += 1
    return at


def _expect(text: str, at: int, mark: str) -> int:
    at = _skip(text, at)
    if text[at : at + 1] != mark:
        raise ValueError(f"{mark!r} is missing at character {at}")
    return at + 1


def _value(text: str, at: int) -> tuple[Any, int]:
    try:
        return _scan(text, at)
    except (StopIteration, RecursionError, SystemError, ImportError):
        raise ValueError(f"not JSON at character {at}") from None
