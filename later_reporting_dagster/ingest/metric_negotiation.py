"""Fetch the posts or totals of a query with all metrics that the API has for them, in as many parts as that takes.

Which metrics are valid depends on the platform and content-type filters of a query (docs/api.md, "Cursor version"), and
only a rejected query shows that a metric is not. A query has no filter at first, so that it returns posts of all
content types. The metrics that the API rejects without a filter are requested by platform and, where a platform rejects
them too, by content type, and their values are added to the posts. A metric that is rejected everywhere is null. Totals
have no filters: a metric that is rejected is null, with a warning.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec

from later_reporting_dagster.client import InconsistentPages, LaterClient, ListResult, QueryRejected, TooManyRows
from later_reporting_dagster.contract.metrics import DEFAULT_METRICS, Metric, parse_metrics
from later_reporting_dagster.contract.parameters import ContentType, Platform
from later_reporting_dagster.contract.query import PerformanceQuery
from later_reporting_dagster.contract.rows import Post, with_metrics
from later_reporting_dagster.contract.safe_line import safe_line
from later_reporting_dagster.ingest.progress import Progress
from later_reporting_dagster.ingest.query_plan import (
    MAX_ATTEMPTS_AFTER_FAILURE,
    number_of_parts,
    query_text,
    split_by_content,
)
from later_reporting_dagster.lake.tables import RawTable

# The platform and the content-type filter of a query.
Filters = tuple[tuple[Platform, ...], tuple[ContentType, ...]]

# With which the API refuses metrics, or anything else of a query. What the text says is not read.
METRICS_STATUSES = (400, 422)
# Enough parts for a separate query for each platform or content type.
_ONE_EACH = len(Platform) + len(ContentType)


class MetricNegotiation:
    """Fetches the queries of one run. The API may reject metrics in the cursor version only."""

    def __init__(self, client: LaterClient, table: RawTable, metrics: tuple[Metric, ...], progress: Progress) -> None:
        self._client = client
        self._table = table
        self._metrics = metrics
        self._progress = progress
        # Whether the API accepts a metric with some filters: searched for once per run.
        self._accepts: dict[Filters, dict[Metric, bool]] = {}
        self._search = asyncio.Lock()
        self._has_search_failed = False
        # What the API said when it refused metrics: it lists those that are valid. Quoted, and never read.
        self._refusal = ""

    async def fetch_all_metrics(
        self,
        query: PerformanceQuery,
        *,
        by_content: bool,
        max_posts: int | None = None,
        max_attempts: int | None = None,
    ) -> ListResult:
        """Fetch a query with all metrics.

        `by_content`: whether too many posts are fetched by platform and content type, because the query cannot be split
        otherwise.
        """
        # The default metrics, and those of totals, are requested without a search, until the API rejects them.
        is_usual = not self._table.splits_by_content or set(self._metrics).issubset(DEFAULT_METRICS)
        is_assumed = is_usual and _filters(query) not in self._accepts
        by_cursor = (await self._client.api_version()).uses_cursors
        requested = self._metrics
        if by_cursor and not is_assumed:
            accepted = partial(self._accepted, query, max_attempts=max_attempts)
            requested = await accepted(self._metrics)
            # The API requires at least one metric. Rows of totals without any say nothing.
            if not requested and not self._table.splits_by_content:
                raise QueryRejected(f"the API refuses all requested metrics of {self._table.rows}: {self._refusal}")
            requested = requested or await accepted(DEFAULT_METRICS)
        try:
            result = await self._client.fetch(
                self._table.route, replace(query, metrics=requested), max_rows=max_posts, max_attempts=max_attempts
            )
        except TooManyRows as error:
            if not (by_content and self._table.splits_by_content):
                raise
            too_many = error
        except QueryRejected as error:
            if not (by_cursor and is_assumed and await self._are_metrics_refused(query, error, max_attempts)):
                raise
            self._accepts.setdefault(_filters(query), {})
            return await self.fetch_all_metrics(
                query, by_content=by_content, max_posts=max_posts, max_attempts=max_attempts
            )
        else:
            if self._table.splits_by_content and (missing := _without(self._metrics, requested)):
                posts = {post.key: self._with_all_metrics(post) for post in result.items}
                # Each bad row of the query itself may be any post of the narrower queries.
                parts = await self._add_metrics(
                    query, missing, posts, others=len(result.bad_rows), max_attempts=max_attempts
                )
                result = _with_parts(replace(result, items=[*posts.values()]), parts)
            return result
        return await self._fetch_by_content(query, too_many, max_attempts=max_attempts)

    async def _fetch_by_content(
        self, query: PerformanceQuery, too_many: TooManyRows, *, max_attempts: int | None
    ) -> ListResult:
        parts = split_by_content(query, parts=number_of_parts(too_many.total_items))
        if not parts:
            raise too_many
        too_many.__traceback__ = None  # its frames would keep the fetched posts in memory
        if missed := [name for name in too_many.content_types if not any(part.selects(name) for part in parts)]:
            raise InconsistentPages(
                f"the posts of {query_text(query)} are too many for one query, and fetching them by platform and"
                f" content type would miss some, whose content type cannot be requested:"
                f" {safe_line(', '.join(sorted(map(repr, missed))))}"
            )
        result = ListResult.merged(
            [await self.fetch_all_metrics(part, by_content=True, max_attempts=max_attempts) for part in parts]
        )
        # Without a total, posts may be missing unnoticed if no fetched post had their content type.
        if too_many.total_items not in (None, result.total_items):
            raise InconsistentPages(
                f"{query_text(query)} has {too_many.total_items} posts, too many for one query, but"
                f" {result.total_items} when fetched by platform and content type: the others have a content type that"
                " cannot be requested, or posts were added in between. Try again."
            ) from too_many
        if repeated := len(result.items) - len({post.key for post in result.items}):
            raise InconsistentPages(
                f"{query_text(query)}: {repeated} posts were returned for several platforms or content types. Try"
                " again."
            )
        return result

    async def _add_metrics(
        self,
        query: PerformanceQuery,
        missing: tuple[Metric, ...],
        posts: dict[Any, Any],
        *,
        others: int,
        max_attempts: int | None,
    ) -> list[ListResult]:
        """Fetch metrics that the API rejects with the query's filters with narrower ones; add the values to its posts.

        Returns the results of the narrower queries, of whose posts `others` may lack.
        """
        results: list[ListResult] = []
        for part in split_by_content(query, parts=_ONE_EACH):
            if metrics := await self._accepted(part, missing, max_attempts=max_attempts):
                result = await self._client.fetch(
                    self._table.route, replace(part, metrics=metrics), max_attempts=max_attempts
                )
                found = {post.key: post for post in result.items}
                unexpected = len(found.keys() - posts.keys())
                lost = sum(key not in found and bool(part.selects(post.content_type)) for key, post in posts.items())
                if unexpected > others or lost > len(result.bad_rows):
                    raise InconsistentPages(
                        f"{query_text(part)}: {unexpected} posts are in the response for some metrics only, and {lost}"
                        " are missing from it; posts were added or removed in between. Try again."
                    )
                for key in found.keys() & posts.keys():
                    for metric in metrics:
                        setattr(posts[key], metric.column, getattr(found[key], metric.column))
                results.append(result)
            if rest := _without(missing, metrics):
                results += await self._add_metrics(part, rest, posts, others=others, max_attempts=max_attempts)
        return results

    async def _accepted(
        self, query: PerformanceQuery, wanted: tuple[Metric, ...], *, max_attempts: int | None
    ) -> tuple[Metric, ...]:
        """Return those of the wanted metrics that the API accepts with the query's filters."""

        async def request(metrics: tuple[Metric, ...]) -> None:
            # Neither instances nor days decide it, so one page suffices. Without its instances, the query would be for
            # all, and an instance that fails would fail it.
            await self._request_page(replace(query, start_date=query.end_date, metrics=metrics), max_attempts)

        async with self._search:
            known = self._accepts.get(_filters(query), {})
            if unknown := tuple(metric for metric in wanted if metric not in known):
                max_attempts = MAX_ATTEMPTS_AFTER_FAILURE if self._has_search_failed else max_attempts
                self._has_search_failed = True
                accepted = await find_accepted_metrics(unknown, request)
                if not accepted and not (query.platforms or query.content_types):
                    await request(self._one_metric)  # if this is refused, metrics are not the reason
                self._has_search_failed = False
                refused = [metric.api_name for metric in _without(unknown, accepted)]
                if refused and not self._table.splits_by_content:
                    self._progress.warn(
                        f"The API refuses these metrics of {self._table.rows}, which are therefore null:"
                        f" {', '.join(refused)}. It responded: {self._refusal}"
                    )
                known = self._accepts[_filters(query)] = known | {metric: metric in accepted for metric in unknown}
        return tuple(metric for metric in wanted if known[metric])

    async def _are_metrics_refused(
        self, query: PerformanceQuery, error: QueryRejected, max_attempts: int | None
    ) -> bool:
        """Return whether the API refuses a query because of its metrics: it accepts the query for impressions alone."""
        if error.status not in METRICS_STATUSES:
            return False
        try:
            await self._request_page(replace(query, metrics=self._one_metric), max_attempts)
        except QueryRejected as refused:
            if refused.is_forbidden:  # an instance comes first
                raise
            return False
        self._refusal = error.detail
        return True

    @property
    def _one_metric(self) -> tuple[Metric, ...]:
        return parse_metrics("impressions", known=self._table.known_metrics)

    def accepted_metrics(self, query: PerformanceQuery) -> tuple[Metric, ...]:
        """Return the metrics of the run, without those of totals that the API refuses."""
        known = {} if self._table.splits_by_content else self._accepts.get(_filters(query), {})
        return tuple(metric for metric in self._metrics if known.get(metric, True))

    async def _request_page(self, query: PerformanceQuery, max_attempts: int | None) -> None:
        with suppress(TooManyRows):
            await self._client.fetch(self._table.route, query, max_rows=1, max_attempts=max_attempts)

    def _with_all_metrics(self, post: Post) -> Any:
        """Return the post with an attribute for each metric of the run, and for no other."""
        type_ = with_metrics(Post, self._metrics)
        fields = msgspec.structs.asdict(post)
        return type_(**{name: fields[name] for name in type_.__struct_fields__ if name in fields})


def _with_parts(result: ListResult, parts: Sequence[ListResult]) -> ListResult:
    """Return the result with what is bad, odd or unreadable in narrower queries for some metrics."""
    unreadable: dict[Hashable, dict[str, str]] = {}
    for each in (result, *parts):
        for key, columns in each.unreadable.items():
            unreadable.setdefault(key, {}).update(columns)
    both = ListResult.merged([result, *parts])
    return replace(result, bad_rows=both.bad_rows, oddities=both.oddities, unreadable=unreadable)


def _filters(query: PerformanceQuery) -> Filters:
    return query.platforms, query.content_types


def _without(metrics: tuple[Metric, ...], excluded: tuple[Metric, ...]) -> tuple[Metric, ...]:
    return tuple(metric for metric in metrics if metric not in excluded)


async def find_accepted_metrics(
    metrics: tuple[Metric, ...], request: Callable[[tuple[Metric, ...]], Awaitable[object]]
) -> tuple[Metric, ...]:
    """Return the metrics that the API accepts, in their order. Refused ones are requested by halves."""
    try:
        await request(metrics)
    except QueryRejected as error:
        if error.status not in METRICS_STATUSES:
            raise
        half = len(metrics) // 2
        if not half:
            return ()
        first = await find_accepted_metrics(metrics[:half], request)
        return first + await find_accepted_metrics(metrics[half:], request)
    return metrics
