"""The results of `later-reporting query`, written by DuckDB: a table for a terminal, or CSV, JSON and Parquet."""

import io
import json
import re
import resource
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import click
import duckdb
import pyarrow as pa

from later_reporting_dagster.contract.safe_line import one_line
from later_reporting_dagster.lake.database import literal
from later_reporting_dagster.lake.sql_query import interruptible, out_of_memory

# In a pipe, which has no width.
_PIPE_WIDTH = 1_000
# What a spreadsheet takes for the beginning of a formula, and how it is text. DuckDB has the same syntax.
_FORMULA, _AS_TEXT = r"^([=+\-@＝＋－＠\t\r])", r"'\1"
# The types of columns whose values are no text.
_NO_TEXT = re.compile(r"U?(TINY|SMALL|BIG|HUGE)?INT|U?INTEGER|BIGNUM|FLOAT|DOUBLE|DECIMAL\(.*\)|BOOLEAN|DATE|TIME.*")
_COPY_OPTIONS: Mapping[str, str] = {
    # A byte order mark, by which spreadsheets know that it is UTF-8.
    "csv": "FORMAT csv, PREFIX '\ufeff', SUFFIX '\n'",
    "json": "FORMAT json, ARRAY true",
    "jsonl": "FORMAT json",
    "parquet": "FORMAT parquet, COMPRESSION zstd",
}


@contextmanager
def limited_memory(memory_gb: float) -> Iterator[None]:
    """Run a query and write its result within the memory of DuckDB, as much again for the rows, and 1 GB.

    DuckDB's own limit does not count single large values. Only on Linux: elsewhere, the block runs without this limit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if (statm := Path("/proc/self/statm")).exists():
        used = int(statm.read_text(encoding="ascii").split()[5]) * resource.getpagesize()
        limit = used + int((2 * memory_gb + 1) * 1e9)
        # A lower limit of the caller stays.
        resource.setrlimit(resource.RLIMIT_DATA, (min(each for each in (limit, soft, hard) if each >= 0), hard))
    try:
        yield
    except (MemoryError, duckdb.OutOfMemoryException) as error:
        raise out_of_memory(memory_gb) from error
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def write_rows(rows: pa.Table, file: Path, *, format_: str, width: int | None, most: int) -> None:
    """Write rows to a file as `csv`, `json`, `jsonl` or `parquet`, or `most` of them as `table`."""
    if format_ == "table":
        file.write_text(to_table(rows, width=width, most=most), encoding="utf-8")
        return
    with _database(rows) as database:
        columns = [_column(name, type_, format_) for name, type_, *_ in database.sql("DESCRIBE result").fetchall()]
        copy = f"COPY (SELECT {', '.join(columns)} FROM result) TO {literal(str(file))} ({_COPY_OPTIONS[format_]})"
        try:
            interruptible(database, lambda: database.execute(copy))
        except duckdb.OutOfMemoryException:
            raise
        except duckdb.Error as error:
            raise click.ClickException(f"--format {format_}: {one_line(str(error))}") from error


def to_table(rows: pa.Table, *, width: int | None = None, most: int = 10_000) -> str:
    """Return rows as DuckDB prints them, without those in the middle if there are more than `most`.

    If they are wider than `width`, it leaves out columns and cuts texts.
    """
    printed = io.StringIO()
    with _database(rows) as database, redirect_stdout(printed):
        relation = database.sql("FROM result")
        interruptible(database, lambda: relation.show(max_width=width or _PIPE_WIDTH, max_rows=most))
    return for_terminal(f"{printed.getvalue().rstrip()}\n")


@contextmanager
def _database(rows: pa.Table) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a database whose only table `result` has the rows; columns of the same name get a number."""
    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        database.register("result", rows)
        yield database


def csv_text(text: str) -> str:
    """Return a text for a cell of a CSV file: a leading apostrophe keeps spreadsheets from running it as a formula.

    `csvValue` of the report's page follows the same rule; one table of cases tests both.
    """
    return re.sub(_FORMULA, _AS_TEXT, text)


def _column(name: str, type_: str, format_: str) -> str:
    """Return the SQL of a column: lists as text in CSV, and null for what JSON has no number for."""
    quoted = _identifier(name)
    if format_ == "csv" and not _NO_TEXT.fullmatch(type_):
        text = f"array_to_string({quoted}, ';')" if type_.endswith("[]") else f"CAST({quoted} AS VARCHAR)"
        return f"regexp_replace({text}, {literal(_FORMULA)}, {literal(_AS_TEXT)}) AS {_identifier(csv_text(name))}"
    if format_ == "csv":
        return f"{quoted} AS {_identifier(csv_text(name))}"
    if format_ in ("json", "jsonl") and type_ in ("FLOAT", "DOUBLE"):
        return f"CASE WHEN isfinite({quoted}) THEN {quoted} END AS {quoted}"
    return quoted


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def for_terminal(text: str) -> str:
    """Return text with JSON's escapes for characters that could move the cursor back, or change the order of others."""
    return "".join(char if char.isprintable() or char in "\n\t" else json.dumps(char)[1:-1] for char in text)
