"""Fetch days of all tables, and bring what is made from them up to date."""

import asyncio
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from math import ceil
from typing import Any

import click
import dagster as dg
import pyarrow.compute as pc

from later_reporting_dagster.cli.in_process_runs import RunOutcome, materialize
from later_reporting_dagster.cli.project import RETRY_ONCE, Project
from later_reporting_dagster.client import LaterError
from later_reporting_dagster.contract import DateBasis, PerformanceQuery
from later_reporting_dagster.contract.days import newest_day, utc_now
from later_reporting_dagster.contract.parameters import MAX_PAGE_SIZE
from later_reporting_dagster.contract.query import group_by_url_length
from later_reporting_dagster.contract.route import POSTS_PERFORMANCE
from later_reporting_dagster.contract.safe_line import one_line
from later_reporting_dagster.defs.events import data_versions, version_tags
from later_reporting_dagster.defs.partitions import range_tags
from later_reporting_dagster.defs.resource import REQUESTS_PER_MINUTE, InvalidSetting, LaterReportingResource
from later_reporting_dagster.defs.rollup_requests import other_runs, period_runs
from later_reporting_dagster.defs.runs import rollup_run
from later_reporting_dagster.lake import Lake
from later_reporting_dagster.lake.coverage import described_days, from_table, stored_coverage, stored_days
from later_reporting_dagster.lake.tables import (
    CAMPAIGNS_TABLE,
    COVERAGE_TABLE,
    INSTANCES_TABLE,
    OF_INSTANCES,
    POSTS_NAMES,
    RAW_NAMES,
)
from later_reporting_dagster.quality.outdated import Footers, describe_outdated, outdated
from later_reporting_dagster.report.report_data import REPORT
from later_reporting_dagster.rollups.rollup_tables import TABLES

# From this age on, nearly all posts of a day are in the API.
_SETTLED_AFTER_DAYS = 7
_SHOWN_FILES = 5
# They are made from the API's lists, which cost a request per 100 instances or campaigns.
LISTED_TABLES = (INSTANCES_TABLE, CAMPAIGNS_TABLE)


def backfill_all(
    project: Project,
    start: date,
    end: date,
    *,
    instance: dg.DagsterInstance,
    config: Mapping[str, Mapping[str, Any]] | None = None,
    verbose: bool = False,
) -> Iterator[RunOutcome]:
    """Fetch a range of days of all tables in one run, then do what `refresh_all` does; yield the outcome of each run.

    What a failed instance does not affect goes on. `config` is the run config of the fetched tables, by name.
    """
    tables = [name for name in project.settings.fetched_tables if name not in LISTED_TABLES]
    if tables:
        tags = range_tags(start, end)
        yield materialize(project, tables, instance=instance, tags=tags, config=config, verbose=verbose)
    click.echo("Rolling up with DuckDB, checking, and writing the report", err=True)
    yield from refresh_all(project, instance=instance, lists_outdated=False)


def refresh_all(project: Project, *, instance: dg.DagsterInstance, lists_outdated: bool = True) -> Iterator[RunOutcome]:
    """Materialize everything but posts and days of campaigns, upstream first; yield the outcome of each run.

    Rollups and the report only if they are outdated. If the API cannot be used, a line says so, and the tables of its
    lists stay as they are.
    """
    settings, lake = project.settings, project.later.lake()
    if left_over := lake.remove_left_over_folders():
        click.echo(f"Removed what only earlier versions used: {', '.join(left_over)}")
    if is_empty(lake):
        advice = "fetch some with `later-reporting backfill`"
        click.echo(f"{lake.root} has no posts, so there are no rollups: {advice}", err=True)
    listed = [name for name in LISTED_TABLES if name in settings.tables]
    if listed:
        try:
            asyncio.run(probe(project.later))
        except (InvalidSetting, LaterError) as error:
            names = " and ".join(listed)
            click.echo(f"Not updated: {names}, which need the API: {one_line(str(error))}", err=True)
        else:
            yield materialize(project, listed, instance=instance)
    if COVERAGE_TABLE in settings.tables:
        yield materialize(project, [COVERAGE_TABLE], instance=instance)
        if text := _describe_unusable(lake):
            click.echo(text, err=True)
        _report_unknown_days(project, instance)
    newest, footers = newest_day(utc_now()), Footers()
    rollups = settings.rollups(TABLES)
    files = outdated(lake, rollups, start_date=settings.start_date, newest_day=newest, footers=footers)
    if files and lists_outdated:
        click.echo(f"Outdated: {describe_outdated(files)}")
    to_make = [*dict.fromkeys(file.table for file in files)]
    for of_run in [*period_runs(to_make), *other_runs(to_make)]:
        tags, config = rollup_run(settings, of_run, files, requested_by="later-reporting refresh")
        yield materialize(project, of_run, instance=instance, tags=tags, config=config)
    with_report = REPORT in settings.tables
    # After the rollups that it shows.
    for file in outdated(
        lake, (), start_date=settings.start_date, newest_day=newest, with_report=with_report, footers=footers
    ):
        yield materialize(project, [file.table], instance=instance)


def _describe_unusable(lake: Lake) -> str:
    """Return which raw files count as missing, although they exist, and what heals them; an empty text without any."""
    marks = lake.retired.marks()  # nothing fetches the files of others again
    unusable = stored_coverage(lake).filter(pc.field("file_version").is_valid() & ~pc.field("has_file"))
    records = [record for record in from_table(unusable) if marks.is_in_numbers(record.instance_id)]
    if not records:
        return ""
    found = [one_line(lake.url(record.table_name, record.partition)) for record in records]
    days = [record.partition.day for record in records]
    more = f" and {len(found) - _SHOWN_FILES} more" if len(found) > _SHOWN_FILES else ""
    return (
        f"Damaged, so they count as missing: {', '.join(found[:_SHOWN_FILES])}{more}. Next step: `later-reporting"
        f" backfill --only-missing --start {min(days)} --end {max(days)}`"
    )


def _report_unknown_days(project: Project, instance: dg.DagsterInstance) -> None:
    """Report days to Dagster whose version it does not know, such as those that a killed run has written."""
    settings, lake = project.settings, project.later.lake()
    stored = stored_coverage(lake)
    specs = {spec.key: spec for spec in project.definitions.resolve_all_asset_specs()}
    for name in (name for name in RAW_NAMES if name in settings.tables):
        key = settings.asset_key(name)
        # Before files are listed, so that no version is older than what Dagster knows.
        known = data_versions(instance, key)
        unknown = {
            day: each
            for day, each in stored_days(stored, name).items()
            if day >= settings.start_date and known.get(str(day)) != each.version
        }
        for day in sorted(described_days(lake, stored, name, unknown)):
            of_day = unknown[day]
            event = dg.AssetMaterialization(
                key,
                partition=str(day),
                metadata={
                    "dagster/partition_row_count": of_day.rows,
                    "dagster/uri": lake.day_url(name, day),
                    **({"instances": of_day.files} if name in OF_INSTANCES else {}),
                },
                tags=version_tags(of_day.version, code_version=specs[key].code_version),
            )
            instance.report_runless_asset_event(event)


def is_empty(lake: Lake) -> bool:
    """Return whether the lake has no posts."""
    return not any(lake.partitions(name, days=[day]) for name in POSTS_NAMES for day in lake.days(name))


async def first_fetch_text(
    later: LaterReportingResource, start: date, end: date, *, instance_ids: tuple[str, ...]
) -> str:
    """Return what the first backfill fetches, and about how many minutes that takes.

    The posts of a day are counted by a request: their pages decide how long it takes.
    """
    day = max(start, end - timedelta(days=_SETTLED_AFTER_DAYS))  # on newer days, posts are still absent
    ids = instance_ids or later.configured_instances()
    query = PerformanceQuery(
        start_date=day,
        end_date=day,
        instance_ids=group_by_url_length(ids)[0] if ids else (),
        date_basis=DateBasis.PERFORMANCE_DATE,
    )
    async with later.client(retry=RETRY_ONCE) as client:
        page = await client.fetch_page(POSTS_PERFORMANCE, query)
    days = (end - start).days + 1
    if page.stated_total is None:
        return f"Fetching {start} to {end}, {days} days: a minute for each {REQUESTS_PER_MINUTE} pages of posts"
    minutes = minutes_to_fetch(days, page.stated_total, requests_per_minute=later.requests_per_minute)
    return f"Fetching {start} to {end}, {days} days: about {minutes} min"


def minutes_to_fetch(days: int, rows_of_day: int, *, requests_per_minute: int) -> int:
    """Return about how many minutes a backfill of all tables takes, given the rows of posts with results on a day.

    The API sets a limit, too, which a larger setting does not raise.
    """
    # A day takes its pages of posts and one of campaigns. Other tables, and refetches, take a fifth more.
    requests = days * (ceil(rows_of_day / MAX_PAGE_SIZE) + 1) * 1.2
    return max(1, ceil(requests / min(requests_per_minute, REQUESTS_PER_MINUTE)))


async def probe(later: LaterReportingResource) -> None:
    """Fetch a token, and with it the list of instances, for all runs of the command."""
    async with later.client(retry=RETRY_ONCE) as client:
        await later.remember_list(client)
