"""A server of the API in both versions that shares no code with the package: it uses the standard library only.

Unlike the sandbox, it issues tokens that are not JWTs, sends no rate-limit headers, and can deviate from the reference
(tests/deviations.py) or fail (tests/faults.py). It expects valid parameters. Costs, reach and numbers of people and
posts follow their documented definitions, and do not add up over days (docs/api.md, "Metrics, null and units"). All
other metrics are random, and those of a campaign do not follow from its posts.
"""

import base64
import json
import math
import secrets
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import groupby
from random import Random
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Row = dict[str, Any]
Parameters = dict[str, list[str]]

CLIENT_ID, CLIENT_SECRET = "somebody", "5e3cret"  # noqa: S105 - valid only here

WHOLE_METRICS = (
    "engagements", "impressions", "paidEngagements", "paidImpressions", "likes", "comments", "shares", "saves", "views",
    "totalInteractions", "replies", "reposts", "reach", "organicReach", "potentialReach", "followersAtPostDate",
    "navigationTapExit", "navigationTapBack", "navigationTapForward", "navigationSwipeForward", "crosspostedViews",
    "crosspostedFacebookOnlyViews", "paidLikes", "paidComments", "paidShares", "paidSaves", "paidViews", "paidReach",
)  # fmt: skip
AMOUNTS = ("estimatedValueGenerated", "videoViewTotalTime", "avgWatchTime")
RATES = ("cpe", "cpm", "engagementRate", "paidCpe", "paidCpm", "paidEngagementRate")
METRICS = WHOLE_METRICS + AMOUNTS + RATES
PAGED_METRICS = (
    "cpe", "cpm", "engagementRate", "engagements", "estimatedValueGenerated", "impressions", "paidCpe", "paidCpm",
    "paidEngagementRate", "paidEngagements", "paidImpressions",
)  # fmt: skip
CAMPAIGN_METRICS = (
    "affiliateLinksClicks", "affiliateLinksCommissionEarned", "affiliateLinksConversionRate",
    "affiliateLinksConversions", "affiliateLinksRoi", "affiliateLinksSales", "engagements", "estimatedContentCost",
    "estimatedValueGenerated", "impressions", "influencersCount", "paidAdSpend", "paidClicks", "paidCost",
    "paidEngagements", "paidImpressions", "paidReturnOnAdSpend", "postsCount", "reach", "trackingLinksClicks",
    "trackingLinksConversionValue", "trackingLinksConversions",
)  # fmt: skip
PAGED_CAMPAIGN_METRICS = tuple(name for name in CAMPAIGN_METRICS if name not in ("influencersCount", "reach"))
ACCOUNT_METRICS = (
    "affiliateLinksClicks", "affiliateLinksConversions", "affiliateLinksSales", "campaignsCost", "cpe", "cpm",
    "engagementRate", "engagements", "estimatedContentCost", "estimatedValueGenerated", "impressions", "paidAdSpend",
    "paidCpe", "paidCpm", "paidEngagementRate", "paidEngagements", "paidImpressions", "paidPostsCount",
    "paidReturnOnAdSpend", "paidViews", "postsCount", "reach", "returnOnInvestment", "trackingLinksClicks",
    "trackingLinksConversionValue", "trackingLinksConversions", "views",
)  # fmt: skip
BUCKET_METRICS = (
    "clicks", "comments", "cpe", "cpm", "engagementRate", "engagements", "estimatedValueGenerated", "impressions",
    "likes", "paidComments", "paidEngagementRate", "paidEngagements", "paidImpressions", "paidLikes", "paidReach",
    "paidShares", "paidViews", "postsCount", "reach", "shares", "views",
)  # fmt: skip
# Metrics of a campaign that add up over days.
ADDED_COUNTS = (
    "affiliateLinksClicks", "affiliateLinksConversions", "engagements", "impressions", "paidClicks", "paidEngagements",
    "paidImpressions", "trackingLinksClicks", "trackingLinksConversions",
)  # fmt: skip
ADDED_AMOUNTS = (
    "affiliateLinksCommissionEarned", "affiliateLinksSales", "estimatedValueGenerated", "paidAdSpend", "paidCost",
    "trackingLinksConversionValue",
)  # fmt: skip
SORT_PROPERTIES = (*PAGED_METRICS, "postDate")
PLATFORMS = ("instagram", "tiktok", "facebook", "youtube", "twitter")
CONTENT_TYPES = (
    "instagram_post", "instagram_reel", "instagram_story", "facebook_post", "facebook_live", "facebook_group",
    "facebook_reel", "tiktok", "youtube_video", "youtube_shorts",
)  # fmt: skip
# The API reference cuts its list of content types off: a response may have others, but no query.
OTHER_CONTENT_TYPES = (
    "twitter", "instagram_carousel", "linkedin", "musical_ly", "twitch_stream", "threads_post", "Instagram Post", "",
)  # fmt: skip
CAMPAIGN_IDS = (7, 8, 49761, 2**53 + 1, 2**62)

LARGEST_COUNT, LARGEST_VALUE = 10**11, 10**9
"""A client may regard larger numbers, and larger amounts of money, as errors."""

# People, not events: they cannot be withdrawn, and do not add up.
PEOPLE = ("reach", "organicReach", "potentialReach", "followersAtPostDate", "paidReach")
AD_SPEND = "paidAdSpend"  # of a post: the API does not return it

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


class Posts:
    """Random posts of some days and instances, some of them in several campaigns; they may change while it serves them.

    Attributes:
        hidden: Ids of posts that are not returned, because they are not bound yet, or were deleted.
        moved: By id of a campaign, the other one that its posts are in now. The campaign keeps its own metrics.
        active: By id of a post, days with metrics besides those after its publication.
        hours_from_utc: Offset of the time zone whose days it selects by; the documented ones are those of UTC.

    Args:
        first_day: First day with posts.
        days: Number of days.
        instance_ids: Instances.
        seed: Selects the posts.
        least, most: Smallest and largest number of posts of an instance on a day.
        campaign_ids: Campaigns, three or more, in all of which each instance has posts; or those of each instance.
        has_large_values: Whether some values are so large that their sum may be larger than a client accepts.
        has_corrections: Whether counts may be negative, as on a day with more unlikes than likes.
    """

    def __init__(
        self,
        *,
        first_day: date,
        days: int,
        instance_ids: tuple[str, ...],
        seed: int,
        least: int = 0,
        most: int = 10,
        campaign_ids: Sequence[int] | Mapping[str, Sequence[int]] = CAMPAIGN_IDS,
        has_large_values: bool = True,
        has_corrections: bool = True,
    ) -> None:
        self._has_large_values = has_large_values
        self._has_corrections = has_corrections
        self.instance_ids = instance_ids
        random = Random(seed)
        self._posts: list[Row] = []
        self._costs: dict[int, float | None] = {}  # content cost by the post's id
        for offset in range(days):
            for instance_id in instance_ids:
                for _ in range(random.randrange(least, most + 1)):
                    post = _post(random, len(self._posts), first_day + timedelta(days=offset), instance_id)
                    cost = self._costs[post["postId"]] = random.choice((None, 0, 25, round(10**4 * random.random(), 2)))
                    of_instance = campaign_ids[instance_id] if isinstance(campaign_ids, Mapping) else campaign_ids
                    campaigns = random.sample(of_instance, random.choice((1, 1, 1, 2, 3)))
                    self._posts += [
                        post
                        | {"campaignId": number}
                        | _metrics_of_days([_day_metrics(random, self._has_large_values)], cost)
                        for number in campaigns
                    ]
        self._seed = seed
        self.hidden: set[int] = set()
        self.moved: dict[int, int] = {}
        self.active: dict[int, set[date]] = {}
        self.hours_from_utc = 0
        self._restatements: Counter[int] = Counter()

    def ids(self, day: date, instance_id: str) -> list[int]:
        """Return the ids of the posts published on a day."""
        found = [row for row in self._posts if (_day(row), row["instanceId"]) == (day, instance_id)]
        return [*dict.fromkeys(row["postId"] for row in found)]

    def move(self, post_id: int, day: date) -> None:
        """Change the day on which a post was published."""
        for row in self._posts:
            if row["postId"] == post_id:
                row["postDate"] = f"{day}T12:00:00.000Z"

    def restate(self, post_id: int, **metrics: Any) -> None:
        """Change the metrics of a post by both date bases; those to date to given values."""
        self._restatements[post_id] += 1
        random = Random(f"{self._seed} {post_id} {self._restatements[post_id]}")
        for row in self._posts:
            if row["postId"] == post_id:
                row |= _metrics_of_days([_day_metrics(random, self._has_large_values)], self._costs[post_id]) | metrics

    def _visible(self) -> list[Row]:
        return [row for row in self._posts if row["postId"] not in self.hidden]

    def published(self, first: date, last: date) -> list[Row]:
        """Return the posts published in a range of days, with their metrics to date."""
        return [self._now(post) for post in self._visible() if first <= self._account_day(post) <= last]

    def _now(self, post: Row) -> Row:
        """Return a post in the campaign that it was moved to."""
        number = post["campaignId"]
        return post | {"campaignId": self.moved[number]} if number in self.moved else post

    def _account_day(self, post: Row) -> date:
        if not self.hours_from_utc:
            return _day(post)
        return (datetime.fromisoformat(post["postDate"]) + timedelta(hours=self.hours_from_utc)).date()

    def reported(self, first: date, last: date) -> list[Row]:
        """Return all posts with metrics in a range of days, with these metrics."""
        found = []
        for post in self._visible():
            reported = {*_days(self._account_day(post), REPORTED_DAYS)} | self.active.get(post["postId"], set())
            days = sorted(day for day in reported if first <= day <= last)
            key = f"{post['postId']} {post['campaignId']}{' restated' * self._restatements[post['postId']]}"
            metrics = [
                _day_metrics(
                    Random(f"{self._seed} {day} {key}"), self._has_large_values, withdrawn=self._has_corrections
                )
                for day in days
            ]
            if days:
                found.append(self._now(post) | _metrics_of_days(metrics, self._costs[post["postId"]]))
        return found

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

    def campaigns_reported(
        self, first: date, last: date, *, by_post_date: bool = False, instance_ids: Collection[str] = ()
    ) -> list[Row]:
        """Return the campaigns with posts that have metrics in a range of days, with the metrics of the range.

        `by_post_date`: the campaigns with posts published in the range. `instance_ids`: only with posts of these.
        """
        by_campaign: dict[int, list[Row]] = {}
        for post in self._visible():
            if post["instanceId"] in (instance_ids or self.instance_ids):
                by_campaign.setdefault(post["campaignId"], []).append(post)
        found = []
        for number, posts in by_campaign.items():
            length = 1 if by_post_date else REPORTED_DAYS
            days_of_posts = [[day for day in _days(_day(post), length) if first <= day <= last] for post in posts]
            active = [post for post, days in zip(posts, days_of_posts, strict=True) if days]
            if not active:
                continue
            cost = _total(self._costs[post["postId"]] for post in active)
            days = sorted(set().union(*days_of_posts))
            content_types = {post["contentType"] for post in active if post["contentType"]}
            random_of_days = [Random(f"{self._seed} {number} {day} {by_post_date}") for day in days]
            metrics = _campaign_metrics(random_of_days, cost, withdrawn=self._has_corrections)
            found.append(
                {
                    "campaignId": number,
                    "instanceId": posts[0]["instanceId"],
                    "name": f"№ {number}",
                    "networks": sorted(content_types),
                    "postsCount": len(active),
                    "influencersCount": len({post["creatorId"] for post in active} - {None}),
                    **metrics,
                }
            )
        return found

    def totals(self, rows: Sequence[Row], first: date, last: date, *, post_counts_once: bool) -> Row:
        """Return the metrics of an account in a range of days, given the posts of its instances that have some.

        Those that posts do not have are random.

        `post_counts_once`: whether of a post of several campaigns only the row of the lowest campaign id counts.
        """
        if post_counts_once:
            lowest = {
                (row["instanceId"], row["postId"]): row for row in sorted(rows, key=lambda row: -row["campaignId"])
            }
            rows = [row for row in rows if row is lowest[row["instanceId"], row["postId"]]]
        cost = _total(self._costs[row["postId"]] for row in rows)
        days = [*_days(first, (last - first).days + 1)]
        names = sorted({row["instanceId"] for row in rows})
        random_of_days = [Random(f"{self._seed} {name} {day}") for name in names for day in days]
        found = _campaign_metrics(random_of_days, cost, withdrawn=self._has_corrections)
        found |= {name: _total(row[name] for row in rows) for name in (*WHOLE_METRICS, "estimatedValueGenerated")}
        found |= {name: max((row[name] or 0 for row in rows), default=None) for name in ("reach", "paidReach")}
        found |= _rates("", found, cost) | _rates("paid", found, found[AD_SPEND])
        return found | {
            "campaignsCost": cost,
            "clicks": found["trackingLinksClicks"],
            "paidPostsCount": sum((row["paidImpressions"] or 0) > 0 for row in rows),
            "postsCount": len(rows),
            "returnOnInvestment": _quotient(found["estimatedValueGenerated"], cost),
        }


def _campaign_metrics(random_of_days: Sequence[Random], cost: float | None, *, withdrawn: bool) -> Row:
    """Return the metrics of a campaign, apart from numbers of posts and people, for the days of a range."""
    days = []
    for random in random_of_days:
        day: Row = {name: random.choice((None, 0, random.randrange(10**6))) for name in ADDED_COUNTS}
        if withdrawn and random.randrange(4) == 0:
            day = {name: -random.randrange(1, 10**4) for name in ADDED_COUNTS}
        day |= {name: random.choice((None, 0, 0.01, round(10**5 * random.random(), 2))) for name in ADDED_AMOUNTS}
        days.append(day | {"reach": random.randrange(10**6)})
    found = {name: _total(day[name] for day in days) for name in ADDED_COUNTS + ADDED_AMOUNTS}
    return found | {
        "affiliateLinksConversionRate": _quotient(found["affiliateLinksConversions"], found["affiliateLinksClicks"]),
        "affiliateLinksRoi": _quotient(found["affiliateLinksCommissionEarned"], cost),
        "estimatedContentCost": cost,
        "paidReturnOnAdSpend": _quotient(found["trackingLinksConversionValue"], found["paidAdSpend"]),
        "reach": max((day["reach"] for day in days), default=None),
    }


def _total(values: Iterable[Any]) -> Any:
    """Return the sum of the known values, in exact cents; None if none is known."""
    known = [value for value in values if value is not None]
    if len(known) > 1 and any(isinstance(value, float) for value in known):
        return round(math.fsum(known), 2)
    return sum(known) if known else None


def _quotient(dividend: Any, divisor: Any, scale: int = 1) -> float | None:
    found = round(scale * dividend / divisor, 2) if divisor and dividend is not None else None
    return found if found is None or abs(found) <= LARGEST_VALUE else None


def _days(first: date, number: int) -> Iterator[date]:
    return (first + timedelta(days=offset) for offset in range(number))


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


def _day_metrics(random: Random, has_large_values: bool, *, withdrawn: bool = False) -> Row:
    """Return the metrics of a post but rates, and its ad spend: unknown, zero, all zero, frequent and large values.

    `withdrawn`: whether counts may be negative, as on a day with more unlikes than likes.
    """
    if random.randrange(12) == 0:
        return dict.fromkeys((*WHOLE_METRICS, *AMOUNTS, AD_SPEND), random.choice((None, 0)))
    large = (2**31 + random.randrange(99), LARGEST_COUNT - random.randrange(9))
    whole = (None, 0, 1, 2, random.randrange(10**6), *(large if has_large_values else ()))
    found: Row = {name: random.choice(whole) for name in WHOLE_METRICS}
    if withdrawn and random.randrange(4) == 0:
        found |= {name: -random.randrange(1, 10**4) for name in WHOLE_METRICS if name not in PEOPLE}
    for name in AMOUNTS:
        cents = random.randrange(10**4) / 100
        largest = LARGEST_VALUE if has_large_values else cents
        found[name] = random.choice((None, 0, 0.01, 1, cents, cents, 0.1 + 0.2, 1e-7, largest, -1.5))
    return found | {AD_SPEND: random.choice((None, 0, random.randrange(10**5) / 100))}


def _metrics_of_days(days: Sequence[Row], cost: float | None) -> Row:
    """Return all metrics of a post with this content cost, which counts once, over some days."""
    found = {name: _total(day[name] for day in days) for name in (*WHOLE_METRICS, *AMOUNTS)}
    for name in (*PEOPLE, "avgWatchTime"):
        found[name] = max((day[name] for day in days if day[name] is not None), default=None)
    return found | _rates("", found, cost) | _rates("paid", found, _total(day[AD_SPEND] for day in days))


def _rates(prefix: str, found: Row, money: Any) -> Row:
    """Return the rates of a channel."""
    engagements, impressions, rate, cpe, cpm = (
        (prefix + name[0].upper() + name[1:] if prefix else name)
        for name in ("engagements", "impressions", "engagementRate", "cpe", "cpm")
    )
    return {
        rate: _quotient(found[engagements], found[impressions], 100),
        cpe: _quotient(money, found[engagements]),
        cpm: _quotient(money, found[impressions], 1000),
    }


@dataclass(frozen=True)
class Asked:
    """A request: its path, all parameters, and how often it was sent so far, counted from 1."""

    path: str
    values: Mapping[str, Sequence[str]]
    times: int = 1


@dataclass(frozen=True)
class Reply:
    """A response: its status, its JSON document, further headers, and bytes to send in place of the document.

    Without a status, there is no response: the connection stays open until the server ends, or is closed if the
    document is None.
    """

    status: int | None
    document: Any
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None

    @property
    def media_type(self) -> str:
        """The content type."""
        return "application/json" if self.status and self.status < 300 else "application/problem+json"


def _problem(status: int, kind: str = "") -> Reply:
    return Reply(status, {"type": kind or f"ANL_00{status}", "title": "refused", "detail": ""})


@dataclass
class IndependentServer:
    """The server.

    Attributes:
        posts: Posts to serve.
        by_cursor: Whether it has the cursor version only, or the paged one only; None: the parameters of a request
            select the version.
        token_seconds: Lifetime of a token.
        issued: Number of issued tokens.
        read: Changes the target of a request before it is read.
        rows: Changes the posts of a query, with all of their metrics, before they are divided into pages.
        totalled: The posts that totals of the account count; None: those that it lists.
        totalled_twice: Ids of posts that these totals count twice.
        post_counts_once: Whether a post counts once in them, or once for each of its campaigns.
        unlisted: Instances that it does not list, and whose rows a query has only if it names them.
        refused: Status of the response to each query of a path, or to each that names an instance.
        empty: Instances without rows.
        unlisted_campaigns: Campaigns that it does not list.
        names_instances: Whether the performance of a campaign says whose it is, and its name in `campaignName`.
        change: Changes the response to a request.
        asked: Number of requests, by method and target.
    """

    posts: Posts
    by_cursor: bool | None = None
    token_seconds: float = 3600.0
    issued: int = 0
    read: Callable[[str], str] = lambda target: target
    rows: Callable[[list[Row]], list[Row]] = lambda rows: rows
    totalled: Posts | None = None
    totalled_twice: Collection[int] = ()
    post_counts_once: bool = True
    unlisted: Collection[str] = ()
    refused: Mapping[str, int] = field(default_factory=dict)
    empty: Collection[str] = ()
    unlisted_campaigns: Collection[int] = ()
    names_instances: bool = False
    change: Callable[[Asked, Reply], Reply] = lambda asked, reply: reply
    asked: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._valid_until: dict[str, float] = {}
        self._lock = threading.Lock()
        self.is_ending = threading.Event()

    @contextmanager
    def running(self) -> Iterator[str]:
        """Serve on a free loopback port while the block runs; yield the base URL."""
        this = self

        class Handler(_Handler):
            api = this

        with _Server(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_address[1]}"
            finally:
                self.is_ending.set()
                server.shutdown()
                thread.join()

    def deviate(self, method: str, target: str, *, authorization: str, body: bytes) -> Reply:
        """Return the response to a request as the deviations of this server change it."""
        with self._lock:
            self.asked[f"{method} {target}"] += 1
            times = self.asked[f"{method} {target}"]
        url = urlsplit(target)
        reply = self.respond(method, self.read(target), authorization=authorization, body=body)
        return self.change(Asked(url.path, _parameters(url.query), times), reply)

    def respond(self, method: str, target: str, *, authorization: str = "", body: bytes = b"") -> Reply:
        """Return the response to a request, without faults."""
        url = urlsplit(target)
        if (method, url.path) == ("POST", "/oauth/token"):
            if json.loads(body) != {"clientId": CLIENT_ID, "clientSecret": CLIENT_SECRET}:
                return _problem(401, "INVALID_CLIENT_CREDENTIALS")
            return Reply(200, {"jwt": self._issue_token()})
        routes: dict[str, Callable[[_Query], Reply]] = {
            "/v2/instances": self._instances,
            "/v2/posts/performance": self._posts,
            "/v2/campaigns": self._campaigns,
            "/v2/campaigns/performance": self._campaign_performance,
            "/v2/instances/performance": self._account,
            "/v2/instances/performance-over-time": self._buckets,
        }
        if method != "GET" or url.path not in routes:
            return _problem(404)
        with self._lock:
            if time.monotonic() >= self._valid_until.get(authorization.removeprefix("Bearer "), 0.0):
                return _problem(401)
        query = _Query(url.path, url.query)
        if query.by_cursor is None:
            query.by_cursor = bool(self.by_cursor)
        if self.by_cursor is not None and query.by_cursor is not self.by_cursor:
            return _problem(400)
        named = query.values.get("instanceIds", ())
        if not {*named} <= {*self.posts.instance_ids}:
            return _problem(403)
        for refused in (url.path, *named):
            if refused in self.refused:
                return _problem(self.refused[refused])
        return routes[url.path](query)

    def select(self, parameters: Parameters) -> list[Row]:
        """Return the posts of a query, sorted: parameters are valid, and their values separate."""
        rows = self._filtered(self.posts, parameters, *_range(parameters))
        sort_property = parameters.get("sortProperty", ["postDate"])[0]
        known = [row for row in rows if row[sort_property] is not None]
        known.sort(key=lambda row: row[sort_property], reverse=parameters.get("sortDirection") != ["ASC"])
        return known + [row for row in rows if row[sort_property] is None]

    def _filtered(self, posts: Posts, parameters: Parameters, first: date, last: date) -> list[Row]:
        by_performance = parameters.get("dateBasis") == ["performance_date"]
        rows = (posts.reported if by_performance else posts.published)(first, last)
        instance_ids = self._instances_of(parameters)
        rows = [row for row in rows if row["instanceId"] in instance_ids]
        if "contentType" in parameters:
            rows = [row for row in rows if row["contentType"] in parameters["contentType"]]
        if "campaignIds" in parameters:
            rows = [row for row in rows if row["campaignId"] in {int(number) for number in parameters["campaignIds"]}]
        if "platform" in parameters:
            rows = [row for row in rows if (row["contentType"] or "").split("_")[0] in parameters["platform"]]
        return rows

    def _instances_of(self, parameters: Parameters) -> list[str]:
        """Return the instances whose rows a query has."""
        others = {*self.unlisted, *self.refused}
        all_of_query = parameters.get("instanceIds", [name for name in self.posts.instance_ids if name not in others])
        return [name for name in all_of_query if name not in self.empty]

    def _issue_token(self) -> str:
        with self._lock:
            self.issued += 1
            token = secrets.token_urlsafe(24)
            self._valid_until[token] = time.monotonic() + self.token_seconds
            return token

    def _instances(self, query: "_Query") -> Reply:
        listed = [name for name in self.posts.instance_ids if name not in self.unlisted]
        return query.page(listed, wrap=lambda ids: {"instanceIds": ids})

    def _posts(self, query: "_Query") -> Reply:
        return query.page_of_metrics(self.rows(self.select(query.values)), METRICS, PAGED_METRICS)

    def _campaigns(self, query: "_Query") -> Reply:
        instance_ids = self._instances_of(query.values)
        rows = [row for row in self.posts.campaigns() if row["instanceId"] in instance_ids]
        return query.page([row for row in rows if row["campaignId"] not in self.unlisted_campaigns])

    def _campaign_performance(self, query: "_Query") -> Reply:
        return query.page_of_metrics(self.campaigns(query.values), CAMPAIGN_METRICS, PAGED_CAMPAIGN_METRICS)

    def campaigns(self, parameters: Parameters) -> list[Row]:
        """Return the performance of the campaigns of a query."""
        if not (instance_ids := self._instances_of(parameters)):
            return []
        by_post_date = parameters.get("dateBasis") != ["performance_date"]
        rows = self.posts.campaigns_reported(*_range(parameters), by_post_date=by_post_date, instance_ids=instance_ids)
        if self.names_instances:
            return [row | {"campaignName": row["name"]} for row in rows]
        return [{name: value for name, value in row.items() if name != "instanceId"} for row in rows]

    def _account(self, query: "_Query") -> Reply:
        return query.object_of_metrics(self.totals(query.values, *_range(query.values)), ACCOUNT_METRICS)

    def _buckets(self, query: "_Query") -> Reply:
        """Return a page of buckets: those without posts are omitted, and the first and the last one may be cut."""
        if not query.by_cursor and query.page_size not in (50, 100):
            return _problem(400)
        first, last = _range(query.values)
        days = [*_days(first, (last - first).days + 1)]
        start_of = _STARTS[query.values.get("granularity", ["month"])[0]]
        buckets = [(of_bucket[0], of_bucket[-1]) for of_bucket in (list(group) for _, group in groupby(days, start_of))]
        names = (*BUCKET_METRICS, "startDate", "endDate")
        # The format is not documented.
        times = ("T00:00:00.000Z", "T23:59:59.999Z") if query.by_cursor else ("", "")
        rows = [
            {name: total for name, total in totals.items() if name in names}
            | {"startDate": f"{start}{times[0]}", "endDate": f"{end}{times[1]}"}
            for start, end in buckets
            if (totals := self.totals(query.values, start, end))["postsCount"]
        ]
        return query.page_of_metrics(rows, BUCKET_METRICS, BUCKET_METRICS)

    def totals(self, parameters: Parameters, first: date, last: date) -> Row:
        """Return the totals of the instances of a query in a range of days."""
        posts = self.totalled or self.posts
        rows = self._filtered(posts, parameters, first, last)
        rows = [*rows, *(row for row in rows if row["postId"] in self.totalled_twice)]
        return posts.totals(rows, first, last, post_counts_once=self.post_counts_once)


def _range(parameters: Parameters) -> tuple[date, date]:
    first, last = (date.fromisoformat(parameters[name][0]) for name in ("startDate", "endDate"))
    return first, last


# By granularity, what the days of a bucket have in common.
_STARTS: dict[str, Callable[[date], Any]] = {
    "day": lambda day: day,
    "week": lambda day: day.isocalendar()[:2],
    "month": lambda day: (day.year, day.month),
    "quarter": lambda day: (day.year, (day.month - 1) // 3),
    "year": lambda day: day.year,
}


def _parameters(text: str) -> Parameters:
    given: Parameters = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        given.setdefault(name, []).append(value)
    return given


class _Query:
    """A path with the query string of a request; `by_cursor` is None if the parameters are of both versions."""

    def __init__(self, path: str, text: str) -> None:
        given = _parameters(text)
        self.values = {name: values for name, values in given.items() if not name.endswith("[]")}
        for name in ("instanceIds", "campaignIds", "platform", "contentType", "metrics"):
            values = given.get(name, [])
            # Only a value that is alone is separated at its commas.
            values = (values[0].split(",") if len(values) == 1 else values) + given.get(f"{name}[]", [])
            if values:
                self.values[name] = values
        is_paged = bool({"pageSize", "pageNumber"} & self.values.keys())
        by_cursor = bool({"limit", "nextCursor", "metrics"} & self.values.keys())
        self.by_cursor = by_cursor if is_paged or by_cursor else None
        self._path = path
        self._is_of_page = bool({"pageSize", "pageNumber", "limit", "nextCursor"} & self.values.keys())
        self.page_size = int(self.values.pop("limit" if by_cursor else "pageSize", ["50"])[0])
        self._page = self.values.pop("nextCursor" if by_cursor else "pageNumber", [""])[0].removesuffix("null")

    def object_of_metrics(self, row: Row, metrics: Sequence[str]) -> Reply:
        """Return metrics as an object: in the cursor version, the requested ones."""
        if not (names := self._names(metrics, metrics)) or self._is_of_page:
            return _problem(400)
        return Reply(200, {"data": self._render({name: row[name] for name in names}, names, metrics)})

    def _names(self, metrics: Collection[str], paged_metrics: Sequence[str]) -> Sequence[str]:
        """Return the metrics to send; none if unknown ones are requested."""
        names = self.values.get("metrics", []) if self.by_cursor else paged_metrics
        return names if {*names} <= {*metrics} else ()

    def page_of_metrics(self, rows: Sequence[Row], metrics: Collection[str], paged_metrics: Sequence[str]) -> Reply:
        """Return the requested page of rows with metrics: in the cursor version, the requested ones."""
        if not (names := self._names(metrics, paged_metrics)):
            return _problem(400)
        return self.page(rows, wrap=lambda rows: [self._render(row, names, metrics) for row in rows])

    def _render(self, row: Row, names: Sequence[str], metrics: Collection[str]) -> Row:
        others = {name: value for name, value in row.items() if name not in metrics}
        requested = {name: row[name] for name in names if name in row}
        return dict(sorted((others | ({"metrics": requested} if self.by_cursor else requested)).items()))

    def page(self, rows: Sequence[Any], *, wrap: Callable[[Sequence[Any]], Any] = lambda rows: rows) -> Reply:
        """Return the requested page of rows."""
        size, total = self.page_size, len(rows)
        if self.by_cursor:
            offset = 0
            if self._page:
                offset = int(base64.urlsafe_b64decode(self._page).partition(b" ")[0])
                if self._cursor(offset) != self._page:
                    return _problem(400)
            # Of a row that vanished, None is left: a change does not shift the rows after a cursor.
            places = [place for place in range(offset, total) if rows[place] is not None]
            following = self._cursor(places[size]) if len(places) > size else None
            return Reply(200, {"data": wrap([rows[place] for place in places[:size]]), "nextCursor": following})
        number = int(self._page or "1")
        pagination = {"page": number, "pageSize": size, "totalItems": total, "totalPages": -(-total // size)}
        return Reply(200, {"data": wrap(rows[(number - 1) * size : number * size]), "pagination": pagination})

    def _cursor(self, offset: int) -> str:
        """Return the cursor to an offset, which is valid for this query only."""
        text = f"{offset} {self._path} {self.page_size} {sorted(self.values.items())}"
        return base64.urlsafe_b64encode(text.encode()).decode()


class _Server(ThreadingHTTPServer):
    def handle_error(self, *arguments: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client may leave at any time
            super().handle_error(*arguments)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 5  # of an idle connection
    api: IndependentServer

    def log_message(self, *_arguments: object) -> None:
        pass

    def do_POST(self) -> None:
        self._respond("POST")

    def do_GET(self) -> None:
        self._respond("GET")

    def _respond(self, method: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        reply = self.api.deviate(method, self.path, authorization=self.headers.get("Authorization", ""), body=body)
        if reply.status is None:
            if reply.document is not None:
                self.api.is_ending.wait()
            self.close_connection = True
            return
        content = reply.content
        if content is None:
            content = json.dumps(reply.document, ensure_ascii=False).encode(errors="surrogatepass")
        self.send_response(reply.status)
        headers = {"Content-Type": reply.media_type, "Content-Length": str(len(content)), **reply.headers}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
