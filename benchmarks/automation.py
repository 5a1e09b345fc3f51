"""Many instances: what an automation tick costs, and how long a first history takes until its run is planned."""

import logging
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from benchmarks.in_dagster import prepare, running_daemon
from benchmarks.workload import SOURCES, Box, Figures

WRITTEN_DAYS, IDLE_TICKS = 28, 5


def make_home(box: Box, *, base_url: str, date_basis: str, root: Path) -> Figures:
    """Materializes every asset for the newest days of the box, so that a home and a lake are left in `root`."""
    prepare(base_url=base_url, root=root, start=box.start)
    from later_reporting_dagster.cli import in_process_runs
    from later_reporting_dagster.cli.demo import REPORT
    from later_reporting_dagster.defs.partitions import range_tags
    from later_reporting_dagster.ingest.instance_dimension import INSTANCES
    from later_reporting_dagster.rollups.periods import Span
    from later_reporting_dagster.rollups.rollup_tables import BY_DAY, BY_WINDOW, OVER_DAYS

    first = box.end - timedelta(days=WRITTEN_DAYS - 1)
    with in_process_runs.dagster_instance() as instance:

        def materialize(assets: Sequence[str], span: Span | None = None) -> None:
            tags = range_tags(first, box.end, span=span) if span else None
            outcome = in_process_runs.materialize(assets, instance=instance, tags=tags)
            assert outcome.succeeded, outcome

        materialize([*SOURCES.values()], Span.DAY)
        for span in Span:
            materialize([table.name for table in (*BY_DAY, *OVER_DAYS) if table.span is span], span)
        for unpartitioned in ([INSTANCES], [table.name for table in BY_WINDOW], [REPORT]):
            materialize(unpartitioned)
    return Figures()


def ticks(box: Box, *, base_url: str, date_basis: str, root: Path) -> Figures:
    """Evaluates the automation sensor as the daemon does, from its stored cursor to the next one, in this process."""
    logging.disable(logging.INFO)
    prepare(base_url=base_url, root=root, start=box.start)
    import dagster as dg

    from later_reporting_dagster.definitions import defs

    repository = defs.get_repository_def()
    ours = repository.get_sensor_def("later_automation")
    # The same conditions, where they can be evaluated by a public function.
    sensor = dg.AutomationConditionSensorDefinition(ours.name, target=ours.asset_selection, use_user_code_server=True)
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
        for asset in SOURCES.values():
            for day in box.days[-WRITTEN_DAYS:]:
                key, tags = dg.AssetKey(["later", asset]), {"dagster/data_version": "changed"}
                instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=str(day), tags=tags))
        changed = tick(requests=True)
    return Figures(ticks={"first": first, "idle": idle, "all days changed": changed})


def first_history(box: Box, *, base_url: str, date_basis: str, root: Path) -> Figures:
    """Lets the daemon's sensor find all instances new; measures from its tick to the last planned event of the run."""
    prepare(base_url=base_url, root=root, start=box.start)
    import dagster as dg

    module = ["-m", "later_reporting_dagster.definitions"]
    start = [sys.executable, "-m", "dagster", "sensor", "start", "later_instances", *module]
    subprocess.run(start, check=True, capture_output=True)
    with dg.DagsterInstance.get() as instance:
        with running_daemon(root) as still_runs:
            while still_runs():
                runs = instance.get_runs(dg.RunsFilter(job_name="later_posts"))
                if runs and runs[0].status is not dg.DagsterRunStatus.NOT_STARTED:
                    break
                time.sleep(0.5)
        planned = instance.all_logs(runs[0].run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED)
        assert len(planned) == len(SOURCES) * len(box.days), len(planned)
        [state] = [each for each in instance.all_instigator_state() if each.name == "later_instances"]
        [tick] = instance.get_ticks(state.instigator_origin_id, state.selector_id)
        return Figures(seconds=max(event.timestamp for event in planned) - tick.timestamp)
