"""No credential or token is in any output or file of a run that fails, and instance ids are shown whole.

Commands run in a subprocess, at debug level, against a server that fails in many ways and echoes what it was sent. Then
everything written is searched: stdout, stderr, `DAGSTER_HOME`, the lake and the cache.
"""

import asyncio
import base64
import binascii
import gzip
import json
import pickle
import re
import sqlite3
import subprocess
import sys
import traceback
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from urllib.parse import parse_qs

import pyarrow.parquet as pq
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from later_reporting_dagster.client import (
    AccessToken,
    ClientCredentials,
    LaterClient,
    LaterError,
    RateLimiter,
    RetryPolicy,
)
from later_reporting_dagster.contract import PerformanceQuery
from later_reporting_dagster.contract.route import POSTS_PERFORMANCE
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.lake import Partition
from later_reporting_dagster.server.sandbox import SandboxOptions, World, create_app, running_server
from tests.cli.conftest import environment
from tests.client.raw_server import raw_server
from tests.client.scripted_api import jwt
from tests.conftest import Service
from tests.services import WAIT_SECONDS

CLIENT_ID = "id+Zq7/visible"
CLIENT_SECRET = 's3cr3t "Zq7"/+&<visible>'
WRONG_SECRET = "wr0ng-Zq7-visible"
ACCESS_TOKEN = "ready.Zq7.visible-token"
ECHOED_TOKEN = jwt(sub="Zq7/visible", scope=[f"{number:x}" for number in range(9**9, 9**10, 9**9)])
LAKE_PASSWORD = "l4ke-Zq7-visible"
DAYS = ("2024-03-01", "2024-03-02")

# The server responds with 403 and with 400 to two of these instances, whose ids differ in the last character only.
UUID_START = "3f2504e0"
FORBIDDEN, GONE, PRESENT = (f"{UUID_START}-4f89-11d3-9a0c-0305e82c330{number}" for number in range(3))


class Failures:
    """The failures of a server that echoes credentials in each of them, with their statuses so far."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self._requests = 0

    def respond(self, request: Request) -> Response | None:
        """Return a failure; None for the response of the sandbox."""
        if request.url.path != "/v2/posts/performance":
            return None
        instances = parse_qs(request.url.query).get("instanceIds", [])
        if instances == [FORBIDDEN]:
            return self._echo(request, 403)
        if {FORBIDDEN, GONE} & set(instances):
            return self._echo(request, 400)
        if "performance_date" in request.url.query:
            return self._echo(request, 418)
        self._requests += 1
        authorization = request.headers["authorization"]
        match self._requests % 11:
            case 1:
                return self._echo(request, 401)
            case 2 | 8:
                return self._echo(request, 500)
            case 3:
                return PlainTextResponse(f"overloaded by {authorization}", 503)
            case 4:
                return Response(f'{{"data": [{{"token": "{authorization}"', media_type="application/json")
            case 5:
                return Response(f"<html>{authorization}</html>", media_type="text/html")
            case 6:
                return self._echo(request, 429, headers={"Retry-After": "0"})
        return None

    def _echo(self, request: Request, status: int, headers: dict[str, str] | None = None) -> Response:
        self.statuses.append(status)
        instances = ", ".join(parse_qs(request.url.query).get("instanceIds", []))
        detail = f"{instances} by {request.headers.get('authorization')}, {CLIENT_ID}, {CLIENT_SECRET}"
        return JSONResponse({"type": f"ANL_00{status}", "title": CLIENT_SECRET, "detail": detail}, status, headers)


# Responses that are not HTTP, or that echo a secret where no text is expected.
ECHOES = (
    "{secret}\r\n\r\n",
    "HTTP/1.1 200 OK\r\n{secret}\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: {secret}\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: {secret}\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{secret}\r\n",
    "HTTP/1.1 500 {secret}\r\nContent-Length: 0\r\n\r\n",
    *(
        f"HTTP/1.1 {status}\r\nConnection: close\r\n\r\n{body}"
        for status, body in (
            ("500 no", '{{"type": "{secret}", "title": "{secret}", "detail": "{secret}"}}'),
            ("200 OK", '{{"data": [{{"instanceId": "{secret}"}}], "pagination": 5, "{secret}": 1}}'),
            ("200 OK", '{{"jwt": "a {secret}", "data": {{"{secret}": "{secret}"}}, "nextCursor": "{secret}"}}'),
        )
    ),
)


@contextmanager
def echo_server(*echoes: str) -> Iterator[tuple[str, Counter[bool]]]:
    """Serve each of the echoes in turn, and sometimes a valid token; yield the base URL and the request counts."""
    counts: Counter[bool] = Counter()  # by whether it was for a token

    def respond(request: bytes) -> list[bytes]:
        head, _, text = request.decode().partition("\r\n\r\n")
        body = json.loads(text or "{}")
        secret = body.get("clientSecret") or head.partition("Bearer ")[2].partition("\r\n")[0]
        counts[bool(body)] += 1
        echo = echoes[counts[bool(body)] % len(echoes)]
        if body and len(echoes) > 1 and counts[True] % RetryPolicy().max_attempts == 0:
            echo, secret = ECHOES[-1].replace("a {secret}", "{secret}"), ECHOED_TOKEN
        secret = json.dumps(secret)[1:-1] if "{{" in echo else secret
        return [echo.format(secret=secret).encode()]

    with raw_server(respond, keep_alive=False) as base_url:
        yield base_url, counts


# Commands with all kinds of failures, in one process because starting it takes longest.
COMMANDS = """
import faulthandler, logging, os, sys, traceback

logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
for name in ("httpx", "httpcore", "asyncio", "fsspec"):
    logging.getLogger(name).setLevel(logging.DEBUG)

import asyncio
from later_reporting_dagster.cli.main import main
from later_reporting_dagster.client import RetryPolicy
from later_reporting_dagster.defs.resource import LaterReportingResource

wait_after = RetryPolicy.wait_after
RetryPolicy.wait_after = lambda *args, **kwargs: None if wait_after(*args, **kwargs) is None else 0.0

def run(*arguments, **settings):
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        main(arguments, prog_name="later-reporting")
    except SystemExit as exit_:
        print(arguments[0], "exited with", exit_.code, flush=True)
    finally:
        os.environ.update({name: value or "" for name, value in before.items()})

def crash(**settings):
    os.environ.update(settings)
    try:
        later = LaterReportingResource.from_environment().resolved()
        asyncio.run(later.listed_instances())
    except Exception:
        traceback.print_exc()
        faulthandler.dump_traceback(all_threads=True)
    os.environ.update(dict.fromkeys(settings, ""))

days = ("--start", "2024-03-01", "--end", "2024-03-02")
run("doctor")
run("instances")
run("backfill", "--verbose", "--asset", "later/posts_published", *days)
run("backfill", "--verbose", "--asset", "later/post_metrics_daily", *days)
run("backfill", "--asset", "later/posts_published", *days, LATER_ACCESS_TOKEN=os.environ["ACCESS_TOKEN"])
run("doctor", LATER_CLIENT_SECRET=os.environ["WRONG_SECRET"])
run("doctor", LATER_ACCESS_TOKEN=os.environ["ACCESS_TOKEN"])
run("instances", LATER_BASE_URL=f"https://someone:{os.environ['WRONG_SECRET']}@example.com")
crash(LATER_ACCESS_TOKEN=os.environ["ACCESS_TOKEN"])
crash(LATER_ACCESS_TOKEN=os.environ["ACCESS_TOKEN"] + chr(10))

# They log status lines and headers as they are, which contain a secret if the server puts it there.
for name in ("httpx", "httpcore"):
    logging.getLogger(name).setLevel(logging.CRITICAL)
run("backfill", "--verbose", "--asset", "later/posts_published", *days, LATER_BASE_URL=os.environ["ECHO_SERVER"])
# Each ends at the first echo that is not worth a retry.
for token in ("", os.environ["ACCESS_TOKEN"]) * int(os.environ["ECHOES"]):
    run("instances", LATER_BASE_URL=os.environ["ECHO_SERVER"], LATER_ACCESS_TOKEN=token)
run("doctor", LATER_BASE_URL=os.environ["ECHO_SERVER"])
"""

DAGSTER_YAML = """\
telemetry:
  enabled: false
python_logs:
  managed_python_loggers: [root]
  python_log_level: DEBUG
"""


@dataclass(frozen=True)
class Leftovers:
    """Everything that the commands have written, by output or path; and all secrets and tokens that were sent."""

    contents: dict[str, bytes]
    secrets: set[str]
    statuses: list[int]
    echo_counts: Counter[bool]


@pytest.fixture(scope="module")
def leftovers(tmp_path_factory: pytest.TempPathFactory) -> Leftovers:
    """Run all commands, and collect what they have written."""
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
        extra_instance_ids=(FORBIDDEN, GONE, PRESENT),
    )
    options = SandboxOptions(client_id=CLIENT_ID, client_secret=CLIENT_SECRET, requests_per_window=100_000)
    failures = Failures()
    service = Service(app=create_app(world, options=options), override=failures.respond)
    with running_server(service) as base_url, echo_server(*ECHOES) as (echo_url, echo_counts):
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
                "ECHO_SERVER": echo_url,
                "ECHOES": str(len(ECHOES)),
                "ACCESS_TOKEN": ACCESS_TOKEN,
                "WRONG_SECRET": WRONG_SECRET,
            },
            cwd=directory / "work",
            capture_output=True,
            timeout=WAIT_SECONDS,
            check=False,
        )
    contents = {"stdout": command.stdout, "stderr": command.stderr, **contents_of(directory)}
    sent = {request.headers.get("authorization", "").removeprefix("Bearer ") for request in service.requests}
    secrets = (sent - {""}) | {CLIENT_ID, CLIENT_SECRET, WRONG_SECRET, ACCESS_TOKEN, ECHOED_TOKEN}
    return Leftovers(contents, secrets, failures.statuses, echo_counts)


def contents_of(directory: Path, *below: str) -> dict[str, bytes]:
    """Return the content of each file of a directory, or of some paths below it; Parquet and SQLite also as text."""
    contents: dict[str, bytes] = {}
    paths = [path for name in below or ("*",) for path in directory.glob(name)]
    for file in (file for path in paths for file in (path, *path.rglob("*")) if file.is_file()):
        content = file.read_bytes()
        if file.suffix == ".parquet":
            parquet = pq.ParquetFile(file)
            content += repr((parquet.metadata.metadata, parquet.schema_arrow, parquet.read().to_pylist())).encode()
        elif content.startswith(b"SQLite"):
            content += b"\n".join(values_in(file))
        contents[str(file.relative_to(directory))] = content
    return contents


def values_in(database: Path) -> Iterator[bytes]:
    """Yield every text and blob of an SQLite database, also decoded."""
    with closing(sqlite3.connect(database)) as connection:
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for row in connection.execute(f'SELECT * FROM "{table}"'):  # noqa: S608 - the name comes from the database
                for value in row:
                    if isinstance(value, str | bytes):
                        yield from decoded(value.encode() if isinstance(value, str) else value)


def decoded(content: bytes, depth: int = 0) -> Iterator[bytes]:
    """Yield the content, and what it decodes to as zlib, gzip or base64, up to three levels deep."""
    yield content
    if depth < 3:
        for decode in (zlib.decompress, gzip.decompress, lambda text: base64.b64decode(text, validate=True)):
            try:
                inner = decode(content)
            except (zlib.error, OSError, EOFError, binascii.Error, ValueError):
                continue
            if inner != content:
                yield from decoded(inner, depth + 1)


def secrets_in(contents: Mapping[str, bytes], *secrets: str) -> set[tuple[str, str]]:
    """Return names of contents with the secrets in them, as they are or escaped as in JSON once or twice."""
    found = set()
    for secret in secrets:
        in_json = json.dumps(secret)[1:-1]
        spellings = [each.encode() for each in (secret, in_json, json.dumps(in_json)[1:-1])]
        found |= {(name, secret) for name, content in contents.items() if any(each in content for each in spellings)}
    return found


@pytest.mark.e2e
def test_commands_exit_as_expected(leftovers: Leftovers) -> None:
    exits = [line for line in leftovers.contents["stdout"].decode().splitlines() if " exited with " in line]
    assert [line.replace(" exited with ", " ") for line in exits] == [
        "doctor 1",  # it reads a page of posts, too
        "instances 0",
        *["backfill 1", "backfill 1", "backfill 1"],
        *["doctor 1", "doctor 1"],
        "instances 1",
        *["backfill 1", *["instances 1"] * 2 * len(ECHOES), "doctor 1"],
    ], leftovers.contents["stderr"].decode()[-3000:]
    assert {401, 403, 400, 500, 429, 418} <= {*leftovers.statuses}
    assert min(leftovers.echo_counts.values()) >= len(ECHOES), leftovers.echo_counts
    assert any(name.startswith("lake/posts_published") for name in leftovers.contents)
    assert len(leftovers.secrets) >= 7  # with two issued tokens


@pytest.mark.e2e
def test_no_output_or_file_contains_a_secret(leftovers: Leftovers) -> None:
    assert secrets_in(leftovers.contents, *leftovers.secrets) == set()


@pytest.mark.e2e
def test_output_shows_instance_ids_whole(leftovers: Leftovers) -> None:
    output = (leftovers.contents["stdout"] + leftovers.contents["stderr"]).decode()
    assert f"HTTP 500 ANL_00500 [hidden] {PRESENT}, " in output
    assert {text[: len(PRESENT)] for text in re.split(f"(?={UUID_START})", output)[1:]} == {FORBIDDEN, GONE, PRESENT}


# Errors and reprs.

QUERY = PerformanceQuery(start_date=date(2024, 3, 1), end_date=date(2024, 3, 2), instance_ids=("a",))


def error_contents(error: BaseException) -> bytes:
    text = "".join(traceback.format_exception(error))
    return b"\n".join([text.encode(), repr(error).encode(), repr(vars(error)).encode(), pickle.dumps(error)])


def error_of(base_url: str, credentials: ClientCredentials | AccessToken) -> LaterError:
    """Return the error that fetching posts raises after one retry without waiting."""

    async def fetch() -> None:
        async with LaterClient(
            base_url=base_url,
            credentials=credentials,
            limiter=RateLimiter(requests=1_000_000),
            retry=RetryPolicy(max_attempts=2, initial_backoff_seconds=0.0, max_refused_seconds=0.2),
            timeout_seconds=10.0,
        ) as client:
            await client.fetch(POSTS_PERFORMANCE, QUERY)

    with pytest.raises(LaterError) as caught:
        asyncio.run(fetch())
    # A chained error would contain the request and the response, even where it is not printed.
    assert caught.value.__cause__ is caught.value.__context__ is None
    return caught.value


STATUSES = (302, 400, 401, 429)
ERROR_ECHO = ' {secret}\r\nRetry-After: 0\r\nConnection: close\r\n\r\n{{"detail": "{secret}"}}'


@pytest.mark.parametrize("echo", [*ECHOES, *(f"HTTP/1.1 {status}" + ERROR_ECHO for status in STATUSES)])
def test_client_errors_contain_no_secret(echo: str) -> None:
    with echo_server(echo) as (base_url, _):
        secret_error, token_error = (
            error_contents(error_of(base_url, credentials))
            for credentials in (ClientCredentials(CLIENT_ID, CLIENT_SECRET), AccessToken(ECHOED_TOKEN))
        )
    assert secrets_in({"secret": secret_error, "token": token_error}, CLIENT_SECRET, ECHOED_TOKEN) == set()


def test_reprs_of_resources_and_clients_contain_no_secret() -> None:
    root = f"memory://someone:{LAKE_PASSWORD}@vault/lake"
    settings = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "lake_root": root}
    resource = LaterReportingResource(**settings)
    lake = resource.lake()
    client = resource.client()
    written = lake.url("posts", Partition(date(2024, 3, 1), "a"))
    objects = [resource, resource.resolved(), resource.credentials(), lake, lake.root, written, client]
    token_resource = LaterReportingResource(access_token=ACCESS_TOKEN)
    objects += [token_resource, token_resource.credentials(), token_resource.client()]
    for exchange in (vars(each.client())["_transport"] for each in (resource, token_resource)):
        objects += [exchange, vars(exchange)["_token"]]
    texts = {repr(each): f"{each!r} {each}".encode() for each in objects}
    assert secrets_in(texts, CLIENT_SECRET, ACCESS_TOKEN, LAKE_PASSWORD) == set()
