"""SQL over the lake: every table a view with the types of its dictionary, nothing inferred, nothing changed."""

import secrets
from pathlib import Path

import pyarrow as pa
import pytest

from later_reporting_dagster.lake import Lake, LakeUnavailable, Partition, Table, partition_path, posts_table
from later_reporting_dagster.reading import QueryRefused, answer
from tests.conftest import files
from tests.lake.conftest import BucketFileSystem, post
from tests.reading.conftest import BEYOND_FLOATS, COLUMNS, DAYS, INSTANCES, PARTITIONS, POSTS, lake_at, rows_of

ABSENT = Table("not_landed", POSTS.columns)


def asked(sql: str, lake: Lake) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = answer(sql, lake, [POSTS, ABSENT]).to_pylist()
    return rows


def test_every_row_is_there_with_its_day_and_its_nulls(lake: Lake) -> None:
    rows = asked(f"SELECT {', '.join(COLUMNS)} FROM posts ORDER BY date, instance_id, post_id", lake)
    assert rows == [row for partition in PARTITIONS for row in rows_of(partition)]


def test_columns_have_the_types_of_the_dictionary(lake: Lake) -> None:
    table = answer("SELECT * FROM posts LIMIT 0", lake, [POSTS])
    assert table.column_names == ["date", *(column.name for column in POSTS.columns)]
    assert [str(type_).replace("double", "float64") for type_ in table.schema.types] == [
        "date32[day]",
        *(column.type for column in POSTS.columns),
    ]


def test_sums_of_counts_are_exact_integers_and_of_nothing_null(lake: Lake) -> None:
    table = answer(
        "SELECT sum(impressions) AS known, sum(impressions) FILTER (post_id = 1) AS nothing,"
        " sum(impressions) FILTER (post_id = 2) AS zero FROM posts",
        lake,
        [POSTS],
    )
    assert table.to_pylist() == [{"known": BEYOND_FLOATS * len(PARTITIONS), "nothing": None, "zero": 0}]
    assert set(table.schema.types) == {pa.int64()}


def test_a_sum_beyond_int64_stays_exact(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    most = 2**63 - 1
    lake.write("posts", PARTITIONS[0], posts_table([post(1, impressions=most), post(2, impressions=most)]))
    assert asked("SELECT sum(impressions) AS sum FROM posts", lake) == [{"sum": 2 * most}]


def test_a_table_that_has_not_landed_is_empty_and_that_is_noted(lake: Lake) -> None:
    notes: list[str] = []
    table = answer(
        "SELECT post_id FROM not_landed JOIN posts USING (post_id)", lake, [POSTS, ABSENT], note=notes.append
    )
    assert (table.num_rows, table.schema.types) == (0, [pa.int64()])
    assert notes == [f"not_landed has not landed in {lake.root}"]


def test_a_table_that_has_no_partitions_is_a_view_too(lake: Lake) -> None:
    window, absent = (Table(name, POSTS.columns, is_partitioned=False) for name in ("window_of_all", "absent_window"))
    lake.write_table("window_of_all", posts_table([post(4, impressions=0)]))
    notes: list[str] = []
    counts = "SELECT count(*) AS n, (SELECT count(*) FROM absent_window) AS none, sum(impressions) AS sum"
    table = answer(f"{counts} FROM window_of_all", lake, [POSTS, window, absent], note=notes.append)
    assert table.to_pylist() == [{"n": 1, "none": 0, "sum": 0}]
    assert notes == [f"absent_window has not landed in {lake.root}"]
    described = answer("DESCRIBE absent_window", lake, [window, absent])
    assert described.column("column_name").to_pylist() == [column.name for column in POSTS.columns]


def test_no_partition_is_opened_that_the_query_leaves_out(lake: Lake, tmp_path: Path) -> None:
    for partition in PARTITIONS:
        if partition.day != DAYS[1] or partition.instance_id != "007":
            (tmp_path / "lake" / partition_path(POSTS.name, partition)).write_bytes(b"no Parquet")
    where = f"date = '{DAYS[1]}' AND instance_id = '007'"
    assert asked(f"SELECT count(*) AS posts FROM posts WHERE {where} AND impressions >= 0", lake) == [{"posts": 2}]
    with pytest.raises(QueryRefused):
        asked("SELECT sum(impressions) FROM posts", lake)


def test_tables_are_listed_and_described(lake: Lake) -> None:
    assert asked("SHOW TABLES", lake) == [{"name": "not_landed"}, {"name": "posts"}]
    assert asked("DESCRIBE posts", lake)[1]["column_type"] == "VARCHAR"
    assert len(asked("SUMMARIZE posts", lake)) == 1 + len(POSTS.columns)
    for explained in ("SELECT * FROM posts;", "ANALYZE SELECT 1", "PIVOT posts ON instance_id USING count(*)"):
        assert asked(f"EXPLAIN {explained}", lake)


@pytest.mark.parametrize(
    "sql",
    [
        "WITH p AS (SELECT * FROM posts) SELECT count(*) AS n FROM p",
        'SELECT count(*) AS n FROM "posts"',
        "SELECT count(*) AS n FROM main.POSTS;",
        "FROM posts SELECT count(*) AS n",
        "SELECT (SELECT count(*) FROM posts) AS n",
        "SELECT count(*) AS n FROM posts p JOIN posts q USING (date, instance_id, post_id)",
        "SELECT count(*) AS n FROM query_table('po' || 'sts')",
        "SELECT count(*) AS n FROM query('FROM po' || 'sts')",
    ],
)
def test_however_a_table_is_named_it_is_found(sql: str, lake: Lake) -> None:
    assert asked(sql, lake) == [{"n": 3 * len(PARTITIONS)}]


def test_a_pivot_is_a_query_too(lake: Lake) -> None:
    rows = asked("PIVOT posts ON instance_id USING count(*) GROUP BY post_id ORDER BY post_id", lake)
    assert rows == [{"post_id": number, **dict.fromkeys(INSTANCES, len(DAYS))} for number in (1, 2, 3)]


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT nothing_such FROM posts", '"nothing_such" not found'),
        ("SELECT if(n < 500_000, '1', 'x')::INT FROM range(1_000_000) t(n)", "Conversion Error"),
        ("SELECT * FROM nowhere", "The tables are posts, not_landed"),
        ("", "here are none"),
        ("SELECT 1; SELECT 2", "here are 2"),
        ("DELETE FROM posts", "this is DELETE"),
        ("CREATE TABLE mine AS SELECT * FROM posts", "this is CREATE"),
        ("COPY posts TO 'posts.csv'", "this is COPY"),
        ("EXPLAIN ANALYZE COPY posts TO '.tmp/posts.csv'", 'at or near "COPY"'),
        ("EXPLAIN /* */ ANALYZE COPY (PIVOT posts ON post_id USING count(*)) TO '.tmp/posts.csv'", "syntax error"),
        ("COPY (PIVOT posts ON post_id USING count(*)) TO '.tmp/posts.csv'", 'at or near "COPY"'),
        ("CREATE TABLE mine AS PIVOT posts ON post_id USING count(*)", 'at or near "CREATE"'),
        ("WITH mine AS (COPY posts TO '.tmp/posts.csv') SELECT * FROM mine", "disabled"),
        ("WITH mine AS (DELETE FROM posts RETURNING *) SELECT * FROM mine", "Can only delete from base table"),
        ("ATTACH 'other.db'", "this is ATTACH"),
        ("INSTALL httpfs", "this is LOAD"),
        ("SET enable_external_access = true", "this is SET"),
        ("SELECT * FROM read_csv('/etc/hostname')", "disabled"),
        ("SELECT * FROM '/etc/hostname'", "disabled|does not exist"),
        ("SELECT * FROM glob('.tmp/*')", "disabled"),
        ("SELECT * FROM read_text('https://example.com')", "disabled"),
    ],
)
def test_what_is_no_query_of_the_lake_is_refused_in_a_line_and_changes_nothing(
    sql: str, why: str, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".tmp").mkdir()  # where DuckDB spills by default, which it then lets every query read and write
    before = files(tmp_path)
    with pytest.raises(QueryRefused, match=why) as refused:
        asked(sql, lake)
    assert "LINE 1" not in str(refused.value)
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM (SELECT DISTINCT md5(number::VARCHAR) FROM range(3_000_000) t(number))",
        "SELECT repeat('x', 1_000) FROM range(1_000_000_000)",
    ],
    ids=["within", "rows"],
)
def test_a_query_that_needs_more_memory_is_refused_in_a_line_and_nothing_is_spilled(
    sql: str, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = files(tmp_path)
    with pytest.raises(QueryRefused, match="^it needs more than 0.06 GB of memory"):
        answer(sql, lake, [POSTS], memory_gb=0.06)
    assert files(tmp_path) == before


def test_a_table_that_cannot_be_listed_is_unavailable_and_the_others_are_answered(lake: Lake, tmp_path: Path) -> None:
    loop = tmp_path / "lake" / ABSENT.name
    loop.symlink_to(loop)
    with pytest.raises(LakeUnavailable, match=ABSENT.name):
        asked(f"SELECT * FROM {ABSENT.name}", lake)
    assert asked("SELECT count(*) AS n FROM posts", lake) == [{"n": 3 * len(PARTITIONS)}]


def test_a_file_that_is_replaced_by_no_parquet_is_named_and_a_faulty_query_looks_at_none(
    lake: Lake, tmp_path: Path
) -> None:
    file = Path(lake.url("posts", PARTITIONS[4]))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(QueryRefused, match=rf"^{file} is damaged: .*\. Next step: materialize this partition again$"):
        asked("SELECT sum(impressions) FROM posts", lake)
    texts = posts_table([post(1)]).drop_columns(["impressions"]).append_column("impressions", pa.array(["many"]))
    lake.write("posts", PARTITIONS[4], texts)
    with pytest.raises(QueryRefused, match=rf"^{file} is damaged: it holds impressions as string, not int64"):
        asked("SELECT sum(impressions) FROM posts", lake)
    with pytest.raises(QueryRefused, match="^Conversion Error"):
        asked(f"SELECT extra::INT FROM posts WHERE date = '{DAYS[0]}'", lake)


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("WITH w AS (COPY posts TO '{root}/posts/other.parquet') FROM w", "Permission Error: .* disabled"),
        (
            "WITH w AS (COPY posts TO 'later://{file}') FROM w",
            "PermissionError: access to .* is disabled: files of the",
        ),
        (
            "FROM read_text('later://_quarantine/posts.json')",
            "PermissionError: access to _quarantine/posts.json is dis",
        ),
        ("FROM read_parquet('{root}/{file}')", "Permission Error: .* disabled"),
    ],
)
def test_files_of_the_lake_are_read_by_its_views_alone_and_never_written(
    sql: str, why: str, lake: Lake, tmp_path: Path
) -> None:
    before = files(tmp_path)
    with pytest.raises(QueryRefused, match=f"^{why}") as refused:
        asked(sql.format(root=lake.root, file=partition_path("posts", PARTITIONS[0])), lake)
    assert "\n" not in str(refused.value)
    assert files(tmp_path) == before


def test_a_table_whose_name_is_computed_is_listed_when_it_is_read(lake: Lake) -> None:
    notes: list[str] = []
    sql = "SELECT count(*) AS n FROM query_table('not_' || 'landed') JOIN query_table('po' || 'sts') USING (post_id)"
    assert answer(sql, lake, [POSTS, ABSENT], note=notes.append).to_pylist() == [{"n": 0}]
    assert notes == [f"not_landed has not landed in {lake.root}"]


def test_nothing_of_the_calling_program_can_be_asked_for(lake: Lake) -> None:
    mine = pa.table({"secret": ["of the program"]})
    with pytest.raises(QueryRefused, match="mine"):
        asked("SELECT * FROM mine", lake)
    assert mine.num_rows == 1


def test_a_lake_in_an_object_store_is_asked_through_the_same_filesystem_and_no_more_of_it_than_needed() -> None:
    lake = lake_at(f"bucket://{secrets.token_hex(8)}/lake")
    BucketFileSystem.requests.clear()
    assert asked("SELECT count(*) AS n FROM posts WHERE extra = ''", lake) == [{"n": len(PARTITIONS)}]
    assert not any("not_landed" in request for request in BucketFileSystem.requests)


def test_a_file_that_is_too_old_for_a_column_has_null_there(lake: Lake) -> None:
    old = posts_table([post(9, instance_id="007")]).drop_columns(["paid_cpm"])
    lake.write("posts", Partition(DAYS[0], "007"), old)
    assert asked(f"SELECT post_id, paid_cpm FROM posts WHERE date = '{DAYS[0]}' AND instance_id = '007'", lake) == [
        {"post_id": 9, "paid_cpm": None}
    ]
