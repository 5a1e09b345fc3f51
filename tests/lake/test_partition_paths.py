import re
from datetime import date

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from later_reporting_dagster.lake import Partition, encode_instance_id, partition_path
from later_reporting_dagster.lake.partition_paths import (
    compacted_directory,
    compacted_of,
    compacted_path,
    decode_instance_id,
    month_of,
    partition_of,
)

DAY = date(2024, 1, 3)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20))
@example("a/b")
@example("..")
@example("x|y,[z]")
@example("100%25")
@example("\x00")
@example("__HIVE_DEFAULT_PARTITION__")
def test_any_instance_id_survives_as_one_safe_name(instance_id: str) -> None:
    encoded = encode_instance_id(instance_id)
    assert re.fullmatch(r"[A-Za-z0-9_.~%-]+", encoded)
    assert decode_instance_id(encoded) == instance_id
    partition = Partition(DAY, instance_id)
    directory = partition_path("posts", partition).removeprefix("posts/").removesuffix("/part-0.parquet")
    assert partition_of(directory) == partition
    path = compacted_path("posts", month_of(DAY), instance_id).removeprefix(f"{compacted_directory('posts')}/")
    assert compacted_of(path) == (date(2024, 1, 1), instance_id)


@given(st.text(max_size=12))
def test_a_key_is_decoded_only_when_it_is_what_an_id_encodes_to(key: str) -> None:
    try:
        instance_id = decode_instance_id(key)
    except ValueError:
        return
    assert encode_instance_id(instance_id) == key


@pytest.mark.parametrize("key", ["", "a b", "a%2fb", "%41", "%", "%ff", "a/b", "x|y"])
def test_what_is_no_encoding_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(repr(key))} is not a percent-encoded instance id$"):
        decode_instance_id(key)


@pytest.mark.parametrize(
    ("instance_id", "reason"),
    [
        ("", "an instance id cannot be empty: leave it out, or give the id that GET /v2/instances lists"),
        ("a\ud800", r"instance id 'a\ud800' is not valid Unicode"),
        (
            "é" * 41,
            f"instance id '{'é' * 40}'… is 246 characters when percent-encoded; a directory's name has room for 243",
        ),
        (
            "a" * 244,
            f"instance id '{'a' * 40}'… is 244 characters when percent-encoded; a directory's name has room for 243",
        ),
    ],
)
def test_an_id_that_cannot_be_a_partition_is_refused_with_the_reason(instance_id: str, reason: str) -> None:
    with pytest.raises(ValueError, match="instance id") as caught:
        encode_instance_id(instance_id)
    assert str(caught.value) == reason


def test_the_longest_id_fits_a_directory_name() -> None:
    path = partition_path("posts", Partition(DAY, "a" * 243))
    assert max(len(part) for part in path.split("/")) == 255


def test_hives_word_for_null_is_no_directory_name() -> None:
    assert "__HIVE_DEFAULT_PARTITION__" not in partition_path("posts", Partition(DAY, "__HIVE_DEFAULT_PARTITION__"))


def test_paths_name_the_day_and_where_there_is_one_the_instance() -> None:
    assert (
        partition_path("posts_published", Partition(DAY, "instance_000"))
        == "posts_published/date=2024-01-03/instance_id=instance_000/part-0.parquet"
    )
    assert partition_path("rollup", Partition(DAY)) == "rollup/date=2024-01-03/part-0.parquet"


@pytest.mark.parametrize(
    "directory",
    [
        "",
        "date=20240103/instance_id=a",
        "date=2024-02-30/instance_id=a",
        "day=2024-01-03/instance_id=a",
        "date=2024-01-03/instance_id=",
        "date=2024-01-03/instance=a",
        "date=2024-01-03/a",
        "date=2024-01-03/instance_id=a b",
        "date=2024-01-03/instance_id=a/deeper",
    ],
)
def test_a_directory_that_the_lake_does_not_make_is_no_partition(directory: str) -> None:
    assert partition_of(directory) is None


def test_a_compacted_month_lies_where_other_readers_do_not_look() -> None:
    path = compacted_path("posts", date(2024, 1, 1), "a/b")
    assert path == "_compacted/posts/month=2024-01/instance_id=a%2Fb/part-0.parquet"
    assert compacted_path("rollup", date(1, 12, 1), None) == "_compacted/rollup/month=0001-12/part-0.parquet"
    assert compacted_of("month=0001-12/part-0.parquet") == (date(1, 12, 1), None)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "month=2024-01",
        "month=2024-13/part-0.parquet",
        "month=202401/part-0.parquet",
        "date=2024-01/part-0.parquet",
        "month=2024-01/part-1.parquet",
        "month=2024-01/instance_id=/part-0.parquet",
        "month=2024-01/instance_id=a b/part-0.parquet",
        "month=2024-01/a/part-0.parquet",
        "month=2024-01/instance_id=a/deeper/part-0.parquet",
        "2024-01/instance_id=a/part-0.parquet",
    ],
)
def test_a_path_that_compaction_does_not_make_is_no_month(path: str) -> None:
    assert compacted_of(path) is None


def test_partitions_sort_by_day_then_instance() -> None:
    first, second, third = Partition(DAY, "b"), Partition(date(2024, 1, 4), "a"), Partition(date(2024, 1, 4), "b")
    assert sorted([third, first, second]) == [first, second, third]
