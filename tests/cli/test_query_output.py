"""`later-reporting query`: a table for terminals, complete formats for programs, and null distinct from empty."""

import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from later_reporting_dagster.cli.query_output import to_table
from later_reporting_dagster.lake import Lake, Partition, posts_table
from tests.cli.conftest import User, environment, error_line
from tests.conftest import files
from tests.lake.conftest import post

DAYS = [date(2024, 3, 1), date(2024, 3, 2)]
NULLS = "SELECT post_id, impressions, extra FROM posts_published WHERE date = '2024-03-01' ORDER BY post_id"


@pytest.fixture(autouse=True)
def lake(user: User) -> Lake:
    """Two days, each with three posts: impressions null, 0, and an integer beyond a float's precision."""
    lake = Lake(str(user.lake))
    for day in DAYS:
        posts = [post(1), post(2, impressions=0, extra=""), post(3, impressions=2**53 + 1, extra="null")]
        lake.write("posts_published", Partition(day, "007"), posts_table(posts))
    return lake


TABLE = f"""\
post_id        impressions   extra
{"─" * 35}
      1               null   null
      2                  0   ""
      3   9007199254740993   "null"
"""
ROWS = (
    '{"post_id":1,"impressions":null,"extra":null}',
    '{"post_id":2,"impressions":0,"extra":""}',
    '{"post_id":3,"impressions":9007199254740993,"extra":"null"}',
)


@pytest.mark.parametrize(
    ("format_", "text"),
    [
        ("table", TABLE),
        ("csv", '"post_id","impressions","extra"\n1,,\n2,0,""\n3,9007199254740993,"null"\n'),
        ("json", "[" + ",\n ".join(ROWS) + "]\n"),
        ("jsonl", "\n".join(ROWS) + "\n"),
    ],
)
def test_query_keeps_exact_integers_and_null_distinct_from_zero_and_empty_text(
    format_: str, text: str, user: User
) -> None:
    result = user.run("query", NULLS, "--format", format_)
    assert (result.exit_code, result.stderr, result.stdout) == (0, "", text)


@pytest.mark.parametrize("format_", ["table", "csv", "json", "jsonl"])
def test_query_prints_no_control_characters_on_a_terminal(
    format_: str, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "\x1b]0;title\x07 \x9b31m \u202egnp.exe \u2066 \x7f \r"
    query = ("query", f"SELECT '{text}' AS \"a\x1bb\", 'é\n😀' AS c", "--format", format_)
    if format_ == "csv":
        assert text in user.run(*query).stdout
    monkeypatch.setattr("later_reporting_dagster.cli.main._terminal_width", lambda: 200)
    printed = user.run(*query).stdout
    assert [char for char in printed if not char.isprintable()] == ["\n"] * printed.count("\n")
    assert "é" in printed
    if format_ == "json":
        assert json.loads(printed) == [{"a\x1bb": text, "c": "é\n😀"}]


def test_query_parquet_keeps_types(user: User, tmp_path: Path) -> None:
    file = tmp_path / "result.parquet"
    sql = "SELECT date, sum(impressions) AS total FROM posts_published GROUP BY date ORDER BY date"
    result = user.run("query", sql, "--format", "parquet", "--output", str(file))
    assert (result.exit_code, result.output) == (0, "")
    table = pq.read_table(file)
    assert table.schema.types == [pa.date32(), pa.int64()]
    assert table.to_pylist() == [{"date": day, "total": 2**53 + 1} for day in DAYS]


def test_query_has_a_view_of_every_table_even_without_files(user: User) -> None:
    names = [row["name"] for row in json.loads(user.run("query", "SHOW TABLES", "--format", "json").stdout)]
    assert {"posts_published", "post_metrics_daily", "organic_paid_daily", "posts"} <= set(names)
    result = user.run("query", " UNION ALL ".join(f"SELECT count(*) FROM {name}" for name in names))
    assert result.exit_code == 0, result.stderr
    without_files = {*names} - {"posts_published"}
    assert sorted(result.stderr.splitlines()) == sorted(f"{name} has no files in {user.lake}" for name in without_files)


def test_query_table_truncates_rows_and_other_formats_do_not(user: User) -> None:
    sql = "SELECT * FROM range(1234) t(number)"
    result = user.run("query", sql)
    assert len(result.stdout.splitlines()) == 2 + 100
    assert result.stderr.startswith("… 1,134 more rows: ")
    assert len(user.run("query", sql, "--rows", "1234").stdout.splitlines()) == 2 + 1234
    assert len(user.run("query", sql, "--format", "csv").stdout.splitlines()) == 1 + 1234


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["DROP TABLE posts_published"], "only SELECT statements are allowed"),
        (["SELECT [1] AS list", "--format", "csv"], "csv cannot hold the result (Unsupported Type:list<"),
        (["SELECT INTERVAL 1 DAY AS age", "--format", "csv"], "csv cannot hold the result (Unsupported cast"),
        (["SELECT INTERVAL 1 DAY AS age", "--format", "parquet", "--output", "x"], "parquet cannot hold the result ("),
        (["SELECT union_value(k := 1)", "--format", "parquet", "--output", "x"], "choose another format, or cast"),
        (["SELECT DATE '10000-01-01'"], "--format table cannot hold the result (date value out of range)"),
        (["SELECT DATE 'infinity'", "--format", "json"], "--format json cannot hold the result ("),
        (["SELECT 1", "--rows", "9223372036854775808"], "Invalid value for '--rows'"),
        (["SELECT 1", "--memory-gb", "9223372036854775808"], "Invalid value for '--memory-gb'"),
        (["SELECT '\udcff'"], "SQL: 'utf-8' codec can't encode character"),
        (["SELECT 1 AS posts, 2 AS posts", "--format", "json"], "cannot hold columns of the same name"),
        (["SELECT 1 AS posts, 2 AS posts", "--format", "jsonl"], "cannot hold columns of the same name"),
        (["SELECT 1", "--output", "/nowhere/at/all"], "--output /nowhere/at/all: "),
    ],
)
def test_query_prints_one_line_if_it_fails(arguments: list[str], message: str, user: User) -> None:
    before = files(user.lake)
    result = user.run("query", *arguments)
    assert result.exit_code in (1, 2)
    assert message in error_line(result)
    assert result.stdout == ""
    assert files(user.lake) == before


def test_query_prints_one_line_for_a_damaged_file(user: User) -> None:
    for file in user.lake.rglob("*.parquet"):
        file.write_bytes(b"no Parquet")
    line = error_line(user.run("query", NULLS))
    first = Lake(str(user.lake)).url("posts_published", Partition(DAYS[0], "007"))
    assert line.startswith(f"{first} is damaged: cannot be read as Parquet: ")
    assert line.endswith(". Next step: materialize this partition again (1 more files cannot be read)")


@pytest.mark.e2e
def test_query_of_a_large_value_ends_with_one_line(tmp_path: Path) -> None:
    """DuckDB does not count single large values."""
    command = [sys.executable, "-m", "later_reporting_dagster.cli.main", "query", "--memory-gb", "1"]
    variables = {**environment(), "LATER_LAKE_ROOT": str(tmp_path / "lake")}
    errors = tmp_path / "errors"
    with errors.open("wb") as output:
        process = subprocess.Popen([*command, "SELECT range(200_000_000)"], env=variables, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 1
    assert errors.read_text() == (
        "Error: the query needs more than 1 GB of memory: select fewer days or columns, or raise the limit\n"
    )
    assert usage.ru_maxrss < 3.5e6  # kB


def test_table_aligns_columns_of_any_type_and_becomes_records_if_it_is_too_wide() -> None:
    rows = pa.table(
        {
            "[b]name": ["Zoë 😀", "a\nb\x1b[31m", " spaced", "[i]" + "x" * 200],
            "list": [[1, None], None, [], [2]],
            "flag": [True, False, None, True],
            "rate": [0.1, None, 2.0, 1e300],
        }
    )
    header, rule, *printed = to_table(rows, width=None).splitlines()
    assert header == "[b]name" + " " * 56 + "list       flag      rate"
    assert set(rule) == {"─"}
    assert printed == [
        "Zoë 😀" + " " * 57 + "[1,null]   true       0.1",
        "a b�[31m" + " " * 55 + "null       false     null",
        '" spaced"' + " " * 54 + "[]         null       2.0",
        "[i]" + "x" * 56 + "…   [2]        true    1e+300",
    ]
    records = to_table(rows, width=79).splitlines()
    assert records[0] == "── 1 ──"
    assert "[b]name  [i]" + "x" * 200 in records
    assert len(to_table(rows.slice(0, 0), width=10).splitlines()) == 2
