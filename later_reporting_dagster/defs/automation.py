"""Declarative automation: the condition of the downstream assets, and the sensor that evaluates it."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from later_reporting_dagster.defs.settings import DefinitionSettings


def when_upstream_changes(*upstream: dg.AssetKey) -> dg.AutomationCondition[Any]:
    """Return the condition: materialize a partition when upstream data has changed, or when the partition is missing.

    A missing partition is requested only if its upstream exists.

    A restatement that changes nothing keeps the data version, and therefore triggers nothing. A change during a run of
    the asset or of its upstream is remembered until that run is over. `any_deps_match(data_version_changed()) &
    ~in_progress` would lose it, because a change is visible in one tick only.

    Args:
        upstream: the dependencies to consider; default: all.
    """
    condition = dg.AutomationCondition
    changed = condition.any_deps_match(condition.data_version_changed())
    upstream_exists = condition.any_deps_match(~condition.missing())
    if upstream:
        selection = dg.AssetSelection.assets(*upstream)
        changed, upstream_exists = changed.allow(selection), upstream_exists.allow(selection)
    never_materialized = condition.missing() & upstream_exists
    # `newly_requested` becomes true one tick after the request. Without `~changed`, a change in between would be
    # forgotten.
    handled = ~changed & condition.newly_requested()
    due = (changed | never_materialized.newly_true()).since(handled)
    in_progress = condition.in_progress() | condition.any_deps_in_progress()
    return (due & ~in_progress).with_label("upstream_changed")


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
