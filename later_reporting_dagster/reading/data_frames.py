"""A table's partitions as the type that somebody computes with: none of them turns null into a number.

Whole frames are read by `Lake.read`, which survives a partition that is replaced meanwhile. Lazy ones are datasets:
they read the columns and the partitions that are asked of them, when they are asked.
"""

from collections.abc import Callable, Collection
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from later_reporting_dagster.lake import Lake, Partition, Table, schema_of
from later_reporting_dagster.lake.database import relation_of

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow.dataset as ds


class NotInstalled(ValueError):  # noqa: N818 - named for what it is
    """A library that is asked for is not there. The message says how it is installed."""


def frame(kind: Any, lake: Lake, table: Table, partitions: Collection[Partition]) -> Any:
    """Those of `partitions` that exist, as a `kind`: the column `date`, then those of the table's dictionary.

    Of a table without partitions it is all, without `date`; what has not landed has no rows. Whole frames have the
    partitions in the order given. A DuckDB relation belongs to DuckDB's default connection, so that several can be
    joined, and named in `duckdb.sql`.

    Raises:
        TypeError: `kind` is none of `_FRAMES`.
        NotInstalled: its library is not there.
        LakeUnavailable: the lake cannot be read.
        PartitionDamaged: a file is not what it should be.
    """
    made = _FRAMES.get(_name_of(kind))
    if made is None:
        raise TypeError(f"{_name_of(kind)} is none of {', '.join(_FRAMES)}")
    return made(lake, table, partitions)


def dataset(lake: Lake, table: Table, partitions: Collection[Partition] | None = None) -> "ds.Dataset":
    """Return what has landed of a table, or of some of its partitions, as a lazy dataset."""
    schema = schema_of(table.columns)
    return (
        lake.dataset(table.name, schema, partitions) if table.is_partitioned else lake.table_dataset(table.name, schema)
    )


def _name_of(kind: Any) -> str:
    """A class by the library and the name that users know it by, whichever of its modules defines it."""
    if not isinstance(kind, type):
        return str(kind)
    return f"{kind.__module__.partition('.')[0].lstrip('_')}.{kind.__qualname__}"


def _arrow(lake: Lake, table: Table, partitions: Collection[Partition]) -> pa.Table:
    schema = schema_of(table.columns)
    if table.is_partitioned:
        return lake.read(table.name, partitions, schema=schema, with_date=True)
    found = lake.read_table(table.name, schema=schema)
    return schema.empty_table() if found is None else found


def _pandas(lake: Lake, table: Table, partitions: Collection[Partition]) -> "pd.DataFrame":
    import pandas as pd  # adds 40 % of `import dagster` to the load

    # Types of pandas that have a null of their own: with its default ones a count with a null becomes a float.
    nullable = {
        pa.int64(): pd.Int64Dtype(),
        pa.float64(): pd.Float64Dtype(),
        pa.string(): pd.StringDtype(na_value=pd.NA),
    }
    rows: pd.DataFrame = _arrow(lake, table, partitions).to_pandas(types_mapper=nullable.get, date_as_object=False)
    return rows


def _polars_library() -> Any:
    try:
        return import_module("polars")
    except ImportError:
        raise NotInstalled(
            "polars is not installed: pip install 'later-reporting-dagster[polars]', or polars alone"
        ) from None


def _polars(lake: Lake, table: Table, partitions: Collection[Partition]) -> "pl.DataFrame":
    rows: pl.DataFrame = _polars_library().from_arrow(_arrow(lake, table, partitions))
    return rows


def _polars_lazily(lake: Lake, table: Table, partitions: Collection[Partition]) -> "pl.LazyFrame":
    rows: pl.LazyFrame = _polars_library().scan_pyarrow_dataset(dataset(lake, table, partitions))
    return rows


_FRAMES: dict[str, Callable[[Lake, Table, Collection[Partition]], Any]] = {
    "pandas.DataFrame": _pandas,
    "pyarrow.Table": _arrow,
    "pyarrow.Dataset": dataset,
    "polars.DataFrame": _polars,
    "polars.LazyFrame": _polars_lazily,
    "duckdb.DuckDBPyRelation": relation_of,
}
