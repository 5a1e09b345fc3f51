"""A server of the documented contract that shares no line with the package: another reading of the document.

It is written on the standard library alone, invents its own posts, hands out tokens that are no JWTs, says nothing of a
rate limit, and fails at random, as real ones do. It speaks either revision. Its cursors are good for some answers only,
and one that follows a full page may lead to nothing.
"""

import json
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Row = dict[str, Any]

CLIENT_ID, CLIENT_SECRET = "somebody", "5e3cret"  # noqa: S105 - opens nothing but this
CONTENT_TYPES = (
    "instagram_post", "instagram_reel", "instagram_story", "facebook_reel", "tiktok", "youtube_shorts", "twitter",
)  # fmt: skip
METRICS = (
    "cpe", "cpm", "engagementRate", "engagements", "estimatedValueGenerated", "impressions", "paidCpe", "paidCpm",
    "paidEngagementRate", "paidEngagements", "paidImpressions",
)  # fmt: skip
REPORTED_DAYS = 5
"""How many days from its first a post is reported for, by performance date."""


class Posts:
    """All posts of some days and instances, as the server reports them.

    Args:
        first_day: the first on which something was published, some days before the first that is asked for.
        days: how many days.
        instance_ids: who publishes.
        seed: another seed is other posts.
    """

    def __init__(self, *, first_day: date, days: int, instance_ids: tuple[str, ...], seed: int) -> None:
        self.instance_ids = instance_ids
        random = Random(seed)
        self._posts = [
            _post(random, number, first_day + timedelta(days=offset), instance_id)
            for number, (offset, instance_id) in enumerate(
                (offset, instance_id)
                for offset in range(days)
                for instance_id in instance_ids
                for _ in range(random.randrange(0, 25))
            )
        ]

    def published(self, first: date, last: date) -> list[Row]:
        """Posts published on these days, with their metrics to date."""
        return [post for post in self._posts if first <= _day(post) <= last]

    def reported(self, day: date) -> list[Row]:
        """Posts with metrics of a day, whenever they were published."""
        return [
            post | {name: _share(post[name], age) for name in ("engagements", "impressions", "paidImpressions")}
            for post in self._posts
            if 0 <= (age := (day - _day(post)).days) < REPORTED_DAYS
        ]


def _day(post: Row) -> date:
    return date.fromisoformat(post["postDate"][:10])


def _share(count: int | None, age: int) -> int | None:
    return None if count is None else count >> (age + 1)


def _post(random: Random, number: int, day: date, instance_id: str) -> Row:
    def maybe(value: float) -> float | None:
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
        "campaignId": random.randrange(1, 9),
        "contentImageUrl": random.choice((None, f"https://example.com/{number}.jpg")),
        "contentType": random.choice(CONTENT_TYPES),
        "contentUrl": f"https://example.com/p/{number}?a=b&c=d",
        "cpe": maybe(round(random.random(), 2)),
        "cpm": maybe(round(40 * random.random(), 2)),
        "creatorId": random.randrange(1, 500),
        "creatorProfile": random.choice((None, profile, profile)),
        "engagementRate": maybe(round(10 * random.random(), 2)),
        "engagements": maybe(random.randrange(10**6)),
        "estimatedValueGenerated": maybe(random.randrange(10**5)),
        "impressions": maybe(random.randrange(2**53 + 10)),
        "instanceId": instance_id,
        "paidCpe": maybe(0.25),
        "paidCpm": maybe(1.5),
        "paidEngagementRate": None,
        "paidEngagements": maybe(random.randrange(100)),
        "paidImpressions": maybe(random.randrange(10**4)),
        "postDate": instant.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "postId": 10_000_000_000 + number,
    }


@dataclass
class OtherServer:
    """What the server holds, and what it does to its answers.

    Attributes:
        posts: what it reports.
        token_seconds: how long it accepts a token.
        faults: shares of all answers: of a status, by its number, `cut` amid the body, `dropped` before any of it, or
            for a cursor that has `expired`.
        seed: with another one, faults come in another order.
        by_cursor: whether it pages by cursor, with metrics by name.
        base_url: where it is.
        injected: how many there were of each fault.
        issued: how many tokens it has handed out.
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
        self._good_until: dict[str, float] = {}
        self._answers = 0
        self._cursors: dict[str, tuple[str, int]] = {}
        self._lock = threading.Lock()

    @contextmanager
    def running(self) -> Iterator[str]:
        """Serves on a free port of loopback while the block runs, and gives the base URL."""
        this = self

        class Handler(_Handler):
            server_of = this

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
            thread.start()
            self.base_url = f"http://127.0.0.1:{server.server_address[1]}"
            try:
                yield self.base_url
            finally:
                server.shutdown()
                thread.join()

    def fault_of(self, asked: str) -> tuple[str | None, Random]:
        """What befalls a request, by how many there were before, and chance for the rest."""
        with self._lock:
            self._answers += 1
            random = Random(f"{self.seed} {self._answers}")
            number = random.random()
            for name, share in self.faults.items():
                if number < share and (name != "expired" or "nextCursor=" in asked):
                    self.injected[name] += 1
                    return name, random
                number -= share
            return None, random

    def cursor_to(self, start: int, *, of: str) -> str:
        """A cursor to a place in the answer to a question."""
        with self._lock:
            cursor = secrets.token_urlsafe(9)
            self._cursors[cursor] = (of, start)
            return cursor

    def place_of(self, cursor: str, *, of: str) -> int | None:
        """Where a cursor leads in the answer to a question; None when it is not one of its own."""
        with self._lock:
            asked, start = self._cursors.get(cursor, ("", 0))
            return start if asked == of else None

    def issue(self) -> str:
        """A token, of which nobody can read how long it is good."""
        with self._lock:
            self.issued += 1
            token = secrets.token_urlsafe(24)
            self._good_until[token] = time.monotonic() + self.token_seconds
            return token

    def accepts(self, authorization: str) -> bool:
        """Whether a request carries a token that is still good."""
        with self._lock:
            return time.monotonic() < self._good_until.get(authorization.removeprefix("Bearer "), 0.0)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 5  # of an idle connection
    server_of: OtherServer

    def log_message(self, *_arguments: object) -> None:
        pass

    def do_POST(self) -> None:
        given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if urlsplit(self.path).path != "/oauth/token":
            self._answer(404, _problem(404))
        elif given != {"clientId": CLIENT_ID, "clientSecret": CLIENT_SECRET}:
            self._answer(401, _problem("INVALID_CLIENT_CREDENTIALS"))
        else:
            self._answer(200, {"jwt": self.server_of.issue()})

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        given: dict[str, list[str]] = {}
        for name, value in parse_qsl(url.query, keep_blank_values=True):
            given.setdefault(name.removesuffix("[]"), []).extend(value.split(","))
        if not self.server_of.accepts(self.headers.get("Authorization", "")):
            self._answer(401, _problem("ANL_00401"))
        elif url.path == "/v2/instances":
            self._answer_page([*self.server_of.posts.instance_ids], given, wrap=lambda rows: {"instanceIds": rows})
        elif url.path == "/v2/posts/performance":
            self._answer_posts(given)
        else:
            self._answer(404, _problem("ANL_00404"))

    def _answer_posts(self, given: dict[str, list[str]]) -> None:
        posts = self.server_of.posts
        first, last = given["startDate"][0], given["endDate"][0]
        wanted = set(given.get("instanceIds", posts.instance_ids))
        if not wanted <= {*posts.instance_ids}:
            self._answer(403, _problem("ANL_00403"))
            return
        if given.get("dateBasis", ["post_date"]) == ["post_date"]:
            rows = posts.published(date.fromisoformat(first), date.fromisoformat(last))
        elif first == last:
            rows = posts.reported(date.fromisoformat(first))
        else:
            self._answer(400, _problem("ANL_00400"))  # it adds no days up
            return
        rows = [row for row in rows if row["instanceId"] in wanted]
        rows.sort(key=lambda row: (row["postDate"], row["postId"]), reverse=given.get("sortDirection") != ["ASC"])
        if not self.server_of.by_cursor:
            self._answer_page(rows, given, wrap=lambda rows: rows)
        elif not given.get("metrics") or not {*given["metrics"]} <= {*METRICS}:
            self._answer(400, _problem("ANL_00400"))
        else:
            self._answer_page(
                rows, given, wrap=lambda rows: [_with_metrics_apart(row, given["metrics"]) for row in rows]
            )

    def _answer_page(self, rows: list[Any], given: dict[str, list[str]], *, wrap: Any) -> None:
        names = ("limit", "nextCursor") if self.server_of.by_cursor else ("pageSize", "pageNumber")
        if {"limit", "nextCursor", "pageSize", "pageNumber"} & given.keys() - {*names}:
            self._answer(400, _problem("ANL_00400"))
            return
        if not self.server_of.by_cursor:
            self._answer(200, _page(rows, given, wrap=wrap))
            return
        (cursor,) = given.pop("nextCursor", [None])
        of = f"{self.path.partition('?')[0]} {sorted(given.items())}"
        start = 0 if cursor is None else self.server_of.place_of(cursor, of=of)
        if start is None:
            self._answer(400, _problem("ANL_00400"))
            return
        end = start + int(given.get("limit", ["50"])[0])
        # It looks no further than to the page's end, so that after a full one there may be nothing.
        following = self.server_of.cursor_to(end, of=of) if end <= len(rows) else None
        self._answer(200, {"data": wrap(rows[start:end]), "nextCursor": following})

    def _answer(self, status: int, body: object) -> None:
        fault, random = self.server_of.fault_of(f"{self.command} {self.path}")
        content, content_type = json.dumps(body, ensure_ascii=False).encode(), "application/json"
        if fault == "expired":
            status, content = 400, json.dumps(_problem("ANL_00400")).encode()
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


def _with_metrics_apart(row: Row, names: list[str]) -> Row:
    others = {name: value for name, value in row.items() if name not in METRICS}
    return others | {"metrics": {name: row[name] for name in names}}


def _page(rows: list[Any], given: Mapping[str, list[str]], *, wrap: Any) -> Row:
    size, number = (int(given.get(name, [usual])[0]) for name, usual in (("pageSize", "50"), ("pageNumber", "1")))
    return {
        "data": wrap(rows[(number - 1) * size : number * size]),
        "pagination": {"page": number, "pageSize": size, "totalItems": len(rows), "totalPages": -(-len(rows) // size)},
    }
