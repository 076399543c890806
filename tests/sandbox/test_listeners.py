"""The sidecar's listeners under bytes that no client of theirs sends: nothing gets through, and the function does not notice."""

from __future__ import annotations

import contextlib
import json
import re
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.config import Function
from sandbox.queue import Queue
from sandbox.sandbox import Sandbox
from tests.e2e.harness.functions import attached
from tests.e2e.harness.layer import unpack_layer
from tests.sandbox.conftest import runtime_folder
from tests.sandbox.corpus import MALFORMED, OK, SMUGGLED, SMUGGLING

CODE = (
    "def handler(event, context):\n    if event.get('fail'):\n        raise ValueError('no good')\n    return event\n"
)


class Target:
    """A living sidecar, and the ports of its listeners."""

    def __init__(self, sandbox: Sandbox, queue: Queue) -> None:
        self.sandbox = sandbox
        self.queue = queue
        ready = next(line for line in map(json.loads, sandbox.log_lines("backstop")) if line["backstop"] == "ready")
        subscriber = sandbox.environment.life.hub.subscribers["backstop"]
        self.ports = {"proxy": int(ready["proxy"].rpartition(":")[2]), "telemetry": subscriber.subscription.port}
        self.expected_records = 0

    def send(self, listener: str, data: bytes) -> bytes:
        """All that comes back until the other side closes, or says nothing more for a moment."""
        received = b""
        with (
            contextlib.suppress(ConnectionError),
            socket.create_connection(("127.0.0.1", self.ports[listener])) as client,
        ):
            client.settimeout(0.05)
            client.sendall(data)
            with contextlib.suppress(TimeoutError):
                while part := client.recv(65_536):
                    received += part
            client.shutdown(socket.SHUT_WR)
            with contextlib.suppress(TimeoutError):
                while part := client.recv(65_536):
                    received += part
        return received

    def assert_works(self) -> None:
        """A success, and a failure that is captured, as if nothing had happened."""
        assert self.sandbox.invoke(b'{"n": 1}').error_type is None
        assert self.sandbox.invoke(b'{"fail": true}').error_type is not None
        self.sandbox.settle()
        self.expected_records += 1
        assert len(self.queue.messages()) == self.expected_records

    def smuggled(self) -> list[str]:
        return [one.what for one in self.sandbox.journal.entries("call") if one.what.endswith(SMUGGLED)]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("listeners")
    (folder / "task").mkdir()
    (folder / "task" / "index.py").write_text(CODE)
    with Queue() as queue:
        function = Function(
            folder / "task",
            runtime=runtime_folder("python"),
            opt=unpack_layer(folder / "layer"),
            memory_mb=256,
            environment=attached(queue.url, queue.endpoint),
        )
        with Sandbox(function, folder / "environment", freezes=False) as sandbox:
            sandbox.invoke(b"{}")
            sandbox.settle()
            yield Target(sandbox, queue)
            said = [json.loads(line) for line in sandbox.log_lines("backstop")]
            assert [line for line in said if line["backstop"] != "ready"] == []


def is_refusal(answer: bytes) -> bool:
    """Closed without a word, or one answer: 4xx, or what the RFC wants for an unknown transfer coding (501) or version (505)."""
    statuses = re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)
    return statuses == [] or (len(statuses) == 1 and (statuses[0].startswith(b"4") or statuses[0] in (b"501", b"505")))


@pytest.mark.parametrize("listener", ["proxy", "telemetry"])
@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_requests(target: Target, listener: str, case: str) -> None:
    before = len(target.sandbox.journal.entries("call"))
    answer = target.send(listener, MALFORMED[case])
    assert is_refusal(answer), answer
    # The proxy may pass a malformed body's head on before it sees the rest; Lambda refuses that by itself.
    passed = [one.what for one in target.sandbox.journal.entries("call")[before:]]
    assert all(what.endswith(" /a") for what in passed)


@pytest.mark.parametrize("listener", ["proxy", "telemetry"])
@pytest.mark.parametrize("case", SMUGGLING)
def test_smuggling(target: Target, listener: str, case: str) -> None:
    target.send(listener, SMUGGLING[case])
    assert target.smuggled() == []


def test_the_function_has_not_noticed(target: Target) -> None:
    target.assert_works()


@given(st.sampled_from(["proxy", "telemetry"]), st.binary(max_size=300))
def test_random_bytes(target: Target, listener: str, data: bytes) -> None:
    answer = target.send(listener, data)
    assert is_refusal(answer), answer


@given(
    st.sampled_from(["proxy", "telemetry"]),
    st.sampled_from([*MALFORMED.values(), *SMUGGLING.values()]),
    st.integers(0, 200),
    st.binary(min_size=1, max_size=3),
)
def test_changed_bytes(target: Target, listener: str, data: bytes, position: int, instead: bytes) -> None:
    """A corpus with a few of its bytes replaced. Whatever becomes of it, no second request comes out of it."""
    short = data[:2_000]
    changed = short[:position] + instead + short[position + len(instead) :]
    if SMUGGLED.encode() in changed:
        # Where the change makes two proper requests of it, the second one is not smuggled.
        first = changed.partition(b"\r\n\r\n")[0].lower()
        if b"content-length" not in first and b"transfer-encoding" not in first:
            return
    target.send(listener, changed)


def test_telemetry_that_makes_no_sense(target: Target) -> None:
    for body in (
        b"",
        b"null",
        b"[",
        b"[1,2]",
        b'[{"type":1}]',
        b'{"type":"platform.start"}',
        b"\xff\xfe",
        b"[" * 5_000,
    ):
        request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        # 200 even for junk: it would only be delivered again.
        assert target.send("telemetry", request).startswith(b"HTTP/1.1 200"), body


def test_a_request_that_ends_early_or_trickles(target: Target) -> None:
    for listener in ("proxy", "telemetry"):
        assert not target.send(listener, OK + b"Content-Length: 10\r\n\r\nabc").startswith(b"HTTP/1.1 2")
    target.assert_works()
