"""Every setting, read once from the environment and passed down. A value that cannot be read is said and replaced by its default:
a typing error in a variable must not take a function down (DESIGN, rule 1).
"""

from __future__ import annotations

from extension import net

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from extension.redact import Rule

PREFIX = "BACKSTOP_"


class Spec:
    """One setting: its name without the prefix, how its text is read, its default as text, and what it means."""

    __slots__ = ("default", "kind", "meaning", "name", "read")

    def __init__(self, name: str, kind: str, read: Callable[[str], Any], default: str, meaning: str) -> None:
        self.name = name
        self.kind = kind
        self.read = read
        self.default = default
        self.meaning = meaning


class Problem:
    """A setting whose text could not be read."""

    __slots__ = ("name", "why")

    def __init__(self, name: str, why: str) -> None:
        self.name = name
        self.why = why


def _text(text: str) -> str | None:
    return text or None


def _flag(text: str) -> bool:
    lowered = text.lower()
    if lowered in ("1", "true", "yes", "on"):
        return True
    if lowered in ("0", "false", "no", "off", ""):
        return False
    raise ValueError("use 1 or 0")


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or len(text) > 12 or not low <= int(text) <= high:
            raise ValueError(f"use a whole number from {low} to {high}")
        return int(text)

    return read


def _choice(*allowed: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text.lower() not in allowed:
            raise ValueError(f"use one of {', '.join(allowed)}")
        return text.lower()

    return read


def _tags(text: str) -> dict[str, str]:
    tags: dict[str, str] = {}
    for pair in filter(None, (piece.strip() for piece in text.split(","))):
        key, colon, value = pair.partition(":")
        if not colon or not key.strip():
            raise ValueError("use key:value,key:value")
        tags[key.strip()] = value.strip()
    return tags


def _redact(text: str) -> tuple[Rule, ...]:
    if not text:
        return ()
    from extension.redact import parse_rule

    try:
        return tuple(parse_rule(rule.strip()) for rule in text.split(",") if rule.strip())
    except ValueError as error:
        raise ValueError(f"{error}; no event is stored until this can be read") from None


def _url(text: str) -> str | None:
    if not text:
        return None
    scheme, _, rest = text.partition("://")
    host = rest.partition("/")[0]
    if scheme not in ("https", "http") or not host:
        raise ValueError("use a URL that begins with https:// (or http:// for a local endpoint) and a host")
    if not text.isascii() or not text.isprintable() or any(sign in text for sign in " ?#@"):
        raise ValueError("use a URL without spaces, control characters, user, query or fragment")
    return text.rstrip("/")


def _queue_url(text: str) -> str | None:
    url = _url(text)
    if url is not None and url.partition("://")[2].count("/") < 2:
        raise ValueError("use the queue's URL, https://sqs.REGION.amazonaws.com/ACCOUNT/NAME, not its name or ARN")
    return url


def _bucket(text: str) -> str | None:
    if text and (not 3 <= len(text) <= 63 or not _BUCKET_CHARACTERS.issuperset(text) or not text[0].isalnum()):
        raise ValueError("use the bucket's name: 3 to 63 of a-z, 0-9, dots and hyphens, not its ARN or URL")
    return text or None


def _folder(text: str) -> str:
    if not text.startswith("/") or "\0" in text:
        raise ValueError("use an absolute path")
    return text.rstrip("/") or "/"


def _address(text: str) -> tuple[str, int] | None:
    return net.split_address(text) if text else None


_BUCKET_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-")
_PORT = _whole(0, 65_535)

SPECS: tuple[Spec, ...] = (
    Spec("DISABLE", "0 or 1", _flag, "0", "1 makes the sidecar idle and the wrapper a plain exec."),
    Spec(
        "QUEUE_URL",
        "URL",
        _queue_url,
        "",
        "The SQS queue that takes the failure records. Without it they end as last-resort lines.",
    ),
    Spec(
        "BUCKET",
        "name",
        _bucket,
        "",
        "The S3 bucket for events that are too large for the queue (1 MiB with everything). Without it they are cut and marked.",
    ),
    Spec(
        "BUCKET_KMS_KEY_ID",
        "key id or ARN",
        _text,
        "",
        "The KMS key for those objects, if it is not the bucket's own default.",
    ),
    Spec(
        "CAPTURE",
        "payload, metadata or off",
        _choice("payload", "metadata", "off"),
        "payload",
        "What is kept of a failed invocation: with its event, without it, or nothing.",
    ),
    Spec(
        "LOG_TAIL_LINES",
        "0 to 1000",
        _whole(0, 1_000),
        "20",
        "How many of the invocation's last log lines go into its record.",
    ),
    Spec(
        "LOG_WAIT_MS",
        "0 to 2000",
        _whole(0, 2_000),
        "100",
        "How long a record waits for the log lines that are still on their way, in ms.",
    ),
    Spec(
        "REDACT",
        "JSON paths and key names",
        _redact,
        "",
        "What is cut out of an event before it is stored, for example $.headers.authorization,$.items[*].card,password. "
        "A bare name means that key anywhere.",
    ),
    Spec(
        "CAPTURE_PARTIAL_BATCH",
        "0 or 1",
        _flag,
        "0",
        "1 records the items that a function reports in batchItemFailures.",
    ),
    Spec(
        "CAPTURE_HTTP_5XX",
        "0 or 1",
        _flag,
        "0",
        "1 records an HTTP status of 500 and more in an answer to API Gateway, a load balancer or a function URL.",
    ),
    Spec(
        "MAX_RECORDS_PER_MINUTE",
        "number",
        _whole(0, 1_000_000),
        "0",
        "More failures than this in a minute, in one environment, are counted in the next record instead of recorded. 0: no bound.",
    ),
    Spec("TAGS", "key:value,...", _tags, "", "Put into every record, for example team:payments,env:prod."),
    Spec(
        "SHIP_BUDGET_MS",
        "0 to 10000",
        _whole(0, 10_000),
        "2000",
        "How long a failed invocation may be held for its record to be sent, in ms; never past the deadline less 200 ms.",
    ),
    Spec(
        "STATE_DIR",
        "folder",
        _folder,
        "/tmp/.backstop",
        "Where the spool, the proxy's address and the runtime's process id are.",
    ),
    Spec(
        "SPOOL_BYTES",
        "bytes",
        _whole(0, 10_000_000_000),
        "67108864",
        "The spool's bound on disk; over it the oldest record is dropped and counted.",
    ),
    Spec(
        "MEMORY_BYTES",
        "bytes",
        _whole(65_536, 4_000_000_000),
        "33554432",
        "The bound of all kept events together; what goes over it is cut in the record and marked.",
    ),
    Spec(
        "LAST_RESORT",
        "metadata, masked or off",
        _choice("metadata", "masked", "off"),
        "metadata",
        "What the log line holds that is printed at shutdown for a record that could not be sent: "
        "no payload, the payload up to 200 KB with secret keys masked, or no line at all.",
    ),
    Spec(
        "PROXY_PORT",
        "port",
        _PORT,
        "9009",
        "Where the runtime finds the proxy, on 127.0.0.1. 0, or a port that is taken: a free one.",
    ),
    Spec(
        "PROXY_UPSTREAM",
        "host:port",
        _address,
        "",
        "Where the proxy sends on to, if not to Lambda: another vendor's proxy.",
    ),
    Spec(
        "TELEMETRY_PORT",
        "port",
        _PORT,
        "9010",
        "Where Lambda delivers telemetry. 0, or a port that is taken: a free one.",
    ),
    Spec("NEXT_WRAPPER", "path", _text, "", "Another vendor's exec wrapper, run after ours."),
    Spec(
        "LOG_LEVEL",
        "info, warning or error",
        _choice("info", "warning", "error"),
        "info",
        "Which of its own lines the sidecar prints.",
    ),
)


class Settings:
    """The settings, and what the sidecar needs to know of its environment. `problems` lists what could not be read."""

    __slots__ = (
        "account_id",
        "bucket",
        "bucket_kms_key_id",
        "capture",
        "capture_http_5xx",
        "capture_partial_batch",
        "disable",
        "endpoint_url_s3",
        "endpoint_url_sqs",
        "function_name",
        "function_version",
        "last_resort",
        "log_level",
        "log_tail_lines",
        "log_wait_ms",
        "managed_instances",
        "max_records_per_minute",
        "memory_bytes",
        "next_wrapper",
        "own_region",
        "problems",
        "proxy_port",
        "proxy_upstream",
        "queue_url",
        "redact",
        "region",
        "runtime_api",
        "ship_budget_ms",
        "spool_bytes",
        "state_dir",
        "tags",
        "telemetry_port",
        "unknown",
    )

    disable: bool
    queue_url: str | None
    bucket: str | None
    bucket_kms_key_id: str | None
    capture: str
    log_tail_lines: int
    log_wait_ms: int
    redact: tuple[Rule, ...]
    capture_partial_batch: bool
    capture_http_5xx: bool
    max_records_per_minute: int
    tags: dict[str, str]
    ship_budget_ms: int
    state_dir: str
    spool_bytes: int
    memory_bytes: int
    last_resort: str
    proxy_port: int
    proxy_upstream: tuple[str, int] | None
    telemetry_port: int
    next_wrapper: str | None
    log_level: str

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Read every setting from `environ`; never raises for a bad value: see `problems` and `unknown`."""
        self.problems: list[Problem] = []
        known: set[str] = set()
        for spec in SPECS:
            known.add(spec.name)
            self._set(spec.name.lower(), spec, PREFIX + spec.name, environ)
        if any(problem.name == PREFIX + "REDACT" for problem in self.problems) and self.capture == "payload":
            self.capture = "metadata"
        self.unknown = sorted(
            name
            for name in environ
            if name.startswith(PREFIX) and name[len(PREFIX) :] not in known and name not in (LAUNCHED, IDENTIFIER)
        )
        self.runtime_api = _read_or(self.problems, "AWS_LAMBDA_RUNTIME_API", _address, environ, None)
        self.endpoint_url_sqs = self._endpoint("SQS", environ)
        self.endpoint_url_s3 = self._endpoint("S3", environ)
        self.account_id = ""  # told at the registration
        self.own_region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
        self.region = region_of_queue(self.queue_url) or self.own_region
        self.function_name = environ.get("AWS_LAMBDA_FUNCTION_NAME", "")
        self.function_version = environ.get("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
        self.managed_instances = environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "lambda-managed-instances"

    def _endpoint(self, service: str, environ: Mapping[str, str]) -> str | None:
        variable = f"AWS_ENDPOINT_URL_{service}"
        url = environ.get(variable) or environ.get("AWS_ENDPOINT_URL") or ""
        endpoint: str | None = _read_or(self.problems, variable, _url, {variable: url}, None)
        return endpoint

    def _set(self, attribute: str, spec: Spec, variable: str, environ: Mapping[str, str]) -> None:
        setattr(self, attribute, _read_or(self.problems, variable, spec.read, environ, spec.read(spec.default)))


LAUNCHED = PREFIX + "LAUNCHED_NS"  # set by the launcher: CLOCK_MONOTONIC at its start, for the ready line
IDENTIFIER = PREFIX + "EXTENSION_ID"  # left for the launcher: should Python fail, its idle loop goes on under this id


def _read_or(
    problems: list[Problem], variable: str, read: Callable[[str], Any], environ: Mapping[str, str], default: Any
) -> Any:
    text = environ.get(variable, "").strip()
    if not text:
        return default
    try:
        return read(text)
    except ValueError as error:
        problems.append(Problem(variable, f"{error}; this value is ignored, the default is used"))
        return default


def region_of_queue(queue_url: str | None) -> str | None:
    """Return the region in an SQS queue's URL, or None: a queue in another region is signed for its own."""
    host = (queue_url or "").lower().partition("://")[2].partition("/")[0].partition(":")[0]
    labels = host.removesuffix(".cn").split(".")
    if labels == ["queue", "amazonaws", "com"]:
        return "us-east-1"  # the oldest form of all
    if len(labels) == 4 and labels[0] in ("sqs", "sqs-fips") and labels[2:] in (["amazonaws", "com"], ["api", "aws"]):
        return labels[1]
    if len(labels) == 4 and labels[1:] == ["queue", "amazonaws", "com"]:
        return labels[0]  # the legacy form, REGION.queue.amazonaws.com
    if len(labels) >= 5 and labels[-3:] == ["vpce", "amazonaws", "com"] and labels[-5] in ("sqs", "sqs-fips"):
        return labels[-4]
    return None
