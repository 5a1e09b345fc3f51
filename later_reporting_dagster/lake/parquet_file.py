"""Encode an Arrow table and its metadata as the bytes of one Parquet file, and decode them without inferring types.

The encoding suits small files, because a typical file has about twenty rows. For such files, dictionaries, statistics
and the stored Arrow schema would make up half of the bytes. Together with zstd, they would take three quarters of the
write time and over half of the read time. So they are left out. The Arrow schema is not needed: Parquet's own types
determine all types of the lake.

A schema may have a column of texts as a dictionary: in memory each text is there once. In the file it is plain texts.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import count
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from later_reporting_dagster.lake.file_metadata import CONTENT_HASH, FileMetadata, parse_key_values

_PREFIX = "later_reporting."
# Files with at most this many rows are compressed with snappy, larger ones with zstd. For small files, zstd takes about
# twice the time to write and to read, because it starts anew with each column. It would save 5 % of the bytes at 20
# rows, 22 % at 100, 38 % at 1,000.
_SNAPPY_ROWS = 256
_HASH_BLOCK_ROWS = 65_536


class FileDamaged(ValueError):  # noqa: N818 - not a bug of the caller, but a state of the lake
    """A file of the lake cannot be read as expected. The message has the next step."""


class MetadataDamaged(FileDamaged):
    """The rows of a file may be read, but not what it says of them."""


def damaged_file_error(location: str, error: Exception, *, step: str) -> FileDamaged:
    return FileDamaged(f"{location} is damaged: {error}. Next step: {step}")


def to_parquet(rows: pa.Table, *, content_hash: str, key_values: Mapping[str, str]) -> bytes:
    """Return the bytes of a file. Equal rows, schema and metadata give equal bytes, even if the chunks differ."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        rows.schema,
        compression="snappy" if rows.num_rows <= _SNAPPY_ROWS else "zstd",
        use_dictionary=False,
        write_statistics=False,
        store_schema=False,
        write_page_checksum=True,
    ) as writer:
        writer.write_table(rows.combine_chunks())
        writer.add_key_value_metadata(
            {f"{_PREFIX}{name}": value for name, value in sorted({**key_values, CONTENT_HASH: content_hash}.items())}
        )
    data: bytes = sink.getvalue().to_pybytes()
    return data


def from_parquet(data: bytes, *, schema: pa.Schema) -> pa.Table:
    """Return the rows of a file as exactly `schema`.

    A nullable column may be missing from the file, because it was added later or its metric was not requested; it is
    then null. `FileDamaged` is raised if the bytes are not a Parquet file, or a column is missing or of another type.
    """
    file = _open(data, schema)
    if file.schema_arrow.equals(schema):  # most files, and several times faster than what follows
        return _read_rows(file, None).replace_schema_metadata()
    check_columns(file.schema_arrow, schema)
    stored = {*file.schema_arrow.names}
    return with_columns(_read_rows(file, [name for name in schema.names if name in stored]), schema)


def check_columns(stored: pa.Schema, schema: pa.Schema) -> None:
    """Raise `FileDamaged` if stored rows cannot be read as `schema`: a column is missing or of another type."""
    types = {field.name: field.type for field in stored}
    for field in schema:
        if field.name not in types:
            if not field.nullable:
                raise FileDamaged(f"column {field.name} is missing")
        elif types[field.name] != field.type:
            raise FileDamaged(f"column {field.name} is {types[field.name]}, not {field.type}")


def with_columns(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return rows with exactly the columns of `schema`; those that are missing are null."""
    stored = {*rows.column_names}
    columns = [rows[each.name] if each.name in stored else pa.nulls(len(rows), each.type) for each in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def read_stored_rows(data: bytes) -> pa.Table:
    return _read_rows(_open(data), None).replace_schema_metadata()


def parse_metadata(file: bytes | BinaryIO, *, required: Collection[str] = (CONTENT_HASH,)) -> FileMetadata:
    """Return the metadata of a file, or raise `FileDamaged`; its rows are not decoded, nor read from an open file.

    It is `MetadataDamaged` if a text of the metadata is, or if one that is required is missing.
    """
    parquet = _open(file)
    footer = parquet.metadata
    try:
        key_values = {
            name.decode().removeprefix(_PREFIX): value.decode()
            for name, value in (footer.metadata or {}).items()
            if name.startswith(_PREFIX.encode())
        }
    except UnicodeDecodeError as error:
        raise MetadataDamaged(f"its metadata is not text: {error}") from error
    if missing := [name for name in required if not key_values.get(name)]:
        raise MetadataDamaged(f"its metadata has no {missing[0]}")
    try:
        values = parse_key_values(key_values)
    except ValueError as error:
        raise MetadataDamaged(str(error)) from error
    others = {name: text for name, text in key_values.items() if name != CONTENT_HASH}
    return FileMetadata(footer.num_rows, key_values=others, columns=(*parquet.schema_arrow.names,), **values)


def has_rows(data: bytes, content_hash: str, *, expected: pa.Table | None = None) -> bool:
    """Return whether a file has the rows with this hash: they may be damaged, or altered by something else.

    If the rows are known, it is faster to compare them. They are never all in memory.
    """
    try:
        file = _open(data, None if expected is None else expected.schema)
        if expected is not None and len(expected) == file.metadata.num_rows and _equal(_blocks(file), expected):
            return True
        return _content_hash(file.schema_arrow, file.metadata.num_rows, _blocks(file)) == content_hash
    except (FileDamaged, TypeError, pa.ArrowException, OSError):  # the second, of a type that the lake does not store
        return False


def content_hash_of(rows: pa.Table) -> str:
    """Return the SHA-256 of the logical content: names, types and values in row order.

    It does not depend on chunks, on the file and its metadata, or on the version of pyarrow. Rows are hashed in blocks:
    for each block the validity and the values of all columns of fixed width, as 64-bit integers, then the validity,
    lengths and text of all string columns, then the lengths and items of each list. A null counts as 0 or as empty.
    """
    blocks = (rows.slice(start, _HASH_BLOCK_ROWS) for start in range(0, rows.num_rows, _HASH_BLOCK_ROWS))
    return _content_hash(rows.schema, rows.num_rows, blocks)


def _content_hash(schema: pa.Schema, rows: int, blocks: Iterable[pa.Table]) -> str:
    types = [_stored_type(each) for each in schema.types]
    if unknown := [type_ for type_ in types if not (_is_fixed_width(type_) or type_ in _OTHER_TYPES)]:
        raise TypeError(f"the lake stores int64, float64, bool, days, instants, strings and lists only, not {unknown}")
    digest = hashlib.sha256(repr([*zip(schema.names, map(str, types), strict=True)]).encode())
    digest.update(b"%d" % rows)
    for each in blocks:
        block = each.combine_chunks()
        columns = [_plain(column.chunk(0)) for column in block.columns]
        if words := [_as_int64(column) for column in columns if _is_fixed_width(column.type)]:
            values = pa.concat_arrays(words)
            digest.update(_value_buffer(values.is_valid().cast(pa.uint8())))
            digest.update(_value_buffer(values.fill_null(0)))
        if strings := [column for column in columns if pa.types.is_string(column.type)]:
            text = pa.concat_arrays(strings)
            digest.update(_value_buffer(text.is_valid().cast(pa.uint8())))
            digest.update(_value_buffer(pc.binary_length(text).fill_null(0)))
            digest.update(_text_buffer(text.fill_null("")))
        for column in columns:
            if pa.types.is_list(column.type):
                digest.update(_value_buffer(pc.list_value_length(column).fill_null(0)))
                items = column.flatten()
                if pa.types.is_string(items.type):
                    digest.update(_value_buffer(pc.binary_length(items)))
                    digest.update(_text_buffer(items))
                else:
                    digest.update(_value_buffer(items))
    return digest.hexdigest()


def _blocks(file: pq.ParquetFile) -> Iterator[pa.Table]:
    batches = file.iter_batches(batch_size=_HASH_BLOCK_ROWS, use_threads=False)
    return (pa.Table.from_batches([batch]) for batch in batches)


def _equal(blocks: Iterable[pa.Table], rows: pa.Table) -> bool:
    starts = count(0, _HASH_BLOCK_ROWS)
    return all(block.equals(rows.slice(start, len(block))) for start, block in zip(starts, blocks, strict=False))


def _open(file: bytes | BinaryIO, schema: pa.Schema | None = None) -> pq.ParquetFile:
    """Open a file; the columns that are dictionaries in `schema` will be read as such."""
    source = pa.BufferReader(file) if isinstance(file, bytes) else file
    options = {"page_checksum_verification": True, "pre_buffer": False}
    try:
        opened = pq.ParquetFile(source, **options)
        encoded = [each.name for each in schema or () if pa.types.is_dictionary(each.type)]
        if here := [name for name in encoded if name in opened.schema_arrow.names]:
            return pq.ParquetFile(source, metadata=opened.metadata, read_dictionary=here, **options)
    except (pa.ArrowException, OSError) as error:
        raise FileDamaged(f"cannot be read as Parquet: {error}") from error
    return opened


def _read_rows(file: pq.ParquetFile, columns: list[str] | None) -> pa.Table:
    try:
        # One thread for each file, because many small files are read concurrently.
        return file.read(columns=columns, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise FileDamaged(f"cannot be read as Parquet: {error}") from error


_OTHER_TYPES = (pa.string(), pa.list_(pa.int64()), pa.list_(pa.string()))


def _stored_type(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_list(type_):  # in Parquet, the items have another name
        return pa.list_(type_.value_type)
    return type_.value_type if pa.types.is_dictionary(type_) else type_


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _is_fixed_width(type_: pa.DataType) -> bool:
    is_number = pa.types.is_int64(type_) or pa.types.is_float64(type_)
    return bool(is_number or pa.types.is_boolean(type_) or pa.types.is_timestamp(type_) or pa.types.is_date32(type_))


def _as_int64(column: pa.Array) -> pa.Array:
    """Return a fixed-width column as int64: bools and days are widened, the others reinterpreted bit by bit."""
    if pa.types.is_boolean(column.type):
        return column.cast(pa.int64())
    return column.cast(pa.int32()).cast(pa.int64()) if pa.types.is_date32(column.type) else column.view(pa.int64())


def _value_buffer(array: pa.Array) -> memoryview:
    width = array.type.bit_width // 8
    return memoryview(array.buffers()[1])[array.offset * width : (array.offset + len(array)) * width]


def _text_buffer(text: pa.StringArray) -> memoryview:
    _, offsets, characters = text.buffers()
    starts = memoryview(offsets).cast("B").cast("i")
    return memoryview(characters or b"")[starts[text.offset] : starts[text.offset + len(text)]]
