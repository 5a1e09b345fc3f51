"""The plan of a fetch, and the results collected by day, without a server."""

from datetime import date, timedelta

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from later_reporting_dagster.ingest.daily_fetch import DayResult, DayResults, FetchPlan, day_version, plan_fetch
from later_reporting_dagster.ingest.partition_writer import FailedPartition, WrittenPartition
from later_reporting_dagster.lake import POSTS_SCHEMA, LakeUnavailable, Partition, WriteResult

DAYS = [date(2024, 3, 1) + timedelta(days=offset) for offset in range(4)]
INSTANCES = ["a", "b", "c"]

pairs = st.builds(Partition, st.sampled_from(DAYS), st.sampled_from(INSTANCES))


def written(partition: Partition, *, impressions: list[int] | None = None) -> WrittenPartition:
    posts = POSTS_SCHEMA.empty_table()
    if impressions:
        columns = {field.name: pa.nulls(len(impressions), field.type) for field in POSTS_SCHEMA}
        columns["impressions"] = pa.array(impressions, pa.int64())
        posts = pa.table(columns, schema=POSTS_SCHEMA)
    file = WriteResult("url", posts.num_rows, 1, "hash", changed=True)
    return WrittenPartition(partition=partition, file=file, rows=posts, bad_rows=0)


def failed(partition: Partition) -> FailedPartition:
    return FailedPartition(partition=partition, error=LakeUnavailable("no"))


@given(st.sets(pairs))
def test_plan_fetch_returns_all_pairs_or_only_those_without_a_file(present: set[Partition]) -> None:
    every = {Partition(day, name) for day in DAYS for name in INSTANCES}
    assert plan_fetch(DAYS, INSTANCES, present=present, only_missing=False).pairs == every
    assert plan_fetch(DAYS, INSTANCES, present=present, only_missing=True).pairs == every - present
    some = {Partition(DAYS[0], "a"), Partition(DAYS[3], "c"), Partition(DAYS[3], "unknown")}
    plan = plan_fetch(DAYS, INSTANCES, present=present, only_missing=True, only_pairs=some)
    assert plan.pairs == (some & every) - present


@given(st.permutations([Partition(day, name) for day in DAYS for name in INSTANCES]), st.sets(pairs))
def test_day_results_completes_each_day_once_with_its_last_result(
    order: list[Partition], failing: set[Partition]
) -> None:
    results = DayResults(plan_fetch(DAYS, INSTANCES, present=(), only_missing=False))
    assert list(results.days_without_pairs()) == []
    done: list[DayResult] = []
    for count, partition in enumerate(order, start=1):
        result = results.add(failed(partition) if partition in failing else written(partition))
        if result is not None:
            assert {each for each in order[:count] if each.day == result.day} == {
                Partition(result.day, name) for name in INSTANCES
            }
            done.append(result)
    assert sorted(result.day for result in done) == DAYS
    for result in done:
        assert result.failed.keys() == {each.instance_id for each in failing if each.day == result.day}
        assert result.written.keys() == set(INSTANCES) - result.failed.keys()


def test_day_results_completes_a_day_without_missing_files_at_once() -> None:
    present = [Partition(DAYS[0], name) for name in INSTANCES]
    plan: FetchPlan = plan_fetch(DAYS[:2], INSTANCES, present=present, only_missing=True)
    (complete,) = DayResults(plan).days_without_pairs()
    assert (complete.day, complete.written, complete.failed) == (DAYS[0], {}, {})


def test_preview_has_the_posts_with_the_most_impressions_of_all_instances() -> None:
    result = DayResult(DAYS[0], set(INSTANCES))
    for name, impressions in zip(INSTANCES, ([1, 9, 2], [], [5, 7, 8, 3]), strict=True):
        result.add(written(Partition(DAYS[0], name), impressions=impressions))
    assert result.preview is not None
    assert result.preview["impressions"].to_pylist() == [9, 8, 7, 5, 3]
    assert result.rows == 7


@given(st.dictionaries(st.text(max_size=4), st.text(max_size=4), min_size=1, max_size=5), st.data())
def test_day_version_depends_on_content_and_instances(hashes: dict[str, str], data: st.DataObject) -> None:
    version = day_version(hashes)
    assert day_version(dict(reversed(hashes.items()))) == version
    name = data.draw(st.sampled_from(sorted(hashes)))
    assert day_version({**hashes, name: hashes[name] + "x"}) != version
    assert day_version({each: hashes[each] for each in hashes if each != name}) != version


@pytest.mark.parametrize(
    ("one", "other"), [({"a": "b", "c": "d"}, {"a": "b c d"}), ({"a": "x"}, {"b": "x"}), ({"a\nb": "x"}, {"a": "x"})]
)
def test_day_version_distinguishes_instances_from_content(one: dict[str, str], other: dict[str, str]) -> None:
    assert day_version(one) != day_version(other)
