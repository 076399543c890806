"""Given captured failures, then a person sees them masked, and drives them back with a question asked before anything runs."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.app import main
from handlers.redrive import keys
from handlers.redrive.table import Change, Insert
from tests.handlers.conftest import BUCKET, TABLE, World
from tests.handlers.moto_plugins.functions import FunctionFailed, Invocation
from tests.handlers.records import record_id, sidecar_record
from tests.handlers.test_replay_machine import FINGERPRINT, Replays

Run = Callable[..., tuple[int, str, str]]
SECRET = b'{"order":1,"headers":{"authorization":"Bearer s3cret"}}'


@pytest.fixture
def run(world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("BACKSTOP_TABLE", TABLE)
    monkeypatch.setenv("BACKSTOP_BUCKET", BUCKET)

    def command(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        told = capsys.readouterr()
        return int(ended.value.code or 0), told.out, told.err

    return command


@pytest.fixture
def replays(world: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> Replays:
    made = Replays(world, monkeypatch)
    monkeypatch.setenv("BACKSTOP_REPLAY_MACHINE_ARN", made.machine.arn)
    monkeypatch.setattr("cli.watch._EVERY_S", 0.05)
    return made


def lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines() if line.startswith(("{", "["))]


def test_failures_are_listed_newest_first_page_by_page(world: World, run: Run) -> None:
    names = [f"f-{number:02d}" for number in range(25)]
    world.collect(*(sidecar_record(name, timestamp=f"2026-11-24T16:08:{name[2:]}.000Z") for name in names))
    seen: list[str] = []
    cursor: list[str] = []
    for _ in range(3):
        code, out, _ = run("--json", "failures", "list", "--limit", "10", *cursor)
        assert code == 0
        (page,) = lines(out)
        seen += [one["failureId"] for one in page["failures"]]
        cursor = ["--cursor", page["cursor"]] if page["cursor"] else []
    assert seen == [record_id(name) for name in reversed(names)]
    assert cursor == []
    (by_function,) = lines(
        run("--json", "failures", "list", "--function", "orders", "--until", "2026-11-24T16:08:04Z")[1]
    )
    assert len(by_function["failures"]) == 5
    assert "f-24" not in run("failures", "list", "--group", FINGERPRINT)[1]


def test_a_failure_is_shown_with_its_secrets_masked(world: World, run: Run) -> None:
    world.collect(sidecar_record(event=SECRET, logs=['{"password":"hunter2"}']))
    for form in ((), ("--json",)):
        code, out, _ = run(*form, "failures", "show", record_id("one"))
        assert code == 0
        assert "s3cret" not in out
        assert "hunter2" not in out
        assert '"order"' in out


def test_an_export_is_masked_unless_payloads_are_asked_for(world: World, run: Run, tmp_path: Path) -> None:
    world.collect(sidecar_record(event=SECRET))
    assert run("failures", "export", "--to", str(tmp_path / "masked"))[0] == 0
    assert "s3cret" not in (tmp_path / "masked").read_text()
    assert run("failures", "export", "--payloads", "--to", str(tmp_path / "whole"))[0] == 0
    (whole,) = lines((tmp_path / "whole").read_text())
    assert base64.b64decode(whole["event"]["base64"]) == SECRET


def test_purging_asks_deletes_everything_of_a_failure_and_leaves_what_is_in_flight(world: World, run: Run) -> None:
    large = json.dumps("x" * 310_000).encode()
    world.collect(sidecar_record("large", large), sidecar_record("busy"))
    world.table.change(Change(keys.failure(record_id("busy")), sets={"status": "inflight"}))
    code, _, told = run("failures", "purge", "--group", FINGERPRINT)
    assert code == 2
    assert "--yes" in told
    assert len(world.items("Failure")) == 2
    code, out, _ = run("--json", "failures", "purge", "--group", FINGERPRINT, "--yes")
    assert lines(out) == [{"purged": 1, "inFlight": [record_id("busy")]}]
    assert "Contents" not in world.s3.list_objects_v2(Bucket=BUCKET, Prefix="events/")
    assert [item["failureId"] for item in world.items("Failure")] == [record_id("busy")]
    assert len(world.items("Body")) == 1
    world.table.change(Change(keys.failure(record_id("busy")), sets={"status": "captured"}))
    assert run("failures", "purge", "--group", FINGERPRINT, "--yes")[0] == 0
    assert world.items() == []


def test_groups_are_counted_and_can_be_resolved(world: World, run: Run) -> None:
    world.collect(sidecar_record("a"), sidecar_record("b"), sidecar_record("c", fingerprint="00000000000000bb"))
    (listed,) = lines(run("--json", "groups", "list")[1])
    assert {one["fingerprint"]: one["count"] for one in listed["groups"]} == {FINGERPRINT: 2, "00000000000000bb": 1}
    assert run("groups", "resolve", FINGERPRINT)[0] == 0
    (left,) = lines(run("--json", "groups", "list", "--status", "open")[1])
    assert [one["fingerprint"] for one in left["groups"]] == ["00000000000000bb"]
    code, _, told = run("groups", "mute", "00000000000000cc")
    assert code == 1
    assert "there is no group" in told


def test_a_plan_tells_what_would_run_and_why_not(replays: Replays, run: Run) -> None:
    replays.capture(3)
    replays.world.collect(sidecar_record("queue", owner="queue"), sidecar_record("big", b'{"order":99}'))
    (planned,) = lines(run("--json", "redrive", "plan", "--group", FINGERPRINT)[1])
    assert planned["summary"]["planned"] == 4
    assert list(planned["refused"]) == [record_id("queue")]
    code, out, _ = run("redrive", "plan", "--group", FINGERPRINT, "--where", "order > `50`")
    assert code == 0
    assert "1 of 1 failures would be replayed" in out
    assert replays.ran() == []


def test_nothing_runs_without_a_yes(replays: Replays, run: Run) -> None:
    replays.capture(1)
    code, _, told = run("redrive", "start", "--group", FINGERPRINT)
    assert code == 2
    assert "--yes" in told
    assert replays.ran() == []


def test_a_redrive_is_started_watched_and_reported(replays: Replays, run: Run) -> None:
    replays.capture(6)
    code, out, told = run("redrive", "start", "--group", FINGERPRINT, "--yes", "--concurrency", "3")
    assert (code, told) == (0, "")
    assert "6 resolved, 0 failed" in out
    (listed,) = lines(run("--json", "redrive", "list")[1])
    assert [one["status"] for one in listed["redrives"]] == ["completed"]
    redrive_id = listed["redrives"][0]["redriveId"]
    (shown,) = lines(run("--json", "redrive", "show", redrive_id)[1])
    assert shown["report"]["resolved"] == 6
    watched = lines(run("--json", "redrive", "watch", redrive_id)[1])
    assert watched[-1]["report"]["status"] == "completed"
    code, _, told = run("redrive", "cancel", redrive_id)
    assert code == 1
    assert "nothing to cancel" in told


def test_a_redrive_that_stops_ends_the_command_with_an_error_and_the_next_step(replays: Replays, run: Run) -> None:
    ids = replays.capture(3)

    def broken(invocation: Invocation) -> bytes:
        raise FunctionFailed({"errorType": "ValueError", "errorMessage": "no stock"})

    replays.behave(broken)
    code, _, told = run("redrive", "start", "--group", FINGERPRINT, "--yes")
    assert code == 1
    assert "canary" in told
    assert "redrive resume" in told
    assert run("failures", "release", ids[0])[0] == 0
    replays.behave(lambda invocation: b"null")
    (listed,) = lines(run("--json", "redrive", "list")[1])
    code, out, _ = run("redrive", "resume", listed["redrives"][0]["redriveId"], "--yes")
    assert code == 0, out
    assert set(replays.statuses().values()) <= {"resolved", "captured"}


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("redrive", "start", "--yes"), 2, "not a selection"),
        (("redrive", "plan", "--group", "zz"), 2, "group"),
        (("redrive", "watch", "none"), 1, "redrive list"),
        (("failures", "list", "--since", "yesterday"), 2, "ISO 8601"),
        (("failures", "show", "none"), 1, "failures list"),
        (("--table", "Elsewhere", "failures", "show", "x"), 1, "--table"),
        (("failures", "frobnicate"), 2, "No such command"),
        (("redrive", "start", "--group", FINGERPRINT, "--yes"), 1, "nothing to replay"),
    ],
)
def test_errors_say_what_to_do_next(run: Run, arguments: tuple[str, ...], code: int, told: str) -> None:
    ended, out, error = run(*arguments)
    assert ended == code, out
    assert told in error


def test_a_missing_table_setting_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BACKSTOP_TABLE")
    code, _, told = run("failures", "list")
    assert code == 1
    assert "BACKSTOP_TABLE" in told


def test_a_queues_mark_is_shown_and_cleared(world: World, run: Run) -> None:
    arn = "arn:aws:sqs:eu-central-1:123456789012:orders-dlq"
    world.table.insert(Insert({**keys.poison(arn), "itemType": "Poison", "reason": "about 5 of 5 came back"}))
    assert "5 of 5" in run("redrive", "queue", "mark", arn)[1]
    assert run("redrive", "queue", "clear", arn)[0] == 0
    assert "not marked" in run("redrive", "queue", "mark", arn)[1]


def test_a_sift_counts_first_and_runs_only_with_an_archive_and_a_yes(world: World, run: Run, tmp_path: Path) -> None:
    dlq = world.sqs.create_queue(QueueName="dlq")["QueueUrl"]
    world.sqs.send_message(QueueUrl=dlq, MessageBody='{"tenant":"gone"}')
    rules = tmp_path / "rules.yaml"
    rules.write_text("rules:\n  - {name: gone, when: \"body.tenant == 'gone'\", do: delete}\n")
    (counted,) = lines(run("--json", "sift", str(rules), dlq)[1])
    assert counted["rules"] == {"gone": {"delete": 1}}
    assert run("sift", str(rules), dlq, "--run")[0] == 2
    assert run("sift", str(rules), dlq, "--run", "--archive", str(tmp_path / "archive"))[0] == 2
    code, out, told = run("sift", str(rules), dlq, "--run", "--archive", str(tmp_path / "archive"), "--yes")
    assert (code, told) == (0, ""), out
    assert "Messages" not in world.sqs.receive_message(QueueUrl=dlq)
    assert list((tmp_path / "archive").glob("intents-*.jsonl"))
    rules.write_text("rules:\n  - {name: gone, when: id, do: resend}\n")
    code, _, told = run("sift", str(rules), dlq)
    assert code == 2
    assert "resend" in told


def test_a_redrive_that_was_stopped_hard_is_settled(replays: Replays, run: Run) -> None:
    ids = replays.capture(6)

    def cut_off(invocation: Invocation) -> bytes:
        if len(replays.ran()) == 3:
            (redrive,) = replays.world.items("Redrive")
            replays.machine.client.stop_execution(executionArn=redrive["execution"])
            raise ConnectionResetError
        return b"null"

    replays.behave(cut_off)
    request = {"select": {"group": FINGERPRINT}, "concurrency": 1, "redriveId": "cut"}
    assert replays.machine.run(request)["status"] == "ABORTED"
    (settled,) = lines(run("--json", "redrive", "settle", "cut")[1])
    assert settled["status"] == "failed"
    assert settled["resolved"] + settled["ambiguous"] + settled["notRun"] == len(ids)
    assert "inflight" not in replays.statuses().values()
