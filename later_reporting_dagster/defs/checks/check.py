"""Asset checks: in a run that writes partitions they look at these, and in any other run at all partitions."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import date
from typing import Any

import dagster as dg
from dagster import AssetCheckExecutionContext, AssetExecutionContext

from later_reporting_dagster.defs.component_base import ComponentBase
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.lake import FileDamaged, LakeUnavailable

WARN = dg.AssetCheckSeverity.WARN
# A description names this many partitions or instances; the metadata has the rest.
MAX_NAMES = 20


@dataclass(frozen=True, slots=True)
class Check:
    """A check of an asset.

    Attributes:
        nothing: the description of a result if nothing was looked at.
        is_daily: whether it runs every day at the due hour, because its result changes with time, or with other tables.
    """

    name: str
    description: str
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR
    nothing: str = "Nothing to check"
    is_daily: bool = False

    def result(
        self, passed: bool, problem: str, *, otherwise: str, looked_at: Mapping[str, int] | None = None, **metadata: Any
    ) -> dg.AssetCheckResult:
        """Return the result; `looked_at` says how much was looked at, by noun, and is part of the metadata."""
        has_nothing = passed and looked_at is not None and not any(looked_at.values())
        good = self.nothing if has_nothing else otherwise
        return dg.AssetCheckResult(
            check_name=self.name,
            passed=passed,
            description=good if passed else problem,
            metadata={**(looked_at or {}), **metadata, **({"nothing_to_check": True} if has_nothing else {})},
            severity=self.severity,
        )


@dataclass(frozen=True, slots=True)
class CheckScope:
    """What a run of checks looks at.

    Attributes:
        selected: the keys of the checks.
        partitions: first day of the first and the last partition that the run writes; None for all partitions.
    """

    selected: Set[dg.AssetCheckKey]
    partitions: tuple[date, date] | None = None

    def has(self, *checks: Check) -> bool:
        """Return whether one of these checks is selected."""
        return not {check.name for check in checks}.isdisjoint(key.name for key in self.selected)

    def includes(self, day: date) -> bool:
        """Return whether to look at the partition that starts with `day`."""
        return self.partitions is None or self.partitions[0] <= day <= self.partitions[1]


# Called with the resource and the scope. It yields the results of the selected checks, and may yield others. If the
# checks are those of several tables, each result has the key of its asset.
CheckEvaluator = Callable[[LaterReportingResource, CheckScope], Iterable[dg.AssetCheckResult]]


def build_asset_checks(
    checks: Mapping[str, Sequence[Check]],
    *,
    evaluate: CheckEvaluator,
    component: ComponentBase,
    step: str = "",
    deps: Sequence[str] = (),
) -> dg.AssetChecksDefinition:
    """Return the checks of tables as one step; any subset can be run. `deps` are other tables that they read."""
    at_due_hour: dg.AutomationCondition[Any] = dg.AutomationCondition.cron_tick_passed(component.due_cron)
    keys = {name: component.asset_key(name) for name in checks}
    first_key = next(iter(keys.values()))

    @dg.multi_asset_check(
        name=step or f"{component.op_name(next(iter(checks)))}_checks",
        specs=[
            dg.AssetCheckSpec(
                check.name,
                asset=keys[name],
                description=check.description,
                additional_deps=[component.asset_key(dep) for dep in deps],
                automation_condition=at_due_hour if check.is_daily else None,
            )
            for name, of_table in checks.items()
            for check in of_table
        ],
        can_subset=True,
        required_resource_keys={component.resource_key},
    )
    def run_checks(context: AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        scope = CheckScope(context.selected_asset_check_keys, _partitions_of_run(context))
        for result in evaluate(getattr(context.resources, component.resource_key), scope):
            if dg.AssetCheckKey(result.asset_key or first_key, str(result.check_name)) in scope.selected:
                yield result

    return run_checks


def _partitions_of_run(context: AssetCheckExecutionContext) -> tuple[date, date] | None:
    # In older versions of Dagster, the context of the check itself has no partitions.
    run = context.op_execution_context
    if not (run.has_partition_key or run.has_partition_key_range):
        return None
    keys = run.partition_key_range
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
