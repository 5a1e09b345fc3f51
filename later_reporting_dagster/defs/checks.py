"""Asset checks: what must hold of the tables, told after each run and asked again whenever someone wants to know."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster import AssetCheckExecutionContext

from later_reporting_dagster.defs.partitions import registered_instances
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.ingest.source import Source

if TYPE_CHECKING:
    from later_reporting_dagster.defs.runs.verdicts import Verdict

ROWS_UNIQUE = "rows_unique_by_key"
ROWS_BELONG = "rows_belong_to_partition"
RATES_AGREE = "rates_agree_with_counts"
NO_UNKNOWN_FIELDS = "no_unknown_fields"
QUARANTINE_EMPTY = "quarantine_is_empty"
NEWEST_DUE_DAY = "newest_due_day_is_present"
RECONCILES = "reconciles_with_raw_rows"

POSTS_CHECKS: Mapping[str, str] = {
    ROWS_UNIQUE: "No two rows share instance, campaign and post.",
    ROWS_BELONG: "Each row is of the instance and the day of its partition.",
    RATES_AGREE: "Engagement rate, CPE and CPM agree with the counts beside them, within rounding.",
    NO_UNKNOWN_FIELDS: "The API answered no field and no content type that the contract does not know.",
    QUARANTINE_EMPTY: "The API answered no row that cannot be true.",
    NEWEST_DUE_DAY: "The newest day that is due has landed for every instance.",
}
ROLLUP_CHECKS: Mapping[str, str] = {
    RECONCILES: "Its totals equal those of the raw rows it comes from.",
    NEWEST_DUE_DAY: "The newest day that is due has been rolled up.",
}


def posts_checks(source: Source, *, due_hour_utc: int) -> dg.AssetChecksDefinition:
    """The checks of a raw asset over its whole lake; freshness is asked every day at the due hour."""
    asset_key = dg.AssetKey(["later", source.asset])

    def verdicts(context: AssetCheckExecutionContext, later: LaterReportingResource) -> "Iterator[Verdict]":
        from later_reporting_dagster.defs.runs.verdicts import verdicts_on_posts

        return verdicts_on_posts(
            source,
            wanted=selected_checks(context),
            lake=later.lake(),
            instances=registered_instances(context.instance),
            due_hour_utc=due_hour_utc,
        )

    return checks_of(asset_key, POSTS_CHECKS, verdicts=verdicts, due_hour_utc=due_hour_utc)


def selected_checks(context: AssetCheckExecutionContext) -> set[str]:
    """The names of the checks that this step was asked for."""
    return {key.name for key in context.selected_asset_check_keys}


def checks_of(
    asset_key: dg.AssetKey,
    checks: Mapping[str, str],
    *,
    verdicts: "Callable[[AssetCheckExecutionContext, LaterReportingResource], Iterator[Verdict]]",
    due_hour_utc: int,
) -> dg.AssetChecksDefinition:
    """Check definitions, by name and description, whose answers `verdicts` gives. Any of them can be run alone."""
    daily_when_due: dg.AutomationCondition[Any] = dg.AutomationCondition.cron_tick_passed(f"0 {due_hour_utc} * * *")

    @dg.multi_asset_check(
        name=f"{asset_key.path[-1]}_checks",
        specs=[
            dg.AssetCheckSpec(
                name,
                asset=asset_key,
                description=description,
                automation_condition=daily_when_due if name == NEWEST_DUE_DAY else None,
            )
            for name, description in checks.items()
        ],
        can_subset=True,
    )
    def check(context: AssetCheckExecutionContext, later: LaterReportingResource) -> Iterator[dg.AssetCheckResult]:
        wanted = selected_checks(context)
        for verdict in verdicts(context, later):
            if verdict.check in wanted:
                yield verdict.result(asset_key)

    return check
