import re
from datetime import date

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from later_reporting_dagster.lake import Partition, encode_instance_id, partition_path
from later_reporting_dagster.lake.paths import parse_directory

DAY = date(2024, 1, 3)


def directory_of(path: str) -> str:
    return path[path.index("posts/") :].removeprefix("posts/").removesuffix("/part-0.parquet")


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20))
@example("a/b")
@example("..")
@example("100%25")
@example("\x00")
@example("__HIVE_DEFAULT_PARTITION__")
def test_instance_id_round_trips_through_its_paths(instance_id: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_.~%-]+", encode_instance_id(instance_id))
    partition = Partition(DAY, instance_id)
    assert parse_directory(directory_of(partition_path("posts", partition))) == partition


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
    ],
)
def test_encode_instance_id_rejects_unusable_ids(instance_id: str, reason: str) -> None:
    with pytest.raises(ValueError, match="instance id") as caught:
        encode_instance_id(instance_id)
    assert str(caught.value) == reason


def test_paths_are_as_documented_and_their_names_fit_a_file_system() -> None:
    assert partition_path("posts", Partition(DAY, "a/b")) == "posts/date=2024-01-03/instance_id=a%2Fb/part-0.parquet"
    assert partition_path("rollup", Partition(DAY)) == "rollup/date=2024-01-03/part-0.parquet"
    assert max(len(part) for part in partition_path("posts", Partition(DAY, "a" * 243)).split("/")) == 255
    assert "__HIVE_DEFAULT_PARTITION__" not in partition_path("posts", Partition(DAY, "__HIVE_DEFAULT_PARTITION__"))


@pytest.mark.parametrize(
    "directory",
    [
        "",
        "date=20240103/instance_id=a",
        "date=2024-02-30/instance_id=a",
        "day=2024-01-03/instance_id=a",
        "date=2024-01-03/instance_id=",
        "date=2024-01-03/instance=a",
        *(f"date=2024-01-03/instance_id={key}" for key in ("a b", "a%2fb", "%41", "%", "%ff", "a/b", "x|y")),
    ],
)
def test_other_directories_are_not_partitions(directory: str) -> None:
    assert parse_directory(directory) is None
