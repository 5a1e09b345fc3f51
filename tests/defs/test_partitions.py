"""Keys of partitions: every instance id survives the way into Dagster and back."""

from datetime import date

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from later_reporting_dagster.defs.partitions import (
    box_tags,
    contiguous_groups,
    instance_keys,
    lake_partition,
    partition_key,
    registered_instances,
)
from later_reporting_dagster.lake import Partition
from tests.conftest import INSTANCE_IDS
from tests.defs.conftest import KEYS

DAY = date(2024, 3, 1)
ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(ids, st.dates())
def test_a_key_names_its_partition_whatever_the_id(instance_id: str, day: date) -> None:
    partition = Partition(day, instance_id)
    key = partition_key(partition)
    assert lake_partition(key) == partition
    # These break multi-partition keys and ranges.
    assert key.count("|") == 1
    assert not set(key) & set(",[]/ \n")


def test_keys_read_as_documented() -> None:
    assert partition_key(Partition(DAY, "instance_000")) == "2024-03-01|instance_000"
    assert partition_key(Partition(DAY)) == "2024-03-01"
    assert lake_partition("2024-03-01") == Partition(DAY)


@pytest.mark.parametrize("key", ["2024-03-01|a b", "2024-03-01|", "2024-03-01|a|b", "2024-03-01|%2f", "2024-03-01|%C3"])
def test_a_key_that_is_no_encoding_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="is not a percent-encoded instance id"):
        lake_partition(key)


def test_a_box_is_named_by_its_corners() -> None:
    assert box_tags(DAY, date(2024, 3, 9), ["a", "b", "c"]) == {
        "dagster/asset_partition_range_start": "2024-03-01|a",
        "dagster/asset_partition_range_end": "2024-03-09|c",
    }


@given(st.lists(st.integers(0, 30), unique=True, max_size=12), st.data())
def test_groups_are_neighbours_and_as_few_as_can_be(order: list[int], data: st.DataObject) -> None:
    registered = [str(number) for number in order]
    wanted = set(data.draw(st.lists(st.sampled_from(registered), unique=True))) if registered else set()
    groups = contiguous_groups(wanted, registered)
    assert [key for group in groups for key in group] == [key for key in registered if key in wanted]
    places = [[registered.index(key) for key in group] for group in groups]
    assert all(place == list(range(place[0], place[0] + len(place))) for place in places)
    assert all(after[0] > before[-1] + 1 for before, after in zip(places, places[1:], strict=False))


def test_registered_instances_are_told_by_their_ids_in_order() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert registered_instances(instance) == []
        instance.add_dynamic_partitions("later_instance", [*KEYS, "typed by hand"])
        assert registered_instances(instance) == [*INSTANCE_IDS, "typed by hand"]


def test_instance_keys_are_the_encoded_ids() -> None:
    assert instance_keys(INSTANCE_IDS) == [
        "instance_000",
        "007",
        "a%2Fb%7Cc%2Cd%20%5Be%5D",
        "Zo%C3%AB%20%F0%9F%98%80%20%252F",
    ]
    with pytest.raises(ValueError, match="cannot be empty"):
        instance_keys([""])
