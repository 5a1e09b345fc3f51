"""Whether the rows of a response replace the stored ones: one function of values, without I/O.

A slice is what is decided and replaced together: the file of a day and instance, or the rows of a period.
"""

from collections.abc import Callable, Hashable, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import pyarrow as pa

from later_reporting_dagster.contract import METRICS, BadRow, Metric
from later_reporting_dagster.contract.metrics import CAMPAIGNS_COST
from later_reporting_dagster.lake import LakeUnavailable
from later_reporting_dagster.lake.parquet_file import content_hash_of, with_columns
from later_reporting_dagster.lake.tables import POST_KEY, RawTable

# Small slices easily lose a large share of their rows or metric values: below the minimum, which applies to rows and to
# metric values separately, a second response is enough for lost rows, and lost values are none.
MIN_ROWS_TO_JUDGE = 20
# The failure of a run puts asset, days and instances into the command. Reasons have none, so that equal ones are one.
ALLOW_ROW_LOSS_COMMAND = "`later-reporting backfill --allow-row-loss`"
ALLOW_ROW_LOSS = f"{ALLOW_ROW_LOSS_COMMAND}, or with allow_row_loss: true in the run config"
# Why it is not sure that stored rows are gone.
NOTHING_LEFT = "no stored row would be left of what this run fetches of it"
NOT_LISTED = "the API does not list the instance"
NOT_SURE = "a second response does not say that there are none"
NOT_CONFIRMED = "no second response says the same"
NO_CAMPAIGNS = "no day or period of this run has campaigns of it"


class Reason(StrEnum):
    """Why stored rows stay."""

    LAKE = "the lake cannot be read or written"
    BAD_ROWS = "more rows of the response are bad than the limit allows; they are in quarantine"
    UNREADABLE = "most rows of the slice, or most values of one of its metrics, cannot be read"
    RANGE = "posts of the first and last day of a range may be missing: the API's days are not those of UTC"
    ROW_LOSS = "the slice would lose more rows than the limit allows"
    VALUES = "the slice would lose all of its metric values"
    # Of these, it is not sure that stored rows are gone.
    WOULD_EMPTY = "the stored rows of the slice would be replaced by none"
    UNPLACED = "rows that are missing may be among those without a day or an instance"


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteLimits:
    """Limits on what a response may change without confirmation by the user.

    Attributes:
        max_row_loss_percent: how many percent of a slice's rows may be removed; at 100, any loss is accepted.
        max_bad_rows_percent: percentage of rows that may be bad; 100 for any.
    """

    max_row_loss_percent: int = 50
    max_bad_rows_percent: int = 100

    @property
    def accepts_any_loss(self) -> bool:
        return self.max_row_loss_percent == 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What is allowed of a slice.

    Attributes:
        table: says what identifies a row, which metrics there are, and what to call the rows.
        is_confirmed: whether a second response also lacks the rows. It confirms the loss of few rows, and of no others.
        latest: stored times after it are those of a clock that was wrong.
    """

    table: RawTable
    limits: WriteLimits
    latest: datetime
    is_confirmed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """What a response has for a slice.

    Attributes:
        requested_at: in milliseconds, as it is stored, so that an equal time is not a later one.
        bad_rows: those that cannot be true, for the quarantine.
        unplaced: how many bad rows, without a day or an instance, may be of this slice.
        kept: the keys whose stored row stays: the response has several values for them, or was not asked for them.
        problem: why the rows must not replace stored ones, whatever these are.
    """

    rows: pa.Table
    requested_at: datetime
    bad_rows: Sequence[BadRow] = ()
    unplaced: int = 0
    kept: Set[Hashable] = frozenset()
    problem: "Reject | None" = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What is stored of a slice.

    Attributes:
        rows: with all stored columns; None if there is no file, or if it cannot be read as one of this table.
        content_hash: what the metadata of its file say; empty if they say nothing, or if it has no file of its own.
        requested_at: when the rows, and equal responses of other runs, were requested.
        error: why it cannot be read now.
    """

    rows: pa.Table | None = None
    content_hash: str = ""
    requested_at: Sequence[datetime] = ()
    error: LakeUnavailable | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RowDiff:
    """The difference between the stored and the new rows of a slice.

    Attributes:
        restated: rows whose key is in both tables, with a different value in any column but `extra`.
        values_before: non-null metric values in the old table, of the metrics whose column both tables have.
        values_after: non-null values in the new table, of those metrics that have a value in the old table.
    """

    rows_before: int
    rows_after: int
    added: int
    removed: int
    restated: int
    values_before: int
    values_after: int


@dataclass(frozen=True, slots=True)
class Write:
    """The rows replace what is stored. Without a readable file, there is no diff."""

    rows: pa.Table
    content_hash: str
    diff: RowDiff | None = None


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The same rows are stored; maybe of a response that was requested later."""

    rows: pa.Table
    is_newer: bool = False


@dataclass(frozen=True, slots=True)
class Newer:
    """What is stored was requested later."""


@dataclass(frozen=True, slots=True)
class AskAgain:
    """The response lacks stored rows, and it is not sure that they are gone: a second response decides."""

    reason: Reason
    text: str


@dataclass(frozen=True, slots=True)
class Reject:
    """The stored rows stay; the text says why, and what to do."""

    reason: Reason
    text: str


Decision = Write | Unchanged | Newer | AskAgain | Reject


def replaces_quarantine(decision: Decision) -> bool:
    """Return whether the bad rows of the response replace those in quarantine, which belong to the newest response."""
    return not (isinstance(decision, Newer) or (isinstance(decision, Unchanged) and decision.is_newer))


def decide(received: Received, stored: Stored, policy: Policy) -> Decision:
    """Return what becomes of a slice. The rules are in the order of the table in tests/ingest/test_decide.py."""
    if stored.error is not None:
        return Reject(Reason.LAKE, str(stored.error))
    bad, good = len(received.bad_rows), received.rows.num_rows
    too_many = too_many_bad_rows(policy.limits, bad, total=good + bad, subject="rows of this partition are bad")
    if (rejected := too_many or received.problem) is not None:
        return rejected
    if stored.rows is None:
        return Write(received.rows, content_hash_of(received.rows))
    new = received.rows
    if received.kept:
        new = with_stored_rows(new, stored.rows, received.kept, policy.table)
    content_hash = content_hash_of(new)
    is_newer = any(received.requested_at < time <= policy.latest for time in stored.requested_at)
    # Damage is looked at before the time: rows that something else has altered are replaced by an older response, too.
    if content_hash == stored.content_hash:
        if stored.rows.equals(new) or content_hash_of(stored.rows) == content_hash:
            return Unchanged(new, is_newer)
    elif is_newer:
        return Newer()
    diff = _diff_of_judged_rows(stored.rows, new, received.kept, policy.table)
    is_silent = has_results(stored.rows, policy.table) and not has_results(new, policy.table)
    return _objection(diff, received, policy, is_silent=is_silent) or Write(new, content_hash, diff)


def _objection(diff: RowDiff, received: Received, policy: Policy, *, is_silent: bool) -> Reject | AskAgain | None:
    """Return why the stored rows stay, if too many would go, or maybe wrongly.

    `is_silent`: whether the stored rows have results, and the new ones have none.
    """
    limits, table = policy.limits, policy.table
    if limits.accepts_any_loss:
        return None
    # An object of nulls is how an empty answer to a query for totals looks. No second one confirms it.
    if table.one_instance_per_query and diff.rows_after and diff.values_before and not diff.values_after:
        return AskAgain(
            Reason.VALUES,
            f"{diff.values_before} values are stored, and the response has none: nothing was replaced. If they were"
            f" really deleted, accept it with {ALLOW_ROW_LOSS}",
        )
    if (rejected := too_much_lost(limits, diff, bad_rows=len(received.bad_rows), entity=table.rows)) is not None:
        return rejected
    # What the API totals for an account that it has no posts of is a row of zeros.
    is_empty = is_silent if table.one_instance_per_query and diff.rows_after else diff.removed and not diff.rows_after
    if is_empty and not policy.is_confirmed:
        return would_empty(NOT_SURE)
    if diff.rows_before > 1 and _loses_too_many(limits, diff) and not policy.is_confirmed:
        return AskAgain(
            Reason.ROW_LOSS,
            f"{_rows_left(diff, table.rows)}: nothing was replaced, because {NOT_CONFIRMED}. If the others were really"
            f" deleted, accept it with {ALLOW_ROW_LOSS}",
        )
    if diff.removed and received.unplaced:
        return AskAgain(
            Reason.UNPLACED,
            f"{diff.removed} stored {table.rows} are not in the response, but may be among its {received.unplaced}"
            " rows without a day or an instance: nothing was replaced. If they were really deleted, accept it with"
            f" {ALLOW_ROW_LOSS}",
        )
    return None


def would_empty(why: str) -> AskAgain:
    return AskAgain(
        Reason.WOULD_EMPTY,
        f"rows are stored, and the response has none: nothing was replaced, because {why}. If they were really"
        f" deleted, accept it with {ALLOW_ROW_LOSS}",
    )


def silent_instances(names: Sequence[str], why: str) -> AskAgain:
    return AskAgain(
        Reason.WOULD_EMPTY,
        f"campaigns of {', '.join(names)} are stored, and the response has none: these stay, because {why}. If they"
        f" were really deleted, accept it with {ALLOW_ROW_LOSS}",
    )


def too_much_lost(limits: WriteLimits, diff: RowDiff, *, bad_rows: int = 0, entity: str = "posts") -> Reject | None:
    """Reject the loss of too many rows, or of all metric values but not of the rows.

    Rows and metric values are judged if at least `MIN_ROWS_TO_JUDGE` of them are stored.
    """
    before, after = diff.rows_before, diff.rows_after
    if before >= MIN_ROWS_TO_JUDGE and _loses_too_many(limits, diff):
        and_bad = f" and {bad_rows} bad rows" * bool(bad_rows)
        reason = Reason.ROW_LOSS
        problem = f"{_rows_left(diff, entity)}{and_bad}"
    elif after and diff.values_before >= MIN_ROWS_TO_JUDGE and not diff.values_after:
        reason = Reason.VALUES
        problem = (
            f"the {before} stored {entity} have {diff.values_before} metric values, and the {after} {entity} of the"
            " response have none of the same metrics"
        )
    else:
        return None
    return Reject(
        reason,
        f"{problem}: nothing was replaced. Materialize the partition again, because the response may have been"
        f" wrong. If the next response is the same and is right, accept it with {ALLOW_ROW_LOSS}",
    )


def _loses_too_many(limits: WriteLimits, diff: RowDiff) -> bool:
    return diff.removed * 100 > diff.rows_before * limits.max_row_loss_percent


def _rows_left(diff: RowDiff, entity: str) -> str:
    before = diff.rows_before
    return f"{before} {entity} are stored, and the response has {before - diff.removed} of them"


def too_many_bad_rows(limits: WriteLimits, bad_rows: int, *, total: int, subject: str) -> Reject | None:
    if bad_rows * 100 <= total * limits.max_bad_rows_percent:
        return None
    return Reject(
        Reason.BAD_ROWS,
        f"{bad_rows} of {total} {subject}: nothing was replaced, and the bad rows are in quarantine. List them"
        " with `later-reporting quarantine`; to write the other rows, raise LATER_MAX_BAD_ROWS_PERCENT"
        f" (max_bad_rows_percent), now {limits.max_bad_rows_percent}",
    )


def _diff_of_judged_rows(old: pa.Table, new: pa.Table, kept: Set[Hashable], table: RawTable) -> RowDiff:
    """Compare without the rows of kept keys: they would hide what is lost of the others."""
    if kept:
        old, new = (_select(rows, table, lambda key: key not in kept) for rows in (old, new))
    return diff_rows(old, new, key=table.key, known_metrics=table.known_metrics)


def diff_rows(
    old: pa.Table, new: pa.Table, *, key: Sequence[str] = POST_KEY, known_metrics: tuple[Metric, ...] = METRICS
) -> RowDiff:
    """Return what changes when the rows `old` are replaced by `new`.

    Only columns that both have are compared: a metric that is newly requested, or no longer requested, is no change.
    Nor is one among the unknown fields of `extra`.
    """
    common = [name for name in new.column_names if name in old.column_names and name != "extra"]
    before, after = (_by_key(rows.select(common), key) for rows in (old, new))
    in_both = before.keys() & after.keys()
    # What was paid may be that of all time: it does not show that there are results.
    known = {each.column for each in known_metrics if each is not CAMPAIGNS_COST}.intersection(common)
    had_values = [name for name in known if _values(old, name)]
    return RowDiff(
        rows_before=old.num_rows,
        rows_after=new.num_rows,
        added=len(after) - len(in_both),
        removed=len(before) - len(in_both),
        restated=sum(before[row_key] != after[row_key] for row_key in in_both),
        values_before=sum(_values(old, name) for name in had_values),
        values_after=sum(_values(new, name) for name in had_values),
    )


def _by_key(rows: pa.Table, key: Sequence[str]) -> dict[Hashable, tuple[object, ...]]:
    values = zip(*(column.to_pylist() for column in rows.columns), strict=True)
    return dict(zip(keys_of(rows, key), values, strict=True))


def _values(rows: pa.Table, column: str) -> int:
    return int(rows.num_rows - rows[column].null_count)


def has_results(rows: pa.Table, table: RawTable) -> bool:
    """Return whether any metric of any row is neither null nor 0."""
    columns = [metric.column for metric in table.known_metrics if metric.column in rows.column_names]
    return any(any(rows[name].to_pylist()) for name in columns)


def keys_of(rows: pa.Table, key: Sequence[str]) -> list[Hashable]:
    """Return the key of each row: a tuple, or the value of a single column."""
    columns = [rows[name].to_pylist() for name in key]
    return [*zip(*columns, strict=True)] if len(columns) > 1 else columns[0]


def with_stored_rows(new: pa.Table, stored: pa.Table, kept: Set[Hashable], table: RawTable) -> pa.Table:
    """Return the new rows with the stored ones of the kept keys, sorted by key."""
    missing = kept - {*keys_of(new, table.key)}
    rows = pa.concat_tables([new, with_columns(_select(stored, table, lambda key: key in missing), new.schema)])
    return rows.sort_by([(name, "ascending") for name in table.key])


def _select(rows: pa.Table, table: RawTable, is_selected: Callable[[Hashable], bool]) -> pa.Table:
    return rows.filter(pa.array(map(is_selected, keys_of(rows, table.key)), pa.bool_()))
