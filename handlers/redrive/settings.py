"""Settings of the redrive handlers, read once from the environment and passed down."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field


class BadSettings(ValueError):
    """A setting is missing or wrong; the text says which and what to do."""


@dataclass(frozen=True, slots=True)
class Settings:
    """`table` is required. `bucket` takes events over 300 KB, lists of ids and reports. `bad_queue_url` takes
    records that cannot be read.

    `retention_days`: after so long items expire. `dlq_functions`: dead-letter queue ARN → function ARN, for Lambda DLQs.
    """

    table: str
    bucket: str | None = None
    bad_queue_url: str | None = None
    retention_days: int = 30
    dlq_functions: Mapping[str, str] = field(default_factory=dict)
    replay_machine_arn: str | None = None
    queue_machine_arn: str | None = None
    kept_entries_days: int = 90

    @property
    def retention_s(self) -> int:
        """How long a failure is kept, in seconds."""
        return self.retention_days * 86_400


def from_environment(environ: Mapping[str, str]) -> Settings:
    """Read BACKSTOP_TABLE, _BUCKET, _BAD_QUEUE_URL, _RETENTION_DAYS, _DLQ_FUNCTIONS (JSON), _REPLAY_MACHINE_ARN,
    _QUEUE_MACHINE_ARN.

    Raises BadSettings.
    """
    table = environ.get("BACKSTOP_TABLE")
    if not table:
        raise BadSettings("BACKSTOP_TABLE is not set: it names the DynamoDB table of the failures")
    days = environ.get("BACKSTOP_RETENTION_DAYS", "30")
    if not days.isdigit() or not 1 <= int(days) <= 3650:
        raise BadSettings("BACKSTOP_RETENTION_DAYS must be a whole number of days, 1 to 3650")
    try:
        functions = json.loads(environ.get("BACKSTOP_DLQ_FUNCTIONS") or "{}")
    except ValueError:
        functions = None
    if not isinstance(functions, dict) or not all(isinstance(arn, str) for arn in functions.values()):
        raise BadSettings("BACKSTOP_DLQ_FUNCTIONS must be a JSON object: queue ARN → function ARN")
    return Settings(
        table=table,
        bucket=environ.get("BACKSTOP_BUCKET") or None,
        bad_queue_url=environ.get("BACKSTOP_BAD_QUEUE_URL") or None,
        retention_days=int(days),
        dlq_functions=functions,
        replay_machine_arn=environ.get("BACKSTOP_REPLAY_MACHINE_ARN") or None,
        queue_machine_arn=environ.get("BACKSTOP_QUEUE_MACHINE_ARN") or None,
    )
