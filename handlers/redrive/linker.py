"""Brings the failures of one request id in line with all that is known of it."""

from __future__ import annotations

from typing import Any

from handlers.redrive import keys
from handlers.redrive.request import Relations, relations
from handlers.redrive.states import Status, Step, after, after_failed_replay
from handlers.redrive.table import Change, Table


class Linker:
    """Called after each write under a request id."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def relate(self, request_id: str) -> Relations:
        """Bring the failures of a request id in line with what is known of it. Called after each write under the
        request id, so that
        whichever of two writers comes last sees both."""
        found = relations(self._table.query(keys.request(request_id)))
        if found.root is not None:
            for member in found.members:
                self._link(member, found)
            return found
        for member in found.superseded:
            self._set_status(member, Step.SUPERSEDE, supersededBy=found.leading)
        if found.exhausted is not None:
            for member in found.members:
                self._table.change(
                    Change(
                        keys.failure(member),
                        sets={"exhausted": found.exhausted},
                        condition="attribute_exists(#id) AND attribute_not_exists(#exhausted)",
                    )
                )
        return found

    def _link(self, member: str, found: Relations) -> None:
        if self._set_status(member, Step.LINK, rootId=found.root, redriveId=found.redrive):
            self._fail_accepted(found)

    def _fail_accepted(self, found: Relations) -> None:
        """An asynchronous replay was resolved when it was accepted. Here is its failure."""
        root = self._table.get(keys.failure(found.root or ""))
        if root is None or root.get("acceptedBy") != found.redrive or root["status"] != Status.RESOLVED:
            return
        step = after_failed_replay(root["attempts"], root.get("quarantineAfter", 3))
        self._set_status(root["failureId"], step, acceptedBy=None, lastOutcome=str(after(Status.RESOLVED, step)))

    def _set_status(self, failure_id: str, step: Step, **sets: Any) -> bool:
        """Take a step from any status it starts from, unless the failure has left it; True if it was taken."""
        known = self._table.get(keys.failure(failure_id))
        if known is None:
            return False
        try:
            status = after(Status(known["status"]), step)
        except ValueError:
            return False
        return self._table.change(
            Change(
                keys.failure(failure_id),
                sets={"status": status, "statusPart": keys.status_part(status, keys.shard(failure_id)), **sets},
                condition="#status = :from",
                values={"from": known["status"]},
            )
        )
