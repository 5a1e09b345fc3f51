"""The preview and the data version of a fetched day."""

from datetime import date

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from later_reporting_dagster.defs.daily_fetch import DayResult, day_version
from later_reporting_dagster.ingest.partition_writer import WrittenPartition
from later_reporting_dagster.lake import POSTS_SCHEMA, Partition, WriteResult

DAY = date(2024, 3, 1)
INSTANCES = ["a", "b", "c"]


def written(partition: Partition, *, impressions: list[int] | None = None) -> WrittenPartition:
    posts = POSTS_SCHEMA.empty_table()
    if impressions:
        columns = {field.name: pa.nulls(len(impressions), field.type) for field in POSTS_SCHEMA}
        columns["impressions"] = pa.array(impressions, pa.int64())
        posts = pa.table(columns, schema=POSTS_SCHEMA)
    file = WriteResult("url", posts.num_rows, 1, "hash", changed=True)
    return WrittenPartition(partition=partition, file=file, rows=posts, bad_rows=0)


def test_preview_has_the_posts_with_the_most_impressions_of_all_instances() -> None:
    result = DayResult(DAY, set(INSTANCES))
    for name, impressions in zip(INSTANCES, ([1, 9, 2], [], [5, 7, 8, 3]), strict=True):
        result.add(written(Partition(DAY, name), impressions=impressions))
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


def test_day_version_of_a_file_of_all_instances_is_its_content_hash() -> None:
    assert day_version({None: "abc"}) == "abc"
