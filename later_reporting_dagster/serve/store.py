"""The store that serves a lake: a query is read from the lake once, and its pages from the snapshot of that read."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus

import msgspec
from msgspec.structs import replace
from starlette.concurrency import run_in_threadpool

from later_reporting_dagster.contract.metrics import DEFAULT_METRICS, Metric
from later_reporting_dagster.contract.parameters import ApiVersion, ProblemType, SortDirection, SortProperty
from later_reporting_dagster.endpoint.app import Caller, instances_in_scope
from later_reporting_dagster.endpoint.query_parameters import CampaignsQuery, PostsQuery
from later_reporting_dagster.endpoint.responses import (
    PageRequest,
    PageResponse,
    ProblemError,
    expired_cursor,
    page_body,
    unsupported_metrics,
)
from later_reporting_dagster.endpoint.tokens import Client
from later_reporting_dagster.lake import FileDamaged, Lake, LakeUnavailable
from later_reporting_dagster.serve.rows import CampaignRows, LakeChanged, LakeState, PostRows, all_instances
from later_reporting_dagster.serve.snapshots import (
    BLOCK_ROWS,
    MAX_FILES,
    TIE,
    NotWritten,
    RowsNotRead,
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """Options of a server of a lake, which the options of the command describe.

    Attributes:
        clients: Empty: anyone on this machine, without authentication.
        api_version: None: that which the parameters of a request belong to.
        requests_per_window: None: no limit.
        metrics: The metrics that the posts in the lake have.
    """

    clients: tuple[Client, ...] = ()
    api_version: ApiVersion | None = None
    requests_per_window: int | None = None
    window_seconds: float = 60.0
    token_lifetime_seconds: int = 43_200
    strict: bool = False
    metrics: tuple[Metric, ...] = DEFAULT_METRICS
    memory_gb: float = 1.0
    snapshot_gb: float = 8.0
    snapshot_directory: str | None = None


_Rows = PostRows | CampaignRows


class LakeStore:
    """The `PostStore` of a lake. All methods have to be called in one event loop, while `running`."""

    _tables: Tables

    def __init__(self, lake: Lake, options: ServeOptions) -> None:
        self._lake = lake
        self._options = options
        self._metrics = frozenset(metric.api_name for metric in options.metrics)
        self._missing: dict[str, Mapping[str, str]] = {}  # headers, by snapshot
        self._paginations: OrderedDict[str, str] = OrderedDict()  # the snapshot of each
        self._writes: dict[str, asyncio.Task[str]] = {}
        self._writing = asyncio.Semaphore(WRITES_AT_ONCE)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        options = self._options
        memory_gb = options.memory_gb / (WRITES_AT_ONCE + 1)
        with private_folder(options.snapshot_directory) as folder:
            self._tables = Tables(folder, max_bytes=options.snapshot_gb * 1e9, memory_gb=memory_gb)
            try:
                yield
            finally:
                self._tables.close()

    async def instance_ids(self) -> Sequence[str]:
        with _lake_problems():
            return await run_in_threadpool(all_instances, self._lake)

    async def posts_page(self, query: PostsQuery, page: PageRequest, caller: Caller) -> PageResponse:
        """Return a page of posts, of the lake as it was when the pagination started."""
        if unsupported := [name for name in query.metrics or () if name not in self._metrics]:
            raise unsupported_metrics(unsupported)
        unsorted = replace(
            query,
            instance_ids=_scope(query.instance_ids, caller),
            sort_property=SortProperty.POST_DATE,
            sort_direction=SortDirection.DESC,
        )
        order = f'"{query.sort_property}" {query.sort_direction} NULLS LAST, {TIE}'
        return await self._page(PostRows(unsorted), page, caller, order=order)

    async def campaigns_page(
        self, instance_ids: tuple[str, ...] | None, page: PageRequest, caller: Caller
    ) -> PageResponse:
        return await self._page(CampaignRows(_scope(instance_ids, caller)), page, caller, order=TIE)

    async def campaign_performance_page(self, query: CampaignsQuery, page: PageRequest, caller: Caller) -> PageResponse:
        """Refuse the performance of campaigns: the lake has it by day only, for all platforms together."""
        detail = "this server does not have the performance of campaigns"
        raise ProblemError(HTTPStatus.NOT_FOUND, ProblemType.NOT_FOUND, detail)

    async def _page(self, rows: _Rows, page: PageRequest, caller: Caller, *, order: str) -> PageResponse:
        number, start = divmod(page.offset, BLOCK_ROWS)
        key, part = digest(rows), digest(order, number)
        with self._tables.pinned(key, part):
            snapshot = await self._snapshot(rows, key, page, caller, pagination=digest(key, order, caller.session))
            block = f"{snapshot}_{part}"
            total = self._tables.number_of_rows(snapshot)
            data = b"[]"
            if page.offset < total:
                write = partial(self._tables.write_block, block, of=snapshot, order=order, number=number)
                await self._write_once(block, write)
                data = self._tables.read(block, slice(start, start + page.size))
            # The least recently used tables are removed first: a block before the rows that it can be written from.
            self._tables.touch(block, snapshot)
        page = replace(page, snapshot=bytes.fromhex(snapshot.rpartition("_")[2]))
        return PageResponse(page_body(msgspec.Raw(data), page=page, total=total), self._missing.get(snapshot, {}))

    async def _snapshot(self, rows: _Rows, key: str, page: PageRequest, caller: Caller, *, pagination: str) -> str:
        """Return the snapshot that a page belongs to: for a first page, that of the lake as it is now.

        A cursor names its snapshot. A page number does not: it belongs to the page 1 that was last read in its session.
        """
        uses_cursors = page.api_version.uses_cursors
        name = _table_name(key, page.snapshot) if page.snapshot else None
        if page.offset and not uses_cursors:
            name = self._paginations.get(pagination)
        if name is None:
            name = await self._current_snapshot(rows, key, caller)
            if not uses_cursors:
                self._paginations[pagination] = name
        # If it is not kept any more, it is the same if the lake is: rows are read in a reproducible order.
        elif name not in self._tables and await self._current_snapshot(rows, key, caller) != name:
            if uses_cursors:
                raise expired_cursor()
            raise _conflict(
                "the rows of this pagination are no longer kept, and the lake has changed: start again at page 1"
            )
        if pagination in self._paginations:
            self._paginations.move_to_end(pagination)
        if len(self._paginations) > MAX_PAGINATIONS:
            self._paginations.popitem(last=False)
        return name

    async def _current_snapshot(self, rows: _Rows, key: str, caller: Caller) -> str:
        for _ in range(MAX_READS):
            state = await self._inspect(rows, caller)
            name = _table_name(key, state.version)
            try:
                name = await self._write_once(name, partial(self._write_rows, rows, state, name, key))
            except LakeChanged:
                continue
            self._missing[name] = state.missing
            if len(self._missing) > MAX_FILES:
                self._missing = {each: headers for each, headers in self._missing.items() if each in self._tables}
            return name
        raise _internal_error("files of the lake are replaced faster than they can be read: try again later")

    def _write_rows(self, rows: _Rows, state: LakeState, name: str, key: str) -> str:
        version = rows.write(self._lake, state, self._tables, name)
        return self._tables.rename(name, _table_name(key, version))

    async def _inspect(self, rows: _Rows, caller: Caller) -> LakeState:
        """Return the state of the files, if no instance is unknown and, in strict mode, no file is missing."""
        with _lake_problems():
            state = await run_in_threadpool(rows.inspect, self._lake, datetime.now(UTC))
        if state.unknown_instances and caller.instance_ids is None:
            instances_in_scope(tuple(state.unknown_instances), ())
        if self._options.strict and state.missing and isinstance(rows, PostRows):
            missing = " ".join(f"{name}: {value}" for name, value in state.missing.items())
            raise _conflict(
                f"files are missing; run `later-reporting backfill --only-missing --asset {rows.table_name}`, with"
                f" `--start` and `--end` of these days. {missing}"
            )
        return state

    async def _write_once(self, name: str, write: Callable[[], str]) -> str:
        """Write a table unless it is there, and return its name. Requests that need the same one share it.

        It goes on if the request that began it is aborted.
        """
        if name in self._tables:
            return name
        if name not in self._writes:
            task = self._writes[name] = asyncio.create_task(self._write(write))
            task.add_done_callback(lambda _: self._writes.pop(name))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may wait for it any more
        return await asyncio.shield(self._writes[name])

    async def _write(self, write: Callable[[], str]) -> str:
        async with self._writing:
            with _lake_problems():
                try:
                    written = await run_in_threadpool(write)
                except NotWritten:
                    self._tables.make_room(0)  # the disk may be full of older ones
                    written = await run_in_threadpool(write)
        self._tables.add(written)
        return written


def _table_name(key: str, version: bytes) -> str:
    return f"{key}_{version.hex()}"


def _scope(requested: tuple[str, ...] | None, caller: Caller) -> tuple[str, ...] | None:
    """Return the instances of a query; None: all instances of the lake."""
    return requested if caller.instance_ids is None else instances_in_scope(requested, caller.instance_ids)


@contextmanager
def _lake_problems() -> Iterator[None]:
    """Turn an error of reading the lake into the 500 that a client gets."""
    try:
        yield
    except (RowsNotRead, NotWritten) as error:
        raise _internal_error(str(error)) from error
    except (LakeUnavailable, FileDamaged) as error:
        _logger.exception("The lake cannot be read")
        raise _internal_error("the lake cannot be read: see the log of the server") from error


def _conflict(detail: str) -> ProblemError:
    return ProblemError(HTTPStatus.CONFLICT, _CONFLICT, detail)


def _internal_error(reason: str) -> ProblemError:
    return ProblemError(HTTPStatus.INTERNAL_SERVER_ERROR, ProblemType.INTERNAL, reason)
