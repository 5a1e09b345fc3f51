"""What an answer means is decided from status, headers and body alone."""

import json
from datetime import UTC, date, datetime

import pytest

from later_reporting_dagster.client import (
    ContractBroken,
    CredentialsRejected,
    InstanceForbidden,
    QueryRefused,
    Retriable,
)
from later_reporting_dagster.client.answers import (
    Answer,
    Question,
    error_in,
    question_of,
    rate_limit_in,
    retry_after,
    server_time_in,
)
from later_reporting_dagster.contract import DateBasis, PostPerformanceQuery

NOW = datetime(2025, 6, 15, 12, tzinfo=UTC).timestamp()
POSTS = Question("posts", instance_ids=("a", "b"))
TOKEN = Question("token", is_for_token=True)


def meaning(status, *, headers=None, question=POSTS, body=b""):
    return error_in(Answer(status, headers or {}, body), question, now=NOW, window_seconds=60.0)


@pytest.mark.parametrize(
    ("status", "question", "kind"),
    [
        (400, POSTS, QueryRefused),
        (404, POSTS, QueryRefused),
        (414, POSTS, QueryRefused),
        (401, POSTS, CredentialsRejected),
        (403, POSTS, InstanceForbidden),
        (401, TOKEN, CredentialsRejected),
        (403, TOKEN, CredentialsRejected),
        (400, TOKEN, QueryRefused),
        (408, POSTS, Retriable),
        (429, POSTS, Retriable),
        (429, TOKEN, Retriable),
        (500, POSTS, Retriable),
        (503, TOKEN, Retriable),
        (599, POSTS, Retriable),
        (201, POSTS, ContractBroken),
        (204, POSTS, ContractBroken),
        (301, POSTS, ContractBroken),
        (307, TOKEN, ContractBroken),
        (405, POSTS, ContractBroken),
        (418, POSTS, ContractBroken),
    ],
)
def test_each_status_has_one_meaning(status, question, kind):
    error = meaning(status, question=question)
    assert type(error) is kind
    assert str(error).startswith(f"{question.text}: HTTP {status}")


def test_a_refusal_repeats_what_the_service_said_in_one_short_line():
    body = json.dumps({"type": "ANL_00422", "title": "Bad\nsort", "detail": "x" * 1000}).encode()
    text = str(meaning(400, body=body))
    assert "HTTP 400 ANL_00422 Bad sort xxx" in text
    assert "\n" not in text
    assert len(text) < 500


def test_a_forbidden_instance_is_one_of_the_query():
    assert meaning(403).instance_ids == ("a", "b")


def test_what_the_token_route_says_is_not_repeated_beyond_its_type():
    body = json.dumps({"type": "INVALID_CLIENT_CREDENTIALS", "detail": "no such client: hunter2"}).encode()
    text = str(meaning(401, question=TOKEN, body=body))
    assert text.startswith("token: HTTP 401 INVALID_CLIENT_CREDENTIALS. Check the client id and secret")
    assert "hunter2" not in text
    assert str(meaning(403, question=TOKEN)).startswith("token: HTTP 403. Check the client id and secret")


@pytest.mark.parametrize(
    ("status", "headers", "wait_seconds"),
    [
        (429, {}, 60.0),
        (429, {"retry-after": "7"}, 7.0),
        (429, {"retry-after": "garbage"}, 60.0),
        (503, {}, None),
        (503, {"retry-after": "2"}, 2.0),
        (500, {}, None),
    ],
)
def test_how_long_the_service_asks_to_wait(status, headers, wait_seconds):
    assert meaning(status, headers=headers).wait_seconds == wait_seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "30"}, 30.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "²"}, None),
        ({"retry-after": "Sun, 15 Jun 2025 12:00:09 GMT"}, 9.0),
        ({"retry-after": "Sun, 15 Jun 2025 11:00:00 GMT"}, 0.0),
        ({"retry-after": "Sun, 15 Jun 2025 12:00:09 GMT", "date": "Sun, 15 Jun 2025 12:00:05 GMT"}, 4.0),
        ({"retry-after": "Sun, 99 Jun 2025 12:00:09 GMT"}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(headers, seconds):
    assert retry_after(headers, now=NOW) == seconds


@pytest.mark.parametrize(
    ("headers", "limit"),
    [
        ({"x-ratelimit-limit": "120", "x-ratelimit-window": "60"}, (120, 60.0)),
        ({"x-ratelimit-limit": "40", "x-ratelimit-window": "0.5"}, (40, 0.5)),
        ({"x-ratelimit-limit": "120"}, None),
        ({"x-ratelimit-window": "60"}, None),
        ({"x-ratelimit-limit": "many", "x-ratelimit-window": "60"}, None),
        ({"x-ratelimit-limit": "120", "x-ratelimit-window": "a minute"}, None),
    ],
)
def test_the_rate_limit_of_an_answer(headers, limit):
    assert rate_limit_in(headers) == limit


def test_the_clock_of_the_service():
    assert server_time_in({"date": "Sun, 15 Jun 2025 14:00:00 +0200"}) == datetime(2025, 6, 15, 12, tzinfo=UTC)
    assert server_time_in({"date": "now"}) is None
    assert server_time_in({}) is None


def test_a_question_names_its_query_briefly():
    query = PostPerformanceQuery(
        start_date=date(2024, 7, 1),
        end_date=date(2024, 7, 2),
        instance_ids=tuple(f"i{number}" for number in range(40)),
        date_basis=DateBasis.PERFORMANCE_DATE,
        page_number=3,
    )
    question = question_of(query)
    assert question.text == (
        "posts of 2024-07-01 to 2024-07-02 by performance_date, "
        "instances 'i0', 'i1', 'i2', 'i3', 'i4' and 35 more, page 3"
    )
    assert question.instance_ids == query.instance_ids
    everything = PostPerformanceQuery(start_date=date(2024, 7, 1), end_date=date(2024, 7, 1))
    assert question_of(everything).text == "posts of 2024-07-01 to 2024-07-01 by post_date, instances all, page 1"
