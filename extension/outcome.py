"""Which signal is which failure, and which of two signals wins. Pure rules; DESIGN, "The sidecar's rules", 5."""

from __future__ import annotations

from extension import fastjson

SUCCESS = "Success"
PARTIAL_BATCH = "PartialBatch"
HTTP_ERROR = "HttpError"
HANDLED_ERROR = "HandledError"
STREAM_ERROR = "StreamError"
CRASH = "Crash"
OUT_OF_MEMORY = "OutOfMemory"
TIMEOUT = "Timeout"
INIT_ERROR = "InitError"

_STRENGTH = (SUCCESS, PARTIAL_BATCH, HTTP_ERROR, HANDLED_ERROR, STREAM_ERROR, CRASH, OUT_OF_MEMORY, TIMEOUT)

_EXIT_ERROR = "Runtime.ExitError"

# What Lambda itself answers where the runtime could not say anything.
_SPOKEN = {
    CRASH: (_EXIT_ERROR, "The runtime's process ended before it answered"),
    OUT_OF_MEMORY: ("Runtime.OutOfMemory", "The runtime was killed: out of memory"),
    TIMEOUT: ("Sandbox.Timedout", "The invocation did not end before its deadline"),
    INIT_ERROR: (_EXIT_ERROR, "The runtime's process ended before it asked for its first event"),
    STREAM_ERROR: ("Runtime.StreamError", "The response stream ended with an error"),
    PARTIAL_BATCH: ("PartialBatch", "The function reported items of its batch as failed"),
    HTTP_ERROR: ("HttpError", "The function answered with a server error"),
    HANDLED_ERROR: ("Unhandled", "The function reported an error without details"),
}

# A runtime killed at its deadline may be seen to exit a moment before anyone says "timeout".
_TIMEOUT_MARGIN_MS = 25


class Outcome:
    """How an invocation ended: its condition, and the error as the runtime gave it (None where nobody gave one).

    `error_type` is the header Lambda-Runtime-Function-Error-Type, or the platform's own errorType. `items` are the identifiers
    that a function reported as failed in its batch (None for one that is not an identifier).
    """

    __slots__ = ("condition", "error", "error_cut", "error_type", "items")

    def __init__(
        self,
        condition: str,
        error: bytes | None = None,
        error_type: str | None = None,
        *,
        error_cut: bool = False,
        items: tuple[str | None, ...] = (),
    ) -> None:
        self.condition = condition
        self.error = error
        self.error_type = error_type
        self.error_cut = error_cut
        self.items = items

    @property
    def failed(self) -> bool:
        """Whether this is a failure."""
        return self.condition != SUCCESS

    @property
    def kills_environment(self) -> bool:
        """Whether Lambda resets the environment after this, and gives extensions two seconds."""
        return self.condition in (CRASH, OUT_OF_MEMORY, TIMEOUT)


def _strength(condition: str) -> int:
    return _STRENGTH.index(condition)


def combine(known: Outcome | None, new: Outcome) -> Outcome:
    """Return the outcome after a further signal: the stronger condition, with its error or else the weaker one's.

    Returns `known` itself where the signal tells nothing new. The order of failures does not matter: who is seen first is chance.
    A delivered success stays one: what the process does after its answer is not this invocation's failure.
    """
    if known is None:
        return new
    if known.condition == SUCCESS or new is known:
        return known
    stronger, weaker = known, new
    if _strength(new.condition) > _strength(known.condition):
        stronger, weaker = new, known
    if stronger.error is not None or weaker.error is None:
        return stronger
    return Outcome(
        stronger.condition, weaker.error, weaker.error_type or stronger.error_type, error_cut=weaker.error_cut
    )


def spoken(outcome: Outcome) -> tuple[str, str]:
    """Return the error type and message that stand in for an error nobody reported."""
    error_type, message = _SPOKEN.get(outcome.condition, ("Unknown", "The invocation failed"))
    return outcome.error_type or error_type, message


def of_response(status: int, body: bytes, trailer_type: str | None, trailer_body: bytes | None) -> Outcome | None:
    """Judge POST /response by Lambda's answer and the request's trailers; None while the invocation goes on.

    413: the response was too large, which Lambda reports to the caller as the function's error.
    """
    if 200 <= status < 300:
        if trailer_type is not None:
            return Outcome(STREAM_ERROR, trailer_body, trailer_type)
        return Outcome(SUCCESS)
    if status == 413:
        return Outcome(HANDLED_ERROR, body or None, "Function.ResponseSizeTooLarge")
    return None


def of_exit(now_ms: float, deadline_ms: int) -> Outcome:
    """Judge the end of the runtime's process while an invocation is in flight."""
    return Outcome(TIMEOUT if deadline_ms and now_ms >= deadline_ms - _TIMEOUT_MARGIN_MS else CRASH)


def means_failure(reason: str) -> bool:
    """Whether a SHUTDOWN reason says that something went wrong: AWS's words, and those of its emulator."""
    return reason.lower() in ("timeout", "failure", "releasefail")


def of_shutdown(reason: str) -> Outcome:
    """Judge an invocation that is still in flight when SHUTDOWN comes. The reason's spelling differs between places."""
    if reason.lower() == "timeout":
        return Outcome(TIMEOUT)
    return Outcome(CRASH)


def of_telemetry(status: str, error_type: str | None) -> Outcome | None:
    """Judge `platform.runtimeDone` or `platform.report`; None for a success.

    On demand, a handled error has status success (only the proxy sees it); on Managed Instances the report names it.
    """
    if error_type is not None and "OutOfMemory" in error_type:
        return Outcome(OUT_OF_MEMORY, None, error_type)
    if status == "timeout" or error_type == "Sandbox.Timedout":
        return Outcome(TIMEOUT, None, error_type)
    if status == "failure":
        return Outcome(CRASH, None, error_type)
    if status == "error":
        # Not every `Runtime.` is a crash: an error whose type Lambda does not know becomes Runtime.Unknown.
        if error_type is not None and (error_type == _EXIT_ERROR or error_type.startswith(("Extension.", "Sandbox."))):
            return Outcome(CRASH, None, error_type)
        return Outcome(HANDLED_ERROR, None, error_type)
    return None


class ErrorSummary:
    """A runtime's error in one shape for all languages."""

    __slots__ = ("frames", "message", "type")

    def __init__(self, error_type: str, message: str, frames: list[str]) -> None:
        self.type = error_type
        self.message = message
        self.frames = frames


def _frame(frame: object) -> str:
    if isinstance(frame, dict):  # Go: {"path", "line", "label"}
        return f"{frame.get('path', '')}:{frame.get('line', '')} {frame.get('label', '')}"
    return frame.strip() if isinstance(frame, str) else ""


def summarise(outcome: Outcome) -> ErrorSummary:
    """Read type, message and stack from a runtime's error, whatever the language calls them."""
    error_type, message = spoken(outcome)
    parsed: object = None
    if outcome.error is not None:
        text = outcome.error.decode("utf-8", "replace")
        try:
            parsed = fastjson.loads(text)
        except ValueError:
            return ErrorSummary(error_type, text, [])
    if not isinstance(parsed, dict):
        return ErrorSummary(error_type, message if parsed is None else str(parsed), [])
    given_type, given_message = parsed.get("errorType"), parsed.get("errorMessage")
    stack = parsed.get("stackTrace") or parsed.get("trace") or parsed.get("stack") or []
    if isinstance(stack, str):
        stack = stack.split("\n")
    frames = [text for frame in stack if (text := _frame(frame))] if isinstance(stack, list) else []
    return ErrorSummary(
        given_type if isinstance(given_type, str) and given_type else error_type,
        given_message if isinstance(given_message, str) else message,
        frames,
    )
