"""What the items under one request id mean together. Pure: it depends on which are there, never on the order in
which they came.

Asynchronous retries share the request id, so one request can have failed several times. It is replayed once: the
last attempt stands for all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Relations:
    """`leading` stands for the request; `superseded` are its earlier attempts. `exhausted` says why AWS retries no more.
    With `root` all of them are failures of a replay of that root, in redrive `redrive`."""

    leading: str | None
    superseded: tuple[str, ...]
    exhausted: str | None
    root: str | None
    redrive: str | None
    members: tuple[str, ...]


def relations(items: Iterable[Mapping[str, Any]]) -> Relations:
    """Return what the items of one REQUEST# partition say.

    The attempt that a replay has claimed leads for ever; else a sidecar's record comes before AWS's own (it has the
    bytes), then the later.
    """
    sightings: list[Mapping[str, Any]] = []
    exhausted: str | None = None
    root: str | None = None
    redrive: str | None = None
    owner: str | None = None
    for item in items:
        kind = item["itemType"]
        if kind == "Sighting":
            sightings.append(item)
        elif kind == "Exhausted":
            exhausted = item["reason"]
        elif kind == "Replay":
            root, redrive = item["rootId"], item["redriveId"]
        elif kind == "Owner":
            owner = item["failureId"]
    whole = sorted(
        (item for item in sightings if item["whole"]),
        key=lambda item: (
            item["failureId"] == owner,
            item["by"] == "sidecar",
            item["timestamp"],
            item["failureId"],
        ),
    )
    return Relations(
        leading=whole[-1]["failureId"] if whole else None,
        superseded=tuple(item["failureId"] for item in whole[:-1]),
        exhausted=exhausted,
        root=root,
        redrive=redrive,
        members=tuple(item["failureId"] for item in sightings),
    )
