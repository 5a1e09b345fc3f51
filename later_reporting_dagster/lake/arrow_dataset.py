"""A table's files as a lazy `pyarrow.dataset`, for engines that select columns and rows themselves.

Nothing is inferred from the files: the caller states the schema, and the day and instance of each file. So the
instance id `007` stays a string, and a scan with a filter on `date` or `instance_id` skips the files of other
partitions.
"""

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.dataset as ds

from later_reporting_dagster.lake.partition_paths import Partition
from later_reporting_dagster.lake.schema import DATE
from later_reporting_dagster.lake.storage import Storage

# As in `Lake.read`: a flipped bit raises an error instead of changing a number.
_PARQUET = ds.ParquetFileFormat(
    default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True)
)


def dataset_of_files(storage: Storage, files: Mapping[str, Sequence[Partition]], *, schema: pa.Schema) -> ds.Dataset:
    """Return a dataset of these files.

    Args:
        storage: the storage of the files.
        files: for each path, the partitions in the file, all of one instance; empty for an unpartitioned table.
        schema: the columns of the dataset. If a file lacks a nullable column, the column is null in its rows.
    """
    filesystem = storage.arrow_filesystem
    fragments = [
        _PARQUET.make_fragment(
            storage.full_path(path),
            filesystem=filesystem,
            partition_expression=_partition_expression(partitions) if partitions else None,
        )
        for path, partitions in files.items()
    ]
    return ds.FileSystemDataset(fragments, schema, _PARQUET, filesystem)


def _partition_expression(partitions: Sequence[Partition]) -> ds.Expression:
    """Return the condition that holds for all rows of a file with these partitions, all of one instance."""
    days = [partition.day for partition in partitions]
    first, last = pa.scalar(min(days), DATE.type), pa.scalar(max(days), DATE.type)
    # For a single day, use an equality: daily files have no column `date`, and Arrow fills in a missing column only
    # from an equality.
    condition = ds.field(DATE.name) == first
    if first != last:
        condition = (ds.field(DATE.name) >= first) & (ds.field(DATE.name) <= last)
    instance_id = partitions[0].instance_id
    return condition if instance_id is None else condition & (ds.field("instance_id") == instance_id)
