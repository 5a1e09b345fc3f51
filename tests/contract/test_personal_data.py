"""A row loses names, handles, pictures and links of creators, and every text that may be one."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from later_reporting_dagster.contract import BadRow
from later_reporting_dagster.contract.personal_data import (
    KnownFields,
    json_without_personal_data,
    reason_without_values,
    without_personal_data,
)
from later_reporting_dagster.contract.route import CAMPAIGNS, CAMPAIGNS_PERFORMANCE, POSTS_PERFORMANCE
from tests.client.scripted_api import post_parser

ROW = {"instanceId": "a", "campaignId": 1, "postId": 2, "postDate": "2024-01-03T00:00:00Z", "creatorId": 3}
POSTS = POSTS_PERFORMANCE.known_fields
TEXT = "Ada Lovelace"
NAMES = st.sampled_from(["fullName", "metrics", "creatorProfile", "impressions", "x"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.just(TEXT),
    lambda each: st.lists(each, max_size=2) | st.dictionaries(NAMES, each, max_size=3),
)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"contentUrl": TEXT, "contentType": "tiktok"}, {"contentType": "tiktok"}),
        ({"contentImageUrl": 5}, {}),
        (
            {"creatorProfile": {"fullName": TEXT, "contentType": "tiktok", "followers": 7, "instanceId": TEXT}},
            {"creatorProfile": {"contentType": "tiktok"}},
        ),
        ({"creatorProfile": {"bio": TEXT}, "caption": TEXT, "by": {TEXT: 1}, TEXT: 1.5, "phone": 49151}, {}),
        ({"creatorProfile": TEXT, "impressions": [TEXT]}, {"creatorProfile": "…", "impressions": []}),
        ({"cpm": {TEXT: 1}, "engagements": True}, {"cpm": {}, "engagements": True}),
        ({"metrics": {"likes": -4, "cpe": TEXT, TEXT: 3}}, {"metrics": {"likes": -4, "cpe": "…"}}),
        *(({name: TEXT}, {name: "…"}) for name in ("campaignId", "postId", "postDate", "creatorId")),
        *(({name: 49151}, {name: 0}) for name in ("contentType", "postDate")),
        *(
            (each, each)
            for each in (
                {"instanceId": 49151},
                {"impressions": "12", "cpm": "0.24"},
                {"engagementRate": "14.59%", "postDate": "2024-01-03", "postId": "3", "cpe": ""},
            )
        ),
    ],
)
def test_row_keeps_values_that_known_fields_accept(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert without_personal_data(ROW | fields, POSTS) == ROW | expected


@pytest.mark.parametrize("known", [CAMPAIGNS.known_fields, CAMPAIGNS_PERFORMANCE.known_fields])
def test_campaign_keeps_its_texts(known: KnownFields) -> None:
    row = {"campaignId": 1, "campaignName": "Spring", "status": "live"}
    assert without_personal_data(row | {"owner": TEXT}, known) == row


@given(st.dictionaries(st.sampled_from(["contentUrl", "creatorProfile", "metrics", "impressions", "x"]), JSON))
def test_stored_row_loses_the_same_as_a_fetched_one(fields: dict[str, Any]) -> None:
    fetched = post_parser()(without_personal_data(ROW | fields, POSTS))
    stored = post_parser()(ROW | fields)
    assert TEXT not in repr(fetched)
    if isinstance(stored, BadRow):
        assert TEXT not in json_without_personal_data(stored.raw, POSTS) + reason_without_values(stored.reason)
    else:
        assert (fetched.extra or "{}") == json_without_personal_data(stored.extra or "{}", POSTS)


@example("metrics", {"creatorProfile": False})
@given(st.sampled_from([*ROW, "contentType", "creatorProfile", "metrics", "impressions", "cpm"]), JSON)
def test_bad_row_stays_one(name: str, value: Any) -> None:
    row, parse = ROW | {name: value}, post_parser(nested=True)
    is_bad = isinstance(parse(row), BadRow)
    assert isinstance(parse(without_personal_data(row, POSTS)), BadRow) is is_bad


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (
            'engagements must be a whole number, not "Ada abcdefgh…; postId is missing',
            "engagements must be a whole number",
        ),
        ("postId is missing; contentUrl must be a string, not 49151", "postId is missing; contentUrl must be a string"),
        ("cpm is above 1,000,000,000: 4915112345", "cpm is above 1,000,000,000"),
    ],
)
def test_reason_ends_at_the_first_value(reason: str, expected: str) -> None:
    assert reason_without_values(reason) == f"{expected}…"
    assert reason_without_values(f"{expected}…") == f"{expected}…"


def test_reason_without_values_stays() -> None:
    assert (
        reason_without_values("postId is missing; campaignId is missing") == "postId is missing; campaignId is missing"
    )
