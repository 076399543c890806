"""The sidecar's own voice: one JSON object a line on standard output, which Lambda puts in the function's log group.

Nothing here raises: a full pipe or a closed descriptor must not take the sidecar down (DESIGN, rule 1).
"""

from __future__ import annotations

import _thread
import os

from extension import fastjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

_STDOUT = 1
_lock = _thread.allocate_lock()
_said: set[tuple[str, str]] = set()
_MAX_REMEMBERED = 256
_levels = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_threshold = 20


def set_level(name: str) -> None:
    """Say nothing below this level: debug, info, warning or error."""
    global _threshold
    _threshold = _levels[name]


def say(kind: str, /, **fields: object) -> None:
    """Print one line `{"backstop": kind, ...}`. Fields are JSON values; a field that is not is shown by its repr."""
    try:
        line = fastjson.dumps({"backstop": kind, **fields}, ascii_only=True)
    except (TypeError, ValueError):
        line = fastjson.dumps({"backstop": kind, "fields": repr(fields)}, ascii_only=True)
    write_line(line)


def write_line(line: str) -> None:
    """Write one line whole, so that lines of several threads do not mix."""
    data = memoryview(line.encode("utf-8", "backslashreplace") + b"\n")
    try:
        with _lock:
            while data:
                data = data[os.write(_STDOUT, data) :]
    except OSError:
        return


def info(kind: str, /, **fields: object) -> None:
    """Say something routine, unless LOG_LEVEL is above info."""
    if _threshold <= _levels["info"]:
        say(kind, **fields)


def warn_once(what: str, why: str) -> None:
    """Say that a part does not work, and why: once for each pair, however often it happens."""
    key = (what, why)
    with _lock:
        if key in _said or len(_said) >= _MAX_REMEMBERED:
            return
        _said.add(key)
    if _threshold <= _levels["warning"]:
        say("warning", what=what, why=why)


def fault(what: str, error: BaseException) -> None:
    """Report an exception that one of the guards caught: what was being done, the error, and where it came from."""
    where: list[str] = []
    trace: TracebackType | None = error.__traceback__
    while trace is not None and len(where) < 12:
        code = trace.tb_frame.f_code
        where.append(f"{code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}:{code.co_name}")
        trace = trace.tb_next
    warn_once(what, f"{type(error).__name__}: {error} at {' > '.join(where)}")


def forget() -> None:
    """Forget what was said once (a restored snapshot, a test)."""
    with _lock:
        _said.clear()
