"""The Extensions API and the telemetry subscription, against a scripted Lambda: every code that PLATFORM's pages name."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from extension import http1, lambda_api
from extension.lambda_api import SCHEMAS, ApiError, LambdaApi
from tests.extension.lambda_stand_in import CUT, IDENTIFIER, LambdaStandIn, body_of, fault
from tests.extension.serving import WAIT_S
from tests.extension.wire_servers import Server, answer, read_request


@pytest.fixture
def platform() -> Iterator[LambdaStandIn]:
    with LambdaStandIn() as stand_in:
        yield stand_in


@pytest.fixture
def api(platform: LambdaStandIn) -> LambdaApi:
    return LambdaApi(("127.0.0.1", platform.port), "backstop")


# register


@pytest.mark.parametrize("events", [("INVOKE", "SHUTDOWN"), ("SHUTDOWN",), ()])
def test_registering_names_the_file_and_the_events(
    events: tuple[str, ...], api: LambdaApi, platform: LambdaStandIn
) -> None:
    api.register(events)
    (request,) = platform.requests
    assert (request.method, request.target) == ("POST", "/2020-01-01/extension/register")
    assert request.headers["lambda-extension-name"] == "backstop"
    assert request.headers["host"] == platform.address
    assert body_of(request) == {"events": list(events)}
    assert api.registered_events == events
    assert api.identifier == IDENTIFIER


@pytest.mark.parametrize(
    ("status", "error_type"),
    [
        (400, "Extension.InvalidEventType"),
        (403, "Extension.InvalidExtensionName"),
        (403, "Extension.RegistrationClosed"),
        (500, "Extension.InitError"),
    ],
)
def test_a_refused_registration_says_so(status: int, error_type: str, api: LambdaApi, platform: LambdaStandIn) -> None:
    platform.register_answers = [fault(status, error_type)]
    with pytest.raises(ApiError, match=error_type) as caught:
        api.register(("INVOKE",))
    assert caught.value.status == status
    assert api.registered_events == ()
    assert api.identifier == ""


def test_a_registration_without_an_identifier_is_none(api: LambdaApi, platform: LambdaStandIn) -> None:
    platform.register_answers = [answer(200, {"functionName": "pay"})]
    with pytest.raises(ApiError):
        api.register(("INVOKE",))


# telemetry


def test_a_subscription_asks_for_the_newest_schema_first(api: LambdaApi, platform: LambdaStandIn) -> None:
    api.register(("INVOKE",))
    assert api.subscribe(9010) == "2025-01-29"
    request = platform.requests[-1]
    assert (request.method, request.target) == ("PUT", "/2022-07-01/telemetry")
    assert request.headers["lambda-extension-identifier"] == IDENTIFIER
    body = body_of(request)
    assert body["schemaVersion"] == "2025-01-29"
    assert body["types"] == ["platform", "function"]
    assert body["destination"] == {"protocol": "HTTP", "URI": "http://sandbox.localdomain:9010"}
    assert 1_000 <= body["buffering"]["maxItems"] <= 10_000
    assert 262_144 <= body["buffering"]["maxBytes"] <= 1_048_576
    assert 25 <= body["buffering"]["timeoutMs"] <= 30_000


@pytest.mark.parametrize("refusals", [1, 2])
def test_older_schemas_are_asked_for_where_newer_are_refused(
    refusals: int, api: LambdaApi, platform: LambdaStandIn
) -> None:
    api.register(("INVOKE",))
    platform.telemetry_answers = [fault(400, "ValidationError")] * refusals
    assert api.subscribe(9010) == SCHEMAS[refusals]
    asked = [body_of(request)["schemaVersion"] for request in platform.called("/telemetry")]
    assert asked == list(SCHEMAS[: refusals + 1])


def test_a_place_without_telemetry_is_no_fault(api: LambdaApi, platform: LambdaStandIn) -> None:
    api.register(("INVOKE",))
    platform.telemetry_answers = [fault(202, "Telemetry.NotSupported")]
    assert api.subscribe(9010) is None
    assert len(platform.called("/telemetry")) == 1


@pytest.mark.parametrize(
    ("answers", "status", "asked"),
    [
        pytest.param([400, 400, 400], 400, 3, id="no schema is granted"),
        pytest.param([403], 403, 1, id="closed"),
        pytest.param([500], 500, 1, id="a fault of Lambda's"),
        pytest.param([400, 403], 403, 2, id="closed meanwhile"),
    ],
)
def test_a_refused_subscription_says_so(
    answers: list[int], status: int, asked: int, api: LambdaApi, platform: LambdaStandIn
) -> None:
    api.register(("INVOKE",))
    platform.telemetry_answers = [fault(code, "Telemetry.Error") for code in answers]
    with pytest.raises(ApiError, match=r"Telemetry\.Error") as caught:
        api.subscribe(9010)
    assert caught.value.status == status
    assert len(platform.called("/telemetry")) == asked


# next


def test_events_come_one_by_one(api: LambdaApi, platform: LambdaStandIn) -> None:
    api.register(("INVOKE", "SHUTDOWN"))
    platform.invoke("id-1")
    platform.shut_down("timeout")
    assert api.next_event()["requestId"] == "id-1"
    event = api.next_event()
    assert (event["eventType"], event["shutdownReason"]) == ("SHUTDOWN", "timeout")
    request = platform.requests[-1]
    assert (request.method, request.target) == ("GET", "/2020-01-01/extension/event/next")
    assert request.headers["lambda-extension-identifier"] == IDENTIFIER
    assert "content-length" not in request.headers


def test_waiting_for_an_event_has_no_time_limit(
    api: LambdaApi, platform: LambdaStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.register(("INVOKE",))
    monkeypatch.setattr(lambda_api, "_CALL_LIMIT_S", 0.1)
    got: list[object] = []
    waiting = threading.Thread(target=lambda: got.append(api.next_event()))
    waiting.start()
    platform.wait_for_next()
    waiting.join(0.4)
    assert waiting.is_alive()
    platform.invoke()
    waiting.join(WAIT_S)
    assert len(got) == 1


def test_without_registration_there_is_no_event(api: LambdaApi) -> None:
    with pytest.raises(ApiError, match="UnknownExtensionIdentifier") as caught:
        api.next_event()
    assert caught.value.status == 403


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(CUT, id="cut"),
        pytest.param(answer(200, b""), id="empty"),
        pytest.param(answer(200, b"[]"), id="no object"),
        pytest.param(answer(200, b"null"), id="null"),
        pytest.param(answer(200, b"{"), id="broken JSON"),
        pytest.param(answer(200, b"\xff"), id="not UTF-8"),
        pytest.param(b"SSH-2.0\r\n\r\n", id="not HTTP"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", id="cut in its body"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, id="an endless head"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n" + b" " * 1_200_000, id="an endless body"),
    ],
)
def test_what_is_no_event_is_an_error_that_the_life_outlives(given: bytes) -> None:
    def serve(sock: socket.socket) -> None:
        read_request(sock)
        sock.sendall(given)

    with Server(serve) as server:
        api = LambdaApi(("127.0.0.1", server.port), "backstop")
        with pytest.raises((OSError, ValueError)):
            api.next_event()


def test_nobody_there_is_an_os_error() -> None:
    with Server(lambda sock: None) as server:
        port = server.port
    with pytest.raises(OSError):  # noqa: PT011
        LambdaApi(("127.0.0.1", port), "backstop").register(())


@pytest.mark.parametrize("how", ["silent", "never reads"])
def test_a_call_that_hangs_ends_at_its_limit(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lambda_api, "_CALL_LIMIT_S", 0.2)
    go = threading.Event()

    def serve(sock: socket.socket) -> None:
        if how == "silent":
            read_request(sock)
        go.wait(WAIT_S)

    with Server(serve) as server:
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            LambdaApi(("127.0.0.1", server.port), "backstop").register(())
        assert time.monotonic() - started < 2
        go.set()


# The wire

EVENT = json.dumps({"eventType": "INVOKE"}).encode()


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(EVENT) + EVENT, id="length"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n" + EVENT, id="until the end"),
        pytest.param(b"HTTP/1.0 200 OK\r\n\r\n" + EVENT, id="HTTP/1.0"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(EVENT), EVENT),
            id="chunked",
        ),
        pytest.param(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n" + EVENT, id="after an interim answer"),
    ],
)
@pytest.mark.parametrize("size", [None, 1])
def test_an_answer_is_read_however_it_is_framed_and_cut(given: bytes, size: int | None) -> None:
    def serve(sock: socket.socket) -> None:
        read_request(sock)
        for index in range(0, len(given), size or len(given)):
            sock.sendall(given[index : index + (size or len(given))])
        if b"Content-Length" in given or b"chunked" in given:
            sock.recv(1)  # the end is known without the stream's end

    with Server(serve) as server:
        assert LambdaApi(("127.0.0.1", server.port), "backstop").next_event() == {"eventType": "INVOKE"}


def test_an_answer_and_the_interim_one_before_it_may_come_together() -> None:
    """The first read brought both: to read once more would wait for ever."""

    def serve(sock: socket.socket) -> None:
        read_request(sock)
        sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(EVENT) + EVENT)
        sock.recv(1)

    with Server(serve) as server:
        waiting = Result(LambdaApi(("127.0.0.1", server.port), "backstop").next_event)
        assert waiting.get() == {"eventType": "INVOKE"}


class Result:
    """Calls in a thread, so that a call that never returns fails the test and does not hang it."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._found: list[object] = []
        self._thread = threading.Thread(target=lambda: self._found.append(call()), daemon=True)
        self._thread.start()

    def get(self) -> object:
        self._thread.join(WAIT_S)
        assert self._found, "no answer"
        return self._found[0]


def test_no_socket_is_left_open(api: LambdaApi, platform: LambdaStandIn) -> None:
    api.register(("INVOKE",))
    before = len(os.listdir("/proc/self/fd"))
    platform.telemetry_answers = [fault(500, "x")]
    for _ in range(5):
        api.register(("INVOKE",))
    with pytest.raises(ApiError):
        api.subscribe(9010)
    # The other side's five sockets stay open until its peer's end is read; ours are closed.
    assert len(os.listdir("/proc/self/fd")) <= before + 6


def test_a_malformed_answer_is_a_value_error() -> None:
    assert issubclass(http1.Malformed, ValueError)


@pytest.mark.parametrize(
    ("body", "account"),
    [
        (b'{"functionName":"f","accountId":"123456789012"}', "123456789012"),
        (b'{"functionName":"f"}', ""),
        (b'{"accountId":123456789012}', ""),
        (b'{"accountId":"x"}', ""),
        (b"[]", ""),
        (b"", ""),
        (b"\xff", ""),
    ],
)
def test_the_accounts_id_in_a_registration(body: bytes, account: str) -> None:
    assert lambda_api._account_id(body) == account
