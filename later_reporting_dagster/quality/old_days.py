"""Which old days to fetch again: posts may be added to them, restated or deleted at any time, but ever more rarely."""

from collections.abc import Collection, Sequence
from datetime import UTC, date, datetime, time, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from later_reporting_dagster.contract.days import due_since
from later_reporting_dagster.lake.tables import POSTS_NAMES

# After an upgrade or an outage, hundreds may be due.
MAX_DAYS_PER_RUN = 20
# Instances that were not fetched for longer than others cannot be, and would be due for ever.
_MAX_LAG = timedelta(days=2)


def due_old_days(
    coverage: pa.Table, days: Collection[date], *, instances: Collection[str], today: date, ages: Sequence[int]
) -> list[date]:
    """Return those of the days to fetch again now, newest first; those whose last fetch failed come last.

    A day is due if one of its files was last requested before it reached the newest of the ages, in days.
    """
    since = {day: reached for day in days if (reached := due_since(day, today=today, ages=ages))}
    limits = pa.table(
        {"date": [*since], "due_since": [datetime.combine(reached, time(), UTC) for reached in since.values()]},
        pa.schema({"date": pa.date32(), "due_since": pa.timestamp("us", tz="UTC")}),
    )
    is_wanted = (
        pc.field("has_file")
        & pc.field("table_name").isin(POSTS_NAMES)
        & pc.field("instance_id").isin(pa.array(instances, pa.string()))
    )
    wanted = coverage.filter(is_wanted)
    files = pa.table(
        {
            "date": wanted["date"],
            "instance_id": wanted["instance_id"],
            # Of a file that was fetched before fetches were recorded, the time is when its content was requested.
            "requested": pc.coalesce(wanted["requested_at"], wanted["restated_at"], wanted["fetched_at"]),
            "failed": pc.is_valid(wanted["failed_at"]),
        }
    )
    newest = files.group_by("instance_id").aggregate([("requested", "max")])
    reached_at = pc.max(newest["requested_max"]).as_py()
    if reached_at is not None:
        fetched = newest.filter(pc.field("requested_max") >= reached_at - _MAX_LAG)["instance_id"]
        files = files.filter(pc.field("instance_id").isin(fetched))
    files = files.join(limits, "date", join_type="inner")
    is_due = pc.fill_null(pc.less(files["requested"], files["due_since"]), True)
    found = files.filter(is_due).group_by("date").aggregate([("failed", "any")]).to_pylist()
    found.sort(key=lambda row: (not row["failed_any"], row["date"]), reverse=True)
    return [row["date"] for row in found[:MAX_DAYS_PER_RUN]]
