"""Declarative automation: the condition of the downstream assets, and the sensor that evaluates it."""

from collections.abc import Sequence
from typing import Any

import dagster as dg
from dagster import AssetExecutionContext

from later_reporting_dagster.defs.settings import DefinitionSettings

_BACKFILL_TAG = "dagster/backfill"


def when_upstream_changes(key: dg.AssetKey, *, upstream: Sequence[dg.AssetKey] = ()) -> dg.AutomationCondition[Any]:
    """Return the condition: materialize a partition when upstream data or its code has changed, or when it is missing.

    A missing partition is requested only if its upstream exists. A restatement that changes nothing keeps the data
    version, and therefore triggers nothing.

    A change is visible in one tick only, so it is remembered: until the asset is requested, when no run of the asset or
    of its upstream is in progress; or until the asset is updated, if the run or backfill that made the change updates
    it as well. An update by another run may have read the data before the change.

    Args:
        key: the asset that gets the condition.
        upstream: the dependencies to consider; default: all.
    """
    condition = dg.AutomationCondition

    def any_upstream(matches: dg.AutomationCondition[Any]) -> dg.AutomationCondition[Any]:
        any_dep = condition.any_deps_match(matches)
        return any_dep.allow(dg.AssetSelection.assets(*upstream)) if upstream else any_dep

    changed = condition.data_version_changed()
    # If the event log was empty at the last tick, Dagster finds no runs. Then each update is expected to be followed.
    will_follow = (
        condition.all_new_updates_have_run_tags(tag_keys={_update_tag(key)}) | ~condition.any_new_update_has_run_tags()
    )
    followed_change, other_change = any_upstream(changed & will_follow), any_upstream(changed & ~will_follow)
    never_materialized = (condition.missing() & any_upstream(~condition.missing())).newly_true()
    outdated = condition.code_version_changed() & ~condition.missing()
    # `newly_requested` becomes true one tick after the request. A change in between must not be forgotten.
    requested = condition.newly_requested()
    due = other_change.since(requested & ~other_change) | (followed_change | never_materialized | outdated).since(
        condition.newly_updated() | (requested & ~followed_change)
    )
    in_progress = condition.in_progress() | condition.any_deps_in_progress()
    return (due & ~in_progress).with_label("upstream_changed")


def tag_run_with_updates(context: AssetExecutionContext, keys: Sequence[dg.AssetKey]) -> None:
    """Tag the run with those of `keys` that it, or its backfill, updates besides the assets of this step.

    `keys` are the assets with a condition, which looks at these tags.

    `executed_with_root_target` would tell the same without tags, but of the last partition only.
    """
    run = context.run
    updated = set(run.asset_selection or context.job_def.asset_layer.executable_asset_keys)
    if backfill := context.instance.get_backfill(run.tags.get(_BACKFILL_TAG, "")):
        updated.update(backfill.asset_selection or ())
    if tags := {_update_tag(key): "true" for key in updated & {*keys} - context.selected_asset_keys}:
        context.instance.add_run_tags(run.run_id, tags)


def _update_tag(key: dg.AssetKey) -> str:
    # The UI hides tags with this prefix. A run may have a dozen of these.
    return f".dagster/updates/{key.to_user_string()}"


def build_automation_sensor(
    settings: DefinitionSettings, keys: Sequence[dg.AssetKey]
) -> dg.AutomationConditionSensorDefinition:
    """Return the sensor that evaluates the conditions of these assets and their checks only.

    It runs by default, because it needs no network, and rollups would not be updated without it.
    """
    return dg.AutomationConditionSensorDefinition(
        f"{settings.name}_automation",
        target=dg.AssetSelection.assets(*keys) | dg.AssetSelection.checks_for_assets(*keys),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        description=(
            "Updates rollups, instances, coverage and the report when their upstream changes, and runs daily checks:"
            " missing files, instances that are no longer listed, and settled posts."
        ),
    )
