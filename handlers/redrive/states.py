"""The states of a captured failure, and which step leads from one to another. Pure.

    captured ──claim──▶ inflight ──▶ resolved
                           │ ├─────▶ failed ──claim──▶ inflight …
                           │ ├─────▶ quarantined (after N failed replays)
                           │ └─────▶ ambiguous (claimed, and whether it ran is not known)
                           └───────▶ as it was before the claim (the target certainly did not run)

`superseded`: a later attempt of the same request stands for it. `linked`: the failure of one of our own replays; its
root stands for it.
"""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """What is known of a failure's way back."""

    CAPTURED = "captured"
    INFLIGHT = "inflight"
    RESOLVED = "resolved"
    FAILED = "failed"
    QUARANTINED = "quarantined"
    AMBIGUOUS = "ambiguous"
    SUPERSEDED = "superseded"
    LINKED = "linked"


class Step(StrEnum):
    """What can happen to a failure."""

    CLAIM = "claim"
    SUCCEED = "succeed"
    FAIL = "fail"
    GIVE_UP = "give up"
    LOSE = "lose"
    SUPERSEDE = "supersede"
    LINK = "link"
    REOPEN = "reopen"


_RULES: dict[Step, dict[Status, Status]] = {
    Step.CLAIM: {
        Status.CAPTURED: Status.INFLIGHT,
        Status.FAILED: Status.INFLIGHT,
        Status.AMBIGUOUS: Status.INFLIGHT,
    },
    Step.SUCCEED: {Status.INFLIGHT: Status.RESOLVED},
    # An asynchronous replay counts as resolved when it is accepted; its failure comes by way of the sidecar.
    Step.FAIL: {Status.INFLIGHT: Status.FAILED, Status.RESOLVED: Status.FAILED},
    Step.GIVE_UP: {Status.INFLIGHT: Status.QUARANTINED, Status.RESOLVED: Status.QUARANTINED},
    Step.LOSE: {Status.INFLIGHT: Status.AMBIGUOUS},
    Step.SUPERSEDE: {Status.CAPTURED: Status.SUPERSEDED},
    Step.LINK: {Status.CAPTURED: Status.LINKED, Status.SUPERSEDED: Status.LINKED},
    # A person looked at it and lets it run again.
    Step.REOPEN: {
        Status.QUARANTINED: Status.CAPTURED,
        Status.AMBIGUOUS: Status.CAPTURED,
        Status.FAILED: Status.CAPTURED,
    },
}


class NotAllowed(ValueError):
    """The step does not lead anywhere from this status."""


def after(status: Status, step: Step) -> Status:
    """Return the status after a step. Raises NotAllowed."""
    try:
        return _RULES[step][status]
    except KeyError:
        raise NotAllowed(f"a failure that is {status} cannot {step}") from None


def sources(step: Step) -> tuple[Status, ...]:
    """Return the statuses a step starts from."""
    return tuple(_RULES[step])


def after_failed_replay(attempts: int, quarantine_after: int) -> Step:
    """Return what a failed replay comes to, when `attempts` replays failed in all, this one included."""
    return Step.GIVE_UP if attempts >= quarantine_after else Step.FAIL
