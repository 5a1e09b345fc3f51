"""Which old days to fetch again: posts may be added to them, restated or deleted at any time, but ever more rarely."""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, date, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from later_reporting_dagster.contract.days import is_overdue
from later_reporting_dagster.lake import Lake
from later_reporting_dagster.quality.coverage import newest_requests

# After an upgrade or an outage, hundreds may be overdue.
MAX_DAYS_PER_RUN = 20
# Instances that were not fetched for longer than others cannot be, and would be overdue for ever.
_MAX_LAG = timedelta(days=2)


def overdue_days(
    fetched: Mapping[date, date], *, failed: Collection[date] = (), today: date, ages: Sequence[int]
) -> list[date]:
    """Return the days to fetch again now, newest first.

    Args:
        fetched: when each day was last fetched, in UTC.
        failed: days that failed lately: they come last, so that they do not keep others from being fetched.
        ages: those of `refetch_ages`.
    """
    overdue = [day for day, last in fetched.items() if is_overdue(day, fetched=last, today=today, ages=ages)]
    overdue.sort(key=lambda day: (day not in failed, day), reverse=True)
    return overdue[:MAX_DAYS_PER_RUN]


def last_fetches(lake: Lake, *, instances: Collection[str]) -> dict[date, date]:
    """Return when each day of the raw tables that `coverage` lists was last fetched: its earliest file counts."""
    files = newest_requests(lake).filter(pc.field("instance_id").isin(pa.array(instances, pa.string())))
    # A file without a time was never fetched, as far as is known.
    times = files["requested_at"].fill_null(pa.scalar(0, files["requested_at"].type))
    files = files.set_column(files.schema.get_field_index("requested_at"), "requested_at", times)
    by_instance = files.group_by("instance_id").aggregate([("requested_at", "max")])
    if not by_instance.num_rows:
        return {}
    limit = pc.max(by_instance["requested_at_max"]).as_py() - _MAX_LAG
    reached = by_instance.filter(pc.field("requested_at_max") >= limit)["instance_id"]
    files = files.filter(pc.field("instance_id").isin(reached))
    days = files.group_by("date").aggregate([("requested_at", "min")]).to_pylist()
    return {row["date"]: row["requested_at_min"].astimezone(UTC).date() for row in days}
