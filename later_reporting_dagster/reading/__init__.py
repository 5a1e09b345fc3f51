"""The lake's tables as others compute with them: pandas, Arrow, Polars and DuckDB. No HTTP, no Dagster, no writing."""

from later_reporting_dagster.reading.data_frames import NotInstalled, dataset, frame
from later_reporting_dagster.reading.sql_query import QueryRefused, answer

__all__ = ["NotInstalled", "QueryRefused", "answer", "dataset", "frame"]
