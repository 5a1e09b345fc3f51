"""From a question to the rows of one page: filtering and sorting are done on columns, and only the page is rendered."""

import hashlib
from collections.abc import Sequence
from datetime import date
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from later_reporting_dagster.contract.api_version import METRICS_MEMBER
from later_reporting_dagster.contract.enums import DateBasis, Platform, SortDirection, SortProperty
from later_reporting_dagster.contract.metrics import DOCUMENT_METRICS, METRICS
from later_reporting_dagster.sandbox.query_parameters import PageRequest, Question
from later_reporting_dagster.sandbox.synthetic_world import CONTENT_TYPES, IntArray, World

_FIRST_NAMES = ("Ada", "Bea", "Cleo", "Dario", "Edda", "Femi", "Gus", "Hana", "Inés", "Jun", "Kofi", "Zoë")
_LAST_NAMES = ("Abel", "Brook", "Castro", "Dahl", "Eze", "Fabre", "Haddad", "Ito", "Lund", "Nagy", "Okoye", "Łoś")


def matching_rows(world: World, question: Question) -> IntArray:
    """Positions in `world.posts` of all posts that answer the question, in its order.

    Null metrics come last in either direction, and ties fall in the order of the world, so that paging is stable.
    """
    rows = np.flatnonzero(_matches(world, question))
    if question.sort_property is SortProperty.POST_DATE:
        values = world.posts.published_ms[rows]
    else:
        since, until = _recorded_days(world, question)
        values = world.metrics(rows, since=since, until=until)[question.sort_property.value]
    if question.sort_direction is SortDirection.DESC:
        values = -values
    elif question.sort_property is not SortProperty.POST_DATE:
        values = np.where(values < 0, np.iinfo(np.int64).max, values)
    return rows[np.argsort(values, kind="stable")]


def rendered(world: World, question: Question, rows: IntArray) -> list[dict[str, Any]]:
    """Posts as the document's sample shows them [S]: the same names in alphabetical order, whole numbers without `.0`.

    Metrics that are asked for by name and that the document does not have follow.
    """
    posts = world.posts
    since, until = _recorded_days(world, question)
    values = world.metrics(rows, since=since, until=until)
    if further := [name for name in question.metrics or () if name not in _OF_THE_DOCUMENT]:
        values |= world.further_metrics(rows, since=since, until=until)
    metrics = {name: _shown(name, column) for name, column in values.items()}
    published = np.datetime_as_string(posts.published_ms[rows].astype("datetime64[ms]"), unit="ms").tolist()
    answer = []
    for place, row in enumerate(rows.tolist()):
        instance_id = world.instance_ids[posts.instance[row]]
        post_id, creator_id = int(posts.post_id[row]), int(posts.creator_id[row])
        content_type, platform, _ = CONTENT_TYPES[posts.content_type[row]]
        code = _digest(f"{instance_id}/{post_id}").hex()
        documented = {
            "campaignId": int(posts.campaign_id[row]),
            "contentImageUrl": f"https://example.com/posts/{code}.jpg",
            "contentType": content_type,
            "contentUrl": f"https://{platform}.example/p/{code}/",
            "creatorId": creator_id,
            "creatorProfile": _creator_profile(creator_id, content_type, platform),
            "instanceId": instance_id,
            "postDate": f"{published[place]}Z",
            "postId": post_id,
            **{name: metrics[name][place] for name in _OF_THE_DOCUMENT},
        }
        answer.append(dict(sorted(documented.items())) | {name: metrics[name][place] for name in further})
    return answer


def nested(row: Any, question: Question) -> Any:
    """A row as the question's revision has it: where metrics are asked for by name, they lie in an object [C]."""
    if question.metrics is None or not isinstance(row, dict):
        return row
    outer = {
        name: value for name, value in row.items() if name not in _OF_THE_DOCUMENT and name not in question.metrics
    }
    return outer | {METRICS_MEMBER: {name: row[name] for name in question.metrics if name in row}}


def envelope(data: object, *, page: PageRequest, total: int, next_start: int | None = None) -> dict[str, Any]:
    """What surrounds a page's data. A numbered page past the end has no data and the true totals [S].

    `next_start` is where the next page begins that a cursor leads to; None where that is after this one's size [C].
    """
    if not page.revision.has_totals:
        following = page.start + page.size if next_start is None else next_start
        return {"data": data, "nextCursor": page.cursor_to(following) if following < total else None}
    return {
        "data": data,
        "pagination": {
            "page": page.number,
            "pageSize": page.size,
            "totalItems": total,
            "totalPages": -(-total // page.size),
        },
    }


def _matches(world: World, question: Question) -> NDArray[np.bool_]:
    posts = world.posts
    since, until = _recorded_days(world, question)
    if question.basis is DateBasis.POST_DATE:
        matches = (posts.day >= question.start.toordinal()) & (posts.day <= question.end.toordinal())
    else:
        matches = (posts.day <= until) & (posts.day + posts.life > since) & (since <= until)
    if question.instance_ids is not None:
        asked = set(question.instance_ids)
        matches &= np.array([name in asked for name in world.instance_ids])[posts.instance]
    if question.campaign_ids is not None:
        matches &= _is_one_of(posts.campaign_id, question.campaign_ids)
    if question.platforms is not None:
        matches &= np.array([platform in question.platforms for _, platform, _ in CONTENT_TYPES])[posts.content_type]
    if question.content_types is not None:
        matches &= np.array([name in question.content_types for name, _, _ in CONTENT_TYPES])[posts.content_type]
    return matches


def _is_one_of(column: IntArray, numbers: Sequence[int]) -> NDArray[np.bool_]:
    """Numbers of any size are allowed in a question; those that no column can hold match nothing."""
    return np.isin(column, np.array([number for number in numbers if number.bit_length() < 64], dtype=np.int64))


def _recorded_days(world: World, question: Question) -> tuple[int, int]:
    """The days whose metrics count: those of the range, or under `post_date` all that there are to date."""
    if question.basis is DateBasis.POST_DATE:
        return date.min.toordinal(), world.last_day.toordinal()
    return question.start.toordinal(), min(question.end, world.last_day).toordinal()


_OF_THE_DOCUMENT = frozenset(metric.api_name for metric in DOCUMENT_METRICS)
_COUNTS = frozenset(metric.api_name for metric in METRICS if metric.kind.is_whole)


def _shown(name: str, values: IntArray) -> list[int | float | None]:
    if name in _COUNTS:
        return [None if value < 0 else value for value in values.tolist()]
    return [
        None if value < 0 else value / 100 if value % 100 else value // 100  # JSON has one kind of number
        for value in values.tolist()
    ]


@lru_cache(maxsize=65_536)
def _creator_profile(creator_id: int, content_type: str, platform: Platform) -> dict[str, str | None]:
    """Who posted, as one network shows them; some tell no name, some have no picture."""
    first, last, name_told, image_told, *_ = _digest(f"creator {creator_id}")
    first_name, last_name = _FIRST_NAMES[first % len(_FIRST_NAMES)], _LAST_NAMES[last % len(_LAST_NAMES)]
    handle = f"creator{creator_id}"
    return {
        "contentType": content_type,
        "fullName": f"{first_name} {last_name}" if name_told >= 20 else None,
        "handleName": handle,
        "profileImage": f"https://example.com/profiles/{handle}_{platform}.jpg" if image_told >= 26 else None,
        "profileLink": f"https://{platform}.example/{handle}",
    }


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=6).digest()
