import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from later_reporting_dagster.contract import DEFAULT_METRICS, METRICS
from later_reporting_dagster.lake import (
    POST_COLUMNS,
    POSTS_SCHEMA,
    Column,
    FileDamaged,
    Lake,
    LakeUnavailable,
    Partition,
    Table,
    open_dataset,
    partition_path,
    posts_table,
    schema_of,
)
from later_reporting_dagster.lake.database import LakeDatabase, ViewContents, glob_select, open_database
from later_reporting_dagster.lake.paths import table_path
from later_reporting_dagster.lake.tables import POSTS_PUBLISHED
from tests.conftest import files
from tests.lake.conftest import BucketFileSystem, post, remote_lake, rows

FIRST = date(2024, 3, 1)
DAYS = [FIRST + timedelta(days=number) for number in range(6)]
IDS = ("007", "a b/ä%'*")
PARTITIONS = [Partition(day, instance_id) for day in DAYS for instance_id in IDS]
POSTS = Table("posts", POST_COLUMNS)
EVERY_TYPE = Table(
    "of every type",
    [
        Column("text", "string", False, ""),
        Column("count", "int64", True, ""),
        Column("rate", "float64", True, ""),
        Column("flag", "bool", True, ""),
        Column("day's", "date32[day]", True, ""),
        Column("instant", "timestamp[us, tz=UTC]", True, ""),
    ],
)
LATE = datetime(2024, 3, 1, 23, 59, 59, 999_999, tzinfo=UTC)
ROWS = [
    {"text": "007", "count": 2**63 - 1, "rate": 0.1, "flag": True, "day's": date(1, 1, 1), "instant": None},
    {"text": "", "count": None, "rate": None, "flag": None, "day's": None, "instant": LATE},
    {"text": "null", "count": 0, "rate": -0.0, "flag": False, "day's": None, "instant": None},
]
EVERY_TYPE_ROWS = pa.Table.from_pylist(ROWS, schema_of(EVERY_TYPE.columns))


def filled(lake: Lake) -> Lake:
    """Write three different posts to each of PARTITIONS."""
    tables = {each: rows(3, creator_id=number, instance_id=each.instance_id) for number, each in enumerate(PARTITIONS)}
    lake.write_all("posts", tables)
    return lake


def path_of(lake: Lake, partition: Partition) -> Path:
    return Path(lake.url("posts", partition))


def fetch(database: LakeDatabase, sql: str) -> list[Any]:
    return database.connection.execute(sql).fetchall()


def expected(lake: Lake, partitions: list[Partition]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = lake.read("posts", partitions, schema=POSTS_SCHEMA, with_date=True).to_pylist()
    return sorted(found, key=repr)


def test_view_has_exact_values_and_types_after_the_date(lake: Lake) -> None:
    lake.write(EVERY_TYPE.name, Partition(DAYS[1]), EVERY_TYPE_ROWS)
    with open_database(lake) as database:
        assert database.add_view(EVERY_TYPE) == [Partition(DAYS[1])]
        found = database.connection.sql(f'FROM "{EVERY_TYPE.name}"').to_arrow_table()
    assert found.to_pylist() == [{"date": DAYS[1], **row} for row in ROWS]
    assert [str(type_).replace("double", "float64").replace("Etc/UTC", "UTC") for type_ in found.schema.types] == [
        "date32[day]",
        *(column.type for column in EVERY_TYPE.columns),
    ]


def test_missing_column_is_null_if_nullable_and_else_an_error(lake: Lake) -> None:
    lake.write("posts", PARTITIONS[0], rows(3).drop_columns(["paid_cpm", "extra"]))
    lake.write("posts", PARTITIONS[2], rows(3))
    lake.write("posts_published", PARTITIONS[0], rows(3).drop_columns(["post_id"]))
    with open_database(lake) as database:
        database.add_view(POSTS)
        database.add_view(Table("posts_published", POST_COLUMNS))
        assert fetch(database, "SELECT count(*), count(extra), count(post_id) FROM posts") == [(6, 0, 6)]
        assert fetch(database, "SELECT count(campaign_id) FROM posts_published") == [(3,)]
        with pytest.raises(duckdb.InvalidInputException, match="has no value of post_id"):
            fetch(database, "SELECT max(post_id) FROM posts_published")
        (failure,) = database.find_unreadable_files()["posts_published"].values()
    assert str(failure) == (
        f"{lake.url('posts_published', PARTITIONS[0])} is damaged: column post_id is missing."
        " Next step: materialize this partition again, as `later-reporting backfill --asset posts_published --start"
        f" {PARTITIONS[0].day} --end {PARTITIONS[0].day}` does"
    )


@pytest.mark.parametrize("name", ["a*lake", "a?lake", "[a]lake", "date=2000-01-01"])
def test_root_with_characters_of_patterns_is_read_literally(name: str, tmp_path: Path) -> None:
    filled(Lake(str(tmp_path / "aXlake")))
    lake = filled(Lake(str(tmp_path / name)))
    with open_database(lake) as database:
        database.add_view(POSTS)
        assert fetch(database, "SELECT count(*), count(DISTINCT creator_id), min(date) FROM posts") == [(36, 12, FIRST)]
    assert open_dataset(lake, POSTS).count_rows() == 36


def test_query_is_one_request_for_each_file_of_an_object_store() -> None:
    lake = filled(remote_lake("bucket"))
    with open_database(lake, confined=True) as database:
        database.add_view(POSTS)
        BucketFileSystem.requests.clear()
        database.add_comments([POSTS])
        assert BucketFileSystem.requests == []
        for sql in ("SELECT sum(impressions), max(extra) FROM posts", "SELECT count(*) FROM posts"):
            BucketFileSystem.requests.clear()
            fetch(database, sql)
            root = BucketFileSystem._strip_protocol(lake.root)
            assert sorted(BucketFileSystem.requests) == sorted(
                f"get {root}/{partition_path('posts', each)}" for each in PARTITIONS
            )


@pytest.mark.parametrize("home", ["home", "date=2024-01-01"])
def test_run_requests_each_file_of_an_object_store_once(
    home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / home))
    (tmp_path / home).mkdir()
    lake = filled(remote_lake("bucket"))
    BucketFileSystem.requests.clear()
    with open_database(lake) as database:
        for _ in range(2):
            database.add_view(POSTS, PARTITIONS)
            assert fetch(database, "SELECT count(*), count(DISTINCT creator_id) FROM posts") == [(36, 12)]
    root = BucketFileSystem._strip_protocol(lake.root)
    paths = [f"get {root}/{partition_path('posts', each)}" for each in PARTITIONS]
    assert sorted(BucketFileSystem.requests) == sorted(paths)
    assert [*(tmp_path / home).iterdir()] == []


def test_disk_that_is_too_full_for_copies_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = filled(remote_lake("bucket"))

    def write_bytes(path: Path, _: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with (
        open_database(lake, spill_directory=str(tmp_path)) as database,
        pytest.raises(LakeUnavailable, match="cannot be copied to .*: No space left on device. Next step: free"),
    ):
        database.add_view(POSTS)


@pytest.mark.parametrize("data", [b"", b"PAR1" + bytes(100) + b"PAR1", None], ids=["empty", "damaged", "removed"])
@pytest.mark.parametrize("is_confined", [False, True])
def test_file_that_cannot_be_read_is_named(is_confined: bool, data: bytes | None, lake: Lake) -> None:
    filled(lake)
    file = partition_path("posts", PARTITIONS[3])
    with open_database(lake, confined=is_confined) as database:
        if not lake.storage.is_remote or is_confined:  # else its files are copied first
            database.add_view(POSTS)
            assert database.find_unreadable_files() == {}
        lake.storage.remove(file) if data is None else lake.storage.write(file, data)
        if lake.storage.is_remote and not is_confined:
            database.add_view(POSTS, PARTITIONS)
        with pytest.raises(duckdb.Error):
            fetch(database, "SELECT sum(impressions) FROM posts")
        ((view, failures),) = database.find_unreadable_files().items()
    assert (view, [*failures]) == ("posts", PARTITIONS[3:4])
    location, failure = lake.storage.location(file), failures[PARTITIONS[3]]
    if data is None:
        assert isinstance(failure, LakeUnavailable)
        assert str(failure) == f"cannot read {location}: it was removed meanwhile. Next step: run again"
    else:
        assert isinstance(failure, FileDamaged)
        assert str(failure).startswith(f"{location} is damaged: ")


def count_posts(database: LakeDatabase) -> tuple[int, ViewContents]:
    """Return the number of posts in the readable files, and what was read."""

    def compute(files: ViewContents) -> tuple[int, ViewContents]:
        ((number, _),) = fetch(database, "SELECT count(post_date), sum(post_id) FROM posts")
        return number, files

    return database.read([(POSTS, PARTITIONS)], compute)


def test_read_excludes_and_reports_unreadable_files_of_its_own_tables(lake: Lake) -> None:
    filled(lake)
    lake.write_table("other", rows(1))
    with open_database(lake) as database:
        lake.storage.write(table_path("other"), b"no Parquet")
        database.add_view(Table("other", POSTS.columns, is_partitioned=False))
        lake.storage.write(partition_path("posts", PARTITIONS[3]), b"no Parquet")
        number, files = count_posts(database)
        with pytest.raises(FileDamaged, match="other/part-0.parquet is damaged"):
            database.read([(POSTS, PARTITIONS)], lambda _: fetch(database, "SELECT sum(post_id) FROM other"))
    assert number == 3 * (len(PARTITIONS) - 1)
    assert [*files.partitions["posts"]] == [each for each in PARTITIONS if each != PARTITIONS[3]]
    assert [*files.unreadable["posts"]] == [PARTITIONS[3]]


FORBIDDEN = [
    "COPY posts TO '{root}/posts/other.parquet'",
    "WITH w AS (COPY posts TO 'later://{file}') FROM w",
    "FROM read_parquet('{root}/{file}')",
    "FROM read_parquet('later://other/part-0.parquet')",
    "FROM read_text('later://../secret')",
    "FROM read_text('later://*')",
    "ATTACH '{root}/new.db'",
    "LOAD '{root}/x.duckdb_extension'",
    "SET enable_external_access = true",
    "RESET lock_configuration",
    "EXPORT DATABASE '{root}/out'",
    "FROM local_table",
]


def test_confined_database_reads_its_views_and_nothing_else(lake: Lake, tmp_path: Path) -> None:
    filled(lake)
    lake.write_table("other", rows(1))
    local_table = rows(1)  # which DuckDB could find by its Python name
    paths = [*(partition_path("posts", each) for each in PARTITIONS), table_path("other"), "posts/other.parquet"]
    stored = {path: lake.storage.read(path) for path in paths}
    before = files(tmp_path)
    root, file = lake.storage.location("").rstrip("/"), partition_path("posts", PARTITIONS[0])
    with open_database(lake, confined=True) as database:
        database.add_view(POSTS)
        for sql in FORBIDDEN:
            with pytest.raises(duckdb.Error):
                fetch(database, sql.format(root=root.replace("'", "''"), file=file.replace("'", "''")))
            assert fetch(database, "SELECT count(*) FROM posts") == [(36,)]
    assert local_table.num_rows == 1
    assert {path: lake.storage.read(path) for path in paths} == stored
    assert files(tmp_path) == before


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    return home


def test_data_beyond_the_memory_limit_is_spilled_to_a_private_folder_that_is_removed(local: Lake, home: Path) -> None:
    with open_database(local, memory_gb=0.2) as database:
        (folder,) = home.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        fetch(
            database, "CREATE TABLE large AS SELECT md5(n::VARCHAR) || md5((n + 1)::VARCHAR) FROM range(3_000_000) t(n)"
        )
        assert sum(path.stat().st_size for path in folder.rglob("*")) > 10_000_000
        assert fetch(database, "SELECT count(*) FROM large") == [(3_000_000,)]
    assert files(home) == {}
    with pytest.raises(ZeroDivisionError), open_database(local):
        raise ZeroDivisionError
    assert [*home.iterdir()] == []


KILLED = """
import os, signal, sys
from later_reporting_dagster.lake import Lake
from later_reporting_dagster.lake.database import open_database
with open_database(Lake(sys.argv[1]), memory_gb=0.2) as database:
    database.connection.execute("CREATE TABLE large AS SELECT repeat(md5(n::VARCHAR), 2) FROM range(3_000_000) t(n)")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.faults
def test_folder_of_a_killed_process_is_removed_a_day_later(local: Lake, home: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, local.root], check=False)
    (leftover,) = home.iterdir()
    assert [*leftover.iterdir()]
    (home / "storage").mkdir()
    with open_database(local):
        assert leftover.exists()
    yesterday = time.time() - 25 * 3600
    for path in (leftover, home / "storage"):
        os.utime(path, (yesterday, yesterday))
    with open_database(local):
        assert not leftover.exists()
    assert [path.name for path in home.iterdir()] == ["storage"]


@pytest.fixture
def _time_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as environment:
        environment.setenv("TZ", "Asia/Kathmandu")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("_time_zone")
def test_days_of_instants_are_in_utc_in_any_time_zone(local: Lake) -> None:
    late = datetime(2024, 3, 1, 23, 59, tzinfo=UTC)
    local.write("posts", PARTITIONS[0], posts_table([post(1, post_date=late)]))
    with open_database(local) as database:
        database.add_view(POSTS)
        assert fetch(database, "SELECT CAST(post_date AS DATE), date FROM posts") == [(DAYS[0], DAYS[0])]


@pytest.mark.e2e
def test_definitions_import_neither_duckdb_nor_pandas() -> None:
    program = "import sys, later_reporting_dagster.definitions; print({'duckdb', 'pandas'} & {*sys.modules})"
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert process.stdout == "set()\n"


def test_glob_select_equals_the_view_of_files_with_other_columns(tmp_path: Path) -> None:
    lake, table = Lake(str(tmp_path)), POSTS_PUBLISHED.table
    for partition, metrics in zip(PARTITIONS, [METRICS, DEFAULT_METRICS] * len(DAYS), strict=True):
        same = {"metrics": metrics, "instance_id": partition.instance_id}
        posts = [post(number, impressions=number, **same) for number in range(3)]
        lake.write(table.name, partition, posts_table(posts, metrics=metrics))
    sql = f"SELECT * FROM ({glob_select(table, str(tmp_path))}) ORDER BY date, instance_id, post_id"
    with open_database(lake) as database:
        database.add_view(table)
        expected = fetch(database, f"FROM {table.name} ORDER BY date, instance_id, post_id")
    assert duckdb.sql(sql).fetchall() == expected
    assert {row[1] for row in expected} == {*IDS}


@pytest.mark.parametrize(
    ("stored", "content_type", "network"),
    [
        (None, "linkedin", "linkedin"),
        (None, "snapchat_story", "snapchat"),
        (None, "musical_ly", "tiktok"),
        ("tiktok", "tiktok", "tiktok"),
        (None, "video", None),
        (None, None, None),
    ],
)
def test_networks_that_were_not_known_when_a_file_was_written_are_read(
    stored: str | None, content_type: str | None, network: str | None, tmp_path: Path
) -> None:
    lake, table = Lake(str(tmp_path)), POSTS_PUBLISHED.table
    written = posts_table([post(number, content_type=content_type, instance_id="007") for number in range(3)])
    position = written.schema.get_field_index("platform")
    column = pa.array([stored] * 3, pa.string())
    lake.write(table.name, PARTITIONS[0], written.set_column(position, written.schema.field(position), column))
    with open_database(lake) as database:
        database.add_view(table)
        assert fetch(database, f"SELECT DISTINCT platform FROM {table.name}") == [(network,)]
    assert duckdb.sql(f"SELECT DISTINCT platform FROM ({glob_select(table, str(tmp_path))})").fetchall() == [(network,)]
    assert {*lake.read(table.name, PARTITIONS[:1], schema=table.schema)["platform"].to_pylist()} == {network}


def test_glob_select_opens_only_files_that_a_condition_selects(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    lake.write_all("posts_published", {each: rows(3, instance_id=each.instance_id) for each in PARTITIONS[:4]})
    Path(lake.url("posts_published", PARTITIONS[0])).write_bytes(b"damaged")
    sql = f"SELECT count(*) FROM ({glob_select(POSTS_PUBLISHED.table, str(tmp_path))}) WHERE date > '{DAYS[0]}'"
    assert duckdb.sql(sql).fetchall() == [(6,)]
    assert duckdb.sql(f"{sql} OR instance_id <> '007'").fetchall() == [(9,)]
