"""Asset checks. The run that writes an asset and a run of its checks alone evaluate each check by the same function."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

import dagster as dg
from dagster import AssetCheckExecutionContext, AssetExecutionContext

from later_reporting_dagster.defs.event_batch import log_event
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.defs.settings import DefinitionSettings
from later_reporting_dagster.lake import FileDamaged, LakeUnavailable

NEWEST_DUE_DAY = "newest_due_day_is_present"
RECONCILES = "reconciles_with_raw_rows"

# A description names this many partitions or instances; the metadata has the rest.
MAX_NAMES = 20


# Called with the resource and the names of the selected checks. It yields their results, and may yield others.
CheckEvaluator = Callable[[LaterReportingResource, Set[str]], Iterable[dg.AssetCheckResult]]


def build_asset_checks(
    table_name: str,
    checks: Mapping[str, str],
    *,
    evaluate: CheckEvaluator,
    settings: DefinitionSettings,
    daily: Sequence[str],
    step: str = "checks",
    deps: Sequence[str] = (),
) -> dg.AssetChecksDefinition:
    """Return the checks of an asset over all of its partitions; any subset can be run.

    Args:
        table_name: the table of the asset.
        checks: check descriptions by check name.
        evaluate: evaluates the selected checks.
        settings: the settings of the component.
        daily: checks to run every day at the due hour, because their result changes with time, or because no run of the
            asset evaluates them.
        step: the last part of the step's name, after that of the table.
        deps: other tables that the checks read.
    """
    asset_key = settings.asset_key(table_name)
    when_due: dg.AutomationCondition[Any] = dg.AutomationCondition.cron_tick_passed(f"0 {settings.due_hour_utc} * * *")

    @dg.multi_asset_check(
        name=f"{settings.op_name(table_name)}_{step}",
        specs=[
            dg.AssetCheckSpec(
                check_name,
                asset=asset_key,
                description=description,
                additional_deps=[settings.asset_key(name) for name in deps],
                automation_condition=when_due if check_name in daily else None,
            )
            for check_name, description in checks.items()
        ],
        can_subset=True,
        required_resource_keys={settings.resource_key},
    )
    def check(context: AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        selected = {key.name for key in context.selected_asset_check_keys}
        for result in evaluate(getattr(context.resources, settings.resource_key), selected):
            if result.check_name in selected:
                yield result

    return check


def to_evaluation(result: dg.AssetCheckResult, asset_key: dg.AssetKey) -> dg.AssetCheckEvaluation:
    """Convert a check result to the event that an asset or a sensor logs."""
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

    Dagster skips the check steps of an asset that logs its own materializations, because such an asset has no output.
    If the lake cannot be read, log a warning and raise nothing, because an error here would hide the failure of the
    run itself.
    """
    try:
        for result in results:
            log_event(context, to_evaluation(result, asset_key or context.asset_key))
    except (LakeUnavailable, FileDamaged) as error:
        context.log.warning(f"Some checks could not be evaluated: {error}")


def join_first(names: Sequence[object]) -> str:
    """Join the first `MAX_NAMES` names by commas, and add how many more there are."""
    joined = ", ".join(str(name) for name in names[:MAX_NAMES])
    return f"{joined} and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else joined
