"""Fetch what the API totals for campaigns or accounts over whole periods, and merge it into the one file of a table.

What a campaign cost, how many people it reached, and how many posts it had do not add up over days: only a query for
exactly the period has them. By performance date, the periods are windows that end yesterday, the same number of days
before each, and calendar months. By post date, they are calendar months, which add up, because each post is in one.
"""

from calendar import monthrange
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from operator import itemgetter
from typing import Any

import anyio
import anyio.to_thread
import msgspec
import pyarrow as pa

from later_reporting_dagster.client import LaterClient, ListResult
from later_reporting_dagster.contract import DateBasis, Metric, PerformanceQuery
from later_reporting_dagster.contract.days import due_since, utc_now
from later_reporting_dagster.contract.query import group_by_url_length
from later_reporting_dagster.ingest.ingest import ingest_whole
from later_reporting_dagster.ingest.partition_writer import known_times
from later_reporting_dagster.ingest.progress import PartitionError, Progress, reason_of
from later_reporting_dagster.ingest.query_plan import query_text
from later_reporting_dagster.ingest.replacement import InDoubt, PartitionRows, WriteGuard, assign_rows
from later_reporting_dagster.lake import FileDamaged, Lake, LakeUnavailable, Partition, ReplacementRejected, WriteResult
from later_reporting_dagster.lake.coverage import MAX_CLOCK_ERROR
from later_reporting_dagster.lake.tables import (
    PUBLISHED_MONTH,
    RECORDED_MONTH,
    WINDOWS,
    PeriodsTable,
    RawTable,
    rows_by_group,
)

MONTHS = {RECORDED_MONTH: DateBasis.PERFORMANCE_DATE, PUBLISHED_MONTH: DateBasis.POST_DATE}
# The name of months by post date when there were no others.
_ONLY_MONTH = "month"
# The current month and those before it, which each run fetches again; older months are fetched like old days.
MONTHS_FETCHED_AGAIN = 3
# Metadata of the file: what was last fetched of each month since it ended. Rows show only when they changed.
FETCHED_MONTHS = {RECORDED_MONTH: "recorded_months", PUBLISHED_MONTH: "months"}
# Another run may write the file between reading and writing it; then the rows are merged again.
MAX_MERGES = 5

# The windows of each instance; all together have all.
WINDOWS_OF_INSTANCES = ("7d", "28d")

_Row = dict[str, Any]
# What a newer response replaces: a window by its name, whatever its days are; a month by its first day; of totals of an
# instance, also by that.
_Slot = tuple[str, date | None, str]


@dataclass(frozen=True, slots=True)
class Period:
    """The days of one query, and what the table calls them.

    Attributes:
        instance_ids: those of the query; empty for all that the credentials can read.
        subject: the only instance; empty for all together.
    """

    date_basis: DateBasis
    name: str
    first_day: date
    last_day: date
    instance_ids: tuple[str, ...] = ()
    subject: str = ""

    @property
    def slot(self) -> _Slot:
        return _slot(self.name, self.first_day, self.subject)

    def __str__(self) -> str:
        return f"{self.name} {self.first_day} to {self.last_day}{f' of {self.subject}' * bool(self.subject)}"


@dataclass(frozen=True, slots=True)
class FetchedMonth:
    """A fetch of a month that had ended, of all instances together: its day, and those in reach of it."""

    day: date
    instances: Collection[str]


@dataclass(frozen=True, slots=True)
class StoredPeriods:
    """The table as last written, and the last fetch of each month since it ended, by its name and first day."""

    rows: pa.Table
    fetched_months: Mapping[tuple[str, date], FetchedMonth] = field(default_factory=dict)


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
        fetched = stored.fetched_months.get((month.name, month.first_day))
        if fetched is None or fetched.day > latest or not {*instances} <= {*fetched.instances}:
            return True
        due = due_since(month.last_day, today=newest + timedelta(days=1), ages=ages)
        return due is not None and fetched.day < due

    found = [*months(start_date, newest)]
    newer = MONTHS_FETCHED_AGAIN * len(MONTHS)
    older = [month for month in found[newer:] if all_months or is_due(month)]
    return [*windows(newest), *found[:newer], *older]


def queries_of(
    table: PeriodsTable, periods: Sequence[Period], *, configured: tuple[str, ...], instances: Iterable[str]
) -> list[Period]:
    """Return periods with the instances of each query: all of campaigns; of accounts each, and all together.

    Of all together there are none if their ids do not fit one URL, because reach cannot be merged. Accounts have no
    months of posts published.
    """
    if not table.of.one_instance_per_query:
        return [replace(period, instance_ids=configured) for period in periods]
    instance_ids = tuple(instances)
    recorded = [period for period in periods if period.name != PUBLISHED_MONTH]
    months = [period for period in recorded if period.name == RECORDED_MONTH]
    of_each = [*(each for each in recorded if each.name in WINDOWS_OF_INSTANCES), *months[:MONTHS_FETCHED_AGAIN]]
    is_one_query = len(instance_ids) > 1 == len(group_by_url_length(instance_ids))
    return [
        *(replace(period, instance_ids=instance_ids) for period in recorded if is_one_query),
        *(replace(period, instance_ids=(name,), subject=name) for period in of_each for name in instance_ids),
    ]


def read_periods(lake: Lake, table: PeriodsTable) -> StoredPeriods:
    """Read the table; if its file does not exist or is damaged, it is empty."""
    with suppress(FileDamaged):
        rows = lake.read_table(table.name, schema=table.schema)
        metadata = lake.read_metadata(table.name)
        if rows is not None and metadata is not None:
            fetched: dict[tuple[str, date], FetchedMonth] = {}
            for name, key in FETCHED_MONTHS.items():
                of_kind = msgspec.json.decode(metadata.key_values.get(key, "{}"), type=dict[date, FetchedMonth])
                fetched |= {(name, first_day): month for first_day, month in of_kind.items()}
            return StoredPeriods(rows, fetched)
    return StoredPeriods(table.schema.empty_table())


def _slot(name: str, first_day: date, subject: str) -> _Slot:
    return name, first_day if name in MONTHS else None, subject


async def ingest_periods(periods: Sequence[Period], writer: "PeriodsWriter", *, client: LaterClient) -> None:
    """Fetch periods, each with one query, and replace their rows in the table.

    A period that fails keeps its rows. A response that was requested before the stored rows of its period replaces
    nothing.
    """
    writer.progress.partitions = len(periods)
    queries = {
        period: PerformanceQuery(
            start_date=period.first_day,
            end_date=period.last_day,
            date_basis=period.date_basis,
            instance_ids=period.instance_ids,
        )
        for period in periods
    }
    await ingest_whole(queries, writer, client=client)
    writer.progress.check_conservation()
    await anyio.to_thread.run_sync(writer.save)


@dataclass(frozen=True, slots=True)
class _Response:
    """What came for a period, the instances that were in reach of it, and the path for its bad rows."""

    result: ListResult
    rows: PartitionRows
    instances: Collection[str]
    bad_rows_path: str
    is_confirmed: bool


@dataclass(kw_only=True, eq=False)
class PeriodsWriter:
    """Replaces the rows of periods by the rules for the files of days; `save` writes the one file of the table.

    Attributes:
        stored: the table that it changes.
        listed: the instances in reach of a query without instances, as far as they are known.
        keeping: has an item if a stored row is left of what this run fetches.
        failed: the reason by period.
        rows: the whole table, once it is saved.
        written: None if no period could be fetched: then the file is left as it is.
    """

    periods: PeriodsTable
    lake: Lake
    stored: StoredPeriods
    guard: WriteGuard
    metrics: tuple[Metric, ...]
    progress: Progress
    listed: Collection[str] = ()
    keeping: set[str | None] = field(default_factory=set, init=False)
    failed: dict[str, str] = field(default_factory=dict, init=False)
    rows: pa.Table | None = field(default=None, init=False)
    written: WriteResult | None = field(default=None, init=False)
    _accepted: dict[Period, _Response] = field(default_factory=dict, init=False)
    _quarantined: set[str] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        self._fetched_months = {**self.stored.fetched_months}
        self._key_of = itemgetter(*self.table.key)
        # By key. A campaign that is kept in a window has the days of an earlier one.
        self._rows: dict[_Slot, dict[Hashable, _Row]] = {}
        for row in self.stored.rows.to_pylist():
            row["period"] = PUBLISHED_MONTH if row["period"] == _ONLY_MONTH else row["period"]
            slot = _slot(row["period"], row["first_day"], row.get("instance_id", ""))
            self._rows.setdefault(slot, {})[self._key_of(row)] = row

    @property
    def table(self) -> RawTable:
        return self.periods.of

    def stored_keys(self, period: Period) -> Set[Hashable]:
        return self._rows.get(period.slot, {}).keys()

    async def write(
        self,
        query: PerformanceQuery,
        result: ListResult,
        periods: Sequence[Period],
        *,
        kept: Set[Hashable],
        is_confirmed: bool = False,
    ) -> dict[Period, InDoubt]:
        """Accept a response for the only one of `periods`, or fail it; if it is in doubt, return why."""
        (period,) = periods
        (rows,) = assign_rows(query, result, [Partition(query.start_date)]).by_partition.values()
        rows.kept |= kept
        fates = Counter(received=result.total_items, quarantined=len(rows.bad_rows), failed=len(rows.items))
        in_doubt: dict[Period, InDoubt] = {}
        text = query_text(query)
        path = self.lake.quarantine.path_of_query(self.periods.name, text, (period.first_day, period.last_day))
        try:
            if rows.bad_rows:
                await anyio.to_thread.run_sync(self._quarantine, path, text, rows)
            self.guard.check_received(rows)
            self._replace(period, _Response(result, rows, query.instance_ids or self.listed, path, is_confirmed))
        except InDoubt as doubt:
            in_doubt[period] = doubt
        except (LakeUnavailable, ReplacementRejected) as error:
            await self.fail(periods, error)
        else:
            fates["written"] = fates.pop("failed")
        self.progress.oddities.update(result.oddities)
        self.progress.rows_by_fate.update(fates)
        return in_doubt

    async def fail(self, periods: Collection[Period], error: PartitionError) -> None:
        self.failed |= {str(period): reason_of(error) for period in periods}

    def _quarantine(self, path: str, query: str, rows: PartitionRows) -> None:
        self.lake.quarantine.write(path, rows.bad_rows, query=query)
        self._quarantined.add(path)

    def _replace(self, period: Period, response: _Response) -> None:
        """Replace the rows of a period, but for those that stay, unless they were requested later."""
        rows, requested_at = response.rows, response.result.requested_at
        old = self._rows.get(period.slot, {})
        times = known_times((row["fetched_at"] for row in old.values()), self.progress.warnings)
        if any(time > requested_at for time in times):
            self._accepted[period] = response
            return
        (new,) = rows_by_group(self.table, {period: rows.items}, metrics=self.metrics).values()
        stored = pa.Table.from_pylist([*old.values()], schema=new.schema)
        diff = self.guard.check_replacement(stored, new, rows, table=self.table, is_confirmed=response.is_confirmed)
        if diff.removed < diff.rows_before:
            self.keeping.add(None)
        self._accepted[period] = response
        replaced = {key: row for key, row in old.items() if key in rows.kept}
        of_period = {
            **dict.fromkeys(self.periods.schema.names),
            **{"date_basis": str(period.date_basis), "period": period.name},
            **{"first_day": period.first_day, "last_day": period.last_day},
        }
        for values in new.to_pylist():
            row, key = of_period | values, self._key_of(values)
            before = old.get(key, {})
            is_same = row == before | {"fetched_at": None}
            replaced[key] = before if is_same else row | {"fetched_at": requested_at}
        self._rows[period.slot] = replaced
        is_over = (period.last_day + timedelta(days=1)).day == 1
        if period.name in MONTHS and is_over and not period.subject:
            self._fetched_months[period.name, period.first_day] = FetchedMonth(
                requested_at.date(), sorted(response.instances)
            )

    def save(self) -> None:
        """Write the table, and remove the quarantine files that it replaces."""
        for _ in range(MAX_MERGES):
            self.progress.written, self.progress.failed = len(self._accepted), len(self.failed)
            if not self._accepted:
                return
            with suppress(_ChangedMeanwhile):
                self.rows = self._table()
                self.written = self._write(self.rows)
                self.progress.rows = self.rows.num_rows
                self._remove_quarantined()
                return
            self.stored = read_periods(self.lake, self.periods)
            self.__post_init__()
            responses, self._accepted = self._accepted, {}
            for period, response in responses.items():
                try:
                    self._replace(period, response)
                except ReplacementRejected as error:
                    self.failed[str(period)] = str(error)
        raise LakeUnavailable(
            f"other runs keep replacing {self.periods.name} in {self.lake.root}: run it again after them"
        )

    def _table(self) -> pa.Table:
        """Return all rows, sorted by key, with the requested metrics and those that older rows still have."""
        rows = [row for of_slot in self._rows.values() for row in of_slot.values()]
        rows.sort(key=itemgetter(*self.periods.key))
        table = pa.Table.from_pylist(rows, schema=self.periods.schema)
        others = [metric.column for metric in self.table.known_metrics if metric not in self.metrics]
        return table.drop_columns([name for name in others if table[name].null_count == table.num_rows])

    def _write(self, rows: pa.Table) -> WriteResult:
        def check(_: str, found: pa.Table, __: pa.Table) -> None:
            if not found.equals(self.stored.rows.select(found.column_names)):
                raise _ChangedMeanwhile

        fetched = sorted(self._fetched_months.items())
        metadata = {
            key: msgspec.json.encode(
                {first_day: month for (kind, first_day), month in fetched if kind == name}
            ).decode()
            for name, key in FETCHED_MONTHS.items()
        }
        return self.lake.write_table(
            self.periods.name, rows, metadata=metadata, replaces_metadata=True, check_replacement=check
        )

    def _remove_quarantined(self) -> None:
        """Remove the bad rows of earlier windows, and of periods that were fetched again without any."""
        known = {
            (row["period"], row.get("instance_id", ""), row["first_day"], row["last_day"])
            for rows in self._rows.values()
            for row in rows.values()
        } | {
            (name, "", first, first.replace(day=monthrange(first.year, first.month)[1]))
            for name, first in self._fetched_months
        }
        others = known - {(each.name, each.subject, each.first_day, each.last_day) for each in self._accepted}
        # Two kinds of month have the same days, but not the same query.
        kept = {(first, last) for _, _, first, last in others}
        replaced = {each.bad_rows_path for each in self._accepted.values()}
        for file in self.lake.quarantine.files(self.periods.name):
            is_replaced = file.path in replaced or file.day_range not in kept
            if is_replaced and file.path not in self._quarantined:
                self.lake.storage.remove(file.path)


class _ChangedMeanwhile(ReplacementRejected):
    """Another run has written the file since it was read."""
