"""Read a table as a data frame of any supported library, without turning nulls into numbers.

Whole frames are read by `Lake.read`, which works while partitions are replaced. Lazy frames are datasets: when they are
computed, they read only the selected columns and partitions.
"""

from collections.abc import Callable, Collection
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from later_reporting_dagster.lake import Lake, Partition, Table, schema_of
from later_reporting_dagster.lake.database import duckdb_relation

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow.dataset as ds


class LibraryNotInstalled(ValueError):  # noqa: N818 - a state of the environment, not a bug
    """The library of the requested type is not installed. The message has the command that installs it."""


def read_frame(kind: Any, lake: Lake, table: Table, partitions: Collection[Partition]) -> Any:
    """Return a table as an object of type `kind`.

    A DuckDB relation is created on DuckDB's default connection. So several can be joined, and `duckdb.sql` can refer to
    them by their Python variable names.

    Args:
        kind: `pandas.DataFrame`, `polars.DataFrame`, `polars.LazyFrame`, `pyarrow.Table`, `pyarrow.dataset.Dataset` or
            `duckdb.DuckDBPyRelation`.
        lake: the lake.
        table: the table.
        partitions: the partitions to read; those that do not exist are skipped. Frames that are not lazy keep this
            order. Ignored for an unpartitioned table.

    Returns:
        The rows. For a partitioned table, `date` is the first column. Empty if no file exists.

    Raises:
        TypeError: `kind` is not one of these types.
        LibraryNotInstalled: the library of `kind` is not installed.
        LakeUnavailable: the lake cannot be read.
        FileDamaged: a file is not Parquet, or a column is missing or of another type.
    """
    read = _READERS.get(_type_name(kind))
    if read is None:
        raise TypeError(f"{_type_name(kind)} is not supported: use one of {', '.join(map(_import_name, _READERS))}")
    return read(lake, table, partitions)


def open_dataset(lake: Lake, table: Table, partitions: Collection[Partition] | None = None) -> "ds.Dataset":
    """Return a table as a lazy dataset of the partitions that exist; by default of all."""
    schema = schema_of(table.columns)
    return (
        lake.dataset(table.name, schema, partitions) if table.is_partitioned else lake.table_dataset(table.name, schema)
    )


def _type_name(kind: Any) -> str:
    """Return the library and the name of a class, such as `pandas.DataFrame`, whatever module it is defined in."""
    if not isinstance(kind, type):
        return str(kind)
    return f"{kind.__module__.partition('.')[0].lstrip('_')}.{kind.__qualname__}"


def _import_name(name: str) -> str:
    """Return the name by which users import a class, given its `_type_name`."""
    return "pyarrow.dataset.Dataset" if name == "pyarrow.Dataset" else name


def _read_arrow(lake: Lake, table: Table, partitions: Collection[Partition]) -> pa.Table:
    schema = schema_of(table.columns)
    if table.is_partitioned:
        return lake.read(table.name, partitions, schema=schema, with_date=True)
    rows = lake.read_table(table.name, schema=schema)
    return schema.empty_table() if rows is None else rows


def _read_pandas(lake: Lake, table: Table, partitions: Collection[Partition]) -> "pd.DataFrame":
    import pandas as pd  # deferred: takes 40 % of the time of `import dagster`

    # Extension types have a null; with the default types, a column of integers with a null would become floats.
    nullable_types = {
        pa.int64(): pd.Int64Dtype(),
        pa.float64(): pd.Float64Dtype(),
        pa.string(): pd.StringDtype(na_value=pd.NA),
    }
    arrow = _read_arrow(lake, table, partitions)
    rows: pd.DataFrame = arrow.to_pandas(types_mapper=nullable_types.get, date_as_object=False)
    return rows


def _import_polars() -> Any:
    try:
        return import_module("polars")
    except ImportError:
        # By its own name: an extra of this package installs it only where the package itself comes from an index.
        raise LibraryNotInstalled("polars is not installed: pip install polars") from None


def _read_polars(lake: Lake, table: Table, partitions: Collection[Partition]) -> "pl.DataFrame":
    rows: pl.DataFrame = _import_polars().from_arrow(_read_arrow(lake, table, partitions))
    return rows


def _scan_polars(lake: Lake, table: Table, partitions: Collection[Partition]) -> "pl.LazyFrame":
    rows: pl.LazyFrame = _import_polars().scan_pyarrow_dataset(open_dataset(lake, table, partitions))
    return rows


_READERS: dict[str, Callable[[Lake, Table, Collection[Partition]], Any]] = {
    "pandas.DataFrame": _read_pandas,
    "pyarrow.Table": _read_arrow,
    "pyarrow.Dataset": open_dataset,
    "polars.DataFrame": _read_polars,
    "polars.LazyFrame": _scan_polars,
    "duckdb.DuckDBPyRelation": duckdb_relation,
}
