"""Settings: what each variable takes, what it is without one, and that no text in the environment ever raises."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from extension.redact import parse_rule
from extension.settings import LAUNCHED, PREFIX, SPECS, Settings, region_of_queue

QUEUE = "https://sqs.eu-west-1.amazonaws.com/123456789012/failures"

DEFAULTS: dict[str, Any] = {
    "DISABLE": False,
    "QUEUE_URL": None,
    "CAPTURE": "payload",
    "LOG_TAIL_LINES": 20,
    "LOG_WAIT_MS": 100,
    "BUCKET": None,
    "BUCKET_KMS_KEY_ID": None,
    "REDACT": (),
    "CAPTURE_PARTIAL_BATCH": False,
    "CAPTURE_HTTP_5XX": False,
    "MAX_RECORDS_PER_MINUTE": 0,
    "TAGS": {},
    "SHIP_BUDGET_MS": 2_000,
    "STATE_DIR": "/tmp/.backstop",
    "SPOOL_BYTES": 64 << 20,
    "MEMORY_BYTES": 32 << 20,
    "LAST_RESORT": "metadata",
    "PROXY_PORT": 9009,
    "PROXY_UPSTREAM": None,
    "TELEMETRY_PORT": 9010,
    "NEXT_WRAPPER": None,
    "LOG_LEVEL": "info",
}

GOOD: list[tuple[str, str, Any]] = [
    ("DISABLE", "1", True),
    ("DISABLE", "true", True),
    ("DISABLE", "YES", True),
    ("DISABLE", "on", True),
    ("DISABLE", "0", False),
    ("DISABLE", "False", False),
    ("DISABLE", "no", False),
    ("DISABLE", "off", False),
    ("QUEUE_URL", QUEUE, QUEUE),
    ("QUEUE_URL", f" {QUEUE}/\n", QUEUE),
    ("QUEUE_URL", "http://127.0.0.1:4566/000000000000/q", "http://127.0.0.1:4566/000000000000/q"),
    ("CAPTURE", "metadata", "metadata"),
    ("CAPTURE", "OFF", "off"),
    ("LOG_TAIL_LINES", "0", 0),
    ("LOG_TAIL_LINES", "1000", 1_000),
    ("LOG_WAIT_MS", "0", 0),
    ("LOG_WAIT_MS", "2000", 2_000),
    ("BUCKET", "failures.example-1", "failures.example-1"),
    ("BUCKET_KMS_KEY_ID", "alias/failures", "alias/failures"),
    ("REDACT", "$.card, password ,", (parse_rule("$.card"), parse_rule("password"))),
    ("CAPTURE_PARTIAL_BATCH", "1", True),
    ("CAPTURE_HTTP_5XX", "on", True),
    ("MAX_RECORDS_PER_MINUTE", "600", 600),
    ("TAGS", "team:payments,env:prod", {"team": "payments", "env": "prod"}),
    ("TAGS", " a : b , ,c:d:e,", {"a": "b", "c": "d:e"}),
    ("TAGS", "a:", {"a": ""}),
    ("TAGS", "a:b,a:c", {"a": "c"}),
    ("SHIP_BUDGET_MS", "0", 0),
    ("SHIP_BUDGET_MS", "10000", 10_000),
    ("STATE_DIR", "/var/state/", "/var/state"),
    ("STATE_DIR", "/", "/"),
    ("SPOOL_BYTES", "0", 0),
    ("SPOOL_BYTES", "10000000000", 10_000_000_000),
    ("MEMORY_BYTES", "65536", 65_536),
    ("MEMORY_BYTES", "4000000000", 4_000_000_000),
    ("MEMORY_BYTES", "0000065536", 65_536),
    ("LAST_RESORT", "Masked", "masked"),
    ("LAST_RESORT", "off", "off"),
    ("PROXY_PORT", "0", 0),
    ("PROXY_PORT", "65535", 65_535),
    ("PROXY_UPSTREAM", "127.0.0.1:9100", ("127.0.0.1", 9_100)),
    ("PROXY_UPSTREAM", "other-vendor:1", ("other-vendor", 1)),
    ("PROXY_UPSTREAM", "[::1]:9100", ("::1", 9_100)),
    ("TELEMETRY_PORT", "1", 1),
    ("NEXT_WRAPPER", "/opt/other-wrapper", "/opt/other-wrapper"),
    ("LOG_LEVEL", "WARNING", "warning"),
    ("LOG_LEVEL", "error", "error"),
]

NO_NUMBERS = ["x", "-1", "+1", "1.0", "1e3", "0x10", "1_0", "٣", "1 0", "9" * 13, "9" * 5_000, "0" * 12 + "9" * 12]

BAD: list[tuple[str, str]] = [
    ("DISABLE", "2"),
    ("DISABLE", "disable"),
    ("QUEUE_URL", "failures"),
    ("QUEUE_URL", "arn:aws:sqs:eu-west-1:123456789012:failures"),
    ("QUEUE_URL", "https://sqs.eu-west-1.amazonaws.com/"),
    ("QUEUE_URL", "https://sqs.eu-west-1.amazonaws.com/123456789012"),
    ("QUEUE_URL", "https://"),
    ("QUEUE_URL", "http:///"),
    ("QUEUE_URL", "https:///123456789012/failures"),
    ("QUEUE_URL", "ftp://a/b/c"),
    ("QUEUE_URL", "https://sqs.eu-west-1.amazonaws.com/123456789012/fail ures"),
    ("QUEUE_URL", "https://sqs.eu-west-1.amazonaws.com/123456789012/a\r\nX-Evil: 1"),
    ("CAPTURE", "all"),
    ("LOG_TAIL_LINES", "1001"),
    ("LOG_WAIT_MS", "2001"),
    ("BUCKET", "arn:aws:s3:::failures"),
    ("BUCKET", "Failures"),
    ("BUCKET", "ab"),
    ("BUCKET", "-abc"),
    ("REDACT", "$.a["),
    ("REDACT", "$"),
    ("CAPTURE_PARTIAL_BATCH", "SQS"),
    ("CAPTURE_HTTP_5XX", "500"),
    ("MAX_RECORDS_PER_MINUTE", "many"),
    ("TAGS", "team"),
    ("TAGS", ":payments"),
    ("TAGS", "team:payments;env"[5:]),
    ("SHIP_BUDGET_MS", "10001"),
    ("STATE_DIR", "state"),
    ("STATE_DIR", "./state"),
    ("STATE_DIR", "/a\0b"),
    ("SPOOL_BYTES", "10000000001"),
    ("MEMORY_BYTES", "65535"),
    ("MEMORY_BYTES", "0"),
    ("MEMORY_BYTES", "4000000001"),
    ("LAST_RESORT", "payload"),
    ("PROXY_PORT", "65536"),
    ("PROXY_PORT", "0" * 12 + "99999"),
    ("PROXY_UPSTREAM", "127.0.0.1"),
    ("PROXY_UPSTREAM", ":9100"),
    ("PROXY_UPSTREAM", "127.0.0.1:0"),
    ("PROXY_UPSTREAM", "127.0.0.1:65536"),
    ("PROXY_UPSTREAM", "127.0.0.1:000001999999"),
    ("PROXY_UPSTREAM", "http://127.0.0.1:9100/"),
    ("TELEMETRY_PORT", "any"),
    ("LOG_LEVEL", "verbose"),
    *[
        (name, text)
        for name in ("LOG_TAIL_LINES", "LOG_WAIT_MS", "SHIP_BUDGET_MS", "SPOOL_BYTES", "MEMORY_BYTES", "PROXY_PORT")
        for text in NO_NUMBERS
    ],
]


def attribute(settings: Settings, name: str) -> Any:
    return getattr(settings, name.lower())


def problems(settings: Settings) -> list[str]:
    return [problem.name for problem in settings.problems]


def test_every_setting_is_in_these_tables() -> None:
    names = {spec.name for spec in SPECS}
    assert names == set(DEFAULTS)
    assert names == {name for name, _, _ in GOOD}
    assert names == {name for name, _ in BAD} | {
        "NEXT_WRAPPER",
        "BUCKET_KMS_KEY_ID",
    }  # any text is a path (the wrapper falls back); any text names a key (KMS judges)


def test_every_setting_says_what_it_takes_and_means() -> None:
    for spec in SPECS:
        assert spec.kind
        assert spec.meaning.endswith(".")


@pytest.mark.parametrize("text", [None, "", "  \t"])
def test_without_a_value_a_setting_has_its_default(text: str | None) -> None:
    settings = Settings({} if text is None else {PREFIX + name: text for name in DEFAULTS})
    assert {name: attribute(settings, name) for name in DEFAULTS} == DEFAULTS
    assert problems(settings) == []
    assert settings.unknown == []


@pytest.mark.parametrize(("name", "text", "value"), GOOD, ids=lambda part: ascii(part)[:40])
def test_what_a_setting_takes(name: str, text: str, value: Any) -> None:
    settings = Settings({PREFIX + name: text})
    assert attribute(settings, name) == value
    assert type(attribute(settings, name)) is type(value)
    assert problems(settings) == []


@pytest.mark.parametrize(("name", "text"), BAD, ids=lambda part: ascii(part)[:40])
def test_what_it_does_not_take_is_said_and_the_default_used(name: str, text: str) -> None:
    settings = Settings({PREFIX + name: text})
    assert attribute(settings, name) == DEFAULTS[name]
    assert problems(settings) == [PREFIX + name]
    assert "default" in settings.problems[0].why


def test_one_bad_value_leaves_the_others_alone() -> None:
    settings = Settings({"BACKSTOP_LOG_WAIT_MS": "soon", "BACKSTOP_QUEUE_URL": QUEUE, "BACKSTOP_CAPTURE": "metadata"})
    assert problems(settings) == ["BACKSTOP_LOG_WAIT_MS"]
    assert (settings.queue_url, settings.capture, settings.log_wait_ms) == (QUEUE, "metadata", 100)


def test_names_that_nobody_knows_are_listed() -> None:
    settings = Settings(
        {"BACKSTOP_QUEUE": "x", "BACKSTOP_": "", "BACKSTOP_queue_url": "x", LAUNCHED: "1", "OTHER": "x"}
    )
    assert settings.unknown == ["BACKSTOP_", "BACKSTOP_QUEUE", "BACKSTOP_queue_url"]


# What AWS sets


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        pytest.param({}, None, id="nothing"),
        pytest.param({"AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9001"}, ("127.0.0.1", 9001), id="as Lambda sets it"),
        pytest.param({"AWS_LAMBDA_RUNTIME_API": "169.254.100.1:9001"}, ("169.254.100.1", 9001), id="link-local"),
        pytest.param({"AWS_LAMBDA_RUNTIME_API": "localhost"}, None, id="without a port"),
    ],
)
def test_where_the_runtime_api_is(environ: dict[str, str], expected: tuple[str, int] | None) -> None:
    assert Settings(environ).runtime_api == expected


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:5000"}, "http://127.0.0.1:5000"),
        ({"AWS_ENDPOINT_URL_SQS": "http://127.0.0.1:5001/"}, "http://127.0.0.1:5001"),
        ({"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_SQS": "http://b"}, "http://b"),
        ({"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_SQS": ""}, "http://a"),
        ({"AWS_ENDPOINT_URL": "localhost:4566"}, None),
        ({"AWS_ENDPOINT_URL": "https://"}, None),
    ],
)
def test_the_endpoint_of_sqs(environ: dict[str, str], expected: str | None) -> None:
    assert Settings(environ).endpoint_url_sqs == expected


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"AWS_REGION": "us-east-1"}, "us-east-1"),
        ({"AWS_DEFAULT_REGION": "us-east-2"}, "us-east-2"),
        ({"AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-2"}, "us-east-1"),
        ({"AWS_REGION": "us-east-1", "BACKSTOP_QUEUE_URL": QUEUE}, "eu-west-1"),
        ({"AWS_REGION": "us-east-1", "BACKSTOP_QUEUE_URL": "http://127.0.0.1:4566/000000000000/q"}, "us-east-1"),
    ],
)
def test_the_region_is_the_queues_own(environ: dict[str, str], expected: str | None) -> None:
    assert Settings(environ).region == expected


@pytest.mark.parametrize(
    ("url", "region"),
    [
        (None, None),
        ("", None),
        (QUEUE, "eu-west-1"),
        ("https://sqs.us-gov-west-1.amazonaws.com/1/q", "us-gov-west-1"),
        ("https://sqs.cn-north-1.amazonaws.com.cn/1/q", "cn-north-1"),
        ("https://sqs-fips.us-east-1.amazonaws.com/1/q", "us-east-1"),
        ("https://sqs.eu-west-1.api.aws/1/q", "eu-west-1"),
        ("https://sqs-fips.us-east-2.api.aws/1/q", "us-east-2"),
        ("https://eu-west-1.queue.amazonaws.com/1/q", "eu-west-1"),
        ("https://queue.amazonaws.com/1/q", "us-east-1"),
        ("https://vpce-0a1-b2c.sqs.eu-west-1.vpce.amazonaws.com/1/q", "eu-west-1"),
        ("https://vpce-0a1-b2c-eu-west-1a.sqs.eu-west-1.vpce.amazonaws.com/1/q", "eu-west-1"),
        ("https://vpce-0a1-b2c.sqs.cn-north-1.vpce.amazonaws.com.cn/1/q", "cn-north-1"),
        ("https://SQS.eu-west-1.amazonaws.com/1/q", "eu-west-1"),
        ("https://sqs.eu-west-1.amazonaws.com:443/1/q", "eu-west-1"),
        ("http://sqs.eu-west-1.localhost.localstack.cloud:4566/1/q", None),
        ("http://localhost:4566/1/q", None),
        ("http://127.0.0.1:9324/queue/q", None),
        ("http://[::1]:9324/queue/q", None),
        ("https://sqs.example.com/1/q", None),
    ],
)
def test_the_region_in_a_queues_url(url: str | None, region: str | None) -> None:
    assert region_of_queue(url) == region


@pytest.mark.parametrize(
    ("kind", "managed"),
    [("lambda-managed-instances", True), ("on-demand", False), ("snap-start", False), ("", False)],
)
def test_managed_instances_are_named_as_such(kind: str, managed: bool) -> None:
    assert Settings({"AWS_LAMBDA_INITIALIZATION_TYPE": kind}).managed_instances is managed


def test_the_function() -> None:
    settings = Settings({"AWS_LAMBDA_FUNCTION_NAME": "pay", "AWS_LAMBDA_FUNCTION_VERSION": "7"})
    assert (settings.function_name, settings.function_version) == ("pay", "7")
    assert (Settings({}).function_name, Settings({}).function_version) == ("", "$LATEST")


# Whatever is in the environment

NAMES = [PREFIX + spec.name for spec in SPECS] + [
    "AWS_LAMBDA_RUNTIME_API",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_SQS",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_LAMBDA_INITIALIZATION_TYPE",
]
TEXTS = st.one_of(
    st.text(max_size=30),
    st.text(alphabet=string.digits + ":/[].-+_ ", max_size=30),
    st.builds(
        "".join,
        st.lists(
            st.sampled_from(
                ["https://", "http://", "/", "sqs.", "eu-west-1", ".amazonaws.com", ":", "1", "?", "#", "@"]
            )
        ),
    ),
    st.sampled_from(["\udcff", "0" * 12 + "99999", "https://", "a:b"]),
)


@given(environ=st.dictionaries(st.sampled_from(NAMES), TEXTS, max_size=6))
@example(environ={"BACKSTOP_QUEUE_URL": "https://"})
def test_no_text_raises_and_every_value_is_one_that_the_setting_takes(environ: dict[str, str]) -> None:
    settings = Settings(environ)
    assert 0 <= settings.proxy_port < 65_536
    assert 0 <= settings.telemetry_port < 65_536
    assert 0 <= settings.log_tail_lines <= 1_000
    assert 0 <= settings.log_wait_ms <= 2_000
    assert 0 <= settings.ship_budget_ms <= 10_000
    assert 0 <= settings.spool_bytes <= 10_000_000_000
    assert 65_536 <= settings.memory_bytes <= 4_000_000_000
    assert settings.state_dir.startswith("/")
    for address in (settings.runtime_api, settings.proxy_upstream):
        assert address is None or (address[0] and 0 < address[1] < 65_536)
    for url in (settings.queue_url, settings.endpoint_url_sqs):
        assert url is None or url.startswith(("http://", "https://"))
    for name in problems(settings):
        assert name in NAMES


@given(url=TEXTS)
def test_any_queue_url_has_a_region_or_none(url: str) -> None:
    region_of_queue(url)


def test_with_a_redaction_that_cannot_be_read_no_event_is_stored() -> None:
    settings = Settings({"BACKSTOP_REDACT": "$.card,$.items["})
    assert settings.redact == ()
    assert settings.capture == "metadata"
    assert problems(settings) == ["BACKSTOP_REDACT"]
