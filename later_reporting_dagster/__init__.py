"""Ingest Later's Reporting API into a Parquet lake with Dagster, and compare organic with paid performance."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from later_reporting_dagster.defs.component import LaterReportingComponent as LaterReportingComponent
    from later_reporting_dagster.defs.resource import LaterReportingResource as LaterReportingResource

_MODULES = {
    "LaterReportingComponent": "later_reporting_dagster.defs.component",
    "LaterReportingResource": "later_reporting_dagster.defs.resource",
}


def __getattr__(name: str) -> Any:
    """Import a public class when it is used: Dagster takes seconds, and the client and the sandbox do not need it."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_MODULES]
