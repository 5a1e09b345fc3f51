"""Parquet partitions on any fsspec filesystem: schema, paths, atomic write, read, quarantine. No HTTP, no Dagster."""

from later_reporting_dagster.lake.file import PartitionDamaged, StoredFacts, content_hash_of
from later_reporting_dagster.lake.lake import Lake, QuarantinedRow, Written
from later_reporting_dagster.lake.partition import Partition, decode_instance_id, encode_instance_id, partition_path
from later_reporting_dagster.lake.schema import POST_COLUMNS, POST_KEY, POSTS_SCHEMA, Column, posts_table, schema_of
from later_reporting_dagster.lake.storage import LakeUnavailable

__all__ = [
    "POSTS_SCHEMA",
    "POST_COLUMNS",
    "POST_KEY",
    "Column",
    "Lake",
    "LakeUnavailable",
    "Partition",
    "PartitionDamaged",
    "QuarantinedRow",
    "StoredFacts",
    "Written",
    "content_hash_of",
    "decode_instance_id",
    "encode_instance_id",
    "partition_path",
    "posts_table",
    "schema_of",
]
