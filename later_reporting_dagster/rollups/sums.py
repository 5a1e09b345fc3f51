"""Sums by group that are exact: a null is never a 0, nothing wraps, and the order of rows changes no bit."""

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# Money is summed in whole millionths of the currency unit: cents, and half cents per thousand, are whole in it.
MILLIONTHS = 1_000_000
_INT64_MAXIMUM = 2**63 - 1
_EXACT_IN_A_FLOAT = 2**53
# Between 2**52 and 2**53 floats are just the whole numbers. This is half-way: a third of it to either side stays there.
_WHOLE = 3 * 2**51
# Fewer rows are looked through in less time than it takes to start a thread.
_ROWS_WORTH_THREADS = 65_536
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
    counts = _counts(rows, names if counted is None else counted)
    columns_of_names = map(rows.column, names)
    if rows.num_rows < _ROWS_WORTH_THREADS:
        summable = dict(zip(names, map(_summable, names, columns_of_names), strict=True))
    else:
        with ThreadPoolExecutor(pa.cpu_count()) as threads:  # Arrow and numpy look through them outside Python's lock
            summable = dict(zip(names, threads.map(_summable, names, columns_of_names), strict=True))
    source = pa.table(
        {key: rows.column(key) for key in keys} | {name: values for name, (values, _) in summable.items()}
    )
    projection = [*map(pc.field, keys), *(whole for _, whole in summable.values())]
    aggregates = [
        ([], "hash_count_all", None, "count_all"),
        *((name, "hash_sum", pc.ScalarAggregateOptions(min_count=1), f"{name}_sum") for name in names),
        *((name, "hash_count", None, f"{name}_count") for name in dict.fromkeys(counts.values()) if name),
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
            columns[f"{name}_posts"] = groups.column(f"{counts[name]}_count" if counts[name] else "count_all")
    return pa.table(columns)


def total(values: pa.ChunkedArray) -> int | float | None:
    """The sum of one column, null when it holds no value: exact for counts, to about 1e-12 of itself for money."""
    if not pa.types.is_integer(values.type):
        money: float | None = pc.sum(values).as_py()
        return money
    count = pc.sum(values.cast(_WIDE_COUNT)).as_py()
    return None if count is None else int(count)


def _counts(rows: pa.Table, names: Sequence[str]) -> dict[str, str | None]:
    """For each column, the first one with values in the very same rows, as one count does for both; None: in all."""
    counts: dict[str, str | None] = {}
    seen: dict[str, pa.ChunkedArray] = {}
    for name in names:
        is_valid = rows.column(name).is_valid()
        if rows.column(name).null_count == 0:
            counts[name] = None
        else:
            counts[name] = next((other for other, as_valid in seen.items() if as_valid.equals(is_valid)), name)
            seen.setdefault(name, is_valid)
    return counts


def _summable(name: str, values: pa.ChunkedArray) -> tuple[pa.ChunkedArray, pc.Expression]:
    """A column, and the expression that makes exact integers of it whose sums cannot overflow.

    They have 64 bits where that is certain to be enough, else the column is made decimals.
    """
    is_money = pa.types.is_floating(values.type)
    scale = MILLIONTHS if is_money else 1

    def fits(largest: float) -> bool:
        units = largest * scale
        return units * len(values) <= _INT64_MAXIMUM // 2 and (units <= _EXACT_IN_A_FLOAT or not is_money)

    largest = _at_most(values)
    if not fits(largest):
        largest = _largest(values)
    if not fits(largest):
        try:
            return values.cast(_WIDE_MONEY if is_money else _WIDE_COUNT), pc.field(name)
        except pa.ArrowInvalid as error:
            raise SumOutOfRange(f"{name} holds a value too large to sum: {largest:g}") from error
    if not is_money:
        return values, pc.field(name)
    units = pc.multiply(pc.field(name), float(MILLIONTHS))
    if largest * MILLIONTHS <= _WHOLE // 3:
        # As `round`, a half to the even number, but faster: beside a number so large a fraction has no room.
        whole = pc.subtract(pc.add(units, float(_WHOLE)), float(_WHOLE))
    else:
        whole = pc.round(units)
    return values, whole.cast(pa.int64(), safe=False)


def _largest(values: pa.ChunkedArray) -> float:
    """How far from 0 the values go; infinite when one is not a number."""
    if pa.types.is_floating(values.type) and pc.any(pc.is_nan(values)).as_py():
        return math.inf
    extremes: Mapping[str, float | None] = pc.min_max(values).as_py()
    return max(abs(extremes["min"] or 0), abs(extremes["max"] or 0))


def _at_most(values: pa.ChunkedArray) -> float:
    """As `_largest` in a tenth of its time, but maybe too much, as it looks at what lies under the nulls too."""
    if pa.types.is_floating(values.type) and pc.any(pc.is_nan(values)).as_py():
        return math.inf
    at_most = 0.0
    for chunk in values.chunks:
        if len(chunk):
            numbers = pa.Array.from_buffers(chunk.type, len(chunk), [None, chunk.buffers()[1]], offset=chunk.offset)
            with np.errstate(invalid="ignore"):  # these two pass by what is not a number
                lowest, highest = (extreme.reduce(numbers.to_numpy()) for extreme in (np.fmin, np.fmax))
            at_most = max(at_most, -float(lowest), float(highest))
    return at_most


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
