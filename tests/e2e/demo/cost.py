"""What the sidecar costs, measured beside the same function without it."""

from __future__ import annotations

import json
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.harness.sandbox import Answer, Function, Sandbox

INVOCATIONS = 200
_WARM_UP = 20
# 1 KB, as the budget in DESIGN counts it.
_EVENT = json.dumps({"echo": "x" * 1000}).encode()


@dataclass(frozen=True, slots=True)
class Cost:
    """start_ms: spawn to the first /next, as its ready line tells. rss_mb: resident memory of its process after the
    measured invocations. added_ms_p50: what it adds to an invocation; `how` says between which points."""

    start_ms: float | None
    added_ms_p50: float | None
    rss_mb: float | None
    how: str


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
    with Sandbox(plain, folders[0]) as without, Sandbox(attached, folders[1]) as with_it:
        for _ in range(_WARM_UP):
            without.invoke(_EVENT)
            with_it.invoke(_EVENT)
        if clock:
            added = _by_clock(without, with_it)
            how = "from the caller's send to the function's receipt, plus from its answer's send to its acceptance"
        else:
            added = _median_ms(with_it, _whole) - _median_ms(without, _whole)
            how = "whole invocation as the caller sees it; the emulator also waits for the sidecar there, AWS does not"
        sidecar = with_it.sidecar()
        rss_mb = None if sidecar is None else round(sidecar.rss_kib / 1024, 1)
    return Cost(started_ms, round(added, 3), rss_mb, how)


def _by_clock(without: Sandbox, with_it: Sandbox) -> float:
    """Way in and way out apart, because the emulator, other than AWS, holds the answer until the sidecar asks for more."""
    ways_in: dict[Sandbox, list[float]] = {without: [], with_it: []}
    ways_out: dict[Sandbox, list[float]] = {without: [], with_it: []}
    for _ in range(INVOCATIONS):
        for sandbox in (without, with_it):
            sent_ns = time.monotonic_ns()
            told = json.loads(sandbox.invoke(_EVENT).body)
            ways_in[sandbox].append((told["receivedNs"] - sent_ns) / 1e6)
            ways_out[sandbox].append(told["lastAnswerMs"])
    p50 = statistics.median
    return p50(ways_in[with_it]) - p50(ways_in[without]) + p50(ways_out[with_it]) - p50(ways_out[without])


def _whole(answer: Answer) -> float:
    return answer.seconds * 1000


def _median_ms(sandbox: Sandbox, of: Callable[[Answer], float]) -> float:
    return statistics.median(of(sandbox.invoke(_EVENT)) for _ in range(INVOCATIONS))
