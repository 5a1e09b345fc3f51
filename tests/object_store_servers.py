"""Real servers of object stores for tests, each behind a proxy that counts its requests.

moto and the emulator of Google Cloud Storage are from PyPI, Azurite is from npm.
"""

import os
import secrets
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import httpx
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from later_reporting_dagster.server import running_server
from tests.services import free_port, wait_for_port

BUCKET = "a-bucket"
SECRET = "c2VjcmV0L29mK25vYm9keQ=="  # noqa: S105 - a key of Azure has to be Base64
AZURE_ACCOUNT = "devstore"
# Installed by `make services`. The newest version that runs on Debian's Node.js.
AZURITE = Path(__file__).parents[1] / ".services" / "node_modules" / ".bin" / "azurite-blob"

# moto compares an ETag and stores the object in two steps, and its server has threads: two puts that replace the same
# object may then both succeed. S3 itself does both at once.
_MOTO = """
import sys, threading
from moto.s3.responses import S3Response
from moto.server import ThreadedMotoServer
put_object, lock = S3Response.put_object, threading.Lock()
def put_one_at_a_time(response):
    with lock:
        return put_object(response)
S3Response.put_object = put_one_at_a_time
server = ThreadedMotoServer(ip_address="127.0.0.1", port=int(sys.argv[1]), verbose=False)
server.start()
threading.Event().wait()
"""
# Hop-by-hop headers: each connection has its own.
_HOP_BY_HOP = {b"connection", b"keep-alive", b"transfer-encoding", b"expect", b"date", b"server"}


class CountingProxy:
    """Forwards requests unchanged to a server, and counts them by type: GET, PUT, DELETE, LIST, or as they are.

    Attributes:
        failures: by type, the statuses and codes of the next responses; those of requests that are forwarded all the
            same have the code "lost".
    """

    def __init__(self, target: str, type_of: Callable[[str, str, Mapping[str, str]], str]) -> None:
        self._target = httpx.URL(target)
        self._type_of = type_of
        self._lock = threading.Lock()
        self._requests = Counter[str]()
        self.failures: dict[str, list[tuple[int, str]]] = {}
        # Few connections, because the emulator of Google Cloud Storage resets those that it has to queue. Idle ones
        # are not used again, because a server may close them at any time.
        limits = httpx.Limits(max_connections=4, max_keepalive_connections=0)
        self._client = httpx.AsyncClient(limits=limits, timeout=60, trust_env=False)

    def take(self) -> Counter[str]:
        """Return the number of requests by type since the last call."""
        with self._lock:
            requests, self._requests = self._requests, Counter()
        return requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        body = await request.body()
        kind = self._type_of(request.method, scope["raw_path"].decode(), dict(request.query_params))
        with self._lock:
            self._requests[kind] += 1
        status, code = self.failures[kind].pop(0) if self.failures.get(kind) else (0, "")
        if status and code != "lost":
            await _error_response(status, code)(scope, receive, send)
            return
        url = self._target.copy_with(
            raw_path=scope["raw_path"] + b"?" * bool(scope["query_string"]) + scope["query_string"]
        )
        headers = [(name, value) for name, value in scope["headers"] if name not in _HOP_BY_HOP or name == b"date"]
        forwarded = self._client.build_request(request.method, url, headers=headers, content=body)
        answer = await self._client.send(forwarded, stream=True)
        content = b"".join([part async for part in answer.aiter_raw()])
        await answer.aclose()
        if status:
            await _error_response(status, "InternalError")(scope, receive, send)
            return
        response = Response(content, status_code=answer.status_code)
        kept = [(name.lower(), value) for name, value in answer.headers.raw if name.lower() not in _HOP_BY_HOP]
        if request.method != "HEAD":
            kept = [(name, value) for name, value in kept if name != b"content-length"]
            kept.append((b"content-length", str(len(content)).encode()))
        response.raw_headers = kept
        await response(scope, receive, send)


def _error_response(status: int, code: str) -> Response:
    """Return an error as S3 and Azure have it."""
    body = f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'
    return Response(body, status, {"x-ms-error-code": code}, media_type="application/xml")


@dataclass(frozen=True)
class ObjectStore:
    """A running object store with an empty bucket, and all options that it needs: endpoint and credentials."""

    name: str
    scheme: str
    storage_options: Mapping[str, Any]
    proxy: CountingProxy

    def new_root(self) -> str:
        """Return the root of an empty lake."""
        return f"{self.scheme}://{BUCKET}/{secrets.token_hex(8)}/a lake"


@contextmanager
def running_moto() -> Iterator[ObjectStore]:
    port = free_port()
    with _process([sys.executable, "-c", _MOTO, str(port)], port=port), _counted(port, s3_request_type) as (proxy, url):
        options = {"endpoint_url": url, "key": "somebody", "secret": SECRET}
        yield _with_bucket(ObjectStore("moto", "s3", options, proxy))


@contextmanager
def running_azurite() -> Iterator[ObjectStore]:
    """Run Azurite, Microsoft's emulator of Azure Blob Storage."""
    if not AZURITE.exists():
        raise FileNotFoundError(f"{AZURITE} not found: run `make services`")
    with tempfile.TemporaryDirectory(prefix="azurite-") as folder:
        port = free_port()
        command = [str(AZURITE), "--blobPort", str(port), "--silent", "--skipApiVersionCheck", "--disableTelemetry"]
        environment = os.environ | {"AZURITE_ACCOUNTS": f"{AZURE_ACCOUNT}:{SECRET}"}
        with (
            _process([*command, "--location", folder], port=port, environment=environment),
            _counted(port, azure_request_type) as (proxy, url),
        ):
            # A connection string is the only way to name an endpoint with a port and the account in its path.
            connection_string = (
                f"DefaultEndpointsProtocol=http;AccountName={AZURE_ACCOUNT};AccountKey={SECRET};"
                f"BlobEndpoint={url}/{AZURE_ACCOUNT};"
            )
            yield _with_bucket(ObjectStore("azurite", "abfs", {"connection_string": connection_string}, proxy))


@contextmanager
def running_gcs() -> Iterator[ObjectStore]:
    """Run gcp-storage-emulator, which emulates Google Cloud Storage in memory."""
    port = free_port()
    command = [sys.executable, "-m", "gcp_storage_emulator", "start", "--port", str(port), "--in-memory", "--quiet"]
    with _process(command, port=port), _counted(port, gcs_request_type) as (proxy, url):
        yield _with_bucket(ObjectStore("gcs", "gs", {"endpoint_url": url, "token": "anon"}, proxy))


OBJECT_STORES: Mapping[str, Callable[[], Any]] = {"moto": running_moto, "azurite": running_azurite, "gcs": running_gcs}
"""Starts each store: a context manager that yields an `ObjectStore`."""


def s3_request_type(method: str, path: str, query: Mapping[str, str]) -> str:
    """Return the type of a request of S3's API."""
    is_object = "/" in path.strip("/")
    return "LIST" if method == "GET" and ("list-type" in query or not is_object) else method


def azure_request_type(method: str, path: str, query: Mapping[str, str]) -> str:
    """Return the type of a request of Azure's Blob API."""
    if query.get("comp") == "list":
        return "LIST"
    return f"{method} container" if query.get("restype") == "container" else method


def gcs_request_type(method: str, path: str, query: Mapping[str, str]) -> str:
    """Return the type of a request of the JSON API of Google Cloud Storage."""
    if path.startswith("/upload/"):
        return "PUT"
    if method == "GET" and path.endswith("/o"):
        return "LIST"
    if method == "GET" and query.get("alt") != "media":
        return "GET metadata" if "/o/" in path else "GET bucket"
    return method


def _with_bucket(store: ObjectStore) -> ObjectStore:
    fsspec.filesystem(store.scheme, **store.storage_options).mkdir(BUCKET)
    store.proxy.take()
    return store


@contextmanager
def _counted(port: int, type_of: Callable[[str, str, Mapping[str, str]], str]) -> Iterator[tuple[CountingProxy, str]]:
    proxy = CountingProxy(f"http://127.0.0.1:{port}", type_of)
    with running_server(proxy) as url:
        yield proxy, url


@contextmanager
def _process(command: Sequence[str], *, port: int, environment: Mapping[str, str] | None = None) -> Iterator[None]:
    """Run a server while the block runs, from when it accepts connections."""
    server = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for_port(port)
        yield
    finally:
        server.terminate()
        try:
            server.wait(timeout=5)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
