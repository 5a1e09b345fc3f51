"""`later-reporting query`: a table for terminals, complete formats for programs, and null distinct from empty."""

import csv
import io
import json
import resource
import signal
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from later_reporting_dagster.cli.query_output import to_table
from later_reporting_dagster.lake import Lake, Partition, posts_table
from later_reporting_dagster.lake.database import literal
from tests.cli.conftest import User, environment, error_line
from tests.conftest import files
from tests.csv_cells import CSV_CELLS
from tests.lake.conftest import post
from tests.services import WAIT_SECONDS

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


def test_query_may_begin_with_a_comment(user: User) -> None:
    result = user.run("query", "-- 1. How many?\n-- All of them.\nSELECT 1 AS one", "--format", "csv")
    assert (result.exit_code, result.stdout.lstrip("\ufeff").split()) == (0, ["one", "1"]), result.output


TABLE = """\
┌─────────┬──────────────────┬─────────┐
│ post_id │   impressions    │  extra  │
│  int64  │      int64       │ varchar │
├─────────┼──────────────────┼─────────┤
│       1 │             NULL │ NULL    │
│       2 │                0 │         │
│       3 │ 9007199254740993 │ null    │
└─────────┴──────────────────┴─────────┘
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
        ("csv", '\ufeffpost_id,impressions,extra\n1,,\n2,0,""\n3,9007199254740993,null\n'),
        ("json", "[\n\t" + ",\n\t".join(ROWS) + "\n]\n"),
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
    printed = user.run(*query).stdout.replace("\n\t{", "\n{")  # of JSON
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


def test_every_view_and_column_of_a_query_has_a_comment(user: User) -> None:
    views = "SELECT view_name AS name, comment FROM duckdb_views() WHERE NOT internal"
    columns = "SELECT table_name || '.' || column_name, comment FROM duckdb_columns() WHERE NOT internal"
    printed = user.run("query", f"{views} UNION ALL {columns}", "--format", "json").stdout
    comments = {row["name"]: row["comment"] for row in json.loads(printed)}
    assert [name for name, comment in comments.items() if not comment] == []
    assert comments["campaigns"].startswith("All campaigns that the API")
    assert comments["posts_published.date"] == "First UTC day of the partition of the row"
    assert comments["posts.ad_spend_per_engagement"] == "ad_spend / paid_engagements [USD per engagement]"


def test_query_shows_the_labels_of_instances(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    assert user.run("backfill", "--asset", "later/instances").exit_code == 0
    sql = "SELECT instance_id, label FROM instances ORDER BY 1"
    assert "label" in error_line(user.run("query", sql))
    first, *_ = json.loads(user.run("query", "SELECT instance_id FROM instances ORDER BY 1", "--format", "json").stdout)
    monkeypatch.setenv("LATER_INSTANCE_LABELS", f"{first['instance_id']} = Acme's = shop, other=Globex")
    shown = json.loads(user.run("query", sql, "--format", "json").stdout)
    assert shown[0] == {**first, "label": "Acme's = shop"}
    assert all(row["label"] == row["instance_id"] for row in shown[1:])
    monkeypatch.setenv("LATER_INSTANCE_LABELS", "Acme")
    assert "'Acme' is not id=name, as in instance_abc=Acme" in error_line(user.run("query", sql))


def test_query_table_truncates_rows_and_other_formats_do_not(user: User) -> None:
    sql = "SELECT * FROM range(1234) t(number)"
    printed = user.run("query", sql).stdout
    assert printed.count("\n│") == 2 + 100 + 3  # and three of dots
    assert "1234 rows" in printed
    assert "(100 shown)" in printed
    assert "1233" in printed  # the last row
    assert user.run("query", sql, "--rows", "1234").stdout.count("\n│") == 2 + 1234
    assert len(user.run("query", sql, "--format", "csv").stdout.splitlines()) == 1 + 1234


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["DROP TABLE posts_published"], "only SELECT statements are allowed"),
        (["SELECT 1", "--rows", "9223372036854775808"], "Invalid value for '--rows'"),
        (["SELECT 1", "--memory-gb", "9223372036854775808"], "Invalid value for '--memory-gb'"),
        (["SELECT '\udcff'"], "SQL: 'utf-8' codec can't encode character"),
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


def test_query_prints_one_line_if_its_result_cannot_be_stored(user: User) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))
    try:
        line = error_line(user.run("query", "FROM range(100_000)", "--format", "csv"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert line.startswith("--format csv: IO Error: ")


def test_query_prints_one_line_for_a_damaged_file(user: User) -> None:
    for file in user.lake.rglob("*.parquet"):
        file.write_bytes(b"no Parquet")
    line = error_line(user.run("query", NULLS))
    first = Lake(str(user.lake)).url("posts_published", Partition(DAYS[0], "007"))
    assert line.startswith(f"{first} is damaged: cannot be read as Parquet: ")
    command = f"later-reporting backfill --asset posts_published --start {DAYS[0]} --end {DAYS[0]}"
    step = f"materialize this partition again, as `{command}` does"
    assert line.endswith(f". Next step: {step} (1 more files cannot be read)")


def test_query_csv_joins_lists_and_all_formats_keep_columns_of_the_same_name(user: User) -> None:
    columns = (
        '[1, 2] AS "campaign ""ids"""',
        "['a', 'b;c'] AS names",
        "[[1], [2, 3]] AS nested",
        "NULL::INT[] AS none",
    )
    lists = f"SELECT {', '.join(columns)}"
    printed = user.run("query", lists, "--format", "csv").stdout.removeprefix("\ufeff")
    (read,) = csv.DictReader(io.StringIO(printed))
    assert read == {'campaign "ids"': "1;2", "names": "a;b;c", "nested": "[1];[2, 3]", "none": ""}
    same = "SELECT 1 AS posts, 2 AS posts"
    assert user.run("query", same, "--format", "jsonl").stdout == '{"posts":1,"posts_1":2}\n'
    assert user.run("query", same, "--format", "csv").stdout == "\ufeffposts,posts_1\n1,2\n"


def quoted(name: str) -> str:
    """Return the name of a column in SQL."""
    return '"' + name.replace('"', '""') + '"'


def test_query_csv_has_no_formulas_in_texts_and_names(user: User) -> None:
    """Numbers, and other formats, stay what they are."""
    texts = [text for text, _ in CSV_CELLS]
    columns = ", ".join(f"{literal(text)} AS {quoted(f'{text}{n}')}" for n, text in enumerate(texts))
    lists = ", ".join(f"[{literal(text)}] AS list{n}" for n, text in enumerate(texts))
    sql = f"SELECT {columns}, {lists}, -1 AS a, -0.5 AS b"
    printed = user.run("query", sql, "--format", "csv", "--output", str(user.home / "x.csv"))
    assert printed.exit_code == 0
    text = (user.home / "x.csv").read_bytes().decode("utf-8-sig")
    names, values = csv.reader(io.StringIO(text, newline=""))
    cells = [cell for _, cell in CSV_CELLS]
    assert values == [*cells, *cells, "-1", "-0.5"]
    assert names[: len(cells)] == [f"{cell}{n}" for n, cell in enumerate(cells)]
    (as_json,) = json.loads(user.run("query", sql, "--format", "json").stdout)
    assert [*as_json.values()][: len(texts)] == texts


def test_query_json_has_null_for_what_is_no_number(user: User) -> None:
    printed = user.run("query", "SELECT 'nan'::DOUBLE AS a, 'inf'::FLOAT AS b, 0.5 AS c", "--format", "json").stdout
    assert json.loads(printed, parse_constant=pytest.fail) == [{"a": None, "b": None, "c": 0.5}]


def start_query(lake: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "later_reporting_dagster.cli.main", "query", *arguments]
    variables = {**environment(), "LATER_LAKE_ROOT": str(lake)}
    return subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("sql", "format_"), [("SELECT range(200_000_000)", "table"), ("SELECT repeat('x', 300_000_000)", "json")]
)
def test_query_of_a_large_value_ends_with_one_line(sql: str, format_: str, tmp_path: Path) -> None:
    """DuckDB does not count single large values."""
    with start_query(tmp_path, sql, "--memory-gb", "1", "--format", format_) as process:
        output, errors = process.communicate(timeout=WAIT_SECONDS)
    assert (process.returncode, output) == (1, "")
    assert errors == (
        "Error: the query needs more than 1 GB of memory: select fewer days or columns, or raise the limit\n"
    )


def assert_interrupt_ends(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)
    try:
        _, errors = process.communicate(timeout=WAIT_SECONDS)
    finally:
        process.kill()
    assert (process.returncode, errors) == (130, "Error: interrupted\n")


@pytest.mark.e2e
def test_interrupt_ends_a_query_that_has_no_rows_yet(tmp_path: Path) -> None:
    endless = (
        "SELECT * FROM posts RIGHT JOIN (SELECT max(a.range * b.range) FROM range(10**7) a, range(10**7) b) ON true"
    )
    with start_query(tmp_path, endless) as process:
        assert process.stderr
        assert process.stderr.readline().startswith("posts has no files")
        assert_interrupt_ends(process)


@pytest.mark.e2e
def test_interrupt_heard_by_duckdb_ends_a_command_with_one_line() -> None:
    """In the thread that hears Ctrl-C, DuckDB raises an error of its own; here it makes views there without end."""
    command = """
import click, duckdb
from later_reporting_dagster.cli.options import Commands
@click.group(cls=Commands)
def commands(): pass
@commands.command()
def endless():
    print("started", flush=True)
    while True:
        duckdb.execute("CREATE OR REPLACE VIEW a AS SELECT 1;" * 1_000)
commands()
"""
    arguments = [sys.executable, "-c", command, "endless"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "started\n"
        time.sleep(0.5)  # until DuckDB works; an interrupt before is Python's own
        assert_interrupt_ends(process)


def test_table_of_a_terminal_leaves_out_columns_that_do_not_fit() -> None:
    rows = pa.table({f"column {number}": ["Zoë 😀", "a\nb\x1b[31m"] for number in range(20)})
    whole, fitting = [to_table(rows, width=width).splitlines() for width in (None, 80)]
    assert "column 10" in whole[1]
    assert "column 10" not in fitting[1]
    assert {len(line.replace("😀", "xx")) for line in fitting[:-1]} == {max(map(len, fitting))}
    assert fitting[-1].endswith("20 columns (5 shown)")
