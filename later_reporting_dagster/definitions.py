"""The code location: the component, configured by environment variables, and mails if `ALERTS_SMTP` is set."""

import os

import dagster as dg

from later_reporting_dagster import alerts
from later_reporting_dagster.defs.component import LaterReportingComponent

# Dagster loads the only `Definitions` of this module, so those of `alerts` have no name here.
# By default, Dagster starts a process for each step, which takes longer than most of these steps.
defs = dg.Definitions.merge(
    LaterReportingComponent.from_environment().build_definitions(),
    dg.Definitions(executor=dg.in_process_executor),
    alerts.defs if os.environ.get("ALERTS_SMTP") else dg.Definitions(),
)
"""The definitions of the component, whose runs execute their steps in one process."""
