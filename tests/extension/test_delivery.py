"""Delivery: nothing leaves the spool before the queue has it, nobody waits past a deadline, nothing is hammered."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from extension import record as records
from extension import say
from extension.delivery import Delivery
from extension.record import Record
from extension.settings import Settings
from extension.spool import Spool
from extension.sqs import Queue
from extension.sqs_protocol import ACCEPTED, DENIED, REFUSED, RETRY, TOO_LONG, Outcome
from tests.extension import wire_servers as servers

KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
QUEUE = "https://sqs.eu-west-1.amazonaws.com/123456789012/failures"
SLACK_S = 0.6
LONG_S = 10.0


@pytest.fixture(autouse=True)
def _fresh_voice() -> Iterator[None]:
    say.forget()
    yield
    say.forget()


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(str(tmp_path / "spool"), 64 << 20)


def record(number: int, event: bytes = b'{"n":1}') -> Record:
    """A record in the shape that `record.build` makes, with the places marked where it may be cut."""
    prefix = b'{"requestPayload":'
    details = {"id": f"id-{number}", "logs": [], "tags": {}, "error": {"stack": []}}
    suffix = b',"backstop":'
    body = prefix + event + suffix + json.dumps(details).encode() + b"}"
    marks = (len(prefix), len(prefix) + len(event), len(prefix) + len(event) + len(suffix))
    return Record(f"id-{number}", "orders", "Crash", "00ff", body, marks)


def put(spool: Spool, *ones: Record) -> None:
    for one in ones:
        assert spool.put(one.id, one.encode())


class Script:
    """A queue whose answers are scripted: one function for each call of `send`, the last one for ever."""

    def __init__(self, *answers: Callable[[list[Record]], list[Outcome]]) -> None:
        self.answers = list(answers)
        self.sent: list[list[Record]] = []
        self.at: list[float] = []
        self.closed = 0
        self.called = threading.Event()

    def send(self, ones: list[Record], deadline: float) -> list[Outcome]:
        self.sent.append(ones)
        self.at.append(time.monotonic())
        self.called.set()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer(ones)

    def close(self) -> None:
        self.closed += 1


def all_are(kind: str, reason: str = "Because: of this", limit: int = 0) -> Callable[[list[Record]], list[Outcome]]:
    return lambda ones: [Outcome(kind, reason, limit) for _ in ones]


def shipped(spool: Spool, queue: Script | Queue, within_s: float = 2.0, last_chance: bool = False) -> Delivery:
    delivery = Delivery(spool, lambda: queue)
    ship(delivery, within_s, last_chance)
    return delivery


def ship(delivery: Delivery, within_s: float = 2.0, last_chance: bool = False) -> None:
    delivery.kick(time.monotonic() + within_s, last_chance)
    assert delivery.wait_idle(within_s + LONG_S)


def real_queue(url: str) -> Queue:
    environ = {"BACKSTOP_QUEUE_URL": QUEUE, "AWS_ENDPOINT_URL_SQS": url}
    return Queue(Settings(environ), KEYS)


# The good way


def test_everything_pending_is_shipped_oldest_first_and_leaves_the_spool(spool: Spool) -> None:
    put(spool, *(record(number) for number in range(25)))
    with servers.StandIn() as server:
        delivery = shipped(spool, real_queue(server.url))
        assert spool.pending() == []
        assert [json.loads(body)["backstop"]["id"] for body in server.bodies] == [f"id-{n}" for n in range(25)]
        assert (len(server.requests), server.connections) == (3, 1)
    assert delivery.counters["accepted"] == 25
    assert delivery.counters["faults"] == 0


def test_a_batch_holds_what_fits_a_mebibyte(spool: Spool) -> None:
    put(spool, *(record(number, b'"%s"' % (b"x" * 400_000)) for number in range(5)))
    with servers.StandIn() as server:
        shipped(spool, real_queue(server.url))
        assert [len(request.json.get("Entries", [0])) for request in server.requests] == [2, 2, 1]
    assert spool.pending() == []


def test_no_connection_is_kept_between_two_ships(spool: Spool) -> None:
    with servers.StandIn() as server:
        delivery = Delivery(spool, lambda: real_queue(server.url))
        for number in range(3):
            put(spool, record(number))
            ship(delivery)
        assert server.connections == 3


def test_a_provisional_record_is_not_shipped(spool: Spool) -> None:
    one = record(1)
    spool.put(one.id, one.encode(), provisional=True)
    script = Script(all_are(ACCEPTED))
    shipped(spool, script)
    assert script.sent == []


def test_nothing_is_opened_while_nothing_is_pending(spool: Spool) -> None:
    def open_queue() -> Script:
        raise AssertionError("the queue was opened")

    delivery = Delivery(spool, open_queue)
    assert delivery.wait_idle(0.0)
    ship(delivery)
    assert delivery.counters["faults"] == 0


def test_a_record_amended_while_it_is_sent_is_sent_again(spool: Spool) -> None:
    put(spool, record(1, b'"handled error"'))

    def amend(ones: list[Record]) -> list[Outcome]:
        put(spool, record(1, b'"crash"'))
        return all_are(ACCEPTED)(ones)

    script = Script(amend, all_are(ACCEPTED))
    shipped(spool, script)
    assert [b"crash" in ones[0].body for ones in script.sent] == [False, True]
    assert spool.pending() == []


def test_a_kick_while_a_ship_is_under_way_extends_it(spool: Spool) -> None:
    put(spool, record(1))
    entered, go_on = threading.Event(), threading.Event()

    def hold(ones: list[Record]) -> list[Outcome]:
        entered.set()
        assert go_on.wait(5)
        return all_are(ACCEPTED)(ones)

    script = Script(hold, all_are(ACCEPTED))
    delivery = Delivery(spool, lambda: script)
    delivery.kick(time.monotonic() + 1)
    assert entered.wait(5)
    put(spool, record(2))
    delivery.kick(time.monotonic() + 5)
    assert not delivery.wait_idle(0.01)
    go_on.set()
    assert delivery.wait_idle(5)
    assert spool.pending() == []


# What goes wrong


def test_a_passing_failure_is_retried_within_the_time(spool: Spool) -> None:
    put(spool, record(1))
    script = Script(all_are(RETRY), all_are(RETRY), all_are(ACCEPTED))
    delivery = shipped(spool, script)
    assert spool.pending() == []
    assert delivery.counters["retried"] == 2


def test_three_failures_open_the_breaker_and_the_record_stays(spool: Spool, capfd: pytest.CaptureFixture[str]) -> None:
    put(spool, record(1))
    script = Script(all_are(RETRY, "ServiceUnavailable: come back"))
    delivery = shipped(spool, script)
    assert len(script.sent) == 3
    ship(delivery)
    assert len(script.sent) == 3, "open: given up at once"
    assert spool.pending() == ["id-1"]
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 1
    assert "ServiceUnavailable" in lines[0]


def test_the_last_chance_is_taken_although_the_breaker_is_open(spool: Spool) -> None:
    put(spool, record(1))
    script = Script(all_are(RETRY), all_are(RETRY), all_are(RETRY), all_are(ACCEPTED))
    delivery = shipped(spool, script)
    assert spool.pending() == ["id-1"]
    ship(delivery, last_chance=True)
    assert spool.pending() == []


def test_a_probe_after_the_wait_closes_the_breaker(spool: Spool) -> None:
    put(spool, record(1))
    now = [100.0]
    script = Script(all_are(DENIED), all_are(ACCEPTED))
    delivery = Delivery(spool, lambda: script, clock=lambda: now[0])
    for step, attempts in ((0.0, 1), (0.2, 1), (1.5, 2)):
        now[0] += step
        delivery.kick(now[0] + 1)
        assert delivery.wait_idle(LONG_S)
        assert len(script.sent) == attempts
    assert spool.pending() == []


def test_a_closed_queue_is_asked_once_and_not_hammered(spool: Spool, capfd: pytest.CaptureFixture[str]) -> None:
    put(spool, *(record(number) for number in range(25)))
    script = Script(all_are(DENIED, "AccessDenied: not you"))
    delivery = shipped(spool, script)
    for _ in range(5):
        ship(delivery, 0.1)
    assert len(script.sent) == 1
    assert len(spool.pending()) == 25
    assert capfd.readouterr().out.count("AccessDenied") == 1


def test_a_refused_record_stays_blocks_nobody_and_is_not_sent_again(
    spool: Spool, capfd: pytest.CaptureFixture[str]
) -> None:
    put(spool, *(record(number) for number in range(4)))

    def refuse_the_first(ones: list[Record]) -> list[Outcome]:
        return [
            Outcome(REFUSED, "InvalidMessageContents: #x1") if one.id == "id-0" else Outcome(ACCEPTED) for one in ones
        ]

    script = Script(refuse_the_first)
    delivery = shipped(spool, script)
    assert spool.pending() == ["id-0"]
    put(spool, record(9))
    ship(delivery)
    assert spool.pending() == ["id-0"]
    assert [one.id for one in script.sent[-1]] == ["id-9"]
    put(spool, record(0, b'"amended"'))
    ship(delivery)
    assert [one.id for one in script.sent[-1]] == ["id-0"], "it changed, so it is tried again"
    assert capfd.readouterr().out.count("InvalidMessageContents") == 1


def test_a_record_too_long_for_the_queue_is_cut_on_its_way_and_whole_in_the_spool(spool: Spool) -> None:
    long = record(1, b'"%s"' % (b"x" * 60_000))
    put(spool, long, record(2))
    sizes: list[int] = []

    def at_most(ones: list[Record]) -> list[Outcome]:
        sizes.extend(len(one.body) for one in ones)
        assert spool.read("id-1") == long.encode()
        return [Outcome(ACCEPTED) if len(one.body) <= 20_000 else Outcome(TOO_LONG, "long", 20_000) for one in ones]

    delivery = shipped(spool, Script(at_most))
    assert spool.pending() == []
    assert sizes[0] > 60_000
    assert sizes[-1] <= 20_000
    assert delivery.counters["cut"] == 1


def test_a_record_that_cannot_be_cut_enough_is_set_aside(spool: Spool) -> None:
    put(spool, record(1, b'"%s"' % (b"x" * 60_000)), record(2))

    def impossible(ones: list[Record]) -> list[Outcome]:
        return [Outcome(TOO_LONG, "long", 10) if one.id == "id-1" else Outcome(ACCEPTED) for one in ones]

    script = Script(impossible)
    delivery = shipped(spool, script)
    ship(delivery)
    assert spool.pending() == ["id-1"]
    assert len(script.sent) == 1
    assert delivery.counters["refused"] == 1


def test_a_limit_that_the_cut_copy_still_breaks_ends(spool: Spool) -> None:
    put(spool, record(1, b'"%s"' % (b"x" * 60_000)))
    script = Script(all_are(TOO_LONG, "long", 30_000))
    shipped(spool, script)
    assert len(script.sent) == 2
    assert spool.pending() == ["id-1"]


@pytest.mark.parametrize("data", [b"", b"[]\n{}", b"nonsense", b"[1,2,3,4,5,6,7]\n", b"\xff\xfe\n", b"{" * 3_000])
def test_a_record_that_cannot_be_read_blocks_nobody(spool: Spool, data: bytes) -> None:
    spool.put("poison", data)
    put(spool, record(1))
    script = Script(lambda ones: [Outcome(ACCEPTED if one.id == "id-1" else REFUSED) for one in ones])
    shipped(spool, script)
    assert spool.pending() == ["poison"]


def test_each_record_that_stays_has_its_own_reason(spool: Spool) -> None:
    put(spool, record(0), record(1))
    answers = {"id-0": Outcome(REFUSED, "InvalidMessageContents: #x1"), "id-1": Outcome(DENIED, "AccessDenied: no")}
    delivery = shipped(spool, Script(lambda ones: [answers[one.id] for one in ones]))
    assert [delivery.why("id-0"), delivery.why("id-1")] == ["InvalidMessageContents: #x1", "AccessDenied: no"]
    assert delivery.last_reason == "AccessDenied: no"
    assert Delivery(spool, Script).why("id-0") == ""


def test_a_torn_file_blocks_nobody(spool: Spool, tmp_path: Path) -> None:
    put(spool, record(1), record(2))
    first = sorted((tmp_path / "spool").iterdir())[0]
    first.write_bytes(first.read_bytes()[:-3])
    shipped(spool, Script(all_are(ACCEPTED)))
    assert spool.pending() == []
    assert spool.counters["torn"] == 1


def test_a_bug_in_sending_is_said_counted_and_survived(spool: Spool, capfd: pytest.CaptureFixture[str]) -> None:
    put(spool, record(1))

    def bug(ones: list[Record]) -> list[Outcome]:
        raise RuntimeError("a bug")

    script = Script(bug, all_are(ACCEPTED))
    delivery = shipped(spool, script)
    assert delivery.counters["faults"] == 1
    assert "a bug" in capfd.readouterr().out
    put(spool, record(2))
    ship(delivery)
    assert spool.pending() == ["id-1"], "the batch that met the bug waits for the next life, the others go"


def test_a_queue_that_cannot_be_opened_is_said_and_the_records_stay(
    spool: Spool, capfd: pytest.CaptureFixture[str]
) -> None:
    put(spool, record(1))
    delivery = Delivery(spool, lambda: Queue(Settings({}), KEYS))
    ship(delivery)
    assert spool.pending() == ["id-1"]
    assert "no queue is set" in capfd.readouterr().out


def test_without_a_thread_nobody_waits(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(*_: object) -> int:
        raise RuntimeError("can't start new thread")

    put(spool, record(1))
    script = Script(all_are(ACCEPTED))
    delivery = Delivery(spool, lambda: script)
    with monkeypatch.context() as patch:
        patch.setattr("extension.delivery._thread.start_new_thread", no_thread)
        ship(delivery)
        assert spool.pending() == ["id-1"]
    ship(delivery)
    assert spool.pending() == []


# Time, on real sockets


@pytest.mark.parametrize(
    "handler", [servers.hang_after_request, servers.trickle, servers.hang_before_reading], ids=lambda one: one.__name__
)
def test_a_slow_queue_costs_no_more_than_the_budget(spool: Spool, handler: servers.Handler) -> None:
    put(spool, record(1, b'"%s"' % (b"x" * 900_000)))
    with servers.Server(handler) as server:
        began = time.monotonic()
        delivery = shipped(spool, real_queue(server.url), within_s=0.6)
        assert time.monotonic() - began < 0.6 + SLACK_S
        assert spool.pending() == ["id-1"]
        assert delivery.counters["faults"] == 0


def test_a_connect_that_hangs_costs_no_more_than_the_budget(spool: Spool) -> None:
    put(spool, record(1))
    with servers.full_backlog() as url:
        began = time.monotonic()
        shipped(spool, real_queue(url), within_s=0.6)
        assert time.monotonic() - began < 0.6 + SLACK_S
    assert spool.pending() == ["id-1"]


@pytest.mark.parametrize("handler", [servers.cut_in_body, servers.reset_before_answer, servers.not_http])
def test_a_broken_queue_is_tried_three_times_then_left_alone(spool: Spool, handler: servers.Handler) -> None:
    put(spool, record(1))
    with servers.Server(handler) as server:
        delivery = shipped(spool, real_queue(server.url), within_s=LONG_S)
        assert server.connections == 3
        for _ in range(3):
            ship(delivery, 0.05)
        assert server.connections == 3
    assert spool.pending() == ["id-1"]


def test_one_attempt_never_takes_all_of_a_long_ship(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extension.delivery._ATTEMPT_S", 0.2)
    put(spool, record(1))

    def dead_then_alive(sock: socket.socket) -> None:
        if server.connections == 1:
            servers.hang_after_request(sock)
        elif (request := servers.read_request(sock)) is not None:
            sock.sendall(servers.accept_messages(request))

    with servers.Server(dead_then_alive) as server:
        began = time.monotonic()
        shipped(spool, real_queue(server.url), within_s=LONG_S)
        assert time.monotonic() - began < 2
    assert spool.pending() == []


SENDER = """
import sys, time
from extension.delivery import Delivery
from extension.record import Record
from extension.settings import Settings
from extension.spool import Spool
from extension.sqs import Queue
folder, url = sys.argv[1:]
settings = Settings({"BACKSTOP_QUEUE_URL": "https://sqs.eu-west-1.amazonaws.com/1/q", "AWS_ENDPOINT_URL_SQS": url})
spool = Spool(folder, 1 << 20)
one = Record("id-1", "orders", "Crash", "00ff", b"{}", (0, 0, 0))
spool.put(one.id, one.encode())
delivery = Delivery(spool, lambda: Queue(settings, {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}))
delivery.kick(time.monotonic() + 60)
delivery.wait_idle(60)
"""


def test_a_life_killed_while_it_sends_leaves_the_record_to_the_next(tmp_path: Path) -> None:
    arrived = threading.Event()

    def say_and_hang(sock: socket.socket) -> None:
        servers.read_request(sock)
        arrived.set()
        servers.until_closed(sock)

    folder = str(tmp_path / "spool")
    with servers.Server(say_and_hang) as server:
        command = [sys.executable, "-S", "-c", SENDER, folder, server.url]
        sender = subprocess.Popen(command, env={"PYTHONPATH": str(Path(__file__).parents[2])})
        assert arrived.wait(20)
        sender.kill()
        sender.wait()
    spool = Spool(folder, 1 << 20)
    with servers.StandIn() as stand_in:
        shipped(spool, real_queue(stand_in.url))
        assert stand_in.bodies == ["{}"]
    assert spool.pending() == []


def test_callers_never_wait_for_the_network(spool: Spool) -> None:
    put(spool, record(1))
    with servers.Server(servers.hang_after_request) as server:
        delivery = Delivery(spool, lambda: real_queue(server.url))
        began = time.monotonic()
        delivery.kick(began + 0.5)
        assert not delivery.wait_idle(0.05)
        assert time.monotonic() - began < 0.3
        assert delivery.wait_idle(LONG_S)


def test_the_queue_that_comes_back_gets_what_waited(spool: Spool) -> None:
    put(spool, *(record(number) for number in range(3)))
    with servers.StandIn(lambda _: servers.error(500, "InternalError", "")) as server:
        delivery = shipped(spool, real_queue(server.url), within_s=LONG_S)
        assert len(spool.pending()) == 3
        server.respond = servers.accept_messages
        ship(delivery, last_chance=True)
        assert spool.pending() == []
        put(spool, record(7))
        ship(delivery)
        assert spool.pending() == [], "one success closed the breaker"


def open_sockets() -> int:
    links = [f"/proc/self/fd/{descriptor}" for descriptor in os.listdir("/proc/self/fd")]
    return sum(os.path.exists(link) and os.readlink(link).startswith("socket:") for link in links)


def test_no_socket_is_left_open_whatever_happened(spool: Spool) -> None:
    before = open_sockets()
    responses = [
        servers.accept_messages,
        lambda _: servers.error(500, "InternalError", ""),
        lambda _: b"nonsense\r\n\r\n",
    ]
    with servers.StandIn() as server:
        delivery = Delivery(spool, lambda: real_queue(server.url))
        for number in range(12):
            server.respond = responses[number % 3]
            put(spool, record(number))
            ship(delivery, last_chance=True)
    assert open_sockets() == before


def test_many_threads_and_a_moody_queue_lose_nothing(spool: Spool) -> None:
    chance = random.Random(20261124)
    newest: dict[str, bytes] = {}
    accepted: dict[str, bytes] = {}
    lock = threading.Lock()
    calm = threading.Event()

    def moody(ones: list[Record]) -> list[Outcome]:
        with lock:
            kinds = [ACCEPTED] if calm.is_set() else [ACCEPTED, ACCEPTED, RETRY, RETRY, DENIED]
            whole = chance.choice([ACCEPTED, RETRY]) if chance.random() < 0.3 and not calm.is_set() else None
            outcomes = [Outcome(whole or chance.choice(kinds), "Mood: bad") for _ in ones]
            accepted.update((one.id, one.body) for one, out in zip(ones, outcomes, strict=True) if out.kind == ACCEPTED)
        return outcomes

    delivery = Delivery(spool, lambda: Script(moody))

    def work(worker: int) -> None:
        for number in range(40):
            one = record(worker * 100 + number % 25, b'"%d"' % number)
            with lock:
                newest[one.id] = one.body
            put(spool, one)
            delivery.kick(time.monotonic() + 0.05, last_chance=number % 5 == 0)
            delivery.wait_idle(0.002)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    calm.set()
    ship(delivery, LONG_S, last_chance=True)
    assert spool.pending() == []
    assert accepted == newest
    assert delivery.counters["faults"] == 0


# What it costs


def test_importing_delivery_brings_nothing_heavy() -> None:
    script = """
import extension.delivery, extension.spool
heavy = {"socket", "threading", "json", "re", "enum", "typing", "_ssl", "ssl", "datetime", "_hashlib", "hashlib", "hmac", "random"}
print(sorted(heavy & set(sys.modules)), sorted(name for name in sys.modules if name.startswith("extension.")))
"""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {os.getcwd()!r})\n{script}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("[] ")
    assert "sqs" not in done.stdout
    assert "tls" not in done.stdout


def test_shrink_is_the_records_own() -> None:
    """The seam to record.py: a cut copy is smaller and keeps the id."""
    smaller = records.shrink(record(1, b'"%s"' % (b"x" * 60_000)), 20_000)
    assert smaller is not None
    assert smaller.id == "id-1"
    assert len(smaller.body) < 20_000
