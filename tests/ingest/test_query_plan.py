"""The planner: every wanted partition exactly once, nothing else, and never more queries than partitions."""

from collections import Counter
from collections.abc import Mapping
from datetime import date, timedelta
from math import ceil
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from later_reporting_dagster.contract import ContentType, DateBasis, Platform, PostPerformanceQuery, platform_of
from later_reporting_dagster.ingest.ingest import POSTS_OF_A_PART
from later_reporting_dagster.ingest.query_plan import (
    MAXIMUM_DAYS,
    MAXIMUM_INSTANCE_CHARACTERS,
    by_content,
    by_days,
    by_instances,
    narrower,
    partitions_of,
    parts_for,
    plan,
)
from later_reporting_dagster.lake import Partition

FIRST = date(2024, 1, 1)

partitions = st.builds(
    lambda offset, instance: Partition(FIRST + timedelta(days=offset), instance),
    st.integers(0, 12),
    st.sampled_from(["a", "b", "c", "ä|,/", "."]),
)
date_bases = st.sampled_from(DateBasis)


def box(days: int, instances: int) -> list[Partition]:
    return [Partition(FIRST + timedelta(days=day), f"i{index}") for day in range(days) for index in range(instances)]


def filled(queries: list[PostPerformanceQuery]) -> Counter[Partition]:
    return Counter(partition for query in queries for partition in partitions_of(query))


@given(st.sets(partitions, max_size=40), date_bases)
def test_each_wanted_partition_is_asked_for_exactly_once_and_no_other(
    wanted: set[Partition], date_basis: DateBasis
) -> None:
    queries = plan(wanted, date_basis=date_basis)
    assert filled(queries) == Counter(wanted)
    assert len(queries) <= len(wanted)
    assert [query.start_date for query in queries] == sorted(query.start_date for query in queries)


@given(st.sets(partitions, min_size=1, max_size=40))
def test_by_performance_date_each_day_is_one_query(wanted: set[Partition]) -> None:
    queries = plan(wanted, date_basis=DateBasis.PERFORMANCE_DATE)
    assert all(query.start_date == query.end_date for query in queries)
    assert len(queries) == len({partition.day for partition in wanted})


def test_by_post_date_a_box_of_days_and_instances_is_one_query() -> None:
    (query,) = plan(box(365, 8), date_basis=DateBasis.POST_DATE)
    assert (query.start_date, query.end_date) == (FIRST, FIRST + timedelta(days=364))
    assert query.instance_ids == tuple(f"i{index}" for index in range(8))


def pages(queries: list[PostPerformanceQuery], rows: Mapping[Partition, int]) -> int:
    return sum(max(1, ceil(sum(rows[partition] for partition in partitions_of(query)) / 100)) for query in queries)


@given(st.sets(partitions, min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_with_all_rows_known_a_plan_never_costs_more_and_covers_all(wanted: set[Partition], random: Random) -> None:
    names = sorted({str(partition.instance_id) for partition in wanted})
    rows = {
        Partition(FIRST + timedelta(days=day), name): random.choice((0, 20, 60, 250))
        for day in range(13)
        for name in names
    }
    narrow = plan(wanted, date_basis=DateBasis.POST_DATE)
    wide = plan(wanted, date_basis=DateBasis.POST_DATE, known_rows=rows)
    assert pages(wide, rows) <= pages(narrow, rows)
    assert len(wide) <= len(narrow)
    covered = filled(wide)
    assert all(covered[partition] == 1 for partition in wanted)
    assert max(covered.values()) == 1


def test_scattered_days_are_one_query_where_the_days_between_have_few_posts() -> None:
    days = (0, 2, 5)
    wanted = [Partition(FIRST + timedelta(days=day), "a") for day in days]
    quiet = {Partition(FIRST + timedelta(days=day), "a"): 10 for day in range(6)}
    (query,) = plan(wanted, date_basis=DateBasis.POST_DATE, known_rows=quiet)
    assert (query.start_date, query.end_date) == (FIRST, FIRST + timedelta(days=5))
    busy = quiet | {Partition(FIRST + timedelta(days=day), "a"): 250 for day in (1, 3, 4)}
    assert len(plan(wanted, date_basis=DateBasis.POST_DATE, known_rows=busy)) == 3


def test_two_quiet_days_with_one_between_them_are_one_query() -> None:
    wanted = [Partition(FIRST + timedelta(days=day), "a") for day in (0, 2)]
    quiet = {Partition(FIRST + timedelta(days=day), "a"): 10 for day in range(3)}
    (query,) = plan(wanted, date_basis=DateBasis.POST_DATE, known_rows=quiet)
    assert (query.start_date, query.end_date) == (FIRST, FIRST + timedelta(days=2))
    # As many requests as two queries would cost: then nothing is asked for that is not wanted.
    dear = quiet | {Partition(FIRST + timedelta(days=1), "a"): 150}
    assert len(plan(wanted, date_basis=DateBasis.POST_DATE, known_rows=dear)) == 2


def test_a_day_of_which_nothing_is_known_is_never_asked_for_in_passing() -> None:
    wanted = [Partition(FIRST + timedelta(days=day), "a") for day in (0, 2)]
    known = dict.fromkeys(wanted, 10)
    assert len(plan(wanted, date_basis=DateBasis.POST_DATE, known_rows=known)) == 2
    assert len(plan(wanted, date_basis=DateBasis.PERFORMANCE_DATE, known_rows=known)) == 2


def test_a_range_beyond_two_years_is_cut() -> None:
    queries = plan(box(MAXIMUM_DAYS + 1, 1), date_basis=DateBasis.POST_DATE)
    assert [len(partitions_of(query)) for query in queries] == [MAXIMUM_DAYS, 1]


def test_so_many_instances_that_the_url_would_be_long_are_asked_for_in_groups() -> None:
    wanted = [Partition(FIRST, f"{index:0>100}") for index in range(200)]
    queries = plan(wanted, date_basis=DateBasis.PERFORMANCE_DATE)
    assert len(queries) > 1
    assert filled(queries) == Counter(wanted)
    lengths = [sum(len(f"&instanceIds={name}") for name in query.instance_ids) for query in queries]
    assert max(lengths) <= MAXIMUM_INSTANCE_CHARACTERS < lengths[0] + len(f"&instanceIds={0:0>100}")


def test_the_length_of_a_url_is_that_of_its_encoding() -> None:
    queries = plan([Partition(FIRST, f"{'é' * 30}{index:0>2}") for index in range(60)], date_basis=DateBasis.POST_DATE)
    assert len(queries) == ceil(60 * (len("&instanceIds=") + 6 * 30 + 2) / MAXIMUM_INSTANCE_CHARACTERS)


def test_a_partition_without_an_instance_is_refused() -> None:
    with pytest.raises(ValueError, match="^2024-01-01 names no instance: posts are fetched per instance$"):
        plan([Partition(FIRST)], date_basis=DateBasis.POST_DATE)


@given(st.integers(1, 400), st.integers(1, 9), st.integers(0, 1_000_000), date_bases)
def test_narrower_queries_fill_the_same_partitions(
    days: int, instances: int, total_items: int, date_basis: DateBasis
) -> None:
    for query in plan(box(min(days, 30), instances), date_basis=date_basis):
        parts = narrower(query, parts=parts_for(total_items, posts_each=POSTS_OF_A_PART))
        if len(partitions_of(query)) == 1:
            assert parts == []
        else:
            assert len(parts) >= 2
            assert filled(parts) == filled([query])


def test_a_large_query_is_split_into_as_many_parts_as_its_posts_need() -> None:
    (query,) = plan(box(365, 8), date_basis=DateBasis.POST_DATE)
    parts = narrower(query, parts=parts_for(130_000, posts_each=10_000))
    assert len(parts) == 13
    assert {len(part.instance_ids) for part in parts} == {8}


def test_a_day_is_split_by_instances_into_as_many_parts_as_are_due_and_in_two_otherwise() -> None:
    (day,) = plan(box(1, 8), date_basis=DateBasis.POST_DATE)
    (days,) = plan(box(8, 1), date_basis=DateBasis.POST_DATE)
    (partition,) = plan(box(1, 1), date_basis=DateBasis.POST_DATE)
    for query in (day, days):
        assert [len(partitions_of(part)) for part in narrower(query)] == [4, 4]
        assert [len(partitions_of(part)) for part in narrower(query, parts=4)] == [2, 2, 2, 2]
    assert len(by_instances(day)) == len(by_days(days)) == len(by_content(partition)) == 2


def test_by_instances_keeps_the_days_together() -> None:
    (query,) = plan(box(10, 3), date_basis=DateBasis.POST_DATE)
    parts = by_instances(query)
    assert filled(parts) == filled([query])
    assert {(part.start_date, part.end_date) for part in parts} == {(query.start_date, query.end_date)}
    assert by_instances(parts[0]) == []


def test_one_partition_is_split_by_platforms_and_these_by_content_types() -> None:
    (query,) = plan(box(1, 1), date_basis=DateBasis.PERFORMANCE_DATE)
    asked = []
    pending = [query]
    while pending:
        part = pending.pop()
        parts = by_content(part)
        pending += parts
        if not parts:
            asked.append((part.platforms, part.content_types))
    of_platform = {name: [each for each in ContentType if platform_of(each) is name] for name in Platform}
    assert Counter(asked) == Counter(
        [((name,), ()) for name, types in of_platform.items() if len(types) < 2]
        + [((), (each,)) for types in of_platform.values() if len(types) > 1 for each in types]
    )
