"""Whatever is wrong with the layer's own surroundings: the function works as if it were not there, and one line says why."""

from __future__ import annotations

import json
import re
import shutil
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.demo.story import scenes
from tests.e2e.harness.functions import attached, node_function
from tests.e2e.harness.roots import NODE, node_root
from tests.e2e.harness.sandbox import Function, Sandbox
from tests.e2e.harness.sqs import Arrived, Moto, Queue

SUCCEEDS, THROWS, TIMES_OUT, EXITS, _ = (scene.event for scene in scenes())


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("SHIP_BUDGET_MS", "two seconds"),
        ("LOG_WAIT_MS", "-1"),
        ("SPOOL_BYTES", "64MB"),
        ("CAPTURE", "everything"),
        ("TAGS", "no colon here"),
        ("STATE_DIR", "relative/path"),
        ("PROXY_PORT", "65536"),
        ("NO_SUCH_SETTING", "1"),
    ],
)
def test_a_setting_that_cannot_be_read_is_said_and_its_default_used(
    layer: Path, moto: Moto, queue: Queue, folder: Path, setting: str, value: str
) -> None:
    function = node_function(layer, attached(queue.url, moto.url, **{setting: value}))
    warnings, records = _works(function, folder, queue)

    assert [warning["what"] for warning in warnings] == [f"BACKSTOP_{setting}"]
    assert [record.condition for record in records] == ["HandledError"]


def test_a_queue_url_that_cannot_be_read_leaves_last_resort_lines(
    layer: Path, moto: Moto, queue: Queue, folder: Path
) -> None:
    function = node_function(layer, attached("orders-failures", moto.url))
    with Sandbox(function, folder) as sandbox:
        assert b"CONFIRMED" in sandbox.invoke(SUCCEEDS).body
        assert b"PaymentDeclined" in sandbox.invoke(THROWS).body
        sandbox.stop()

        assert "BACKSTOP_QUEUE_URL" in [warning["what"] for warning in _warnings(sandbox)]
        assert sandbox.output().count('{"backstop":"undelivered"') == 1


@pytest.mark.parametrize(
    "mount",
    [
        pytest.param("tmpfs:nr_inodes=1:/mnt/small", id="full: not even a file can be made"),
        pytest.param("tmpfs:size=4k:/mnt/small", id="full after the first file"),
    ],
)
def test_a_full_state_dir(layer: Path, moto: Moto, queue: Queue, folder: Path, mount: str) -> None:
    function = node_function(layer, attached(queue.url, moto.url, STATE_DIR="/mnt/small/state"))
    warnings, _ = _works(function, folder, queue, mounts=[mount], captured=None)

    # Another part may say what it cannot do for lack of its file, but the cause is said once.
    assert len([warning for warning in warnings if "no space" in warning["why"].lower()]) == 1


def test_a_state_dir_too_small_for_a_record_does_not_lose_it(
    layer: Path, moto: Moto, queue: Queue, folder: Path
) -> None:
    function = node_function(layer, attached(queue.url, moto.url, STATE_DIR="/mnt/small/state"), code="failing")
    event = json.dumps({"text": "x" * 100_000}).encode()
    with Sandbox(function, folder, mounts=["tmpfs:size=64k:/mnt/small"]) as sandbox:
        sandbox.invoke(event)
        (record,) = queue.wait_for(1)

        assert record.has_event(event)
        assert len(_warnings(sandbox)) == 1


@pytest.mark.parametrize("state_dir", ["/mnt/readonly", "/mnt/readonly/state"])
def test_a_read_only_state_dir(
    layer: Path, moto: Moto, queue: Queue, folder: Path, tmp_path_factory: pytest.TempPathFactory, state_dir: str
) -> None:
    function = node_function(layer, attached(queue.url, moto.url, STATE_DIR=state_dir))
    mounts = [f"ro:{tmp_path_factory.mktemp('readonly')}:/mnt/readonly"]
    warnings, _ = _works(function, folder, queue, mounts=mounts, captured=None)

    assert len(warnings) == 1
    assert "read-only" in warnings[0]["why"].lower()


def test_a_state_dir_that_is_a_file(layer: Path, moto: Moto, queue: Queue, folder: Path) -> None:
    function = node_function(layer, attached(queue.url, moto.url, STATE_DIR="/etc/hosts"))
    warnings, _ = _works(function, folder, queue, captured=None)

    assert len(warnings) == 1


@pytest.mark.parametrize("setting", ["PROXY_PORT", "TELEMETRY_PORT"])
def test_a_port_that_is_taken(layer: Path, moto: Moto, queue: Queue, folder: Path, setting: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        function = node_function(layer, attached(queue.url, moto.url, **{setting: port}))
        warnings, records = _works(function, folder, queue)

        assert len(warnings) == 1
        assert port in warnings[0]["why"]
        assert [record.condition for record in records] == ["HandledError"]


def test_switched_off(layer: Path, moto: Moto, queue: Queue, folder: Path) -> None:
    function = node_function(layer, attached(queue.url, moto.url, DISABLE="1"), timeout_s=2)
    with Sandbox(function, folder) as sandbox:
        assert b"CONFIRMED" in sandbox.invoke(SUCCEEDS).body
        assert b"PaymentDeclined" in sandbox.invoke(THROWS).body
        assert sandbox.invoke(EXITS).status == 502
        assert b"CONFIRMED" in sandbox.invoke(SUCCEEDS).body
        sandbox.stop()

        assert queue.take() == []
        assert '"backstop"' not in sandbox.output()
        assert not (sandbox.tmp / ".backstop" / "proxy").exists()


def test_without_the_wrapper_deaths_are_told_without_their_events(
    layer: Path, moto: Moto, queue: Queue, folder: Path
) -> None:
    """Attach-only: nothing is between runtime and Lambda, so a handled error is not seen and no event is kept."""
    environment = attached(queue.url, moto.url)
    del environment["AWS_LAMBDA_EXEC_WRAPPER"]
    with Sandbox(node_function(layer, environment, timeout_s=2), folder) as sandbox:
        assert b"CONFIRMED" in sandbox.invoke(SUCCEEDS).body
        assert b"PaymentDeclined" in sandbox.invoke(THROWS).body
        assert b"Task timed out" in sandbox.invoke(TIMES_OUT).body
        assert sandbox.invoke(EXITS).status == 502
        assert b"CONFIRMED" in sandbox.invoke(SUCCEEDS).body
        sandbox.stop()
        records = queue.take()

        assert sorted(record.condition for record in records) == ["Crash", "Timeout"]
        assert all(record.payload() is None and record.backstop["payloadAbsent"] for record in records)
        assert _warnings(sandbox) == []


@pytest.mark.parametrize("stale", [True, False], ids=["an earlier life's address is left", "no address"])
def test_the_wrapper_alone_leaves_the_runtime_as_it_was(
    layer: Path, moto: Moto, queue: Queue, folder: Path, stale: bool
) -> None:
    """The sidecar did not start: the runtime talks to Lambda itself."""
    alone = folder / "alone"
    shutil.copytree(layer, alone)
    shutil.rmtree(alone / "extensions")
    if stale:
        state = folder / "tmp" / ".backstop"
        state.mkdir(parents=True)
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        (state / "proxy").write_text(f"127.0.0.1:{port}\n")
    with Sandbox(node_function(alone, attached(queue.url, moto.url)), folder) as sandbox:
        assert b"CONFIRMED" in sandbox.invoke(SUCCEEDS).body
        assert b"PaymentDeclined" in sandbox.invoke(THROWS).body
        assert "backstop" not in sandbox.output()


def test_a_dead_sidecar_is_not_talked_to(layer: Path, moto: Moto, queue: Queue, folder: Path) -> None:
    """A listener that takes the wrapper's connection and says nothing: after 50 ms the runtime starts without it."""
    alone = folder / "alone"
    shutil.copytree(layer, alone)
    shutil.rmtree(alone / "extensions")
    state = folder / "tmp" / ".backstop"
    state.mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        (state / "proxy").write_text(f"127.0.0.1:{silent.getsockname()[1]}\n")
        with Sandbox(node_function(alone, attached(queue.url, moto.url)), folder) as sandbox:
            assert b"CONFIRMED" in sandbox.invoke(SUCCEEDS).body


def test_an_image_without_a_shell_calls_the_wrapper_itself(layer: Path, moto: Moto, queue: Queue, folder: Path) -> None:
    """Container images name the wrapper in their entry point; launcher and wrapper need no shell."""
    command = ["/opt/backstop-wrapper", NODE, "/var/runtime/index.mjs", "index.handler"]
    environment = attached(queue.url, moto.url)
    del environment["AWS_LAMBDA_EXEC_WRAPPER"]
    function = replace(node_function(layer, environment), root=node_root(shell=False), command=command)
    with Sandbox(function, folder) as sandbox:
        assert not (sandbox.inside() / "bin" / "sh").exists()
        assert b"PaymentDeclined" in sandbox.invoke(THROWS).body
        (record,) = queue.wait_for(1)

        assert record.has_event(THROWS)


def _works(
    function: Function, folder: Path, queue: Queue, *, mounts: Sequence[str] = (), captured: int | None = 1
) -> tuple[list[dict[str, Any]], list[Arrived]]:
    """Invokes the function, with a failure in between; returns the sidecar's warnings and the records.

    `captured`: how many records must come; None where there may be none, because the sidecar could not do its work.
    """
    with Sandbox(function, folder, mounts=mounts) as sandbox:
        assert b"CONFIRMED" in sandbox.invoke(SUCCEEDS).body
        failed = sandbox.invoke(THROWS)
        assert failed.status == 200
        assert json.loads(failed.body)["errorType"] == "PaymentDeclined"
        assert b"CONFIRMED" in sandbox.invoke(SUCCEEDS).body
        sandbox.stop()
        records = queue.take()
        assert captured is None or len(records) == captured
        return _warnings(sandbox), records


def _warnings(sandbox: Sandbox) -> list[dict[str, Any]]:
    return [json.loads(line) for line in re.findall(r'^\{"backstop":"warning".*$', sandbox.output(), re.MULTILINE)]
