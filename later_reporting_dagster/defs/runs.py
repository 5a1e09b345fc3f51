"""Runs: what they are told, which go on, and how often the same days were requested."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime, timedelta
from itertools import groupby
from typing import Any

import dagster as dg

from later_reporting_dagster.contract.days import days_between, newest_day, parse_day_ranges, utc_now
from later_reporting_dagster.defs.component_base import ComponentBase
from later_reporting_dagster.defs.dagster_private import (
    assets_of_job,
    backfills_in_progress,
    newest_event_at,
    selected_assets,
)
from later_reporting_dagster.defs.partitions import RANGE_END_TAG, RANGE_START_TAG, build_partitions_def, selected_range
from later_reporting_dagster.lake.tables import OF_INSTANCES
from later_reporting_dagster.quality.outdated import Outdated
from later_reporting_dagster.rollups.rollup_tables import CADENCES

# Where a run comes from: a sensor, or a command.
REQUESTED_BY_TAG = "later/requested_by"
# The name of a job follows, or of a table. The value is a hash of what a run is to make of it, and from what.
REQUEST_TAG = "later.request/"
# Dagster's own times of a run are off by the time zone of a PostgreSQL that is not in UTC.
REQUESTED_AT_TAG = "later/requested_at"
# Of runs that are to make the same from the same. A sensor that ticks every hour may be some minutes early.
MAX_REQUESTS_A_DAY, TIME_BETWEEN_REQUESTS = 3, timedelta(minutes=55)
# A run that has not logged an event for so long no longer exists.
DEAD_AFTER = timedelta(hours=1)
_NOT_FINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def request_tags(settings: ComponentBase, table: str, *made: str) -> dict[str, str]:
    """Return the tags of a run of the sensor of missing files that is to make this of a table, or by a job."""
    digest = hashlib.sha256("\n".join([settings.name, *made]).encode(errors="backslashreplace"))
    return {
        REQUESTED_BY_TAG: f"{settings.name}_missing_files",
        REQUEST_TAG + table: digest.hexdigest()[:32],
        REQUESTED_AT_TAG: utc_now().isoformat(),
    }


def may_request_now(instance: dg.DagsterInstance, tags: Mapping[str, str], table: str) -> bool:
    """Return whether a run that is to make the same of a table may follow now: at most one an hour, and three a day."""
    same = dg.RunsFilter(tags={REQUEST_TAG + table: tags[REQUEST_TAG + table]})
    times = [
        datetime.fromisoformat(record.dagster_run.tags[REQUESTED_AT_TAG])
        for record in instance.get_run_records(same, limit=MAX_REQUESTS_A_DAY)
    ]
    now = utc_now()
    return sum(at > now - timedelta(days=1) for at in times) < MAX_REQUESTS_A_DAY and not any(
        at > now - TIME_BETWEEN_REQUESTS for at in times
    )


def rollup_run(
    settings: ComponentBase, names: Sequence[str], files: Iterable[Outdated], *, requested_by: str
) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
    """Return the tags, and the config by table, of a run that makes tables again, of which these files are outdated.

    A run of partitions selects a range, and Dagster logs an event of each before it starts. So it selects the newest
    outdated ones that adjoin, and makes the others, too. Partitioned tables of one run have the same partitions.
    """
    tags = {REQUESTED_BY_TAG: requested_by}
    by_period = [name for name in names if name in CADENCES]
    if not by_period:
        return tags, {}
    keys = build_partitions_def(CADENCES[by_period[0]], settings.start_date).get_partition_keys()
    first_days = {str(file.first_day) for file in files if file.table in by_period}
    blocks = [[*block] for is_outdated, block in groupby(keys, key=first_days.__contains__) if is_outdated]
    # A run of any partition also makes files again that are from before the first one.
    newest = blocks[-1] if blocks else keys[:1]
    if newest:
        tags |= {RANGE_START_TAG: newest[0], RANGE_END_TAG: newest[-1]}
    return tags, {name: {"outdated": True} for name in by_period}


def runs_in_progress(instance: dg.DagsterInstance) -> Iterator[dg.DagsterRun]:
    """Yield the runs that go on, or will start."""
    silent_since = (utc_now() - DEAD_AFTER).timestamp()
    for run in [record.dagster_run for record in instance.get_run_records(dg.RunsFilter(statuses=_NOT_FINISHED))]:
        newest = newest_event_at(instance, run.run_id)
        # Without run monitoring, a killed run stays in progress for ever.
        if run.status is dg.DagsterRunStatus.QUEUED or newest is None or newest >= silent_since:
            yield run


def days_in_progress(instance: dg.DagsterInstance, component: ComponentBase) -> set[date]:
    """Return the days that runs of a raw table are fetching, or will when they start."""
    keys = {component.asset_key(name) for name in OF_INSTANCES}
    days: set[date] = set()
    for run in runs_in_progress(instance):
        assets = selected_assets(run)
        fetches = assets & keys if assets else run.job_name == component.posts_job_name
        if fetches and (selected := selected_range(run.tags)):
            days.update(days_between(*selected))
            ops: Mapping[str, Any] = run.run_config.get("ops", {})  # type: ignore[assignment]
            with suppress(ValueError):  # the run will fail, and name what is wrong
                for op in ops.values():
                    old_days = op.get("config", {}).get("old_days", [])
                    days.update(parse_day_ranges(old_days, earliest=component.start_date, latest=newest_day(utc_now())))
    return days


def tables_in_progress(context: dg.SensorEvaluationContext, component: ComponentBase) -> set[str]:
    """Return the names of the assets that runs and backfills are materializing, or will when they start."""
    assert context.repository_def is not None
    all_names = {component.asset_key(name): name for name in component.tables}
    # Between two runs of a backfill, no run is in progress. Backfills first: they begin before their runs.
    keys = backfills_in_progress(context.instance)
    for run in runs_in_progress(context.instance):
        if assets := selected_assets(run):
            keys |= assets
        elif context.repository_def.has_job(run.job_name):
            keys.update(assets_of_job(context.repository_def.get_job(run.job_name)))
    return {name for key, name in all_names.items() if key in keys}
