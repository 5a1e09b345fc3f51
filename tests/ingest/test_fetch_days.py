"""The entrance of the ingest: days are yielded whole, errors as they are, and nothing outlives the generator."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from later_reporting_dagster.client import LaterClient
from later_reporting_dagster.ingest import fetch_days as module
from later_reporting_dagster.ingest import slice_writer
from later_reporting_dagster.ingest.fetch_days import DayFetch, FetchedDay, fetch_days
from later_reporting_dagster.ingest.progress import Progress
from later_reporting_dagster.lake import Lake, Partition
from tests.conftest import DAYS, INSTANCE_IDS, Service, files
from tests.ingest.conftest import DAILY, PARTITIONS, client_of
from tests.services import WAIT_SECONDS

FETCH = DayFetch(table=DAILY, days=DAYS)


async def collect(days: AsyncGenerator[FetchedDay]) -> list[FetchedDay]:
    return [day async for day in days]


@pytest.mark.parametrize("buffered", [1, 64])
def test_each_day_is_yielded_once_to_a_slow_consumer(
    buffered: int, service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUFFERED_RESULTS", buffered)
    progress = Progress(DAILY.name)

    async def run() -> list[FetchedDay]:
        days = []
        async for day in fetch_days(FETCH, client=client_of(service), lake=Lake(str(tmp_path)), progress=progress):
            await asyncio.sleep(0.01)
            days.append(day)
        return days

    days = asyncio.run(run())
    assert sorted(day.day for day in days) == DAYS
    assert all(day.written.keys() == day.present == set(INSTANCE_IDS) == set(day.expected) for day in days)
    assert (progress.written, progress.failed, progress.slices) == (len(PARTITIONS), 0, len(PARTITIONS))


def test_days_with_nothing_to_fetch_come_last(service: Service, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    asyncio.run(collect(fetch_days(FETCH, client=client_of(service), lake=lake)))
    lake.storage.remove(f"{DAILY.name}/date={DAYS[2]}/instance_id={INSTANCE_IDS[0]}/part-0.parquet")
    missing = DayFetch(table=DAILY, days=DAYS, only_missing=True)
    days = asyncio.run(collect(fetch_days(missing, client=client_of(service), lake=lake)))
    assert [day.day for day in days] == [DAYS[2], *(day for day in DAYS if day != DAYS[2])]
    assert [[*day.written] for day in days] == [[INSTANCE_IDS[0]], *[[]] * (len(DAYS) - 1)]
    assert all(day.present == set(INSTANCE_IDS) for day in days)


class Panic(BaseException):
    """No `Exception`, as what ends a process."""


@pytest.mark.parametrize("error", [LookupError("a defect"), Panic("the end")])
def test_error_of_a_worker_is_raised_as_it_is_after_the_days_before_it(
    error: BaseException, service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, seen = slice_writer.SliceWriter._write_batch, list[FetchedDay]()

    def fail_on_first_day(
        self: slice_writer.SliceWriter, partitions: Iterable[Partition], *arguments: Any, **options: Any
    ) -> object:
        if next(iter(partitions)).day == DAYS[0]:
            raise error
        return write(self, partitions, *arguments, **options)

    monkeypatch.setattr(slice_writer.SliceWriter, "_write_batch", fail_on_first_day)

    async def run() -> None:
        async for day in fetch_days(FETCH, client=client_of(service), lake=Lake(str(tmp_path))):
            seen.append(day)

    with pytest.raises(type(error), match=str(error)):
        asyncio.run(run())
    assert DAYS[0] not in [day.day for day in seen]


def test_closing_ends_requests_and_writes_and_the_client(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, writing, may_end = slice_writer.SliceWriter._write_batch, threading.Event(), threading.Event()

    def slow_write(self: slice_writer.SliceWriter, *arguments: Any, **options: Any) -> object:
        writing.set()
        assert may_end.wait(WAIT_SECONDS)
        return write(self, *arguments, **options)

    async def run() -> tuple[LaterClient, dict[str, tuple[bytes, int]]]:
        client = client_of(service)
        days = fetch_days(FETCH, client=client, lake=Lake(str(tmp_path)))
        first = asyncio.create_task(anext(days))
        await asyncio.to_thread(writing.wait, WAIT_SECONDS)
        first.cancel()
        asyncio.get_running_loop().call_later(0.2, may_end.set)
        with pytest.raises(asyncio.CancelledError):
            await first
        assert may_end.is_set(), "a write that has begun ends before the generator does"
        await days.aclose()
        assert len(asyncio.all_tasks()) == 1
        return client, files(tmp_path)

    monkeypatch.setattr(slice_writer.SliceWriter, "_write_batch", slow_write)
    client, written = asyncio.run(run())
    assert client._transport._http.is_closed
    requests = len(service.requests)
    assert files(tmp_path) == written
    assert len(service.requests) == requests


def test_closing_while_the_client_closes_waits_for_it(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = httpx.AsyncHTTPTransport.aclose

    async def run() -> bool:
        closing, closed = asyncio.Event(), asyncio.Event()

        async def slow_close(transport: httpx.AsyncHTTPTransport) -> None:
            with anyio.CancelScope(shield=True):  # as httpcore does
                closing.set()
                await asyncio.sleep(0.1)
                await close(transport)
                closed.set()

        monkeypatch.setattr(httpx.AsyncHTTPTransport, "aclose", slow_close)
        days = fetch_days(FETCH, client=client_of(service), lake=Lake(str(tmp_path)))
        for _ in DAYS:
            await anext(days)
        await closing.wait()
        await days.aclose()
        return closed.is_set()

    assert asyncio.run(run())
