"""Every bound of the document holds before a request is made, and every form of an array is read."""

from datetime import date, timedelta
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from later_reporting_dagster.contract import (
    ContentType,
    DateBasis,
    Platform,
    PostPerformanceQuery,
    SortDirection,
    SortProperty,
    platform_of,
    years_later,
)

JULY = {"start_date": date(2024, 7, 1), "end_date": date(2024, 7, 31)}
DAYS = "startDate=2024-07-01&endDate=2024-07-31"


def test_the_defaults_of_the_document():
    query = PostPerformanceQuery.from_query_string(DAYS)
    assert query == PostPerformanceQuery(**JULY)
    assert (query.date_basis, query.page_size, query.page_number) == (DateBasis.POST_DATE, 50, 1)
    assert (query.instance_ids, query.campaign_ids, query.platforms, query.content_types) == ((), (), (), ())
    assert (query.sort_property, query.sort_direction) == (None, None)


def test_arrays_are_sent_as_repeated_keys():
    query = PostPerformanceQuery(
        **JULY,
        instance_ids=("a,b", "c d"),
        campaign_ids=(49761, 49802),
        platforms=(Platform.INSTAGRAM,),
        sort_property=SortProperty.IMPRESSIONS,
        sort_direction=SortDirection.ASC,
    )
    assert query.parameters() == [
        ("startDate", "2024-07-01"),
        ("endDate", "2024-07-31"),
        ("instanceIds", "a,b"),
        ("instanceIds", "c d"),
        ("campaignIds", "49761"),
        ("campaignIds", "49802"),
        ("platform", "instagram"),
        ("dateBasis", "post_date"),
        ("pageSize", "50"),
        ("pageNumber", "1"),
        ("sortProperty", "impressions"),
        ("sortDirection", "ASC"),
    ]


def test_a_lone_id_with_a_comma_is_sent_twice_so_that_it_does_not_read_as_two():
    parameters = PostPerformanceQuery(**JULY, instance_ids=("a,b",)).parameters()
    assert [value for name, value in parameters if name == "instanceIds"] == ["a,b", "a,b"]


@pytest.mark.parametrize("array", ["{0}=instagram,tiktok", "{0}=instagram&{0}=tiktok", "{0}[]=instagram&{0}[]=tiktok"])
def test_every_array_form_of_the_document_is_read(array):
    query = PostPerformanceQuery.from_query_string(f"{DAYS}&{array.format('platform')}")
    assert query.platforms == (Platform.INSTAGRAM, Platform.TIKTOK)


@pytest.mark.parametrize(
    ("given_array", "expected"),
    [
        ("instanceIds=a%2Cb&instanceIds=c", {"instance_ids": ("a,b", "c")}),
        ("instanceIds[]=a", {"instance_ids": ("a",)}),
        ("instanceIds%5B%5D=a", {"instance_ids": ("a",)}),
        ("campaignIds=1,2,3", {"campaign_ids": (1, 2, 3)}),
        ("contentType=tiktok&contentType=facebook_live", {"content_types": ("tiktok", "facebook_live")}),
    ],
)
def test_arrays_read_back(given_array, expected):
    query = PostPerformanceQuery.from_query_string(f"{DAYS}&{given_array}")
    assert query == PostPerformanceQuery(**JULY, **expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start_date": date(2024, 8, 1)}, "endDate 2024-07-31 is before startDate 2024-08-01"),
        ({"start_date": date(2022, 7, 30)}, "more than 2 years"),
        ({"campaign_ids": tuple(range(51))}, "campaignIds takes at most 50, not 51"),
        ({"platforms": (Platform.TIKTOK,), "content_types": (ContentType.TIKTOK,)}, "cannot be combined"),
        ({"page_size": 0}, "pageSize is 1 to 100, not 0"),
        ({"page_size": 101}, "pageSize is 1 to 100, not 101"),
        ({"page_number": 0}, "pageNumber is 1 to 500, not 0"),
        ({"page_number": 501}, "pageNumber is 1 to 500, not 501"),
    ],
)
def test_a_query_beyond_a_bound_is_refused_and_names_it(changes, message):
    with pytest.raises(ValueError, match=message):
        PostPerformanceQuery(**JULY | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"start_date": date(2024, 7, 31)},
        {"start_date": date(2022, 7, 31)},
        {"campaign_ids": tuple(range(50))},
        {"page_size": 1, "page_number": 1},
        {"page_size": 100, "page_number": 500},
    ],
)
def test_a_query_on_a_bound_is_accepted(changes):
    assert PostPerformanceQuery(**JULY | changes)


@pytest.mark.parametrize(
    ("query_string", "message"),
    [
        ("endDate=2024-07-31", "startDate is required"),
        ("startDate=2024-07-01", "endDate is required"),
        (f"{DAYS}&startDate=2024-07-02", "startDate is given 2 times"),
        ("startDate=20240701&endDate=2024-07-31", "startDate is YYYY-MM-DD, not 20240701"),
        ("startDate=2024-W27-1&endDate=2024-07-31", "startDate is YYYY-MM-DD, not 2024-W27-1"),
        ("startDate=2024-07-01T00:00:00Z&endDate=2024-07-31", "2024-07-01T00:00:00Z"),
        (f"{DAYS}&pagesize=5", "not parameters of /v2/posts/performance: pagesize"),
        (f"{DAYS}&platform=myspace", "myspace"),
        (f"{DAYS}&contentType=twitter_post", "twitter_post"),
        (f"{DAYS}&dateBasis=postDate", "postDate"),
        (f"{DAYS}&sortProperty=likes", "likes"),
        (f"{DAYS}&sortDirection=asc", "asc"),
        (f"{DAYS}&campaignIds=one", "one"),
        (f"{DAYS}&pageSize=many", "many"),
    ],
)
def test_a_query_string_outside_the_document_is_refused(query_string, message):
    with pytest.raises(ValueError, match=message):
        PostPerformanceQuery.from_query_string(query_string)


def test_the_page_of_a_query_changes_nothing_else():
    query = PostPerformanceQuery(**JULY, instance_ids=("a",), page_size=100)
    assert query.page(7) == PostPerformanceQuery(**JULY, instance_ids=("a",), page_size=100, page_number=7)


def test_two_years_from_a_leap_day_end_on_february_28():
    assert years_later(date(2024, 2, 29), 2) == date(2026, 2, 28)
    assert PostPerformanceQuery(start_date=date(2024, 2, 29), end_date=date(2026, 2, 28))
    with pytest.raises(ValueError, match="more than 2 years"):
        PostPerformanceQuery(start_date=date(2024, 2, 29), end_date=date(2026, 3, 1))


@pytest.mark.parametrize(
    ("content_type", "platform"),
    [
        ("instagram_reel", Platform.INSTAGRAM),
        ("tiktok", Platform.TIKTOK),
        ("twitter_post", Platform.TWITTER),
        ("pinterest_pin", None),
        ("", None),
        (None, None),
    ],
)
def test_a_content_type_belongs_to_the_platform_that_it_begins_with(content_type, platform):
    assert platform_of(content_type) is platform


FILTERS = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"platforms": st.lists(st.sampled_from(Platform), unique=True).map(tuple)}),
    st.fixed_dictionaries({"content_types": st.lists(st.sampled_from(ContentType), unique=True).map(tuple)}),
)


@st.composite
def queries(draw):
    start_date = draw(st.dates(max_value=date(9990, 1, 1)))
    text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
    return PostPerformanceQuery(
        start_date=start_date,
        end_date=start_date + timedelta(days=draw(st.integers(0, 730))),
        instance_ids=draw(st.lists(text, unique=True, max_size=4).map(tuple)),
        campaign_ids=draw(st.lists(st.integers(), unique=True, max_size=50).map(tuple)),
        date_basis=draw(st.sampled_from(DateBasis)),
        page_size=draw(st.integers(1, 100)),
        page_number=draw(st.integers(1, 500)),
        sort_property=draw(st.none() | st.sampled_from(SortProperty)),
        sort_direction=draw(st.none() | st.sampled_from(SortDirection)),
        **draw(FILTERS),
    )


@given(queries())
def test_what_is_sent_reads_back_as_what_was_asked(query):
    assert PostPerformanceQuery.from_query_string(urlencode(query.parameters())) == query
