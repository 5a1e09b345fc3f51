"""The raw assets, run for real: what landed is told partition by partition, what failed fails alone."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import quote

import dagster as dg
import pytest
from dagster import AssetPartitionStatus
from starlette.requests import Request
from starlette.responses import Response

from later_reporting_dagster.defs.partitions import box_tags
from later_reporting_dagster.lake import Partition
from later_reporting_dagster.sandbox import World, create_app
from tests.conftest import (
    FIRST_DAY,
    INSTANCE_IDS,
    QUIET_CELL,
    UNHURRIED,
    Service,
    Truth,
    files,
    parameters,
    partition_file,
    problem,
    stored_rows,
)
from tests.defs.conftest import (
    DAYS,
    KEYS,
    QUIETLY,
    RAW_ASSETS,
    Project,
    asset_key,
    failure,
    values,
)

BASIS = {"post_metrics_daily": "performance_date", "posts_published": "post_date"}
CELLS = {(day, instance_id) for day in DAYS for instance_id in INSTANCE_IDS}
BROKEN, BROKEN_KEY = INSTANCE_IDS[2], KEYS[2]

both_assets = pytest.mark.parametrize("asset", RAW_ASSETS)


def without(instance_id: str, status: int) -> Callable[[Request], Response | None]:
    """Answers of a service that refuses whatever concerns an instance."""

    def instead(request: Request) -> Response | None:
        return problem(status) if instance_id in parameters(request).get("instanceIds", []) else None

    return instead


def restated(day: date, instance_id: str) -> Callable[[Request, Any], Any]:
    """Answers of a service that counts one engagement more for each post of a day and an instance."""

    def edited(_request: Request, document: Any) -> Any:
        for row in document["data"]:
            if (row["postDate"][:10], row["instanceId"]) == (str(day), instance_id):
                row["engagements"] = (row["engagements"] or 0) + 1
        return document

    return edited


@both_assets
def test_a_range_lands_in_one_run(asset: str, project: Project, truth: Truth) -> None:
    result = project.fetch(asset)
    assert result.success
    assert project.statuses(asset) == dict.fromkeys(CELLS, AssetPartitionStatus.MATERIALIZED)
    told_of = project.materializations(result)
    assert told_of.keys() == {f"{day}|{key}" for day in DAYS for key in KEYS}
    for day, instance_id in CELLS:
        rows = truth.partition(BASIS[asset], day, instance_id)
        assert stored_rows(project.root, asset, day, instance_id) == rows
        event = told_of[f"{day}|{quote(instance_id, safe='')}"]
        found = values(event)
        path = partition_file(project.root, asset, day, instance_id)
        assert found["rows"] == len(rows)
        assert (found["path"], found["bytes"]) == (str(path), path.stat().st_size)
        assert (found["changed"], found["bad_rows"], found["retries"]) == (True, 0, 0)
        facts = project.lake.facts(asset, Partition(day, instance_id))
        assert facts is not None
        assert event.tags["dagster/data_version"] == found["content_hash"] == facts.content_hash
        assert f"dateBasis={BASIS[asset]}" in found["query"]


def test_the_metadata_tells_what_is_not_available_and_what_the_query_cost(project: Project, truth: Truth) -> None:
    day, instance_id = FIRST_DAY, INSTANCE_IDS[0]
    result = project.fetch("posts_published")
    found = values(project.materializations(result)[f"{day}|{instance_id}"])
    rows = truth.partition("post_date", day, instance_id)
    shares = {name.removeprefix("null_share/"): share for name, share in found.items() if "null_share/" in name}
    assert len(shares) == 11
    assert shares == {name: round(sum(row[name] is None for row in rows) / len(rows), 4) for name in shares}
    assert 0 < shares["paid_impressions"] < 1
    total = sum(len(truth.day("post_date", day)) for day in DAYS)
    assert (found["pages"], found["requests"]) == (-(-total // 100), -(-total // 100))
    assert found["partitions_of_query"] == len(CELLS)
    lines = found["preview"].splitlines()
    assert lines[0].startswith("| post_id | content_type |")
    most_seen = max(rows, key=lambda row: row["impressions"] or 0)
    assert lines[2].startswith(f"| {most_seen['post_id']} |")
    assert len(lines) == 2 + 5 + 2  # header, five rows, and how many more there are
    assert f"{len(rows) - 5} more rows" in lines[-1]
    quiet = values(project.materializations(result)[f"{QUIET_CELL[0]}|{quote(QUIET_CELL[1], safe='')}"])
    assert (quiet["rows"], quiet["preview"]) == (0, "*no rows*")


@both_assets
def test_a_single_partition_lands_alone(asset: str, project: Project, truth: Truth) -> None:
    day, instance_id, key = DAYS[2], INSTANCE_IDS[3], KEYS[3]
    result = project.fetch_one(asset, day, key)
    assert result.success
    assert set(project.materializations(result)) == {f"{day}|{key}"}
    assert project.statuses(asset) == {(day, instance_id): AssetPartitionStatus.MATERIALIZED}
    assert {project.root / path for path in files(project.root)} == {
        partition_file(project.root, asset, day, instance_id)
    }
    assert stored_rows(project.root, asset, day, instance_id) == truth.partition(BASIS[asset], day, instance_id)


@both_assets
def test_an_instance_that_fails_is_red_and_the_others_are_green(
    asset: str, project_on_disk: Project, service: Service
) -> None:
    service.instead = without(BROKEN, 403)
    result = project_on_disk.fetch(asset)
    red, green = {(day, BROKEN) for day in DAYS}, {cell for cell in CELLS if cell[1] != BROKEN}
    assert project_on_disk.statuses(asset) == {
        **dict.fromkeys(red, AssetPartitionStatus.FAILED),
        **dict.fromkeys(green, AssetPartitionStatus.MATERIALIZED),
    }
    description, metadata = failure(result)
    assert description.splitlines()[0] == "3 partitions failed and stayed as before; 9 landed."
    assert metadata["failed_partitions"].keys() == {f"{day}|{BROKEN_KEY}" for day in DAYS}
    for key, reason in metadata["failed_partitions"].items():
        assert f"{key}: {reason}" in description.splitlines()
        assert "403" in reason or "not within reach" in reason
    # What did land is checked in the run that failed, and what is missing is told.
    assert project_on_disk.verdicts(result) == {
        "rows_unique_by_key": True,
        "rows_belong_to_partition": True,
        "rates_agree_with_counts": True,
        "no_unknown_fields": True,
        "quarantine_is_empty": True,
        "newest_due_day_is_present": False,
    }
    assert project_on_disk.evaluations(result)[asset, "rows_unique_by_key"].metadata["partitions"].value == 9


def test_only_what_failed_is_fetched_again(project: Project, service: Service, truth: Truth) -> None:
    service.instead = without(BROKEN, 403)
    project.fetch("posts_published")
    before = files(project.root)
    service.instead = lambda request: None
    result = project.fetch("posts_published", keys=[BROKEN_KEY])
    assert result.success
    assert set(project.materializations(result)) == {f"{day}|{BROKEN_KEY}" for day in DAYS}
    assert project.statuses("posts_published") == dict.fromkeys(CELLS, AssetPartitionStatus.MATERIALIZED)
    assert files(project.root).items() >= before.items()
    for day in DAYS:
        assert stored_rows(project.root, "posts_published", day, BROKEN) == truth.partition("post_date", day, BROKEN)


def test_a_partition_that_fails_later_keeps_its_file(project: Project, service: Service) -> None:
    project.fetch("posts_published")
    before = files(project.root)
    service.instead = without(BROKEN, 403)
    result = project.fetch("posts_published")
    assert not result.success
    assert files(project.root) == before
    statuses = project.statuses("posts_published")
    assert {cell for cell, status in statuses.items() if status is AssetPartitionStatus.FAILED} == {
        (day, BROKEN) for day in DAYS
    }


@both_assets
def test_a_rerun_changes_no_byte_and_no_data_version(asset: str, project: Project) -> None:
    first = project.fetch(asset)
    before = files(project.root)
    second = project.fetch(asset)
    assert second.success
    assert files(project.root) == before
    assert project.data_versions(second) == project.data_versions(first)
    assert not any(values(event)["changed"] for event in project.materializations(second).values())


def test_a_restatement_changes_the_version_of_its_partition_alone(project: Project, service: Service) -> None:
    first = project.fetch("posts_published")
    service.edited = restated(FIRST_DAY, INSTANCE_IDS[0])
    second = project.fetch("posts_published")
    before, after = project.data_versions(first), project.data_versions(second)
    assert {key for key in after if after[key] != before[key]} == {f"{FIRST_DAY}|{KEYS[0]}"}


def test_what_a_restatement_changed_is_metadata_of_its_partition(project: Project, service: Service) -> None:
    first = project.fetch("posts_published")
    assert not any("change/" in name for event in project.materializations(first).values() for name in event.metadata)
    service.edited = restated(FIRST_DAY, INSTANCE_IDS[0])
    second = project.fetch("posts_published")
    told_of = project.materializations(second)
    found = values(told_of.pop(f"{FIRST_DAY}|{KEYS[0]}"))
    rows = found["rows"]
    assert {name: value for name, value in found.items() if name.startswith("change/")} == {
        "change/rows_added": 0,
        "change/rows_removed": 0,
        "change/rows_restated": rows,
        "change/engagements": rows,
        "change/impressions": 0,
        "change/estimated_value_generated": 0.0,
        "change/paid_engagements": 0,
        "change/paid_impressions": 0,
    }
    assert not any("change/" in name for event in told_of.values() for name in event.metadata)


def test_an_answer_that_shrinks_fails_its_partitions_until_the_launchpad_accepts_it(
    project: Project, service: Service, truth: Truth, small_world: World
) -> None:
    asset, instance_id = "post_metrics_daily", INSTANCE_IDS[0]
    project.fetch(asset, keys=KEYS[:1])
    before = files(project.root)
    count = len(truth.partition("performance_date", FIRST_DAY, instance_id))
    assert count >= 20
    service.app = create_app(replace(small_world, posts_per_day=0), options=UNHURRIED)
    result = project.fetch(asset, days=[FIRST_DAY], keys=KEYS[:1])
    description, metadata = failure(result)
    reason = metadata["failed_partitions"][f"{FIRST_DAY}|{KEYS[0]}"]
    assert reason.startswith(f"{count} posts lie in the lake, and the answer has 0: nothing was replaced.")
    assert reason in description
    assert project.statuses(asset)[FIRST_DAY, instance_id] is AssetPartitionStatus.FAILED
    assert files(project.root) == before

    accepted = project.defs.resolve_job_def("later_posts").execute_in_process(
        instance=project.instance,
        asset_selection=[asset_key(asset)],
        partition_key=dg.MultiPartitionKey({"date": str(FIRST_DAY), "instance": KEYS[0]}),
        run_config={**QUIETLY, "resources": {"later": {"config": {"accept_shrinking": True}}}},
    )
    found = values(project.materializations(accepted)[f"{FIRST_DAY}|{KEYS[0]}"])
    assert (found["rows"], found["change/rows_removed"]) == (0, count)
    assert found["change/impressions"].endswith(" → not available")
    assert stored_rows(project.root, asset, FIRST_DAY, instance_id) == []


def test_what_the_contract_does_not_know_and_cannot_place_is_told_by_the_run(
    project: Project, service: Service
) -> None:
    def edited(request: Request, document: Any) -> Any:
        for row in document["data"]:
            row["shares"] = 1
            row["creatorProfile"]["verified"] = True
        document["data"][0]["contentType"] = "billboard"
        if parameters(request)["pageNumber"] == ["1"]:
            document["data"][1] = {"surprise": True}
        return document

    service.edited = edited
    result = project.fetch("posts_published")
    told = project.evaluations(result)
    unknown = told["posts_published", "no_unknown_fields"]
    assert (unknown.passed, unknown.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert (unknown.description or "").startswith(
        "contentType=billboard, creatorProfile.verified, shares came, in 2024"
    )
    rows, pages = unknown.metadata["rows"].value, service.data_requests
    assert unknown.metadata["unknown"].value == {
        "contentType=billboard": pages,
        "creatorProfile.verified": rows,
        "shares": rows,
    }
    quarantine = told["posts_published", "quarantine_is_empty"]
    assert (quarantine.passed, quarantine.description) == (False, "1 rows lie in quarantine")
    for event in project.materializations(result).values():
        assert values(event)["bad_rows_without_partition"] == 1


def test_an_inverted_range_fails_clearly(project: Project, service: Service) -> None:
    result = project.fetch("posts_published", days=[DAYS[-1], FIRST_DAY])
    description, _ = failure(result)
    assert f"{DAYS[-1]}|{KEYS[0]} to {FIRST_DAY}|{KEYS[-1]}" in description
    assert "its end comes before its start" in description
    assert service.requests == []


def test_a_key_that_is_no_encoding_fails_with_what_to_do(project: Project, service: Service) -> None:
    project.instance.add_dynamic_partitions("later_instance", ["typed by hand"])
    result = project.fetch_one("posts_published", FIRST_DAY, "typed by hand")
    description, _ = failure(result)
    assert "'typed by hand' is not a percent-encoded instance id" in description
    assert "later-reporting instances --sync" in description
    assert service.requests == []


def test_a_key_that_is_no_encoding_fails_alone(project: Project) -> None:
    project.instance.add_dynamic_partitions("later_instance", ["typed by hand"])
    tags = box_tags(FIRST_DAY, DAYS[-1], [*KEYS, "typed by hand"])
    job = project.defs.resolve_job_def("later_posts")
    result = job.execute_in_process(
        instance=project.instance,
        asset_selection=[asset_key("posts_published")],
        tags=tags,
        run_config=QUIETLY,
        raise_on_error=False,
    )
    _, metadata = failure(result)
    assert metadata["failed_partitions"].keys() == {f"{day}|typed by hand" for day in DAYS}
    assert len(project.lake.partitions("posts_published")) == len(CELLS)


def test_rejected_credentials_fail_the_run_with_what_to_do(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATER_CLIENT_SECRET", "no-such-secret")
    description, metadata = failure(project.fetch("posts_published"))
    assert len(metadata["failed_partitions"]) == len(CELLS)
    assert "LATER_CLIENT_SECRET" in description
    assert "no-such-secret" not in description + str(metadata)


def test_no_secret_is_in_any_event(project: Project) -> None:
    result = project.fetch("posts_published")
    events = project.instance.all_logs(result.run_id)
    assert len(events) > len(CELLS)
    told_of = "".join(dg.serialize_value(event) for event in events)
    assert "sandbox-secret" not in told_of
    assert "eyJ" not in told_of  # how each JWT begins


def test_the_assets_share_the_pool_of_the_api(project: Project) -> None:
    pools = {project.defs.resolve_assets_def(asset_key(asset)).op.pool for asset in RAW_ASSETS}
    assert pools == {"later_reporting_api"}


def test_all_days_of_the_grid_end_yesterday(project: Project) -> None:
    partitions_def = project.defs.resolve_assets_def(asset_key("posts_published")).partitions_def
    assert isinstance(partitions_def, dg.MultiPartitionsDefinition)
    days = partitions_def.get_partitions_def_for_dimension("date").get_partition_keys()
    assert days[0] == str(FIRST_DAY)
    assert days[-1] == str(datetime.now(UTC).date() - timedelta(days=1))
