"""Fixtures: a browser, and reports of worlds of posts."""

import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from later_reporting_dagster.lake import Partition
from later_reporting_dagster.lake.file_metadata import MadeFrom
from later_reporting_dagster.lake.tables import ACCOUNT_PERIODS
from later_reporting_dagster.report.report_data import QuarantinedRows, ReportData, read_report
from later_reporting_dagster.rollups.rollup_tables import DAILY, DAILY_BY_CAMPAIGN, MONTHLY, SINGLE_TABLES
from tests.rollups.reference import Row, World
from tests.rollups.worlds import NEWEST, Shape, open_world, roll_up, world_of
from tests.services import WAIT_SECONDS

INSTANCES = ("007", "acme & <sons>")
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


# Not session-scoped: while Playwright's event loop runs in this thread, other tests cannot start one.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as browser:
        yield browser


@contextmanager
def running_browser() -> Iterator[Browser]:
    executable = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if executable is None:
        raise RuntimeError(f"no browser: put one of {', '.join(CHROMIUM)} on the PATH, or run `make browser`")
    with sync_playwright() as playwright:
        expect.set_options(timeout=1000 * WAIT_SECONDS)  # milliseconds, as Playwright expects
        browser = playwright.chromium.launch(executable_path=executable)
        try:
            yield browser
        finally:
            browser.close()


@pytest.fixture(scope="session")
def world() -> World:
    """Random posts and campaigns of two instances over two months."""
    shape = Shape(
        days=60, posts=150, instances=INSTANCES, missing=0, moved=0.02, creators=20, nulls=0.1, contradictory=0
    )
    return world_of(shape, seed=4)


@pytest.fixture(scope="session")
def report_of_world(world: World) -> ReportData:
    """The report of the world, with missing files, and rows in quarantine."""
    missing = {
        "post_metrics_daily": [Partition(NEWEST - timedelta(days=n), INSTANCES[0]) for n in (-2, -1)],
        "posts_published": [Partition(NEWEST + timedelta(days=1), INSTANCES[1])],
        "campaign_performance_daily": [Partition(NEWEST + timedelta(days=1))],
    }
    bad = QuarantinedRows("post_metrics_daily", NEWEST, INSTANCES[1], "impressions: 8500.5 is not a whole number", 3)
    return report_of(world, expected=missing, quarantined=[bad])


def report_of(world: World, **options: Any) -> ReportData:
    """Roll up a world in a lake, and read the report; see `report_and_tables`."""
    return report_and_tables(world, **options)[0]


def report_and_tables(
    world: World,
    *,
    expected: Mapping[str, Collection[Partition]] | None = None,
    quarantined: Sequence[QuarantinedRows] = (),
    outdated: Sequence[str] = (),
    without: Collection[str] = (),
    accounts: Sequence[Row] = (),
) -> tuple[ReportData, dict[str, list[Row]]]:
    """Roll up a world in a lake. Return the report, and the rows of each rollup table.

    `expected` are the files that there should be, by table, `without` the rollup tables of one file that are not, and
    `accounts` the rows of instance_performance_periods.
    """
    with open_world(world) as database:
        lake, found = database.lake, roll_up(database, world.metrics)
        if accounts:
            rows = [dict.fromkeys(ACCOUNT_PERIODS.schema.names) | each for each in accounts]
            lake.write_table(ACCOUNT_PERIODS.name, pa.Table.from_pylist(rows, ACCOUNT_PERIODS.schema))
        for table in SINGLE_TABLES:
            if table.name not in without:
                metadata = MadeFrom(inputs="", definition=table.definition).key_values
                lake.write_table(table.name, found[table.name], metadata=metadata)
        for table in (DAILY, DAILY_BY_CAMPAIGN, MONTHLY):
            metadata = MadeFrom(inputs="", definition=table.definition).key_values
            rows = found[table.name]
            for day in {*rows["first_day"].to_pylist()}:
                of_day = rows.filter(pc.equal(rows["first_day"], day)).drop_columns("first_day")
                lake.write(table.name, Partition(day), of_day, metadata=metadata)
        missing = {name: {*partitions} - {*lake.partitions(name)} for name, partitions in (expected or {}).items()}
        data = read_report(lake, memory_gb=1, missing=missing, quarantined=quarantined, outdated=outdated)
    assert data is not None
    return data, {name: rows.to_pylist() for name, rows in found.items()}
