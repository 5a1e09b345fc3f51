"""Fetch what the API totals for campaigns or accounts over whole periods, and merge it into the one file of a table.

What a campaign cost, how many people it reached, and how many posts it had do not add up over days: only a query for
exactly the period has them. By performance date, the periods are windows that end yesterday, the same number of days
before each, and calendar months. By post date, they are calendar months, which add up, because each post is in one.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import date, timedelta

import anyio
import anyio.to_thread

from later_reporting_dagster.client import LaterClient
from later_reporting_dagster.contract import DateBasis, PerformanceQuery
from later_reporting_dagster.contract.days import MAX_CLOCK_ERROR, due_since, utc_now
from later_reporting_dagster.contract.instances import Instances
from later_reporting_dagster.contract.query import group_by_url_length
from later_reporting_dagster.ingest.decide import WriteLimits
from later_reporting_dagster.ingest.ingest import ingest_whole
from later_reporting_dagster.ingest.periods_file import PeriodsFile, StoredPeriods
from later_reporting_dagster.ingest.progress import FailedSlice, Progress, SliceResult
from later_reporting_dagster.ingest.slice_writer import SliceWriter
from later_reporting_dagster.ingest.slices import MONTHS, Period
from later_reporting_dagster.lake.tables import PUBLISHED_MONTH, RECORDED_MONTH, WINDOWS, PeriodsTable

# The current month and those before it, which each run fetches again; older months are fetched like old days.
MONTHS_FETCHED_AGAIN = 3
# The windows of each of several instances. All together have all windows, and so has an only instance.
WINDOWS_OF_INSTANCES = ("7d", "28d")


def windows(newest: date) -> Iterator[Period]:
    """Yield the windows that end with the newest day, and the period before each but the longest."""
    longest = max(WINDOWS.values())
    for name, days in WINDOWS.items():
        first = newest - timedelta(days=days - 1)
        yield Period(DateBasis.PERFORMANCE_DATE, name, first, newest)
        if days < longest:
            before = first - timedelta(days=days), first - timedelta(days=1)
            yield Period(DateBasis.PERFORMANCE_DATE, f"previous_{name}", *before)


def months(start_date: date, newest: date) -> Iterator[Period]:
    """Yield both kinds of each calendar month, from that of the newest day, which ends with it, to the start date's."""
    last = newest
    while last >= start_date:
        first = last.replace(day=1)
        for name, date_basis in MONTHS.items():
            yield Period(date_basis, name, first, last)
        last = first - timedelta(days=1)


def periods_to_fetch(
    stored: StoredPeriods,
    table: PeriodsTable,
    *,
    start_date: date,
    newest: date,
    ages: Sequence[int],
    instances: Instances,
    all_months: bool = False,
) -> list[Period]:
    """Return the windows, the newest months, and the older months that are due.

    These have reached one of the `ages` since their end, or were fetched without one of the instances; the total of an
    account, also if it was fetched with others.
    """
    is_account = table.by_day.one_instance_per_query
    wanted = instances.of_total if is_account else instances.to_fetch
    latest = (utc_now() + MAX_CLOCK_ERROR).date()  # a later day is that of a clock that was wrong

    def is_due(month: Period) -> bool:
        fetched = stored.fetched_months.get((month.name, month.first_day))
        if fetched is None or fetched.day > latest or not wanted <= {*fetched.instances}:
            return True
        if is_account and wanted and wanted != {*fetched.instances}:
            return True
        due = due_since(month.last_day, today=newest + timedelta(days=1), ages=ages)
        return due is not None and fetched.day < due

    found = [*months(start_date, newest)]
    newer = MONTHS_FETCHED_AGAIN * len(MONTHS)
    older = [month for month in found[newer:] if all_months or is_due(month)]
    return [*windows(newest), *found[:newer], *older]


def queries_of(table: PeriodsTable, periods: Sequence[Period], instances: Instances) -> list[Period]:
    """Return periods with the instances of each query: all of campaigns; of accounts each, and all together.

    Of all together there are none if their ids do not fit one URL, because reach cannot be merged. Accounts have no
    months of posts published. Those of one instance come first: the refusal of a total says nothing about its route.
    """
    if not table.by_day.one_instance_per_query:
        if instances.configured and not instances.to_fetch:  # without any, a query would ask for all
            return []
        return [replace(period, instance_ids=instances.filter) for period in periods]
    recorded = [period for period in periods if period.name != PUBLISHED_MONTH]
    months = [period for period in recorded if period.name == RECORDED_MONTH]
    of_each = [*(each for each in recorded if each.name in WINDOWS_OF_INSTANCES), *months[:MONTHS_FETCHED_AGAIN]]
    of_all = tuple(sorted(instances.of_all))
    is_one_query = len(of_all) > 1 == len(group_by_url_length(of_all))
    return [
        *(
            replace(period, instance_ids=(name,), subject=name)
            for period in (recorded if instances.only else of_each)
            for name in sorted(instances.to_fetch)
        ),
        *(replace(period, instance_ids=of_all) for period in recorded if is_one_query),
    ]


async def ingest_periods(
    periods: Sequence[Period], file: PeriodsFile, *, client: LaterClient, limits: WriteLimits, progress: Progress
) -> None:
    """Fetch periods, each with one query, and replace their rows in the table.

    A period that fails keeps its rows. A response that was requested before the stored rows of its period replaces
    nothing.
    """
    progress.slices = len(periods)
    queries = {
        period: PerformanceQuery(
            start_date=period.first_day,
            end_date=period.last_day,
            date_basis=period.date_basis,
            instance_ids=period.instance_ids,
        )
        for period in periods
    }
    sender, results = anyio.create_memory_object_stream[SliceResult](math.inf)
    with results:
        writer = SliceWriter(files=file, limits=limits, metrics=file.asked, results=sender, progress=progress)
        try:
            with sender:
                await ingest_whole(queries, writer, client=client, instances=file.instances)
        finally:  # what failed before the route was refused is reported, too
            failed = [result async for result in results if isinstance(result, FailedSlice)]
            _add(failed, file, progress)
    _add(await anyio.to_thread.run_sync(file.save), file, progress)
    progress.check_conservation()


def _add(results: Iterable[SliceResult], file: PeriodsFile, progress: Progress) -> None:
    for result in results:
        progress.add(result)
        if isinstance(result, FailedSlice):
            file.failed[str(result.slice)] = result.reason
