"""Parquet tables on a disk or in an object store: schemas, writes, reads, data frames, SQL. No HTTP, no Dagster."""

from later_reporting_dagster.lake.data_frames import open_dataset as open_dataset
from later_reporting_dagster.lake.data_frames import read_frame as read_frame
from later_reporting_dagster.lake.lake import Lake as Lake
from later_reporting_dagster.lake.lake import WriteResult as WriteResult
from later_reporting_dagster.lake.parquet_file import FileDamaged as FileDamaged
from later_reporting_dagster.lake.paths import Partition as Partition
from later_reporting_dagster.lake.paths import encode_instance_id as encode_instance_id
from later_reporting_dagster.lake.paths import partition_path as partition_path
from later_reporting_dagster.lake.storage import FileVersion as FileVersion
from later_reporting_dagster.lake.storage import LakeUnavailable as LakeUnavailable
from later_reporting_dagster.lake.tables import CAMPAIGN_COLUMNS as CAMPAIGN_COLUMNS
from later_reporting_dagster.lake.tables import CAMPAIGN_PERFORMANCE_TABLE as CAMPAIGN_PERFORMANCE_TABLE
from later_reporting_dagster.lake.tables import CAMPAIGN_PERIODS_TABLE as CAMPAIGN_PERIODS_TABLE
from later_reporting_dagster.lake.tables import CAMPAIGNS_TABLE as CAMPAIGNS_TABLE
from later_reporting_dagster.lake.tables import POST_COLUMNS as POST_COLUMNS
from later_reporting_dagster.lake.tables import POSTS_SCHEMA as POSTS_SCHEMA
from later_reporting_dagster.lake.tables import Column as Column
from later_reporting_dagster.lake.tables import Table as Table
from later_reporting_dagster.lake.tables import post_columns as post_columns
from later_reporting_dagster.lake.tables import posts_schema as posts_schema
from later_reporting_dagster.lake.tables import posts_table as posts_table
from later_reporting_dagster.lake.tables import schema_of as schema_of
