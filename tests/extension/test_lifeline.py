"""The runtime's end is known at once, from its own process; and no state file, however broken, does harm."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from extension import say
from extension.lifeline import PID_FILE, Lifeline

NAMESPACE = os.readlink("/proc/self/ns/pid")
WAIT_S = 10.0


class Watched:
    """A lifeline on a folder of the test, and how often it told of an end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told = threading.Semaphore(0)
        self.lifeline = Lifeline(str(folder), self.told.release)

    def begin(self, content: str | bytes) -> None:
        raw = content if isinstance(content, bytes) else content.encode()
        (self.folder / PID_FILE).write_bytes(raw)
        self.lifeline.begin()

    def told_once(self) -> bool:
        return self.told.acquire(timeout=WAIT_S) and not self.told.acquire(timeout=0.05)


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    say.forget()
    return Watched(tmp_path)


@pytest.fixture
def runtime() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        if process.stdin is not None:
            process.stdin.close()
        process.wait(WAIT_S)


@pytest.mark.parametrize("how", ["returns", "is killed", "is ended"])
def test_the_end_of_the_process_is_told_once(how: str, watched: Watched, runtime: subprocess.Popen[bytes]) -> None:
    watched.begin(f"{runtime.pid} {NAMESPACE}\n")
    assert watched.lifeline.watching
    assert not watched.told.acquire(timeout=0.05)
    if how == "returns":
        assert runtime.stdin is not None
        runtime.stdin.close()
    else:
        runtime.send_signal(signal.SIGKILL if how == "is killed" else signal.SIGTERM)
    assert watched.told_once()  # though nobody has reaped it yet


def test_a_process_that_is_not_our_child_is_watched(watched: Watched) -> None:
    """The runtime is Lambda's child, as we are."""
    reader, writer = os.pipe()
    child = subprocess.Popen(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"import os, sys\nif os.fork() == 0:\n    os.write({writer}, str(os.getpid()).encode()); os.read(0, 1)\nos._exit(0)",
        ],
        stdin=subprocess.PIPE,
        pass_fds=[writer],
    )
    os.close(writer)
    pid = int(os.read(reader, 20))
    assert child.wait(WAIT_S) == 0
    watched.begin(f"{pid} {NAMESPACE}\n")
    assert watched.lifeline.watching
    assert child.stdin is not None
    child.stdin.close()
    os.close(reader)
    assert watched.told_once()


def test_asking_again_watches_once(watched: Watched, runtime: subprocess.Popen[bytes]) -> None:
    threads = [threading.Thread(target=watched.begin, args=(f"{runtime.pid} {NAMESPACE}\n",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    watched.lifeline.begin()
    runtime.kill()
    assert watched.told_once()


def test_a_runtime_that_is_gone_already_has_ended(watched: Watched) -> None:
    """It died between its wrapper's ping and our look."""
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", ""]) as process:
        process.wait(WAIT_S)
    watched.begin(f"{process.pid} {NAMESPACE}\n")
    assert watched.told_once()


def test_an_end_that_is_still_being_told_is_waited_for(tmp_path: Path, runtime: subprocess.Popen[bytes]) -> None:
    """SHUTDOWN comes a moment after the process ended: what the end means must be known before the sidecar leaves."""
    told = threading.Event()
    begun = threading.Event()

    def slow() -> None:
        begun.set()
        release.wait(WAIT_S)
        told.set()

    release = threading.Event()
    (tmp_path / PID_FILE).write_text(f"{runtime.pid} {NAMESPACE}\n")
    lifeline = Lifeline(str(tmp_path), slow)
    lifeline.begin()
    runtime.kill()
    assert begun.wait(WAIT_S)
    lifeline.settle(0.0)
    assert not told.is_set()
    threading.Timer(0.05, release.set).start()
    lifeline.settle(WAIT_S)
    assert told.is_set()


@pytest.mark.timeout(10)
def test_a_process_that_lives_is_not_waited_for(watched: Watched, runtime: subprocess.Popen[bytes]) -> None:
    watched.lifeline.settle(WAIT_S * 100)  # nobody is watched yet
    watched.begin(f"{runtime.pid} {NAMESPACE}\n")
    watched.lifeline.settle(WAIT_S * 100)
    runtime.kill()
    assert watched.told_once()
    watched.lifeline.settle(WAIT_S * 100)


def test_a_number_from_another_pid_namespace_means_nobody_here(
    watched: Watched, runtime: subprocess.Popen[bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    watched.begin(f"{runtime.pid} pid:[1]\n")
    assert not watched.lifeline.watching
    runtime.kill()
    assert not watched.told.acquire(timeout=0.05)
    assert capfd.readouterr().out == ""  # nothing is wrong


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"123\n",
        f"x {NAMESPACE}\n".encode(),
        f"-1 {NAMESPACE}\n".encode(),
        f"0 {NAMESPACE}\n".encode(),
        f"{10**30} {NAMESPACE}\n".encode(),
        f"{'9' * 200} {NAMESPACE}\n".encode(),
        f"1.5 {NAMESPACE}\n".encode(),
        b"\xff\xfe\n",
        b"\x00" * 1_000,
        b"1 " + b"x" * 100_000,
    ],
)
def test_a_broken_file_is_borne(content: bytes, watched: Watched, capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        watched.begin(content)
        assert not watched.lifeline.watching
    said = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert len(said) <= 1
    assert not watched.told.acquire(timeout=0.01)


@pytest.mark.parametrize("place", ["missing", "a folder"])
def test_no_file_is_borne(place: str, watched: Watched) -> None:
    if place == "a folder":
        (watched.folder / PID_FILE).mkdir()
    watched.lifeline.begin()
    assert not watched.lifeline.watching


def test_after_a_failed_look_the_next_one_may_succeed(watched: Watched, runtime: subprocess.Popen[bytes]) -> None:
    watched.lifeline.begin()
    watched.begin(f"{runtime.pid} {NAMESPACE}\n")
    assert watched.lifeline.watching
    runtime.kill()
    assert watched.told_once()


def test_a_fault_in_what_follows_is_said(
    tmp_path: Path, runtime: subprocess.Popen[bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    called = threading.Event()

    def broken() -> None:
        called.set()
        raise RuntimeError("a bug of ours")

    say.forget()
    (tmp_path / PID_FILE).write_text(f"{runtime.pid} {NAMESPACE}\n")
    Lifeline(str(tmp_path), broken).begin()
    runtime.kill()
    assert called.wait(WAIT_S)
    said = ""
    for _ in range(1_000):
        said += capfd.readouterr().out
        if "a bug of ours" in said:
            return
        threading.Event().wait(0.005)
    raise AssertionError(said)


def test_no_descriptor_is_left_open(watched: Watched, runtime: subprocess.Popen[bytes]) -> None:
    before = set(os.listdir("/proc/self/fd"))
    watched.begin(f"{runtime.pid} {NAMESPACE}\n")
    runtime.kill()
    assert watched.told_once()
    assert set(os.listdir("/proc/self/fd")) <= before
