"""The queue: on moto's SQS over HTTP, on a stand-in held against it, and on servers that break things."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

import boto3
import pytest
from moto.server import ThreadedMotoServer

from extension import sqs_protocol
from extension.record import Record
from extension.settings import Settings
from extension.sqs import Queue
from tests.extension import wire_servers as servers

if TYPE_CHECKING:
    from types_boto3_sqs import SQSClient
    from types_boto3_sqs.literals import QueueAttributeNameType

KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_SESSION_TOKEN": "testing"}
SHORTER = "One or more parameters are invalid. Reason: Message must be shorter than 262144 bytes."
SOON_S, SLACK_S = 0.3, 0.5


def record(number: int = 0, body: bytes | None = None, function: str = "orders") -> Record:
    return Record(f"id-{number}", function, "Crash", "00ff", body or b'{"n":%d}' % number, (0, 0, 0))


def queue_at(endpoint: str, queue_url: str = "https://sqs.eu-west-1.amazonaws.com/123456789012/failures") -> Queue:
    environ = {"BACKSTOP_QUEUE_URL": queue_url, "AWS_ENDPOINT_URL_SQS": endpoint, "AWS_REGION": "eu-west-1"}
    return Queue(Settings(environ), KEYS)


def send(queue: Queue, *records: Record, within_s: float = 5.0) -> list[str]:
    try:
        return [outcome.kind for outcome in queue.send(list(records), time.monotonic() + within_s)]
    finally:
        queue.close()


# On moto


@pytest.fixture(scope="module")
def moto() -> Iterator[SQSClient]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client(
        "sqs",
        region_name="eu-west-1",
        endpoint_url=f"http://{host}:{port}",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )
    yield client
    client.close()
    server.stop()


def new_queue(moto: SQSClient, name: str, **attributes: str) -> tuple[Queue, str]:
    url = moto.create_queue(QueueName=name, Attributes=cast("dict[QueueAttributeNameType, str]", attributes))[
        "QueueUrl"
    ]
    return queue_at(moto.meta.endpoint_url, url), url


def received(moto: SQSClient, url: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    while True:
        messages = moto.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], AttributeNames=["All"]
        ).get("Messages")
        if not messages:
            return found
        found += [dict(message) for message in messages]


def test_moto_takes_one_message_with_its_attributes(moto: SQSClient) -> None:
    queue, url = new_queue(moto, "one")
    body = json.dumps({"text": 'é \\ " \u2028', "payload": 1.0}, ensure_ascii=False).encode()
    assert send(queue, record(1, body)) == [sqs_protocol.ACCEPTED]
    (message,) = received(moto, url)
    assert message["Body"] == body.decode()
    attributes = message["MessageAttributes"]
    assert isinstance(attributes, dict)
    assert {name: value["StringValue"] for name, value in attributes.items()} == {
        "backstop.id": "id-1",
        "backstop.function": "orders",
        "backstop.condition": "Crash",
        "backstop.fingerprint": "00ff",
    }
    system = message["Attributes"]
    assert isinstance(system, dict)
    assert system["MessageGroupId"] == "orders"


def test_moto_takes_batches_of_ten_and_of_a_mebibyte(moto: SQSClient) -> None:
    queue, url = new_queue(moto, "batches")
    records = [record(number) for number in range(23)] + [record(90 + n, b"x" * 600_000) for n in range(3)]
    assert send(queue, *records) == [sqs_protocol.ACCEPTED] * 26
    assert sorted(str(message["Body"]) for message in received(moto, url)) == sorted(
        one.body.decode() for one in records
    )


def test_moto_takes_a_message_of_exactly_the_limit(moto: SQSClient) -> None:
    queue, url = new_queue(moto, "limit")
    base = record(1, b"{}")
    body = b"x" * (sqs_protocol.MESSAGE_LIMIT - sqs_protocol.message_bytes(base) + 2)
    assert send(queue, record(1, body)) == [sqs_protocol.ACCEPTED]
    assert send(queue, record(1, body + b"x")) == [sqs_protocol.TOO_LONG]
    assert len(received(moto, url)) == 1


def test_moto_takes_fifo_messages_once(moto: SQSClient) -> None:
    queue, url = new_queue(moto, "order.fifo", FifoQueue="true")
    assert send(queue, record(1)) == [sqs_protocol.ACCEPTED]
    assert send(queue, record(1), record(2)) == [sqs_protocol.ACCEPTED] * 2
    groups = []
    for message in received(moto, url):
        system = message["Attributes"]
        assert isinstance(system, dict)
        groups.append((system["MessageGroupId"], system["MessageDeduplicationId"]))
    assert sorted(set(groups)) == [("id-1", "id-1"), ("id-2", "id-2")]


def test_the_lower_limit_of_a_moto_queue_is_learnt(moto: SQSClient) -> None:
    queue, url = new_queue(moto, "lower", MaximumMessageSize="2048")
    outcome = queue.send([record(1, b"x" * 5_000)], time.monotonic() + 5)[0]
    queue.close()
    assert (outcome.kind, outcome.limit) == (sqs_protocol.TOO_LONG, 2_048)
    assert send(queue, record(1), record(2, b"x" * 5_000), record(3)) == [
        sqs_protocol.ACCEPTED,
        sqs_protocol.TOO_LONG,
        sqs_protocol.ACCEPTED,
    ]
    assert len(received(moto, url)) == 2


def test_one_long_message_does_not_take_its_batch_along(moto: SQSClient) -> None:
    queue, url = new_queue(moto, "mixed", MaximumMessageSize="2048")
    kinds = send(queue, record(1), record(2, b"x" * 5_000), record(3))
    assert kinds == [sqs_protocol.ACCEPTED, sqs_protocol.TOO_LONG, sqs_protocol.ACCEPTED]
    assert len(received(moto, url)) == 2


def test_a_queue_that_is_not_there_is_told(moto: SQSClient) -> None:
    url = f"{moto.meta.endpoint_url}/123456789012/absent"
    for records in ([record(1)], [record(1), record(2)]):
        queue = queue_at(moto.meta.endpoint_url, url)
        outcomes = queue.send(records, time.monotonic() + 5)
        queue.close()
        assert {outcome.kind for outcome in outcomes} == {sqs_protocol.DENIED}
        assert "Queue" in outcomes[0].reason


# The stand-in, held against moto through botocore


def test_the_stand_ins_answers_read_like_motos(moto: SQSClient) -> None:
    with servers.StandIn() as stand_in:
        client = boto3.client(
            "sqs",
            region_name="eu-west-1",
            endpoint_url=stand_in.url,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )
        url = moto.create_queue(QueueName="shape")["QueueUrl"]
        entries = [{"Id": "a", "MessageBody": "x"}, {"Id": "b", "MessageBody": "y"}]
        ours, theirs = (
            client.send_message(QueueUrl=url, MessageBody="x"),
            moto.send_message(QueueUrl=url, MessageBody="x"),
        )
        assert ours.keys() == theirs.keys()
        ours_batch = client.send_message_batch(QueueUrl=url, Entries=entries)  # type: ignore[arg-type]
        theirs_batch = moto.send_message_batch(QueueUrl=url, Entries=entries)  # type: ignore[arg-type]
        assert [entry["Id"] for entry in ours_batch["Successful"]] == [
            entry["Id"] for entry in theirs_batch["Successful"]
        ]
        stand_in.respond = lambda _: servers.error(400, "QueueDoesNotExist", "The specified queue does not exist.")
        for one in (client, moto):
            with pytest.raises(one.exceptions.QueueDoesNotExist):
                one.send_message(QueueUrl=f"{url}-absent", MessageBody="x")
        client.close()


# On the stand-in


def test_the_request_is_aws_json_1_0_to_the_endpoint_signed_for_the_queues_region() -> None:
    with servers.StandIn() as server:
        send(queue_at(server.url + "/prefix"), record(1))
        (request,) = server.requests
        assert (request.method, request.target) == ("POST", "/prefix/")
        assert request.headers["content-type"] == "application/x-amz-json-1.0"
        assert request.headers["x-amz-target"] == "AmazonSQS.SendMessage"
        assert "/eu-west-1/sqs/aws4_request" in request.headers["authorization"]
        assert request.headers["x-amz-security-token"] == "testing"
        assert request.json["QueueUrl"] == "https://sqs.eu-west-1.amazonaws.com/123456789012/failures"


def test_without_an_endpoint_the_queues_own_host_is_called() -> None:
    with servers.StandIn() as server:
        queue = Queue(Settings({"BACKSTOP_QUEUE_URL": f"{server.url}/1/failures", "AWS_REGION": "ap-south-1"}), KEYS)
        assert send(queue, record(1)) == [sqs_protocol.ACCEPTED]
        assert "/ap-south-1/sqs/" in server.requests[0].headers["authorization"]


def test_one_connection_serves_a_send_of_several_batches() -> None:
    with servers.StandIn() as server:
        queue = queue_at(server.url)
        assert send(queue, *(record(number) for number in range(25))) == [sqs_protocol.ACCEPTED] * 25
        assert (len(server.requests), server.connections) == (3, 1)
        send(queue, record(1))
        assert server.connections == 2


def test_after_a_failure_the_other_batches_are_not_tried() -> None:
    with servers.StandIn(lambda _: servers.error(503, "ServiceUnavailable", "")) as server:
        assert send(queue_at(server.url), *(record(number) for number in range(25))) == [sqs_protocol.RETRY] * 25
        assert len(server.requests) == 1


def test_a_failed_entry_does_not_touch_the_others() -> None:
    def second_fails(request: servers.Request) -> bytes:
        failed = {"Id": "1", "SenderFault": False, "Code": "InternalError", "Message": "try again"}
        return servers.answer(
            200, {"Successful": [{"Id": "0", "MessageId": "m"}, {"Id": "2", "MessageId": "m"}], "Failed": [failed]}
        )

    with servers.StandIn(second_fails) as server:
        assert send(queue_at(server.url), record(0), record(1), record(2)) == [
            sqs_protocol.ACCEPTED,
            sqs_protocol.RETRY,
            sqs_protocol.ACCEPTED,
        ]


def test_a_batch_refused_as_a_whole_is_sent_one_by_one() -> None:
    def refuse_batches_and_ones(request: servers.Request) -> bytes:
        if request.headers["x-amz-target"].endswith("Batch") or '"n":1' in request.json["MessageBody"]:
            return servers.error(400, "InvalidMessageContents", "Invalid binary character '#x1'")
        return servers.accept_messages(request)

    with servers.StandIn(refuse_batches_and_ones) as server:
        assert send(queue_at(server.url), record(0), record(1), record(2)) == [
            sqs_protocol.ACCEPTED,
            sqs_protocol.REFUSED,
            sqs_protocol.ACCEPTED,
        ]


def test_a_batch_too_long_teaches_the_batch_limit() -> None:
    def small_batches(request: servers.Request) -> bytes:
        if request.headers["x-amz-target"].endswith("Batch") and len(request.body) > 30_000:
            return servers.error(
                400, "BatchRequestTooLong", "Batch requests cannot be longer than 20000 bytes. You sent more."
            )
        return servers.accept_messages(request)

    with servers.StandIn(small_batches) as server:
        queue = queue_at(server.url)
        records = [record(number, b"x" * 9_000) for number in range(4)]
        assert send(queue, *records) == [sqs_protocol.ACCEPTED] * 4
        assert len(server.requests) == 5
        assert send(queue, *records) == [sqs_protocol.ACCEPTED] * 4
        assert len(server.requests) == 7


def test_a_stand_in_from_before_fair_queues_gets_no_group() -> None:
    def no_groups(request: servers.Request) -> bytes:
        text = "The request include parameter MessageGroupId that is not valid for this queue type"
        fields = request.json
        if "Entries" not in fields:
            taken = "MessageGroupId" not in fields
            return servers.accept_messages(request) if taken else servers.error(400, "InvalidParameterValue", text)
        failed = [
            {"Id": e["Id"], "SenderFault": True, "Code": "InvalidParameterValue", "Message": text}
            for e in fields["Entries"]
        ]
        if "MessageGroupId" in fields["Entries"][0]:
            return servers.answer(200, {"Successful": [], "Failed": failed})
        return servers.accept_messages(request)

    with servers.StandIn(no_groups) as server:
        for records in ([record(1)], [record(1), record(2)]):
            queue = queue_at(server.url)
            assert set(send(queue, *records)) == {sqs_protocol.ACCEPTED}
            before = len(server.requests)
            assert set(send(queue, *records)) == {sqs_protocol.ACCEPTED}
            assert len(server.requests) == before + 1, "learnt"


def test_what_is_not_utf8_is_refused_and_its_batch_is_not() -> None:
    with servers.StandIn() as server:
        kinds = send(queue_at(server.url), record(0), record(1, b"\xff"), record(2))
        assert kinds == [sqs_protocol.ACCEPTED, sqs_protocol.REFUSED, sqs_protocol.ACCEPTED]


def test_a_known_limit_costs_no_request() -> None:
    with servers.StandIn(lambda _: servers.error(400, "InvalidParameterValue", SHORTER)) as server:
        queue = queue_at(server.url)
        long = record(1, b"x" * 300_000)
        assert send(queue, long) == send(queue, long) == [sqs_protocol.TOO_LONG]
        assert len(server.requests) == 1


def test_a_413_says_nothing_about_the_queues_limit() -> None:
    with servers.StandIn(servers.in_turn(servers.answer(413, b"too large"), servers.accept_messages)) as server:
        queue = queue_at(server.url)
        outcome = queue.send([record(1, b'"' * 400_000)], time.monotonic() + 5)[0]
        assert (outcome.kind, outcome.limit) == (sqs_protocol.TOO_LONG, 262_144)
        assert send(queue, record(1, b"x" * 400_000)) == [sqs_protocol.ACCEPTED]


# On servers that break things


@pytest.mark.parametrize(
    "handler",
    [
        servers.cut_before_answer,
        servers.reset_before_answer,
        servers.cut_in_head,
        servers.cut_in_body,
        servers.endless_head,
        servers.endless_body,
        servers.not_http,
        servers.a_middlemans_page,
    ],
)
def test_a_broken_answer_is_to_be_tried_again(handler: servers.Handler) -> None:
    with servers.Server(handler) as server:
        began = time.monotonic()
        assert send(queue_at(server.url), record(1)) == [sqs_protocol.RETRY]
        assert send(queue_at(server.url), record(1), record(2)) == [sqs_protocol.RETRY] * 2
        assert time.monotonic() - began < 3


@pytest.mark.parametrize("handler", [servers.hang_after_request, servers.hang_before_reading, servers.trickle])
def test_a_slow_queue_is_left_at_the_deadline(handler: servers.Handler) -> None:
    with servers.Server(handler) as server:
        began = time.monotonic()
        assert send(queue_at(server.url), record(1, b"x" * 900_000), within_s=SOON_S) == [sqs_protocol.RETRY]
        assert SOON_S <= time.monotonic() - began < SOON_S + SLACK_S


def test_a_connect_that_hangs_is_left_at_the_deadline() -> None:
    with servers.full_backlog() as url:
        began = time.monotonic()
        assert send(queue_at(url), record(1), within_s=SOON_S) == [sqs_protocol.RETRY]
        assert SOON_S <= time.monotonic() - began < SOON_S + SLACK_S


def test_a_name_that_is_not_known_is_to_be_tried_again() -> None:
    assert send(queue_at("http://no-such-host.invalid"), record(1), within_s=1.0) == [sqs_protocol.RETRY]


def test_no_keys_and_no_roots_are_said_to_be_the_callers_fault() -> None:
    with servers.StandIn() as server:
        queue = Queue(Settings({"BACKSTOP_QUEUE_URL": f"{server.url}/1/failures"}), {})
        outcomes = queue.send([record(1)], time.monotonic() + 5)
        assert outcomes[0].kind == sqs_protocol.DENIED
        assert "AWS_ACCESS_KEY_ID" in outcomes[0].reason


@pytest.mark.parametrize("environ", [{}, {"BACKSTOP_QUEUE_URL": "https://user@sqs.test/1/failures"}])
def test_a_queue_that_cannot_be_addressed_is_refused_at_once(environ: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"queue|URL|host"):
        Queue(Settings(environ), KEYS)
