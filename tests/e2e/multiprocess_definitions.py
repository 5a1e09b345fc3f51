"""The definitions of the component, whose runs execute each step in a process of its own."""

import dagster as dg

from later_reporting_dagster.defs.component import LaterReportingComponent

defs = dg.Definitions.merge(
    LaterReportingComponent.from_environment().build_definitions(), dg.Definitions(executor=dg.multiprocess_executor)
)
