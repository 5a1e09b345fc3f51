"""A service behind TLS and a forward proxy: its certificate is checked, and what is wrong ends in a clear error."""

import asyncio
import json
import ssl
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from later_reporting_dagster.client import AccessToken, ContractBroken, LaterError, Retriable, RetryPolicy, Walk
from tests.client.service import page_body, post

HOST, PASSWORD, TOKEN = "reporting.example", "pr0xy-pass", "t0ken"
BODY = json.dumps(page_body([post(1)], page=1, page_size=100, total_items=1)).encode()
ANSWER = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
REFUSED = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"


def certificate(file: Path, *, host: str = HOST, days: int = 1) -> Path:
    """A certificate that is signed by itself, and its key."""
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


@pytest.fixture
def fetch(new_client, july, monkeypatch) -> Callable[..., tuple[Walk | LaterError, list[str]]]:
    """Fetch through a proxy from a server with a certificate; return what came, and the heads that the two received."""

    async def fetched(served: Path, trusted: Path, refusal: bytes) -> tuple[Walk | LaterError, list[str]]:
        asked, tasks = [], []

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
            writer.write(ANSWER)
            await close(writer)

        async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.append(asyncio.current_task())
            asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
            writer.write(refusal or b"HTTP/1.1 200 Connection established\r\n\r\n")
            if not refusal:
                from_server, to_server = await asyncio.open_connection(*server.sockets[0].getsockname())
                await asyncio.gather(relay(reader, to_server), relay(from_server, writer))
            await close(writer)

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(served)
        async with (
            await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as server,
            await asyncio.start_server(proxy, "127.0.0.1", 0) as proxies,
        ):
            for name in ("NO_PROXY", "no_proxy"):
                monkeypatch.delenv(name, raising=False)
            for name in ("HTTPS_PROXY", "https_proxy"):
                monkeypatch.setenv(name, f"http://user:{PASSWORD}@127.0.0.1:{proxies.sockets[0].getsockname()[1]}")
            monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
            once = RetryPolicy(attempts=1)
            async with new_client(base_url=f"https://{HOST}", credentials=AccessToken(TOKEN), retry=once) as client:
                try:
                    result = await client.walk(july)
                except LaterError as error:
                    result = error
            await asyncio.wait(tasks, timeout=10)
        return result, asked

    return lambda served, *, trusted, refusal=b"": asyncio.run(fetched(served, trusted, refusal))


def test_a_trusted_service_is_reached_through_the_proxy_of_the_environment(fetch, tmp_path):
    served = certificate(tmp_path / "served.pem")
    walked, asked = fetch(served, trusted=served)
    assert [each.post_id for each in walked.posts] == [1]
    to_proxy, _ = asked
    assert to_proxy.startswith(f"CONNECT {HOST}:443 HTTP/1.1\r\n")
    assert [TOKEN in head for head in asked] == [False, True]
    assert ["Proxy-Authorization" in head for head in asked] == [True, False]


@pytest.mark.parametrize(
    ("changes", "is_trusted", "reason"),
    [
        ({}, False, "self-signed certificate"),
        ({"host": "other.example"}, True, "Hostname mismatch"),
        ({"days": -1}, True, "certificate has expired"),
    ],
    ids=["self-signed", "of another host", "expired"],
)
def test_a_certificate_that_is_wrong_is_refused_at_once(fetch, tmp_path, changes, is_trusted, reason):
    served = certificate(tmp_path / "served.pem", **changes)
    error, asked = fetch(served, trusted=served if is_trusted else certificate(tmp_path / "other.pem"))
    assert isinstance(error, ContractBroken)
    assert f"https://{HOST} has a certificate that this machine does not trust: {reason}" in str(error)
    assert len(asked) == 1  # by the proxy: nothing was sent to the service
    assert TOKEN not in f"{error!r}{error.__cause__!r}{error.__context__!r}"


@pytest.mark.parametrize(
    ("refusal", "reason"), [(REFUSED, "ProxyError 407"), (b"no HTTP\r\n\r\n", "RemoteProtocolError")]
)
def test_a_proxy_that_refuses_is_named_without_its_password(fetch, tmp_path, refusal, reason):
    served = certificate(tmp_path / "served.pem")
    error, asked = fetch(served, trusted=served, refusal=refusal)
    assert isinstance(error, Retriable)
    assert reason in str(error)
    assert len(asked) == 1
    assert PASSWORD not in f"{error!r}{error.__cause__!r}{error.__context__!r}"
