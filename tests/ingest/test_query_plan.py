"""The query plan covers every partition exactly once, and costs as few requests as possible."""

from collections import Counter
from dataclasses import replace
from datetime import date, timedelta
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from later_reporting_dagster.contract import DateBasis, PerformanceQuery
from later_reporting_dagster.contract.query import MAX_INSTANCE_CHARACTERS
from later_reporting_dagster.ingest.query_plan import (
    MAX_DAYS,
    MAX_POSTS_PER_PART,
    days_per_cursor_query,
    number_of_parts,
    partitions_of,
    plan_queries,
    split_after,
    split_by_content,
    split_by_days,
    split_by_instances,
    split_query,
)
from later_reporting_dagster.lake import Partition

FIRST = date(2024, 1, 1)

partitions = st.builds(
    lambda offset, instance: Partition(FIRST + timedelta(days=offset), instance),
    st.integers(0, 12),
    st.sampled_from(["a", "b", "c", "ä|,/", "."]),
)
date_bases = st.sampled_from(DateBasis)


def partition_range(days: int, instances: int) -> list[Partition]:
    """Return the partitions of contiguous days from `FIRST` × instances i0, i1, …."""
    return [Partition(FIRST + timedelta(days=day), f"i{index}") for day in range(days) for index in range(instances)]


def covered(queries: list[PerformanceQuery]) -> Counter[Partition]:
    return Counter(partition for query in queries for partition in partitions_of(query))


@given(st.sets(partitions, max_size=40), date_bases)
def test_plan_queries_covers_each_partition_exactly_once_and_no_other(
    wanted: set[Partition], date_basis: DateBasis
) -> None:
    queries = plan_queries(wanted, date_basis=date_basis)
    assert covered(queries) == Counter(wanted)
    assert len(queries) <= len(wanted)
    assert [query.start_date for query in queries] == sorted(query.start_date for query in queries)


@given(st.sets(partitions, min_size=1, max_size=40), st.sampled_from([0, 0.5, 20, 60, 250]))
def test_plan_queries_with_rows_per_file_never_costs_more_requests(
    wanted: set[Partition], rows_per_file: float
) -> None:
    def page_count(queries: list[PerformanceQuery]) -> int:
        return sum(max(1, ceil(len(partitions_of(query)) * rows_per_file / 100)) for query in queries)

    narrow = plan_queries(wanted, date_basis=DateBasis.POST_DATE)
    wide = plan_queries(wanted, date_basis=DateBasis.POST_DATE, rows_per_file=rows_per_file)
    assert page_count(wide) <= page_count(narrow)
    assert len(wide) <= len(narrow)
    counts = covered(wide)
    assert all(counts[partition] == 1 for partition in wanted)
    assert max(counts.values()) == 1


def test_plan_queries_merges_two_days_only_if_that_saves_a_request() -> None:
    wanted = [Partition(FIRST + timedelta(days=day), "a") for day in (0, 2)]
    (query,) = plan_queries(wanted, date_basis=DateBasis.POST_DATE, rows_per_file=33.3)
    assert (query.start_date, query.end_date) == (FIRST, FIRST + timedelta(days=2))
    # The merged query would cost as many requests as the two separate ones.
    assert len(plan_queries(wanted, date_basis=DateBasis.POST_DATE, rows_per_file=33.4)) == 2
    # Days by performance cannot be merged.
    assert len(plan_queries(wanted, date_basis=DateBasis.PERFORMANCE_DATE, rows_per_file=10)) == 2


def test_plan_queries_splits_a_range_of_more_than_two_years() -> None:
    queries = plan_queries(partition_range(MAX_DAYS + 1, 1), date_basis=DateBasis.POST_DATE)
    assert [len(partitions_of(query)) for query in queries] == [MAX_DAYS, 1]


def test_plan_queries_groups_instances_by_the_length_of_the_url() -> None:
    wanted = [Partition(FIRST, f"{'é' * 15}{index:0>10}") for index in range(200)]
    queries = plan_queries(wanted, date_basis=DateBasis.PERFORMANCE_DATE)
    assert len(queries) > 1
    assert covered(queries) == Counter(wanted)
    length = len("&instanceIds=") + len("%C3%A9") * 15 + 10
    lengths = [length * len(query.instance_ids) for query in queries]
    assert max(lengths) <= MAX_INSTANCE_CHARACTERS < lengths[0] + length


@given(st.integers(1, 400), st.integers(1, 9), st.integers(0, 1_000_000), date_bases)
def test_split_query_covers_the_same_partitions(
    days: int, instances: int, total_items: int, date_basis: DateBasis
) -> None:
    for query in plan_queries(partition_range(min(days, 30), instances), date_basis=date_basis):
        parts = split_query(query, parts=number_of_parts(total_items, posts_each=MAX_POSTS_PER_PART))
        if len(partitions_of(query)) == 1:
            assert parts == []
        else:
            assert len(parts) >= 2
            assert covered(parts) == covered([query])


def test_split_query_returns_as_many_parts_as_requested_and_two_by_default() -> None:
    (day,) = plan_queries(partition_range(1, 8), date_basis=DateBasis.POST_DATE)
    (days,) = plan_queries(partition_range(8, 1), date_basis=DateBasis.POST_DATE)
    (partition,) = plan_queries(partition_range(1, 1), date_basis=DateBasis.POST_DATE)
    for query in (day, days):
        assert [len(partitions_of(part)) for part in split_query(query)] == [4, 4]
        assert [len(partitions_of(part)) for part in split_query(query, parts=4)] == [2, 2, 2, 2]
    assert len(split_by_instances(day)) == len(split_by_days(days)) == len(split_by_content(partition)) == 2


JULY = PerformanceQuery(start_date=date(2024, 7, 1), end_date=date(2024, 7, 31), instance_ids=("a",))


@given(st.integers(0, 700), st.integers(1, 800), st.sampled_from(list(DateBasis)))
def test_split_after_covers_the_whole_query(length: int, days: int, basis: DateBasis) -> None:
    query = replace(JULY, end_date=JULY.start_date + timedelta(days=length), date_basis=basis)
    first, rest = split_after(query, days=days)
    parts = [first] if rest is None else [first, rest]
    assert [each for part in parts for each in partitions_of(part)] == partitions_of(query)
    if basis is DateBasis.PERFORMANCE_DATE:
        assert rest is None
    elif rest is not None:
        assert len(partitions_of(first)) == days


@pytest.mark.parametrize(("rows_per_day", "days"), [(None, 7), (0, 2500), (160, 15), (2500, 1), (10**6, 1)])
def test_cursor_query_covers_days_of_some_25_pages(rows_per_day: float | None, days: int) -> None:
    assert days_per_cursor_query(rows_per_day=rows_per_day) == days
