"""`python -m sandbox run`, and what it is made of: layers unpacked, the stand-in for a queue, the timeline."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from sandbox import deploy
from sandbox.journal import Entry
from sandbox.queue import MAX_MESSAGE, Message, Queue
from sandbox.timeline import Row, rows, short
from tests.e2e.harness.layer import layer_zip
from tests.sandbox.conftest import runtime_folder

ROOT = Path(__file__).parents[2]
PYTHON = """
def handler(event, context):
    print("order", event["order"])
    if event.get("fail"):
        raise ValueError("no good")
    return event
"""
NODE = """
export async function handler(event) {
  console.log("order", event.order);
  if (event.fail) throw new Error("no good");
  return event;
}
"""
BASH = """
handler() {
    local event
    event=$(cat)
    echo "order $event" >&2
    [[ $event != *fail* ]] || return 3
    printf %s "$event"
}
"""
CODE = {"python": ("index.py", PYTHON), "node": ("index.mjs", NODE), "bash": ("handler.sh", BASH)}


def run(*arguments: str, stdin: bytes = b"") -> tuple[int, Any, str]:
    """Status, the JSON that was printed, and what was said beside it."""
    command = [sys.executable, "-m", "sandbox", "run", *arguments, "--json"]
    done = subprocess.run(command, input=stdin, capture_output=True, cwd=ROOT, check=False, timeout=60)
    return done.returncode, json.loads(done.stdout or b"null"), done.stderr.decode()


@pytest.fixture(params=["python", "node", "bash"])
def language(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def task(tmp_path: Path, language: str) -> Path:
    folder = tmp_path / "orders"
    folder.mkdir()
    name, code = CODE[language]
    (folder / name).write_text(code)
    return folder


def test_a_function_with_the_layer(task: Path, language: str, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text('{"order": 1}')
    bad.write_text('{"order": 2, "fail": true}')
    status, shown, said = run(
        str(task), "--runtime", language, "--layer", str(layer_zip()), "--event", str(good), "--event", str(bad),
        "--memory", "512",
    )  # fmt: skip
    assert (status, [answer["errorType"] is None for answer in shown["answers"]]) == (1, [True, False]), said
    (record,) = shown["records"]
    assert record["requestContext"]["condition"] == "HandledError"
    assert record["requestPayload"] == {"order": 2, "fail": True}
    calls = [row["what"] for row in shown["timeline"] if row["who"] == "backstop" and row["kind"] == "call"]
    assert calls[0] == "POST extension/register → 200"
    assert "platform.report" in [event["type"] for event in shown["telemetry"]]
    assert any("order" in line["line"] for line in shown["logs"] if line["who"] == "runtime")
    assert "order" in said


def test_the_event_from_standard_input(tmp_path: Path) -> None:
    (tmp_path / "index.py").write_text(PYTHON)
    status, shown, _ = run(str(tmp_path), "--runtime", "python", "--event", "-", stdin=b'{"order": 7}')
    assert (status, json.loads(shown["answers"][0]["payload"])) == (0, {"order": 7})


@pytest.mark.parametrize("mode", ["provisioned", "managed", "snapstart", "stream"])
def test_modes(tmp_path: Path, mode: str) -> None:
    (tmp_path / "index.py").write_text(PYTHON)
    arguments = [str(tmp_path), "--runtime", "python", "--event", "-", "--mode", mode, "--memory", "256"]
    status, shown, said = run(*arguments, stdin=b'{"order": 7}')
    assert (status, json.loads(shown["answers"][0]["payload"])) == (0, {"order": 7}), said


WRONG = {
    "unknown runtime": (["--runtime", "cobol"], "no runtime 'cobol'; there are bash, node, provided, python"),
    "no code": (["--runtime", "node"], "name the handler with --handler"),
    "no such event": (["--runtime", "python", "--event", "/nowhere"], "the event /nowhere"),
    "no zip": (["--runtime", "python", "--layer", __file__], "is not a zip file"),
    "no pair": (["--runtime", "python", "--env", "x"], "use NAME=VALUE"),
    "failing init": (
        ["--runtime", "python", "--mode", "provisioned", "--handler", "index.no"],
        "initialization failed",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_set_up(tmp_path: Path, case: str) -> None:
    arguments, message = WRONG[case]
    (tmp_path / "index.py").write_text(PYTHON)
    status, _, said = run(str(tmp_path), *arguments)
    assert status == 2
    assert message in " ".join(said.split())


# -- deploying -----------------------------------------------------------------------------------------------------


def test_later_layers_replace_files_of_earlier_ones(tmp_path: Path) -> None:
    for name, text in (("one", "1"), ("two", "2")):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            member = zipfile.ZipInfo("extensions/both")
            member.external_attr = 0o755 << 16
            archive.writestr(member, text)
            archive.writestr(f"only-{name}", text)
    opt = tmp_path / "opt"
    deploy.unpack_layers([tmp_path / "one.zip", tmp_path / "two.zip"], opt)
    assert (opt / "extensions" / "both").read_text() == "2"
    assert (opt / "extensions" / "both").stat().st_mode & 0o777 == 0o755
    assert {path.name for path in opt.iterdir()} == {"extensions", "only-one", "only-two"}


def test_a_layer_of_others_is_not_attached(tmp_path: Path) -> None:
    assert deploy.attach(tmp_path, {"A": "b"}, "url", "endpoint") == {"A": "b"}


def test_given_variables_win(tmp_path: Path) -> None:
    (tmp_path / "backstop-wrapper").touch()
    given = {"BACKSTOP_QUEUE_URL": "mine"}
    assert deploy.attach(tmp_path, given, "url", "endpoint")["BACKSTOP_QUEUE_URL"] == "mine"


def test_every_runtime_can_be_started() -> None:
    for name in ("python", "node", "bash"):
        assert deploy.runtime_folder(name) == runtime_folder(name)
        assert (runtime_folder(name) / "bootstrap").stat().st_mode & 0o111


# -- the stand-in for a queue, with AWS's own client ---------------------------------------------------------------


def test_boto3_takes_it_for_a_queue() -> None:
    with Queue() as queue:
        client = boto3.client(
            "sqs",
            region_name="eu-central-1",
            endpoint_url=queue.endpoint,
            aws_access_key_id="x",
            aws_secret_access_key="x",
            config=Config(retries={"max_attempts": 0}),
        )
        # The client checks the digests of body and attributes.
        attributes = {"b": {"DataType": "String", "StringValue": "ü"}, "a": {"DataType": "Number", "StringValue": "1"}}
        client.send_message(QueueUrl=queue.url, MessageBody="é", MessageAttributes=attributes, MessageGroupId="g")  # type: ignore[arg-type]
        entries = [{"Id": str(number), "MessageBody": str(number)} for number in range(3)]
        sent = client.send_message_batch(QueueUrl=queue.url, Entries=entries)  # type: ignore[arg-type]
        assert [one["Id"] for one in sent["Successful"]] == ["0", "1", "2"]
        assert queue.messages()[:2] == [Message("é", {"a": "1", "b": "ü"}, "g"), Message("0", {}, None)]
        with pytest.raises(ClientError) as too_long:
            client.send_message(QueueUrl=queue.url, MessageBody="x" * (MAX_MESSAGE + 1))
        assert too_long.value.response["Error"]["Code"] == "InvalidParameterValue"
        with pytest.raises(ClientError):
            client.receive_message(QueueUrl=queue.url)


# -- the timeline --------------------------------------------------------------------------------------------------


def test_rows_of_a_timeline() -> None:
    call = "GET /2018-06-01/runtime/invocation/next"
    entries = [
        Entry(1.0, "phase", "platform", "init"),
        Entry(1.001, "process", "runtime", "started", {"pid": 7}),
        Entry(1.002, "call", "runtime", call),
        Entry(1.003, "telemetry", "platform", "platform.initReport", {"record": {"status": "success"}}),
        Entry(1.004, "log", "runtime", "hello"),
        Entry(1.005, "answer", "runtime", call, {"status": 200}),
        Entry(1.006, "call", "runtime", call),
        Entry(1.007, "answer", "runtime", call, {"status": 0}),
        Entry(1.008, "phase", "platform", "shutdown", {"reason": "spindown"}),
        Entry(1.009, "process", "runtime", "ended", {"returncode": -9}),
    ]
    rounded = [
        Row(round(row.at_ms), row.kind, row.who, row.what, None if row.waited_ms is None else round(row.waited_ms))
        for row in rows(entries)
    ]
    assert rounded == [
        Row(0, "phase", "platform", "init"),
        Row(1, "process", "runtime", "process started"),
        Row(2, "call", "runtime", "GET invocation/next → 200", 3),
        Row(3, "event", "platform", "platform.initReport success"),
        Row(6, "call", "runtime", "GET invocation/next → client gone", 1),
        Row(8, "phase", "platform", "shutdown (spindown)"),
        Row(9, "process", "runtime", "process ended, -9"),
    ]


def test_short_names_of_calls() -> None:
    assert short("POST /2018-06-01/runtime/invocation/123/response") == "POST invocation/…/response"
    assert short("PUT /2022-07-01/telemetry") == "PUT telemetry"
    assert short("GET /elsewhere") == "GET /elsewhere"
