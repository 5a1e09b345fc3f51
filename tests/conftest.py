"""Fixtures for all tests: the sandbox over real HTTP, and its rows, read independently of the package."""

import json
import os
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

import dagster as dg
import httpx
import pyarrow.parquet as pq
import pytest
import sqlalchemy
from hypothesis import HealthCheck, settings
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from later_reporting_dagster.client import LaterClient
from later_reporting_dagster.contract.parameters import API_VERSIONS, CURSOR, PAGED, ApiVersion
from later_reporting_dagster.server import Client
from later_reporting_dagster.server.sandbox import SandboxOptions, World, create_app, running_server
from tests.server.lake_store.clients import authenticate, days_query, fetch_rows

# The same few examples in every run and on any machine. The other settings are all those in which Hypothesis's profile
# for CI servers differs from its default, so that tests run the same there.
settings.register_profile(
    "steady",
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
# More and other examples in each run, or in one with a seed: --hypothesis-profile=varied --hypothesis-seed=1
settings.register_profile("varied", settings.get_profile("steady"), max_examples=200, derandomize=False)
settings.load_profile("steady")

Row = dict[str, Any]


# Ids that are awkward in paths, query strings and comma-separated lists.
INSTANCE_IDS = ("instance_000", "007", "a/b|c,d [e]", "Zoë 😀 %2F")
DAYS = [date(2024, 3, number) for number in range(1, 6)]
FIRST_DAY, LAST_DAY = DAYS[0], DAYS[-1]
NO_RATE_LIMIT = SandboxOptions(requests_per_window=100_000)


@pytest.fixture(autouse=True, scope="session")
def patient_clients() -> Iterator[None]:
    """Send no request again because a busy machine stood still. Tests of timeouts pass a short one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(LaterClient.__init__.__kwdefaults__, "timeout_seconds", 600.0)
        yield


def sandbox_settings(base_url: str, *, lake_root: str) -> dict[str, str]:
    """Return environment variables that select a sandbox without a rate limit, and a lake."""
    return {
        "LATER_BASE_URL": base_url,
        "LATER_CLIENT_ID": NO_RATE_LIMIT.client_id,
        "LATER_CLIENT_SECRET": NO_RATE_LIMIT.client_secret,
        "LATER_LAKE_ROOT": lake_root,
        "LATER_REQUESTS_PER_MINUTE": "1000000",
        "LATER_VERIFY_PERCENT": "0",  # of all that is fetched, a random part would be fetched twice
    }


# One database for the events of all runs, and no processes that copy the output of steps to files.
DAGSTER_YAML = """\
telemetry: {enabled: false}
event_log_storage:
  module: dagster._core.storage.event_log
  class: ConsolidatedSqliteEventLogStorage
  config: {base_dir: {env: DAGSTER_HOME}}
run_storage:
  module: dagster._core.storage.runs
  class: SqliteRunStorage
  config: {base_dir: {env: DAGSTER_HOME}}
schedule_storage:
  module: dagster._core.storage.schedules
  class: SqliteScheduleStorage
  config: {base_dir: {env: DAGSTER_HOME}}
compute_logs:
  module: dagster._core.storage.noop_compute_log_manager
  class: NoOpComputeLogManager
"""


# Run a test with the service in each API version, instead of in the paged one only.
both_api_versions = pytest.mark.parametrize("service", [PAGED, CURSOR], indirect=True, ids=str)

# Content types by their first word, with the network (docs/api.md, "Posts performance").
NETWORKS = {"musical": "tiktok"} | {
    name: name
    for name in ("instagram", "tiktok", "facebook", "youtube", "twitter")
    + ("linkedin", "pinterest", "snapchat", "blog", "twitch")
}

# Columns of the raw tables in order, with Arrow types, as documented in docs/tables.md.
POSTS_TYPES = {
    "instance_id": "string",
    "campaign_id": "int64",
    "post_id": "int64",
    "creator_id": "int64",
    "content_type": "string",
    "platform": "string",
    "content_url": "string",
    "content_image_url": "string",
    "creator_content_type": "string",
    "creator_full_name": "string",
    "creator_handle_name": "string",
    "creator_profile_image": "string",
    "creator_profile_link": "string",
    "post_date": "timestamp[us, tz=UTC]",
    "engagements": "int64",
    "impressions": "int64",
    "engagement_rate": "double",
    "estimated_value_generated": "double",
    "cpe": "double",
    "cpm": "double",
    "paid_engagements": "int64",
    "paid_impressions": "int64",
    "paid_engagement_rate": "double",
    "paid_cpe": "double",
    "paid_cpm": "double",
    "extra": "string",
}


@dataclass
class Service:
    """The sandbox as an ASGI application that records its requests, and whose responses a test can replace.

    Attributes:
        base_url: URL that it is served at.
        app: the sandbox.
        api_version: API version of `app`.
        requests: all requests so far.
        override: returns a response to send instead of the sandbox's; None to send that of the sandbox.
        transform: changes the JSON body of successful responses of the posts route.
    """

    base_url: str = ""
    app: ASGIApp | None = None
    api_version: ApiVersion = PAGED
    requests: list[Request] = field(default_factory=list)
    override: Callable[[Request], Response | None] = lambda request: None
    transform: Callable[[Request, Any], Any] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self.app is not None
        request = Request(scope)
        self.requests.append(request)
        if (response := self.override(request)) is not None:
            await response(scope, receive, send)
        elif self.transform is None or request.url.path != "/v2/posts/performance":
            await self.app(scope, receive, send)
        else:
            await self._send_transformed(request, scope, receive, send)

    async def _send_transformed(self, request: Request, scope: Scope, receive: Receive, send: Send) -> None:
        messages: list[Message] = []

        async def record(message: Message) -> None:
            messages.append(message)

        assert self.app is not None
        assert self.transform is not None
        await self.app(scope, receive, record)
        body = b"".join(message.get("body", b"") for message in messages)
        if messages[0]["status"] == 200:
            await JSONResponse(self.transform(request, json.loads(body)))(scope, receive, send)
            return
        for message in messages:
            await send(message)

    def refuse_campaigns(self, status: int) -> None:
        """Respond to all requests for campaigns and their performance with an error."""
        self.override = lambda request: problem(status) if request.url.path.startswith("/v2/campaigns") else None

    def request_count(self, path: str) -> int:
        return sum(request.url.path == path for request in self.requests)

    @property
    def data_requests(self) -> int:
        return self.request_count("/v2/posts/performance")


class CallingFirst(list[Any]):
    """A list that calls a function when its items are first iterated over."""

    def __init__(self, items: Iterable[Any], function: Callable[[], object]) -> None:
        super().__init__(items)
        self._function: Callable[[], object] | None = function

    def __iter__(self) -> Iterator[Any]:
        function, self._function = self._function, None
        if function is not None:
            function()
        return super().__iter__()


def parameters(request: Request) -> dict[str, list[str]]:
    """Return the query parameters of a request, with all values of each."""
    return parse_qs(request.url.query)


def is_first_page(request: Request) -> bool:
    """Return whether a request is for the first page of a query, in either API version."""
    values = parameters(request)
    return values.get("pageNumber", ["1"]) == ["1"] and "nextCursor" not in values


def metrics_of(row: Row) -> Row:
    """Return the object that holds the metrics of a post, in either API version."""
    metrics: Row = row.get("metrics", row)
    return metrics


def problem(status: int, kind: str = "", detail: str = "made by a test") -> Response:
    """Return an error response in the format of the API: docs/api.md, "Errors"."""
    body = {"type": kind or f"ANL_00{status}", "title": "a problem", "detail": detail}
    return JSONResponse(body, status, media_type="application/problem+json")


class Truth:
    """The expected rows: all posts of a service, fetched day by day without any code of the package."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        authenticate(client, Client(NO_RATE_LIMIT.client_id, NO_RATE_LIMIT.client_secret))
        self._days: dict[tuple[str, date], list[Row]] = {}

    def day(self, date_basis: str, day: date) -> list[Row]:
        """Return all posts of a day, of all instances, as parsed JSON."""
        if (date_basis, day) not in self._days:
            query = days_query(day, day, ("dateBasis", date_basis), ("pageSize", 100))
            self._days[date_basis, day] = fetch_rows(self._client, query)
        return self._days[date_basis, day]

    def partition(self, date_basis: str, day: date, instance_id: str) -> list[Row]:
        """Return the rows that the lake must store for a day and an instance, in the order of the file."""
        rows = [expected_stored_row(row) for row in self.day(date_basis, day) if row["instanceId"] == instance_id]
        return sorted(rows, key=lambda row: (row["campaign_id"], row["post_id"]))


def expected_stored_row(post: Row) -> Row:
    """Return a JSON row of the paged version as it must be stored, with `extra` as parsed JSON."""
    profile = post.get("creatorProfile") or {}
    others, others_of_profile, stored = {**post}, {**profile}, Row()
    for column, type_ in POSTS_TYPES.items():
        is_of_profile = column.startswith("creator_") and column != "creator_id"
        name = re.sub("_.", lambda part: part[0][1].upper(), column.removeprefix("creator_" * is_of_profile))
        value = (others_of_profile if is_of_profile else others).pop(name, None)
        stored[column] = float(value) if type_ == "double" and value is not None else value
    stored["platform"] = NETWORKS.get((stored["content_type"] or "").split("_")[0])
    stored["post_date"] = datetime.fromisoformat(stored["post_date"])
    others.pop("creatorProfile", None)
    stored["extra"] = others | ({"creatorProfile": others_of_profile} if others_of_profile else {}) or None
    return stored


def partition_file(lake: Path, asset: str, day: date, instance_id: str) -> Path:
    """Return the documented path of a partition's file."""
    return lake / asset / f"date={day}" / f"instance_id={quote(instance_id, safe='')}" / "part-0.parquet"


def stored_rows(lake: Path, asset: str, day: date, instance_id: str) -> list[Row]:
    """Return the rows of a partition's file, after asserting its columns and types."""
    table = pq.ParquetFile(partition_file(lake, asset, day, instance_id)).read()
    assert {column.name: str(column.type) for column in table.schema} == POSTS_TYPES
    rows: list[Row] = table.to_pylist()
    return rows


def files(directory: Path) -> dict[str, tuple[bytes, int]]:
    """Return the content and modification time in nanoseconds of each file below a directory, by relative path.

    Without records of fetches, which each run writes.
    """
    return {
        str(path.relative_to(directory)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(directory.rglob("*"))
        if path.is_file() and "_fetches" not in path.parts
    }


# Environment variables of the caller that would change a setting, a connection or the layout of an output.
CALLER_PREFIXES = ("LATER_", "DAGSTER_", "AWS_", "FSSPEC_", "SCHEMATHESIS_")
CALLER_VARIABLES = {
    *("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    *("CLICOLOR", "CLICOLOR_FORCE", "COLUMNS", "FORCE_COLOR", "LINES", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"),
    *("PYTHONWARNINGS", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"),
}


def pytest_configure() -> None:
    """Remove the caller's variables before test modules are imported, because definitions read them at import."""
    for name in [*os.environ]:
        if name.startswith(CALLER_PREFIXES) or name.upper() in CALLER_VARIABLES:
            del os.environ[name]


@pytest.fixture(scope="session", autouse=True)
def _isolated_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Set HOME and the cache to temporary folders, so that tests neither read nor write the caller's."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        environment.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        environment.setenv("DAGSTER_DISABLE_TELEMETRY", "1")
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_fsync() -> Iterator[None]:
    """Do not wait for the disk, which takes longer than a write: no test cuts the power."""

    def without_waiting(connection: Any, _record: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous=OFF")

    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", without_waiting)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def small_world() -> World:
    """Four instances with twelve posts a day: several pages, and one (day, instance) pair without posts."""
    return World(
        first_day=date(2024, 2, 1),
        last_day=date(2024, 3, 10),
        seed=25,
        instances=1,
        posts_per_day=12,
        extra_instance_ids=INSTANCE_IDS[1:],
    )


@pytest.fixture(scope="session")
def _served(small_world: World) -> Iterator[tuple[Service, dict[ApiVersion, ASGIApp]]]:
    """The running service, and its application in each API version."""
    apps: dict[ApiVersion, ASGIApp] = {
        version: create_app(small_world, options=replace(NO_RATE_LIMIT, api_version=version))
        for version in API_VERSIONS.values()
    }
    service = Service(app=apps[PAGED])
    with running_server(service) as service.base_url:
        yield service, apps


@pytest.fixture(scope="session")
def truth(_served: tuple[Service, dict[ApiVersion, ASGIApp]]) -> Truth:
    """The rows of the service, fetched before any test changes its responses."""
    service, apps = _served
    service.app, service.override, service.transform = apps[PAGED], lambda request: None, None
    with httpx.Client(base_url=service.base_url) as client:
        truth = Truth(client)
        for day in DAYS:
            for date_basis in ("post_date", "performance_date"):
                truth.day(date_basis, day)
    return truth


@pytest.fixture
def service(
    _served: tuple[Service, dict[ApiVersion, ASGIApp]], truth: Truth, request: pytest.FixtureRequest
) -> Service:
    """The sandbox over `small_world` without recorded requests or overrides; paged unless parametrized."""
    service, apps = _served
    service.api_version = getattr(request, "param", PAGED)
    service.app = apps[service.api_version]
    service.requests.clear()
    service.override = lambda request: None
    service.transform = None
    return service


@pytest.fixture(scope="session")
def stage() -> Iterator[Service]:
    """A running server whose application each test replaces."""
    stage = Service()
    with running_server(stage) as stage.base_url:
        yield stage


@pytest.fixture(scope="session")
def prepared_dagster_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to copy as `DAGSTER_HOME`, because creating the databases of one takes longer than most tests."""
    home = tmp_path_factory.mktemp("prepared-dagster-home")
    (home / "dagster.yaml").write_text(DAGSTER_YAML)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DAGSTER_HOME", str(home))
        with dg.DagsterInstance.get() as instance:
            instance.get_runs()
            instance.all_instigator_state()
    return home


@pytest.fixture
def dagster_home(prepared_dagster_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The `DAGSTER_HOME` of this process, without runs."""
    home = Path(shutil.copytree(prepared_dagster_home, tmp_path / "dagster-home"))
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    return home
