"""The store that serves a lake: a query is read from the lake once, and its pages from the snapshot of that read."""

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Coroutine, Hashable, Sequence
from datetime import datetime
from functools import partial
from http import HTTPStatus
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace
from starlette.concurrency import run_in_threadpool

from later_reporting_dagster.contract.metrics import Metric
from later_reporting_dagster.contract.parameters import CAMPAIGNS_PERFORMANCE_PATH, ProblemType, SortDirection
from later_reporting_dagster.lake import FileDamaged, Lake, LakeUnavailable
from later_reporting_dagster.server.campaign_rows import CampaignRows
from later_reporting_dagster.server.lake_instances import all_instances
from later_reporting_dagster.server.list_pages import page_body
from later_reporting_dagster.server.paginations import Paginations
from later_reporting_dagster.server.post_rows import PostRows
from later_reporting_dagster.server.post_store import Caller, PageResponse, instances_in_scope
from later_reporting_dagster.server.problem_responses import ProblemError
from later_reporting_dagster.server.query_parameters import CampaignsQuery, PageRequest, PostsQuery, expired_cursor
from later_reporting_dagster.server.row_source import LakeChanged, LakeState, ReadLimits, RowsNotRead, RowSource
from later_reporting_dagster.server.snapshots import TIE, Snapshot, SnapshotCache, SnapshotNotWritten

MAX_READS = 5
"""Reads of a query, if files are replaced or removed during each of them."""

READS_AT_ONCE = 2
"""More would need more memory and be no faster; with one, a short query would wait for the longest one."""

_CONFLICT = "ANL_00409"  # not documented: the API has no such error

_logger = logging.getLogger(__name__)
_Result = TypeVar("_Result")


class LakeStore:
    """The `PostStore` of a lake. All methods have to be called in one event loop.

    Args:
        lake: The lake, which is only read.
        metrics: The metrics that the posts in the lake have.
        is_strict: Whether a query of which a file is missing is refused.
        limits: Limits of all reads together.
        snapshot_bytes: Size of all snapshots.
        now: Return the current time.
    """

    def __init__(
        self,
        lake: Lake,
        *,
        metrics: Sequence[Metric],
        is_strict: bool,
        limits: ReadLimits,
        snapshot_bytes: float,
        now: Callable[[], datetime],
    ) -> None:
        self._lake = lake
        self._metrics = frozenset(metric.api_name for metric in metrics)
        self._is_strict = is_strict
        self._limits = dataclasses.replace(limits, memory_gb=limits.memory_gb / READS_AT_ONCE)
        self._now = now
        self._snapshots = SnapshotCache(snapshot_bytes)
        self._paginations = Paginations()
        self._reads: dict[Hashable, asyncio.Task[Snapshot]] = {}
        self._inspections: dict[RowSource, asyncio.Task[LakeState]] = {}
        self._next_inspections: dict[RowSource, asyncio.Task[LakeState]] = {}
        self._reading = asyncio.Semaphore(READS_AT_ONCE)

    async def check_route(self, path: str) -> None:
        """Refuse the performance of campaigns: the lake has it by day only, for all platforms together."""
        if path == CAMPAIGNS_PERFORMANCE_PATH:
            detail = "this server does not have the performance of campaigns"
            raise ProblemError(HTTPStatus.NOT_FOUND, ProblemType.NOT_FOUND, detail)

    async def instance_ids(self) -> Sequence[str]:
        """Return the instances that the API lists or that have files."""
        return await _in_thread(all_instances, self._lake)

    def unsupported_metrics(self, query: PostsQuery) -> Sequence[str]:
        """Return the requested metrics that the posts in the lake do not have."""
        return [name for name in query.metrics or () if name not in self._metrics]

    def unsupported_campaign_metrics(self, query: CampaignsQuery) -> Sequence[str]:
        """Return all requested metrics: the route is refused."""
        return query.metrics or ()

    async def posts_page(self, query: PostsQuery, page: PageRequest, caller: Caller) -> PageResponse:
        """Return a page of posts, of the lake as it was when the pagination started."""
        return await self._page(
            PostRows.of(query, _scope(query.instance_ids, caller)),
            query,
            page,
            caller,
            sort_by=query.sort_property.value,
            descending=query.sort_direction is SortDirection.DESC,
        )

    async def campaigns_page(
        self, instance_ids: tuple[str, ...] | None, page: PageRequest, caller: Caller
    ) -> PageResponse:
        """Return a page of campaigns, ordered by instance and id."""
        rows = CampaignRows(_scope(instance_ids, caller))
        return await self._page(rows, rows, page, caller, sort_by=TIE, descending=False)

    async def campaign_performance_page(self, query: CampaignsQuery, page: PageRequest, caller: Caller) -> PageResponse:
        """Raise an error: `check_route` refuses this route."""
        raise NotImplementedError

    async def _page(
        self, rows: RowSource, query: Hashable, page: PageRequest, caller: Caller, *, sort_by: str, descending: bool
    ) -> PageResponse:
        snapshot = await self._snapshot_of_page(rows, query, page, caller)
        if not snapshot.is_sorted_by(sort_by, descending=descending):
            max_bytes = self._snapshots.max_bytes
            await _in_thread(partial(snapshot.sort_by, sort_by, descending=descending, max_bytes=max_bytes))
            self._snapshots.make_room()
        data = msgspec.Raw(snapshot.page(sort_by, descending=descending, rows=page.rows))
        body = page_body(data, page=replace(page, snapshot=snapshot.version), total=len(snapshot))
        return PageResponse(body, snapshot.headers)

    async def _snapshot_of_page(self, rows: RowSource, query: Hashable, page: PageRequest, caller: Caller) -> Snapshot:
        """Return the snapshot that a page belongs to: for a first page, that of the lake as it is now."""
        uses_cursors = page.api_version.uses_cursors
        version = page.snapshot or None
        if page.offset and not uses_cursors:
            version = self._paginations.version_of(query, caller, page)
        if version is None:
            snapshot = await self._current_snapshot(rows, caller)
            if not uses_cursors:
                self._paginations.start(query, caller, page, version=snapshot.version, rows=len(snapshot))
            return snapshot
        if (found := self._snapshots.get(rows, version)) is not None:
            return found
        # Not kept any more, but the same if the lake is: rows are read in a reproducible order.
        state = await self._inspect(rows, caller)
        if state.version == version:
            snapshot = await self._current_snapshot(rows, caller)
            if snapshot.version == version:
                return snapshot
        if uses_cursors:
            raise expired_cursor()
        detail = "the rows of this pagination are no longer kept, and the lake has changed: start again at page 1"
        raise ProblemError(HTTPStatus.CONFLICT, _CONFLICT, detail)

    async def _current_snapshot(self, rows: RowSource, caller: Caller) -> Snapshot:
        """Return a snapshot of the lake as it is now."""
        for _ in range(MAX_READS):
            state = await self._inspect(rows, caller)
            snapshot = self._snapshots.get(rows, state.version)
            if snapshot is None:
                try:
                    snapshot = await asyncio.shield(self._read_once(rows, state))
                except LakeChanged:
                    continue
            snapshot.headers = state.missing.headers()
            return snapshot
        raise _unreadable("files of the lake are replaced faster than they can be read: try again later")

    async def _inspect(self, rows: RowSource, caller: Caller) -> LakeState:
        """Return the state of the files.

        Raises:
            ProblemError: An instance is unknown, or the store is strict and a file is missing.
        """
        state = await asyncio.shield(self._next_inspection(rows))
        if state.unknown_instances and caller.instance_ids is None:
            instances_in_scope(tuple(state.unknown_instances), ())
        if self._is_strict and state.missing.days:
            missing = " ".join(f"{name}: {value}" for name, value in state.missing.headers().items())
            detail = f"files are missing; run `later-reporting backfill --only-missing` for these days. {missing}"
            raise ProblemError(HTTPStatus.CONFLICT, _CONFLICT, detail)
        return state

    def _next_inspection(self, rows: RowSource) -> asyncio.Task[LakeState]:
        """Return the task of the next inspection: all requests that arrive before it starts share it.

        It is not the one that is in progress, which may have missed a file that was replaced before the request.
        """
        if rows not in self._next_inspections:
            self._next_inspections[rows] = _create_task(self._inspect_after(self._inspections.get(rows), rows))
        return self._next_inspections[rows]

    async def _inspect_after(self, previous: asyncio.Task[LakeState] | None, rows: RowSource) -> LakeState:
        if previous is not None:
            await asyncio.wait([previous])
        task = self._inspections[rows] = self._next_inspections.pop(rows)
        try:
            return await _in_thread(rows.inspect, self._lake, self._now())
        finally:
            if self._inspections.get(rows) is task:
                del self._inspections[rows]

    def _read_once(self, rows: RowSource, state: LakeState) -> asyncio.Task[Snapshot]:
        """Return the task that reads a snapshot. Requests for the same rows share it."""
        key = (rows, state.version)
        if key not in self._reads:
            self._reads[key] = _create_task(self._read(rows, state))
            self._reads[key].add_done_callback(lambda _: self._reads.pop(key))
        return self._reads[key]

    async def _read(self, rows: RowSource, state: LakeState) -> Snapshot:
        async with self._reading:
            try:
                snapshot = await _in_thread(rows.read, self._lake, state, self._limits)
            except ProblemError as problem:
                if not isinstance(problem.__cause__, SnapshotNotWritten):
                    raise
                self._snapshots.clear()  # the disk may be full of older ones
                snapshot = await _in_thread(rows.read, self._lake, state, self._limits)
        self._snapshots.add(rows, snapshot)
        return snapshot


def _create_task(coroutine: Coroutine[Any, Any, _Result]) -> asyncio.Task[_Result]:
    """Start a task whose error is no surprise: the requests that wait for it may have been closed."""
    task = asyncio.create_task(coroutine)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task


def _scope(requested: tuple[str, ...] | None, caller: Caller) -> tuple[str, ...] | None:
    """Return the instances of a query; None: all instances of the lake."""
    return requested if caller.instance_ids is None else instances_in_scope(requested, caller.instance_ids)


async def _in_thread(function: Callable[..., _Result], *arguments: object) -> _Result:
    """Call a function that reads the lake in another thread, and return its result.

    Raises:
        ProblemError: 500, if the lake cannot be read.
    """
    try:
        return await run_in_threadpool(function, *arguments)
    except (RowsNotRead, SnapshotNotWritten) as error:
        raise _unreadable(str(error)) from error
    except (LakeUnavailable, FileDamaged) as error:
        _logger.exception("The lake cannot be read")
        raise _unreadable("the lake cannot be read: see the log of the server") from error


def _unreadable(reason: str) -> ProblemError:
    return ProblemError(HTTPStatus.INTERNAL_SERVER_ERROR, ProblemType.INTERNAL, reason)
