"""Tests with TLS and a forward proxy: certificates are verified, and failures are clear errors without secrets."""

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from later_reporting_dagster.client import AccessToken, LaterError, RetriesExhausted, RetryPolicy, UnexpectedResponse
from tests.client.scripted_api import fetch_posts, page_body, post

HOST, PASSWORD, TOKEN = "reporting.example", "pr0xy-pass", "t0ken"
BODY = json.dumps(page_body([post(1)], page=1, page_size=100, total_items=1)).encode()
RESPONSE = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
PROXY_REJECTION = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"


def certificate(file: Path, *, host: str = HOST, days: int = 1) -> Path:
    """Write a self-signed certificate and its key to a file."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=2), now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, unencrypted = serialization.Encoding.PEM, serialization.NoEncryption()
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, unencrypted)
    file.write_bytes(private + signed.public_bytes(pem))
    return file


@contextmanager
def proxy(served: Path, *, rejection: bytes) -> Iterator[tuple[int, list[str]]]:
    """Run a proxy for one connection, on which it goes on as the server that it connects to, unless it rejects that.

    Yield its port, and the heads of the requests to the proxy and to the server.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(served)
    heads: list[str] = []

    def serve() -> None:
        with suppress(OSError), listener.accept()[0] as connection:
            heads.append(connection.recv(65536).decode())
            connection.sendall(rejection or b"HTTP/1.1 200 Connection established\r\n\r\n")
            if not rejection:
                with context.wrap_socket(connection, server_side=True) as server:
                    heads.append(server.recv(65536).decode())
                    server.sendall(RESPONSE)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1], heads
        thread.join(60)


@pytest.fixture
def fetch(new_client, july, monkeypatch):
    """A function that fetches through a proxy, and returns the result or error, and the heads of the requests."""

    def fetch(served, *, trusted, rejection=b""):
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
        with proxy(served, rejection=rejection) as (port, heads):
            for name in ("HTTPS_PROXY", "https_proxy"):
                monkeypatch.setenv(name, f"http://user:{PASSWORD}@127.0.0.1:{port}")
            once = RetryPolicy(max_attempts=1)
            client = new_client(base_url=f"https://{HOST}", credentials=AccessToken(TOKEN), retry=once)
            try:
                return fetch_posts(client, july), heads
            except LaterError as error:
                return error, heads

    return fetch


def test_client_uses_the_proxy_of_the_environment(fetch, tmp_path):
    served = certificate(tmp_path / "served.pem")
    result, heads = fetch(served, trusted=served)
    assert [each.post_id for each in result.items] == [1]
    to_proxy, _ = heads
    assert to_proxy.startswith(f"CONNECT {HOST}:443 HTTP/1.1\r\n")
    assert [TOKEN in head for head in heads] == [False, True]
    assert ["Proxy-Authorization" in head for head in heads] == [True, False]


@pytest.mark.parametrize(
    ("changes", "is_trusted", "reason"),
    [
        ({}, False, "self-signed certificate"),
        ({"host": "other.example"}, True, "Hostname mismatch"),
        ({"days": -1}, True, "certificate has expired"),
    ],
    ids=["self-signed", "other host", "expired"],
)
def test_invalid_certificate_is_an_error_without_retries(fetch, tmp_path, changes, is_trusted, reason):
    served = certificate(tmp_path / "served.pem", **changes)
    error, heads = fetch(served, trusted=served if is_trusted else certificate(tmp_path / "other.pem"))
    assert isinstance(error, UnexpectedResponse)
    assert f"https://{HOST} has a certificate that this machine does not trust: {reason}" in str(error)
    assert len(heads) == 1  # by the proxy; nothing was sent to the server
    assert TOKEN not in f"{error!r}{error.__cause__!r}{error.__context__!r}"


@pytest.mark.parametrize(
    ("rejection", "reason"), [(PROXY_REJECTION, "ProxyError 407"), (b"no HTTP\r\n\r\n", "RemoteProtocolError")]
)
def test_proxy_failure_is_an_error_without_the_password(fetch, tmp_path, rejection, reason):
    served = certificate(tmp_path / "served.pem")
    error, heads = fetch(served, trusted=served, rejection=rejection)
    assert isinstance(error, RetriesExhausted)
    assert reason in str(error)
    assert len(heads) == 1
    assert PASSWORD not in f"{error!r}{error.__cause__!r}{error.__context__!r}"
