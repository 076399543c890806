"""An event's bytes: kept as they came, within a bound, and never mistaken for something that can stand in a message."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extension import payload
from extension.payload import Payload
from tests.extension.invocations import sqs_takes

PIECES = st.lists(st.binary(max_size=50), max_size=8)


@given(pieces=PIECES)
def test_what_arrives_in_pieces_is_kept_whole(pieces: list[bytes]) -> None:
    taken = Payload()
    for piece in pieces:
        assert taken.add(piece, 1_000) == len(piece)
    whole = b"".join(pieces)
    assert taken.raw() == taken.raw() == whole
    assert (taken.seen, taken.kept, taken.cut) == (len(whole), len(whole), False)
    assert taken.sha256() == hashlib.sha256(whole).hexdigest()


@given(pieces=PIECES, room=st.integers(0, 120), look=st.booleans())
def test_over_its_room_the_beginning_is_kept_and_everything_hashed(pieces: list[bytes], room: int, look: bool) -> None:
    taken = Payload()
    left = room
    for piece in pieces:
        kept = taken.add(piece, left)
        left -= kept
        assert left >= 0
        if look:
            taken.raw()
    whole = b"".join(pieces)
    assert taken.seen == len(whole)
    assert taken.kept == len(taken.raw()) == room - left
    assert taken.raw() == whole[: taken.kept]
    assert taken.cut is (taken.kept < len(whole))
    assert taken.sha256() == hashlib.sha256(whole).hexdigest()


def test_after_a_cut_nothing_more_is_kept_even_if_it_would_fit() -> None:
    """A gap in the middle would look like the event's beginning."""
    taken = Payload()
    assert taken.add(b"0123", 2) == 2
    assert taken.add(b"4", 100) == 0
    assert taken.raw() == b"01"
    assert taken.sha256() == hashlib.sha256(b"01234").hexdigest()


def test_an_event_that_is_not_kept_at_all_is_still_counted() -> None:
    taken = Payload()
    assert taken.add(b"0123", 0) == 0
    assert (taken.raw(), taken.seen, taken.cut) == (b"", 4, True)


JSON_TO_THE_LETTER = [
    b'{"a":1.00}',
    b'{"a":1,"a":2}',
    b"12345678901234567890",
    b"1E400",
    b"-0",
    '{"ключ":"значение 🎉"}'.encode(),
    b'"\\ud800"',
    b'"\\u0000"',
    b'"\\ufffe"',
    b' \r\n\t{ "a" : [ ] } \n',
    b"null",
    b'"\x7f"',
    '"\u2028\x85\ufdd0\U0001fffe"'.encode(),
    b"9" * 10_000,
    b"[" * 100 + b"]" * 100,
]

NOT_FOR_A_MESSAGE = [
    pytest.param(b"", id="empty"),
    pytest.param(b" ", id="blank"),
    pytest.param(b"plain text", id="not JSON"),
    pytest.param(b'{"a":1} {"b":2}', id="two values"),
    pytest.param(b'{"a":1}\x00', id="NUL behind it"),
    pytest.param(b'"\x00"', id="a raw NUL"),
    pytest.param(b'"\x1f"', id="a raw control character"),
    pytest.param(b'"\n"', id="a raw line feed in a string"),
    pytest.param("\ufeff{}".encode(), id="a byte order mark"),
    pytest.param('"\ufffe"'.encode(), id="U+FFFE raw"),
    pytest.param('"\uffff"'.encode(), id="U+FFFF raw"),
    pytest.param(b'"\xed\xa0\x80"', id="a lone surrogate raw"),
    pytest.param(b'"\xff"', id="not UTF-8"),
    pytest.param(b'"\xc0\x80"', id="an overlong NUL"),
    pytest.param('{"a":1}'.encode("utf-16"), id="UTF-16"),
    pytest.param(b"NaN", id="NaN"),
    pytest.param(b"[Infinity]", id="Infinity"),
    pytest.param(b"[" * 200_000 + b"]" * 200_000, id="nested too deeply to be sure"),
]


@pytest.mark.parametrize("raw", JSON_TO_THE_LETTER, ids=lambda raw: ascii(raw)[:30])
def test_json_that_a_message_may_hold_is_spliced(raw: bytes) -> None:
    assert payload.spliceable(raw)


@pytest.mark.parametrize("raw", NOT_FOR_A_MESSAGE)
def test_anything_else_is_not(raw: bytes) -> None:
    assert not payload.spliceable(raw)


@given(
    raw=st.one_of(
        st.binary(max_size=40),
        st.text(max_size=40).map(lambda text: json.dumps(text, ensure_ascii=False).encode("utf-8", "surrogatepass")),
    )
)
def test_whatever_is_spliced_is_json_that_sqs_takes(raw: bytes) -> None:
    if payload.spliceable(raw):
        text = raw.decode()
        json.loads(text)
        assert all(sqs_takes(ord(character)) for character in text)


@given(raw=st.binary())
def test_base64_there_and_back(raw: bytes) -> None:
    text = payload.to_base64(raw)
    assert isinstance(json.loads(text), str)
    assert payload.from_base64(text) == raw
