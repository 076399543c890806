"""JSON on CPython's C scanner and encoder, without importing `json`.

`import json` pulls in `re` and `enum`: about 6 ms, as much as the whole bare interpreter (DESIGN, "First figures").
The C parts live in the built-in module `_json`; this module is the thin layer that `json` would have put around them.
Tests hold it against `json` itself.
"""

from __future__ import annotations

import _json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_WHITESPACE = " \t\n\r"


def _reject_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON (RFC 8259, section 6)")


class _Plain:
    """What the C scanner reads its settings from."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float: Callable[[str], object] = float
    parse_int: Callable[[str], object] = int
    parse_constant = staticmethod(_reject_constant)
    memo: dict[str, str] = {}


class _Syntax(_Plain):
    """Numbers stay text: no digit limit, no loss, and no time spent on values nobody reads."""

    parse_float = str
    parse_int = str


_scan: Callable[[str, int], tuple[Any, int]] = _json.make_scanner(_Plain)  # type: ignore[arg-type]
scan_loose: Callable[[str, int], tuple[Any, int]] = _json.make_scanner(_Syntax)  # type: ignore[arg-type]


def _load(scan: Callable[[str, int], tuple[Any, int]], text: str) -> Any:
    start = len(text) - len(text.lstrip(_WHITESPACE))
    try:
        value, end = scan(text, start)
    except StopIteration as stop:
        raise ValueError(f"not JSON: no value at character {stop.value}") from None
    except (SystemError, ImportError):
        # The C scanner reports through json.decoder; CPython 3.11 finds it only where `json` was imported before.
        raise ValueError("not JSON: a string or a name is broken") from None
    except RecursionError:
        raise ValueError("not JSON that can be read: nested too deeply") from None
    if text[end:].strip(_WHITESPACE):
        raise ValueError(f"not JSON: more text after the value, at character {end}")
    return value


def loads(text: str) -> Any:
    """Read one JSON value.

    Raises ValueError for anything RFC 8259 does not allow, `NaN` and `Infinity` included.
    """
    return _load(_scan, text)


def loads_loose(text: str) -> Any:
    """Read one JSON value with its numbers left as text: for looking at an event's shape. Raises ValueError."""
    return _load(scan_loose, text)


def is_json(text: str) -> bool:
    """Tell whether `text` is exactly one JSON value, whatever the size of its numbers."""
    try:
        _load(scan_loose, text)
    except ValueError:
        return False
    return True


def quote(text: str, *, ascii_only: bool = False) -> str:
    """Return `text` as a JSON string, with its quotes. Lone surrogates need `ascii_only`."""
    return _json.encode_basestring_ascii(text) if ascii_only else _json.encode_basestring(text)


def _refuse(value: object) -> object:
    raise TypeError(f"{type(value).__name__} has no JSON form")


def dumps(value: object, *, ascii_only: bool = False) -> str:
    """Write a value of dicts, lists, strings, numbers, booleans and None as compact JSON.

    Raises TypeError for any other type, and ValueError for NaN and infinities.
    """
    encode = _json.make_encoder(
        None,
        _refuse,
        _json.encode_basestring_ascii if ascii_only else _json.encode_basestring,
        None,
        ":",
        ",",
        False,
        False,
        False,
    )
    return "".join(encode(value, 0))
