"""The event of an invocation in flight: its bytes as they came, within a bound, and the form in which they go into a record."""

from __future__ import annotations

from extension import fastjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hashlib import _Hash


class Payload:
    """An event's bytes. Over its bound the rest is counted and hashed, but not kept. `whole` once its last byte has passed."""

    __slots__ = ("_digest", "_parts", "cut", "kept", "seen", "whole")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._digest: _Hash | None = None
        self.seen = 0
        self.kept = 0
        self.cut = False
        self.whole = False

    def add(self, part: bytes, room: int) -> int:
        """Take the next bytes, of which at most `room` may be kept. Returns how many were."""
        self.seen += len(part)
        if not self.cut and len(part) <= room:
            self._parts.append(part)
            self.kept += len(part)
            return len(part)
        if not self.cut:
            self.cut = True
            self._digest = _sha256()
            for kept in self._parts:
                self._digest.update(kept)
            head = part[: max(room, 0)]
            self._parts.append(head)
            self.kept += len(head)
        else:
            head = b""
        assert self._digest is not None
        self._digest.update(part)
        return len(head)

    def raw(self) -> bytes:
        """Return the kept bytes in one piece."""
        if len(self._parts) != 1:
            self._parts = [b"".join(self._parts)]
        return self._parts[0]

    def sha256(self) -> str:
        """Return the hash of the whole event, kept or not, in hexadecimal."""
        digest = self._digest
        if digest is None:
            digest = _sha256()
            digest.update(self.raw())
        return digest.hexdigest()


def _sha256() -> _Hash:
    from hashlib import sha256

    return sha256()


def sha256_hex(raw: bytes) -> str:
    """Return the hash of bytes in hexadecimal."""
    digest = _sha256()
    digest.update(raw)
    return digest.hexdigest()


def spliceable(raw: bytes) -> bool:
    """Tell whether an event can stand verbatim inside a record: UTF-8 JSON, and nothing that SQS refuses in a message.

    SQS takes #x9, #xA, #xD, #x20 to #xD7FF, #xE000 to #xFFFD and #x10000 to #x10FFFF (SendMessage, MessageBody).
    JSON allows no other control character outside an escape, and UTF-8 no lone surrogate, so two characters are left.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return "\ufffe" not in text and "\uffff" not in text and fastjson.is_json(text)


def to_base64(raw: bytes) -> bytes:
    """Return bytes as a JSON string of base64."""
    from binascii import b2a_base64

    return b'"' + b2a_base64(raw, newline=False) + b'"'


def from_base64(text: bytes) -> bytes:
    """Undo `to_base64`."""
    from binascii import a2b_base64

    return a2b_base64(text[1:-1])
