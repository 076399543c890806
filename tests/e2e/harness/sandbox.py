"""One execution environment: AWS's emulator as the first process of its own mount and process namespace, in a root of its own.

Nothing of it outlives it. Its first process is killed with the namespace's parent, which dies with this process (pdeathsig),
and mounts vanish with the namespace; only the folder the test gave (its /tmp and its logs) stays.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.e2e.harness.cgroups import kill_counter
from tests.e2e.harness.fetch import emulator
from tests.e2e.harness.namespaces import unshare_command
from tests.e2e.harness.processes import Process, descendants
from tests.e2e.harness.roots import BaseRoot

HERE = Path(__file__).parent
EMULATOR = "/var/emulator/aws-lambda-rie"
SIDECAR = "/opt/backstop/bin/python"
_INVOKE_PATH = "/2015-03-31/functions/function/invocations"
_START_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Function:
    """What a customer deploys: base root, code, bootstrap folder, and settings that AWS would turn into the environment."""

    root: BaseRoot
    task: Path
    runtime: Path | None = None
    layer: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout_s: int = 3
    # Set: Lambda Managed Instances with this many invocations at a time. None: one at a time, as ever.
    concurrency: int | None = None
    # A runtime started without a bootstrap file, as a container image's entry point.
    command: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What the caller of an invocation got back, and after how many seconds."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float


class SandboxFailed(RuntimeError):
    """The emulator did not start; the message ends with its output."""


class Sandbox:
    """Use it as a context manager. `folder` keeps /tmp and the logs, and may be given to a later environment to share them.

    `mounts` are enter.sh's words, such as `tmpfs:size=64k:/mnt/small` or `ro:/some/folder:/mnt/readonly`.
    `cgroup` is a memory cgroup's folder (see cgroups.py) that the whole environment runs in.
    """

    def __init__(
        self, function: Function, folder: Path, *, mounts: Sequence[str] = (), cgroup: Path | None = None
    ) -> None:
        self.function = function
        self.tmp = folder / "tmp"
        self._mounts = list(mounts)
        self._cgroup = cgroup
        self._output = folder / "output.log"
        self._outer: subprocess.Popen[bytes] | None = None
        self._inner = 0
        self._offset = 0
        self.port = 0
        self.runtime_port = 0
        folder.chmod(0o755)
        self.tmp.mkdir(parents=True, exist_ok=True)
        self.tmp.chmod(0o1777)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()

    # --- life -----------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Starts the emulator and waits until it takes invocations. Raises SandboxFailed, or EmulatorMissing."""
        for attempt in (1, 2, 3):
            self.runtime_port, self.port = _free_ports(2)
            self._offset = self._output.stat().st_size if self._output.exists() else 0
            with self._output.open("ab") as output:
                self._outer = subprocess.Popen(
                    self._command(),
                    env=self._environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            try:
                self._await_listening()
            except SandboxFailed as error:
                self.kill()
                # Between our choice of a port and its use, another process may have taken it.
                if attempt == 3 or "address already in use" not in str(error):
                    raise
            else:
                return self
        raise AssertionError("unreachable")

    def stop(self, timeout_s: float = 5.0) -> None:
        """Ends the environment as AWS does when it is no longer needed: SIGTERM, SHUTDOWN to the extensions, then the end."""
        if self._outer is None or not self._inner:
            return
        # On Managed Instances a crash ends the environment by itself.
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._inner, signal.SIGTERM)
        try:
            self._outer.wait(timeout_s)
        except subprocess.TimeoutExpired:
            pass
        self.kill()

    def kill(self) -> None:
        """Ends every process of the environment at once, as a machine that fails does."""
        if self._outer is None:
            return
        inner = self.processes()
        self._outer.kill()
        self._outer.wait()
        left = [process for process in inner if _alive(process)]
        _await(lambda: not any(map(_alive, left)), 5.0, lambda: f"processes outlived their namespace: {left}")
        self._outer, self._inner = None, 0

    # --- use ------------------------------------------------------------------------------------------------------

    def invoke(self, event: bytes, *, timeout_s: float = 30.0, headers: Mapping[str, str] | None = None) -> Answer:
        """One synchronous invocation with `event` as it is. Raises TimeoutError or ConnectionError, as sockets do.

        On Managed Instances the emulator refuses an event while no runtime waits for one; Lambda's front would hold it, so
        this does.
        """
        began = time.monotonic()
        while True:
            answer = self._invoke_once(event, timeout_s, headers or {}, began)
            if b"Runtime.Unavailable" not in answer.body or answer.seconds > timeout_s:
                return answer
            time.sleep(0.005)

    def _invoke_once(self, event: bytes, timeout_s: float, headers: Mapping[str, str], began: float) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            connection.request("POST", _INVOKE_PATH, body=event, headers=dict(headers))
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        return Answer(response.status, dict(response.getheaders()), body, time.monotonic() - began)

    def output(self) -> str:
        """Everything that the emulator, the function and the extensions of this life have written so far."""
        with self._output.open("rb") as file:
            file.seek(self._offset)
            return file.read().decode("utf-8", "replace")

    def wait_for(self, condition: Callable[[], bool], what: str, timeout_s: float = 10.0) -> None:
        """Waits until `condition` holds; raises SandboxFailed with `what` and the output so far."""
        _await(condition, timeout_s, lambda: f"{what} did not happen in {timeout_s} s\n{self.output()}")

    def wait_for_output(self, pattern: str, timeout_s: float = 10.0) -> re.Match[str]:
        """Waits for output that matches the regular expression."""
        self.wait_for(lambda: re.search(pattern, self.output()) is not None, f"output like {pattern!r}", timeout_s)
        match = re.search(pattern, self.output())
        assert match is not None
        return match

    def processes(self) -> list[Process]:
        """The emulator first, then every process it started."""
        return descendants(self._outer.pid) if self._outer is not None else []

    def sidecar(self) -> Process | None:
        """The sidecar's process, if it runs."""
        for process in self.processes():
            if process.command and process.command[0].endswith((SIDECAR, "/extensions/backstop")):
                return process
        return None

    def inside(self) -> Path:
        """The environment's `/` as its own first process sees it."""
        return Path(f"/proc/{self._inner}/root")

    # --- how ------------------------------------------------------------------------------------------------------

    def _command(self) -> list[str]:
        function = self.function
        # A mount would be refused where the folder is not there.
        mounts = [
            *function.root.mounts,
            f"ro:{emulator()}:{EMULATOR}",
            f"ro:{function.task}:/var/task",
            f"bind:{self.tmp}:/tmp",
        ]
        if function.runtime is not None:
            mounts.append(f"ro:{function.runtime}:/var/runtime")
        if function.layer is not None:
            mounts.append(f"ro:{function.layer}:/opt")
        if self._cgroup is not None:
            mounts.append(f"bind:{kill_counter(self._cgroup)}:/sys/fs/cgroup/memory.events")
        inner = [
            EMULATOR,
            "--log-level=info",
            f"--runtime-api-address=127.0.0.1:{self.runtime_port}",
            f"--runtime-interface-emulator-address=127.0.0.1:{self.port}",
            *function.command,
        ]
        cgroup = str(self._cgroup / "cgroup.procs") if self._cgroup is not None else ""
        # On Managed Instances a crash ends the emulator at once; Lambda would give the extensions their two seconds.
        grace = "0" if function.concurrency is None else "2"
        enter = [
            "sh",
            str(HERE / "enter.sh"),
            str(function.root.path),
            cgroup,
            grace,
            *mounts,
            *self._mounts,
            "--",
            *inner,
        ]
        # setpriv becomes unshare: when this process dies, so does unshare, and with it the namespace's first process.
        return [_tool("setpriv"), "--pdeathsig", "KILL", *unshare_command(), *enter]

    def _environment(self) -> dict[str, str]:
        """What AWS sets, then the function's own variables, and nothing of this process's environment."""
        function = self.function
        environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/opt/bin",
            "LANG": "en_US.UTF-8",
            "TZ": ":UTC",
            "LAMBDA_TASK_ROOT": "/var/task",
            "LAMBDA_RUNTIME_DIR": "/var/runtime",
            "AWS_REGION": "eu-central-1",
            "AWS_DEFAULT_REGION": "eu-central-1",
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            "AWS_SESSION_TOKEN": "example-session-token",
            "AWS_LAMBDA_FUNCTION_NAME": "orders",
            "AWS_LAMBDA_FUNCTION_TIMEOUT": str(function.timeout_s),
            "AWS_LAMBDA_FUNCTION_HANDLER": "index.handler",
        }
        if function.concurrency is not None:
            environment["AWS_LAMBDA_MAX_CONCURRENCY"] = str(function.concurrency)
            environment["AWS_LAMBDA_INITIALIZATION_TYPE"] = "lambda-managed-instances"
            environment["AWS_LAMBDA_LOG_FORMAT"] = "JSON"
        environment.update(function.environment)
        return environment

    def _await_listening(self) -> None:
        outer = self._outer
        assert outer is not None

        def listening() -> bool:
            if outer.poll() is not None:
                raise SandboxFailed(f"the emulator ended with {outer.returncode}:\n{self.output()}")
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        _await(listening, _START_TIMEOUT_S, lambda: f"the emulator does not listen:\n{self.output()}")
        emulators = [process for process in descendants(outer.pid) if process.command[:1] == (EMULATOR,)]
        if not emulators:
            raise SandboxFailed(f"the emulator ended:\n{self.output()}")
        self._inner = emulators[0].pid


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(listener.getsockname()[1]) for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports


def _alive(process: Process) -> bool:
    """Whether that very process still runs; a pid may have been given to another since."""
    try:
        stat = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        return stat[0] not in "ZX" and int(stat[1]) == process.parent
    except (FileNotFoundError, ProcessLookupError):
        return False


def _await(condition: Callable[[], bool], timeout_s: float, message: Callable[[], str]) -> None:
    """Asks again and again: neither a port, nor a line in a file, nor another process's end can be waited for by select."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise SandboxFailed(message())
        time.sleep(0.005)


def _tool(name: str) -> str:
    """Path of a system tool; on some systems /usr/sbin is not on an ordinary user's PATH."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        raise SandboxFailed(f"{name} is missing (Debian: apt-get install util-linux)")
    return found
