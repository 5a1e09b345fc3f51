"""The totals of accounts: every server agrees with the sums of the posts that it lists, each of which counts once."""

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from itertools import groupby
from pathlib import Path

import httpx
import pytest

from later_reporting_dagster.contract.metrics import ACCOUNT_METRICS, OVER_TIME_METRICS, Metric
from tests.independent_server import IndependentServer, Posts
from tests.server.conftest import REFERENCE
from tests.server.lake_store.clients import (
    Row,
    assert_problem,
    authenticate,
    days_query,
    fetch_pages,
    fetch_rows,
    get,
    land,
    page_of,
    reference_client,
    rows_of,
    served,
)

ACCOUNT, OVER_TIME = "/v2/instances/performance", "/v2/instances/performance-over-time"
FIRST, LAST = date(2024, 5, 27), date(2024, 6, 9)  # from a Monday to a Sunday
SUMS = ("engagements", "impressions", "paidEngagements", "paidImpressions")
POSTS = Posts(
    first_day=FIRST + timedelta(days=3), days=9, instance_ids=("north", "007"), seed=5, has_large_values=False
)


@pytest.fixture(scope="module")
def independent_api() -> Iterator[httpx.Client]:
    with reference_client(IndependentServer(POSTS)) as api:
        authenticate(api, REFERENCE)
        yield api


@pytest.fixture(scope="module")
def lake_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    root: Path = tmp_path_factory.mktemp("lake")
    with IndependentServer(POSTS).running() as base_url:
        land(base_url, root, days=(FIRST, LAST), instance_ids=POSTS.instance_ids, client=REFERENCE)
    with served(root) as api:
        yield api


@pytest.fixture(params=["paged_api", "independent_api", "lake_api"])
def api(request: pytest.FixtureRequest) -> httpx.Client:
    """A server; all but the sandbox have no posts on the first three days."""
    found: httpx.Client = request.getfixturevalue(request.param)
    return found


def sums_of(rows: Sequence[Row]) -> Row:
    """Return the sums of posts, of each its row with the lowest campaign id."""
    once: dict[tuple[str, int], Row] = {}
    for row in sorted(rows, key=lambda row: -int(row["campaignId"])):
        once[row["instanceId"], row["postId"]] = row
    known = {name: [row[name] for row in once.values() if row[name] is not None] for name in SUMS}
    return {name: sum(values) if values else None for name, values in known.items()} | {"postsCount": len(once)}


def posts_of(api: httpx.Client, first: date, last: date, basis: str, *filters: tuple[str, str]) -> list[Row]:
    return fetch_rows(api, days_query(first, last, ("dateBasis", basis), ("pageSize", 100), *filters))


def buckets_of(api: httpx.Client, *pairs: tuple[str, object]) -> list[Row]:
    return rows_of(fetch_pages(api, days_query(FIRST, LAST, ("pageSize", 50), *pairs), OVER_TIME))


def totals_in(rows: Sequence[Row]) -> dict[tuple[str, str], Row]:
    """Return what can be compared, by the days of a bucket."""
    return {
        (row["startDate"][:10], row["endDate"][:10]): {name: row[name] for name in (*SUMS, "postsCount")}
        for row in rows
    }


@pytest.mark.parametrize("basis", ["performance_date", "post_date"])
def test_days_are_the_sums_of_their_posts(api: httpx.Client, basis: str) -> None:
    instance_id = page_of(api.get("/v2/instances"))["data"]["instanceIds"][1]
    days = [FIRST + timedelta(days=offset) for offset in range(14)]
    filters = ("instanceIds", instance_id), ("platform", "instagram,tiktok")
    of_days = {day: posts_of(api, day, day, basis, *filters) for day in days}
    expected = {(str(day), str(day)): sums_of(rows) for day, rows in of_days.items() if rows}
    assert len(expected) > 3
    assert totals_in(buckets_of(api, ("granularity", "day"), ("dateBasis", basis), *filters)) == expected


def test_post_of_several_campaigns_counts_once(api: httpx.Client) -> None:
    rows = posts_of(api, FIRST, LAST, "performance_date")
    totals = page_of(get(api, days_query(FIRST, LAST, ("dateBasis", "performance_date")), ACCOUNT))["data"]
    expected = sums_of(rows)
    assert expected["postsCount"] < len(rows)
    assert {name: totals[name] for name in expected} == expected
    assert totals["engagementRate"] == pytest.approx(100 * totals["engagements"] / totals["impressions"], rel=0.2)


@pytest.mark.parametrize("granularity", ["week", "month", "quarter", "year"])
def test_longer_buckets_are_calendar_periods_cut_by_the_range(api: httpx.Client, granularity: str) -> None:
    def period(row: Row) -> tuple[int, ...]:
        day = date.fromisoformat(row["startDate"][:10])
        return {
            "week": (day.isocalendar().week,),
            "month": (day.year, day.month),
            "quarter": (day.year, (day.month - 1) // 3),
            "year": (day.year,),
        }[granularity]

    basis = ("dateBasis", "performance_date")
    days = buckets_of(api, ("granularity", "day"), basis)
    expected = [sum(row["impressions"] or 0 for row in rows) for _, rows in groupby(days, key=period)]
    found = buckets_of(api, ("granularity", granularity), basis)
    assert [row["impressions"] for row in found] == expected
    edges = [row[name][:10] for row in found for name in ("startDate", "endDate")]
    assert edges == {
        "week": ["2024-05-27", "2024-06-02", "2024-06-03", "2024-06-09"],
        "month": ["2024-05-27", "2024-05-31", "2024-06-01", "2024-06-09"],
    }.get(granularity, ["2024-05-27", "2024-06-09"])
    if granularity == "month":
        assert buckets_of(api, basis) == found


@pytest.mark.parametrize(("route", "metrics"), [(ACCOUNT, ACCOUNT_METRICS), (OVER_TIME, OVER_TIME_METRICS)])
def test_cursor_version_requires_and_nests_metrics(
    route: str, metrics: tuple[Metric, ...], paged_api: httpx.Client, cursor_api: httpx.Client
) -> None:
    query: list[tuple[str, object]] = days_query(FIRST, LAST)
    query += [("granularity", "day")] if route == OVER_TIME else []
    names = [metric.api_name for metric in metrics]
    requested = [*query, ("metrics", ",".join(names))]
    for refused in (query, [*query, ("metrics", "paidCost")]):
        assert_problem(get(cursor_api, refused, route), 400, "ANL_00400")
    flat = page_of(get(paged_api, query, route))["data"]
    if route == ACCOUNT:
        assert page_of(get(cursor_api, requested, route))["data"] == {"metrics": flat}
        assert {*flat} == {*names}
    else:
        pages = fetch_pages(cursor_api, [*requested, ("limit", 5)], route)
        assert [len(page["data"]) for page in pages] == [5, 5, 4]
        assert [row.pop("metrics") | row for row in rows_of(pages)] == flat
    for other in [("pageSize", 50), ("sortProperty", "cpe")] if route == ACCOUNT else [("pageSize", 60)]:
        assert_problem(get(paged_api, [*query, other], route), 400, "ANL_00400")


def test_lake_has_null_for_what_does_not_follow_from_posts(lake_api: httpx.Client) -> None:
    totals = page_of(get(lake_api, days_query(FIRST, LAST, ("dateBasis", "performance_date")), ACCOUNT))["data"]
    others = ("engagementRate", "paidEngagementRate", "estimatedValueGenerated", "paidViews", "postsCount", "views")
    assert {name for name, value in totals.items() if value is not None} == {*SUMS, *others}
    for first, last in ((FIRST, LAST), (LAST + timedelta(days=1), LAST + timedelta(days=2))):
        unknown = days_query(first, last, ("metrics", "cpe,estimatedContentCost"))
        expected = {"metrics": {"cpe": None, "estimatedContentCost": None}}
        assert page_of(get(lake_api, unknown, ACCOUNT))["data"] == expected
