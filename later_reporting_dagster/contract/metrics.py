"""The metric table: the one list from which post, schema and rollups take their metrics.

`METRICS` has all that are known, in an order that never changes: a new one comes last. The first eleven are those of
the document; the others come only where they are asked for by name, which the cursor revision takes.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum


class Channel(StrEnum):
    """How the result was reached. The API's names carry it: plain is organic, `paid…` is paid [S]."""

    ORGANIC = "organic"
    PAID = "paid"


class Kind(StrEnum):
    """What a metric measures, and with that its type and how it rolls up.

    `COUNT` is a whole number and adds up, over posts and over days; so do `MONEY` and `TIME`, which are decimals.
    `RATE` is a decimal and never adds up: it is recomputed from sums where both of its parts are metrics too.
    `LEVEL` is a whole number that never adds up: whoever was reached by two posts, or on two days, is one person.
    """

    COUNT = "count"
    MONEY = "money"
    TIME = "time"
    RATE = "rate"
    LEVEL = "level"

    @property
    def is_whole(self) -> bool:
        """Whether its values are whole numbers."""
        return self in (Kind.COUNT, Kind.LEVEL)

    @property
    def adds_up(self) -> bool:
        """Whether a rollup sums it."""
        return self in (Kind.COUNT, Kind.MONEY, Kind.TIME)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of a post. `api_name` is the API's, `column` the lake's; null is *not available* [S]."""

    api_name: str
    column: str
    channel: Channel
    kind: Kind
    unit: str
    description: str


ORGANIC, PAID = Channel.ORGANIC, Channel.PAID
COUNT, MONEY, TIME, RATE, LEVEL = Kind.COUNT, Kind.MONEY, Kind.TIME, Kind.RATE, Kind.LEVEL
_PEOPLE = "never summed, because one person may be counted by several posts and on several days"

DOCUMENT_METRICS: tuple[Metric, ...] = (
    Metric("engagements", "engagements", ORGANIC, COUNT, "engagements", "Organic engagements"),
    Metric("impressions", "impressions", ORGANIC, COUNT, "impressions", "Organic impressions"),
    Metric("engagementRate", "engagement_rate", ORGANIC, RATE, "percent", "Organic engagements per 100 impressions"),
    Metric("estimatedValueGenerated", "estimated_value_generated", ORGANIC, MONEY, "USD", "Estimated value"),
    Metric("cpe", "cpe", ORGANIC, RATE, "USD per engagement", "Cost per organic engagement"),
    Metric("cpm", "cpm", ORGANIC, RATE, "USD per 1000 impressions", "Cost per 1000 organic impressions"),
    Metric("paidEngagements", "paid_engagements", PAID, COUNT, "engagements", "Paid engagements"),
    Metric("paidImpressions", "paid_impressions", PAID, COUNT, "impressions", "Paid impressions"),
    Metric("paidEngagementRate", "paid_engagement_rate", PAID, RATE, "percent", "Paid engagements per 100 impressions"),
    Metric("paidCpe", "paid_cpe", PAID, RATE, "USD per engagement", "Cost per paid engagement"),
    Metric("paidCpm", "paid_cpm", PAID, RATE, "USD per 1000 impressions", "Cost per 1000 paid impressions"),
)  # fmt: skip
"""The metrics of the document [S]: what is landed when nothing else is asked for."""

METRICS: tuple[Metric, ...] = (
    *DOCUMENT_METRICS,
    # Those of the cursor revision [C]. It names them and says no more, so units are said only where the name does.
    Metric("likes", "likes", ORGANIC, COUNT, "likes", "Organic likes"),
    Metric("comments", "comments", ORGANIC, COUNT, "comments", "Organic comments"),
    Metric("shares", "shares", ORGANIC, COUNT, "shares", "Organic shares"),
    Metric("saves", "saves", ORGANIC, COUNT, "saves", "Organic saves"),
    Metric("views", "views", ORGANIC, COUNT, "views", "Organic views"),
    Metric("totalInteractions", "total_interactions", ORGANIC, COUNT, "interactions", "Interactions of all kinds"),
    Metric("replies", "replies", ORGANIC, COUNT, "replies", "Replies"),
    Metric("reposts", "reposts", ORGANIC, COUNT, "reposts", "Reposts"),
    Metric("reach", "reach", ORGANIC, LEVEL, "people", f"People reached; {_PEOPLE}"),
    Metric("organicReach", "organic_reach", ORGANIC, LEVEL, "people", f"People reached organically; {_PEOPLE}"),
    Metric("potentialReach", "potential_reach", ORGANIC, LEVEL, "people", f"People within reach; {_PEOPLE}"),
    Metric("followersAtPostDate", "followers_at_post_date", ORGANIC, LEVEL, "followers",
           "Followers of the creator when the post was published; never summed, because it is a level"),
    Metric("videoViewTotalTime", "video_view_total_time", ORGANIC, TIME, "not stated",
           "Time for which the video was watched, all views together; the API does not say in what unit"),
    Metric("avgWatchTime", "avg_watch_time", ORGANIC, RATE, "not stated",
           "Average time for which the video was watched; never summed; the API does not say in what unit"),
    Metric("navigationTapExit", "navigation_tap_exit", ORGANIC, COUNT, "taps", "Taps that left the story"),
    Metric("navigationTapBack", "navigation_tap_back", ORGANIC, COUNT, "taps", "Taps back"),
    Metric("navigationTapForward", "navigation_tap_forward", ORGANIC, COUNT, "taps", "Taps forward"),
    Metric("navigationSwipeForward", "navigation_swipe_forward", ORGANIC, COUNT, "swipes", "Swipes forward"),
    Metric("crosspostedViews", "crossposted_views", ORGANIC, COUNT, "views", "Views of crossposts"),
    Metric("crosspostedFacebookOnlyViews", "crossposted_facebook_only_views", ORGANIC, COUNT, "views",
           "Views of crossposts, on Facebook alone"),
    Metric("paidLikes", "paid_likes", PAID, COUNT, "likes", "Paid likes"),
    Metric("paidComments", "paid_comments", PAID, COUNT, "comments", "Paid comments"),
    Metric("paidShares", "paid_shares", PAID, COUNT, "shares", "Paid shares"),
    Metric("paidSaves", "paid_saves", PAID, COUNT, "saves", "Paid saves"),
    Metric("paidViews", "paid_views", PAID, COUNT, "views", "Paid views"),
    Metric("paidReach", "paid_reach", PAID, LEVEL, "people", f"People reached by being paid for; {_PEOPLE}"),
)  # fmt: skip
"""All metrics that are known: the document's, then the others."""

ALL = "all"
_BY_NAME = {name: metric for metric in METRICS for name in (metric.column, metric.api_name)}
_SHOWN_CHARACTERS = 40


def metrics_named(text: str) -> tuple[Metric, ...]:
    """The metrics that a setting names, each once, in the order of the table.

    Nothing names the document's, `all` names all that are known; else names are separated by commas, and are those of
    the API or of the lake's columns.

    Raises:
        ValueError: a name is not in the table; the message has it and the nearest that is.
    """
    if not text.strip():
        return DOCUMENT_METRICS
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ValueError(f"{_shown(text)} names no metric: leave it empty to mean the document's, or say {ALL}")
    for name in names:
        if name not in _BY_NAME and name != ALL:
            near = get_close_matches(name, [*_BY_NAME, ALL], n=1, cutoff=0)
            raise ValueError(f"{_shown(name)} is no metric that is known; the nearest is {near[0]}")
    return METRICS if ALL in names else _in_order(_BY_NAME[name] for name in names)


def metrics_asked_for(api_names: Iterable[str]) -> tuple[Metric, ...]:
    """The metrics of a query's `metrics`, in the order of the table: the document's when it names none.

    Raises:
        KeyError: a name is not one of the API's that are known.
    """
    return _in_order(_BY_NAME[name] for name in api_names) or DOCUMENT_METRICS


def names_to_ask_for(metrics: tuple[Metric, ...]) -> tuple[str, ...]:
    """The `metrics` of a query for these: none where they are the document's, which need not be asked for by name."""
    return () if metrics == DOCUMENT_METRICS else tuple(metric.api_name for metric in metrics)


def metrics_in(columns: Iterable[str]) -> tuple[Metric, ...]:
    """The metrics that have their column among `columns`, in the order of the table."""
    present = set(columns)
    return tuple(metric for metric in METRICS if metric.column in present)


def _in_order(metrics: Iterable[Metric]) -> tuple[Metric, ...]:
    wanted = set(metrics)
    return tuple(metric for metric in METRICS if metric in wanted)


def _shown(text: str) -> str:
    return repr(text) if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]!r}…"
