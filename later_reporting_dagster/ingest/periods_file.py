"""The one file of a table of periods: its rows by period, and how those of a fetch are merged into it."""

from calendar import monthrange
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from later_reporting_dagster.contract import BadRow, Metric, PerformanceQuery
from later_reporting_dagster.contract.days import utc_now
from later_reporting_dagster.contract.instances import Instances
from later_reporting_dagster.ingest.daily_files import quarantine_first
from later_reporting_dagster.ingest.decide import (
    AskAgain,
    Decision,
    Newer,
    Policy,
    Received,
    Reject,
    Stored,
    Write,
    decide,
    replaces_quarantine,
)
from later_reporting_dagster.ingest.progress import FailedSlice, SliceOutcome, SliceResult, WrittenSlice, outcome_of
from later_reporting_dagster.ingest.query_plan import query_text
from later_reporting_dagster.ingest.slices import MONTHS, Period, PeriodKey, period_key
from later_reporting_dagster.lake import Lake, WriteResult
from later_reporting_dagster.lake.file_metadata import REFUSED_METRICS, FetchedMonth
from later_reporting_dagster.lake.lake import StoredFile
from later_reporting_dagster.lake.tables import FETCHED_MONTHS, PUBLISHED_MONTH, RECORDED_MONTH, PeriodsTable, RawTable

# The name of months by post date when there were no others.
_ONLY_MONTH = "month"


# Metrics that the API refused are requested again after so many days.
REFUSAL_DAYS = 28

_Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class StoredPeriods:
    """The table as last written.

    Attributes:
        fetched_months: the last fetch of each month since it ended, by its name and first day.
        refused: the metrics that the API refused, with the day of the refusal.
    """

    rows: pa.Table
    fetched_months: Mapping[tuple[str, date], FetchedMonth] = field(default_factory=dict)
    refused: Mapping[str, date] = field(default_factory=dict)


def read_periods(lake: Lake, table: PeriodsTable) -> StoredPeriods:
    """Read the table; if its file does not exist or its rows are damaged, it is empty.

    If only its metadata are damaged, its rows stay, and all months are due.
    """
    return _stored_periods(lake.read_files(table.name, [None])[None], table)


def _stored_periods(file: StoredFile, table: PeriodsTable) -> StoredPeriods:
    if file.error is not None:
        raise file.error
    rows, metadata = file.intact_rows(table.schema), file.metadata
    if rows is None:
        return StoredPeriods(table.schema.empty_table())
    of_kinds = {RECORDED_MONTH: metadata.recorded_months, PUBLISHED_MONTH: metadata.months}
    fetched = {(name, day): month for name, months in of_kinds.items() for day, month in (months or {}).items()}
    return StoredPeriods(rows, fetched, metadata.refused_metrics)


def metrics_to_ask(metrics: Iterable[Metric], refused: Mapping[str, date], *, today: date) -> tuple[Metric, ...]:
    """Return metrics without those that were refused in the last days; a day in the future is that of a wrong clock."""

    def is_refused(metric: Metric) -> bool:
        day = refused.get(metric.api_name)
        return day is not None and timedelta(0) <= today - day < timedelta(days=REFUSAL_DAYS)

    return tuple(metric for metric in metrics if not is_refused(metric))


class _Accepted(NamedTuple):
    """A response for a period that is to replace rows, unless another run has written the table meanwhile."""

    received: Received
    query: PerformanceQuery
    policy: Policy


@dataclass(eq=False, slots=True)
class _Merged:
    """The stored table with what replaces some of its periods."""

    rows: dict[PeriodKey, dict[Hashable, _Row]]
    months: dict[tuple[str, date], FetchedMonth]
    results: dict[Period, SliceResult] = field(default_factory=dict)


@dataclass(kw_only=True, eq=False)
class PeriodsFile:
    """The one file of a table of periods. The rows of accepted periods are merged and written by `save`.

    Attributes:
        stored: the table as it was read before the fetch.
        metrics: those of the settings.
        asked: those of them that are requested: not what the API refused lately, because finding what it accepts takes
            many requests.
        instances: those of this step.
        failed: the reason by period.
        rows: the whole table, once it is saved.
        written: None if no period could be fetched: then the file is left as it is.
        has_wrong_clock: whether a stored time cannot be true.
    """

    periods: PeriodsTable
    lake: Lake
    stored: StoredPeriods
    metrics: tuple[Metric, ...]
    instances: Instances = Instances()  # noqa: RUF009 - frozen
    failed: dict[str, str] = field(default_factory=dict, init=False)
    rows: pa.Table | None = field(default=None, init=False)
    written: WriteResult | None = field(default=None, init=False)
    has_wrong_clock: bool = field(default=False, init=False)
    asked: tuple[Metric, ...] = field(default=(), init=False)
    _refused: dict[str, date] = field(default_factory=dict, init=False)
    _accepted: dict[Period, _Accepted] = field(default_factory=dict, init=False)
    _quarantined: set[str] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        self._rows = _rows_by_period(self.stored, self.periods)
        self.asked = metrics_to_ask(self.metrics, self.stored.refused, today=utc_now().date())
        asked = {metric.api_name for metric in self.asked}
        self._refused = {name: day for name, day in self.stored.refused.items() if name not in asked}

    @property
    def table(self) -> RawTable:
        return self.periods.by_day

    def stored_rows(self, period: Period, schema: pa.Schema) -> pa.Table:
        """Return the rows of the period as they were before the fetch."""
        return pa.Table.from_pylist([*self._rows.get(period.key, {}).values()], schema=schema)

    def store(
        self, received: Mapping[Period, Received], query: PerformanceQuery, policy: Policy
    ) -> dict[Period, SliceOutcome]:
        """Decide about each period; `save` writes what is accepted."""
        refused = [metric.api_name for metric in self.asked if metric not in query.metrics]
        outcomes: dict[Period, SliceOutcome] = {}
        for period, new in received.items():
            self._refused |= dict.fromkeys(refused, new.requested_at.date())
            old = self._rows.get(period.key, {})
            decision = decide(new, self._stored_slice(old, new, policy), policy)
            if new.bad_rows:
                decision = quarantine_first(self.lake, self._bad_rows_path(query), decision, new, query)
                if replaces_quarantine(decision):
                    self._quarantined.add(self._bad_rows_path(query))
            if isinstance(decision, Write | Newer):
                self._accepted[period] = _Accepted(new, query, policy)
            outcomes[period] = self._outcome(period, decision, new, old)
        return outcomes

    def _outcome(self, period: Period, decision: Decision, new: Received, old: Mapping[Hashable, _Row]) -> SliceOutcome:
        is_newer = isinstance(decision, Newer)
        url, rows = self.lake.storage.location(self.periods.name), len(old) if is_newer else new.rows.num_rows
        return outcome_of(period, decision, new, WriteResult(url, rows, 0, "", changed=not is_newer))

    def record_failures(self, failed: Iterable[FailedSlice], at: datetime) -> None:
        """Do nothing: `coverage` has files of days only."""

    def quarantine_unassigned(self, bad_rows: Sequence[BadRow], query: PerformanceQuery) -> None:
        """Store the bad rows of a query; `save` removes those that are replaced by none."""
        if bad_rows:
            path = self._bad_rows_path(query)
            self.lake.quarantine.write(path, bad_rows, query=query_text(query))
            self._quarantined.add(path)

    def _bad_rows_path(self, query: PerformanceQuery) -> str:
        days = query.start_date, query.end_date
        return self.lake.quarantine.path_of_query(self.periods.name, query_text(query), days)

    def _stored_slice(self, old: Mapping[Hashable, _Row], received: Received, policy: Policy) -> Stored:
        times = [row["fetched_at"] for row in old.values()]
        self.has_wrong_clock |= any(time > policy.latest for time in times)
        return Stored(rows=pa.Table.from_pylist([*old.values()], schema=received.rows.schema), requested_at=times)

    def save(self) -> list[SliceResult]:
        """Merge what is accepted into the table, write it, and remove the quarantine files that it replaces.

        Returns the result of each accepted period that has not failed: one may be written in part, and fail because of
        what its response has nothing of. It is decided about again, because another run may have written the
        table meanwhile; what becomes doubtful by that fails, and is asked for by the next run.
        """
        if not self._accepted:
            return []
        merged = _Merged({}, {})

        def merge(file: StoredFile) -> tuple[pa.Table, Mapping[str, str]]:
            nonlocal merged
            merged = self._merge(file)
            return self._table(merged.rows), _metadata(merged.months, self._refused)

        self.rows, self.written = self.lake.update_table(self.periods.name, merge, replaces_metadata=True)
        self._remove_quarantined(merged)
        return [result for period, result in merged.results.items() if str(period) not in self.failed]

    def _merge(self, file: StoredFile) -> _Merged:
        """Decide about each accepted period by what is stored now."""
        stored = _stored_periods(file, self.periods)
        merged = _Merged(_rows_by_period(stored, self.periods), {**stored.fetched_months})
        for period, (received, query, policy) in self._accepted.items():
            old = merged.rows.get(period.key, {})
            decision = decide(received, self._stored_slice(old, received, policy), policy)
            outcome = self._outcome(period, decision, received, old)
            if isinstance(outcome, AskAgain):
                error, rows = Reject(outcome.reason, outcome.text), received.rows.num_rows
                outcome = FailedSlice(slice=period, error=error, rows=rows)
            merged.results[period] = outcome
            if isinstance(decision, Write):
                merged.rows[period.key] = self._merged_rows(period, old, received)
                is_over = (period.last_day + timedelta(days=1)).day == 1
                is_of_total = period.subject in ("", self.instances.only) and str(period) not in self.failed
                if period.name in MONTHS and is_over and is_of_total:
                    instances = sorted(query.instance_ids or self.instances.to_fetch)
                    merged.months[period.name, period.first_day] = FetchedMonth(received.requested_at.date(), instances)
        return merged

    def _merged_rows(self, period: Period, old: Mapping[Hashable, _Row], received: Received) -> dict[Hashable, _Row]:
        """Return the rows of a period: those received, and those that stay."""
        replaced = {key: row for key, row in old.items() if key in received.kept}
        of_period = {
            **dict.fromkeys(self.periods.schema.names),
            **{"date_basis": str(period.date_basis), "period": period.name},
            **{"first_day": period.first_day, "last_day": period.last_day},
        }
        for values in received.rows.to_pylist():
            row, key = of_period | values, itemgetter(*self.table.key)(values)
            if "instance_ids" in row and not period.subject:
                row["instance_ids"] = sorted(period.instance_ids)
            before = old.get(key, {})
            is_same = row == before | {"fetched_at": None}
            replaced[key] = before if is_same else row | {"fetched_at": received.requested_at}
        return replaced

    def _table(self, by_period: Mapping[PeriodKey, Mapping[Hashable, _Row]]) -> pa.Table:
        """Return all rows, sorted by key, with the requested metrics and those that older rows still have.

        Common totals go once all of their instances but one are retired: those of the one take their place.
        """
        is_of_one = self.instances.only is not None and not self.instances.not_expected
        rows = [row for of_period in by_period.values() for row in of_period.values()]
        rows = [row for row in rows if not (is_of_one and row.get("scope") == "all")]
        rows.sort(key=itemgetter(*self.periods.key))
        table = pa.Table.from_pylist(rows, schema=self.periods.schema)
        others = [metric.column for metric in self.table.known_metrics if metric not in self.metrics]
        return table.drop_columns([name for name in others if table[name].null_count == table.num_rows])

    def _remove_quarantined(self, merged: _Merged) -> None:
        """Remove the bad rows of earlier windows, and of periods that were fetched again without any."""
        known = {
            (row["period"], row.get("instance_id", ""), row["first_day"], row["last_day"])
            for rows in merged.rows.values()
            for row in rows.values()
        }
        known |= {
            (name, "", first, first.replace(day=monthrange(first.year, first.month)[1]))
            for name, first in merged.months
        }
        decided = {period: each for period, each in merged.results.items() if isinstance(each, WrittenSlice)}
        others = known - {(each.name, each.subject, each.first_day, each.last_day) for each in decided}
        # Two kinds of month have the same days, but not the same query.
        kept = {(first, last) for _, _, first, last in others}
        written = [period for period, each in decided.items() if not each.is_newer]
        replaced = {self._bad_rows_path(self._accepted[period].query) for period in written}
        for file in self.lake.quarantine.files(self.periods.name):
            is_replaced = file.path in replaced or file.day_range not in kept
            if is_replaced and file.path not in self._quarantined:
                self.lake.storage.remove(file.path)


def _rows_by_period(stored: StoredPeriods, table: PeriodsTable) -> dict[PeriodKey, dict[Hashable, _Row]]:
    """Return the rows by period and key. A campaign that is kept in a window has the days of an earlier one."""
    key_of, found = itemgetter(*table.by_day.key), dict[PeriodKey, dict[Hashable, _Row]]()
    for row in stored.rows.to_pylist():
        row["period"] = PUBLISHED_MONTH if row["period"] == _ONLY_MONTH else row["period"]
        key = period_key(row["period"], row["first_day"], row.get("instance_id", ""))
        found.setdefault(key, {})[key_of(row)] = row
    return found


def _metadata(months: Mapping[tuple[str, date], FetchedMonth], refused: Mapping[str, date]) -> dict[str, str]:
    key_values: dict[str, Mapping[Any, Any]] = {
        key: {first_day: month for (kind, first_day), month in sorted(months.items()) if kind == name}
        for name, key in FETCHED_MONTHS.items()
    }
    if refused:
        key_values[REFUSED_METRICS] = dict(sorted(refused.items()))
    return {key: msgspec.json.encode(value).decode() for key, value in key_values.items()}
