"""The campaign routes, compared with sums over the posts of the same query."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import httpx
import numpy as np
import pytest

from later_reporting_dagster.contract import CAMPAIGN_METRICS, CURSOR, METRICS, DateBasis, Platform, SortDirection
from later_reporting_dagster.contract.enums import ContentType
from later_reporting_dagster.sandbox import SandboxOptions, World, create_app, metric_support, running_server
from later_reporting_dagster.sandbox.synthetic_campaigns import campaign_only_metrics, campaigns_of
from later_reporting_dagster.server.query_parameters import CAMPAIGN_SORT_PROPERTIES
from tests.sandbox.clients import NO_RATE_LIMIT, FaultClient, Row, StartSandbox, authenticate, row_key

CAMPAIGNS = "/v2/campaigns"
PERFORMANCE = "/v2/campaigns/performance"
POSTS = "/v2/posts/performance"
DAY = "startDate=2024-06-03&endDate=2024-06-03&dateBasis=performance_date"
WEEK = "startDate=2024-06-03&endDate=2024-06-09"
METRICS_ALL = "metrics=" + ",".join(metric.api_name for metric in CAMPAIGN_METRICS)
DETAILS = ["campaignId", "dateRange", "description", "platforms", "title"]

LINK_METRICS = (
    "clicks", "paidClicks", "paidInitialPlays", "trackingLinksClicks", "trackingLinksConversions",
    "trackingLinksConversionValue", "affiliateLinksClicks", "affiliateLinksConversions", "affiliateLinksSales",
    "affiliateLinksCommissionEarned",
)  # fmt: skip
RATES: Mapping[str, tuple[str, str, int]] = {
    "cpe": ("cost", "engagements", 1),
    "cpm": ("cost", "impressions", 1000),
    "paidCpe": ("paidCost", "paidEngagements", 1),
    "paidCpm": ("paidCost", "paidImpressions", 1000),
    "estimatedRoi": ("estimatedValueGenerated", "cost", 1),
    "paidReturnOnAdSpend": ("paidRevenue", "paidCost", 1),
    "affiliateLinksConversionRate": ("affiliateLinksConversions", "affiliateLinksClicks", 100),
    "affiliateLinksRoi": ("affiliateLinksSales", "affiliateLinksCommissionEarned", 1),
}
AMOUNTS = {
    "estimatedValueGenerated", "cost", "paidCost", "paidRevenue", "trackingLinksConversionValue", "affiliateLinksSales",
    "affiliateLinksCommissionEarned",
}  # fmt: skip

FetchRows = Callable[[str], list[Row]]


@pytest.fixture(scope="module")
def cursor_api(world: World) -> Iterator[httpx.Client]:
    """An authenticated client of a sandbox in the cursor API version."""
    app = create_app(world, options=replace(NO_RATE_LIMIT, api_version=CURSOR))
    with running_server(app) as url, httpx.Client(base_url=url) as client:
        authenticate(client)
        yield client


@pytest.fixture(scope="module")
def fetch(api: httpx.Client) -> FetchRows:
    """Fetch the rows of all pages of a list in the paged version."""

    def fetch(path: str) -> list[Row]:
        rows: list[Row] = []
        number, pages = 1, 1
        while number <= pages:
            separator = "&" if "?" in path else "?"
            page = f"{separator}pageSize=30&pageNumber={number}"
            body = api.get(f"{path}{page}").raise_for_status().json()
            rows += body["data"]
            number, pages = number + 1, body["pagination"]["totalPages"]
        assert len(rows) == body["pagination"]["totalItems"]
        return rows

    return fetch


@pytest.fixture(scope="module")
def fetch_by_cursor(cursor_api: httpx.Client) -> FetchRows:
    """Fetch the rows of all pages of a list in the cursor version."""

    def fetch(path: str) -> list[Row]:
        rows: list[Row] = []
        cursor: str | None = ""
        while cursor is not None:
            separator = "&" if "?" in path else "?"
            page = f"&{httpx.QueryParams(nextCursor=cursor)}" if cursor else ""
            body = cursor_api.get(f"{path}{separator}limit=30{page}").raise_for_status().json()
            assert body.keys() == {"data", "nextCursor"}
            rows += body["data"]
            cursor = body["nextCursor"]
        return rows

    return fetch


def by_campaign(rows: Iterable[Row]) -> dict[int, list[Row]]:
    found: defaultdict[int, list[Row]] = defaultdict(list)
    for row in rows:
        found[row["campaignId"]].append(row)
    return dict(found)


def sum_of(values: Iterable[Any]) -> Any:
    """Return the sum of the values that are not null; null if all are."""
    available = [Decimal(str(value)) for value in values if value is not None]
    return float(sum(available)) if available else None


def quotient_of(pairs: Iterable[tuple[Any, Any]], *, scale: int) -> float | None:
    """Return the quotient of the sums of the pairs without null, rounded to two decimals."""
    complete = [pair for pair in pairs if None not in pair]
    top, bottom = (sum((Decimal(str(pair[part])) for pair in complete), Decimal(0)) for part in (0, 1))
    return float((scale * top / bottom).quantize(Decimal("0.01"), ROUND_HALF_UP)) if bottom else None


# Metadata


def campaign_details(world: World, instance_id: str) -> list[tuple[object, ...]]:
    position = world.instance_ids.index(instance_id)
    return [
        (each.name, each.description, each.status, each.start)
        for each in campaigns_of(world)
        if each.instance == position
    ]


def test_campaigns_depend_only_on_the_seed_and_their_instance(world: World) -> None:
    assert campaigns_of(replace(world)) == campaigns_of(world)
    assert campaign_details(replace(world, seed=1), "instance_000") != campaign_details(world, "instance_000")
    for other in (replace(world, extra_instance_ids=("instance_def", "x")), replace(world, posts_per_day=1)):
        assert campaign_details(other, "instance_def") == campaign_details(world, "instance_def")
    names = [campaign_details(world, instance_id) for instance_id in world.instance_ids]
    assert len({tuple(each) for each in names}) == len(names)


def test_campaigns_start_before_the_world_and_drafts_after_it(world: World) -> None:
    for last_day in (world.last_day, date(2024, 2, 29)):
        for campaign in campaigns_of(replace(world, last_day=last_day)):
            is_draft = campaign.status == "draft"
            assert campaign.start > last_day if is_draft else campaign.start <= world.first_day
            assert abs(campaign.start - (last_day if is_draft else world.first_day)) <= timedelta(days=366)


def test_campaigns_list_has_names_and_dates_consistent_with_the_posts(
    fetch: FetchRows, fetch_all_posts: FetchRows, world: World
) -> None:
    campaigns = fetch(CAMPAIGNS)
    posts = by_campaign(fetch_all_posts(f"startDate={world.first_day}&endDate={world.last_day}"))
    assert {each["campaignId"] for each in campaigns} >= posts.keys()
    assert len({each["campaignId"] for each in campaigns}) == len(campaigns) == 4 * 14
    for campaign in campaigns:
        dates = sorted(post["postDate"] for post in posts.get(campaign["campaignId"], []))
        assert {post["instanceId"] for post in posts.get(campaign["campaignId"], [])} <= {campaign["instanceId"]}
        expected = (dates[0], dates[-1]) if dates else (None, None)
        assert (campaign["firstPostDate"], campaign["lastPostDate"]) == expected
        assert campaign["status"] == ("live" if dates else "draft")
        assert campaign["startDate"].endswith("T00:00:00.000Z")
    assert {campaign["status"] for campaign in campaigns} == {"live", "draft"}
    assert any(campaign["description"] is None for campaign in campaigns)
    assert any(campaign["description"] for campaign in campaigns)
    for instance_id in world.instance_ids:
        names = [each["campaignName"] for each in campaigns if each["instanceId"] == instance_id]
        assert len(set(names)) == len(names)
        assert any(not name.replace("–", "-").isascii() for name in names)
        assert any("&" in name for name in names)


def test_campaigns_list_filters_by_instance_in_the_paged_version_only(
    fetch: FetchRows, fetch_by_cursor: FetchRows, api: httpx.Client, cursor_api: httpx.Client
) -> None:
    campaigns = fetch(CAMPAIGNS)
    selected = fetch(f"{CAMPAIGNS}?instanceIds=instance_abc,instance_000")
    assert selected == [each for each in campaigns if each["instanceId"] in ("instance_abc", "instance_000")]
    assert fetch_by_cursor(CAMPAIGNS) == campaigns
    assert api.get(f"{CAMPAIGNS}?instanceIds=nobody").status_code == 403
    for parameter in ("instanceIds=instance_abc", "pageSize=5", "metrics=clicks", "nextCursor=abc", "limit=0"):
        assert cursor_api.get(f"{CAMPAIGNS}?{parameter}").status_code == 400
    for parameter in ("limit=5", "startDate=2024-01-01", "instanceIds=", "pageSize=101"):
        assert api.get(f"{CAMPAIGNS}?{parameter}").status_code == 400


# Sums of posts

QUERIES = [
    f"{WEEK}&dateBasis=post_date",
    f"{WEEK}&dateBasis=performance_date",
    f"{DAY}&instanceIds=instance_000,instance_def",
    f"{WEEK}&platform=tiktok,youtube",
    f"{WEEK}&contentType=instagram_story&dateBasis=performance_date",
    f"{WEEK}&campaignIds=49761,50007,1",
    "startDate=2025-02-01&endDate=2025-02-03&dateBasis=performance_date",
]


@pytest.mark.parametrize("query", QUERIES)
def test_campaign_is_the_sum_of_its_posts(fetch: FetchRows, fetch_all_posts: FetchRows, query: str) -> None:
    posts = by_campaign(fetch_all_posts(query))
    campaigns = fetch(f"{PERFORMANCE}?{query}")
    assert [each["campaignId"] for each in campaigns] == sorted(posts)
    for campaign in campaigns:
        rows = posts[campaign["campaignId"]]
        for name in ("engagements", "impressions", "estimatedValueGenerated", "paidEngagements", "paidImpressions"):
            assert campaign[name] == sum_of(row[name] for row in rows), name
        assert campaign["postsCount"] == len({row["postId"] for row in rows})
        pairs = ((row["engagements"], row["impressions"]) for row in rows)
        assert campaign["engagementRate"] == quotient_of(pairs, scale=100)
        paid_pairs = ((row["paidEngagements"], row["paidImpressions"]) for row in rows)
        assert campaign["paidEngagementRate"] == quotient_of(paid_pairs, scale=100)
        assert campaign["platforms"] == sorted({str(row["contentType"]).partition("_")[0] for row in rows})


@pytest.mark.parametrize("basis", list(DateBasis))
def test_campaign_costs_returns_and_rates_equal_those_of_the_posts(
    world: World, fetch_by_cursor: FetchRows, fetch_all_posts: FetchRows, basis: DateBasis
) -> None:
    query = f"{WEEK}&dateBasis={basis}"
    rows_by_key = {key: number for number, key in enumerate(post_keys(world))}
    days = (date(2024, 6, 3).toordinal(), date(2024, 6, 9).toordinal())
    since, until = (1, world.last_day.toordinal()) if basis is DateBasis.POST_DATE else days
    campaigns = {
        each["campaignId"]: each["metrics"] for each in fetch_by_cursor(f"{PERFORMANCE}?{query}&{METRICS_ALL}")
    }
    posts = by_campaign(fetch_all_posts(query))
    assert campaigns.keys() == posts.keys()
    for campaign_id, post_rows in posts.items():
        rows = np.array([rows_by_key[row_key(row)] for row in post_rows])
        values = world.accrued(rows, since=since, until=until) | campaign_only_metrics(
            world, rows, since=since, until=until
        )
        columns = {name: nullable_list(name, column) for name, column in values.items()}
        metrics = campaigns[campaign_id]
        assert metrics["estimatedContentCost"] == sum_of(columns["cost"])
        assert metrics["paidAdSpend"] == metrics["paidCost"] == sum_of(columns["paidCost"])
        for name in LINK_METRICS:
            assert metrics[name] == sum_of(columns[name]), name
        for name, (top, bottom, scale) in RATES.items():
            pairs = zip(columns[top], columns[bottom], strict=True)
            assert metrics[name] == quotient_of(pairs, scale=scale), name
        impressions = [(row["impressions"], 1) for row in post_rows]
        assert metrics["impressionsPerPost"] == quotient_of(impressions, scale=1)
        paid = [row for row in post_rows if row["paidImpressions"] is not None]
        assert (metrics["influencersCount"], metrics["paidInfluencersCount"]) == (
            len({row["creatorId"] for row in post_rows}),
            len({row["creatorId"] for row in paid}),
        )
        assert (metrics["postsCount"], metrics["paidPostsCount"]) == (len(post_rows), len(paid))


def post_keys(world: World) -> Iterator[tuple[str, int, int]]:
    posts = world.posts
    for instance, campaign_id, post_id in zip(posts.instance, posts.campaign_id, posts.post_id, strict=True):
        yield world.instance_ids[instance], int(campaign_id), int(post_id)


def nullable_list(name: str, column: Any) -> list[Decimal | None]:
    """Return a column of the world in the units of the API."""
    unit = Decimal("0.01") if name in AMOUNTS else Decimal(1)
    return [None if value < 0 else value * unit for value in column.tolist()]


def test_metrics_of_the_cursor_version_are_sums_of_its_posts(fetch_by_cursor: FetchRows) -> None:
    query = f"{WEEK}&dateBasis=performance_date"
    names = {metric.api_name for metric in CAMPAIGN_METRICS if metric in METRICS and metric.kind != "rate"}
    posts: list[Row] = []
    for filter_, content_type in [
        *((f"contentType={each}", each) for each in ContentType),
        ("platform=twitter", "twitter"),
    ]:
        supported = sorted(name for name in names if metric_support.supports(content_type, name))
        posts += fetch_by_cursor(f"{POSTS}?{query}&{filter_}&metrics={','.join(supported)}")
    posts_by_campaign = by_campaign(posts)
    campaigns = fetch_by_cursor(f"{PERFORMANCE}?{query}&metrics={','.join(sorted(names))}")
    assert [each["campaignId"] for each in campaigns] == sorted(posts_by_campaign)
    for campaign in campaigns:
        assert list(campaign["metrics"]) == sorted(names)
        for name, value in campaign["metrics"].items():
            rows = posts_by_campaign[campaign["campaignId"]]
            assert value == sum_of(row["metrics"].get(name) for row in rows), name


def test_additive_metrics_of_days_add_up_to_those_of_the_range(fetch_by_cursor: FetchRows) -> None:
    names = [metric.api_name for metric in CAMPAIGN_METRICS if metric.kind.is_additive]
    path = f"{PERFORMANCE}?dateBasis=performance_date&metrics={','.join(names)}"
    days = [date(2024, 6, 3) + timedelta(days=number) for number in range(7)]
    daily = by_campaign(row for day in days for row in fetch_by_cursor(f"{path}&startDate={day}&endDate={day}"))
    week = fetch_by_cursor(f"{path}&{WEEK}")
    assert {row["campaignId"] for row in week} == daily.keys()
    for row in week:
        for name, value in row["metrics"].items():
            assert value == sum_of(day["metrics"][name] for day in daily[row["campaignId"]]), name
    conversions = [row["metrics"]["trackingLinksConversions"] for row in week]
    assert any(conversions)


@pytest.mark.parametrize("prefix", ["trackingLinks", "affiliateLinks"])
def test_some_campaigns_have_no_links(fetch: FetchRows, prefix: str) -> None:
    year = fetch(f"{PERFORMANCE}?startDate=2024-01-01&endDate=2024-12-31")
    names = [name for name in year[0] if name.startswith(prefix)]
    without = {row["campaignId"] for row in year if row[names[0]] is None}
    assert 0 < len(without) < len(year)
    for row in year:
        assert {row[name] is None for name in names} == {row["campaignId"] in without}


# Form of the response


def test_both_versions_have_the_same_campaigns_and_values(fetch: FetchRows, fetch_by_cursor: FetchRows) -> None:
    query = f"{DAY}&sortProperty=paidAdSpend"
    flat = fetch(f"{PERFORMANCE}?{query}")
    nested = fetch_by_cursor(f"{PERFORMANCE}?{query}&metrics={','.join(CAMPAIGN_SORT_PROPERTIES)}")
    assert [{name: row[name] for name in row if name != "metrics"} | row["metrics"] for row in nested] == flat
    assert list(flat[0]) == [*DETAILS, *CAMPAIGN_SORT_PROPERTIES]
    assert list(nested[0]) == [*DETAILS, "metrics"]


def test_campaign_details_equal_those_of_the_list(fetch: FetchRows) -> None:
    listed = {row["campaignId"]: row for row in fetch(CAMPAIGNS)}
    for row in fetch(f"{PERFORMANCE}?{WEEK}"):
        campaign = listed[row["campaignId"]]
        assert (row["title"], row["description"]) == (campaign["campaignName"], campaign["description"])
        assert row["dateRange"] == {"startDate": campaign["startDate"][:10], "endDate": None}
        assert set(row["platforms"]) <= set(Platform)


@pytest.mark.parametrize("direction", list(SortDirection))
def test_campaigns_are_sorted_by_every_metric_of_the_paged_version(fetch: FetchRows, direction: str) -> None:
    for name in CAMPAIGN_SORT_PROPERTIES:
        rows = fetch(f"{PERFORMANCE}?{WEEK}&sortProperty={name}&sortDirection={direction}")
        values = [row[name] for row in rows]
        available = [value for value in values if value is not None]
        assert len(set(available)) > 5
        assert available == sorted(available, reverse=direction == "DESC")
        assert values[len(available) :] == [None] * (len(values) - len(available))


def test_sort_direction_default_is_desc(fetch: FetchRows) -> None:
    query = f"{PERFORMANCE}?{WEEK}&sortProperty=paidClicks"
    assert fetch(query) == fetch(f"{query}&sortDirection=DESC") != fetch(f"{query}&sortDirection=ASC")


@pytest.mark.parametrize(
    ("parameters", "status", "problem_type"),
    [
        ("", 400, "ANL_00400"),
        (f"{WEEK}&sortProperty=postDate", 400, "ANL_00422"),
        (f"{WEEK}&sortProperty=likes", 400, "ANL_00422"),
        (f"{WEEK}&metrics=likes", 400, "ANL_00400"),
        (f"{WEEK}&platform=tiktok&contentType=tiktok", 400, "ANL_00400"),
        (f"{WEEK}&instanceIds=nobody", 403, "ANL_00403"),
        (f"{WEEK}&campaignIds={','.join(map(str, range(51)))}", 400, "ANL_00400"),
        ("startDate=2024-06-03&endDate=2024-06-02", 400, "ANL_00400"),
    ],
)
def test_invalid_campaign_query_is_rejected(api: httpx.Client, parameters: str, status: int, problem_type: str) -> None:
    response = api.get(f"{PERFORMANCE}?{parameters}")
    assert (response.status_code, response.json()["type"]) == (status, problem_type)


def test_unsupported_campaign_metric_is_rejected_in_the_cursor_version(cursor_api: httpx.Client) -> None:
    response = cursor_api.get(f"{PERFORMANCE}?{WEEK}&metrics=clicks,followersAtPostDate,nonsense")
    assert (response.status_code, response.json()["type"]) == (400, "ANL_00400")
    assert response.json()["detail"] == "metrics not supported: followersAtPostDate, nonsense"
    for parameters in (WEEK, f"{WEEK}&metrics=", f"{WEEK}&metrics=clicks&pageSize=10"):
        assert cursor_api.get(f"{PERFORMANCE}?{parameters}").status_code == 400
    assert cursor_api.get(f"{PERFORMANCE}?{WEEK}&metrics=clicks,views&platform=twitter").status_code == 200


def test_credentials_see_only_the_campaigns_of_their_instance_scope(start_sandbox: StartSandbox) -> None:
    options = replace(NO_RATE_LIMIT, instance_scope=("instance_001",))
    client = start_sandbox(options=options)
    campaigns = client.get(CAMPAIGNS).json()["data"]
    assert {row["instanceId"] for row in campaigns} == {"instance_001"}
    found = {row["campaignId"] for row in client.get(f"{PERFORMANCE}?{WEEK}").json()["data"]}
    assert found
    assert found <= {row["campaignId"] for row in campaigns}
    assert client.get(f"{PERFORMANCE}?{WEEK}&instanceIds=instance_000").status == 403


# Options


def test_refused_metrics_are_absent_or_rejected(start_sandbox: StartSandbox) -> None:
    refused = ("paidAdSpend", "clicks")
    client = start_sandbox(options=replace(NO_RATE_LIMIT, refused_campaign_metrics=refused))
    (row, *_) = client.get(f"{PERFORMANCE}?{WEEK}").json()["data"]
    assert list(row) == [*DETAILS, *(name for name in CAMPAIGN_SORT_PROPERTIES if name != "paidAdSpend")]
    options = replace(NO_RATE_LIMIT, refused_campaign_metrics=refused, api_version=CURSOR)
    client = start_sandbox(options=options)
    response = client.get(f"{PERFORMANCE}?{WEEK}&metrics=likes,clicks,paidAdSpend")
    assert (response.status, response.json()["detail"]) == (400, "metrics not supported: clicks, paidAdSpend")
    assert client.get(f"{PERFORMANCE}?{WEEK}&metrics=likes").status == 200


@pytest.mark.parametrize(("status", "problem_type"), [(403, "ANL_00403"), (404, "ANL_00404")])
def test_refused_campaign_routes_leave_posts_unchanged(
    start_sandbox: StartSandbox, status: int, problem_type: str
) -> None:
    client: FaultClient = start_sandbox(options=replace(NO_RATE_LIMIT, campaigns_status=status))
    for path in (CAMPAIGNS, f"{PERFORMANCE}?{WEEK}"):
        response = client.get(path)
        assert (response.status, response.json()["type"]) == (status, problem_type)
        assert response.headers["content-type"] == "application/problem+json"
        assert client.get(path, Authorization="Bearer wrong").status == 401
    assert client.get(f"{POSTS}?{WEEK}").status == client.get("/v2/instances").status == 200


@pytest.mark.parametrize(
    ("invalid", "message"),
    [({"campaigns_status": 500}, "403 or 404"), ({"refused_campaign_metrics": ("clicks", "nonsense")}, "nonsense")],
)
def test_invalid_options_are_rejected(invalid: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SandboxOptions(**invalid)
