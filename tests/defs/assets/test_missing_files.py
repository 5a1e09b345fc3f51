"""What is missing, of any age, is red by name, and the sensor has it fetched in one run."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import product
from pathlib import Path

import dagster as dg
import pytest

from later_reporting_dagster import LaterReportingComponent
from later_reporting_dagster.contract.days import days_between
from later_reporting_dagster.lake import POSTS_SCHEMA, Partition, partition_path
from tests.conftest import INSTANCE_IDS
from tests.defs.assets.test_instances import execute, requested_days, stored, tick
from tests.defs.conftest import RAW_ASSETS, Project, assert_success, fill_once, freeze_clock

NOW = datetime(2024, 3, 4, 13, tzinfo=UTC)
DUE = date(2024, 3, 3)
DAYS = days_between(DUE - timedelta(days=210), DUE)
EVERY = "every_instance_is_present"


@pytest.fixture
def complete(project: Project, module_lake: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The project with every file of 211 days, without rows, and the instances of the API in its dimension."""
    freeze_clock(monkeypatch, NOW)
    definitions = LaterReportingComponent.from_environment(start_date=DAYS[0]).build_definitions()
    project = replace(project, defs=definitions)

    def fill(project: Project) -> bool:
        files = {Partition(day, name): POSTS_SCHEMA.empty_table() for day in DAYS for name in INSTANCE_IDS}
        for asset in RAW_ASSETS:
            project.lake.write_all(asset, files)
        return project.run("instances").success

    return fill_once(project, module_lake, fill)


def remove(project: Project, days: Sequence[date], instances: Sequence[str] = INSTANCE_IDS) -> None:
    for asset, day, name in product(RAW_ASSETS, days, instances):
        (project.root / partition_path(asset, Partition(day, name))).unlink()


def missing_files(project: Project) -> dict[str, tuple[bool, str, int]]:
    """Return for each raw table whether the check passes, its description, and how many files it names."""
    results = project.check(*((asset, EVERY) for asset in RAW_ASSETS))
    return {
        asset: (result.passed, result.description or "", int(str(result.metadata["missing_files"].value)))
        for (asset, _), result in results.items()
    }


FIFTY_DAYS_AGO, LONG_AGO = DUE - timedelta(days=50), DUE - timedelta(days=200)


@pytest.mark.parametrize(
    ("days", "instances", "named"),
    [
        ([FIFTY_DAYS_AGO], INSTANCE_IDS, "2024-01-13 (1 day): "),
        ([LONG_AGO], ["007"], "2023-08-16 (1 day): 007"),
        (days_between(DUE - timedelta(days=39), DUE), INSTANCE_IDS, "2024-01-24 to 2024-03-03 (40 days): "),
    ],
    ids=["a day", "an instance on one day", "a pause of 40 days"],
)
def test_missing_files_are_red_by_name_and_fetched_by_one_run(
    days: list[date], instances: Sequence[str], named: str, complete: Project
) -> None:
    nothing = (True, f"All 4 instances on {len(DAYS)} days", 0)
    assert missing_files(complete) == dict.fromkeys(RAW_ASSETS, nothing)
    remove(complete, days, instances)
    count = len(days) * len(instances)
    for passed, description, missing in missing_files(complete).values():
        assert (passed, missing) == (False, count)
        assert f"missing: {named}" in description

    data = tick(complete, cursor=json.dumps({"instances": INSTANCE_IDS}))
    assert requested_days(data).keys() == set(instances)
    assert sum(row["posts_published_missing_days"] for row in stored(complete).values()) == count
    run = execute(complete, data)
    assert_success(run)
    events = complete.events(run, dg.DagsterEventType.ASSET_MATERIALIZATION)
    logged = [(event.asset_key.path[-1], event.partition) for event in events if event.asset_key]
    assert sorted(each for each in logged if each[0] in RAW_ASSETS) == sorted(product(RAW_ASSETS, map(str, days)))

    assert missing_files(complete) == dict.fromkeys(RAW_ASSETS, nothing)
    assert not tick(complete, cursor=data.cursor).run_requests
