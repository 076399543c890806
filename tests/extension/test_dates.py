"""Dates as the standard library writes them."""

from __future__ import annotations

import datetime
import email.utils

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extension import dates

moments = st.datetimes(datetime.datetime(1, 1, 1), datetime.datetime(9999, 12, 31)).map(
    lambda moment: moment.replace(microsecond=0, tzinfo=datetime.UTC)
)


@given(moments)
def test_http_dates(moment: datetime.datetime) -> None:
    text = email.utils.format_datetime(moment, usegmt=True)
    assert dates.parse_http_date(text) == moment.timestamp()


@given(moments, st.sampled_from(["", ".1", ".123456"]))
def test_iso_dates(moment: datetime.datetime, fraction: str) -> None:
    text = moment.strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0") + fraction + "Z"
    assert dates.parse_iso8601(text) == moment.timestamp()


@pytest.mark.parametrize(
    "text",
    ["", "now", "Tue, 24 Nov 2026 16:08:00 CET", "Tue, 24 ovD 2026 16:08:00 GMT", "Tue, 24 Nov 2026 16:08 GMT"]
    + ["Tue, 99 Nov 2026 16:08:00 GMT", "Tue, 24 Nov ²026 16:08:00 GMT", "Tue, 24 Nov 2026 16:08:61 GMT"],
)
def test_what_is_no_http_date_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        dates.parse_http_date(text)


@pytest.mark.parametrize("text", ["", "T", "2026-11-24T16:08:00", "2026-13-24T16:08:00Z", "2026-11T16:08:00Z", "TZ"])
def test_what_is_no_iso_date_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        dates.parse_iso8601(text)


@given(st.text())
def test_no_text_does_worse_than_valueerror(text: str) -> None:
    for parse in (dates.parse_http_date, dates.parse_iso8601):
        try:
            parse(text)
        except ValueError:
            continue
