"""The sensor that fetches missing files of any age: what it requests, and how often."""

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import product
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.sensor_definition import SensorExecutionData
from hypothesis import given
from hypothesis import strategies as st

from later_reporting_dagster.contract.days import days_between, parse_day_ranges
from later_reporting_dagster.defs.partitions import range_tags
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.lake import POSTS_SCHEMA, Partition, partition_path
from later_reporting_dagster.quality.attempts import MAX_WAIT, Cursor, cursor_text, parse_cursor
from later_reporting_dagster.quality.missing_files import MAX_RANGES, plan_fetches
from tests.conftest import INSTANCE_IDS, Service, Truth, problem, stored_rows
from tests.defs.assets.test_instances import stored
from tests.defs.conftest import (
    DAYS,
    RAW_ASSETS,
    Project,
    assert_success,
    asset_key,
    fill_once,
    freeze_clock,
    list_instances,
)

PUBLISHED = "posts_published"
ALL_INSTANCES = json.dumps({"instances": sorted(INSTANCE_IDS)})


def tick(project: Project, *, cursor: str | None = None) -> SensorExecutionData:
    """Evaluate the sensor as the daemon does."""
    resources = {"later_reporting": LaterReportingResource.from_environment()}
    with dg.build_sensor_context(
        instance=project.instance, definitions=project.defs, resources=resources, cursor=cursor
    ) as context:
        return project.defs.resolve_sensor_def("later_instances").evaluate_tick(context)


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
    assert ops.pop("later__campaign_performance_periods")["config"].keys() == {"all_months"}
    pairs: dict[str, list[str]] = ops["later__posts_published"]["config"]["pairs"]
    assert ops == {f"later__{asset}": {"config": {"pairs": pairs, "only_missing": True}} for asset in RAW_ASSETS}
    days = parse_day_ranges([each for ranges in pairs.values() for each in ranges])
    assert request.tags.items() >= range_tags(min(days), max(days)).items()
    return pairs


def refetches_campaigns(data: SensorExecutionData) -> bool:
    """Return whether the run that a tick requests replaces the days and months of campaigns that exist."""
    (request,) = posts_requests(data)
    days, months = (request.run_config["ops"][f"later__campaign_performance_{name}"] for name in ("daily", "periods"))
    assert days["config"]["only_missing"] is not months["config"]["all_months"]
    return bool(months["config"]["all_months"])


def execute(project: Project, data: SensorExecutionData) -> dg.ExecuteInProcessResult:
    (request,) = posts_requests(data)
    return project.run_job("later_posts", tags=request.tags, config=request.run_config)


def write_empty(project: Project, days: Sequence[date] = DAYS) -> None:
    files = {Partition(day, name): POSTS_SCHEMA.empty_table() for day in days for name in INSTANCE_IDS}
    for asset in RAW_ASSETS:
        project.lake.write_all(asset, files)


def update_coverage(project: Project) -> None:
    assert_success(project.run_job("later_coverage"))


def reported_days(data: SensorExecutionData) -> set[tuple[str, str | None]]:
    """Return the raw days that a tick reports as materialized."""
    events = [event for event in data.asset_events if isinstance(event, dg.AssetMaterialization) and event.partition]
    return {(event.asset_key.path[-1], event.partition) for event in events}


def report(project: Project, data: SensorExecutionData) -> None:
    """Store what a tick reports, as the daemon does."""
    for event in data.asset_events:
        project.instance.report_runless_asset_event(event)


def remove(project: Project, days: Sequence[date], instances: Sequence[str]) -> None:
    for asset, day, name in product(RAW_ASSETS, days, instances):
        (project.root / partition_path(asset, Partition(day, name))).unlink()


ALL_DAYS = [f"{DAYS[0]} to {DAYS[-1]}"]


def test_sensor_requests_the_history_of_new_instances_once_a_day(project: Project, service: Service) -> None:
    first = tick(project)
    assert requested_days(first) == dict.fromkeys(INSTANCE_IDS, ALL_DAYS)
    assert not requested_days(tick(project, cursor=first.cursor))
    service.override = list_instances("new/one", *INSTANCE_IDS, "new two")
    more = tick(project, cursor=first.cursor)
    assert requested_days(more) == dict.fromkeys(["new/one", "new two"], ALL_DAYS)
    # A day of campaign performance is one file, so for new instances among others it is fetched again.
    assert [refetches_campaigns(data) for data in (first, more)] == [False, True]
    assert not requested_days(tick(project, cursor=more.cursor))
    # An instance that returns is requested, so that the days in between are fetched.
    service.override = list_instances(*INSTANCE_IDS, "new two")
    fewer = tick(project, cursor=more.cursor)
    assert not requested_days(fewer)
    service.override = list_instances(*INSTANCE_IDS, "new/one")
    assert requested_days(tick(project, cursor=fewer.cursor)) == {"new/one": ALL_DAYS}


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
    assert not requested_days(tick(selected, cursor=data.cursor))


def test_sensor_requests_no_days_of_retired_instances(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.lake.retired.add("007")
    assert requested_days(tick(project)).keys() == {*INSTANCE_IDS} - {"007"}
    monkeypatch.setenv("LATER_INSTANCE_IDS", "007")
    assert not tick(project.reloaded()).run_requests


def test_sensor_requests_nothing_for_a_complete_lake(project: Project, service: Service) -> None:
    write_empty(project)
    update_coverage(project)
    report(project, tick(project))
    for cursor in (None, "", "not JSON", "5", "[[]]", "null", ALL_INSTANCES):
        data = tick(project, cursor=cursor)
        assert (data.run_requests, reported_days(data)) == ([], set())
        assert json.loads(data.cursor or "") == {"attempts": [], "instances": list(INSTANCE_IDS)}


def test_sensor_reports_days_that_a_killed_run_has_written_and_not_logged(project: Project) -> None:
    assert_success(project.fetch(PUBLISHED))
    update_coverage(project)
    assert not reported_days(tick(project))
    # What a run writes is found by the next tick, and read by the step of `coverage`.
    for number, day in enumerate(DAYS[:2]):
        restated = project.lake.read_daily_file(PUBLISHED, Partition(day, "007"), schema=POSTS_SCHEMA)
        assert restated is not None
        metadata = {"fetched_at": datetime.now(UTC).isoformat(timespec="milliseconds")}
        project.lake.write(PUBLISHED, Partition(day, "007"), restated.slice(1), metadata=metadata)
        assert number == 0 or project.start(PUBLISHED, days=[day])
    (coverage,) = [each for each in tick(project).run_requests or [] if each.job_name == "later_coverage"]
    assert coverage.run_key is None
    queued = project.start("coverage")
    assert "later_coverage" not in [each.job_name for each in tick(project).run_requests or []]
    project.instance.report_run_canceled(queued)
    update_coverage(project)
    data = tick(project)
    # A run in progress logs the other day itself.
    assert reported_days(data) == {(PUBLISHED, str(DAYS[0]))}
    assert "later_coverage" not in [each.job_name for each in data.run_requests or []]
    report(project, data)
    assert not reported_days(tick(project))
    # The version is the one that a run logs.
    (event,) = [each for each in data.asset_events if isinstance(each, dg.AssetMaterialization) and each.partition]
    with dg.DagsterInstance.ephemeral() as instance:
        elsewhere = Project(project.defs, instance, project.root)
        logged = elsewhere.fetch(PUBLISHED, days=DAYS[:1], instances=["instance_000"])
        assert elsewhere.data_versions(logged) == {str(DAYS[0]): (event.tags or {})["dagster/data_version"]}


def test_sensor_reports_some_of_many_days_in_a_tick(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("later_reporting_dagster.defs.sensors.MAX_REPORTED_DAYS", 4)
    write_empty(project)
    update_coverage(project)
    first = tick(project)
    report(project, first)
    second = tick(project)
    assert (len(reported_days(first)), len(reported_days(second))) == (4, 2)
    assert reported_days(first) | reported_days(second) == {*product(RAW_ASSETS, map(str, DAYS))}


def test_only_missing_replaces_a_damaged_file_that_coverage_does_not_know(project: Project, truth: Truth) -> None:
    assert_success(project.fetch(PUBLISHED))
    update_coverage(project)
    (project.root / partition_path(PUBLISHED, Partition(DAYS[1], "007"))).write_bytes(b"PAR1")
    assert_success(project.fetch(PUBLISHED, only_missing=True))
    assert stored_rows(project.root, PUBLISHED, DAYS[1], "007") == truth.partition("post_date", DAYS[1], "007")


@pytest.mark.parametrize("content", [b"PAR1", b""], ids=["truncated", "empty"])
def test_sensor_requests_damaged_files_and_only_missing_replaces_them(
    content: bytes, project: Project, truth: Truth
) -> None:
    assert_success(project.fetch(PUBLISHED))
    write_empty(project)
    update_coverage(project)
    path = project.root / partition_path(PUBLISHED, Partition(DAYS[1], "007"))
    path.write_bytes(content)
    update_coverage(project)
    data = tick(project, cursor=ALL_INSTANCES)
    assert requested_days(data) == {"007": [str(DAYS[1])]}
    assert not project.check((PUBLISHED, EVERY))[PUBLISHED, EVERY].passed
    assert stored(project)["007"]["posts_published_missing_days"] == 1
    assert_success(execute(project, data))
    assert project.check((PUBLISHED, EVERY))[PUBLISHED, EVERY].passed
    assert stored_rows(project.root, PUBLISHED, DAYS[1], "007") == truth.partition("post_date", DAYS[1], "007")
    assert not requested_days(tick(project, cursor=data.cursor))


def test_sensor_leaves_days_that_a_run_is_fetching_to_that_run(project: Project) -> None:
    write_empty(project)
    remove(project, DAYS[:2], ["007"])
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


def test_sensor_requests_no_run_without_instances_or_days(project: Project, service: Service) -> None:
    future = project.configured(start_date=DAYS[-1] + timedelta(days=1))
    assert not requested_days(tick(future))
    service.override = list_instances()
    data = tick(project)
    assert (data.run_requests, json.loads(data.cursor or "")) == ([], {"attempts": [], "instances": []})


def test_sensor_skips_when_the_api_times_out(
    project: Project, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("later_reporting_dagster.defs.sensors.API_TIMEOUT_SECONDS", 0.1)
    service.override = lambda request: problem(503)  # is retried after a wait
    data = tick(project, cursor=ALL_INSTANCES)
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


# When a pair is requested again

OLDEST, TODAY = date(2024, 1, 1), datetime(2024, 6, 1, 12, tzinfo=UTC)
NINE_DAYS = days_between(OLDEST, OLDEST + timedelta(days=8))


def plan(
    missing: Mapping[str, Collection[date]], cursor: Cursor, now: datetime, *, failed_at: datetime | None = None
) -> tuple[dict[str, list[date]], Cursor]:
    """Return what a tick requests, and the cursor for the next one, as it is stored."""
    failures = {Partition(day, name): failed_at for name, days in missing.items() for day in days if failed_at}
    requested, after = plan_fetches(missing, cursor, instances=missing, days_in_progress=(), failures=failures, now=now)
    return requested, parse_cursor(cursor_text(after))


def waits(ticks: Sequence[datetime], *, fails: bool) -> list[timedelta]:
    """Return the times between the requests of a pair that stays missing; a failure is recorded a minute later."""
    cursor, requests = Cursor(), list[datetime]()
    for now in ticks:
        failed_at = requests[-1] + timedelta(minutes=1) if fails and requests else None
        requested, cursor = plan({"a": [OLDEST]}, cursor, now, failed_at=failed_at)
        requests += [now] if requested else []
    return [after - before for before, after in zip(requests, requests[1:], strict=False)]


def test_pairs_that_failed_are_requested_after_1_2_4_8_days_and_so_on() -> None:
    by_day = [TODAY + timedelta(days=number) for number in range(130)]
    assert waits(by_day, fails=True) == [*(timedelta(days=days) for days in (1, 2, 4, 8, 16)), *[MAX_WAIT] * 3]


def test_pairs_of_a_killed_run_are_requested_within_the_hour_and_then_after_growing_waits() -> None:
    by_hour = [TODAY + timedelta(hours=number) for number in range(24 * 130)]
    found = waits(by_hour, fails=False)
    assert found[:5] == [timedelta(hours=hours) for hours in (1, 1, 2, 4, 8)]
    assert found[-2:] == [MAX_WAIT] * 2


@given(st.lists(st.dictionaries(st.sampled_from("ab"), st.sets(st.sampled_from(NINE_DAYS), min_size=1)), max_size=12))
def test_each_pair_waits_for_its_own_requests(missing_by_day: list[dict[str, set[date]]]) -> None:
    """Compare with a count for each pair. A pair that was not missing in between starts anew."""
    cursor = Cursor()
    counts: dict[tuple[str, date], tuple[int, datetime]] = {}
    for number, missing in enumerate(missing_by_day):
        now = TODAY + timedelta(days=number)
        pairs = {(name, day) for name, days in missing.items() for day in days}
        counts = {pair: count for pair, count in counts.items() if pair in pairs}
        due = {
            pair for pair in pairs if pair not in counts or (now - counts[pair][1]).days >= 2 ** (counts[pair][0] - 1)
        }
        counts |= {pair: (counts.get(pair, (0, now))[0] + 1, now) for pair in due}
        requested, cursor = plan(missing, cursor, now, failed_at=now)
        assert {(name, day) for name, days in requested.items() for day in days} == due


def test_request_stays_small_if_every_other_day_is_missing() -> None:
    every_other = days_between(OLDEST, OLDEST + timedelta(days=1059))[::2]
    missing = {f"instance_{number:03}": every_other for number in range(200)}
    cursor, requested_before = Cursor(), set[tuple[str, date]]()
    for _ in range(4):
        requested, cursor = plan(missing, cursor, TODAY, failed_at=TODAY)
        pairs = {(name, day) for name, days in requested.items() for day in days}
        assert len(pairs) == MAX_RANGES
        assert not pairs & requested_before
        requested_before |= pairs


def test_new_instances_are_known_once_their_days_are_requested() -> None:
    missing, instances = {"a": [OLDEST], "b": [NINE_DAYS[1]]}, ["a", "b", "complete"]
    requested, cursor = plan_fetches(
        missing, Cursor(), instances=instances, days_in_progress={OLDEST}, failures={}, now=TODAY
    )
    assert requested == {"b": [NINE_DAYS[1]]}
    assert cursor.instances == ["b", "complete"]


# Files of seven months

NOW = datetime(2024, 3, 4, 13, tzinfo=UTC)
DUE = date(2024, 3, 3)
MANY_DAYS = days_between(DUE - timedelta(days=210), DUE)
EVERY = "every_instance_is_present"


@pytest.fixture
def complete(project: Project, module_lake: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The project with every file of 211 days, without rows, and the instances of the API in its dimension."""
    freeze_clock(monkeypatch, NOW)

    def fill(project: Project) -> bool:
        write_empty(project, MANY_DAYS)
        return project.run("instances").success

    filled = fill_once(project.configured(start_date=MANY_DAYS[0]), module_lake, fill)
    update_coverage(filled)
    return filled


def missing_files(project: Project) -> dict[str, tuple[bool, str, int]]:
    """Return for each raw table whether the check passes, its description, and how many files it names."""
    results = project.check(*((asset, EVERY) for asset in RAW_ASSETS))
    return {
        asset: (result.passed, result.description or "", int(str(result.metadata["missing_files"].value)))
        for (asset, _), result in results.items()
    }


def test_missing_files_are_red_by_name_and_fetched_by_one_run(complete: Project) -> None:
    day = DUE - timedelta(days=200)
    nothing = (True, f"All 4 instances on {len(MANY_DAYS)} days", 0)
    assert missing_files(complete) == dict.fromkeys(RAW_ASSETS, nothing)
    remove(complete, [day], ["007"])
    for passed, description, missing in missing_files(complete).values():
        assert (passed, missing) == (False, 1)
        assert "missing: 2023-08-16 (1 day): 007" in description

    data = tick(complete, cursor=json.dumps({"instances": INSTANCE_IDS}))
    assert requested_days(data).keys() == {"007"}
    assert sum(row["posts_published_missing_days"] for row in stored(complete).values()) == 1
    run = execute(complete, data)
    assert_success(run)
    assert {each for each in complete.logged(run) if each[0] in RAW_ASSETS} == {*product(RAW_ASSETS, [str(day)])}

    assert missing_files(complete) == dict.fromkeys(RAW_ASSETS, nothing)
    assert not requested_days(tick(complete, cursor=data.cursor))
