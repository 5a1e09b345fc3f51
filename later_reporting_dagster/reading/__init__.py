"""Read the lake's tables as pandas, Arrow, Polars or DuckDB objects, or by SQL. No HTTP, no Dagster, no writing."""

from later_reporting_dagster.reading.data_frames import LibraryNotInstalled, open_dataset, read_frame
from later_reporting_dagster.reading.sql_query import QueryError, run_query

__all__ = ["LibraryNotInstalled", "QueryError", "open_dataset", "read_frame", "run_query"]
