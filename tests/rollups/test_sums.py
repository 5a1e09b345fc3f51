import math
from fractions import Fraction
from itertools import permutations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from later_reporting_dagster.rollups import SumOutOfRange
from later_reporting_dagster.rollups.sums import grouped_sums, total
from tests.rollups.conftest import steady

INT64 = st.integers(-(2**63), 2**63 - 1)


def sums_of(values: list[float | None] | list[int | None], type_: pa.DataType) -> dict[str, list[object]]:
    rows = pa.table({"key": pa.array(["k"] * len(values)), "value": pa.array(values, type_)})
    return grouped_sums(rows, keys=["key"]).to_pydict()


@steady
@given(st.lists(st.none() | INT64 | st.integers(-9, 9), min_size=1, max_size=6))
def test_counts_add_up_exactly_or_are_refused(values: list[int | None]) -> None:
    available = [value for value in values if value is not None]
    expected = sum(available) if available else None
    if expected is not None and not -(2**63) <= expected < 2**63:
        with pytest.raises(SumOutOfRange, match="the sum of value does not fit int64"):
            sums_of(values, pa.int64())
        return
    assert sums_of(values, pa.int64()) == {
        "key": ["k"],
        "posts": [len(values)],
        "value": [expected],
        "value_posts": [len(available)],
    }


@steady
@given(st.lists(st.floats(-1e12, 1e12).map(lambda value: round(value, 6)), min_size=1, max_size=6))
def test_money_adds_up_to_the_millionth(values: list[float]) -> None:
    (value,) = sums_of(values, pa.float64())["value"]
    assert value == pytest.approx(math.fsum(values), rel=1e-15, abs=0.5e-6 * len(values))


@pytest.mark.parametrize("values", [[0.1, 0.2, 0.3], [1e15, 0.1, -1e15, 2.5], [1e25, 1.0, -1e25]])
def test_money_adds_up_to_the_same_bits_in_any_order(values: list[float]) -> None:
    exact = float(sum(Fraction(round(Fraction(value) * 10**6), 10**6) for value in values))
    for order in permutations(values):
        assert sums_of(list(order), pa.float64())["value"] == [exact]


def test_money_too_large_to_add_is_refused_by_name() -> None:
    for value in (1e300, math.inf):
        with pytest.raises(SumOutOfRange, match="value holds a value too large to sum"):
            sums_of([value], pa.float64())


def test_null_keys_are_a_group_of_their_own_after_the_others() -> None:
    rows = pa.table({"key": pa.array([None, "b", None, "a"]), "value": pa.array([1, 2, 3, None], pa.int64())})
    assert grouped_sums(rows, keys=["key"]).to_pydict() == {
        "key": ["a", "b", None],
        "posts": [1, 1, 2],
        "value": [None, 2, 4],
        "value_posts": [0, 1, 2],
    }


def test_the_total_of_no_values_is_none() -> None:
    for type_ in (pa.int64(), pa.float64()):
        assert total(pa.chunked_array([pa.array([None], type_)])) is None
        assert total(pa.chunked_array([], type_)) is None


def test_a_total_does_not_wrap() -> None:
    assert total(pa.chunked_array([pa.array([2**63 - 1, 2**63 - 1])])) == 2**64 - 2
