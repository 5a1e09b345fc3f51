"""Tests of the pure functions that decide what a response means."""

import json
from datetime import UTC, datetime

import pytest

from later_reporting_dagster.client import (
    CredentialsRejected,
    LaterError,
    QueryRejected,
    RetryPolicy,
    UnexpectedResponse,
)
from later_reporting_dagster.client.retries import (
    Request,
    Response,
    TemporaryFailure,
    classify_failure,
    retry_after_seconds,
)

NOW = datetime(2025, 6, 15, 12, tzinfo=UTC).timestamp()
POSTS = Request("/v2/posts/performance", "posts")
TOKEN = Request("/oauth/token", "token", b"{}")


def classify(status, *, headers=None, context=POSTS, body=b""):
    response = Response(status, headers or {}, body, datetime.now(UTC))
    try:
        return classify_failure(response, context, secrets=(), now=NOW)
    except LaterError as error:
        return error


def message_of(failure):
    return failure.message if isinstance(failure, TemporaryFailure) else str(failure)


@pytest.mark.parametrize(
    ("status", "context", "kind", "next_step"),
    [
        (400, POSTS, QueryRejected, "Check the parameters"),
        (403, POSTS, QueryRejected, "ask your account manager"),
        (400, TOKEN, CredentialsRejected, "Check the client id and secret"),
        (401, TOKEN, CredentialsRejected, "Check the client id and secret"),
        (403, TOKEN, CredentialsRejected, "Check the client id and secret"),
        (404, TOKEN, UnexpectedResponse, "check the base URL"),
        *((status, POSTS, TemporaryFailure, "") for status in (408, 409, 423, 425)),
        *((status, POSTS, QueryRejected, "Check the parameters") for status in (402, 404, 405, 410, 422, 451, 499)),
        (429, TOKEN, TemporaryFailure, ""),
        (500, POSTS, TemporaryFailure, ""),
        (399, TOKEN, UnexpectedResponse, "a redirect, which is not followed"),
    ],
)
def test_status_determines_the_failure_and_its_next_step(status, context, kind, next_step):
    failure = classify(status, context=context)
    assert type(failure) is kind
    message = message_of(failure)
    assert message.startswith(f"{context.description}: HTTP {status}")
    assert next_step in message
    assert "\n" not in message


@pytest.mark.parametrize("title", ["Forbidden", "forbidden"])
def test_server_error_with_the_title_forbidden_is_about_the_query(title):
    failure = classify(500, body=json.dumps({"type": "INTERNAL_ERROR", "title": title}).encode())
    assert (type(failure), failure.status) == (QueryRejected, 500)
    assert isinstance(classify(500, body=b'{"title": "Forbidden fruit"}'), TemporaryFailure)


def test_any_failure_that_states_when_to_retry_is_retried():
    assert classify(403, headers={"retry-after": "3"}).wait_seconds == 3.0
    assert isinstance(classify(302, headers={"retry-after": "3"}), UnexpectedResponse)


@pytest.mark.parametrize("status", [429, 503])
def test_temporary_failure_has_the_wait_that_the_response_asks_for(status):
    assert classify(status).wait_seconds is classify(status, headers={"retry-after": "garbage"}).wait_seconds is None
    failure = classify(status, headers={"retry-after": "7"})
    assert (failure.wait_seconds, failure.is_429) == (7.0, status == 429)


@pytest.mark.parametrize(("length", "shown"), [(98, "x " * 97 + "x"), (99, "x " * 98 + "…")])
def test_failure_quotes_the_problem_details_in_one_short_line(length, shown):
    body = json.dumps({"title": "Bad", "detail": "\n" + "x " * length}).encode()
    assert message_of(classify(500, body=body)) == f"posts: HTTP 500 Bad {shown}"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "30"}, 30.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Sun, 15 Jun 2025 12:00:09 GMT"}, 9.0),
        ({"retry-after": "Sun, 15 Jun 2025 11:00:00 GMT"}, 0.0),
        ({"retry-after": "Sun, 15 Jun 2025 12:00:09 GMT", "date": "Sun, 15 Jun 2025 12:00:05 GMT"}, 4.0),
        ({"retry-after": "Sun, 99 Jun 2025 12:00:09 GMT"}, None),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 -2359"}, None),
    ],
)
def test_retry_after_may_be_seconds_or_a_date(headers, seconds):
    assert retry_after_seconds(headers, now=NOW) == seconds


def test_backoff_doubles_up_to_its_limit_and_jitter_lengthens_it():
    policy = RetryPolicy(max_attempts=2000)
    waits = [policy.wait_after(attempt, requested_wait=None, jitter=0.0) for attempt in (1, 2, 3, 6, 7, 1999)]
    assert waits == [0.5, 1, 2, 16, 30, 30]
    assert policy.wait_after(1, requested_wait=None, jitter=1.0) == 0.75


def test_requested_wait_lengthens_but_never_shortens_the_backoff_and_ends_retries_if_too_long():
    policy = RetryPolicy()
    waits = [policy.wait_after(attempt, requested_wait=wait, jitter=0.0) for attempt, wait in ((1, 17.0), (7, 1.0))]
    assert waits == [17, 30]
    assert [policy.wait_after(1, requested_wait=wait, jitter=0.0) for wait in (300.0, 301.0)] == [300, None]


def test_wait_after_429_is_the_requested_one_or_a_growing_share_of_the_window():
    def waits(requested_wait, window_seconds):
        return [
            RetryPolicy().wait_after_429(
                refusals, requested_wait=requested_wait, window_seconds=window_seconds, jitter=0.0
            )
            for refusals in (1, 2, 3, 4, 7, 100, 2000)
        ]

    assert waits(None, 3600) == [3600 / 64, 3600 / 32, 3600 / 16, 300, 300, 300, 300]
    assert waits(None, 5) == [0.5, 1, 2, 4, 30, 30, 30]
    assert waits(40.0, 60) == [40] * 7
    assert waits(900.0, 60) == [900] * 7
