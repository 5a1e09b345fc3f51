"""The code location: the component, configured by environment variables."""

from later_reporting_dagster.defs.component import LaterReportingComponent

defs = LaterReportingComponent.from_environment().build_definitions()
"""The definitions of the component."""
