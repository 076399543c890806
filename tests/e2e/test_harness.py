"""The harness itself: what it shows is only worth something if it isolates, cleans up, and finds what it looks for."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.e2e.demo.story import scenes
from tests.e2e.harness import namespaces, roots, sandbox
from tests.e2e.harness.functions import attached, bash_function, node_function
from tests.e2e.harness.roots import python_files
from tests.e2e.harness.sandbox import Sandbox, SandboxFailed
from tests.e2e.harness.sqs import Arrived, Moto, Queue

SUCCEEDS, THROWS, *_ = (scene.event for scene in scenes())


@pytest.mark.parametrize(
    "name",
    [
        "usr/bin/python3",
        "opt/python3.11",
        "var/task/pypy3",
        "usr/lib/libpython3.13.so.1.0",
        "lib/libpython3.so",
        "bin/python",
    ],
)
def test_a_python_in_the_root_is_found(tmp_path: Path, name: str) -> None:
    for ordinary in ("usr/bin/node", "opt/backstop/bin/python", "usr/share/python-notes.txt", "proc/1/exe/python"):
        (tmp_path / ordinary).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / ordinary).touch()
    assert python_files(tmp_path) == []

    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).symlink_to("/somewhere/else")
    assert python_files(tmp_path) == [f"/{name}"]


def test_a_folder_that_cannot_be_looked_into_is_no_proof(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        python_files(tmp_path / "nowhere")


def test_an_environment_leaves_no_process_and_no_mount_behind(folder: Path) -> None:
    mounts = Path("/proc/self/mountinfo").read_text()
    processes = []

    def fail() -> None:
        with Sandbox(node_function(None, {}), folder) as environment:
            environment.invoke(SUCCEEDS)
            processes.extend(environment.processes())
            raise RuntimeError("a test that fails")

    with pytest.raises(RuntimeError, match="a test that fails"):
        fail()

    assert len(processes) == 2, "the emulator and Node.js"
    assert not any(_runs(process.pid, process.command) for process in processes)
    assert Path("/proc/self/mountinfo").read_text() == mounts


def test_an_environment_sees_its_own_processes_only(folder: Path) -> None:
    with Sandbox(bash_function(None, {}), folder) as environment:
        environment.invoke(b"{}")
        seen = {path.name for path in (environment.inside() / "proc").iterdir() if path.name.isdigit()}

        assert str(os.getpid()) not in seen
        assert "1" in seen


@pytest.mark.skipif(
    namespaces.refused(namespaces.AS_USER) is not None, reason="no user namespaces here (in a chroot there are none)"
)
def test_it_runs_in_a_user_namespace_too(
    layer: Path, moto: Moto, queue: Queue, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does for a user who is not root."""
    monkeypatch.setattr(sandbox, "unshare_command", lambda: namespaces.AS_USER)
    with Sandbox(node_function(layer, attached(queue.url, moto.url)), folder) as environment:
        assert b"PaymentDeclined" in environment.invoke(THROWS).body
        assert python_files(environment.inside()) == []
        (record,) = queue.wait_for(1)

        assert record.has_event(THROWS)


def test_where_node_does_not_run_from_a_copy_the_machines_folders_serve(
    layer: Path, moto: Moto, queue: Queue, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = roots._run

    def without_node(root: roots.BaseRoot, command: list[str]) -> subprocess.CompletedProcess[str]:
        return run(root, ["/bin/sh", "-c", "exit 1"] if command[0] == roots.NODE else command)

    monkeypatch.setattr(roots, "_run", without_node)
    roots.node_root.cache_clear()
    try:
        function = node_function(layer, attached(queue.url, moto.url))
    finally:
        roots.node_root.cache_clear()

    assert not function.root.own
    with Sandbox(function, folder) as environment:
        assert b"PaymentDeclined" in environment.invoke(THROWS).body
        (record,) = queue.wait_for(1)

        assert record.has_event(THROWS)


def test_an_emulator_that_cannot_start_says_why(folder: Path) -> None:
    function = node_function(None, {})
    with pytest.raises(SandboxFailed, match="nowhere"):
        Sandbox(function, folder, mounts=["bind:/nowhere:/mnt/small"]).start()


def test_a_payload_is_read_from_the_text_not_from_what_it_means() -> None:
    text = '{"a": {"requestPayload": 0}, "requestPayload" : \t{"x": 1.00, "x": 2}\n, "backstop": {}}'
    record = Arrived(json.loads(text), text, {}, None)

    assert record.payload() == b' \t{"x": 1.00, "x": 2}\n'
    assert record.has_event(record.payload() or b"") is False, "its size and hash are missing"


def _runs(pid: int, command: tuple[str, ...]) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0") == "\0".join(command).encode()
    except FileNotFoundError:
        return False
