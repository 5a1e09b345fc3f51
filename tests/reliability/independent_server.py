"""An independent server of the API in both versions, which shares no code with the package.

It uses only the standard library. Unlike the sandbox, it issues tokens that are not JWTs, sends no rate-limit headers
and fails at random. A cursor is valid only for its query, and the page after a full page may be empty.
"""

import json
import secrets
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from random import Random
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.handler_server import running_handler

Row = dict[str, Any]

CLIENT_ID, CLIENT_SECRET = "somebody", "5e3cret"  # noqa: S105 - valid only here
CONTENT_TYPES = (
    "instagram_post", "instagram_reel", "instagram_story", "facebook_reel", "tiktok", "youtube_shorts", "twitter",
)  # fmt: skip
METRICS = (
    "cpe", "cpm", "engagementRate", "engagements", "estimatedValueGenerated", "impressions", "paidCpe", "paidCpm",
    "paidEngagementRate", "paidEngagements", "paidImpressions",
)  # fmt: skip
CAMPAIGN_METRICS = (
    "affiliateLinksClicks", "affiliateLinksCommissionEarned", "affiliateLinksConversionRate",
    "affiliateLinksConversions", "affiliateLinksRoi", "affiliateLinksSales", "engagements", "estimatedContentCost",
    "estimatedValueGenerated", "impressions", "paidAdSpend", "paidClicks", "paidCost", "paidEngagements",
    "paidImpressions", "paidReturnOnAdSpend", "postsCount", "trackingLinksClicks", "trackingLinksConversionValue",
    "trackingLinksConversions",
)  # fmt: skip
REPORTED_DAYS = 5
"""Number of days with metrics of a post, by performance date."""

_FAULTY_REQUESTS = {"expired": "nextCursor=", "revoked": "GET "}
"""Faults that only some requests may have, and a part of these requests."""


class Posts:
    """Random posts of some days and instances.

    Args:
        first_day: First day with posts.
        days: Number of days.
        instance_ids: Instances.
        seed: Selects the posts.
        campaigns: Number of campaigns. An instance has posts in all of them.
    """

    def __init__(
        self, *, first_day: date, days: int, instance_ids: tuple[str, ...], seed: int, campaigns: int = 8
    ) -> None:
        self.instance_ids = instance_ids
        self.seed = seed
        random = Random(seed)
        self._posts = [
            _post(random, number, first_day + timedelta(days=offset), instance_id, campaigns)
            for number, (offset, instance_id) in enumerate(
                (offset, instance_id)
                for offset in range(days)
                for instance_id in instance_ids
                for _ in range(random.randrange(0, 25))
            )
        ]

    def published(self, first: date, last: date) -> list[Row]:
        """Return the posts published in a range of days, with their metrics to date."""
        return [post for post in self._posts if first <= _day(post) <= last]

    def reported(self, day: date) -> list[Row]:
        """Return all posts with metrics on a day, with these metrics."""
        return [
            post | {name: _share(post[name], age) for name in ("engagements", "impressions", "paidImpressions")}
            for post in self._posts
            if 0 <= (age := (day - _day(post)).days) < REPORTED_DAYS
        ]

    def campaigns(self) -> list[Row]:
        """Return the campaigns of each instance that have posts, and one without posts for each instance."""
        post_dates: dict[tuple[str, int], list[str]] = {(name, 0): [] for name in self.instance_ids}
        for post in self._posts:
            post_dates.setdefault((post["instanceId"], post["campaignId"]), []).append(post["postDate"])
        return [_campaign(self.seed, *key, sorted(dates)) for key, dates in sorted(post_dates.items())]

    def campaigns_reported(self, day: date, instance_ids: Collection[str] | None = None) -> list[Row]:
        """Return the campaigns of some instances with posts that have metrics on a day, with all metrics of that day.

        The metrics are added up over all instances. Those that posts do not have are random.
        """
        posts: dict[int, list[Row]] = {}
        for post in self.reported(day):
            if instance_ids is None or post["instanceId"] in instance_ids:
                posts.setdefault(post["campaignId"], []).append(post)
        return [_campaign_performance(self.seed, number, day, rows) for number, rows in posts.items()]


def _campaign(seed: int, instance_id: str, number: int, dates: list[str]) -> Row:
    random = Random(f"{seed} {instance_id} {number}")
    return {
        "campaignId": number,
        "campaignName": random.choice((f"Été № {number}", f"<b>{number}</b> & co", "")),
        "description": random.choice((None, f"Line 1\nline 2 of {instance_id}")),
        "firstPostDate": dates[0] if dates else None,
        "instanceId": instance_id,
        "lastPostDate": dates[-1] if dates else None,
        "startDate": f"20{random.randrange(10, 30)}-02-28T{random.randrange(24):02}:30:00+05:30",
        "status": random.choice(("live", "draft", "paused")),
        "labels": random.choice(([], [{"größe": 2**60}, None])),
    }


def _campaign_performance(seed: int, number: int, day: date, posts: list[Row]) -> Row:
    random = Random(f"{seed} {number} {day}")
    metrics: Row = {name: random.choice((None, 0, random.randrange(10**9))) for name in CAMPAIGN_METRICS}
    for name in ("CommissionEarned", "ConversionRate", "Roi", "Sales"):
        metrics[f"affiliateLinks{name}"] = random.choice((None, round(1000 * random.random(), 2)))
    for name in ("estimatedContentCost", "paidAdSpend", "paidCost", "paidReturnOnAdSpend"):
        metrics[name] = random.choice((None, 0, 0.01, round(10**5 * random.random(), 2)))
    for name in ("engagements", "estimatedValueGenerated", "impressions", "paidEngagements", "paidImpressions"):
        known = [post[name] for post in posts if post[name] is not None]
        metrics[name] = sum(known) if known else None
    metrics["postsCount"] = len(posts)
    details = {"campaignId": number, "name": f"№ {number}", "networks": sorted({post["contentType"] for post in posts})}
    return details | metrics


def _day(post: Row) -> date:
    return date.fromisoformat(post["postDate"][:10])


def _share(count: int | None, age: int) -> int | None:
    return None if count is None else count >> (age + 1)


def _post(random: Random, number: int, day: date, instance_id: str, campaigns: int) -> Row:
    def nullable(value: float) -> float | None:
        return random.choice((None, 0, value, value, value))

    instant = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(milliseconds=random.randrange(86_400_000))
    profile = {
        "contentType": "instagram",
        "fullName": f"Zoë № {number}",
        "handleName": random.choice((None, f"@zoe{number}")),
        "profileImage": None,
        "profileLink": f"https://example.com/{number}",
    }
    return {
        "campaignId": random.randrange(1, campaigns + 1),
        "contentImageUrl": random.choice((None, f"https://example.com/{number}.jpg")),
        "contentType": random.choice(CONTENT_TYPES),
        "contentUrl": f"https://example.com/p/{number}?a=b&c=d",
        "cpe": nullable(round(random.random(), 2)),
        "cpm": nullable(round(40 * random.random(), 2)),
        "creatorId": random.randrange(1, 500),
        "creatorProfile": random.choice((None, profile, profile)),
        "engagementRate": nullable(round(10 * random.random(), 2)),
        "engagements": nullable(random.randrange(10**6)),
        "estimatedValueGenerated": nullable(random.randrange(10**5)),
        "impressions": nullable(random.randrange(2**53 + 10)),
        "instanceId": instance_id,
        "paidCpe": nullable(0.25),
        "paidCpm": nullable(1.5),
        "paidEngagementRate": None,
        "paidEngagements": nullable(random.randrange(100)),
        "paidImpressions": nullable(random.randrange(10**4)),
        "postDate": instant.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "postId": 10_000_000_000 + number,
    }


@dataclass
class IndependentServer:
    """A server with random faults.

    Attributes:
        posts: Posts to serve.
        token_seconds: Lifetime of a token.
        faults: Shares of all responses by fault: a status such as `429`; `cut` within the body; `dropped` before the
            response; `expired` cursor; `revoked` tokens, all of them.
        seed: Selects the requests with faults.
        by_cursor: Whether it has the cursor API version.
        base_url: Base URL while it runs.
        injected: Number of injected faults, by fault.
        issued: Number of issued tokens.
    """

    posts: Posts
    token_seconds: float
    faults: Mapping[str, float]
    seed: int = 0
    by_cursor: bool = False

    def __post_init__(self) -> None:
        self.base_url = ""
        self.injected: Counter[str] = Counter()
        self.issued = 0
        self._valid_until: dict[str, float] = {}
        self._requests = 0
        self._cursors: dict[str, tuple[str, int]] = {}
        self._lock = threading.Lock()

    @contextmanager
    def running(self) -> Iterator[str]:
        """Serve on a free loopback port while the block runs; yield the base URL."""
        this = self

        class Handler(_Handler):
            api = this

        with running_handler(Handler) as self.base_url:
            yield self.base_url

    def draw_fault(self, request: str) -> tuple[str | None, Random]:
        """Return the fault of a request, if any, and its source of random numbers."""
        with self._lock:
            self._requests += 1
            random = Random(f"{self.seed} {self._requests}")
            number = random.random()
            for name, share in self.faults.items():
                if number < share and _FAULTY_REQUESTS.get(name, "") in request:
                    self.injected[name] += 1
                    return name, random
                number -= share
            return None, random

    def issue_cursor(self, offset: int, *, query: str) -> str:
        """Return a cursor to an offset in the rows of a query."""
        with self._lock:
            cursor = secrets.token_urlsafe(9)
            self._cursors[cursor] = (query, offset)
            return cursor

    def cursor_offset(self, cursor: str, *, query: str) -> int | None:
        """Return the offset of a cursor; None if it does not belong to the query."""
        with self._lock:
            issued_for, offset = self._cursors.get(cursor, ("", 0))
            return offset if issued_for == query else None

    def issue_token(self) -> str:
        """Return an opaque token."""
        with self._lock:
            self.issued += 1
            token = secrets.token_urlsafe(24)
            self._valid_until[token] = time.monotonic() + self.token_seconds
            return token

    def revoke_tokens(self) -> None:
        """Accept none of the issued tokens any more."""
        with self._lock:
            self._valid_until.clear()

    def accepts(self, authorization: str) -> bool:
        """Return whether a request has a valid token."""
        with self._lock:
            return time.monotonic() < self._valid_until.get(authorization.removeprefix("Bearer "), 0.0)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 5  # of an idle connection
    api: IndependentServer

    def log_message(self, *_arguments: object) -> None:
        pass

    def do_POST(self) -> None:
        credentials = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if urlsplit(self.path).path != "/oauth/token":
            self._send(404, _problem(404))
        elif credentials != {"clientId": CLIENT_ID, "clientSecret": CLIENT_SECRET}:
            self._send(401, _problem("INVALID_CLIENT_CREDENTIALS"))
        else:
            self._send(200, {"jwt": self.api.issue_token()})

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        parameters: dict[str, list[str]] = {}
        for name, value in parse_qsl(url.query, keep_blank_values=True):
            parameters.setdefault(name.removesuffix("[]"), []).extend(value.split(","))
        if not self.api.accepts(self.headers.get("Authorization", "")):
            self._send(401, _problem("ANL_00401"))
        elif url.path == "/v2/instances":
            self._send_page([*self.api.posts.instance_ids], parameters, wrap=lambda rows: {"instanceIds": rows})
        elif url.path == "/v2/posts/performance":
            self._send_posts(parameters)
        elif url.path == "/v2/campaigns":
            self._send_campaigns(parameters)
        elif url.path == "/v2/campaigns/performance":
            self._send_campaign_performance(parameters)
        else:
            self._send(404, _problem("ANL_00404"))

    def _send_posts(self, parameters: dict[str, list[str]]) -> None:
        posts = self.api.posts
        first, last = parameters["startDate"][0], parameters["endDate"][0]
        instance_ids = set(parameters.get("instanceIds", posts.instance_ids))
        if not instance_ids <= {*posts.instance_ids}:
            self._send(403, _problem("ANL_00403"))
            return
        if parameters.get("dateBasis", ["post_date"]) == ["post_date"]:
            rows = posts.published(date.fromisoformat(first), date.fromisoformat(last))
        elif first == last:
            rows = posts.reported(date.fromisoformat(first))
        else:
            self._send(400, _problem("ANL_00400"))  # this server does not add up days
            return
        rows = [row for row in rows if row["instanceId"] in instance_ids]
        rows.sort(key=lambda row: (row["postDate"], row["postId"]), reverse=parameters.get("sortDirection") != ["ASC"])
        self._send_rows(rows, parameters, metrics=METRICS)

    def _send_campaigns(self, parameters: dict[str, list[str]]) -> None:
        rows = self.api.posts.campaigns()
        if self.api.by_cursor and not parameters.keys() <= {"limit", "nextCursor"}:
            self._send(400, _problem("ANL_00400"))  # this version has no filter
            return
        instance_ids = parameters.get("instanceIds", self.api.posts.instance_ids)
        self._send_page([row for row in rows if row["instanceId"] in instance_ids], parameters, wrap=lambda rows: rows)

    def _send_campaign_performance(self, parameters: dict[str, list[str]]) -> None:
        first, last = parameters["startDate"][0], parameters["endDate"][0]
        if first != last or parameters.get("dateBasis") != ["performance_date"]:
            self._send(400, _problem("ANL_00400"))  # this server does not add up days
            return
        rows = self.api.posts.campaigns_reported(date.fromisoformat(first), parameters.get("instanceIds"))
        self._send_rows(rows, parameters, metrics=CAMPAIGN_METRICS)

    def _send_rows(self, rows: list[Row], parameters: dict[str, list[str]], *, metrics: Collection[str]) -> None:
        names = parameters.get("metrics", [])
        if not self.api.by_cursor:
            self._send_page(rows, parameters, wrap=lambda rows: rows)
        elif not names or not {*names} <= {*metrics}:
            self._send(400, _problem("ANL_00400"))
        else:
            self._send_page(rows, parameters, wrap=lambda rows: [_nest_metrics(row, names, metrics) for row in rows])

    def _send_page(self, rows: list[Any], parameters: dict[str, list[str]], *, wrap: Any) -> None:
        names = ("limit", "nextCursor") if self.api.by_cursor else ("pageSize", "pageNumber")
        if {"limit", "nextCursor", "pageSize", "pageNumber"} & parameters.keys() - {*names}:
            self._send(400, _problem("ANL_00400"))
            return
        if not self.api.by_cursor:
            self._send(200, _page(rows, parameters, wrap=wrap))
            return
        (cursor,) = parameters.pop("nextCursor", [None])
        query = f"{self.path.partition('?')[0]} {sorted(parameters.items())}"
        offset = 0 if cursor is None else self.api.cursor_offset(cursor, query=query)
        if offset is None:
            self._send(400, _problem("ANL_00400"))
            return
        end = offset + int(parameters.get("limit", ["50"])[0])
        # The server does not check for rows after a full page: the next page may be empty.
        following = self.api.issue_cursor(end, query=query) if end <= len(rows) else None
        self._send(200, {"data": wrap(rows[offset:end]), "nextCursor": following})

    def _send(self, status: int, body: object) -> None:
        fault, random = self.api.draw_fault(f"{self.command} {self.path}")
        content, content_type = json.dumps(body, ensure_ascii=False).encode(), "application/json"
        if fault == "expired":
            status, content = 400, json.dumps(_problem("ANL_00400")).encode()
        if fault == "revoked":
            self.api.revoke_tokens()
            status, content = 401, json.dumps(_problem("ANL_00401")).encode()
        if fault == "dropped":
            self.close_connection = True
            return
        if fault in ("429", "503"):
            status, content_type = int(fault), "text/plain"
            content = b"Too Many Requests" if status == 429 else b"upstream connect error"
        elif fault == "500":
            status, content = 500, json.dumps(_problem("ANL_00500")).encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if fault == "cut":
            content = content[: random.randrange(len(content))]
            self.close_connection = True
        self.wfile.write(content)


def _problem(kind: str) -> Row:
    return {"type": kind, "title": "It was not to be", "detail": ""}


def _nest_metrics(row: Row, names: list[str], metrics: Collection[str]) -> Row:
    others = {name: value for name, value in row.items() if name not in metrics}
    return others | {"metrics": {name: row[name] for name in names}}


def _page(rows: list[Any], parameters: Mapping[str, list[str]], *, wrap: Any) -> Row:
    size, number = (
        int(parameters.get(name, [default])[0]) for name, default in (("pageSize", "50"), ("pageNumber", "1"))
    )
    return {
        "data": wrap(rows[(number - 1) * size : number * size]),
        "pagination": {"page": number, "pageSize": size, "totalItems": len(rows), "totalPages": -(-len(rows) // size)},
    }
