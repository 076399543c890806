"""What is asked of a replay. One model for the state machine's input, the API and the command line."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import jmespath
from jmespath.exceptions import JMESPathError
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from handlers.redrive.dates import iso, seconds
from handlers.redrive.states import Status

MOST_IDS = 1000
RedriveId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Selection(_Strict):
    """Which failures: by ids, group, function, time; all that is given must hold. `where` is a JMESPath expression
    over the event."""

    ids: list[str] | None = Field(default=None, min_length=1, max_length=MOST_IDS)
    group: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")] | None = None
    function: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,140}$")] | None = None
    since: str | None = None
    until: str | None = None
    where: str | None = Field(default=None, max_length=4096)
    statuses: list[Status] | None = None
    limit: int | None = Field(default=None, ge=1)

    @field_validator("since", "until")
    @classmethod
    def _time(cls, value: str | None) -> str | None:
        return None if value is None else iso(seconds(value))

    @field_validator("where")
    @classmethod
    def _expression(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                jmespath.compile(value)
            except JMESPathError as error:
                raise ValueError(f"not a JMESPath expression: {error}") from None
        return value

    @model_validator(mode="after")
    def _something(self) -> Selection:
        if not (self.ids or self.group or self.function or self.since or self.until):
            raise ValueError("select by ids, group, function, since or until: everything at once is not a selection")
        return self


class FunctionTarget(_Strict):
    """Invoke the function itself, or another (ARN), at a version or alias. Asynchronous: accepted counts as resolved
    until it fails."""

    kind: Literal["function"] = "function"
    function: Annotated[str, StringConstraints(pattern=r"^arn:[a-z-]+:lambda:")] | None = None
    qualifier: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_$-]{1,128}$")] | None = None
    asynchronous: bool = False


class QueueTarget(_Strict):
    """Send the event as a message. Sent counts as resolved: from there on the queue owns retries."""

    kind: Literal["queue"]
    url: str


class BusTarget(_Strict):
    """Put the event on a bus as `detail`. Put counts as resolved."""

    kind: Literal["bus"]
    name: str
    source: str = "backstop.redrive"
    detailType: str = "ReplayedEvent"


class ReplayRequest(_Strict):
    """One replay. `toleratedFailurePercent` of the plan may fail before the rest is left alone."""

    redriveId: RedriveId | None = None
    select: Selection
    target: Annotated[FunctionTarget | QueueTarget | BusTarget, Field(discriminator="kind")] = FunctionTarget()
    canary: int = Field(default=1, ge=0, le=100)
    concurrency: int = Field(default=10, ge=1, le=1000)
    ratePerSecond: float | None = Field(default=None, gt=0, le=10_000)
    toleratedFailurePercent: float = Field(default=10, ge=0, le=100)
    quarantineAfter: int = Field(default=3, ge=1, le=100)
    streamMaximumAgeHours: float | None = Field(default=None, gt=0)
    force: bool = False
    confirmUnknown: bool = False
    rerunAmbiguous: bool = False
    dryRun: bool = False
    requestedBy: str | None = Field(default=None, max_length=256)


class ResumeRequest(_Strict):
    """Go on with a redrive whose execution ended before its work did."""

    resume: RedriveId
    rerunAmbiguous: bool = False


def parse_request(value: Any) -> ReplayRequest | ResumeRequest:
    """Return the request in a state machine's input. Raises pydantic's ValidationError."""
    if isinstance(value, dict) and "resume" in value:
        return ResumeRequest.model_validate(value)
    return ReplayRequest.model_validate(value)
