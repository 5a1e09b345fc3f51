from pathlib import Path

import pyarrow as pa
import pytest

from later_reporting_dagster.lake import Lake, LakeUnavailable, QueryError, Table, posts_table, run_query
from tests.conftest import files
from tests.lake.awkward_lake import BEYOND_FLOATS, COLUMNS, DAYS, PARTITIONS, POSTS, lake_at, rows_of
from tests.lake.conftest import post

EMPTY = Table("without_files", POSTS.columns)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return lake_at(str(tmp_path / "lake"))


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
        ("WITH w AS (DELETE FROM posts RETURNING *) SELECT * FROM w", "Can only delete from base table"),
        ("ATTACH 'other.db'", "not ATTACH"),
        ("INSTALL httpfs", "not LOAD"),
        ("SET enable_external_access = true", "not SET"),
        ("SELECT * FROM read_csv('/etc/hostname')", "disabled"),
        ("SELECT * FROM '/etc/hostname'", "disabled|does not exist"),
        ("SELECT * FROM glob('.tmp/*')", "disabled"),
        ("SELECT * FROM read_text('https://example.com')", "disabled"),
    ],
)
def test_other_statements_are_rejected_and_change_nothing(
    sql: str, reason: str, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".tmp").mkdir()  # DuckDB's default spill directory, which any query could read and write
    before = files(tmp_path)
    with pytest.raises(QueryError, match=reason) as raised:
        fetch(sql, lake)
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


def test_damaged_file_is_named_unless_the_sql_is_at_fault(lake: Lake, tmp_path: Path) -> None:
    file = Path(lake.url("posts", PARTITIONS[4]))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(QueryError, match=rf"^{file} is damaged: .*\. Next step: materialize this partition again$"):
        fetch("SELECT sum(impressions) FROM posts", lake)
    texts = posts_table([post(1)]).drop_columns(["impressions"]).append_column("impressions", pa.array(["many"]))
    lake.write("posts", PARTITIONS[4], texts)
    with pytest.raises(QueryError, match=rf"^{file} is damaged: column impressions is string, not int64"):
        fetch("SELECT sum(impressions) FROM posts", lake)
    with pytest.raises(QueryError, match="^Conversion Error"):
        fetch(f"SELECT extra::INT FROM posts WHERE date = '{DAYS[0]}'", lake)


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        (
            "FROM read_text('later://_quarantine/posts.json')",
            "PermissionError: access to _quarantine/posts.json is dis",
        ),
        (
            "FROM json_execute_serialized_sql(json_serialize_sql('FROM read_text(''later://x'')'))",
            "PermissionError: access to x is disabled: only files of the tables can be read$",
        ),
    ],
)
def test_refused_access_to_a_file_is_one_line(sql: str, reason: str, lake: Lake, tmp_path: Path) -> None:
    before = files(tmp_path)
    with pytest.raises(QueryError, match=f"^{reason}") as raised:
        fetch(sql, lake)
    assert "\n" not in str(raised.value)
    assert files(tmp_path) == before


def test_table_whose_name_is_computed_is_an_error_not_empty(lake: Lake) -> None:
    for sql in ("FROM query_table('po' || 'sts')", "SELECT count(*) FROM query('FROM po' || 'sts')"):
        with pytest.raises(QueryError, match="posts is read, but not named: write its name in the query"):
            fetch(sql, lake)
    assert fetch("SELECT count(*) AS n FROM query_table('po' || 'sts') -- posts", lake) == [{"n": 3 * len(PARTITIONS)}]
