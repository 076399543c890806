"""SigV4 as botocore does it: the oracle signs the same request at the same moment, and every header must be equal."""

from __future__ import annotations

import datetime
import string
from unittest import mock
from urllib.parse import quote

import botocore.auth
import botocore.credentials
import pytest
from botocore.awsrequest import AWSRequest
from hypothesis import given
from hypothesis import strategies as st

from extension import sigv4

HOST = "sqs.eu-west-1.amazonaws.com"

dates = st.datetimes(datetime.datetime(2000, 1, 1), datetime.datetime(2099, 12, 31)).map(
    lambda moment: moment.replace(microsecond=0, tzinfo=datetime.UTC)
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
segments = texts | st.sampled_from([".", "..", "", "a b", "%", "~", "é"])
paths = st.lists(segments, max_size=5).map(lambda parts: "/" + "/".join(quote(part, safe="") for part in parts))
words = texts.map(lambda word: quote(word, safe=""))
queries = st.lists(st.tuples(words.filter(bool), words), max_size=5).map(
    lambda pairs: "&".join(f"{name}={value}" for name, value in pairs)
)
tokens = st.none() | st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=60)
secrets = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40)
printable = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20)
header_values = printable | st.sampled_from(["  a   b  ", "\ta\t b"])
header_names = st.text(string.ascii_letters + "-", min_size=1, max_size=10).map(lambda name: "X-Own-" + name)
header_lists = st.dictionaries(header_names, header_values, max_size=4).map(
    lambda fields: list({name.lower(): (name, value) for name, value in fields.items()}.values())
)


def by_botocore(
    service: str,
    method: str,
    target: str,
    headers: sigv4.Headers,
    body: bytes,
    keys: sigv4.Credentials,
    moment: datetime.datetime,
) -> dict[str, str]:
    auth = botocore.auth.S3SigV4Auth if service == "s3" else botocore.auth.SigV4Auth
    request = AWSRequest(method=method, url=f"https://{HOST}{target}", data=body, headers=dict(headers))
    credentials = botocore.credentials.Credentials(keys.access_key_id, keys.secret_access_key, keys.session_token)
    with mock.patch("botocore.auth.get_current_datetime", return_value=moment):
        auth(credentials, service, "eu-west-1").add_auth(request)
    return {name.lower(): value for name, value in request.headers.items()}


@pytest.mark.parametrize("service", ["sqs", "s3"])
@given(
    method=st.sampled_from(["POST", "GET", "PUT"]),
    path=paths,
    query=queries,
    headers=header_lists,
    body=st.binary(max_size=200),
    secret=secrets,
    token=tokens,
    moment=dates,
)
def test_signs_as_botocore_does(
    service: str,
    method: str,
    path: str,
    query: str,
    headers: sigv4.Headers,
    body: bytes,
    secret: str,
    token: str | None,
    moment: datetime.datetime,
) -> None:
    keys = sigv4.Credentials("AKIDEXAMPLE", secret, token)
    target = f"{path}?{query}" if query else path
    theirs = by_botocore(service, method, target, headers, body, keys, moment)
    signed = [("Host", HOST), *headers]

    ours = sigv4.Signer("eu-west-1", service).sign(
        keys, method, path, query, signed, sigv4.sha256_hex(body), moment.timestamp()
    )

    for name, value in ours:
        assert theirs[name.lower()] == value, name
    assert {name.lower() for name, _ in ours} >= {"authorization", "x-amz-date"}


def test_same_named_headers_are_joined_in_order() -> None:
    lines, names = sigv4.canonical_headers([("B", " 2 "), ("a", "1"), ("b", "3   4")])
    assert lines == "a:1\nb:2,3 4\n"
    assert names == "a;b"


def test_the_derived_key_follows_the_day_and_the_secret() -> None:
    signer = sigv4.Signer("eu-west-1", "sqs")

    def signature(secret: str, now: float) -> str:
        headers = signer.sign(sigv4.Credentials("A", secret), "GET", "/", "", [("Host", HOST)], "00", now)
        return dict(headers)["Authorization"]

    first = signature("one", 1_700_000_000)
    assert signature("two", 1_700_000_000) != first
    assert signature("one", 1_700_000_000 + 86_400) != first
    assert signature("one", 1_700_000_000) == first


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_percent_encoding_is_that_of_the_aws_page(text: str) -> None:
    assert sigv4.percent_encode(text) == quote(text, safe="-._~")
