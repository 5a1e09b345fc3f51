"""Parquet partitions on any fsspec filesystem: schema, paths, atomic write, read, quarantine. No HTTP, no Dagster."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from later_reporting_dagster.lake.columns import POST_COLUMNS, POST_KEY, Column, post_columns
from later_reporting_dagster.lake.partition import Partition, decode_instance_id, encode_instance_id, partition_path

if TYPE_CHECKING:
    from later_reporting_dagster.lake.compaction import CompactedMonth
    from later_reporting_dagster.lake.file import PartitionDamaged, StoredFacts, content_hash_of
    from later_reporting_dagster.lake.lake import (
        DayRead,
        Lake,
        NotReplaced,
        Review,
        Written,
        WrittenFile,
    )
    from later_reporting_dagster.lake.quarantine import QuarantinedRow, QuarantineFile
    from later_reporting_dagster.lake.schema import POSTS_SCHEMA, posts_schema, posts_table, posts_tables, schema_of
    from later_reporting_dagster.lake.storage import LakeUnavailable

__all__ = [
    "POSTS_SCHEMA",
    "POST_COLUMNS",
    "POST_KEY",
    "Column",
    "CompactedMonth",
    "DayRead",
    "Lake",
    "LakeUnavailable",
    "NotReplaced",
    "Partition",
    "PartitionDamaged",
    "QuarantineFile",
    "QuarantinedRow",
    "Review",
    "StoredFacts",
    "Written",
    "WrittenFile",
    "content_hash_of",
    "decode_instance_id",
    "encode_instance_id",
    "partition_path",
    "post_columns",
    "posts_schema",
    "posts_table",
    "posts_tables",
    "schema_of",
]

# What needs Arrow is imported when it is first asked for: the definitions load without it.
_NEEDING_ARROW = ("file", "lake", "quarantine", "schema", "storage")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in _NEEDING_ARROW:
            if hasattr(found := import_module(f"{__name__}.{module}"), name):
                return getattr(found, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
