"""Moments in AWS's answers, read without `datetime` and `calendar`, which would bring half the library."""

from __future__ import annotations

_MONTHS = "JanFebMarAprMayJunJulAugSepOctNovDec"


def utc(year: int, month: int, day: int, hour: int, minute: int, second: int) -> int:
    """Return the seconds from 1970 to a moment in UTC (proleptic Gregorian calendar; the fields are not checked)."""
    # A year begins in March here, so that the leap day is its last ("days from civil", Hinnant's date algorithms).
    year -= month <= 2
    day_of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    days = 365 * year + year // 4 - year // 100 + year // 400 + day_of_year - 719_468
    return ((days * 24 + hour) * 60 + minute) * 60 + second


def _number(text: str, low: int, high: int) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 4 or not low <= int(text) <= high:
        raise ValueError(f"{text[:8]!r} is not a number from {low} to {high}")
    return int(text)


def _moment(year: str, month: int, day: str, time_of_day: str) -> int:
    hour, minute, second = time_of_day.split(":")
    return utc(
        _number(year, 1, 9999),
        month,
        _number(day, 1, 31),
        _number(hour, 0, 23),
        _number(minute, 0, 59),
        _number(second, 0, 60),
    )


def parse_http_date(text: str) -> int:
    """Read `Tue, 24 Nov 2026 16:08:00 GMT` (RFC 9110, section 5.6.7, the form in use). Raises ValueError."""
    words = text.split()
    if len(words) != 6 or words[5] != "GMT" or len(words[2]) != 3:
        raise ValueError(f"{text[:40]!r} is not an HTTP date")
    at = _MONTHS.find(words[2])
    if at < 0 or at % 3:
        raise ValueError(f"{words[2]!r} is not a month")
    return _moment(words[3], at // 3 + 1, words[1], words[4])


def parse_iso8601(text: str) -> int:
    """Read `2026-11-24T16:08:00Z`, with or without a fraction, which is dropped. Raises ValueError."""
    date, letter, time_of_day = text.partition("T")
    if not letter or not time_of_day.endswith("Z"):
        raise ValueError(f"{text[:40]!r} is not a moment in UTC")
    year, month, day = date.split("-")
    return _moment(year, _number(month, 1, 12), day, time_of_day[:-1].partition(".")[0])
