"""The breaker and the plan, on a clock of numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from extension import breaker as b
from extension.breaker import Breaker, Plan

FAR = 1_000.0


def half() -> float:
    return 0.5


def test_opens_at_the_third_failure_in_a_row_and_not_before() -> None:
    breaker = Breaker(half)
    for _ in range(b.FAILURES_TO_OPEN - 1):
        breaker.failed(0.0)
        assert breaker.allows(0.0)
    breaker.failed(0.0)
    assert not breaker.allows(0.0)


def test_a_success_between_failures_starts_the_count_anew() -> None:
    breaker = Breaker(half)
    for _ in range(5):
        breaker.failed(0.0)
        breaker.failed(0.0)
        breaker.succeeded()
    assert breaker.state == b.CLOSED


def test_a_probe_that_succeeds_closes_it() -> None:
    breaker = Breaker(half)
    breaker.denied(0.0)
    assert not breaker.allows(0.7)
    assert breaker.allows(0.8)
    assert breaker.state == b.HALF_OPEN
    breaker.succeeded()
    assert breaker.state == b.CLOSED
    breaker.failed(1.0)
    assert breaker.allows(1.0)


def test_each_probe_that_fails_doubles_the_wait_up_to_a_minute() -> None:
    breaker = Breaker(lambda: 1.0)
    now = 0.0
    waits = []
    breaker.denied(now)
    for _ in range(9):
        began = now
        while not breaker.allows(now):
            now += 0.25
        waits.append(now - began)
        breaker.failed(now)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_the_last_chance_is_a_probe_at_any_time() -> None:
    breaker = Breaker(half)
    breaker.denied(0.0)
    breaker.probe()
    assert breaker.allows(0.0)
    breaker.failed(0.0)
    assert not breaker.allows(0.0)


def test_the_last_chance_leaves_a_closed_breaker_alone() -> None:
    breaker = Breaker(half)
    breaker.probe()
    assert breaker.state == b.CLOSED


class BreakerMachine(RuleBasedStateMachine):
    """Whatever happens: attempts are let through only as the rules say."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(lambda: self.jitter)
        self.jitter = 0.0
        self.now = 0.0
        self.failures_in_a_row = 0
        self.opened_at: float | None = None

    @rule(seconds=st.floats(0, 100))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(jitter=st.floats(0, 1))
    def other_jitter(self, jitter: float) -> None:
        self.jitter = jitter

    @precondition(lambda self: self.breaker.allows(self.now))
    @rule(good=st.booleans())
    def attempt(self, good: bool) -> None:
        probing = self.breaker.state == b.HALF_OPEN
        if good:
            self.breaker.succeeded()
            self.failures_in_a_row = 0
            assert self.breaker.state == b.CLOSED
            return
        self.failures_in_a_row += 1
        self.breaker.failed(self.now)
        opens = probing or self.failures_in_a_row >= b.FAILURES_TO_OPEN
        assert self.breaker.state == (b.OPEN if opens else b.CLOSED)
        if opens:
            self.opened_at = self.now

    @invariant()
    def never_shut_for_longer_than_a_minute(self) -> None:
        if self.breaker.state == b.OPEN:
            assert self.opened_at is not None
            open_for = self.now - self.opened_at
            allowed = self.breaker.allows(self.now)
            assert allowed or open_for < b.LONGEST_OPEN_S
            assert not allowed or open_for >= b.FIRST_OPEN_S / 2


TestBreaker = BreakerMachine.TestCase


@pytest.mark.parametrize(
    ("verdict", "began", "now", "deadline", "pause", "state"),
    [
        (b.DONE, 0.0, 0.1, 2.0, 0.0, b.CLOSED),
        (b.UNDECIDED, 0.0, 0.1, 2.0, 0.0, b.CLOSED),
        (b.PARTLY, 0.0, 0.1, 2.0, 0.05, b.CLOSED),
        (b.FAILED, 0.0, 0.1, 2.0, 0.05, b.CLOSED),
        (b.FAILED, 0.0, 1.96, 2.0, None, b.CLOSED),
        (b.FAILED, 0.0, 2.1, 2.0, None, b.CLOSED),
        (b.CLOSED_TO_US, 0.0, 0.1, 2.0, None, b.OPEN),
    ],
)
def test_what_follows_a_first_attempt(
    verdict: str, began: float, now: float, deadline: float, pause: float | None, state: str
) -> None:
    breaker = Breaker(half)
    assert Plan(breaker, half).after(verdict, began, now, deadline) == pause
    assert breaker.state == state


def test_a_ship_gives_up_when_the_breaker_opens() -> None:
    breaker = Breaker(half)
    plan = Plan(breaker, half)
    pauses = [plan.after(b.FAILED, 0.0, 0.1, FAR) for _ in range(3)]
    assert pauses == [0.05, 0.1, None]
    assert not plan.may_begin(0.2, FAR)


def test_pauses_grow_to_two_seconds_while_the_queue_takes_some() -> None:
    plan = Plan(Breaker(half), lambda: 1.0)
    pauses = [plan.after(b.PARTLY, 0.0, 0.0, FAR) for _ in range(8)]
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0]


def test_attempts_that_had_hardly_any_time_do_not_open_the_breaker() -> None:
    breaker = Breaker(half)
    plan = Plan(breaker, half)
    for _ in range(10):
        assert plan.after(b.FAILED, 0.0, 0.1, 0.1) is None
    assert breaker.state == b.CLOSED


def test_no_attempt_begins_without_time() -> None:
    plan = Plan(Breaker(half), half)
    assert plan.may_begin(1.0, 1.0 + b.LEAST_S)
    assert not plan.may_begin(1.0, 1.01)
    assert not plan.may_begin(2.0, 1.0)


@given(
    verdicts=st.lists(st.sampled_from([b.PARTLY, b.FAILED, b.DONE, b.UNDECIDED]), max_size=30),
    jitter=st.floats(0, 1, exclude_max=True),
    deadline=st.floats(0, 5),
)
def test_a_ship_never_plans_past_its_deadline(verdicts: list[str], jitter: float, deadline: float) -> None:
    plan = Plan(Breaker(half), lambda: jitter)
    now = 0.0
    for verdict in verdicts:
        if not plan.may_begin(now, deadline):
            break
        began, now = now, now + 0.01
        pause = plan.after(verdict, began, now, deadline)
        if pause is None:
            break
        assert pause == 0.0 or now + pause + b.LEAST_S <= deadline
        now += pause
