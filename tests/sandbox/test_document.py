"""Every sentence of the document, as a statement about the sandbox, asked over real HTTP. Docstrings quote it."""

import re
from collections.abc import Callable
from datetime import date
from typing import Any

import httpx
import pytest

from later_reporting_dagster.contract import DOCUMENT_METRICS, ContentType, Platform, SortProperty, platform_of
from tests.sandbox.conftest import Row, key, keys

Ask = Callable[[str], httpx.Response]
AllPosts = Callable[[str], list[Row]]

JUNE = "startDate=2024-06-01&endDate=2024-06-14"

SAMPLE: dict[str, Any] = {
    "data": [
        {
            "campaignId": 49761,
            "contentImageUrl": "https://example.com/posts/abc123.jpg",
            "contentType": "instagram_post",
            "contentUrl": "https://www.instagram.com/p/ABC123/",
            "cpe": 0.24,
            "cpm": 35.29,
            "creatorId": 12345,
            "creatorProfile": {
                "contentType": "instagram_post",
                "fullName": "Jane Smith",
                "handleName": "janesmith",
                "profileImage": "https://example.com/profiles/jane_ig.jpg",
                "profileLink": "https://instagram.com/janesmith",
            },
            "engagementRate": 14.59,
            "engagements": 1240,
            "estimatedValueGenerated": 3200,
            "impressions": 8500,
            "instanceId": "instance_abc",
            "paidCpe": 0.79,
            "paidCpm": 57.69,
            "paidEngagementRate": 7.31,
            "paidEngagements": 380,
            "paidImpressions": 5200,
            "postDate": "2024-07-15T14:30:00.000Z",
            "postId": 1234,
        }
    ],
    "pagination": {"page": 1, "pageSize": 50, "totalItems": 142, "totalPages": 3},
}
EXAMPLE = (
    "startDate=2024-01-01&endDate=2024-12-31&instanceIds=instance_abc&instanceIds=instance_def&campaignIds=49761"
    "&campaignIds=49802&platform=instagram&platform=tiktok&contentType=instagram_reel&contentType=tiktok"
    "&dateBasis=post_date&pageSize=50&pageNumber=1&sortProperty=impressions&sortDirection=DESC"
)
EXAMPLE_LESS_CONTENT_TYPE = EXAMPLE.replace("&contentType=instagram_reel&contentType=tiktok", "")


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


# What is returned


def test_returns_a_list_of_individual_posts_with_their_performance_metrics(ask: Ask) -> None:
    """Returns a paginated list of individual posts with their performance metrics."""
    answer = ask(JUNE)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["data", "pagination"]
    assert len(keys(answer.json()["data"])) == 50


@pytest.mark.parametrize(
    "names",
    [
        pytest.param({"postId", "postDate", "contentType", "contentUrl", "contentImageUrl"}, id="post metadata"),
        pytest.param({"creatorId", "creatorProfile"}, id="creator profile"),
        pytest.param(
            {"engagements", "impressions", "engagementRate", "estimatedValueGenerated", "cpe", "cpm"}, id="organic"
        ),
        pytest.param({"paidEngagements", "paidImpressions", "paidEngagementRate", "paidCpe", "paidCpm"}, id="paid"),
    ],
)
def test_what_is_included_per_post(all_posts: AllPosts, names: set[str]) -> None:
    """What is included per post: post metadata (ID, date, content type, content URL, image URL), creator profile
    information, organic engagement metrics (engagements, impressions, engagement rate, estimated value, CPE, CPM),
    paid media metrics (paid engagements, impressions, engagement rate, paid CPE, paid CPM).
    """
    assert all(names <= set(row) for row in all_posts(JUNE))


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
    assert_refused(ask(f"{JUNE}&pageSize=101"))


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


def test_only_the_supported_sort_fields_are_sorted_by(ask: Ask) -> None:
    """Use sortProperty to sort by one of the supported fields. (Any other: HTTP 400, but a type of its own.)"""
    assert_refused(ask(f"{JUNE}&sortProperty=postId"), problem_type="ANL_00422")


def test_order_without_a_sort_property_is_newest_first(all_posts: AllPosts) -> None:
    """Not in the document: its default direction suggests it."""
    assert all_posts(JUNE) == all_posts(f"{JUNE}&sortProperty=postDate&sortDirection=DESC")


# Metric naming


def test_organic_metrics_use_their_plain_name_and_paid_ones_are_prefixed(ask: Ask) -> None:
    """Organic metrics use their plain name (e.g. engagements, impressions, cpm). Paid metrics are prefixed with paid
    (e.g. paidEngagements, paidImpressions, paidCpm).
    """
    row = ask(JUNE).json()["data"][0]
    assert {metric.api_name for metric in DOCUMENT_METRICS} <= set(row)
    assert {name for name in row if name.startswith("paid")} == {
        metric.api_name for metric in DOCUMENT_METRICS if metric.channel == "paid"
    }


def test_link_metrics_are_named_but_are_no_part_of_a_post(ask: Ask) -> None:
    """Tracking link metrics are prefixed with trackingLinks (e.g. trackingLinksClicks, trackingLinksConversions).
    Affiliate link metrics are prefixed with affiliateLinks (e.g. affiliateLinksClicks, affiliateLinksSales,
    affiliateLinksRoi). (The sample has neither.)
    """
    assert not [name for name in ask(JUNE).json()["data"][0] if re.match("trackingLinks|affiliateLinks", name)]


@pytest.mark.parametrize("name", [metric.api_name for metric in DOCUMENT_METRICS])
def test_every_metric_is_nullable(all_posts: AllPosts, name: str) -> None:
    """All metric fields are nullable - null indicates the metric is not available for the given data."""
    values = [row[name] for row in all_posts(JUNE)]
    assert None in values
    assert {type(value) for value in values} & {int, float}


# startDate, endDate


@pytest.mark.parametrize("given", ["", "startDate=2024-06-01", "endDate=2024-06-01"])
def test_both_dates_are_required(ask: Ask, given: str) -> None:
    """startDate required, endDate required."""
    assert_refused(ask(given))


def test_both_dates_are_inclusive(all_posts: AllPosts) -> None:
    """Start of the reporting period (inclusive). End of the reporting period (inclusive)."""
    days = {published_day(row) for row in all_posts("startDate=2024-06-03&endDate=2024-06-05")}
    assert days == {"2024-06-03", "2024-06-04", "2024-06-05"}
    assert {published_day(row) for row in all_posts("startDate=2024-06-04&endDate=2024-06-04")} == {"2024-06-04"}


@pytest.mark.parametrize(
    "day", ["2024-6-1", "20240601", "2024-W22-6", "2024-06-01T00:00:00Z", "01.06.2024", "2024-02-30", "٢٠٢٤-٠٦-٠١", ""]
)
@pytest.mark.parametrize("name", ["startDate", "endDate"])
def test_dates_have_one_format(ask: Ask, name: str, day: str) -> None:
    """Format: YYYY-MM-DD."""
    other = {"startDate": "endDate", "endDate": "startDate"}[name]
    assert_refused(ask(f"{name}={day}&{other}=2024-06-01"))


def test_the_range_runs_forward_and_spans_two_years_at_most(ask: Ask) -> None:
    """Not in the document, but in the service's general rules."""
    assert ask("startDate=2023-01-31&endDate=2025-01-31").status_code == 200
    assert ask("startDate=2024-02-29&endDate=2026-02-28").status_code == 200
    assert_refused(ask("startDate=2023-01-31&endDate=2025-02-01"))
    assert_refused(ask("startDate=2024-02-29&endDate=2026-03-01"))
    assert_refused(ask("startDate=2024-06-02&endDate=2024-06-01"))


# Arrays, in three forms


ARRAYS = {
    "instanceIds": ("instance_000", "instance_abc", "instance_def"),
    "campaignIds": ("49761", "49802", "49843"),
    "platform": ("instagram", "tiktok", "twitter"),
    "contentType": ("instagram_reel", "tiktok", "youtube_video"),
}


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


@pytest.mark.parametrize("name", list(ARRAYS))
def test_an_empty_value_in_an_array_is_refused(ask: Ask, name: str) -> None:
    assert_refused(ask(f"{JUNE}&{name}="))
    assert_refused(ask(f"{JUNE}&{name}={ARRAYS[name][0]},"))


# instanceIds


def test_instance_ids_limit_the_query(all_posts: AllPosts) -> None:
    """One or more instance IDs to limit the query scope."""
    rows = all_posts(f"{JUNE}&instanceIds=instance_001")
    assert keys(rows) == {key(row) for row in all_posts(JUNE) if row["instanceId"] == "instance_001"}
    assert rows


def test_without_instance_ids_all_accessible_instances_are_included(all_posts: AllPosts, api: httpx.Client) -> None:
    """If not provided, the query includes all instances accessible with the API credentials."""
    accessible = api.get("/v2/instances").json()["data"]["instanceIds"]
    assert {row["instanceId"] for row in all_posts(JUNE)} == set(accessible)


# campaignIds


def test_campaign_ids_filter_results(all_posts: AllPosts) -> None:
    """Filter results to specific campaigns."""
    rows = all_posts(f"{JUNE}&campaignIds=49802")
    assert keys(rows) == {key(row) for row in all_posts(JUNE) if row["campaignId"] == 49802}
    assert rows


def test_without_campaign_ids_all_campaigns_are_included(all_posts: AllPosts) -> None:
    """When omitted, all campaigns are included."""
    assert len({row["campaignId"] for row in all_posts(JUNE)}) == 12


@pytest.mark.parametrize("form", ["comma", "repeated", "bracket"])
def test_campaign_ids_are_50_at_most(ask: Ask, form: str) -> None:
    """campaignIds: array number[] …50"""

    def query(count: int) -> str:
        numbers = [str(number) for number in range(count)]
        return {
            "comma": "campaignIds=" + ",".join(numbers),
            "repeated": "&".join(f"campaignIds={number}" for number in numbers),
            "bracket": "&".join(f"campaignIds[]={number}" for number in numbers),
        }[form]

    assert ask(f"{JUNE}&{query(50)}").json()["pagination"]["totalItems"] == 0
    assert_refused(ask(f"{JUNE}&{query(51)}"))


@pytest.mark.parametrize("value", ["abc", "1.5", "1e3", "0x1", "+1", "--1", "٣", "9" * 5000])
def test_campaign_ids_are_numbers(ask: Ask, value: str) -> None:
    """Type: array number[]"""
    assert_refused(ask(f"{JUNE}&campaignIds={value}"))


def test_campaign_ids_that_no_campaign_can_have_match_nothing(ask: Ask) -> None:
    assert ask(f"{JUNE}&campaignIds=-1,{2**63},{10**30}").json()["data"] == []


# platform, contentType


def test_a_platform_includes_all_its_content_types(all_posts: AllPosts) -> None:
    """Filter by top-level platform. Selecting a platform includes all its content types (e.g. instagram includes
    instagram_post, instagram_reel, instagram_story).
    """
    by_platform = all_posts(f"{JUNE}&platform=instagram")
    by_content_type = all_posts(f"{JUNE}&contentType=instagram_post,instagram_reel,instagram_story")
    assert by_platform == by_content_type
    assert {row["contentType"] for row in by_platform} == {"instagram_post", "instagram_reel", "instagram_story"}


@pytest.mark.parametrize("platform", list(Platform))
def test_every_platform_filters(all_posts: AllPosts, platform: Platform) -> None:
    """values: instagram, tiktok, facebook, youtube, twitter"""
    rows = all_posts(f"{JUNE}&platform={platform}")
    assert keys(rows) == {key(row) for row in all_posts(JUNE) if platform_of(row["contentType"]) is platform}
    assert rows


@pytest.mark.parametrize("content_type", list(ContentType))
def test_every_content_type_filters(all_posts: AllPosts, content_type: ContentType) -> None:
    """Filter by specific content type for granular filtering beyond top-level platforms: instagram_post,
    instagram_reel, instagram_story; facebook_post, facebook_live, facebook_group, facebook_reel; tiktok,
    youtube_video, youtube_shorts.
    """
    year = "startDate=2024-01-01&endDate=2024-12-31&instanceIds=instance_000"
    rows = all_posts(f"{year}&contentType={content_type}")
    assert {row["contentType"] for row in rows} == {content_type}


def test_without_platform_and_content_type_all_platforms_are_included(all_posts: AllPosts) -> None:
    """When omitted (and contentType is also omitted), all platforms are included."""
    assert {platform_of(row["contentType"]) for row in all_posts(JUNE)} == set(Platform)


def test_platform_and_content_type_cannot_be_combined(ask: Ask) -> None:
    """Cannot be combined with contentType - provide only one of the two."""
    assert_refused(ask(f"{JUNE}&platform=instagram&contentType=instagram_reel"))
    assert_refused(ask(f"{JUNE}&platform[]=instagram&contentType[]=tiktok"))


@pytest.mark.parametrize(
    "given",
    [
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
    ],
)
def test_enumerated_values_are_closed(ask: Ask, given: str) -> None:
    """Type: enum"""
    assert_refused(ask(f"{JUNE}&{given}"))


# dateBasis


def test_date_basis_is_post_date_by_default(ask: Ask) -> None:
    """post_date (default)"""
    assert ask(JUNE).content == ask(f"{JUNE}&dateBasis=post_date").content
    assert ask(JUNE).content != ask(f"{JUNE}&dateBasis=performance_date").content


def test_post_date_filters_by_the_date_of_publication(all_posts: AllPosts) -> None:
    """post_date: filters by the date the content was originally published."""
    assert {published_day(row)[:7] for row in all_posts(JUNE)} == {"2024-06"}


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


def test_performance_date_sums_the_range_to_one_row_a_post(all_posts: AllPosts) -> None:
    """Best for understanding how campaigns performed during a specific reporting window."""
    window = {key(row): row for row in all_posts(f"{JUNE}&dateBasis=performance_date")}
    counts = ("impressions", "engagements", "paidImpressions", "paidEngagements", "estimatedValueGenerated")
    sums: dict[tuple[str, int, int], dict[str, float | None]] = {}
    for day in range(1, 15):
        query = f"startDate=2024-06-{day:02}&endDate=2024-06-{day:02}&dateBasis=performance_date"
        for row in all_posts(query):
            so_far = sums.setdefault(key(row), {name: row[name] and 0 for name in counts})
            for name in counts:
                so_far[name] = None if row[name] is None else round((so_far[name] or 0) + row[name], 2)
    assert sums == {of: {name: row[name] for name in counts} for of, row in window.items()}


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


# pageSize, pageNumber, sortDirection


@pytest.mark.parametrize("value", ["0", "-1", "101", "1.5", "ten", "", "1e1", " 1", "9" * 5000])
def test_page_size_is_a_number_from_1_to_100(ask: Ask, value: str) -> None:
    """pageSize: number, min: 1, max: 100."""
    assert_refused(ask(f"{JUNE}&pageSize={value}"))


@pytest.mark.parametrize("value", ["0", "-1", "501", "1.5", "one", ""])
def test_page_number_is_a_number_from_1_to_500(ask: Ask, value: str) -> None:
    """pageNumber: number, min: 1, max: 500."""
    assert_refused(ask(f"{JUNE}&pageNumber={value}"))


@pytest.mark.parametrize("given", ["pageSize=1", "pageSize=100", "pageNumber=1", "pageNumber=500"])
def test_bounds_of_pages_are_inclusive(ask: Ask, given: str) -> None:
    """min:1 max:100, min:1 max:500"""
    assert ask(f"{JUNE}&{given}").status_code == 200


@pytest.mark.parametrize("given", ["pagesize=10", "limit=10", "cursor=", "startDate[]=2024-06-01", "=", "metrics=cpm"])
def test_unknown_parameters_are_refused(ask: Ask, given: str) -> None:
    """Not in the document: an ignored parameter would hide a client's mistake."""
    assert_refused(ask(f"{JUNE}&{given}"))


def test_a_single_value_is_given_once(ask: Ask) -> None:
    assert_refused(ask(f"{JUNE}&pageSize=10&pageSize=20"))


# The example and the sample


def test_the_curl_example_contradicts_the_text_which_wins(ask: Ask) -> None:
    """The example sends platform and contentType together; the text: provide only one of the two."""
    assert_refused(ask(EXAMPLE))


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
