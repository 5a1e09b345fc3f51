"""The query plan covers every partition exactly once, and costs as few requests as possible."""

from collections import Counter
from dataclasses import replace
from datetime import date, timedelta
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from later_reporting_dagster.contract import DateBasis, PerformanceQuery
from later_reporting_dagster.contract.query import MAX_INSTANCE_CHARACTERS
from later_reporting_dagster.ingest.query_plan import (
    MAX_ATTEMPTS_AFTER_FAILURE,
    MAX_POSTS_PER_PART,
    RESULTS_IN_A_ROW,
    CircuitBreaker,
    number_of_parts,
    partitions_of,
    plan_queries,
    queries_after,
    queries_to_ask,
    split_by_content,
    split_query,
)
from later_reporting_dagster.lake import Partition
from later_reporting_dagster.lake.tables import MAX_QUERY_DAYS, POST_METRICS_DAILY, POSTS_PUBLISHED, RawTable

FIRST = date(2024, 1, 1)

partitions = st.builds(
    lambda offset, instance: Partition(FIRST + timedelta(days=offset), instance),
    st.integers(0, 12),
    st.sampled_from(["a", "b", "c", "ä|,/", "."]),
)
# One whose rows say their day, but not their instance.
DAYS_OF_INSTANCES = replace(POST_METRICS_DAILY, days_per_query=5, one_instance_per_query=True)
tables = st.sampled_from([POSTS_PUBLISHED, POST_METRICS_DAILY, DAYS_OF_INSTANCES])


def partition_range(days: int, instances: int) -> list[Partition]:
    """Return the partitions of contiguous days from `FIRST` × instances i0, i1, …."""
    return [Partition(FIRST + timedelta(days=day), f"i{index}") for day in range(days) for index in range(instances)]


def covered(queries: list[PerformanceQuery]) -> Counter[Partition]:
    return Counter(partition for query in queries for partition in partitions_of(query))


@given(st.sets(partitions, max_size=40), tables)
def test_plan_queries_covers_each_partition_exactly_once_and_no_other(wanted: set[Partition], table: RawTable) -> None:
    queries = plan_queries(wanted, table=table)
    assert covered(queries) == Counter(wanted)
    assert len(queries) <= len(wanted)
    assert [query.start_date for query in queries] == sorted(query.start_date for query in queries)


@given(st.sets(partitions, min_size=1, max_size=40), st.sampled_from([0, 0.5, 20, 60, 250]))
def test_plan_queries_with_rows_per_file_never_costs_more_requests(
    wanted: set[Partition], rows_per_file: float
) -> None:
    def page_count(queries: list[PerformanceQuery]) -> int:
        return sum(max(1, ceil(len(partitions_of(query)) * rows_per_file / 100)) for query in queries)

    narrow = plan_queries(wanted, table=POSTS_PUBLISHED)
    wide = plan_queries(wanted, table=POSTS_PUBLISHED, rows_per_file=rows_per_file)
    assert page_count(wide) <= page_count(narrow)
    assert len(wide) <= len(narrow)
    counts = covered(wide)
    assert all(counts[partition] == 1 for partition in wanted)
    assert max(counts.values()) == 1


def test_plan_queries_merges_two_days_only_if_that_saves_a_request() -> None:
    wanted = [Partition(FIRST + timedelta(days=day), "a") for day in (0, 2)]
    (query,) = plan_queries(wanted, table=POSTS_PUBLISHED, rows_per_file=33.3)
    assert (query.start_date, query.end_date) == (FIRST, FIRST + timedelta(days=2))
    # The merged query would cost as many requests as the two separate ones.
    assert len(plan_queries(wanted, table=POSTS_PUBLISHED, rows_per_file=33.4)) == 2
    # Days by performance cannot be merged.
    assert len(plan_queries(wanted, table=POST_METRICS_DAILY, rows_per_file=10)) == 2


def test_plan_queries_splits_a_range_of_more_than_two_years() -> None:
    queries = plan_queries(partition_range(MAX_QUERY_DAYS + 1, 1), table=POSTS_PUBLISHED)
    assert [len(partitions_of(query)) for query in queries] == [MAX_QUERY_DAYS, 1]


def test_plan_queries_asks_for_one_instance_at_a_time_if_no_row_says_its_own() -> None:
    queries = plan_queries(partition_range(11, 2), table=DAYS_OF_INSTANCES)
    assert {query.instance_ids for query in queries} == {("i0",), ("i1",)}
    assert Counter(len(partitions_of(query)) for query in queries) == {5: 4, 1: 2}


def test_plan_queries_groups_instances_by_the_length_of_the_url() -> None:
    wanted = [Partition(FIRST, f"{'é' * 15}{index:0>10}") for index in range(200)]
    queries = plan_queries(wanted, table=POST_METRICS_DAILY)
    assert len(queries) > 1
    assert covered(queries) == Counter(wanted)
    length = len("&instanceIds=") + len("%C3%A9") * 15 + 10
    lengths = [length * len(query.instance_ids) for query in queries]
    assert max(lengths) <= MAX_INSTANCE_CHARACTERS < lengths[0] + length


@given(st.integers(1, 400), st.integers(1, 9), st.integers(0, 1_000_000), tables)
def test_split_query_covers_the_same_partitions(days: int, instances: int, total_items: int, table: RawTable) -> None:
    for query in plan_queries(partition_range(min(days, 30), instances), table=table):
        parts = split_query(query, parts=number_of_parts(total_items, posts_each=MAX_POSTS_PER_PART))
        if len(partitions_of(query)) == 1:
            assert parts == []
        else:
            assert len(parts) >= 2
            assert covered(parts) == covered([query])


def test_split_query_returns_as_many_parts_as_requested_and_two_by_default() -> None:
    (day,) = plan_queries(partition_range(1, 8), table=POSTS_PUBLISHED)
    (days,) = plan_queries(partition_range(8, 1), table=POSTS_PUBLISHED)
    (partition,) = plan_queries(partition_range(1, 1), table=POSTS_PUBLISHED)
    for query in (day, days):
        assert [len(partitions_of(part)) for part in split_query(query)] == [4, 4]
        assert [len(partitions_of(part)) for part in split_query(query, parts=4)] == [2, 2, 2, 2]
    assert len(split_by_content(partition)) == 2


@pytest.mark.parametrize(
    ("rows_per_file", "by_cursor", "days"),
    [(None, True, 7), (0, True, 31), (80, True, 15), (1250, True, 1), (10**6, True, 1), (80, False, 31)],
)
@pytest.mark.parametrize("basis", DateBasis)
def test_a_cursor_query_by_post_date_covers_days_of_some_25_pages_the_newest_ones_first(
    rows_per_file: float | None, by_cursor: bool, days: int, basis: DateBasis
) -> None:
    breaker = CircuitBreaker(days=31, instances=2, by_cursor=by_cursor, rows_per_file=rows_per_file)
    queue, asked = [march("1-31", "ab", basis)], []
    while queue:
        parts = queries_to_ask(queue[0], breaker)
        asked += queue[:1] if parts == [(queue[0], None)] else []
        queue = [part for part, _ in parts if part != queue[0]] + queue[1:]
    lengths = [len(partitions_of(query)) // 2 for query in asked]
    days = days if basis is DateBasis.POST_DATE else 31
    assert lengths == [days] * (31 // days) + [31 % days] * bool(31 % days)
    assert covered(asked[::-1]) == covered([march("1-31", "ab")])


# What is asked after failures

REFUSED, FAILED = QueryRejected("HTTP 400"), RetriesExhausted("HTTP 503")
Asked = tuple[str, str]  # the days of March and the instances, such as ("1-6", "abc")


def march(days: str, instances: str, basis: DateBasis = DateBasis.POST_DATE) -> PerformanceQuery:
    first, _, last = days.partition("-")
    start, end = (date(2024, 3, int(day)) for day in (first, last or first))
    return PerformanceQuery(start_date=start, end_date=end, instance_ids=tuple(instances), date_basis=basis)


def shown(query: PerformanceQuery) -> Asked:
    first, last = query.start_date.day, query.end_date.day
    return f"{first}-{last}" if last > first else f"{first}", "".join(query.instance_ids)


def history_of(*results: tuple[str, str, LaterError | None], days: int = 31) -> CircuitBreaker:
    breaker = CircuitBreaker(days=days)
    for when, instances, error in results:
        if error is None:
            breaker.add_success(march(when, instances))
        else:
            breaker.add_failure(march(when, instances), error)
    return breaker


def test_what_waits_for_a_query_that_has_failed_gets_fewer_attempts() -> None:
    breaker = CircuitBreaker(days=6, instances=3)
    breaker.add_failure(march("3-6", "abc"), FAILED)
    breaker.add_failure(march("9", "b"), REFUSED)
    attempts = {days: breaker.max_attempts(march(days, "ab")) for days in ("1-2", "2-4", "3-6", "4")}
    assert attempts == {"1-2": None, "2-4": None, "3-6": MAX_ATTEMPTS_AFTER_FAILURE, "4": MAX_ATTEMPTS_AFTER_FAILURE}
    assert [breaker.max_attempts(march("1", name)) for name in "abc"] == [None, MAX_ATTEMPTS_AFTER_FAILURE, None]
    # An only instance may outlast an outage.
    assert history_of(("9", "b", FAILED)).max_attempts(march("1", "b")) is None


NO_PAGE, NOT_FOUND = UnexpectedResponse("no page"), QueryRejected("HTTP 404", status=404)


@pytest.mark.parametrize(
    ("errors", "stopped_by", "is_route_refused"),
    [
        ([REFUSED] * 4, None, False),
        ([REFUSED] * 5, REFUSED, False),
        ([REFUSED, FAILED, None, FAILED, FAILED, FAILED, FAILED], None, False),
        ([NO_PAGE], None, False),
        ([NO_PAGE, NO_PAGE], NO_PAGE, False),
        ([None, NO_PAGE, NO_PAGE], None, False),
        ([NOT_FOUND], None, False),
        ([NOT_FOUND, FAILED, NOT_FOUND], None, True),
        ([NOT_FOUND, None, NOT_FOUND], None, False),
    ],
)
def test_totals_that_fail_are_not_split_and_end_the_run_by_themselves(
    errors: list[LaterError | None], stopped_by: LaterError | None, is_route_refused: bool
) -> None:
    breaker = CircuitBreaker(days=31, is_whole=True)
    for day, error in enumerate(errors, 1):
        query = march(f"{day}", "ab")
        if error is None:
            breaker.add_success(query)
        else:
            breaker.add_failure(query, error)
            assert queries_after(query, error, breaker) == []
    assert (breaker.stopped_by, breaker.is_route_refused) == (stopped_by, is_route_refused)
    assert queries_to_ask(march("9", "ab"), breaker) == [(march("9", "ab"), stopped_by)]


def test_totals_are_asked_without_the_instances_that_are_not_listed() -> None:
    error = QueryRejected("b")
    breaker = CircuitBreaker(days=6, is_whole=True, unlisted={"b": error})
    assert queries_after(march("1-6", "ab"), error, breaker) == [march("1-6", "ab")]
    assert queries_to_ask(march("1-6", "ab"), breaker) == [(march("1-6", "a"), None)]
    # Without an instance, the query would ask for all.
    assert queries_to_ask(march("1-6", "b"), breaker) == [(march("1-6", "b"), error)]


def all_fail(day: str, instances: str) -> list[tuple[str, str, LaterError | None]]:
    return [(day, name, REFUSED) for name in instances]


@pytest.mark.parametrize(
    ("query", "error", "history", "asked"),
    [
        # By days first, the newest ones first; then by instances.
        (("1-6", "ab"), REFUSED, (), [("4-6", "ab"), ("1-3", "ab")]),
        (("1-3", "ab"), FAILED, (), [("2-3", "ab"), ("1", "ab")]),
        (("1-2", "a"), InconsistentPages("others"), (), [("2", "a"), ("1", "a")]),
        (("1-2", "a"), UnexpectedResponse("no page"), (), [("2", "a"), ("1", "a")]),
        (("4", "abcd"), REFUSED, (), [("4", "ab"), ("4", "cd")]),
        (("4", "a"), REFUSED, (), []),
        (("1-9", "a"), TooManyRows("", total_items=90), (), [("7-9", "a"), ("4-6", "a"), ("1-3", "a")]),
        # Every query would fail.
        (("1-6", "ab"), CredentialsRejected("no"), [("1-6", "ab", CredentialsRejected("no"))], []),
        (("1-6", "ab"), ApiVersionChanged("1", "2"), [("1-6", "ab", ApiVersionChanged("1", "2"))], []),
        # Five instances have failed on the day: the others are asked together, unless one has succeeded since.
        (("4", "fghi"), REFUSED, all_fail("4", "abcd"), [("4", "fg"), ("4", "hi")]),
        (("4", "fghi"), REFUSED, all_fail("4", "abcde"), []),
        (("4", "fghi"), REFUSED, [*all_fail("4", "abcde"), ("4", "j", None)], [("4", "fg"), ("4", "hi")]),
        (("3", "fghi"), REFUSED, all_fail("4", "abcde"), [("3", "fg"), ("3", "hi")]),
    ],
)
def test_queries_after_a_failure(
    query: Asked, error: LaterError, history: list[tuple[str, str, LaterError | None]], asked: list[Asked]
) -> None:
    found = queries_after(march(*query), error, history_of(*history), posts_each=30)
    assert [*map(shown, found)] == asked


def test_a_query_is_asked_again_without_the_instances_that_are_not_listed() -> None:
    breaker = CircuitBreaker(days=6, unlisted={"b": QueryRejected("b")})
    assert queries_after(march("1-6", "abc"), QueryRejected(""), breaker) == [march("1-6", "abc")]
    parts = [(shown(part), error is None) for part, error in queries_to_ask(march("1-6", "abc"), breaker)]
    assert parts == [(("1-6", "ac"), True), (("1-6", "b"), False)]


@pytest.mark.parametrize(
    ("history", "asked", "failed"),
    [
        ([], [("1-6", "abc")], []),
        # An instance that has failed is asked alone, until three of its queries have succeeded in a row.
        ([("9", "b", REFUSED)], [("1-6", "ac"), ("1-6", "b")], []),
        ([("9", "b", FAILED), ("8", "b", None), ("7", "b", None)], [("1-6", "ac"), ("1-6", "b")], []),
        ([("9", "b", FAILED), ("8", "b", None), ("7", "b", None), ("7", "ab", None)], [("1-6", "abc")], []),
        ([("8-9", "b", REFUSED), ("7", "bc", REFUSED)], [("1-6", "abc")], []),  # the cause may be any of these
        ([("9", "b", InconsistentPages(""))], [("1-6", "abc")], []),
        # Of one whose three oldest results are failures, the older days are left alone.
        ([(day, "b", REFUSED) for day in ("9", "8", "7")], [("1-6", "ac")], [("1-6", "b")]),
        ([(day, "b", FAILED) for day in ("6", "5", "3")], [("1-6", "ac"), ("3-6", "b")], [("1-2", "b")]),
        ([*((day, "b", REFUSED) for day in ("9", "8", "7")), ("6", "b", None)], [("1-6", "ac"), ("1-6", "b")], []),
        # The run ends once five instances have failed on three days, without a success in between.
        ([*all_fail("9", "abcde"), *all_fail("8", "ab")], [("1-6", "a"), ("1-6", "b"), ("1-6", "c")], []),
        ([*all_fail("9", "abcde"), *all_fail("8", "a"), *all_fail("7", "a")], [], [("1-6", "abc")]),
        (
            [*all_fail("9", "bdefg"), ("9", "h", None), *all_fail("8", "b"), *all_fail("7", "b")],
            [("1-6", "ac")],
            [("1-6", "b")],
        ),
    ],
)
def test_queries_to_ask(
    history: list[tuple[str, str, LaterError | None]], asked: list[Asked], failed: list[Asked]
) -> None:
    parts = queries_to_ask(march("1-6", "abc"), history_of(*history))
    assert [shown(part) for part, error in parts if error is None] == asked
    assert [shown(part) for part, error in parts if error is not None] == failed


def test_a_failure_of_a_query_for_all_instances_is_of_none() -> None:
    assert queries_to_ask(march("1-6", "a"), history_of(("4", "", REFUSED))) == [(march("1-6", "a"), None)]


def test_a_run_of_one_day_ends_once_five_instances_have_failed() -> None:
    assert history_of(*all_fail("4", "abcd"), days=1).stopped_by is None
    assert history_of(*all_fail("4", "abcde"), days=1).stopped_by is REFUSED


@given(
    days=st.integers(1, 400),
    first_day=st.integers(0, 400),
    instances=st.integers(1, 6),
    refused=st.sets(st.sampled_from("abcdef")),
    table=tables,
)
def test_a_contract_that_began_late_costs_the_days_before_it_and_few_queries(
    days: int, first_day: int, instances: int, refused: set[str], table: RawTable
) -> None:
    names = "abcdef"[:instances]
    wanted = {Partition(FIRST + timedelta(days=day), name) for day in range(days) for name in names}
    begins = FIRST + timedelta(days=first_day)
    breaker, stored, failed, refusals = CircuitBreaker(days=days), set[Partition](), set[Partition](), 0
    queue = plan_queries(wanted, table=table)
    while queue:
        query = queue.pop()
        parts = queries_to_ask(query, breaker)
        failed.update(each for part, error in parts if error for each in partitions_of(part))
        if parts != [(query, None)]:
            queue += [part for part, error in reversed(parts) if error is None]
        elif query.start_date < begins and refused.intersection(query.instance_ids):
            refusals += 1
            breaker.add_failure(query, REFUSED)
            queue += reversed(after := queries_after(query, REFUSED, breaker))
            failed.update(() if after else partitions_of(query))
        else:
            breaker.add_success(query)
            stored.update(partitions_of(query))
    before = {each for each in wanted if each.day < begins and each.instance_id in refused}
    assert (stored, failed) == (wanted - before, before)
    assert refusals <= 2 * (days.bit_length() + 1) + 2 * len(refused) * (RESULTS_IN_A_ROW + instances.bit_length() + 2)
