"""Credentials and tokens are in nothing that a run leaves behind, whatever fails, and go to nobody but the service.

A user's commands run for real, at debug level, against a service that fails in every way and echoes what it was sent.
Then all that is left is searched: what was said, Dagster's home, the lake, the cache, and what another host received.
"""

import asyncio
import base64
import binascii
import gzip
import inspect
import json
import logging
import pickle
import re
import socketserver
import sqlite3
import subprocess
import sys
import threading
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

import pyarrow.parquet as pq
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from later_reporting_dagster.cli import main
from later_reporting_dagster.client import (
    AccessToken,
    ClientCredentials,
    LaterClient,
    LaterError,
    RateLimiter,
    RetryPolicy,
)
from later_reporting_dagster.client.transport import HTTP_LOGGERS, _without_server_text
from later_reporting_dagster.contract import PostPerformanceQuery
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.lake import LakeUnavailable, Partition
from later_reporting_dagster.sandbox import SandboxOptions, World, create_app, running_sandbox, serve
from tests.cli.conftest import environment
from tests.client.service import jwt
from tests.servers import running

# With what JSON and URLs have to escape, since an echo is seldom verbatim.
CLIENT_ID = "id+Zq7/visible"
CLIENT_SECRET = 's3cr3t "Zq7"/\\+&<visible>'
WRONG_SECRET = "wr0ng-Zq7-visible"
READY_TOKEN = "ready.Zq7.visible-token"
ECHOED_TOKEN = jwt(sub="Zq7/visible", scope=[f"{number:x}" for number in range(9**9, 9**10, 9**9)])
LAKE_PASSWORD = "l4ke-Zq7-visible"
DAYS = ("2024-03-01", "2024-03-02")
# What was echoed is shown as this, so that a search that finds no secret is known to have searched the right places.
HIDDEN = b"[hidden]"

FORBIDDEN, GONE, LURED = "forbidden", "gone", "lured"


@dataclass
class Echoing:
    """The sandbox behind a service that fails, and that tells in each failure all it knows of who asked."""

    app: ASGIApp
    elsewhere: str
    tokens: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    asked: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_noting(message: Any) -> None:
            if message["type"] == "http.response.start":
                # Servers that help to debug do so.
                message["headers"] = [
                    *message["headers"],
                    (b"x-echo", request.headers.get("authorization", "").encode()),
                ]
            if message["type"] == "http.response.body" and request.url.path == "/oauth/token":
                self.tokens.update(json.loads(message["body"] or b"{}").get("jwt", "").split())
            await send(message)

        request = Request(scope)
        instead = self._instead(request) if request.url.path == "/v2/posts/performance" else None
        if request.url.path == "/oauth/token":
            given = await Request(scope, receive).body()
            if json.loads(given) != {"clientId": CLIENT_ID, "clientSecret": CLIENT_SECRET}:
                instead = self._echo(request, 401, f"not {given.decode()}")

            async def receive_again() -> Any:
                return {"type": "http.request", "body": given}

            await (instead or self.app)(scope, receive_again, send_noting)
            return
        await (instead or self.app)(scope, receive, send_noting)

    def _instead(self, request: Request) -> Response | None:
        self.asked += 1
        instances = parse_qs(request.url.query).get("instanceIds", [])
        if FORBIDDEN in instances and len(instances) == 1:
            return self._echo(request, 403, "no scope")
        if GONE in instances and len(instances) == 1:
            return self._echo(request, 400, "no such instance")
        if LURED in instances and len(instances) == 1:
            self.faults.append("redirect")
            token = request.headers["authorization"].removeprefix("Bearer ")
            return RedirectResponse(f"{self.elsewhere}/v2/posts/performance?token={token}", 307)
        if {FORBIDDEN, GONE, LURED} & set(instances):
            return self._echo(request, 400, "one of these is none")
        authorization = request.headers["authorization"]
        scripted: dict[int, Callable[[], Response]] = {
            1: lambda: self._echo(request, 401, "expired just now"),
            2: lambda: self._echo(request, 500, "a fault"),
            3: lambda: PlainTextResponse(f"overloaded by {authorization}", 503),
            4: lambda: Response(f'{{"data": [{{"token": "{authorization}"', media_type="application/json"),
            5: lambda: Response(f"<html>{authorization}</html>", media_type="text/html"),
            6: lambda: self._echo(request, 429, "too many", headers={"Retry-After": "0"}),
            7: lambda: self._echo(request, 418, "no such status"),
        }
        fault = scripted.get(self.asked % 11)
        return fault() if fault else None

    def _echo(self, request: Request, status: int, why: str, headers: dict[str, str] | None = None) -> Response:
        self.faults.append(str(status))
        sent = {"authorization": request.headers.get("authorization"), "id": CLIENT_ID, "secret": CLIENT_SECRET}
        detail = f"{why}: {sent} {json.dumps(sent)} {quote(CLIENT_SECRET, safe='')} {quote(CLIENT_ID)}"
        return JSONResponse({"type": f"ANL_00{status}", "title": CLIENT_SECRET, "detail": detail}, status, headers)


@dataclass
class Recorder:
    """Another host, which answers whatever it is asked and keeps all of it."""

    received: list[bytes] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        self.received.append(repr((request.url, request.headers.raw, await request.body())).encode())
        await PlainTextResponse("thank you")(scope, receive, send)


class _RefusesLogin(socketserver.StreamRequestHandler):
    """An FTP server that says which password it does not take."""

    def handle(self) -> None:
        self.wfile.write(b"220 welcome\r\n")
        while line := self.rfile.readline():
            self.wfile.write(b"331 and?\r\n" if line.startswith(b"USER") else b"530 refused: " + line)


@contextmanager
def serving(handler: type[socketserver.StreamRequestHandler]) -> Iterator[int]:
    """The port of a server whose requests are handled so."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


# A server's answers that are no HTTP, or in which what it was sent is cut, changed, or where no text is expected.
ECHOES = (
    "{said}\r\n\r\n",
    "HTTP/1.1 200 OK\r\n{said}\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: {said}\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: {said}\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{said}\r\n",
    "HTTP/1.1 500 {said}\r\nContent-Length: 0\r\n\r\n",
    *(
        f"HTTP/1.1 {status}\r\nConnection: close\r\n\r\n{body}"
        for status, body in (
            ("500 no", '{{"type": "{part}", "title": "{upper}", "detail": "{base64}"}}'),
            ("200 OK", '{{"data": [{{"instanceId": "{said}"}}], "pagination": 5, "{said}": 1}}'),
            ("200 OK", '{{"jwt": "a {said}", "data": {{"{said}": "{base64}"}}, "nextCursor": "{said}"}}'),
        )
    ),
)


class _Echoing(socketserver.StreamRequestHandler):
    """Gives each request the next of the echoes, and now and then a token on the token route."""

    echoes: tuple[str, ...]
    asked: Counter[bool]  # by whether it was for a token

    def handle(self) -> None:
        head = b"".join(iter(self.rfile.readline, b"\r\n")).decode()
        length = re.search(r"(?i)content-length: (\d+)", head)
        body = json.loads(self.rfile.read(int(length[1]) if length else 0) or b"{}")
        said = body.get("clientSecret") or head.partition("Bearer ")[2].partition("\r\n")[0]
        self.asked[bool(body)] += 1
        echo = self.echoes[self.asked[bool(body)] % len(self.echoes)]
        if body and len(self.echoes) > 1 and self.asked[True] % RetryPolicy().attempts == 0:
            echo, said = ECHOES[-1].replace("a {said}", "{said}"), ECHOED_TOKEN
        base64_ = base64.b64encode(said.encode()).decode()
        said = json.dumps(said)[1:-1] if "{{" in echo else said
        self.wfile.write(echo.format(said=said, part=said[:51], upper=said.upper(), base64=base64_).encode())


@contextmanager
def echoing(*echoes: str) -> Iterator[tuple[str, Counter[bool]]]:
    handler = type("_", (_Echoing,), {"echoes": echoes, "asked": Counter()})
    with serving(handler) as port:
        yield f"http://127.0.0.1:{port}", handler.asked


# What a person does whose things go wrong, in one process because to start one takes longest.
COMMANDS = """
import faulthandler, logging, os, sys, traceback

logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
for name in ("httpx", "httpcore", "httpcore.http11", "httpcore.connection", "asyncio", "fsspec"):
    logging.getLogger(name).setLevel(logging.DEBUG)

import asyncio
from later_reporting_dagster.cli import main
from later_reporting_dagster.client import RetryPolicy
from later_reporting_dagster.defs.resource import LaterReportingResource

waits = RetryPolicy.wait_after
RetryPolicy.wait_after = lambda *given, **named: None if waits(*given, **named) is None else 0.0

def types(*arguments, **settings):
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        main(arguments, prog_name="later-reporting")
    except SystemExit as end:
        print(arguments[0], "ended with", end.code, flush=True)
    finally:
        os.environ.update({name: value or "" for name, value in before.items()})

def crashes(**settings):
    os.environ.update(settings)
    try:
        later = LaterReportingResource.from_environment().process_config_and_initialize()
        asyncio.run(later.listed_instances())
    except Exception:
        traceback.print_exc()
        faulthandler.dump_traceback(all_threads=True)
    os.environ.update(dict.fromkeys(settings, ""))

days = ("--start", "2024-03-01", "--end", "2024-03-02")
types("doctor")
types("instances")
types("backfill", "--verbose", "--asset", "later/posts_published", *days)
types("backfill", "--verbose", "--asset", "later/organic_paid_by_publish_day", *days)
types("backfill", "--verbose", "--asset", "later/posts_published", *days, LATER_LAKE_ROOT=os.environ["NO_LAKE"])
types("backfill", "--asset", "later/posts_published", *days, LATER_ACCESS_TOKEN=os.environ["READY_TOKEN"])
types("backfill", "--verbose", "--asset", "later/posts_published", *days, LATER_BASE_URL=os.environ["ECHOING"])
types("instances", LATER_BASE_URL=os.environ["ECHOING"])
types("doctor", LATER_BASE_URL=os.environ["ECHOING"])
types("doctor", LATER_LAKE_ROOT=os.environ["NO_LAKE"])
types("doctor", LATER_CLIENT_SECRET=os.environ["WRONG_SECRET"])
types("doctor", LATER_ACCESS_TOKEN=os.environ["READY_TOKEN"])
types("instances", LATER_BASE_URL=f"https://someone:{os.environ['WRONG_SECRET']}@example.com")
crashes(LATER_ACCESS_TOKEN=os.environ["READY_TOKEN"])
crashes(LATER_ACCESS_TOKEN=os.environ["READY_TOKEN"] + chr(10))
"""

DAGSTER_YAML = """\
telemetry:
  enabled: false
python_logs:
  managed_python_loggers: [root]
  python_log_level: DEBUG
"""


@dataclass(frozen=True)
class LeftBehind:
    """All that the commands left, by where it lies, and what must be nowhere in it."""

    places: dict[str, bytes]
    secrets: dict[str, str]
    faults: list[str]
    elsewhere: Recorder
    echoed: Counter[bool]

    def __getitem__(self, name: str) -> bytes:
        return b"".join(content for place, content in self.places.items() if place.startswith(name))


@pytest.fixture(scope="module")
def left_behind(tmp_path_factory: pytest.TempPathFactory) -> LeftBehind:
    directory = tmp_path_factory.mktemp("secrets")
    for name in ("dagster-home", "cache", "temporary", "work"):
        (directory / name).mkdir()
    (directory / "dagster-home" / "dagster.yaml").write_text(DAGSTER_YAML)
    world = World(
        first_day=date(2024, 2, 25),
        last_day=date(2024, 3, 10),
        seed=3,
        instances=2,
        posts_per_day=70,
        further_instances=(FORBIDDEN, GONE, LURED),
    )
    options = SandboxOptions(client_id=CLIENT_ID, client_secret=CLIENT_SECRET, requests_per_window=100_000)
    elsewhere = Recorder()
    service = Echoing(create_app(world, options=options), elsewhere="")
    with (
        running(elsewhere) as service.elsewhere,
        running(service) as base_url,
        serving(_RefusesLogin) as ftp_port,
        echoing(*ECHOES) as (echo_url, echoed),
    ):
        command = subprocess.run(
            [sys.executable, "-X", "faulthandler", "-c", COMMANDS],
            env={
                **environment(),
                "PYTHONASYNCIODEBUG": "1",
                "PYTHONFAULTHANDLER": "1",
                "DAGSTER_HOME": str(directory / "dagster-home"),
                "XDG_CACHE_HOME": str(directory / "cache"),
                "TMPDIR": str(directory / "temporary"),
                "LATER_BASE_URL": base_url,
                "LATER_CLIENT_ID": CLIENT_ID,
                "LATER_CLIENT_SECRET": CLIENT_SECRET,
                "LATER_LAKE_ROOT": str(directory / "lake"),
                "LATER_REQUESTS_PER_MINUTE": "1000000",
                "ECHOING": echo_url,
                "NO_LAKE": f"ftp://someone:{LAKE_PASSWORD}@127.0.0.1:{ftp_port}/lake",
                "READY_TOKEN": READY_TOKEN,
                "WRONG_SECRET": WRONG_SECRET,
            },
            cwd=directory / "work",
            capture_output=True,
            timeout=180,
            check=False,
        )
    places = {"stdout": command.stdout, "stderr": command.stderr}
    for file in sorted(directory.rglob("*")):
        if file.is_file():
            name = str(file.relative_to(directory))
            places[name] = file.read_bytes()
            if file.suffix == ".parquet":
                places[f"{name} as text"] = as_text(file)
            elif places[name].startswith(b"SQLite"):
                places[f"{name} as text"] = b"\n".join(cells_of(file))
    tokens = {f"token {number}": token for number, token in enumerate(sorted(service.tokens))}
    secrets = {
        "client id": CLIENT_ID,
        "client secret": CLIENT_SECRET,
        "wrong secret": WRONG_SECRET,
        "ready token": READY_TOKEN,
        "password of the lake": LAKE_PASSWORD,
        "echoed token": ECHOED_TOKEN,
        **tokens,
    }
    return LeftBehind(places, secrets, service.faults, elsewhere, echoed)


def as_text(file: Path) -> bytes:
    """A Parquet file, which is compressed, as its metadata and its rows."""
    parquet = pq.ParquetFile(file)
    return repr((parquet.metadata.metadata, parquet.schema_arrow, parquet.read().to_pylist())).encode()


def cells_of(database: Path) -> Iterator[bytes]:
    """Every value of every table, also as it is when unpacked."""
    with closing(sqlite3.connect(database)) as connection:
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for row in connection.execute(f'SELECT * FROM "{table}"'):  # noqa: S608 - a name of the database's own
                for cell in row:
                    if isinstance(cell, str | bytes):
                        yield from unpacked(cell.encode() if isinstance(cell, str) else cell)


def unpacked(content: bytes, depth: int = 0) -> Iterator[bytes]:
    """The content, and what is in it as far as it is zlib, gzip or base64."""
    yield content
    if depth < 3:
        for unpack in (zlib.decompress, gzip.decompress, lambda text: base64.b64decode(text, validate=True)):
            try:
                inner = unpack(content)
            except (zlib.error, OSError, EOFError, binascii.Error, ValueError):
                continue
            if inner != content:
                yield from unpacked(inner, depth + 1)


def spellings(secret: str) -> dict[str, bytes]:
    """A secret as it may stand in text that was made of it."""
    found = {
        "as it is": secret,
        "in JSON": json.dumps(secret)[1:-1],
        "in JSON in JSON": json.dumps(json.dumps(secret)[1:-1])[1:-1],
        "in a URL": quote(secret, safe=""),
        "in a path": quote(secret),
        "as Python writes it": repr(secret)[1:-1],
    }
    # Base64 has three faces, by how many bytes stand before.
    for before in range(3):
        inner = base64.b64encode(b"\0" * before + secret.encode())
        found[f"in base64, {before} bytes later"] = inner[4 * (before > 0) : -4].decode()
    return {name: spelled.encode() for name, spelled in found.items()}


def fragments_in(places: dict[str, bytes], *secrets: str) -> set[tuple[str, bytes]]:
    """Where 20 characters of a secret may be, in capitals or base64 too: they hold ten that begin at a tenth place."""
    spelled = [face for each in secrets for face in (each, each.upper(), base64.b64encode(each.encode()).decode())]
    parts = {face[start : start + 10].encode() for face in spelled for start in range(0, len(face) - 9, 10)}
    return {(place, part) for place, content in places.items() for part in parts if part in content}


def test_the_commands_ran_as_far_as_they_can(left_behind: LeftBehind) -> None:
    ended = [line for line in left_behind["stdout"].decode().splitlines() if " ended with " in line]
    assert [line.replace(" ended with ", " ") for line in ended] == [
        "doctor 0",
        "instances 0",
        *["backfill 1", "backfill 0", "backfill 1", "backfill 1"],
        *["backfill 1", "instances 1", "doctor 1"],
        *["doctor 1", "doctor 1", "doctor 1"],
        "instances 1",
    ], left_behind["stderr"].decode()[-3000:]
    assert {"401", "403", "400", "500", "429", "418", "redirect"} <= set(left_behind.faults)
    assert min(left_behind.echoed.values()) >= len(ECHOES)
    assert left_behind["lake/posts_published"].count(b"instance_000") >= 2
    assert len([name for name in left_behind.secrets if name.startswith("token")]) >= 2


def test_the_search_sees_what_there_is(left_behind: LeftBehind) -> None:
    # At debug level, of all loggers, in what was said and in Dagster's event log.
    for said in (left_behind["stderr"], left_behind["dagster-home"]):
        assert b"receive_response_body.started" in said
        assert b"HTTP Request: GET http://127.0.0.1" in said
        assert HIDDEN in said
        assert b"HTTP 403" in said
    # What Dagster compresses.
    assert b'"requests_per_minute"' in left_behind["dagster-home"]
    assert b"later_reporting.queries" in left_behind["lake"]
    assert b"refused: PASS" in left_behind["stdout"]
    assert b"(most recent call first)" in left_behind["stderr"]
    assert b"Traceback (most recent call last)" in left_behind["stderr"]
    assert any(place.startswith("cache/later-reporting/rate-") for place in left_behind.places)
    assert any("compute_logs" in place for place in left_behind.places)


def test_no_secret_is_in_what_is_left_behind(left_behind: LeftBehind) -> None:
    found = [
        f"{name}, {spelling}, in {place}"
        for name, secret in left_behind.secrets.items()
        for spelling, spelled in spellings(secret).items()
        for place, content in left_behind.places.items()
        if spelled in content
    ]
    assert found == []
    # Neither is a part of one.
    assert fragments_in(left_behind.places, *left_behind.secrets.values()) == set()


def test_another_host_receives_nothing_at_all(left_behind: LeftBehind) -> None:
    assert "redirect" in left_behind.faults
    assert left_behind.elsewhere.received == []


# What objects show of themselves.

QUERY = PostPerformanceQuery(start_date=date(2024, 3, 1), end_date=date(2024, 3, 2), instance_ids=("a",))


def all_that_it_shows(error: BaseException) -> bytes:
    """An exception as a log, a crash report and another process have it."""
    text = "".join(traceback.format_exception(error))
    return b"\n".join([text.encode(), repr(error).encode(), repr(vars(error)).encode(), pickle.dumps(error)])


def assert_holds_none(shown: bytes, *secrets: str) -> None:
    for secret in secrets:
        for spelling, spelled in spellings(secret).items():
            assert spelled not in shown, f"{secret} {spelling} in {shown!r}"


def client_of(base_url: str, *, credentials: ClientCredentials | AccessToken | None = None) -> LaterClient:
    return LaterClient(
        base_url=base_url,
        credentials=credentials or ClientCredentials(CLIENT_ID, CLIENT_SECRET),
        limiter=RateLimiter(requests=1_000_000),
        retry=RetryPolicy(attempts=2, first_wait_seconds=0.0),
        timeout_seconds=10.0,
    )


def error_of(client: LaterClient) -> LaterError:
    async def walk() -> None:
        async with client:
            await client.walk(QUERY)

    with pytest.raises(LaterError) as caught:
        asyncio.run(walk())
    # A chained error, even where it is not printed, would carry the request and quote the response.
    assert caught.value.__cause__ is caught.value.__context__ is None
    return caught.value


STATUSES = (302, 400, 401, 403, 404, 407, 418, 429, 500, 503)
REFUSAL = ' {said}\r\nRetry-After: 0\r\nConnection: close\r\n\r\n{{"detail": "{said} {part}"}}'


@pytest.mark.parametrize("echo", [*ECHOES, *(f"HTTP/1.1 {status}" + REFUSAL for status in STATUSES)])
def test_no_error_shows_a_secret_or_a_part_of_one(echo: str) -> None:
    with echoing(echo) as (base_url, _):
        of_secret, of_token = (
            all_that_it_shows(error_of(client_of(base_url, credentials=each)))
            for each in (None, AccessToken(ECHOED_TOKEN))
        )
    assert_holds_none(of_secret, CLIENT_SECRET)
    assert_holds_none(of_token, ECHOED_TOKEN)
    assert fragments_in({"secret": of_secret, "token": of_token}, CLIENT_SECRET, ECHOED_TOKEN) == set()


def test_every_logger_of_the_http_libraries_is_filtered() -> None:
    families = {name.partition(".")[0] for name in HTTP_LOGGERS} | {"h2", "hpack"}
    loggers = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] in families]
    assert len(loggers) >= len(HTTP_LOGGERS)
    assert [name for name in loggers if _without_server_text not in logging.getLogger(name).filters] == []


def test_a_lake_shows_its_password_in_no_error() -> None:
    with serving(_RefusesLogin) as port:
        lake = LaterReportingResource(lake_root=f"ftp://someone:{LAKE_PASSWORD}@127.0.0.1:{port}/lake")
        with pytest.raises(
            LakeUnavailable, match=r"cannot open ftp://127\.0\.0\.1:\d+/lake: 530 refused: PASS …"
        ) as caught:
            lake.lake()
    assert_holds_none(all_that_it_shows(caught.value), LAKE_PASSWORD)


def test_nothing_shows_the_secrets_that_it_keeps() -> None:
    root = f"memory://someone:{LAKE_PASSWORD}@vault/lake"
    settings = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "lake_root": root}
    resource = LaterReportingResource(**settings)
    lake = resource.lake()
    client = resource.client()
    written = lake.url("posts", Partition(date(2024, 3, 1), "a"))
    kept = [
        resource,
        resource.process_config_and_initialize(),
        resource.credentials(),
        lake,
        lake.root,
        written,
        client,
    ]
    ready = LaterReportingResource(access_token=READY_TOKEN)
    kept += [ready, ready.credentials(), ready.client()]
    for exchange in (vars(each.client())["_exchange"] for each in (resource, ready)):
        kept += [exchange, vars(exchange)["_auth"]]
    assert_holds_none(
        "\n".join(f"{each!r} {each}" for each in kept).encode(), CLIENT_SECRET, READY_TOKEN, LAKE_PASSWORD
    )


def test_the_ui_is_told_which_fields_are_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for set_in_the_environment in (False, True):
        for name in ("LATER_CLIENT_SECRET", "LATER_ACCESS_TOKEN") * set_in_the_environment:
            monkeypatch.setenv(name, CLIENT_SECRET)
        fields = LaterReportingResource.from_environment().to_config_schema().as_field().config_type.fields
        assert {name for name, each in fields.items() if each.is_secret} == {"client_secret", "access_token"}


# To whom they go.


def test_the_sandbox_listens_on_loopback_unless_told_otherwise() -> None:
    for entry in (serve, running_sandbox):
        assert inspect.signature(entry).parameters["host"].default == "127.0.0.1"
    host = {option.name: option for option in main.commands["sandbox"].params}["host"]
    assert host.default == "127.0.0.1"
    with running_sandbox(Recorder()) as base_url:  # which is what the socket says of itself
        assert base_url.startswith("http://127.0.0.1:")
