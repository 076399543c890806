"""`python -m benchmarks [NAME ...]`: run the named questions, or all, and print one JSON line for each figure."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import concurrency, delivery, invocation, memory, processes, size, start
from benchmarks.report import Figure, show

QUESTIONS: dict[str, Callable[[Path], Iterator[Figure]]] = {
    "size": size.measure,
    "start": start.measure,
    "memory": memory.measure,
    "invocation": invocation.measure,
    "delivery": delivery.measure,
    "concurrency": concurrency.measure,
}


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in QUESTIONS]
    if unknown:
        print(f"no such benchmark: {', '.join(unknown)} (there are {', '.join(QUESTIONS)})", file=sys.stderr)
        return 2
    with processes.unpacked_layer() as layer:
        for name in names or QUESTIONS:
            print(f"{name} …", file=sys.stderr, flush=True)
            for figure in QUESTIONS[name](layer):
                show(figure)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
