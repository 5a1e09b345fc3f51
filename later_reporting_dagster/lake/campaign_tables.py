"""The two tables of campaigns: their names and columns.

`campaigns` is one file, with a row per campaign. `campaign_performance_daily` has one file per UTC day, with the
campaigns of all instances: the API does not state the instance of a campaign's performance (docs/api.md, "Campaigns").
"""

from collections.abc import Iterable

from later_reporting_dagster.contract import Metric
from later_reporting_dagster.lake.columns import EXTRA, Column, metric_column

CAMPAIGNS_TABLE = "campaigns"
CAMPAIGN_PERFORMANCE_TABLE = "campaign_performance_daily"

CAMPAIGN_COLUMNS = (
    Column("instance_id", "string", False, "Later instance of the campaign; part of the row key"),
    Column("campaign_id", "int64", False, "Campaign; part of the row key"),
    Column("campaign_name", "string", True, "Name of the campaign"),
    Column("description", "string", True, "Description of the campaign"),
    Column("status", "string", True, "Status as the API names it, such as live or draft"),
    Column("start_date", "timestamp[us, tz=UTC]", True, "Start of the campaign"),
    Column("first_post_date", "timestamp[us, tz=UTC]", True, "When the first post was published; null without posts"),
    Column("last_post_date", "timestamp[us, tz=UTC]", True, "When the last post was published; null without posts"),
    Column("first_seen", "date32[day]", False, "The first UTC day on which the API listed it"),
    Column("last_seen", "date32[day]", False, "The last UTC day on which the API listed it"),
    Column("listed_now", "bool", False, "Whether the API listed it when this table was last refreshed"),
    EXTRA,
)


def campaign_performance_columns(metrics: Iterable[Metric]) -> tuple[Column, ...]:
    """Return the columns of campaign performance that was requested with `metrics`.

    Args:
        metrics: the requested metrics, in the order of `CAMPAIGN_METRICS`.
    """
    return (
        Column("campaign_id", "int64", False, "Campaign; the row key"),
        *(metric_column(metric) for metric in metrics),
        EXTRA,
    )
