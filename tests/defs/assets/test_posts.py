"""The raw assets: fetches of whole days, and instances that fail without affecting others."""

import os
from collections import Counter
from datetime import date, timedelta
from itertools import count
from typing import Any

import dagster as dg
import pytest
from dagster import AssetPartitionStatus
from starlette.requests import Request

from later_reporting_dagster.contract.parameters import POSTS_PERFORMANCE_PATH
from later_reporting_dagster.defs.checks import posts
from later_reporting_dagster.defs.partitions import range_tags
from later_reporting_dagster.lake import LakeUnavailable, Partition, partition_path
from tests.conftest import INSTANCE_IDS, Service, Truth, files, is_first_page, parameters, partition_file, stored_rows
from tests.defs.conftest import DAYS, INSTANCES_PATH, Project, assert_success, each_raw_asset, failure, reject_instance

BASIS = {"post_metrics_daily": "performance_date", "posts_published": "post_date"}
PAIRS = {(day, instance_id) for day in DAYS for instance_id in INSTANCE_IDS}
REJECTED = INSTANCE_IDS[2]
EVERY_INSTANCE = "every_instance_is_present"
MATERIALIZED, FAILED = AssetPartitionStatus.MATERIALIZED, AssetPartitionStatus.FAILED


def assert_stored(project: Project, asset: str, truth: Truth, pairs: set[tuple[date, str]] = PAIRS) -> None:
    """Assert that a table has exactly the files of these pairs, with the sandbox's rows."""
    assert {project.root / path for path in files(project.root) if path.startswith(asset)} == {
        partition_file(project.root, asset, day, instance_id) for day, instance_id in pairs
    }
    for day, instance_id in pairs:
        rows = truth.partition(BASIS[asset], day, instance_id)
        assert stored_rows(project.root, asset, day, instance_id) == rows


def rows_of(truth: Truth, asset: str, day: date, instances: tuple[str, ...] = INSTANCE_IDS) -> int:
    return sum(len(truth.partition(BASIS[asset], day, instance_id)) for instance_id in instances)


def requested_pairs(service: Service) -> Counter[tuple[date, str]]:
    """Count the requested (day, instance) pairs since `service.requests` was cleared."""
    pairs: Counter[tuple[date, str]] = Counter()
    for request in service.requests:
        if request.url.path == "/v2/posts/performance" and is_first_page(request):
            given = parameters(request)
            (start,), (end,) = (map(date.fromisoformat, given[name]) for name in ("startDate", "endDate"))
            days = [start + timedelta(days=offset) for offset in range((end - start).days + 1)]
            pairs.update((day, instance_id) for day in days for instance_id in set(given["instanceIds"]))
    return pairs


@each_raw_asset
def test_range_is_fetched_in_one_run(asset: str, project: Project, truth: Truth, service: Service) -> None:
    result = project.fetch(asset)
    assert result.success
    assert_stored(project, asset, truth)
    assert project.statuses(asset) == dict.fromkeys(DAYS, MATERIALIZED)
    metadata = project.metadata(result)
    assert metadata.keys() == set(map(str, DAYS))
    for day in DAYS:
        found = metadata[str(day)]
        assert found.keys() == {"dagster/partition_row_count", "dagster/uri", "instances", "files_changed", "preview"}
        assert found["dagster/partition_row_count"] == rows_of(truth, asset, day)
        assert [column.name for column in found["preview"].schema.columns] == [
            *("instance_id", "post_id", "content_type", "campaign_id"),
            *("impressions", "engagements", "paid_impressions", "paid_engagements"),
        ]
        assert found["dagster/uri"] == str(project.root / asset / f"date={day}")
        assert (found["instances"], found["files_changed"]) == (4, 4)
    # The instances once, then one query per day by performance date, or one for all days by post date.
    assert service.request_count(INSTANCES_PATH) == 1
    total = sum(rows_of(truth, asset, day) for day in DAYS)
    by_day = sum(-(-rows_of(truth, asset, day) // 100) for day in DAYS)
    assert service.data_requests == (by_day if asset == "post_metrics_daily" else -(-total // 100))
    assert set(requested_pairs(service).elements()) == PAIRS
    assert all(project.passed(result).values())
    assert len(project.evaluations(result)) == (11 if asset == "posts_published" else 10)


@each_raw_asset
def test_rejected_instance_fails_alone_and_can_be_fetched_later(
    asset: str, project: Project, service: Service, truth: Truth
) -> None:
    service.override = reject_instance(REJECTED)
    result = project.fetch(asset)
    description, metadata = failure(result)
    assert description.splitlines()[0] == "3 files failed and were not changed; 9 written."
    assert metadata["failed_partitions"].keys() == {f"{day} {REJECTED}" for day in DAYS}
    (reason,) = {*metadata["failed_partitions"].values()}
    assert description.splitlines()[1:] == [f"3 files, 2024-03-01 to 2024-03-03, {REJECTED}: {reason}"]
    assert_stored(project, asset, truth, {pair for pair in PAIRS if pair[1] != REJECTED})
    assert project.statuses(asset) == dict.fromkeys(DAYS, MATERIALIZED)
    for day, found in project.metadata(result).items():
        assert (found["missing_instances"], found["instances"]) == ([REJECTED], 3)
        assert found["failed_instances"] == {REJECTED: metadata["failed_partitions"][f"{day} {REJECTED}"]}
        others = tuple(each for each in INSTANCE_IDS if each != REJECTED)
        assert found["dagster/partition_row_count"] == rows_of(truth, asset, date.fromisoformat(day), others)
    assert project.planned_checks(result) == project.evaluations(result).keys()
    failed_checks = {name for name, passed in project.passed(result).items() if not passed}
    assert failed_checks == {EVERY_INSTANCE, "newest_due_day_is_present"}
    failed = project.evaluations(result)[asset, EVERY_INSTANCE]
    assert (failed.description or "").startswith(
        f"3 files are missing: 2024-03-01 to 2024-03-03 (3 days): {REJECTED}. Materialize"
    )
    assert failed.metadata["missing"].value == {REJECTED: ["2024-03-01 to 2024-03-03"]}

    service.override = lambda request: None
    service.requests.clear()
    retried = project.fetch(asset, instances=[REJECTED])
    assert retried.success
    assert_stored(project, asset, truth)
    # Only this instance is requested, each pair once, without a listing.
    assert service.request_count(INSTANCES_PATH) == 0
    assert requested_pairs(service) == Counter((day, REJECTED) for day in DAYS)
    assert all("missing_instances" not in found for found in project.metadata(retried).values())
    assert project.evaluations(retried)[asset, EVERY_INSTANCE].description == "All 4 instances on 3 days"
    assert project.check((asset, EVERY_INSTANCE))[asset, EVERY_INSTANCE].passed
    # The new instance changes the data versions to those of a run of all instances.
    assert not set(project.data_versions(retried).items()) & set(project.data_versions(result).items())
    assert project.data_versions(project.fetch(asset)) == project.data_versions(retried)


def test_failed_step_also_evaluates_checks_of_other_assets_that_read_its_table(
    project: Project, service: Service
) -> None:
    by_day = reject_instance(REJECTED)
    service.override = lambda request: (
        by_day(request)
        if parameters(request).get("dateBasis") == ["performance_date"] and request.url.path == POSTS_PERFORMANCE_PATH
        else None
    )
    result = project.run_job("later_posts", tags=range_tags(DAYS[0], DAYS[-1]))
    (step,) = [event.step_key for event in result.all_events if event.is_step_failure]
    assert step == "later__post_metrics_daily"
    evaluations = project.evaluations(result)
    assert project.planned_checks(result) == evaluations.keys()
    assert {key for key, each in evaluations.items() if not each.passed} == {
        ("post_metrics_daily", EVERY_INSTANCE),
        ("post_metrics_daily", "newest_due_day_is_present"),
    }


def test_check_that_cannot_be_evaluated_does_not_hide_why_a_fetch_failed(
    project: Project, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(*_: Any, **__: Any) -> Any:
        raise LakeUnavailable("the disk failed for a moment")

    monkeypatch.setattr(posts, "evaluate_quarantine", unavailable)
    service.override = reject_instance(REJECTED)
    result = project.fetch("posts_published", instances=[INSTANCE_IDS[0], REJECTED])
    assert failure(result)[1]["failed_partitions"].keys() == {f"{day} {REJECTED}" for day in DAYS}
    assert "later__posts_published_checks could not be evaluated: " in project.warnings(result)[-1]
    assert project.passed(result)["rows_unique_by_key"]


def test_day_without_a_written_file_is_not_materialized(project: Project, service: Service) -> None:
    asset = "post_metrics_daily"
    assert project.fetch(asset).success
    before = files(project.root)

    totals = count(1)  # which never come to rest

    def inconsistent(_request: Request, document: Any) -> Any:
        if parameters(_request)["startDate"] == [str(DAYS[1])]:
            document["pagination"]["totalItems"] += next(totals)
        return document

    service.transform = inconsistent
    result = project.fetch(asset)
    _, metadata = failure(result)
    assert metadata["failed_partitions"].keys() == {f"{DAYS[1]} {instance_id}" for instance_id in INSTANCE_IDS}
    assert project.statuses(asset) == {DAYS[0]: MATERIALIZED, DAYS[1]: FAILED, DAYS[2]: MATERIALIZED}
    assert project.materializations(result).keys() == {str(DAYS[0]), str(DAYS[2])}
    assert files(project.root) == before


def test_rejected_instance_with_an_older_file_is_not_missing(project: Project, service: Service) -> None:
    first = project.fetch("posts_published")
    before = files(project.root)
    service.override = reject_instance(REJECTED)
    result = project.fetch("posts_published")
    assert failure(result)[1]["failed_partitions"].keys() == {f"{day} {REJECTED}" for day in DAYS}
    assert files(project.root) == before
    assert project.data_versions(result) == project.data_versions(first)
    for found in project.metadata(result).values():
        assert found["failed_instances"].keys() == {REJECTED}
        assert "missing_instances" not in found
    assert project.evaluations(result)["posts_published", EVERY_INSTANCE].passed


def test_only_missing_fetches_pairs_without_a_file(project: Project, service: Service, truth: Truth) -> None:
    asset = "posts_published"
    present = {(day, instance_id) for day in DAYS[:2] for instance_id in INSTANCE_IDS[:2]}
    assert project.fetch(asset, days=DAYS[:2], instances=list(INSTANCE_IDS[:2])).success
    service.requests.clear()
    result = project.fetch(asset, only_missing=True)
    assert requested_pairs(service) == Counter(PAIRS - present)
    assert_stored(project, asset, truth)

    # Metadata describes the whole day.
    metadata = project.metadata(result)
    for day in DAYS:
        assert metadata[str(day)]["dagster/partition_row_count"] == rows_of(truth, asset, day)
        assert metadata[str(day)]["instances"] == 4
    assert metadata[str(DAYS[0])]["files_changed"] == 2
    service.requests.clear()
    nothing = project.fetch(asset, only_missing=True)
    assert_success(nothing)
    assert (service.data_requests, service.request_count(INSTANCES_PATH)) == (0, 1)
    assert not project.materializations(nothing)
    # The checks of rows read only files of days that the run has materialized.
    assert project.evaluations(nothing)[asset, "rows_unique_by_key"].metadata["files"].value == 0
    (project.root / partition_path(asset, Partition(DAYS[1], "007"))).unlink()
    one_day = project.evaluations(project.fetch(asset, only_missing=True))
    assert one_day[asset, "rows_unique_by_key"].metadata["files"].value == len(INSTANCE_IDS)
    assert one_day[asset, EVERY_INSTANCE].passed


def test_reexecution_fetches_only_what_its_parent_did_not(project: Project, service: Service, truth: Truth) -> None:
    asset = "posts_published"
    service.override = reject_instance(REJECTED)
    parent = project.fetch(asset)
    assert not parent.success
    service.override = lambda request: None

    def fetched_after(run_id: str, **config: Any) -> Counter[tuple[date, str]]:
        """Return the pairs that a run fetches that `run_retries` or *Re-execute* in the UI starts."""
        service.requests.clear()
        tags = {**range_tags(DAYS[0], DAYS[-1]), "dagster/parent_run_id": run_id}
        assert_success(project.run(asset, tags=tags, config=config))
        return requested_pairs(service)

    assert fetched_after(parent.run_id) == Counter((day, REJECTED) for day in DAYS)
    assert_stored(project, asset, truth)
    # All if the parent has succeeded, or had other config or metrics.
    assert fetched_after(project.fetch(asset).run_id) == Counter(PAIRS)
    assert fetched_after(parent.run_id, allow_row_loss=True) == Counter(PAIRS)
    project.instance.add_run_tags(parent.run_id, {f"later__{asset}/metrics": "others"})
    assert fetched_after(parent.run_id) == Counter(PAIRS)


@pytest.mark.parametrize(("limit", "extended"), [(100, "124"), (0, None)])
def test_fetch_extends_the_time_limit_of_its_run_by_its_work(
    limit: int, extended: str | None, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dg.DagsterInstance, "run_monitoring_max_runtime_seconds", limit)
    run = project.instance.get_run_by_id(project.fetch("posts_published").run_id)
    assert run is not None
    assert run.tags.get("dagster/max_runtime") == extended


def test_days_by_instance_are_fetched_and_materialized_alone(project: Project, service: Service) -> None:
    days = {"007": [str(DAYS[0])], INSTANCE_IDS[0]: [f"{DAYS[0]} to {DAYS[-1]}", "2020-01-01"]}
    result = project.fetch("posts_published", days=DAYS[:2], days_by_instance=days)
    assert_success(result)
    fetched = {(DAYS[0], "007"), (DAYS[0], INSTANCE_IDS[0]), (DAYS[1], INSTANCE_IDS[0])}
    assert {(each.day, each.instance_id) for each in project.lake.partitions("posts_published")} == fetched
    service.requests.clear()
    again = project.fetch("posts_published", days_by_instance=days, only_missing=True)
    assert project.materializations(again).keys() == {str(DAYS[2])}
    assert service.data_requests == 1
    for invalid, reason in (
        ("yesterday", "'yesterday' is neither a day"),
        ("2024-01-09 to 2024-01-05", "ends before it starts"),
        ("2020-01-01", "no day of them"),
    ):
        assert reason in failure(project.fetch("posts_published", days_by_instance={"007": [invalid]}))[0]
    assert service.data_requests == 1


def test_configured_instances_are_fetched_without_a_listing(
    project: Project, service: Service, truth: Truth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATER_INSTANCE_IDS", f" {INSTANCE_IDS[1]}, {INSTANCE_IDS[0]} ,,{INSTANCE_IDS[1]}")
    result = project.reloaded().fetch("posts_published")
    assert result.success
    assert service.request_count(INSTANCES_PATH) == 0
    assert_stored(project, "posts_published", truth, {pair for pair in PAIRS if pair[1] in INSTANCE_IDS[:2]})
    assert requested_pairs(service).most_common(1)[0][1] == 1
    assert {found["instances"] for found in project.metadata(result).values()} == {2}


def test_fetch_with_rejected_credentials_fails_without_showing_them(
    project: Project, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATER_CLIENT_SECRET", "no-such-secret")
    result = project.fetch("posts_published")
    description, metadata = failure(result)
    assert "LATER_CLIENT_SECRET" in description
    assert ("\n" in description, metadata) == (False, {})
    (event,) = [event for event in result.all_events if event.is_step_failure]
    error = event.step_failure_data.error
    assert error is not None
    # No stack trace, which could contain a secret.
    assert (error.cause, error.context) == (None, None)
    assert service.data_requests == 0
    assert not project.root.exists()


def test_bad_rows_are_counted_in_the_metadata_of_their_day(project: Project, service: Service) -> None:
    def edited(request: Request, document: Any) -> Any:
        if is_first_page(request):
            document["data"][1]["impressions"] = -1
        return document

    service.transform = edited
    result = project.fetch("posts_published")
    assert_success(result)
    assert [found["bad_rows"] for found in project.metadata(result).values() if "bad_rows" in found] == [1]
    quarantine = project.evaluations(result)["posts_published", "quarantine_is_empty"]
    assert (quarantine.passed, quarantine.metadata["rows"].value) == (False, 1)


@pytest.mark.parametrize(
    "config",
    [
        {"instances": [{"env": "LATER_CLIENT_SECRET"}]},
        {"days_by_instance": {INSTANCE_IDS[0]: [{"env": "LATER_CLIENT_SECRET"}]}},
        {"old_days": [{"env": "LATER_CLIENT_SECRET"}]},
    ],
    ids=str,
)
def test_run_config_with_a_secret_is_refused_before_any_text_has_it(
    config: dict[str, Any], project: Project, service: Service, capfd: pytest.CaptureFixture[str]
) -> None:
    secret = os.environ["LATER_CLIENT_SECRET"]
    result = project.fetch("posts_published", days=DAYS[:1], **config)
    assert not result.success
    assert "The run config has the value of LATER_CLIENT_SECRET (client_secret). Nothing was" in failure(result)[0]
    events = [str(entry) for entry in project.instance.all_logs(result.run_id)]
    assert not any(secret in each for each in (*events, *capfd.readouterr()))
    assert requested_pairs(service) == {}
