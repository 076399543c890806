"""`python -m tests.e2e.demo [--json]`: a function fails in every way under AWS's own emulator; shows what reached the queue.

Ends with 0 if every failure was captured whole and no success was; with 1 if something is missing; with 2 if it could not run.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.e2e.demo import cost as costs
from tests.e2e.demo.managed import managed_results
from tests.e2e.demo.story import NO_TELEMETRY, Result, play
from tests.e2e.demo.table import show_cost, show_results
from tests.e2e.harness.fetch import WHEEL, EmulatorMissing
from tests.e2e.harness.functions import attached, bash_function, node_function
from tests.e2e.harness.layer import LayerMissing, unpack_layer
from tests.e2e.harness.namespaces import NoNamespaces, may_change_user
from tests.e2e.harness.roots import have_node, python_files
from tests.e2e.harness.sandbox import Function, Sandbox, SandboxFailed
from tests.e2e.harness.sqs import Moto

_TIMEOUT_S = 2
_NOT_MEASURED = costs.Cost(None, None, None, "", 0)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.demo", description="Shows what Backstop does.")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the tables")
    as_json: bool = parser.parse_args().json
    # Into a file or a pipe goes a width that needs little folding; a terminal's own is kept.
    console = Console(quiet=as_json, width=None if sys.stdout.isatty() else 110)
    try:
        with tempfile.TemporaryDirectory(prefix="backstop-demo-") as folder, Moto() as moto:
            # Other users must get through: on Managed Instances the sidecar is one.
            Path(folder).chmod(0o755)
            return _run(Path(folder), moto, console, as_json)
    except (EmulatorMissing, LayerMissing, NoNamespaces, SandboxFailed) as error:
        if as_json:
            print(json.dumps(_report([], _NOT_MEASURED, None)))
        print(f"demo: {error}", file=sys.stderr)
        return 2


def _run(folder: Path, moto: Moto, console: Console, as_json: bool) -> int:
    layer = unpack_layer(_made(folder / "layer"))
    queue = moto.queue("failures")
    settings = attached(queue.url, moto.url, TAGS="team:orders,env:demo")
    console.print(f"[bold]Backstop[/] on {_platform()}\n")
    function = _function(layer, settings)
    with Sandbox(function, _made(folder / "story")) as sandbox:
        python = python_files(sandbox.inside()) if function.root.own else None
        results = play(sandbox, queue)
    show_results(console, "Five invocations, one at a time (classic mode)", results, NO_TELEMETRY)

    managed: list[Result] = []
    if have_node() and may_change_user():
        managed = managed_results(layer, moto, _made(folder / "managed"))
        show_results(console, "Two more on Managed Instances, where the emulator has the real Telemetry API", managed)

    started_ms = costs.start_ms(sandbox.output())
    cost = costs.measure(*_measured(layer, settings), _made(folder / "cost"), clock=have_node(), started_ms=started_ms)
    show_cost(console, cost, python)
    if as_json:
        print(json.dumps(_report(results, cost, python)))
    missing = _missing([*results, *managed], cost, python)
    if missing:
        print(f"{sandbox.output()}\ndemo: the above is what the environment said. Missing:", file=sys.stderr)
        print("\n".join(f"  - {line}" for line in missing), file=sys.stderr)
    return 1 if missing else 0


def _missing(results: list[Result], cost: costs.Cost, python: list[str] | None) -> list[str]:
    """What is not as it should be, a line each."""
    lines = [f"{result.scene.name}: {result.complaint}" for result in results if result.complaint]
    figures = {"start": cost.start_ms, "added time": cost.added_ms_p50, "memory": cost.rss_mb}
    lines += [f"no figure for {name}" for name, value in figures.items() if value is None]
    if python:
        lines.append(f"Python outside the layer: {', '.join(python)}")
    return lines


def _report(results: list[Result], cost: costs.Cost, python: list[str] | None) -> dict[str, Any]:
    return {
        "platform": _platform(),
        "invocations": [result.to_json() for result in results],
        "python_in_root": None if python is None else bool(python),
        "sidecar": {"start_ms": cost.start_ms, "added_ms_p50": cost.added_ms_p50, "rss_mb": cost.rss_mb},
    }


def _function(layer: Path, settings: dict[str, str]) -> Function:
    if have_node():
        return node_function(layer, settings, timeout_s=_TIMEOUT_S)
    return bash_function(layer, settings, timeout_s=_TIMEOUT_S)


def _measured(layer: Path, settings: dict[str, str]) -> tuple[Function, Function]:
    """The same function twice: without the layer, and with it."""
    if have_node():
        return node_function(None, {}, code="clock"), node_function(layer, settings, code="clock")
    return bash_function(None, {}), bash_function(layer, settings)


def _platform() -> str:
    if have_node():
        version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
        runtime = f"Node.js {version} with a hand-written Runtime API client"
    else:
        runtime = "bash with one curl per call, because Node.js is not installed"
    return f"AWS's Runtime Interface Emulator ({WHEEL}, {platform.machine()}), {runtime}, SQS by moto"


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


if __name__ == "__main__":
    sys.exit(main())
