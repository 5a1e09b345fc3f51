import math
from fractions import Fraction
from itertools import permutations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from later_reporting_dagster.rollups.sums import SumOutOfRange, grouped_sums, total

INT64 = st.integers(-(2**63), 2**63 - 1)


def sums_of(values: list[float | None] | list[int | None], type_: pa.DataType) -> dict[str, list[object]]:
    rows = pa.table({"key": pa.array(["k"] * len(values)), "value": pa.array(values, type_)})
    return grouped_sums(rows, keys=["key"]).to_pydict()


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


@given(st.lists(st.floats(-1e12, 1e12).map(lambda value: round(value, 6)), min_size=1, max_size=6))
def test_money_adds_up_to_the_millionth(values: list[float]) -> None:
    (value,) = sums_of(values, pa.float64())["value"]
    assert value == pytest.approx(math.fsum(values), rel=1e-15, abs=0.5e-6 * len(values))


@pytest.mark.parametrize(
    "values", [[0.1, 0.2, 0.3], [1e12 + 0.3, 0.1, -1e12], [1e15, 0.1, -1e15, 2.5], [1e25, 1.0, -1e25]]
)
def test_money_adds_up_to_the_same_bits_in_any_order(values: list[float]) -> None:
    exact = float(sum(Fraction(round(Fraction(value) * 10**6), 10**6) for value in values))
    for order in permutations(values):
        assert sums_of(list(order), pa.float64())["value"] == [exact]


@pytest.mark.parametrize("value", [1e300, -1e300, math.inf, -math.inf, math.nan])
def test_money_too_large_to_add_is_refused_by_name(value: float) -> None:
    with pytest.raises(SumOutOfRange, match="value holds a value too large to sum"):
        sums_of([0.5, value], pa.float64())


@pytest.mark.parametrize("sign", [1, -1])
def test_numbers_far_to_either_side_of_0_add_up_exactly(sign: int) -> None:
    assert sums_of([sign * 2**62, sign * (2**62 - 1)], pa.int64())["value"] == [sign * (2**63 - 1)]
    assert sums_of([sign * 2.0**43, sign * 0.5] * 3, pa.float64())["value"] == [sign * (3 * 2.0**43 + 1.5)]
    assert sums_of([sign * 9e12] * 3, pa.float64())["value"] == [sign * 27e12]


LARGE = 2**62  # two of them do not fit


@pytest.mark.parametrize(
    "values",
    [
        pa.chunked_array([[0, 0, LARGE, LARGE]]).slice(2),
        pa.chunked_array([[LARGE, LARGE, 0, 0]]).slice(0, 2),
        pa.chunked_array([[LARGE, LARGE], [1]]),
        pa.chunked_array([[1], [-LARGE, -LARGE, -LARGE], [1]]),
    ],
)
def test_a_sum_that_does_not_fit_is_refused_in_whatever_chunk_its_parts_lie(values: pa.ChunkedArray) -> None:
    rows = pa.table({"key": ["k"] * len(values), "value": values})
    with pytest.raises(SumOutOfRange, match="^the sum of value does not fit int64: "):
        grouped_sums(rows, keys=["key"])


def test_null_keys_are_a_group_of_their_own_after_the_others() -> None:
    rows = pa.table({"key": pa.array([None, "b", None, "a"]), "value": pa.array([1, 2, 3, None], pa.int64())})
    assert grouped_sums(rows, keys=["key"]).to_pydict() == {
        "key": ["a", "b", None],
        "posts": [1, 1, 2],
        "value": [None, 2, 4],
        "value_posts": [0, 1, 2],
    }


def test_the_total_of_no_values_is_none_and_no_total_wraps() -> None:
    assert total(pa.chunked_array([pa.array([2**63 - 1, 2**63 - 1])])) == 2**64 - 2
    for type_ in (pa.int64(), pa.float64()):
        assert total(pa.chunked_array([pa.array([None], type_)])) is None
        assert total(pa.chunked_array([], type_)) is None


def test_a_group_without_values_is_null_beside_one_of_enormous_ones() -> None:
    for type_, enormous in ((pa.float64(), 1e25), (pa.int64(), 2**63 - 1)):
        rows = pa.table({"key": ["k", "l"], "value": pa.array([enormous, None], type_)})
        assert grouped_sums(rows, keys=["key"]).column("value").to_pylist() == [enormous, None]


@given(st.lists(st.integers(-(2**53), 2**53), min_size=1, max_size=6))
@example([2**52 + 1])
@example([2**53 - 1])
def test_money_between_two_millionths_goes_to_the_even_one_whatever_its_size(halves: list[int]) -> None:
    (value,) = sums_of([half / 2e6 for half in halves], pa.float64())["value"]
    assert value == sum(round(half / 2e6 * 1e6) for half in halves) / 1e6


@pytest.mark.parametrize("under", [math.nan, math.inf, -1e300])
def test_what_lies_under_a_null_changes_nothing(under: float) -> None:
    values = pa.array(np.array([0.1, under, 0.2]), mask=np.array([False, True, False]))
    rows = pa.table({"key": pa.array(["k", "k", "k"]), "value": values})
    assert grouped_sums(rows, keys=["key"]).to_pydict() == {
        "key": ["k"],
        "posts": [3],
        "value": [0.3],
        "value_posts": [2],
    }


def test_just_what_is_asked_for_is_counted_and_columns_with_values_in_other_rows_are_told_apart() -> None:
    columns = {"a": [1, None, 3], "b": [None, 2, 3], "c": [4, None, 6], "d": [7, 8, 9], "e": [None, 1, None]}
    rows = pa.table({"key": ["k", "l", "l"]} | {name: pa.array(values, pa.int64()) for name, values in columns.items()})
    sums = grouped_sums(rows, keys=["key"], counted=["a", "b", "c", "d"]).to_pydict()
    assert {name: values for name, values in sums.items() if name.endswith("posts")} == {
        "posts": [1, 2],
        "a_posts": [1, 1],
        "b_posts": [0, 2],
        "c_posts": [1, 1],
        "d_posts": [1, 2],
    }
    assert (sums["c"], sums["e"]) == ([4, 6], [None, 1])


def test_rows_that_are_worth_threads_add_up_as_few_do() -> None:
    numbers = np.arange(2**16)
    rows = pa.table({"key": numbers % 3, "count": numbers, "money": numbers / 4})
    of_key = [numbers[numbers % 3 == key] for key in range(3)]
    posts = [len(values) for values in of_key]
    assert grouped_sums(rows, keys=["key"]).to_pydict() == {
        "key": [0, 1, 2],
        "posts": posts,
        "count": [int(values.sum()) for values in of_key],
        "count_posts": posts,
        "money": [int(values.sum()) / 4 for values in of_key],
        "money_posts": posts,
    }
