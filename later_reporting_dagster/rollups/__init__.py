"""Posts to organic versus paid: Arrow table in, Arrow table out. No I/O."""

from later_reporting_dagster.rollups.organic_paid import (
    GRAIN,
    ORGANIC_PAID_BY_PUBLISH_DAY_COLUMNS,
    ORGANIC_PAID_BY_PUBLISH_DAY_SCHEMA,
    ORGANIC_PAID_DAILY_COLUMNS,
    ORGANIC_PAID_DAILY_SCHEMA,
    ROLLED_UP_SCHEMA,
    organic_paid_by_publish_day,
    organic_paid_daily,
    totals_that_differ,
)
from later_reporting_dagster.rollups.spend import SpendBounds, spend_bounds
from later_reporting_dagster.rollups.sums import SumOutOfRange

__all__ = [
    "GRAIN",
    "ORGANIC_PAID_BY_PUBLISH_DAY_COLUMNS",
    "ORGANIC_PAID_BY_PUBLISH_DAY_SCHEMA",
    "ORGANIC_PAID_DAILY_COLUMNS",
    "ORGANIC_PAID_DAILY_SCHEMA",
    "ROLLED_UP_SCHEMA",
    "SpendBounds",
    "SumOutOfRange",
    "organic_paid_by_publish_day",
    "organic_paid_daily",
    "spend_bounds",
    "totals_that_differ",
]
