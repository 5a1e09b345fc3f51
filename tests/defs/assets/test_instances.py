"""The dimension table `later/instances`, its check, and the sensor that fetches missing files."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from later_reporting_dagster.lake import Partition, posts_table
from later_reporting_dagster.quality.instances import INSTANCES_SCHEMA
from tests.conftest import INSTANCE_IDS, Service, problem
from tests.defs.conftest import DAYS, RAW_ASSETS, Project, failure, freeze_clock, list_instances

DAILY, PUBLISHED = RAW_ASSETS
STILL_LISTED = ("instances", "every_instance_is_still_listed")
TODAY = DAYS[-1] + timedelta(days=1)


def stored(project: Project) -> dict[str, dict[str, Any]]:
    table = project.lake.read_table("instances", schema=INSTANCES_SCHEMA)
    assert table is not None
    return {row["instance_id"]: row for row in table.to_pylist()}


def row(instance_id: str, *newest_and_missing_days: date | int | None, seen: date | None = TODAY) -> dict[str, Any]:
    """Return the row of an instance that is expected, and listed if it was ever seen."""
    values = (instance_id, seen, seen, seen is not None, True, False, *newest_and_missing_days, 0)
    return dict(zip(INSTANCES_SCHEMA.names, values, strict=True))


def test_dimension_has_newest_and_missing_days_of_each_instance(project: Project) -> None:
    project.fetch(PUBLISHED)
    project.fetch(DAILY, days=DAYS[:2], instances=["007"])
    project.lake.write(DAILY, Partition(DAYS[1], "never listed"), posts_table([]))
    project.lake.write(DAILY, Partition(DAYS[1]), posts_table([]))  # of none of the instances
    result = project.run("instances")
    assert result.success
    expected = [
        *(row(each, None, 3, DAYS[2], 0) for each in INSTANCE_IDS if each != "007"),
        row("007", DAYS[1], 1, DAYS[2], 0),
        row("never listed", DAYS[1], 2, None, 3, seen=None),
    ]
    assert stored(project) == {each["instance_id"]: each for each in expected}

    # The metadata shows the same rows, with days as text.
    (event,) = project.materializations(result).values()
    shown = event.metadata["instances"]
    assert isinstance(shown, dg.TableMetadataValue)
    assert [dict(record.data) for record in shown.records] == [
        {name: str(value) if isinstance(value, date) else value for name, value in each.items()}
        for each in sorted(expected, key=lambda each: str(each["instance_id"]))
    ]
    again = project.run("instances")
    assert project.data_versions(again) == project.data_versions(result)
    assert [found["changed"] for found in project.metadata(again).values()] == [False]


def test_unlisted_instance_is_kept_and_fails_the_check(
    project: Project, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert project.check(STILL_LISTED)[STILL_LISTED].description == "Not materialized yet"
    project.run("instances")
    (result,) = project.check(STILL_LISTED).values()
    assert (result.passed, result.description) == (True, "All known instances are listed: 4")

    later = TODAY + timedelta(days=1)
    freeze_clock(monkeypatch, datetime(later.year, later.month, later.day, tzinfo=UTC))
    service.override = list_instances(*INSTANCE_IDS[1:])
    assert project.run("instances").success
    rows = stored(project)
    assert rows.keys() == set(INSTANCE_IDS)
    assert {(each["first_seen"], each["last_seen"], each["listed_now"]) for each in rows.values()} == {
        (TODAY, TODAY, False),
        (TODAY, later, True),
    }
    assert not rows[INSTANCE_IDS[0]]["listed_now"]
    (result,) = project.check(STILL_LISTED).values()
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert (result.description or "").startswith(f"No longer listed: {INSTANCE_IDS[0]}. They stay in the rollups.")
    assert "`later-reporting retire ID`" in (result.description or "")
    assert result.metadata["no_longer_listed"].value == 1
    # Instances that are not configured do not count.
    monkeypatch.setenv("LATER_INSTANCE_IDS", "007")
    result = project.reloaded().check(STILL_LISTED)[STILL_LISTED]
    assert (result.passed, result.description) == (True, "All known instances of LATER_INSTANCE_IDS are listed: 1")
    monkeypatch.delenv("LATER_INSTANCE_IDS")
    project.lake.retired.add(INSTANCE_IDS[0])
    (result,) = project.check(STILL_LISTED).values()
    assert (result.passed, result.description) == (True, "All known instances are listed: 3")


def test_failed_listing_leaves_the_dimension_unchanged(project: Project, service: Service) -> None:
    project.run("instances")
    before = stored(project)
    service.override = lambda request: problem(404)
    description, _ = failure(project.run("instances"))
    assert "404" in description
    assert stored(project) == before
