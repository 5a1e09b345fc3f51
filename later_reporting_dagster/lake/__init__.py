"""Parquet partitions on any fsspec filesystem: schema, paths, atomic write, read, quarantine. No HTTP, no Dagster."""

from later_reporting_dagster.lake.columns import POST_COLUMNS, POST_KEY, Column, post_columns
from later_reporting_dagster.lake.file import PartitionDamaged, content_hash_of
from later_reporting_dagster.lake.lake import DayRead, Lake, NotReplaced, Written
from later_reporting_dagster.lake.partition import Partition, encode_instance_id, partition_path
from later_reporting_dagster.lake.quarantine import QuarantinedRow, QuarantineFile
from later_reporting_dagster.lake.schema import POSTS_SCHEMA, posts_schema, posts_table, posts_tables, schema_of
from later_reporting_dagster.lake.storage import LakeUnavailable

__all__ = [
    "POSTS_SCHEMA",
    "POST_COLUMNS",
    "POST_KEY",
    "Column",
    "DayRead",
    "Lake",
    "LakeUnavailable",
    "NotReplaced",
    "Partition",
    "PartitionDamaged",
    "QuarantineFile",
    "QuarantinedRow",
    "Written",
    "content_hash_of",
    "encode_instance_id",
    "partition_path",
    "post_columns",
    "posts_schema",
    "posts_table",
    "posts_tables",
    "schema_of",
]
