"""Another server of the posts route in both API versions, with all its filters; it shares no code with the package.

It uses only the standard library. The parameters of a request select the API version, as `later-reporting serve` does.
By performance date, it has single days only.
"""

import base64
import json
import re
import secrets
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from random import Random
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.handler_server import running_handler

Row = dict[str, Any]
Parameters = dict[str, list[str]]

CLIENT_ID, CLIENT_SECRET = "reference", "5e3cret"  # noqa: S105 - valid only here

WHOLE_METRICS = (
    "engagements", "impressions", "paidEngagements", "paidImpressions", "likes", "comments", "shares", "saves", "views",
    "totalInteractions", "replies", "reposts", "reach", "organicReach", "potentialReach", "followersAtPostDate",
    "navigationTapExit", "navigationTapBack", "navigationTapForward", "navigationSwipeForward", "crosspostedViews",
    "crosspostedFacebookOnlyViews", "paidLikes", "paidComments", "paidShares", "paidSaves", "paidViews", "paidReach",
)  # fmt: skip
DECIMAL_METRICS = (
    "cpe", "cpm", "engagementRate", "estimatedValueGenerated", "paidCpe", "paidCpm", "paidEngagementRate",
    "videoViewTotalTime", "avgWatchTime",
)  # fmt: skip
METRICS = WHOLE_METRICS + DECIMAL_METRICS
PAGED_METRICS = (
    "cpe", "cpm", "engagementRate", "engagements", "estimatedValueGenerated", "impressions", "paidCpe", "paidCpm",
    "paidEngagementRate", "paidEngagements", "paidImpressions",
)  # fmt: skip
SORT_PROPERTIES = (*PAGED_METRICS, "postDate")
PLATFORMS = ("instagram", "tiktok", "facebook", "youtube", "twitter")
CONTENT_TYPES = (
    "instagram_post", "instagram_reel", "instagram_story", "facebook_post", "facebook_live", "facebook_group",
    "facebook_reel", "tiktok", "youtube_video", "youtube_shorts",
)  # fmt: skip
# The API reference cuts its list of content types off: a response may have others, but no query.
OTHER_CONTENT_TYPES = ("twitter", "instagram_carousel", "threads_post", "Instagram Post", "")

REPORTED_DAYS = 4
"""Number of days with metrics of a post, by performance date."""

_TEXTS = (
    "Zoë № 1", 'a "quoted" \\ name', "line 1\nline 2\ttab", "\u2028 \u2029 \x7f \x01", "😀 👩‍👩‍👧", "", " ",
    "<b>&amp;</b>", "null", "مرحبا", "'; DROP TABLE posts; --", "%2F%00",
)  # fmt: skip
_UNKNOWN_VALUES: tuple[Any, ...] = (
    None, True, 0, 1.0, -2.5, 1e300, 2**53 + 1, 2**70, -(2**64), "", "text", [], {}, [None, [1, {"größe": 2**63}]],
    {"b": 1, "a": {"Z": None, "a": "é"}}, {"null": None},
)  # fmt: skip
_UNKNOWN_NAMES = ("Boosted", "aspectRatio", "labels", "metricsSource", "post_id", "ßize", "zeta", "a.b", "date", "x y")


class ReferencePosts:
    """Random posts of some days and instances, some of them in several campaigns.

    Args:
        first_day: First day with posts.
        days: Number of days.
        instance_ids: Instances.
        seed: Selects the posts.
    """

    def __init__(self, *, first_day: date, days: int, instance_ids: tuple[str, ...], seed: int) -> None:
        self.instance_ids = instance_ids
        random = Random(seed)
        self._posts: list[Row] = []
        for offset in range(days):
            for instance_id in instance_ids:
                for _ in range(random.randrange(0, 11)):
                    post = _post(random, len(self._posts), first_day + timedelta(days=offset), instance_id)
                    campaigns = random.sample((7, 8, 49761, 2**53 + 1, 2**62), random.choice((1, 1, 1, 2, 3)))
                    self._posts += [
                        post | _metrics(random, largest=2**62) | {"campaignId": number} for number in campaigns
                    ]
        self._seed = seed

    def published(self, first: date, last: date) -> list[Row]:
        """Return the posts published in a range of days, with their metrics to date."""
        return [post for post in self._posts if first <= _day(post) <= last]

    def reported(self, day: date) -> list[Row]:
        """Return all posts with metrics on a day, with these metrics."""
        return [
            post | _metrics(Random(f"{self._seed} {day} {post['postId']} {post['campaignId']}"), largest=2**55)
            for post in self._posts
            if 0 <= (day - _day(post)).days < REPORTED_DAYS
        ]

    def campaigns(self) -> list[Row]:
        """Return the campaigns of each instance."""
        keys = sorted({(post["instanceId"], post["campaignId"]) for post in self._posts})
        return [
            {
                "campaignId": number,
                "campaignName": _TEXTS[place % len(_TEXTS)],
                "description": None if place % 3 else f"line 1\nline 2 of {instance_id}",
                "firstPostDate": None if place % 4 == 0 else "2024-02-20T10:20:30.456Z",
                "instanceId": instance_id,
                "lastPostDate": None if place % 4 == 0 else "2024-03-01T00:00:00.000Z",
                "startDate": "2024-02-01T00:00:00.000Z",
                "status": ("live", "draft")[place % 2],
                **({"labels": _UNKNOWN_VALUES[place % len(_UNKNOWN_VALUES)]} if place % 2 else {}),
            }
            for place, (instance_id, number) in enumerate(keys)
        ]


def _day(post: Row) -> date:
    return date.fromisoformat(post["postDate"][:10])


def _post(random: Random, number: int, day: date, instance_id: str) -> Row:
    # Some posts have the same time.
    milliseconds = random.choice((0, 86_399_999, random.randrange(86_400_000), random.randrange(86_400_000)))
    instant = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
    content_types = random.choice((CONTENT_TYPES, CONTENT_TYPES, OTHER_CONTENT_TYPES))
    names = random.sample(_UNKNOWN_NAMES, random.choice((0, 0, 1, 3)))
    return {
        "contentImageUrl": random.choice((None, f"https://example.com/{number}.jpg")),
        "contentType": random.choice((*content_types, None)),
        "contentUrl": random.choice((None, f"https://example.com/p/{number}?a=b&c={random.choice(_TEXTS)}")),
        "creatorId": random.choice((None, 0, random.randrange(1, 500), 2**53 + 1 + 2 * number)),
        "creatorProfile": _profile(random, number),
        "instanceId": instance_id,
        "postDate": instant.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "postId": random.choice((0, 10_000_000_000, 2**53, 2**62)) + number,
        **{name: random.choice(_UNKNOWN_VALUES) for name in names},
    }


def _profile(random: Random, number: int) -> Row | None:
    """Return a profile with at least one value, unless it has unknown fields; or none."""
    profile = {
        "contentType": random.choice((None, "instagram", "instagram_reel")),
        "fullName": random.choice((None, *_TEXTS)),
        "handleName": random.choice((None, f"@zoë{number}")),
        "profileImage": None,
        "profileLink": f"https://example.com/{number}",
    }
    if random.randrange(4) == 0:
        profile = dict.fromkeys(profile) if random.randrange(2) else profile
        return profile | {name: random.choice(_UNKNOWN_VALUES) for name in random.sample(_UNKNOWN_NAMES, 2)}
    return random.choice((None, profile, profile))


def _metrics(random: Random, *, largest: int) -> Row:
    """Return all metrics of a post: unknown, zero, all zero, frequent and large values."""
    if random.randrange(12) == 0:
        return dict.fromkeys(METRICS, random.choice((None, 0)))
    whole = (
        None,
        0,
        1,
        2,
        random.randrange(10**6),
        2**53 + 1 + 2 * random.randrange(99),
        largest - random.randrange(9),
    )
    found: Row = {name: random.choice(whole) for name in WHOLE_METRICS}
    for name in DECIMAL_METRICS:
        cents = random.randrange(10**4) / 100
        found[name] = random.choice((None, 0, 0.01, 1, cents, cents, 0.1 + 0.2, 1e-7, 123456789012345680, -1.5))
    return found


@dataclass(frozen=True)
class Reply:
    """A response: its status, its JSON document and its media type."""

    status: int
    document: Any
    media_type: str = "application/json"


class _RequestError(Exception):
    def __init__(self, status: int, kind: str) -> None:
        super().__init__(kind)
        self.reply = Reply(status, {"type": kind, "title": "refused", "detail": ""}, "application/problem+json")


def _invalid() -> _RequestError:
    return _RequestError(400, "ANL_00400")


class ReferenceServer:
    """The server. Its responses depend on the request only.

    Args:
        posts: The posts to serve.
    """

    def __init__(self, posts: ReferencePosts) -> None:
        self.posts = posts
        self._token = secrets.token_urlsafe(24)

    @contextmanager
    def running(self) -> Iterator[str]:
        """Serve on a free loopback port while the block runs; yield the base URL."""
        this = self

        class Handler(_Handler):
            server_of_posts = this

        with running_handler(Handler) as base_url:
            yield base_url

    def respond(self, method: str, target: str, *, authorization: str = "", body: bytes = b"") -> Reply:
        """Return the response to a request."""
        try:
            if urlsplit(target).path == "/oauth/token":
                return self._issue_token(method, body)
            return self._route(method, urlsplit(target).path, authorization)(_Query(urlsplit(target).query))
        except _RequestError as error:
            return error.reply

    def _route(self, method: str, path: str, authorization: str) -> "Callable[[_Query], Reply]":
        routes: dict[str, Callable[[_Query], Reply]] = {
            "/v2/instances": self._instances,
            "/v2/posts/performance": self._posts,
            "/v2/campaigns": self._campaigns,
        }
        if path not in routes:
            raise _RequestError(404, "ANL_00404")
        if method != "GET":
            raise _RequestError(405, "ANL_00405")
        if authorization != f"Bearer {self._token}":
            raise _RequestError(401, "ANL_00401")
        return routes[path]

    def select(self, parameters: Parameters) -> list[Row]:
        """Return the rows of a query, sorted: parameters are valid, and their values separate."""
        first, last = (date.fromisoformat(parameters[name][0]) for name in ("startDate", "endDate"))
        by_performance = parameters.get("dateBasis") == ["performance_date"]
        rows = self.posts.reported(first) if by_performance else self.posts.published(first, last)
        for name, field in (("instanceIds", "instanceId"), ("contentType", "contentType")):
            if name in parameters:
                rows = [row for row in rows if row[field] in parameters[name]]
        if "campaignIds" in parameters:
            rows = [row for row in rows if row["campaignId"] in {int(number) for number in parameters["campaignIds"]}]
        if "platform" in parameters:
            rows = [row for row in rows if (row["contentType"] or "").split("_")[0] in parameters["platform"]]
        sort_property = parameters.get("sortProperty", ["postDate"])[0]
        known = [row for row in rows if row[sort_property] is not None]
        known.sort(key=lambda row: row[sort_property], reverse=parameters.get("sortDirection") != ["ASC"])
        return known + [row for row in rows if row[sort_property] is None]

    def _issue_token(self, method: str, body: bytes) -> Reply:
        if method != "POST":
            raise _RequestError(405, "ANL_00405")
        try:
            credentials = json.loads(body)
        except ValueError:
            raise _invalid() from None
        if not isinstance(credentials, dict) or not all(
            isinstance(credentials.get(name), str) for name in ("clientId", "clientSecret")
        ):
            raise _invalid()
        if (credentials["clientId"], credentials["clientSecret"]) != (CLIENT_ID, CLIENT_SECRET):
            raise _RequestError(401, "INVALID_CLIENT_CREDENTIALS")
        return Reply(200, {"jwt": self._token})

    def _instances(self, query: "_Query") -> Reply:
        query.parse({})
        return query.page([*self.posts.instance_ids], wrap=lambda ids: {"instanceIds": ids})

    def _campaigns(self, query: "_Query") -> Reply:
        parameters = query.parse({} if query.by_cursor else {"instanceIds": _any_text})
        rows = self.posts.campaigns()
        if "instanceIds" in parameters:
            self._check_scope(parameters["instanceIds"])
            rows = [row for row in rows if row["instanceId"] in parameters["instanceIds"]]
        return query.page(rows, wrap=lambda rows: rows)

    def _posts(self, query: "_Query") -> Reply:
        parameters = query.parse(_POSTS_PARAMETERS | ({"metrics": METRICS.__contains__} if query.by_cursor else {}))
        _check_posts_query(parameters, by_cursor=query.by_cursor)
        self._check_scope(parameters.get("instanceIds", ()))
        names = parameters.get("metrics", PAGED_METRICS)
        return query.page(self.select(parameters), wrap=lambda rows: [_render(row, names, query) for row in rows])

    def _check_scope(self, instance_ids: Collection[str]) -> None:
        if not {*instance_ids} <= {*self.posts.instance_ids}:
            raise _RequestError(403, "ANL_00403")


def _any_text(value: str) -> bool:
    return bool(value)


def _is_day(value: str) -> bool:
    try:
        return bool(re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", value)) and bool(date.fromisoformat(value))
    except ValueError:
        return False


def _is_between(least: int, most: int) -> Callable[[str], bool]:
    return lambda value: bool(re.fullmatch("[0-9]+", value)) and least <= int(value) <= most


_ARRAYS = ("instanceIds", "campaignIds", "platform", "contentType", "metrics")
_POSTS_PARAMETERS: dict[str, Callable[[str], bool]] = {
    "startDate": _is_day,
    "endDate": _is_day,
    "instanceIds": _any_text,
    "campaignIds": lambda value: bool(re.fullmatch("-?[0-9]+", value)),
    "platform": PLATFORMS.__contains__,
    "contentType": CONTENT_TYPES.__contains__,
    "dateBasis": ("post_date", "performance_date").__contains__,
    "sortProperty": _any_text,
    "sortDirection": ("ASC", "DESC").__contains__,
}


def _check_posts_query(parameters: Parameters, *, by_cursor: bool) -> None:
    if not {"startDate", "endDate"} <= parameters.keys() or (by_cursor and "metrics" not in parameters):
        raise _invalid()
    if parameters.get("sortProperty", ["postDate"])[0] not in SORT_PROPERTIES:
        raise _RequestError(400, "ANL_00422")
    start, end = parameters["startDate"][0], parameters["endDate"][0]
    is_too_long = (int(end[:4]) - 2, end[4:]) > (int(start[:4]), start[4:])
    if end < start or is_too_long or len(parameters.get("campaignIds", ())) > 50:
        raise _invalid()
    if {"platform", "contentType"} <= parameters.keys():
        raise _invalid()
    if parameters.get("dateBasis") == ["performance_date"] and start != end:
        raise NotImplementedError("this server does not add up days")


class _Query:
    """The query string of a request."""

    def __init__(self, text: str) -> None:
        self._values: Parameters = {}
        for name, value in parse_qsl(text, keep_blank_values=True):
            self._values.setdefault(name, []).append(value)
        names = {name.removesuffix("[]") for name in self._values}
        self.by_cursor = bool(names & {"limit", "nextCursor", "metrics"})
        self._parsed: Parameters = {}

    def parse(self, rules: dict[str, Callable[[str], bool]]) -> Parameters:
        """Return the values of all parameters but those of the page, after checking each."""
        size, page = ("limit", "nextCursor") if self.by_cursor else ("pageSize", "pageNumber")
        rules = rules | {size: _is_between(1, 100), page: _any_text if self.by_cursor else _is_between(1, 500)}
        for name in {name.removesuffix("[]") if name.removesuffix("[]") in _ARRAYS else name for name in self._values}:
            values = self._values_of(name)
            if name not in rules or not all(map(rules[name], values)):
                raise _invalid()
            self._parsed[name] = values
        self._size = int(self._parsed.pop(size, ["50"])[0])
        self._page = self._parsed.pop(page, [""])[0]
        return self._parsed

    def _values_of(self, name: str) -> list[str]:
        """Return the values of a parameter; an array may have any of its three forms."""
        values = self._values.get(name, [])
        if name in _ARRAYS:
            values = values[0].split(",") if len(values) == 1 else values
            return values + self._values.get(f"{name}[]", [])
        if len(values) != 1:
            raise _invalid()
        return values

    def page(self, rows: Sequence[Any], *, wrap: Callable[[Sequence[Any]], Any]) -> Reply:
        """Return the requested page of rows."""
        size, total = self._size, len(rows)
        if self.by_cursor:
            offset = self._offset() if self._page else 0
            following = self._cursor(offset + size) if offset + size < total else None
            return Reply(200, {"data": wrap(rows[offset : offset + size]), "nextCursor": following})
        number = int(self._page or "1")
        pagination = {"page": number, "pageSize": size, "totalItems": total, "totalPages": -(-total // size)}
        return Reply(200, {"data": wrap(rows[(number - 1) * size : number * size]), "pagination": pagination})

    def _cursor(self, offset: int) -> str:
        text = json.dumps([offset, self._size, sorted(self._parsed.items())])
        return base64.urlsafe_b64encode(text.encode()).decode()

    def _offset(self) -> int:
        try:
            offset = int(json.loads(base64.urlsafe_b64decode(self._page.encode("ascii")))[0])
        except (ValueError, TypeError, LookupError):
            raise _invalid() from None
        if self._cursor(offset) != self._page:
            raise _invalid()
        return offset


def _render(row: Row, names: Sequence[str], query: _Query) -> Row:
    others = {name: value for name, value in row.items() if name not in METRICS}
    metrics = {name: row[name] for name in names}
    return dict(sorted((others | ({"metrics": metrics} if query.by_cursor else metrics)).items()))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 5  # of an idle connection
    server_of_posts: ReferenceServer

    def log_message(self, *_arguments: object) -> None:
        pass

    def do_POST(self) -> None:
        self._respond("POST")

    def do_GET(self) -> None:
        self._respond("GET")

    def _respond(self, method: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        authorization = self.headers.get("Authorization", "")
        reply = self.server_of_posts.respond(method, self.path, authorization=authorization, body=body)
        content = json.dumps(reply.document, ensure_ascii=False).encode()
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.media_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
