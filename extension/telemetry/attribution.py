"""Which invocation a telemetry record belongs to, and what it says about that invocation's end.

Text lines carry no request id. On demand one invocation runs at a time, so they belong to the one between
`platform.start` and `platform.runtimeDone`; on Managed Instances only a JSON line's own requestId tells.
"""

from __future__ import annotations

from extension import fastjson, outcome, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from extension.inflight import Table


class Attribution:
    """Reads batches and tells the table. Unknown types and fields are passed over; a broken batch is counted."""

    def __init__(self, table: Table, on_logs_done: Callable[[], None], *, concurrent: bool) -> None:
        self._table = table
        self._on_logs_done = on_logs_done
        self._concurrent = concurrent
        self._current: str | None = None
        self.counters = {"records": 0, "broken": 0, "logs_dropped": 0}

    def take(self, batch: bytes) -> None:
        """Read one delivered batch: a JSON array, or one object a line."""
        for entry in self._entries(batch):
            if not isinstance(entry, dict):
                self.counters["broken"] += 1
                continue
            self.counters["records"] += 1
            try:
                self._entry(entry.get("type"), entry.get("record"))
            except Exception as error:  # the others may still say how an invocation ended
                self.counters["broken"] += 1
                say.fault("telemetry: record", error)

    def _entry(self, kind: object, record: object) -> None:
        if kind == "function":
            self._function_line(record)
        elif isinstance(kind, str) and kind.startswith("platform.") and isinstance(record, dict):
            self._platform(kind, record)

    def _entries(self, batch: bytes) -> list[Any]:
        text = batch.decode("utf-8", "replace")
        for read in (fastjson.loads, fastjson.loads_loose):  # loosely where a number is longer than Python reads
            try:
                parsed = read(text)
            except ValueError:
                continue
            return parsed if isinstance(parsed, list) else [parsed]
        entries = []
        for line in text.split("\n"):
            if line.strip():
                try:
                    entries.append(fastjson.loads(line))
                except ValueError:
                    self.counters["broken"] += 1
        return entries

    def _function_line(self, record: object) -> None:
        if isinstance(record, str):
            request_id = None if self._concurrent else self._current
            text = record.rstrip("\n")
            if self._concurrent and text.startswith("{"):
                request_id = _request_id_in(text)
            self._table.log(request_id, text)
        elif isinstance(record, dict):
            named = record.get("requestId") or record.get("AWSRequestId")
            self._table.log(named if isinstance(named, str) else self._current, _as_text(record))

    def _platform(self, kind: str, record: dict[str, Any]) -> None:
        request_id = record.get("requestId")
        if kind == "platform.logsDropped":
            dropped = record.get("droppedRecords")
            self.counters["logs_dropped"] += dropped if isinstance(dropped, int) else 1
        elif kind == "platform.initRuntimeDone":
            self._table.init_logs_done()
            if record.get("status") == "success":
                self._table.runtime_started()
            elif record.get("status") in ("error", "failure", "timeout") and record.get("phase") != "invoke":
                error_type = record.get("errorType")
                self._table.init_error(None, error_type if isinstance(error_type, str) else None)
            self._on_logs_done()
        elif not isinstance(request_id, str):
            return
        elif kind == "platform.start":
            arn = record.get("functionArn")
            self._table.expect(request_id, 0, arn if isinstance(arn, str) else "")
            if not self._concurrent:
                self._current = request_id
        elif kind == "platform.runtimeDone":
            self._done(request_id, record)
            self._current = None
        elif kind == "platform.report":
            self._done(request_id, record)

    def _done(self, request_id: str, record: dict[str, Any]) -> None:
        self._table.logs_done(request_id)
        error_type = record.get("errorType")
        status = record.get("status")
        judged = outcome.of_telemetry(
            status if isinstance(status, str) else "", error_type if isinstance(error_type, str) else None
        )
        if judged is not None:
            self._table.judged_by_platform(request_id, judged)
        elif status == "success":
            self._table.succeeded_unseen(request_id)
        self._on_logs_done()


def _as_text(record: dict[str, Any]) -> str:
    try:
        return fastjson.dumps(record)
    except ValueError:  # a number that became infinite when it was read
        return repr(record)


def _request_id_in(text: str) -> str | None:
    try:
        parsed = fastjson.loads(text)
    except ValueError:
        return None
    named = parsed.get("requestId") if isinstance(parsed, dict) else None
    return named if isinstance(named, str) else None
