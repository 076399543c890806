"""The states of a runtime and of an extension, as tables. Names are those of AWS's own source (its emulator's `core` package).

A call that the table does not list is refused, and changes nothing. No I/O, no time.
"""

from __future__ import annotations

from enum import StrEnum


class NotAllowed(Exception):
    """This call is not possible in this state."""

    def __init__(self, state: str, action: str) -> None:
        super().__init__(f"{action} in state {state}")
        self.state = state


class RuntimeState(StrEnum):
    STARTED = "Started"
    INIT_ERROR = "InitError"
    READY = "Ready"
    RUNNING = "Running"
    RESTORE_READY = "RestoreReady"
    RESTORING = "Restoring"
    RESTORE_ERROR = "RuntimeRestoreErrorState"
    RESPONSE = "InvocationResponse"
    ERROR_RESPONSE = "InvocationErrorResponse"
    RESPONSE_SENT = "RuntimeResponseSentState"


class RuntimeCall(StrEnum):
    """What the runtime does, and what is done to it (`deliver`, `restore`)."""

    NEXT = "next"
    RESTORE_NEXT = "restore/next"
    RESTORE_ERROR = "restore/error"
    INIT_ERROR = "init/error"
    RESPONSE = "response"
    ERROR = "error"
    SENT = "sent"
    DELIVER = "deliver"
    RESTORE = "restore"


_R, _C = RuntimeState, RuntimeCall
RUNTIME: dict[tuple[RuntimeState, RuntimeCall], RuntimeState] = {
    (_R.STARTED, _C.NEXT): _R.READY,
    (_R.STARTED, _C.RESTORE_NEXT): _R.RESTORE_READY,
    (_R.STARTED, _C.INIT_ERROR): _R.INIT_ERROR,
    (_R.RESTORE_READY, _C.RESTORE): _R.RESTORING,
    (_R.RESTORING, _C.NEXT): _R.READY,
    (_R.RESTORING, _C.RESTORE_ERROR): _R.RESTORE_ERROR,
    # Some runtimes report a failing restore hook this way (a comment in AWS's source says so).
    (_R.RESTORING, _C.INIT_ERROR): _R.RESTORE_ERROR,
    (_R.READY, _C.NEXT): _R.READY,
    (_R.READY, _C.DELIVER): _R.RUNNING,
    # A second /next while an invocation runs is given the same invocation again.
    (_R.RUNNING, _C.NEXT): _R.RUNNING,
    (_R.RUNNING, _C.RESPONSE): _R.RESPONSE,
    (_R.RUNNING, _C.ERROR): _R.ERROR_RESPONSE,
    (_R.RESPONSE, _C.SENT): _R.RESPONSE_SENT,
    (_R.ERROR_RESPONSE, _C.SENT): _R.RESPONSE_SENT,
    (_R.RESPONSE_SENT, _C.NEXT): _R.READY,
}


class ExtensionState(StrEnum):
    STARTED = "Started"
    REGISTERED = "Registered"
    READY = "Ready"
    RUNNING = "Running"
    INIT_ERROR = "InitError"
    EXIT_ERROR = "ExitError"
    SHUTDOWN_FAILED = "ShutdownFailed"
    EXITED = "Exited"
    LAUNCH_ERROR = "LaunchError"


class ExtensionCall(StrEnum):
    """What an extension does, and what is done to it or seen of it."""

    REGISTER = "register"
    NEXT = "next"
    INIT_ERROR = "init/error"
    EXIT_ERROR = "exit/error"
    DELIVER = "deliver"
    EXITED = "exited"
    KILLED = "killed"
    LAUNCH_FAILED = "launch failed"


_E, _X = ExtensionState, ExtensionCall
EXTENSION: dict[tuple[ExtensionState, ExtensionCall], ExtensionState] = {
    (_E.STARTED, _X.REGISTER): _E.REGISTERED,
    (_E.STARTED, _X.LAUNCH_FAILED): _E.LAUNCH_ERROR,
    (_E.REGISTERED, _X.NEXT): _E.READY,
    (_E.REGISTERED, _X.INIT_ERROR): _E.INIT_ERROR,
    (_E.REGISTERED, _X.EXIT_ERROR): _E.EXIT_ERROR,
    (_E.READY, _X.DELIVER): _E.RUNNING,
    (_E.READY, _X.EXIT_ERROR): _E.EXIT_ERROR,
    (_E.RUNNING, _X.NEXT): _E.READY,
    (_E.RUNNING, _X.EXIT_ERROR): _E.EXIT_ERROR,
    (_E.RUNNING, _X.EXITED): _E.EXITED,
    (_E.RUNNING, _X.KILLED): _E.SHUTDOWN_FAILED,
    # Repeated reports are taken and change nothing: the first counts.
    (_E.INIT_ERROR, _X.INIT_ERROR): _E.INIT_ERROR,
    (_E.EXIT_ERROR, _X.EXIT_ERROR): _E.EXIT_ERROR,
}

# What a refused call wanted to reach, for the message that refuses it.
RUNTIME_TARGET = {
    _C.NEXT: _R.READY,
    _C.RESTORE_NEXT: _R.READY,
    _C.RESTORE_ERROR: _R.RESTORE_ERROR,
    _C.INIT_ERROR: _R.INIT_ERROR,
    _C.RESPONSE: _R.RESPONSE,
    _C.ERROR: _R.ERROR_RESPONSE,
}
EXTENSION_TARGET = {
    _X.REGISTER: _E.REGISTERED,
    _X.NEXT: _E.READY,
    _X.INIT_ERROR: _E.INIT_ERROR,
    _X.EXIT_ERROR: _E.EXITED,
}


def runtime_after(state: RuntimeState, call: RuntimeCall) -> RuntimeState:
    """The runtime's next state. Raises NotAllowed."""
    try:
        return RUNTIME[state, call]
    except KeyError:
        raise NotAllowed(state, call) from None


def extension_after(state: ExtensionState, call: ExtensionCall) -> ExtensionState:
    """The extension's next state. Raises NotAllowed."""
    try:
        return EXTENSION[state, call]
    except KeyError:
        raise NotAllowed(state, call) from None


class Phase(StrEnum):
    """Where the environment is in its life ("Understanding the Lambda execution environment lifecycle")."""

    NEW = "new"
    INIT = "init"
    SNAPSHOT = "snapshot"
    RESTORE = "restore"
    READY = "ready"
    INVOKE = "invoke"
    FAILED = "failed"
    SHUTDOWN = "shutdown"
    ENDED = "ended"


_P = Phase
PHASES: dict[Phase, frozenset[Phase]] = {
    _P.NEW: frozenset({_P.INIT, _P.SHUTDOWN}),
    _P.INIT: frozenset({_P.READY, _P.SNAPSHOT, _P.FAILED, _P.INVOKE, _P.SHUTDOWN}),
    _P.SNAPSHOT: frozenset({_P.RESTORE, _P.SHUTDOWN}),
    _P.RESTORE: frozenset({_P.READY, _P.FAILED, _P.SHUTDOWN}),
    _P.READY: frozenset({_P.INVOKE, _P.FAILED, _P.SHUTDOWN}),
    _P.INVOKE: frozenset({_P.READY, _P.FAILED, _P.INIT, _P.SHUTDOWN}),
    # A failed environment is reset: its processes go, /tmp stays, and the next invocation initializes it again.
    _P.FAILED: frozenset({_P.SHUTDOWN}),
    _P.SHUTDOWN: frozenset({_P.NEW, _P.INIT, _P.ENDED}),
    _P.ENDED: frozenset(),
}


def check_phase(current: Phase, wanted: Phase) -> Phase:
    """`wanted`, if the life may go on there. Raises NotAllowed."""
    if wanted not in PHASES[current]:
        raise NotAllowed(current, wanted)
    return wanted
