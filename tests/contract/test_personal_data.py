"""A row loses names, handles, pictures and links of creators, and every text that may be one."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from later_reporting_dagster.contract import PAGED, BadRow
from later_reporting_dagster.contract.page import posts_page_from_body
from later_reporting_dagster.contract.personal_data import (
    json_without_personal_data,
    reason_without_texts,
    without_personal_data,
)
from later_reporting_dagster.contract.rows import post_parser

ROW = {"instanceId": "a", "campaignId": 1, "postId": 2, "postDate": "2024-01-03T00:00:00Z", "creatorId": 3}
TEXT = "Ada Lovelace"
NAMES = st.sampled_from(["fullName", "metrics", "creatorProfile", "x"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.just(TEXT),
    lambda each: st.lists(each, max_size=2) | st.dictionaries(NAMES, each, max_size=3),
)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"contentUrl": TEXT, "contentType": "tiktok"}, {"contentUrl": None, "contentType": "tiktok"}),
        ({"contentImageUrl": 5}, {"contentImageUrl": None}),
        (
            {"creatorProfile": {"fullName": TEXT, "contentType": "tiktok", "bio": TEXT, "followers": 7}},
            {"creatorProfile": {"fullName": None, "contentType": "tiktok", "bio": "", "followers": 7}},
        ),
        (
            {"creatorProfile": TEXT, "caption": TEXT, "tags": [TEXT], "by": {TEXT: 1}, "reach": 1.5, "live": True},
            {"creatorProfile": "", "caption": "", "tags": [], "by": {}, "reach": 1.5, "live": True},
        ),
        (
            {"metrics": {"likes": 4, "engagements": TEXT}, "postId": "2", "campaignName": TEXT, "extra": TEXT},
            {"metrics": {"likes": 4, "engagements": ""}, "postId": "2", "campaignName": "", "extra": ""},
        ),
    ],
)
def test_row_keeps_ids_numbers_and_names_of_fields(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert without_personal_data(ROW | fields, rows="posts") == ROW | expected


def test_campaign_keeps_its_texts() -> None:
    row = {"campaignId": 1, "campaignName": "Spring", "status": "live", "owner": TEXT}
    assert without_personal_data(row, rows="campaigns") == row | {"owner": ""}


@given(st.dictionaries(st.sampled_from(["contentUrl", "creatorProfile", "metrics", "impressions", "x"]), JSON))
def test_stored_row_loses_the_same_as_a_fetched_one(fields: dict[str, Any]) -> None:
    fetched = post_parser()(without_personal_data(ROW | fields, rows="posts"))
    stored = post_parser()(ROW | fields)
    assert TEXT not in repr(fetched)
    if isinstance(stored, BadRow):
        assert TEXT not in json_without_personal_data(stored.raw, rows="posts") + reason_without_texts(stored.reason)
    else:
        assert fetched.extra == (stored.extra and json_without_personal_data(stored.extra, rows="posts"))


def test_bad_rows_that_differ_only_in_personal_data_are_two() -> None:
    rows = [ROW | {"impressions": -1, "contentUrl": url} for url in ("https://a.example", "https://b.example")]
    pagination = {"page": 1, "pageSize": 100, "totalItems": 2, "totalPages": 1}
    body = json.dumps({"data": rows, "pagination": pagination}).encode()
    first, second = posts_page_from_body(body, PAGED, personal_data=False).bad_rows
    assert first.raw == second.raw
    assert first.key != second.key


def test_reason_ends_where_it_quotes_a_text() -> None:
    reason = 'cpe is not finite: NaN; engagements must be a whole number, not "Ada abcdefgh…; postId is missing'
    assert reason_without_texts(reason) == "cpe is not finite: NaN; engagements must be a whole number, not …"
    assert reason_without_texts("postId is missing") == "postId is missing"
