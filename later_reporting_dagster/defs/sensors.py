"""Sensors: new instances become partitions with their history, and changed posts become rollups."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import dagster as dg

from later_reporting_dagster.defs.jobs import posts_job
from later_reporting_dagster.defs.partitions import INSTANCES, box_tags, registered_keys
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.lake import encode_instance_id

INSTANCES_SENSOR_SECONDS = 3600
# Dagster ends a sensor's evaluation after a minute, and says nothing of why it took so long.
PATIENCE_SECONDS = 45.0
AUTOMATION_SENSOR_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Discovered:
    """Instance keys that are not registered yet, in the service's order; ids that cannot be partitions, with why."""

    new_keys: list[str]
    refused: dict[str, str]


def discovered(instance_ids: Sequence[str], *, registered: Sequence[str]) -> Discovered:
    """What a list of instances adds to those that are registered. Nothing is ever taken away."""
    known = set(registered)
    found = Discovered(new_keys=[], refused={})
    for instance_id in instance_ids:
        try:
            key = encode_instance_id(instance_id)
        except ValueError as error:
            found.refused[instance_id] = str(error)
            continue
        if key not in known:
            known.add(key)
            found.new_keys.append(key)
    return found


def instances_sensor(*, start_date: date) -> dg.SensorDefinition:
    """Asks which instances there are; new ones become partitions, with their history requested in one run."""

    @dg.sensor(
        name="later_instances",
        job=posts_job,
        minimum_interval_seconds=INSTANCES_SENSOR_SECONDS,
        description=(
            "Registers the instances that the credentials reach, and fetches the history of new ones."
            " An instance that is gone stays: its partitions are data."
        ),
    )
    def later_instances(
        context: dg.SensorEvaluationContext, later: LaterReportingResource
    ) -> dg.SensorResult | dg.SkipReason:
        # Needs HTTP, which the definitions load without.
        from later_reporting_dagster.client import LaterError

        try:
            instance_ids = asyncio.run(asyncio.wait_for(later.wanted_instances(), PATIENCE_SECONDS))
        except TimeoutError:
            return dg.SkipReason("The service or the rate limit has no room just now: they are listed next time.")
        except (LaterError, ValueError) as error:
            # The trace would add nothing to what the message says.
            raise dg.DagsterError(f"The instances could not be listed: {error}") from None
        found = discovered(instance_ids, registered=registered_keys(context.instance))
        for instance_id, reason in found.refused.items():
            context.log.warning(f"Instance {instance_id!r} cannot be a partition: {reason}")
        if not found.new_keys:
            return dg.SkipReason(f"All {len(instance_ids)} instances are registered.")
        yesterday = datetime.now(UTC).date() - timedelta(days=1)
        # Without a run key: Dagster would remember it, and an instance that was deleted and comes back had no history.
        run_requests = [dg.RunRequest(tags=box_tags(start_date, yesterday, found.new_keys))]
        return dg.SensorResult(
            dynamic_partitions_requests=[INSTANCES.build_add_request(found.new_keys)],
            run_requests=run_requests if yesterday >= start_date else [],
        )

    return later_instances


# On by default: it asks the network for nothing, and without it the rollups would not follow.
automation_sensor = dg.AutomationConditionSensorDefinition(
    "later_automation",
    target=dg.AssetSelection.all() | dg.AssetSelection.all_asset_checks(),
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=AUTOMATION_SENSOR_SECONDS,
    description="Rolls days up when their posts change, and asks every day whether the newest due day is there.",
)
