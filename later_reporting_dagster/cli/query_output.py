"""Format the result of `later-reporting query`: a table for a terminal, or CSV, JSON and Parquet for programs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from rich.cells import cell_len, set_cell_size

from later_reporting_dagster.cli.terminal_text import one_line

NULL = "null"
# The table truncates longer texts. Records and all other formats do not.
MAX_CELL_CHARACTERS = 60
_GAP = "  "

_to_json = msgspec.json.Encoder(decimal_format="number").encode


def table_lines(rows: pa.Table, *, width: int | None) -> Iterator[str]:
    """Format rows as a table, or as records with one column per line where the table would be too wide.

    Null is shown as `null`. Empty texts, the text `null` and texts with outer spaces are quoted.

    Args:
        rows: the rows to format.
        width: columns of the terminal; None for no limit.

    Yields:
        Lines without a line break.
    """
    names = [one_line(name) for name in rows.column_names]
    texts = list(zip(*(map(_cell_text, column.to_pylist()) for column in rows.columns), strict=True))
    cells = [[_truncated(text) for text in row] for row in texts]
    widths = [max(map(cell_len, column)) for column in zip(names, *cells, strict=True)]
    if width is not None and sum(widths) + len(_GAP) * (len(widths) - 1) > width:
        yield from _records(names, texts)
        return
    right_aligned = [_is_number(type_) for type_ in rows.schema.types]
    yield _table_line(names, widths, right_aligned)
    yield _GAP.join("─" * column_width for column_width in widths)
    for row in cells:
        yield _table_line(row, widths, right_aligned)


def to_csv(rows: pa.Table) -> bytes:
    """Return CSV with a header. All texts are quoted: an empty text is `""` and null is an empty field.

    Raises:
        ValueError: a column is nested, for example a list.
    """
    for field in rows.schema:
        if pa.types.is_nested(field.type):
            raise ValueError(f"CSV cannot hold column {field.name} of type {field.type}: use --format json or parquet")
    sink = pa.BufferOutputStream()
    pa.csv.write_csv(rows, sink)
    return bytes(sink.getvalue())


def to_json(rows: pa.Table) -> bytes:
    """Return one JSON array of objects, one per row."""
    return b"[" + b",\n ".join(map(_to_json, rows.to_pylist())) + b"]\n"


def to_json_lines(rows: pa.Table) -> bytes:
    """Return one JSON object per line and row."""
    return b"".join(_to_json(row) + b"\n" for row in rows.to_pylist())


def to_parquet(rows: pa.Table) -> bytes:
    """Return one Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd")
    return bytes(sink.getvalue())


FORMATS: Mapping[str, Callable[[pa.Table], bytes]] = {
    "csv": to_csv,
    "json": to_json,
    "jsonl": to_json_lines,
    "parquet": to_parquet,
}


def _records(names: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    name_width = max(map(cell_len, names))
    for number, row in enumerate(rows, start=1):
        yield f"── {number} ──"
        yield from (f"{set_cell_size(name, name_width)}{_GAP}{text}" for name, text in zip(names, row, strict=True))


def _table_line(cells: Sequence[str], widths: Sequence[int], right_aligned: Sequence[bool]) -> str:
    padded = [
        " " * (width - cell_len(cell)) + cell if right else set_cell_size(cell, width)
        for cell, width, right in zip(cells, widths, right_aligned, strict=True)
    ]
    return _GAP.join(padded).rstrip()


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


def _truncated(text: str) -> str:
    return text if len(text) <= MAX_CELL_CHARACTERS else f"{text[: MAX_CELL_CHARACTERS - 1]}…"


def _is_number(type_: pa.DataType) -> bool:
    return bool(pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_))
