"""Turns the JSON lines of a run into the table of docs/performance.md: `./build.sh bench | .venv/bin/python -m
benchmarks.table`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator

from benchmarks.report import BUDGETS, Figure, met


def rows(lines: Iterable[str]) -> Iterator[str]:
    """Return the table's lines, one for each figure."""
    yield "| figure | value | of its reference | must | aim | |"
    yield "| --- | ---: | --- | ---: | ---: | --- |"
    for line in lines:
        figure = Figure(**json.loads(line))
        budget = BUDGETS.get(figure.name)
        ratio = f"{figure.ratio:.2f} × `{figure.ratio_to}`" if figure.ratio is not None else ""
        value = f"{figure.value:.2f} {figure.unit}"
        if budget is None:
            yield f"| `{figure.name}` | {value} | {ratio} | | | |"
            continue
        sign = "×" if budget.of == "ratio" else figure.unit
        bounds = f"{budget.must:g} {sign} | {budget.aim:g} {sign}"
        yield f"| `{figure.name}` | {value} | {ratio} | {bounds} | {met(figure, budget)} |"


if __name__ == "__main__":
    for row in rows(sys.stdin):
        print(row)
