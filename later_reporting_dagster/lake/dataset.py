"""The partitions of a table as one lazy dataset, for engines that choose the columns and rows that they read.

What a file holds is stated and not inferred: each is told the day and the instance that it is of, and all are told the
one schema. So the id `007` stays text, and a filter on either opens no file that it leaves out.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.dataset as ds

from later_reporting_dagster.lake.partition import Partition, partition_path
from later_reporting_dagster.lake.schema import DATE, dated
from later_reporting_dagster.lake.storage import Storage

# Verified as `Lake.read` verifies: a flipped bit is an error, and never a number.
_PARQUET = ds.ParquetFileFormat(
    default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True)
)


def dataset_of(
    storage: Storage,
    asset: str,
    partitions: Collection[Partition],
    *,
    months: Mapping[str, Sequence[Partition]],
    schema: pa.Schema,
) -> ds.Dataset:
    """The dataset of `partitions`: `date`, and `schema`'s columns.

    Args:
        storage: where the files lie.
        asset: the name of the table.
        partitions: those to have, all of which exist.
        months: by the path of a compacted file the partitions, all among these, that it is read in place of.
        schema: the columns; a nullable one that a file does not have is null.
    """
    filesystem = storage.arrow_filesystem

    def fragments() -> Iterator[ds.Fragment]:
        for path, copied in months.items():
            yield fragment(path, copied)
        compacted = {partition for copied in months.values() for partition in copied}
        for partition in partitions:
            if partition not in compacted:
                yield fragment(partition_path(asset, partition), [partition])

    def fragment(path: str, holds: Sequence[Partition]) -> ds.Fragment:
        return _PARQUET.make_fragment(
            storage.full_path(path), filesystem=filesystem, partition_expression=_true_of(holds)
        )

    return ds.FileSystemDataset(list(fragments()), dated(schema), _PARQUET, filesystem)


def dataset_of_file(storage: Storage, path: str | None, *, schema: pa.Schema) -> ds.Dataset:
    """The dataset of one file, or of none; a nullable column that it does not have is null."""
    filesystem = storage.arrow_filesystem
    fragments = [] if path is None else [_PARQUET.make_fragment(storage.full_path(path), filesystem=filesystem)]
    return ds.FileSystemDataset(fragments, schema, _PARQUET, filesystem)


def _true_of(partitions: Sequence[Partition]) -> ds.Expression:
    """What holds of each row of a file with these partitions, all of one instance."""
    days = [partition.day for partition in partitions]
    first, last = pa.scalar(min(days), DATE.type), pa.scalar(max(days), DATE.type)
    # Said as an equality where it is one: from that Arrow knows the value, which no daily file holds.
    of_days = ds.field(DATE.name) == first
    if first != last:
        of_days = (ds.field(DATE.name) >= first) & (ds.field(DATE.name) <= last)
    instance_id = partitions[0].instance_id
    return of_days if instance_id is None else of_days & (ds.field("instance_id") == instance_id)
