"""`python -m tests.handlers.executor '{"concurrency": …, "seconds": …, "input": …}'`: what `redrive-replay` does, in
a process that can be killed.

It runs the same handlers' code in the same order (plan, canary, the rest with so many at once, report) and prints
the report. Nothing of it
lasts: as for a real execution, all that is known later is what the handlers wrote.
"""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3

from handlers.redrive.ledger import Outcome
from handlers.redrive.replay import Replay
from handlers.redrive.request_model import parse_request
from handlers.redrive.settings import from_environment
from handlers.redrive.worker import Work


def execute(order: dict[str, Any]) -> dict[str, Any]:
    """Run one execution to its end; returns the report."""
    replay = Replay(from_environment(os.environ))
    replay.planner._is_running = lambda execution: False  # its processes were killed before the next one starts
    plan = replay.planner.plan(parse_request(order["input"]), f"process-{os.getpid()}", f"p-{os.getpid()}")
    print("planned", flush=True)

    def work(failure_id: str, phase: str) -> str:
        piece = Work(redriveId=plan["redriveId"], failureId=failure_id, phase=phase, **plan["work"])
        return str(replay.worker.run(piece, order["seconds"])["outcome"])

    canary = [work(failure_id, "canary") for failure_id in plan["canary"]]
    ending = "" if all(one == Outcome.RESOLVED for one in canary) else "canary"
    if not ending:
        rest = boto3.client("s3").get_object(Bucket=plan["rest"]["bucket"], Key=plan["rest"]["key"])["Body"].read()
        with ThreadPoolExecutor(order["concurrency"]) as pool:
            for _ in pool.map(lambda failure_id: work(failure_id, "rest"), json.loads(rest)):
                pass
    return replay.reporter.report(plan["redriveId"], ending)


if __name__ == "__main__":
    print(json.dumps(execute(json.loads(sys.argv[1]))), flush=True)
