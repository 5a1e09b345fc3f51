"""The client against a real server: whole answers, paced, renewed, tried again, or one clear error."""

import asyncio
import gzip
import json
import logging
import math
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

import httpx
import pytest
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from later_reporting_dagster.client import (
    AccessToken,
    ClientCredentials,
    ContractBroken,
    CredentialsRejected,
    InstanceForbidden,
    PageFetched,
    QueryRefused,
    RateLimiter,
    Retriable,
    Retried,
    RetryPolicy,
    TooManyPosts,
    Waited,
    WalkInconsistent,
    WalkRepeated,
)
from later_reporting_dagster.client.client import Probe
from later_reporting_dagster.contract import CURSOR, PAGED, DateBasis
from tests.client.service import (
    CLIENT_ID,
    CLIENT_SECRET,
    THREE_PAGES,
    instances,
    jwt,
    kinds,
    page_body,
    post,
    problem,
    use,
    walk,
)

# Walks, by number and by cursor


def test_a_walk_returns_every_post_once_in_the_order_of_the_service(service, either, july):
    service.posts = THREE_PAGES
    walked = walk(either(), july)
    assert [(each.post_id, each.impressions, each.engagements, each.cpm) for each in walked.posts] == [
        (number, number * 10, 0, None) for number in range(250)
    ]
    assert (walked.query, walked.total_items, walked.pages) == (july, 250, 3)
    assert (len(service.asked()), walked.bad_rows) == (3, [])


def test_an_answer_without_posts_is_one_page(service, either, july):
    walked = walk(either(), july)
    assert (walked.posts, walked.total_items, walked.pages, len(service.asked())) == ([], 0, 1, 1)


def test_bad_rows_come_apart_from_the_good_ones(service, either, july):
    service.posts = [*THREE_PAGES, post(999) | {"impressions": 0.5}]
    walked = walk(either(), july)
    assert (len(walked.posts), walked.total_items) == (250, 251)
    assert [row.reason for row in walked.bad_rows] == ["impressions is a whole number, not 0.5"]
    assert '"impressions":0.5' in walked.bad_rows[0].raw


@pytest.mark.parametrize(
    ("lie", "problem_text"),
    [
        (lambda number, body: body | {"data": [body["data"][0], *body["data"][:-1]]}, "of [0-9]* rows came twice"),
        (
            lambda number, body: body | {"data": [post(5000 + number, instance_id="c"), *body["data"][1:]]},
            "rows of instances that were not asked for: 'c'",
        ),
        (
            lambda number, body: (
                body | {"data": [post(5000 + number, post_date=datetime(2024, 8, 1, tzinfo=UTC)), *body["data"][1:]]}
            ),
            "a row of 2024-08-01T00:00:00\\+00:00, after 2024-07-31",
        ),
    ],
)
def test_a_walk_of_wrong_rows_gives_none(service, either, july, events, lie, problem_text):
    service.posts, service.lie = THREE_PAGES, lie
    with pytest.raises(WalkInconsistent, match=problem_text) as raised:
        walk(either(), july)
    assert "posts of 2024-07-01 to 2024-07-31 by post_date, instances 'a', 'b'" in str(raised.value)
    assert str(raised.value).endswith(" try later, or ask for fewer days or instances at once.")
    assert len(kinds(events, WalkRepeated)) == 1


PASSING_FAULTS = {
    "429 in seconds": Response(status_code=429, headers={"Retry-After": "7"}),
    "429": problem(429, "Too Many Requests"),
    "500": problem(500, "ANL_00500"),
    "503 as text": PlainTextResponse("Service Unavailable", 503),
    "502 as HTML": HTMLResponse("<html>Bad Gateway</html>", 502),
    "401": problem(401, "ANL_00401"),
    "HTML with 200": HTMLResponse("<html>maintenance</html>"),
    "truncated JSON": Response(json.dumps(page_body(THREE_PAGES[:100], page=1, page_size=100, total_items=250))[:5000]),
    "an empty body": Response(b""),
    "neither pagination nor cursor": JSONResponse({"data": []}),
    "gzip cut off": Response(gzip.compress(b"x" * 10**5)[:50], headers={"Content-Encoding": "gzip"}),
    "no gzip at all": Response(b"plain", headers={"Content-Encoding": "gzip"}),
}  # fmt: skip


@pytest.mark.parametrize("fault", PASSING_FAULTS.values(), ids=PASSING_FAULTS)
@pytest.mark.parametrize("place", [0, 2])
def test_a_fault_that_passes_costs_one_more_request(service, either, july, fault, place):
    service.posts = THREE_PAGES
    service.faults.extend([None] * place + [fault])
    walked = walk(either(), july)
    assert [post.post_id for post in walked.posts] == list(range(250))
    assert len(service.asked()) == 4


def test_instances_come_from_all_pages(service, either):
    service.instance_ids = [f"i{number}" for number in range(250)]
    assert instances(either()) == tuple(service.instance_ids)
    assert len(service.asked("/v2/instances")) == 3


def test_instances_that_do_not_add_up_are_an_error(service, either):
    service.instance_ids = ["a", "b", "a"]
    with pytest.raises(WalkInconsistent, match="instances: walked 2 times, .* 1 of 3 rows came twice"):
        instances(either())


# Walks by number


def test_a_walk_asks_each_page_of_100_once_and_for_one_token(service, new_client, july, events):
    service.posts = THREE_PAGES
    walk(new_client(), replace(july, date_basis=DateBasis.PERFORMANCE_DATE))
    assert sorted(seen.page for seen in service.asked()) == [1, 2, 3]
    assert service.asked()[0].parameters == [
        ("startDate", "2024-07-01"),
        ("endDate", "2024-07-31"),
        ("instanceIds", "a"),
        ("instanceIds", "b"),
        ("dateBasis", "performance_date"),
        ("pageSize", "100"),
        ("pageNumber", "1"),
        ("sortProperty", "postDate"),
        ("sortDirection", "ASC"),
    ]
    assert sorted(kinds(events, PageFetched), key=lambda event: event.page) == [
        PageFetched(page=number, rows=rows) for number, rows in enumerate((100, 100, 50), 1)
    ]
    assert len(service.asked("/oauth/token")) == 1
    assert {seen.authorization for seen in service.asked()} == {f"Bearer {next(iter(service.tokens))}"}


def test_odd_instance_ids_arrive_as_they_are(service, new_client, july):
    odd = ("a|b", "../x", "a,b", "a b+c", "é日", "", "%2F", "&x=1#")
    service.posts = [post(number, instance_id=name) for number, name in enumerate(odd)]
    walked = walk(new_client(), replace(july, instance_ids=odd))
    assert tuple(post.instance_id for post in walked.posts) == odd
    assert tuple(value for name, value in service.asked()[0].parameters if name == "instanceIds") == odd


def test_too_many_posts_cost_one_request(service, new_client, july):
    service.posts = THREE_PAGES
    service.lie = lambda number, body: page_body(body["data"], page=number, page_size=100, total_items=100_001)
    with pytest.raises(TooManyPosts, match="100001 items are 1001 pages") as raised:
        walk(new_client(), july)
    assert raised.value.total_items == 100_001
    assert len(service.asked()) == 1


def test_more_posts_than_are_wanted_at_once_cost_one_request(service, new_client, july):
    service.posts = THREE_PAGES
    assert len(walk(new_client(), july, most_posts=250).posts) == 250
    del service.seen[:]
    with pytest.raises(TooManyPosts) as raised:
        walk(new_client(), july, most_posts=249)
    assert str(raised.value) == (
        "posts of 2024-07-01 to 2024-07-31 by post_date, instances 'a', 'b': 250 items are 3 pages, more than can be"
        " asked for at once. Ask for fewer days or instances."
    )
    assert len(service.asked()) == 1


def test_what_lies_beyond_the_last_page_is_met_from_the_other_end(service, new_client, july):
    service.posts = [post(number, post_date=datetime(2024, 7, 1, tzinfo=UTC)) for number in range(50_450)]
    walked = walk(new_client(), july)
    assert sorted(each.post_id for each in walked.posts) == list(range(50_450))
    assert len(service.asked()) == 500 + 6
    directions = [dict(asked.parameters)["sortDirection"] for asked in service.asked()]
    assert (directions.count("ASC"), directions.count("DESC")) == (500, 6)


def test_several_walks_at_once_share_token_and_connections(service, new_client, july):
    service.posts = THREE_PAGES
    at_once = []
    most = 0

    async def watch(request):
        nonlocal most
        at_once.append(request)
        most = max(most, len(at_once))
        await asyncio.sleep(0.001)
        at_once.pop()

    service.faults.extend([watch] * 12)

    async def scenario():
        async with new_client(concurrency=3) as client:
            return await asyncio.gather(*(client.walk(july) for _ in range(4)))

    walks = asyncio.run(scenario())
    assert [len(walked.posts) for walked in walks] == [250] * 4
    assert len(service.asked()) == 12
    assert len(service.asked("/oauth/token")) == 1
    assert 1 < most <= 3


# Walks that are not good


def moving_total(service):
    """The first walk sees the total move on its last page."""

    def lie(number, body):
        if number == 3 and sum(seen.page == 3 for seen in service.asked()) == 1:
            body["pagination"]["totalItems"] += 1
        return body

    return lie


def test_a_total_that_moves_is_walked_again(service, new_client, july, events):
    service.posts = THREE_PAGES
    service.lie = moving_total(service)
    walked = walk(new_client(), july)
    assert [post.post_id for post in walked.posts] == list(range(250))
    assert len(service.asked()) == 6
    assert kinds(events, WalkRepeated) == [WalkRepeated("page 1 says 250 items by 100, page 3 says 251 by 100")]


def test_posts_that_arrive_during_the_walk_are_neither_lost_nor_doubled(service, new_client, july):
    service.posts = THREE_PAGES[10:]

    async def arrive(request):
        service.posts = THREE_PAGES

    service.faults.extend([None, arrive])
    walked = walk(new_client(concurrency=1), july)
    assert [post.post_id for post in walked.posts] == list(range(250))


def exchanging(service):
    """A service of which, once page 1 is out, a post of it vanishes while another arrives at the end."""

    async def exchange(request):
        service.posts = [*THREE_PAGES[1:], post(250)]

    service.posts = THREE_PAGES
    service.faults.extend([None, exchange])
    return [*range(100), *range(101, 251)]  # what pages 1, 2 and 3 then have: 250 posts, and not post 100


def test_pages_of_two_moments_with_the_same_total_look_like_one_answer(service, new_client, july):
    mixed = exchanging(service)
    walked = walk(new_client(concurrency=1, second_looks={CURSOR: 1.0}), july)
    assert ([post.post_id for post in walked.posts], len(service.asked())) == (mixed, 3)


def test_a_second_look_tells_pages_of_two_moments(service, new_client, july, events):
    exchanging(service)
    walked = walk(new_client(concurrency=1, second_looks={PAGED: 1.0}), july)
    assert [post.post_id for post in walked.posts] == [*range(1, 251)]
    assert len(service.asked()) == 4 * 3
    assert kinds(events, WalkRepeated) == [WalkRepeated("at a second look 2 rows were others")]


def test_as_many_walks_are_looked_at_twice_as_are_wanted(service, new_client, july):
    service.posts = THREE_PAGES
    draws = iter([0.49, 0.5, 0.51])
    client = new_client(second_looks={PAGED: 0.5}, random=lambda: next(draws))

    async def walks(client):
        counts = []
        for _ in range(3):
            await client.walk(july)
            counts.append(len(service.asked()) - sum(counts))
        return counts

    assert use(client, walks) == [6, 3, 3]


# That there are no more than 100 is told by the other end.
@pytest.mark.parametrize(("count", "requests"), [(0, 1), (99, 1), (100, 2), (101, 4)])
def test_a_single_page_is_of_one_moment_and_not_looked_at_twice(service, new_client, july, count, requests):
    service.posts = THREE_PAGES[:count]
    walk(new_client(second_looks={PAGED: 1.0}), july)
    assert len(service.asked()) == requests


@pytest.mark.parametrize(
    ("lie", "problem_text"),
    [
        (lambda number, body: body | {"data": body["data"][1:]}, "page 1 has 99 rows"),
        (
            lambda number, body: body | {"pagination": body["pagination"] | {"page": 1}},
            "page [23] was asked for, and page 1 answered",
        ),
        (
            lambda number, body: body | {"pagination": body["pagination"] | {"totalItems": 240}},
            "page 3 has 50 rows where 240 items by 100 leave 40 for it",
        ),
        (
            lambda number, body: body | {"pagination": body["pagination"] | {"totalItems": 350, "totalPages": 4}},
            "page [34] has",
        ),
    ],
)
def test_a_walk_whose_totals_do_not_add_up_twice_gives_no_row(service, new_client, july, events, lie, problem_text):
    service.posts, service.lie = THREE_PAGES, lie
    with pytest.raises(WalkInconsistent, match=problem_text):
        walk(new_client(), july)
    assert len(kinds(events, WalkRepeated)) == 1


def test_a_walk_stops_at_the_first_page_that_does_not_fit(service, new_client, july):
    service.posts = [post(number, post_date=datetime(2024, 7, 1, tzinfo=UTC)) for number in range(5000)]
    service.lie = lambda number, body: body | {"data": body["data"][: 99 if number > 1 else 100]}
    with pytest.raises(WalkInconsistent):
        walk(new_client(concurrency=2), july)
    assert len(service.asked()) < 15


# What passes


@pytest.mark.parametrize(
    ("fault", "seconds"), [("429 in seconds", 7), ("429", 60 / 64), ("500", 0.5), ("truncated JSON", 0.5)]
)
def test_a_retry_waits_as_long_as_the_service_asks_or_as_the_backoff_says(
    service, new_client, july, time, fault, seconds
):
    started = time.now
    service.faults.append(PASSING_FAULTS[fault])
    walk(new_client(), july)
    assert time.now - started == pytest.approx(seconds, abs=0.01)


@pytest.mark.parametrize(("refusals", "seconds"), [(1, 2), (2, 2 + 4), (7, 2 + 4 + 8 + 16 + 32 + 64 + 128)])
def test_a_429_waits_for_more_and_more_of_the_window_that_the_service_states(
    service, new_client, july, time, refusals, seconds
):
    service.headers = {"X-Ratelimit-Limit": "1000", "X-Ratelimit-Window": "128"}
    started = time.now
    service.faults.extend([problem(429, "Too Many Requests")] * refusals)
    walk(new_client(), july)
    assert time.now - started == pytest.approx(seconds, abs=0.01)


def test_after_a_429_no_other_request_starts_either(service, new_client, july, time):
    service.posts = THREE_PAGES
    limiter = RateLimiter(requests=1000, clock=time, sleep=time.sleep)
    service.faults.extend([None, Response(status_code=429, headers={"Retry-After": "20"})])

    async def scenario():
        started = time.now
        async with new_client(limiter=limiter, concurrency=1, retry=RetryPolicy(attempts=1)) as client:
            with pytest.raises(Retriable, match="HTTP 429") as raised:
                await client.walk(july)
        assert raised.value.wait_seconds == 20
        await limiter.acquire()
        return time.now - started

    assert asyncio.run(scenario()) == 20


def test_retries_end_and_say_what_was_asked_and_what_went_wrong(service, new_client, july, time, events):
    service.faults.extend([problem(500, "ANL_00500")] * 8)
    started = time.now
    with pytest.raises(Retriable, match=r"page 1: HTTP 500 ANL_00500 .* Given up after 8 attempts") as raised:
        walk(new_client(), july)
    assert raised.value.wait_seconds is None
    assert len(service.asked()) == 8
    assert len(kinds(events, Retried)) == 7
    assert time.now - started > 61


def test_a_service_that_asks_for_an_hour_is_not_waited_for(service, new_client, july, time):
    service.faults.append(Response(status_code=503, headers={"Retry-After": "3600"}))
    started = time.now
    with pytest.raises(Retriable, match="Given up after 1 attempts") as raised:
        walk(new_client(), july)
    assert raised.value.wait_seconds == 3600
    assert time.now == started


def test_waiting_for_a_turn_is_not_part_of_the_deadline(service, new_client, july):
    limiter = RateLimiter(requests=1, window_seconds=0.6)  # the page has its turn so long after the token
    assert walk(new_client(limiter=limiter, timeout_seconds=0.5), july).posts == []


@contextmanager
def raw_server(answers: list[bytes]) -> Iterator[str]:
    """Gives each connection the next of some bytes, whatever is asked, and closes it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for answer in answers:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(timeout=5)


def raw(body: bytes, *, promised: int | None = None) -> bytes:
    return b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (promised or len(body), body)


def test_connections_closed_before_or_amid_the_answer_are_made_again(new_client, july, events):
    good = raw(json.dumps(page_body([post(1)], page=1, page_size=100, total_items=1)).encode())
    answers = [b"", b"HTTP/1.1 200", good[:-10], raw(b"{}", promised=5000), b"no HTTP\r\n\r\n", good]
    with raw_server(answers) as base_url:
        walked = walk(new_client(base_url=base_url, credentials=AccessToken("ready")), july)
    assert [post.post_id for post in walked.posts] == [1]
    assert len(kinds(events, Retried)) == 5


def test_a_service_that_is_not_there_is_named(new_client, july):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(Retriable, match=r"^token: ConnectError .* Given up after 8 attempts"):
        walk(new_client(base_url=base_url), july)


def test_what_takes_time_is_logged(service, new_client, july, time, caplog):
    caplog.set_level(logging.INFO, logger="later_reporting_dagster.client")
    service.posts = THREE_PAGES
    service.lie = moving_total(service)
    service.faults.append(problem(500, "ANL_00500"))
    walk(new_client(concurrency=1), july)
    of_july = "posts of 2024-07-01 to 2024-07-31 by post_date, instances 'a', 'b'"
    assert caplog.messages == [
        f"{of_july}, page 1: HTTP 500 ANL_00500 Title for people; again in 0.5 s",
        f"{of_july}: page 1 says 250 items by 100, page 3 says 251 by 100; all pages again",
    ]


# What does not pass


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (problem(400, "ANL_00400", "startDate is odd"), QueryRefused),
        (problem(403, "ANL_00403"), InstanceForbidden),
        (Response(status_code=204), ContractBroken),
    ],
)
@pytest.mark.parametrize("place", [0, 2])
def test_a_refusal_is_final_and_not_asked_for_again(service, new_client, july, events, answer, kind, place):
    service.posts = THREE_PAGES
    service.faults.extend([None] * place + [answer])
    with pytest.raises(kind) as raised:
        walk(new_client(concurrency=1), july)
    assert f"posts of 2024-07-01 to 2024-07-31 by post_date, instances 'a', 'b', page {place + 1}" in str(raised.value)
    assert len(service.asked()) == place + 1
    assert kinds(events, Retried) == []


@pytest.mark.parametrize("location", ["/elsewhere", "http:elsewhere", "http://host:port/", "//[", "//xn--/", ""])
def test_a_redirect_is_not_followed_and_takes_no_token_along(service, new_client, july, location):
    service.faults.append(Response(status_code=302, headers={"Location": location}))
    with pytest.raises(ContractBroken, match="a redirect, which is not followed"):
        walk(new_client(), july)
    assert service.asked("/elsewhere") == []


def test_a_query_too_long_for_an_address_is_refused_before_it_is_sent(service, new_client, july):
    many = tuple(f"instance_{number}" for number in range(10_000))
    with pytest.raises(QueryRefused, match="Ask for fewer instances at once"):
        walk(new_client(), replace(july, instance_ids=many))
    assert service.seen == []


# Tokens


def test_credentials_are_sent_in_the_body_of_the_token_route_only(service, new_client, july):
    walk(new_client(), july)
    (asked,) = service.asked("/oauth/token")
    assert json.loads(asked.body) == {"clientId": CLIENT_ID, "clientSecret": CLIENT_SECRET}
    assert (asked.query, asked.authorization) == ("", None)
    assert asked.headers["content-type"] == "application/json"
    assert CLIENT_SECRET not in "".join(seen.query for seen in service.seen)


def test_bad_credentials_are_rejected_with_the_next_step(service, new_client, july):
    wrong = ClientCredentials(CLIENT_ID, "wr0ng-secret")
    with pytest.raises(
        CredentialsRejected, match="INVALID_CLIENT_CREDENTIALS. Check the client id and secret"
    ) as raised:
        walk(new_client(credentials=wrong), july)
    assert "wr0ng-secret" not in str(raised.value)
    assert len(service.seen) == 1


@pytest.mark.parametrize(
    "fault",
    [
        problem(500, "ANL_00500"),
        problem(429, "Too Many Requests"),
        HTMLResponse("<html>"),
        JSONResponse({"token": "x"}),
        JSONResponse({"jwt": 5}),
        JSONResponse({"jwt": ""}),
        JSONResponse({"jwt": "not\na header"}),
        JSONResponse({"jwt": "x" * 60_000}),
    ],
)
def test_a_token_route_that_fails_for_a_while_is_asked_again(service, new_client, july, fault):
    service.token_faults.extend([fault, fault])
    walk(new_client(), july)
    assert (len(service.asked()), len(service.asked("/oauth/token"))) == (1, 3)


@pytest.mark.parametrize("exp", [1, -1e308, 1e308, 10**400, math.nan, True, "soon", [{}]])
def test_a_token_of_any_expiry_is_used_until_it_is_refused(service, new_client, july, exp):
    service.token_faults.append(JSONResponse({"jwt": jwt(exp=exp)}))
    walk(new_client(), july)
    assert (len(service.asked()), len(service.asked("/oauth/token"))) == (2, 2)


def test_an_answer_that_is_no_token_is_not_repeated(service, new_client, july, events):
    service.token_faults.append(JSONResponse({"jwt": "two w0rds"}))
    walk(new_client(), july)
    assert kinds(events, Retried) == [Retried("token: HTTP 200, but not a token", 0.5)]


def test_every_request_takes_a_turn_of_the_limiter(service, new_client, july, time):
    turns = 0

    class Counting(RateLimiter):
        async def acquire(self, **given) -> float:
            nonlocal turns
            turns += 1
            return await super().acquire(**given)

    service.posts = THREE_PAGES
    service.token_faults.extend([problem(500, "ANL_00500")] * 2)
    service.faults.extend([None, problem(500, "ANL_00500"), problem(401, "ANL_00401")])
    limiter = Counting(requests=1000, clock=time, sleep=time.sleep)
    walk(new_client(limiter=limiter, concurrency=1), july)
    assert len(service.asked()) == 5
    assert turns == len(service.seen) == 5 + 4


def test_a_token_that_is_refused_amid_a_walk_is_renewed_once_for_all(service, new_client, july):
    service.posts = [post(number, post_date=datetime(2024, 7, 1, tzinfo=UTC)) for number in range(1000)]

    async def all_here(request):
        # Holds the first eight of the pages after the first until all of them carry the token that is refused.
        waiting.append(request)
        if len(waiting) == 8:
            service.revoke_tokens()
            everyone.set()
        await everyone.wait()

    async def first_page(request):
        return None

    waiting, everyone = [], asyncio.Event()
    service.faults.extend([first_page] + [all_here] * 8)
    walked = walk(new_client(concurrency=8), july)
    assert len(walked.posts) == 1000
    assert len(service.asked()) == 11 + 8
    assert len(service.asked("/oauth/token")) == 2


def test_one_token_refused_after_the_other_rejects_the_credentials(service, new_client, july):
    service.faults.extend([problem(401, "ANL_00401")] * 3)
    with pytest.raises(CredentialsRejected, match="3 tokens were refused, the last one fetched just now"):
        walk(new_client(), july)
    assert (len(service.asked()), len(service.asked("/oauth/token"))) == (3, 3)


def test_a_fresh_token_that_is_refused_may_have_been_revoked(service, new_client, july):
    service.posts = THREE_PAGES
    service.faults.extend([problem(401, "ANL_00401")] * 2)
    assert len(walk(new_client(), july).posts) == 250


def test_tokens_of_three_seconds_are_renewed_before_they_expire(service, new_client, july, time):
    service.posts = [post(number, post_date=datetime(2024, 7, 1, tzinfo=UTC)) for number in range(3000)]
    service.token_lifetime = 3.0

    async def take_a_while(request):
        time.now += 0.29

    service.faults.extend([take_a_while] * 30)
    walked = walk(new_client(concurrency=1), july)
    assert len(walked.posts) == 3000
    assert len(service.asked()) == 31
    # Each is good for 2.7 seconds, in which ten of the thirty-one pages are asked for.
    assert len(service.asked("/oauth/token")) == 4


def test_a_token_is_chosen_when_the_turn_has_come_not_before(service, new_client, july, time):
    """A wait for the rate limit that outlasts the token must not send it expired."""
    service.posts = THREE_PAGES
    service.token_lifetime = 3.0
    limiter = RateLimiter(requests=3, window_seconds=10.0, clock=time, sleep=time.sleep)
    walked = walk(new_client(limiter=limiter, concurrency=1), july)
    assert (len(walked.posts), len(service.asked())) == (250, 3)


def test_a_token_of_unknown_lifetime_is_used_until_it_is_refused(service, new_client, july):
    service.posts = THREE_PAGES
    service.token_lifetime = None
    walk(new_client(), july)
    assert len(service.asked("/oauth/token")) == 1


def test_a_clock_that_is_wrong_does_not_renew_the_token_for_each_request(service, new_client, july, time):
    service.posts = THREE_PAGES
    walked = walk(new_client(clock=lambda: time.now + 10_000), july)
    assert len(walked.posts) == 250
    assert len(service.asked("/oauth/token")) == 1


def test_a_ready_token_is_used_as_it_is(service, new_client, july):
    token = service.new_token()
    walk(new_client(credentials=AccessToken(token)), july)
    assert service.asked("/oauth/token") == []


def test_a_ready_token_that_is_refused_is_not_renewed(service, new_client, july):
    with pytest.raises(
        CredentialsRejected, match="the access token was refused or has expired. Bring a new one"
    ) as raised:
        walk(new_client(credentials=AccessToken("gone-t0ken")), july)
    assert "gone-t0ken" not in str(raised.value)
    assert len(service.seen) == 1


# Around


def test_a_full_page_of_instances_is_one_request(service, new_client):
    service.instance_ids = [f"i{number}" for number in range(100)]
    assert len(instances(new_client())) == 100
    assert len(service.asked("/v2/instances")) == 1


def test_a_list_of_instances_that_is_refused_is_named(service, new_client):
    service.faults.append(problem(404, "ANL_00404"))
    with pytest.raises(QueryRefused, match=r"^instances, page 1: HTTP 404 ANL_00404 "):
        instances(new_client())


def probe(client):
    return use(client, lambda client: client.probe())


def test_a_probe_tells_the_rate_limit_and_the_clock_of_the_service(service, new_client):
    service.headers = {"X-Ratelimit-Limit": "120", "X-Ratelimit-Window": "60"}
    probed = probe(new_client())
    assert (probed.revision, probed.limit, probed.window_seconds) == (PAGED, 120, 60.0)
    assert abs((probed.server_time - datetime.now(UTC)).total_seconds()) < 60
    assert len(service.seen) == 2
    # In either revision this is a question, and its envelope tells which one it is.
    assert service.asked("/v2/instances")[0].parameters == []


def test_a_probe_of_a_service_that_tells_nothing(new_client):
    empty = page_body([], page=1, page_size=1, total_items=0) | {"data": {"instanceIds": []}}
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=empty))
    assert probe(new_client(transport=transport, credentials=AccessToken("ready"))) == Probe(PAGED, None, None, None)


def test_a_probe_of_something_else_is_an_error(new_client):
    transport = httpx.MockTransport(lambda request: httpx.Response(200, text="<html>"))
    with pytest.raises(Retriable, match="^instances: HTTP 200, but not a page of instances"):
        probe(new_client(transport=transport, credentials=AccessToken("ready")))


def test_the_limit_of_the_service_is_learned_from_its_answers_and_waits_are_told(
    service, new_client, july, time, events
):
    service.posts = [post(number, post_date=datetime(2024, 7, 1, tzinfo=UTC)) for number in range(1000)]
    service.headers = {"X-Ratelimit-Limit": "4", "X-Ratelimit-Window": "10"}
    started = time.now
    walked = walk(new_client(concurrency=1), july)
    assert len(walked.posts) == 1000
    # A token and ten pages are 11 requests at 4 in 10 seconds: two windows go by before the last of them.
    assert 20 < time.now - started < 22
    waits = kinds(events, Waited)
    assert {wait.reason for wait in waits} == {"rate limit"}
    assert sum(wait.seconds for wait in waits) == pytest.approx(time.now - started)


def test_a_limit_of_a_request_an_hour_is_obeyed_and_warned_of_once(service, new_client, july, time, caplog):
    service.posts, service.token_lifetime = THREE_PAGES, None
    service.headers = {"X-Ratelimit-Limit": "1", "X-Ratelimit-Window": "3600"}
    started = time.now
    walk(new_client(concurrency=1), july)
    assert time.now - started > 3 * 3600  # a token and three pages
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "a rate limit of 1 requests in 3600 s: it is obeyed" in warning


# Secrets


def test_a_page_that_repeats_the_token_is_not_used(service, new_client, july, events):
    async def echo(request):
        row = post(1) | {"contentUrl": f"https://later.com?{request.headers['authorization']}"}
        return JSONResponse(page_body([row], page=1, page_size=100, total_items=1))

    service.posts = [post(1)]
    service.faults.append(echo)
    assert [row.content_url for row in walk(new_client(), july).posts] == [None]
    assert "HTTP 200, but it repeats the credentials" in kinds(events, Retried)[0].reason


def test_a_token_that_was_renewed_while_a_request_was_on_its_way_is_not_shown_either(service, new_client, july, events):
    renewed = asyncio.Event()

    async def late_echo(request):
        await renewed.wait()
        return problem(500, "ANL_00500", f"you sent {request.headers['authorization']}")

    async def with_another_token(request):
        renewed.set()

    service.faults.extend([late_echo, problem(401, "ANL_00401"), with_another_token])

    async def two_walks(client):
        await asyncio.gather(client.walk(july), client.walk(july))

    use(new_client(), two_walks)
    assert len(service.tokens) == 2
    (retried,) = kinds(events, Retried)
    assert retried.reason.endswith("you sent Bearer [hidden]")


def test_a_proxy_of_the_environment_does_not_stand_before_loopback(service, new_client, july, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert walk(new_client(), july).total_items == 0


def test_every_request_says_who_asks_and_what_it_reads(service, new_client, july):
    walk(new_client(), july)
    assert {(seen.headers["accept"], seen.headers["user-agent"]) for seen in service.seen} == {
        ("application/json", "later-reporting-dagster")
    }
