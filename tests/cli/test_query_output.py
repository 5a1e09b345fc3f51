"""`later-reporting query`: for people a table, for programs every format with all rows, and null is never nothing."""

import csv
import io
import json
import os
import pty
import subprocess
import sys
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from later_reporting_dagster.cli import main
from later_reporting_dagster.cli.query_output import table_lines
from later_reporting_dagster.lake import Lake, Partition, posts_table
from tests.cli.conftest import User, environment, error_line
from tests.conftest import files
from tests.lake.conftest import post

DAYS = [date(2024, 3, 1), date(2024, 3, 2)]
NULLS = "SELECT post_id, impressions, extra FROM posts_published WHERE date = '2024-03-01' ORDER BY post_id"


@pytest.fixture(autouse=True)
def lake(user: User) -> Lake:
    """Two days, each with a post of which nothing is known, one that nobody saw, and one that somebody did."""
    lake = Lake(str(user.lake))
    for day in DAYS:
        posts = [post(1), post(2, impressions=0, extra=""), post(3, impressions=2**53 + 1, extra="null")]
        lake.write("posts_published", Partition(day, "007"), posts_table(posts))
    return lake


def test_a_table_shows_null_and_zero_and_empty_text_apart(user: User) -> None:
    result = user.types("query", NULLS)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "post_id       impressions  extra",
        "───────  ────────────────  ──────",
        "      1              null  null",
        '      2                 0  ""',
        '      3  9007199254740993  "null"',
    ]


def test_csv_has_nothing_for_null_and_quotes_for_an_empty_text(user: User) -> None:
    text = user.types("query", NULLS, "--format", "csv").stdout
    assert text == '"post_id","impressions","extra"\n1,,\n2,0,""\n3,9007199254740993,"null"\n'
    assert [row["impressions"] for row in csv.DictReader(io.StringIO(text))] == ["", "0", "9007199254740993"]


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_json_has_null_and_exact_integers(form: str, user: User) -> None:
    text = user.types("query", NULLS, "--format", form).stdout
    rows = json.loads(text) if form == "json" else [json.loads(line) for line in text.splitlines()]
    assert rows == [
        {"post_id": 1, "impressions": None, "extra": None},
        {"post_id": 2, "impressions": 0, "extra": ""},
        {"post_id": 3, "impressions": 2**53 + 1, "extra": "null"},
    ]


def test_parquet_has_the_types(user: User, tmp_path: Path) -> None:
    file = tmp_path / "answer.parquet"
    sql = "SELECT date, sum(impressions) AS seen FROM posts_published GROUP BY date ORDER BY date"
    result = user.types("query", sql, "--format", "parquet", "--output", str(file))
    assert (result.exit_code, result.output) == (0, "")
    table = pq.read_table(file)
    assert table.schema.types == [pa.date32(), pa.int64()]
    assert table.to_pylist() == [{"date": day, "seen": 2**53 + 1} for day in DAYS]


def test_every_table_of_the_definitions_is_there_landed_or_not(user: User) -> None:
    names = [row["name"] for row in json.loads(user.types("query", "SHOW TABLES", "--format", "json").stdout)]
    assert {"posts_published", "post_metrics_daily", "organic_paid_daily", "organic_paid_by_publish_day"} <= set(names)
    for name in names:
        result = user.types("query", f"SELECT * FROM {name}")
        assert result.exit_code == 0, result.stderr
        assert result.stderr == ("" if name == "posts_published" else f"{name} has not landed in {user.lake}\n")


def test_a_query_is_read_from_standard_input(user: User) -> None:
    asked = "SELECT count(*) AS posts\nFROM posts_published -- all of them\n"
    result = CliRunner().invoke(main, ["query", "-", "--format", "csv"], input=asked)
    assert result.stdout == '"posts"\n6\n'


def test_a_long_table_says_how_much_it_leaves_out_and_other_formats_leave_nothing_out(user: User) -> None:
    sql = "SELECT * FROM range(1234) t(number)"
    result = user.types("query", sql)
    assert len(result.stdout.splitlines()) == 2 + 100
    assert result.stderr.startswith("… 1,134 more rows: ")
    assert len(user.types("query", sql, "--rows", "1234").stdout.splitlines()) == 2 + 1234
    assert len(user.types("query", sql, "--format", "csv").stdout.splitlines()) == 1 + 1234


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["SELEC 1"], "Parser Error: syntax error at or near"),
        (["SELECT * FROM posts"], "The tables are "),
        (["SELECT 1; SELECT 2"], "one query is asked at a time"),
        (["DROP TABLE posts_published"], "tables are only read here"),
        (["SELECT [1] AS list", "--format", "csv"], "CSV has no form for column list, which is list"),
        (["SELECT 1", "--output", "/nowhere/at/all"], "--output /nowhere/at/all: "),
        (["SELECT * FROM posts_published WHERE impressions = 'many'"], "Conversion Error"),
    ],
)
def test_what_cannot_be_answered_is_a_line(arguments: list[str], why: str, user: User) -> None:
    before = files(user.lake)
    result = user.types("query", *arguments)
    assert result.exit_code in (1, 2)
    assert error_line(result).startswith(why) or why in error_line(result)
    assert result.stdout == ""
    assert files(user.lake) == before


def test_a_damaged_file_is_a_line(user: User) -> None:
    for file in user.lake.rglob("*.parquet"):
        file.write_bytes(b"no Parquet")
    line = error_line(user.types("query", NULLS))
    first = Lake(str(user.lake)).url("posts_published", Partition(DAYS[0], "007"))
    assert line.startswith(f"{first} is damaged: it cannot be read as Parquet: ")
    assert line.endswith(". Next step: materialize this partition again (1 more files cannot be read)")


def test_on_a_terminal_what_is_too_wide_is_shown_as_records(user: User) -> None:
    """In a real terminal of 80 columns."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "later_reporting_dagster.cli", "query"]
    sql = "SELECT * FROM posts_published WHERE post_id = 3 ORDER BY date LIMIT 1"
    ended = subprocess.run(
        [*command, sql], stdout=theirs, env={**environment(), "COLUMNS": "80"}, stderr=subprocess.PIPE, check=False
    )
    refused = subprocess.run(
        [*command, sql, "--format", "parquet"], stdout=theirs, env=environment(), stderr=subprocess.PIPE, check=False
    )
    os.close(theirs)
    shown = os.read(ours, 65_536).decode().splitlines()
    os.close(ours)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert shown[0] == "── 1 ──"
    assert "date                       2024-03-01" in shown
    assert "impressions                9007199254740993" in shown
    assert 'extra                      "null"' in shown
    assert "paid_cpm                   null" in shown
    assert refused.returncode == 2
    assert b"--output" in refused.stderr


def test_a_table_is_lined_up_whatever_is_in_it() -> None:
    table = pa.table(
        {
            "name": ["Zoë 😀", "a\nb\x1b[31m", " spaced", "x" * 200],
            "list": [[1, None], None, [], [2]],
            "flag": [True, False, None, True],
            "rate": [0.1, None, 2.0, 1e300],
        }
    )
    lines = list(table_lines(table, width=None))
    assert lines == [
        "name" + " " * 58 + "list      flag     rate",
        "─" * 60 + "  ────────  ─────  ──────",
        "Zoë 😀" + " " * 56 + "[1,null]  true      0.1",
        "a b�[31m" + " " * 54 + "null      false    null",
        '" spaced"' + " " * 53 + "[]        null      2.0",
        "x" * 59 + "…  [2]       true   1e+300",
    ]
    assert ("name  " + "x" * 200) in list(table_lines(table, width=79))
    assert list(table_lines(table.slice(0, 0), width=None))[1:] == ["────  ────  ────  ────"]
