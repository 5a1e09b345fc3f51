"""Totals of accounts are fetched from the independent server by one request, and equal the sums of its posts."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from later_reporting_dagster.client import ClientCredentials, InconsistentPages, LaterClient, ListResult, RateLimiter
from later_reporting_dagster.contract import CURSOR, PAGED, ApiVersion, PerformanceQuery
from later_reporting_dagster.contract.metrics import ACCOUNT_METRICS, OVER_TIME_METRICS
from later_reporting_dagster.contract.parameters import DateBasis
from later_reporting_dagster.contract.route import RouteOf, account_days_route, account_totals_route
from tests.independent_server import CLIENT_ID, CLIENT_SECRET, Asked, IndependentServer, Posts, Reply

FIRST = date(2024, 1, 1)
LAST = FIRST + timedelta(days=99)
POSTS = Posts(
    first_day=FIRST + timedelta(days=2), days=80, instance_ids=("a", "b"), seed=2, most=3, has_large_values=False
)
DAYS = PerformanceQuery(
    start_date=FIRST,
    end_date=LAST,
    instance_ids=("a",),
    date_basis=DateBasis.PERFORMANCE_DATE,
    metrics=OVER_TIME_METRICS,
)
TOTALS = replace(DAYS, metrics=ACCOUNT_METRICS, instance_ids=("a", "b"))


@pytest.fixture(params=[PAGED, CURSOR], ids=str)
def version(request: pytest.FixtureRequest) -> ApiVersion:
    found: ApiVersion = request.param
    return found


@pytest.fixture
def server(version: ApiVersion) -> IndependentServer:
    return IndependentServer(POSTS, by_cursor=version.uses_cursors)


@pytest.fixture
def base_url(server: IndependentServer) -> Iterator[str]:
    with server.running() as url:
        yield url


def fetch(base_url: str, version: ApiVersion, route_of: RouteOf, query: PerformanceQuery) -> ListResult:
    async def run() -> ListResult:
        limiter, credentials = RateLimiter(requests=100_000), ClientCredentials(CLIENT_ID, CLIENT_SECRET)
        async with LaterClient(
            base_url=base_url, credentials=credentials, limiter=limiter, api_version=version
        ) as client:
            return await client.fetch(route_of, query)

    return asyncio.run(run())


def sent(server: IndependentServer) -> dict[str, str]:
    """Return the parameters of the only request for data."""
    (target,) = (text.removeprefix("GET ") for text in server.asked if text.startswith("GET"))
    assert server.asked[f"GET {target}"] == 1
    return dict(parse_qsl(urlsplit(target).query))


def expected(first: date, last: date, *instance_ids: str) -> dict[str, Any]:
    rows = [row for row in POSTS.reported(first, last) if row["instanceId"] in instance_ids]
    return POSTS.totals(rows, first, last, post_counts_once=True)


def test_hundred_days_of_an_instance_are_one_request(
    server: IndependentServer, base_url: str, version: ApiVersion
) -> None:
    result = fetch(base_url, version, account_days_route, DAYS)
    parameters = sent(server)
    assert (parameters["granularity"], parameters["dateBasis"]) == ("day", "performance_date")
    assert parameters["limit" if version.uses_cursors else "pageSize"] == "100"
    of_range = [FIRST + timedelta(days=offset) for offset in range(100)]
    days = {day: totals for day in of_range if (totals := expected(day, day, "a"))["postsCount"]}
    assert 50 < len(days) < 100
    assert [bucket.day for bucket in result.items] == [*days]
    for bucket in result.items:
        found = {metric.api_name: getattr(bucket, metric.column) for metric in OVER_TIME_METRICS}
        assert found == {name: days[bucket.day][name] for name in found}
        assert (bucket.instance_id, bucket.extra) == ("a", None)
    assert not result.oddities


def test_totals_of_instances_together_are_one_request_without_a_page(
    server: IndependentServer, base_url: str, version: ApiVersion
) -> None:
    (row,) = fetch(base_url, version, account_totals_route, TOTALS).items
    parameters = sent(server)
    assert parameters.keys() - {"metrics"} == {"startDate", "endDate", "instanceIds", "dateBasis"}
    assert parameters["dateBasis"] == "performance_date"
    found = {metric.api_name: getattr(row, metric.column) for metric in ACCOUNT_METRICS}
    of_both = expected(FIRST, LAST, "a", "b")
    assert found == {name: of_both[name] for name in found}
    assert row.extra == (None if version.uses_cursors else f'{{"campaignsCost":{of_both["campaignsCost"]}}}')


def change_rows(server: IndependentServer, change: Any) -> None:
    """Change the rows of each page of buckets."""

    def changed(asked: Asked, reply: Reply) -> Reply:
        if not asked.path.endswith("over-time"):
            return reply
        return replace(reply, document=reply.document | {"data": change(reply.document["data"])})

    server.change = changed


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda rows: [*rows[1:], rows[-1]], "came twice"),
        (lambda rows: [rows[0] | {"endDate": rows[1]["endDate"]}, *rows[1:]], "is no single day from 2024-01-01"),
    ],
)
def test_bucket_that_is_no_other_day_is_refused(
    server: IndependentServer, base_url: str, version: ApiVersion, change: Any, problem: str
) -> None:
    change_rows(server, change)
    with pytest.raises(InconsistentPages, match=f"2024-.* {problem}"):
        fetch(base_url, version, account_days_route, DAYS)


def test_day_that_comes_on_two_pages_is_refused(server: IndependentServer, base_url: str, version: ApiVersion) -> None:
    longer = replace(DAYS, end_date=LAST + timedelta(days=60))
    server.posts = Posts(
        first_day=FIRST, days=150, instance_ids=("a",), seed=2, least=1, most=1, has_large_values=False
    )
    first = str(FIRST)
    change_rows(
        server, lambda rows: [row if row["startDate"][:10] < "2024-05-01" else row | dates_of(first) for row in rows]
    )
    with pytest.raises(InconsistentPages, match=f"the bucket {first} to {first} came twice"):
        fetch(base_url, version, account_days_route, longer)


def dates_of(day: str) -> dict[str, str]:
    return {"startDate": day, "endDate": day}


def test_totals_of_more_instances_than_fit_a_url_are_refused(
    server: IndependentServer, base_url: str, version: ApiVersion
) -> None:
    many = tuple(f"{number:0300d}" for number in range(20))  # one is in the second part
    server.posts = Posts(first_day=FIRST, days=1, instance_ids=many, seed=2, has_large_values=False)
    with pytest.raises(InconsistentPages, match="are those of other instances, too"):
        fetch(base_url, version, account_totals_route, replace(TOTALS, instance_ids=many))
