"""Tests of requests with a real server: retries, tokens, rate limit and secrets."""

import asyncio
import gzip
import json
import re
from datetime import UTC, datetime

import pytest
from starlette.responses import HTMLResponse, JSONResponse, Response

from later_reporting_dagster.client import (
    AccessToken,
    ClientCredentials,
    CredentialsRejected,
    QueryRejected,
    RateLimiter,
    RetriesExhausted,
    RetryPolicy,
    UnexpectedResponse,
)
from later_reporting_dagster.contract import CURSOR
from later_reporting_dagster.contract.route import POSTS_PERFORMANCE
from tests.client.raw_server import raw_server
from tests.client.scripted_api import (
    CLIENT_ID,
    CLIENT_SECRET,
    THREE_PAGES,
    fetch_posts,
    of_type,
    page_body,
    post,
    problem,
    run_with,
)

TEMPORARY_FAULTS = {
    "429 in seconds": Response(status_code=429, headers={"Retry-After": "7"}),
    "429": problem(429, "Too Many Requests"),
    "500": problem(500, "ANL_00500"),
    "502 as HTML": HTMLResponse("<html>Bad Gateway</html>", 502),
    "401": problem(401, "ANL_00401"),
    "HTML with 200": HTMLResponse("<html>maintenance</html>"),
    "truncated JSON": Response(json.dumps(page_body(THREE_PAGES[:100], page=1, page_size=100, total_items=250))[:5000]),
    "an empty body": Response(b""),
    "a problem with 200": JSONResponse({"type": "ANL_00500", "title": "Internal Server Error"}),
    "an error with 200": JSONResponse({"message": "Service unavailable"}),
    "409": problem(409, "ANL_00409"),
    "403 with a time to retry": Response(status_code=403, headers={"Retry-After": "1"}),
    "neither pagination nor cursor": JSONResponse({"data": []}),
    "truncated gzip": Response(gzip.compress(b"x" * 10**5)[:50], headers={"Content-Encoding": "gzip"}),
}  # fmt: skip


@pytest.mark.parametrize("fault", TEMPORARY_FAULTS.values(), ids=TEMPORARY_FAULTS)
def test_temporary_fault_of_any_page_takes_one_more_request(service, new_client, july, fault):
    service.posts = THREE_PAGES
    service.faults.extend([fault, None, fault])
    result = fetch_posts(new_client(), july)
    assert [post.post_id for post in result.items] == list(range(250))
    assert len(service.requests_to()) == 5


def test_concurrent_queries_share_the_token_and_the_concurrency(service, new_client, july):
    service.posts = THREE_PAGES
    in_flight = []
    max_in_flight = 0
    three_in_flight = asyncio.Event()

    async def count_concurrent(request):
        nonlocal max_in_flight
        in_flight.append(request)
        max_in_flight = max(max_in_flight, len(in_flight))
        if len(in_flight) == 3:
            three_in_flight.set()
        await asyncio.wait_for(three_in_flight.wait(), 60)
        await asyncio.sleep(0.001)
        in_flight.pop()

    service.faults.extend([count_concurrent] * 12)

    async def fetch_four(client):
        return await asyncio.gather(*(client.fetch(POSTS_PERFORMANCE, july) for _ in range(4)))

    results = run_with(new_client(concurrency=3), fetch_four)
    assert [len(result.items) for result in results] == [250] * 4
    assert len(service.requests_to()) == 12
    assert len(service.requests_to("/oauth/token")) == 1
    assert max_in_flight == 3


@pytest.mark.parametrize(("count", "seconds"), [(1, 2), (2, 2 + 4), (7, 2 + 4 + 8 + 16 + 32 + 64 + 128)])
def test_repeated_429_waits_for_a_growing_share_of_the_stated_window(service, new_client, july, time, count, seconds):
    service.headers = {"X-Ratelimit-Limit": "1000", "X-Ratelimit-Window": "128"}
    started = time.now
    service.faults.extend([problem(429, "Too Many Requests")] * count)
    fetch_posts(new_client(), july)
    assert time.now - started == pytest.approx(seconds, abs=0.01)


def test_429_delays_all_requests(service, new_client, july, time):
    service.posts = THREE_PAGES
    limiter = RateLimiter(requests=1000, clock=time, sleep=time.sleep)
    service.faults.extend([None, Response(status_code=429, headers={"Retry-After": "20"})])

    started, retry = time.now, RetryPolicy(max_refused_seconds=10)
    with pytest.raises(RetriesExhausted, match="HTTP 429"):
        fetch_posts(new_client(limiter=limiter, concurrency=1, retry=retry), july)
    asyncio.run(limiter.acquire())
    assert time.now - started == 20


REFUSED = problem(429, "Too Many Requests")


def test_429_costs_no_attempt(service, new_client, july):
    service.faults.extend([*[REFUSED] * 20, problem(500, "ANL_00500"), *[REFUSED] * 20])
    assert fetch_posts(new_client(retry=RetryPolicy(max_attempts=2)), july).items == []
    assert len(service.requests_to()) == 42


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "7"}, {"Retry-After": "899"}])
def test_nothing_but_429_for_half_an_hour_fails_all_queries_and_no_more_are_sent(
    service, new_client, july, time, headers
):
    service.faults.extend([None, *[Response(status_code=429, headers=headers)] * 10_000])
    failures = []

    async def fetch_all(client):
        await client.fetch_instances()
        for _ in range(100):
            with pytest.raises(RetriesExhausted) as failed:
                await client.fetch(POSTS_PERFORMANCE, july)
            failures.append(str(failed.value))

    started = time.now
    run_with(new_client(), fetch_all)
    assert 900 <= time.now - started <= 1800
    assert ": HTTP 429" in failures[0]
    assert {failure.partition("page 1: ")[2] for failure in failures[1:]} == {
        f"not sent. {failures[0][failures[0].index('Nothing but') :]}"
    }
    assert re.search(
        "Nothing but 429 for 30 minutes, and the next try would be in .* s: run again later, and see what", failures[0]
    )


def test_query_that_alone_gets_nothing_but_429_fails_after_half_an_hour_and_others_go_on(
    service, new_client, july, time
):
    async def refuse_posts(request):
        return REFUSED if request.url.path.startswith("/v2/posts") else None

    async def sleep(seconds):
        await time.sleep(seconds)
        await client.fetch_instances()

    async def fetch_both(client):
        with pytest.raises(RetriesExhausted, match="page 1: HTTP 429 .* Nothing but 429 for 30 minutes"):
            await client.fetch(POSTS_PERFORMANCE, july)
        return await client.fetch_instances()

    service.faults.extend([refuse_posts] * 10_000)
    client, started = new_client(sleep=sleep), time.now
    assert run_with(client, fetch_both) == ("a", "b")
    assert 1700 < time.now - started <= 1800 + 60  # the last request waits for the pause after the last 429


def test_429_that_asks_for_more_than_half_an_hour_fails_at_once(service, new_client, july, time):
    service.faults.append(Response(status_code=429, headers={"Retry-After": "7200"}))
    with pytest.raises(RetriesExhausted, match=r"HTTP 429 .* the next try would be in 7200 s: run again later"):
        fetch_posts(new_client(), july)
    assert (len(service.requests_to()), time.sleeps) == (1, [])


def test_exhausted_retries_name_the_query_and_the_failure(service, new_client, july, time, events):
    service.faults.extend([problem(500, "ANL_00500")] * 8)
    started = time.now
    with pytest.raises(RetriesExhausted, match=r"page 1: HTTP 500 ANL_00500 .* Failed in 8 attempts"):
        fetch_posts(new_client(), july)
    assert len(service.requests_to()) == 8
    assert len(of_type(events, "retry")) == 7
    assert time.now - started > 61


def test_a_token_request_has_as_many_attempts_as_the_request_that_needs_it(service, new_client, july):
    service.token_faults.extend([problem(500, "ANL_00500")] * 8)

    with pytest.raises(RetriesExhausted, match="token: HTTP 500 .* Failed in 3 attempts"):
        fetch_posts(new_client(), july, max_attempts=3)


def test_timeout_excludes_the_wait_for_the_rate_limit(service, new_client, july):
    limiter = RateLimiter(requests=1, window_seconds=0.6)  # between the requests for the token and for the page
    assert fetch_posts(new_client(limiter=limiter, timeout_seconds=0.5), july).items == []


def raw_response(body: bytes, *, content_length: int | None = None, status: bytes = b"200 OK") -> bytes:
    head = b"HTTP/1.1 %b\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    return head % (status, content_length or len(body)) + body


def test_connection_closed_during_a_response_is_retried(new_client, july, events):
    good = raw_response(json.dumps(page_body([post(1)], page=1, page_size=100, total_items=1)).encode())
    bad = [b"", b"HTTP/1.1 200", good[:-10], raw_response(b"{}", content_length=5000), b"no HTTP\r\n\r\n"]
    responses = iter([*bad, good])
    with raw_server(lambda request: [next(responses)], keep_alive=False) as base_url:
        result = fetch_posts(new_client(base_url=base_url, credentials=AccessToken("ready")), july)
    assert [post.post_id for post in result.items] == [1]
    assert len(of_type(events, "retry")) == 5


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        # httpx builds the request of a redirect even if it does not follow it.
        (Response(status_code=302, headers={"Location": "http://xn--a"}), "InvalidCodepoint "),
        (Response(status_code=302, headers={"Location": "javascript:x"}), "InvalidURL "),
        # A valid cursor that is too long when percent-encoded.
        (JSONResponse({"data": [], "nextCursor": "😀" * 8192}), "page 2: InvalidURL URL too long"),
    ],
)
def test_any_error_that_httpx_raises_for_a_request_is_one_of_the_client(service, new_client, july, fault, reason):
    service.by_cursor = True
    service.faults.extend([fault] * 2)
    with pytest.raises(RetriesExhausted, match=f"posts of 2024-07-01 .* {reason}.* Failed in 1 attempts"):
        fetch_posts(new_client(api_version=CURSOR, retry=RetryPolicy(max_attempts=1)), july)


@pytest.mark.parametrize("status", [400, 403])
def test_rejected_request_is_not_retried_and_is_named(service, new_client, july, events, status):
    service.posts = THREE_PAGES
    service.faults.extend([None, None, problem(status, "ANL_00")])
    with pytest.raises(
        QueryRejected, match="posts of 2024-07-01 to 2024-07-31 by post_date, instances 'a', 'b', page 3"
    ):
        fetch_posts(new_client(concurrency=1), july)
    assert len(service.requests_to()) == 3
    assert of_type(events, "retry") == []


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        ({"items": [], "total": 3}, UnexpectedResponse, "not a page of posts: an object with items, total"),
        ({"data": {"posts": []}}, UnexpectedResponse, "not a page of posts: data is an object with posts"),
        (
            {"data": [post(1)], "meta": {}},
            UnexpectedResponse,
            "not a page of posts: no valid totalItems in an object with data, meta",
        ),
        ([post(1)], UnexpectedResponse, "not a page of posts: an array"),
        ({"type": "INTERNAL_ERROR", "title": "Forbidden"}, QueryRejected, "INTERNAL_ERROR Forbidden"),
    ],
)
def test_success_of_another_form_is_not_retried_and_names_its_members(
    service, new_client, july, events, body, kind, message
):
    service.faults.append(JSONResponse(body))
    with pytest.raises(kind, match=f"page 1: HTTP 200, but {message}"):
        fetch_posts(new_client(), july)
    assert of_type(events, "retry") == []


def test_token_under_another_name_is_not_retried_or_quoted(service, new_client, july, events):
    service.token_faults.append(JSONResponse({"access_token": "s3cret-token", "expires_in": 9}))
    with pytest.raises(UnexpectedResponse, match="not a token, but an object with access_token, expires_in") as raised:
        fetch_posts(new_client(), july)
    assert "s3cret-token" not in str(raised.value)
    assert of_type(events, "retry") == []


def test_redirect_is_not_followed(service, new_client, july):
    service.faults.append(Response(status_code=302, headers={"Location": "/elsewhere"}))
    with pytest.raises(UnexpectedResponse, match="a redirect, which is not followed"):
        fetch_posts(new_client(), july)
    assert service.requests_to("/elsewhere") == []


def test_credentials_are_sent_in_the_body_of_the_token_request_only(service, new_client, july):
    fetch_posts(new_client(), july)
    (token_request,) = service.requests_to("/oauth/token")
    assert json.loads(asyncio.run(token_request.body())) == {"clientId": CLIENT_ID, "clientSecret": CLIENT_SECRET}
    assert (token_request.url.query, token_request.headers.get("authorization")) == ("", None)
    assert token_request.headers["content-type"] == "application/json"
    assert CLIENT_SECRET not in "".join(request.url.query for request in service.requests)


@pytest.mark.parametrize("secret", ['with"quote', "with\\backslash"])
@pytest.mark.parametrize("is_status_line", [True, False])
def test_secret_that_a_proxy_echoes_in_an_escaped_form_is_not_shown(new_client, july, events, secret, is_status_line):
    def echo(request):
        body = request.partition(b"\r\n\r\n")[2]
        if is_status_line:
            return [b"HTTP/1.1 " + body + b"\r\n\r\n"]
        detail = json.dumps({"type": "PROXY", "detail": body.decode()})
        return [raw_response(detail.encode(), status=b"502 Bad Gateway")]

    credentials = ClientCredentials("the-client", secret)
    with raw_server(echo, keep_alive=False) as base_url, pytest.raises(RetriesExhausted) as raised:
        fetch_posts(new_client(base_url=base_url, credentials=credentials), july)
    reason = "RemoteProtocolError" if is_status_line else "HTTP 502 PROXY"
    host = base_url.removeprefix("http://")
    assert str(raised.value) == f"token: {reason}. Failed in 8 attempts at {host}: try again later."
    assert {event.reason for event in of_type(events, "retry")} == {f"token: {reason}"}


def test_wrong_credentials_raise_with_the_next_step(service, new_client, july):
    wrong = ClientCredentials(CLIENT_ID, "wr0ng-secret")
    with pytest.raises(
        CredentialsRejected, match="INVALID_CLIENT_CREDENTIALS. Check the client id and secret"
    ) as raised:
        fetch_posts(new_client(credentials=wrong), july)
    assert "wr0ng-secret" not in str(raised.value)
    assert len(service.requests) == 2


@pytest.mark.parametrize(
    "fault",
    [
        problem(500, "ANL_00500"),
        HTMLResponse("<html>"),
        JSONResponse({"jwt": ""}),
        JSONResponse({"jwt": "not\na header"}),
        problem(401, "INVALID_CLIENT_CREDENTIALS"),
    ],
)
def test_token_request_is_retried(service, new_client, july, fault):
    service.token_faults.append(fault)
    fetch_posts(new_client(), july)
    assert (len(service.requests_to()), len(service.requests_to("/oauth/token"))) == (1, 2)


def test_every_request_acquires_a_slot_of_the_rate_limiter(service, new_client, july, time):
    slots = 0

    class CountingLimiter(RateLimiter):
        async def acquire(self, **options) -> None:
            nonlocal slots
            slots += 1
            await super().acquire(**options)

    service.posts = THREE_PAGES
    service.token_faults.extend([problem(500, "ANL_00500")] * 2)
    service.faults.extend([None, problem(500, "ANL_00500"), problem(401, "ANL_00401")])
    limiter = CountingLimiter(requests=1000, clock=time, sleep=time.sleep)
    fetch_posts(new_client(limiter=limiter, concurrency=1), july)
    assert len(service.requests_to()) == 5
    assert slots == len(service.requests) == 5 + 4


def test_rejected_token_is_renewed_once_for_concurrent_requests(service, new_client, july):
    service.posts = [post(number, post_date=datetime(2024, 7, 1, tzinfo=UTC)) for number in range(1000)]

    async def wait_for_eight(request):
        # Eight requests are in flight with the token when it is revoked.
        waiting.append(request)
        if len(waiting) == 8:
            service.revoke_tokens()
            all_waiting.set()
        await all_waiting.wait()

    waiting, all_waiting = [], asyncio.Event()
    service.faults.extend([None] + [wait_for_eight] * 8)
    result = fetch_posts(new_client(concurrency=8), july)
    assert len(result.items) == 1000
    assert len(service.requests_to()) == 11 + 8
    assert len(service.requests_to("/oauth/token")) == 2


def test_three_rejected_tokens_raise(service, new_client, july):
    service.faults.extend([problem(401, "ANL_00401")] * 3)
    with pytest.raises(CredentialsRejected, match="3 tokens were rejected, the last one just after it was fetched"):
        fetch_posts(new_client(), july)
    assert (len(service.requests_to()), len(service.requests_to("/oauth/token"))) == (3, 3)


def test_tokens_that_expire_during_retry_waits_are_renewed(service, new_client, july):
    service.faults.extend([problem(401, "ANL_00401"), problem(500, "ANL_00500")] * 3)
    fetch_posts(new_client(), july)
    assert (len(service.requests_to()), len(service.requests_to("/oauth/token"))) == (7, 4)


def test_token_that_expires_during_the_wait_for_the_rate_limit_is_renewed(service, new_client, july, time):
    service.posts = THREE_PAGES
    service.token_lifetime = 3.0
    limiter = RateLimiter(requests=3, window_seconds=10.0, clock=time, sleep=time.sleep)
    result = fetch_posts(new_client(limiter=limiter, concurrency=1), july)
    assert (len(result.items), len(service.requests_to())) == (250, 4)


def test_rejected_access_token_is_not_renewed(service, new_client, july):
    with pytest.raises(
        CredentialsRejected, match="the access token was rejected or has expired. Set a new one"
    ) as raised:
        fetch_posts(new_client(credentials=AccessToken("gone-t0ken")), july)
    assert "gone-t0ken" not in str(raised.value)
    assert len(service.requests) == 1


def test_stated_rate_limit_is_applied_and_waits_are_reported(service, new_client, july, time, events):
    service.posts = [post(number, post_date=datetime(2024, 7, 1, tzinfo=UTC)) for number in range(1000)]
    service.headers = {"X-Ratelimit-Limit": "4", "X-Ratelimit-Window": "10"}
    started = time.now
    result = fetch_posts(new_client(concurrency=1), july)
    assert len(result.items) == 1000
    # A token and ten pages are 11 requests, at 4 per 10 seconds: the last one starts in the third window.
    assert 20 < time.now - started < 22
    waits = of_type(events, "rate limit")
    assert waits
    assert sum(wait.seconds for wait in waits) == pytest.approx(time.now - started)


def test_page_that_contains_the_token_is_retried(service, new_client, july, events):
    async def echo(request):
        row = post(1) | {"contentUrl": f"https://later.com?{request.headers['authorization']}"}
        return JSONResponse(page_body([row], page=1, page_size=100, total_items=1))

    service.posts = [post(1)]
    service.faults.append(echo)
    assert [row.content_url for row in fetch_posts(new_client(), july).items] == [None]
    assert "HTTP 200, but the response contains the token" in of_type(events, "retry")[0].reason


def test_requests_to_loopback_use_no_proxy(service, new_client, july, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert fetch_posts(new_client(), july).total_items == 0
