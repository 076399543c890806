"""The demo as a newcomer runs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.harness.functions import E2E
from tests.e2e.harness.roots import have_node

REPOSITORY = E2E.parents[1]
CONDITIONS = [None, "HandledError", "Timeout", "Crash", None]


@pytest.mark.parametrize("runtime", ["node", "bash"])
def test_as_json(runtime: str, tmp_path: Path) -> None:
    """One object; without Node.js on the PATH bash plays its part and says so."""
    done = _demo("--json", path=os.environ["PATH"] if runtime == "node" else _path_without_node(tmp_path))

    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert set(told) == {"platform", "invocations", "python_in_root", "sidecar"}
    assert ("Node.js is not installed" in told["platform"]) == (runtime == "bash")
    assert [invocation["condition"] for invocation in told["invocations"]] == CONDITIONS
    assert [invocation["captured"] for invocation in told["invocations"]] == [False, True, True, True, False]
    assert [invocation["payload_intact"] for invocation in told["invocations"]] == [None, True, True, True, None]
    assert [invocation["outcome"] for invocation in told["invocations"]] == [
        "success",
        "error",
        "timeout",
        "crash",
        "success",
    ]
    assert told["python_in_root"] is False
    sidecar = told["sidecar"]
    assert 0 < sidecar["start_ms"] < 1000
    assert 0 < sidecar["rss_mb"] < 100
    # With bash the difference drowns in the noise of the processes it starts.
    assert (-5 if runtime == "bash" else 0) < sidecar["added_ms_p50"] < 10


@pytest.mark.skipif(not have_node(), reason="Node.js is not installed")
def test_as_a_table() -> None:
    done = _demo(path=os.environ["PATH"])

    assert done.returncode == 0, done.stderr
    for words in (
        "HandledError",
        "Timeout",
        "Crash",
        "all equal",
        "no Telemetry API",
        "hand-written Runtime API client",
    ):
        assert words in done.stdout
    assert "✘" not in done.stdout


def test_where_it_cannot_run_it_says_why_and_fails(tmp_path: Path) -> None:
    """No private namespace to be had: there is no root, and nothing is claimed."""
    refusing = tmp_path / "unshare"
    refusing.write_text("#!/bin/sh\necho 'unshare: unshare failed: Operation not permitted' >&2\nexit 1\n")
    refusing.chmod(0o755)
    done = _demo("--json", path=f"{tmp_path}:{os.environ['PATH']}")

    assert done.returncode == 2
    told = json.loads(done.stdout)
    assert told["invocations"] == []
    assert told["python_in_root"] is None
    assert "Operation not permitted" in done.stderr


def _demo(*options: str, path: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.e2e.demo", *options]
    environment = {**os.environ, "PATH": path}
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)


def _path_without_node(folder: Path) -> str:
    """Links to every command on the PATH but Node.js."""
    for place in os.environ["PATH"].split(os.pathsep):
        for command in Path(place).glob("*"):
            link = folder / command.name
            if command.name not in ("node", "nodejs") and not link.is_symlink():
                link.symlink_to(command)
    assert shutil.which("node", path=str(folder)) is None
    return str(folder)
