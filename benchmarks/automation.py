"""Methods for many instances: time of ticks of the sensor of rollups."""

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
    """Evaluate the sensor of rollups in this process, as the daemon does: a look at the lake, and ticks without one."""
    logging.disable(logging.INFO)
    prepare(base_url=base_url, root=root, start=partitions.start)
    import dagster as dg

    from later_reporting_dagster import LaterReportingResource
    from later_reporting_dagster.definitions import defs

    sensor = defs.resolve_sensor_def("later_rollups")
    resources = {"later_reporting": LaterReportingResource.from_environment()}
    cursor: str | None = None

    with dg.DagsterInstance.get() as instance:

        def tick(*, may_request: bool = False) -> float:
            nonlocal cursor
            started = time.process_time()
            with dg.build_sensor_context(instance, cursor, definitions=defs, resources=resources) as context:
                data = sensor.evaluate_tick(context)
            cursor = data.cursor
            seconds = time.process_time() - started
            assert may_request or not data.run_requests, data.run_requests
            return seconds

        first = tick(may_request=True)  # the lists of files, after the due hour
        idle = statistics.median(tick() for _ in range(IDLE_TICKS))
        instance.report_runless_asset_event(dg.AssetMaterialization(dg.AssetKey(["later", TABLE_NAMES[date_basis]])))
        look = tick()
    return Measurement(ticks={"first": first, "idle": idle, "after a fetch": look})
