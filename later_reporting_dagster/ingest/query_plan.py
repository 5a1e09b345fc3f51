"""Plan the queries for a set of partitions with as few requests as possible, and what is asked after failures. No I/O.

A partition is one UTC day of one instance. A `post_date` response can be split into days by the `postDate` of each
post, so contiguous days of the same instances become one range query. Scattered days are merged too if that costs fewer
requests. A `performance_date` response cannot be split, so each day is a separate query for all its instances
(docs/api.md, "Date basis").
"""

from collections import defaultdict
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from itertools import pairwise
from math import ceil
from operator import attrgetter, itemgetter
from typing import TypeVar
from urllib.parse import urlencode

from later_reporting_dagster.client import (
    ApiVersionChanged,
    CredentialsRejected,
    InconsistentPages,
    LaterError,
    QueryRejected,
    RetriesExhausted,
    TooManyRows,
    UnexpectedResponse,
)
from later_reporting_dagster.contract.days import days_between
from later_reporting_dagster.contract.metrics import DEFAULT_METRICS, Metric
from later_reporting_dagster.contract.parameters import (
    MAX_PAGE_NUMBER,
    MAX_PAGE_SIZE,
    ContentType,
    DateBasis,
    Platform,
    platform_of,
)
from later_reporting_dagster.contract.query import PerformanceQuery, group_by_url_length
from later_reporting_dagster.ingest.decide import Reject
from later_reporting_dagster.ingest.progress import SliceError, refusal
from later_reporting_dagster.lake import Partition
from later_reporting_dagster.lake.tables import MAX_QUERY_DAYS, RawTable

# Posts in each part when a query has more posts than its pages can return. Well below what they can, because posts are
# not spread evenly.
MAX_POSTS_PER_PART = MAX_PAGE_NUMBER * MAX_PAGE_SIZE * 3 // 5
# The pages of a cursor query are fetched one after the other, and its last page is half empty on average. So a range of
# days is fetched as queries of some 25 pages: several at a time, for 2 % more pages.
PAGES_PER_CURSOR_QUERY = 25
# While the number of posts is not known.
FIRST_DAYS_PER_CURSOR_QUERY = 7
# The run stops once so many instances have failed on three days, without a success in between. Once so many have failed
# on one day, the others are queried together.
OUTAGE_INSTANCES = 5
# The fetch of totals stops once so many days or periods have failed in a row.
OUTAGE_TOTALS = 5
# Once so many days of an instance have failed in a row, going back, its older days are not requested. Once so many of
# its queries have succeeded in a row, it is queried together with others again.
RESULTS_IN_A_ROW = 3
# All attempts of a request take over a minute. Once they have failed, others have fewer: those of the parts of the
# query, which show the instance at fault, and those of the search for metrics, which all queries wait for.
MAX_ATTEMPTS_AFTER_FAILURE = 3

_DAY = timedelta(days=1)
_Item = TypeVar("_Item")


def plan_queries(
    partitions: Collection[Partition],
    *,
    table: RawTable,
    rows_per_file: float | None = None,
    metrics: tuple[Metric, ...] = DEFAULT_METRICS,
    wider_by: int = 0,
) -> list[PerformanceQuery]:
    """Return the queries whose responses contain each of `partitions` exactly once, in order of date.

    A query covers other partitions as well only if that costs fewer requests by `rows_per_file`, the mean rows of a
    partition. Each is asked `wider_by` days wider on each side.
    """
    max_days = table.days_per_query - 2 * wider_by
    # By those that are requested together, and day.
    instances_of: dict[tuple[str, date], set[str]] = defaultdict(set)
    for partition in partitions:
        name = str(partition.instance_id)
        instances_of[name if table.one_instance_per_query else "", partition.day].add(name)
    days = [
        PerformanceQuery(
            start_date=day,
            end_date=day,
            instance_ids=tuple(sorted(names)),
            date_basis=table.date_basis,
            metrics=metrics,
        )
        for (_, day), names in sorted(instances_of.items())
    ]
    queries = sorted(_join_contiguous(days, max_days=max_days), key=attrgetter("start_date"))
    if rows_per_file is not None:
        queries = _merge(queries, rows_per_file=rows_per_file, max_days=max_days)
    return [replace(query, instance_ids=ids) for query in queries for ids in group_by_url_length(query.instance_ids)]


def _join_contiguous(days: Sequence[PerformanceQuery], *, max_days: int) -> list[PerformanceQuery]:
    """Join contiguous days with the same instances to ranges of at most `max_days`."""
    ranges: list[PerformanceQuery] = []
    for day in days:
        last = ranges[-1] if ranges else None
        is_next = last and (last.end_date + _DAY, last.instance_ids) == (day.start_date, day.instance_ids)
        if last and is_next and (day.end_date - last.start_date).days < max_days:
            ranges[-1] = replace(last, end_date=day.end_date)
        else:
            ranges.append(day)
    return ranges


def _merge(ranges: Sequence[PerformanceQuery], *, rows_per_file: float, max_days: int) -> list[PerformanceQuery]:
    """Merge neighbouring ranges, with all days between them and all instances, where that costs fewer requests."""

    def pages(query: PerformanceQuery) -> int:
        files = ((query.end_date - query.start_date).days + 1) * len(query.instance_ids)
        return max(1, ceil(files * rows_per_file / MAX_PAGE_SIZE))

    merged: list[PerformanceQuery] = []
    for current in ranges:
        while merged:
            last = merged[-1]
            names = tuple(sorted({*last.instance_ids, *current.instance_ids}))
            union = replace(current, start_date=last.start_date, instance_ids=names)
            if (union.end_date - union.start_date).days >= max_days or pages(union) >= pages(last) + pages(current):
                break
            merged.pop()
            current = union
        merged.append(current)
    return merged


def partitions_of(query: PerformanceQuery) -> list[Partition]:
    """Return the partitions that a query covers: each of its days × each of its instances, in order of day."""
    days = days_between(query.start_date, query.end_date)
    return [Partition(day, instance_id) for day in days for instance_id in query.instance_ids]


def query_text(query: PerformanceQuery) -> str:
    """Return a query as a URL query string, as it is recorded in file metadata and in quarantine."""
    return urlencode(query.filter_parameters())


def query_before(query: PerformanceQuery) -> PerformanceQuery:
    """Return the query for as many days before."""
    days = query.end_date - query.start_date + _DAY
    return replace(query, start_date=query.start_date - days, end_date=query.end_date - days)


def split_query(query: PerformanceQuery, *, parts: int = 2) -> list[PerformanceQuery]:
    """Split a query by days, newest first, or a single day by instances; empty for one partition."""
    return split_by_days(query, parts=parts) or [
        replace(query, instance_ids=tuple(part)) for part in _even_parts(query.instance_ids, parts)
    ]


def split_by_days(query: PerformanceQuery, *, parts: int = 2) -> list[PerformanceQuery]:
    """Split a query into at most `parts` ranges of days, newest first; empty for a single day."""
    days = _even_parts(days_between(query.start_date, query.end_date), parts)
    return [replace(query, start_date=part[0], end_date=part[-1]) for part in reversed(days)]


def split_by_content(query: PerformanceQuery, *, parts: int = 2) -> list[PerformanceQuery]:
    """Split a query by platforms, or a query of a single platform by its content types.

    The parts miss posts if the API reference does not list their content type and no filter matches it. Compare the sum
    of the parts' totals with the total of the query; if that is unknown, find the content types that no part selects.
    A query of a single content type has no parts.
    """
    if not query.content_types and len(query.platforms) != 1:
        platforms = _even_parts(query.platforms or tuple(Platform), parts)
        return [replace(query, platforms=tuple(part)) for part in platforms]
    content_types = query.content_types or tuple(name for name in ContentType if platform_of(name) in query.platforms)
    return [replace(query, platforms=(), content_types=tuple(part)) for part in _even_parts(content_types, parts)]


def _even_parts(items: Sequence[_Item], parts: int) -> list[Sequence[_Item]]:
    """Split a sequence into at most `parts` contiguous runs whose lengths differ by at most one; empty for one item."""
    if len(items) < 2:
        return []
    parts = min(parts, len(items))
    edges = [len(items) * index // parts for index in range(parts + 1)]
    return [items[low:high] for low, high in pairwise(edges)]


def number_of_parts(total_items: int | None, *, posts_each: int = MAX_POSTS_PER_PART) -> int:
    """Return the number of parts, at least 2, that have `posts_each` posts each if posts are spread evenly."""
    return 2 if total_items is None else max(2, ceil(total_items / posts_each))


@dataclass(eq=False, slots=True, kw_only=True)
class CircuitBreaker:
    """Which queries of a run are not sent, or sent less often, after what others have returned.

    A failed query is split until its parts are single partitions, so that a failure costs as little as its cause: an
    instance, a day, or both. What fails again and again is then left alone.

    Attributes:
        days, instances: their numbers in the run.
        is_whole: whether each query is for the totals of a day or period, which are not added up from parts.
        is_of_accounts: whether each of these totals is of exactly the instances of its query.
        is_wider: whether each query also asks for the days around its own.
        rows_per_file: mean rows so far; before the first query succeeds, those of stored files.
        has_succeeded: whether any query has, so that the API offers the route.
        stopped_by: the error that ends the run: every query would fail.
        unlisted: instances that the API does not list, each with the error.
        refused: accounts whose own totals the API has refused, each with the error.
        silent: accounts of which results are stored, and the API has none, each with why these stay.
    """

    days: int
    instances: int = 1
    is_whole: bool = False
    is_of_accounts: bool = False
    by_cursor: bool = False
    is_wider: bool = False
    rows_per_file: float | None = None
    has_succeeded: bool = False
    stopped_by: LaterError | None = None
    unlisted: dict[str, LaterError] = field(default_factory=dict)
    refused: dict[str, LaterError] = field(default_factory=dict)
    silent: dict[str, Reject] = field(default_factory=dict)
    _refused: set[Hashable] = field(default_factory=set)  # see `is_refused`
    _failed_in_a_row: int = 0  # of totals
    _rows: int = 0
    _files: int = 0
    # By instance that has failed alone: the days of its results in the order in which they came, and their errors. Of a
    # range, the first day.
    _results: dict[str, list[tuple[date, LaterError | None]]] = field(default_factory=dict)
    _failed_on: dict[date, set[str]] = field(default_factory=dict)  # since a query for the day has succeeded
    _failed: set[Partition] = field(default_factory=set)  # since any query has succeeded
    _exhausted: list[PerformanceQuery] = field(default_factory=list)  # those whose retries did

    def add_success(self, query: PerformanceQuery, *, rows: int = 0) -> None:
        self.has_succeeded, self._failed_in_a_row = True, 0
        if self.is_whole:
            return
        self._rows += rows
        self._files += len(partitions_of(query))
        self.rows_per_file = self._rows / self._files
        self._failed.clear()
        for day in self._failed_on.keys() & {*days_between(query.start_date, query.end_date)}:
            del self._failed_on[day]
        for instance_id in self._results.keys() & query.instance_ids:
            self._results[instance_id].append((query.start_date, None))

    def add_failure(self, query: PerformanceQuery, error: LaterError, *, is_listed: bool = True) -> None:
        """Add a failure; one of instances that the API may not list says nothing about the route."""
        if isinstance(error, CredentialsRejected | ApiVersionChanged):
            self.stopped_by = error
        # The totals of several accounts are refused if those of one are, which says nothing about the route.
        if refusal(error) is not None and is_listed and not (self.is_of_accounts and len(query.instance_ids) > 1):
            self._refused.add(self._refused_by(query))
            if self.is_of_accounts:
                self.refused[query.instance_ids[0]] = error
        if self.is_whole:
            if len(query.instance_ids) > 1 and self.unlisted.keys() & query.instance_ids:
                return  # it is asked again without these
            self._failed_in_a_row += 1
            is_no_api = isinstance(error, UnexpectedResponse) and not self.has_succeeded and self._failed_in_a_row > 1
            if is_no_api or self._failed_in_a_row >= OUTAGE_TOTALS:
                self.stopped_by = error
            return
        if isinstance(error, RetriesExhausted):
            self._exhausted.append(query)
        partitions = partitions_of(query)
        # Posts that change between pages say nothing about others.
        if len(partitions) != 1 or isinstance(error, InconsistentPages | TooManyRows):
            return
        (partition,) = partitions
        instance_id = str(partition.instance_id)
        self._results.setdefault(instance_id, []).append((partition.day, error))
        self._failed_on.setdefault(partition.day, set()).add(instance_id)
        self._failed.add(partition)
        instances, days = {each.instance_id for each in self._failed}, {each.day for each in self._failed}
        if len(instances) >= OUTAGE_INSTANCES and len(days) >= min(RESULTS_IN_A_ROW, self.days):
            self.stopped_by = error

    def is_refused(self, query: PerformanceQuery) -> bool:
        """Return whether the API has refused a query, or one for the same instances, although it lists these."""
        return self._refused_by(query) in self._refused

    @property
    def is_route_refused(self) -> bool:
        """Whether the API refuses the route: for two of the days or periods, or for two instances, or the only one."""
        if self.has_succeeded or (self.is_of_accounts and len(self.refused) < min(2, self.instances)):
            return False
        return len(self._refused) >= (2 if self.is_whole else min(2, self.instances))

    def _refused_by(self, query: PerformanceQuery) -> Hashable:
        return query if self.is_whole else query.instance_ids

    def is_suspect(self, instance_id: str) -> bool:
        """Return whether an instance is queried alone: one of its last three results was a failure."""
        return any(error for _, error in self._results.get(instance_id, ())[-RESULTS_IN_A_ROW:])

    def left_alone(self, instance_id: str) -> tuple[date, LaterError] | None:
        """Return the day before which an instance is not requested, and why.

        Days are fetched from the newest back, and a contract may have begun late: then its three oldest results are
        failures. A post that the API cannot return fails a day or two.
        """
        if instance_id in self.unlisted:
            return date.max, self.unlisted[instance_id]
        oldest = sorted(self._results.get(instance_id, ()), key=itemgetter(0))[:RESULTS_IN_A_ROW]
        failed = [(day, error) for day, error in oldest if error is not None]
        return failed[0] if len(failed) == RESULTS_IN_A_ROW else None

    def is_failing(self, day: date) -> bool:
        """Return whether a day fails for every instance: five have failed, and no query for it has succeeded since."""
        return len(self._failed_on.get(day, ())) >= OUTAGE_INSTANCES

    def max_attempts(self, query: PerformanceQuery) -> int | None:
        """Return how often a query is attempted; None for as often as any.

        Others wait for the parts of a query that has failed, and for an instance that has. An only one may outlast an
        outage.
        """
        is_suspect = self.instances > 1 == len(query.instance_ids) and self.is_suspect(query.instance_ids[0])
        is_part = any(
            failed.start_date <= query.start_date <= query.end_date <= failed.end_date
            and {*query.instance_ids} <= {*failed.instance_ids}
            for failed in self._exhausted
        )
        return MAX_ATTEMPTS_AFTER_FAILURE if is_suspect or is_part else None

    def days_per_query(self, query: PerformanceQuery) -> int:
        """Return how many days of a range are queried at once."""
        if not self.by_cursor or query.date_basis is not DateBasis.POST_DATE:
            return MAX_QUERY_DAYS
        if self.rows_per_file is None:
            return FIRST_DAYS_PER_CURSOR_QUERY
        # The days around those of a wider query are fetched twice, so it has more pages.
        pages = PAGES_PER_CURSOR_QUERY * (3 if self.is_wider else 1)
        rows_per_day = self.rows_per_file * len(query.instance_ids)
        return max(1, int(pages * MAX_PAGE_SIZE / max(rows_per_day, 1)))


def queries_to_ask(
    query: PerformanceQuery, breaker: CircuitBreaker
) -> list[tuple[PerformanceQuery, SliceError | None]]:
    """Return the parts in which to ask a query, in this order, and those that fail without a request, with the error.

    An instance that has failed before is queried alone. A query that is its only part is asked as it is.
    """
    if breaker.stopped_by is not None:
        return [(query, breaker.stopped_by)]
    if breaker.is_whole:
        listed = tuple(name for name in query.instance_ids if name not in breaker.unlisted)
        if breaker.is_of_accounts and len(query.instance_ids) > 1:
            # Totals of fewer accounts would take the place of those of all.
            errors = [error for name in query.instance_ids if (error := _error_of_account(name, breaker)) is not None]
            return [(query, errors[0] if errors else None)]
        if query.instance_ids and not listed:  # without any, the query would ask for all instances
            return [(query, breaker.unlisted[query.instance_ids[0]])]
        return [(replace(query, instance_ids=listed), None)]
    together: list[str] = []
    parts: list[tuple[PerformanceQuery, SliceError | None]] = []
    for instance_id in query.instance_ids:
        alone = replace(query, instance_ids=(instance_id,))
        first_day, error = breaker.left_alone(instance_id) or (query.start_date, None)
        if query.start_date < first_day:
            parts.append((replace(alone, end_date=min(query.end_date, first_day - _DAY)), error))
            if first_day <= query.end_date:
                parts.append((replace(alone, start_date=first_day), None))
        elif breaker.is_suspect(instance_id):
            parts.append((alone, None))
        else:
            together.append(instance_id)
    parts = [*([(replace(query, instance_ids=tuple(together)), None)] if together else []), *parts]
    newest = query.end_date - (breaker.days_per_query(query) - 1) * _DAY
    if parts == [(query, None)] and query.start_date < newest:
        return [(replace(query, start_date=newest), None), (replace(query, end_date=newest - _DAY), None)]
    return parts


def _error_of_account(name: str, breaker: CircuitBreaker) -> SliceError | None:
    """Return why the totals of several accounts with this one cannot be asked for, if so."""
    if (silent := breaker.silent.get(name)) is not None:
        return replace(silent, text=f"of {name!r}: {silent.text}")
    if (error := breaker.refused.get(name)) is not None:
        return QueryRejected(f"the API refuses the totals of {name!r}: {error.reason}", status=403)
    return breaker.unlisted.get(name)


def queries_after(
    query: PerformanceQuery, error: LaterError, breaker: CircuitBreaker, *, posts_each: int = MAX_POSTS_PER_PART
) -> list[PerformanceQuery]:
    """Return the queries to ask in place of one that failed, in this order; none if its partitions fail.

    `posts_each`: of the parts, if a query has too many posts.
    """
    if isinstance(error, TooManyRows) and not breaker.is_whole:
        return split_query(query, parts=number_of_parts(error.total_items, posts_each=posts_each))
    if breaker.unlisted.keys() & query.instance_ids:
        return [query] if len(query.instance_ids) > 1 else []  # `queries_to_ask` leaves them out
    is_day = query.start_date == query.end_date
    if breaker.is_whole or breaker.stopped_by is not None or (is_day and breaker.is_failing(query.start_date)):
        return []
    return split_query(query)
