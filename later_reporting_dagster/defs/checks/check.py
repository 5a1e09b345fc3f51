"""Asset checks: in a run that writes partitions they look at these, and in any other run at all partitions.

A result that fails names the days that are wrong. Until they are right, a run of other days looks at them, too:
otherwise its result, which is the newest, would hide them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

import dagster as dg
from dagster import AssetCheckExecutionContext

from later_reporting_dagster.contract.days import day_ranges, days_between, parse_day_ranges
from later_reporting_dagster.defs.component_base import ComponentBase
from later_reporting_dagster.defs.dagster_private import (
    assets_of_job,
    materializations_of_run,
    newest_failed_evaluations,
    op_context,
    selected_assets,
)
from later_reporting_dagster.defs.resource import LaterReportingResource

WARN = dg.AssetCheckSeverity.WARN
# A description names this many partitions or instances; the metadata has the rest.
MAX_NAMES = 20
# In the metadata of a result that fails: the days that are wrong. Of more ranges than these, the days from the first to
# the last: a run then looks at more days than it has to, but at none too few.
FAILED_DAYS = "failed_days"
MAX_RANGES = 100


@dataclass(frozen=True, slots=True)
class Check:
    """A check of an asset.

    Attributes:
        nothing: the description of a result if nothing was looked at.
        is_daily: whether it also looks at the whole lake every day at the due hour, because its result changes with
            time, with other tables, or with what others do to its files.
        needs: the tables, besides its own, without which it is not defined.
    """

    name: str
    description: str
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR
    nothing: str = "Nothing to check"
    is_daily: bool = False
    needs: Sequence[str] = ()

    def result(
        self,
        passed: bool,
        problem: str,
        *,
        otherwise: str,
        looked_at: Mapping[str, int] | None = None,
        failed_days: Iterable[date] = (),
        **metadata: Any,
    ) -> dg.AssetCheckResult:
        """Return the result; `looked_at` says how much was looked at, by noun, and is part of the metadata.

        `failed_days`: why it fails. Without them, it looks at the same in each run.
        """
        if not passed and (ranges := named_ranges(failed_days)):
            metadata[FAILED_DAYS] = dg.MetadataValue.json(ranges)
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
        failed_before: by check, the days for which its newest result fails. A run of some days looks at them, too.
        instances: the instances that the run expects; empty for those that the lake expects.
    """

    later: LaterReportingResource
    component: ComponentBase
    selected: Set[dg.AssetCheckKey]
    partitions: tuple[date, date] | None = None
    old_days: Set[date] = frozenset()
    failed_before: Mapping[dg.AssetCheckKey, Set[date]] = field(default_factory=dict)
    instances: Sequence[str] = ()

    def has(self, *checks: Check) -> bool:
        return not {check.name for check in checks}.isdisjoint(key.name for key in self.selected)

    def days(self, table_name: str, *checks: Check) -> Set[date] | None:
        """Return the days to look at, among them the first day of each partition; None for all partitions.

        They are those of the run, and those for which one of the checks has failed.
        """
        if self.partitions is None:
            return None
        failed = [self.failed_days(table_name, check) for check in checks]
        return {*days_between(*self.partitions), *self.old_days}.union(*failed)

    def failed_days(self, table_name: str, check: Check) -> Set[date]:
        return self.failed_before.get(dg.AssetCheckKey(self.component.asset_key(table_name), check.name), frozenset())


Results = Iterator[dg.AssetCheckResult]


@dataclass(frozen=True, kw_only=True)
class CheckStep:
    """Checks that are evaluated in one step of a run; any subset can be run.

    Attributes:
        name: without the prefix of the component.
        checks: by table.
        evaluate: yields the results of the selected checks, and may yield others. If the checks are those of several
            tables, each result has the key of its asset.
        deps: other tables, for which the step waits if the run makes them, because the checks compare with them.
    """

    name: str
    checks: Mapping[str, Sequence[Check]]
    evaluate: Callable[[CheckRun], Iterable[dg.AssetCheckResult]]
    deps: Sequence[str] = ()

    def defined(self, tables: Set[str]) -> "CheckStep":
        """Return the step without the checks that are not defined if only some tables are."""
        checks = {
            name: [check for check in of_table if {*check.needs} <= tables]
            for name, of_table in self.checks.items()
            if name in tables
        }
        return replace(self, checks={name: of_table for name, of_table in checks.items() if of_table})

    def results(self, run: CheckRun) -> Results:
        """Yield the results of the selected checks, each with the key of its asset."""
        first_key = run.component.asset_key(next(iter(self.checks)))
        for result in self.evaluate(run):
            key = result.asset_key or first_key
            check_key = dg.AssetCheckKey(key, str(result.check_name))
            if check_key not in run.selected:
                continue
            if check_key.name in run.component.blocking_checks:  # Dagster goes on after a warning
                result = result._replace(severity=dg.AssetCheckSeverity.ERROR)
            if failed := run.failed_before.get(check_key):
                before = f" (also at {join_first(named_ranges(failed))}, where this had failed)"
                result = result._replace(description=f"{result.description}{before}")
            yield result._replace(asset_key=key)

    def definition(self, component: ComponentBase) -> dg.AssetChecksDefinition:
        """Return the definition for Dagster.

        The checks have no automation condition: with one, Dagster leaves them out of the runs that automation requests.
        """

        @dg.multi_asset_check(
            **component.step(self.name),
            specs=[
                dg.AssetCheckSpec(
                    check.name,
                    asset=component.asset_key(name),
                    description=check.description,
                    additional_deps=[component.asset_key(dep) for dep in self.deps],
                    blocking=check.name in component.blocking_checks,
                )
                for name, of_table in self.checks.items()
                for check in of_table
            ],
            can_subset=True,
        )
        def run_checks(context: AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
            keys = {component.asset_key(table) for table in (*self.checks, *self.deps)}
            days = days_of_run(op_context(context), keys)
            selected = context.selected_asset_check_keys
            failed = failed_before(context.instance, selected) if days[0] else {}
            yield from self.results(CheckRun(component.later(context), component, selected, *days, failed))

        return run_checks


def days_of_run(
    context: dg.OpExecutionContext, keys: Set[dg.AssetKey]
) -> tuple[tuple[date, date] | None, frozenset[date]]:
    """Return the first days of the first and the last partition that a run has materialized of these assets.

    None if it has no partitions, those that it selects if it executes none of the assets. A fetch of missing files
    selects years, and materializes a few days or none; then no day is between the returned ones. Days that it has
    materialized besides those that it selects are returned separately.
    """
    if not (context.has_partition_key or context.has_partition_key_range):
        return None, frozenset()
    selected = context.partition_key_range
    first, last = date.fromisoformat(selected.start), date.fromisoformat(selected.end)
    executed = selected_assets(context.run) or assets_of_job(context.job_def)
    if keys.isdisjoint(executed):
        return (first, last), frozenset()
    events = materializations_of_run(context.instance, context.run.run_id)
    days = {date.fromisoformat(event.partition) for event in events if event.asset_key in keys and event.partition}
    within = {day for day in days if first <= day <= last}
    return (min(within), max(within)) if within else (date.max, date.min), frozenset(days - within)


def failed_before(instance: dg.DagsterInstance, keys: Set[dg.AssetCheckKey]) -> dict[dg.AssetCheckKey, frozenset[date]]:
    """Return the days that the newest result of each of these checks names, if it fails. Others name none."""
    found = {}
    for key, evaluation in newest_failed_evaluations(instance, keys).items():
        named = evaluation.metadata.get(FAILED_DAYS)
        if isinstance(named, dg.JsonMetadataValue) and isinstance(named.value, list):
            found[key] = frozenset(parse_day_ranges(named.value, earliest=date.min, latest=date.max))
    return found


def named_ranges(days: Iterable[date]) -> list[str]:
    """Return ranges that have all of the days; at most `MAX_RANGES`."""
    ranges = day_ranges(found := {*days})
    return ranges if len(ranges) <= MAX_RANGES else [f"{min(found)} to {max(found)}"]


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
