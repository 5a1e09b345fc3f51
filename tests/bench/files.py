"""How a partition's file is best encoded: bytes and CPU by rows a file.

First what the lake writes, with its facts; then ways to write the same rows, each of which differs from the snappy one
in what its name says; last what pyarrow does when it is asked for zstd and nothing else.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any
from urllib.parse import urlencode

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from later_reporting_dagster.contract import Post, page_from_body
from later_reporting_dagster.lake import POSTS_SCHEMA, posts_table
from later_reporting_dagster.lake.file import from_parquet, to_parquet
from later_reporting_dagster.sandbox import World
from later_reporting_dagster.sandbox.parameters import read_posts_query
from later_reporting_dagster.sandbox.served import ServedPosts
from tests.bench.tables import Table

ROWS_A_FILE = (0, 20, 100, 1_000, 10_000)
ROWS, MOST_FILES, ROUNDS = 10_000, 100, 7
DAYS = (date(2024, 1, 1), date(2024, 3, 10))

_TEXTS = [field.name for field in POSTS_SCHEMA if pa.types.is_string(field.type)]
_CHOSEN: Mapping[str, Any] = {
    "compression": "snappy",
    "use_dictionary": False,
    "write_statistics": False,
    "store_schema": False,
    "write_page_checksum": True,
}
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "snappy": _CHOSEN,
    "zstd": {**_CHOSEN, "compression": "zstd"},
    "lz4": {**_CHOSEN, "compression": "lz4"},
    "gzip": {**_CHOSEN, "compression": "gzip"},
    "not compressed": {**_CHOSEN, "compression": "none"},
    "with dictionaries": {**_CHOSEN, "use_dictionary": True},
    "with dictionaries, zstd": {**_CHOSEN, "use_dictionary": True, "compression": "zstd"},
    "texts by their common beginnings": {**_CHOSEN, "column_encoding": dict.fromkeys(_TEXTS, "DELTA_BYTE_ARRAY")},
    "with statistics": {**_CHOSEN, "write_statistics": True},
    "with the stored Arrow schema": {**_CHOSEN, "store_schema": True},
    "pages of version 2": {**_CHOSEN, "data_page_version": "2.0"},
    "without page checksums": {**_CHOSEN, "write_page_checksum": False},
    "pyarrow's defaults, zstd": {"compression": "zstd"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFigures:
    """What a file of a variant takes: bytes, and the least CPU seconds that its writing and its reading took."""

    variant: str
    rows: int
    bytes: float
    write_seconds: float
    read_seconds: float


def posts() -> list[Post]:
    """Posts of one instance of the sandbox's world, in the order of their days."""
    first_day, last_day = DAYS
    served = ServedPosts(World(first_day=first_day, last_day=last_day, instances=1, posts_per_day=ROWS // 50))
    found: list[Post] = []
    while len(found) < ROWS:
        asked = {"startDate": first_day, "endDate": last_day, "instanceIds": "instance_000", "pageSize": 100}
        document = served.page(*read_posts_query(urlencode(asked | {"pageNumber": len(found) // 100 + 1})))
        found += page_from_body(msgspec.json.encode(document)).posts
    return found[:ROWS]


def measured() -> Iterator[FileFigures]:
    """Measures each variant with files of each size, in rounds in which the variants take turns."""
    rows = posts()
    for rows_a_file in ROWS_A_FILE:
        files = min(MOST_FILES, ROWS // max(1, rows_a_file))
        tables = [posts_table(rows[start * rows_a_file : (start + 1) * rows_a_file]) for start in range(files)]
        writers: dict[str, Callable[[pa.Table], bytes]] = {"the lake": _lake_writer}
        writers |= {name: _writer(options) for name, options in VARIANTS.items()}
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in writers}
        sizes: dict[str, float] = {}
        for _ in range(ROUNDS):
            for name, write in writers.items():
                started = time.process_time()
                written = [write(table) for table in tables]
                between = time.process_time()
                for data in written:
                    from_parquet(data, schema=POSTS_SCHEMA)
                taken[name].append((between - started, time.process_time() - between))
                sizes[name] = sum(map(len, written)) / files
        for name, seconds in taken.items():
            writing, reading = zip(*seconds, strict=True)
            yield FileFigures(
                variant=name,
                rows=rows_a_file,
                bytes=sizes[name],
                write_seconds=min(writing) / files,
                read_seconds=min(reading) / files,
            )


def _lake_writer(table: pa.Table) -> bytes:
    return to_parquet(table, content_hash="0" * 64, facts={"fetched_at": "2024-01-01T00:00:00.000+00:00"})


def _writer(options: Mapping[str, Any]) -> Callable[[pa.Table], bytes]:
    def write(table: pa.Table) -> bytes:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, **options)
        return bytes(sink.getvalue())

    return write


def files() -> Table:
    """A row a variant: bytes, and milliseconds of CPU to write and to read one file, by rows a file."""
    found: dict[str, list[FileFigures]] = {}
    for figures in measured():
        found.setdefault(figures.variant, []).append(figures)
    return Table(
        title="Encodings of one file: bytes, ms of CPU to write, to read",
        columns=("file", *(f"{rows:,} rows" for rows in ROWS_A_FILE)),
        rows=[
            (
                variant,
                *(
                    f"{each.bytes:,.0f}, {each.write_seconds * 1e3:.2f}, {each.read_seconds * 1e3:.2f}"
                    for each in of_each
                ),
            )
            for variant, of_each in found.items()
        ],
    )
