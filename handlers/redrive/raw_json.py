"""Where a value stands in a JSON text, so that its bytes can be taken as they were written.

A parser loses what a replay must keep: `1.00`, two equal keys, a 20-digit integer.
"""

from __future__ import annotations

import json

_BLANK = " \t\r\n"
# Numbers stay text: they are only passed over here, and Python refuses to read one of over 4,300 digits.
_decoder = json.JSONDecoder(parse_int=str, parse_float=str)


def value_text(text: str, *path: str) -> str | None:
    """Return the text of the value at `path` (keys of nested objects), or None if a key is not there.

    Of two equal keys the last counts, as for every parser (RFC 8259, section 4, leaves it open). Raises ValueError
    where the text is not JSON.
    """
    start, end = 0, len(text)
    for key in path:
        span = _member(text, start, key)
        if span is None:
            return None
        start, end = span
    return text[start:end]


def _member(text: str, start: int, key: str) -> tuple[int, int] | None:
    position = _skip_blank(text, start)
    if text[position : position + 1] != "{":
        return None
    position = _skip_blank(text, position + 1)
    found = None
    while text[position : position + 1] != "}":
        name, position = _decoder.raw_decode(text, position)
        position = _skip_blank(text, position)
        if text[position : position + 1] != ":":
            raise ValueError(f"no colon at character {position}")
        value_start = _skip_blank(text, position + 1)
        _, value_end = _decoder.raw_decode(text, value_start)
        if name == key:
            found = (value_start, value_end)
        position = _skip_blank(text, value_end)
        if text[position : position + 1] == ",":
            position = _skip_blank(text, position + 1)
        elif text[position : position + 1] != "}":
            raise ValueError(f"no comma at character {position}")
    return found


def _skip_blank(text: str, position: int) -> int:
    while text[position : position + 1] and text[position] in _BLANK:
        position += 1
    return position
