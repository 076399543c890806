"""The initialization: extensions, then the runtime, then everybody's first /next; and its three events."""

from __future__ import annotations

import time

from sandbox import events, variables
from sandbox.config import Function, Limits, Mode
from sandbox.host import RUNTIME, Host
from sandbox.life import Failed, Fault, Life, TimedOut
from sandbox.states import ExtensionCall, RuntimeCall, RuntimeState

# "Building a custom runtime for AWS Lambda": the runtime's own first, then the function's package, then layers.
BOOTSTRAPS = ("/var/runtime/bootstrap", "/var/task/bootstrap", "/opt/bootstrap")


class InitFailed(Exception):
    """The initialization failed; `fault` says how."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


class Startup:
    """How one life of `function` begins. `api` is AWS_LAMBDA_RUNTIME_API, `instance_id` the environment's own."""

    def __init__(
        self, function: Function, limits: Limits, host: Host, api: str, instance_id: str, credentials_token: str
    ) -> None:
        self._function = function
        self._limits = limits
        self._host = host
        self._instance_id = instance_id
        stream = f"{time.strftime('%Y/%m/%d')}/[{function.version}]{instance_id}"
        token = credentials_token if function.mode is Mode.SNAP_START else None
        self._variables = variables.runtime_variables(function, api, stream, token)

    async def run(self, life: Life, phase: str, deadline: float | None = None) -> float:
        """Returns the seconds it took. `deadline` (monotonic) is that of the invocation, where it happens inside one.

        Raises InitFailed; and TimedOut where `deadline` was given and has passed.
        """
        began = time.monotonic()
        until = deadline or began + self._limits.init_limit_s(self._function)
        life.hub.emit("platform.initStart", events.init_start(self._function, phase, self._instance_id))
        status, error_type, runtime_done = "success", None, False
        try:
            await self._start_extensions(life, until)
            self._start_runtime(life)
            await self._runtime_ready(life, until)
            life.registry.close()
            life.drain()
            runtime_done = True
            self._emit_runtime_done(life, phase, "success", None)
            await life.until(lambda: life.registry.all_ready, until)
        except Failed as failed:
            status, error_type = failed.fault.status, failed.fault.error_type
            raise InitFailed(_own_account(life, failed.fault)) from None
        except TimedOut:
            status = "timeout"
            if deadline is not None:
                raise
            limit_s = self._limits.init_limit_s(self._function)
            raise InitFailed(Fault("Sandbox.Timedout", f"Init timed out after {limit_s:.2f} seconds")) from None
        finally:
            life.drain()
            if not runtime_done:
                self._emit_runtime_done(life, phase, status, error_type)
            life.hub.close_subscriptions()
            for extension in life.registry.extensions.values():
                life.hub.emit("platform.extension", events.extension(extension))
            seconds = time.monotonic() - began
            record = events.init_report(self._function, phase, status, error_type, seconds)
            life.hub.emit("platform.initReport", record)
        return seconds

    async def _start_extensions(self, life: Life, until: float) -> None:
        limit = self._limits.max_extensions
        if len(life.registry.external) > limit:
            raise Failed(Fault("Extension.LaunchError", f"more than {limit} extensions"))
        own = variables.extension_variables(self._variables)
        for extension in life.registry.external:
            try:
                self._host.start(life, f"/opt/extensions/{extension.name}", extension.name, own, "/")
            except OSError as problem:
                extension.change(ExtensionCall.LAUNCH_FAILED)
                extension.error_type = "PermissionDenied" if isinstance(problem, PermissionError) else "UnknownError"
                raise Failed(Fault("Extension.LaunchError", f"{extension.name}: {problem.strerror}")) from None
        await life.until(lambda: life.registry.all_registered, until)

    def _start_runtime(self, life: Life) -> None:
        path = next((path for path in BOOTSTRAPS if self._host.outside(path).is_file()), None)
        if path is None:
            raise Failed(Fault("Runtime.InvalidEntrypoint", f"Couldn't find valid bootstrap(s): {list(BOOTSTRAPS)}"))
        try:
            life.runtime = self._host.start(life, path, RUNTIME, self._variables, "/var/task")
        except OSError as problem:
            raise Failed(Fault("Runtime.InvalidEntrypoint", f"{path}: {problem.strerror}")) from None

    async def _runtime_ready(self, life: Life, until: float) -> None:
        ready = (RuntimeState.READY, RuntimeState.RESTORE_READY)
        # A runtime that posted init/error is expected to end by itself, which is a fault.
        await life.until(lambda: life.runtime_state in ready, until)

    def _emit_runtime_done(self, life: Life, phase: str, status: str, error_type: str | None) -> None:
        record = events.init_runtime_done(self._function, phase, status, error_type)
        life.hub.emit("platform.initRuntimeDone", record)

    async def restore(self, life: Life) -> float:
        """Go on from a snapshot; returns the seconds it took. Raises InitFailed."""
        began = time.monotonic()
        life.hub.repeat_init_events()
        life.hub.emit("platform.restoreStart", events.restore_start(self._function, self._instance_id))
        status, error_type = "success", None
        try:
            if life.runtime_state is RuntimeState.RESTORE_READY:
                life.runtime_does(RuntimeCall.RESTORE)
                life.restore()
                done = (RuntimeState.READY, RuntimeState.RESTORE_ERROR)
                await life.until(lambda: life.runtime_state in done, began + self._limits.restore_hook_s)
            if life.init_error is not None:
                error_type, payload = life.init_error
                status = "error"
                raise InitFailed(Fault(error_type, "the restore hook failed", payload))
        except Failed as failed:
            status, error_type = failed.fault.status, failed.fault.error_type
            raise InitFailed(failed.fault) from None
        except TimedOut:
            status, error_type = "timeout", "Runtime.RestoreTimeout"
            limit_s = self._limits.restore_hook_s
            raise InitFailed(Fault(error_type, f"Restore timed out after {limit_s:.2f} seconds")) from None
        finally:
            life.drain()
            seconds = time.monotonic() - began
            life.hub.emit("platform.restoreRuntimeDone", events.restore_runtime_done(status, error_type))
            life.hub.emit("platform.restoreReport", events.restore_report(status, error_type, seconds))
        return seconds


def _own_account(life: Life, fault: Fault) -> Fault:
    """The runtime's own account of a failed start, where it gave one, is what the caller gets. Telemetry tells of its end."""
    if life.init_error is None:
        return fault
    error_type, payload = life.init_error
    return Fault(fault.error_type, fault.message, payload, error_type)
