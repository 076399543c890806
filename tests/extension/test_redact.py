"""Redaction: what a rule names is gone, everywhere it may stand, and all else stays to the letter."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extension.redact import MARK, anywhere, parse_rule, redact, scrub

EVENT = (
    '{"a":{"card":"4111 1111","n":1.00,"n":12345678901234567890},"items":[{"card":"x","id":1},{"card":{"no":"9999"}}],'
    '"body":"{\\"card\\":\\"inner\\",\\"k\\":1.0}","Card":7,"é":"ü"}'
)


def rules(*texts: str) -> Any:
    return tuple(parse_rule(text) for text in texts)


@pytest.mark.parametrize(
    ("rule", "paths"),
    [
        ("card", ["$.a.card", "$.items[0].card", "$.items[1].card", "$.body.card", "$.Card"]),
        ("$..card", ["$.a.card", "$.items[0].card", "$.items[1].card", "$.body.card", "$.Card"]),
        ("$.a.card", ["$.a.card"]),
        ("$.a['card']", ["$.a.card"]),
        ("$.items[*].card", ["$.items[0].card", "$.items[1].card"]),
        ("$.items[1].card", ["$.items[1].card"]),
        ("$.items[1]", ["$.items[1]"]),
        ("$.*.card", ["$.a.card", "$.body.card"]),
        ("$.a.n", ["$.a.n", "$.a.n"]),
        ("$.body.card", ["$.body.card"]),
        ("$..items[0].card", ["$.items[0].card"]),
        ("$.nothing", []),
        ("$.CARD", []),
    ],
)
def test_what_a_rule_names(rule: str, paths: list[str]) -> None:
    done = redact(EVENT, rules(rule))
    assert done.paths == paths
    assert done.text.count(MARK) == len(paths)


def test_what_is_left_keeps_its_numbers_duplicate_keys_and_order() -> None:
    done = redact(EVENT, rules("$.items"))
    assert done.text == (
        '{"a":{"card":"4111 1111","n":1.00,"n":12345678901234567890},"items":"***",'
        '"body":"{\\"card\\":\\"inner\\",\\"k\\":1.0}","Card":7,"\\u00e9":"\\u00fc"}'
    )


def test_a_string_that_holds_json_is_looked_into_at_any_depth() -> None:
    deep = json.dumps({"Records": [{"body": json.dumps({"Message": json.dumps({"password": "hunter2"})})}]})
    done = redact(deep, rules("password"))
    assert "hunter2" not in done.text
    assert json.loads(json.loads(json.loads(done.text)["Records"][0]["body"])["Message"]) == {"password": MARK}


def test_cut_values_are_known_so_that_they_can_be_cut_elsewhere() -> None:
    done = redact(EVENT, rules("card"))
    assert done.secrets == {"4111 1111", "9999", "inner"}
    assert scrub("charging 4111 1111 for 9999", done.secrets) == "charging *** for ***"


@pytest.mark.parametrize("text", ["", "{", "x", '{"a":1} 2', '"\n"', "NaN", '{"a":NaN}'])
def test_what_is_not_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="JSON"):
        redact(text, rules("a"))


def test_too_deep_a_nesting_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="deep"):
        redact("[" * 500 + "]" * 500, rules("a"))


@pytest.mark.parametrize("text", ["", "$", "$.", "$.a[", "$..", "$a", "$[x]", "a'b", "$.a..", "$.a[1", "$['']"])
def test_a_rule_that_cannot_be_understood_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_rule(text)


def test_only_rules_without_a_place_hold_for_errors() -> None:
    assert anywhere(rules("card", "$.a.card", "$..no")) == rules("card", "$..no")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcpw", max_size=2), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_a_key_that_is_named_is_nowhere_left(value: Any) -> None:
    done = redact(json.dumps({"v": value, "s": json.dumps(value)}), rules("pw"))

    def left(found: Any) -> bool:
        if isinstance(found, dict):
            return any((key == "pw" and inner != MARK) or left(inner) for key, inner in found.items())
        return isinstance(found, list) and any(map(left, found))

    after = json.loads(done.text)
    assert not left(after)
    assert not left(json.loads(after["s"]))


@given(JSON, st.sampled_from(["a", "$.v", "$..b[0]", "$.v.*"]))
def test_without_a_match_the_value_is_the_same(value: Any, rule: str) -> None:
    text = json.dumps({"w": value})
    done = redact(text, rules(rule))
    if not done.paths:
        assert json.loads(done.text) == json.loads(text)


CARD = "4111-1111-1111"
KEYS = st.sampled_from(["card", "Card", "a", "b", 'q"uote'])


def with_cards(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: CARD if key.lower() == "card" else with_cards(inner) for key, inner in value.items()}
    return [with_cards(inner) for inner in value] if isinstance(value, list) else value


@st.composite
def as_text(draw: st.DrawFn, inner: st.SearchStrategy[Any]) -> str:
    return json.dumps(with_cards(draw(inner)), ensure_ascii=draw(st.booleans()))


WRAPPED = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3) | as_text(inner),
    max_leaves=12,
)


@given(WRAPPED)
def test_a_cut_value_is_nowhere_left_however_often_it_is_wrapped_in_json_text(value: Any) -> None:
    """Also where JSON text was quoted again, so that a string holds a string that holds an object."""
    done = redact(json.dumps(with_cards(value)), rules("card"))
    json.loads(done.text)
    assert CARD not in done.text
