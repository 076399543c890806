"""The sidecar's own lines: JSON, one a line, whole; and never an exception, whatever standard output is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from extension import say

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _fresh_voice() -> Iterator[None]:
    say.forget()
    say.set_level("info")
    yield
    say.forget()
    say.set_level("info")


def lines(capture: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capture.readouterr().out.splitlines()]


def test_a_line_is_one_json_object(capfd: pytest.CaptureFixture[str]) -> None:
    say.say("ready", version="0.1.0", proxy=None, start_ms=9.5, events=["INVOKE"])
    assert lines(capfd) == [
        {"backstop": "ready", "version": "0.1.0", "proxy": None, "start_ms": 9.5, "events": ["INVOKE"]}
    ]


@pytest.mark.parametrize("text", ["two\nlines", "\u2028", "\x00", "café", "\ud800", '"'])
def test_no_text_breaks_the_line(text: str, capfd: pytest.CaptureFixture[str]) -> None:
    say.say("warning", what="x", why=text)
    printed = capfd.readouterr().out
    assert printed.count("\n") == 1
    assert printed.isascii()
    assert json.loads(printed)["why"] == text


@pytest.mark.parametrize("value", [b"bytes", object, float("nan"), {1, 2}])
def test_a_field_that_is_not_json_is_shown_by_its_repr(value: object, capfd: pytest.CaptureFixture[str]) -> None:
    say.say("stats", value=value)
    (line,) = lines(capfd)
    assert line["backstop"] == "stats"
    assert repr(value) in str(line["fields"])


def test_a_warning_is_said_once_for_each_reason(capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        say.warn_once("spool", "full")
        say.warn_once("spool", "read-only")
    assert [line["why"] for line in lines(capfd)] == ["full", "read-only"]
    say.forget()
    say.warn_once("spool", "full")
    assert [line["why"] for line in lines(capfd)] == ["full"]


def test_what_is_remembered_and_said_is_bounded(capfd: pytest.CaptureFixture[str]) -> None:
    for number in range(1_000):
        say.warn_once("telemetry", f"number {number}")
    assert len(lines(capfd)) == 256


@pytest.mark.parametrize(
    ("level", "said"),
    [
        ("info", ["ready", "warning", "undelivered"]),
        ("warning", ["warning", "undelivered"]),
        ("error", ["undelivered"]),
    ],
)
def test_log_level_keeps_the_lower_lines_back(level: str, said: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    say.set_level(level)
    say.info("ready")
    say.warn_once("x", "y")
    say.say("undelivered")  # the last resort is no chatter
    assert [line["backstop"] for line in lines(capfd)] == said


def test_a_fault_says_where_it_came_from(capfd: pytest.CaptureFixture[str]) -> None:
    def innermost() -> None:
        raise ValueError("broken")

    try:
        innermost()
    except ValueError as error:
        say.fault("proxy", error)
    (line,) = lines(capfd)
    assert line["what"] == "proxy"
    assert "ValueError: broken" in str(line["why"])
    assert "innermost" in str(line["why"])


def test_lines_of_several_threads_do_not_mix(capfd: pytest.CaptureFixture[str]) -> None:
    start = threading.Barrier(8)

    def shout(number: int) -> None:
        start.wait()
        for _ in range(20):
            say.say("x", who=number, text=str(number) * 5_000)

    threads = [threading.Thread(target=shout, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    said = lines(capfd)
    assert len(said) == 160
    assert all(line["text"] == str(line["who"]) * 5_000 for line in said)


@pytest.mark.parametrize(
    "close", ["os.close(1)", "os.dup2(os.open('/dev/full', os.O_WRONLY), 1)", "pipe_without_reader()"]
)
def test_a_standard_output_that_takes_nothing_is_borne(close: str) -> None:
    code = f"""
import os, sys
sys.path.insert(0, {str(REPOSITORY)!r})
from extension import say
def pipe_without_reader():
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, 1)
{close}
say.say("ready")
say.warn_once("a", "b")
say.fault("c", ValueError("d"))
say.write_line("e")
os.write(2, b"alive")
os._exit(0)
"""
    result = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, timeout=30, check=False)
    assert (result.returncode, result.stderr) == (0, b"alive")


def test_a_long_line_goes_out_whole_through_a_pipe() -> None:
    """Longer than a pipe's buffer: the write is taken up again where it stopped."""
    code = f"""
import os, sys
sys.path.insert(0, {str(REPOSITORY)!r})
from extension import say
say.write_line("x" * 1_000_000)
os._exit(0)
"""
    result = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, timeout=30, check=True)
    assert result.stdout == b"x" * 1_000_000 + b"\n"


def test_a_full_non_blocking_pipe_loses_the_line_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe2(os.O_NONBLOCK)
    monkeypatch.setattr(say, "_STDOUT", writer)
    for _ in range(10):
        say.write_line("x" * 60_000)
    assert not say._lock.locked()
    os.close(reader)
    os.close(writer)
