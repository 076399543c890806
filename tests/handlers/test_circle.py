"""Given the sample `processor` under AWS's own emulator, then the circle closes: fail, capture, fix, canary, redrive, resolved."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.all
def test_the_circle_closes() -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.handlers.circle", "--json"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    report = json.loads(ended.stdout.splitlines()[-1])
    assert len(report["steps"]) == 6
    assert all(step["right"] for step in report["steps"])
    assert report["seconds"] < 120
