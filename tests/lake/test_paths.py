import re
from datetime import date

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from later_reporting_dagster.lake import Partition, encode_instance_id, partition_path
from later_reporting_dagster.lake.partition_paths import (
    compacted_directory,
    compacted_path,
    decode_instance_id,
    first_of_month,
    parse_compacted_path,
    parse_partition_directory,
)

DAY = date(2024, 1, 3)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20))
@example("a/b")
@example("..")
@example("x|y,[z]")
@example("100%25")
@example("\x00")
@example("__HIVE_DEFAULT_PARTITION__")
def test_instance_id_round_trips_through_its_paths(instance_id: str) -> None:
    encoded = encode_instance_id(instance_id)
    assert re.fullmatch(r"[A-Za-z0-9_.~%-]+", encoded)
    assert decode_instance_id(encoded) == instance_id
    partition = Partition(DAY, instance_id)
    directory = partition_path("posts", partition).removeprefix("posts/").removesuffix("/part-0.parquet")
    assert parse_partition_directory(directory) == partition
    path = compacted_path("posts", first_of_month(DAY), instance_id).removeprefix(f"{compacted_directory('posts')}/")
    assert parse_compacted_path(path) == (date(2024, 1, 1), instance_id)


@given(st.text(max_size=12))
def test_decode_instance_id_accepts_only_encoded_ids(key: str) -> None:
    try:
        instance_id = decode_instance_id(key)
    except ValueError:
        return
    assert encode_instance_id(instance_id) == key


@pytest.mark.parametrize("key", ["", "a b", "a%2fb", "%41", "%", "%ff", "a/b", "x|y"])
def test_decode_instance_id_rejects_other_text(key: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(repr(key))} is not a percent-encoded instance id$"):
        decode_instance_id(key)


@pytest.mark.parametrize(
    ("instance_id", "reason"),
    [
        ("", "an instance id cannot be empty: omit it, or give an id that GET /v2/instances returns"),
        ("a\ud800", r"instance id 'a\ud800' is not valid Unicode"),
        (
            "é" * 41,
            f"instance id '{'é' * 40}'… has 246 characters when percent-encoded;"
            " the name of its directory may have at most 243",
        ),
        (
            "a" * 244,
            f"instance id '{'a' * 40}'… has 244 characters when percent-encoded;"
            " the name of its directory may have at most 243",
        ),
    ],
)
def test_encode_instance_id_rejects_unusable_ids(instance_id: str, reason: str) -> None:
    with pytest.raises(ValueError, match="instance id") as caught:
        encode_instance_id(instance_id)
    assert str(caught.value) == reason


def test_longest_instance_id_fits_the_name_of_a_directory() -> None:
    path = partition_path("posts", Partition(DAY, "a" * 243))
    assert max(len(part) for part in path.split("/")) == 255


def test_hive_null_is_not_used_as_a_directory() -> None:
    assert "__HIVE_DEFAULT_PARTITION__" not in partition_path("posts", Partition(DAY, "__HIVE_DEFAULT_PARTITION__"))


def test_partition_path_has_the_day_and_the_instance() -> None:
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
def test_parse_partition_directory_ignores_other_directories(directory: str) -> None:
    assert parse_partition_directory(directory) is None


def test_compacted_path_is_hidden_from_other_readers() -> None:
    path = compacted_path("posts", date(2024, 1, 1), "a/b")
    assert path == "_compacted/posts/month=2024-01/instance_id=a%2Fb/part-0.parquet"
    assert compacted_path("rollup", date(1, 12, 1), None) == "_compacted/rollup/month=0001-12/part-0.parquet"
    assert parse_compacted_path("month=0001-12/part-0.parquet") == (date(1, 12, 1), None)


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
def test_parse_compacted_path_ignores_other_paths(path: str) -> None:
    assert parse_compacted_path(path) is None


def test_partitions_sort_by_day_and_instance() -> None:
    first, second, third = Partition(DAY, "b"), Partition(date(2024, 1, 4), "a"), Partition(date(2024, 1, 4), "b")
    assert sorted([third, first, second]) == [first, second, third]
