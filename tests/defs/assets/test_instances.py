"""The dimension table `later/instances`, its check, and the sensor that fetches missing files."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import product
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.sensor_definition import SensorExecutionData

from later_reporting_dagster import LaterReportingComponent
from later_reporting_dagster.contract.days import parse_day_ranges
from later_reporting_dagster.defs.partitions import range_tags
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.ingest.dimensions import INSTANCES_SCHEMA, known_instances
from later_reporting_dagster.lake import POSTS_SCHEMA, Partition, partition_path, posts_table
from tests.conftest import INSTANCE_IDS, Service, problem
from tests.defs.conftest import (
    DAYS,
    QUIET_LOGGING,
    RAW_ASSETS,
    Project,
    assert_success,
    asset_key,
    failure,
    freeze_clock,
    list_instances,
)

DAILY, PUBLISHED = RAW_ASSETS
STILL_LISTED = ("instances", "every_instance_is_still_listed")
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
        "expected_now": is_listed,
        "post_metrics_daily_newest_day": daily[0],
        "post_metrics_daily_missing_days": daily[1],
        "posts_published_newest_day": published[0],
        "posts_published_missing_days": published[1],
    }


def test_dimension_has_newest_and_missing_days_of_each_instance(project: Project) -> None:
    project.fetch(PUBLISHED)
    project.fetch(DAILY, days=DAYS[:2], instances=["007"])
    project.lake.write(DAILY, Partition(DAYS[1], "never listed"), posts_table([]))
    result = project.run("instances")
    assert result.success
    expected = [
        *(row(each, daily=(None, 3), published=(DAYS[2], 0)) for each in INSTANCE_IDS if each != "007"),
        row("007", daily=(DAYS[1], 1), published=(DAYS[2], 0)),
        row("never listed", daily=(DAYS[1], 0), published=(None, 0), seen=(None, None), is_listed=False),
    ]
    assert stored(project) == {each["instance_id"]: each for each in expected}

    # The metadata shows the same rows, with days as text.
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
    assert (result.description or "").startswith(f"No longer listed: {INSTANCE_IDS[0]}. Their files are kept.")
    assert result.metadata["no_longer_listed"].value == 1


def test_check_ignores_unlisted_instances_that_are_not_configured(
    project: Project, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.run("instances")
    service.override = list_instances("007")
    project.run("instances")
    monkeypatch.setenv("LATER_INSTANCE_IDS", "007")
    result = project.reloaded().check(STILL_LISTED)[STILL_LISTED]
    assert (result.passed, result.description) == (True, "All known instances of LATER_INSTANCE_IDS are listed: 1")


def test_failed_listing_leaves_the_dimension_unchanged(project: Project, service: Service) -> None:
    project.run("instances")
    before = stored(project)
    service.override = lambda request: problem(404)
    description, _ = failure(project.run("instances"))
    assert "404" in description
    assert stored(project) == before


def test_checks_and_rollups_use_the_dimension_without_requests(project: Project, service: Service) -> None:
    every, due = (PUBLISHED, "every_instance_is_present"), (PUBLISHED, "newest_due_day_is_present")
    project.fetch(PUBLISHED, instances=list(INSTANCE_IDS[:2]))

    def evaluate() -> tuple[Any, Any, Any]:
        service.requests.clear()
        results = project.check(every, due)
        rolled_up = project.roll_up("organic_paid_by_publish_day")
        assert service.requests == []
        found = project.metadata(rolled_up)
        (missing,) = {str(found[day].get("missing_instances", {}).get(day)) for day in found}
        return results[every].passed, results[due].metadata["instances"].value, missing

    # Before the first write: the instances that have files.
    assert evaluate() == (True, 2, "None")
    project.run("instances")
    assert evaluate() == (False, 4, str(sorted(INSTANCE_IDS[2:])))
    service.override = list_instances(*INSTANCE_IDS[1:3])
    project.run("instances")
    assert evaluate() == (False, 2, str([INSTANCE_IDS[2]]))
    assert known_instances(project.lake, configured=("a", "b")) == ("a", "b")
    # A damaged file counts as missing until the next run replaces it.
    (project.root / "instances" / "part-0.parquet").write_bytes(b"no Parquet")
    assert evaluate() == (True, 2, "None")
    assert project.run("instances").success
    assert stored(project).keys() == set(INSTANCE_IDS[:3])


# The sensor

ALL_INSTANCES = json.dumps({"instances": sorted(INSTANCE_IDS)})


def tick(project: Project, *, cursor: str | None = None) -> SensorExecutionData:
    """Evaluate the sensor as the daemon does."""
    resources = {"later_reporting": LaterReportingResource.from_environment()}
    context = dg.build_sensor_context(
        instance=project.instance, definitions=project.defs, resources=resources, cursor=cursor
    )
    return project.defs.resolve_sensor_def("later_instances").evaluate_tick(context)


def requested_days(data: SensorExecutionData) -> dict[str, list[str]]:
    """Return the days of each instance that a tick requests in a single run; none if it requests no run."""
    if not data.run_requests:
        return {}
    (request,) = data.run_requests
    assert request.run_key is None
    ops = dict(request.run_config["ops"])
    assert ops.pop("later__campaign_performance_daily")["config"].keys() == {"only_missing"}
    assert ops.keys() == {f"later__{asset}" for asset in RAW_ASSETS}
    configs = [op["config"] for op in ops.values()]
    assert configs[0] == configs[1]
    assert configs[0].keys() == {"pairs", "only_missing"}
    assert configs[0]["only_missing"] is True
    pairs: dict[str, list[str]] = configs[0]["pairs"]
    days = parse_day_ranges([each for ranges in pairs.values() for each in ranges])
    assert request.tags.items() >= range_tags(min(days), max(days)).items()
    return pairs


def refetches_campaigns(data: SensorExecutionData) -> bool:
    """Return whether the run that a tick requests replaces the files of campaign performance that exist."""
    (request,) = data.run_requests or []
    return not request.run_config["ops"]["later__campaign_performance_daily"]["config"]["only_missing"]


def execute(project: Project, data: SensorExecutionData) -> dg.ExecuteInProcessResult:
    """Execute the requested run as the daemon does."""
    (request,) = data.run_requests or []
    job = project.defs.resolve_job_def("later_posts")
    config = {**QUIET_LOGGING, **request.run_config}
    return job.execute_in_process(instance=project.instance, tags=request.tags, run_config=config, raise_on_error=False)


def write_empty(project: Project, days: Sequence[date] = DAYS, instances: Iterable[str] = INSTANCE_IDS) -> None:
    """Write files without rows in both raw tables."""
    files = {Partition(day, name): POSTS_SCHEMA.empty_table() for day in days for name in instances}
    for asset in RAW_ASSETS:
        project.lake.write_all(asset, files)


def remove(project: Project, day: date, *instances: str) -> None:
    """Remove files of a day from both raw tables."""
    for asset, name in product(RAW_ASSETS, instances):
        (project.root / partition_path(asset, Partition(day, name))).unlink()


ALL_DAYS = [f"{DAYS[0]} to {DAYS[-1]}"]


def test_sensor_requests_the_history_of_new_instances_once_a_day(project: Project, service: Service) -> None:
    first = tick(project)
    assert requested_days(first) == dict.fromkeys(INSTANCE_IDS, ALL_DAYS)
    assert not tick(project, cursor=first.cursor).run_requests
    service.override = list_instances("new/one", *INSTANCE_IDS, "new two")
    more = tick(project, cursor=first.cursor)
    assert requested_days(more) == dict.fromkeys(["new/one", "new two"], ALL_DAYS)
    # A day of campaign performance is one file, so for new instances among others it is fetched again.
    assert [refetches_campaigns(data) for data in (first, more)] == [False, True]
    assert not tick(project, cursor=more.cursor).run_requests
    # An instance that returns is requested, so that the days in between are fetched.
    service.override = list_instances(*INSTANCE_IDS, "new two")
    fewer = tick(project, cursor=more.cursor)
    assert not fewer.run_requests
    service.override = list_instances(*INSTANCE_IDS, "new/one")
    assert requested_days(tick(project, cursor=fewer.cursor)) == {"new/one": ALL_DAYS}


def test_sensor_fetches_missing_files_without_the_asset_instances(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATER_TABLES", PUBLISHED)
    selected = project.reloaded()
    data = tick(selected)
    (request,) = data.run_requests or []
    assert request.run_config["ops"].keys() == {f"later__{PUBLISHED}"}
    assert not data.asset_events
    assert_success(execute(selected, data))
    assert len(project.lake.partitions(PUBLISHED)) == len(DAYS) * len(INSTANCE_IDS)
    assert not tick(selected, cursor=data.cursor).run_requests


def test_sensor_requests_nothing_for_a_complete_lake(project: Project, service: Service) -> None:
    write_empty(project)
    for cursor in (None, "", "not JSON", "5", "[[]]", "null", ALL_INSTANCES):
        data = tick(project, cursor=cursor)
        assert not data.run_requests
        assert json.loads(data.cursor or "") == {"instances": list(INSTANCE_IDS), "attempts": []}


def test_sensor_leaves_days_that_a_run_is_fetching_to_that_run(project: Project) -> None:
    write_empty(project)
    remove(project, DAYS[0], "007")
    remove(project, DAYS[1], "007")
    running = project.start("posts_published", days=DAYS[1:])
    first = tick(project, cursor=ALL_INSTANCES)
    assert requested_days(first) == {"007": [str(DAYS[0])]}
    project.instance.report_run_canceled(running)
    assert requested_days(tick(project, cursor=first.cursor)) == {"007": [str(DAYS[1])]}


def test_sensor_updates_the_dimension_and_its_check(project: Project, service: Service) -> None:
    updated, check = tick(project, cursor=ALL_INSTANCES).asset_events
    assert isinstance(updated, dg.AssetMaterialization)
    assert isinstance(check, dg.AssetCheckEvaluation)
    assert updated.asset_key == check.asset_key == asset_key("instances")
    assert updated.metadata["dagster/row_count"].value == 4
    assert check.passed
    by_asset = project.run("instances")
    assert project.data_versions(by_asset) == {"None": updated.tags["dagster/data_version"]}
    service.override = list_instances(*INSTANCE_IDS[:1])
    updated, check = tick(project, cursor=ALL_INSTANCES).asset_events
    assert isinstance(check, dg.AssetCheckEvaluation)
    assert not check.passed
    assert updated.metadata["dagster/row_count"].value == 4


def test_sensor_requests_configured_instances(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATER_INSTANCE_IDS", "007, not listed")
    assert requested_days(tick(project)) == dict.fromkeys(["007", "not listed"], ALL_DAYS)


def test_sensor_requests_no_run_without_instances_or_days(project: Project, service: Service) -> None:
    future = replace(
        project,
        defs=LaterReportingComponent.from_environment(start_date=DAYS[-1] + timedelta(days=1)).build_definitions(),
    )
    assert not tick(future).run_requests
    service.override = list_instances()
    data = tick(project)
    assert (data.run_requests, json.loads(data.cursor or "")) == ([], {"instances": [], "attempts": []})


def test_sensor_skips_when_the_api_times_out(
    project: Project, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("later_reporting_dagster.defs.automation.API_TIMEOUT_SECONDS", 0.1)
    service.override = lambda request: problem(503)  # is retried after a wait
    data = tick(project, cursor=ALL_INSTANCES)
    assert data.skip_message == "Timed out listing instances; retrying at the next tick."
    assert not data.run_requests
    assert not data.asset_events


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("LATER_CLIENT_SECRET", "no-such-secret", "LATER_CLIENT_SECRET"),
        ("LATER_CLIENT_ID", "", "LATER_CLIENT_ID is empty"),
        ("LATER_LAKE_ROOT", "/dev/null/no-such-folder", "/dev/null"),
    ],
)
def test_sensor_error_is_one_line_without_secrets(
    variable: str, value: str, expected: str, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(Exception, match="Updating the instances failed: ") as caught:
        tick(project)
    error: BaseException | None = caught.value
    assert error is not None
    assert error.__suppress_context__  # no stack trace, which could contain a secret
    assert error.__cause__ is None
    assert expected in str(error)
    while error is not None:
        assert "no-such-secret" not in str(error)
        error = error.__cause__ or error.__context__


def test_sensor_is_hourly_and_stopped_by_default(project: Project) -> None:
    sensor = project.defs.resolve_sensor_def("later_instances")
    assert (sensor.minimum_interval_seconds, sensor.job_name) == (3600, "later_posts")
    assert sensor.default_status is dg.DefaultSensorStatus.STOPPED
