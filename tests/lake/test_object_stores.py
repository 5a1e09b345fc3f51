"""The pipeline on each object store: fetch, rerun, rollups, query, report, and concurrent writers."""

import os
import secrets
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest

from later_reporting_dagster.lake import (
    POST_COLUMNS,
    POSTS_SCHEMA,
    Lake,
    LakeUnavailable,
    Partition,
    Table,
    open_dataset,
    partition_path,
)
from later_reporting_dagster.lake.parquet_file import read_stored_rows
from later_reporting_dagster.lake.sql_query import run_query
from later_reporting_dagster.lake.storage import ReplacedMeanwhile
from later_reporting_dagster.lake.tables import POSTS_TABLES
from later_reporting_dagster.rollups.lake_rollups import roll_up_lake_periods, roll_up_lake_windows
from later_reporting_dagster.rollups.rollup_tables import BY_CAMPAIGN, DAILY
from later_reporting_dagster.server.sandbox import World, create_app, running_server
from tests.conftest import NO_RATE_LIMIT, Service
from tests.crash import lake_writers
from tests.crash.child_process import ChildProcess
from tests.ingest.conftest import run_ingest, with_impressions
from tests.object_store_servers import BUCKET, OBJECT_STORES, SECRET, ObjectStore

pytestmark = pytest.mark.services

DAYS = [date(2024, 3, number) for number in range(1, 7)]
INSTANCES = ("instance_000", "instance_001")
PARTITIONS = [Partition(day, instance_id) for day in DAYS for instance_id in INSTANCES]
TABLES = [Table(table.name, POST_COLUMNS) for table in POSTS_TABLES]
SQL = """
    SELECT date, instance_id, count(*) AS posts, sum(impressions) AS impressions, sum(paid_engagements) AS paid
    FROM posts_published GROUP BY ALL ORDER BY ALL
"""


@pytest.fixture(scope="module", params=OBJECT_STORES)
def store(request: pytest.FixtureRequest) -> Iterator[ObjectStore | None]:
    """A running store; None for a local disk."""
    if request.param is None:
        yield None
        return
    with OBJECT_STORES[request.param]() as store, pytest.MonkeyPatch.context() as environment:
        # Only the options configure the store.
        for name in [*os.environ]:
            if name.startswith(("AWS_", "AZURE_", "GOOGLE_")):
                environment.delenv(name)
        yield store


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Service]:
    world = World(first_day=date(2024, 2, 20), last_day=date(2024, 3, 8), seed=7, instances=2, posts_per_day=4)
    service = Service(app=create_app(world, options=NO_RATE_LIMIT))
    with running_server(service) as service.base_url:
        yield service


@pytest.fixture(scope="module")
def of_local_lake(sandbox: Service, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What `all_results` returns for a lake on the local disk."""
    lake = Lake(str(tmp_path_factory.mktemp("local") / "lake"))
    fetch(lake, sandbox)
    return all_results(lake)


@pytest.fixture(scope="module")
def filled(store: ObjectStore, sandbox: Service) -> Lake:
    """A lake in the store with all partitions of both raw tables."""
    lake = new_lake(store)
    fetch(lake, sandbox)
    return lake


@pytest.fixture
def lake(store: ObjectStore) -> Lake:
    return new_lake(store)


def new_lake(store: ObjectStore) -> Lake:
    return Lake(store.new_root(), storage_options=store.storage_options)


def fetch(lake: Lake, service: Service) -> list[Partition]:
    """Fetch all partitions of both raw tables, and return those that changed; fail if one fails."""
    changed: list[Partition] = []
    for table in POSTS_TABLES:
        results = run_ingest(PARTITIONS, table=table, service=service, root=lake)
        assert not results.failed
        changed += [partition for partition, written in results.written.items() if written.file.changed]
    return changed


def queried(lake: Lake) -> pa.Table:
    return run_query(SQL, lake, TABLES)


def all_results(lake: Lake) -> list[Any]:
    return [
        [(rollup.first_day, rollup.rows) for rollup in roll_up_lake_periods(lake, DAILY, DAYS, memory_gb=1)],
        roll_up_lake_windows(lake, [BY_CAMPAIGN], memory_gb=1).tables,
        queried(lake),
        *(open_dataset(lake, table).to_table() for table in TABLES),
    ]


def test_a_new_or_changed_file_takes_two_requests_and_an_unchanged_one_takes_one(
    store: ObjectStore, lake: Lake, sandbox: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, tables = len(PARTITIONS) * len(POSTS_TABLES), len(POSTS_TABLES)
    store.proxy.take()
    assert len(fetch(lake, sandbox)) == files
    new = store.proxy.take()
    assert fetch(lake, sandbox) == []
    unchanged = store.proxy.take()
    monkeypatch.setattr(sandbox, "transform", with_impressions(12))
    restated = len(fetch(lake, sandbox))
    assert restated >= files - 1  # one file has no posts
    changed = store.proxy.take()
    # And the records of the fetch of each table, which a slow run writes again after each query.
    queries = len(DAYS) + 1
    # Of each table, the quarantine and the records; then the records once for each query. If nothing is listed, some
    # filesystems look whether it is a file.
    listings = 2 * (2 * tables + queries)
    for requests, files_written in ((new, files), (unchanged, 0), (changed, restated)):
        assert tables <= requests["PUT"] - files_written <= queries
        assert requests["GET"] == files
        assert requests.total() <= files + files_written + queries + listings
    assert unchanged["DELETE"] == 0


def test_all_files_of_a_table_are_listed_by_month(store: ObjectStore, lake: Lake) -> None:
    days = [date(2024, month, day) for month in (1, 2, 4) for day in (1, 15)]
    partitions = [Partition(day, name) for day in days for name in INSTANCES]
    lake.write_all("posts_published", dict.fromkeys(partitions, POSTS_SCHEMA.empty_table()))
    lake.write_file("posts_published/date=2024-03-99", "part-0.parquet", b"of no day")
    store.proxy.take()
    assert lake.partitions("posts_published") == partitions
    # The folders of days, which adlfs lists twice, and each month.
    assert store.proxy.take() in ({"LIST": 1 + 3}, {"LIST": 2 + 3})
    assert lake.partitions("posts_published", days=days[:3]) == partitions[:6]
    assert store.proxy.take() == {"LIST": 2}
    assert lake.partitions("post_metrics_daily") == []


@pytest.mark.parametrize("store", ["moto"], indirect=True)
def test_a_listing_is_read_without_the_slow_parser_of_times(
    store: ObjectStore, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.write_all("posts_published", dict.fromkeys(PARTITIONS, POSTS_SCHEMA.empty_table()))
    monkeypatch.setattr("botocore.utils.dateutil.parser.parse", lambda *_: pytest.fail("asked for a time"))
    assert lake.partitions("posts_published") == PARTITIONS


def test_rollups_query_and_report_equal_those_of_a_local_lake(filled: Lake, of_local_lake: list[Any]) -> None:
    for result, expected in zip(all_results(filled), of_local_lake, strict=True):
        assert result == expected


# The emulator of Google Cloud has no keys that sign.
@pytest.mark.parametrize("store", ["moto", "azurite"], indirect=True)
def test_a_signed_link_shows_a_page_without_a_login(store: ObjectStore, lake: Lake) -> None:
    lake.storage.write("page.html", b"<p>results</p>")
    response = httpx.get(lake.storage.signed_link("page.html", seconds=60, content_type="text/html"))
    assert (response.status_code, response.text) == (200, "<p>results</p>")
    assert response.headers["content-type"] == "text/html"


def test_a_missing_bucket_is_named_without_secrets(store: ObjectStore) -> None:
    root = store.new_root().replace(BUCKET, f"no-{secrets.token_hex(4)}")
    with pytest.raises(LakeUnavailable, match=f"cannot write {root}/") as caught:
        Lake(root, storage_options=store.storage_options).check_writable()
    assert SECRET not in str(caught.value)


def test_concurrent_and_killed_writers_leave_complete_partitions(store: ObjectStore, lake: Lake) -> None:
    arguments = {"root": lake.root, "storage_options": dict(store.storage_options)}
    ChildProcess(lake_writers.write, **arguments, version=0, seed=0).wait_for_success()
    started = time.monotonic()
    ChildProcess(lake_writers.write, **arguments, version=1, seed=1).wait_for_success()
    longest, version, was_killed = time.monotonic() - started, 1, False
    # A process may have ended before it is killed: repeat, sooner each time, until one has not.
    while not was_killed:
        version += 1
        pair = [ChildProcess(lake_writers.write, **arguments, version=version, seed=seed) for seed in (1, 2)]
        longest *= 0.7
        time.sleep(longest)
        was_killed = pair[0].kill()
        pair[1].wait_for_success()
        assert lake.partitions(lake_writers.TABLE_NAME) == sorted(lake_writers.PARTITIONS)
        for partition in lake_writers.PARTITIONS:
            table = lake.read(lake_writers.TABLE_NAME, [partition], schema=POSTS_SCHEMA)
            assert table.equals(lake_writers.partition_rows(partition, version))


# Conditional puts

comparing = pytest.mark.parametrize("store", ["moto", "azurite"], indirect=True)
ONE = Partition(date(2024, 3, 1), "a")


@pytest.mark.parametrize("store", ["moto", "azurite", None], indirect=True)
def test_two_writers_of_a_file_lose_no_update(store: ObjectStore | None, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake")) if store is None else new_lake(store)
    arguments = {"root": lake.root, "storage_options": dict(store.storage_options) if store else None, "updates": 80}
    if store:
        store.proxy.take()
    writers = [ChildProcess(lake_writers.append, **arguments, writer=number) for number in range(2)]
    for writer in writers:
        writer.wait_for_success()
    if store:
        requests = store.proxy.take()
        print(store.name, dict(requests))
        assert requests["LIST"] == 0
    (file,) = lake.read_files(lake_writers.TABLE_NAME, [None]).values()
    assert file.data is not None
    assert sorted(read_stored_rows(file.data)["id"].to_pylist()) == [*range(160)]


@comparing
@pytest.mark.parametrize(("status", "code"), [(412, "PreconditionFailed"), (409, "ConditionalRequestConflict")])
def test_a_refused_put_is_decided_about_again(status: int, code: str, store: ObjectStore, lake: Lake) -> None:
    lake.write("posts", ONE, lake_writers.partition_rows(lake_writers.PARTITIONS[0], 1))
    store.proxy.failures["PUT"] = [(status, code)] * 2
    store.proxy.take()
    rows = lake_writers.partition_rows(lake_writers.PARTITIONS[0], 2)
    assert lake.write("posts", ONE, rows).changed
    assert store.proxy.take() == {"GET": 3, "PUT": 3}
    assert lake.read("posts", [ONE], schema=POSTS_SCHEMA).equals(rows)


@comparing
def test_a_file_that_is_removed_after_it_was_read_is_read_again(store: ObjectStore, lake: Lake) -> None:
    lake.write("posts", ONE, lake_writers.partition_rows(lake_writers.PARTITIONS[0], 1))
    stored = lake.read_files("posts", [ONE])
    lake.storage.remove(partition_path("posts", ONE))
    failed = lake.replace_files("posts", {ONE: b"new"}, stored=stored)
    assert [type(error) for error in failed.values()] == [ReplacedMeanwhile]
    assert lake.read_files("posts", [ONE])[ONE].data is None


@comparing
def test_a_put_whose_response_was_lost_is_no_conflict(store: ObjectStore, lake: Lake) -> None:
    store.proxy.failures["PUT"] = [(500, "lost")]
    rows = lake_writers.partition_rows(lake_writers.PARTITIONS[0], 1)
    assert lake.write("posts", ONE, rows).rows == rows.num_rows
    assert lake.read("posts", [ONE], schema=POSTS_SCHEMA).equals(rows)


@comparing
def test_a_store_without_conditional_puts_is_written_all_the_same(
    store: ObjectStore, lake: Lake, caplog: pytest.LogCaptureFixture
) -> None:
    assert lake.storage.compares
    store.proxy.failures["PUT"] = [(501, "NotImplemented")]
    for version in (1, 2):
        rows = lake_writers.partition_rows(lake_writers.PARTITIONS[0], version)
        assert lake.write("posts", ONE, rows).changed
    assert lake.read("posts", [ONE], schema=POSTS_SCHEMA).equals(rows)
    assert not lake.storage.compares
    assert caplog.text.count("has no conditional puts") == 1


@pytest.mark.parametrize("store", ["moto"], indirect=True)
def test_a_large_file_is_compared_too(store: ObjectStore, lake: Lake) -> None:
    """s3fs would put it in parts, and leave out the condition."""
    path, data = "posts/large", os.urandom(2**20) * 110
    stored = lake.storage.read_with_version(path)
    assert stored is None
    assert lake.storage.put_all({path: data}, replaced={path: None}) == {}
    (error,) = lake.storage.put_all({path: data}, replaced={path: None}).values()
    assert isinstance(error, ReplacedMeanwhile)
    assert lake.storage.read(path) == data
