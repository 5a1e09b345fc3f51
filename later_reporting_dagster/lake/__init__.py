"""Parquet tables on any fsspec filesystem: schemas, paths, atomic writes, reads, quarantine. No HTTP, no Dagster."""

from later_reporting_dagster.lake.columns import POST_COLUMNS as POST_COLUMNS
from later_reporting_dagster.lake.columns import POST_KEY as POST_KEY
from later_reporting_dagster.lake.columns import Column as Column
from later_reporting_dagster.lake.columns import post_columns as post_columns
from later_reporting_dagster.lake.database import LakeDatabase as LakeDatabase
from later_reporting_dagster.lake.database import ViewContents as ViewContents
from later_reporting_dagster.lake.database import open_database as open_database
from later_reporting_dagster.lake.lake import Lake as Lake
from later_reporting_dagster.lake.lake import ReplacementRejected as ReplacementRejected
from later_reporting_dagster.lake.lake import WriteResult as WriteResult
from later_reporting_dagster.lake.parquet_file import FileDamaged as FileDamaged
from later_reporting_dagster.lake.parquet_file import content_hash_of as content_hash_of
from later_reporting_dagster.lake.partition_paths import Partition as Partition
from later_reporting_dagster.lake.partition_paths import encode_instance_id as encode_instance_id
from later_reporting_dagster.lake.partition_paths import partition_path as partition_path
from later_reporting_dagster.lake.quarantine import QuarantinedRow as QuarantinedRow
from later_reporting_dagster.lake.quarantine import QuarantineFile as QuarantineFile
from later_reporting_dagster.lake.schema import POSTS_SCHEMA as POSTS_SCHEMA
from later_reporting_dagster.lake.schema import posts_schema as posts_schema
from later_reporting_dagster.lake.schema import posts_table as posts_table
from later_reporting_dagster.lake.schema import posts_tables as posts_tables
from later_reporting_dagster.lake.schema import schema_of as schema_of
from later_reporting_dagster.lake.storage import LakeUnavailable as LakeUnavailable
from later_reporting_dagster.lake.table import Table as Table
