"""One HTTP exchange with peers that behave, and with ones that do not: an error in time, never more than the bounds."""

from __future__ import annotations

import datetime
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from extension import http1, tls
from extension.https import Connection, Endpoint
from tests.extension import wire_servers as servers

HEADERS = [("Host", "queue.test")]
SOON_S = 0.3
SLACK_S = 0.5  # a busy two-core machine


def deadline(seconds: float = 5.0) -> float:
    return time.monotonic() + seconds


_opened: list[Connection] = []


@pytest.fixture(autouse=True)
def _closed_afterwards() -> Iterator[None]:
    yield
    while _opened:
        _opened.pop().close()


def connection_to(url: str, context: tls.Context | None = None, body_limit: int = 262_144) -> Connection:
    _opened.append(Connection(Endpoint(url), context, body_limit))
    return _opened[-1]


# Endpoints


@pytest.mark.parametrize(
    ("url", "scheme", "host", "port", "authority", "base"),
    [
        ("https://sqs.eu-west-1.amazonaws.com", "https", "sqs.eu-west-1.amazonaws.com", 443, None, ""),
        ("https://SQS.test:443/", "https", "sqs.test", 443, "sqs.test", ""),
        ("http://localhost:4566", "http", "localhost", 4566, "localhost:4566", ""),
        ("http://localhost:80/a/b/", "http", "localhost", 80, "localhost", "/a/b"),
        ("http://[::1]:9324/x", "http", "::1", 9324, "[::1]:9324", "/x"),
        ("HTTP://[::1]", "http", "::1", 80, "[::1]", ""),
    ],
)
def test_endpoints(url: str, scheme: str, host: str, port: int, authority: str | None, base: str) -> None:
    endpoint = Endpoint(url)
    assert (endpoint.scheme, endpoint.host, endpoint.port) == (scheme, host, port)
    assert (endpoint.authority, endpoint.base) == (authority or host, base)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "sqs.test",
        "ftp://sqs.test",
        "https://",
        "https:///x",
        "https://u:p@sqs.test",
        "https://sqs.test?x",
        "http://a:b",
    ]
    + ["http://a:0", "http://a:99999", "http://a b", "http://é.test", "http://a\r\nX: y", "http://a/#f"],
)
def test_what_is_no_endpoint_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Endpoint(url)


# Peers that behave


def test_a_connection_is_used_again_until_it_is_closed() -> None:
    with servers.StandIn(lambda _: servers.answer(200, {})) as server:
        connection = connection_to(server.url)
        for _ in range(3):
            assert connection.exchange("POST", "/", HEADERS, b"{}", deadline()).body == b"{}"
        assert server.connections == 1
        connection.close()
        connection.exchange("GET", "/x?y", HEADERS, b"", deadline())
        connection.close()
        assert server.connections == 2
        assert server.requests[-1].target == "/x?y"
        assert "content-length" not in server.requests[-1].headers
        assert server.requests[0].headers["content-length"] == "2"


def test_a_server_that_closes_after_each_answer_gets_a_fresh_connection() -> None:
    with servers.StandIn(lambda _: servers.answer(200, {}, "Connection: close")) as server:
        connection = connection_to(server.url)
        for _ in range(3):
            assert connection.exchange("POST", "/", HEADERS, b"{}", deadline()).head.status == 200
        assert server.connections == 3


def test_an_idle_connection_that_the_server_dropped_is_replaced_once() -> None:
    def one_each(sock: socket.socket) -> None:
        servers.read_request(sock)
        sock.sendall(servers.answer(200, {}))  # promises to keep the connection, then does not

    with servers.Server(one_each) as server:
        connection = connection_to(server.url)
        for _ in range(3):
            assert connection.exchange("POST", "/", HEADERS, b"{}", deadline()).head.status == 200
        assert server.connections == 3


def test_interim_answers_are_passed_over() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    with servers.StandIn(lambda _: interim + servers.answer(200, {"a": 1})) as server:
        assert connection_to(server.url).exchange("POST", "/", HEADERS, b"{}", deadline()).body == b'{"a": 1}'


def test_chunked_and_until_close_answers_are_read_whole() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nX-T: 1\r\n\r\n"
    with servers.StandIn(lambda _: chunked) as server:
        connection = connection_to(server.url)
        for _ in range(2):
            assert connection.exchange("POST", "/", HEADERS, b"", deadline()).body == b"abcdefg"
        assert server.connections == 1

    def until_close(sock: socket.socket) -> None:
        servers.read_request(sock)
        sock.sendall(b"HTTP/1.0 200 OK\r\n\r\nabc")

    with servers.Server(until_close) as closing:
        assert connection_to(closing.url).exchange("POST", "/", HEADERS, b"", deadline()).body == b"abc"


def test_an_answer_that_comes_before_the_request_is_read_is_believed() -> None:
    def too_large(sock: socket.socket) -> None:
        sock.recv(100)
        sock.sendall(servers.answer(413, {}, "Connection: close"))
        sock.shutdown(socket.SHUT_WR)
        servers.until_closed(sock)

    with servers.Server(too_large) as server:
        answer = connection_to(server.url).exchange("POST", "/", HEADERS, bytes(4_000_000), deadline())
        assert answer.head.status == 413


def test_a_line_break_in_a_header_is_refused() -> None:
    with pytest.raises(ValueError, match="line break"):
        connection_to("http://127.0.0.1:1").exchange("GET", "/", [("A", "b\r\nC: d")], b"", deadline())


# Peers that do not


@pytest.mark.parametrize(
    ("handler", "raised"),
    [
        (servers.cut_before_answer, ConnectionError),
        (servers.reset_before_answer, ConnectionError),
        (servers.cut_in_head, http1.Malformed),
        (servers.cut_in_body, http1.Malformed),
        (servers.endless_head, http1.Malformed),
        (servers.endless_body, http1.Malformed),
        (servers.not_http, http1.Malformed),
    ],
)
def test_a_broken_answer_is_an_error_at_once(handler: servers.Handler, raised: type[Exception]) -> None:
    with servers.Server(handler) as server:
        began = time.monotonic()
        with pytest.raises(raised):
            connection_to(server.url).exchange("POST", "/", HEADERS, b"{}", deadline())
        assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("handler", "size"),
    [(servers.hang_after_request, 2), (servers.hang_before_reading, 8_000_000), (servers.trickle, 2)],
)
def test_a_slow_peer_is_left_at_the_deadline(handler: servers.Handler, size: int) -> None:
    with servers.Server(handler) as server:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            connection_to(server.url).exchange("POST", "/", HEADERS, bytes(size), deadline(SOON_S))
        assert SOON_S <= time.monotonic() - began < SOON_S + SLACK_S


def test_a_connect_that_hangs_is_left_at_the_deadline() -> None:
    with servers.full_backlog() as url:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            connection_to(url).exchange("POST", "/", HEADERS, b"{}", deadline(SOON_S))
        assert SOON_S <= time.monotonic() - began < SOON_S + SLACK_S


def test_a_closed_port_is_an_error_at_once() -> None:
    with servers.nobody_listens() as url:
        began = time.monotonic()
        with pytest.raises(ConnectionRefusedError):
            connection_to(url).exchange("POST", "/", HEADERS, b"{}", deadline())
        assert time.monotonic() - began < SLACK_S


def test_a_body_over_the_limit_is_not_gathered() -> None:
    with servers.StandIn(lambda _: servers.answer(200, bytes(1_001))) as server:
        connection = connection_to(server.url, body_limit=1_000)
        with pytest.raises(http1.Malformed, match="over 1000 bytes"):
            connection.exchange("POST", "/", HEADERS, b"{}", deadline())


def test_after_an_error_the_next_exchange_is_on_a_fresh_connection() -> None:
    with servers.StandIn(servers.in_turn(b"garbage\r\n\r\n", servers.answer(200, {}))) as server:
        connection = connection_to(server.url)
        with pytest.raises(http1.Malformed):
            connection.exchange("POST", "/", HEADERS, b"{}", deadline())
        assert connection.exchange("POST", "/", HEADERS, b"{}", deadline()).head.status == 200
        assert server.connections == 2


# TLS


class Tls:
    """A certificate authority that the client trusts, and one that it does not."""

    def __init__(self, folder: Path) -> None:
        self.trusted, self.foreign = trustme.CA(), trustme.CA()
        self.store = folder / "roots.pem"
        self.trusted.cert_pem.write_to_path(self.store)
        self.names: list[str | None] = []

    def client(self) -> tls.Context:
        return tls.Context((str(self.store.parent / "absent.pem"), str(self.store)))

    def serve(
        self, leaf: trustme.LeafCert, prepare: Callable[[ssl.SSLContext], None] = lambda _: None
    ) -> Callable[[socket.socket], None]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        leaf.configure_cert(context)
        context.sni_callback = lambda sock, name, own: self.names.append(name)
        prepare(context)

        def handle(sock: socket.socket) -> None:
            with context.wrap_socket(sock, server_side=True) as secure:
                while servers.read_request(secure) is not None:
                    secure.sendall(servers.answer(200, {"secure": True}))

        return handle


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return Tls(tmp_path_factory.mktemp("tls"))


def exchange_over_tls(server: servers.Server, context: tls.Context, host: str = "localhost") -> bytes:
    connection = connection_to(f"https://{host}:{server.port}", context)
    try:
        return connection.exchange("POST", "/", HEADERS, bytes(100_000), deadline()).body
    finally:
        connection.close()


def test_a_trusted_server_is_reached_by_its_name(authority: Tls) -> None:
    with servers.Server(authority.serve(authority.trusted.issue_cert("localhost"))) as server:
        client = authority.client()
        for _ in range(2):
            assert exchange_over_tls(server, client) == b'{"secure": true}'
        assert authority.names[-1] == "localhost"


def test_a_connection_over_tls_is_used_again(authority: Tls) -> None:
    with servers.Server(authority.serve(authority.trusted.issue_cert("localhost"))) as server:
        connection = connection_to(f"https://localhost:{server.port}", authority.client())
        for _ in range(3):
            connection.exchange("POST", "/", HEADERS, b"{}", deadline())
        connection.close()
        assert server.connections == 1


def test_an_address_needs_a_certificate_for_it(authority: Tls) -> None:
    with servers.Server(authority.serve(authority.trusted.issue_cert("127.0.0.1"))) as server:
        assert exchange_over_tls(server, authority.client(), "127.0.0.1") == b'{"secure": true}'


YESTERDAY = datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC)
BEFORE = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    "leaf",
    [
        pytest.param(lambda a: a.foreign.issue_cert("localhost"), id="unknown authority"),
        pytest.param(lambda a: a.trusted.issue_cert("other.test"), id="another host's certificate"),
        pytest.param(lambda a: a.trusted.issue_cert("127.0.0.1"), id="an address where a name is needed"),
        pytest.param(lambda a: a.trusted.issue_cert("other.test", common_name="localhost"), id="common name only"),
        pytest.param(lambda a: a.trusted.issue_cert("localhost", not_before=BEFORE, not_after=YESTERDAY), id="expired"),
    ],
)
def test_a_certificate_that_does_not_hold_is_refused(authority: Tls, leaf: Callable[[Tls], trustme.LeafCert]) -> None:
    with servers.Server(authority.serve(leaf(authority))) as server, pytest.raises(OSError, match="CERTIFICATE_VERIFY"):
        exchange_over_tls(server, authority.client())


def test_tls_before_1_2_is_refused(authority: Tls) -> None:
    def old(context: ssl.SSLContext) -> None:
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1

    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        handler = authority.serve(authority.trusted.issue_cert("localhost"), old)
    with servers.Server(handler) as server, pytest.raises(OSError, match="(?i)protocol|alert|version"):
        exchange_over_tls(server, authority.client())


def test_tls_1_2_is_spoken(authority: Tls) -> None:
    def only(context: ssl.SSLContext) -> None:
        context.maximum_version = ssl.TLSVersion.TLSv1_2

    with servers.Server(authority.serve(authority.trusted.issue_cert("localhost"), only)) as server:
        assert exchange_over_tls(server, authority.client()) == b'{"secure": true}'


def test_the_functions_certificate_variables_are_not_believed(
    authority: Tls, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority.foreign.cert_pem.write_to_path(tmp_path / "foreign.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "foreign.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    handler = authority.serve(authority.foreign.issue_cert("localhost"))
    with servers.Server(handler) as server, pytest.raises(OSError, match="CERTIFICATE_VERIFY"):
        exchange_over_tls(server, authority.client())


def test_without_any_roots_nobody_is_believed(tmp_path: Path) -> None:
    with servers.StandIn() as server:
        with pytest.raises(tls.NoStore, match="no certificate store"):
            exchange_over_tls(server, tls.Context((str(tmp_path / "none.pem"),)))
        assert server.connections == 0


@pytest.mark.parametrize("handler", [servers.hang_after_request, servers.cut_before_answer, servers.not_http])
def test_a_peer_that_does_not_speak_tls_is_an_error_in_time(authority: Tls, handler: servers.Handler) -> None:
    with servers.Server(handler) as server:
        connection = connection_to(f"https://localhost:{server.port}", authority.client())
        began = time.monotonic()
        with pytest.raises(OSError, match=r"."):
            connection.exchange("POST", "/", HEADERS, b"{}", deadline(SOON_S))
        assert time.monotonic() - began < SOON_S + SLACK_S


@pytest.mark.parametrize(
    "cut", [b"HTTP/1.1 200 OK\r\n\r\nwhole?", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", b""]
)
def test_a_connection_cut_without_goodbye_never_looks_whole(authority: Tls, cut: bytes) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.trusted.issue_cert("localhost").configure_cert(context)

    def handle(sock: socket.socket) -> None:
        secure = context.wrap_socket(sock, server_side=True, suppress_ragged_eofs=False)
        servers.read_request(secure)
        secure.sendall(cut)
        secure.close()  # the TCP connection ends, TLS has not said so

    with servers.Server(handle) as server:
        connection = connection_to(f"https://localhost:{server.port}", authority.client())
        with pytest.raises(OSError, match=r"."):
            connection.exchange("POST", "/", HEADERS, b"{}", deadline())
