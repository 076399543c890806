"""A one-shot event: set once, seen by everyone, before or after."""

from __future__ import annotations

import threading
import time

import pytest

from extension.flag import Flag


def test_a_fresh_flag_is_not_set_and_a_wait_ends() -> None:
    flag = Flag()
    started = time.monotonic()
    assert not flag.is_set
    assert not flag.wait(0.05)
    assert 0.04 < time.monotonic() - started < 2


def test_no_time_to_wait_is_a_look() -> None:
    flag = Flag()
    for past in (0, 0.0, -1.0, -1e9, float("-inf")):
        assert not flag.wait(past)
    flag.set()
    for limit in (0, -1.0, None, 1e12, float("inf")):
        assert flag.wait(limit)


def test_setting_twice_and_waiting_often_is_harmless() -> None:
    flag = Flag()
    flag.set()
    flag.set()
    for _ in range(5):
        assert flag.wait(1)
        assert flag.is_set
    flag.set()
    assert flag.wait(None)


def test_a_very_long_wait_is_no_overflow() -> None:
    flag = Flag()
    waiter = threading.Thread(target=flag.wait, args=(1e12,))
    waiter.start()
    flag.set()
    waiter.join(10)
    assert not waiter.is_alive()


@pytest.mark.parametrize("attempt", range(50))
def test_all_waiters_wake_however_the_setting_and_waiting_fall_together(attempt: int) -> None:
    flag = Flag()
    start = threading.Barrier(9)
    seen: list[bool] = []

    def wait(timeout_s: float | None) -> None:
        start.wait()
        seen.append(flag.wait(timeout_s))

    def set_it() -> None:
        start.wait()
        flag.set()

    threads = [threading.Thread(target=wait, args=(limit,)) for limit in (None, 10, None, 10, None, 10)]
    threads += [threading.Thread(target=set_it) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert seen == [True] * 6, attempt
