"""What is known about campaigns, for the SQL of the rollups and of the report."""

from dataclasses import dataclass

import pyarrow as pa

from later_reporting_dagster.contract import CAMPAIGN_METRICS
from later_reporting_dagster.lake import FileDamaged, Lake, LakeUnavailable, Table, schema_of
from later_reporting_dagster.lake.campaign_tables import (
    CAMPAIGN_COLUMNS,
    CAMPAIGN_PERFORMANCE_TABLE,
    CAMPAIGNS_TABLE,
    campaign_performance_columns,
)

# With the columns of all known metrics; a metric that was not requested is null.
CAMPAIGN_PERFORMANCE = Table(CAMPAIGN_PERFORMANCE_TABLE, campaign_performance_columns(CAMPAIGN_METRICS))


@dataclass(frozen=True, slots=True)
class Campaigns:
    """The table of campaigns.

    Attributes:
        rows: no rows if the table does not exist or cannot be read.
        error: why the table cannot be read; empty if it can, or does not exist.
    """

    rows: pa.Table
    error: str = ""


def read_campaigns(lake: Lake) -> Campaigns:
    """Read the table of campaigns, if it exists and is readable. It is small: one row per campaign."""
    schema, rows, error = schema_of(CAMPAIGN_COLUMNS), None, ""
    try:
        rows = lake.read_table(CAMPAIGNS_TABLE, schema=schema)
    except (FileDamaged, LakeUnavailable) as reason:
        error = str(reason)
    return Campaigns(schema.empty_table() if rows is None else rows, error)
