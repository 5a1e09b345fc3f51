"""Methods for many instances: time of automation ticks."""

import logging
import statistics
import time
from datetime import timedelta
from pathlib import Path

from benchmarks.in_dagster import prepare
from benchmarks.measurement import TABLE_NAMES, Measurement, PartitionRange

IDLE_TICKS = 5


def make_home(partitions: PartitionRange, *, base_url: str, date_basis: str, root: Path) -> Measurement:
    """Materialize every asset for the days of some partitions, to create a Dagster home and a lake in `root`."""
    # Earlier, so that there are whole weeks and months.
    prepare(base_url=base_url, root=root, start=partitions.start - timedelta(days=62))
    from later_reporting_dagster.cli.in_process_runs import dagster_instance
    from later_reporting_dagster.cli.project import ENVIRONMENT_MODULE, load_project
    from later_reporting_dagster.cli.refresh import backfill_all

    project = load_project(ENVIRONMENT_MODULE, name=None)
    with dagster_instance() as instance:
        for outcome in backfill_all(project, partitions.start, partitions.end, instance=instance):
            assert outcome.succeeded, outcome.error
    return Measurement()


def ticks(partitions: PartitionRange, *, base_url: str, date_basis: str, root: Path) -> Measurement:
    """Evaluate the automation sensor in this process, as the daemon does: first, when idle, and after changes."""
    logging.disable(logging.INFO)
    prepare(base_url=base_url, root=root, start=partitions.start)
    import dagster as dg

    from later_reporting_dagster.definitions import defs

    repository = defs.get_repository_def()
    defined = repository.get_sensor_def("later_automation")
    assert defined.asset_selection is not None
    # With `use_user_code_server` the conditions can be evaluated by a public function.
    sensor = dg.AutomationConditionSensorDefinition(
        defined.name, target=defined.asset_selection, use_user_code_server=True
    )
    cursor: str | None = None

    with dg.DagsterInstance.get() as instance:

        def tick(*, requests: bool) -> float:
            nonlocal cursor
            started = time.perf_counter()
            context = dg.build_sensor_context(instance=instance, cursor=cursor, repository_def=repository)
            data = sensor.evaluate_tick(context)
            cursor = data.cursor
            seconds = time.perf_counter() - started
            assert bool(data.run_requests) is requests, data.run_requests
            return seconds

        first = tick(requests=False)
        idle = statistics.median(tick(requests=False) for _ in range(IDLE_TICKS))
        for asset in TABLE_NAMES.values():
            key, tags = dg.AssetKey(["later", asset]), {"dagster/data_version": "changed"}
            for day in instance.get_materialized_partitions(key):
                instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=day, tags=tags))
        changed = tick(requests=True)
    return Measurement(ticks={"first": first, "idle": idle, "all days changed": changed})
