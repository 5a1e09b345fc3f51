"""Which old days to fetch again: posts may be added to them, restated or deleted at any time, but ever more rarely."""

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta

from later_reporting_dagster.contract.days import due_since
from later_reporting_dagster.lake.coverage import NEVER, FileRecord
from later_reporting_dagster.lake.tables import POSTS_NAMES

# After an upgrade or an outage, hundreds may be due.
MAX_DAYS_PER_RUN = 20
# Instances that were not fetched for longer than others cannot be, and would be due for ever.
_MAX_LAG = timedelta(days=2)


def due_old_days(
    records: Iterable[FileRecord], days: Iterable[date], *, instances: Collection[str], today: date, ages: Sequence[int]
) -> list[date]:
    """Return those of the days to fetch again now, newest first; those whose last fetch failed come last.

    A day is due if one of its files was last requested before it reached the newest of the ages, in days.
    """
    reached = {day: due_since(day, today=today, ages=ages) for day in days}
    since = {day: datetime.combine(at, time(), UTC) for day, at in reached.items() if at}
    files = [each for each in records if each.has_file and each.table_name in POSTS_NAMES]
    files = [each for each in files if each.instance_id in instances]
    newest: dict[str | None, datetime] = {}
    for file in files:
        if at := file.last_requested_at:
            newest[file.instance_id] = max(newest.get(file.instance_id, at), at)
    lags_before = max(newest.values()) - _MAX_LAG if newest else NEVER
    has_failed: dict[date, bool] = {}
    for file in files:
        lags = newest.get(file.instance_id, NEVER) < lags_before
        if not lags and (file.last_requested_at or NEVER) < since.get(file.day, NEVER):
            has_failed[file.day] = has_failed.get(file.day, False) or file.failed_at is not None
    return sorted(has_failed, key=lambda day: (not has_failed[day], day), reverse=True)[:MAX_DAYS_PER_RUN]
