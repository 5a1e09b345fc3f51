"""When assets follow by themselves, and the sensor that has them do so."""

from collections.abc import Sequence
from typing import Any

import dagster as dg


def when_upstream_changes(*followed: dg.AssetKey) -> dg.AutomationCondition[Any]:
    """Return the condition to materialize a partition when upstream data changed, or when it never was.

    A change that comes while a run is under way, of the asset or of what it depends on, is kept until that run is
    over; `any_deps_match(data_version_changed())` alone would lose it. A restatement that changed nothing has the same
    data version, and triggers nothing.

    Args:
        followed: the dependencies that matter; all of them when none are given.
    """
    condition = dg.AutomationCondition
    changed = condition.any_deps_match(condition.data_version_changed())
    upstream_exists = condition.any_deps_match(~condition.missing())
    if followed:
        selection = dg.AssetSelection.assets(*followed)
        changed, upstream_exists = changed.allow(selection), upstream_exists.allow(selection)
    never_made = condition.missing() & upstream_exists
    # A request is seen in the next tick, and there it would swallow a change that came in between.
    requested = ~changed & condition.newly_requested()
    due = (changed | never_made.newly_true()).since(requested)
    under_way = condition.in_progress() | condition.any_deps_in_progress()
    return (due & ~under_way).with_label("upstream_changed")


def automation_sensor(keys: Sequence[dg.AssetKey]) -> dg.AutomationConditionSensorDefinition:
    """Return the sensor that evaluates the conditions of these assets and their checks, and of no others.

    On by default: it needs no network, and without it the rollups would not follow.
    """
    return dg.AutomationConditionSensorDefinition(
        "later_automation",
        target=dg.AssetSelection.assets(*keys) | dg.AssetSelection.checks_for_assets(*keys),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        description="Rolls days up when their posts change, and checks every day whether the newest due day is there.",
    )
