"""Organic beside paid, by instance, campaign, platform and so on: of a day, a week, a month, and of windows.

Over more than a day a post has many rows and counts once. So rows are summed by post first, then posts by group; rates
would be the same without it, but not how many posts report a metric, nor how much posts differ.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from later_reporting_dagster.contract import METRICS, DateBasis, metrics_in
from later_reporting_dagster.lake.columns import POST_KEY, post_columns
from later_reporting_dagster.lake.schema import DATE, schema_of
from later_reporting_dagster.rollups.columns import (
    CHANGING,
    GRAIN,
    change_name,
    is_difference,
    is_number_of_posts,
    previous_name,
)
from later_reporting_dagster.rollups.lift import Indices, lift_columns_of
from later_reporting_dagster.rollups.measures import (
    Columns,
    added,
    channel_parts,
    decimal,
    grouped,
    quotient,
    rate_parts,
    rates,
    spend_parts,
    table_of,
    unit_costs,
    used,
    where,
)
from later_reporting_dagster.rollups.spans import WINDOWS, Days, Span, previous_of, windows_of
from later_reporting_dagster.rollups.tables import BY_WINDOW, RolledUp

_POST, _GROUP = "post", "group"
_EPOCH = date(1970, 1, 1).toordinal()


def rows_schema(*tables: RolledUp, dated: bool = False) -> pa.Schema:
    """Return the columns of posts that the tables are made from, and with `dated` the day of the partition.

    Most of a post is texts that no table uses, and need not be read.
    """
    names = {*POST_KEY, *(name for table in tables for column in table.columns for name in column.made_from)}
    if any(table.labels for table in tables):
        names.add("post_date")
    schema = schema_of(column for column in post_columns(METRICS) if column.name in names)
    return schema.append(DATE) if dated else schema


@dataclass(frozen=True, slots=True)
class Landed:
    """What is there of one date basis.

    Attributes:
        rows: posts, each with its partition's day as `date`, as `rows_schema` of the tables, dated.
        days: the days that have landed, by instance, with or without rows.
    """

    rows: pa.Table
    days: Mapping[str, Collection[date]]

    @property
    def all_days(self) -> set[date]:
        """The days that have landed of any instance."""
        return {day for days in self.days.values() for day in days}


def organic_paid(posts: pa.Table, table: RolledUp, *, grain: Sequence[str] = GRAIN) -> pa.Table:
    """Roll up the posts of one day, week or month.

    Args:
        posts: rows of all days of the partition, in any order; columns that `rows_schema(table)` lacks are not used.
        table: a table whose files span a day, a week or a month.
        grain: what to group by, for a coarser comparison by day: some columns of `GRAIN`.

    Returns:
        One row for each group of `grain` in its order, nulls last, in the columns of `table` less what is not grouped
        by, and with the sums of whatever other metrics the posts have. The same posts in any order give the same
        values to the last bit. Money is summed to the millionth.

    Raises:
        SumOutOfRange: a sum does not fit its column.
    """
    given = used(posts, rows_schema(table.of(METRICS)).names)
    with_spend = DateBasis.POST_DATE in table.bases
    if table.span is Span.DAY:  # a day holds a post once: its rows are its posts
        found = grouped(_values(given, with_spend=with_spend), by={name: given[name] for name in grain})
        found |= rates(found) | (unit_costs(found) if with_spend else {})
    else:
        of_posts = _Posts(given, identity=_identity(table), with_spend=with_spend)
        found, groups = _groups_of(
            of_posts.sums(0, posts.num_rows), _numbered_by(of_posts, GRAIN), with_spend=with_spend
        )
        found |= _taken(groups, found[_GROUP])
    columns = table.of(metrics_in(given)).columns
    return table_of(found, schema_of(each for each in columns if each.name in grain or each.name not in GRAIN))


def organic_paid_by(
    landed: Mapping[DateBasis, Landed], *, tables: Sequence[RolledUp] = BY_WINDOW
) -> dict[str, pa.Table]:
    """Rolls up all windows of both date bases, into each of the tables, by name.

    Rows are summed by post once for each window, whatever the number of tables.

    Raises:
        SumOutOfRange: a sum does not fit its column.
    """
    parts: dict[str, dict[tuple[str, DateBasis], pa.Table]] = {table.name: {} for table in tables}
    for basis, found in landed.items():
        of_basis = _Windows(basis, found, identity=_identity(*tables))
        for window, days in windows_of(found.all_days).items():
            for table in tables:
                parts[table.name][window, basis] = of_basis.rolled_up(table, window, days)
    return {
        table.name: _labelled(
            pa.concat_tables(
                [schema_of(table.columns).empty_table()]
                + [part for key, part in sorted(parts[table.name].items(), key=_by_window)]
            ),
            landed,
            table,
        )
        for table in tables
    }


def _by_window(part: tuple[tuple[str, DateBasis], pa.Table]) -> tuple[int, int]:
    (window, basis), _ = part
    return [*WINDOWS].index(window), BY_WINDOW[0].bases.index(basis)


def _identity(*tables: RolledUp) -> list[str]:
    return [*dict.fromkeys([*POST_KEY, *(name for table in tables for name in table.grain)])]


def _values(given: Columns, *, with_spend: bool) -> Columns:
    return added(given) | rate_parts(given) | (spend_parts(given) if with_spend else {})


class _Posts:
    """Rows with the number of the post that each is of, so that any slice of them is summed by whole numbers."""

    def __init__(self, given: Columns, *, identity: Sequence[str], with_spend: bool) -> None:
        self.identities, number = numbered({name: given[name] for name in identity})
        self._number = pa.chunked_array([pa.array(number)])
        self._values = _values(given, with_spend=with_spend)

    def sums(self, start: int, end: int) -> Columns:
        """What is measured of each post in the rows from `start` up to `end`, by the post's number."""
        length = max(end - start, 0)
        values = {name: column.slice(start, length) for name, column in self._values.items()}
        found = grouped(values, by={_POST: self._number.slice(start, length)})
        return {name: found[name] for name in (_POST, *values)}


class _Windows:
    """The windows of one date basis; what is measured of each post is kept, because windows and tables share it."""

    def __init__(self, basis: DateBasis, landed: Landed, *, identity: Sequence[str]) -> None:
        self._basis = basis
        self._landed = landed
        self._with_spend = basis is DateBasis.POST_DATE
        rows = landed.rows
        day = rows.column(DATE.name).cast(pa.int32()).to_numpy()
        if np.any(np.diff(day) < 0):
            order = np.argsort(day, kind="stable")
            rows, day = rows.take(pa.array(order)), day[order]
        self._day = day
        self._posts = _Posts(used(rows, rows.column_names), identity=identity, with_spend=self._with_spend)
        self._sums: dict[Days, Columns] = {}
        self._numbers: dict[Sequence[str], _Numbers] = {}

    def rolled_up(self, table: RolledUp, window: str, days: Days) -> pa.Table:
        """One window of a table."""
        previous = previous_of(window, days)
        found, groups = self._groups(table, days)
        before = self._groups(table, previous)[0] if previous else {name: values[:0] for name, values in found.items()}
        present = np.union1d(found[_GROUP].to_numpy(), before[_GROUP].to_numpy())
        grain = _taken(groups, pa.array(present))
        instances = grain["instance_id"].to_pylist()
        there = self._there(instances, days)
        there_before = self._there(instances, previous) if previous else pa.nulls(len(present), pa.int64())
        now = _period(found, present, there)
        then = _period(before, present, there_before)
        rows = len(present)
        columns: Columns = {
            "window": _repeated(window, pa.string(), rows),
            "date_basis": _repeated(str(self._basis), pa.string(), rows),
            "first_day": _repeated(days.first, pa.date32(), rows),
            "last_day": _repeated(days.last, pa.date32(), rows),
            **grain,
            "days": pa.chunked_array([there]),
            "previous_days": pa.chunked_array([there_before]),
            **now,
            **{previous_name(name): values for name, values in then.items()},
            **_changes(table, now, then, comparable=pa.chunked_array([pc.equal(there, there_before)])),
        }
        schema = schema_of(table.columns)
        missing = {name: pa.chunked_array([pa.nulls(rows, schema.field(name).type)]) for name in schema.names}
        return table_of(missing | columns, schema)

    def _groups(self, table: RolledUp, days: Days) -> tuple[Columns, pa.Table]:
        if days not in self._sums:
            first, last = (day.toordinal() - _EPOCH for day in (days.first, days.last))
            self._sums[days] = self._posts.sums(*np.searchsorted(self._day, [first, last + 1]))
        key = tuple(table.grain)
        if key not in self._numbers:
            self._numbers[key] = _numbered_by(self._posts, key)
        return _groups_of(self._sums[days], self._numbers[key], with_spend=self._with_spend)

    def _there(self, instances: Sequence[str], days: Days) -> pa.Array:
        counts = {
            instance_id: sum(day in days for day in self._landed.days.get(instance_id, ()))
            for instance_id in set(instances)
        }
        return pa.array([counts[instance_id] for instance_id in instances], pa.int64())


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Of a grain: the groups in their order, and of each identity of a post the number of its post and its group.

    An identity may be finer than a post of the grain: a post that changed its content type is one of its campaign.
    """

    groups: pa.Table
    post: Indices
    group_of_post: Indices


def _numbered_by(posts: _Posts, grain: Sequence[str]) -> _Numbers:
    identities = posts.identities
    of_grain = [*dict.fromkeys([*POST_KEY, *grain])]
    distinct, post = numbered({name: identities.column(name) for name in of_grain})
    groups, group = numbered({name: distinct.column(name) for name in grain})
    return _Numbers(groups, post, group)


def _groups_of(sums: Columns, numbers: _Numbers, *, with_spend: bool) -> tuple[Columns, pa.Table]:
    """All that is measured of each group that has posts, by the group's number; and the groups, by number."""
    values = {name: column for name, column in sums.items() if name != _POST}
    post = numbers.post[sums[_POST].to_numpy()]
    if len(numbers.group_of_post) < len(numbers.post):
        coarser = grouped(values, by={_POST: pa.chunked_array([pa.array(post)])})
        values, post = {name: coarser[name] for name in values}, coarser[_POST].to_numpy()
    group = numbers.group_of_post[post]
    found = grouped(values | channel_parts(values), by={_GROUP: pa.chunked_array([pa.array(group)])})
    present = found[_GROUP].to_numpy()
    found |= rates(found)
    found |= lift_columns_of(values, group=np.searchsorted(present, group), groups=len(present))
    return found | (unit_costs(found) if with_spend else {}), numbers.groups


def _period(found: Columns, present: Indices, there: pa.Array) -> Columns:
    """The groups that are present. Those without posts have nulls, and no posts where a day is there."""
    position = np.searchsorted(found[_GROUP].to_numpy(), present)
    position = np.where(position < len(found[_GROUP]), position, 0)
    is_found = np.isin(present, found[_GROUP].to_numpy())
    rows = pa.array(position, mask=~is_found)
    is_there = pc.fill_null(pc.greater(there, 0), False)
    columns: Columns = {}
    for name, values in found.items():
        taken = values.take(rows)
        if is_number_of_posts(name):
            zero = pa.scalar(0, taken.type)
            taken = pc.if_else(pc.and_(pa.array(~is_found), is_there), zero, taken)
        columns[name] = pa.chunked_array([taken]) if isinstance(taken, pa.Array) else taken
    return columns


def _changes(table: RolledUp, now: Columns, then: Columns, *, comparable: pa.ChunkedArray) -> Columns:
    changes: Columns = {}
    for column in table.columns:
        if column.name in CHANGING:
            difference = pc.subtract(decimal(now[column.name]), decimal(then[column.name]))
            if not is_difference(column):
                difference = quotient(difference, then[column.name], times=100)
            changes[change_name(column.name)] = where(comparable, difference)
    return changes


def _labelled(rolled_up: pa.Table, landed: Mapping[DateBasis, Landed], table: RolledUp) -> pa.Table:
    """The table with the labels of what its grain identifies: each as the newest post that has one says."""
    if not table.labels or not rolled_up.num_rows:
        return rolled_up
    order = ("post_date", "campaign_id", "post_id", DATE.name)
    names = [*dict.fromkeys([*table.grain, *order, *table.labels])]
    rows = pa.concat_tables([found.rows.select(names) for found in landed.values()]).combine_chunks()
    groups, group = numbered({name: rows.column(name) for name in table.grain})
    keys = [rows.column(name).cast(pa.int64() if name != DATE.name else pa.int32()).to_numpy() for name in order]
    newest_first = np.lexsort(keys[::-1])[::-1]
    number = {key: index for index, key in enumerate(zip(*groups.to_pydict().values(), strict=True))}
    keys_of_rows = zip(*rolled_up.select(list(table.grain)).to_pydict().values(), strict=True)
    # Whoever has no number may be many: they have no name in common.
    of_rows = [-1 if None in key else number[key] for key in keys_of_rows]
    for label in table.labels:
        values = rows.column(label)
        has_one = newest_first[values.is_valid().to_numpy()[newest_first]]
        of_group, first = np.unique(group[has_one], return_index=True)
        newest = np.full(groups.num_rows + 1, -1)  # the last one is of those without a number
        newest[of_group] = has_one[first]
        chosen = newest[of_rows]
        taken = values.take(pa.array(chosen, mask=chosen < 0))
        index = rolled_up.schema.get_field_index(label)
        rolled_up = rolled_up.set_column(index, rolled_up.schema.field(label), taken)
    return rolled_up


def numbered(columns: Columns) -> tuple[pa.Table, Indices]:
    """The distinct rows in their order, nulls last, and of each row the number of the distinct row that it is."""
    codes, size = np.zeros(len(next(iter(columns.values()))), dtype=np.int64), 1
    for column in columns.values():
        encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
        values = max(len(encoded.dictionary), 1)
        if size * values > 2**62:
            distinct, codes = np.unique(codes, return_inverse=True)
            size = len(distinct)
        codes, size = codes * values + encoded.indices.to_numpy(), size * values
    _, first, number = np.unique(codes, return_index=True, return_inverse=True)
    rows = pa.table(columns).take(pa.array(first))
    order = pc.sort_indices(rows, sort_keys=[(name, "ascending") for name in columns]).to_numpy()
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    return rows.take(pa.array(order)), place[number]


def _taken(groups: pa.Table, number: pa.Array | pa.ChunkedArray) -> Columns:
    taken = groups.take(number)
    return dict(zip(taken.column_names, taken.columns, strict=True))


def _repeated(value: object, type_: pa.DataType, times: int) -> pa.ChunkedArray:
    return pa.chunked_array([pa.repeat(pa.scalar(value, type_), times)])
