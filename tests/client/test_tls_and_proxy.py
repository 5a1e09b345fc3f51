"""Tests with TLS and a forward proxy: certificates are verified, and failures are clear errors without secrets."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from later_reporting_dagster.client import (
    AccessToken,
    LaterError,
    ListResult,
    RetriesExhausted,
    RetryPolicy,
    UnexpectedResponse,
)
from tests.client.scripted_api import page_body, post

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


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while part := await reader.read(65536):
            writer.write(part)
    await close(writer)


async def close(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        writer.close()
        await writer.wait_closed()


@dataclass
class ProxiedServer:
    """A TLS server behind a forward proxy.

    Attributes:
        certificate: certificate and key of the server.
        rejection: response of the proxy to every request; empty to connect to the server.
        heads: heads of the requests to the proxy and to the server.
    """

    certificate: Path
    rejection: bytes = b""
    heads: list[str] = field(default_factory=list)
    _proxy_tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _server: asyncio.Server | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[int]:
        """Run the server and the proxy; yield the port of the proxy."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate)
        async with (
            await asyncio.start_server(self._respond, "127.0.0.1", 0, ssl=context) as self._server,
            await asyncio.start_server(self._proxy, "127.0.0.1", 0) as proxy,
        ):
            yield proxy.sockets[0].getsockname()[1]
            await asyncio.wait(self._proxy_tasks, timeout=10)

    async def _respond(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(RESPONSE)
        await close(writer)

    async def _proxy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy_tasks.append(asyncio.current_task())
        self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(self.rejection or b"HTTP/1.1 200 Connection established\r\n\r\n")
        if not self.rejection:
            from_server, to_server = await asyncio.open_connection(*self._server.sockets[0].getsockname())
            await asyncio.gather(relay(reader, to_server), relay(from_server, writer))
        await close(writer)


@pytest.fixture
def fetch(new_client, july, monkeypatch) -> Callable[..., tuple[ListResult | LaterError, list[str]]]:
    """A function that fetches through a proxy, and returns the result and the request heads of proxy and server."""

    async def fetch_from(server: ProxiedServer) -> ListResult | LaterError:
        async with server.running() as proxy_port:
            for name in ("HTTPS_PROXY", "https_proxy"):
                monkeypatch.setenv(name, f"http://user:{PASSWORD}@127.0.0.1:{proxy_port}")
            once = RetryPolicy(max_attempts=1)
            async with new_client(base_url=f"https://{HOST}", credentials=AccessToken(TOKEN), retry=once) as client:
                try:
                    return await client.fetch_posts(july)
                except LaterError as error:
                    return error

    def fetch(served: Path, *, trusted: Path, rejection: bytes = b"") -> tuple[ListResult | LaterError, list[str]]:
        server = ProxiedServer(served, rejection)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
        return asyncio.run(fetch_from(server)), server.heads

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
