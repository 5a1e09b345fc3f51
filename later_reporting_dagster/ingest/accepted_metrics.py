"""Which metrics may be asked for with which filters: learned from refusals, and decided without asking anyone.

Which metrics are valid depends on the platform and content type that a query is filtered by [C], and only a refusal
tells. So a query is asked with those that are valid for all of its posts, and the others are asked for by platform and,
where a platform refuses them too, by content type. What none of these allows is null.

The first answer holds every post, also those of platforms that no query can name. The further ones only bring values,
and are held against it.
"""

import json
import re
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from later_reporting_dagster.client import Walk, WalkInconsistent
from later_reporting_dagster.contract import (
    DOCUMENT_METRICS,
    METRICS,
    BadRow,
    ContentType,
    Metric,
    Platform,
    Post,
    PostPerformanceQuery,
    metrics_asked_for,
    names_to_ask_for,
    platform_of,
    post_type,
)
from later_reporting_dagster.ingest.query_plan import by_content

# The platforms and the content types that a query is filtered by.
Filters = tuple[tuple[Platform, ...], tuple[ContentType, ...]]


@dataclass(frozen=True, slots=True)
class _Group:
    """Metrics that are asked for together; `told` when the service's own words set them apart from others."""

    names: tuple[str, ...]
    told: bool = False
    accepted: bool = False


@dataclass(slots=True)
class _Known:
    """What is known of a query's filters: refused metrics, and the groups in which the others are asked for.

    Refused metrics that are `told` were set apart by the service's own words, which are then trusted for narrower
    filters too.
    """

    groups: list[_Group] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    told: set[str] = field(default_factory=set)
    may_join: bool = True

    def names(self) -> set[str]:
        return self.refused.union(*(group.names for group in self.groups))


class AllowedMetrics:
    """Learns from refusals which of the wanted `metrics` can be asked for with which filters."""

    def __init__(self, metrics: tuple[Metric, ...]) -> None:
        self._wanted = tuple(metric.api_name for metric in metrics)
        self._known: dict[Filters, _Known] = {}

    def first(self, query: PostPerformanceQuery) -> PostPerformanceQuery:
        """Return the query with metrics that are not refused with its filters: it is to hold all posts.

        Where all that are wanted are refused it asks for another one, because there is no query without.
        """
        known = self._of(_filters(query), self._wanted)
        return _asking_for(query, known.groups[0].names if known.groups else self._instead(known)[:1])

    def has_any(self, query: PostPerformanceQuery) -> bool:
        """Whether any metric may be left that can be asked for with the query's filters."""
        known = self._of(_filters(query), self._wanted)
        return bool(known.groups or self._instead(known))

    def _instead(self, known: _Known) -> list[str]:
        return [metric.api_name for metric in DOCUMENT_METRICS if metric.api_name not in known.refused]

    def further(
        self, query: PostPerformanceQuery, answered: Collection[PostPerformanceQuery]
    ) -> PostPerformanceQuery | None:
        """Return the next query for values that the first query left out; None when there is nothing left.

        Args:
            query: the first one.
            answered: those that have been, itself among them.
        """
        done = {(_filters(each), name) for each in answered for name in _names(each)}
        return next(self._missing(query, self._wanted, done), None)

    def _missing(
        self,
        query: PostPerformanceQuery,
        wanted: Sequence[str],
        done: Collection[tuple[Filters, str]],
        *,
        told: bool = False,
    ) -> Iterator[PostPerformanceQuery]:
        filters = _filters(query)
        known = self._of(filters, wanted, told=told)
        for group in known.groups:
            names = tuple(name for name in group.names if name in wanted and (filters, name) not in done)
            if names:
                yield _asking_for(query, group.names if len(names) == len(group.names) else names)
        if refused := [name for name in wanted if name in known.refused]:
            for part in by_content(query, parts=_ONE_EACH):
                yield from self._missing(part, refused, done, told=known.told.issuperset(refused))

    def has_accepted(self, query: PostPerformanceQuery) -> bool:
        """Whether it is known that the query's metrics may be asked for with its filters."""
        accepted = (group.names for group in self._of(_filters(query), ()).groups if group.accepted)
        return set(_names(query)).issubset(name for names in accepted for name in names)

    def accept(self, query: PostPerformanceQuery) -> None:
        """Note that a query was answered. Once all groups of its filters are, they are asked for together."""
        known = self._of(_filters(query), ())
        names = set(_names(query))
        known.groups = [replace(group, accepted=group.accepted or names >= {*group.names}) for group in known.groups]
        if known.may_join and len(known.groups) > 1 and all(group.accepted for group in known.groups):
            known.groups = [_Group(_ordered(name for group in known.groups for name in group.names), accepted=True)]

    def learn(self, query: PostPerformanceQuery, said: str) -> None:
        """Learn from a refusal, in the end by asking for the metrics one by one.

        Only the service's words tell which metrics it means, and these may name the bad ones, the valid ones, both, or
        none. So they decide no more than which metrics are asked for apart, until a group that was set apart is refused
        again in the same words.

        Args:
            query: the one that was refused, for its metrics.
            said: what the service said, all of it.
        """
        known, names = self._of(_filters(query), ()), _names(query)
        # They are one group, unless another query has been refused meanwhile.
        concerned = [group for group in known.groups if not set(group.names).isdisjoint(names)]
        is_told = [group.names for group in concerned if group.told] == [names]
        known.may_join = known.may_join and not any(group.accepted for group in concerned)
        words = set(re.findall(r"\w+", said))
        mentioned = tuple(name for name in names if name in words)
        rest = tuple(name for name in names if name not in words)
        if len(names) == 1 or (is_told and not (mentioned and rest)):
            known.refused.update(names)
            known.told.update(names if is_told else ())
            apart = []
        elif mentioned and rest:
            apart = [_Group(rest, told=True), _Group(mentioned, told=True)]
        else:
            half = len(names) // 2
            apart = [_Group(names[:half]), _Group(names[half:])]
        left = [replace(group, names=_without(group.names, names)) for group in concerned]
        others = [group for group in known.groups if group not in concerned]
        wanted = {name for group in concerned for name in group.names}
        apart = [replace(group, names=tuple(name for name in group.names if name in wanted)) for group in apart]
        known.groups = [group for group in [*apart, *left, *others] if group.names]

    def _of(self, filters: Filters, wanted: Iterable[str], *, told: bool = False) -> _Known:
        known = self._known.setdefault(filters, _Known())
        unknown = _ordered({*wanted} - known.names())
        if unknown:
            known.groups.append(_Group(unknown, told=told))
        return known


def with_values(whole: Sequence[Walk], further: Sequence[Walk], *, metrics: tuple[Metric, ...]) -> list[Walk]:
    """Return the walks of a first query with the values that further ones brought of `metrics`; these without posts.

    A row that is bad in a further response alone costs its post the values that it would have brought, and is set
    aside.

    Raises:
        WalkInconsistent: the responses are not of the same posts.
    """
    if not further:
        return list(whole)
    posts = {post.key: post for walk in whole for post in walk.posts}
    bad = {_identity_of(row) for walk in whole for row in walk.bad_rows}
    brought: dict[Hashable, dict[str, Any]] = {}
    extras: dict[Hashable, list[dict[str, Any]]] = {}
    walks: list[Walk] = []
    for walk in further:
        if problem := _problem_of(walk, posts, bad_rows=sum(len(each.bad_rows) for each in whole)):
            raise WalkInconsistent(f"{problem}: posts came or went in between. Try again.")
        columns = [metric.column for metric in metrics_asked_for(walk.query.metrics)]
        for post in walk.posts:
            brought.setdefault(post.key, {}).update({name: getattr(post, name) for name in columns})
            if post.extra is not None and (extra := _without_metrics(post.extra, metrics)):
                extras.setdefault(post.key, []).append(extra)
        new = [row for row in walk.bad_rows if _identity_of(row) not in bad]
        bad.update(map(_identity_of, new))
        walks.append(replace(walk, posts=[], bad_rows=new))
    wanted, filled = {metric.column for metric in metrics}, post_type(metrics)

    def completed(post: Post) -> Post:
        values = {name: getattr(post, name) for name in post.__struct_fields__} | brought.get(post.key, {})
        identity = {name: value for name, value in values.items() if name in wanted or name not in _METRIC_COLUMNS}
        made: Post = filled(**identity | {"extra": _together(post.extra, extras.get(post.key, []))})
        return made

    return [*(replace(walk, posts=[completed(post) for post in walk.posts]) for walk in whole), *walks]


def _identity_of(row: BadRow) -> Hashable:
    """Return what tells a bad row from others: its key, or its raw JSON when it has no key."""
    try:
        fields = json.loads(row.raw)
    except ValueError:
        return row.raw
    if not isinstance(fields, Mapping):
        return row.raw
    key = tuple(fields.get(name) for name in ("instanceId", "campaignId", "postId"))
    # A key of other types is no key.
    return key if all(isinstance(part, int | str) for part in key) else row.raw


def _problem_of(walk: Walk, posts: Mapping[tuple[str, int, int], Post], *, bad_rows: int) -> str | None:
    """Return why a further response is not of the posts of the first; None when it is, as far as can be told.

    A content type that the API reference does not list may be of any platform, and a bad row may be any post.
    """
    came = {post.key for post in walk.posts}
    strangers = len(came - posts.keys())
    if strangers > bad_rows:
        return f"{strangers} posts came for some metrics and not for others"
    due = {key for key, post in posts.items() if _is_surely_within(post, walk.query)}
    missing = len(due - came)
    if missing > len(walk.bad_rows):
        return f"{missing} posts did not come for all metrics"
    return None


def _is_surely_within(post: Post, query: PostPerformanceQuery) -> bool:
    if post.content_type not in _CONTENT_TYPES:
        return False
    if query.instance_ids and post.instance_id not in query.instance_ids:
        return False
    if query.content_types:
        return post.content_type in query.content_types
    return not query.platforms or platform_of(post.content_type) in query.platforms


def _without_metrics(extra: str, metrics: tuple[Metric, ...]) -> dict[str, Any]:
    """Unknown fields without metrics that have their column: a numbered page has some, whatever it is asked for."""
    names = {metric.api_name for metric in metrics}
    return {name: value for name, value in json.loads(extra).items() if name not in names}


def _together(extra: str | None, others: Sequence[Mapping[str, Any]]) -> str | None:
    """All unknown fields of a post's answers; the first has the word where they differ."""
    if not others:
        return extra
    fields: dict[str, Any] = {}
    for each in [*others, json.loads(extra or "{}")]:
        fields |= each
    return json.dumps(fields, sort_keys=True, separators=(",", ":"))


def _filters(query: PostPerformanceQuery) -> Filters:
    return query.platforms, query.content_types


def _names(query: PostPerformanceQuery) -> tuple[str, ...]:
    return tuple(metric.api_name for metric in metrics_asked_for(query.metrics))


def _asking_for(query: PostPerformanceQuery, names: Iterable[str]) -> PostPerformanceQuery:
    return replace(query, metrics=names_to_ask_for(metrics_asked_for(names)))


def _without(names: Iterable[str], others: Collection[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name not in others)


def _ordered(names: Iterable[str]) -> tuple[str, ...]:
    wanted = set(names)
    return tuple(metric.api_name for metric in METRICS if metric.api_name in wanted)


_CONTENT_TYPES = frozenset(ContentType)
_METRIC_COLUMNS = frozenset(metric.column for metric in METRICS)
# More than there are platforms, or content types: each is a part.
_ONE_EACH = len(Platform) + len(ContentType)
