"""The posts of the sandbox: filtered and sorted as columns, and rendered as JSON, a page at a time."""

import hashlib
from datetime import date
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from later_reporting_dagster.contract.metrics import CAMPAIGN_METRICS, DEFAULT_METRICS, METRICS
from later_reporting_dagster.contract.parameters import METRICS_MEMBER, DateBasis, Platform, SortDirection
from later_reporting_dagster.server.routes import (
    JsonObject,
    MetricsQuery,
    PageQuery,
    PostsQuery,
    page_body,
    reject_metrics,
)
from later_reporting_dagster.server.sandbox.metrics import PostMetrics, supports
from later_reporting_dagster.server.sandbox.synthetic_world import (
    CONTENT_TYPES,
    NOT_AVAILABLE,
    IntArray,
    World,
    json_times,
)

_FIRST_NAMES = ("Ada", "Bea", "Cleo", "Dario", "Edda", "Femi", "Gus", "Hana", "Inés", "Jun", "Kofi", "Zoë")
_LAST_NAMES = ("Abel", "Brook", "Castro", "Dahl", "Eze", "Fabre", "Haddad", "Ito", "Lund", "Nagy", "Okoye", "Łoś")

_PAGED_METRICS = [metric.api_name for metric in DEFAULT_METRICS]
_WHOLE_METRICS = frozenset(metric.api_name for metric in (*METRICS, *CAMPAIGN_METRICS) if metric.kind.is_integer)


@lru_cache(maxsize=256)  # a query is sorted once for all its pages
def _sorted_rows(world: World, query: PostsQuery) -> IntArray:
    """Return the positions in `world.posts` of the posts that match a query, in its order.

    Null metrics are last in both directions. Ties keep the order of the world, so that pagination is stable.
    """
    rows = matching_rows(world, query)
    if query.sort_property in (None, "postDate"):
        values = world.posts.published_ms[rows]
    else:
        values = PostMetrics(world, rows, metric_days(world, query))[query.sort_property]
    return rows[sorted_positions(values, query.sort_direction)]


def sorted_positions(values: IntArray, direction: SortDirection) -> IntArray:
    """Return the positions of values in their order, those that are not available last."""
    keys = -values if direction is SortDirection.DESC else values
    return np.argsort(np.where(values == NOT_AVAILABLE, np.iinfo(np.int64).max, keys), kind="stable")


def posts_page(world: World, query: PostsQuery, page: PageQuery) -> JsonObject:
    """Return the body of a page of posts in the form of the sample in docs/api.md, "Posts performance".

    Names are sorted; whole amounts have no fraction. The cursor version nests the requested metrics.
    """
    content_types = included_content_types(query)
    reject_metrics([name for name in query.metrics or () if not all(supports(each, name) for each in content_types)])
    posts, matching = world.posts, _sorted_rows(world, query)
    rows = matching[page.rows]
    values = PostMetrics(world, rows, metric_days(world, query))
    columns = {name: json_values(name, values[name]) for name in query.metrics or _PAGED_METRICS}
    published = json_times(posts.published_ms[rows])
    data = []
    for index, row in enumerate(rows.tolist()):
        instance_id = world.instance_ids[posts.instance[row]]
        post_id, creator_id = int(posts.post_id[row]), int(posts.creator_id[row])
        content_type, platform, _ = CONTENT_TYPES[posts.content_type[row]]
        code = _digest(f"{instance_id}/{post_id}").hex()
        fields = {
            "campaignId": int(posts.campaign_id[row]),
            "contentImageUrl": f"https://example.com/posts/{code}.jpg",
            "contentType": content_type,
            "contentUrl": f"https://{platform}.example/p/{code}/",
            "creatorId": creator_id,
            "creatorProfile": _creator_profile(creator_id, content_type=content_type, platform=platform),
            "instanceId": instance_id,
            "postDate": published[index],
            "postId": post_id,
        }
        metrics = {name: column[index] for name, column in columns.items()}
        row = with_metrics(fields, metrics, query)
        data.append(dict(sorted(row.items())) if query.metrics is None else row)
    return page_body(data, page=page, total=len(matching))


def with_metrics(fields: JsonObject, metrics: JsonObject, query: MetricsQuery) -> JsonObject:
    """Return a row with its metrics, which the cursor version nests."""
    return fields | (metrics if query.metrics is None else {METRICS_MEMBER: metrics})


def included_content_types(query: MetricsQuery) -> list[str]:
    return [
        content_type
        for content_type, platform, _ in CONTENT_TYPES
        if (query.platforms is None or platform in query.platforms)
        and (query.content_types is None or content_type in query.content_types)
    ]


def matching_rows(world: World, query: MetricsQuery) -> IntArray:
    """Return the positions in `world.posts` of the posts that are returned and match a query, in the world's order."""
    posts = world.posts
    matches = are_in_range(world, query, np.arange(len(posts)))
    if query.instance_ids is not None:
        instance_ids = set(query.instance_ids)
        matches &= np.array([name in instance_ids for name in world.instance_ids])[posts.instance]
    if query.campaign_ids is not None:
        # A query may have numbers beyond int64, which match nothing.
        numbers = [number for number in query.campaign_ids if number.bit_length() < 64]
        matches &= np.isin(posts.campaign_id, np.array(numbers, dtype=np.int64))
    matches &= ~world.not_returned_yet
    included = included_content_types(query)
    matches &= np.array([name in included for name, _, _ in CONTENT_TYPES])[posts.content_type]
    return np.flatnonzero(matches)


def are_in_range(world: World, query: MetricsQuery, rows: IntArray) -> NDArray[np.bool_]:
    """Return which of these posts were published in the range of a query, or have metrics of it."""
    days, lifetimes = world.posts.day[rows], world.posts.lifetime_days[rows]
    if query.basis is DateBasis.POST_DATE:
        return (days >= query.start.toordinal()) & (days <= query.end.toordinal())
    since, until = metric_days(world, query)
    return (days + world.days_to_results[rows] <= until) & (days + lifetimes > since) & (since <= until)


def metric_days(world: World, query: MetricsQuery) -> tuple[int, int]:
    """Return the first and last ordinal day of the metrics: to date by `post_date`, else those of the range."""
    if query.basis is DateBasis.POST_DATE:
        return date.min.toordinal(), world.last_day.toordinal()
    return query.start.toordinal(), min(query.end, world.last_day).toordinal()


def json_values(name: str, values: IntArray) -> list[int | float | None]:
    """Return a metric column as JSON values: null if not available, hundredths as numbers."""
    unit = 1 if name in _WHOLE_METRICS else 100
    # Whole amounts without `.0`.
    return [
        None if value == NOT_AVAILABLE else value / unit if value % unit else value // unit for value in values.tolist()
    ]


@lru_cache(maxsize=65_536)
def _creator_profile(creator_id: int, *, content_type: str, platform: Platform) -> dict[str, str | None]:
    first, last, name_draw, image_draw, *_ = _digest(f"creator {creator_id}")
    first_name, last_name = _FIRST_NAMES[first % len(_FIRST_NAMES)], _LAST_NAMES[last % len(_LAST_NAMES)]
    handle = f"creator{creator_id}"
    return {
        "contentType": content_type,
        "fullName": f"{first_name} {last_name}" if name_draw >= 20 else None,
        "handleName": handle,
        "profileImage": f"https://example.com/profiles/{handle}_{platform}.jpg" if image_draw >= 26 else None,
        "profileLink": f"https://{platform}.example/{handle}",
    }


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=6).digest()
