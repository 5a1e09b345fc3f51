"""Frames and SQL over posts with nulls, zeros, empty strings, counts that no float can hold, and numeric ids."""

from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from later_reporting_dagster.lake import (
    POST_COLUMNS,
    Column,
    Lake,
    LakeUnavailable,
    Partition,
    Table,
    partition_path,
    posts_table,
    read_frame,
    schema_of,
)
from later_reporting_dagster.lake.sql_query import QueryError, run_query
from tests.conftest import files
from tests.lake.conftest import post

POSTS = Table("posts", POST_COLUMNS)
FIRST = date(2024, 1, 3)
DAYS = [FIRST + timedelta(days=offset) for offset in range(3)]
INSTANCES = ("007", "a/b|c")
PARTITIONS = [Partition(day, instance_id) for day in DAYS for instance_id in INSTANCES]
# The smallest positive integer that a float cannot hold.
BEYOND_FLOATS = 2**53 + 1

COLUMNS = ["date", "instance_id", "post_id", "impressions", "cpm", "extra"]
VALUES = [(1, None, None, None), (2, 0, 0.0, ""), (3, BEYOND_FLOATS, 0.1, "null")]

Row = dict[str, Any]


def rows_of(partition: Partition) -> list[Row]:
    """Return the rows of a partition in the lake, in the columns that the tests compare."""
    return [dict(zip(COLUMNS, (partition.day, partition.instance_id, *values), strict=True)) for values in VALUES]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A lake on a local disk with all PARTITIONS."""
    lake = Lake(str(tmp_path / "lake"))
    for partition in PARTITIONS:
        posts = [{name: value for name, value in row.items() if name != "date"} for row in rows_of(partition)]
        lake.write(POSTS.name, partition, posts_table([post(**fields) for fields in posts]))
    return lake


def pandas_rows(frame: pd.DataFrame, names: list[str]) -> list[Row]:
    return [
        {
            name: None if value is pd.NA else value.date() if isinstance(value, pd.Timestamp) else value
            for name, value in row.items()
        }
        for row in frame[names].astype(object).to_dict("records")
    ]


# Each type, and how its library converts some columns to Python rows.
KINDS: dict[type, Callable[[Any, list[str]], list[Row]]] = {
    pd.DataFrame: pandas_rows,
    pa.Table: lambda table, names: table.select(names).to_pylist(),
    ds.Dataset: lambda dataset, names: dataset.to_table(columns=names).to_pylist(),
    pl.DataFrame: lambda frame, names: frame.select(names).to_dicts(),
    pl.LazyFrame: lambda frame, names: frame.select(names).collect().to_dicts(),
    duckdb.DuckDBPyRelation: lambda relation, names: relation.select(*names).to_arrow_table().to_pylist(),
}
LAZY = (ds.Dataset, pl.LazyFrame, duckdb.DuckDBPyRelation)


def rows_in(frame: Any, names: list[str] = COLUMNS) -> list[Row]:
    (kind,) = (kind for kind in KINDS if isinstance(frame, kind))
    return KINDS[kind](frame, names)


every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")


@every_kind
@pytest.mark.parametrize(
    "partitions",
    [
        pytest.param([each for each in PARTITIONS if each.instance_id == "007"], id="an instance"),
        pytest.param(PARTITIONS, id="all"),
    ],
)
def test_frame_has_exactly_the_rows_of_the_partitions(kind: type, partitions: list[Partition], lake: Lake) -> None:
    loaded = read_frame(kind, lake, POSTS, partitions)
    assert isinstance(loaded, kind)
    rows = rows_in(loaded)
    expected = [row for partition in partitions for row in rows_of(partition)]
    assert sorted(map(repr, rows)) == sorted(map(repr, expected))
    if kind not in LAZY:
        assert rows == expected


@every_kind
def test_frame_of_an_unpartitioned_table_has_all_rows_and_no_date(kind: type, lake: Lake) -> None:
    window = Table("window", POST_COLUMNS, is_partitioned=False)
    columns = COLUMNS[1:]
    assert rows_in(read_frame(kind, lake, window, []), columns) == []
    lake.write_table("window", lake.read(POSTS.name, PARTITIONS[:1], schema=schema_of(POST_COLUMNS)))
    expected = [{name: row[name] for name in columns} for row in rows_of(PARTITIONS[0])]
    assert rows_in(read_frame(kind, lake, window, []), columns) == expected


@pytest.mark.parametrize(
    "rows",
    [
        lambda lake: read_frame(ds.Dataset, lake, POSTS, PARTITIONS).to_table(
            filter=(ds.field("date") > pa.scalar(DAYS[0])) & (ds.field("instance_id") == "007")
        ),
        lambda lake: (
            read_frame(pl.LazyFrame, lake, POSTS, PARTITIONS)
            .filter((pl.col("date") > DAYS[0]) & (pl.col("instance_id") == "007"))
            .collect()
        ),
        lambda lake: (
            read_frame(duckdb.DuckDBPyRelation, lake, POSTS, PARTITIONS)
            .filter(f"date > DATE '{DAYS[0]}' AND instance_id = '007'")
            .to_arrow_table()
        ),
    ],
    ids=["arrow", "polars", "duckdb"],
)
def test_lazy_frame_opens_no_file_that_its_filter_excludes(
    rows: Callable[[Lake], Any], lake: Lake, tmp_path: Path
) -> None:
    for partition in PARTITIONS:
        if partition.day == DAYS[0] or partition.instance_id != "007":
            (tmp_path / "lake" / partition_path(POSTS.name, partition)).write_bytes(b"no Parquet")
    assert len(rows(lake)) == 3 * 2


def test_pandas_columns_have_nullable_types(lake: Lake) -> None:
    types = read_frame(pd.DataFrame, lake, POSTS, PARTITIONS).dtypes
    assert {str(types[name]) for name in ("post_id", "impressions")} == {"Int64"}
    assert str(types["cpm"]) == "Float64"
    assert types["extra"] == pd.StringDtype(na_value=pd.NA)
    assert str(types["post_date"]) == "datetime64[us, UTC]"
    assert types["date"].kind == "M"


def test_pandas_booleans_keep_nulls(lake: Lake) -> None:
    flags = Table("flags", (Column("flag", "bool", True, "A flag"),), is_partitioned=False)
    lake.write_table(flags.name, pa.table({"flag": [True, None]}))
    assert read_frame(pd.DataFrame, lake, flags, [])["flag"].dtype == pd.BooleanDtype()


def test_duckdb_relations_can_be_joined_and_named_in_sql(lake: Lake) -> None:
    of_instance = [each for each in PARTITIONS if each.instance_id == "007"]
    day = read_frame(duckdb.DuckDBPyRelation, lake, POSTS, PARTITIONS[:1])
    instance = read_frame(duckdb.DuckDBPyRelation, lake, POSTS, of_instance)
    assert day.set_alias("d").join(instance.set_alias("i"), "d.post_id = i.post_id").count("*").fetchall() == [(9,)]
    assert duckdb.sql("SELECT count(*) FROM day JOIN instance USING (post_id)").fetchall() == [(9,)]


@pytest.mark.parametrize("kind", [dict, Any, pd.DataFrame | None, pl.Series])
def test_unsupported_type_is_rejected_with_the_supported_ones(kind: Any, lake: Lake) -> None:
    with pytest.raises(TypeError, match="is not supported: use one of pandas.DataFrame, pyarrow.Table, ") as rejected:
        read_frame(kind, lake, POSTS, PARTITIONS)
    assert "\n" not in str(rejected.value)
    assert str(rejected.value).endswith(", polars.DataFrame, polars.LazyFrame, duckdb.DuckDBPyRelation")


# SQL


EMPTY = Table("without_files", POSTS.columns)


def fetch(sql: str, lake: Lake) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = run_query(sql, lake, [POSTS, EMPTY]).to_pylist()
    return rows


def test_query_returns_all_rows_with_dates_and_nulls(lake: Lake) -> None:
    rows = fetch(f"SELECT {', '.join(COLUMNS)} FROM posts ORDER BY date, instance_id, post_id", lake)
    assert rows == [row for partition in PARTITIONS for row in rows_of(partition)]


def test_sums_of_counts_are_int64_and_null_without_values(lake: Lake) -> None:
    table = run_query(
        "SELECT sum(impressions) AS known, sum(impressions) FILTER (post_id = 1) AS nothing,"
        " sum(impressions) FILTER (post_id = 2) AS zero FROM posts",
        lake,
        [POSTS],
    )
    assert table.to_pylist() == [{"known": BEYOND_FLOATS * len(PARTITIONS), "nothing": None, "zero": 0}]
    assert set(table.schema.types) == {pa.int64()}


def test_sum_beyond_int64_stays_exact(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    most = 2**63 - 1
    lake.write("posts", PARTITIONS[0], posts_table([post(1, impressions=most), post(2, impressions=most)]))
    assert fetch("SELECT sum(impressions) AS sum FROM posts", lake) == [{"sum": 2 * most}]


def test_table_without_files_is_empty_and_noted(lake: Lake) -> None:
    notes: list[str] = []
    table = run_query(
        "SELECT post_id FROM without_files JOIN posts USING (post_id)", lake, [POSTS, EMPTY], on_note=notes.append
    )
    assert (table.num_rows, table.schema.types) == (0, [pa.int64()])
    assert notes == [f"without_files has no files in {lake.root}"]


def test_query_of_both_scopes_says_so_once(lake: Lake) -> None:
    """Rows of creators and campaigns are of one instance each."""
    columns = [Column(name, "string", False, "") for name in ("scope", "platform", "creator_id")]
    totals, creators = (
        Table("totals", columns[:2], is_partitioned=False),
        Table("creators", columns, is_partitioned=False),
    )
    for table in (totals, creators):
        lake.write_table(table.name, table.schema.empty_table())

    def notes(sql: str) -> list[str]:
        found: list[str] = []
        run_query(sql, lake, [totals, creators], on_note=found.append)
        return found

    note = "totals has rows of each instance and of all together: add scope = 'all', or 'instance'"
    assert notes(
        "SELECT count(*) FROM totals UNION ALL FROM creators SELECT count(*) UNION ALL FROM totals SELECT 1"
    ) == [note]
    assert notes("SELECT count(*) FROM totals WHERE Scope = 'all'") == []
    assert notes("SELECT count(*) FROM creators") == []
    assert notes("-- Besides totals\nSELECT count(*) FROM creators WHERE creator_id <> 'totals'") == []


def test_unpartitioned_tables_can_be_queried(lake: Lake) -> None:
    window, empty = (Table(name, POSTS.columns, is_partitioned=False) for name in ("window_of_all", "empty_window"))
    lake.write_table("window_of_all", posts_table([post(4, impressions=0)]))
    notes: list[str] = []
    counts = "SELECT count(*) AS n, (SELECT count(*) FROM empty_window) AS none, sum(impressions) AS sum"
    table = run_query(f"{counts} FROM window_of_all", lake, [POSTS, window, empty], on_note=notes.append)
    assert table.to_pylist() == [{"n": 1, "none": 0, "sum": 0}]
    assert notes == [f"empty_window has no files in {lake.root}"]
    described = run_query("DESCRIBE empty_window", lake, [window, empty])
    assert described.column("column_name").to_pylist() == [column.name for column in POSTS.columns]


def test_tables_can_be_listed_described_and_explained(lake: Lake) -> None:
    assert fetch("SHOW TABLES", lake) == [{"name": "posts"}, {"name": "without_files"}]
    assert fetch("DESCRIBE posts", lake)[1]["column_type"] == "VARCHAR"
    assert len(fetch("SUMMARIZE posts", lake)) == 1 + len(POSTS.columns)
    for explained in ("SELECT * FROM posts;", "ANALYZE SELECT 1", "PIVOT posts ON instance_id USING count(*)"):
        assert fetch(f"EXPLAIN {explained}", lake)


@pytest.mark.parametrize(
    "sql",
    [
        "WITH p AS (SELECT * FROM posts) SELECT count(*) AS n FROM p",
        'SELECT count(*) AS n FROM "posts"',
        "SELECT count(*) AS n FROM main.POSTS;",
        "FROM posts SELECT count(*) AS n",
        "SELECT (SELECT count(*) FROM posts) AS n",
        "SELECT count(*) AS n FROM posts p JOIN posts q USING (date, instance_id, post_id)",
    ],
)
def test_table_is_found_however_the_query_names_it(sql: str, lake: Lake) -> None:
    assert fetch(sql, lake) == [{"n": 3 * len(PARTITIONS)}]


# Of what would write to the lake by the scheme of its views.
DENIED = "^PermissionError: access to .*posts.* is disabled: only files of the tables can be read$"


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT nothing_such FROM posts", '"nothing_such" not found'),
        ("SELECT if(n < 500_000, '1', 'x')::INT FROM range(1_000_000) t(n)", "Conversion Error"),
        ("SELECT * FROM nowhere", "The tables are posts, without_files"),
        ("", "got none"),
        ("SELECT 1; SELECT 2", "got 2"),
        ("DELETE FROM posts", "not DELETE"),
        ("CREATE TABLE new AS SELECT * FROM posts", "not CREATE"),
        ("COPY posts TO 'posts.csv'", "not COPY"),
        ("EXPLAIN ANALYZE COPY posts TO '.tmp/posts.csv'", "disabled"),
        ("COPY (PIVOT posts ON post_id USING count(*)) TO '.tmp/posts.csv'", "disabled"),
        ("WITH w AS (COPY posts TO '.tmp/posts.csv') SELECT * FROM w", "disabled"),
        ("WITH w AS (COPY posts TO '{file}') SELECT * FROM w", DENIED),
        ("EXPLAIN ANALYZE COPY posts TO '{file}'", DENIED),
        ("COPY (PIVOT posts ON post_id USING count(*)) TO '{file}'", DENIED),
        (
            "FROM json_execute_serialized_sql(json_serialize_sql('WITH w AS (COPY (SELECT 1) TO ''{file}'') FROM w'))",
            DENIED,
        ),
        ("WITH w AS (COPY posts TO 'later://posts' (FORMAT parquet, PARTITION_BY (date), OVERWRITE)) FROM w", DENIED),
        ("WITH w AS (DELETE FROM posts RETURNING *) SELECT * FROM w", "Can only delete from base table"),
        ("ATTACH 'other.db'", "not ATTACH"),
        ("INSTALL httpfs", "not LOAD"),
        ("SET enable_external_access = true", "not SET"),
        ("SELECT * FROM read_csv('/etc/hostname')", "disabled"),
        ("SELECT * FROM '/etc/hostname'", "disabled|does not exist"),
        ("SELECT * FROM glob('.tmp/*')", "disabled"),
        ("SELECT * FROM read_text('https://example.com')", "disabled"),
        ("FROM read_text('later://_quarantine/posts.json')", "^PermissionError: access to _quarantine/posts.json"),
        ("FROM json_execute_serialized_sql(json_serialize_sql('FROM read_text(''later://x'')'))", "^PermissionError: "),
    ],
)
def test_other_statements_are_rejected_and_change_nothing(
    sql: str, reason: str, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".tmp").mkdir()  # DuckDB's default spill directory, which any query could read and write
    before = files(tmp_path)
    stored = f"later://{partition_path('posts', PARTITIONS[0])}"
    with pytest.raises(QueryError, match=reason) as raised:
        fetch(sql.replace("{file}", stored.replace("'", "''")), lake)
    assert len(str(raised.value).splitlines()) == 1
    assert "LINE 1" not in str(raised.value)
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM (SELECT DISTINCT md5(number::VARCHAR) FROM range(3_000_000) t(number))",
        "SELECT repeat('x', 1_000) FROM range(1_000_000_000)",
    ],
    ids=["query", "result"],
)
def test_query_beyond_the_memory_limit_is_rejected_without_spilling(
    sql: str, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = files(tmp_path)
    with pytest.raises(QueryError, match="^the query needs more than 0.06 GB of memory"):
        run_query(sql, lake, [POSTS], memory_gb=0.06)
    assert files(tmp_path) == before


def test_table_that_cannot_be_listed_does_not_affect_other_queries(lake: Lake, tmp_path: Path) -> None:
    loop = tmp_path / "lake" / EMPTY.name
    loop.symlink_to(loop)
    with pytest.raises(LakeUnavailable, match=EMPTY.name):
        fetch(f"SELECT * FROM {EMPTY.name}", lake)
    assert fetch("SELECT count(*) AS n FROM posts", lake) == [{"n": 3 * len(PARTITIONS)}]


def test_damaged_file_of_a_retired_instance_is_left_out_and_named(lake: Lake) -> None:
    notes: list[str] = []
    sql = "SELECT instance_id, count(*) AS rows FROM posts GROUP BY ALL"
    damaged = Path(lake.url("posts", PARTITIONS[1]))
    damaged.write_bytes(b"PAR1")
    with pytest.raises(QueryError, match="is damaged: "):
        run_query(sql, lake, [POSTS], on_note=notes.append)
    lake.retired.add("a/b|c")
    found = run_query(sql, lake, [POSTS], on_note=notes.append).to_pylist()
    assert sorted((row["instance_id"], row["rows"]) for row in found) == [("007", 9), ("a/b|c", 6)]
    (note,) = notes
    assert note.startswith(f"{damaged} is damaged: ")
    assert note.endswith(
        "Its rows are left out, because the instance is retired. Next step: `later-reporting retire --undo 'a/b|c'` and"
        " `later-reporting backfill --only-missing --start 2024-01-03 --end 2024-01-03`, or delete the file"
    )
    comment = "SELECT comment FROM duckdb_columns() WHERE table_name = 'posts' AND column_name = 'campaign_id' -- posts"
    assert run_query(comment, lake, [POSTS]).to_pylist()[0]["comment"]
    Path(lake.url("posts", PARTITIONS[0])).write_bytes(b"PAR1")
    with pytest.raises(
        QueryError, match=r"is damaged: .*materialize this partition again, as .* does \(1 more files cannot be read"
    ):
        run_query(sql, lake, [POSTS])


def test_damaged_file_is_named_unless_the_sql_is_at_fault(lake: Lake, tmp_path: Path) -> None:
    file = Path(lake.url("posts", PARTITIONS[4]))
    file.write_bytes(file.read_bytes()[:-1])
    day = PARTITIONS[4].day
    step = (
        f"materialize this partition again, as `later-reporting backfill --asset posts --start {day} --end {day}` does"
    )
    with pytest.raises(QueryError, match=rf"^{file} is damaged: .*\. Next step: {step}$"):
        fetch("SELECT sum(impressions) FROM posts", lake)
    texts = posts_table([post(1)]).drop_columns(["impressions"]).append_column("impressions", pa.array(["many"]))
    lake.write("posts", PARTITIONS[4], texts)
    with pytest.raises(QueryError, match=rf"^{file} is damaged: column impressions is string, not int64"):
        fetch("SELECT sum(impressions) FROM posts", lake)
    with pytest.raises(QueryError, match="^Conversion Error"):
        fetch(f"SELECT extra::INT FROM posts WHERE date = '{DAYS[0]}'", lake)


def test_table_whose_name_is_computed_is_an_error_not_empty(lake: Lake) -> None:
    for sql in ("FROM query_table('po' || 'sts')", "SELECT count(*) FROM query('FROM po' || 'sts')"):
        with pytest.raises(QueryError, match="posts is read, but not named: write its name in the query"):
            fetch(sql, lake)
    assert fetch("SELECT count(*) AS n FROM query_table('po' || 'sts') -- posts", lake) == [{"n": 3 * len(PARTITIONS)}]
