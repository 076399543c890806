"""The journal as rows of a timeline: phases, processes, and API calls with how long each waited for its answer. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sandbox.journal import Entry

_SHORT = (
    ("/2018-06-01/runtime/", ""),
    ("/2020-01-01/extension/", "extension/"),
    ("/2022-07-01/telemetry", "telemetry"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One line. `at_ms` from the first entry; `kind` is phase, process, call or event; `waited_ms` is of calls alone."""

    at_ms: float
    kind: str
    who: str
    what: str
    waited_ms: float | None = None


def rows(entries: Iterable[Entry]) -> list[Row]:
    """In order of time; a call stands where it began."""
    found: list[Row] = []
    open_calls: dict[tuple[str, str], list[int]] = {}
    started: float | None = None
    for entry in entries:
        if started is None:
            started = entry.at
        at_ms = (entry.at - started) * 1000
        if entry.kind == "phase":
            reason = f" ({entry.detail['reason']})" if "reason" in entry.detail else ""
            found.append(Row(at_ms, "phase", entry.who, entry.what + reason))
        elif entry.kind == "process":
            how = f", {entry.detail['returncode']}" if "returncode" in entry.detail else ""
            found.append(Row(at_ms, "process", entry.who, f"process {entry.what}{how}"))
        elif entry.kind == "call":
            open_calls.setdefault((entry.who, entry.what), []).append(len(found))
            found.append(Row(at_ms, "call", entry.who, short(entry.what)))
        elif entry.kind == "answer":
            waiting = open_calls.get((entry.who, entry.what))
            if waiting:
                row = found[waiting[0]]
                status = entry.detail["status"] or "client gone"
                found[waiting.pop(0)] = Row(row.at_ms, "call", row.who, f"{row.what} → {status}", at_ms - row.at_ms)
        elif entry.kind == "telemetry" and entry.who == "platform":
            status = entry.detail["record"].get("status")
            found.append(Row(at_ms, "event", entry.who, entry.what + (f" {status}" if status else "")))
    return found


def short(call: str) -> str:
    """`POST invocation/…/response` for the long path with its request id."""
    method, _, path = call.partition(" ")
    for prefix, instead in _SHORT:
        if path.startswith(prefix):
            path = instead + path[len(prefix) :]
    parts = path.split("/")
    if len(parts) == 3 and parts[0] == "invocation":
        parts[1] = "…"
    return f"{method} {'/'.join(parts)}"
