"""Posts to organic versus paid: Arrow table in, Arrow table out. No I/O."""

from later_reporting_dagster.rollups.columns import GRAIN
from later_reporting_dagster.rollups.periods import (
    Landed,
    organic_paid,
    organic_paid_by,
    rows_schema,
)
from later_reporting_dagster.rollups.reconciliation import totals_that_differ, window_totals_that_differ
from later_reporting_dagster.rollups.settling import (
    SETTLEMENT_SCHEMA,
    TOLERANCE_PERCENT,
    Settlement,
    Sums,
    settlement,
)
from later_reporting_dagster.rollups.spans import WINDOWS, Days, Span, days_of, first_day_of, previous_of, windows_of
from later_reporting_dagster.rollups.spend import spend_bounds
from later_reporting_dagster.rollups.sums import SumOutOfRange
from later_reporting_dagster.rollups.tables import (
    BY_CAMPAIGN,
    BY_CREATOR,
    BY_DAY,
    BY_PLATFORM,
    BY_PUBLISH_DAY,
    BY_WINDOW,
    DAILY,
    MONTHLY,
    OVER_DAYS,
    TABLES,
    WEEKLY,
    RolledUp,
)

__all__ = [
    "BY_CAMPAIGN",
    "BY_CREATOR",
    "BY_DAY",
    "BY_PLATFORM",
    "BY_PUBLISH_DAY",
    "BY_WINDOW",
    "DAILY",
    "GRAIN",
    "MONTHLY",
    "OVER_DAYS",
    "SETTLEMENT_SCHEMA",
    "TABLES",
    "TOLERANCE_PERCENT",
    "WEEKLY",
    "WINDOWS",
    "Days",
    "Landed",
    "RolledUp",
    "Settlement",
    "Span",
    "SumOutOfRange",
    "Sums",
    "days_of",
    "first_day_of",
    "organic_paid_by",
    "organic_paid",
    "previous_of",
    "rows_schema",
    "settlement",
    "spend_bounds",
    "totals_that_differ",
    "window_totals_that_differ",
    "windows_of",
]
