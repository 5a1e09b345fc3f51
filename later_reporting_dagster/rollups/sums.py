"""Sums by group that are exact: a null is never a 0, nothing wraps, and the order of rows changes no bit."""

import math
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

# Money is summed in whole millionths of the currency unit: cents, and half cents per thousand, are whole in it.
MILLIONTHS = 1_000_000
_INT64_MAXIMUM = 2**63 - 1
_EXACT_IN_A_FLOAT = 2**53
_WIDE_COUNT, _WIDE_MONEY = pa.decimal128(19, 0), pa.decimal128(38, 6)


class SumOutOfRange(OverflowError):  # noqa: N818 - named for what it is
    """A sum, or a value to be summed, is larger than its column can hold. The message names the column."""


def grouped_sums(rows: pa.Table, *, keys: Sequence[str], counted: Sequence[str] | None = None) -> pa.Table:
    """For each group: the keys, `posts`, each other column's sum, and as `{column}_posts` of how many values.

    A null key is a group of its own. The sum of no values is null. int64 columns are summed as they are, float64
    columns to the millionth; both exactly, therefore independent of the order of rows and of threads. Groups come in
    the order of their keys, nulls last. All in one pass over the rows, which are not copied.

    Args:
        rows: the keys, and columns of int64 and float64.
        keys: what to group by.
        counted: the columns that get `{column}_posts`; all, unless given.

    Raises:
        SumOutOfRange: a sum does not fit its column.
    """
    from pyarrow import acero  # imports pandas, which adds 40 % of `import dagster` to the load

    names = [name for name in rows.column_names if name not in keys]
    counts = names if counted is None else counted
    summable = {name: _summable(name, rows.column(name)) for name in names}
    source = pa.table(
        {key: rows.column(key) for key in keys} | {name: values for name, (values, _) in summable.items()}
    )
    projection = [*map(pc.field, keys), *(whole for _, whole in summable.values())]
    aggregates = [
        ([], "hash_count_all", None, "count_all"),
        *((name, "hash_sum", pc.ScalarAggregateOptions(min_count=1), f"{name}_sum") for name in names),
        *((name, "hash_count", None, f"{name}_count") for name in counts),
    ]
    plan = acero.Declaration.from_sequence(
        [
            acero.Declaration("table_source", acero.TableSourceNodeOptions(source)),
            acero.Declaration("project", acero.ProjectNodeOptions(projection, source.column_names)),
            acero.Declaration("aggregate", acero.AggregateNodeOptions(aggregates, keys=list(keys))),
        ]
    )
    groups = plan.to_table().sort_by([(key, "ascending") for key in keys])
    columns = {key: groups.column(key) for key in keys} | {"posts": groups.column("count_all")}
    for name in names:
        columns[name] = _narrowed(name, groups.column(f"{name}_sum"), to=rows.schema.field(name).type)
        if name in counts:
            columns[f"{name}_posts"] = groups.column(f"{name}_count")
    return pa.table(columns)


def total(values: pa.ChunkedArray) -> int | float | None:
    """The sum of one column, null when it holds no value: exact for counts, to about 1e-12 of itself for money."""
    if not pa.types.is_integer(values.type):
        money: float | None = pc.sum(values).as_py()
        return money
    count = pc.sum(values.cast(_WIDE_COUNT)).as_py()
    return None if count is None else int(count)


def _summable(name: str, values: pa.ChunkedArray) -> tuple[pa.ChunkedArray, pc.Expression]:
    """A column, and the expression that makes exact integers of it whose sums cannot overflow.

    They have 64 bits where that is certain to be enough, else the column is made decimals.
    """
    is_money = pa.types.is_floating(values.type)
    scale = MILLIONTHS if is_money else 1

    def fits(largest: float) -> bool:
        units = largest * scale
        return units * len(values) <= _INT64_MAXIMUM // 2 and (units <= _EXACT_IN_A_FLOAT or not is_money)

    largest = _largest(values)
    if not fits(largest):
        try:
            return values.cast(_WIDE_MONEY if is_money else _WIDE_COUNT), pc.field(name)
        except pa.ArrowInvalid as error:
            raise SumOutOfRange(f"{name} holds a value too large to sum: {largest:g}") from error
    if not is_money:
        return values, pc.field(name)
    return values, pc.round(pc.multiply(pc.field(name), float(MILLIONTHS))).cast(pa.int64(), safe=False)


def _largest(values: pa.ChunkedArray) -> float:
    """How far from 0 the values go; infinite when one is not a number."""
    if pa.types.is_floating(values.type) and pc.any(pc.is_nan(values)).as_py():
        return math.inf
    extremes: Mapping[str, float | None] = pc.min_max(values).as_py()
    return max(abs(extremes["min"] or 0), abs(extremes["max"] or 0))


def _narrowed(name: str, sums: pa.ChunkedArray, *, to: pa.DataType) -> pa.ChunkedArray:
    try:
        if pa.types.is_integer(to):
            return sums.cast(to)
        if pa.types.is_integer(sums.type):
            return pc.divide(sums.cast(to, safe=False), float(MILLIONTHS))
        # Arrow's own cast from decimals is off by a last bit now and then.
        decimals = [None if value is None else float(value) for value in sums.to_pylist()]
        return pa.chunked_array([pa.array(decimals, to)])
    except pa.ArrowInvalid as error:
        raise SumOutOfRange(f"the sum of {name} does not fit {to}: {error}") from error
