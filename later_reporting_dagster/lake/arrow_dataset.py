"""The partitions of a table as one lazy dataset, for engines that choose the columns and rows that they read.

What a file holds is stated and not inferred: each is told the day and the instance that it is of, and all are told the
one schema. So the id `007` stays text, and a filter on either opens no file that it leaves out.
"""

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.dataset as ds

from later_reporting_dagster.lake.partition_paths import Partition
from later_reporting_dagster.lake.schema import DATE
from later_reporting_dagster.lake.storage import Storage

# Verified as `Lake.read` verifies: a flipped bit is an error, and never a number.
_PARQUET = ds.ParquetFileFormat(
    default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True)
)


def dataset_of(storage: Storage, files: Mapping[str, Sequence[Partition]], *, schema: pa.Schema) -> ds.Dataset:
    """Return the dataset of some files.

    Args:
        storage: where the files lie.
        files: by path the partitions that a file holds, all of one instance; none for a file without partitions.
        schema: the columns; a nullable one that a file does not have is null.
    """
    filesystem = storage.arrow_filesystem
    fragments = [
        _PARQUET.make_fragment(
            storage.full_path(path), filesystem=filesystem, partition_expression=_true_of(holds) if holds else None
        )
        for path, holds in files.items()
    ]
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
