"""Runs: which ones make files again, which go on, and how often the same was requested. Dagster knows all of it."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime, timedelta
from itertools import chain, groupby
from typing import Any

import dagster as dg

from later_reporting_dagster.contract.days import days_between, newest_day, parse_day_ranges, utc_now
from later_reporting_dagster.defs.component_base import ComponentBase
from later_reporting_dagster.defs.partitions import RANGE_END_TAG, RANGE_START_TAG, build_partitions_def, selected_range
from later_reporting_dagster.lake.tables import OF_INSTANCES
from later_reporting_dagster.quality.outdated import Outdated
from later_reporting_dagster.report.report_data import REPORT
from later_reporting_dagster.rollups.rollup_tables import PERIOD_TABLES

# Above this number of gaps, one run of everything between costs less than a run for each block.
MAX_BLOCKS = 10
# The name of a table follows. The value is a hash of what a run is to make of it, and from what.
REQUEST_TAG = "later.request/"
# Dagster's own times of a run are off by the time zone of a PostgreSQL that is not in UTC.
REQUESTED_AT_TAG = "later/requested_at"
# Of runs that are to make the same from the same. A sensor that ticks every hour may be some minutes early.
MAX_REQUESTS_A_DAY, TIME_BETWEEN_REQUESTS = 3, timedelta(minutes=55)
# A run that has not logged an event for so long no longer exists.
DEAD_AFTER = timedelta(hours=1)
MAX_RUNS_LOOKED_AT = 500
# After a run, automation conditions need two ticks to request what follows.
SETTLING_TIME = timedelta(minutes=5)
_NOT_FINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def request_tags(settings: ComponentBase, table: str, *made: str) -> dict[str, str]:
    """Return the tags of a run that is to make this of a table."""
    digest = hashlib.sha256("\n".join([settings.name, *made]).encode(errors="backslashreplace"))
    return {REQUEST_TAG + table: digest.hexdigest()[:32], REQUESTED_AT_TAG: utc_now().isoformat()}


def requests_left(instance: dg.DagsterInstance, tags: Mapping[str, str], table: str) -> int:
    """Return how many runs that are to make the same of a table may follow today, whatever has become of the others."""
    return MAX_REQUESTS_A_DAY - _count_requests(instance, tags, table, within=timedelta(days=1))


def may_request_now(instance: dg.DagsterInstance, tags: Mapping[str, str], table: str) -> bool:
    """Return whether a run that is to make the same of a table may follow now: at most one an hour, and three a day."""
    return requests_left(instance, tags, table) > 0 and not _count_requests(
        instance, tags, table, within=TIME_BETWEEN_REQUESTS
    )


def _count_requests(instance: dg.DagsterInstance, tags: Mapping[str, str], table: str, *, within: timedelta) -> int:
    of_table = dg.RunsFilter(tags={REQUEST_TAG + table: tags[REQUEST_TAG + table]})
    newest = instance.get_runs(of_table, limit=MAX_REQUESTS_A_DAY)
    return sum(datetime.fromisoformat(run.tags[REQUESTED_AT_TAG]) > utc_now() - within for run in newest)


def runs_of(files: Sequence[Outdated], settings: ComponentBase) -> Iterator[tuple[list[str], dict[str, str]]]:
    """Yield the tables, and the tags, of the runs that make files again; the report, which shows the others, last."""
    for table in PERIOD_TABLES:
        of_table = {str(file.first_day): file for file in files if file.table == table.name}
        keys = build_partitions_def(table.cadence, settings.start_date).get_partition_keys()
        # A run materializes a range.
        blocks = [[*block] for is_selected, block in groupby(keys, key=of_table.__contains__) if is_selected]
        if len(blocks) > MAX_BLOCKS:
            blocks = [[*chain.from_iterable(blocks)]]
        # A run of any partition also makes files again that are from before the first one.
        early = of_table.keys() - keys
        if early and keys and not blocks:
            blocks = [[keys[0]]]
        for block in blocks:
            made = [f"{key} {of_table[key].inputs}" for key in sorted(early.union(of_table.keys() & block))]
            tags = {RANGE_START_TAG: block[0], RANGE_END_TAG: block[-1]}
            yield [table.name], tags | request_tags(settings, table.name, *made)
    single = [file for file in files if file.first_day is None]
    for is_report in (False, True):
        if of_run := [file for file in single if (file.table == REPORT) is is_report]:
            tags = {}
            for file in of_run:
                tags |= request_tags(settings, file.table, file.inputs)
            yield [file.table for file in of_run], tags


def runs_in_progress(instance: dg.DagsterInstance) -> Iterator[dg.DagsterRun]:
    """Yield the runs that go on, or will start."""
    silent_since = (utc_now() - DEAD_AFTER).timestamp()
    for run in instance.get_runs(filters=dg.RunsFilter(statuses=_NOT_FINISHED)):
        newest = instance.get_records_for_run(run.run_id, limit=1, ascending=False).records
        # Without run monitoring, a killed run stays in progress for ever.
        if run.status is dg.DagsterRunStatus.QUEUED or not newest or newest[0].timestamp >= silent_since:
            yield run


def days_in_progress(instance: dg.DagsterInstance, component: ComponentBase) -> set[date]:
    """Return the days that runs of a raw table are fetching, or will when they start."""
    keys = {component.asset_key(name) for name in OF_INSTANCES}
    days: set[date] = set()
    for run in runs_in_progress(instance):
        fetches = run.asset_selection & keys if run.asset_selection else run.job_name == component.posts_job_name
        if fetches and (selected := selected_range(run.tags)):
            days.update(days_between(*selected))
            ops: Mapping[str, Any] = run.run_config.get("ops", {})  # type: ignore[assignment]
            with suppress(ValueError):  # the run will fail, and name what is wrong
                for op in ops.values():
                    old_days = op.get("config", {}).get("old_days", [])
                    days.update(parse_day_ranges(old_days, earliest=component.start_date, latest=newest_day(utc_now())))
    return days


def tables_in_progress(
    context: dg.SensorEvaluationContext, component: ComponentBase, *, or_just_ended: bool = False
) -> set[str]:
    """Return the names of the assets that runs are materializing, or will when they start."""
    assert context.repository_def is not None
    all_names = {component.asset_key(name): name for name in component.tables}
    runs = [*runs_in_progress(context.instance)]
    if or_just_ended:
        since = utc_now() - SETTLING_TIME
        # The time of an update may be off by any time zone, the end is not. Projects of others may have many runs.
        updated = dg.RunsFilter(updated_after=since - timedelta(hours=12))
        records = context.instance.get_run_records(updated, limit=MAX_RUNS_LOOKED_AT)
        runs += [record.dagster_run for record in records if (record.end_time or 0.0) > since.timestamp()]
    found: set[str] = set()
    for run in runs:
        keys = set(run.asset_selection or ())
        if not keys and context.repository_def.has_job(run.job_name):
            keys = set(context.repository_def.get_job(run.job_name).asset_layer.executable_asset_keys)
        found.update(all_names[key] for key in keys & all_names.keys())
    return found
