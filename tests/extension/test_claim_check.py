"""Large events: into the bucket first, then the record that names their place; on moto's S3 and SQS, and on servers that refuse."""

from __future__ import annotations

import gzip
import hashlib
import json
import time
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from extension.bucket import Bucket, Closed, NotNow
from extension.claim_check import ClaimCheck
from extension.record import Record, check_in, fits, take_back
from extension.settings import Settings
from extension.sqs import Queue
from extension.sqs_protocol import ACCEPTED, LATER, RETRY, TOO_LONG
from tests.extension import wire_servers as servers
from tests.extension.invocations import build, failed, payload, read, settings

KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_SESSION_TOKEN": "testing"}
LARGE = b'{"n":1.00,"data":"' + b"x" * 2_000_000 + b'"}'
BINARY = b"\xff\x00" * 700_000


class Aws:
    """SQS and S3 of one moto server, a queue and a bucket in them."""

    def __init__(self, url: str) -> None:
        self.url = url
        options: dict[str, Any] = {
            "region_name": "eu-west-1",
            "endpoint_url": url,
            "aws_access_key_id": "testing",
            "aws_secret_access_key": "testing",
        }
        self.s3 = boto3.client("s3", **options)
        self.sqs = boto3.client("sqs", **options)
        self.s3.create_bucket(Bucket="failures", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})

    def new_queue(self, name: str) -> str:
        return self.sqs.create_queue(QueueName=name)["QueueUrl"]

    def messages(self, url: str) -> list[dict[str, Any]]:
        found = self.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
        return [json.loads(message["Body"]) for message in found]

    def event(self, reference: dict[str, Any]) -> bytes:
        stored = self.s3.get_object(Bucket=reference["bucket"], Key=reference["key"])
        assert stored["ContentEncoding"] == "gzip"
        return gzip.decompress(stored["Body"].read())

    def settings(self, queue_url: str, s3: str | None = None, **more: str) -> Settings:
        return Settings(
            {
                "AWS_LAMBDA_FUNCTION_NAME": "pay",
                "AWS_REGION": "eu-west-1",
                "BACKSTOP_QUEUE_URL": queue_url,
                "BACKSTOP_BUCKET": "failures",
                "AWS_ENDPOINT_URL_SQS": self.url,
                "AWS_ENDPOINT_URL_S3": s3 or self.url,
                **more,
            }
        )


@pytest.fixture(scope="module")
def aws() -> Iterator[Aws]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    made = Aws(f"http://{host}:{port}")
    yield made
    made.s3.close()
    made.sqs.close()
    server.stop()


def sender(options: Settings) -> ClaimCheck:
    return ClaimCheck(Queue(options, KEYS), "failures", lambda name: Bucket(name, options, KEYS))


def send(options: Settings, *given: Record, within_s: float = 5.0) -> list[str]:
    check = sender(options)
    try:
        return [outcome.kind for outcome in check.send(list(given), time.monotonic() + within_s)]
    finally:
        check.close()


def with_bucket(event: bytes, request_id: str = "large") -> Record:
    return build(failed(event, request_id=request_id), settings(bucket="failures"))


@pytest.mark.parametrize("event", [LARGE, BINARY])
def test_a_large_event_is_in_the_bucket_byte_for_byte_and_its_record_says_where(aws: Aws, event: bytes) -> None:
    url = aws.new_queue(f"large-{len(event)}")
    record = with_bucket(event)
    assert fits(record, 262_144)
    assert send(aws.settings(url), record) == [ACCEPTED]
    (message,) = aws.messages(url)
    assert message["requestPayload"] is None
    assert "payloadTruncated" not in message["backstop"]
    reference = message["backstop"]["payloadRef"]
    assert reference["key"].startswith("failures/pay/20")
    assert reference["key"].endswith(f"/{record.id}.json.gz")
    assert (reference["bytes"], reference["truncated"]) == (len(event), False)
    assert reference["sha256"] == hashlib.sha256(event).hexdigest() == message["backstop"]["payloadSha256"]
    assert aws.event(reference) == event


def test_small_and_large_go_together_in_their_order(aws: Aws) -> None:
    url = aws.new_queue("together")
    small = build(failed(b'{"small":1}', request_id="small"), settings(bucket="failures"))
    assert send(aws.settings(url), small, with_bucket(LARGE)) == [ACCEPTED, ACCEPTED]
    assert [message["backstop"]["payloadRef"] is None for message in aws.messages(url)] == [True, False]


def test_a_bucket_that_is_closed_to_us_costs_the_rest_of_the_event_only(aws: Aws) -> None:
    url = aws.new_queue("closed")
    record = with_bucket(LARGE)
    options = aws.settings(url)
    check = ClaimCheck(Queue(options, KEYS), "failures", lambda name: Bucket("no-such-bucket", options, KEYS))
    assert [outcome.kind for outcome in check.send([record], time.monotonic() + 5)] == [ACCEPTED]
    (message,) = aws.messages(url)
    assert message["backstop"]["payloadRef"] is None
    assert message["backstop"]["payloadTruncated"] is True
    assert message["backstop"]["payloadSha256"] == hashlib.sha256(LARGE).hexdigest()


def test_a_bucket_out_of_reach_keeps_back_its_own_record_only(aws: Aws) -> None:
    url = aws.new_queue("away")
    small = build(failed(b'{"small":1}', request_id="small"), settings(bucket="failures"))
    with servers.nobody_listens() as nowhere:
        assert send(aws.settings(url, s3=nowhere), with_bucket(LARGE), small) == [LATER, ACCEPTED]
    assert len(aws.messages(url)) == 1


def test_where_a_queue_takes_less_the_event_goes_to_the_bucket_too(aws: Aws) -> None:
    event = b'{"data":"' + b"y" * 500_000 + b'"}'
    record = with_bucket(event)
    assert record.large_event is None
    reason = "One or more parameters are invalid. Reason: Message must be shorter than 262144 bytes."
    respond = servers.in_turn(servers.error(400, "InvalidParameterValue", reason), servers.accept_messages)
    with servers.StandIn(respond) as stand_in:
        options = aws.settings("http://127.0.0.1/123456789012/q", AWS_ENDPOINT_URL_SQS=stand_in.url)
        assert send(options, record) == [ACCEPTED]
        sent = json.loads(stand_in.bodies[-1])
    assert aws.event(sent["backstop"]["payloadRef"]) == event


def test_where_a_bucket_does_not_help_a_lower_limit_is_left_to_the_caller(aws: Aws) -> None:
    record = build(failed(None), settings(bucket="failures"))
    respond = servers.in_turn(servers.error(400, "InvalidParameterValue", "Message must be shorter than 1024 bytes."))
    with servers.StandIn(respond) as stand_in:
        options = aws.settings("http://127.0.0.1/123456789012/q", AWS_ENDPOINT_URL_SQS=stand_in.url)
        assert send(options, record) == [TOO_LONG]


def test_an_object_is_not_stored_again_when_only_its_message_failed(aws: Aws) -> None:
    url = aws.new_queue("again")
    record = with_bucket(LARGE, request_id="again")
    key = read(record)["backstop"]["payloadRef"]["key"]
    respond = servers.in_turn(servers.error(503, "ServiceUnavailable", "later"), servers.accept_messages)
    with servers.StandIn(respond) as stand_in:
        check = sender(aws.settings(url, AWS_ENDPOINT_URL_SQS=stand_in.url))
        first = check.send([record], time.monotonic() + 5)
        aws.s3.delete_object(Bucket="failures", Key=key)
        second = check.send([record], time.monotonic() + 5)
        check.close()
    assert (first[0].kind, second[0].kind) == (RETRY, ACCEPTED)
    assert "Contents" not in aws.s3.list_objects_v2(Bucket="failures", Prefix=key)


# The bucket


def test_the_customers_own_key_is_named(aws: Aws) -> None:
    options = aws.settings(aws.new_queue("kms"), BACKSTOP_BUCKET_KMS_KEY_ID="alias/failures")
    bucket = Bucket("failures", options, KEYS)
    bucket.put("k", b"x", [], time.monotonic() + 5)
    bucket.close()
    head = aws.s3.head_object(Bucket="failures", Key="k")
    assert head["ServerSideEncryption"] == "aws:kms"
    assert head["SSEKMSKeyId"] == "alias/failures"


def test_a_bucket_in_another_region_is_followed_once() -> None:
    moved = servers.answer(301, b"<Error><Code>PermanentRedirect</Code></Error>", "x-amz-bucket-region: us-west-2")
    with servers.StandIn(servers.in_turn(moved, servers.answer(200, b""))) as stand_in:
        options = Settings({"AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL_S3": stand_in.url})
        bucket = Bucket("failures", options, KEYS)
        bucket.put("k", b"x", [], time.monotonic() + 5)
        bucket.close()
        scopes = [dict(request.headers)["authorization"].split("/")[2] for request in stand_in.requests]
    assert scopes == ["eu-west-1", "us-west-2"]


@pytest.mark.parametrize(
    ("response", "raised"),
    [
        (servers.answer(403, b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"), Closed),
        (servers.answer(404, b"<Error><Code>NoSuchBucket</Code></Error>"), Closed),
        (servers.answer(503, b"<Error><Code>SlowDown</Code></Error>"), NotNow),
        (servers.answer(400, b"<Error><Code>RequestTimeout</Code></Error>"), NotNow),
        (servers.answer(500, b"a page"), NotNow),
    ],
)
def test_what_a_refusal_means(response: bytes, raised: type[Exception]) -> None:
    with servers.StandIn(servers.in_turn(response)) as stand_in:
        options = Settings({"AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL_S3": stand_in.url})
        bucket = Bucket("failures", options, KEYS)
        with pytest.raises(raised):
            bucket.put("k", b"x", [], time.monotonic() + 5)
        bucket.close()


@pytest.mark.parametrize(
    ("name", "region", "host"),
    [
        ("failures", "eu-west-1", "https://failures.s3.eu-west-1.amazonaws.com"),
        ("my.failures", "eu-west-1", "https://s3.eu-west-1.amazonaws.com/my.failures"),
        ("failures", "cn-north-1", "https://failures.s3.cn-north-1.amazonaws.com.cn"),
    ],
)
def test_where_a_bucket_is(name: str, region: str, host: str) -> None:
    assert Bucket(name, Settings({"AWS_REGION": region}), KEYS)._url() == host


# Records


def test_a_spooled_record_keeps_its_large_event() -> None:
    record = with_bucket(BINARY)
    again = Record.decode(record.encode())
    assert (again.body, again.large_event, again.marks) == (record.body, BINARY, record.marks)


def test_what_was_checked_in_can_be_taken_back() -> None:
    record = with_bucket(LARGE)
    back = take_back(record, 1_048_576)
    assert back is not None
    assert back.large_event is None
    message = read(back)
    assert message["backstop"]["payloadEncoding"] == "base64"
    assert message["backstop"]["payloadTruncated"] is True
    assert check_in(record, "failures") is record
    absent = build(failed(None), settings(bucket="failures"))
    assert check_in(absent, "failures") is absent


def test_an_event_cut_in_memory_is_marked_as_cut_in_its_reference() -> None:
    invocation = failed(None)
    invocation.payload = payload([LARGE], room=1_500_000)
    invocation.observed.set()
    record = build(invocation, settings(bucket="failures"))
    reference = read(record)["backstop"]["payloadRef"]
    assert reference["truncated"] is True
    assert record.large_event == LARGE[:1_500_000]
