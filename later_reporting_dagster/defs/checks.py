"""Asset checks: results are evaluated once, whether a run logs them itself or a check step yields them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

import dagster as dg
from dagster import AssetCheckExecutionContext, AssetExecutionContext

from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.lake import LakeUnavailable, PartitionDamaged

NEWEST_DUE_DAY = "newest_due_day_is_present"
RECONCILES = "reconciles_with_raw_rows"

# A description names a few; the metadata has the rest.
NAMED_PARTITIONS = 20


# Yields the results of at least the checks that are named.
Evaluate = Callable[[LaterReportingResource, Set[str]], Iterable[dg.AssetCheckResult]]


def checks_of(
    asset_key: dg.AssetKey,
    checks: Mapping[str, str],
    *,
    evaluate: Evaluate,
    due_hour_utc: int,
    daily: Sequence[str],
    name: str | None = None,
    deps: Sequence[dg.AssetKey] = (),
) -> dg.AssetChecksDefinition:
    """Return check definitions of an asset over all that lies in the lake; any of them can be run alone.

    Args:
        asset_key: the asset.
        checks: the description of each check, by name.
        evaluate: evaluates the selected checks.
        due_hour_utc: when those of `daily` are evaluated.
        daily: the checks that time alone may change, or that no run of the asset evaluates.
        name: of the step; by default that of the asset.
        deps: further assets that the checks read.
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
                automation_condition=daily_when_due if check_name in daily else None,
            )
            for check_name, description in checks.items()
        ],
        can_subset=True,
    )
    def check(context: AssetCheckExecutionContext, later: LaterReportingResource) -> Iterator[dg.AssetCheckResult]:
        selected = {key.name for key in context.selected_asset_check_keys}
        for result in evaluate(later, selected):
            if result.check_name in selected:
                yield result

    return check


def evaluation_of(result: dg.AssetCheckResult, asset_key: dg.AssetKey) -> dg.AssetCheckEvaluation:
    """Return a check result as the event that an asset, or a sensor, logs itself."""
    return dg.AssetCheckEvaluation(
        asset_key=asset_key,
        check_name=str(result.check_name),
        passed=result.passed,
        metadata=result.metadata,
        severity=result.severity,
        description=result.description,
    )


def log_check_results(
    context: AssetExecutionContext, results: Iterable[dg.AssetCheckResult], *, asset_key: dg.AssetKey | None = None
) -> None:
    """Log check results as events of the run.

    An asset that logs its own materializations has no output, and Dagster skips its check steps in the same run. A
    check that cannot be evaluated costs a warning, and hides no other news of the run.
    """
    try:
        for result in results:
            context.log_event(evaluation_of(result, asset_key or context.asset_key))
    except (LakeUnavailable, PartitionDamaged) as error:
        context.log.warning(f"Not all checks could be evaluated: {error}")


def first_of(names: Sequence[object]) -> str:
    """Return the first of some names, and how many more there are."""
    shown = ", ".join(str(name) for name in names[:NAMED_PARTITIONS])
    return f"{shown} and {len(names) - NAMED_PARTITIONS} more" if len(names) > NAMED_PARTITIONS else shown
