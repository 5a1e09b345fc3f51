"""One partition's file: a table and its facts as Parquet bytes, and back, with nothing inferred.

Encodings are chosen for what most files are, some twenty rows: there dictionaries, statistics and the stored Arrow
schema are half of the bytes, and they and zstd three quarters of the time to write and over half of that to read. All
types of the lake come back from Parquet's own types.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

_PREFIX = "later_reporting."
_CONTENT_HASH = "content_hash"
# Up to so many rows snappy is used, where zstd takes about twice the time to write and to read a file: it has to begin
# anew with each column. It would save 5 % of the bytes at 20 rows, and 22 % at 100, but 38 % at 1,000.
_SMALL_ROWS = 256
_ROWS_HASHED_AT_ONCE = 65_536


class PartitionDamaged(ValueError):  # noqa: N818 - named for what it is
    """A file of the lake is not what its reader was promised. Next step: materialize that partition again."""


def damaged(shown: str, error: Exception) -> PartitionDamaged:
    """What to raise of a file that cannot be read, named as people know it."""
    return PartitionDamaged(f"{shown} is damaged: {error}. Next step: materialize this partition again")


@dataclass(frozen=True, slots=True)
class StoredFacts:
    """What a partition's file says about itself. `facts` are those given when it was written, without prefix."""

    rows: int
    bytes: int
    content_hash: str
    facts: Mapping[str, str]
    columns: tuple[str, ...] = ()


def to_parquet(table: pa.Table, *, content_hash: str, facts: Mapping[str, str]) -> bytes:
    """The file's bytes: a pure function of rows, schema and facts, whatever the table's chunks."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        table.schema,
        compression="snappy" if table.num_rows <= _SMALL_ROWS else "zstd",
        use_dictionary=False,
        write_statistics=False,
        store_schema=False,
        write_page_checksum=True,
    ) as writer:
        writer.write_table(table.combine_chunks())
        writer.add_key_value_metadata(
            {f"{_PREFIX}{name}": value for name, value in sorted({**facts, _CONTENT_HASH: content_hash}.items())}
        )
    data: bytes = sink.getvalue().to_pybytes()
    return data


def from_parquet(data: bytes, *, schema: pa.Schema, only_stored: bool = False) -> pa.Table:
    """The rows, as exactly `schema`, which may name fewer columns than the file has.

    A nullable column that the file does not have, because it is younger than the file or its metric was not asked for,
    is read as null; with `only_stored` it is left out.

    Raises:
        PartitionDamaged: the bytes are no Parquet file, or a column is missing or of another type.
    """
    file = _opened(data)
    stored = {field.name: field.type for field in file.schema_arrow}
    for field in schema:
        if field.name not in stored:
            if not field.nullable:
                raise PartitionDamaged(f"it has no column {field.name}")
        elif stored[field.name] != field.type:
            raise PartitionDamaged(f"it holds {field.name} as {stored[field.name]}, not {field.type}")
    present = pa.schema([field for field in schema if field.name in stored])
    return completed(_rows(file, present.names), present if only_stored else schema)


def completed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The rows, as exactly `schema`, in which a column that they do not have is null."""
    found = dict(zip(table.column_names, table.columns, strict=True))
    columns = [found[field.name] if field.name in found else pa.nulls(len(table), field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def stored_rows(data: bytes) -> pa.Table:
    """All rows, in the columns that the file has.

    Raises:
        PartitionDamaged: the bytes are no Parquet file.
    """
    return _rows(_opened(data), None).replace_schema_metadata()


def facts_of(data: bytes) -> StoredFacts:
    """What the file says about itself, from its footer alone.

    Raises:
        PartitionDamaged: the bytes are no Parquet file.
    """
    return _facts(_opened(data), len(data))


def is_faithful(data: bytes, table: pa.Table, *, content_hash: str) -> bool:
    """Whether a file holds just these rows, found by reading it: the hash it states, the schema, and every value."""
    try:
        file = _opened(data)
        stored = _rows(file, None)
    except PartitionDamaged:
        return False
    return (
        _facts(file, len(data)).content_hash == content_hash
        and bool(stored.schema.equals(table.schema))
        # NaN equals nothing, so only the hash can vouch for a table that holds one.
        and (bool(stored.equals(table)) or content_hash_of(stored) == content_hash)
    )


def _opened(data: bytes) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise PartitionDamaged(f"it cannot be read as Parquet: {error}") from error


def _rows(file: pq.ParquetFile, columns: list[str] | None) -> pa.Table:
    try:
        # One thread: many small files are read side by side, not many columns of one.
        return file.read(columns=columns, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise PartitionDamaged(f"it cannot be read as Parquet: {error}") from error


def _facts(file: pq.ParquetFile, size: int) -> StoredFacts:
    footer = file.metadata
    facts = {
        name.decode().removeprefix(_PREFIX): value.decode()
        for name, value in (footer.metadata or {}).items()
        if name.startswith(_PREFIX.encode())
    }
    return StoredFacts(footer.num_rows, size, facts.pop(_CONTENT_HASH, ""), facts, tuple(footer.schema.names))


def content_hash_of(table: pa.Table) -> str:
    """SHA-256 of the logical content: names, types and values in row order, and nothing of how they are stored.

    Two tables have the same hash when they hold the same, whatever their chunks, their file, its facts or the
    version of pyarrow. Hashed in blocks of rows: per block the validity and the values of all 64-bit columns, then
    the validity, lengths and text of all string columns; a null counts as 0 or as empty text.

    Raises:
        TypeError: a column is not int64, float64, bool, a day, an instant or a string; the lake has no others.
    """
    if not all(_is_word(type_) or pa.types.is_string(type_) for type_ in table.schema.types):
        raise TypeError(f"the lake stores int64, float64, bool, days, instants and strings only, not {table.schema}")
    digest = hashlib.sha256(repr([(field.name, str(field.type)) for field in table.schema]).encode())
    digest.update(b"%d" % table.num_rows)
    for start in range(0, table.num_rows, _ROWS_HASHED_AT_ONCE):
        block = table.slice(start, _ROWS_HASHED_AT_ONCE).combine_chunks()
        columns = [column.chunk(0) for column in block.columns]
        if words := [_as_int64(column) for column in columns if _is_word(column.type)]:
            bits = pa.concat_arrays(words)
            digest.update(_values(bits.is_valid().cast(pa.uint8())))
            digest.update(_values(bits.fill_null(0)))
        if texts := [column for column in columns if pa.types.is_string(column.type)]:
            text = pa.concat_arrays(texts)
            digest.update(_values(text.is_valid().cast(pa.uint8())))
            digest.update(_values(pc.binary_length(text).fill_null(0)))
            digest.update(_characters(text.fill_null("")))
    return digest.hexdigest()


def _is_word(type_: pa.DataType) -> bool:
    is_number = pa.types.is_int64(type_) or pa.types.is_float64(type_)
    return bool(is_number or pa.types.is_boolean(type_) or pa.types.is_timestamp(type_) or pa.types.is_date32(type_))


def _as_int64(column: pa.Array) -> pa.Array:
    # A day has 32 bits and a bool one, which are made 64; all others have them.
    if pa.types.is_boolean(column.type):
        return column.cast(pa.int64())
    return column.cast(pa.int32()).cast(pa.int64()) if pa.types.is_date32(column.type) else column.view(pa.int64())


def _values(array: pa.Array) -> memoryview:
    width = array.type.bit_width // 8
    return memoryview(array.buffers()[1])[array.offset * width : (array.offset + len(array)) * width]


def _characters(text: pa.StringArray) -> memoryview:
    _, offsets, characters = text.buffers()
    starts = memoryview(offsets).cast("B").cast("i")
    return memoryview(characters or b"")[starts[text.offset] : starts[text.offset + len(text)]]
