"""Fetch what the API totals for campaigns or accounts over whole periods, and merge it into the one file of a table.

What a campaign cost, how many people it reached, and how many posts it had do not add up over days: only a query for
exactly the period has them. By performance date, the periods are windows that end yesterday, the same number of days
before each, and calendar months. By post date, they are calendar months, which add up, because each post is in one.
"""

import math
from calendar import monthrange
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from operator import itemgetter
from typing import Any, Literal

import anyio
import anyio.to_thread
import msgspec
import pyarrow as pa

from later_reporting_dagster.client import LaterClient
from later_reporting_dagster.contract import BadRow, DateBasis, Metric, PerformanceQuery
from later_reporting_dagster.contract.days import due_since, utc_now
from later_reporting_dagster.contract.query import group_by_url_length
from later_reporting_dagster.ingest.ingest import ingest_whole
from later_reporting_dagster.ingest.partition_writer import PartitionWriter, WriteRules
from later_reporting_dagster.ingest.progress import FailedPartition, PartitionResult, Progress
from later_reporting_dagster.ingest.query_plan import query_text
from later_reporting_dagster.ingest.replacement import WriteGuard
from later_reporting_dagster.lake import FileDamaged, Lake, LakeUnavailable, ReplacementRejected, WriteResult
from later_reporting_dagster.lake.coverage import MAX_CLOCK_ERROR
from later_reporting_dagster.lake.lake import WriteOutcome
from later_reporting_dagster.lake.tables import (
    FETCHED_MONTHS,
    PUBLISHED_MONTH,
    RECORDED_MONTH,
    WINDOWS,
    PeriodsTable,
    RawTable,
)

MONTHS = {RECORDED_MONTH: DateBasis.PERFORMANCE_DATE, PUBLISHED_MONTH: DateBasis.POST_DATE}
# The name of months by post date when there were no others.
_ONLY_MONTH = "month"
# The current month and those before it, which each run fetches again; older months are fetched like old days.
MONTHS_FETCHED_AGAIN = 3
# Another run may write the file between reading and writing it; then the rows are merged again.
MAX_MERGES = 5

# The windows of each instance; all together have all.
WINDOWS_OF_INSTANCES = ("7d", "28d")

_Row = dict[str, Any]
_Fate = Literal["written", "newer", "failed"]
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
    def day(self) -> date:
        return self.first_day

    @property
    def instance_id(self) -> None:
        """None: the rows of its query are all for it."""

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


async def ingest_periods(
    periods: Sequence[Period], file: "PeriodsFile", *, client: LaterClient, guard: WriteGuard, progress: Progress
) -> None:
    """Fetch periods, each with one query, and replace their rows in the table.

    A period that fails keeps its rows. A response that was requested before the stored rows of its period replaces
    nothing.
    """
    progress.partitions = len(periods)
    queries = {
        period: PerformanceQuery(
            start_date=period.first_day,
            end_date=period.last_day,
            date_basis=period.date_basis,
            instance_ids=period.instance_ids,
        )
        for period in periods
    }
    sender, results = anyio.create_memory_object_stream[PartitionResult](math.inf)
    with results:
        writer = PartitionWriter(store=file, guard=guard, metrics=file.metrics, results=sender, progress=progress)
        try:
            with sender:
                await ingest_whole(queries, writer, client=client)
        finally:  # what failed before the route was refused is reported, too
            async for result in results:
                progress.add(result)
                if isinstance(result, FailedPartition):
                    file.failed[str(result.partition)] = result.reason
    progress.check_conservation()
    await anyio.to_thread.run_sync(file.save, progress)


@dataclass(kw_only=True, eq=False)
class PeriodsFile:
    """The one file of a table of periods, whose rows are replaced in memory; `save` writes it.

    Attributes:
        stored: the table that it changes.
        listed: the instances in reach of a query without instances, as far as they are known.
        failed: the reason by period.
        rows: the whole table, once it is saved.
        written: None if no period could be fetched: then the file is left as it is.
    """

    periods: PeriodsTable
    lake: Lake
    stored: StoredPeriods
    metrics: tuple[Metric, ...]
    listed: Collection[str] = ()
    failed: dict[str, str] = field(default_factory=dict, init=False)
    rows: pa.Table | None = field(default=None, init=False)
    written: WriteResult | None = field(default=None, init=False)
    _accepted: dict[Period, tuple[pa.Table, WriteRules, _Fate]] = field(default_factory=dict, init=False)
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

    def stored_rows(self, period: Period, schema: pa.Schema) -> pa.Table:
        return pa.Table.from_pylist([*self._rows.get(period.slot, {}).values()], schema=schema)

    def quarantine(self, bad_rows: Sequence[BadRow], query: PerformanceQuery, _: Period | None) -> None:
        if bad_rows:  # else `save` removes those that were stored
            path = self._bad_rows_path(query)
            self.lake.quarantine.write(path, bad_rows, query=query_text(query))
            self._quarantined.add(path)

    def write_all(self, rows: Mapping[Period, pa.Table], rules: WriteRules) -> dict[Period, WriteOutcome]:
        outcomes: dict[Period, WriteOutcome] = {}
        for period, new in rows.items():
            outcome = outcomes[period] = self._replace(period, new, rules)
            if isinstance(outcome, WriteResult):
                self._accepted[period] = new, rules, "written" if outcome.changed else "newer"
        return outcomes

    def record(self, results: Sequence[PartitionResult], at: datetime) -> None:
        """Do nothing: `coverage` has files of days only."""

    def _bad_rows_path(self, query: PerformanceQuery) -> str:
        days = query.start_date, query.end_date
        return self.lake.quarantine.path_of_query(self.periods.name, query_text(query), days)

    def _replace(self, period: Period, new: pa.Table, rules: WriteRules) -> WriteOutcome:
        """Replace the rows of a period, but for those that stay, unless they were requested later."""
        old, kept = self._rows.get(period.slot, {}), rules.received[period].kept
        url = self.lake.storage.location(self.periods.name)
        if rules.is_newer(period, [row["fetched_at"] for row in old.values()]):
            return WriteResult(url, len(old), 0, "", changed=False)
        try:
            rules.check_replacement(period, self.stored_rows(period, new.schema), new)
        except ReplacementRejected as rejection:
            return rejection
        replaced = {key: row for key, row in old.items() if key in kept}
        of_period = {
            **dict.fromkeys(self.periods.schema.names),
            **{"date_basis": str(period.date_basis), "period": period.name},
            **{"first_day": period.first_day, "last_day": period.last_day},
        }
        for values in new.to_pylist():
            row, key = of_period | values, self._key_of(values)
            before = old.get(key, {})
            is_same = row == before | {"fetched_at": None}
            replaced[key] = before if is_same else row | {"fetched_at": rules.requested_at}
        self._rows[period.slot] = replaced
        is_over = (period.last_day + timedelta(days=1)).day == 1
        if period.name in MONTHS and is_over and not period.subject:
            instances = sorted(rules.query.instance_ids or self.listed)
            self._fetched_months[period.name, period.first_day] = FetchedMonth(rules.requested_at.date(), instances)
        return WriteResult(url, len(replaced), 0, "", changed=True)

    def save(self, progress: Progress) -> None:
        """Write the table, and remove the quarantine files that it replaces.

        What is accepted is decided again if another run has written the table meanwhile.
        """
        for _ in range(MAX_MERGES):
            if not self._accepted:
                return
            with suppress(_ChangedMeanwhile):
                self.rows = self._table()
                self.written = self._write(self.rows)
                self._remove_quarantined()
                return
            self.stored = read_periods(self.lake, self.periods)
            self.__post_init__()
            accepted, self._accepted = self._accepted, {}
            for period, (new, rules, fate) in accepted.items():
                if isinstance(outcome := self.write_all({period: new}, rules)[period], Exception):
                    self.failed[str(period)] = str(outcome)
                now = self._accepted[period][2] if period in self._accepted else "failed"
                progress.move(fate, now, rows=len(rules.received[period].items))
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
        replaced = {self._bad_rows_path(rules.query) for _, rules, _ in self._accepted.values()}
        for file in self.lake.quarantine.files(self.periods.name):
            is_replaced = file.path in replaced or file.day_range not in kept
            if is_replaced and file.path not in self._quarantined:
                self.lake.storage.remove(file.path)


class _ChangedMeanwhile(ReplacementRejected):
    """Another run has written the file since it was read."""
