"""Each way to fail, in each language, with its real runtime client under AWS's emulator: what is captured of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.harness.namespaces import may_change_user
from tests.e2e.harness.sqs import Arrived, Moto
from tests.languages import page
from tests.languages.cells import ROWS, Expected, Row, expected
from tests.languages.clients import Client
from tests.languages.matrix import SEEN, all_expected, table
from tests.languages.play import Played, play

Plays = Callable[[Client, str], dict[str, Played]]


@pytest.fixture(scope="session")
def plays(layer: Path, moto: Moto, tmp_path_factory: pytest.TempPathFactory) -> Plays:
    """Plays a group of rows once; each of its cells looks at its own part."""
    done: dict[tuple[str, str], dict[str, Played]] = {}

    def once(client: Client, group: str) -> dict[str, Played]:
        key = (client.language, group)
        if key not in done:
            done[key] = play(client, group, layer, moto, tmp_path_factory.mktemp(f"{client.language}-{group}"))
        return done[key]

    return once


def of_group(*groups: str) -> list[object]:
    return [pytest.param(row, id=row.name) for row in ROWS if row.group in groups]


@pytest.mark.parametrize("row", of_group("ordinary", "starved"))
def test_one_invocation_at_a_time(client: Client, row: Row, plays: Plays, pytestconfig: pytest.Config) -> None:
    played = plays(client, row.group)[row.name]
    wanted = expected(row, client.language)

    if wanted.condition is None:
        assert played.records == [], played.output
        assert played.answer.status == 200
    else:
        record = the_record(played, wanted)
        has_error(record, played, wanted)
        has_event(record, played, row)
    pytestconfig.stash[SEEN][row.name, client.language] = wanted.condition


@pytest.mark.parametrize("row", of_group("init"))
def test_a_failed_initialization(client: Client, row: Row, plays: Plays, pytestconfig: pytest.Config) -> None:
    played = plays(client, row.group)[row.name]
    wanted = expected(row, client.language)

    record = the_record(played, wanted)
    has_error(record, played, wanted)
    assert played.event is None
    assert record.backstop["payloadAbsent"] == "initialization"
    pytestconfig.stash[SEEN][row.name, client.language] = wanted.condition


@pytest.mark.skipif(
    not may_change_user(), reason="the emulator starts processes as another user in this mode: root only"
)
@pytest.mark.parametrize("row", of_group("managed"))
def test_on_managed_instances(client: Client, row: Row, plays: Plays, pytestconfig: pytest.Config) -> None:
    played = plays(client, row.group)[row.name]
    wanted = expected(row, client.language)

    record = the_record(played, wanted)
    has_error(record, played, wanted)
    has_event(record, played, row)
    do = json.loads(row.event)["do"]
    assert any(f"asked to {do}" in line for line in record.backstop["logs"]), record.backstop["logs"]
    pytestconfig.stash[SEEN][row.name, client.language] = wanted.condition


def test_the_page_is_current() -> None:
    assert page.PAGE.read_text(encoding="utf-8") == page.renewed(), "run python -m tests.languages.page"


@pytest.mark.all
def test_the_page_says_what_this_run_saw(pytestconfig: pytest.Config) -> None:
    seen = pytestconfig.stash[SEEN]
    if seen.keys() != all_expected().keys():
        pytest.fail("not every cell of the matrix was seen")
    assert table(seen) in page.PAGE.read_text(encoding="utf-8")


def the_record(played: Played, wanted: Expected) -> Arrived:
    """The one record of an invocation, as it was last sent."""
    assert played.records, f"nothing came\n{played.output}"
    assert len({record.backstop["id"] for record in played.records}) == 1, played.records
    last = played.records[-1]
    assert last.condition == wanted.condition, played.records
    assert last.attributes["backstop.condition"] == wanted.condition
    return last


def has_error(record: Arrived, played: Played, wanted: Expected) -> None:
    error = record.backstop["error"]
    assert error["type"] == wanted.error_type
    assert error["message"].startswith(wanted.message)
    if wanted.frame is None:
        assert error["stack"] == []
    else:
        assert any(wanted.frame in frame for frame in error["stack"]), error["stack"]
    assert record.error["errorType"] == wanted.error_type
    if record.condition == "HandledError" or wanted.note == "amended":
        assert record.error == json.loads(played.answer.body), "what the client posted, as the caller got it"


def has_event(record: Arrived, played: Played, row: Row) -> None:
    assert played.event == row.event
    assert record.describes(row.event)
    assert (record.backstop["payloadRef"] is not None) == (row.name == "large")
    assert ("payloadEncoding" in record.backstop) == (row.name == "binary")
