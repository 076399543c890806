"""The life of the sidecar: listen, register, subscribe, then event after event until SHUTDOWN."""

from __future__ import annotations

import _thread
import os
import select
import time

from extension import __version__, net, say
from extension.inflight import Table
from extension.lambda_api import ApiError, LambdaApi
from extension.lifeline import Lifeline
from extension.proxy import Proxy
from extension.settings import IDENTIFIER, LAUNCHED, Settings
from extension.telemetry.listener import Listener, sandbox_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from extension.clerk import Clerk
    from extension.inflight import Invocation
    from extension.net import Socket
    from extension.outcome import Outcome

    T = TypeVar("T")

NAME = "backstop"
_LOOPBACK = "127.0.0.1"
_OBSERVE_S = 0.5  # INVOKE and the runtime's event are sent together
_PROVISIONAL_S = 0.3  # before the deadline
_RESERVE_S = 0.2  # before the deadline, no longer used for sending
_SHUTDOWN_S = 1.2
_SETTLE_S = 0.2
_LONGEST_HOLD_S = 900.0
_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0
_NO_TIME_MS = 10**15


class Sidecar:
    """All parts, and the life they share. Each part that fails to start turns itself off and says so; the rest goes on."""

    def __init__(self, settings: Settings, environ: dict[str, str], api: LambdaApi) -> None:
        self._settings = settings
        self._environ = environ
        self._api = api
        self._table = Table(
            settings.memory_bytes,
            settings.log_tail_lines,
            keep_payloads=settings.capture == "payload",
            concurrent=settings.managed_instances,
        )
        self._table.on_failure = self._failed
        self._table.on_recovery = self._recovered
        self._lifeline = Lifeline(settings.state_dir, self._table.runtime_exited)
        self._lock = _thread.allocate_lock()
        self._made: Clerk | None = None
        self._telemetry_on = False
        self._proxy_address: str | None = None

    # -- the life ------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Live until SHUTDOWN."""
        if self._settings.capture != "off":
            _part("proxy", self._start_proxy)
        telemetry = _part("telemetry", self._listen_for_telemetry)
        self._register()
        if telemetry is not None:
            _part("telemetry", lambda: self._subscribe(*telemetry))
        _part("ready line", self._say_ready)
        if self._table.concurrent:
            _part("spool", self._send_leftovers)
        while True:
            event = self._next()
            kind = event.get("eventType")
            try:
                if kind == "INVOKE":
                    self._invoke(event)
                elif kind == "SHUTDOWN":
                    self._shutdown(event)
            except Exception as error:
                say.fault(f"event {kind}", error)
            if kind == "SHUTDOWN":
                return

    def _invoke(self, event: dict[str, Any]) -> None:
        """Hold until the invocation has ended, and a handled error's record is on the queue or its budget is used up."""
        invocation = self._table.expect(
            str(event.get("requestId")), _deadline(event), str(event.get("invokedFunctionArn") or "")
        )
        self._send_leftovers()
        if not self._table.runtime_ready or not invocation.observed.wait(_OBSERVE_S):
            return  # the runtime does not use the proxy: nothing tells when this ends, so nothing is held
        if not invocation.released.wait(_seconds_to(invocation) - _PROVISIONAL_S):
            self._clerk().provisional(invocation)
            invocation.released.wait(_seconds_to(invocation))
        ended = invocation.outcome
        if ended is None:
            if not invocation.provisional and not invocation.overtaken:
                self._clerk().provisional(invocation)
        elif ended.failed and self._made is not None:
            until = time.monotonic() + min(self._settings.ship_budget_ms / 1000, _seconds_to(invocation) - _RESERVE_S)
            if ended.kills_environment:
                invocation.spooled.wait(until - time.monotonic())  # Lambda's 2 s for us already run
            elif invocation.filed.wait(until - time.monotonic()):
                self._made.delivery.wait_idle(max(0.0, until - time.monotonic()))

    def _shutdown(self, event: dict[str, Any]) -> None:
        """Send what is left, and print the last-resort lines of what could not be sent, well before Lambda kills us."""
        deadline_ms = _deadline(event)
        left_s = deadline_ms / 1000 - time.time() - _RESERVE_S if deadline_ms else _SHUTDOWN_S
        until = time.monotonic() + min(_SHUTDOWN_S, left_s)
        self._lifeline.settle(_SETTLE_S)
        if self._settings.capture == "off":
            return
        self._table.shutdown(str(event.get("shutdownReason") or ""))
        for failure in self._table.unwritten():  # another thread may be at it, or about to be
            failure.spooled.wait(until - time.monotonic())
        if self._made is not None or self._has_leftovers():
            self._clerk().close(until)

    # -- the start -----------------------------------------------------------------------------------------------

    def _start_proxy(self) -> None:
        upstream = self._settings.proxy_upstream or self._settings.runtime_api
        if upstream is None:
            raise OSError("AWS_LAMBDA_RUNTIME_API is not set")
        listener, port = _listen("proxy", _LOOPBACK, self._settings.proxy_port)
        looks = self._settings.capture_partial_batch or self._settings.capture_http_5xx
        proxy = Proxy(
            listener,
            upstream,
            self._table,
            self._lifeline.begin,
            lambda: self._lifeline.watching,
            self._judge if looks else None,
        )
        _thread.start_new_thread(proxy.serve, ())
        address = f"{_LOOPBACK}:{port}"
        _publish(self._settings.state_dir, address)
        self._proxy_address = address

    def _listen_for_telemetry(self) -> tuple[Socket, int]:
        return _listen("telemetry", sandbox_address(), self._settings.telemetry_port)

    def _register(self) -> None:
        """Register, however long it takes: until then Lambda's initialization waits."""
        pause_s = _PAUSE_S
        while True:
            try:
                return self._register_once()
            except (ApiError, OSError, ValueError) as error:
                if isinstance(error, ApiError) and error.status < 500:
                    raise
                say.fault("register", error)
                pause_s = _pause(pause_s)

    def _register_once(self) -> None:
        events: tuple[str, ...] = ("SHUTDOWN",) if self._settings.managed_instances else ("INVOKE", "SHUTDOWN")
        try:
            self._api.register(events)
        except ApiError as error:
            if error.status != 403 or len(events) == 1:
                raise
            self._api.register(("SHUTDOWN",))  # Managed Instances, not named as such
            self._table.concurrent = True
        self._settings.account_id = self._api.account_id
        os.environ[IDENTIFIER] = self._api.identifier

    def _subscribe(self, listener: Socket, port: int) -> None:
        from extension.telemetry.attribution import Attribution

        try:
            self._telemetry_on = self._api.subscribe(port) is not None
        finally:
            if not self._telemetry_on:
                listener.close()
        if not self._telemetry_on:
            return
        attribution = Attribution(self._table, self._logs_arrived, concurrent=self._table.concurrent)
        _thread.start_new_thread(Listener(listener, attribution.take).serve, ())

    def _say_ready(self) -> None:
        launched = self._environ.get(LAUNCHED, "")
        fields: dict[str, object] = {
            "version": __version__,
            "proxy": self._proxy_address,
            "telemetry": self._telemetry_on,
            "queue": self._settings.queue_url is not None,
            "events": list(self._api.registered_events),
        }
        if launched.isdigit():
            fields["start_ms"] = round((time.monotonic_ns() - int(launched)) / 1e6, 1)
        say.info("ready", **fields)

    def _next(self) -> dict[str, Any]:
        """Wait for the next event. Lambda's own faults are outlived: an extension that ends is a crash."""
        pause_s = _PAUSE_S
        while True:
            try:
                return self._api.next_event()
            except (ApiError, OSError, ValueError) as error:
                say.fault("event/next", error)
                pause_s = _pause(pause_s)

    # -- failures: these parts are made when the first one comes, a function that never fails never pays for them ---

    def _clerk(self) -> Clerk:
        with self._lock:
            if self._made is None:
                from extension.clerk import open_clerk

                self._made = open_clerk(self._settings, self._environ)
                self._made.telemetry_on = self._telemetry_on
            return self._made

    def _failed(self, invocation: Invocation) -> None:
        if self._settings.capture != "off":
            self._clerk().report(invocation)

    def _judge(self, request_id: str, answer: bytes) -> Outcome | None:
        from extension import soft_failures

        return soft_failures.judge(
            self._table.event_of(request_id),
            answer,
            batches=self._settings.capture_partial_batch,
            http=self._settings.capture_http_5xx,
        )

    def _recovered(self, invocation: Invocation) -> None:
        self._clerk().recovered(invocation)

    def _logs_arrived(self) -> None:
        if self._made is not None:
            self._made.logs_arrived()

    def _has_leftovers(self) -> bool:
        try:
            return bool(os.listdir(f"{self._settings.state_dir}/spool"))
        except OSError:
            return False

    def _send_leftovers(self) -> None:
        """Send what an earlier life, or an invocation whose queue was out of reach, left in the spool: beside the function."""
        if self._made is not None:
            self._made.resume()
        elif self._has_leftovers():
            _thread.start_new_thread(lambda: _part("spool", lambda: self._clerk().resume()), ())


def _part(what: str, step: Callable[[], T]) -> T | None:
    """Run one step; a fault in it is said, and never ends the sidecar."""
    try:
        return step()
    except Exception as error:
        say.fault(what, error)
        return None


def _pause(seconds: float) -> float:
    """Wait; returns how long to wait the next time."""
    select.poll().poll(seconds * 1000)
    return min(seconds * 2, _LONGEST_PAUSE_S)


def _deadline(event: dict[str, Any]) -> int:
    """Return an event's deadline in ms, or 0 where it has none that can be read."""
    deadline_ms = event.get("deadlineMs")
    return deadline_ms if isinstance(deadline_ms, int) and 0 < deadline_ms < _NO_TIME_MS else 0


def _seconds_to(invocation: Invocation) -> float:
    """Seconds to the invocation's deadline."""
    if not invocation.deadline_ms:
        return _LONGEST_HOLD_S
    return min(_LONGEST_HOLD_S, invocation.deadline_ms / 1000 - time.time())


def _listen(what: str, host: str, port: int) -> tuple[Socket, int]:
    try:
        return net.listen(host, port)
    except OSError as error:
        if not port:
            raise
        listener, free = net.listen(host, 0)
        say.warn_once(what, f"port {port} cannot be used ({error.strerror}); {free} is used instead")
        return listener, free


def _publish(state_dir: str, address: str) -> None:
    """Tell the wrapper where the proxy is: a file that is there whole or not at all."""
    os.makedirs(state_dir, exist_ok=True)
    try:
        os.chmod(state_dir, 0o1777)  # the runtime may be another user
    except OSError:
        pass
    temporary = f"{state_dir}/proxy.{os.getpid()}"
    with open(temporary, "w", encoding="ascii") as file:
        file.write(address + "\n")
    os.rename(temporary, f"{state_dir}/proxy")


def _say_problems(settings: Settings) -> None:
    for problem in settings.problems:
        say.warn_once(problem.name, problem.why)
    for name in settings.unknown:
        say.warn_once(name, "no such setting in this version; it is ignored")
    told = any(problem.name == "BACKSTOP_QUEUE_URL" for problem in settings.problems)
    if settings.queue_url is None and settings.capture != "off" and not told:
        say.warn_once("BACKSTOP_QUEUE_URL", "not set: failures end as last-resort lines in the log")


def _lambda_address(environ: dict[str, str]) -> tuple[str, int]:
    try:
        return net.split_address(environ.get("AWS_LAMBDA_RUNTIME_API", ""))
    except ValueError:
        return _LOOPBACK, 9001


def _idle(api: LambdaApi) -> None:
    """Do nothing, in the way that Lambda expects of an extension. Never returns before SHUTDOWN."""
    while True:
        try:
            if not api.identifier:
                api.register(())
            if api.next_event().get("eventType") == "SHUTDOWN":
                return
        except Exception:
            select.poll().poll(1000)


def main() -> None:
    """Run the sidecar, whatever happens; the process ends only after SHUTDOWN."""
    environ = dict(os.environ)
    api = LambdaApi(_lambda_address(environ), NAME)
    try:
        settings = Settings(environ)
        say.set_level(settings.log_level)
        _part("settings", lambda: _say_problems(settings))
        if settings.disable:
            _idle(api)
        else:
            Sidecar(settings, environ, api).run()
    except BaseException as error:  # the last guard: an idle extension does no harm, a dead one is Extension.Crash
        say.fault("sidecar", error)
        _idle(api)
    os._exit(0)


if __name__ == "__main__":
    main()
