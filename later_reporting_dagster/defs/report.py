"""The report asset: one page on all that has landed, written anew when a rollup changed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster import AssetExecutionContext

from later_reporting_dagster.defs.organic_paid import latched
from later_reporting_dagster.defs.resource import LaterReportingResource

if TYPE_CHECKING:
    from later_reporting_dagster.defs.organic_paid import Rollup

REPORT = "organic_paid_report"
REPORT_FILE = "report.html"


def when_rollups_change(rollups: Sequence["Rollup"]) -> dg.AutomationCondition[Any]:
    """Write the report when any day of a rollup changed, once for all the days of a run or a backfill."""
    followed = dg.AssetSelection.assets(*(dg.AssetKey(["later", rollup.asset]) for rollup in rollups))
    changed = dg.AutomationCondition.any_deps_match(dg.AutomationCondition.data_version_changed()).allow(followed)
    never_written = dg.AutomationCondition.missing() & dg.AutomationCondition.any_deps_match(
        ~dg.AutomationCondition.missing()
    ).allow(followed)
    return latched(changed, never_written, label="rollups_changed")


def report_asset(rollups: Sequence["Rollup"]) -> dg.AssetsDefinition:
    """The asset. It follows the rollups, and sums the posts as they do: creators are in no rollup."""

    @dg.asset(
        key=["later", REPORT],
        deps=[dg.AssetKey(["later", asset]) for rollup in rollups for asset in (rollup.asset, rollup.source.asset)],
        description=(
            "Organic against paid as a page to look at and to forward: headline figures with their change, days,"
            " platforms, campaigns with the bounds of their spend, creators, and what is missing. One HTML file that"
            f" needs no network, at `{REPORT}/{REPORT_FILE}` below the lake's root."
        ),
        group_name="organic_paid",
        kinds={"html"},
        automation_condition=when_rollups_change(rollups),
    )
    def organic_paid_report(context: AssetExecutionContext, later: LaterReportingResource) -> dg.MaterializeResult[Any]:
        # Needs Arrow and the plotting library, which the definitions load without.
        from later_reporting_dagster.defs.runs.report import write_report

        return write_report(context, later, asset=REPORT, file=REPORT_FILE)

    return organic_paid_report
