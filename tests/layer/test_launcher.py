"""extensions/backstop: it clears the last life's files and becomes the sidecar, or, where there is none, an idle extension."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.layer.servers import PATIENCE_S, ExtensionsApi

REGISTER = "POST /2020-01-01/extension/register"
NEXT = "GET /2020-01-01/extension/event/next"
# Stands for the interpreter: says how it was started.
SPY = '#!/bin/sh\necho "$0|$#|$$|$BACKSTOP_EXTENSION_ID|$KEPT"\n'


@pytest.fixture
def root(layer: Path, tmp_path: Path) -> Path:
    """A root with the launcher alone."""
    (tmp_path / "other root" / "extensions").mkdir(parents=True)
    shutil.copy(layer / "extensions/backstop", tmp_path / "other root/extensions/backstop")
    return tmp_path / "other root"


def interpreter(root: Path, content: str, mode: int = 0o755) -> Path:
    path = root / "backstop/bin/python"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    path.chmod(mode)
    return path


def environment(state: Path, api: str = "127.0.0.1:1", **more: str) -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "AWS_LAMBDA_RUNTIME_API": api, "BACKSTOP_STATE_DIR": str(state), **more}


@pytest.fixture
def api() -> Iterator[ExtensionsApi]:
    with ExtensionsApi() as server:
        yield server


def start(root: Path, env: dict[str, str], *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [root / "extensions/backstop", *arguments], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def ended(process: subprocess.Popen[bytes]) -> tuple[int, list[dict[str, object]]]:
    """The exit code and the JSON lines on stdout; nothing may be on stderr."""
    out, err = process.communicate(timeout=PATIENCE_S)
    assert err == b""
    return process.returncode, [json.loads(line) for line in out.splitlines()]


# --- becoming the sidecar -------------------------------------------------------------------------------------------------


def test_it_becomes_the_interpreter_beside_it_wherever_the_layer_lies(root: Path, state: Path) -> None:
    path = interpreter(root, SPY)
    process = start(root, environment(state, KEPT="kept"))
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (out.decode(), err) == (f"{path}|0|{process.pid}||kept\n", b"")


def test_it_is_found_through_a_link_and_by_a_relative_name(root: Path, state: Path, tmp_path: Path) -> None:
    path = interpreter(root, SPY)
    (tmp_path / "link").symlink_to(root / "extensions/backstop")
    done = subprocess.run(
        ["./link"], cwd=tmp_path, env=environment(state), capture_output=True, check=True, timeout=PATIENCE_S
    )
    assert done.stdout.decode().startswith(f"{path}|")


def test_the_identifier_of_another_life_is_not_passed_on(root: Path, state: Path) -> None:
    interpreter(root, SPY)
    out, _ = start(root, environment(state, BACKSTOP_EXTENSION_ID="old")).communicate(timeout=PATIENCE_S)
    assert out.decode().split("|")[3] == ""


def test_it_notes_when_it_was_started(root: Path, state: Path) -> None:
    interpreter(root, '#!/bin/sh\necho "$BACKSTOP_LAUNCHED_NS"\n')
    before = time.monotonic_ns()
    out, _ = start(root, environment(state)).communicate(timeout=PATIENCE_S)
    assert before <= int(out) <= time.monotonic_ns()


# --- the last life's files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("python", ["runs", "is missing"])
def test_it_deletes_what_the_last_life_left_and_nothing_else(
    root: Path, state: Path, api: ExtensionsApi, python: str
) -> None:
    if python == "runs":
        interpreter(root, SPY)
    for name in ("proxy", "runtime.pid", "other"):
        (state / name).write_text("old")
    (state / "spool").mkdir()
    (state / "spool/record").write_text("to be kept")
    process = start(root, environment(state, api.address))
    if python == "is missing":
        api.request()
        api.answer_registered("i")
        api.answer_event("SHUTDOWN")
    process.communicate(timeout=PATIENCE_S)
    assert sorted(file.name for file in state.rglob("*")) == ["other", "record", "spool"]


def test_a_state_folder_that_is_not_there_is_no_trouble(root: Path, tmp_path: Path) -> None:
    interpreter(root, SPY)
    process = start(root, environment(tmp_path / "missing"))
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0


# --- the idle extension ---------------------------------------------------------------------------------------------------


def test_without_an_interpreter_it_is_an_idle_extension_until_shutdown(
    root: Path, state: Path, api: ExtensionsApi
) -> None:
    process = start(root, environment(state, api.address))
    first, headers, body = api.request()
    assert (first, json.loads(body)) == (REGISTER, {"events": ["SHUTDOWN"]})
    assert headers["lambda-extension-name"] == "backstop"
    assert headers["host"] == api.address
    api.answer_registered("an-identifier")
    for kind in ("INVOKE", "INVOKE", "SHUTDOWN"):
        first, headers, _ = api.request()
        assert (first, headers["lambda-extension-identifier"]) == (NEXT, "an-identifier")
        assert process.poll() is None
        api.answer_event(kind, chunked=kind == "SHUTDOWN")
    code, lines = ended(process)
    assert code == 0
    assert lines == [
        {
            "backstop": "warning",
            "what": "interpreter cannot be executed; idle",
            "why": f"{root}/backstop/bin/python: No such file or directory",
        }
    ]


@pytest.mark.parametrize(
    ("content", "mode"), [("#!/no/such/loader\n", 0o755), ("\x7fELF but no more", 0o755), (SPY, 0o644)]
)
def test_an_interpreter_that_cannot_be_executed_here_is_as_good_as_none(
    root: Path, state: Path, api: ExtensionsApi, content: str, mode: int
) -> None:
    interpreter(root, content, mode)
    process = start(root, environment(state, api.address))
    assert api.request()[0] == REGISTER
    api.answer_registered("i")
    assert api.request()[0] == NEXT
    api.answer_event("SHUTDOWN")
    code, lines = ended(process)
    assert (code, len(lines)) == (0, 1)


def test_the_warning_is_json_whatever_the_roots_name(
    layer: Path, state: Path, tmp_path: Path, api: ExtensionsApi
) -> None:
    root = tmp_path / 'a "b\\c\n\x01ü'
    (root / "extensions").mkdir(parents=True)
    shutil.copy(layer / "extensions/backstop", root / "extensions/backstop")
    process = start(root, environment(state, api.address))
    api.request()
    api.answer_registered("i")
    api.answer_event("SHUTDOWN")
    _, lines = ended(process)
    assert lines[0]["why"] == f"{root}/backstop/bin/python: No such file or directory"


@pytest.mark.parametrize("value", ["1", "true", "ON"])
def test_disabled_it_is_idle_and_python_is_not_started(root: Path, state: Path, api: ExtensionsApi, value: str) -> None:
    interpreter(root, SPY)
    process = start(root, environment(state, api.address, BACKSTOP_DISABLE=value))
    assert api.request()[0] == REGISTER
    api.answer_registered("i")
    api.request()
    api.answer_event("SHUTDOWN")
    assert ended(process) == (0, [])


def test_it_goes_on_under_the_identifier_that_a_fallen_sidecar_left(
    root: Path, state: Path, api: ExtensionsApi
) -> None:
    env = environment(state, api.address, BACKSTOP_EXTENSION_ID="the-sidecars")
    process = start(root, env, "--idle", 'it "fell"')
    first, headers, _ = api.request()
    assert (first, headers["lambda-extension-identifier"]) == (NEXT, "the-sidecars")
    api.answer_event("SHUTDOWN")
    assert ended(process) == (0, [{"backstop": "warning", "what": "sidecar", "why": 'it "fell"'}])


def test_it_outlives_an_api_that_refuses_or_is_not_there_yet(root: Path, state: Path, api: ExtensionsApi) -> None:
    process = start(root, environment(state, api.address))
    for status in (403, 400):
        assert api.request()[0] == REGISTER
        api.answer(status)
    assert api.request()[0] == REGISTER
    api.answer_registered("i")
    assert api.request()[0] == NEXT
    api.answer(403)
    assert api.request()[0] == NEXT
    api.answer_event("SHUTDOWN")
    assert ended(process)[0] == 0


def test_it_leaves_at_once_when_the_environment_is_past_use(root: Path, state: Path, api: ExtensionsApi) -> None:
    process = start(root, environment(state, api.address))
    api.request()
    api.answer_registered("i")
    api.request()
    api.answer(500)
    assert ended(process)[0] == 1


def test_a_word_in_an_event_is_not_taken_for_shutdown(root: Path, state: Path, api: ExtensionsApi) -> None:
    process = start(root, environment(state, api.address))
    api.request()
    api.answer_registered("i")
    for event in (
        {"eventType": "INVOKE", "requestId": "SHUTDOWN"},
        {"note": '"eventType":"SHUTDOWN"', "eventType": "INVOKE"},
    ):
        assert api.request()[0] == NEXT
        api.answer(200, json.dumps(event).encode())
    assert api.request()[0] == NEXT
    assert process.poll() is None
    api.answer(200, b'{ "eventType" : "SHUTDOWN" }')
    assert ended(process)[0] == 0


def test_it_uses_next_to_no_memory(root: Path, state: Path, api: ExtensionsApi) -> None:
    process = start(root, environment(state, api.address))
    api.request()
    api.answer_registered("i")
    api.request()
    status = Path(f"/proc/{process.pid}/status").read_text()
    resident_kb = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))
    api.answer_event("SHUTDOWN")
    process.communicate(timeout=PATIENCE_S)
    assert resident_kb < 1024


def test_launcher_and_wrapper_run_in_an_image_that_holds_nothing_else(layer: Path, state: Path) -> None:
    """Static, so that a distroless image or one with only a Go program can run them."""
    for name in ("extensions/backstop", "backstop-wrapper"):
        data = (layer / name).read_bytes()
        assert b"/lib/ld-" not in data
        assert os.access(layer / name, os.X_OK)
