"""`later-reporting query`: what a query asks for, as a table for people or as bytes for programs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from rich.cells import cell_len, set_cell_size

from later_reporting_dagster.cli.terminal_text import in_one_line

NULL = "null"
# Of a text that is longer a row of a table shows the beginning. Records, and all other formats, have all of it.
SHOWN_CHARACTERS = 60
_GAP = "  "

_as_json = msgspec.json.Encoder(decimal_format="number").encode


def table_lines(answer: pa.Table, *, width: int | None) -> Iterator[str]:
    """The rows as a table; or, where it would be wider than `width`, as records, a column a line.

    Null reads `null`. A text that could be taken for it, or for nothing, is quoted.
    """
    names = [in_one_line(name) for name in answer.column_names]
    rows = list(zip(*(map(_shown, column.to_pylist()) for column in answer.columns), strict=True))
    cells = [[_shortened(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(names, *cells, strict=True)]
    if width is not None and sum(widths) + len(_GAP) * (len(widths) - 1) > width:
        yield from _records(names, rows)
        return
    is_right = [_is_number(type_) for type_ in answer.schema.types]
    yield _line(names, widths, is_right)
    yield _GAP.join("─" * each for each in widths)
    for row in cells:
        yield _line(row, widths, is_right)


def as_csv(answer: pa.Table) -> bytes:
    """CSV with a header. Every text is quoted, so that an empty one is `""` and null is nothing at all.

    Raises:
        ValueError: a column holds lists or the like, which CSV has no form for.
    """
    for field in answer.schema:
        if pa.types.is_nested(field.type):
            raise ValueError(f"CSV has no form for column {field.name}, which is {field.type}: take json or parquet")
    sink = pa.BufferOutputStream()
    pa.csv.write_csv(answer, sink)
    return bytes(sink.getvalue())


def as_json(answer: pa.Table) -> bytes:
    """One JSON array, an object a row."""
    return b"[" + b",\n ".join(map(_as_json, answer.to_pylist())) + b"]\n"


def as_json_lines(answer: pa.Table) -> bytes:
    """A JSON object a line and row."""
    return b"".join(_as_json(row) + b"\n" for row in answer.to_pylist())


def as_parquet(answer: pa.Table) -> bytes:
    """One Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(answer, sink, compression="zstd")
    return bytes(sink.getvalue())


FORMATS: Mapping[str, Callable[[pa.Table], bytes]] = {
    "csv": as_csv,
    "json": as_json,
    "jsonl": as_json_lines,
    "parquet": as_parquet,
}


def _records(names: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widest = max(map(cell_len, names))
    for number, row in enumerate(rows, start=1):
        yield f"── {number} ──"
        yield from (f"{set_cell_size(name, widest)}{_GAP}{cell}" for name, cell in zip(names, row, strict=True))


def _line(cells: Sequence[str], widths: Sequence[int], is_right: Sequence[bool]) -> str:
    padded = [
        " " * (width - cell_len(cell)) + cell if right else set_cell_size(cell, width)
        for cell, width, right in zip(cells, widths, is_right, strict=True)
    ]
    return _GAP.join(padded).rstrip()


def _shown(value: Any) -> str:
    match value:
        case None:
            return NULL
        case str():
            return f'"{in_one_line(value)}"' if value in ("", NULL) or value != value.strip() else in_one_line(value)
        case bool():
            return str(value).lower()
        case datetime():
            return value.isoformat(" ").replace("+00:00", "Z")
        case list() | dict() | bytes():
            return in_one_line(_as_json(value).decode())
    return str(value)


def _shortened(cell: str) -> str:
    return cell if len(cell) <= SHOWN_CHARACTERS else f"{cell[: SHOWN_CHARACTERS - 1]}…"


def _is_number(type_: pa.DataType) -> bool:
    return bool(pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_))
