"""Learn which metrics the API accepts with which filters, and merge the values of several queries into one result.

Which metrics are valid depends on the platform and content-type filters of a query (docs/api.md, "Cursor version"), and
only a rejected query shows that a metric is not. Each query is therefore fetched in two steps:

1. The *base query* requests metrics that are not known to be rejected with its filters. At first these are all metrics;
   a rejection divides them into groups, and the base query requests the first group. It returns every post, including
   posts of platforms that no filter can name.
2. *Supplementary queries* request the other groups with the same filters, and the rejected metrics by platform and,
   where a platform rejects them too, by content type. They add values to the posts of the base query. A metric that is
   rejected everywhere is null.

No I/O here.
"""

import json
import re
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from later_reporting_dagster.client import InconsistentPages, QueryResult
from later_reporting_dagster.contract import (
    DEFAULT_METRICS,
    METRICS,
    BadRow,
    ContentType,
    Metric,
    Platform,
    Post,
    PostPerformanceQuery,
    metrics_from_query_field,
    metrics_to_query_field,
    platform_of,
    post_type,
)
from later_reporting_dagster.ingest.partition_writer import query_text
from later_reporting_dagster.ingest.query_plan import split_by_content

# The platform and the content-type filter of a query.
Filters = tuple[tuple[Platform, ...], tuple[ContentType, ...]]


@dataclass(frozen=True, slots=True)
class _Group:
    """Metrics that are requested together, by API name.

    Attributes:
        names: the API names, in the order of `METRICS`.
        from_detail: whether the group was formed because an error message named some of the requested metrics and not
            the others.
        accepted: whether a query for all of them has succeeded.
    """

    names: tuple[str, ...]
    from_detail: bool = False
    accepted: bool = False


@dataclass(slots=True)
class _FilterState:
    """What is known about the metrics of one combination of filters.

    Attributes:
        groups: the metrics that may be accepted, in the groups in which they are requested.
        rejected: the metrics that are rejected.
        rejected_by_detail: the rejected metrics that came from a group with `from_detail`. With narrower filters they
            are requested as one group again; if that is rejected, all of it counts as rejected, instead of being
            halved.
        may_merge: whether the groups are merged once all are accepted. False after a rejection of accepted metrics:
            the API then accepts them separately, but not together.
    """

    groups: list[_Group] = field(default_factory=list)
    rejected: set[str] = field(default_factory=set)
    rejected_by_detail: set[str] = field(default_factory=set)
    may_merge: bool = True

    def names(self) -> set[str]:
        return self.rejected.union(*(group.names for group in self.groups))


class AcceptedMetrics:
    """Chooses the metrics of queries by what the API has accepted and rejected so far.

    Args:
        metrics: the metrics to fetch.
    """

    def __init__(self, metrics: tuple[Metric, ...]) -> None:
        self._wanted = tuple(metric.api_name for metric in metrics)
        self._states: dict[Filters, _FilterState] = {}

    def base_query(self, query: PostPerformanceQuery) -> PostPerformanceQuery:
        """Return the query with the first group of metrics that are not known to be rejected with its filters.

        `supplementary_query` requests the other groups.

        If all wanted metrics are rejected, the query requests another metric, because the API requires at least one.
        """
        state = self._state(_filters(query), self._wanted)
        return _with_metrics(query, state.groups[0].names if state.groups else _substitutes(state)[:1])

    def has_candidates(self, query: PostPerformanceQuery) -> bool:
        """Return whether any metric is left that the API may accept with the query's filters."""
        state = self._state(_filters(query), self._wanted)
        return bool(state.groups or _substitutes(state))

    def supplementary_query(
        self, query: PostPerformanceQuery, fetched: Collection[PostPerformanceQuery]
    ) -> PostPerformanceQuery | None:
        """Return the next query for values that are still missing; None if there is none.

        Args:
            query: the base query.
            fetched: the queries that have succeeded so far, including the base query.
        """
        done = {(_filters(each), name) for each in fetched for name in _metric_names(each)}
        return next(self._missing(query, self._wanted, done), None)

    def is_accepted(self, query: PostPerformanceQuery) -> bool:
        """Return whether the query's metrics are known to be accepted with its filters."""
        accepted = (group.names for group in self._state(_filters(query), ()).groups if group.accepted)
        return set(_metric_names(query)).issubset(name for names in accepted for name in names)

    def record_accepted(self, query: PostPerformanceQuery) -> None:
        """Record that a query succeeded.

        Once all groups of these filters are accepted, they are merged into one, if `may_merge`.
        """
        state = self._state(_filters(query), ())
        names = set(_metric_names(query))
        state.groups = [replace(group, accepted=group.accepted or names >= {*group.names}) for group in state.groups]
        if state.may_merge and len(state.groups) > 1 and all(group.accepted for group in state.groups):
            state.groups = [_Group(_ordered(name for group in state.groups for name in group.names), accepted=True)]

    def record_rejected(self, query: PostPerformanceQuery, detail: str) -> None:
        """Record that the API rejected the metrics of a query, and regroup them for the next attempts.

        The error detail may name the invalid metrics, the valid ones, both or none. The detail is therefore never
        trusted by itself: it only splits the metrics into two groups, named and not named, that are requested
        separately next. A metric counts as rejected if it was requested alone, or if its whole group came from such a
        split and the new detail does not split it further. Other groups are halved.

        Args:
            query: the rejected query.
            detail: the whole text of the error.
        """
        state, names = self._state(_filters(query), ()), _metric_names(query)
        # Usually one group; several if another query was rejected while this one was in flight.
        concerned = [group for group in state.groups if not set(group.names).isdisjoint(names)]
        is_from_detail = [group.names for group in concerned if group.from_detail] == [names]
        state.may_merge = state.may_merge and not any(group.accepted for group in concerned)
        parts = _split_by_detail(names, detail)
        if not parts and (len(names) == 1 or is_from_detail):
            state.rejected.update(names)
            state.rejected_by_detail.update(names if is_from_detail else ())
        elif not parts:
            half = len(names) // 2
            parts = [_Group(names[:half]), _Group(names[half:])]
        still_open = {name for group in concerned for name in group.names}
        parts = [replace(part, names=tuple(name for name in part.names if name in still_open)) for part in parts]
        rests = [replace(group, names=_without(group.names, names)) for group in concerned]
        others = [group for group in state.groups if group not in concerned]
        state.groups = [group for group in [*parts, *rests, *others] if group.names]

    def _missing(
        self,
        query: PostPerformanceQuery,
        wanted: Sequence[str],
        done: Collection[tuple[Filters, str]],
        *,
        from_detail: bool = False,
    ) -> Iterator[PostPerformanceQuery]:
        """Yield the queries that are still needed for the metrics `wanted`, with the query's filters or narrower ones.

        Args:
            query: the base query, with the filters to start from.
            wanted: API names of metrics.
            done: the (filters, metric) pairs that have been fetched.
            from_detail: whether these metrics were rejected with wider filters, as a group with `from_detail`.
        """
        filters = _filters(query)
        state = self._state(filters, wanted, from_detail=from_detail)
        for group in state.groups:
            names = tuple(name for name in group.names if name in wanted and (filters, name) not in done)
            if names:
                yield _with_metrics(query, names)
        if rejected := [name for name in wanted if name in state.rejected]:
            for part in split_by_content(query, parts=_ONE_EACH):
                yield from self._missing(
                    part, rejected, done, from_detail=state.rejected_by_detail.issuperset(rejected)
                )

    def _state(self, filters: Filters, wanted: Iterable[str], *, from_detail: bool = False) -> _FilterState:
        """Return the state of some filters, after adding a group for the wanted metrics that it does not have yet."""
        state = self._states.setdefault(filters, _FilterState())
        new = _ordered({*wanted} - state.names())
        if new:
            state.groups.append(_Group(new, from_detail=from_detail))
        return state


def _split_by_detail(names: tuple[str, ...], detail: str) -> list[_Group]:
    """Separate the metrics that an error detail names from the others; empty if it names all or none."""
    words = set(re.findall(r"\w+", detail))
    mentioned = tuple(name for name in names if name in words)
    others = tuple(name for name in names if name not in words)
    return [_Group(others, from_detail=True), _Group(mentioned, from_detail=True)] if mentioned and others else []


def _substitutes(state: _FilterState) -> list[str]:
    return [metric.api_name for metric in DEFAULT_METRICS if metric.api_name not in state.rejected]


def _filters(query: PostPerformanceQuery) -> Filters:
    return query.platforms, query.content_types


def _metric_names(query: PostPerformanceQuery) -> tuple[str, ...]:
    return tuple(metric.api_name for metric in metrics_from_query_field(query.metrics))


def _with_metrics(query: PostPerformanceQuery, names: Iterable[str]) -> PostPerformanceQuery:
    return replace(query, metrics=metrics_to_query_field(metrics_from_query_field(names)))


def _without(names: Iterable[str], excluded: Collection[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name not in excluded)


def _ordered(names: Iterable[str]) -> tuple[str, ...]:
    """Return metric names in the order of `METRICS`."""
    wanted = set(names)
    return tuple(metric.api_name for metric in METRICS if metric.api_name in wanted)


def merge_supplements(
    base: Sequence[QueryResult], supplements: Sequence[QueryResult], *, metrics: tuple[Metric, ...]
) -> list[QueryResult]:
    """Return the base results with the metric values of the supplements.

    The returned list has the merged base results first, then each supplement without its posts, so that its bad rows
    still reach quarantine. A bad row in a supplement leaves the values of its post null. The bad row is kept
    unless the base results or an earlier supplement have it too.

    Args:
        base: the results of a base query.
        supplements: the results of its supplementary queries.
        metrics: the metrics of the merged posts.

    Raises:
        InconsistentPages: the results do not contain the same posts.
    """
    if not supplements:
        return list(base)
    merger = _Merger(base, metrics)
    emptied = [merger.add(supplement) for supplement in supplements]
    return [*(replace(result, posts=[merger.merge(post) for post in result.posts]) for result in base), *emptied]


class _Merger:
    """Collects the values of supplements by post key."""

    def __init__(self, base: Sequence[QueryResult], metrics: tuple[Metric, ...]) -> None:
        self._metrics = metrics
        self._columns = {metric.column for metric in metrics}
        self._api_names = {metric.api_name for metric in metrics}
        self._post_type = post_type(metrics)
        self._posts = {post.key: post for result in base for post in result.posts}
        self._bad_row_count = sum(len(result.bad_rows) for result in base)
        self._bad_rows = {_bad_row_identity(row) for result in base for row in result.bad_rows}
        self._values: dict[Hashable, dict[str, Any]] = {}
        self._extras: dict[Hashable, list[dict[str, Any]]] = {}

    def add(self, supplement: QueryResult) -> QueryResult:
        """Collect the values of a supplement; return it without its posts and without bad rows that are already known.

        Raises:
            InconsistentPages: it does not contain the same posts as the base results.
        """
        if problem := self._find_inconsistency(supplement):
            raise InconsistentPages(
                f"{query_text(supplement.query)}: {problem}; posts were added or removed in between. Try again."
            )
        columns = [metric.column for metric in metrics_from_query_field(supplement.query.metrics)]
        for post in supplement.posts:
            self._values.setdefault(post.key, {}).update({name: getattr(post, name) for name in columns})
            if post.extra is not None and (extra := self._unknown_fields(post.extra)):
                self._extras.setdefault(post.key, []).append(extra)
        new_bad_rows = [row for row in supplement.bad_rows if _bad_row_identity(row) not in self._bad_rows]
        self._bad_rows.update(map(_bad_row_identity, new_bad_rows))
        return replace(supplement, posts=[], bad_rows=new_bad_rows)

    def merge(self, post: Post) -> Post:
        """Return a post of the base results with the values of all supplements."""
        values = {name: getattr(post, name) for name in post.__struct_fields__} | self._values.get(post.key, {})
        fields = {name: value for name, value in values.items() if name in self._columns or name not in _METRIC_COLUMNS}
        merged: Post = self._post_type(**fields | {"extra": _merge_extras(post.extra, self._extras.get(post.key, []))})
        return merged

    def _find_inconsistency(self, supplement: QueryResult) -> str | None:
        """Return how the posts of a supplement contradict the base results; None if they do not.

        A bad row may stand for any post of the other side, so each side may lack as many posts as it has bad rows.
        """
        keys = {post.key for post in supplement.posts}
        unexpected = len(keys - self._posts.keys())
        if unexpected > self._bad_row_count:
            return f"{unexpected} posts are in the response for some metrics, but not in the base response"
        expected = {key for key, post in self._posts.items() if _must_match(post, supplement.query)}
        missing = len(expected - keys)
        if missing > len(supplement.bad_rows):
            return f"{missing} posts are in the base response, but not in the response for some metrics"
        return None

    def _unknown_fields(self, extra: str) -> dict[str, Any]:
        """Return the unknown fields, leaving out the requested metrics.

        The paged version returns metrics that a supplement did not request.
        """
        return {name: value for name, value in json.loads(extra).items() if name not in self._api_names}


def _bad_row_identity(row: BadRow) -> Hashable:
    """Return the key of a bad row, or its raw JSON if it has no valid key."""
    try:
        fields = json.loads(row.raw)
    except ValueError:
        return row.raw
    if not isinstance(fields, Mapping):
        return row.raw
    key = tuple(fields.get(name) for name in ("instanceId", "campaignId", "postId"))
    return key if all(isinstance(part, int | str) for part in key) else row.raw


def _must_match(post: Post, query: PostPerformanceQuery) -> bool:
    """Return whether a post certainly passes the query's filters.

    A content type that the API reference does not list may belong to any platform, so such a post is never certain.
    """
    if post.content_type not in _CONTENT_TYPES:
        return False
    if query.instance_ids and post.instance_id not in query.instance_ids:
        return False
    if query.content_types:
        return post.content_type in query.content_types
    return not query.platforms or platform_of(post.content_type) in query.platforms


def _merge_extras(extra: str | None, others: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the unknown fields of a post in all results as JSON. Values of the base result take precedence."""
    if not others:
        return extra
    fields: dict[str, Any] = {}
    for each in [*others, json.loads(extra or "{}")]:
        fields |= each
    return json.dumps(fields, sort_keys=True, separators=(",", ":"))


_CONTENT_TYPES = frozenset(ContentType)
_METRIC_COLUMNS = frozenset(metric.column for metric in METRICS)
# Enough parts for a separate query for each platform or content type.
_ONE_EACH = len(Platform) + len(ContentType)
