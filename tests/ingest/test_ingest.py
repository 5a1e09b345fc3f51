"""The lake matches the API after `ingest`, and failures affect only their own partitions. All tests use real HTTP."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from math import ceil
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from later_reporting_dagster.client import (
    AccessToken,
    CredentialsRejected,
    InconsistentPages,
    QueryRejected,
    RetriesExhausted,
    TooManyRows,
)
from later_reporting_dagster.contract import CURSOR, PAGED, ApiVersion
from later_reporting_dagster.ingest.ingest import PAGED_WORKERS
from later_reporting_dagster.lake import Lake, Partition
from later_reporting_dagster.lake.tables import RawTable
from later_reporting_dagster.server.sandbox import SandboxOptions, World, create_app
from tests.conftest import (
    DAYS,
    FIRST_DAY,
    INSTANCE_IDS,
    NO_RATE_LIMIT,
    Service,
    Truth,
    both_api_versions,
    files,
    parameters,
    partition_file,
    problem,
)
from tests.ingest.conftest import (
    DAILY,
    ONE_QUERY_SECONDS,
    PARTITIONS,
    PUBLISHED,
    IngestResults,
    assert_lake_matches,
    client_of,
    each_raw_table,
    recorded_waits,
    run_ingest,
)

BROKEN = INSTANCE_IDS[2]


@both_api_versions
@each_raw_table
def test_ingest_writes_what_the_api_returns_with_the_fewest_requests(
    table: RawTable, service: Service, truth: Truth, tmp_path: Path
) -> None:
    result = run_ingest(PARTITIONS, table=table, service=service, root=tmp_path)
    posts = [len(truth.day(table.date_basis.value, day)) for day in DAYS]
    assert sum(posts) > 200
    # By publication, one query has all days; by performance, each day takes one.
    pages = ceil(sum(posts) / 100) if table is PUBLISHED else sum(ceil(each / 100) for each in posts)
    assert service.data_requests == pages
    assert len(service.requests) == pages + 1  # for the token
    assert result.written.keys() == set(PARTITIONS)
    assert_lake_matches(tmp_path, table, PARTITIONS, truth)
    for partition, written in result.written.items():
        rows = truth.partition(table.date_basis.value, partition.day, partition.instance_id or "")
        assert written.rows.to_pylist() == rows
        assert (written.file.rows, written.file.changed, written.bad_rows) == (len(rows), True, 0)


@pytest.mark.parametrize(("before", "now"), [(PAGED, CURSOR), (CURSOR, PAGED)], ids=str)
def test_an_api_version_that_changes_fails_the_rest_of_the_run_and_the_next_run_fetches_it(
    before: ApiVersion, now: ApiVersion, service: Service, small_world: World, truth: Truth, tmp_path: Path
) -> None:
    def change_version(_request: Request) -> None:
        if service.data_requests == 6:
            service.app = create_app(small_world, options=options_of(now))

    service.app, service.api_version = create_app(small_world, options=options_of(before)), None  # detected
    service.override = change_version
    failed = run_ingest(PARTITIONS, table=DAILY, service=service, root=tmp_path).errors()
    assert set(failed.values()) == {QueryRejected}  # the parameters of the other version are invalid
    assert_lake_matches(tmp_path, DAILY, [each for each in PARTITIONS if each not in failed], truth)
    assert not run_ingest([*failed], table=DAILY, service=service, root=tmp_path).failed
    assert_lake_matches(tmp_path, DAILY, PARTITIONS, truth)


def test_file_metadata_records_the_query_and_the_time_of_the_fetch(service: Service, tmp_path: Path) -> None:
    now = datetime(2024, 3, 11, 7, 30, 15, 250_000, tzinfo=UTC)
    partition = Partition(FIRST_DAY, INSTANCE_IDS[1])
    client = client_of(service, clock=now.timestamp)
    run_ingest([partition], table=PUBLISHED, service=service, root=tmp_path, client=client)
    metadata = Lake(str(tmp_path)).read_metadata("posts_published", partition)
    assert metadata is not None
    assert metadata.key_values["fetched_at"] == "2024-03-11T07:30:15.250+00:00"
    (query,) = json.loads(metadata.key_values["queries"])
    assert "startDate=2024-03-01&endDate=2024-03-01&instanceIds=007&dateBasis=post_date" in query


# Forbidden and failing instances


def options_of(version: ApiVersion, **changes: Any) -> SandboxOptions:
    return replace(NO_RATE_LIMIT, api_version=version, **changes)


ALLOWED = tuple(instance_id for instance_id in INSTANCE_IDS if instance_id != BROKEN)


def workers(service: Service) -> int:
    """Return how many queries are in flight at once: by cursor, as many as requests."""
    return client_of(service).concurrency if service.api_version is CURSOR else PAGED_WORKERS


def test_a_forbidden_instance_costs_two_requests_if_the_listing_shows_it(
    service: Service, truth: Truth, small_world: World, tmp_path: Path
) -> None:
    service.app = create_app(small_world, options=options_of(PAGED, instance_scope=ALLOWED))
    result = run_ingest(PARTITIONS, table=PUBLISHED, service=service, root=tmp_path)
    assert {failed.reason for failed in result.failed.values()} == {
        f"instance {BROKEN!r} is not accessible with these credentials: have it added to their scope, or list the"
        " instances to fetch in LATER_INSTANCE_IDS"
    }
    assert_lake_matches(tmp_path, PUBLISHED, [each for each in PARTITIONS if each.instance_id != BROKEN], truth)
    allowed = [row for day in DAYS for row in truth.day("post_date", day) if row["instanceId"] != BROKEN]
    assert service.data_requests == 1 + ceil(len(allowed) / 100)
    assert service.request_count("/v2/instances") == 1


def test_a_forbidden_instance_is_found_by_halving_if_the_listing_does_not_show_it(
    service: Service, tmp_path: Path
) -> None:
    names = [f"instance_{number}" for number in range(16)]

    def forbid(request: Request) -> Response | None:
        if request.url.path == "/v2/instances":
            return problem(404)
        if names[5] in parameters(request).get("instanceIds", []):
            return problem(403)
        pagination = {"page": 1, "pageSize": 100, "totalItems": 0, "totalPages": 1}
        return JSONResponse({"data": [], "pagination": pagination}) if "startDate" in parameters(request) else None

    service.override = forbid
    partitions = [Partition(FIRST_DAY, name) for name in names]
    result = run_ingest(partitions, table=DAILY, service=service, root=tmp_path)
    assert result.errors() == {partitions[5]: QueryRejected}
    assert service.data_requests == 1 + 2 * 4


@both_api_versions
@each_raw_table
@pytest.mark.parametrize("failing_days", [DAYS[1:2], DAYS[1::2], DAYS], ids=["one", "every second", "all"])
def test_failing_days_of_an_instance_leave_the_others_and_cost_at_most_twice_the_time_of_one_query(
    failing_days: Sequence[date],
    table: RawTable,
    service: Service,
    truth: Truth,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # One query at a time, so that the time of the run is the sum of the waits for retries.
    monkeypatch.setattr(sys.modules["later_reporting_dagster.ingest.ingest"], "PAGED_WORKERS", 1)

    def fail(request: Request) -> Response | None:
        query = parameters(request)
        if BROKEN not in query.get("instanceIds", []):
            return None
        if not any(query["startDate"][0] <= str(day) <= query["endDate"][0] for day in failing_days):
            return None
        return problem(500)

    service.override = fail
    waits, options = recorded_waits()
    client = client_of(service, concurrency=1, **options)
    result = run_ingest(PARTITIONS, table=table, service=service, root=tmp_path, client=client)
    assert ONE_QUERY_SECONDS < sum(waits) <= 2 * ONE_QUERY_SECONDS
    assert result.errors() == {Partition(day, BROKEN): RetriesExhausted for day in failing_days}
    assert_lake_matches(tmp_path, table, list(result.written), truth)


ERRORS = {403: QueryRejected, 404: QueryRejected, 500: RetriesExhausted, 503: RetriesExhausted}


@both_api_versions
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    partitions=st.sets(st.sampled_from(PARTITIONS), min_size=1),
    broken=st.dictionaries(st.sampled_from(INSTANCE_IDS), st.sampled_from([*ERRORS]), max_size=3),
    table=st.sampled_from([PUBLISHED, DAILY]),
)
def test_failing_instances_do_not_affect_the_other_partitions(
    partitions: set[Partition],
    broken: dict[str, int],
    table: RawTable,
    service: Service,
    truth: Truth,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    def fail(request: Request) -> Response | None:
        statuses = [broken[name] for name in parameters(request).get("instanceIds", []) if name in broken]
        return problem(statuses[0]) if statuses else None

    service.override = fail
    root = tmp_path_factory.mktemp("lake")
    result = run_ingest(partitions, table=table, service=service, root=root)
    assert result.errors() == {
        each: ERRORS[broken[name]] for each in partitions if (name := each.instance_id) in broken
    }
    assert_lake_matches(root, table, [each for each in partitions if each.instance_id not in broken], truth)


# Nothing can be fetched


@both_api_versions
def test_rejected_credentials_fail_everything_for_a_reason_that_names_no_query(
    service: Service, tmp_path: Path
) -> None:
    client = client_of(service, credentials=AccessToken("an-access-token"))
    result = run_ingest(PARTITIONS, table=DAILY, service=service, root=tmp_path, client=client)
    assert result.errors() == dict.fromkeys(PARTITIONS, CredentialsRejected)
    assert len(service.requests) <= workers(service)
    assert files(tmp_path) == {}
    (reason,) = {failed.reason for failed in result.failed.values()}
    assert reason.startswith("the access token was rejected or has expired. Set a new one")


@both_api_versions
@pytest.mark.parametrize(("status", "error"), [(400, QueryRejected), (503, RetriesExhausted)])
def test_failure_of_every_query_fails_all_partitions_after_a_few_requests(
    service: Service, status: int, error: type[Exception], tmp_path: Path
) -> None:
    service.override = lambda request: problem(status) if request.url.path == "/v2/posts/performance" else None
    partitions = [
        Partition(FIRST_DAY + timedelta(days=day), f"instance_{number}") for day in range(20) for number in range(12)
    ]
    result = run_ingest(partitions, table=DAILY, service=service, root=tmp_path)
    assert result.errors() == dict.fromkeys(partitions, error)
    # Each query in flight is sent whole, then in parts down to single instances: 23 queries for each of 20 days, and
    # as many again for retries, if nothing stopped them.
    assert service.data_requests < 200


# Too many posts for one query


@pytest.fixture
def max_two_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit queries to two pages, so that 200 posts are too many for a query: no page could show that none follow."""
    for module in ("client.pagination", "server.routes"):
        monkeypatch.setattr(sys.modules[f"later_reporting_dagster.{module}"], "MAX_PAGE_NUMBER", 2)


@pytest.mark.usefixtures("max_two_pages")
def test_too_many_posts_are_split_by_days(service: Service, truth: Truth, tmp_path: Path) -> None:
    result = run_ingest(PARTITIONS, table=PUBLISHED, service=service, root=tmp_path)
    assert not result.failed
    assert_lake_matches(tmp_path, PUBLISHED, PARTITIONS, truth)
    queries = [parameters(request) for request in service.requests if request.url.path == "/v2/posts/performance"]
    assert {len(query["instanceIds"]) for query in queries} == {len(INSTANCE_IDS)}
    assert (
        len({(query["startDate"][0], query["endDate"][0]) for query in queries}) == 3
    )  # the whole query and its two parts


CROWDED = Partition(FIRST_DAY, "instance_000")


def ingest_crowded(
    service: Service, root: Path, *, table: RawTable = DAILY, **options: Any
) -> tuple[IngestResults, World]:
    """Ingest a day of about 900 posts of one instance, a twentieth of an unlisted content type."""
    world = World(first_day=FIRST_DAY, last_day=FIRST_DAY, instances=1, posts_per_day=900)
    service.app = create_app(world, options=options_of(service.api_version))
    return run_ingest([CROWDED], table=table, service=service, root=root, **options), world


def assert_crowded_fails(service: Service, root: Path, reason: str) -> None:
    result, _ = ingest_crowded(service, root)
    assert result.errors() == {CROWDED: InconsistentPages}
    assert reason in str(result.failed[CROWDED].error)
    assert files(root) == {}


@pytest.mark.usefixtures("max_two_pages")
@pytest.mark.parametrize(("table", "padding_days"), [(DAILY, 0), (PUBLISHED, 1)])
def test_too_many_posts_of_a_partition_are_split_by_platform_and_content_type(
    table: RawTable, padding_days: int, service: Service, tmp_path: Path
) -> None:
    result, world = ingest_crowded(service, tmp_path, table=table, padding_days=padding_days)
    written = result.written[CROWDED]
    assert written.file.rows == len(world.posts) > 400
    found = {(row["campaign_id"], row["post_id"]) for row in written.rows.to_pylist()}
    assert found == set(zip(world.posts.campaign_id.tolist(), world.posts.post_id.tolist(), strict=True))
    assert any("platform=" in request.url.query for request in service.requests)
    assert any("contentType=" in request.url.query for request in service.requests)


@pytest.mark.usefixtures("max_two_pages")
def test_posts_that_match_no_content_filter_fail_the_partition(service: Service, tmp_path: Path) -> None:
    def add_unlisted_posts(request: Request, document: Any) -> Any:
        requested = parameters(request)
        if "platform" not in requested and "contentType" not in requested:
            document["pagination"]["totalItems"] += 7
            document["pagination"]["totalPages"] = ceil(document["pagination"]["totalItems"] / 100)
        return document

    service.transform = add_unlisted_posts
    assert_crowded_fails(service, tmp_path, "a content type that cannot be requested")


@pytest.mark.usefixtures("max_two_pages")
def test_a_partition_with_too_many_posts_of_one_content_type_fails_alone(service: Service, tmp_path: Path) -> None:
    world = World(first_day=FIRST_DAY, last_day=FIRST_DAY + timedelta(days=1), instances=1, posts_per_day=900)
    tomorrow = FIRST_DAY + timedelta(days=1)
    world.posts.content_type[:] = 0
    mask = world.posts.day == tomorrow.toordinal()
    moved = np.flatnonzero(mask)[150:]
    world.posts.day[moved] = date(2020, 1, 1).toordinal()  # 150 posts remain on the second day
    service.app = create_app(world, options=NO_RATE_LIMIT)
    partitions = [Partition(FIRST_DAY, "instance_000"), Partition(tomorrow, "instance_000")]
    result = run_ingest(partitions, table=PUBLISHED, service=service, root=tmp_path)
    assert result.errors() == {partitions[0]: TooManyRows}
    assert result.written[partitions[1]].file.rows == 150


@pytest.mark.parametrize("service", [CURSOR], indirect=True, ids=str)
def test_a_partition_that_exceeds_the_size_limit_without_totals_is_split_by_content(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["later_reporting_dagster.client.pagination"], "MAX_BYTES", 4 * 2**16)
    result, world = ingest_crowded(service, tmp_path)
    assert result.errors() == {}
    assert result.written[CROWDED].file.rows == len(world.posts) > 400
    assert any("platform=" in request.url.query for request in service.requests)


@pytest.mark.parametrize("service", [CURSOR], indirect=True, ids=str)
def test_a_partition_is_not_split_by_content_if_a_post_without_totals_would_be_missed(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def add_unlisted_post(request: Request, document: Any) -> Any:
        requested = parameters(request)
        if "data" in document and "platform" not in requested and "contentType" not in requested:
            document["data"][0]["contentType"] = "unlisted_post"
        return document

    monkeypatch.setattr(sys.modules["later_reporting_dagster.client.pagination"], "MAX_PAGES", 4)
    service.transform = add_unlisted_post
    assert_crowded_fails(service, tmp_path, "unlisted_post")


@pytest.mark.usefixtures("max_two_pages")
def test_a_post_in_the_parts_of_several_platforms_fails_the_partition(service: Service, tmp_path: Path) -> None:
    """The total would still match: the post hides another one, which is lost."""
    repeated: list[dict[str, Any]] = []

    def repeat_a_post(request: Request, document: Any) -> Any:
        requested = parameters(request)
        is_first = requested.get("pageNumber") == ["1"] and requested.get("sortDirection") == ["ASC"]
        if "platform" in requested and "contentType" not in requested and is_first:
            repeated.append(repeated[0] if repeated else document["data"][0] | {"contentType": "unlisted_post"})
            document["data"][0] = repeated[0]
        return document

    service.transform = repeat_a_post
    assert_crowded_fails(service, tmp_path, "were returned for several platforms")
    assert len(repeated) > 1


# Inconsistent pages


@each_raw_table
def test_inconsistent_pages_fail_only_their_partition(
    table: RawTable, service: Service, truth: Truth, tmp_path: Path
) -> None:
    day, instance_id = DAYS[2], INSTANCE_IDS[1]

    def remove_last_row(request: Request, document: Any) -> Any:
        requested = parameters(request)
        if requested["startDate"][0] <= str(day) <= requested["endDate"][0] and instance_id in requested["instanceIds"]:
            document["data"] = document["data"][:-1]
        return document

    service.transform = remove_last_row
    result = run_ingest(PARTITIONS, table=table, service=service, root=tmp_path)
    assert result.errors() == {Partition(day, instance_id): InconsistentPages}
    assert_lake_matches(tmp_path, table, list(result.written), truth)


# Instance ids that cannot be part of a path


def test_an_invalid_instance_id_fails_alone_and_is_not_requested(
    service: Service, truth: Truth, tmp_path: Path
) -> None:
    partitions = [Partition(day, instance_id) for day in DAYS[:2] for instance_id in ("x" * 300, "", "\udcff")]
    result = run_ingest([*partitions, *PARTITIONS], table=PUBLISHED, service=service, root=tmp_path)
    assert result.errors() == dict.fromkeys(partitions, ValueError)
    assert_lake_matches(tmp_path, PUBLISHED, PARTITIONS, truth)
    requested = {name for request in service.requests for name in parameters(request).get("instanceIds", [])}
    assert requested == set(INSTANCE_IDS)


# Scattered and long ranges


@both_api_versions
def test_scattered_days_of_few_posts_share_a_query_and_leave_other_files_unchanged(
    service: Service, truth: Truth, tmp_path: Path
) -> None:
    run_ingest(PARTITIONS, table=PUBLISHED, service=service, root=tmp_path)
    before = files(tmp_path)
    scattered = [Partition(day, INSTANCE_IDS[0]) for day in (DAYS[0], DAYS[2], DAYS[4])]
    service.requests.clear()
    result = run_ingest(scattered, table=PUBLISHED, service=service, root=tmp_path)
    assert set(result.written) == set(scattered)
    assert not result.failed
    assert service.data_requests == 1
    assert files(tmp_path) == before
    assert_lake_matches(tmp_path, PUBLISHED, PARTITIONS, truth)


@both_api_versions
def test_missing_days_that_are_far_apart_are_planned_by_a_sample_of_the_files_between(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["later_reporting_dagster.ingest.ingest"], "SAMPLED_FILES", 5)
    run_ingest(PARTITIONS, table=PUBLISHED, service=service, root=tmp_path)
    missing = [each for each in PARTITIONS if each.day in (DAYS[0], DAYS[-1])]
    for partition in missing:
        partition_file(tmp_path, PUBLISHED.name, partition.day, partition.instance_id or "").unlink()
    between = {path for path in files(tmp_path) if path.endswith(".parquet")}
    assert len(between) == 12
    lake, read_paths = Lake(str(tmp_path)), list[str]()
    read = lake.storage.read

    def recording_read(path: str) -> bytes | None:
        read_paths.append(path)
        return read(path)

    monkeypatch.setattr(lake.storage, "read", recording_read)
    assert not run_ingest(missing, table=PUBLISHED, service=service, root=lake).failed
    assert len(between.intersection(read_paths)) == 5


def test_a_long_range_is_fetched_in_parts_for_a_few_more_pages(
    service: Service, truth: Truth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    total = sum(len(truth.day("post_date", day)) for day in DAYS)
    monkeypatch.setattr(sys.modules["later_reporting_dagster.ingest.ingest"], "TARGET_POSTS_PER_QUERY", ceil(total / 3))
    result = run_ingest(PARTITIONS, table=PUBLISHED, service=service, root=tmp_path)
    assert not result.failed
    assert_lake_matches(tmp_path, PUBLISHED, PARTITIONS, truth)
    data = (parameters(request) for request in service.requests if request.url.path == "/v2/posts/performance")
    assert len({(*requested["startDate"], *requested["endDate"]) for requested in data}) == 1 + 3
    assert service.data_requests <= ceil(total / 100) + 1 + 3


@pytest.mark.parametrize("service", [CURSOR], indirect=True, ids=str)
def test_days_are_fetched_by_cursor_in_queries_of_some_pages(
    service: Service, truth: Truth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages_each = sys.modules["later_reporting_dagster.ingest.query_plan"]
    monkeypatch.setattr(pages_each, "PAGES_PER_CURSOR_QUERY", 4)
    posts = [len(truth.day("post_date", day)) for day in DAYS]

    def ranges() -> set[tuple[str, ...]]:
        data = (parameters(each) for each in service.requests if each.url.path == "/v2/posts/performance")
        return {(*requested["startDate"], *requested["endDate"]) for requested in data}

    assert not run_ingest(PARTITIONS, table=PUBLISHED, service=service, root=tmp_path).failed
    assert_lake_matches(tmp_path, PUBLISHED, PARTITIONS, truth)
    # As long as nothing is known, a query covers a week.
    assert ranges() == {(str(DAYS[0]), str(DAYS[-1]))}
    service.requests.clear()
    assert not run_ingest(PARTITIONS, table=PUBLISHED, service=service, root=tmp_path).failed
    days_each = max(1, int(400 / mean(posts)))
    assert (str(DAYS[0]), str(DAYS[min(days_each, len(DAYS)) - 1])) in ranges()
