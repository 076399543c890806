"""What a customer configures, and the limits of Lambda that apply to it. Every value here is read-only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

MEBIBYTE = 1024 * 1024


class Mode(StrEnum):
    """How the environment is initialized: the values of AWS_LAMBDA_INITIALIZATION_TYPE."""

    ON_DEMAND = "on-demand"
    PROVISIONED = "provisioned-concurrency"
    SNAP_START = "snap-start"
    MANAGED = "lambda-managed-instances"


@dataclass(frozen=True, slots=True)
class Function:
    """A function as deployed: folders that become /var/task, /var/runtime and /opt, and its settings.

    `timeout_s` in seconds, `memory_mb` in MiB. `concurrency` is the number of invocations at a time in Managed Instances mode,
    and unused elsewhere. `log_format` is `Text` or `JSON`, as in the function's logging configuration.
    """

    task: Path
    runtime: Path | None = None
    opt: Path | None = None
    handler: str = "index.handler"
    name: str = "function"
    version: str = "$LATEST"
    region: str = "eu-central-1"
    account_id: str = "123456789012"
    timeout_s: float = 3.0
    memory_mb: int = 128
    mode: Mode = Mode.ON_DEMAND
    concurrency: int = 1
    log_format: str = "Text"
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def arn(self) -> str:
        """The unqualified ARN that invocations name."""
        return f"arn:aws:lambda:{self.region}:{self.account_id}:function:{self.name}"

    @property
    def managed(self) -> bool:
        return self.mode is Mode.MANAGED


@dataclass(frozen=True, slots=True)
class Limits:
    """Lambda's quotas and time limits ("Lambda quotas", "Using the Lambda Extensions API"). Seconds and bytes."""

    init_s: float = 10.0
    # Provisioned concurrency, SnapStart and Managed Instances: at least this, or the function's timeout.
    long_init_s: float = 130.0
    restore_hook_s: float = 10.0
    shutdown_external_s: float = 2.0
    shutdown_internal_s: float = 0.5
    # The runtime's part of the shutdown's time. AWS's page says 300 ms of 2 s; its emulator gives 30 %.
    shutdown_runtime_share: float = 0.15
    max_extensions: int = 10
    # As in AWS's own source: 6 MiB and room for an envelope.
    max_payload: int = 6 * MEBIBYTE + 100
    max_streamed: int = 200 * MEBIBYTE
    # Not documented; what a slow subscriber may have waiting before records are dropped.
    telemetry_backlog_batches: int = 8
    telemetry_attempts: int = 5
    telemetry_first_backoff_s: float = 0.05
    telemetry_call_s: float = 5.0
    # Not documented: the time from the last /next to the freeze.
    freeze_after_s: float = 0.01

    def init_limit_s(self, function: Function) -> float:
        """How long the initialization may take."""
        if function.mode is Mode.ON_DEMAND:
            return self.init_s
        return max(self.long_init_s, min(function.timeout_s, 900.0))

    def shutdown_limit_s(self, external: int, internal: int) -> float:
        """How long the shutdown may take, for that many extensions of each kind."""
        if external:
            return self.shutdown_external_s
        return self.shutdown_internal_s if internal else 0.0
