"""Sums by group that are exact: a null is never a 0, nothing wraps, and the order of rows changes no bit."""

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


def grouped_sums(rows: pa.Table, *, keys: Sequence[str]) -> pa.Table:
    """For each group: the keys, `posts` and, for each other column, its sum and as `{column}_posts` its values.

    A null key is a group of its own. The sum of no values is null. int64 columns are summed as they are, float64
    columns to the millionth; both exactly, therefore independent of the order of rows and of threads. Groups come in
    the order of their keys, nulls last.

    Raises:
        SumOutOfRange: a sum does not fit its column.
    """
    names = [name for name in rows.column_names if name not in keys]
    summable = {name: _summable(name, rows.column(name)) for name in names}
    by_key = pa.table({**{key: rows.column(key) for key in keys}, **summable}).group_by(list(keys))
    some = pc.ScalarAggregateOptions(min_count=1)
    groups = by_key.aggregate(
        [([], "count_all")]
        + [(name, how, some if how == "sum" else None) for name in names for how in ("sum", "count")]
    ).sort_by([(key, "ascending") for key in keys])
    columns = {key: groups.column(key) for key in keys} | {"posts": groups.column("count_all")}
    for name in names:
        columns[name] = _narrowed(name, groups.column(f"{name}_sum"), to=rows.schema.field(name).type)
        columns[f"{name}_posts"] = groups.column(f"{name}_count")
    return pa.table(columns)


def total(values: pa.ChunkedArray) -> int | float | None:
    """The sum of one column, null when it holds no value: exact for counts, to about 1e-12 of itself for money."""
    if not pa.types.is_integer(values.type):
        money: float | None = pc.sum(values).as_py()
        return money
    count = pc.sum(values.cast(_WIDE_COUNT)).as_py()
    return None if count is None else int(count)


def _summable(name: str, values: pa.ChunkedArray) -> pa.ChunkedArray:
    """The values as exact integers whose sums cannot overflow: of 64 bits where that is certain, else decimals."""
    is_money = pa.types.is_floating(values.type)
    extremes: Mapping[str, float | None] = pc.min_max(values).as_py()
    largest = max(abs(extremes["min"] or 0), abs(extremes["max"] or 0))
    units = largest * MILLIONTHS if is_money else largest
    if units * len(values) > _INT64_MAXIMUM // 2 or (is_money and units > _EXACT_IN_A_FLOAT):
        try:
            return values.cast(_WIDE_MONEY if is_money else _WIDE_COUNT)
        except pa.ArrowInvalid as error:
            raise SumOutOfRange(f"{name} holds a value too large to sum: {largest:g}") from error
    return pc.round(pc.multiply(values, float(MILLIONTHS))).cast(pa.int64()) if is_money else values


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
