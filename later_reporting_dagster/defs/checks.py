"""Asset checks: in a run that writes partitions they look at these, and in any other run at all partitions."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import date
from typing import Any

import dagster as dg
from dagster import AssetCheckExecutionContext, AssetExecutionContext

from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.defs.settings import DefinitionSettings
from later_reporting_dagster.lake import FileDamaged, LakeUnavailable

NEWEST_DUE_DAY = "newest_due_day_is_present"
RECONCILES = "reconciles_with_raw_rows"

WARN = dg.AssetCheckSeverity.WARN
# A description names this many partitions or instances; the metadata has the rest.
MAX_NAMES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A check of an asset.

    Attributes:
        name: the name.
        description: what holds if it passes.
        severity: severity of a failure.
        nothing: the description of a result if nothing was looked at.
        is_daily: whether it runs every day at the due hour, because its result changes with time, or with other tables.
    """

    name: str
    description: str
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR
    nothing: str = "Nothing to check"
    is_daily: bool = False

    def spec(self, table_name: str, settings: DefinitionSettings, deps: Sequence[str] = ()) -> dg.AssetCheckSpec:
        """Return the spec of the check of a table; `deps` are other tables that it reads."""
        when_due: dg.AutomationCondition[Any] = dg.AutomationCondition.cron_tick_passed(
            f"0 {settings.due_hour_utc} * * *"
        )
        return dg.AssetCheckSpec(
            self.name,
            asset=settings.asset_key(table_name),
            description=self.description,
            additional_deps=[settings.asset_key(name) for name in deps],
            automation_condition=when_due if self.is_daily else None,
        )

    def result(
        self, problem: str, *, otherwise: str, looked_at: Mapping[str, int], metadata: Mapping[str, Any] | None = None
    ) -> dg.AssetCheckResult:
        """Return the result.

        Args:
            problem: what is wrong, and what to do about it; empty if the check passes.
            otherwise: the description if nothing is wrong.
            looked_at: how much was looked at, by noun.
            metadata: more metadata than `looked_at`.
        """
        has_nothing = not problem and not any(looked_at.values())
        return dg.AssetCheckResult(
            check_name=self.name,
            passed=not problem,
            description=problem or (self.nothing if has_nothing else otherwise),
            metadata={**looked_at, **(metadata or {}), **({"nothing_to_check": True} if has_nothing else {})},
            severity=self.severity,
        )


@dataclass(frozen=True, slots=True)
class CheckScope:
    """What a run of checks looks at.

    Attributes:
        selected: names of the checks.
        partitions: first day of the first and the last partition that the run writes; None for all partitions.
    """

    selected: Set[str]
    partitions: tuple[date, date] | None = None

    def includes(self, day: date) -> bool:
        """Return whether to look at the partition that starts with `day`."""
        return self.partitions is None or self.partitions[0] <= day <= self.partitions[1]


# Called with the resource and the scope. It yields the results of the selected checks, and may yield others.
CheckEvaluator = Callable[[LaterReportingResource, CheckScope], Iterable[dg.AssetCheckResult]]


def build_asset_checks(
    table_name: str,
    checks: Sequence[Check],
    *,
    evaluate: CheckEvaluator,
    settings: DefinitionSettings,
    step: str = "checks",
    deps: Sequence[str] = (),
) -> dg.AssetChecksDefinition:
    """Return the checks of an asset; any subset can be run.

    Args:
        table_name: the table of the asset.
        checks: the checks.
        evaluate: evaluates the selected checks.
        settings: the settings of the component.
        step: the last part of the step's name, after that of the table.
        deps: other tables that the checks read.
    """

    @dg.multi_asset_check(
        name=f"{settings.op_name(table_name)}_{step}",
        specs=[check.spec(table_name, settings, deps) for check in checks],
        can_subset=True,
        required_resource_keys={settings.resource_key},
    )
    def check(context: AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        scope = CheckScope({key.name for key in context.selected_asset_check_keys}, _partitions_of_run(context))
        for result in evaluate(getattr(context.resources, settings.resource_key), scope):
            if result.check_name in scope.selected:
                yield result

    return check


def _partitions_of_run(context: AssetCheckExecutionContext) -> tuple[date, date] | None:
    if not (context.has_partition_key or context.has_partition_key_range):
        return None
    keys = context.partition_key_range
    return date.fromisoformat(keys.start), date.fromisoformat(keys.end)


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


def log_check_results(context: AssetExecutionContext, results: Iterable[dg.AssetCheckResult]) -> None:
    """Log check results of an asset whose step is about to fail, because Dagster then skips its check steps.

    If the lake cannot be read, log a warning and raise nothing: an error here would hide why the step fails.
    """
    try:
        for result in results:
            context.log_event(to_evaluation(result, context.asset_key))
    except (LakeUnavailable, FileDamaged) as error:
        context.log.warning(f"Some checks could not be evaluated: {error}")


def join_first(names: Sequence[object]) -> str:
    """Join the first `MAX_NAMES` names by commas, and add how many more there are."""
    joined = ", ".join(str(name) for name in names[:MAX_NAMES])
    return f"{joined} and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else joined
