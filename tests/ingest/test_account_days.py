"""What Later totals for an account is stored by instance and day, with the fewest requests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from later_reporting_dagster.contract import CURSOR
from later_reporting_dagster.contract.metrics import OVER_TIME_METRICS
from later_reporting_dagster.ingest.progress import RouteRefused
from later_reporting_dagster.lake import Lake, Partition
from later_reporting_dagster.lake.tables import INSTANCE_PERFORMANCE_DAILY
from tests.conftest import DAYS, INSTANCE_IDS, Row, Service, Truth, both_api_versions, parameters, problem
from tests.ingest.conftest import PARTITIONS, IngestResults, run_ingest

PATH = "/v2/instances/performance-over-time"
TABLE = INSTANCE_PERFORMANCE_DAILY
SUMS = ("impressions", "engagements", "paid_impressions", "paid_engagements")


def fetch(service: Service, root: Path, partitions: list[Partition] = PARTITIONS, **options: Any) -> IngestResults:
    options = {"metrics": OVER_TIME_METRICS, **options}
    return run_ingest(partitions, table=TABLE, service=service, root=root, **options)


def stored(root: Path) -> dict[Partition, list[Row]]:
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
        if request.url.path != PATH:
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
    assert not fetch(service, tmp_path).failed
    found = stored(tmp_path)
    assert found.keys() == {*PARTITIONS}
    for partition, rows in found.items():
        assert [{name: row[name] for name in SUMS} for row in rows] == totals(truth, partition)
        assert all((row["instance_id"], row["extra"]) == (partition.instance_id, None) for row in rows)
    assert service.request_count(PATH) == len(INSTANCE_IDS)
    sent = [parameters(request) for request in service.requests if request.url.path == PATH]
    assert {(*each["granularity"], *each["dateBasis"]) for each in sent} == {("day", "performance_date")}


def test_a_bucket_that_is_no_single_day_costs_its_day(service: Service, tmp_path: Path) -> None:
    first, second, *others = DAYS
    service.override = over_time(*map(bucket, [second, *others]), bucket(first, second))
    north = [Partition(day, INSTANCE_IDS[0]) for day in DAYS]
    failed = fetch(service, tmp_path, north).failed
    assert failed.keys() == {north[0]}
    assert "is no single day" in failed[north[0]].reason
    assert stored(tmp_path).keys() == {*north[1:]}


@pytest.mark.parametrize("second", [{}, {"impressions": 8}], ids=["equal", "different"])
def test_a_day_that_comes_twice_is_refused(service: Service, tmp_path: Path, second: Row) -> None:
    day = Partition(DAYS[0], INSTANCE_IDS[0])
    service.override = over_time(bucket(day.day), bucket(day.day) | second)
    assert "came twice" in fetch(service, tmp_path, [day]).failed[day].reason


def test_a_value_that_cannot_be_true_costs_its_day_and_is_in_quarantine(service: Service, tmp_path: Path) -> None:
    service.override = over_time(bucket(DAYS[0], reach=-1), *map(bucket, DAYS[1:]))
    north = [Partition(day, INSTANCE_IDS[0]) for day in DAYS]
    assert fetch(service, tmp_path, north).failed.keys() == {north[0]}
    (row,) = Lake(str(tmp_path)).quarantine.rows(TABLE.name)
    assert row.partition == north[0]


def test_a_day_that_vanishes_is_asked_for_again_before_it_is_emptied(service: Service, tmp_path: Path) -> None:
    north = [Partition(day, INSTANCE_IDS[0]) for day in DAYS]
    service.override = over_time(*map(bucket, DAYS))
    assert not fetch(service, tmp_path, north).failed
    requests = service.request_count(PATH)
    service.override = over_time(*map(bucket, DAYS[1:]))
    assert not fetch(service, tmp_path, north).failed
    assert stored(tmp_path)[north[0]] == []
    assert service.request_count(PATH) == requests + 2


@pytest.mark.parametrize("status", [403, 404])
def test_an_account_without_the_route_is_told_once(service: Service, tmp_path: Path, status: int) -> None:
    service.override = lambda request: problem(status) if request.url.path == PATH else None
    with pytest.raises(RouteRefused):
        fetch(service, tmp_path)
    assert service.request_count(PATH) == 2
    assert stored(tmp_path) == {}


def test_a_forbidden_instance_costs_its_own_files(service: Service, tmp_path: Path) -> None:
    forbidden = "not-listed"
    pairs = [Partition(day, name) for day in DAYS for name in (forbidden, *INSTANCE_IDS)]
    failed = fetch(service, tmp_path, pairs).failed
    assert {each.instance_id for each in failed} == {forbidden}
    assert service.request_count(PATH) == 1 + len(INSTANCE_IDS)


@pytest.mark.parametrize("service", [CURSOR], indirect=True)
def test_a_metric_that_the_api_refuses_is_null(service: Service, tmp_path: Path) -> None:
    def refuse(request: Request) -> Response | None:
        names = parameters(request).get("metrics", [""])[0].split(",")
        return problem(400) if request.url.path == PATH and "paidReach" in names else None

    service.override = refuse
    assert not fetch(service, tmp_path).failed
    rows = [row for rows in stored(tmp_path).values() for row in rows]
    assert {row["paid_reach"] for row in rows} == {None}
    assert any(row["reach"] for row in rows)
