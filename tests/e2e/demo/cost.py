"""What the sidecar costs, measured beside the same function without it."""

from __future__ import annotations

import json
import re
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.harness.sandbox import Function, Sandbox

_WARM_UP = 20
# bash takes tens of milliseconds for each.
_ROUNDS_CLOCK, _ROUNDS_BASH = 200, 40
# 1 KB, as the budget in DESIGN counts it.
_EVENT = json.dumps({"echo": "x" * 1000}).encode()


@dataclass(frozen=True, slots=True)
class Cost:
    """start_ms: spawn to the first /next, as its ready line tells. rss_mb: resident memory of its process after the
    measured invocations. added_ms_p50: what it adds to an invocation; `how` says between which points, over `rounds`."""

    start_ms: float | None
    added_ms_p50: float | None
    rss_mb: float | None
    how: str
    rounds: int


def start_ms(output: str) -> float | None:
    """Median of the start times in the ready lines of `output`, in ms; None where there are none."""
    found = [
        json.loads(line).get("start_ms") for line in re.findall(r'^\{"backstop":\s*"ready".*\}$', output, re.MULTILINE)
    ]
    known = [float(value) for value in found if value is not None]
    return round(statistics.median(known), 1) if known else None


def measure(plain: Function, attached: Function, folder: Path, *, clock: bool, started_ms: float | None) -> Cost:
    """Invokes both functions in turns and compares medians. `clock`: they are the clock function, which tells its own times."""
    folders = [folder / "plain", folder / "attached"]
    for one in folders:
        one.mkdir()
    sample = _ways if clock else _whole
    rounds = _ROUNDS_CLOCK if clock else _ROUNDS_BASH
    with Sandbox(plain, folders[0]) as without, Sandbox(attached, folders[1]) as with_it:
        for _ in range(_WARM_UP):
            without.invoke(_EVENT)
            with_it.invoke(_EVENT)
        pairs = [(sample(without), sample(with_it)) for _ in range(rounds)]
        sidecar = with_it.sidecar()
        rss_mb = None if sidecar is None else round(sidecar.rss_kib / 1024, 1)
    added = _medians([pair[1] for pair in pairs]) - _medians([pair[0] for pair in pairs])
    how = _WAYS if clock else _WHOLE
    return Cost(started_ms, round(added, 3), rss_mb, how, rounds)


_WAYS = "from the caller's send to the function's receipt, plus from its answer's send to its acceptance"
_WHOLE = "whole invocation as the caller sees it; the emulator also waits for the sidecar there, AWS does not"


def _ways(sandbox: Sandbox) -> list[float]:
    """Way in and way out in ms, apart: the emulator, other than AWS, holds the answer until the sidecar asks for more."""
    sent_ns = time.monotonic_ns()
    told = json.loads(sandbox.invoke(_EVENT).body)
    return [(told["receivedNs"] - sent_ns) / 1e6, told["lastAnswerMs"]]


def _whole(sandbox: Sandbox) -> list[float]:
    return [sandbox.invoke(_EVENT).seconds * 1000]


def _medians(samples: list[list[float]]) -> float:
    """The sum of each part's median."""
    return float(sum(statistics.median(part) for part in zip(*samples, strict=True)))
