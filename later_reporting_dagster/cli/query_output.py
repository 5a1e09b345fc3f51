"""What `later-reporting query` prints: a table for a terminal, or CSV, JSON and Parquet for programs."""

import io
import json
import resource
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import click
import msgspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from later_reporting_dagster.contract.safe_line import one_line
from later_reporting_dagster.lake.sql_query import out_of_memory

NULL = "null"
# The table truncates longer texts. Records and all other formats do not.
MAX_CELL_WIDTH = 60
_UNLIMITED = 1_000_000

# Nanoseconds are pandas timestamps.
_to_json = msgspec.json.Encoder(decimal_format="number", enc_hook=str).encode


@contextmanager
def limited_memory(memory_gb: float) -> Iterator[None]:
    """Run a query and format its result within the memory of DuckDB, as much again for the rows, and 1 GB.

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
    except MemoryError as error:
        raise out_of_memory(memory_gb) from error
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def to_table(rows: pa.Table, *, width: int | None) -> str:
    """Return rows as a table, or as records with one column per line where the table would be wider than `width`.

    Null is shown as `null`. Empty texts, the text `null` and texts with outer spaces are quoted.
    """
    names = [one_line(name) for name in rows.column_names]
    texts = [[_cell_text(value) for value in column.to_pylist()] for column in rows.columns]
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name, type_ in zip(names, rows.schema.types, strict=True):
        is_number = pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_)
        justify: Literal["right", "left"] = "right" if is_number else "left"
        table.add_column(
            Text(name),
            justify=justify,
            no_wrap=True,
            overflow="ellipsis",
            max_width=max(MAX_CELL_WIDTH, cell_len(name)),
        )
    for row in zip(*texts, strict=True):
        table.add_row(*map(Text, row))
    console = Console(file=io.StringIO(), width=_UNLIMITED)
    if width is not None and rows.num_rows and console.measure(table).maximum > width:
        return _records(names, texts)
    with console.capture() as printed:
        console.print(table)
    return "".join(f"{line.rstrip()}\n" for line in printed.get().splitlines())


def _records(names: Sequence[str], columns: Sequence[Sequence[str]]) -> str:
    name_width = max(map(cell_len, names))
    lines: list[str] = []
    for number, row in enumerate(zip(*columns, strict=True), start=1):
        lines.append(f"── {number} ──")
        lines += [f"{set_cell_size(name, name_width)}  {text}" for name, text in zip(names, row, strict=True)]
    return "".join(f"{line}\n" for line in lines)


def _cell_text(value: Any) -> str:
    match value:
        case None:
            return NULL
        case str():
            needs_quotes = value in ("", NULL) or value != value.strip()
            return f'"{one_line(value)}"' if needs_quotes else one_line(value)
        case bool():
            return str(value).lower()
        case datetime():
            return value.isoformat(" ").replace("+00:00", "Z")
        case list() | dict() | bytes():
            return one_line(_to_json(value).decode())
    return str(value)


def to_format(rows: pa.Table, format_: str, *, width: int | None) -> bytes:
    """Return rows as a table for a terminal of some width, or as `csv`, `json`, `jsonl` or `parquet`."""
    # An object would keep only the last of several columns with one name.
    if format_ in ("json", "jsonl") and len({*rows.column_names}) < rows.num_columns:
        raise click.UsageError(f"--format {format_} cannot hold columns of the same name: rename all but one, with AS")
    try:
        return to_table(rows, width=width).encode() if format_ == "table" else _FORMATS[format_](rows)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OverflowError) as error:  # Python has no date after 9999
        reason = one_line(str(error))
        raise click.UsageError(
            f"--format {format_} cannot hold the result ({reason}): choose another format, or cast to VARCHAR"
        ) from error


def for_terminal(data: bytes) -> str:
    """Return output with JSON's escapes for characters that could move the cursor, or change the order of others."""
    return "".join(char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in data.decode())


def _to_csv(rows: pa.Table) -> bytes:
    """Return CSV with a header. All texts are quoted: an empty text is `""` and null is an empty field."""
    sink = pa.BufferOutputStream()
    pa.csv.write_csv(rows, sink)
    return bytes(sink.getvalue())


def _to_parquet(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd")
    return bytes(sink.getvalue())


_FORMATS: Mapping[str, Callable[[pa.Table], bytes]] = {
    "csv": _to_csv,
    "json": lambda rows: b"[" + b",\n ".join(map(_to_json, rows.to_pylist())) + b"]\n",
    "jsonl": lambda rows: b"".join(_to_json(row) + b"\n" for row in rows.to_pylist()),
    "parquet": _to_parquet,
}
