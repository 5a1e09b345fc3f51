"""Every bound of the document holds before a request is made."""

from datetime import date

import pytest

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


def test_the_defaults_of_the_document():
    query = PostPerformanceQuery(**JULY)
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
