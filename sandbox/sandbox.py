"""The sandbox as tests and the command line use it: synchronous, with the environment on a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from sandbox import cgroups, places
from sandbox.config import Function, Limits
from sandbox.environment import Environment
from sandbox.invocation import Call, Invocation
from sandbox.journal import Entry, Journal

T = TypeVar("T")
_START_MARGIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a caller got. `seconds` from the call to the complete answer; `pieces` are (seconds after the call, bytes)."""

    payload: bytes
    error_type: str | None
    content_type: str
    trailers: dict[str, str]
    request_id: str
    seconds: float
    pieces: tuple[tuple[float, int], ...]


class Running:
    """An invocation under way."""

    def __init__(self, sandbox: Sandbox, invocation: Invocation, began: float) -> None:
        self._sandbox = sandbox
        self._invocation = invocation
        self._began = began

    @property
    def request_id(self) -> str:
        return self._invocation.request_id

    def answer(self, timeout_s: float = 60.0) -> Answer:
        """Waits for the complete answer. Raises TimeoutError."""
        result = self._invocation.result
        self._sandbox.wait(result.answered.wait(), timeout_s)
        assert result.answered_at is not None
        return Answer(
            bytes(result.payload),
            result.error_type,
            result.content_type,
            dict(result.trailers),
            self.request_id,
            result.answered_at - self._began,
            tuple((at - self._began, size) for at, size in result.pieces),
        )

    def parts(self) -> Iterator[bytes]:
        """The answer's pieces as they come."""
        stream = self._invocation.result.stream()
        while True:
            try:
                yield self._sandbox.wait(anext(stream), 900.0)
            except StopAsyncIteration:
                return


class Sandbox:
    """One execution environment. Use it as a context manager; `folder` keeps /tmp, and may be given to a later one.

    `limit_memory` and `limit_cpu` use control groups where this user may make them; memory is watched where not.
    `isolate` None makes a root of its own if this machine allows it; True insists; False never does. `base` is a prepared root.
    `wait_for_init` False returns from `start` while an initialization that is ahead of any invocation goes on.
    Leaving the block kills what is left; call `stop` before for an orderly end.
    """

    def __init__(
        self,
        function: Function,
        folder: Path,
        *,
        limits: Limits | None = None,
        base: Path | None = None,
        isolate: bool | None = None,
        limit_memory: bool = True,
        limit_cpu: bool = False,
        freezes: bool = True,
        wait_for_init: bool = True,
        listener: Callable[[Entry], None] | None = None,
    ) -> None:
        self.function = function
        self.journal = Journal(listener)
        self._folder = folder
        self._limits = limits or Limits()
        self._base = base
        self._isolate = isolate
        self._limit_memory = limit_memory
        self._limit_cpu = limit_cpu
        self._freezes = freezes
        self._wait_for_init = wait_for_init
        self._initialization: Future[None] | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sandbox", daemon=True)
        self._environment: Environment | None = None
        self._problems: list[str] = []
        self.place: places.Place | None = None
        # Whether the share of the CPU is limited: asked for, and allowed on this machine.
        self.limits_cpu = False

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
        if kind is None and self._problems:
            raise RuntimeError("the sandbox had faults of its own:\n" + "\n".join(self._problems))

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Make the place and listen; initialize now where the mode says so. Raises startup.InitFailed, NoNamespaces, OSError."""
        self._loop.set_exception_handler(self._note_problem)
        self._thread.start()
        try:
            self.place = self._make_place()
            groups = self._make_groups()
            self.limits_cpu = groups is not None and groups.cpu is not None
            self.wait(self._start(self.place, groups), _START_MARGIN_S)
            self._initialization = asyncio.run_coroutine_threadsafe(self.environment.initialize_ahead(), self._loop)
            if self._wait_for_init:
                self.initialized()
        except BaseException:
            self.close()
            raise
        return self

    async def _start(self, place: places.Place, groups: cgroups.Groups | None) -> None:
        self._environment = Environment(self.function, place, self._limits, self.journal, groups, freezes=self._freezes)
        await self._environment.listen()

    def initialized(self) -> None:
        """Waits for an initialization that is ahead of any invocation. Raises startup.InitFailed."""
        assert self._initialization is not None
        self._initialization.result(self._limits.init_limit_s(self.function) + _START_MARGIN_S)

    def stop(self, reason: str = "spindown", *, interrupt: bool = False) -> None:
        """An orderly end: SHUTDOWN with `reason`. With `interrupt` an invocation under way is ended too."""
        environment, self._environment = self.environment, None
        self.wait(environment.stop(reason, interrupt=interrupt), self.function.timeout_s + _START_MARGIN_S)

    def close(self) -> None:
        """Kill what is left, and end the thread."""
        if self._environment is not None:
            environment, self._environment = self._environment, None
            if self._initialization is not None:
                self._initialization.cancel()
            self.wait(environment.kill(), _START_MARGIN_S)
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        if not self._loop.is_closed():
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    @property
    def environment(self) -> Environment:
        """Raises RuntimeError where the sandbox is not running."""
        if self._environment is None:
            raise RuntimeError("the sandbox is not running")
        return self._environment

    # -- use -------------------------------------------------------------------------------------------------------

    def begin(self, event: bytes | Call) -> Running:
        """Start an invocation and go on."""
        call = event if isinstance(event, Call) else Call(event)
        environment = self.environment
        began = time.monotonic()

        async def begin() -> Invocation:
            return environment.begin(call)

        return Running(self, self.wait(begin(), 5.0), began)

    def invoke(self, event: bytes | Call, timeout_s: float = 60.0) -> Answer:
        """One invocation, until its answer is complete; what follows the answer is not waited for. Raises TimeoutError."""
        return self.begin(event).answer(timeout_s)

    def settle(self, timeout_s: float = 60.0) -> None:
        """Until every invocation, and what follows its answer, is over. Raises TimeoutError."""
        self.wait(self.environment.settle(), timeout_s)

    def platform_events(self, kind: str | None = None) -> list[tuple[str, Any]]:
        """Every platform event so far, as (type, record)."""
        found = [(one.what, one.detail["record"]) for one in self.journal.entries("telemetry", "platform")]
        return [(what, record) for what, record in found if kind in (None, what)]

    def log_lines(self, who: str = "runtime") -> list[str]:
        """What the runtime, or the extension of that name, has written."""
        return [one.what for one in self.journal.entries("log", who)]

    def wait(self, work: Coroutine[Any, Any, T] | Any, timeout_s: float) -> T:
        """Run on the sandbox's thread and wait for the result. Raises TimeoutError."""
        future = asyncio.run_coroutine_threadsafe(_await(work), self._loop)
        try:
            result: T = future.result(timeout_s)
        except TimeoutError:
            future.cancel()
            raise
        return result

    # -- inside ----------------------------------------------------------------------------------------------------

    def _make_place(self) -> places.Place:
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._isolate is False:
            return places.PlainFolders(self.function, self._folder)
        if self._isolate is True:
            return places.OwnRoot(self.function, self._folder, self._base)
        return places.choose(self.function, self._folder, self._base)

    def _make_groups(self) -> cgroups.Groups | None:
        memory = self.function.memory_mb if self._limit_memory else None
        share = cgroups.cpu_share(self.function.memory_mb) if self._limit_cpu else None
        if memory is None and share is None:
            return None
        return cgroups.make(cgroups.unique_name(), memory, share)

    def _note_problem(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        del loop
        problem = f"{context.get('message')}: {context.get('exception')!r}"
        self._problems.append(problem)
        self.journal.add("note", "sandbox", problem)


async def _await(work: Any) -> Any:
    return await work


@contextlib.contextmanager
def running(function: Function, folder: Path, **options: Any) -> Iterator[Sandbox]:
    """A sandbox for one block, with an orderly end where the block ends well."""
    with Sandbox(function, folder, **options) as sandbox:
        yield sandbox
        sandbox.stop()
