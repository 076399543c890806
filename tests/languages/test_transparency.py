"""What each runtime client and Lambda say to one another is the same with the proxy between them, to the byte."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.harness.functions import attached
from tests.e2e.harness.sandbox import Sandbox
from tests.e2e.harness.sqs import Moto
from tests.languages.cells import ROWS
from tests.languages.clients import Client
from tests.languages.tee import Tee
from tests.languages.traffic import Exchange, cut, exchanges, without_nature

# After these the runtime lives on, so that both runs are one conversation each.
EVENTS = [row.event for row in ROWS if row.name in ("success", "error", "unicode", "large", "binary")]


@dataclass(frozen=True, slots=True)
class Traffic:
    """What the runtime said and heard, what Lambda heard and said, and how many requests each connection of the runtime carried."""

    runtime: list[Exchange]
    platform: list[Exchange]
    per_connection: list[int]


@pytest.fixture(scope="module")
def proxied(client: Client, layer: Path, moto: Moto, tmp_path_factory: pytest.TempPathFactory) -> Traffic:
    """runtime → tee → proxy → tee → Lambda's API."""
    queue = moto.queue()
    folder = tmp_path_factory.mktemp("proxied")
    with ExitStack() as stack:
        platform = stack.enter_context(Tee(lambda: sandbox.runtime_port))
        runtime = stack.enter_context(Tee(lambda: _proxy_port(sandbox)))
        settings = {"PROXY_UPSTREAM": f"127.0.0.1:{platform.port}", "NEXT_WRAPPER": "/tmp/divert"}
        function = client.function(layer, attached(queue.url, moto.url, **settings))
        sandbox = Sandbox(function, folder)
        _talk(sandbox, runtime, platform)
    return Traffic(exchanges(runtime.connections), exchanges(platform.connections), _per_connection(runtime))


@pytest.fixture(scope="module")
def plain(client: Client, tmp_path_factory: pytest.TempPathFactory) -> Traffic:
    """runtime → tee → Lambda's API, without the layer."""
    folder = tmp_path_factory.mktemp("plain")
    with Tee(lambda: sandbox.runtime_port) as tee:
        sandbox = Sandbox(client.function(None, {"AWS_LAMBDA_EXEC_WRAPPER": "/tmp/divert"}), folder)
        _talk(sandbox, tee)
    recorded = exchanges(tee.connections)
    return Traffic(recorded, recorded, _per_connection(tee))


def test_both_ends_of_the_proxy_saw_the_same_bytes(proxied: Traffic) -> None:
    """Nothing is left out of the comparison: every header, its case and order, ids, dates and chunks."""
    assert len(proxied.runtime) == 2 * len(EVENTS) + 1, "GET /next and POST for each event, and one more GET /next"
    assert _differing(proxied.runtime, proxied.platform) == []


def test_a_run_without_the_layer_is_the_same(proxied: Traffic, plain: Traffic) -> None:
    """But for what differs by nature, of which every kind has a name."""
    assert _differing(_natural(proxied.runtime), _natural(plain.runtime)) == []


def test_connections_are_kept_as_without_the_layer(proxied: Traffic, plain: Traffic) -> None:
    assert proxied.per_connection == plain.per_connection


def _talk(sandbox: Sandbox, *tees: Tee) -> None:
    """Sends the events, with the runtime led to the first tee by a wrapper."""
    divert = sandbox.tmp / "divert"
    divert.write_text(f'#!/bin/sh\nexport AWS_LAMBDA_RUNTIME_API=127.0.0.1:{tees[0].port}\nexec "$@"\n')
    divert.chmod(0o755)
    with sandbox:
        for event in EVENTS:
            sandbox.invoke(event)
        requests = 2 * len(EVENTS) + 1
        sandbox.wait_for(lambda: all(sum(_per_connection(tee)) == requests for tee in tees), "the last GET /next")
        for tee in tees:
            tee.freeze()


def _proxy_port(sandbox: Sandbox) -> int:
    address = (sandbox.tmp / ".backstop" / "proxy").read_text()
    return int(address.rpartition(":")[2])


def _per_connection(tee: Tee) -> list[int]:
    return [len(cut(bytes(connection.sent))) for connection in tee.connections]


def _natural(recorded: list[Exchange]) -> list[Exchange]:
    return [Exchange(without_nature(one.request), without_nature(one.answer)) for one in recorded]


def _differing(left: list[Exchange], right: list[Exchange]) -> list[tuple[bytes, bytes]]:
    """Pairs that are not equal, shortened to what a person can read."""
    if len(left) != len(right):
        return [(b"%d exchanges" % len(left), b"%d exchanges" % len(right))]
    pairs = [pair for a, b in zip(left, right, strict=True) for pair in ((a.request, b.request), (a.answer, b.answer))]
    return [(a[:1000], b[:1000]) for a, b in pairs if a != b]
