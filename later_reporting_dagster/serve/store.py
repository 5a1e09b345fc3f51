"""The store that serves a lake: a query is read from the lake once, and its pages from the snapshot of that read."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Hashable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from http import HTTPStatus
from typing import Protocol, TypeVar

import msgspec
from msgspec.structs import replace
from starlette.concurrency import run_in_threadpool

from later_reporting_dagster.contract.metrics import Metric
from later_reporting_dagster.contract.parameters import CAMPAIGNS_PERFORMANCE_PATH, ProblemType, SortDirection
from later_reporting_dagster.endpoint.pages import PageRequest, expired_cursor, page_body
from later_reporting_dagster.endpoint.problem_responses import ProblemError
from later_reporting_dagster.endpoint.query_parameters import CampaignsQuery, PostsQuery
from later_reporting_dagster.endpoint.store import Caller, PageResponse, instances_in_scope
from later_reporting_dagster.lake import FileDamaged, Lake, LakeUnavailable
from later_reporting_dagster.serve.campaigns import CampaignRows
from later_reporting_dagster.serve.lake_state import LakeChanged, LakeState, RowsNotRead, all_instances
from later_reporting_dagster.serve.posts import PostRows
from later_reporting_dagster.serve.snapshots import (
    BLOCK_ROWS,
    MAX_FILES,
    TIE,
    NotWritten,
    OutOfMemory,
    Tables,
    digest,
    private_folder,
)

MAX_READS = 5
"""Reads of a query, if files are replaced or removed during each of them."""

WRITES_AT_ONCE = 2
"""More would need more memory and be no faster; with one, a short query would wait for the longest one."""

MAX_PAGINATIONS = 10_000

_CONFLICT = "ANL_00409"  # not documented: the API has no such error

_logger = logging.getLogger(__name__)
_Result = TypeVar("_Result")


class RowSource(Hashable, Protocol):
    """The rows of a query, without their order."""

    def inspect(self, lake: Lake, now: datetime) -> LakeState:
        """Return the state of the files of the query.

        Raises:
            ProblemError: The lake does not have these rows.
            LakeUnavailable: The files cannot be listed.
        """

    def write(self, lake: Lake, state: LakeState, tables: Tables, name: str) -> bytes:
        """Write the rows to a table, and return their version: that of the state, if no file changed meanwhile.

        Raises:
            LakeChanged: A file was replaced or removed. Inspect the files again.
            RowsNotRead: A file cannot be read.
            NotWritten: A temporary file cannot be written.
            OutOfMemory: The query needs too much memory.
        """


class LakeStore:
    """The `PostStore` of a lake. All methods have to be called in one event loop, while `running`.

    Args:
        lake: The lake, which is only read.
        metrics: The metrics that the posts in the lake have.
        is_strict: Whether a query of which a file is missing is refused.
        memory_gb: Memory limit of all that DuckDB does.
        snapshot_bytes: Size of all temporary files.
        snapshot_directory: Their directory; None: that of the system.
        now: Return the current time.
    """

    _tables: Tables

    def __init__(
        self,
        lake: Lake,
        *,
        metrics: Sequence[Metric],
        is_strict: bool,
        memory_gb: float,
        snapshot_bytes: float,
        snapshot_directory: str | None,
        now: Callable[[], datetime],
    ) -> None:
        self._lake = lake
        self._metrics = frozenset(metric.api_name for metric in metrics)
        self._is_strict = is_strict
        self._memory_gb = memory_gb / (WRITES_AT_ONCE + 1)
        self._snapshot_bytes = snapshot_bytes
        self._snapshot_directory = snapshot_directory
        self._now = now
        self._missing: dict[str, Mapping[str, str]] = {}  # headers, by snapshot
        self._paginations: OrderedDict[str, bytes] = OrderedDict()
        self._writes: dict[str, asyncio.Task[str]] = {}
        self._writing = asyncio.Semaphore(WRITES_AT_ONCE)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep a folder for temporary files during the block."""
        with private_folder(self._snapshot_directory) as folder:
            self._tables = Tables(folder, max_bytes=self._snapshot_bytes, memory_gb=self._memory_gb)
            try:
                yield
            finally:
                self._tables.close()

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
        rows = PostRows.of(query, _scope(query.instance_ids, caller))
        descending = query.sort_direction is SortDirection.DESC
        return await self._page(rows, page, caller, sort_by=query.sort_property.value, descending=descending)

    async def campaigns_page(
        self, instance_ids: tuple[str, ...] | None, page: PageRequest, caller: Caller
    ) -> PageResponse:
        """Return a page of campaigns, ordered by instance and id."""
        return await self._page(CampaignRows(_scope(instance_ids, caller)), page, caller, sort_by=TIE, descending=False)

    async def campaign_performance_page(self, query: CampaignsQuery, page: PageRequest, caller: Caller) -> PageResponse:
        """Raise an error: `check_route` refuses this route."""
        raise NotImplementedError

    async def _page(
        self, rows: RowSource, page: PageRequest, caller: Caller, *, sort_by: str, descending: bool
    ) -> PageResponse:
        key, order = digest(rows), f"{sort_by}_{'desc' if descending else 'asc'}"
        number, start = divmod(page.offset, BLOCK_ROWS)
        with self._tables.pinned(key, f"{order}_{number}"):
            pagination = digest(key, order, caller.session)
            version = await self._version_of_page(rows, key, page, caller, pagination=pagination)
            snapshot = _table_name(key, version)
            total = self._tables.number_of_rows(snapshot) or 0
            order, block = f"{snapshot}_{order}", f"{snapshot}_{order}_{number}"
            data = b"[]"
            if page.offset < total:
                if self._tables.number_of_rows(block) is None:
                    if self._tables.number_of_rows(order) is None:
                        sort = partial(self._tables.write_order, of=snapshot, column=sort_by, descending=descending)
                        await self._write_once(order, partial(sort, order))
                    copy = partial(self._tables.write_block, of=snapshot, order=order, number=number)
                    await self._write_once(block, partial(copy, block))
                data = self._tables.read(block, slice(start, start + page.size))
            # The least recently used tables are removed first: a block before those that it can be written from again.
            for name in (block, order, snapshot):
                self._tables.number_of_rows(name)
        body = page_body(msgspec.Raw(data), page=replace(page, snapshot=version), total=total)
        return PageResponse(body, self._missing.get(snapshot, {}))

    async def _version_of_page(
        self, rows: RowSource, key: str, page: PageRequest, caller: Caller, *, pagination: str
    ) -> bytes:
        """Return the version of the snapshot that a page belongs to: for a first page, that of the lake as it is now.

        A cursor names its snapshot. A page number does not: it belongs to the page 1 that was last read in its session.
        """
        uses_cursors = page.api_version.uses_cursors
        version = page.snapshot or None
        if page.offset and not uses_cursors:
            version = self._paginations.get(pagination)
        if version is None:
            version = await self._current_version(rows, key, caller)
            if not uses_cursors:
                self._paginations[pagination] = version
        elif self._tables.number_of_rows(_table_name(key, version)) is None:
            # Not kept any more, but the same if the lake is: rows are read in a reproducible order.
            state = await self._inspect(rows, caller)
            if state.version != version or await self._current_version(rows, key, caller) != version:
                if uses_cursors:
                    raise expired_cursor()
                raise _conflict(
                    "the rows of this pagination are no longer kept, and the lake has changed: start again at page 1"
                )
        if pagination in self._paginations:
            self._paginations.move_to_end(pagination)
        if len(self._paginations) > MAX_PAGINATIONS:
            self._paginations.popitem(last=False)
        return version

    async def _current_version(self, rows: RowSource, key: str, caller: Caller) -> bytes:
        """Return the version of a snapshot of the lake as it is now."""
        for _ in range(MAX_READS):
            state = await self._inspect(rows, caller)
            name = _table_name(key, state.version)
            if self._tables.number_of_rows(name) is None:
                try:
                    name = await self._write_once(name, partial(self._write_rows, rows, state, name, key))
                except LakeChanged:
                    continue
            self._missing[name] = state.missing
            if len(self._missing) > MAX_FILES:
                self._missing = {each: headers for each, headers in self._missing.items() if each in self._tables}
            return bytes.fromhex(name.rpartition("_")[2])
        raise _unreadable("files of the lake are replaced faster than they can be read: try again later")

    def _write_rows(self, rows: RowSource, state: LakeState, name: str, key: str) -> str:
        version = rows.write(self._lake, state, self._tables, name)
        return self._tables.rename(name, _table_name(key, version))

    async def _inspect(self, rows: RowSource, caller: Caller) -> LakeState:
        """Return the state of the files.

        Raises:
            ProblemError: An instance is unknown, or the store is strict and a file is missing.
        """
        state = await _in_thread(rows.inspect, self._lake, self._now())
        if state.unknown_instances and caller.instance_ids is None:
            instances_in_scope(tuple(state.unknown_instances), ())
        if self._is_strict and state.missing:
            missing = " ".join(f"{name}: {value}" for name, value in state.missing.items())
            raise _conflict(
                f"files are missing; run `later-reporting backfill --only-missing` for these days. {missing}"
            )
        return state

    async def _write_once(self, name: str, write: Callable[[], str]) -> str:
        """Write a table, and return its name. Requests that need the same one share it.

        It goes on if the request that began it is aborted.
        """
        if name not in self._writes:
            task = self._writes[name] = asyncio.create_task(self._write(name, write))
            task.add_done_callback(lambda _: self._writes.pop(name))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may wait for it any more
        return await asyncio.shield(self._writes[name])

    async def _write(self, name: str, write: Callable[[], str]) -> str:
        async with self._writing:
            try:
                written = await _in_thread(write)
            except ProblemError as problem:
                if not isinstance(problem.__cause__, NotWritten):
                    raise
                self._tables.make_room(0)  # the disk may be full of older ones
                written = await _in_thread(write)
        self._tables.add(written)
        return written


def _table_name(key: str, version: bytes) -> str:
    return f"{key}_{version.hex()}"


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
    except (RowsNotRead, NotWritten, OutOfMemory) as error:
        raise _unreadable(str(error)) from error
    except (LakeUnavailable, FileDamaged) as error:
        _logger.exception("The lake cannot be read")
        raise _unreadable("the lake cannot be read: see the log of the server") from error


def _conflict(detail: str) -> ProblemError:
    return ProblemError(HTTPStatus.CONFLICT, _CONFLICT, detail)


def _unreadable(reason: str) -> ProblemError:
    return ProblemError(HTTPStatus.INTERNAL_SERVER_ERROR, ProblemType.INTERNAL, reason)
