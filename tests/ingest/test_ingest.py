"""What lands is what the service holds, and what goes wrong costs only what it must. All of it over real HTTP."""

import asyncio
import json
import sys
import threading
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from math import ceil
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import Response

from later_reporting_dagster.client import (
    ClientCredentials,
    CredentialsRejected,
    InstanceForbidden,
    LaterClient,
    QueryRefused,
    RateLimiter,
    Retriable,
    RetryPolicy,
    TooManyPosts,
    WalkInconsistent,
)
from later_reporting_dagster.contract import CURSOR, PAGED, BadRow, DateBasis, Revision
from later_reporting_dagster.ingest.ingest import CONCURRENT_QUERIES, ingest
from later_reporting_dagster.ingest.partition_writer import Failed, Landed, Outcome
from later_reporting_dagster.ingest.raw_tables import Source
from later_reporting_dagster.ingest.write_guard import Guard, ShrankTooMuch, TooManyBadRows
from later_reporting_dagster.lake import Lake, LakeUnavailable, Partition
from later_reporting_dagster.lake.quarantine import Quarantine
from later_reporting_dagster.sandbox import World, create_app
from tests.conftest import (
    DAYS,
    FIRST_DAY,
    INSTANCE_IDS,
    UNHURRIED,
    Service,
    Truth,
    files,
    is_first_page,
    metrics_of,
    numbered,
    parameters,
    partition_file,
    problem,
    stored_rows,
)

PUBLISHED = Source("posts_published", DateBasis.POST_DATE)
DAILY = Source("post_metrics_daily", DateBasis.PERFORMANCE_DATE)
BOX = [Partition(day, instance_id) for day in DAYS for instance_id in INSTANCE_IDS]
BROKEN = INSTANCE_IDS[2]

# How the clients of these tests are told to ask: as the service of the test speaks.
SPOKEN = [PAGED]

both_sources = pytest.mark.parametrize("source", [PUBLISHED, DAILY], ids=lambda source: source.asset)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Everything holds in either revision, but for what says which one it is about."""
    named = {mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")}
    if "service" not in named:
        metafunc.parametrize("service", [PAGED, CURSOR], indirect=True, ids=str)


@pytest.fixture(autouse=True)
def _clients_ask_as_the_service_speaks(service: Service) -> None:
    SPOKEN[0] = service.revision


@dataclass
class Ingested:
    """The outcomes of one ingest, of which each partition has exactly one."""

    landed: dict[Partition, Landed] = field(default_factory=dict)
    failed: dict[Partition, Failed] = field(default_factory=dict)

    def errors(self) -> dict[Partition, type[Exception]]:
        assert all(failed.error.__traceback__ is None for failed in self.failed.values())
        return {partition: type(failed.error) for partition, failed in self.failed.items()}


def ingested(
    partitions: Collection[Partition],
    *,
    source: Source,
    base_url: str,
    root: Path,
    client_secret: str = UNHURRIED.client_secret,
    now: datetime = datetime(2024, 3, 11, 6, tzinfo=UTC),
    guard: Guard | None = None,
    on_delivery: Callable[[Outcome], object] = lambda _outcome: None,
) -> Ingested:
    outcomes: list[Outcome] = []

    def deliver(outcome: Outcome) -> None:
        outcomes.append(outcome)
        on_delivery(outcome)

    async def no_wait(_seconds: float) -> None:
        return

    async def run() -> None:
        async with LaterClient(
            base_url=base_url,
            credentials=ClientCredentials(client_id=UNHURRIED.client_id, client_secret=client_secret),
            limiter=RateLimiter(requests=1_000_000),
            revision=SPOKEN[0],
            retry=RetryPolicy(attempts=2),
            sleep=no_wait,
        ) as client:
            await ingest(
                partitions,
                source=source,
                client=client,
                lake=Lake(str(root)),
                deliver=deliver,
                now=lambda: now,
                guard=guard or Guard(),
            )

    asyncio.run(run())
    assert Counter(outcome.partition for outcome in outcomes) == Counter(partitions)
    return Ingested(
        landed={outcome.partition: outcome for outcome in outcomes if isinstance(outcome, Landed)},
        failed={outcome.partition: outcome for outcome in outcomes if isinstance(outcome, Failed)},
    )


def assert_lake_is_true(root: Path, source: Source, partitions: Collection[Partition], truth: Truth) -> None:
    """The lake holds `partitions` of the source, each row, value, null and type as the service has it, and no more."""
    for partition in partitions:
        assert partition.instance_id is not None
        wanted = truth.partition(source.date_basis.value, partition.day, partition.instance_id)
        found = stored_rows(root, source.asset, partition.day, partition.instance_id)
        assert [list(row.items()) for row in found] == [list(row.items()) for row in wanted]
    held = {str(path.relative_to(root)) for path in root.rglob("*.parquet")}
    assert held == {
        str(partition_file(root, source.asset, each.day, each.instance_id or "").relative_to(root))
        for each in partitions
    }


@both_sources
def test_the_lake_holds_what_the_service_holds(source: Source, service: Service, truth: Truth, tmp_path: Path) -> None:
    result = ingested(BOX, source=source, base_url=service.base_url, root=tmp_path)
    assert result.landed.keys() == set(BOX)
    assert_lake_is_true(tmp_path, source, BOX, truth)
    for partition, landed in result.landed.items():
        rows = truth.partition(source.date_basis.value, partition.day, partition.instance_id or "")
        assert landed.table.to_pylist() == rows
        assert (landed.written.rows, landed.written.changed, landed.bad_rows) == (len(rows), True, 0)


@both_sources
def test_a_second_ingest_writes_nothing_again(source: Source, service: Service, tmp_path: Path) -> None:
    ingested(BOX, source=source, base_url=service.base_url, root=tmp_path)
    before = files(tmp_path)
    later = datetime(2024, 4, 1, tzinfo=UTC)
    result = ingested(BOX, source=source, base_url=service.base_url, root=tmp_path, now=later)
    assert files(tmp_path) == before
    assert not any(landed.written.changed for landed in result.landed.values())


def test_published_posts_cost_the_pages_of_one_query(service: Service, truth: Truth, tmp_path: Path) -> None:
    ingested(BOX, source=PUBLISHED, base_url=service.base_url, root=tmp_path)
    total = sum(len(truth.day("post_date", day)) for day in DAYS)
    assert total > 200
    assert service.data_requests == ceil(total / 100)
    assert service.asked("/oauth/token") == 1
    assert len(service.requests) == service.data_requests + 1


def test_metrics_of_days_cost_the_pages_of_a_query_a_day(service: Service, truth: Truth, tmp_path: Path) -> None:
    ingested(BOX, source=DAILY, base_url=service.base_url, root=tmp_path)
    pages = [ceil(len(truth.day("performance_date", day)) / 100) for day in DAYS]
    assert max(pages) > 1
    assert service.data_requests == sum(pages)
    assert len(service.requests) == sum(pages) + 1


def test_a_file_tells_its_queries_and_when_they_were_answered(service: Service, tmp_path: Path) -> None:
    now = datetime(2024, 3, 11, 7, 30, 15, 250_000, tzinfo=UTC)
    partition = Partition(FIRST_DAY, INSTANCE_IDS[1])
    ingested([partition], source=PUBLISHED, base_url=service.base_url, root=tmp_path, now=now)
    facts = Lake(str(tmp_path)).facts("posts_published", partition)
    assert facts is not None
    assert facts.facts["fetched_at"] == "2024-03-11T07:30:15.250+00:00"
    (query,) = json.loads(facts.facts["queries"])
    assert "startDate=2024-03-01&endDate=2024-03-01&instanceIds=007&dateBasis=post_date" in query


# Instances that cannot be had


WITHIN = tuple(instance_id for instance_id in INSTANCE_IDS if instance_id != BROKEN)


def reaching(instance_ids: tuple[str, ...], world: World, service: Service) -> Any:
    """The service for a client whose scope is these instances."""
    return create_app(world, options=replace(UNHURRIED, revision=service.revision, instance_scope=instance_ids))


@both_sources
@pytest.mark.parametrize("scope", ["tells", "lies", "fails"])
def test_a_forbidden_instance_costs_its_own_partitions_alone(
    source: Source, scope: str, service: Service, truth: Truth, small_world: World, tmp_path: Path
) -> None:
    def instead(request: Request) -> Response | None:
        if request.url.path == "/v2/instances" and scope == "fails":
            return problem(404)
        if request.url.path == "/v2/instances" or BROKEN not in parameters(request).get("instanceIds", []):
            return None
        return problem(403)

    service.instead = instead
    if scope == "tells":
        service.app = reaching(WITHIN, small_world, service)
    result = ingested(BOX, source=source, base_url=service.base_url, root=tmp_path)
    assert result.errors() == {Partition(day, BROKEN): InstanceForbidden for day in DAYS}
    assert all(repr(BROKEN) in str(failed.error) for failed in result.failed.values())
    assert_lake_is_true(tmp_path, source, list(result.landed), truth)


def test_an_instance_given_up_while_the_failure_of_another_is_told_fails_each_of_its_partitions(
    service: Service, small_world: World, tmp_path: Path
) -> None:
    service.app = reaching(INSTANCE_IDS[:1], small_world, service)
    one, other = INSTANCE_IDS[1:3]
    *first_days, day_of_both, last_day = DAYS
    cells = [Partition(day, other) for day in [*first_days, day_of_both]]
    cells += [Partition(day_of_both, one), Partition(last_day, one)]
    given_up = threading.Event()

    def hold_up(outcome: Outcome) -> None:
        if outcome.partition == Partition(last_day, one):
            given_up.set()
        elif outcome.partition == Partition(day_of_both, other):
            given_up.wait(10)

    result = ingested(cells, source=DAILY, base_url=service.base_url, root=tmp_path, on_delivery=hold_up)
    assert result.failed.keys() == set(cells)


def test_where_the_scope_tells_who_is_forbidden_it_costs_two_requests(
    service: Service, truth: Truth, small_world: World, tmp_path: Path
) -> None:
    service.app = reaching(WITHIN, small_world, service)
    ingested(BOX, source=PUBLISHED, base_url=service.base_url, root=tmp_path)
    reached = [row for day in DAYS for row in truth.day("post_date", day) if row["instanceId"] != BROKEN]
    assert service.data_requests == 1 + ceil(len(reached) / 100)
    assert service.asked("/v2/instances") == 1


def test_an_instance_that_always_fails_is_given_up(service: Service, tmp_path: Path) -> None:
    service.instead = lambda request: problem(500) if BROKEN in parameters(request).get("instanceIds", []) else None
    days = [FIRST_DAY + timedelta(days=offset) for offset in range(-20, 5)]
    partitions = [Partition(day, instance_id) for day in days for instance_id in (BROKEN, INSTANCE_IDS[0])]
    result = ingested(partitions, source=DAILY, base_url=service.base_url, root=tmp_path)
    assert result.failed.keys() == {Partition(day, BROKEN) for day in days}
    asked = sum(BROKEN in parameters(request).get("instanceIds", []) for request in service.requests)
    # A few days are under way at once, each of them asked twice with the others and twice alone.
    assert asked <= (CONCURRENT_QUERIES + 2) * 4


def test_an_outage_ends_the_asking_soon(service: Service, tmp_path: Path) -> None:
    service.instead = lambda request: problem(503) if request.url.path == "/v2/posts/performance" else None
    partitions = [
        Partition(FIRST_DAY + timedelta(days=day), f"instance_{number}") for day in range(20) for number in range(12)
    ]
    result = ingested(partitions, source=DAILY, base_url=service.base_url, root=tmp_path)
    assert result.errors() == dict.fromkeys(partitions, Retriable)
    # Without an end to it, each of 20 days would be asked 23 times, each time with its retries.
    assert service.data_requests < 120


def test_an_instance_that_fails_now_and_then_is_not_given_up(
    service: Service, truth: Truth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One day after the other, so that bad days and good days take turns.
    monkeypatch.setattr(sys.modules["later_reporting_dagster.ingest.ingest"], "CONCURRENT_QUERIES", 1)
    bad_days = DAYS[::2]
    service.instead = lambda request: (
        problem(500) if parameters(request).get("startDate", [""])[0] in map(str, bad_days) else None
    )
    result = ingested([Partition(day, BROKEN) for day in DAYS], source=DAILY, base_url=service.base_url, root=tmp_path)
    assert result.failed.keys() == {Partition(day, BROKEN) for day in bad_days}
    assert_lake_is_true(tmp_path, DAILY, list(result.landed), truth)


ERRORS = {403: InstanceForbidden, 404: QueryRefused, 500: Retriable, 503: Retriable}


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    wanted=st.sets(st.sampled_from(BOX), min_size=1),
    broken=st.dictionaries(st.sampled_from(INSTANCE_IDS), st.sampled_from([*ERRORS]), max_size=3),
    source=st.sampled_from([PUBLISHED, DAILY]),
)
def test_whatever_is_wanted_and_whoever_is_broken_the_rest_lands(
    wanted: set[Partition],
    broken: dict[str, int],
    source: Source,
    service: Service,
    truth: Truth,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    def instead(request: Request) -> Response | None:
        statuses = [broken[name] for name in parameters(request).get("instanceIds", []) if name in broken]
        return problem(statuses[0]) if statuses else None

    service.instead = instead
    root = tmp_path_factory.mktemp("lake")
    result = ingested(wanted, source=source, base_url=service.base_url, root=root)
    assert result.errors() == {each: ERRORS[broken[name]] for each in wanted if (name := each.instance_id) in broken}
    assert_lake_is_true(root, source, [each for each in wanted if each.instance_id not in broken], truth)


# Nothing can be had


@both_sources
def test_rejected_credentials_fail_everything_at_the_cost_of_a_few_requests(
    source: Source, service: Service, tmp_path: Path
) -> None:
    result = ingested(BOX, source=source, base_url=service.base_url, root=tmp_path, client_secret="wrong")
    assert result.errors() == dict.fromkeys(BOX, CredentialsRejected)
    assert len(service.requests) <= CONCURRENT_QUERIES
    assert files(tmp_path) == {}


@both_sources
def test_a_query_that_is_refused_fails_its_partitions_and_is_soon_not_asked_any_more(
    source: Source, service: Service, tmp_path: Path
) -> None:
    service.instead = lambda request: problem(400) if request.url.path == "/v2/posts/performance" else None
    result = ingested(BOX, source=source, base_url=service.base_url, root=tmp_path)
    assert result.errors() == dict.fromkeys(BOX, QueryRefused)
    # The whole, and its parts down to each instance alone, by each of the queries that are under way at once.
    assert service.data_requests <= CONCURRENT_QUERIES * (2 * len(INSTANCE_IDS) - 1)


# Too many posts for one query


@pytest.fixture
def two_pages_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that counts to one page, from either end, so that 201 posts are too many for a query."""
    for module in ("client.pagination", "sandbox.query_parameters"):
        monkeypatch.setattr(sys.modules[f"later_reporting_dagster.{module}"], "MAXIMUM_PAGE_NUMBER", 1)
    monkeypatch.setattr(sys.modules["later_reporting_dagster.ingest.query_plan"], "MAXIMUM_POSTS", 200)


@numbered
@pytest.mark.usefixtures("two_pages_at_most")
def test_too_many_posts_are_asked_for_by_fewer_days(service: Service, truth: Truth, tmp_path: Path) -> None:
    result = ingested(BOX, source=PUBLISHED, base_url=service.base_url, root=tmp_path)
    assert not result.failed
    assert_lake_is_true(tmp_path, PUBLISHED, BOX, truth)
    asked = [parameters(request) for request in service.requests if request.url.path == "/v2/posts/performance"]
    assert {len(query["instanceIds"]) for query in asked} == {len(INSTANCE_IDS)}
    assert len({(query["startDate"][0], query["endDate"][0]) for query in asked}) == 3  # the whole, and two parts


@numbered
@pytest.mark.usefixtures("two_pages_at_most")
def test_too_many_posts_of_a_day_are_asked_for_by_fewer_instances(
    service: Service, truth: Truth, tmp_path: Path
) -> None:
    assert len(truth.day("performance_date", FIRST_DAY)) > 200
    partitions = [Partition(FIRST_DAY, instance_id) for instance_id in INSTANCE_IDS]
    result = ingested(partitions, source=DAILY, base_url=service.base_url, root=tmp_path)
    assert not result.failed
    assert_lake_is_true(tmp_path, DAILY, partitions, truth)
    asked = [parameters(request) for request in service.requests if request.url.path == "/v2/posts/performance"]
    assert max(len(query["instanceIds"]) for query in asked[1:]) < len(INSTANCE_IDS)
    assert not any("contentType" in query for query in asked)


def crowded_app() -> tuple[Any, World]:
    """One instance with some 900 posts on the one day that there is; one in twenty is of a type that is not listed."""
    world = World(first_day=FIRST_DAY, last_day=FIRST_DAY, instances=1, posts_per_day=900)
    return create_app(world, options=UNHURRIED), world


@numbered
@pytest.mark.usefixtures("two_pages_at_most")
@both_sources
def test_too_many_posts_of_a_partition_are_asked_for_by_platform_and_content_type(
    source: Source, service: Service, tmp_path: Path
) -> None:
    service.app, world = crowded_app()
    partition = Partition(FIRST_DAY, "instance_000")
    result = ingested([partition], source=source, base_url=service.base_url, root=tmp_path)
    landed = result.landed[partition]
    assert landed.written.rows == len(world.posts) > 400
    found = {(row["campaign_id"], row["post_id"]) for row in landed.table.to_pylist()}
    assert found == set(zip(world.posts.campaign_id.tolist(), world.posts.post_id.tolist(), strict=True))
    assert any("platform=" in request.url.query for request in service.requests)
    assert any("contentType=" in request.url.query for request in service.requests)


@numbered
@pytest.mark.usefixtures("two_pages_at_most")
def test_posts_that_no_filter_reaches_are_missed_and_said(service: Service, tmp_path: Path) -> None:
    def with_others(request: Request, document: Any) -> Any:
        asked = parameters(request)
        if "platform" not in asked and "contentType" not in asked:
            document["pagination"]["totalItems"] += 7
            document["pagination"]["totalPages"] = ceil(document["pagination"]["totalItems"] / 100)
        return document

    service.app, _ = crowded_app()
    service.edited = with_others
    partition = Partition(FIRST_DAY, "instance_000")
    result = ingested([partition], source=DAILY, base_url=service.base_url, root=tmp_path)
    assert result.errors() == {partition: WalkInconsistent}
    assert "types that cannot be asked for" in str(result.failed[partition].error)
    assert files(tmp_path) == {}


@numbered
@pytest.mark.usefixtures("two_pages_at_most")
def test_a_partition_that_is_too_large_even_by_content_type_fails_alone(service: Service, tmp_path: Path) -> None:
    world = World(first_day=FIRST_DAY, last_day=FIRST_DAY + timedelta(days=1), instances=1, posts_per_day=900)
    tomorrow = FIRST_DAY + timedelta(days=1)
    world.posts.content_type[:] = 0
    mask = world.posts.day == tomorrow.toordinal()
    few = np.flatnonzero(mask)[150:]
    world.posts.day[few] = date(2020, 1, 1).toordinal()  # leaves 150 posts for the second day
    service.app = create_app(world, options=UNHURRIED)
    partitions = [Partition(FIRST_DAY, "instance_000"), Partition(tomorrow, "instance_000")]
    result = ingested(partitions, source=PUBLISHED, base_url=service.base_url, root=tmp_path)
    assert result.errors() == {partitions[0]: TooManyPosts}
    assert result.landed[partitions[1]].written.rows == 150


# Answers that do not add up


@numbered
@both_sources
def test_answers_that_never_add_up_fail_the_partition_alone(
    source: Source, service: Service, truth: Truth, tmp_path: Path
) -> None:
    day, instance_id = DAYS[2], INSTANCE_IDS[1]

    def one_row_less(request: Request, document: Any) -> Any:
        asked = parameters(request)
        if asked["startDate"][0] <= str(day) <= asked["endDate"][0] and instance_id in asked["instanceIds"]:
            document["data"] = document["data"][:-1]
        return document

    service.edited = one_row_less
    result = ingested(BOX, source=source, base_url=service.base_url, root=tmp_path)
    assert result.errors() == {Partition(day, instance_id): WalkInconsistent}
    assert_lake_is_true(tmp_path, source, list(result.landed), truth)


@numbered
def test_a_range_that_does_not_add_up_is_asked_for_in_smaller_ranges(
    service: Service, truth: Truth, tmp_path: Path
) -> None:
    def restless(request: Request, document: Any) -> Any:
        # Posts keep arriving while a long walk is under way; a short one is over before that.
        asked = parameters(request)
        if asked["startDate"] != asked["endDate"] and asked["pageNumber"] != ["1"]:
            document["pagination"]["totalItems"] += 1
        return document

    service.edited = restless
    result = ingested(BOX, source=PUBLISHED, base_url=service.base_url, root=tmp_path)
    assert not result.failed
    assert_lake_is_true(tmp_path, PUBLISHED, BOX, truth)


# Rows that cannot be true


@both_sources
def test_a_bad_row_lies_in_quarantine_until_the_service_mends_it(
    source: Source, service: Service, truth: Truth, tmp_path: Path
) -> None:
    day, instance_id = DAYS[1], INSTANCE_IDS[3]
    partition = Partition(day, instance_id)
    (bad,) = [row for row in truth.day(source.date_basis.value, day) if row["instanceId"] == instance_id][:1]

    def spoilt(request: Request, document: Any) -> Any:
        for row in document["data"]:
            if (row["instanceId"], row["campaignId"], row["postId"]) == (
                instance_id,
                bad["campaignId"],
                bad["postId"],
            ) and (source is PUBLISHED or parameters(request)["startDate"] == [str(day)]):
                metrics_of(row)["impressions"] = "many"
        return document

    service.edited = spoilt
    lake = Lake(str(tmp_path))
    spoilt_result = ingested(BOX, source=source, base_url=service.base_url, root=tmp_path)
    assert not spoilt_result.failed
    assert {each: landed.bad_rows for each, landed in spoilt_result.landed.items() if landed.bad_rows} == {partition: 1}
    (quarantined,) = lake.quarantine.rows(source.asset)
    assert quarantined.partition == partition
    assert "startDate=2024-" in quarantined.query
    assert "impressions" in quarantined.reason
    raw = json.loads(quarantined.raw)
    assert raw | raw.pop("metrics", {}) == {**bad, "impressions": "many"}
    kept = stored_rows(tmp_path, source.asset, day, instance_id)
    assert kept == [
        row
        for row in truth.partition(source.date_basis.value, day, instance_id)
        if (row["campaign_id"], row["post_id"]) != (bad["campaignId"], bad["postId"])
    ]

    service.edited = None
    ingested(BOX, source=source, base_url=service.base_url, root=tmp_path)
    assert lake.quarantine.rows(source.asset) == []
    assert_lake_is_true(tmp_path, source, BOX, truth)


def with_a_surprise(request: Request, document: Any) -> Any:
    if is_first_page(request):
        document["data"][0] = {"surprise": True}
    return document


def test_a_bad_row_that_tells_no_partition_lies_under_its_query(service: Service, tmp_path: Path) -> None:
    service.edited = with_a_surprise
    lake = Lake(str(tmp_path))
    result = ingested(BOX, source=PUBLISHED, base_url=service.base_url, root=tmp_path)
    assert not result.failed
    (quarantined,) = lake.quarantine.rows(PUBLISHED.asset)
    assert quarantined.partition is None
    assert json.loads(quarantined.raw) == {"surprise": True}
    assert "startDate=2024-03-01&endDate=2024-03-05" in quarantined.query


def test_a_bad_row_without_instance_is_of_the_only_one_that_was_asked_for(service: Service, tmp_path: Path) -> None:
    def spoilt(request: Request, document: Any) -> Any:
        del document["data"][0]["instanceId"]
        return document

    service.edited = spoilt
    partition = Partition(FIRST_DAY, INSTANCE_IDS[0])
    result = ingested([partition], source=DAILY, base_url=service.base_url, root=tmp_path)
    assert result.landed[partition].bad_rows == 1
    (quarantined,) = Lake(str(tmp_path)).quarantine.rows(DAILY.asset)
    assert quarantined.partition == partition


def test_a_field_that_the_contract_does_not_know_is_kept(service: Service, truth: Truth, tmp_path: Path) -> None:
    def richer(request: Request, document: Any) -> Any:
        for row in document["data"]:
            row["trackingLinksClicks"] = row["postId"]
        return document

    service.edited = richer
    day, instance_id = FIRST_DAY, INSTANCE_IDS[0]
    ingested([Partition(day, instance_id)], source=PUBLISHED, base_url=service.base_url, root=tmp_path)
    assert stored_rows(tmp_path, PUBLISHED.asset, day, instance_id) == [
        {**row, "extra": json.dumps({"trackingLinksClicks": row["post_id"]}, separators=(",", ":"))}
        for row in truth.partition("post_date", day, instance_id)
    ]


def days_of_files(lake: Lake, source: Source) -> list[tuple[date, date] | None]:
    return [row.days for row in lake.quarantine.rows(source.asset)]


@both_sources
def test_unassigned_rows_are_cleared_by_a_run_that_fetches_all_of_their_days(
    source: Source, service: Service, tmp_path: Path
) -> None:
    lake = Lake(str(tmp_path))
    service.edited = with_a_surprise
    ingested(BOX, source=source, base_url=service.base_url, root=tmp_path)
    days = [(DAYS[0], DAYS[-1])] if source is PUBLISHED else [(day, day) for day in DAYS]
    assert days_of_files(lake, source) == days
    ingested(BOX, source=source, base_url=service.base_url, root=tmp_path)
    assert days_of_files(lake, source) == days
    service.edited = None
    ingested(BOX, source=source, base_url=service.base_url, root=tmp_path)
    assert lake.quarantine.rows(source.asset) == []


def test_unassigned_rows_of_a_window_that_has_moved_on_stay_until_all_of_its_days_are_fetched(
    service: Service, tmp_path: Path
) -> None:
    lake = Lake(str(tmp_path))
    service.edited = with_a_surprise
    ingested(BOX[:-4], source=PUBLISHED, base_url=service.base_url, root=tmp_path)
    ingested(BOX[4:], source=PUBLISHED, base_url=service.base_url, root=tmp_path)
    assert days_of_files(lake, PUBLISHED) == [(DAYS[0], DAYS[3]), (DAYS[1], DAYS[4])]
    service.edited = None
    ingested(BOX[4:], source=PUBLISHED, base_url=service.base_url, root=tmp_path)
    assert days_of_files(lake, PUBLISHED) == [(DAYS[0], DAYS[3])]
    ingested(BOX[:4], source=PUBLISHED, base_url=service.base_url, root=tmp_path)
    assert days_of_files(lake, PUBLISHED) == [(DAYS[0], DAYS[3])]
    ingested(BOX, source=PUBLISHED, base_url=service.base_url, root=tmp_path)
    assert lake.quarantine.rows(PUBLISHED.asset) == []


@both_sources
def test_unassigned_rows_stay_when_only_some_of_the_instances_are_fetched(
    source: Source, service: Service, tmp_path: Path
) -> None:
    lake = Lake(str(tmp_path))
    service.edited = with_a_surprise
    ingested(BOX, source=source, base_url=service.base_url, root=tmp_path)
    before = lake.quarantine.rows(source.asset)
    service.edited = None
    some = [each for each in BOX if each.instance_id != INSTANCE_IDS[0]]
    ingested(some, source=source, base_url=service.base_url, root=tmp_path)
    assert lake.quarantine.rows(source.asset) == before


@numbered
@pytest.mark.parametrize("still_bad", [True, False])
def test_unassigned_rows_of_a_range_that_is_split_when_it_is_fetched_again_are_not_kept_twice(
    still_bad: bool, service: Service, truth: Truth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def edited(request: Request, document: Any) -> Any:
        return with_a_surprise(request, document) if parameters(request)["endDate"] == [str(DAYS[-1])] else document

    lake = Lake(str(tmp_path))
    service.edited = edited
    ingested(BOX, source=PUBLISHED, base_url=service.base_url, root=tmp_path)
    assert days_of_files(lake, PUBLISHED) == [(DAYS[0], DAYS[-1])]
    if not still_bad:
        service.edited = None
    total = sum(len(truth.day("post_date", day)) for day in DAYS)
    monkeypatch.setattr(sys.modules["later_reporting_dagster.ingest.ingest"], "POSTS_AT_ONCE", ceil(total / 2))
    ingested(BOX, source=PUBLISHED, base_url=service.base_url, root=tmp_path)
    left = days_of_files(lake, PUBLISHED)
    assert len(left) == still_bad
    assert (DAYS[0], DAYS[-1]) not in left


def test_unassigned_rows_stay_when_a_partition_of_their_query_fails(service: Service, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    service.edited = with_a_surprise
    ingested(BOX, source=PUBLISHED, base_url=service.base_url, root=tmp_path)
    service.edited = None
    (tmp_path / PUBLISHED.asset).rename(tmp_path / "away")
    blocked = partition_file(tmp_path, PUBLISHED.asset, BOX[0].day, INSTANCE_IDS[0])
    blocked.mkdir(parents=True)
    result = ingested(BOX, source=PUBLISHED, base_url=service.base_url, root=tmp_path)
    assert result.errors() == {BOX[0]: LakeUnavailable}
    assert days_of_files(lake, PUBLISHED) == [(DAYS[0], DAYS[-1])]


@pytest.mark.parametrize("text", ["no JSON", "", '{"reason": "r", "raw": "{}", "query": "who knows"}'])
def test_a_quarantine_file_that_names_no_query_keeps_nothing_from_landing(
    text: str, service: Service, tmp_path: Path
) -> None:
    names = (f"query={DAYS[0]}_{DAYS[1]}_0", "query=2024-13-01_2024-13-02_0", "query=0")
    for name in names:
        file = tmp_path / "_quarantine" / PUBLISHED.asset / name / "part-0.jsonl"
        file.parent.mkdir(parents=True)
        file.write_text(text, encoding="utf-8")
    assert not ingested(BOX, source=PUBLISHED, base_url=service.base_url, root=tmp_path).failed
    assert [path.read_text(encoding="utf-8") for path in (tmp_path / "_quarantine").rglob("*.jsonl")] == [text] * 3


def test_nothing_is_removed_from_quarantine_where_nothing_lies(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = [BadRow(reason="r", raw="{}")]
    Lake(str(tmp_path)).quarantine.write(PUBLISHED.asset, BOX[0], bad, query="q")
    asked: list[Partition] = []
    write = Quarantine.write

    def remember(self: Quarantine, asset: str, partition: Partition, *arguments: Any, **named: Any) -> str | None:
        asked.append(partition)
        return write(self, asset, partition, *arguments, **named)

    monkeypatch.setattr(Quarantine, "write", remember)
    ingested(BOX, source=PUBLISHED, base_url=service.base_url, root=tmp_path)
    assert asked == [BOX[0]]
    assert Lake(str(tmp_path)).quarantine.rows(PUBLISHED.asset) == []


def test_a_quarantine_that_cannot_be_listed_is_cleared_all_the_same(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Lake(str(tmp_path)).quarantine.write(PUBLISHED.asset, BOX[0], [BadRow(reason="r", raw="{}")], query="q")

    def unlisted(self: Quarantine, asset: str) -> NoReturn:
        raise LakeUnavailable("busy")

    with monkeypatch.context() as patched:
        patched.setattr(Quarantine, "files", unlisted)
        assert not ingested(BOX, source=PUBLISHED, base_url=service.base_url, root=tmp_path).failed
    assert Lake(str(tmp_path)).quarantine.rows(PUBLISHED.asset) == []


def test_a_partition_of_too_many_bad_rows_stays_as_it_was_and_they_are_set_aside(
    service: Service, truth: Truth, tmp_path: Path
) -> None:
    spoilt = Partition(FIRST_DAY, INSTANCE_IDS[0])
    count = len(truth.partition("performance_date", FIRST_DAY, INSTANCE_IDS[0]))

    def edited(request: Request, document: Any) -> Any:
        for row in document["data"]:
            if row["instanceId"] == INSTANCE_IDS[0] and parameters(request)["startDate"] == [str(FIRST_DAY)]:
                metrics_of(row)["impressions"] = -1
        return document

    ingested(BOX, source=DAILY, base_url=service.base_url, root=tmp_path)
    before = files(tmp_path)
    service.edited = edited
    some = Guard(bad_rows_limit_percent=99)
    result = ingested(BOX, source=DAILY, base_url=service.base_url, root=tmp_path, guard=some)
    assert result.errors() == {spoilt: TooManyBadRows}
    assert f"{count} of {count} rows of this partition cannot be true" in str(result.failed[spoilt].error)
    assert files(tmp_path).items() >= before.items()
    assert {row.partition for row in Lake(str(tmp_path)).quarantine.rows(DAILY.asset)} == {spoilt}


@pytest.mark.parametrize(("limit", "fails"), [(0, True), (1, False)])
def test_too_many_unassigned_rows_fail_their_query(limit: int, fails: bool, service: Service, tmp_path: Path) -> None:
    service.edited = with_a_surprise
    guard = Guard(bad_rows_limit_percent=limit)
    result = ingested(BOX, source=PUBLISHED, base_url=service.base_url, root=tmp_path, guard=guard)
    assert result.errors() == (dict.fromkeys(BOX, TooManyBadRows) if fails else {})
    for failed in result.failed.values():
        assert "rows of the query, which do not tell their partition, cannot be true" in str(failed.error)
    assert len(Lake(str(tmp_path)).quarantine.rows(PUBLISHED.asset)) == 1


# Answers that take something away


def emptied(world: World, revision: Revision) -> Any:
    """The service with the same days and instances, and not one post."""
    empty = World(
        first_day=world.first_day,
        last_day=world.last_day,
        instances=1,
        posts_per_day=0,
        further_instances=INSTANCE_IDS[1:],
    )
    return create_app(empty, options=replace(UNHURRIED, revision=revision))


def test_an_answer_that_shrinks_too_much_replaces_nothing_until_it_is_accepted(
    service: Service, small_world: World, truth: Truth, tmp_path: Path
) -> None:
    counts = {each: len(truth.partition("performance_date", each.day, each.instance_id or "")) for each in BOX}
    judged = {each for each, count in counts.items() if count >= 20}
    assert judged
    ingested(BOX, source=DAILY, base_url=service.base_url, root=tmp_path)
    before = files(tmp_path)
    service.app = emptied(small_world, service.revision)
    result = ingested(judged, source=DAILY, base_url=service.base_url, root=tmp_path)
    assert result.errors() == dict.fromkeys(judged, ShrankTooMuch)
    for partition, failed in result.failed.items():
        assert str(failed.error).startswith(f"{counts[partition]} posts lie in the lake, and the answer has 0: nothing")
    assert files(tmp_path) == before

    accepted = ingested(
        judged, source=DAILY, base_url=service.base_url, root=tmp_path, guard=Guard(shrink_limit_percent=100)
    )
    assert all(landed.written.rows == 0 for landed in accepted.landed.values())
    for partition, landed in accepted.landed.items():
        assert landed.changes is not None
        assert (landed.changes.removed, landed.changes.rows_after) == (counts[partition], 0)


def test_an_answer_without_any_value_replaces_none(service: Service, truth: Truth, tmp_path: Path) -> None:
    def valueless(request: Request, document: Any) -> Any:
        for row in document["data"]:
            for name in row.keys() - {"instanceId", "campaignId", "postId", "postDate", "contentType", "metrics"}:
                row[name] = None
            for name in row.get("metrics", ()):
                row["metrics"][name] = None
        return document

    partition = Partition(FIRST_DAY, INSTANCE_IDS[0])
    ingested([partition], source=DAILY, base_url=service.base_url, root=tmp_path)
    before = files(tmp_path)
    service.edited = valueless
    result = ingested([partition], source=DAILY, base_url=service.base_url, root=tmp_path)
    assert result.errors() == {partition: ShrankTooMuch}
    assert files(tmp_path) == before


def test_what_a_restatement_changed_is_told(service: Service, truth: Truth, tmp_path: Path) -> None:
    partition = Partition(FIRST_DAY, INSTANCE_IDS[0])
    (first, *_) = truth.partition("post_date", FIRST_DAY, INSTANCE_IDS[0])

    def edited(request: Request, document: Any) -> Any:
        for row in document["data"]:
            if row["postId"] == first["post_id"]:
                metrics_of(row)["impressions"] = (metrics_of(row)["impressions"] or 0) + 7
        return document

    landed = ingested([partition], source=PUBLISHED, base_url=service.base_url, root=tmp_path).landed[partition]
    assert landed.changes is None
    service.edited = edited
    landed = ingested([partition], source=PUBLISHED, base_url=service.base_url, root=tmp_path).landed[partition]
    assert landed.changes is not None
    assert (landed.changes.added, landed.changes.removed, landed.changes.restated) == (0, 0, 1)
    assert landed.changes.totals["impressions"].change == 7
    again = ingested([partition], source=PUBLISHED, base_url=service.base_url, root=tmp_path).landed[partition]
    assert again.changes is None


# Instances that cannot be partitions


@both_sources
def test_an_instance_whose_id_cannot_be_a_partition_fails_alone_and_is_not_asked_for(
    source: Source, service: Service, truth: Truth, tmp_path: Path
) -> None:
    impossible = ["x" * 300, "", "\udcff"]
    cells = [Partition(day, instance_id) for day in DAYS[:2] for instance_id in impossible]
    result = ingested([*cells, *BOX], source=source, base_url=service.base_url, root=tmp_path)
    assert result.failed.keys() == set(cells)
    assert {type(failed.error) for failed in result.failed.values()} == {ValueError}
    for cell, reason in zip(cells, ["has room for", "cannot be empty", "is not valid Unicode"] * 2, strict=True):
        assert reason in str(result.failed[cell].error)
    assert_lake_is_true(tmp_path, source, BOX, truth)
    asked = {name for request in service.requests for name in parameters(request).get("instanceIds", [])}
    assert asked == set(INSTANCE_IDS)


def test_where_no_instance_can_be_a_partition_nothing_is_asked(service: Service, tmp_path: Path) -> None:
    cells = [Partition(day, "x" * 300) for day in DAYS]
    assert ingested(cells, source=PUBLISHED, base_url=service.base_url, root=tmp_path).failed.keys() == set(cells)
    assert service.requests == []


# A lake that fails


@both_sources
def test_a_partition_that_cannot_be_written_fails_alone(
    source: Source, service: Service, truth: Truth, tmp_path: Path
) -> None:
    blocked = Partition(DAYS[2], INSTANCE_IDS[0])
    directory = partition_file(tmp_path, source.asset, blocked.day, INSTANCE_IDS[0]).parent
    directory.parent.mkdir(parents=True)
    directory.write_bytes(b"a file where a directory is due")
    result = ingested(BOX, source=source, base_url=service.base_url, root=tmp_path)
    assert result.errors() == {blocked: LakeUnavailable}
    assert str(directory) in str(result.failed[blocked].error)
    assert_lake_is_true(tmp_path, source, list(result.landed), truth)


def test_a_quarantine_that_cannot_be_written_fails_its_query(service: Service, tmp_path: Path) -> None:
    (tmp_path / "_quarantine").write_bytes(b"a file where a directory is due")
    service.edited = with_a_surprise
    result = ingested(BOX, source=PUBLISHED, base_url=service.base_url, root=tmp_path)
    assert result.errors() == dict.fromkeys(BOX, LakeUnavailable)


@both_sources
def test_a_partition_whose_quarantine_cannot_be_cleared_fails_alone(
    source: Source, service: Service, truth: Truth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = Partition(DAYS[2], INSTANCE_IDS[0])
    Lake(str(tmp_path)).quarantine.write(source.asset, blocked, [BadRow(reason="r", raw="{}")], query="q")

    def refuse(*_arguments: Any, **_named: Any) -> NoReturn:
        raise LakeUnavailable("no rights")

    monkeypatch.setattr(Quarantine, "write", refuse)
    result = ingested(BOX, source=source, base_url=service.base_url, root=tmp_path)
    assert result.errors() == {blocked: LakeUnavailable}
    assert_lake_is_true(tmp_path, source, list(result.landed), truth)


def test_outcomes_are_delivered_as_they_come(service: Service, tmp_path: Path) -> None:
    days = [FIRST_DAY - timedelta(days=offset) for offset in range(20)]
    asked: list[int] = []
    ingested(
        [Partition(day, INSTANCE_IDS[0]) for day in days],
        source=DAILY,
        base_url=service.base_url,
        root=tmp_path,
        on_delivery=lambda _outcome: asked.append(service.data_requests),
    )
    assert asked[0] < len(days) <= service.data_requests


# Scattered partitions


def test_scattered_days_whose_rows_are_known_share_a_query_and_nothing_else_is_touched(
    service: Service, truth: Truth, tmp_path: Path
) -> None:
    ingested(BOX, source=PUBLISHED, base_url=service.base_url, root=tmp_path)
    before = files(tmp_path)
    scattered = [Partition(day, INSTANCE_IDS[0]) for day in (DAYS[0], DAYS[2], DAYS[4])]
    service.requests.clear()
    result = ingested(scattered, source=PUBLISHED, base_url=service.base_url, root=tmp_path)
    assert set(result.landed) == set(scattered)
    assert not result.failed
    assert service.data_requests == 1
    assert files(tmp_path) == before
    assert_lake_is_true(tmp_path, PUBLISHED, BOX, truth)


@numbered
def test_a_long_range_is_landed_in_parts_for_a_page_or_so_more(
    service: Service, truth: Truth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    total = sum(len(truth.day("post_date", day)) for day in DAYS)
    monkeypatch.setattr(sys.modules["later_reporting_dagster.ingest.ingest"], "POSTS_AT_ONCE", ceil(total / 3))
    result = ingested(BOX, source=PUBLISHED, base_url=service.base_url, root=tmp_path)
    assert not result.failed
    assert_lake_is_true(tmp_path, PUBLISHED, BOX, truth)
    data = (parameters(request) for request in service.requests if request.url.path == "/v2/posts/performance")
    assert len({(*asked["startDate"], *asked["endDate"]) for asked in data}) == 1 + 3
    assert service.data_requests <= ceil(total / 100) + 1 + 3
