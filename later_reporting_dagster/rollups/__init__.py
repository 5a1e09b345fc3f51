"""Posts to organic versus paid: Arrow table in, Arrow table out. No I/O."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from later_reporting_dagster.rollups.columns import (
    GRAIN,
    ORGANIC_PAID_BY_PUBLISH_DAY_COLUMNS,
    ORGANIC_PAID_DAILY_COLUMNS,
)

if TYPE_CHECKING:
    from later_reporting_dagster.rollups.organic_paid import (
        ORGANIC_PAID_BY_PUBLISH_DAY_SCHEMA,
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

# What needs Arrow is imported when it is first asked for: the definitions load without it.
_NEEDING_ARROW = ("organic_paid", "spend", "sums")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in _NEEDING_ARROW:
            if hasattr(found := import_module(f"{__name__}.{module}"), name):
                return getattr(found, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
