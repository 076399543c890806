"""A signed call, as a server that checks signatures with botocore sees it; expired keys and a wrong clock."""

from __future__ import annotations

import email.utils
import time
from datetime import UTC, datetime
from unittest import mock

import botocore.auth
import botocore.credentials
import pytest
from botocore.awsrequest import AWSRequest

from extension.aws import Client
from extension.aws_error import failure_of, plain_code
from extension.credentials import Source
from extension.http1 import parse_response_head
from extension.https import Answer, Endpoint
from extension.sigv4 import Signer
from tests.extension import wire_servers as servers

NOW = 1_800_000_000.0
OLD = {"AWS_ACCESS_KEY_ID": "OLD", "AWS_SECRET_ACCESS_KEY": "old", "AWS_SESSION_TOKEN": "token/+="}


def client_of(url: str, environ: dict[str, str], now: float = NOW) -> Client:
    return Client(Endpoint(url), Signer("eu-west-1", "sqs"), Source(environ), None, lambda: now)


def call(client: Client, body: bytes = b"{}") -> Answer:
    try:
        return client.call("POST", "/", [("X-Amz-Target", "AmazonSQS.SendMessage")], body, time.monotonic() + 5)
    finally:
        client.close()


def signed_at(request: servers.Request) -> datetime:
    return datetime.strptime(request.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


def signature_by_botocore(request: servers.Request, url: str, key: str, secret: str) -> str:
    """Sign what arrived: the very headers that the request says are signed."""
    names = request.headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    headers = {name: request.headers[name] for name in names if name not in ("x-amz-date", "x-amz-security-token")}
    again = AWSRequest(method=request.method, url=url + request.target, data=request.body, headers=headers)
    credentials = botocore.credentials.Credentials(key, secret, request.headers.get("x-amz-security-token"))
    with mock.patch("botocore.auth.get_current_datetime", return_value=signed_at(request)):
        botocore.auth.SigV4Auth(credentials, "sqs", "eu-west-1").add_auth(again)
    return str(again.headers["Authorization"])


def test_the_signature_holds_for_what_is_on_the_wire() -> None:
    with servers.StandIn(lambda _: servers.answer(200, {})) as server:
        for base in ("", "/with a/base".replace(" ", "%20")):
            assert call(client_of(server.url + base, OLD), b'{"body":"\xc3\xa9"}').head.status == 200
        for request in server.requests:
            assert request.headers["authorization"] == signature_by_botocore(request, server.url, "OLD", "old")
            assert request.headers["host"] == f"127.0.0.1:{server.port}"
            assert [name for name, _ in request.header_list].count("host") == 1
        assert server.requests[1].target == "/with%20a/base/"


EXPIRED = servers.error(400, "ExpiredTokenException", "The security token included in the request is expired")


def test_expired_keys_are_read_again_once() -> None:
    environ = dict(OLD)

    def expire(request: servers.Request) -> bytes:
        environ.update(AWS_ACCESS_KEY_ID="NEW", AWS_SECRET_ACCESS_KEY="new")
        return EXPIRED

    with servers.StandIn(servers.in_turn(expire, servers.answer(200, {}))) as server:
        assert call(client_of(server.url, environ)).head.status == 200
        assert server.requests[1].headers["authorization"] == signature_by_botocore(
            server.requests[1], server.url, "NEW", "new"
        )


def test_keys_that_stay_expired_are_not_tried_again() -> None:
    with servers.StandIn(lambda _: EXPIRED) as server:
        answer = call(client_of(server.url, dict(OLD)))
        assert answer.head.status == 400
        assert len(server.requests) == 1


def test_keys_that_expire_again_and_again_are_tried_twice() -> None:
    environ = dict(OLD)

    def expire(request: servers.Request) -> bytes:
        environ["AWS_SECRET_ACCESS_KEY"] += "x"
        return EXPIRED

    with servers.StandIn(expire) as server:
        assert call(client_of(server.url, environ)).head.status == 400
        assert len(server.requests) == 2


def skewed(code: str, when: float | None) -> bytes:
    headers = [] if when is None else [f"Date: {email.utils.formatdate(when, usegmt=True)}"]
    return servers.error(403, code, "Signature expired: 20270115T080000Z is now earlier than", *headers)


@pytest.mark.parametrize("code", ["RequestTimeTooSkewed", "InvalidSignatureException", "SignatureDoesNotMatch"])
@pytest.mark.parametrize("off_s", [-3_600, 3_600, 86_400 * 400])
def test_a_wrong_clock_is_corrected_once_and_for_good(code: str, off_s: int) -> None:
    with servers.StandIn(servers.in_turn(skewed(code, NOW + off_s), servers.answer(200, {}))) as server:
        client = client_of(server.url, OLD)
        assert call(client).head.status == 200
        assert call(client).head.status == 200
        times = [signed_at(request).timestamp() for request in server.requests]
        assert times == [NOW, NOW + off_s, NOW + off_s]


@pytest.mark.parametrize("when", [None, NOW, NOW + 30])
def test_a_signature_refused_for_another_reason_is_not_tried_again(when: float | None) -> None:
    with servers.StandIn(lambda _: skewed("SignatureDoesNotMatch", when)) as server:
        assert call(client_of(server.url, OLD)).head.status == 403
        assert len(server.requests) == 1


def test_a_clock_that_never_pleases_is_corrected_once() -> None:
    with servers.StandIn(lambda _: skewed("RequestTimeTooSkewed", NOW + 86_400)) as server:
        assert call(client_of(server.url, OLD)).head.status == 403
        assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("named", "plain"),
    [
        ("com.amazonaws.sqs#QueueDoesNotExist", "QueueDoesNotExist"),
        ("com.amazon.coral.service#InvalidParameterValueException", "InvalidParameterValue"),
        ("AccessDeniedException:http://internal.amazon.com/coral/com.amazon.coral.service/", "AccessDenied"),
        ("a#ThrottlingException:http://x/", "Throttling"),
        ("AWS.SimpleQueueService.NonExistentQueue", "AWS.SimpleQueueService.NonExistentQueue"),
        ("", ""),
    ],
)
def test_error_codes_are_bared(named: str, plain: str) -> None:
    assert plain_code(named) == plain


@pytest.mark.parametrize(
    ("raw", "code", "message"),
    [
        (servers.error(400, "InvalidAddress", "no"), "InvalidAddress", "no"),
        (servers.answer(400, {"code": "X", "Message": "no"}), "X", "no"),
        (servers.answer(403, {"message": "no"}, "x-amzn-ErrorType: AccessDeniedException"), "AccessDenied", "no"),
        (servers.answer(400, {"__type": 5, "message": []}), "HTTP 400", ""),
        (servers.answer(502, b"<html>Bad Gateway</html>"), "HTTP 502", ""),
        (servers.answer(307, b""), "HTTP 307", ""),
        (servers.answer(400, b"[1]"), "HTTP 400", ""),
        (servers.answer(400, b"\xff\xfe"), "HTTP 400", ""),
    ],
)
def test_errors_are_read(raw: bytes, code: str, message: str) -> None:
    head, _, body = raw.partition(b"\r\n\r\n")
    failure = failure_of(Answer(parse_response_head(head + b"\r\n\r\n"), body))
    assert failure is not None
    assert (failure.code, failure.message) == (code, message)


def test_success_is_no_failure() -> None:
    head, _, body = servers.answer(200, {"__type": "x"}).partition(b"\r\n\r\n")
    assert failure_of(Answer(parse_response_head(head + b"\r\n\r\n"), body)) is None
