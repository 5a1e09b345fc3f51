"""Asset checks: what must hold of the tables, told after each run and asked again whenever someone wants to know."""

from collections.abc import Callable, Iterator, Mapping, Sequence
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
DAYS_ADD_UP = "days_add_up_to_metrics_to_date"

POSTS_CHECKS: Mapping[str, str] = {
    ROWS_UNIQUE: "No two rows share instance, campaign and post.",
    ROWS_BELONG: "Each row is of the instance and the day of its partition.",
    RATES_AGREE: "Engagement rate, CPE and CPM agree with the counts beside them, within rounding.",
    NO_UNKNOWN_FIELDS: "The API answered no field and no content type that the contract does not know.",
    QUARANTINE_EMPTY: "The API answered no row that cannot be true.",
    NEWEST_DUE_DAY: "The newest day that is due has landed for every instance.",
}
SETTLEMENT_CHECKS: Mapping[str, str] = {
    DAYS_ADD_UP: (
        "Of posts old enough to be settled, the days of later/post_metrics_daily add up to the metrics to date."
    ),
}
ROLLUP_CHECKS: Mapping[str, str] = {
    RECONCILES: "Its totals equal those of the raw rows it comes from.",
    NEWEST_DUE_DAY: "The newest day that is due has been rolled up.",
}
WINDOWS_CHECKS: Mapping[str, str] = {
    RECONCILES: "The totals of each window, and of the period before it, equal those of the raw rows of its days.",
    NEWEST_DUE_DAY: "Its windows end with the newest day that is due, or later.",
}
# Those that time alone may change, or that no run of one asset can tell.
ASKED_DAILY = frozenset({NEWEST_DUE_DAY, DAYS_ADD_UP})


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


def settlement_checks(
    recorded: Source, published: Source, *, settled_after_days: int, due_hour_utc: int
) -> dg.AssetChecksDefinition:
    """The check between the two raw assets, asked every day at the due hour."""
    asset_key = dg.AssetKey(["later", published.asset])

    def verdicts(_context: AssetCheckExecutionContext, later: LaterReportingResource) -> "Iterator[Verdict]":
        from later_reporting_dagster.defs.runs.settlement import verdicts_on_settlement

        return verdicts_on_settlement(later.lake(), recorded, published, settled_after_days=settled_after_days)

    return checks_of(
        asset_key,
        SETTLEMENT_CHECKS,
        verdicts=verdicts,
        due_hour_utc=due_hour_utc,
        name=f"{published.asset}_settlement",
        deps=[dg.AssetKey(["later", recorded.asset])],
    )


def checks_of(
    asset_key: dg.AssetKey,
    checks: Mapping[str, str],
    *,
    verdicts: "Callable[[AssetCheckExecutionContext, LaterReportingResource], Iterator[Verdict]]",
    due_hour_utc: int,
    name: str | None = None,
    deps: Sequence[dg.AssetKey] = (),
) -> dg.AssetChecksDefinition:
    """Check definitions, by name and description, whose answers `verdicts` gives. Any of them can be run alone.

    Those that no run of the asset tells by itself are asked every day at the due hour.
    """
    daily_when_due: dg.AutomationCondition[Any] = dg.AutomationCondition.cron_tick_passed(f"0 {due_hour_utc} * * *")

    @dg.multi_asset_check(
        name=name or f"{asset_key.path[-1]}_checks",
        specs=[
            dg.AssetCheckSpec(
                check_name,
                asset=asset_key,
                description=description,
                additional_deps=[*deps],
                automation_condition=daily_when_due if check_name in ASKED_DAILY else None,
            )
            for check_name, description in checks.items()
        ],
        can_subset=True,
    )
    def check(context: AssetCheckExecutionContext, later: LaterReportingResource) -> Iterator[dg.AssetCheckResult]:
        wanted = selected_checks(context)
        for verdict in verdicts(context, later):
            if verdict.check in wanted:
                yield verdict.result(asset_key)

    return check
