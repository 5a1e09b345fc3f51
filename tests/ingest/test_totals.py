"""Fetching totals of campaigns and accounts by day: the lake has what the sandbox serves, whatever the API refuses."""

import json
from collections.abc import Callable, Collection
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from later_reporting_dagster.client import QueryRejected, RetriesExhausted, UnexpectedResponse
from later_reporting_dagster.contract import CURSOR, DEFAULT_CAMPAIGN_METRICS, query
from later_reporting_dagster.contract.metrics import CAMPAIGN_METRICS, OVER_TIME_METRICS
from later_reporting_dagster.ingest.decide import Reason, WriteLimits
from later_reporting_dagster.ingest.progress import RouteRefused
from later_reporting_dagster.lake import CAMPAIGN_PERFORMANCE_TABLE, Lake, Partition
from later_reporting_dagster.lake.tables import CAMPAIGN_PERFORMANCE, INSTANCE_PERFORMANCE_DAILY
from later_reporting_dagster.server.sandbox import World
from tests.conftest import DAYS, INSTANCE_IDS, Row, Service, Truth, both_api_versions, parameters, problem
from tests.ingest.conftest import (
    PARTITIONS,
    PERFORMANCE_PATH,
    IngestResults,
    list_campaigns,
    restrict_scope,
    run_ingest,
    served_performance,
    with_performance_of,
)


def fetch(service: Service, root: Path, *, days: Collection[date] = DAYS, **options: Any) -> IngestResults:
    partitions = [*map(Partition, days)]
    options = {"metrics": DEFAULT_CAMPAIGN_METRICS, **options}
    return run_ingest(partitions, table=CAMPAIGN_PERFORMANCE, service=service, root=root, **options)


def errors(fetched: IngestResults) -> dict[date, Reason | type[Exception]]:
    return {partition.day: error for partition, error in fetched.errors().items()}


def stored(root: Path, day: date) -> list[dict[str, Any]]:
    """Return the rows of a day's file, without unknown fields."""
    path = root / CAMPAIGN_PERFORMANCE_TABLE / f"date={day}" / "part-0.parquet"
    rows: list[dict[str, Any]] = pq.ParquetFile(path).read().drop_columns(["extra"]).to_pylist()
    return rows


def expected(api: httpx.Client, day: date, *instance_ids: str, without: Collection[str] = ()) -> list[dict[str, Any]]:
    """Return the rows that the sandbox serves for a day, as they should be stored."""
    served = served_performance(api, "performance_date", day, day, *instance_ids)
    return [{"campaign_id": campaign_id, **row, **dict.fromkeys(without)} for campaign_id, row in served.items()]


# The documented refusal of a metric, which is longer than what messages usually quote.
VALID_METRICS = f"metrics must be one of {', '.join(metric.api_name for metric in CAMPAIGN_METRICS)}"
SAID = f"It responded: ANL_00400 a problem {VALID_METRICS}"


def refuse_metrics(service: Service, *names: str, path: str = PERFORMANCE_PATH) -> None:
    """Respond to requests for totals with one of these metrics as if it was not supported."""

    def override(request: Request) -> Response | None:
        requested = ",".join(parameters(request).get("metrics", [])).split(",")
        is_refused = request.url.path == path and not {*requested}.isdisjoint(names)
        return problem(400, "ANL_00400", VALID_METRICS) if is_refused else None

    service.override = override


@both_api_versions
def test_days_equal_what_the_api_returns(service: Service, api: httpx.Client, tmp_path: Path) -> None:
    fetched = fetch(service, tmp_path)
    assert (errors(fetched), fetched.progress.warnings) == ({}, [])
    assert all(stored(tmp_path, day) == expected(api, day) for day in DAYS)
    assert any(row["paid_ad_spend"] is None for row in stored(tmp_path, DAYS[0]))
    assert service.request_count(PERFORMANCE_PATH) == len(DAYS)
    again = fetch(service, tmp_path)
    assert again.changes == {False}


def test_instances_that_are_too_many_for_a_url_are_requested_in_groups(
    service: Service, api: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def requested(path: str) -> list[str]:
        groups = {frozenset(parameters(each)["instanceIds"]) for each in service.requests if each.url.path == path}
        assert len(groups) > 1
        return sorted(name for names in groups for name in names)

    monkeypatch.setattr(query, "MAX_INSTANCE_CHARACTERS", 60)
    assert errors(fetch(service, tmp_path, days=DAYS[:1], instance_ids=INSTANCE_IDS)) == {}
    assert stored(tmp_path, DAYS[0]) == expected(api, DAYS[0])
    assert requested(PERFORMANCE_PATH) == sorted(INSTANCE_IDS)
    listed = list_campaigns(service, INSTANCE_IDS)
    assert {campaign.instance_id for campaign in listed} == {*INSTANCE_IDS}
    assert len({campaign.key for campaign in listed}) == len(listed)
    assert requested("/v2/campaigns") == sorted(INSTANCE_IDS)


@pytest.mark.parametrize("service", [CURSOR], indirect=True, ids=str)
def test_refused_metrics_are_null_and_warned_of_once(service: Service, api: httpx.Client, tmp_path: Path) -> None:
    refused, columns = ("paidCost", "affiliateLinksSales"), ("paid_cost", "affiliate_links_sales")
    refuse_metrics(service, *refused)
    fetched = fetch(service, tmp_path)
    assert errors(fetched) == {}
    assert all(stored(tmp_path, day) == expected(api, day, without=columns) for day in DAYS)
    (warning,) = fetched.progress.warnings
    assert (
        warning
        == "The API refuses these metrics of campaigns, which are therefore null: " + ", ".join(refused) + f". {SAID}"
    )
    # All, impressions alone, and the halves with a refused metric.
    assert service.request_count(PERFORMANCE_PATH) <= len(DAYS) + 2 + 2 * 2 * len(DEFAULT_CAMPAIGN_METRICS).bit_length()
    metadata = Lake(str(tmp_path)).read_metadata(CAMPAIGN_PERFORMANCE_TABLE, Partition(DAYS[0]))
    assert metadata is not None
    assert set(refused).isdisjoint(json.loads(metadata.key_values["metrics"]))


@pytest.mark.parametrize("service", [CURSOR], indirect=True, ids=str)
def test_day_fails_if_all_metrics_are_refused(service: Service, tmp_path: Path) -> None:
    metrics = DEFAULT_CAMPAIGN_METRICS[:2]
    refuse_metrics(service, *(metric.api_name for metric in metrics))
    assert errors(fetch(service, tmp_path, metrics=metrics)) == dict.fromkeys(DAYS, QueryRejected)
    assert service.request_count(PERFORMANCE_PATH) <= len(DAYS) * (2 + 3)  # all, impressions alone, and halves


@pytest.mark.parametrize("status", [403, 404])
@both_api_versions
@pytest.mark.parametrize("days", [DAYS, DAYS[:1]], ids=["of several", "of one"])
def test_refused_route_ends_the_fetch_with_two_requests(
    service: Service, status: int, days: Collection[date], tmp_path: Path
) -> None:
    service.refuse_campaigns(status)
    with pytest.raises(RouteRefused, match=f"HTTP {status}"):
        fetch(service, tmp_path, days=days)
    requests = [parameters(each) for each in service.requests if each.url.path == PERFORMANCE_PATH]
    newest = max(days)
    assert [each["startDate"] for each in requests] == [[str(newest)], [str(newest - timedelta(days=1))]]
    assert not any(tmp_path.iterdir())


def test_refused_route_is_noticed_after_a_day_that_failed_otherwise(service: Service, tmp_path: Path) -> None:
    newest = [str(DAYS[-1])]

    def refuse(request: Request) -> Response | None:
        is_newest = parameters(request).get("startDate") == newest
        return problem(503 if is_newest else 404) if request.url.path == PERFORMANCE_PATH else None

    service.override = refuse
    with pytest.raises(RouteRefused):
        fetch(service, tmp_path)
    assert service.request_count(PERFORMANCE_PATH) == 2 + 2


@pytest.mark.parametrize("days", [DAYS, DAYS[-1:]], ids=["of several", "of one"])
@pytest.mark.parametrize(("status", "error"), [(403, QueryRejected), (404, QueryRejected), (302, UnexpectedResponse)])
def test_a_newest_day_that_is_refused_fails_alone(
    status: int, error: type[Exception], days: Collection[date], service: Service, api: httpx.Client, tmp_path: Path
) -> None:
    newest = [str(DAYS[-1])]
    service.override = lambda request: problem(status) if parameters(request).get("startDate") == newest else None
    assert errors(fetch(service, tmp_path, days=days)) == {DAYS[-1]: error}
    assert all(stored(tmp_path, day) == expected(api, day) for day in days if day != DAYS[-1])


@pytest.mark.parametrize("service", [CURSOR], indirect=True, ids=str)
def test_instances_out_of_scope_and_refused_metrics_are_left_out_with_a_warning_each(
    service: Service, api: httpx.Client, small_world: World, tmp_path: Path
) -> None:
    restrict_scope(service, small_world, INSTANCE_IDS[:2])
    refuse_metrics(service, "paidCost")
    fetched = fetch(service, tmp_path, instance_ids=INSTANCE_IDS[1:])
    assert (errors(fetched), len(fetched.progress.warnings)) == ({}, 2)
    assert all(name in "".join(fetched.progress.warnings) for name in (*INSTANCE_IDS[2:], "paidCost"))
    assert all(stored(tmp_path, day) == expected(api, day, INSTANCE_IDS[1], without=["paid_cost"]) for day in DAYS)


def test_a_day_that_fails_keeps_its_file(service: Service, tmp_path: Path) -> None:
    fetch(service, tmp_path)
    before = [stored(tmp_path, day) for day in DAYS]
    failing = [str(DAYS[2])]
    service.override = lambda request: problem(503) if parameters(request).get("startDate") == failing else None
    assert errors(fetch(service, tmp_path)) == {DAYS[2]: RetriesExhausted}
    assert [stored(tmp_path, day) for day in DAYS] == before


def test_an_instance_out_of_scope_ends_no_run_after_a_day_that_failed(
    service: Service, small_world: World, tmp_path: Path
) -> None:
    restrict_scope(service, small_world, INSTANCE_IDS[:2])
    days = [DAYS[-1] - timedelta(days=number) for number in range(12)]
    service.override = lambda request: (
        problem(503) if str(DAYS[-1]) in parameters(request).get("startDate", []) else None
    )
    fetched = fetch(service, tmp_path, days=days, instance_ids=INSTANCE_IDS[1:])
    assert errors(fetched) == {DAYS[-1]: RetriesExhausted}


def test_nothing_is_fetched_if_no_requested_instance_is_accessible(
    service: Service, small_world: World, tmp_path: Path
) -> None:
    restrict_scope(service, small_world, INSTANCE_IDS[:1])
    with pytest.raises(QueryRejected):
        list_campaigns(service, INSTANCE_IDS[1:])
    with pytest.raises(RouteRefused):
        fetch(service, tmp_path, instance_ids=INSTANCE_IDS[1:])
    assert (service.request_count("/v2/campaigns"), service.request_count(PERFORMANCE_PATH)) == (1, 2)


def test_listing_of_instances_that_failed_is_requested_again(
    service: Service, api: httpx.Client, small_world: World, tmp_path: Path
) -> None:
    def fail_twice(request: Request) -> Response | None:
        is_listing = request.url.path == "/v2/instances"
        return problem(503) if is_listing and service.request_count("/v2/instances") <= 2 else None

    restrict_scope(service, small_world, INSTANCE_IDS[:2])
    service.override = fail_twice
    assert errors(fetch(service, tmp_path, instance_ids=INSTANCE_IDS[1:])) == {}
    assert all(stored(tmp_path, day) == expected(api, day, INSTANCE_IDS[1]) for day in DAYS)
    assert service.request_count("/v2/instances") == 3


@pytest.mark.parametrize(
    ("status", "error", "requests"),
    [(302, UnexpectedResponse, 2), (503, RetriesExhausted, 2 * (1 + 8 + 4))],  # each twice; eight are in flight
)
def test_failure_of_every_query_stops_the_run(
    service: Service, status: int, error: type[Exception], requests: int, tmp_path: Path
) -> None:
    service.override = lambda request: problem(status) if request.url.path == PERFORMANCE_PATH else None
    days = [DAYS[0] - timedelta(days=number) for number in range(40)]
    assert errors(fetch(service, tmp_path, days=days)) == dict.fromkeys(days, error)
    assert service.request_count(PERFORMANCE_PATH) <= requests


@pytest.mark.parametrize(
    ("row", "reason"),
    [({"paidAdSpend": 10**12}, "paidAdSpend is not at most"), ({"campaignId": None}, "campaignId is missing")],
)
def test_bad_row_is_quarantined_until_the_api_corrects_it(
    row: dict[str, Any], reason: str, service: Service, tmp_path: Path
) -> None:
    lake = Lake(str(tmp_path))
    good = {"campaignId": 2, "impressions": 5}
    service.override = with_performance_of({"campaignId": 1, "impressions": 5} | row, good)
    assert errors(fetch(service, tmp_path, days=DAYS[:1])) == {}
    (quarantined,) = lake.quarantine.rows(CAMPAIGN_PERFORMANCE_TABLE)
    assert (quarantined.partition, quarantined.reason.startswith(reason)) == (Partition(DAYS[0]), True)
    assert [each["campaign_id"] for each in stored(tmp_path, DAYS[0])] == [2]
    strict = fetch(service, tmp_path, days=DAYS[:1], limits=WriteLimits(max_bad_rows_percent=10))
    assert errors(strict) == {DAYS[0]: Reason.BAD_ROWS}
    service.override = with_performance_of({"campaignId": 1, "impressions": 5}, good)
    fetch(service, tmp_path, days=DAYS[:1])
    assert lake.quarantine.rows(CAMPAIGN_PERFORMANCE_TABLE) == []
    assert [each["campaign_id"] for each in stored(tmp_path, DAYS[0])] == [1, 2]


# Accounts

ACCOUNT_DAYS_PATH = "/v2/instances/performance-over-time"
TABLE = INSTANCE_PERFORMANCE_DAILY
SUMS = ("impressions", "engagements", "paid_impressions", "paid_engagements")


def fetch_accounts(
    service: Service, root: Path, partitions: list[Partition] = PARTITIONS, **options: Any
) -> IngestResults:
    options = {"metrics": OVER_TIME_METRICS, **options}
    return run_ingest(partitions, table=TABLE, service=service, root=root, **options)


def stored_accounts(root: Path) -> dict[Partition, list[Row]]:
    lake, schema = Lake(str(root)), TABLE.table.schema
    return {each: lake.read(TABLE.name, [each], schema=schema).to_pylist() for each in lake.partitions(TABLE.name)}


def totals(truth: Truth, partition: Partition) -> list[Row]:
    """Return the sums of the posts of a day and an instance, each once; no row without posts."""
    posts = truth.partition("performance_date", partition.day, str(partition.instance_id))
    once = {post["post_id"]: post for post in reversed(posts)}.values()
    sums = {name: [post[name] for post in once if post[name] is not None] for name in SUMS}
    return [{name: sum(values) if values else None for name, values in sums.items()}] if posts else []


def over_time(*buckets: Row) -> Callable[[Request], Response | None]:
    """Return a response override with these buckets, of those days that a request asks for."""

    def respond(request: Request) -> Response | None:
        if request.url.path != ACCOUNT_DAYS_PATH:
            return None
        values = parameters(request)
        (first,), (last,) = values["startDate"], values["endDate"]
        data = [each for each in buckets if first <= str(each.get("startDate", first)) <= last]
        pagination = {"page": 1, "pageSize": 100, "totalItems": len(data), "totalPages": 1}
        return JSONResponse({"data": data, "pagination": pagination})

    return respond


def bucket(first: object, last: object = None, **fields: object) -> Row:
    return {"startDate": str(first), "endDate": str(last or first), "impressions": 7, **fields}


@both_api_versions
def test_days_are_the_sums_of_posts_in_one_request_per_instance(service: Service, truth: Truth, tmp_path: Path) -> None:
    assert not fetch_accounts(service, tmp_path).failed
    found = stored_accounts(tmp_path)
    assert found.keys() == {*PARTITIONS}
    for partition, rows in found.items():
        assert [{name: row[name] for name in SUMS} for row in rows] == totals(truth, partition)
        assert all((row["instance_id"], row["extra"]) == (partition.instance_id, None) for row in rows)
    assert service.request_count(ACCOUNT_DAYS_PATH) == len(INSTANCE_IDS)
    sent = [parameters(request) for request in service.requests if request.url.path == ACCOUNT_DAYS_PATH]
    assert {(*each["granularity"], *each["dateBasis"]) for each in sent} == {("day", "performance_date")}


def test_a_bucket_that_is_no_single_day_costs_its_day(service: Service, tmp_path: Path) -> None:
    first, second, *others = DAYS
    service.override = over_time(*map(bucket, [second, *others]), bucket(first, second))
    north = [Partition(day, INSTANCE_IDS[0]) for day in DAYS]
    failed = fetch_accounts(service, tmp_path, north).failed
    assert failed.keys() == {north[0]}
    assert "is no single day" in failed[north[0]].reason
    assert stored_accounts(tmp_path).keys() == {*north[1:]}


def test_a_value_that_cannot_be_true_costs_its_day_and_is_in_quarantine(service: Service, tmp_path: Path) -> None:
    service.override = over_time(bucket(DAYS[0], reach=-1), *map(bucket, DAYS[1:]))
    north = [Partition(day, INSTANCE_IDS[0]) for day in DAYS]
    assert fetch_accounts(service, tmp_path, north).failed.keys() == {north[0]}
    (row,) = Lake(str(tmp_path)).quarantine.rows(TABLE.name)
    assert row.partition == north[0]


def test_a_day_that_vanishes_is_asked_for_again_before_it_is_emptied(service: Service, tmp_path: Path) -> None:
    north = [Partition(day, INSTANCE_IDS[0]) for day in DAYS]
    service.override = over_time(*map(bucket, DAYS))
    assert not fetch_accounts(service, tmp_path, north).failed
    requests = service.request_count(ACCOUNT_DAYS_PATH)
    service.override = over_time(*map(bucket, DAYS[1:]))
    assert not fetch_accounts(service, tmp_path, north).failed
    assert stored_accounts(tmp_path)[north[0]] == []
    assert service.request_count(ACCOUNT_DAYS_PATH) == requests + 2


@pytest.mark.parametrize("status", [403, 404])
def test_an_account_without_the_route_is_told_once(service: Service, tmp_path: Path, status: int) -> None:
    service.override = lambda request: problem(status) if request.url.path == ACCOUNT_DAYS_PATH else None
    with pytest.raises(RouteRefused):
        fetch_accounts(service, tmp_path)
    assert service.request_count(ACCOUNT_DAYS_PATH) == 2
    assert stored_accounts(tmp_path) == {}


def test_a_forbidden_instance_costs_its_own_files(service: Service, tmp_path: Path) -> None:
    forbidden = "not-listed"
    pairs = [Partition(day, name) for day in DAYS for name in (forbidden, *INSTANCE_IDS)]
    failed = fetch_accounts(service, tmp_path, pairs).failed
    assert {each.instance_id for each in failed} == {forbidden}
    assert service.request_count(ACCOUNT_DAYS_PATH) == 1 + len(INSTANCE_IDS)


@pytest.mark.parametrize("status", [403, 404])
def test_accounts_that_are_refused_and_may_not_be_listed_do_not_show_that_the_route_is(
    status: int, service: Service, tmp_path: Path
) -> None:
    refused = {"not-listed", "nor-this"} if status == 404 else {*sorted(INSTANCE_IDS)[-2:]}  # those asked first

    def refuse(request: Request) -> Response | None:
        if request.url.path == "/v2/instances":
            return problem(500) if status == 403 else None
        return problem(status) if refused.intersection(parameters(request).get("instanceIds", [])) else None

    service.override = refuse
    pairs = [Partition(day, name) for day in DAYS for name in sorted({*refused, *INSTANCE_IDS})]
    fetched = fetch_accounts(service, tmp_path, pairs)
    assert {each.instance_id for each in fetched.failed} == refused
    assert len(fetched.written) == len(DAYS) * len({*INSTANCE_IDS} - refused)


@pytest.mark.parametrize("service", [CURSOR], indirect=True, ids=str)
def test_a_metric_that_is_refused_for_accounts_is_null_with_a_warning(service: Service, tmp_path: Path) -> None:
    refuse_metrics(service, "reach", path=ACCOUNT_DAYS_PATH)
    fetched = fetch_accounts(service, tmp_path)
    assert not fetched.failed
    assert fetched.progress.warnings == [
        f"The API refuses these metrics of totals, which are therefore null: reach. {SAID}"
    ]
    rows = [row for of_day in stored_accounts(tmp_path).values() for row in of_day]
    assert {row["reach"] for row in rows} == {None}
    assert any(row["impressions"] is not None for row in rows)
