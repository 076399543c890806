"""Which signal is which failure, and which of two signals wins (DESIGN, "The sidecar's rules", 5)."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extension import outcome as rules
from extension.outcome import (
    CRASH,
    HANDLED_ERROR,
    HTTP_ERROR,
    INIT_ERROR,
    OUT_OF_MEMORY,
    STREAM_ERROR,
    SUCCESS,
    TIMEOUT,
    Outcome,
)

WEAKEST_FIRST = [HTTP_ERROR, HANDLED_ERROR, STREAM_ERROR, CRASH, OUT_OF_MEMORY, TIMEOUT]
ANY_TWO = list(itertools.product(WEAKEST_FIRST, WEAKEST_FIRST))
WEAKER_STRONGER = list(itertools.combinations(WEAKEST_FIRST, 2))


def after(*signals: Outcome) -> Outcome:
    known: Outcome | None = None
    for signal in signals:
        known = rules.combine(known, signal)
    assert known is not None
    return known


# One record per invocation: Timeout > OutOfMemory > Crash > StreamError > HandledError > HttpError


@pytest.mark.parametrize(("first", "second"), ANY_TWO)
def test_the_stronger_of_two_failures_wins_in_either_order(first: str, second: str) -> None:
    stronger = max(first, second, key=WEAKEST_FIRST.index)
    assert after(Outcome(first), Outcome(second)).condition == stronger
    assert after(Outcome(second), Outcome(first)).condition == stronger


@pytest.mark.parametrize("condition", [SUCCESS, *WEAKEST_FIRST])
def test_the_first_signal_is_taken_as_it_is(condition: str) -> None:
    signal = Outcome(condition, b"error", "Type")
    assert rules.combine(None, signal) is signal


@pytest.mark.parametrize("condition", [SUCCESS, *WEAKEST_FIRST])
def test_a_delivered_success_stays_one(condition: str) -> None:
    success = Outcome(SUCCESS)
    assert rules.combine(success, Outcome(condition, b"error")) is success


@pytest.mark.parametrize("condition", WEAKEST_FIRST)
def test_a_success_that_comes_later_undoes_no_failure(condition: str) -> None:
    failure = Outcome(condition)
    assert rules.combine(failure, Outcome(SUCCESS)) is failure


@pytest.mark.parametrize("condition", [SUCCESS, *WEAKEST_FIRST])
def test_a_signal_that_tells_nothing_new_changes_nothing(condition: str) -> None:
    """`is`, since a changed outcome is a record written again."""
    known = Outcome(condition, b"error", "Type")
    for again in (Outcome(condition), Outcome(condition, b"error", "Type"), Outcome(condition, b"another")):
        assert rules.combine(known, again) is known
    bare = Outcome(condition)
    assert rules.combine(bare, Outcome(condition)) is bare


@pytest.mark.parametrize(("weaker", "stronger"), WEAKER_STRONGER)
def test_the_error_that_somebody_gave_survives_in_either_order(weaker: str, stronger: str) -> None:
    """A Go panic posts its error and then exits; which of the two is seen first is chance."""
    told = Outcome(weaker, b'{"errorMessage":"boom"}', "panic", error_cut=True)
    for combined in (after(told, Outcome(stronger)), after(Outcome(stronger), told)):
        assert (combined.condition, combined.error, combined.error_type) == (stronger, told.error, "panic")
        assert combined.error_cut


@pytest.mark.parametrize(("weaker", "stronger"), WEAKER_STRONGER)
def test_the_stronger_signals_own_error_comes_first(weaker: str, stronger: str) -> None:
    told, better = Outcome(weaker, b"weak", "W", error_cut=True), Outcome(stronger, b"strong", "S")
    for combined in (after(told, better), after(better, told)):
        assert (combined.condition, combined.error, combined.error_type) == (stronger, b"strong", "S")
        assert not combined.error_cut


@pytest.mark.parametrize("condition", WEAKEST_FIRST)
def test_an_error_that_comes_after_its_bare_condition_is_taken(condition: str) -> None:
    """On Managed Instances the platform's report may come before the proxy has seen the end."""
    combined = after(Outcome(condition, None, "Function.ValueError"), Outcome(condition, b"error", None))
    assert (combined.error, combined.error_type) == (b"error", "Function.ValueError")


SIGNALS = st.builds(
    Outcome,
    st.sampled_from(WEAKEST_FIRST),
    st.none() | st.sampled_from([b"a", b"b"]),
    st.none() | st.sampled_from(["A", "B"]),
)


@given(signals=st.lists(SIGNALS, min_size=1, max_size=6), data=st.data())
def test_the_order_of_failures_signals_does_not_matter(signals: list[Outcome], data: st.DataObject) -> None:
    one = after(*signals)
    other = after(*data.draw(st.permutations(signals)))
    assert one.condition == other.condition == max((s.condition for s in signals), key=WEAKEST_FIRST.index)
    assert (one.error is None) == (other.error is None) == all(signal.error is None for signal in signals)


@given(signals=st.lists(SIGNALS, min_size=1, max_size=8))
def test_each_change_makes_the_outcome_stronger_or_tells_the_error(signals: list[Outcome]) -> None:
    known = signals[0]
    for signal in signals[1:]:
        combined = rules.combine(known, signal)
        if combined is not known:
            rose = WEAKEST_FIRST.index(combined.condition) - WEAKEST_FIRST.index(known.condition)
            assert rose > 0 or (rose == 0 and known.error is None and combined.error is not None)
        known = combined


@pytest.mark.parametrize("condition", [SUCCESS, INIT_ERROR, *WEAKEST_FIRST])
def test_what_a_condition_means_for_the_environment(condition: str) -> None:
    outcome = Outcome(condition)
    assert outcome.failed is (condition != SUCCESS)
    assert outcome.kills_environment is (condition in (CRASH, OUT_OF_MEMORY, TIMEOUT))


# POST /response


@pytest.mark.parametrize(
    ("status", "trailer", "condition"),
    [
        (200, None, SUCCESS),
        (202, None, SUCCESS),
        (202, "Runtime.X", STREAM_ERROR),
        (202, "", STREAM_ERROR),
        (413, None, HANDLED_ERROR),
        (400, None, None),
        (403, None, None),
        (410, None, None),
        (500, None, None),
        (301, None, None),
    ],
)
def test_a_response_as_lambda_answers_it(status: int, trailer: str | None, condition: str | None) -> None:
    judged = rules.of_response(status, b"", trailer, b"body" if trailer is not None else None)
    assert (None if judged is None else judged.condition) == condition


def test_a_broken_streams_error_is_in_its_trailers() -> None:
    judged = rules.of_response(202, b"", "Function.E", b'{"errorMessage":"x"}')
    assert judged is not None
    assert (judged.error_type, judged.error) == ("Function.E", b'{"errorMessage":"x"}')


def test_a_response_that_is_too_large_is_the_functions_error_in_lambdas_words() -> None:
    judged = rules.of_response(413, b'{"errorMessage":"Exceeded maximum allowed payload size"}', None, None)
    assert judged is not None
    assert judged.error_type == "Function.ResponseSizeTooLarge"
    assert judged.error == b'{"errorMessage":"Exceeded maximum allowed payload size"}'


# The runtime's process ends


@pytest.mark.parametrize(
    ("now_ms", "deadline_ms", "condition"),
    [
        pytest.param(10_000, 13_000, CRASH, id="well before the deadline"),
        pytest.param(12_974, 13_000, CRASH, id="just before it"),
        pytest.param(12_975, 13_000, TIMEOUT, id="killed at it, and seen a moment early"),
        pytest.param(13_000, 13_000, TIMEOUT, id="at it"),
        pytest.param(99_000, 13_000, TIMEOUT, id="after it"),
        pytest.param(99_000, 0, CRASH, id="no deadline is known"),
    ],
)
def test_the_end_of_the_runtimes_process(now_ms: float, deadline_ms: int, condition: str) -> None:
    assert rules.of_exit(now_ms, deadline_ms).condition == condition


# SHUTDOWN


@pytest.mark.parametrize(
    ("reason", "condition", "means_failure"),
    [
        ("timeout", TIMEOUT, True),
        ("Timeout", TIMEOUT, True),
        ("TIMEOUT", TIMEOUT, True),
        ("failure", CRASH, True),
        ("Failure", CRASH, True),
        ("ReleaseFail", CRASH, True),
        ("spindown", CRASH, False),
        ("SandboxTerminated", CRASH, False),
        ("", CRASH, False),
        ("something new", CRASH, False),
    ],
)
def test_a_shutdowns_reason(reason: str, condition: str, means_failure: bool) -> None:
    assert rules.of_shutdown(reason).condition == condition
    assert rules.means_failure(reason) is means_failure


# Telemetry


@pytest.mark.parametrize(
    ("status", "error_type", "condition"),
    [
        ("success", None, None),
        ("", None, None),
        ("something new", None, None),
        ("timeout", None, TIMEOUT),
        ("timeout", "Sandbox.Timedout", TIMEOUT),
        ("error", "Sandbox.Timedout", TIMEOUT),
        ("failure", None, CRASH),
        ("failure", "Runtime.ExitError", CRASH),
        ("failure", "Runtime.OutOfMemory", OUT_OF_MEMORY),
        ("error", "Runtime.OutOfMemory", OUT_OF_MEMORY),
        ("error", "Runtime.ExitError", CRASH),
        ("error", "Extension.Crash", CRASH),
        ("error", "Sandbox.Failure", CRASH),
        ("error", "Function.ValueError", HANDLED_ERROR),
        ("error", "Runtime.Unknown", HANDLED_ERROR),
        ("error", None, HANDLED_ERROR),
    ],
)
def test_a_platform_reports_status(status: str, error_type: str | None, condition: str | None) -> None:
    judged = rules.of_telemetry(status, error_type)
    assert (None if judged is None else judged.condition) == condition
    if judged is not None:
        assert judged.error_type == error_type


# One shape for the errors of all languages


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param(
            {"errorType": "ValueError", "errorMessage": "boom", "stackTrace": ['  File "a.py", line 1\n', "  b"]},
            ("ValueError", "boom", ['File "a.py", line 1', "b"]),
            id="Python",
        ),
        pytest.param(
            {"errorType": "Error", "errorMessage": "boom", "trace": ["Error: boom", "    at f (/a.js:1:2)"]},
            ("Error", "boom", ["Error: boom", "at f (/a.js:1:2)"]),
            id="Node.js",
        ),
        pytest.param(
            {
                "errorType": "errorString",
                "errorMessage": "boom",
                "stackTrace": [{"path": "a/b.go", "line": 7, "label": "main.f"}],
            },
            ("errorString", "boom", ["a/b.go:7 main.f"]),
            id="Go",
        ),
        pytest.param(
            {"errorType": "E", "errorMessage": "boom", "stackTrace": "at A\nat B\n"},
            ("E", "boom", ["at A", "at B"]),
            id="one text",
        ),
        pytest.param({"errorType": "E", "errorMessage": "boom"}, ("E", "boom", []), id="no stack"),
        pytest.param({"errorMessage": "boom"}, ("Header.Type", "boom", []), id="the type is in the header only"),
        pytest.param({"errorType": "E"}, ("E", "The function reported an error without details", []), id="no message"),
        pytest.param({}, ("Header.Type", "The function reported an error without details", []), id="empty"),
        pytest.param({"errorType": 7, "errorMessage": [], "stackTrace": 7}, None, id="types that nobody expects"),
        pytest.param({"stackTrace": [1, None, [], {}, "", " ", "x"]}, None, id="frames that nobody expects"),
        pytest.param(["boom"], None, id="a list"),
        pytest.param("boom", ("Header.Type", "boom", []), id="a JSON string"),
        pytest.param(None, ("Header.Type", "The function reported an error without details", []), id="null"),
    ],
)
def test_errors_of_all_languages_have_one_shape(error: object, expected: tuple[str, str, list[str]] | None) -> None:
    summary = rules.summarise(Outcome(HANDLED_ERROR, json.dumps(error).encode(), "Header.Type"))
    if expected is not None:
        assert (summary.type, summary.message, summary.frames) == expected
    assert all(map(str.strip, summary.frames))
    assert summary.type
    assert isinstance(summary.message, str)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (b"plain text", "plain text"),
        (b"caf\xe9", "caf\ufffd"),
        (b'{"errorMessage":"cut', '{"errorMessage":"cut'),
        (b"", ""),
    ],
)
def test_an_error_that_is_not_json_is_its_own_message(error: bytes, message: str) -> None:
    assert rules.summarise(Outcome(HANDLED_ERROR, error)).message == message


@pytest.mark.parametrize("condition", [*WEAKEST_FIRST, INIT_ERROR])
def test_where_nobody_gave_an_error_lambdas_own_words_stand_in(condition: str) -> None:
    summary = rules.summarise(Outcome(condition))
    assert summary.type
    assert summary.message
    assert rules.summarise(Outcome(condition, None, "Platform.Type")).type == "Platform.Type"


def test_an_exit_and_an_exit_before_the_first_event_have_different_words() -> None:
    assert rules.spoken(Outcome(CRASH))[1] != rules.spoken(Outcome(INIT_ERROR))[1]


@given(error=st.none() | st.binary() | st.text().map(lambda text: json.dumps({"errorMessage": text}).encode()))
def test_any_bytes_can_be_summarised(error: bytes | None) -> None:
    summary = rules.summarise(Outcome(HANDLED_ERROR, error))
    assert summary.type == "Unhandled"
    assert summary.frames == []


@pytest.mark.parametrize("depth", [10, 500, 900, 950, 980, 990, 1_000, 5_000, 9_900, 9_990, 100_000])
@pytest.mark.parametrize(
    "form", ["{}", '{{"errorMessage":{}}}', '{{"stackTrace":[{}]}}', '{{"trace":[{{"label":{}}}]}}']
)
def test_a_deeply_nested_error_can_be_summarised(depth: int, form: str) -> None:
    nested = "[" * depth + "]" * depth
    assert rules.summarise(Outcome(HANDLED_ERROR, form.format(nested).encode())).type == "Unhandled"
