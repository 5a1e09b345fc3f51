"""The raw tables: rows of the performance routes, in one file for each UTC day, of posts also for each instance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from later_reporting_dagster.contract import CAMPAIGN_METRICS, METRICS, DateBasis, Metric
from later_reporting_dagster.lake.campaign_tables import CAMPAIGN_PERFORMANCE_TABLE, campaign_performance_columns
from later_reporting_dagster.lake.columns import POST_KEY
from later_reporting_dagster.lake.partition_paths import Partition
from later_reporting_dagster.lake.schema import posts_tables, schema_of


@dataclass(frozen=True, slots=True)
class RawTable:
    """A raw table of posts or of campaigns.

    Attributes:
        name: its name in the lake.
        date_basis: the date basis of its queries.
        rows: what its rows are, in the plural, for messages.
        key: the columns that identify a row.
        known_metrics: the metrics that its rows may have.
    """

    name: str
    date_basis: DateBasis
    rows: str = "posts"
    key: tuple[str, ...] = POST_KEY
    known_metrics: tuple[Metric, ...] = METRICS

    def arrow_tables(
        self, rows: Mapping[Partition, Sequence[Any]], *, metrics: tuple[Metric, ...]
    ) -> dict[Partition, pa.Table]:
        """Return the rows of each partition, sorted by key; what is not available is null."""
        if self.rows == "posts":
            return posts_tables(rows, metrics=metrics)
        schema = schema_of(campaign_performance_columns(metrics))
        return {
            partition: pa.Table.from_pylist(
                [
                    {**campaign.metrics, "campaign_id": campaign.campaign_id, "extra": campaign.extra}
                    for campaign in sorted(campaigns, key=lambda campaign: campaign.campaign_id)
                ],
                schema=schema,
            )
            for partition, campaigns in rows.items()
        }


POST_METRICS_DAILY = RawTable("post_metrics_daily", DateBasis.PERFORMANCE_DATE)
POSTS_PUBLISHED = RawTable("posts_published", DateBasis.POST_DATE)
RAW_TABLES = (POST_METRICS_DAILY, POSTS_PUBLISHED)
CAMPAIGN_PERFORMANCE = RawTable(
    CAMPAIGN_PERFORMANCE_TABLE, DateBasis.PERFORMANCE_DATE, "campaigns", ("campaign_id",), CAMPAIGN_METRICS
)
