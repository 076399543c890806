"""A failure storm is bounded: what is over the rate is counted in the next record, and nobody waits for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from extension.clerk import Clerk
from extension.delivery import Delivery
from extension.record import Record
from extension.spool import Spool
from tests.extension.invocations import NONCE, failed, read, settings


class Nowhere:
    """A queue that cannot be opened: records stay in the spool, to be looked at."""

    def __call__(self) -> object:
        raise ValueError("no queue in this test")


def test_over_the_rate_failures_are_counted_and_a_later_record_says_how_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(str(tmp_path / "spool"), 1 << 20)
    options = settings(max_records_per_minute="2", queue_url="https://sqs.eu-west-1.amazonaws.com/123456789012/q")
    clerk = Clerk(options, spool, Delivery(spool, Nowhere()), NONCE)  # type: ignore[arg-type]
    failures = [failed(b"%d" % number, request_id=f"request-{number}") for number in range(5)]
    for failure in failures:
        clerk.report(failure)
    for failure in failures:
        assert failure.filed.wait(5)  # the hold never lasts for what is not recorded
    assert clerk.wait_idle(5)
    assert len(spool.pending()) == 2

    monkeypatch.setattr(clerk, "_minute_began", clerk._minute_began - 60)
    later = failed(b"9", request_id="request-9")
    clerk.report(later)
    assert later.filed.wait(5)
    told = [read(Record.decode(spool.read(record_id) or b""))["backstop"] for record_id in spool.pending()]
    assert len(told) == 3
    assert sum(record.get("suppressedBefore", 0) for record in told) == 3


def test_an_amendment_is_not_counted(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path / "spool"), 1 << 20)
    clerk = Clerk(settings(max_records_per_minute="1"), spool, Delivery(spool, Nowhere()), NONCE)  # type: ignore[arg-type]
    failure = failed(b"1")
    clerk.report(failure)
    assert failure.filed.wait(5)
    clerk.report(failure)
    assert clerk.wait_idle(5)
    assert clerk.counters["written"] == 2
