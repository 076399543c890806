"""The functions that tests and demo deploy, and the few settings that attach the layer to one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.e2e.harness.roots import bash_root, node_root
from tests.e2e.harness.sandbox import Function

E2E = Path(__file__).parents[1]
SAMPLES = E2E.parents[1] / "samples"


def attached(queue_url: str, endpoint_url: str, **settings: str) -> dict[str, str]:
    """What attaches the layer to a function: the wrapper and the queue. `settings` are named without BACKSTOP_.

    Ports are free ones, since environments run side by side here; on AWS each has a network of its own.
    """
    chosen = {"QUEUE_URL": queue_url, "PROXY_PORT": "0", "TELEMETRY_PORT": "0", **settings}
    return {
        "AWS_LAMBDA_EXEC_WRAPPER": "/opt/backstop-wrapper",
        "AWS_ENDPOINT_URL_SQS": endpoint_url,
        **{f"BACKSTOP_{name}": value for name, value in chosen.items()},
    }


def node_function(
    layer: Path | None,
    environment: Mapping[str, str],
    *,
    code: str = "orders",
    timeout_s: int = 3,
    concurrency: int | None = None,
) -> Function:
    """A Node.js function on the managed runtime's imitation. `code` is `orders` (the sample) or a folder in functions/node."""
    task = SAMPLES / "node" if code == "orders" else E2E / "functions" / "node" / code
    runtime = E2E / "functions" / "node" / "runtime"
    return Function(node_root(), task, runtime, layer, environment, timeout_s, concurrency)


def bash_function(layer: Path | None, environment: Mapping[str, str], *, timeout_s: int = 3) -> Function:
    """The sample function in bash: a bootstrap of its own, one curl connection per call."""
    return Function(bash_root(), SAMPLES / "bash", None, layer, environment, timeout_s)
