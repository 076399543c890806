"""The matrix: what is done to each language's function, and what must be captured of it.

A cell that is not captured as its row says has a note, and each note is one of DESIGN's rules.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Row:
    """One way to end. `group` says which execution environment it is played in; `event` are the very bytes that are sent."""

    name: str
    title: str
    event: bytes
    group: str = "ordinary"


@dataclass(frozen=True, slots=True)
class Expected:
    """What the record must say. `message`: what the error's message begins with; `frame`: what one frame of its stack holds.

    No `condition`: a success, of which there is no record. No `frame`: this client sends no stack.
    """

    condition: str | None
    error_type: str = ""
    message: str = ""
    frame: str | None = None
    note: str = ""


def _event(do: str, message: str = "the card was declined", text: bytes = b"") -> bytes:
    # The function in bash reads its event with a pattern: no blanks.
    return b'{"do":"%s","message":"%s","text":"%s"}' % (do.encode(), message.encode(), text)


_UNICODE = "karta Zoë Müllerové odmítnuta 🍵 日本 \u202bעברית\u202c e\u0301 \u2028"
# The most that Lambda takes.
_LARGE = _event("throw", text=b"x" * (6 * MIB - len(_event("throw"))))

ROWS = (
    Row("success", "success", _event("answer", text="🍵".encode())),
    Row("error", "handled error", _event("throw")),
    Row("unicode", "unicode event and message", _event("throw", _UNICODE)),
    Row("large", "event of 6 MiB", _LARGE),
    Row("binary", "event that is no UTF-8", _event("throw", text=b"\xff\xfe caf\xe9 \xed\xa0\x80")),
    Row("timeout", "timeout", _event("hang")),
    Row("exit", "process exit", _event("exit")),
    Row("panic", "panic, or what nobody catches", _event("panic")),
    Row("crash", "native crash", _event("crash")),
    Row("memory", "out of memory", _event("memory"), "starved"),
    Row("init", "initialization fails", _event("answer"), "init"),
    Row("managed error", "Managed Instances: handled error", _event("throw"), "managed"),
    Row("managed memory", "Managed Instances: out of memory", _event("memory"), "managed"),
)

NOTES = {
    "large": "More than fits a message: the event is in the bucket, whole, and the record names its place.",
    "base64": "The record has the event's bytes as base64.",
    "refused": "The same; the client cannot read such an event, and posts that as its error.",
    "amended": "The client posts the error, then its process ends: one record, whose later signal amends it under the same id.",
    "caught": "The client catches the panic and posts it as an error; the process goes on.",
    "no telemetry": "OutOfMemory is known from telemetry only, and this mode of AWS's emulator has none: without it, it is Crash.",
    "worker": "The kernel ends one of the client's worker processes, and then telemetry says Runtime.ExitError, not OutOfMemory.",
    "no event": "No event was passed to the function: `payloadAbsent` says so.",
}

_EXIT = Expected("Crash", "Runtime.ExitError", "The runtime's process ended before it answered")
_OUT_OF_MEMORY = Expected("OutOfMemory", "Runtime.OutOfMemory", "The runtime was killed: out of memory")
_INIT_EXIT = Expected(
    "InitError", "Runtime.ExitError", "The runtime's process ended before it asked for its first event", note="no event"
)

# The error that each client posts when the function throws.
_THROWN = {
    "python": Expected("HandledError", "PaymentDeclined", "", "in charge"),
    "node": Expected("HandledError", "PaymentDeclined", "", "at charge (file:///var/task/index.mjs:"),
    "java": Expected("HandledError", "backstop.Handler$PaymentDeclined", "", "backstop.Handler.charge(Handler.java:"),
    "go": Expected("HandledError", "PaymentDeclined"),
    "rust": Expected("HandledError", "PaymentDeclined"),
    "bash": Expected("HandledError", "Handler.Failed", "the handler ended with status 3"),
}

_BINARY = {
    "python": Expected(
        "HandledError", "Runtime.UnmarshalError", "Unable to unmarshal input: 'utf-8' codec", None, "refused"
    ),
    "java": Expected(
        "HandledError", "java.lang.RuntimeException", "An error occurred during JSON parsing", None, "refused"
    ),
    "rust": Expected(
        "HandledError",
        "&lambda_runtime::deserializer::DeserializeError",
        "failed to deserialize the incoming data into the function's payload type",
        None,
        "refused",
    ),
}

_PANIC = {
    "java": Expected(
        "Crash", "java.lang.InternalError", "the payment library gave up", "backstop.Handler.handleRequest(", "amended"
    ),
    "go": Expected("Crash", "string", "the payment library gave up", "main.go:", "amended"),
    "rust": Expected(
        "HandledError",
        "&alloc::boxed::Box<dyn core::any::Any + core::marker::Send>",
        "Lambda panicked: the payment library gave up",
        None,
        "caught",
    ),
}

_INIT = {
    "python": Expected("InitError", "RuntimeError", "TABLE_NAME is not set", "/var/task/function.py", "no event"),
    "node": Expected("InitError", "TypeError", "TABLE_NAME is not set", "/var/task/index.mjs", "no event"),
    "java": Expected(
        "InitError",
        "java.lang.ExceptionInInitializerError",
        "Error loading class backstop.Handler",
        None,
        "no event",
    ),
}


def expected(row: Row, language: str) -> Expected:
    """What must be captured of a row's event in a language."""
    thrown = _THROWN[language]
    said = replace(thrown, message=thrown.message or "the card was declined")
    unicode = replace(thrown, message=thrown.message or _UNICODE)
    return {
        "success": Expected(None),
        "error": said,
        "unicode": unicode,
        "large": replace(said, note="large"),
        "binary": _BINARY.get(language, replace(said, note="base64")),
        "timeout": Expected("Timeout", "Sandbox.Timedout", "The invocation did not end before its deadline"),
        "exit": _EXIT,
        "panic": _PANIC.get(language, _EXIT),
        "crash": _EXIT,
        "memory": replace(_EXIT, note="no telemetry"),
        "init": _INIT.get(language, _INIT_EXIT),
        "managed error": said,
        "managed memory": replace(_EXIT, note="worker") if language == "python" else _OUT_OF_MEMORY,
    }[row.name]
