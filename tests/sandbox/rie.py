"""AWS's own emulator, run in the same kind of root as the sandbox's processes, with the same function and extensions."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from sandbox.config import Function
from sandbox.places import OwnRoot
from sandbox.processes import members, signal_all
from tests.e2e.harness.fetch import emulator

_PATH = "/2015-03-31/functions/function/invocations"
_START_S = 20.0


class Emulator:
    """Use it as a context manager. `folder` keeps /tmp."""

    def __init__(self, function: Function, folder: Path) -> None:
        self.function = function
        self._folder = folder
        self._output = folder / "emulator.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    def __enter__(self) -> Self:
        folder = self._folder
        folder.mkdir(parents=True, exist_ok=True)
        # Managed Instances mode runs extensions as another user; the folders above are pytest's, and closed to others.
        folder.chmod(0o755)
        self.place = OwnRoot(self.function, folder)
        api_port, self._port = _free_ports()
        command = [
            str(emulator()),
            "--log-level=info",
            f"--runtime-api-address=127.0.0.1:{api_port}",
            f"--runtime-interface-emulator-address=127.0.0.1:{self._port}",
        ]
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                self.place.command(command, [], "/var/task"),
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_S
        # A port cannot be waited for by select: asked again and again.
        while not _listens(self._port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__(None, None, None)
                raise RuntimeError(f"the emulator did not start:\n{self._output.read_text()}")
            time.sleep(0.01)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process is not None:
            # Each process that it starts leads a session, or a group, of its own; they are all descendants.
            signal_all(members([self._process.pid]), signal.SIGKILL)
            self._process.wait()
        self.place.close()

    def invoke(self, event: bytes) -> tuple[int, bytes]:
        """Status and body of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            connection.request("POST", _PATH, event)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def stop(self) -> None:
        """SIGTERM, and the orderly end that follows it."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"the emulator did not end:\n{self._output.read_text()}") from None

    def _environment(self) -> dict[str, str]:
        function = self.function
        environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LAMBDA_TASK_ROOT": "/var/task",
            "LAMBDA_RUNTIME_DIR": "/var/runtime",
            "AWS_REGION": function.region,
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "example",
            "AWS_LAMBDA_FUNCTION_NAME": function.name,
            "AWS_LAMBDA_FUNCTION_TIMEOUT": str(int(function.timeout_s)),
            "AWS_LAMBDA_FUNCTION_HANDLER": function.handler,
            **function.environment,
        }
        if function.managed:
            environment["AWS_LAMBDA_MAX_CONCURRENCY"] = str(function.concurrency)
            environment["AWS_LAMBDA_INITIALIZATION_TYPE"] = function.mode.value
        return environment


def _free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        return int(one.getsockname()[1]), int(two.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def can_run() -> bool:
    """Managed Instances mode starts processes as another user, which only root can; the root's making may be refused too."""
    return os.geteuid() == 0
