"""All checks of a component, and their evaluation by an asset whose step is about to fail."""

from collections.abc import Iterator, Sequence

import dagster as dg
from dagster import AssetExecutionContext

from later_reporting_dagster.defs.checks.check import CheckRun, CheckStep, days_of_run, failed_before, to_evaluation
from later_reporting_dagster.defs.checks.posts import POSTS_STEPS
from later_reporting_dagster.defs.checks.rollups import rollup_checks
from later_reporting_dagster.defs.checks.totals import TOTALS_STEPS
from later_reporting_dagster.defs.component_base import ComponentBase
from later_reporting_dagster.defs.dagster_private import op_context, planned_checks_of_run
from later_reporting_dagster.defs.resource import LaterReportingResource, setting_name
from later_reporting_dagster.lake import FileDamaged, LakeUnavailable
from later_reporting_dagster.rollups.sql_engine import RollupFailed


def check_steps(component: ComponentBase) -> list[CheckStep]:
    """Return the checks of all assets that are defined."""
    steps = [step.defined({*component.tables}) for step in (*POSTS_STEPS, *TOTALS_STEPS)]
    return [*(step for step in steps if step.checks), *rollup_checks(component)]


def check_definitions(component: ComponentBase) -> list[dg.AssetChecksDefinition]:
    """Return the definitions of all checks for Dagster."""
    definitions = [step.definition(component) for step in check_steps(component)]
    names = {spec.name for each in definitions for spec in each.check_specs}
    if unknown := [name for name in component.blocking_checks if name not in names]:
        raise dg.DagsterInvalidDefinitionError(
            f"{setting_name('blocking_checks')}: there is no check {', '.join(unknown)}; there are"
            f" {', '.join(sorted(names))}"
        )
    return definitions


def evaluate_skipped_checks(
    context: AssetExecutionContext,
    later: LaterReportingResource,
    component: ComponentBase,
    *,
    instances: Sequence[str] = (),
) -> Iterator[dg.AssetCheckEvaluation]:
    """Evaluate the checks that Dagster skips once the step of this asset fails, on what is in the lake.

    These are the checks of the run that read the asset. A check that a run skips looks like one that failed.
    `instances` are those that the run expects. An error is logged as a warning: it would hide why the step fails.
    """
    days = days_of_run(op_context(context), {context.asset_key})
    planned = planned_checks_of_run(context.instance, context.run.run_id)
    run = CheckRun(later, component, planned, *days, failed_before(context.instance, planned), instances)
    for step in check_steps(component):
        if context.asset_key not in map(component.asset_key, [*step.checks, *step.deps]):
            continue
        try:
            for result in step.results(run):
                assert result.asset_key is not None
                yield to_evaluation(result, result.asset_key)
        except (LakeUnavailable, FileDamaged, RollupFailed) as error:
            context.log.warning(f"Some checks of {component.op_name(step.name)} could not be evaluated: {error}")
