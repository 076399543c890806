"""The fingerprint that groups failures with one cause: the same error at the same place, whatever ids and numbers it carries."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from extension.outcome import ErrorSummary

_TOP_FRAMES = 5
_UUID_SHAPE = [8, 4, 4, 4, 12]
_HEX = frozenset("0123456789abcdefABCDEF")
_KEEP = "-_."


def normalise(text: str) -> str:
    """Return text with numbers, ids and addresses replaced by `#`: words stay, and a word with a digit in it does not.

    >>> normalise("order 4711 of 0x7ffd12 failed (3c0b5b1e-0f5c-5d0e-9c8f-6f1d2a4b7e60)")
    'order # of # failed #'
    """
    spaced = "".join(letter if letter.isalnum() or letter in _KEEP else " " for letter in text[:8_192])
    words: list[str] = []
    for word in spaced.split():
        normal = "#" if _is_id(word) else word
        if normal != "#" or not words or words[-1] != "#":
            words.append(normal)
    return " ".join(words)


def _is_id(word: str) -> bool:
    if any(letter.isdigit() for letter in word):
        return True
    pieces = word.split("-")
    if [len(piece) for piece in pieces] == _UUID_SHAPE:
        return True
    return len(word) >= 16 and _HEX.issuperset(word)


def fingerprint(function_name: str, condition: str, summary: ErrorSummary) -> str:
    """Return 16 hexadecimal digits of function, condition, error type, and the top frames or else the message."""
    from hashlib import sha256

    place = summary.frames[:_TOP_FRAMES] or [summary.message]
    parts = [function_name, condition, summary.type, *map(normalise, place)]
    return sha256("\n".join(parts).encode("utf-8", "replace")).hexdigest()[:16]
