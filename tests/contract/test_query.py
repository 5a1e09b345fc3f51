"""Tests of queries: the server parses the parameters as intended."""

from datetime import date
from urllib.parse import urlencode

import pytest

from later_reporting_dagster.contract import PAGED, ContentType, DateBasis, PerformanceQuery, Platform
from later_reporting_dagster.contract.parameters import SortDirection, network_of, years_later
from later_reporting_dagster.contract.route import POSTS_PERFORMANCE, PageRequest
from later_reporting_dagster.server.routes import POSTS

JULY = {"start_date": date(2024, 7, 1), "end_date": date(2024, 7, 31)}


def test_query_sends_a_single_id_with_a_comma_twice():
    parameters = PerformanceQuery(**JULY, instance_ids=("a,b",)).filter_parameters()
    assert [value for name, value in parameters if name == "instanceIds"] == ["a,b", "a,b"]


def test_two_years_from_a_leap_day_end_on_february_28():
    assert years_later(date(2024, 2, 29), 2) == date(2026, 2, 28)


@pytest.mark.parametrize(
    ("filters", "selected"),
    [
        ({}, [True, True, True, True]),
        ({"platforms": (Platform.TIKTOK,)}, [True, False, None, None]),
        ({"content_types": (ContentType.TIKTOK,)}, [True, False, False, None]),
    ],
)
def test_filters_select_content_types(filters, selected):
    query = PerformanceQuery(**JULY, **filters)
    assert [query.selects(name) for name in ("tiktok", "instagram_new", "billboard", None)] == selected


@pytest.mark.parametrize(
    ("content_type", "network"),
    [
        *((name, name) for name in ("instagram", "facebook", "tiktok", "twitter", "linkedin", "pinterest", "blog")),
        ("facebook_live", "facebook"),
        ("facebook_group", "facebook"),
        ("instagram_story", "instagram"),
        ("youtube_shorts", "youtube"),
        ("snapchat_story", "snapchat"),
        ("twitch_stream", "twitch"),
        ("musical_ly", "tiktok"),
        *((name, None) for name in ("image", "video", "threads_post", "linkedinx", "Instagram", "", None)),
    ],
)
def test_network_of_a_content_type_is_known_if_a_document_says_it(content_type, network):
    assert network_of(content_type) == network
    known = network in set(Platform) and content_type != "musical_ly"
    assert PerformanceQuery(**JULY, platforms=tuple(Platform)).selects(content_type) is (True if known else None)


@pytest.mark.parametrize(("number", "from_end"), [(1, False), (500, True)])
@pytest.mark.parametrize("basis", DateBasis)
@pytest.mark.parametrize("instance_ids", [(), ("a,b",), ("ü &=%41+", "[a]", ",")])
@pytest.mark.parametrize(
    "filters", [{}, {"platforms": tuple(Platform)}, {"content_types": tuple(ContentType), "campaign_ids": (1, 2**62)}]
)
def test_query_parameters_are_parsed_by_the_sandbox_as_intended(filters, instance_ids, basis, number, from_end):
    query = PerformanceQuery(**JULY, instance_ids=instance_ids, date_basis=basis, **filters)
    pairs = POSTS_PERFORMANCE.parameters(query, PAGED, PageRequest(number, from_end=from_end))
    question, page = POSTS.parse(urlencode(pairs))
    assert (question.start, question.end, question.basis) == (query.start_date, query.end_date, query.date_basis)
    assert set(question.instance_ids or ()) == set(query.instance_ids)
    assert (question.campaign_ids or ()) == query.campaign_ids
    assert (question.platforms or (), question.content_types or ()) == (query.platforms, query.content_types)
    assert (page.offset, page.size) == (100 * (number - 1), 100)
    assert question.sort_property == "postDate"
    assert question.sort_direction == (SortDirection.DESC if from_end else SortDirection.ASC)
