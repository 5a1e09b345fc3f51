"""One partition's file: a table and its facts as Parquet bytes, and back, with nothing inferred.

Encodings are chosen for what most files are, some twenty rows: there dictionaries, statistics and the stored Arrow
schema are half of the bytes and of the time. All types of the lake come back from Parquet's own types.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

_PREFIX = "later_reporting."
_CONTENT_HASH = "content_hash"
_ROWS_HASHED_AT_ONCE = 65_536


class PartitionDamaged(ValueError):  # noqa: N818 - named for what it is
    """A file of the lake is not what its reader was promised. Next step: materialize that partition again."""


@dataclass(frozen=True, slots=True)
class StoredFacts:
    """What a partition's file says about itself. `facts` are those given when it was written, without prefix."""

    rows: int
    bytes: int
    content_hash: str
    facts: Mapping[str, str]


def to_parquet(table: pa.Table, *, content_hash: str, facts: Mapping[str, str]) -> bytes:
    """The file's bytes: a pure function of rows, schema and facts, whatever the table's chunks."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        table.schema,
        compression="zstd",
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


def from_parquet(data: bytes, *, schema: pa.Schema) -> pa.Table:
    """The rows, as exactly `schema`, which may name fewer columns than the file has.

    A nullable column that the file does not have, because it is younger than the file, is read as null.

    Raises:
        PartitionDamaged: the bytes are no Parquet file, or a column is missing or of another type.
    """
    file = _opened(data)
    stored = file.schema_arrow
    for field in schema:
        index = stored.get_field_index(field.name)
        if index < 0 and not field.nullable:
            raise PartitionDamaged(f"it has no column {field.name}")
        if index >= 0 and stored.field(index).type != field.type:
            raise PartitionDamaged(f"it holds {field.name} as {stored.field(index).type}, not {field.type}")
    table = _rows(file, [name for name in schema.names if name in stored.names])
    columns = [
        table.column(field.name) if field.name in stored.names else pa.nulls(file.metadata.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


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
        return pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
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
    return StoredFacts(footer.num_rows, size, facts.pop(_CONTENT_HASH, ""), facts)


def content_hash_of(table: pa.Table) -> str:
    """SHA-256 of the logical content: names, types and values in row order, and nothing of how they are stored.

    Two tables have the same hash when they hold the same, whatever their chunks, their file, its facts or the
    version of pyarrow. Hashed in blocks of rows: per block the validity and the values of all 64-bit columns, then
    the validity, lengths and text of all string columns; a null counts as 0 or as empty text.

    Raises:
        TypeError: a column is not int64, float64, an instant or a string; the lake has no others.
    """
    words = [index for index, type_ in enumerate(table.schema.types) if _is_word(type_)]
    texts = [index for index, type_ in enumerate(table.schema.types) if pa.types.is_string(type_)]
    if len(words) + len(texts) != table.num_columns:
        raise TypeError(f"the lake stores int64, float64, instants and strings only, not {table.schema}")
    digest = hashlib.sha256(repr([(field.name, str(field.type)) for field in table.schema]).encode())
    digest.update(b"%d" % table.num_rows)
    for start in range(0, table.num_rows, _ROWS_HASHED_AT_ONCE):
        block = table.slice(start, _ROWS_HASHED_AT_ONCE)
        if words:
            bits = _in_a_row(chunk.view(pa.int64()) for index in words for chunk in block.column(index).chunks)
            _update(digest, bits.is_valid().cast(pa.uint8()))
            _update(digest, bits.fill_null(0))
        if texts:
            text = _in_a_row(chunk for index in texts for chunk in block.column(index).chunks)
            _update(digest, text.is_valid().cast(pa.uint8()))
            _update(digest, pc.binary_length(text).fill_null(0))
            digest.update(_characters(text.fill_null("")))
    return digest.hexdigest()


def _is_word(type_: pa.DataType) -> bool:
    return bool(pa.types.is_int64(type_) or pa.types.is_float64(type_) or pa.types.is_timestamp(type_))


def _in_a_row(chunks: Iterable[pa.Array]) -> pa.Array:
    return pa.concat_arrays(list(chunks))


def _characters(text: pa.StringArray) -> memoryview:
    _, offsets, characters = text.buffers()
    if characters is None:
        return memoryview(b"")
    starts = memoryview(offsets).cast("i")
    return memoryview(characters)[starts[text.offset] : starts[text.offset + len(text)]]


def _update(digest: "hashlib._Hash", array: pa.Array) -> None:
    width = array.type.bit_width // 8
    values = memoryview(array.buffers()[1])
    digest.update(values[array.offset * width : (array.offset + len(array)) * width])
