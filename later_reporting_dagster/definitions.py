"""The code location: the component, configured by environment variables."""

from later_reporting_dagster.defs.component import LaterReportingComponent

defs = LaterReportingComponent.from_environment().build_definitions()
"""What Dagster sees: assets with their runs and checks, partitions, resources, IO manager, schedules and sensors."""
