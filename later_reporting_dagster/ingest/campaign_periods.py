"""Fetch what the API totals for campaigns over whole periods, and merge it into the one file of the table.

What a campaign cost, how many people it reached, and how many posts it had do not add up over days: only a query for
exactly the period has them. By performance date, the periods are windows that end yesterday, and the same number of
days before each. By post date, they are calendar months, which add up, because each post is in one of them.
"""

from calendar import monthrange
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, timedelta
from operator import itemgetter
from typing import Any

import anyio
import anyio.to_thread
import msgspec
import pyarrow as pa

from later_reporting_dagster.client import LaterClient, LaterError, ListResult
from later_reporting_dagster.contract import CAMPAIGN_METRICS, DateBasis, Metric, PerformanceQuery
from later_reporting_dagster.contract.days import is_overdue, utc_now
from later_reporting_dagster.ingest.campaign_performance import CampaignFetch, instances_of_campaigns
from later_reporting_dagster.ingest.partition_results import reason_of
from later_reporting_dagster.ingest.partition_writer import known_times
from later_reporting_dagster.ingest.progress import Progress
from later_reporting_dagster.ingest.query_plan import query_text
from later_reporting_dagster.ingest.write_guard import WriteGuard, diff_partitions
from later_reporting_dagster.lake import (
    CAMPAIGN_PERIODS_TABLE,
    FileDamaged,
    Lake,
    LakeUnavailable,
    ReplacementRejected,
    WriteResult,
    campaign_performance_columns,
    schema_of,
)
from later_reporting_dagster.lake.coverage import MAX_CLOCK_ERROR
from later_reporting_dagster.lake.tables import CAMPAIGN_PERIOD_KEY, CAMPAIGN_PERIODS, WINDOWS

MONTH = "month"
# The current month and those before it, which each run fetches again; older months are fetched like old days.
MONTHS_FETCHED_AGAIN = 3
# Metadata of the file: what was last fetched of each month since it ended. Rows show only when they changed.
FETCHED_MONTHS = "months"
# Another run may write the file between reading and writing it; then the rows are merged again.
MAX_MERGES = 5

_Row = dict[str, Any]
_Response = tuple[PerformanceQuery, ListResult]
# What a newer response replaces: a window by its name, whatever its days are; a month by its first day.
_Slot = tuple[str, date | None]


@dataclass(frozen=True, slots=True)
class Period:
    """The days of one query, and what the table calls them."""

    date_basis: DateBasis
    name: str
    first_day: date
    last_day: date

    @property
    def slot(self) -> _Slot:
        return _slot(self.name, self.first_day)

    @property
    def ends_a_month(self) -> bool:
        return (self.last_day + timedelta(days=1)).day == 1

    def __str__(self) -> str:
        return f"{self.name} {self.first_day} to {self.last_day}"


@dataclass(frozen=True, slots=True)
class FetchedMonth:
    """A fetch of a month that had ended: its day, and the instances whose campaigns were in reach of it."""

    day: date
    instances: Collection[str]


@dataclass(frozen=True, slots=True)
class StoredPeriods:
    """The table as last written, and the last fetch of each month since it ended, by its first day."""

    rows: pa.Table
    fetched_months: Mapping[date, FetchedMonth] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PeriodsResult:
    """What a run did.

    Attributes:
        rows: the whole table.
        written: None if the file was left as it is, because no period could be fetched.
        failed: the reason by period.
    """

    rows: pa.Table
    written: WriteResult | None
    failed: Mapping[str, str]


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
    """Yield the calendar months from that of the newest day, which ends with it, back to that of the start date."""
    last = newest
    while last >= start_date:
        first = last.replace(day=1)
        yield Period(DateBasis.POST_DATE, MONTH, first, last)
        last = first - timedelta(days=1)


def periods_to_fetch(
    stored: StoredPeriods,
    *,
    start_date: date,
    newest: date,
    ages: Sequence[int],
    instances: Collection[str] = (),
    all_months: bool = False,
) -> list[Period]:
    """Return the windows, the newest months, and the older months that are due.

    These have reached one of the `ages` since their end, or were fetched without one of the `instances`.
    """
    latest = (utc_now() + MAX_CLOCK_ERROR).date()  # a later day is that of a clock that was wrong

    def is_due(month: Period) -> bool:
        fetched = stored.fetched_months.get(month.first_day)
        if fetched is None or fetched.day > latest or not {*instances} <= {*fetched.instances}:
            return True
        return is_overdue(month.last_day, fetched=fetched.day, today=newest + timedelta(days=1), ages=ages)

    found = [*months(start_date, newest)]
    older = [month for month in found[MONTHS_FETCHED_AGAIN:] if all_months or is_due(month)]
    return [*windows(newest), *found[:MONTHS_FETCHED_AGAIN], *older]


def read_periods(lake: Lake) -> StoredPeriods:
    """Read the table; if its file does not exist or is damaged, it is empty."""
    with suppress(FileDamaged):
        rows = lake.read_table(CAMPAIGN_PERIODS_TABLE, schema=CAMPAIGN_PERIODS.schema)
        metadata = lake.read_metadata(CAMPAIGN_PERIODS_TABLE)
        if rows is not None and metadata is not None:
            text = metadata.key_values.get(FETCHED_MONTHS, "{}")
            return StoredPeriods(rows, msgspec.json.decode(text, type=dict[date, FetchedMonth]))
    return StoredPeriods(CAMPAIGN_PERIODS.schema.empty_table())


def _slot(name: str, first_day: date) -> _Slot:
    return name, first_day if name == MONTH else None


async def ingest_campaign_periods(
    periods: Sequence[Period],
    *,
    instance_ids: tuple[str, ...],
    client: LaterClient,
    lake: Lake,
    metrics: tuple[Metric, ...],
    guard: WriteGuard,
    progress: Progress,
    listed: Collection[str] = (),
) -> PeriodsResult:
    """Fetch periods, each with one query, and replace their rows in the table.

    A period that fails keeps its rows, as do campaigns that only other instances have. A response that was requested
    before the stored rows of its period replaces nothing.

    Args:
        instance_ids: the instances whose campaigns are wanted; empty for all that the credentials can read.
        progress: counts what has been done, and gets warnings of what is left out.
        listed: the instances that the API lists, as far as they are known.
    """
    progress.partitions = len(periods)
    fetch = CampaignFetch(client, metrics=metrics, instance_ids=instance_ids, warnings=progress.warnings)
    responses, failed = await _fetch_all(periods, fetch)
    quarantined = await anyio.to_thread.run_sync(_quarantine, lake, responses)
    for _ in range(MAX_MERGES):
        stored = await anyio.to_thread.run_sync(read_periods, lake)
        merge = _Merge(stored, metrics=metrics, guard=guard, warnings=progress.warnings)
        instances = await anyio.to_thread.run_sync(instances_of_campaigns, lake)
        for period, (query, result) in responses.items():
            try:
                old = merge.old.get(period.slot, {})
                kept = await fetch.campaigns_of_other_instances(old, instances, query, result)
                merge.add(period, result, kept=kept, instances=query.instance_ids or listed)
            except (LaterError, ReplacementRejected) as error:
                merge.failed[period] = reason_of(error)
        failures = {str(period): reason for period, reason in (failed | merge.failed).items()}
        progress.written, progress.failed = len(periods) - len(failures), len(failures)
        if not progress.written:
            return PeriodsResult(stored.rows, None, failures)
        rows = merge.table()
        progress.rows = rows.num_rows
        with suppress(_ChangedMeanwhile):
            written = await anyio.to_thread.run_sync(_write, lake, rows, merge)
            fetched = {(each.first_day, each.last_day) for each in responses.keys() - merge.failed.keys()}
            await anyio.to_thread.run_sync(_remove_quarantined, lake, merge, fetched, quarantined)
            return PeriodsResult(rows, written, failures)
    raise LakeUnavailable(f"other runs keep replacing {CAMPAIGN_PERIODS_TABLE} in {lake.root}: run it again after them")


async def _fetch_all(
    periods: Sequence[Period], fetch: CampaignFetch
) -> tuple[dict[Period, _Response], dict[Period, str]]:
    """Return the response of each period, or why it failed."""
    responses: dict[Period, _Response] = {}
    failed: dict[Period, str] = {}

    async def request(period: Period) -> None:
        try:
            responses[period] = await fetch.period(period.date_basis, period.first_day, period.last_day)
        except LaterError as error:
            failed[period] = reason_of(error)

    await fetch.process_all(periods, request)
    return responses, failed


class _Merge:
    """The stored rows, with those of responses in place of the rows of their periods."""

    def __init__(
        self, stored: StoredPeriods, *, metrics: tuple[Metric, ...], guard: WriteGuard, warnings: list[str]
    ) -> None:
        self.stored = stored
        self.failed: dict[Period, str] = {}
        self.fetched_months = {**stored.fetched_months}
        # By period, the rows of each campaign. A campaign of an instance that is no longer asked for has the row of an
        # earlier window.
        self.old: dict[_Slot, dict[int, _Row]] = {}
        for row in stored.rows.to_pylist():
            self.old.setdefault(_slot(row["period"], row["first_day"]), {})[row["campaign_id"]] = row
        self._rows = {**self.old}
        self._metrics, self._guard, self._warnings = metrics, guard, warnings

    def add(self, period: Period, result: ListResult, *, kept: Collection[int], instances: Collection[str]) -> None:
        """Replace the rows of a period, except those of the campaigns `kept`; `instances` were in reach."""
        old = self.old.get(period.slot, {})
        stored = known_times((row["fetched_at"] for row in old.values()), self._warnings)
        if any(time > result.requested_at for time in stored):
            return
        new = {campaign_id: old[campaign_id] for campaign_id in kept}
        of_period = {
            **dict.fromkeys(CAMPAIGN_PERIODS.schema.names),
            **{"date_basis": str(period.date_basis), "period": period.name},
            **{"first_day": period.first_day, "last_day": period.last_day},
        }
        for item in result.items:
            row = {**of_period, "campaign_id": item.campaign_id, **item.metrics, "extra": item.extra}
            before = old.get(item.campaign_id, {})
            is_same = row == before | {"fetched_at": None}
            new[item.campaign_id] = before if is_same else row | {"fetched_at": result.requested_at}
        self._check(old, new, result)
        self._rows[period.slot] = new
        if period.name == MONTH and period.ends_a_month:
            self.fetched_months[period.first_day] = FetchedMonth(result.requested_at.date(), sorted(instances))

    def _check(self, old: Mapping[int, _Row], new: Mapping[int, _Row], result: ListResult) -> None:
        bad_rows = len(result.bad_rows)
        self._guard.check_bad_rows(bad_rows, total=result.total_items, subject="rows of this period are bad")
        schema = schema_of(campaign_performance_columns(self._metrics))
        tables = [pa.Table.from_pylist([*rows.values()], schema=schema) for rows in (old, new)]
        diff = diff_partitions(*tables, key=("campaign_id",), known_metrics=CAMPAIGN_METRICS)
        self._guard.check_diff(diff, bad_rows=bad_rows, rows="campaigns")

    def table(self) -> pa.Table:
        """Return all rows, sorted by key, with the requested metrics and those that older rows still have."""
        rows = [row for of_slot in self._rows.values() for row in of_slot.values()]
        rows.sort(key=itemgetter(*CAMPAIGN_PERIOD_KEY))
        table = pa.Table.from_pylist(rows, schema=CAMPAIGN_PERIODS.schema)
        others = [metric.column for metric in CAMPAIGN_METRICS if metric not in self._metrics]
        return table.drop_columns([name for name in others if table[name].null_count == table.num_rows])

    def ranges(self) -> set[tuple[date, date]]:
        """Return the first and the last days of all periods of the table."""
        of_rows = {(row["first_day"], row["last_day"]) for rows in self._rows.values() for row in rows.values()}
        return of_rows | {
            (first, first + timedelta(days=monthrange(first.year, first.month)[1] - 1)) for first in self.fetched_months
        }


class _ChangedMeanwhile(ReplacementRejected):
    """Another run has written the file since it was read."""


def _write(lake: Lake, rows: pa.Table, merge: _Merge) -> WriteResult:
    def check(_: object, found: pa.Table, __: pa.Table) -> None:
        if not found.equals(merge.stored.rows.select(found.column_names)):
            raise _ChangedMeanwhile

    metadata = {FETCHED_MONTHS: msgspec.json.encode(dict(sorted(merge.fetched_months.items()))).decode()}
    return lake.write_table(
        CAMPAIGN_PERIODS_TABLE, rows, metadata=metadata, replaces_metadata=True, check_replacement=check
    )


def _quarantine(lake: Lake, responses: Mapping[Period, _Response]) -> set[str]:
    """Write the bad rows of each response; return the paths of the files."""
    paths: set[str] = set()
    for period, (query, result) in responses.items():
        if result.bad_rows:
            text, day_range = query_text(query), (period.first_day, period.last_day)
            path = lake.quarantine.path_of_query(CAMPAIGN_PERIODS_TABLE, text, day_range)
            lake.quarantine.write(path, result.bad_rows, query=text)
            paths.add(path)
    return paths


def _remove_quarantined(lake: Lake, merge: _Merge, fetched: Set[tuple[date, date]], written: Set[str]) -> None:
    """Remove the bad rows of earlier windows, and of periods that were fetched again without any."""
    kept = merge.ranges() - fetched
    for file in lake.quarantine.files(CAMPAIGN_PERIODS_TABLE):
        if file.day_range not in kept and file.path not in written:
            lake.storage.remove(file.path)
