"""Which old days to fetch again: posts may be added to them, restated or deleted at any time, but ever more rarely."""

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from later_reporting_dagster.contract.days import due_since
from later_reporting_dagster.lake.coverage import NEVER, last_requested_at
from later_reporting_dagster.lake.tables import POSTS_NAMES

# After an upgrade or an outage, hundreds may be due.
MAX_DAYS_PER_RUN = 20
# Instances that were not fetched for longer than others cannot be, and would be due for ever.
_MAX_LAG = timedelta(days=2)
_INSTANT = pa.timestamp("us", "UTC")


def due_old_days(
    coverage: pa.Table, days: Iterable[date], *, instances: Collection[str], today: date, ages: Sequence[int]
) -> list[date]:
    """Return those of the days to fetch again now, newest first; those whose last fetch failed come last.

    A day is due if one of its files was last requested before it reached the newest of the ages, in days.
    """
    never = pa.scalar(NEVER, _INSTANT)  # not when definitions load: Arrow imports pandas for it
    reached = {day: at for day in days if (at := due_since(day, today=today, ages=ages))}
    since = pa.array([datetime.combine(at, time(), UTC) for at in reached.values()], _INSTANT)
    of_posts = coverage.filter(
        pc.field("has_file")
        & pc.field("table_name").isin([*POSTS_NAMES])
        & pc.field("instance_id").isin(pa.array(instances, pa.string()))
    )
    files = of_posts.select(["date", "instance_id"]).append_column("last", last_requested_at(of_posts))
    files = files.append_column("has_failed", pc.is_valid(of_posts["failed_at"]))
    newest = files.group_by("instance_id").aggregate([("last", "max")])
    lags_before = (pc.max(newest["last_max"]).as_py() or NEVER) - _MAX_LAG
    lagging = newest.filter(pc.less(pc.fill_null(newest["last_max"], never), lags_before))["instance_id"]
    due_at = since.take(pc.index_in(files["date"], pa.array(reached, pa.date32())).combine_chunks())
    is_due = pc.less(pc.fill_null(files["last"], never), due_at)
    due = files.filter(pc.and_(is_due, pc.invert(pc.is_in(files["instance_id"], lagging))))
    by_day = due.group_by("date").aggregate([("has_failed", "any")])
    has_failed = dict(zip(by_day["date"].to_pylist(), by_day["has_failed_any"].to_pylist(), strict=True))
    return sorted(has_failed, key=lambda day: (not has_failed[day], day), reverse=True)[:MAX_DAYS_PER_RUN]
