"""The sensor that fetches missing files of any age: what it requests, and how often."""

import shutil
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import product

import dagster as dg
import pytest
from dagster._core.definitions.sensor_definition import SensorExecutionData

from later_reporting_dagster.contract.days import days_between, parse_day_ranges
from later_reporting_dagster.defs.partitions import selected_range
from later_reporting_dagster.lake import POSTS_SCHEMA, Partition, partition_path
from later_reporting_dagster.lake.tables import OF_INSTANCES, PERIODS_TABLES
from later_reporting_dagster.quality.missing_files import MAX_RANGES, days_to_request
from tests.conftest import INSTANCE_IDS, Service, Truth, problem, stored_rows
from tests.defs.assets.test_instances import stored
from tests.defs.conftest import (
    DAYS,
    RAW_ASSETS,
    Project,
    assert_success,
    asset_key,
    fetched,
    freeze_clock,
    list_instances,
    reject_instance,
)

PUBLISHED, EVERY = "posts_published", "every_instance_is_present"


def tick(project: Project) -> SensorExecutionData:
    return project.sensor("later_missing_files")


def posts_requests(data: SensorExecutionData) -> list[dg.RunRequest]:
    return [request for request in data.run_requests or [] if request.job_name == "later_posts"]


def requested_days(data: SensorExecutionData) -> dict[str, list[str]]:
    """Return the days of each instance that a tick requests in a single run; none if it requests no run."""
    requests = posts_requests(data)
    if not requests:
        return {}
    (request,) = requests
    assert request.run_key is None
    ops = dict(request.run_config["ops"])
    assert ops.pop("later__campaign_performance_daily")["config"].keys() == {"only_missing"}
    for name in PERIODS_TABLES:
        assert ops.pop(f"later__{name}")["config"].keys() == {"all_months"}
    requested: dict[str, list[str]] = ops["later__posts_published"]["config"]["days_by_instance"]
    config = {"days_by_instance": requested, "only_missing": True}
    assert ops == {f"later__{asset}": {"config": config} for asset in OF_INSTANCES}
    ranges = [each for of_instance in requested.values() for each in of_instance]
    days = [*parse_day_ranges(ranges, earliest=date.min, latest=date.max)]
    # Days of all campaigns may be missing besides.
    first, last = selected_range(request.tags) or (date.max, date.min)
    assert not days or first <= min(days) <= max(days) <= last
    return requested


def refetches_campaigns(data: SensorExecutionData) -> bool:
    """Return whether the run that a tick requests replaces the days and months of campaigns that exist."""
    (request,) = posts_requests(data)
    days, months = (request.run_config["ops"][f"later__campaign_performance_{name}"] for name in ("daily", "periods"))
    assert days["config"]["only_missing"] is not months["config"]["all_months"]
    return bool(months["config"]["all_months"])


def execute(project: Project, data: SensorExecutionData) -> dg.ExecuteInProcessResult:
    (request,) = posts_requests(data)
    return project.execute(request)


def remove(project: Project, days: Sequence[date], instances: Sequence[str]) -> None:
    for asset, day, name in product(RAW_ASSETS, days, instances):
        (project.root / partition_path(asset, Partition(day, name))).unlink()


ALL_DAYS = [f"{DAYS[0]} to {DAYS[-1]}"]


def test_sensor_requests_the_history_of_new_instances(project: Project, service: Service) -> None:
    first = tick(project)
    assert requested_days(first) == dict.fromkeys(INSTANCE_IDS, ALL_DAYS)
    assert_success(execute(project, first))
    assert not requested_days(tick(project))
    service.override = list_instances("new/one", *INSTANCE_IDS, "new two")
    more = tick(project)
    assert requested_days(more) == dict.fromkeys(["new/one", "new two"], ALL_DAYS)
    # A day of campaign performance is one file, so for new instances among others it is fetched again.
    assert [refetches_campaigns(data) for data in (first, more)] == [False, True]
    # Not each day for one that always fails.
    service.override = lambda request: (
        reject_instance("new two")(request) or list_instances(*INSTANCE_IDS, "new two")(request)
    )
    assert not execute(project, more).success
    project.write_empty(DAYS[:1])
    remove(project, DAYS[:1], ["007"])
    assert not refetches_campaigns(tick(project))


def test_sensor_fetches_missing_files_of_configured_instances_without_the_asset_instances(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATER_TABLES", PUBLISHED)
    monkeypatch.setenv("LATER_INSTANCE_IDS", f"007, {INSTANCE_IDS[0]}")
    selected = project.reloaded()
    data = tick(selected)
    (request,) = posts_requests(data)
    assert request.run_config["ops"].keys() == {f"later__{PUBLISHED}"}
    assert not data.asset_events
    assert_success(execute(selected, data))
    assert len(project.lake.partitions(PUBLISHED)) == len(DAYS) * 2
    assert not requested_days(tick(selected))


def test_sensor_requests_no_days_of_retired_instances(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.lake.retired.add("007")
    assert requested_days(tick(project)).keys() == {*INSTANCE_IDS} - {"007"}
    monkeypatch.setenv("LATER_INSTANCE_IDS", "007")
    assert not tick(project.reloaded()).run_requests


def test_sensor_requests_nothing_for_a_complete_lake(project: Project, service: Service) -> None:
    project.write_empty()
    project.update_coverage()
    data = tick(project)
    assert (data.run_requests, data.cursor) == ([], None)
    assert data.skip_message == "No file is missing or stale"


def test_skipped_tick_says_what_the_sensor_waits_for(project: Project) -> None:
    data = tick(project)
    assert data.skip_message is None
    run = project.record(posts_requests(data)[0], dg.DagsterRunStatus.STARTED)
    assert tick(project).skip_message == "Waits for the runs that fetch what is missing or stale"
    project.instance.report_run_failed(run)
    expected = "What is missing or stale was requested within the last hour, or three times today"
    assert tick(project).skip_message == expected


def test_sensor_requests_an_update_of_coverage_for_files_of_a_killed_run(project: Project) -> None:
    assert_success(project.fetch(PUBLISHED))
    project.update_coverage()
    for number, day in enumerate(DAYS[:2]):
        restated = project.lake.read_table(PUBLISHED, Partition(day, "007"), schema=POSTS_SCHEMA)
        assert restated is not None
        project.lake.write(PUBLISHED, Partition(day, "007"), restated.slice(1), metadata=fetched())
        assert number == 0 or project.start(PUBLISHED, days=[day])

    def requests() -> list[dg.RunRequest]:
        return [each for each in tick(project).run_requests or [] if each.job_name == "later_coverage"]

    (request,) = requests()
    assert request.run_key is None
    queued = project.start("coverage")
    assert not requests()
    project.instance.report_run_canceled(queued)
    assert_success(project.run_job("later_coverage", tags=request.tags))
    assert not requests()


def test_only_missing_replaces_a_damaged_file_that_coverage_does_not_know(project: Project, truth: Truth) -> None:
    assert_success(project.fetch(PUBLISHED))
    project.update_coverage()
    (project.root / partition_path(PUBLISHED, Partition(DAYS[1], "007"))).write_bytes(b"PAR1")
    assert_success(project.fetch(PUBLISHED, only_missing=True))
    assert stored_rows(project.root, PUBLISHED, DAYS[1], "007") == truth.partition("post_date", DAYS[1], "007")


def test_missing_and_damaged_files_are_red_by_name_and_fetched_by_one_run(project: Project, truth: Truth) -> None:
    assert_success(project.fetch(PUBLISHED))
    project.write_empty()
    project.update_coverage()
    *spoiled, _ = sorted(INSTANCE_IDS)
    missing, truncated, empty = (project.root / partition_path(PUBLISHED, Partition(DAYS[1], each)) for each in spoiled)
    missing.unlink()
    truncated.write_bytes(b"PAR1")
    empty.write_bytes(b"")
    project.update_coverage()
    data = tick(project)
    assert requested_days(data) == dict.fromkeys(spoiled, [str(DAYS[1])])
    red = project.check((PUBLISHED, EVERY))[PUBLISHED, EVERY]
    assert (red.passed, red.metadata["missing_files"].value) == (False, 3)
    assert f"missing: {DAYS[1]} (1 day): {', '.join(spoiled)}" in str(red.description)
    assert {stored(project)[each]["posts_published_missing_days"] for each in spoiled} == {1}
    run = execute(project, data)
    assert_success(run)
    assert {partition for name, partition in project.logged(run) if name == PUBLISHED} == {str(DAYS[1])}
    green = project.check((PUBLISHED, EVERY))[PUBLISHED, EVERY]
    assert (green.passed, green.description) == (True, f"All 4 instances on {len(DAYS)} days")
    for each in spoiled:
        assert stored_rows(project.root, PUBLISHED, DAYS[1], each) == truth.partition("post_date", DAYS[1], each)
    # Of a table that an account may lack, all files are expected once there is one.
    others = tick(project)
    assert requested_days(others)["007"] == [str(DAYS[0]), str(DAYS[2])]
    assert_success(execute(project, others))
    assert not requested_days(tick(project))


def test_sensor_leaves_days_that_a_run_is_fetching_to_that_run(project: Project) -> None:
    project.write_empty()
    remove(project, DAYS[:2], ["007"])
    running = project.start("posts_published", days=DAYS[1:])
    first = tick(project)
    assert requested_days(first) == {"007": [str(DAYS[0])]}
    project.instance.report_run_canceled(running)
    assert requested_days(tick(project)) == {"007": [f"{DAYS[0]} to {DAYS[1]}"]}


def test_sensor_updates_the_dimension_and_its_check(project: Project, service: Service) -> None:
    updated, check, of_numbers = tick(project).asset_events
    assert isinstance(updated, dg.AssetMaterialization)
    assert isinstance(check, dg.AssetCheckEvaluation)
    assert isinstance(of_numbers, dg.AssetCheckEvaluation)
    assert of_numbers.passed
    assert updated.asset_key == check.asset_key == of_numbers.asset_key == asset_key("instances")
    assert updated.metadata["dagster/row_count"].value == 4
    assert check.passed
    by_asset = project.run("instances")
    assert project.data_versions(by_asset) == {"None": updated.tags["dagster/data_version"]}
    service.override = list_instances(*INSTANCE_IDS[:1])
    updated, check, _ = tick(project).asset_events
    assert isinstance(check, dg.AssetCheckEvaluation)
    assert not check.passed
    assert updated.metadata["dagster/row_count"].value == 4


def test_sensor_requests_no_run_without_instances_or_days(project: Project, service: Service) -> None:
    future = project.configured(start_date=DAYS[-1] + timedelta(days=1))
    assert not requested_days(tick(future))
    service.override = list_instances()
    assert tick(project).run_requests == []


def test_sensor_skips_when_the_api_times_out(
    project: Project, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("later_reporting_dagster.defs.sensors.API_TIMEOUT_SECONDS", 0.1)
    service.override = lambda request: problem(503)  # is retried after a wait
    data = tick(project)
    assert data.skip_message == "Timed out listing instances; retrying at the next tick."
    assert not data.run_requests
    assert not data.asset_events


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("LATER_CLIENT_SECRET", "no-such-secret", "LATER_CLIENT_SECRET"),
        ("LATER_LAKE_ROOT", "/dev/null/no-such-folder", "/dev/null"),
    ],
)
def test_sensor_error_is_one_line_without_secrets(
    variable: str, value: str, expected: str, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(Exception, match="Updating the instances failed: ") as caught:
        tick(project)
    # No stack trace, which could contain a secret.
    assert (caught.value.__cause__, caught.value.__suppress_context__) == (None, True)
    assert expected in str(caught.value)
    assert "no-such-secret" not in str(caught.value)


def test_lost_day_of_all_campaigns_is_fetched_again(project: Project) -> None:
    assert_success(execute(project, tick(project)))
    path = partition_path("campaign_performance_daily", Partition(DAYS[0]))
    (project.root / path).unlink()
    lost = tick(project)
    assert requested_days(lost) == {}
    assert not refetches_campaigns(lost)
    assert_success(execute(project, lost))
    assert (project.root / path).exists()
    assert not posts_requests(tick(project))


# What is requested, and how often

OLDEST = date(2024, 1, 1)


def test_request_stays_small_if_every_other_day_is_missing() -> None:
    every_other = days_between(OLDEST, OLDEST + timedelta(days=1059))[::2]
    missing = [Partition(day, f"instance_{number:03}") for number in range(200) for day in every_other]
    requested = days_to_request(missing, days_in_progress=every_other[:1])
    assert sum(map(len, requested.values())) == MAX_RANGES
    assert {days[0] for days in requested.values()} == {every_other[1]}


def test_files_that_no_run_fetches_are_requested_once_an_hour_and_three_times_a_day(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write_empty()
    remove(project, DAYS[:1], ["007"])
    requested = []
    for half_hours in (*range(8), 49):
        now = datetime.now(UTC) + timedelta(hours=half_hours / 2)
        monkeypatch.setattr("later_reporting_dagster.defs.runs.utc_now", lambda now=now: now)
        requests = posts_requests(tick(project))
        requested.append(len(requests))
        for request in requests:
            project.record(request)
    assert requested == [1, 0, 1, 0, 1, 0, 0, 0, 1]
    # With another file, it is another request.
    remove(project, DAYS[1:2], ["007"])
    assert requested_days(tick(project)) == {"007": [f"{DAYS[0]} to {DAYS[1]}"]}


def test_a_pair_that_failed_is_requested_again_on_the_next_day(
    project: Project, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write_empty()
    remove(project, DAYS[:1], ["007"])
    service.override = reject_instance("007")
    assert not execute(project, tick(project)).success
    # Beside another gap, which is requested by itself.
    remove(project, DAYS[1:2], [INSTANCE_IDS[0]])
    assert requested_days(tick(project)) == {INSTANCE_IDS[0]: [str(DAYS[1])]}
    freeze_clock(monkeypatch, datetime.now(UTC) + timedelta(days=1))
    with_next_day = project.configured(start_date=DAYS[0], due_hour_utc=23)
    assert str(DAYS[0]) in requested_days(tick(with_next_day))["007"][0]


def test_sensor_refuses_a_lake_that_was_filled_and_is_empty(project: Project) -> None:
    assert_success(project.fetch(PUBLISHED))
    assert_success(project.run("instances"))
    for path in project.root.iterdir():
        shutil.rmtree(path)
    project.update_coverage()  # as at the due hour
    with pytest.raises(dg.DagsterError, match="is empty, although later/posts_published was materialized: is the disk"):
        tick(project)
    project.root.rename(project.root.with_name("away"))
    with pytest.raises(dg.DagsterError, match="is the disk mounted, and LATER_LAKE_ROOT right"):
        tick(project)
    assert not project.root.exists()
    # Of one that has lost only its posts, they are fetched.
    project.root.with_name("away").rename(project.root)
    project.lake.write_table("organic_paid_overall", POSTS_SCHEMA.empty_table())
    assert requested_days(tick(project)) == dict.fromkeys(INSTANCE_IDS, ALL_DAYS)
