"""Events that a JSON library, a queue or a small buffer would change: the record holds their very bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness.functions import attached, node_function
from tests.e2e.harness.sandbox import Sandbox
from tests.e2e.harness.sqs import Moto, Queue

MIB = 1 << 20


@pytest.fixture(scope="module")
def failures(moto: Moto) -> Queue:
    return moto.queue()


@pytest.fixture(scope="module")
def failing(layer: Path, moto: Moto, failures: Queue, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A function that fails for every event."""
    function = node_function(layer, attached(failures.url, moto.url), code="failing", timeout_s=20)
    with Sandbox(function, tmp_path_factory.mktemp("failing")) as sandbox:
        yield sandbox


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(b'{"price": 1.00, "big": 1e400, "tiny": -0.0}', id="numbers as written"),
        pytest.param(b'{"a": 1, "a": 2, "a": [3]}', id="duplicate keys"),
        pytest.param(b'{"id": 12345678901234567890, "n": -98765432109876543210}', id="20-digit integers"),
        pytest.param('{"name": "Žofie 🍵 \u200d\u2028 \u0301 日本"}'.encode(), id="unicode"),
        pytest.param(b'{"half": "\\ud83c", "other": "\\udc00 \\uFFFE"}', id="lone surrogate escapes"),
        pytest.param(b' \r\n\t{ "spaced" :\t[ 1 ,2 ] }\n\n', id="blanks everywhere"),
        pytest.param(b"null", id="null"),
        pytest.param(b'"only a string"', id="a string"),
        pytest.param(b'{"text": "' + b"x" * 20_000 + b'"}', id="20 KB, comes chunked"),
        pytest.param(b'{"text": "' + "é".encode() * 350_000 + b'"}', id="700 KB"),
        pytest.param(b'{"deep": ' + b"[" * 900 + b"]" * 900 + b"}", id="900 levels deep"),
        pytest.param(b'{"backstop": {"id": "x"}, "requestPayload": {"requestPayload": 1}}', id="looks like a record"),
    ],
)
def test_json_is_kept_verbatim(failing: Sandbox, failures: Queue, event: bytes) -> None:
    failing.invoke(event)
    (record,) = failures.wait_for(1)

    assert record.condition == "HandledError"
    assert record.has_event(event)
    assert "payloadEncoding" not in record.backstop


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(b"not JSON at all", id="not JSON"),
        pytest.param(b"{'single': 'quotes'}", id="nearly JSON"),
        pytest.param(b'{"a": 1} trailing', id="JSON and more"),
        pytest.param(bytes(range(256)), id="every byte"),
        pytest.param(b'{"latin": "caf\xe9"}', id="not UTF-8"),
        pytest.param(b"\xef\xbb\xbf{}", id="byte order mark"),
        pytest.param('{"refused by SQS": "\ufffe\uffff"}'.encode(), id="characters SQS refuses"),
        pytest.param(b'{"raw surrogate": "\xed\xa0\x80"}', id="surrogate as UTF-8"),
        pytest.param(b'{"control": "\x01"}', id="control character"),
        pytest.param(b"\xff" * 300_000, id="300 KB of no text"),
    ],
)
def test_what_cannot_stand_in_a_message_is_base64(failing: Sandbox, failures: Queue, event: bytes) -> None:
    failing.invoke(event)
    (record,) = failures.wait_for(1)

    assert record.condition == "HandledError"
    assert record.backstop["payloadEncoding"] == "base64"
    assert record.has_event(event)


def test_6_mb_are_cut_marked_and_described_whole(failing: Sandbox, failures: Queue) -> None:
    event = b'{"text": "' + b"0123456789abcdef" * (6 * MIB // 16 - 1) + b'"}'
    answer = failing.invoke(event)
    (record,) = failures.wait_for(1)

    assert b"RangeError" in answer.body
    assert record.describes(event)
    assert record.backstop["payloadTruncated"] is True
    assert record.backstop["payloadRef"] is None
    kept = record.payload()
    assert kept is not None
    assert event.startswith(kept)
    assert len(kept) > MIB // 2, "as much as fits a message is kept"
    assert len(record.text.encode()) <= MIB


def test_a_queue_that_takes_less_gets_less(layer: Path, moto: Moto, folder: Path) -> None:
    """A queue may be set to 256 KiB: the record is cut to that, and later records at once."""
    small = moto.queue(attributes={"MaximumMessageSize": str(MIB // 4)})
    event = b'{"text": "' + b"x" * 500_000 + b'"}'
    function = node_function(layer, attached(small.url, moto.url), code="failing")
    with Sandbox(function, folder) as sandbox:
        for _ in range(2):
            sandbox.invoke(event)
            (record,) = small.wait_for(1)
            assert record.describes(event)
            assert record.backstop["payloadTruncated"] is True
            assert len(record.text.encode()) <= MIB // 4
