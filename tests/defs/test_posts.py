"""The raw assets, run for real: days are fetched whole, and what fails costs its own files."""

import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import AssetPartitionStatus
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from later_reporting_dagster.client import RevisionChanged
from later_reporting_dagster.defs.partitions import PARTITION_TAG, range_tags
from later_reporting_dagster.ingest.progress import LISTENER, Progress
from later_reporting_dagster.sandbox import World, create_app
from tests.conftest import (
    FIRST_DAY,
    INSTANCE_IDS,
    UNHURRIED,
    Service,
    Truth,
    both_revisions,
    files,
    is_first_page,
    parameters,
    partition_file,
    problem,
    stored_rows,
)
from tests.defs.conftest import DAYS, INSTANCES_PATH, Project, both_assets, failure, listed, restated, without

BASIS = {"post_metrics_daily": "performance_date", "posts_published": "post_date"}
PAIRS = {(day, instance_id) for day in DAYS for instance_id in INSTANCE_IDS}
BROKEN = INSTANCE_IDS[2]
EVERY_INSTANCE = "every_instance_is_present"
MATERIALIZED, FAILED = AssetPartitionStatus.MATERIALIZED, AssetPartitionStatus.FAILED


def assert_true(project: Project, asset: str, truth: Truth, pairs: set[tuple[date, str]] = PAIRS) -> None:
    """The lake's table is just the files of these pairs, with the service's own rows."""
    assert {project.root / path for path in files(project.root) if path.startswith(asset)} == {
        partition_file(project.root, asset, day, instance_id) for day, instance_id in pairs
    }
    for day, instance_id in pairs:
        rows = truth.partition(BASIS[asset], day, instance_id)
        assert stored_rows(project.root, asset, day, instance_id) == rows


def rows_of(truth: Truth, asset: str, day: date, instances: tuple[str, ...] = INSTANCE_IDS) -> int:
    return sum(len(truth.partition(BASIS[asset], day, instance_id)) for instance_id in instances)


def requested_pairs(service: Service) -> Counter[tuple[date, str]]:
    """The (day, instance) pairs that the queries since the last reset asked for, and how often each."""
    pairs: Counter[tuple[date, str]] = Counter()
    for request in service.requests:
        if request.url.path == "/v2/posts/performance" and is_first_page(request):
            given = parameters(request)
            (start,), (end,) = (map(date.fromisoformat, given[name]) for name in ("startDate", "endDate"))
            days = [start + timedelta(days=offset) for offset in range((end - start).days + 1)]
            pairs.update((day, instance_id) for day in days for instance_id in set(given["instanceIds"]))
    return pairs


@both_assets
def test_a_range_is_fetched_whole_in_one_run(asset: str, project: Project, truth: Truth, service: Service) -> None:
    result = project.fetch(asset)
    assert result.success
    assert_true(project, asset, truth)
    assert project.statuses(asset) == dict.fromkeys(DAYS, MATERIALIZED)
    told = project.metadata(result)
    assert told.keys() == set(map(str, DAYS))
    for day in DAYS:
        found = told[str(day)]
        assert found.keys() == {"dagster/partition_row_count", "dagster/uri", "instances", "files_changed", "preview"}
        assert found["dagster/partition_row_count"] == rows_of(truth, asset, day)
        assert found["dagster/uri"] == str(project.root / asset / f"date={day}")
        assert (found["instances"], found["files_changed"]) == (4, 4)
    # One query a day by performance date, one for all days by post date; before them the instances, once.
    assert service.asked(INSTANCES_PATH) == 1
    total = sum(rows_of(truth, asset, day) for day in DAYS)
    by_day = sum(-(-rows_of(truth, asset, day) // 100) for day in DAYS)
    assert service.data_requests == (by_day if asset == "post_metrics_daily" else -(-total // 100))
    assert set(requested_pairs(service).elements()) == PAIRS
    # The newest day that is due is no day of this world.
    assert {check for check, passed in project.passed(result).items() if not passed} == {"newest_due_day_is_present"}
    assert len(project.evaluations(result)) == 7


def test_a_single_day_is_fetched_alone(project: Project, truth: Truth) -> None:
    result = project.run("posts_published", tags={PARTITION_TAG: str(DAYS[1])})
    assert result.success
    assert project.statuses("posts_published") == {DAYS[1]: MATERIALIZED}
    assert_true(project, "posts_published", truth, {pair for pair in PAIRS if pair[0] == DAYS[1]})


def test_the_preview_shows_the_posts_of_the_day_that_were_seen_most(project: Project, truth: Truth) -> None:
    (found,) = project.metadata(project.fetch("posts_published", days=DAYS[:1])).values()
    rows = [row for each in INSTANCE_IDS for row in truth.partition("post_date", FIRST_DAY, each)]
    seen = sorted((row["impressions"] for row in rows if row["impressions"] is not None), reverse=True)
    head, _, *lines = found["preview"].splitlines()
    assert head.startswith("| instance_id | post_id | content_type | creator_handle_name | impressions |")
    assert [int(line.split(" | ")[4]) for line in lines] == seen[:5]


def test_a_run_logs_one_planned_event_and_one_materialization_a_day_and_nothing_twice(project: Project) -> None:
    result = project.fetch("posts_published")
    entries = project.instance.all_logs(result.run_id)
    counts = Counter(entry.dagster_event.event_type for entry in entries if entry.dagster_event)
    kinds = dg.DagsterEventType
    assert counts[kinds.ASSET_MATERIALIZATION_PLANNED] == counts[kinds.ASSET_MATERIALIZATION] == len(DAYS)
    assert counts[kinds.ASSET_CHECK_EVALUATION] == 7
    assert counts[kinds.STEP_OUTPUT] == counts[kinds.ASSET_OBSERVATION] == 0
    # Neither is a line of the log.
    lines = [entry.user_message for entry in entries if entry.dagster_event is None]
    assert len(lines) == len(set(lines)) <= 5


@both_assets
def test_a_refused_instance_costs_its_own_files_and_heals(
    asset: str, project_on_disk: Project, service: Service, truth: Truth
) -> None:
    project = project_on_disk
    service.instead = without(BROKEN)
    result = project.fetch(asset)
    description, metadata = failure(result)
    assert description.splitlines()[0] == "3 files failed and stayed as before; 9 written."
    assert metadata["failed_partitions"].keys() == {f"{day} {BROKEN}" for day in DAYS}
    for key, reason in metadata["failed_partitions"].items():
        assert f"{key}: {reason}" in description.splitlines()
        assert "403" in reason or "not within reach" in reason
    assert_true(project, asset, truth, {pair for pair in PAIRS if pair[1] != BROKEN})
    assert project.statuses(asset) == dict.fromkeys(DAYS, MATERIALIZED)
    lacking = project.metadata(result)
    for day, found in lacking.items():
        assert (found["missing_instances"], found["instances"]) == ([BROKEN], 3)
        assert found["failed_instances"] == {BROKEN: metadata["failed_partitions"][f"{day} {BROKEN}"]}
        others = tuple(each for each in INSTANCE_IDS if each != BROKEN)
        assert found["dagster/partition_row_count"] == rows_of(truth, asset, date.fromisoformat(day), others)
    red = project.evaluations(result)[asset, EVERY_INSTANCE]
    assert not red.passed
    assert (red.description or "").startswith(f"3 files are missing: {BROKEN}: 2024-03-01 to 2024-03-03. Materialize")
    assert red.metadata["missing"].value == {BROKEN: ["2024-03-01 to 2024-03-03"]}
    assert project.passed(result)["rows_unique_by_key"]

    service.instead = lambda request: None
    service.requests.clear()
    healed = project.fetch(asset, instances=[BROKEN])
    assert healed.success
    assert_true(project, asset, truth)
    # It costs the requests of this instance alone: no listing, and each pair once.
    assert service.asked(INSTANCES_PATH) == 0
    assert requested_pairs(service) == Counter((day, BROKEN) for day in DAYS)
    assert all("missing_instances" not in found for found in project.metadata(healed).values())
    assert project.evaluations(healed)[asset, EVERY_INSTANCE].description == "All 4 instances on 3 days"
    assert project.check((asset, EVERY_INSTANCE))[asset, EVERY_INSTANCE].passed
    # Changed by the instance that came, and what a run of all instances has.
    assert not set(project.data_versions(healed).items()) & set(project.data_versions(result).items())
    assert project.data_versions(project.fetch(asset)) == project.data_versions(healed)


@pytest.mark.parametrize("was_fetched", [False, True], ids=["without files", "with older files"])
def test_a_day_of_which_nothing_could_be_written_is_not_materialized(
    was_fetched: bool, project: Project, service: Service, truth: Truth
) -> None:
    asset = "post_metrics_daily"
    if was_fetched:
        assert project.fetch(asset).success
    before = files(project.root) if was_fetched else {}

    def inconsistent(_request: Request, document: Any) -> Any:
        if parameters(_request)["startDate"] == [str(DAYS[1])]:
            document["pagination"]["totalItems"] += 1
        return document

    service.edited = inconsistent
    result = project.fetch(asset)
    _, metadata = failure(result)
    assert metadata["failed_partitions"].keys() == {f"{DAYS[1]} {instance_id}" for instance_id in INSTANCE_IDS}
    assert project.statuses(asset) == {DAYS[0]: MATERIALIZED, DAYS[1]: FAILED, DAYS[2]: MATERIALIZED}
    assert project.materializations(result).keys() == {str(DAYS[0]), str(DAYS[2])}
    if was_fetched:
        assert files(project.root) == before
    else:
        assert_true(project, asset, truth, {pair for pair in PAIRS if pair[0] != DAYS[1]})


def test_a_day_with_an_older_file_of_the_refused_instance_lacks_nothing(project: Project, service: Service) -> None:
    first = project.fetch("posts_published")
    before = files(project.root)
    service.instead = without(BROKEN)
    result = project.fetch("posts_published")
    assert failure(result)[1]["failed_partitions"].keys() == {f"{day} {BROKEN}" for day in DAYS}
    assert files(project.root) == before
    assert project.data_versions(result) == project.data_versions(first)
    for found in project.metadata(result).values():
        assert found["failed_instances"].keys() == {BROKEN}
        assert "missing_instances" not in found
    assert project.evaluations(result)["posts_published", EVERY_INSTANCE].passed


@both_assets
def test_the_data_version_of_a_day_is_that_of_its_content(asset: str, project: Project, service: Service) -> None:
    first = project.fetch(asset)
    before = files(project.root)
    again = project.fetch(asset)
    assert files(project.root) == before
    assert project.data_versions(again) == project.data_versions(first)
    assert all(found["files_changed"] == 0 for found in project.metadata(again).values())

    # Whether its instances came in one run or in two.
    shutil.rmtree(project.root)
    project.fetch(asset, instances=list(INSTANCE_IDS[:3]))
    half = project.fetch(asset, instances=[INSTANCE_IDS[3]])
    assert project.data_versions(half) == project.data_versions(first)


def test_one_restated_post_changes_the_version_of_its_day_alone_and_is_told(project: Project, service: Service) -> None:
    before = project.data_versions(project.fetch("posts_published"))
    service.edited = restated(FIRST_DAY, INSTANCE_IDS[0])
    result = project.fetch("posts_published")
    after = project.data_versions(result)
    assert {day for day in after if after[day] != before[day]} == {str(FIRST_DAY)}
    told = {
        day: {name.removeprefix("change/"): value for name, value in found.items() if name.startswith("change/")}
        for day, found in project.metadata(result).items()
    }
    assert told == {
        str(FIRST_DAY): {"rows_added": 0, "rows_removed": 0, "rows_restated": 1, "engagements": 1},
        **{str(day): {} for day in DAYS[1:]},
    }


@both_assets
def test_only_missing_fetches_just_the_pairs_that_have_no_file(
    asset: str, project: Project, service: Service, truth: Truth
) -> None:
    present = {(day, instance_id) for day in DAYS[:2] for instance_id in INSTANCE_IDS[:2]}
    assert project.fetch(asset, days=DAYS[:2], instances=list(INSTANCE_IDS[:2])).success
    service.requests.clear()
    result = project.fetch(asset, only_missing=True)
    assert requested_pairs(service) == Counter(PAIRS - present)
    assert_true(project, asset, truth)

    # A day is described whole, whatever was fetched of it: also in a new Dagster home, where nothing is missing.
    with dg.DagsterInstance.ephemeral() as instance:
        elsewhere = Project(project.defs, instance, project.root)
        service.requests.clear()
        nothing = elsewhere.fetch(asset, only_missing=True)
        assert nothing.success
        assert (service.data_requests, service.asked(INSTANCES_PATH)) == (0, 1)
        assert elsewhere.statuses(asset) == dict.fromkeys(DAYS, MATERIALIZED)
        assert elsewhere.data_versions(nothing) == project.data_versions(result)
        for found, changed in ((project.metadata(result), 2), (elsewhere.metadata(nothing), 0)):
            for day in DAYS:
                assert found[str(day)]["dagster/partition_row_count"] == rows_of(truth, asset, day)
                assert found[str(day)]["instances"] == 4
            assert found[str(DAYS[0])]["files_changed"] == changed


def test_instances_of_the_settings_narrow_a_run_without_a_listing(
    project: Project, service: Service, truth: Truth
) -> None:
    resource = {"instance_ids": f"{INSTANCE_IDS[1]}, {INSTANCE_IDS[0]},{INSTANCE_IDS[1]}"}
    result = project.run("posts_published", tags=range_tags(DAYS[0], DAYS[-1]), resource=resource)
    assert result.success
    assert service.asked(INSTANCES_PATH) == 0
    assert_true(project, "posts_published", truth, {pair for pair in PAIRS if pair[1] in INSTANCE_IDS[:2]})
    assert requested_pairs(service).most_common(1)[0][1] == 1
    assert {found["instances"] for found in project.metadata(result).values()} == {2}


def test_a_listing_with_an_instance_twice_is_refused(project: Project, service: Service) -> None:
    pagination = {"page": 1, "pageSize": 100, "totalItems": 2, "totalPages": 1}
    twice = JSONResponse({"data": {"instanceIds": ["007", "007"]}, "pagination": pagination})
    service.instead = lambda request: twice if request.url.path == INSTANCES_PATH else None
    description, _ = failure(project.fetch("posts_published", days=DAYS[:1]))
    assert "1 of 2 rows came twice" in description


def test_an_id_that_can_be_no_folder_fails_alone(project: Project, truth: Truth) -> None:
    too_long = "x" * 300
    result = project.fetch("posts_published", days=DAYS[:1], instances=[too_long, "007", "007"])
    _, metadata = failure(result)
    assert metadata["failed_partitions"].keys() == {f"{FIRST_DAY} {too_long}"}
    assert "a directory's name has room for" in metadata["failed_partitions"][f"{FIRST_DAY} {too_long}"]
    assert_true(project, "posts_published", truth, {(FIRST_DAY, "007")})


@pytest.mark.parametrize(
    ("instead", "secret", "said"),
    [
        (listed(), "sandbox-secret", "The credentials reach no instance: have instances added to their scope."),
        (lambda request: problem(404) if request.url.path == INSTANCES_PATH else None, "sandbox-secret", ".*404.*"),
        (lambda request: None, "no-such-secret", ".*LATER_CLIENT_SECRET.*"),
    ],
    ids=["no instance within reach", "no listing", "rejected credentials"],
)
def test_a_fetch_that_cannot_start_is_one_clear_line(
    instead: Callable[[Request], Response | None],
    secret: str,
    said: str,
    project: Project,
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LATER_CLIENT_SECRET", secret)
    service.instead = instead
    result = project.fetch("posts_published")
    description, metadata = failure(result)
    assert re.fullmatch(f"The fetch stopped: {said}", description)
    assert metadata == {}
    (event,) = [event for event in result.all_events if event.is_step_failure]
    error = event.step_failure_data.error
    assert error is not None
    # No trace of what led to it, in which a secret could be.
    assert (error.cause, error.context) == (None, None)
    shown = "".join(dg.serialize_value(entry) for entry in project.instance.all_logs(result.run_id))
    assert secret not in shown
    assert project.materializations(result) == {}
    assert service.data_requests == 0
    assert not project.root.exists()


def test_an_answer_that_shrinks_fails_its_files_until_the_run_config_accepts_it(
    project: Project, service: Service, truth: Truth, small_world: World
) -> None:
    asset, instance_id = "post_metrics_daily", INSTANCE_IDS[0]
    project.fetch(asset, days=DAYS[:1], instances=[instance_id])
    before = files(project.root)
    count = len(truth.partition("performance_date", FIRST_DAY, instance_id))
    assert count >= 20
    service.app = create_app(replace(small_world, posts_per_day=0), options=UNHURRIED)
    description, metadata = failure(project.fetch(asset, days=DAYS[:1], instances=[instance_id]))
    reason = metadata["failed_partitions"][f"{FIRST_DAY} {instance_id}"]
    assert reason.startswith(f"{count} posts lie in the lake, and the answer has 0: nothing was replaced.")
    assert reason in description
    assert project.statuses(asset) == {FIRST_DAY: FAILED}
    assert files(project.root) == before

    accepted = project.fetch(asset, days=DAYS[:1], instances=[instance_id], accept_shrinking=True)
    assert accepted.success
    (found,) = project.metadata(accepted).values()
    assert (found["dagster/partition_row_count"], found["change/rows_removed"]) == (0, count)
    assert stored_rows(project.root, asset, FIRST_DAY, instance_id) == []


def test_unknown_fields_and_bad_rows_are_told_by_the_run(project: Project, service: Service) -> None:
    def edited(request: Request, document: Any) -> Any:
        for row in document["data"]:
            row["shares"] = 1
            row["creatorProfile"]["verified"] = True
        document["data"][0]["contentType"] = "billboard"
        if is_first_page(request):
            document["data"][1]["impressions"] = -1
        return document

    service.edited = edited
    result = project.fetch("posts_published")
    assert result.success
    unknown = project.evaluations(result)["posts_published", "no_unknown_fields"]
    assert (unknown.passed, unknown.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert (unknown.description or "").startswith("contentType=billboard, creatorProfile.verified, shares came, in 20")
    rows, pages = unknown.metadata["rows"].value, service.data_requests
    assert unknown.metadata["unknown"].value == {
        "contentType=billboard": pages,
        "creatorProfile.verified": rows,
        "shares": rows,
    }
    quarantine = project.evaluations(result)["posts_published", "quarantine_is_empty"]
    assert (quarantine.passed, quarantine.metadata["rows"].value) == (False, 1)
    assert [found["bad_rows"] for found in project.metadata(result).values() if "bad_rows" in found] == [1]


@both_revisions
def test_a_change_of_the_api_revision_is_one_warning(
    project: Project, service: Service, truth: Truth, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LATER_SECOND_LOOK_PERCENT", "0")
    other = {"paged": "cursor", "cursor": "paged"}[str(service.revision)]
    told = []
    for _ in range(2):
        result = project.fetch("posts_published")
        assert result.success
        warnings = [entry for entry in project.instance.all_logs(result.run_id) if entry.level == 30]
        told.append([entry.user_message for entry in warnings])
        # What the next run remembers is what the service spoke before.
        (kept,) = (tmp_path / "cache" / "later-reporting").glob("revision-*")
        assert kept.read_text() == str(service.revision)
        kept.write_text(other)
    assert told == [[], [f"The API has changed: {RevisionChanged(other, str(service.revision))}"]]
    assert_true(project, "posts_published", truth)


def test_who_listens_sees_a_run_come_to_its_end(project: Project, truth: Truth) -> None:
    seen: list[Progress] = []
    token = LISTENER.set(lambda progress: seen.append(replace(progress)))
    try:
        project.fetch("posts_published", instances=list(INSTANCE_IDS[:2]))
    finally:
        LISTENER.reset(token)
    assert (seen[0].landed, seen[0].partitions) == (0, 6)
    assert (seen[-1].landed, seen[-1].failed) == (6, 0)
    assert seen[-1].rows == sum(rows_of(truth, "posts_published", day, INSTANCE_IDS[:2]) for day in DAYS)
    assert [each.landed for each in seen] == sorted(each.landed for each in seen)
