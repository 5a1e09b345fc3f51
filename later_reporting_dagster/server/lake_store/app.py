"""The application of `later-reporting serve`: the routes of the API over a lake, and an access log.

A query is read from the lake once, and its pages from the snapshot of that read.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from weakref import WeakValueDictionary

import msgspec
from msgspec.structs import replace
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from later_reporting_dagster.contract.metrics import ACCOUNT_METRICS, DEFAULT_METRICS, OVER_TIME_METRICS, Metric
from later_reporting_dagster.contract.parameters import ApiVersion
from later_reporting_dagster.lake import Lake, LakeUnavailable
from later_reporting_dagster.server.app import Caller, Page, api_app, forbidden_instances
from later_reporting_dagster.server.lake_store.rows import (
    LakeChanged,
    LakeState,
    Rows,
    campaign_rows,
    inspect,
    post_rows,
    refused_instances,
    served_instances,
    total_rows,
    write_rows,
)
from later_reporting_dagster.server.lake_store.snapshots import DiskFull, Snapshot, Snapshots, private_folder
from later_reporting_dagster.server.routes import (
    ACCOUNT,
    CAMPAIGNS,
    INSTANCES,
    OVER_TIME,
    POSTS,
    ApiRoute,
    ListQuery,
    MetricsQuery,
    OverTimeQuery,
    PageQuery,
    PostsQuery,
    ProblemError,
    expired_cursor,
    instances_page,
    json_response,
    page_body,
    problem_response,
    reject_metrics,
)
from later_reporting_dagster.server.tokens import Client, Tokens

MAX_READS = 5
"""Reads of a query, if files are replaced or removed during each of them."""

WRITES_AT_ONCE = 2
"""More would need more memory and be no faster; with one, a short query would wait for the longest one."""

MAX_PAGINATIONS = 10_000

# More than the server can do: clients that adapt to the stated limit should not wait.
_RATE_LIMIT = (1_000_000, 60.0)

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """Options of a server of a lake, which the options of the command describe."""

    clients: tuple[Client, ...] = ()  # empty: anyone on this machine, without authentication
    api_version: ApiVersion | None = None  # None: that which the parameters of a request belong to
    strict: bool = False
    metrics: tuple[Metric, ...] = DEFAULT_METRICS  # that the posts in the lake have
    memory_gb: float = 1.0
    snapshot_gb: float = 8.0


def lake_app(lake: Lake, options: ServeOptions) -> ASGIApp:
    """Return the routes of the API over a lake, which it does not read before the first request and never writes to."""
    store = LakeStore(lake, options)
    app = api_app(
        store.pages,
        tokens=Tokens(options.clients) if options.clients else None,
        rate_limit=_RATE_LIMIT,
        api_version=options.api_version,
        clock=time.time,
        lifespan=lambda _: store.running(),
    )
    app.router.routes.append(Route("/healthz", _health))
    app.add_exception_handler(LakeUnavailable, _lake_unavailable)
    return AccessLogMiddleware(app)


async def _health(request: Request) -> Response:  # noqa: ARG001
    return json_response({"status": "ok"})


async def _lake_unavailable(request: Request, error: Exception) -> Response:  # noqa: ARG001
    _logger.error("%s", error)
    return problem_response(HTTPStatus.SERVICE_UNAVAILABLE, "the lake cannot be read: see the log of the server")


class AccessLogMiddleware:
    """Logs who sent a request, its route, status, bytes and milliseconds.

    Nothing else of it: a secret may be anywhere in a request by mistake.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, size, started = 0, 0, time.perf_counter()

        async def count(message: Message) -> None:
            nonlocal status, size
            status = message.get("status", status)
            size += len(message.get("body", b""))
            await send(message)

        scope.setdefault("state", {})
        try:
            await self._app(scope, receive, count)
        finally:
            milliseconds = 1000 * (time.perf_counter() - started)
            address, client_id = (scope.get("client") or ("-",))[0], scope["state"].get("client_id") or "-"
            route = f"{scope['method']} {scope['path'] if 'endpoint' in scope else '(unknown path)'}"
            log = "%s %s %s %s %d B %.0f ms"
            _logger.info(log, address, client_id, route, status or "-", size, milliseconds)


class LakeStore:
    """The routes of a lake. All methods have to be called in one event loop, while `running`."""

    _snapshots: Snapshots

    def __init__(self, lake: Lake, options: ServeOptions) -> None:
        self._lake = lake
        self._options = options
        self._metrics = frozenset(metric.api_name for metric in options.metrics)
        # The version of the rows of each, by query and session.
        self._paginations: OrderedDict[tuple[bytes, str], bytes] = OrderedDict()
        # A query that several requests need at once is written by the first of them.
        self._locks: WeakValueDictionary[tuple[bytes, bytes], asyncio.Lock] = WeakValueDictionary()
        self._writing = asyncio.Semaphore(WRITES_AT_ONCE)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        with (
            private_folder() as folder,
            closing(Snapshots(folder, max_bytes=self._options.snapshot_gb * 1e9)) as self._snapshots,
        ):
            yield

    @property
    def pages(self) -> Mapping[ApiRoute, Page]:
        """The routes that a lake has: it has the performance of campaigns by day only, for all platforms together."""
        return {
            POSTS: self.posts_page,
            INSTANCES: self.instances_page,
            CAMPAIGNS: self.campaigns_page,
            ACCOUNT: self.account,
            OVER_TIME: self.over_time_page,
        }

    async def instances_page(self, query: ListQuery, page: PageQuery, caller: Caller) -> Response:  # noqa: ARG002
        served = await run_in_threadpool(served_instances, self._lake, caller.instance_ids)
        return json_response(instances_page(served, page))

    async def posts_page(self, query: PostsQuery, page: PageQuery, caller: Caller) -> Response:
        """Return a page of posts, of the lake as it was when the pagination started."""
        reject_metrics([name for name in query.metrics or () if name not in self._metrics])
        return await self._page(post_rows(query), page, caller)

    async def campaigns_page(self, query: ListQuery, page: PageQuery, caller: Caller) -> Response:
        return await self._page(campaign_rows(query), page, caller)

    async def account(self, query: MetricsQuery, page: PageQuery, caller: Caller) -> Response:
        snapshot = await self._current_snapshot(total_rows(query, ACCOUNT_METRICS), caller)
        (totals,) = msgspec.json.decode(self._snapshots.read(snapshot, page.rows))
        return json_response({"data": totals}, snapshot.headers)

    async def over_time_page(self, query: OverTimeQuery, page: PageQuery, caller: Caller) -> Response:
        return await self._page(total_rows(query, OVER_TIME_METRICS), page, caller)

    async def _page(self, rows: Rows, page: PageQuery, caller: Caller) -> Response:
        """Return a page of the snapshot that it belongs to; a first page, of the lake as it is now.

        A cursor has the version of its rows. A page number has none: it belongs to the page 1 that was last read in its
        session.
        """
        pagination = (rows.key, caller.session)
        if page.api_version.uses_cursors:
            version = page.snapshot or None
        else:
            version = self._paginations.get(pagination) if page.offset else None
        snapshot = self._snapshots.get(rows.key, version) if version else None
        # What is not kept any more can be read again if the lake is the same: rows have a reproducible order.
        if snapshot is None:
            snapshot = await self._current_snapshot(rows, caller)
            if version not in (None, snapshot.version):
                if page.api_version.uses_cursors:
                    raise expired_cursor()
                detail = "its rows are no longer kept, and the lake has changed: start again at page 1"
                raise ProblemError(HTTPStatus.CONFLICT, detail)
        if not page.api_version.uses_cursors:
            self._paginations[pagination] = snapshot.version
            self._paginations.move_to_end(pagination)
            if len(self._paginations) > MAX_PAGINATIONS:
                self._paginations.popitem(last=False)
        data = msgspec.Raw(self._snapshots.read(snapshot, page.rows))
        page = replace(page, snapshot=snapshot.version)
        return json_response(page_body(data, page=page, total=snapshot.total), snapshot.headers)

    async def _current_snapshot(self, rows: Rows, caller: Caller) -> Snapshot:
        for _ in range(MAX_READS):
            state = await run_in_threadpool(self._inspect, rows, caller)
            with suppress(LakeChanged):
                async with self._locks.setdefault((rows.key, state.version), asyncio.Lock()):
                    if snapshot := self._snapshots.get(rows.key, state.version):
                        snapshot.headers = state.missing
                        return snapshot
                    return await self._write(rows, state)
        detail = "files of the lake are replaced faster than they can be read: try again later"
        raise ProblemError(HTTPStatus.INTERNAL_SERVER_ERROR, detail)

    def _inspect(self, rows: Rows, caller: Caller) -> LakeState:
        """Return the state of the files, if no instance is unknown and, in strict mode, no file is missing."""
        if refused := refused_instances(self._lake, rows.instance_ids, own=caller.instance_ids):
            raise forbidden_instances(refused)
        state = inspect(rows, self._lake, datetime.now(UTC))
        if self._options.strict and state.missing:
            missing = " ".join(f"{name}: {value}" for name, value in state.missing.items())
            detail = (
                f"files are missing; run `later-reporting backfill --only-missing --asset {rows.table.name}`, with"
                f" `--start` and `--end` of these days. {missing}"
            )
            # The API has no such error.
            raise ProblemError(HTTPStatus.CONFLICT, detail)
        return state

    async def _write(self, rows: Rows, state: LakeState) -> Snapshot:
        memory_gb = self._options.memory_gb / WRITES_AT_ONCE
        async with self._writing:
            try:
                file, version = await run_in_threadpool(
                    write_rows, rows, self._lake, state, self._snapshots, memory_gb=memory_gb
                )
            except DiskFull:
                self._snapshots.clear()  # the disk may be full of them
                raise
        return self._snapshots.add(rows.key, version, file, state.missing)
