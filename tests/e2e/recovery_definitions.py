"""The definitions of the component with sensors that tick every few seconds, and runs that wait to be killed.

Tests control them by files in the folder RECOVERY_FOLDER:

- while `hold-<asset>` exists, a run of the asset waits between writing a partition and logging it, and writes its id to
  `held-<asset>`;
- `definitions.json` has versions of rollup tables, by name, for a daemon that starts.
"""

import json
import os
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import dagster as dg

from later_reporting_dagster import LaterReportingComponent
from later_reporting_dagster.defs import rollup_requests, runs
from later_reporting_dagster.defs.component_base import AssetEvent
from later_reporting_dagster.rollups.rollup_tables import TABLES

FOLDER = Path(os.environ["RECOVERY_FOLDER"])
# In the order of the real intervals: 30 seconds and an hour.
INTERVALS = {"later_rollups": 2, "later_missing_files": 5}


class RecoveryComponent(LaterReportingComponent):
    """The component with all sensors, and without schedules that might start in a test."""

    def schedule_status(self, *, runs_by_default: bool) -> dg.DefaultScheduleStatus:  # noqa: ARG002
        return dg.DefaultScheduleStatus.STOPPED

    def sensor_status(self, *, runs_by_default: bool) -> dg.DefaultSensorStatus:  # noqa: ARG002
        return dg.DefaultSensorStatus.RUNNING

    def execute(self, context: dg.AssetExecutionContext, events: Iterator[AssetEvent]) -> Iterator[AssetEvent]:
        for event in events:
            for key in context.selected_asset_keys:
                while (FOLDER / f"hold-{key.path[-1]}").exists():
                    (FOLDER / f"held-{key.path[-1]}").write_text(context.run.run_id)
                    time.sleep(0.1)
            yield event


# In proportion to the intervals. A day passes faster, too.
runs.TIME_BETWEEN_REQUESTS = timedelta(seconds=4)
runs.MAX_REQUESTS_A_DAY = 100
rollup_requests.LOOK_EVERY = 2.0
rollup_requests.SECONDS_BEFORE_NEXT = (2.0, 4.0)
rollup_requests.DAY = 30.0
if (versions := FOLDER / "definitions.json").exists():
    for table in TABLES:
        object.__setattr__(table, "definition", json.loads(versions.read_text()).get(table.name, table.definition))
defs = dg.Definitions.merge(
    RecoveryComponent.from_environment().build_definitions(), dg.Definitions(executor=dg.in_process_executor)
)
for sensor in defs.sensors or ():
    sensor._min_interval = INTERVALS[sensor.name]
