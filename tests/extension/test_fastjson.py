"""JSON on the C scanner: the same values as `json`, and for anything else a ValueError, never another exception."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from extension import fastjson

REPOSITORY = Path(__file__).parents[2]

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
)


def fresh(code: str) -> str:
    """Run code in an interpreter of its own, where nobody imported `json` before; returns what it printed."""
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n{code}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def json_reads(text: str) -> object:
    def refuse(constant: str) -> object:
        raise ValueError(constant)

    return json.loads(text, parse_constant=refuse)


# Reading


@given(value=VALUES, indent=st.sampled_from([None, 1]), ascii_only=st.booleans())
def test_reads_what_json_writes(value: object, indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert fastjson.loads(text) == value
    assert fastjson.loads(f" \r\n\t{text}\t\n\r ") == value
    assert fastjson.is_json(text)


TEXTS = [
    "",
    " ",
    "null",
    "nul",
    "nulll",
    "True",
    "-",
    "-0",
    "-0.0",
    "01",
    "1.",
    ".5",
    "1e",
    "1e5",
    "1E+5",
    "1.00",
    "1e400",
    "-1e400",
    "+1",
    "0x1",
    "1_000",
    "NaN",
    "Infinity",
    "-Infinity",
    "12345678901234567890",
    "1" * 5_000,
    '"',
    '"a',
    "'a'",
    '"\\',
    '"\\"',
    '"\\x"',
    '"\\u12"',
    '"\\u12g4"',
    '"\\ud800"',
    '"\\udc00\\ud800"',
    '"\\ud83d\\ude00"',
    '"\\u0000"',
    '"\x00"',
    '"\t"',
    '"\n"',
    '"\x7f\u2028\ufffe"',
    "[",
    "[]",
    "[1,]",
    "[,1]",
    "[1 2]",
    "[1",
    "]",
    "{",
    "{}",
    '{"a"}',
    '{"a":}',
    '{"a":1,}',
    '{"a":1,"a":2}',
    "{1:2}",
    "{a:1}",
    '{"a" :\t1 ,\n"b":[ ] }',
    "{}{}",
    "{} x",
    "\ufeff{}",
    "\xa0{}",
    "{}\x0b",
    "/* */1",
]


def outcome(read: object, text: str) -> str:
    assert callable(read)
    try:
        return repr(read(text))
    except ValueError:
        return "refused"


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: ascii(text[:30]))
def test_accepts_and_refuses_what_json_does(text: str) -> None:
    assert outcome(fastjson.loads, text) == outcome(json_reads, text)


@given(text=st.one_of(st.text(), st.text(alphabet='{}[]",:\\u0123456789eE+-. \n\ttrufalsnNI\ud800', max_size=20)))
@example(text="\ud800")
def test_any_text_is_read_alike_or_refused_alike(text: str) -> None:
    assert outcome(fastjson.loads, text) == outcome(json_reads, text)
    if fastjson.is_json(text):
        fastjson.loads_loose(text)
    else:
        assert outcome(fastjson.loads, text) == "refused"


@given(value=VALUES, place=st.integers(0), new=st.sampled_from(["", '"', "\\", "\x00", "[", "}", ",", "\ud800"]))
def test_damaged_json_is_read_alike_or_refused_alike(value: object, place: int, new: str) -> None:
    text = json.dumps(value)
    place %= len(text)
    damaged = text[:place] + new + text[place + 1 :]
    assert outcome(fastjson.loads, damaged) == outcome(json_reads, damaged)


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity", '{"a":[NaN]}'])
def test_constants_that_rfc_8259_does_not_know_are_refused(constant: str) -> None:
    for read in (fastjson.loads, fastjson.loads_loose):
        with pytest.raises(ValueError, match="not JSON"):
            read(constant)
    assert not fastjson.is_json(constant)


def test_numbers_stay_text_in_a_loose_reading() -> None:
    digits = "9" * 10_000
    assert fastjson.loads_loose(f"[1.00, 1E400, -0, {digits}]") == ["1.00", "1E400", "-0", digits]
    assert fastjson.is_json(digits)
    with pytest.raises(ValueError, match="digits"):
        fastjson.loads(digits)


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"a":'])
@pytest.mark.parametrize("closed", [True, False])
def test_deep_nesting_is_a_value_error_in_any_thread(opening: str, closed: bool) -> None:
    closing = {"[": "]", '{"a":': "}", '[{"a":': "}]"}[opening]
    text = f"{opening!r} * 200_000 + '1' + {closing!r} * {200_000 * closed}"
    printed = fresh(
        f"""
import _thread
from extension import fastjson
text = {text}
def attempt():
    for read in (fastjson.loads, fastjson.loads_loose):
        try:
            read(text)
        except ValueError as error:
            print(type(error) is ValueError)
    print(fastjson.is_json(text))
done = _thread.allocate_lock()
done.acquire()
def beside():
    try:
        attempt()
    finally:
        done.release()
attempt()
_thread.start_new_thread(beside, ())
done.acquire()
"""
    )
    assert printed.split() == ["True", "True", "False"] * 2


def test_broken_input_is_a_value_error_where_json_was_never_imported() -> None:
    broken = [text for text in TEXTS if outcome(json_reads, text) == "refused"]
    printed = fresh(
        f"""
from extension import fastjson
assert not {{"json", "re", "enum"}} & set(sys.modules)
for text in {broken!r}:
    for _ in range(2):
        try:
            fastjson.loads(text)
        except ValueError:
            continue
        print("accepted", ascii(text))
"""
    )
    assert printed == ""


# Writing


@given(value=VALUES, ascii_only=st.booleans())
def test_writes_what_json_writes(value: object, ascii_only: bool) -> None:
    text = fastjson.dumps(value, ascii_only=ascii_only)
    assert text == json.dumps(value, ensure_ascii=ascii_only, separators=(",", ":"), allow_nan=False)
    assert fastjson.loads(text) == value


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, [{"a": math.nan}]])
def test_numbers_without_a_json_form_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        fastjson.dumps(value)


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, object(), [b"bytes"], {"a": b"bytes"}, {b"a": 1}, {(1,): 2}])
def test_types_without_a_json_form_are_refused(value: object) -> None:
    with pytest.raises(TypeError):
        fastjson.dumps(value)


@given(text=st.text())
def test_quotes_as_json_does(text: str) -> None:
    assert fastjson.quote(text) == json.dumps(text, ensure_ascii=False)
    assert fastjson.quote(text, ascii_only=True) == json.dumps(text)


def test_a_lone_surrogate_is_written_as_its_escape() -> None:
    assert fastjson.quote("\ud800", ascii_only=True) == '"\\ud800"'
    assert fastjson.dumps({"\udc00": "\ud800"}, ascii_only=True) == '{"\\udc00":"\\ud800"}'
