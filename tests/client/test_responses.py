"""Tests of the pure functions that decide what a response means."""

import json
import ssl
from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from later_reporting_dagster.client import CredentialsRejected, InstanceForbidden, QueryRejected, UnexpectedResponse
from later_reporting_dagster.client.responses import (
    ProblemDetails,
    RequestContext,
    Response,
    TemporaryFailure,
    certificate_error,
    classify_failure,
    retry_after_seconds,
    server_time,
    stated_rate_limit,
)
from later_reporting_dagster.client.route import PageRequest, posts_route
from later_reporting_dagster.contract import DateBasis, PerformanceQuery

NOW = datetime(2025, 6, 15, 12, tzinfo=UTC).timestamp()
POSTS = RequestContext("posts", instance_ids=("a", "b"))
TOKEN = RequestContext("token", is_token_request=True)


def classify(status, *, headers=None, context=POSTS, body=b""):
    return classify_failure(Response(status, headers or {}, body), context, now=NOW, default_wait_seconds=60.0)


def message_of(failure):
    return failure.message if isinstance(failure, TemporaryFailure) else str(failure)


CREDENTIALS = "Check the client id and secret"


@pytest.mark.parametrize(
    ("status", "context", "kind", "next_step"),
    [
        (400, POSTS, QueryRejected, "Check the parameters"),
        (404, POSTS, QueryRejected, "Check the parameters"),
        (414, POSTS, QueryRejected, "Check the parameters"),
        (422, POSTS, QueryRejected, "Check the parameters"),
        (401, POSTS, CredentialsRejected, "Check the credentials"),
        (403, POSTS, InstanceForbidden, "ask your account manager"),
        (401, TOKEN, CredentialsRejected, CREDENTIALS),
        (403, TOKEN, CredentialsRejected, CREDENTIALS),
        (400, TOKEN, QueryRejected, "Check the parameters"),
        (408, POSTS, TemporaryFailure, ""),
        (429, TOKEN, TemporaryFailure, ""),
        (500, POSTS, TemporaryFailure, ""),
        (599, POSTS, TemporaryFailure, ""),
        (201, POSTS, UnexpectedResponse, "check the base URL"),
        (299, POSTS, UnexpectedResponse, "check the base URL"),
        (300, POSTS, UnexpectedResponse, "a redirect, which is not followed"),
        (399, TOKEN, UnexpectedResponse, "a redirect, which is not followed"),
        (405, POSTS, UnexpectedResponse, "check the base URL"),
        (499, POSTS, UnexpectedResponse, "check the base URL"),
    ],
)
def test_status_determines_the_failure_and_its_next_step(status, context, kind, next_step):
    failure = classify(status, context=context)
    assert type(failure) is kind
    message = message_of(failure)
    assert message.startswith(f"{context.description}: HTTP {status}")
    assert next_step in message
    assert "\n" not in message
    if kind is InstanceForbidden:
        assert failure.instance_ids == context.instance_ids


def test_forbidden_request_without_instances_has_no_instance_to_leave_out():
    assert "leave it out" not in message_of(classify(403, context=RequestContext("instances")))


@pytest.mark.parametrize(("status", "wait_seconds"), [(429, 60.0), (503, None)])
def test_wait_without_retry_after_has_a_default_for_429_only(status, wait_seconds):
    assert classify(status).wait_seconds == classify(status, headers={"retry-after": "garbage"}).wait_seconds
    assert classify(status).wait_seconds == wait_seconds
    assert classify(status, headers={"retry-after": "7"}).wait_seconds == 7.0


@pytest.mark.parametrize(("length", "shown"), [(98, "x " * 97 + "x"), (99, "x " * 98 + "…")])
def test_failure_quotes_the_problem_details_in_one_short_line(length, shown):
    body = json.dumps({"title": "Bad", "detail": "\n" + "x " * length}).encode()
    assert message_of(classify(500, body=body)) == f"posts: HTTP 500 Bad {shown}"


def test_rejected_credentials_quote_only_the_problem_type():
    body = json.dumps({"type": "INVALID_CLIENT_CREDENTIALS", "detail": "no such client: hunter2"}).encode()
    text = str(classify(401, context=TOKEN, body=body))
    assert text.startswith("token: HTTP 401 INVALID_CLIENT_CREDENTIALS. Check the client id and secret")
    assert "hunter2" not in text
    assert str(classify(403, context=TOKEN)).startswith("token: HTTP 403. Check the client id and secret")


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
def test_retry_after_may_be_seconds_or_a_date(headers, seconds):
    assert retry_after_seconds(headers, now=NOW) == seconds


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
def test_stated_rate_limit_requires_both_headers(headers, limit):
    assert stated_rate_limit(headers) == limit


def test_server_time_without_valid_date_is_none():
    assert server_time({"date": "now"}) is None
    assert server_time({}) is None


def new_certificate_error() -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError()
    error.verify_message = "self-signed certificate"
    return error


def test_certificate_error_is_found_among_the_causes_of_an_error():
    cause, context = OSError("no connection"), OSError("no connection")
    cause.__cause__ = new_certificate_error()
    context.__context__ = new_certificate_error()
    outermost = RuntimeError()
    outermost.__cause__ = context
    for error in (new_certificate_error(), cause, context, outermost):
        assert certificate_error(error) == "self-signed certificate"
    assert certificate_error(OSError("no connection")) is None


def test_route_of_posts_describes_the_query_briefly():
    query = PerformanceQuery(
        start_date=date(2024, 7, 1),
        end_date=date(2024, 7, 2),
        instance_ids=tuple(f"i{number}" for number in range(40)),
        date_basis=DateBasis.PERFORMANCE_DATE,
    )
    route = posts_route(query)
    assert route.description == (
        "posts of 2024-07-01 to 2024-07-02 by performance_date, instances 'i0', 'i1', 'i2', 'i3', 'i4' and 35 more"
    )
    assert route.instance_ids == query.instance_ids
    for count, ending in ((5, "'i3', 'i4'"), (6, "'i3', 'i4' and 1 more")):
        fewer = replace(query, instance_ids=query.instance_ids[:count])
        assert posts_route(fewer).description.endswith(ending)
    everything = PerformanceQuery(start_date=date(2024, 7, 1), end_date=date(2024, 7, 1))
    assert posts_route(everything).description == ("posts of 2024-07-01 to 2024-07-01 by post_date, instances all")
    assert str(PageRequest(1, from_end=True)) == "page 1 from the end"


def test_problem_details_are_parsed():
    problem = ProblemDetails.from_body(b'{"type": "ANL_00422", "title": "Bad sort", "detail": "likes", "more": 1}')
    assert problem == ProblemDetails(type="ANL_00422", title="Bad sort", detail="likes")
    assert str(problem) == "ANL_00422 Bad sort likes"


@pytest.mark.parametrize("body", [b"", b"Service Unavailable", b"[]", b"\xff", b'{"type": 5}', b'{"x":' + b"[" * 10**5])
def test_problem_details_of_another_body_are_empty(body):
    assert ProblemDetails.from_body(body) == ProblemDetails()
    assert str(ProblemDetails.from_body(body)) == "without problem details"
