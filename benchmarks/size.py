"""How large is the layer, zipped and unpacked? Beside it: the packages that the few-lines extension needs, without an
interpreter.
"""

from __future__ import annotations

import importlib.metadata
import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks import processes
from benchmarks.report import Figure, beside

MB = 1_000_000


def _needed_by(*wanted: str) -> Iterator[importlib.metadata.Distribution]:
    seen: set[str] = set()
    waiting = list(wanted)
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        distribution = importlib.metadata.distribution(name)
        yield distribution
        for requirement in distribution.requires or ():
            if "extra ==" not in requirement and (match := re.match(r"[A-Za-z0-9._-]+", requirement)):
                waiting.append(match.group())


def _reference() -> tuple[int, int]:
    """Return the bytes of boto3 and requests with all they need: zipped and unpacked."""
    unpacked = 0
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for distribution in _needed_by("boto3", "requests"):
            for file in distribution.files or ():
                path = Path(str(file.locate()))
                if path.is_file() and path.suffix != ".pyc":
                    unpacked += path.stat().st_size
                    archive.write(path, str(file))
    return packed.tell(), unpacked


def measure(layer: Path) -> Iterator[Figure]:
    zipped, unpacked = _reference()
    reference = Figure("size.zip.few_lines_boto3", zipped / MB, "MB")
    yield reference
    yield beside("size.zip", processes.LAYER.stat().st_size / MB, "MB", reference)
    reference = Figure("size.unpacked.few_lines_boto3", unpacked / MB, "MB")
    yield reference
    total = sum(path.stat().st_size for path in layer.rglob("*") if path.is_file())
    yield beside("size.unpacked", total / MB, "MB", reference)
