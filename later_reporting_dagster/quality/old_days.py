"""Which old days to fetch again: posts may be added to them, restated or deleted at any time, but ever more rarely."""

from collections.abc import Collection, Sequence
from datetime import UTC, date, datetime, time

import pyarrow as pa
import pyarrow.compute as pc

from later_reporting_dagster.contract.days import due_since
from later_reporting_dagster.lake.tables import RAW_NAMES

# After an upgrade or an outage, hundreds may be due.
MAX_DAYS_PER_RUN = 20


def due_old_days(
    coverage: pa.Table, days: Collection[date], *, instances: Collection[str], today: date, ages: Sequence[int]
) -> list[date]:
    """Return those of the days to fetch again now, newest first.

    A day is due if most of its files were last requested before it reached the newest of the ages, in days. Most,
    because those of an instance that always fails would be due for ever.
    """
    since = {day: reached for day in days if (reached := due_since(day, today=today, ages=ages))}
    limits = pa.table(
        {"date": [*since], "due_since": [datetime.combine(reached, time(), UTC) for reached in since.values()]},
        pa.schema({"date": pa.date32(), "due_since": pa.timestamp("us", tz="UTC")}),
    )
    is_wanted = (
        pc.field("has_file")
        & pc.field("table_name").isin(RAW_NAMES)
        & pc.field("instance_id").isin(pa.array(instances, pa.string()))
    )
    columns = ["date", "requested_at", "restated_at", "fetched_at"]
    files = coverage.filter(is_wanted).select(columns).join(limits, "date", join_type="inner")
    # Of a file that was fetched before fetches were recorded, the time is when its content was requested.
    requested = pc.coalesce(files["requested_at"], files["restated_at"], files["fetched_at"])
    is_due = pc.fill_null(pc.less(requested, files["due_since"]), True)
    shares = pa.table({"date": files["date"], "is_due": pc.cast(is_due, pa.float64())})
    shares = shares.group_by("date").aggregate([("is_due", "mean")])
    due = shares.filter(pc.field("is_due_mean") > 0.5)["date"].to_pylist()
    return sorted(due, reverse=True)[:MAX_DAYS_PER_RUN]
