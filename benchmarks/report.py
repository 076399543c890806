"""One measured figure, how it is printed, and the budgets it is held against."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure. `ratio` is its value over that of the figure named `ratio_to`, measured in the same run."""

    name: str
    value: float
    unit: str
    ratio_to: str | None = None
    ratio: float | None = None

    def line(self) -> str:
        return json.dumps(
            {
                "name": self.name,
                "value": round(self.value, 3),
                "unit": self.unit,
                "ratio_to": self.ratio_to,
                "ratio": None if self.ratio is None else round(self.ratio, 3),
            }
        )


def beside(name: str, value: float, unit: str, reference: Figure) -> Figure:
    """Return a figure with its ratio to a reference of the same run."""
    return Figure(name, value, unit, reference.name, value / reference.value if reference.value else None)


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the percentile of the values, by linear interpolation. With 50 it is the median."""
    if percent == 50:
        return statistics.median(values)
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


@dataclass(frozen=True, slots=True)
class Budget:
    """What a release must meet, and what we aim at (DESIGN, "Budgets"); held against `ratio` or `value`."""

    must: float
    aim: float
    of: str


BUDGETS = {
    "start.backstop": Budget(3, 1.7, "ratio"),
    "memory.backstop": Budget(2, 1.5, "ratio"),
    "invocation.1kb.p50.backstop": Budget(0.6, 0.25, "value"),
    "invocation.1kb.p99.backstop": Budget(1.5, 0.5, "value"),
    "invocation.6mb.p50.backstop": Budget(3, 1.5, "ratio"),
    "delivery.first.backstop": Budget(60, 35, "value"),
    "delivery.later.backstop": Budget(8, 4, "value"),
    "size.zip": Budget(10, 7.5, "value"),
    "size.unpacked": Budget(25, 19, "value"),
}


def held(figure: Figure, budget: Budget) -> float | None:
    """Return what of a figure is held against its budget; None for a ratio without a reference."""
    return figure.ratio if budget.of == "ratio" else figure.value


def met(figure: Figure, budget: Budget) -> str:
    """Return how a figure stands to its budget, in words."""
    measured = held(figure, budget)
    if measured is None:
        return "no reference"
    return (
        "meets the aim"
        if measured <= budget.aim
        else "meets the must"
        if measured <= budget.must
        else "MISSES THE MUST"
    )


def verdict(figure: Figure) -> str | None:
    """Return a figure beside its budget, in words for a person; None where it has no budget."""
    budget = BUDGETS.get(figure.name)
    if budget is None or (measured := held(figure, budget)) is None:
        return None
    unit = f"x {figure.ratio_to}" if budget.of == "ratio" else figure.unit
    return f"{figure.name}: {measured:.2f} {unit} (must {budget.must:g}, aim {budget.aim:g}): {met(figure, budget)}"


def show(figure: Figure) -> None:
    """Print a figure as a JSON line on standard output, and its verdict on standard error."""
    print(figure.line(), flush=True)
    words = verdict(figure)
    if words is not None:
        print(f"  {words}", file=sys.stderr, flush=True)
