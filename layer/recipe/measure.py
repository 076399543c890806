"""`layer/measure [PYTHON ...]`: what a start that does nothing costs, for the layer's interpreter and others beside it.

The processes take turns, so that a busy moment of the machine meets all of them. Processor time is the steadier figure.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from layer.recipe import assemble, compiler

_NOTHING = ["-I", "-S", "-E", "-c", "pass"]


def start_ms(python: str) -> tuple[float, float]:
    """Wall and processor time of one start, from the spawn to the end of the process, in ms."""
    started = time.perf_counter()
    pid = os.posix_spawn(python, [python, *_NOTHING], {})
    _, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter() - started
    if status != 0:
        raise SystemExit(f"{python} ended with status {status}")
    return wall * 1000, (usage.ru_utime + usage.ru_stime) * 1000


def resident_mb(python: str) -> float:
    """The most memory that the process had at a time, in MB, as it says itself."""
    program = "print(open('/proc/self/status').read())"
    text = subprocess.run([python, *_NOTHING[:-1], program], env={}, capture_output=True, text=True, check=True).stdout
    found = re.search(r"VmHWM:\s+(\d+) kB", text)
    return int(found[1]) / 1000 if found else 0.0


def measure(pythons: list[str], rounds: int) -> None:
    """Prints a line for each interpreter."""
    taken: dict[str, list[tuple[float, float]]] = {python: [] for python in pythons}
    for _ in range(rounds):
        for python in pythons:
            taken[python].append(start_ms(python))
    for python in pythons:
        wall, processor = (statistics.median(times) for times in zip(*taken[python], strict=True))
        print(f"{wall:6.2f} ms wall  {processor:6.2f} ms processor  {resident_mb(python):5.1f} MB  {python}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="layer/measure", description="Median cost of a start that does nothing.")
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("python", nargs="*", help="interpreters to measure beside the layer's")
    arguments = parser.parse_args()
    zip_file = assemble.zip_path(compiler.TARGETS["x86_64"])
    if not zip_file.is_file():
        print("layer/measure: the layer is not built: run ./build.sh layer", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as root, zipfile.ZipFile(zip_file) as archive:
        for member in archive.infolist():
            Path(archive.extract(member, root)).chmod(member.external_attr >> 16 & 0o777)
        unpacked = sum(member.file_size for member in archive.infolist())
        print(f"{zip_file.name}: {zip_file.stat().st_size / 1e6:.1f} MB, unpacked {unpacked / 1e6:.1f} MB")
        measure([f"{root}/backstop/bin/python", *arguments.python], arguments.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
