"""The posts route as described by the API reference. Docstrings and the keys of `REJECTED` quote the reference."""

import json
import re
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pytest

from later_reporting_dagster.contract import DEFAULT_METRICS, ContentType, Platform, SortProperty, platform_of
from tests.sandbox.clients import FetchAllPosts, GetPosts, Row, row_key, unique_keys

JUNE = "startDate=2024-06-01&endDate=2024-06-14"

SAMPLE = json.loads((Path(__file__).parents[1] / "samples" / "post_performance" / "200.json").read_bytes())
EXAMPLE = (
    "startDate=2024-01-01&endDate=2024-12-31&instanceIds=instance_abc&instanceIds=instance_def&campaignIds=49761"
    "&campaignIds=49802&platform=instagram&platform=tiktok&contentType=instagram_reel&contentType=tiktok"
    "&dateBasis=post_date&pageSize=50&pageNumber=1&sortProperty=impressions&sortDirection=DESC"
)
EXAMPLE_WITHOUT_CONTENT_TYPE = EXAMPLE.replace("&contentType=instagram_reel&contentType=tiktok", "")


ARRAYS = {
    "instanceIds": ("instance_000", "instance_abc", "instance_def"),
    "campaignIds": ("49761", "49802", "49843"),
    "platform": ("instagram", "tiktok", "twitter"),
    "contentType": ("instagram_reel", "tiktok", "youtube_video"),
}


def assert_rejected(response: httpx.Response, *, problem_type: str = "ANL_00400") -> None:
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["type"] == problem_type
    assert set(response.json()) == {"type", "title", "detail"}


def assert_same_shape(row: Row, sample: Row) -> None:
    """Assert the same names in the same order, and values of the same JSON type or null."""
    assert list(row) == list(sample)
    for name, value in row.items():
        if isinstance(sample[name], dict):
            assert_same_shape(value, sample[name])
        elif value is not None:
            kind = (int, float) if isinstance(sample[name], float) else type(sample[name])
            # The sample has a whole estimated value, but it is an amount of money and may have a fraction.
            assert isinstance(value, (int, float) if name == "estimatedValueGenerated" else kind), name


def published_day(row: Row) -> str:
    return str(row["postDate"][:10])


# Rejected queries

DATES = ["2024-6-1", "20240601", "2024-W22-6", "2024-06-01T00:00:00Z", "2024-02-30", "٢٠٢٤-٠٦-٠١", ""]
REJECTED = {
    "startDate required, endDate required": ["", "startDate=2024-06-01", "endDate=2024-06-01"],
    "Format: YYYY-MM-DD": [
        *(f"startDate={day}&endDate=2024-06-01" for day in DATES),
        *(f"startDate=2024-06-01&endDate={day}" for day in DATES),
    ],
    "not in the reference: the range is at most two years and not reversed": [
        "startDate=2024-06-02&endDate=2024-06-01",
        "startDate=2023-01-31&endDate=2025-02-01",
        "startDate=2024-02-29&endDate=2026-03-01",
    ],
    "Type: array number[]": [
        f"{JUNE}&campaignIds={value}" for value in ("abc", "1.5", "1e3", "0x1", "+1", "--1", "٣", "9" * 5000)
    ],
    "campaignIds: array number[] …50": [
        f"{JUNE}&campaignIds={','.join(map(str, range(51)))}",
        f"{JUNE}{''.join(f'&campaignIds={number}' for number in range(51))}",
        f"{JUNE}{''.join(f'&campaignIds[]={number}' for number in range(51))}",
    ],
    "Type: enum": [
        f"{JUNE}&{parameter}"
        for parameter in (
            "platform=myspace",
            "platform=Instagram",
            "platform=instagram,myspace",
            "platform=instagram,tiktok&platform=youtube",
            "contentType=twitter",
            "contentType=instagram",
            "contentType[]=instagram_reel,tiktok",
            "dateBasis=postDate",
            "dateBasis=",
            "sortDirection=desc",
            "sortDirection=UP",
        )
    ],
    # The curl example in the reference sends both; the sandbox follows the text.
    "Cannot be combined with contentType - provide only one of the two": [
        f"{JUNE}&platform=instagram&contentType=instagram_reel",
        f"{JUNE}&platform[]=instagram&contentType[]=tiktok",
        EXAMPLE,
    ],
    "pageSize: number, min: 1, max: 100": [
        f"{JUNE}&pageSize={value}" for value in ("0", "-1", "101", "1.5", "ten", "", "1e1", " 1", "9" * 5000)
    ],
    "pageNumber: number, min: 1, max: 500": [
        f"{JUNE}&pageNumber={value}" for value in ("0", "-1", "501", "1.5", "one", "")
    ],
    "not in the reference: unknown parameters": [
        f"{JUNE}&{parameter}"
        for parameter in ("pagesize=10", "limit=10", "cursor=", "startDate[]=2024-06-01", "=", "metrics=cpm")
    ],
    "not in the reference: repeated single values and empty values": [
        f"{JUNE}&pageSize=10&pageSize=20",
        *(f"{JUNE}&{name}={value}" for name, (one, *_) in ARRAYS.items() for value in ("", f"{one},")),
    ],
}


@pytest.mark.parametrize("queries", REJECTED.values(), ids=REJECTED)
def test_invalid_query_is_rejected(get_posts: GetPosts, queries: list[str]) -> None:
    for query in queries:
        assert_rejected(get_posts(query))


def test_unsupported_sort_property_is_rejected(get_posts: GetPosts) -> None:
    """Use sortProperty to sort by one of the supported fields. (Others: 400 with its own problem type.)"""
    assert_rejected(get_posts(f"{JUNE}&sortProperty=postId"), problem_type="ANL_00422")


@pytest.mark.parametrize(
    "query",
    [
        "startDate=2023-01-31&endDate=2025-01-31",
        "startDate=2024-02-29&endDate=2026-02-28",
        f"{JUNE}&campaignIds={','.join(map(str, range(50)))}",
        *(f"{JUNE}&{parameter}" for parameter in ("pageSize=1", "pageSize=100", "pageNumber=1", "pageNumber=500")),
    ],
)
def test_query_bounds_are_inclusive(get_posts: GetPosts, query: str) -> None:
    assert get_posts(query).status_code == 200


# Returned posts


def test_posts_with_zero_metrics_are_returned(fetch_all_posts: FetchAllPosts) -> None:
    """All posts within the requested date range are returned, including those with zero metric values."""
    rows = fetch_all_posts(JUNE)
    day_by_day = [
        row for day in range(1, 15) for row in fetch_all_posts(f"startDate=2024-06-{day:02}&endDate=2024-06-{day:02}")
    ]
    assert unique_keys(rows) == unique_keys(day_by_day)
    assert any(row["impressions"] == row["engagements"] == 0 for row in rows)
    assert any(
        row["impressions"] == row["engagements"] == 0 for row in fetch_all_posts(f"{JUNE}&dateBasis=performance_date")
    )


# Pagination


def test_page_size_default_is_50_and_maximum_100(get_posts: GetPosts) -> None:
    """Results are paginated. Use pageSize (default: 50, max: 100)."""
    assert get_posts(JUNE).json()["pagination"]["pageSize"] == len(get_posts(JUNE).json()["data"]) == 50
    assert len(get_posts(f"{JUNE}&pageSize=100").json()["data"]) == 100


def test_page_number_is_1_indexed(get_posts: GetPosts) -> None:
    """... and pageNumber (1-indexed) to navigate pages."""
    assert get_posts(JUNE).content == get_posts(f"{JUNE}&pageNumber=1").content
    first, second = (get_posts(f"{JUNE}&pageSize=60&pageNumber={number}").json()["data"] for number in (1, 2))
    assert first + second == get_posts(f"{JUNE}&pageSize=100").json()["data"] + get_posts(
        f"{JUNE}&pageSize=100&pageNumber=2"
    ).json()["data"][:20]  # fmt: skip


def test_response_has_a_pagination_object(get_posts: GetPosts) -> None:
    """The response includes a pagination object with page, pageSize, totalPages, and totalItems."""
    pagination = get_posts(f"{JUNE}&pageSize=7&pageNumber=3").json()["pagination"]
    assert list(pagination) == ["page", "pageSize", "totalItems", "totalPages"]
    assert (pagination["page"], pagination["pageSize"]) == (3, 7)
    assert pagination["totalPages"] == -(-pagination["totalItems"] // 7)


def test_page_past_the_end_is_empty_and_has_the_totals(get_posts: GetPosts) -> None:
    """Not in the reference; implied by the pagination object."""
    first, past_the_end = get_posts(JUNE).json(), get_posts(f"{JUNE}&pageNumber=500").json()
    assert past_the_end["data"] == []
    assert past_the_end["pagination"] == first["pagination"] | {"page": 500}


# Sorting


@pytest.mark.parametrize("direction", ["ASC", "DESC"])
@pytest.mark.parametrize("name", list(SortProperty))
def test_posts_are_sorted_by_every_supported_property_and_direction(
    fetch_all_posts: FetchAllPosts, name: str, direction: str
) -> None:
    """Use sortProperty to sort by one of the supported fields and sortDirection (ASC or DESC, default: DESC) to control
    the order. Supported sortProperty values: engagements, impressions, engagementRate, estimatedValueGenerated, cpe,
    cpm, postDate, paidEngagements, paidImpressions, paidEngagementRate, paidCpe, paidCpm.
    """
    rows = fetch_all_posts(f"{JUNE}&sortProperty={name}&sortDirection={direction}")
    values = [row[name] for row in rows]
    available = [value for value in values if value is not None]
    assert len(set(available)) > 10
    assert available == sorted(available, reverse=direction == "DESC")
    assert values[len(available) :] == [None] * (len(values) - len(available))
    assert unique_keys(rows) == unique_keys(fetch_all_posts(JUNE))


def test_sort_direction_default_is_desc(get_posts: GetPosts) -> None:
    """sortDirection (ASC or DESC, default: DESC)"""
    query = f"{JUNE}&sortProperty=impressions"
    assert get_posts(query).content == get_posts(f"{query}&sortDirection=DESC").content
    assert get_posts(query).content != get_posts(f"{query}&sortDirection=ASC").content


def test_sort_property_default_is_post_date(fetch_all_posts: FetchAllPosts) -> None:
    """Not in the reference; suggested by the default direction."""
    assert fetch_all_posts(JUNE) == fetch_all_posts(f"{JUNE}&sortProperty=postDate&sortDirection=DESC")


# Metric naming


@pytest.mark.parametrize("name", [metric.api_name for metric in DEFAULT_METRICS])
def test_metric_is_nullable(fetch_all_posts: FetchAllPosts, name: str) -> None:
    """All metric fields are nullable - null indicates the metric is not available for the given data."""
    values = [row[name] for row in fetch_all_posts(JUNE)]
    assert None in values
    assert {type(value) for value in values} & {int, float}


# startDate, endDate


def test_start_and_end_date_are_inclusive(fetch_all_posts: FetchAllPosts) -> None:
    """Start of the reporting period (inclusive). End of the reporting period (inclusive)."""
    days = {published_day(row) for row in fetch_all_posts("startDate=2024-06-03&endDate=2024-06-05")}
    assert days == {"2024-06-03", "2024-06-04", "2024-06-05"}
    assert {published_day(row) for row in fetch_all_posts("startDate=2024-06-04&endDate=2024-06-04")} == {"2024-06-04"}


# Arrays, in three forms


@pytest.mark.parametrize("name", list(ARRAYS))
def test_array_is_accepted_in_three_forms(fetch_all_posts: FetchAllPosts, name: str) -> None:
    """Supported array formats: param=a,b,c (comma-separated), param=a&param=b (repeated key), or param[]=a&param[]=b
    (bracket syntax).
    """
    values = ARRAYS[name]
    comma = fetch_all_posts(f"{JUNE}&{name}={','.join(values)}")
    repeated = fetch_all_posts("&".join([JUNE, *(f"{name}={value}" for value in values)]))
    bracket = fetch_all_posts("&".join([JUNE, *(f"{name}[]={value}" for value in values)]))
    encoded = fetch_all_posts("&".join([JUNE, *(f"{name}%5B%5D={value}" for value in values)]))
    one_by_one = [row for value in values for row in fetch_all_posts(f"{JUNE}&{name}={value}")]
    assert comma == repeated == bracket == encoded
    assert unique_keys(comma) == unique_keys(one_by_one)


# Filters


@pytest.mark.parametrize(
    ("parameter", "row_value", "value"),
    [
        ("instanceIds=instance_001", lambda row: row["instanceId"], "instance_001"),
        ("campaignIds=49802", lambda row: row["campaignId"], 49802),
        *((f"platform={each}", lambda row: platform_of(row["contentType"]), each) for each in Platform),
    ],
)
def test_filter_returns_only_matching_rows(
    fetch_all_posts: FetchAllPosts, parameter: str, row_value: Callable[[Row], object], value: object
) -> None:
    """One or more instance IDs to limit the query scope. Filter results to specific campaigns. Filter by top-level
    platform: instagram, tiktok, facebook, youtube, twitter. Selecting a platform includes all its content types.
    Without a filter all are included.
    """
    rows = fetch_all_posts(f"{JUNE}&{parameter}")
    assert unique_keys(rows) == {row_key(row) for row in fetch_all_posts(JUNE) if row_value(row) == value}
    assert rows


def test_campaign_ids_beyond_int64_match_nothing(get_posts: GetPosts) -> None:
    assert get_posts(f"{JUNE}&campaignIds=-1,{2**63},{10**30}").json()["data"] == []


# platform, contentType


@pytest.mark.parametrize("content_type", list(ContentType))
def test_content_type_filter_returns_only_that_type(fetch_all_posts: FetchAllPosts, content_type: ContentType) -> None:
    """Filter by specific content type for granular filtering beyond top-level platforms: instagram_post,
    instagram_reel, instagram_story; facebook_post, facebook_live, facebook_group, facebook_reel; tiktok,
    youtube_video, youtube_shorts.
    """
    year = "startDate=2024-01-01&endDate=2024-12-31&instanceIds=instance_000"
    rows = fetch_all_posts(f"{year}&contentType={content_type}")
    assert {row["contentType"] for row in rows} == {content_type}


# dateBasis


def test_date_basis_default_is_post_date(get_posts: GetPosts) -> None:
    """post_date (default)"""
    assert get_posts(JUNE).content == get_posts(f"{JUNE}&dateBasis=post_date").content
    assert get_posts(JUNE).content != get_posts(f"{JUNE}&dateBasis=performance_date").content


def test_performance_date_includes_older_posts(fetch_all_posts: FetchAllPosts) -> None:
    """performance_date: returns metrics recorded within the requested date range, regardless of when the content was
    originally published.
    """
    rows = fetch_all_posts("startDate=2024-06-01&endDate=2024-06-01&dateBasis=performance_date")
    days = {published_day(row) for row in rows}
    assert max(days) == "2024-06-01"
    assert min(days) < "2024-05-15"
    to_date = {row_key(row): row for row in fetch_all_posts("startDate=2024-05-01&endDate=2024-06-01")}
    assert any(row["impressions"] != to_date[row_key(row)]["impressions"] for row in rows)


def test_post_is_in_the_month_of_engagement_or_of_publication(fetch_all_posts: FetchAllPosts) -> None:
    """Example: a post published on Jan 5 that receives engagement on Feb 10 will appear in a Feb 1-28 query with
    performance_date, but in a Jan 1-31 query with post_date. (Here: any post of January.)
    """
    february_10 = fetch_all_posts("startDate=2024-02-10&endDate=2024-02-10&dateBasis=performance_date")
    engaged_later = {row_key(row) for row in february_10 if published_day(row) < "2024-02-01" and row["engagements"]}
    assert engaged_later
    assert engaged_later <= unique_keys(
        fetch_all_posts("startDate=2024-02-01&endDate=2024-02-28&dateBasis=performance_date")
    )
    assert engaged_later <= unique_keys(fetch_all_posts("startDate=2024-01-01&endDate=2024-01-31&dateBasis=post_date"))
    assert not engaged_later & unique_keys(
        fetch_all_posts("startDate=2024-02-01&endDate=2024-02-28&dateBasis=post_date")
    )


def test_day_after_the_last_day_has_no_data(world: Any, fetch_all_posts: FetchAllPosts) -> None:
    """Data is current up to the previous day: the last day of the world."""
    assert world.last_day == date(2025, 1, 31)
    assert fetch_all_posts("startDate=2025-01-31&endDate=2025-01-31&dateBasis=performance_date")
    assert not fetch_all_posts("startDate=2025-02-01&endDate=2025-02-01&dateBasis=performance_date")
    assert not fetch_all_posts("startDate=2025-02-01&endDate=2025-02-01")


# The example and the sample


def test_curl_example_returns_the_shape_of_the_sample(get_posts: GetPosts) -> None:
    assert get_posts(EXAMPLE_WITHOUT_CONTENT_TYPE).json()["data"] == []  # campaigns of another instance
    example = EXAMPLE_WITHOUT_CONTENT_TYPE.replace("49761", "50745").replace("49802", "51237")
    response = get_posts(example)
    assert response.status_code == 200
    assert list(response.json()) == list(SAMPLE)
    assert response.json()["data"]
    for row in response.json()["data"]:
        assert (row["instanceId"], row["campaignId"]) in (("instance_abc", 50745), ("instance_def", 51237))
        assert row["contentType"].startswith(("instagram_", "tiktok"))
        assert row["postDate"].startswith("2024-")
        assert_same_shape(row, SAMPLE["data"][0])
    impressions = [row["impressions"] for row in response.json()["data"] if row["impressions"] is not None]
    assert impressions == sorted(impressions, reverse=True)


def test_post_has_the_shape_of_the_sample(fetch_all_posts: FetchAllPosts) -> None:
    for row in fetch_all_posts(JUNE):
        assert_same_shape(row, SAMPLE["data"][0])
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", row["postDate"])


def test_whole_amounts_have_no_fraction(get_posts: GetPosts) -> None:
    """ "estimatedValueGenerated": 3200"""
    assert re.search(rb":0[,}]", get_posts(JUNE).content)
    assert not re.search(rb"\.0[,}]", get_posts(JUNE).content)
