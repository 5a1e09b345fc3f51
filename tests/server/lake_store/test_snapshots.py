"""All pages of a pagination show the same rows while partitions are replaced; the files of these rows are limited."""

import resource
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, date, datetime, timedelta
from itertools import count, cycle, islice, product, zip_longest
from pathlib import Path

import duckdb
import httpx
import pyarrow as pa
import pytest

from later_reporting_dagster.lake import POSTS_SCHEMA, Lake, Partition
from later_reporting_dagster.server.lake_store.snapshots import Snapshots, private_folder
from later_reporting_dagster.server.routes import SORT_PROPERTIES
from tests.server.lake_store.clients import (
    Row,
    assert_problem,
    authenticated,
    days_query,
    fetch_rows,
    get,
    iter_pages,
    page_of,
    row_key,
    rows_of,
    served,
    serving,
)
from tests.services import WAIT_SECONDS

Query = list[tuple[str, object]]

FIRST_DAY = date(2024, 3, 1)
DAYS = [FIRST_DAY + timedelta(days=offset) for offset in range(3)]
PARTITIONS = [Partition(day, name) for day in DAYS for name in ("north", "a/b")]
TABLES = {"post_date": "posts_published", "performance_date": "post_metrics_daily"}
DIGITS = 10**6
"""A day's version is a digit of the engagements: the digits of several days do not add up."""

PAGED: Query = [("pageSize", 10)]
CURSOR: Query = [("limit", 10), ("metrics", "engagements")]
OTHER_ROWS: Query = [("campaignIds", "7")]
CLIENTS = 16
PAGERS: list[tuple[Query, str, str]] = [
    (PAGED, "postDate", "ASC"),
    (PAGED, "postDate", "DESC"),
    (PAGED, "engagements", "DESC"),
    (CURSOR, "postDate", "DESC"),
    (CURSOR, "engagements", "ASC"),
    (CURSOR, "impressions", "ASC"),
]
each_basis = pytest.mark.parametrize("date_basis", [*TABLES])


def query_of(page: Query, *, date_basis: str = "post_date", sorting: Query | None = None) -> Query:
    return [*days_query(DAYS[0], DAYS[-1], ("dateBasis", date_basis)), *page, *(sorting or [])]


# A lake whose rows show which version of a partition they are of


def post_ids(version: int, partition: Partition, *, date_basis: str) -> range:
    """Return the posts of a version: their number and the first one differ from version to version."""
    first = version * 5 % 7 + (1000 * partition.day.day if date_basis == "post_date" else 0)
    return range(first, first + 15 + version * 3 % 11)


def write_version(root: Path, partition: Partition, version: int, *, date_basis: str = "post_date") -> None:
    published = partition.day if date_basis == "post_date" else FIRST_DAY
    rows = [
        {
            "instance_id": partition.instance_id,
            "campaign_id": 7,
            "post_id": post_id,
            "content_type": "tiktok",
            "platform": "tiktok",
            "post_date": datetime(published.year, published.month, published.day, post_id % 5, tzinfo=UTC),
            "engagements": version * DIGITS ** DAYS.index(partition.day),
            "impressions": post_id,
        }
        for post_id in post_ids(version, partition, date_basis=date_basis)
    ]
    Lake(str(root)).write(TABLES[date_basis], partition, pa.Table.from_pylist(rows, POSTS_SCHEMA))


def write_versions(root: Path, version: int, *, date_basis: str = "post_date") -> None:
    for partition in PARTITIONS:
        write_version(root, partition, version, date_basis=date_basis)


def versions_of(rows: Sequence[Row], *, date_basis: str) -> dict[Partition, int]:
    """Return the version of each partition, and assert that the rows have all its posts once and no other."""
    assert len({*map(row_key, rows)}) == len(rows)
    versions: dict[Partition, int] = {}
    for partition in PARTITIONS:
        found: dict[int, list[int]] = {}
        for row in rows:
            version = row["engagements"] // DIGITS ** DAYS.index(partition.day) % DIGITS
            if version and row["instanceId"] == partition.instance_id:
                found.setdefault(version, []).append(row["postId"])
        assert len(found) == 1, f"{partition} has rows of the versions {sorted(found)}"
        ((versions[partition], numbers),) = found.items()
        assert sorted(numbers) == [*post_ids(versions[partition], partition, date_basis=date_basis)], partition
    return versions


@contextmanager
def replacing(root: Path, *, date_basis: str) -> Iterator[Callable[[], None]]:
    """Replace one partition after the other while the block runs; yield a function that waits for a replacement."""
    replaced, ended = threading.Event(), threading.Event()

    def replace() -> None:
        for version in count(2):
            for partition in PARTITIONS:
                if ended.is_set():
                    return
                write_version(root, partition, version, date_basis=date_basis)
                replaced.set()

    def wait() -> None:
        replaced.clear()
        assert replaced.wait(WAIT_SECONDS)

    thread = threading.Thread(target=replace, daemon=True)
    thread.start()
    try:
        yield wait
    finally:
        ended.set()
        thread.join(WAIT_SECONDS)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "lake"
    write_versions(root, 1)
    return root


# Replacement while clients page


def iter_rows(api: httpx.Client, pairs: Query) -> Iterator[list[Row]]:
    """Yield the rows of one page after the other, with their metrics."""
    for page in iter_pages(api, pairs):
        yield [row | row.get("metrics", {}) for row in page["data"]]


@each_basis
def test_paginations_are_consistent_while_partitions_are_replaced(date_basis: str, tmp_path: Path) -> None:
    write_versions(tmp_path, 1, date_basis=date_basis)

    def read(pager: tuple[Query, str, str]) -> None:
        page, sort_property, direction = pager
        sorting: Query = [("sortProperty", sort_property), ("sortDirection", direction)]
        rows: list[Row] = []
        with authenticated(base_url) as api:
            for page_of_rows in iter_rows(api, query_of(page, date_basis=date_basis, sorting=sorting)):
                rows += page_of_rows
                wait_for_replacement()
        versions_of(rows, date_basis=date_basis)
        if "metrics" not in dict(page) or sort_property == "engagements":
            values = [row[sort_property] for row in rows]
            assert values == sorted(values, reverse=direction == "DESC")

    with (
        serving(tmp_path) as base_url,
        replacing(tmp_path, date_basis=date_basis) as wait_for_replacement,
        ThreadPoolExecutor(CLIENTS) as threads,
    ):
        assert [*threads.map(read, islice(cycle(PAGERS), CLIENTS))] == [None] * CLIENTS


@each_basis
@pytest.mark.parametrize("page", [PAGED, CURSOR], ids=["paged", "cursor"])
def test_pages_of_each_token_belong_to_its_own_first_page(page: Query, date_basis: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        base_url = stack.enter_context(serving(tmp_path))
        pagers = [
            iter_rows(stack.enter_context(authenticated(base_url)), query_of(page, date_basis=date_basis))
            for _ in range(3)
        ]
        rows: list[list[Row]] = []
        for version, pager in enumerate(pagers, 1):
            write_versions(tmp_path, version, date_basis=date_basis)
            rows.append(next(pager))
        for pages in zip_longest(*pagers, fillvalue=[]):
            for found, page_of_rows in zip(rows, pages, strict=True):
                found += page_of_rows
    for version, found in enumerate(rows, 1):
        assert versions_of(found, date_basis=date_basis) == dict.fromkeys(PARTITIONS, version)


def test_requests_at_once_for_the_same_rows_share_them(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written, write = [], Snapshots.write

    def counted(self: Snapshots, sql: str, connection: duckdb.DuckDBPyConnection) -> Path:
        written.append(sql)
        return write(self, sql, connection)

    monkeypatch.setattr(Snapshots, "write", counted)
    with served(root) as api, ThreadPoolExecutor(CLIENTS) as threads:
        pages = [page_of(each) for each in threads.map(lambda _: get(api, query_of(PAGED)), range(CLIENTS))]
    assert pages == [pages[0]] * CLIENTS
    assert len(written) == 1


# Restarts, dropped snapshots


@pytest.mark.parametrize("changed", [None, "replaced", "removed", "added"])
def test_cursor_survives_a_restart_unless_the_lake_has_changed(changed: str | None, root: Path) -> None:
    path, elsewhere = root / "posts_published" / f"date={DAYS[1]}" / "instance_id=north", root / "elsewhere"
    if changed == "added":
        path.rename(elsewhere)
    with served(root) as api:
        expected = fetch_rows(api, query_of(CURSOR))
        first = page_of(get(api, query_of(CURSOR)))
    if changed == "replaced":
        write_version(root, PARTITIONS[0], 2)
    elif changed == "removed":
        path.rename(elsewhere)
    elif changed == "added":
        elsewhere.rename(path)
    with served(root) as api:
        if changed is None:
            rest = rows_of(iter_pages(api, query_of(CURSOR), cursor=first["nextCursor"]))
            assert first["data"] + rest == expected
        else:
            response = get(api, [*query_of(CURSOR), ("nextCursor", first["nextCursor"])])
            assert "nextCursor is invalid, has expired" in assert_problem(response, 400, "ANL_00400")


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of temporary files."""
    directory = tmp_path / "snapshots"
    directory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    return directory


def size_of_snapshots(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def size_of_query(root: Path, directory: Path) -> int:
    """Return the size of the file of a query."""
    with served(root) as api:
        page_of(get(api, query_of(PAGED)))
        return size_of_snapshots(directory)


def test_pagination_of_a_dropped_snapshot_is_valid_until_the_lake_changes(root: Path, directory: Path) -> None:
    # There is room for the newest snapshot only.
    with served(root, snapshot_gb=1.2 * size_of_query(root, directory) / 1e9) as api:

        def drop() -> None:
            page_of(get(api, query_of(PAGED, sorting=OTHER_ROWS)))

        expected = fetch_rows(api, query_of(CURSOR))
        first, second_page = page_of(get(api, query_of(CURSOR))), [*query_of(PAGED), ("pageNumber", 2)]
        second = page_of(get(api, second_page))
        drop()
        rest = rows_of(iter_pages(api, query_of(CURSOR), cursor=first["nextCursor"]))
        assert first["data"] + rest == expected
        drop()
        assert page_of(get(api, second_page)) == second
        drop()
        write_version(root, PARTITIONS[0], 2)
        response = get(api, [*query_of(CURSOR), ("nextCursor", first["nextCursor"])])
        assert "expired" in assert_problem(response, 400, "ANL_00400")
        assert "start again at page 1" in assert_problem(get(api, second_page), 409, "ANL_00409")


def test_snapshots_are_private_and_together_within_the_limit(root: Path, directory: Path) -> None:
    size = size_of_query(root, directory)
    limit = 4.5 * size
    with served(root, snapshot_gb=limit / 1e9) as api:
        for sort_property, direction in product(SORT_PROPERTIES, ("ASC", "DESC")):
            sorting: Query = [("sortProperty", sort_property), ("sortDirection", direction)]
            page_of(get(api, query_of(PAGED, sorting=sorting)))
            assert size_of_snapshots(directory) <= limit
        assert size_of_snapshots(directory) > 2 * size > 0
        (folder,) = directory.iterdir()
        assert folder.stat().st_mode & 0o077 == 0
    assert [*directory.iterdir()] == []


def test_one_query_is_refused_if_it_needs_more_than_the_limit(root: Path, directory: Path) -> None:
    with served(root, snapshot_gb=0.8 * size_of_query(root, directory) / 1e9) as api:
        for _ in range(2):
            detail = assert_problem(get(api, query_of(PAGED)), 503, "ANL_00503")
            assert "query fewer days or instances, or try again later" in detail
            assert str(directory) not in detail
            assert size_of_snapshots(directory) == 0
        page_of(get(api, query_of(CURSOR, sorting=[("campaignIds", "8")])))


def test_query_is_refused_that_spills_more_than_the_limit(
    root: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sql = 'SELECT hash(range)::VARCHAR || random() AS "row" FROM range(10_000_000) ORDER BY random()'
    write = Snapshots.write
    monkeypatch.setattr(Snapshots, "write", lambda self, _sql, connection: write(self, sql, connection))
    with served(root, snapshot_gb=0.02, memory_gb=0.25) as api:
        assert_problem(get(api, query_of(PAGED)), 503, "ANL_00503")
        assert size_of_snapshots(directory) < 20e6


def test_full_disk_is_freed_of_the_failed_and_of_older_snapshots(root: Path, directory: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with served(root) as api:
        page_of(get(api, query_of(PAGED)))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size_of_snapshots(directory) // 4, limits[1]))
        try:
            refused = get(api, query_of(PAGED, sorting=OTHER_ROWS))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert str(directory) not in assert_problem(refused, 503, "ANL_00503")
        assert size_of_snapshots(directory) == 0
        page_of(get(api, query_of(PAGED, sorting=OTHER_ROWS)))


def test_files_that_a_server_wrote_while_it_ended_are_removed_by_the_next_start(directory: Path) -> None:
    with private_folder() as folder:
        pass
    folder.mkdir()
    (folder / "late").touch()
    with private_folder() as new, private_folder() as other:
        assert {*directory.iterdir()} == {new, other}
    assert [*directory.iterdir()] == []


def test_pages_of_many_rows_have_each_row_once_and_in_order(tmp_path: Path) -> None:
    rows_stored = 50_250
    columns = {
        "instance_id": pa.repeat("north", rows_stored),
        "campaign_id": pa.repeat(7, rows_stored),
        "post_id": pa.array(range(rows_stored)),
        "post_date": pa.repeat(datetime(2024, 3, 1, tzinfo=UTC), rows_stored),
        "impressions": pa.array([number * 7919 % rows_stored // 2 for number in range(rows_stored)]),
    }
    arrays = [columns.get(field.name, pa.nulls(rows_stored, field.type)) for field in POSTS_SCHEMA]
    table = pa.table([array.cast(field.type) for array, field in zip(arrays, POSTS_SCHEMA, strict=True)], POSTS_SCHEMA)
    Lake(str(tmp_path)).write("posts_published", Partition(DAYS[0], "north"), table)
    page = [("limit", 99), ("metrics", "impressions"), ("sortProperty", "impressions"), ("sortDirection", "ASC")]
    with served(tmp_path) as api:
        rows = fetch_rows(api, query_of(page))
    assert {row["postId"] for row in rows} == {*range(rows_stored)}
    assert len(rows) == rows_stored
    values = [row["metrics"]["impressions"] for row in rows]
    assert values == sorted(values)
