"""Given many captured failures in three groups and an executor that is killed again and again, then counts add up
and nothing recorded
runs twice.

Handlers run in processes of their own and reach AWS's stand-in over HTTP. `--all`: 10,000 failures and 50 kills.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from handlers.redrive import keys, views
from handlers.redrive.collector import Collector
from handlers.redrive.events import EventStore
from handlers.redrive.ledger import Ledger
from handlers.redrive.settings import Settings
from handlers.redrive.table import Table, definition
from tests.handlers.conftest import BUCKET, ENVIRONMENT, REGION, TABLE
from tests.handlers.executor import execute
from tests.handlers.records import message, record_id, sidecar_record

ROOT = Path(__file__).parents[2]
ARN = "arn:aws:lambda:eu-central-1:123456789012:function:"
GROUPS = {"fixed": "00000000000000aa", "broken": "00000000000000bb", "poison": "00000000000000cc"}
CONCURRENCY = 6
# How long a claim lasts in this test: a worker needs milliseconds.
SECONDS = 2.0


@dataclass(frozen=True)
class Size:
    fixed: int
    broken: int
    poison: int
    kills: int
    kill_after_s: tuple[float, float]


SMALL = Size(fixed=60, broken=6, poison=2, kills=2, kill_after_s=(0.05, 0.5))
LARGE = Size(fixed=1_500, broken=8_440, poison=60, kills=50, kill_after_s=(0.05, 1.0))


class Server:
    """moto's server as a process."""

    def __init__(self, log: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self.log = log
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "BACKSTOP_"))},
            **ENVIRONMENT,
            "PYTHONWARNINGS": "ignore",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "BACKSTOP_TABLE": TABLE,
            "BACKSTOP_BUCKET": BUCKET,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.handlers.moto_server", str(self.port), str(log)],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def wait(self) -> None:
        deadline = time.monotonic() + 60
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self.process.poll() is None, "moto's server did not start"
            assert time.monotonic() < deadline, "moto's server did not start in time"
            time.sleep(0.05)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def invocations(self) -> list[tuple[str, str]]:
        """(function, event) of each invocation."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [(function, event) for function, _, event in (line.split(" ", 2) for line in lines)]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    made = Server(tmp_path / "invocations")
    try:
        made.wait()
        for name in ("AWS_ENDPOINT_URL", "BACKSTOP_TABLE", "BACKSTOP_BUCKET"):
            monkeypatch.setenv(name, made.environment[name])
        boto3.client("dynamodb").create_table(**definition(TABLE))
        boto3.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        yield made
    finally:
        made.stop()


def run_to_the_end(value: dict[str, Any]) -> dict[str, Any]:
    """An execution in this process; returns the report."""
    return execute({"concurrency": CONCURRENCY, "seconds": SECONDS, "input": value})


def run_and_kill(server: Server, value: dict[str, Any], kill_after_s: float) -> bool:
    """An execution as a process, killed so long after it has planned. False if it had ended by then."""
    order = json.dumps({"concurrency": CONCURRENCY, "seconds": SECONDS, "input": value})
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.handlers.executor", order],
        cwd=ROOT,
        env=server.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line == "planned\n":
            break
    try:
        process.communicate(timeout=kill_after_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return True
    return False


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(SMALL, id="small"),
        pytest.param(LARGE, id="large", marks=[pytest.mark.all, pytest.mark.timeout(3000)]),
    ],
)
def test_kills_change_only_what_is_ambiguous(server: Server, size: Size) -> None:
    settings = Settings(table=TABLE, bucket=BUCKET)
    table = Table(boto3.client("dynamodb"), TABLE)
    events = EventStore(boto3.client("s3"), BUCKET)
    ledger = Ledger(table, settings, time.time)
    collect_all(table, events, settings, size)

    def statuses(group: str) -> Counter[str]:
        # By key: moto reads its whole table for each query of an index.
        wanted = [keys.failure(record_id(f"{group}-{number}")) for number in range(getattr(size, group))]
        return Counter(item["status"] for item in table.get_many(wanted))

    def counted(group: str) -> int:
        shown = views.group(table, GROUPS[group])
        assert shown is not None
        return int(shown["count"])

    assert {group: counted(group) for group in GROUPS} == {
        "fixed": size.fixed,
        "broken": size.broken,
        "poison": size.poison,
    }

    # --- the fixed group, with an executor that is killed --------------------------------------------------------------
    dice = random.Random(17)
    value: dict[str, Any] = {"redriveId": "fixed", "select": {"group": GROUPS["fixed"]}}
    kills = 0
    while kills < size.kills:
        if not run_and_kill(server, value, dice.uniform(*size.kill_after_s)):
            break
        kills += 1
        value = {"resume": "fixed"}
    assert kills == size.kills, f"it ended after {kills} kills: make them sooner"
    report = run_to_the_end(value)
    ambiguous = {entry["failureId"] for entry in ledger.entries("fixed") if entry["outcome"] == "ambiguous"}
    assert len(ambiguous) <= CONCURRENCY * kills
    assert report["resolved"] + report["ambiguous"] == report["planned"] == size.fixed
    assert report["ambiguous"] == len(ambiguous)
    assert (
        statuses("fixed") == Counter({"resolved": size.fixed - len(ambiguous), "ambiguous": len(ambiguous)}) + Counter()
    )
    runs = Counter(event for function, event in server.invocations() if function == "fixed")
    assert max(runs.values()) == 1
    not_ambiguous = {
        f'{{"n":{number}}}' for number in range(size.fixed) if record_id(f"fixed-{number}") not in ambiguous
    }
    assert not_ambiguous <= set(runs)

    # --- those that are ambiguous may run once more, and only those ----------------------------------------------------
    deadline = time.monotonic() + 300
    while ambiguous and statuses("fixed")["ambiguous"]:
        assert time.monotonic() < deadline
        run_to_the_end({"resume": "fixed", "rerunAmbiguous": True})
    assert statuses("fixed") == Counter({"resolved": size.fixed})
    runs = Counter(event for function, event in server.invocations() if function == "fixed")
    assert set(runs.values()) <= {1, 2}
    twice = {event for event, times in runs.items() if times == 2}
    assert twice <= {f'{{"n":{number}}}' for number in range(size.fixed) if record_id(f"fixed-{number}") in ambiguous}

    # --- the broken one stops at the canary, the poison one is quarantined ---------------------------------------------
    report = run_to_the_end({"redriveId": "broken", "select": {"group": GROUPS["broken"]}})
    assert (report["status"], report["failed"], report["notRun"]) == ("stopped", 1, size.broken - 1)
    assert sum(function == "broken" for function, _ in server.invocations()) == 1
    assert statuses("broken") == Counter({"captured": size.broken - 1, "failed": 1})
    for turn in range(1, 4):
        report = run_to_the_end(
            {
                "redriveId": f"poison-{turn}",
                "select": {"group": GROUPS["poison"]},
                "canary": 0,
                "toleratedFailurePercent": 100,
                "quarantineAfter": 3,
            }
        )
        assert report["quarantined" if turn == 3 else "failed"] == size.poison
    assert statuses("poison") == Counter({"quarantined": size.poison})
    assert sum(function == "poison" for function, _ in server.invocations()) == 3 * size.poison


def collect_all(table: Table, events: EventStore, settings: Settings, size: Size) -> None:
    """Collect every group's failures, from several threads at once and each tenth twice."""
    boto3.client("iam").create_role(RoleName="lambda", AssumeRolePolicyDocument="{}")
    role = boto3.client("iam").get_role(RoleName="lambda")["Role"]["Arn"]
    texts = []
    for group, fingerprint in GROUPS.items():
        boto3.client("lambda").create_function(
            FunctionName=group, Role=role, Code={"ZipFile": b"none"}, Handler="x.y", Runtime="python3.13"
        )
        for number in range(getattr(size, group)):
            text = sidecar_record(
                f"{group}-{number}",
                b'{"n":%d}' % number,
                arn=ARN + group,
                fingerprint=fingerprint,
                timestamp=f"2026-11-24T16:{number // 60_000:02d}:{number // 1000 % 60:02d}.{number % 1000:03d}Z",
            )
            texts += [text, text] if number % 10 == 0 else [text]
    random.Random(3).shuffle(texts)
    collector = Collector(table, events, settings, time.time)
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda text: collector.collect(message(text)), texts):
            pass
