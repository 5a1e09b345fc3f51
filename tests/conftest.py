"""The sandbox over real HTTP, and the truth about what it holds, read by code that the project does not share."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote

import httpx
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, settings
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from later_reporting_dagster.contract.api_version import CURSOR, PAGED, REVISIONS, Revision
from later_reporting_dagster.sandbox import SandboxOptions, World, create_app, running_sandbox

# The same examples in each run, however busy the machine is. These are also all the settings in which the profile
# that Hypothesis loads on a CI server differs from its default.
settings.register_profile(
    "steady",
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
# Other examples in each run, or those of a seed: --hypothesis-profile=varied --hypothesis-seed=1
settings.register_profile("varied", settings.get_profile("steady"), derandomize=False)
settings.load_profile("steady")

Row = dict[str, Any]


@contextmanager
def acting_as(uid: int) -> Iterator[None]:
    """Has this process, which is root's, act as another user and group."""
    groups = os.getgroups()
    os.setgroups([])
    os.setresgid(uid, uid, 0)
    os.setresuid(uid, uid, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)
        os.setgroups(groups)


# Ids as nobody would choose them, and as someone some day will.
INSTANCE_IDS = ("instance_000", "007", "a/b|c,d [e]", "Zoë 😀 %2F")
DAYS = [date(2024, 3, number) for number in range(1, 6)]
FIRST_DAY, LAST_DAY = DAYS[0], DAYS[-1]
QUIET_CELL = (date(2024, 3, 2), "a/b|c,d [e]")  # on which nothing was published
UNHURRIED = SandboxOptions(requests_per_window=100_000)


def settings_of(base_url: str, *, lake_root: str) -> dict[str, str]:
    """The environment of a user who points the project at a sandbox without a rate limit."""
    return {
        "LATER_BASE_URL": base_url,
        "LATER_CLIENT_ID": UNHURRIED.client_id,
        "LATER_CLIENT_SECRET": UNHURRIED.client_secret,
        "LATER_LAKE_ROOT": lake_root,
        "LATER_REQUESTS_PER_MINUTE": "1000000",
    }


# The service of the tests in either revision; `numbered` is for what only numbered pages have.
both_revisions = pytest.mark.parametrize("service", [PAGED, CURSOR], indirect=True, ids=str)
numbered = pytest.mark.parametrize("service", [PAGED], indirect=True, ids=str)

# The columns of the lake's posts, in order, as the documentation promises them.
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
    """The sandbox as served: its requests are written down, and a test may have them answered otherwise."""

    base_url: str = ""
    app: ASGIApp | None = None
    revision: Revision = PAGED
    requests: list[Request] = field(default_factory=list)
    instead: Callable[[Request], Response | None] = lambda request: None
    edited: Callable[[Request, Any], Any] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self.app is not None
        request = Request(scope)
        self.requests.append(request)
        if (response := self.instead(request)) is not None:
            await response(scope, receive, send)
        elif self.edited is None or request.url.path != "/v2/posts/performance":
            await self.app(scope, receive, send)
        else:
            await self._send_edited(request, scope, receive, send)

    async def _send_edited(self, request: Request, scope: Scope, receive: Receive, send: Send) -> None:
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        assert self.app is not None
        assert self.edited is not None
        await self.app(scope, receive, keep)
        body = b"".join(message.get("body", b"") for message in messages)
        if messages[0]["status"] == 200:
            await JSONResponse(self.edited(request, json.loads(body)))(scope, receive, send)
            return
        for message in messages:
            await send(message)

    def asked(self, path: str) -> int:
        """How many requests for `path` have come."""
        return sum(request.url.path == path for request in self.requests)

    @property
    def data_requests(self) -> int:
        return self.asked("/v2/posts/performance")


def parameters(request: Request) -> dict[str, list[str]]:
    given: dict[str, list[str]] = {}
    for name, value in parse_qsl(request.url.query):
        given.setdefault(name, []).append(value)
    return given


def is_first_page(request: Request) -> bool:
    """Whether a request is for the first page of an answer, in either revision."""
    given = parameters(request)
    return given.get("pageNumber", ["1"]) == ["1"] and "nextCursor" not in given


def metrics_of(row: Row) -> Row:
    """Where a row of an answer has its metrics, in either revision."""
    metrics: Row = row.get("metrics", row)
    return metrics


def problem(status: int, kind: str = "") -> Response:
    body = {"type": kind or f"ANL_00{status}", "title": "a problem", "detail": "as the test wants it"}
    return JSONResponse(body, status, media_type="application/problem+json")


class Truth:
    """What a service holds, asked a day at a time: no parser, no plan and no name of the project is used."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        body = {"clientId": UNHURRIED.client_id, "clientSecret": UNHURRIED.client_secret}
        token = json.loads(self._client.post("/oauth/token", json=body).content)["jwt"]
        self._client.headers["Authorization"] = f"Bearer {token}"
        self._days: dict[tuple[str, date], list[Row]] = {}

    def day(self, date_basis: str, day: date) -> list[Row]:
        """All posts of a day, of all instances, as JSON has them."""
        if (date_basis, day) not in self._days:
            rows: list[Row] = []
            page, pages = 1, 1
            while page <= pages:
                query = {"startDate": str(day), "endDate": str(day), "dateBasis": date_basis}
                answer = self._client.get(
                    "/v2/posts/performance", params={**query, "pageSize": 100, "pageNumber": page}
                ).raise_for_status()
                document = json.loads(answer.content)
                rows += document["data"]
                page, pages = page + 1, document["pagination"]["totalPages"]
            self._days[date_basis, day] = rows
        return self._days[date_basis, day]

    def partition(self, date_basis: str, day: date, instance_id: str) -> list[Row]:
        """The rows that the lake must hold of a day and an instance, in its order."""
        rows = [_as_stored(row) for row in self.day(date_basis, day) if row["instanceId"] == instance_id]
        return sorted(rows, key=lambda row: (row["campaign_id"], row["post_id"]))


def _as_stored(post: Row) -> Row:
    profile = post["creatorProfile"]

    def decimal(name: str) -> float | None:
        return None if post[name] is None else float(post[name])

    return {
        "instance_id": post["instanceId"],
        "campaign_id": post["campaignId"],
        "post_id": post["postId"],
        "creator_id": post["creatorId"],
        "content_type": post["contentType"],
        "platform": post["contentType"].split("_")[0],
        "content_url": post["contentUrl"],
        "content_image_url": post["contentImageUrl"],
        "creator_content_type": profile["contentType"],
        "creator_full_name": profile["fullName"],
        "creator_handle_name": profile["handleName"],
        "creator_profile_image": profile["profileImage"],
        "creator_profile_link": profile["profileLink"],
        "post_date": datetime.fromisoformat(post["postDate"].replace("Z", "+00:00")),
        "engagements": post["engagements"],
        "impressions": post["impressions"],
        "engagement_rate": decimal("engagementRate"),
        "estimated_value_generated": decimal("estimatedValueGenerated"),
        "cpe": decimal("cpe"),
        "cpm": decimal("cpm"),
        "paid_engagements": post["paidEngagements"],
        "paid_impressions": post["paidImpressions"],
        "paid_engagement_rate": decimal("paidEngagementRate"),
        "paid_cpe": decimal("paidCpe"),
        "paid_cpm": decimal("paidCpm"),
        "extra": None,
    }


def partition_file(lake: Path, asset: str, day: date, instance_id: str) -> Path:
    """Where a partition is promised to lie."""
    return lake / asset / f"date={day}" / f"instance_id={quote(instance_id, safe='')}" / "part-0.parquet"


def stored_rows(lake: Path, asset: str, day: date, instance_id: str) -> list[Row]:
    """The rows of a partition's file, whose columns and types are the promised ones."""
    table = pq.ParquetFile(partition_file(lake, asset, day, instance_id)).read()
    assert {column.name: str(column.type) for column in table.schema} == POSTS_TYPES
    rows: list[Row] = table.to_pylist()
    return rows


def files(directory: Path) -> dict[str, tuple[bytes, int]]:
    """Every file below a directory: its bytes, and when it was last written."""
    return {
        str(path.relative_to(directory)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


# Variables of whoever runs the tests that would change a setting, a connection or the layout of an output.
CALLERS_PREFIXES = ("LATER_", "DAGSTER_", "AWS_", "FSSPEC_", "SCHEMATHESIS_")
CALLERS_VARIABLES = {
    *("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    *("CLICOLOR", "CLICOLOR_FORCE", "COLUMNS", "FORCE_COLOR", "LINES", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"),
    *("PYTHONWARNINGS", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"),
}


def pytest_configure() -> None:
    """Remove the caller's variables before a test module is imported: the definitions read theirs at import."""
    for name in [*os.environ]:
        if name.startswith(CALLERS_PREFIXES) or name.upper() in CALLERS_VARIABLES:
            del os.environ[name]


@pytest.fixture(scope="session", autouse=True)
def _environment_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give the tests a home of their own: no configuration is read from the caller's, and nothing is written there."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        environment.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        environment.setenv("DAGSTER_DISABLE_TELEMETRY", "1")
        yield


@pytest.fixture(scope="session")
def small_world() -> World:
    """Four instances, twelve posts a day: several pages, and one quiet cell."""
    return World(
        first_day=date(2024, 2, 1),
        last_day=date(2024, 3, 10),
        seed=25,
        instances=1,
        posts_per_day=12,
        further_instances=INSTANCE_IDS[1:],
    )


@pytest.fixture(scope="session")
def _served(small_world: World) -> Iterator[tuple[Service, dict[Revision, ASGIApp]]]:
    apps: dict[Revision, ASGIApp] = {
        revision: create_app(small_world, options=replace(UNHURRIED, revision=revision))
        for revision in REVISIONS.values()
    }
    service = Service(app=apps[PAGED])
    with running_sandbox(service) as service.base_url:
        yield service, apps


@pytest.fixture(scope="session")
def truth(_served: tuple[Service, dict[Revision, ASGIApp]]) -> Truth:
    """What the service of the tests holds, asked for before any test alters it."""
    service, apps = _served
    service.app, service.instead, service.edited = apps[PAGED], lambda request: None, None
    with httpx.Client(base_url=service.base_url) as client:
        truth = Truth(client)
        for day in DAYS:
            for date_basis in ("post_date", "performance_date"):
                truth.day(date_basis, day)
    return truth


@pytest.fixture
def service(_served: tuple[Service, dict[Revision, ASGIApp]], truth: Truth, request: pytest.FixtureRequest) -> Service:
    """The sandbox over `small_world`, with nothing asked yet and nothing altered; by number, unless a test says so."""
    service, apps = _served
    service.revision = getattr(request, "param", PAGED)
    service.app = apps[service.revision]
    service.requests.clear()
    service.instead = lambda request: None
    service.edited = None
    return service
