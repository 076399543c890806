"""Where the keys come from: the environment, or Lambda's endpoint under SnapStart."""

from __future__ import annotations

import time

import pytest

from extension.credentials import NoCredentials, Source, parse
from tests.extension import wire_servers as servers

NOW = 1_800_000_000.0
FULL = {"AccessKeyId": "ASIA", "SecretAccessKey": "s", "Token": "t", "Expiration": "2027-01-15T09:00:00Z"}
EXPIRES = 1_800_003_600


def deadline() -> float:
    return time.monotonic() + 5


def keys(environ: dict[str, str]) -> tuple[str, str, str | None]:
    found = Source(environ, lambda: NOW).current(deadline())
    return found.access_key_id, found.secret_access_key, found.session_token


def test_the_environments_keys_are_read_each_time() -> None:
    environ = {"AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "t"}
    source = Source(environ)
    assert source.current(deadline()).session_token == "t"
    environ["AWS_SESSION_TOKEN"] = "u"
    assert source.current(deadline()).session_token == "u"
    assert keys({"AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "s"}) == ("A", "s", None)


@pytest.mark.parametrize(
    "environ", [{}, {"AWS_ACCESS_KEY_ID": "A"}, {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "s"}]
)
def test_without_keys_the_reason_is_told(environ: dict[str, str]) -> None:
    with pytest.raises(NoCredentials, match="AWS_ACCESS_KEY_ID"):
        keys(environ)


def test_snapstart_credentials_come_from_the_endpoint_with_its_token() -> None:
    with servers.StandIn(lambda _: servers.answer(200, FULL)) as server:
        environ = {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{server.url}/2021-04-23/credentials?x=y",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": "let me in",
        }
        source = Source(environ, lambda: NOW)
        for _ in range(3):
            assert source.current(deadline()).access_key_id == "ASIA"
        assert len(server.requests) == 1, "kept until shortly before they expire"
        assert server.requests[0].target == "/2021-04-23/credentials?x=y"
        assert server.requests[0].headers["authorization"] == "let me in"


def test_they_are_renewed_before_they_expire_and_used_until_then_if_that_fails() -> None:
    now = [NOW]
    later = {**FULL, "AccessKeyId": "NEXT", "Expiration": "2027-01-15T10:00:00Z"}
    responses = servers.in_turn(
        servers.answer(200, FULL), servers.answer(500, {}), servers.answer(500, {}), servers.answer(200, later)
    )
    with servers.StandIn(responses) as server:
        source = Source({"AWS_CONTAINER_CREDENTIALS_FULL_URI": server.url}, lambda: now[0])
        assert source.current(deadline()).access_key_id == "ASIA"
        now[0] = EXPIRES - 100
        assert source.current(deadline()).access_key_id == "ASIA"
        now[0] = EXPIRES + 1
        with pytest.raises(OSError, match="500"):
            source.current(deadline())
        assert source.current(deadline()).access_key_id == "NEXT"


def test_refused_keys_of_the_environment_give_way_to_the_endpoints() -> None:
    with servers.StandIn(lambda _: servers.answer(200, FULL)) as server:
        environ = {
            "AWS_ACCESS_KEY_ID": "OLD",
            "AWS_SECRET_ACCESS_KEY": "old",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": server.url,
        }
        source = Source(environ, lambda: NOW)
        old = source.current(deadline())
        assert old.access_key_id == "OLD"
        source.refuse(old)
        assert source.current(deadline()).access_key_id == "ASIA"


@pytest.mark.parametrize(
    "uri",
    [
        "http://169.254.169.254/x",
        "http://example.test/",
        "https://example.test/",
        "nonsense",
        "http://127.0.0.1.example.test/x",
    ],
)
def test_the_token_is_sent_to_this_machine_only(uri: str) -> None:
    with pytest.raises(NoCredentials, match="FULL_URI"):
        keys({"AWS_CONTAINER_CREDENTIALS_FULL_URI": uri, "AWS_CONTAINER_AUTHORIZATION_TOKEN": "secret"})


@pytest.mark.parametrize("status", [301, 400, 404])
def test_an_endpoint_that_gives_none(status: int) -> None:
    with (
        servers.StandIn(lambda _: servers.answer(status, {})) as server,
        pytest.raises(NoCredentials, match=str(status)),
    ):
        keys({"AWS_CONTAINER_CREDENTIALS_FULL_URI": server.url})


def test_an_endpoint_that_hangs_costs_a_second() -> None:
    with servers.Server(servers.hang_after_request) as server:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            keys({"AWS_CONTAINER_CREDENTIALS_FULL_URI": server.url})
        assert time.monotonic() - began < 1.8


@pytest.mark.parametrize("handler", [servers.not_http, servers.endless_body, servers.cut_in_body])
def test_an_endpoint_that_answers_nonsense(handler: servers.Handler) -> None:
    with servers.Server(handler) as server, pytest.raises(OSError, match="credentials endpoint"):
        keys({"AWS_CONTAINER_CREDENTIALS_FULL_URI": server.url})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"{}",
        b"\xff",
        b'{"AccessKeyId":1,"SecretAccessKey":"s","Token":"t","Expiration":"2027-01-15T09:00:00Z"}',
    ]
    + [b'{"AccessKeyId":"A","SecretAccessKey":"s","Token":"t","Expiration":5}', b'{"AccessKeyId":"A"}'],
)
def test_what_is_no_set_of_keys(body: bytes) -> None:
    with pytest.raises(NoCredentials):
        parse(body)


def test_the_answers_fields() -> None:
    credentials, expires = parse(servers.answer(200, FULL).partition(b"\r\n\r\n")[2])
    assert (credentials.access_key_id, credentials.secret_access_key, credentials.session_token) == ("ASIA", "s", "t")
    assert expires == EXPIRES
