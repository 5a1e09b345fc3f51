"""The dimension later/instances: what was seen of each instance and when, and who uses it without asking the API."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from later_reporting_dagster.ingest.instance_dimension import INSTANCES_SCHEMA, known_instances
from later_reporting_dagster.lake import Partition, posts_table
from tests.conftest import INSTANCE_IDS, Service, problem
from tests.defs.conftest import DAYS, RAW_ASSETS, Project, failure, listed, stop_clock

DAILY, PUBLISHED = RAW_ASSETS
STILL_LISTED = ("instances", "every_instance_is_still_listed")
pytestmark = pytest.mark.usefixtures("next_day")
TODAY = DAYS[-1] + timedelta(days=1)


def stored(project: Project) -> dict[str, dict[str, Any]]:
    table = project.lake.read_table("instances", schema=INSTANCES_SCHEMA)
    assert table is not None
    return {row["instance_id"]: row for row in table.to_pylist()}


def row(
    instance_id: str,
    *,
    daily: tuple[date | None, int],
    published: tuple[date | None, int],
    seen: tuple[date | None, date | None] = (TODAY, TODAY),
    is_listed: bool = True,
) -> dict[str, Any]:
    return {
        "instance_id": instance_id,
        "first_seen": seen[0],
        "last_seen": seen[1],
        "listed_now": is_listed,
        "post_metrics_daily_newest_day": daily[0],
        "post_metrics_daily_missing_days": daily[1],
        "posts_published_newest_day": published[0],
        "posts_published_missing_days": published[1],
    }


def test_each_instance_has_its_newest_and_its_missing_days(project: Project) -> None:
    project.fetch(PUBLISHED)
    project.fetch(DAILY, days=DAYS[:2], instances=["007"])
    project.lake.write(DAILY, Partition(DAYS[1], "never listed"), posts_table([]))
    result = project.run("instances")
    assert result.success
    expected = [
        *(row(each, daily=(None, 3), published=(DAYS[2], 0)) for each in INSTANCE_IDS if each != "007"),
        row("007", daily=(DAYS[1], 1), published=(DAYS[2], 0)),
        row("never listed", daily=(DAYS[1], 2), published=(None, 3), seen=(None, None), is_listed=False),
    ]
    assert stored(project) == {each["instance_id"]: each for each in expected}

    # The same rows are the table that the UI shows, in which days are text.
    (found,) = project.metadata(result).values()
    (event,) = project.materializations(result).values()
    assert (found["dagster/row_count"], found["changed"]) == (5, True)
    assert found["dagster/uri"] == str(project.root / "instances" / "part-0.parquet")
    shown = event.metadata["instances"]
    assert isinstance(shown, dg.TableMetadataValue)
    assert [column.name for column in shown.schema.columns] == INSTANCES_SCHEMA.names
    assert [dict(record.data) for record in shown.records] == [
        {name: str(value) if isinstance(value, date) else value for name, value in each.items()}
        for each in sorted(expected, key=lambda each: str(each["instance_id"]))
    ]
    again = project.run("instances")
    assert project.data_versions(again) == project.data_versions(result)
    assert [found["changed"] for found in project.metadata(again).values()] == [False]


def test_an_instance_that_vanishes_stays_and_is_warned_of(
    project: Project, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert project.check(STILL_LISTED)[STILL_LISTED].description == "It is not there yet"
    project.run("instances")
    (green,) = project.check(STILL_LISTED).values()
    assert (green.passed, green.description) == (True, "All 4 instances are listed")

    later = TODAY + timedelta(days=1)
    stop_clock(monkeypatch, datetime(later.year, later.month, later.day, tzinfo=UTC), "defs.instances")
    service.instead = listed(*INSTANCE_IDS[1:])
    assert project.run("instances").success
    rows = stored(project)
    assert rows.keys() == set(INSTANCE_IDS)
    assert {(each["first_seen"], each["last_seen"], each["listed_now"]) for each in rows.values()} == {
        (TODAY, TODAY, False),
        (TODAY, later, True),
    }
    assert not rows[INSTANCE_IDS[0]]["listed_now"]
    (red,) = project.check(STILL_LISTED).values()
    assert (red.passed, red.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert (red.description or "").startswith(f"Not listed any more: {INSTANCE_IDS[0]}. Their files stay.")
    assert red.metadata["vanished"].value == 1


def test_what_the_settings_do_not_name_may_vanish(
    project: Project, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.run("instances")
    service.instead = listed("007")
    project.run("instances")
    monkeypatch.setenv("LATER_INSTANCE_IDS", "007")
    assert project.again().check(STILL_LISTED)[STILL_LISTED].passed


def test_an_api_that_does_not_list_fails_the_dimension_and_leaves_it_as_it_was(
    project: Project, service: Service
) -> None:
    project.run("instances")
    before = stored(project)
    service.instead = lambda request: problem(404)
    description, _ = failure(project.run("instances"))
    assert "404" in description
    assert stored(project) == before


def test_checks_and_rollups_take_the_instances_from_it_and_ask_nobody(project: Project, service: Service) -> None:
    every, due = (PUBLISHED, "every_instance_is_present"), (PUBLISHED, "newest_due_day_is_present")
    project.fetch(PUBLISHED, instances=list(INSTANCE_IDS[:2]))

    def looked_at() -> tuple[Any, Any, Any]:
        service.requests.clear()
        told = project.check(every, due)
        rolled_up = project.roll_up("organic_paid_by_publish_day")
        assert service.requests == []
        (missing,) = {str(found.get("missing_instances")) for found in project.metadata(rolled_up).values()}
        return told[every].passed, told[due].metadata["instances"].value, missing

    # Before it was ever written: those that have files.
    assert looked_at() == (True, 2, "None")
    project.run("instances")
    assert looked_at() == (False, 4, str(sorted(INSTANCE_IDS[2:])))
    service.instead = listed(*INSTANCE_IDS[1:3])
    project.run("instances")
    assert looked_at() == (False, 2, str([INSTANCE_IDS[2]]))
    assert known_instances(project.lake, named=("a", "b")) == ("a", "b")
    # A damaged file is as good as none, until the next refresh replaces it.
    (project.root / "instances" / "part-0.parquet").write_bytes(b"no Parquet")
    assert looked_at() == (True, 2, "None")
    assert project.run("instances").success
    assert stored(project).keys() == set(INSTANCE_IDS[:3])
