"""Given requests as API Gateway sends them, then redrives are made, listed and cancelled, and views are paged and masked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from handlers.redrive.api import make_app, make_parts
from handlers.redrive.settings import Settings
from tests.handlers.conftest import BUCKET, TABLE, World
from tests.handlers.machine import Context, Machine
from tests.handlers.records import record_id, sidecar_record
from tests.handlers.test_replay_machine import FINGERPRINT, Replays

CALLER = "arn:aws:iam::123456789012:user/ops"


class Client:
    """Calls the API as API Gateway does (payload format 2.0)."""

    def __init__(self, replays: Replays) -> None:
        queue = Machine("queue.asl.json", {"TableName": TABLE})
        settings = Settings(TABLE, BUCKET, replay_machine_arn=replays.machine.arn, queue_machine_arn=queue.arn)
        self._app = make_app(make_parts(settings))

    def __call__(self, method: str, path: str, body: Any = None, **query: str) -> tuple[int, Any]:
        event = {
            "version": "2.0",
            "routeKey": "$default",
            "rawPath": path,
            "rawQueryString": "&".join(f"{name}={value}" for name, value in query.items()),
            "queryStringParameters": query,
            "headers": {"content-type": "application/json"},
            "requestContext": {
                "http": {"method": method, "path": path},
                "stage": "$default",
                "authorizer": {"iam": {"userArn": CALLER}},
            },
            "body": None if body is None else json.dumps(body),
            "isBase64Encoded": False,
        }
        answer = self._app.resolve(event, Context())  # type: ignore[arg-type]
        return int(answer["statusCode"]), json.loads(answer["body"])


@pytest.fixture
def replays(world: World, monkeypatch: pytest.MonkeyPatch) -> Replays:
    return Replays(world, monkeypatch)


@pytest.fixture
def call(replays: Replays) -> Client:
    return Client(replays)


def test_a_redrive_is_made_run_listed_and_shown(replays: Replays, call: Client) -> None:
    replays.capture(3)
    status, made = call("POST", "/redrives", {"select": {"group": FINGERPRINT}, "redriveId": "by-api"})
    assert (status, made["redriveId"]) == (202, "by-api")
    assert replays.machine.wait(made["execution"])["status"] == "SUCCEEDED"
    status, shown = call("GET", "/redrives/by-api")
    assert (status, shown["report"]["resolved"]) == (200, 3)
    assert shown["request"]["requestedBy"] == CALLER
    assert [one["redriveId"] for one in call("GET", "/redrives")[1]["redrives"]] == ["by-api"]
    assert call("POST", "/redrives/by-api/cancel")[0] == 409
    assert call("POST", "/redrives/none/cancel")[0] == 404
    assert call("GET", "/redrives/none")[0] == 404


@pytest.mark.parametrize(
    ("method", "path", "body", "query"),
    [
        ("POST", "/redrives", {"select": {}}, {}),
        ("POST", "/redrives", {"select": {"group": FINGERPRINT}, "speed": 1}, {}),
        ("POST", "/queue-redrives", {"queueArn": "orders"}, {}),
        ("GET", "/failures", None, {"limit": "1000"}),
        ("GET", "/failures", None, {"since": "yesterday"}),
        ("GET", "/groups/none", None, {}),
        ("PUT", f"/groups/{FINGERPRINT}", {"status": "gone"}, {}),
    ],
)
def test_what_makes_no_sense_is_refused(call: Client, method: str, path: str, body: Any, query: dict[str, str]) -> None:
    status, told = call(method, path, body, **query)
    assert status == 422, told


def test_failures_are_paged_and_masked(replays: Replays, call: Client) -> None:
    ids = replays.capture(5)
    first = call("GET", "/failures", group=FINGERPRINT, limit="3")[1]
    second = call("GET", "/failures", group=FINGERPRINT, limit="3", cursor=first["cursor"])[1]
    assert [one["failureId"] for one in first["failures"] + second["failures"]] == list(reversed(ids))
    assert second["cursor"] is None
    replays.world.collect(sidecar_record("secret", b'{"token":"s3cret"}'))
    status, shown = call("GET", f"/failures/{record_id('secret')}")
    assert (status, shown["event"]) == (200, {"token": "***"})
    assert call("GET", f"/failures/{record_id('nobody')}")[0] == 404


def test_groups_are_listed_and_changed(replays: Replays, call: Client) -> None:
    replays.capture(2)
    assert [one["count"] for one in call("GET", "/groups", status="open")[1]["groups"]] == [2]
    assert call("PUT", f"/groups/{FINGERPRINT}", {"status": "muted"})[0] == 200
    assert call("GET", f"/groups/{FINGERPRINT}")[1]["status"] == "muted"
    assert call("GET", "/groups", status="open")[1]["groups"] == []


def test_a_move_is_started_and_told(replays: Replays, call: Client) -> None:
    missing = "arn:aws:sqs:eu-central-1:123456789012:gone"
    status, made = call("POST", "/queue-redrives", {"queueArn": missing})
    assert status == 202
    replays.machine.wait(made["execution"])
    status, told = call("GET", f"/queue-redrives/{made['name']}")
    assert (status, told["status"], told["error"]) == (200, "FAILED", "Redrive.NoSuchQueue")
    assert call("GET", "/queue-redrives/none")[0] == 404


def test_the_document_names_every_route(call: Client) -> None:
    status, document = call("GET", "/openapi.json")
    assert status == 200
    assert set(document["paths"]) == {
        "/redrives",
        "/redrives/{redrive_id}",
        "/redrives/{redrive_id}/cancel",
        "/queue-redrives",
        "/queue-redrives/{name}",
        "/failures",
        "/failures/{failure_id}",
        "/groups",
        "/groups/{fingerprint}",
    }
