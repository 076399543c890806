"""The fingerprint groups what has one cause, and tells apart what has not."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extension.fingerprint import fingerprint, normalise
from extension.outcome import ErrorSummary


def mark(**changes: Any) -> str:
    given_ = {
        "function": "pay",
        "condition": "HandledError",
        "type": "ValueError",
        "message": "boom",
        "frames": ["handler /var/task/a.py:7", "charge /var/task/b.py:12"],
        **changes,
    }
    summary = ErrorSummary(given_["type"], given_["message"], given_["frames"])
    return fingerprint(given_["function"], given_["condition"], summary)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("order 4711 of 0x7ffd12 failed (3c0b5b1e-0f5c-5d0e-9c8f-6f1d2a4b7e60)", "order # of # failed #"),
        ("", ""),
        ("timeout", "timeout"),
        ("a  \t b\n", "a b"),
        ("at f (/var/task/index.js:12:34)", "at f var task index.js #"),
        ("key 'abc' missing", "key abc missing"),
        ("1 2 3", "#"),
        ("deadbeefdeadbeef", "#"),
        ("abcdef", "abcdef"),
        ("٣ items", "# items"),
        ("user-42 and user-43", "# and #"),
        ("ключ не найден", "ключ не найден"),
    ],
)
def test_numbers_ids_and_addresses_are_removed(text: str, normal: str) -> None:
    assert normalise(text) == normal


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"message": "something else"}, id="the message, where there is a stack"),
        pytest.param({"frames": ["handler /var/task/a.py:8", "charge /var/task/b.py:99"]}, id="line numbers"),
    ],
)
def test_one_cause_has_one_fingerprint(changes: dict[str, Any]) -> None:
    assert mark(**changes) == mark()


def test_deeper_frames_do_not_count() -> None:
    frames = [f"frame{letter} in place" for letter in "abcde"]
    assert mark(frames=[*frames, "x"]) == mark(frames=[*frames, "y"])
    assert mark(frames=frames) != mark(frames=[*frames[:4], "y"])


@pytest.mark.parametrize(
    "changes",
    [
        {"function": "refund"},
        {"condition": "Crash"},
        {"type": "KeyError"},
        {"frames": ["handler /var/task/a.py:7", "refund /var/task/b.py:12"]},
        {"frames": []},
    ],
)
def test_other_causes_have_others(changes: dict[str, Any]) -> None:
    assert mark(**changes) != mark()


def test_without_a_stack_the_message_tells() -> None:
    assert mark(frames=[], message="order 1 failed") == mark(frames=[], message="order 2 failed")
    assert mark(frames=[], message="order 1 failed") != mark(frames=[], message="order 1 vanished")


@given(message=st.text(), frames=st.lists(st.text(), max_size=7), kind=st.text(), function=st.text())
def test_any_error_has_sixteen_hexadecimal_digits(message: str, frames: list[str], kind: str, function: str) -> None:
    found = mark(message=message, frames=frames, type=kind, function=function)
    assert re.fullmatch("[0-9a-f]{16}", found)
    assert found == mark(message=message, frames=frames, type=kind, function=function)


@given(text=st.text(max_size=200))
def test_to_normalise_twice_is_to_normalise_once(text: str) -> None:
    assert normalise(normalise(text).replace("#", "7")) == normalise(text)
