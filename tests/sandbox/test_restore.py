"""SnapStart's restore, played by the test itself: hooks that fail or hang, and the credentials endpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from sandbox.config import Limits, Mode
from tests.sandbox.actors import Actors, Reply

Scripted = Callable[..., Actors]


@pytest.fixture
def published(scripted: Scripted) -> Callable[..., tuple[Actors, Future[Reply]]]:
    """A snapshot whose runtime waits in restore/next; returns that call too."""

    def make(**limits: Any) -> tuple[Actors, Future[Reply]]:
        options = {"wait_for_init": False, "limits": Limits(**limits)}
        actors = scripted(mode=Mode.SNAP_START, options=options)
        actors.started("runtime")
        waiting = actors.next("restore/next")
        actors.sandbox.initialized()
        return actors, waiting

    return make


def kinds(actors: Actors) -> list[tuple[str, str | None]]:
    return [(kind.removeprefix("platform."), record.get("status")) for kind, record in actors.sandbox.platform_events()]


def test_restore_then_next(published: Callable[..., tuple[Actors, Future[Reply]]]) -> None:
    actors, waiting = published()
    assert not waiting.done()
    running = actors.begin(b'{"n":1}')
    restored = waiting.result(5)
    assert (restored.status, restored.body) == (200, b"")
    event = actors.next().result(5)
    assert event.headers["lambda-runtime-aws-request-id"] == running.request_id
    assert kinds(actors)[-4:-1] == [
        ("restoreStart", None),
        ("restoreRuntimeDone", "success"),
        ("restoreReport", "success"),
    ]


@pytest.mark.parametrize("path", ["restore/error", "init/error"])
def test_a_hook_that_fails(published: Callable[..., tuple[Actors, Future[Reply]]], path: str) -> None:
    actors, waiting = published()
    running = actors.begin()
    waiting.result(5)
    headers = {"Lambda-Runtime-Function-Error-Type": "Runtime.HookFailed"}
    assert actors.post(path, b'{"errorType":"HookFailed"}', headers).status == 202
    answer = running.answer(5)
    assert (answer.error_type, json.loads(answer.payload)) == ("Runtime.HookFailed", {"errorType": "HookFailed"})
    actors.sandbox.settle()
    assert ("restoreRuntimeDone", "error") in kinds(actors)


def test_a_hook_that_hangs(published: Callable[..., tuple[Actors, Future[Reply]]]) -> None:
    actors, waiting = published(restore_hook_s=0.1)
    running = actors.begin()
    waiting.result(5)
    assert running.answer(5).error_type == "Runtime.RestoreTimeout"
    actors.sandbox.settle()
    assert ("restoreReport", "timeout") in kinds(actors)


def test_restore_next_after_next_is_forbidden(scripted: Scripted) -> None:
    actors = scripted(mode=Mode.SNAP_START, options={"wait_for_init": False})
    actors.started("runtime")
    actors.next()
    actors.sandbox.initialized()
    refused = actors.next("restore/next").result(5)
    assert (refused.status, refused.error_type) == (403, "InvalidStateTransition")


def test_credentials_need_the_token(published: Callable[..., tuple[Actors, Future[Reply]]]) -> None:
    actors, _ = published()
    path = "/2021-04-23/credentials"
    assert actors.api.call("GET", path).status == 404
    token = actors.sandbox.environment.credentials_token
    reply = actors.api.call("GET", path, b"", {"Authorization": token})
    assert set(reply.json) == {"AccessKeyId", "SecretAccessKey", "Token", "Expiration"}
