"""The lake's tables as others compute with them: pandas, Arrow, Polars and DuckDB. No HTTP, no Dagster, no writing."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from later_reporting_dagster.reading.table import Table

if TYPE_CHECKING:
    from later_reporting_dagster.reading.frames import NotInstalled, frame, whole
    from later_reporting_dagster.reading.sql import QueryRefused, answer

__all__ = ["NotInstalled", "QueryRefused", "Table", "answer", "frame", "whole"]

# What needs Arrow is imported when it is first asked for: the definitions load without it.
_NEEDING_ARROW = ("frames", "sql")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in _NEEDING_ARROW:
            if hasattr(found := import_module(f"{__name__}.{module}"), name):
                return getattr(found, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
