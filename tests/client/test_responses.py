"""What an answer means is decided from status, headers and body alone."""

import json
import ssl
from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from later_reporting_dagster.client import (
    ContractBroken,
    CredentialsRejected,
    InstanceForbidden,
    QueryRefused,
    Retriable,
)
from later_reporting_dagster.client.responses import (
    Answer,
    Question,
    error_in,
    question_of,
    rate_limit_in,
    retry_after,
    server_time_in,
    why_untrusted,
)
from later_reporting_dagster.contract import DateBasis, PostPerformanceQuery

NOW = datetime(2025, 6, 15, 12, tzinfo=UTC).timestamp()
POSTS = Question("posts", instance_ids=("a", "b"))
TOKEN = Question("token", is_for_token=True)


def meaning(status, *, headers=None, question=POSTS, body=b""):
    return error_in(Answer(status, headers or {}, body), question, now=NOW, unsaid_wait_seconds=60.0)


CREDENTIALS = "Check the client id and secret"


@pytest.mark.parametrize(
    ("status", "question", "kind", "next_step"),
    [
        (400, POSTS, QueryRefused, "Check the parameters"),
        (404, POSTS, QueryRefused, "Check the parameters"),
        (414, POSTS, QueryRefused, "Check the parameters"),
        (422, POSTS, QueryRefused, "Check the parameters"),
        (401, POSTS, CredentialsRejected, "Check the credentials"),
        (403, POSTS, InstanceForbidden, "ask your account manager"),
        (401, TOKEN, CredentialsRejected, CREDENTIALS),
        (403, TOKEN, CredentialsRejected, CREDENTIALS),
        (400, TOKEN, QueryRefused, "Check the parameters"),
        (408, POSTS, Retriable, ""),
        (429, TOKEN, Retriable, ""),
        (500, POSTS, Retriable, ""),
        (599, POSTS, Retriable, ""),
        (201, POSTS, ContractBroken, "check the base URL"),
        (299, POSTS, ContractBroken, "check the base URL"),
        (300, POSTS, ContractBroken, "a redirect, which is not followed"),
        (399, TOKEN, ContractBroken, "a redirect, which is not followed"),
        (405, POSTS, ContractBroken, "check the base URL"),
        (499, POSTS, ContractBroken, "check the base URL"),
    ],
)
def test_each_status_has_one_meaning_and_its_error_says_what_to_do(status, question, kind, next_step):
    error = meaning(status, question=question)
    assert type(error) is kind
    assert str(error).startswith(f"{question.text}: HTTP {status}")
    assert next_step in str(error)
    assert "\n" not in str(error)
    if kind is InstanceForbidden:
        assert error.instance_ids == question.instance_ids


@pytest.mark.parametrize(("status", "wait_seconds"), [(429, 60.0), (503, None)])
def test_only_a_429_without_a_wait_has_one(status, wait_seconds):
    assert meaning(status).wait_seconds == meaning(status, headers={"retry-after": "garbage"}).wait_seconds
    assert meaning(status).wait_seconds == wait_seconds
    assert meaning(status, headers={"retry-after": "7"}).wait_seconds == 7.0


@pytest.mark.parametrize(("length", "shown"), [(98, "x " * 97 + "x"), (99, "x " * 98 + "…")])
def test_a_refusal_repeats_what_the_service_said_in_one_short_line(length, shown):
    body = json.dumps({"title": "Bad", "detail": "\n" + "x " * length}).encode()
    assert str(meaning(500, body=body)) == f"posts: HTTP 500 Bad {shown}"


def test_what_the_token_route_says_is_not_repeated_beyond_its_type():
    body = json.dumps({"type": "INVALID_CLIENT_CREDENTIALS", "detail": "no such client: hunter2"}).encode()
    text = str(meaning(401, question=TOKEN, body=body))
    assert text.startswith("token: HTTP 401 INVALID_CLIENT_CREDENTIALS. Check the client id and secret")
    assert "hunter2" not in text
    assert str(meaning(403, question=TOKEN)).startswith("token: HTTP 403. Check the client id and secret")


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
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 -2359"}, None),
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


def test_a_service_that_tells_no_clock_has_none():
    assert server_time_in({"date": "now"}) is None
    assert server_time_in({}) is None


def untrusted() -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError()
    error.verify_message = "self-signed certificate"
    return error


def test_an_untrusted_certificate_is_found_at_the_root_of_an_error():
    caused, met = OSError("no connection"), OSError("no connection")
    caused.__cause__ = untrusted()
    met.__context__ = untrusted()
    outermost = RuntimeError()
    outermost.__cause__ = met
    for error in (untrusted(), caused, met, outermost):
        assert why_untrusted(error) == "self-signed certificate"
    assert why_untrusted(OSError("no connection")) is None


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
    for count, ending in ((5, "'i3', 'i4', page 3"), (6, "'i3', 'i4' and 1 more, page 3")):
        fewer = replace(query, instance_ids=query.instance_ids[:count])
        assert question_of(fewer).text.endswith(ending)
    everything = PostPerformanceQuery(start_date=date(2024, 7, 1), end_date=date(2024, 7, 1))
    assert question_of(everything).text == "posts of 2024-07-01 to 2024-07-01 by post_date, instances all, page 1"
