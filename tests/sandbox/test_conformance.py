"""The cases of AWS's own emulator's tests, redone from outside, against the sandbox.

They are the tests of its packages rapi/handler, rapi (router), core/directinvoke and of the telemetry subscription
(github.com/aws/aws-lambda-runtime-interface-emulator). Names follow theirs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from sandbox.config import Limits, Mode
from tests.sandbox.actors import EXTENSION, RUNTIME, Actors

Scripted = Callable[..., Actors]
UNKNOWN = "00000000-0000-4000-8000-000000000000"


# -- register ------------------------------------------------------------------------------------------------------


def test_register_without_a_name(scripted: Scripted) -> None:
    actors = scripted(extensions=["one"])
    actors.begin()
    actors.started("one")
    reply = actors.api.call("POST", EXTENSION + "register", b'{"events":[]}')
    assert (reply.status, reply.error_type) == (403, "Extension.InvalidExtensionName")


@pytest.mark.parametrize("body", [b"not json", b"[]", b'{"events":"INVOKE"}', b'{"configurationKeys":["x"]}'])
def test_register_with_a_bad_body(scripted: Scripted, body: bytes) -> None:
    actors = scripted(extensions=["one"])
    actors.begin()
    actors.started("one")
    reply = actors.api.call("POST", EXTENSION + "register", body, {"Lambda-Extension-Name": "one"})
    assert (reply.status, reply.error_type) == (403, "InvalidRequestFormat")


def test_register_describes_the_function(scripted: Scripted) -> None:
    actors = scripted(extensions=["one"], name="orders", version="7", handler="app.main", account_id="111122223333")
    actors.begin()
    actors.started("one")
    reply = actors.extension("one").register("INVOKE", "SHUTDOWN")
    assert reply.status == 200
    assert reply.json == {"functionName": "orders", "functionVersion": "7", "handler": "app.main"}
    assert reply.headers["lambda-extension-identifier"]


@pytest.mark.parametrize("features", ["accountId", "other, accountId ,x"])
def test_register_with_the_account_id_feature(scripted: Scripted, features: str) -> None:
    actors = scripted(extensions=["one"], account_id="111122223333")
    actors.begin()
    actors.started("one")
    assert actors.extension("one").register(features=features).json["accountId"] == "111122223333"


def test_register_twice(scripted: Scripted) -> None:
    actors = scripted(extensions=["one"])
    actors.begin()
    actors.started("one")
    one = actors.extension("one")
    one.register("INVOKE")
    reply = one.register("INVOKE")
    assert (reply.status, reply.error_type) == (403, "Extension.InvalidExtensionState")
    assert "from Registered to Registered failed for extension one" in reply.json["errorMessage"]


def test_register_for_an_unknown_event(scripted: Scripted) -> None:
    actors = scripted(extensions=["one"])
    actors.begin()
    actors.started("one")
    reply = actors.extension("one").register("INVOKE", "RESTART")
    assert (reply.status, reply.error_type) == (403, "Extension.InvalidEventType")


def test_register_internal_extension(scripted: Scripted) -> None:
    actors = scripted()
    actors.begin()
    actors.started("runtime")
    assert actors.extension("inside").register("INVOKE").status == 200
    again = actors.extension("inside").register("INVOKE")
    assert (again.status, again.error_type) == (403, "Extension.InvalidExtensionState")


def test_register_internal_extension_for_shutdown(scripted: Scripted) -> None:
    actors = scripted()
    actors.begin()
    actors.started("runtime")
    reply = actors.extension("inside").register("SHUTDOWN")
    assert (reply.status, reply.error_type) == (403, "Extension.InvalidEventType")
    assert reply.json["errorMessage"] == "SHUTDOWN: ShutdownEventNotSupportedForInternalExtension"


def test_register_after_registration_closed(scripted: Scripted) -> None:
    actors = scripted()
    actors.init_without_extensions()
    reply = actors.extension("late").register("INVOKE")
    assert (reply.status, reply.error_type) == (403, "Extension.RegistrationClosed")


def test_register_too_many(scripted: Scripted) -> None:
    actors = scripted(options={"limits": Limits(max_extensions=2)})
    actors.begin()
    actors.started("runtime")
    assert [actors.extension(name).register().status for name in ("a", "b")] == [200, 200]
    reply = actors.extension("c").register()
    assert (reply.status, reply.error_type) == (403, "Extension.TooManyExtensions")


def test_register_for_invoke_on_managed_instances(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    actors = scripted(mode=Mode.MANAGED, options={"wait_for_init": False})
    actors.started("runtime")
    reply = actors.extension("inside").register("INVOKE")
    assert (reply.status, reply.error_type) == (403, "Extension.InvalidEventType")


# -- next, init/error, exit/error ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("identifier", "error_type"),
    [
        (None, "Extension.MissingExtensionIdentifier"),
        ("not-a-uuid", "Extension.InvalidExtensionIdentifier"),
        (UNKNOWN, "Extension.UnknownExtensionIdentifier"),
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "event/next"), ("POST", "init/error"), ("POST", "exit/error"), ("PUT", "../../2022-07-01/telemetry")],
)
def test_identifier_is_checked(
    scripted: Scripted, method: str, path: str, identifier: str | None, error_type: str
) -> None:
    actors = scripted()
    actors.begin()
    actors.started("runtime")
    path = "/2022-07-01/telemetry" if path.startswith("..") else EXTENSION + path
    headers = {} if identifier is None else {"Lambda-Extension-Identifier": identifier}
    reply = actors.api.call(method, path, b"" if method == "GET" else b"{}", headers)
    assert (reply.status, reply.error_type) == (403, error_type)


def test_next_gives_the_invocation_and_refuses_a_second_call_meanwhile(scripted: Scripted) -> None:
    actors = scripted(extensions=["one"])
    running = actors.begin(b'{"secret":1}')
    actors.started("one")
    one = actors.extension("one")
    one.register("INVOKE", "SHUTDOWN")
    waiting = one.next()
    actors.called("one", "GET /2020-01-01/extension/event/next")
    refused = one.next().result(5)
    assert (refused.status, refused.error_type) == (403, "Extension.InvalidExtensionState")
    actors.started("runtime")
    event = actors.next().result(5)
    reply = waiting.result(5)
    assert reply.status == 200
    assert reply.headers["lambda-extension-event-identifier"]
    assert reply.json == {
        "eventType": "INVOKE",
        "deadlineMs": int(event.headers["lambda-runtime-deadline-ms"]),
        "requestId": running.request_id,
        "invokedFunctionArn": event.headers["lambda-runtime-invoked-function-arn"],
        "tracing": {"type": "X-Amzn-Trace-Id", "value": event.headers["lambda-runtime-trace-id"]},
    }


def test_next_before_register(scripted: Scripted) -> None:
    actors = scripted(extensions=["one"])
    actors.begin()
    actors.started("one")
    identifier = actors.sandbox.environment.life.registry.extensions["one"].identifier
    reply = actors.api.call("GET", EXTENSION + "event/next", b"", {"Lambda-Extension-Identifier": identifier})
    assert (reply.status, reply.error_type) == (403, "Extension.InvalidExtensionState")


def test_next_gives_shutdown(scripted: Scripted) -> None:
    actors = scripted(extensions=["one"], options={"limits": Limits(shutdown_external_s=0.3)})
    running = actors.begin()
    actors.started("one")
    one = actors.extension("one")
    one.register("INVOKE", "SHUTDOWN")
    first = one.next()
    actors.started("runtime")
    actors.next().result(5)
    actors.post(f"invocation/{running.request_id}/response")
    actors.next()
    first.result(5)
    last = one.next()
    actors.sandbox.settle(5)
    actors.sandbox.stop()
    reply = last.result(5)
    assert reply.json["eventType"] == "SHUTDOWN"
    assert reply.json["shutdownReason"] == "spindown"


@pytest.mark.parametrize("which", ["init/error", "exit/error"])
def test_extension_errors(scripted: Scripted, which: str) -> None:
    actors = scripted(extensions=["one"])
    actors.begin()
    actors.started("one")
    one = actors.extension("one")
    one.register("INVOKE")
    missing = one.report(which, None)
    assert (missing.status, missing.error_type) == (403, "Extension.MissingHeader")
    assert one.report(which, "Extension.Broken").status == 202
    # Only the first counts; more of them are taken.
    assert one.report(which, "Extension.Other").status == 202
    extension = actors.sandbox.environment.life.registry.extensions["one"]
    assert extension.error_type == "Extension.Broken"
    refused = one.next().result(5)
    assert (refused.status, refused.error_type) == (403, "Extension.InvalidExtensionState")


def test_init_error_after_next(scripted: Scripted) -> None:
    actors = scripted(extensions=["one"])
    actors.begin()
    actors.started("one")
    one = actors.extension("one")
    one.register("INVOKE")
    one.next()
    actors.called("one", "GET /2020-01-01/extension/event/next")
    reply = one.report("init/error", "Extension.Broken")
    assert (reply.status, reply.error_type) == (403, "Extension.InvalidExtensionState")


# -- the router of the Runtime API ---------------------------------------------------------------------------------


def test_404_and_405(scripted: Scripted) -> None:
    actors = scripted()
    assert actors.api.call("GET", "/2018-06-01/unknown").status == 404
    assert actors.api.call("PUT", RUNTIME + "invocation/next").status == 405
    assert actors.api.call("GET", "/2018-06-01/ping").body == b"pong"
    # Only SnapStart has these.
    assert actors.api.call("GET", RUNTIME + "restore/next").status == 404
    assert actors.api.call("GET", "/2021-04-23/credentials").status == 404


def test_init_error_accepted_then_forbidden(scripted: Scripted) -> None:
    actors = scripted()
    actors.begin()
    actors.started("runtime")
    assert actors.post("init/error").status == 202
    again = actors.post("init/error")
    assert (again.status, again.error_type) == (403, "InvalidStateTransition")


def test_init_error_after_next_is_forbidden(scripted: Scripted) -> None:
    actors = scripted()
    actors.init_without_extensions()
    reply = actors.post("init/error")
    assert (reply.status, reply.error_type) == (403, "InvalidStateTransition")
    assert reply.json["errorMessage"].startswith("State transition from Running to InitError failed for runtime.")


@pytest.mark.parametrize("which", ["response", "error"])
def test_invocation_is_answered(scripted: Scripted, which: str) -> None:
    actors = scripted()
    running, event = actors.init_without_extensions(b'{"n":1}')
    assert event.status == 200
    assert event.body == b'{"n":1}'
    assert event.headers["lambda-runtime-aws-request-id"] == running.request_id
    reply = actors.post(f"invocation/{running.request_id}/{which}", b'{"errorType":"X"}')
    assert (reply.status, reply.json) == (202, {"status": "OK"})
    answer = running.answer(5)
    assert answer.payload == b'{"errorType":"X"}'
    assert (answer.error_type is not None) == (which == "error")


def test_next_twice_gives_the_same_invocation(scripted: Scripted) -> None:
    actors = scripted()
    _, event = actors.init_without_extensions()
    again = actors.next().result(5)
    assert again.status == 200
    assert again.headers["lambda-runtime-aws-request-id"] == event.headers["lambda-runtime-aws-request-id"]


@pytest.mark.parametrize("which", ["response", "error"])
def test_answer_with_an_unknown_request_id(scripted: Scripted, which: str) -> None:
    actors = scripted()
    actors.init_without_extensions()
    reply = actors.post(f"invocation/{UNKNOWN}/{which}")
    assert (reply.status, reply.error_type) == (400, "InvalidRequestID")


@pytest.mark.parametrize("first", ["response", "error"])
@pytest.mark.parametrize("second", ["response", "error"])
def test_a_second_answer_is_forbidden(scripted: Scripted, first: str, second: str) -> None:
    actors = scripted()
    running, _ = actors.init_without_extensions()
    assert actors.post(f"invocation/{running.request_id}/{first}").status == 202
    reply = actors.post(f"invocation/{running.request_id}/{second}")
    assert (reply.status, reply.error_type) == (403, "InvalidStateTransition")


def test_more_than_one_invocation(scripted: Scripted) -> None:
    actors = scripted()
    running, _ = actors.init_without_extensions()
    for number in range(3):
        assert actors.post(f"invocation/{running.request_id}/response", str(number).encode()).status == 202
        assert running.answer(5).payload == str(number).encode()
        waiting = actors.next()
        running = actors.begin()
        assert waiting.result(5).headers["lambda-runtime-aws-request-id"] == running.request_id


def test_response_mode_header(scripted: Scripted) -> None:
    actors = scripted()
    running, _ = actors.init_without_extensions()
    headers = {"Lambda-Runtime-Function-Response-Mode": "whatever"}
    reply = actors.post(f"invocation/{running.request_id}/response", b"{}", headers)
    assert (reply.status, reply.error_type) == (400, "InvalidFunctionResponseMode")
    assert running.answer(5).error_type == "Runtime.InvalidResponseModeHeader"


def test_tenant_and_context_headers(scripted: Scripted) -> None:
    from sandbox.invocation import Call

    actors = scripted()
    call = Call(b"{}", tenant_id="blue", client_context='{"a":1}', cognito_identity='{"b":2}', request_id=UNKNOWN)
    actors.sandbox.begin(call)
    actors.started("runtime")
    headers = actors.next().result(5).headers
    assert headers["lambda-runtime-aws-tenant-id"] == "blue"
    assert headers["lambda-runtime-client-context"] == '{"a":1}'
    assert headers["lambda-runtime-cognito-identity"] == '{"b":2}'
    assert headers["lambda-runtime-aws-request-id"] == UNKNOWN


def test_too_large_a_response(scripted: Scripted) -> None:
    actors = scripted(options={"limits": Limits(max_payload=1000)})
    running, _ = actors.init_without_extensions()
    reply = actors.post(f"invocation/{running.request_id}/response", b"x" * 1001)
    assert (reply.status, reply.error_type) == (413, "RequestEntityTooLarge")
    answer = running.answer(5)
    assert answer.error_type == "Function.ResponseSizeTooLarge"
    assert json.loads(answer.payload)["errorType"] == "Function.ResponseSizeTooLarge"
    # The runtime goes on.
    waiting = actors.next()
    running = actors.begin()
    assert waiting.result(5).headers["lambda-runtime-aws-request-id"] == running.request_id


def test_the_largest_response_fits(scripted: Scripted) -> None:
    actors = scripted()
    running, _ = actors.init_without_extensions()
    body = b"x" * (6 * 1024 * 1024 + 100)
    assert actors.post(f"invocation/{running.request_id}/response", body).status == 202
    assert running.answer(5).payload == body


@pytest.mark.parametrize("which", ["response", "error"])
def test_another_invocation_id_is_gone(scripted: Scripted, which: str) -> None:
    actors = scripted()
    running, event = actors.init_without_extensions()
    path = f"invocation/{running.request_id}/{which}"
    reply = actors.post(path, b"{}", {"Lambda-Runtime-Invocation-Id": UNKNOWN})
    assert (reply.status, reply.error_type) == (410, "InvokeTimeout")
    own = {"Lambda-Runtime-Invocation-Id": event.headers["lambda-runtime-invocation-id"]}
    assert actors.post(path, b"{}", own).status == 202


# -- telemetry -----------------------------------------------------------------------------------------------------

HTTP: dict[str, Any] = {"protocol": "HTTP", "URI": "http://sandbox.localdomain:8080/events"}


def test_subscription_duplicate_and_closed(scripted: Scripted) -> None:
    actors = scripted(extensions=["one", "two"])
    actors.begin()
    one, two = actors.extension("one"), actors.extension("two")
    actors.started("two")
    one.register("INVOKE")
    two.register("INVOKE")
    wanted = {"schemaVersion": "2022-12-13", "types": ["platform"], "destination": HTTP}
    assert (one.subscribe(wanted).status, one.subscribe(wanted).status) == (200, 500)
    one.next()
    two.next()
    actors.started("runtime")
    actors.next().result(5)
    closed = two.subscribe(wanted)
    assert (closed.status, closed.error_type) == (403, "Telemetry.SubscriptionClosed")


def test_logs_api(scripted: Scripted) -> None:
    actors = scripted(extensions=["one", "two"])
    actors.begin()
    one, two = actors.extension("one"), actors.extension("two")
    actors.started("two")
    one.register("INVOKE")
    two.register("INVOKE")
    logs = json.dumps({"schemaVersion": "2021-03-18", "types": ["platform"], "destination": HTTP}).encode()
    assert actors.api.call("PUT", "/2020-08-15/logs", logs, one.headers).status == 200
    # The Telemetry API's schemas are not the Logs API's.
    telemetry = {"schemaVersion": "2022-07-01", "types": ["platform"], "destination": HTTP}
    refused = actors.api.call("PUT", "/2020-08-15/logs", json.dumps(telemetry).encode(), two.headers)
    assert (refused.status, refused.error_type) == (400, "ValidationError")
    # After one of the two, the other is an error.
    assert one.subscribe(telemetry).status == 500


def test_logs_api_is_not_supported_on_managed_instances(scripted: Scripted) -> None:
    actors = scripted(mode=Mode.MANAGED, options={"wait_for_init": False})
    reply = actors.api.call("PUT", "/2020-08-15/logs", b"{}")
    assert (reply.status, reply.error_type) == (202, "Logs.NotSupported")
