"""Asset checks: in a run that writes partitions they look at these, and in any other run at all partitions."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import date
from typing import Any

import dagster as dg
from dagster import AssetCheckExecutionContext

from later_reporting_dagster.contract.days import days_between
from later_reporting_dagster.defs.component_base import ComponentBase
from later_reporting_dagster.defs.resource import LaterReportingResource

WARN = dg.AssetCheckSeverity.WARN
# A description names this many partitions or instances; the metadata has the rest.
MAX_NAMES = 20


@dataclass(frozen=True, slots=True)
class Check:
    """A check of an asset.

    Attributes:
        nothing: the description of a result if nothing was looked at.
        is_daily: whether it also looks at the whole lake every day at the due hour, because its result changes with
            time, with other tables, or with what others do to its files.
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
            metadata={**(looked_at or {}), **metadata},
            severity=self.severity,
        )


@dataclass(frozen=True, slots=True)
class CheckRun:
    """A run of checks, and what it looks at.

    Attributes:
        partitions: first day of the first and the last partition that the run writes; None for all partitions.
        old_days: other days that it writes.
        instances: the instances that the run expects; empty for those that the lake expects.
    """

    later: LaterReportingResource
    component: ComponentBase
    selected: Set[dg.AssetCheckKey]
    partitions: tuple[date, date] | None = None
    old_days: Set[date] = frozenset()
    instances: Sequence[str] = ()

    def has(self, *checks: Check) -> bool:
        return not {check.name for check in checks}.isdisjoint(key.name for key in self.selected)

    @property
    def days(self) -> Set[date] | None:
        """Days, among them the first day of each partition to look at; None for all partitions."""
        return None if self.partitions is None else {*days_between(*self.partitions), *self.old_days}


Results = Iterator[dg.AssetCheckResult]


@dataclass(frozen=True, kw_only=True)
class CheckStep:
    """Checks that are evaluated in one step of a run; any subset can be run.

    Attributes:
        name: without the prefix of the component.
        checks: by table.
        evaluate: yields the results of the selected checks, and may yield others. If the checks are those of several
            tables, each result has the key of its asset.
        deps: other tables that the checks read.
        needs: the tables, besides those of the checks, without which the step is not defined.
    """

    name: str
    checks: Mapping[str, Sequence[Check]]
    evaluate: Callable[[CheckRun], Iterable[dg.AssetCheckResult]]
    deps: Sequence[str] = ()
    needs: Sequence[str] = ()

    def results(self, run: CheckRun) -> Results:
        """Yield the results of the selected checks, each with the key of its asset."""
        first_key = run.component.asset_key(next(iter(self.checks)))
        for result in self.evaluate(run):
            key = result.asset_key or first_key
            if dg.AssetCheckKey(key, str(result.check_name)) in run.selected:
                yield result._replace(asset_key=key)

    def definition(self, component: ComponentBase) -> dg.AssetChecksDefinition:
        """Return the definition for Dagster.

        The checks have no automation condition: with one, Dagster leaves them out of the runs that automation requests.
        """

        @dg.multi_asset_check(
            name=component.op_name(self.name),
            specs=[
                dg.AssetCheckSpec(
                    check.name,
                    asset=component.asset_key(name),
                    description=check.description,
                    additional_deps=[component.asset_key(dep) for dep in self.deps],
                )
                for name, of_table in self.checks.items()
                for check in of_table
            ],
            can_subset=True,
            required_resource_keys={component.resource_key},
        )
        def run_checks(context: AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
            keys = {component.asset_key(table) for table in (*self.checks, *self.deps)}
            days = days_of_run(context.op_execution_context, keys)
            yield from self.results(
                CheckRun(component.later(context), component, context.selected_asset_check_keys, *days)
            )

        return run_checks


def days_of_run(
    context: dg.OpExecutionContext, keys: Set[dg.AssetKey]
) -> tuple[tuple[date, date] | None, frozenset[date]]:
    """Return the first days of the first and the last partition that a run has materialized of these assets.

    None if it has no partitions, those that it selects if it executes none of the assets. A fetch of missing files
    selects years, and materializes a few days or none; then no day is between the returned ones. Days that it has
    materialized besides those that it selects are returned separately.
    """
    # In older versions of Dagster, the context of a check itself has no partitions.
    if not (context.has_partition_key or context.has_partition_key_range):
        return None, frozenset()
    selected = context.partition_key_range
    first, last = date.fromisoformat(selected.start), date.fromisoformat(selected.end)
    executed = context.run.asset_selection or context.job_def.asset_layer.executable_asset_keys
    if keys.isdisjoint(executed):
        return (first, last), frozenset()
    logged = context.instance.all_logs(context.run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    events = [entry.dagster_event.step_materialization_data.materialization for entry in logged if entry.dagster_event]
    days = {date.fromisoformat(event.partition) for event in events if event.asset_key in keys and event.partition}
    within = {day for day in days if first <= day <= last}
    return (min(within), max(within)) if within else (date.max, date.min), frozenset(days - within)


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


def join_first(names: Sequence[object]) -> str:
    """Join the first `MAX_NAMES` names by commas, and add how many more there are."""
    joined = ", ".join(str(name) for name in names[:MAX_NAMES])
    return f"{joined} and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else joined
