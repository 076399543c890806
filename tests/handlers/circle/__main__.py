"""`python -m tests.handlers.circle [--json]`: fail → captured → collected → canary stops → fixed → canary → redriven → resolved.

The function runs under AWS's own emulator with the layer, everything else of AWS is moto; the handlers and the
state machine are the real ones. Ends with 0 if every step went as it should, with 1 if one did not, with 2 if it could not run.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from handlers.redrive import views
from handlers.redrive.settings import from_environment
from handlers.redrive.table import Table
from handlers.redrive.views import Filter
from tests.e2e.harness.fetch import EmulatorMissing
from tests.e2e.harness.functions import E2E, SAMPLES, attached
from tests.e2e.harness.layer import LayerMissing, unpack_layer
from tests.e2e.harness.namespaces import NoNamespaces
from tests.e2e.harness.roots import have_node, node_root
from tests.e2e.harness.sandbox import Function, Sandbox, SandboxFailed
from tests.handlers.circle.aws import Cloud, cloud

_JOBS = 5
_WAIT_S = 20.0


@dataclass
class Circle:
    """The steps, and what each came to."""

    cloud: Cloud
    layer: Path
    folder: Path
    console: Console
    steps: list[dict[str, Any]] = field(default_factory=list)

    def tell(self, step: str, right: bool, **what: Any) -> None:
        self.steps.append({"step": step, "right": right, **what})
        words = ", ".join(f"{name} {value}" for name, value in what.items())
        self.console.print(f"{'[green]✓' if right else '[red]✗'}[/] {step}: {words}", highlight=False)

    def processor(self, name: str, fail: str) -> Sandbox:
        """The sample `processor` with the layer attached, failing or fixed."""
        settings = attached(self.cloud.queue_url, self.cloud.url, TAGS="team:jobs,env:demo")
        runtime = E2E / "functions" / "node" / "runtime"
        place = self.folder / name
        place.mkdir()
        environment = {**settings, "FAIL": fail, "AWS_LAMBDA_FUNCTION_NAME": "processor"}
        return Sandbox(Function(node_root(), SAMPLES / "processor", runtime, self.layer, environment), place)

    def run(self) -> None:
        events = [b'{"job":"job-%d","weight":1.00}' % number for number in range(_JOBS)]
        with self.processor("failing", "true") as sandbox:
            errors = sum(b"DatabaseDown" in sandbox.invoke(event).body for event in events)
            self.tell("the processor fails", errors == _JOBS, invocations=_JOBS, errors=errors)
            self._collect()
            group = self._group()
            self.cloud.processor = lambda event: _answer(sandbox, event)
            stopped = self._replay(group)
            self.tell(
                "a redrive before the fix stops at its canary",
                stopped["error"] == "Redrive.Stopped" and self._statuses() == {"failed": 1, "captured": _JOBS - 1},
                statuses=self._statuses(),
            )
        with self.processor("fixed", "false") as sandbox:
            got: list[bytes] = []

            def replayed(event: bytes) -> tuple[int, bytes]:
                got.append(event)
                return _answer(sandbox, event)

            self.cloud.processor = replayed
            done = self._replay(group)
            self.tell(
                "after the fix the canary passes and the rest follows",
                done["status"] == "SUCCEEDED" and sorted(got) == sorted(events),
                invocations=len(got),
                bytes="the very same" if sorted(got) == sorted(events) else "changed",
            )
        statuses = self._statuses()
        self.tell("every failure is resolved", statuses == {"resolved": _JOBS}, statuses=statuses)

    def _collect(self) -> None:
        deadline = time.monotonic() + _WAIT_S
        count = self.cloud.collect_all()
        while count < _JOBS and time.monotonic() < deadline:
            time.sleep(0.1)
            count += self.cloud.collect_all()
        self.tell("the layer captured them, the collector has them", count == _JOBS, records=count)

    def _table(self) -> Table:
        import boto3

        return Table(boto3.client("dynamodb"), from_environment({"BACKSTOP_TABLE": "Failures"}).table)

    def _group(self) -> str:
        groups = views.all_groups(self._table())
        right = len(groups) == 1 and groups[0]["count"] == _JOBS
        shown = [(one["fingerprint"], one["count"], one["errorType"]) for one in groups]
        self.tell("they are one group", right, groups=shown)
        return str(groups[0]["fingerprint"])

    def _statuses(self) -> dict[str, int]:
        own = (item for item in views.all_failures(self._table(), Filter()) if item["status"] not in ("linked",))
        return dict(Counter(str(item["status"]) for item in own))

    def _replay(self, group: str) -> dict[str, Any]:
        # The emulator is one environment: one invocation at a time.
        request = {"select": {"group": group}, "confirmUnknown": True, "concurrency": 1}
        return self.cloud.machine.run(request, timeout_s=60)


def _answer(sandbox: Sandbox, event: bytes) -> tuple[int, bytes]:
    answer = sandbox.invoke(event)
    return answer.status, answer.body


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.handlers.circle", description="Fail, capture, fix, redrive.")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the steps")
    as_json: bool = parser.parse_args().json
    console = Console(quiet=as_json, width=None if sys.stdout.isatty() else 110)
    if not have_node():
        print("circle: Node.js is not installed", file=sys.stderr)
        return 2
    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="backstop-circle-") as name, cloud() as made:
            folder = Path(name)
            folder.chmod(0o755)
            (folder / "layer").mkdir()
            circle = Circle(made, unpack_layer(folder / "layer"), folder, console)
            circle.run()
    except (EmulatorMissing, LayerMissing, NoNamespaces, SandboxFailed) as error:
        print(f"circle: {error}", file=sys.stderr)
        return 2
    right = all(step["right"] for step in circle.steps)
    seconds = round(time.monotonic() - began, 1)
    if as_json:
        print(json.dumps({"right": right, "seconds": seconds, "steps": circle.steps}, default=str))
    console.print(f"{'the circle is closed' if right else 'something is missing'} ({seconds} s)", highlight=False)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
