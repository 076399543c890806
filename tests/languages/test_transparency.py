"""What each runtime client and Lambda say to one another is the same with the proxy between them, to the byte."""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.harness.functions import attached
from tests.e2e.harness.namespaces import may_change_user
from tests.e2e.harness.sandbox import Sandbox
from tests.e2e.harness.sqs import Moto
from tests.languages.cells import ROWS
from tests.languages.clients import Client
from tests.languages.tee import Tee
from tests.languages.traffic import Exchange, cut, exchanges, is_whole, without_nature

# After these the runtime lives on, so that both runs are one conversation each.
EVENTS = {row.name: row.event for row in ROWS if row.name in ("success", "error", "unicode", "large", "binary")}

_INVOCATION_ID = re.compile(rb"(?im)^Lambda-Runtime-Invocation-Id: *(\S+)\r$")


@dataclass(frozen=True, slots=True)
class Traffic:
    """What the runtime said and heard, what Lambda heard and said, and how many requests each connection of the runtime carried."""

    events: int
    runtime: list[Exchange]
    platform: list[Exchange]
    per_connection: list[int]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(None, id="one at a time"),
        pytest.param(
            2,
            id="Managed Instances",
            marks=pytest.mark.skipif(
                not may_change_user(), reason="this mode of the emulator changes users: root only"
            ),
        ),
    ],
)
def concurrency(request: pytest.FixtureRequest) -> int | None:
    """Where invocations overlap, clients wait for several events at once, and echo an Invocation-Id."""
    chosen: int | None = request.param
    return chosen


@pytest.fixture(scope="module")
def proxied(
    client: Client, concurrency: int | None, layer: Path, moto: Moto, tmp_path_factory: pytest.TempPathFactory
) -> Traffic:
    """runtime → tee → proxy → tee → Lambda's API."""
    queue = moto.queue()
    folder = tmp_path_factory.mktemp("proxied")
    with ExitStack() as stack:
        platform = stack.enter_context(Tee(lambda: sandbox.runtime_port))
        runtime = stack.enter_context(Tee(lambda: _proxy_port(sandbox)))
        settings = {"PROXY_UPSTREAM": f"127.0.0.1:{platform.port}", "NEXT_WRAPPER": "/tmp/divert"}
        function = client.function(layer, attached(queue.url, moto.url, **settings), concurrency=concurrency)
        sandbox = Sandbox(function, folder)
        return _talk(sandbox, runtime, platform)


@pytest.fixture(scope="module")
def plain(client: Client, concurrency: int | None, tmp_path_factory: pytest.TempPathFactory) -> Traffic:
    """runtime → tee → Lambda's API, without the layer."""
    folder = tmp_path_factory.mktemp("plain")
    with Tee(lambda: sandbox.runtime_port) as tee:
        function = client.function(None, {"AWS_LAMBDA_EXEC_WRAPPER": "/tmp/divert"}, concurrency=concurrency)
        sandbox = Sandbox(function, folder)
        return _talk(sandbox, tee, tee)


def test_both_ends_of_the_proxy_saw_the_same_bytes(proxied: Traffic, concurrency: int | None) -> None:
    """Nothing is left out of the comparison: every header, its case and order, ids, dates and chunks."""
    assert len(proxied.runtime) == 2 * proxied.events + (concurrency is None), "GET /next and POST for each event"
    assert _differing(proxied.runtime, proxied.platform) == []


def test_a_run_without_the_layer_is_the_same(proxied: Traffic, plain: Traffic) -> None:
    """But for what differs by nature, of which every kind has a name."""
    assert _differing(_natural(proxied.runtime), _natural(plain.runtime)) == []


def test_connections_are_kept_as_without_the_layer(proxied: Traffic, plain: Traffic, concurrency: int | None) -> None:
    if concurrency is None:  # else which of several waiting connections gets an event is chance
        assert proxied.per_connection == plain.per_connection
    assert bool(max(proxied.per_connection) > 1) == bool(max(plain.per_connection) > 1)


def test_an_invocation_id_comes_back_from_the_clients_that_know_it(
    client: Client, proxied: Traffic, concurrency: int | None
) -> None:
    """This emulator sends it on Managed Instances only."""
    echoed = [_INVOCATION_ID.findall(one.request) for one in proxied.platform if one.request.startswith(b"POST")]
    sent = [_INVOCATION_ID.findall(one.answer) for one in proxied.platform if one.request.startswith(b"GET")]
    assert all(sent) if concurrency is not None else not any(sent)
    if concurrency is not None and client.language in ("python", "rust"):
        assert sorted(echoed) == sorted(sent)
    else:
        assert not any(echoed)


def _talk(sandbox: Sandbox, runtime: Tee, platform: Tee) -> Traffic:
    """Sends the events, with the runtime led to its tee by a wrapper.

    Where invocations overlap, order is chance: then exchanges are sorted, without those that still wait for an event. And the
    emulator breaks off a long event for which no runtime waits yet, and cuts it into chunks as it comes: there is none of those.
    """
    overlapping = sandbox.function.concurrency is not None
    events = [event for name, event in EVENTS.items() if name != "large" or not overlapping]
    divert = sandbox.tmp / "divert"
    divert.write_text(f'#!/bin/sh\nexport AWS_LAMBDA_RUNTIME_API=127.0.0.1:{runtime.port}\nexec "$@"\n')
    divert.chmod(0o755)
    tees = (runtime, platform)
    with sandbox:
        for event in events:
            sandbox.invoke(event)
        sandbox.wait_for(
            lambda: all(_has_said_all(tee, len(events)) for tee in tees), "the last answer, and the GET /next after it"
        )
        for tee in tees:
            tee.freeze()
    recorded = [exchanges(tee.connections) for tee in tees]
    if overlapping:
        recorded = [sorted((one for one in side if one.answer), key=_without_chance) for side in recorded]
    return Traffic(len(events), recorded[0], recorded[1], _per_connection(runtime))


def _has_said_all(tee: Tee, events: int) -> bool:
    """Whether every event was taken and answered, and every answer acknowledged; and the runtime waits for the next event."""
    streams = [bytes(connection.got) for connection in tee.connections]
    answers = sum(len(cut(stream)) for stream in streams)
    requests = sum(_per_connection(tee))
    return answers == 2 * events and requests > answers and all(map(is_whole, streams))


def _without_chance(exchange: Exchange) -> tuple[bytes, bytes, bytes]:
    return without_nature(exchange.request), without_nature(exchange.answer), exchange.request + exchange.answer


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
