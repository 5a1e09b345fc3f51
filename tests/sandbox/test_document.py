"""Every sentence of the document, as a statement about the sandbox, asked over real HTTP. Docstrings quote it."""

import json
import re
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pytest

from later_reporting_dagster.contract import DOCUMENT_METRICS, ContentType, Platform, SortProperty, platform_of
from tests.sandbox.conftest import Row, key, keys

Ask = Callable[[str], httpx.Response]
AllPosts = Callable[[str], list[Row]]

JUNE = "startDate=2024-06-01&endDate=2024-06-14"

SAMPLE = json.loads((Path(__file__).parents[1] / "samples" / "post_performance" / "200.json").read_bytes())
EXAMPLE = (
    "startDate=2024-01-01&endDate=2024-12-31&instanceIds=instance_abc&instanceIds=instance_def&campaignIds=49761"
    "&campaignIds=49802&platform=instagram&platform=tiktok&contentType=instagram_reel&contentType=tiktok"
    "&dateBasis=post_date&pageSize=50&pageNumber=1&sortProperty=impressions&sortDirection=DESC"
)
EXAMPLE_LESS_CONTENT_TYPE = EXAMPLE.replace("&contentType=instagram_reel&contentType=tiktok", "")


ARRAYS = {
    "instanceIds": ("instance_000", "instance_abc", "instance_def"),
    "campaignIds": ("49761", "49802", "49843"),
    "platform": ("instagram", "tiktok", "twitter"),
    "contentType": ("instagram_reel", "tiktok", "youtube_video"),
}


def assert_refused(answer: httpx.Response, *, problem_type: str = "ANL_00400") -> None:
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == problem_type
    assert set(answer.json()) == {"type", "title", "detail"}


def assert_same_shape(row: Row, sample: Row) -> None:
    """The same names in the same order, and values of the same JSON type or null."""
    assert list(row) == list(sample)
    for name, value in row.items():
        if isinstance(sample[name], dict):
            assert_same_shape(value, sample[name])
        elif value is not None:
            kind = (int, float) if isinstance(sample[name], float) else type(sample[name])
            # The sample's estimated value is whole by chance: it is an amount of money.
            assert isinstance(value, (int, float) if name == "estimatedValueGenerated" else kind), name


def published_day(row: Row) -> str:
    return str(row["postDate"][:10])


# What is refused

DATES = ["2024-6-1", "20240601", "2024-W22-6", "2024-06-01T00:00:00Z", "2024-02-30", "٢٠٢٤-٠٦-٠١", ""]
REFUSED = {
    "startDate required, endDate required": ["", "startDate=2024-06-01", "endDate=2024-06-01"],
    "Format: YYYY-MM-DD": [
        *(f"startDate={day}&endDate=2024-06-01" for day in DATES),
        *(f"startDate=2024-06-01&endDate={day}" for day in DATES),
    ],
    "not in the document: the range runs forward and spans two years at most": [
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
        f"{JUNE}&{given}"
        for given in (
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
    # The curl example sends both; the text wins.
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
    "not in the document: an ignored parameter would hide a client's mistake": [
        f"{JUNE}&{given}"
        for given in ("pagesize=10", "limit=10", "cursor=", "startDate[]=2024-06-01", "=", "metrics=cpm")
    ],
    "not in the document: a single value is given once, and none is empty": [
        f"{JUNE}&pageSize=10&pageSize=20",
        *(f"{JUNE}&{name}={value}" for name, (one, *_) in ARRAYS.items() for value in ("", f"{one},")),
    ],
}


@pytest.mark.parametrize("queries", REFUSED.values(), ids=REFUSED)
def test_a_query_outside_the_document_is_refused(ask: Ask, queries: list[str]) -> None:
    for query in queries:
        assert_refused(ask(query))


def test_only_the_supported_sort_fields_are_sorted_by(ask: Ask) -> None:
    """Use sortProperty to sort by one of the supported fields. (Any other: HTTP 400, but a type of its own.)"""
    assert_refused(ask(f"{JUNE}&sortProperty=postId"), problem_type="ANL_00422")


@pytest.mark.parametrize(
    "query",
    [
        "startDate=2023-01-31&endDate=2025-01-31",
        "startDate=2024-02-29&endDate=2026-02-28",
        f"{JUNE}&campaignIds={','.join(map(str, range(50)))}",
        *(f"{JUNE}&{given}" for given in ("pageSize=1", "pageSize=100", "pageNumber=1", "pageNumber=500")),
    ],
)
def test_bounds_are_inclusive(ask: Ask, query: str) -> None:
    assert ask(query).status_code == 200


# What is returned


def test_all_posts_are_returned_including_those_with_zero_metric_values(all_posts: AllPosts) -> None:
    """All posts within the requested date range are returned, including those with zero metric values."""
    rows = all_posts(JUNE)
    day_by_day = [
        row for day in range(1, 15) for row in all_posts(f"startDate=2024-06-{day:02}&endDate=2024-06-{day:02}")
    ]
    assert keys(rows) == keys(day_by_day)
    assert any(row["impressions"] == row["engagements"] == 0 for row in rows)
    assert any(row["impressions"] == row["engagements"] == 0 for row in all_posts(f"{JUNE}&dateBasis=performance_date"))


# Pagination


def test_page_size_is_50_by_default_and_100_at_most(ask: Ask) -> None:
    """Results are paginated. Use pageSize (default: 50, max: 100)."""
    assert ask(JUNE).json()["pagination"]["pageSize"] == len(ask(JUNE).json()["data"]) == 50
    assert len(ask(f"{JUNE}&pageSize=100").json()["data"]) == 100


def test_page_number_is_1_indexed_and_navigates_pages(ask: Ask) -> None:
    """... and pageNumber (1-indexed) to navigate pages."""
    assert ask(JUNE).content == ask(f"{JUNE}&pageNumber=1").content
    first, second = (ask(f"{JUNE}&pageSize=60&pageNumber={number}").json()["data"] for number in (1, 2))
    assert first + second == ask(f"{JUNE}&pageSize=100").json()["data"] + ask(
        f"{JUNE}&pageSize=100&pageNumber=2"
    ).json()["data"][:20]  # fmt: skip


def test_response_includes_a_pagination_object(ask: Ask) -> None:
    """The response includes a pagination object with page, pageSize, totalPages, and totalItems."""
    pagination = ask(f"{JUNE}&pageSize=7&pageNumber=3").json()["pagination"]
    assert list(pagination) == ["page", "pageSize", "totalItems", "totalPages"]
    assert (pagination["page"], pagination["pageSize"]) == (3, 7)
    assert pagination["totalPages"] == -(-pagination["totalItems"] // 7)


def test_a_page_past_the_end_is_empty_and_has_the_true_totals(ask: Ask) -> None:
    """Not in the document, but what its pagination object implies."""
    first, past = ask(JUNE).json(), ask(f"{JUNE}&pageNumber=500").json()
    assert past["data"] == []
    assert past["pagination"] == first["pagination"] | {"page": 500}


# Sorting


@pytest.mark.parametrize("direction", ["ASC", "DESC"])
@pytest.mark.parametrize("name", list(SortProperty))
def test_sorts_by_every_supported_field_in_either_direction(all_posts: AllPosts, name: str, direction: str) -> None:
    """Use sortProperty to sort by one of the supported fields and sortDirection (ASC or DESC, default: DESC) to control
    the order. Supported sortProperty values: engagements, impressions, engagementRate, estimatedValueGenerated, cpe,
    cpm, postDate, paidEngagements, paidImpressions, paidEngagementRate, paidCpe, paidCpm.
    """
    rows = all_posts(f"{JUNE}&sortProperty={name}&sortDirection={direction}")
    values = [row[name] for row in rows]
    available = [value for value in values if value is not None]
    assert len(set(available)) > 10
    assert available == sorted(available, reverse=direction == "DESC")
    assert values[len(available) :] == [None] * (len(values) - len(available))
    assert keys(rows) == keys(all_posts(JUNE))


def test_sort_direction_is_desc_by_default(ask: Ask) -> None:
    """sortDirection (ASC or DESC, default: DESC)"""
    query = f"{JUNE}&sortProperty=impressions"
    assert ask(query).content == ask(f"{query}&sortDirection=DESC").content
    assert ask(query).content != ask(f"{query}&sortDirection=ASC").content


def test_order_without_a_sort_property_is_newest_first(all_posts: AllPosts) -> None:
    """Not in the document: its default direction suggests it."""
    assert all_posts(JUNE) == all_posts(f"{JUNE}&sortProperty=postDate&sortDirection=DESC")


# Metric naming


@pytest.mark.parametrize("name", [metric.api_name for metric in DOCUMENT_METRICS])
def test_every_metric_is_nullable(all_posts: AllPosts, name: str) -> None:
    """All metric fields are nullable - null indicates the metric is not available for the given data."""
    values = [row[name] for row in all_posts(JUNE)]
    assert None in values
    assert {type(value) for value in values} & {int, float}


# startDate, endDate


def test_both_dates_are_inclusive(all_posts: AllPosts) -> None:
    """Start of the reporting period (inclusive). End of the reporting period (inclusive)."""
    days = {published_day(row) for row in all_posts("startDate=2024-06-03&endDate=2024-06-05")}
    assert days == {"2024-06-03", "2024-06-04", "2024-06-05"}
    assert {published_day(row) for row in all_posts("startDate=2024-06-04&endDate=2024-06-04")} == {"2024-06-04"}


# Arrays, in three forms


@pytest.mark.parametrize("name", list(ARRAYS))
def test_arrays_are_accepted_in_three_forms(all_posts: AllPosts, name: str) -> None:
    """Supported array formats: param=a,b,c (comma-separated), param=a&param=b (repeated key), or param[]=a&param[]=b
    (bracket syntax).
    """
    values = ARRAYS[name]
    comma = all_posts(f"{JUNE}&{name}={','.join(values)}")
    repeated = all_posts("&".join([JUNE, *(f"{name}={value}" for value in values)]))
    bracket = all_posts("&".join([JUNE, *(f"{name}[]={value}" for value in values)]))
    encoded = all_posts("&".join([JUNE, *(f"{name}%5B%5D={value}" for value in values)]))
    one_by_one = [row for value in values for row in all_posts(f"{JUNE}&{name}={value}")]
    assert comma == repeated == bracket == encoded
    assert keys(comma) == keys(one_by_one)


# Filters


@pytest.mark.parametrize(
    ("filter_", "of_row", "value"),
    [
        ("instanceIds=instance_001", lambda row: row["instanceId"], "instance_001"),
        ("campaignIds=49802", lambda row: row["campaignId"], 49802),
        *((f"platform={each}", lambda row: platform_of(row["contentType"]), each) for each in Platform),
    ],
)
def test_a_filter_leaves_just_the_rows_of_its_value(
    all_posts: AllPosts, filter_: str, of_row: Callable[[Row], object], value: object
) -> None:
    """One or more instance IDs to limit the query scope. Filter results to specific campaigns. Filter by top-level
    platform: instagram, tiktok, facebook, youtube, twitter. Selecting a platform includes all its content types.
    Without a filter all are included.
    """
    rows = all_posts(f"{JUNE}&{filter_}")
    assert keys(rows) == {key(row) for row in all_posts(JUNE) if of_row(row) == value}
    assert rows


def test_campaign_ids_that_no_campaign_can_have_match_nothing(ask: Ask) -> None:
    assert ask(f"{JUNE}&campaignIds=-1,{2**63},{10**30}").json()["data"] == []


# platform, contentType


@pytest.mark.parametrize("content_type", list(ContentType))
def test_every_content_type_filters(all_posts: AllPosts, content_type: ContentType) -> None:
    """Filter by specific content type for granular filtering beyond top-level platforms: instagram_post,
    instagram_reel, instagram_story; facebook_post, facebook_live, facebook_group, facebook_reel; tiktok,
    youtube_video, youtube_shorts.
    """
    year = "startDate=2024-01-01&endDate=2024-12-31&instanceIds=instance_000"
    rows = all_posts(f"{year}&contentType={content_type}")
    assert {row["contentType"] for row in rows} == {content_type}


# dateBasis


def test_date_basis_is_post_date_by_default(ask: Ask) -> None:
    """post_date (default)"""
    assert ask(JUNE).content == ask(f"{JUNE}&dateBasis=post_date").content
    assert ask(JUNE).content != ask(f"{JUNE}&dateBasis=performance_date").content


def test_performance_date_ignores_the_date_of_publication(all_posts: AllPosts) -> None:
    """performance_date: returns metrics recorded within the requested date range, regardless of when the content was
    originally published.
    """
    rows = all_posts("startDate=2024-06-01&endDate=2024-06-01&dateBasis=performance_date")
    days = {published_day(row) for row in rows}
    assert max(days) == "2024-06-01"
    assert min(days) < "2024-05-15"
    to_date = {key(row): row for row in all_posts("startDate=2024-05-01&endDate=2024-06-01")}
    assert any(row["impressions"] != to_date[key(row)]["impressions"] for row in rows)


def test_a_post_is_in_the_month_of_its_engagement_or_of_its_publication(all_posts: AllPosts) -> None:
    """Example: a post published on Jan 5 that receives engagement on Feb 10 will appear in a Feb 1-28 query with
    performance_date, but in a Jan 1-31 query with post_date. (Here: any post of January.)
    """
    february_10 = all_posts("startDate=2024-02-10&endDate=2024-02-10&dateBasis=performance_date")
    late = {key(row) for row in february_10 if published_day(row) < "2024-02-01" and row["engagements"]}
    assert late
    assert late <= keys(all_posts("startDate=2024-02-01&endDate=2024-02-28&dateBasis=performance_date"))
    assert late <= keys(all_posts("startDate=2024-01-01&endDate=2024-01-31&dateBasis=post_date"))
    assert not late & keys(all_posts("startDate=2024-02-01&endDate=2024-02-28&dateBasis=post_date"))


def test_a_day_that_is_not_over_has_no_metrics_yet(world: Any, all_posts: AllPosts) -> None:
    """Data is current up to the previous day: the last day of the world."""
    assert world.last_day == date(2025, 1, 31)
    assert all_posts("startDate=2025-01-31&endDate=2025-01-31&dateBasis=performance_date")
    assert not all_posts("startDate=2025-02-01&endDate=2025-02-01&dateBasis=performance_date")
    assert not all_posts("startDate=2025-02-01&endDate=2025-02-01")


# The example and the sample


def test_the_curl_example_less_its_content_type_answers_in_the_documents_shape(ask: Ask) -> None:
    answer = ask(EXAMPLE_LESS_CONTENT_TYPE)
    assert answer.status_code == 200
    assert list(answer.json()) == list(SAMPLE)
    assert answer.json()["data"]
    for row in answer.json()["data"]:
        assert row["instanceId"] in ("instance_abc", "instance_def")
        assert row["campaignId"] in (49761, 49802)
        assert row["contentType"].startswith(("instagram_", "tiktok"))
        assert row["postDate"].startswith("2024-")
        assert_same_shape(row, SAMPLE["data"][0])
    impressions = [row["impressions"] for row in answer.json()["data"] if row["impressions"] is not None]
    assert impressions == sorted(impressions, reverse=True)


def test_every_post_has_the_samples_shape(all_posts: AllPosts) -> None:
    for row in all_posts(JUNE):
        assert_same_shape(row, SAMPLE["data"][0])
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", row["postDate"])


def test_whole_amounts_have_no_fraction_as_in_the_sample(ask: Ask) -> None:
    """ "estimatedValueGenerated": 3200"""
    assert re.search(rb":0[,}]", ask(JUNE).content)
    assert not re.search(rb"\.0[,}]", ask(JUNE).content)
