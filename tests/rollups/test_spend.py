import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from later_reporting_dagster.rollups.spend import spend_bounds


def bounds(
    cpe: float | None = None, engagements: int | None = None, cpm: float | None = None, impressions: int | None = None
) -> tuple[float | None, float | None, bool]:
    minimum, maximum, is_contradictory = spend_bounds(
        cpe=pa.chunked_array([pa.array([cpe], pa.float64())]),
        engagements=pa.chunked_array([pa.array([engagements], pa.int64())]),
        cpm=pa.chunked_array([pa.array([cpm], pa.float64())]),
        impressions=pa.chunked_array([pa.array([impressions], pa.int64())]),
    )
    return minimum[0].as_py(), maximum[0].as_py(), is_contradictory[0].as_py()


def close(low: float, high: float) -> tuple[object, object, bool]:
    return pytest.approx(low), pytest.approx(high), False


def test_the_documents_post_cost_about_300_in_both_channels() -> None:
    assert bounds(0.24, 1240, 35.29, 8500) == close(299.9225, 300.0075)
    assert bounds(0.79, 380, 57.69, 5200) == close(299.962, 300.014)


def test_one_unit_cost_alone_bounds_the_spend() -> None:
    assert bounds(cpe=0.24, engagements=1000) == close(235, 245)
    assert bounds(cpm=10.0, impressions=1000) == close(9.995, 10.005)
    assert bounds(0.24, 1000, 10.0, None) == close(235, 245)
    assert bounds(0.24, None, 10.0, 1000) == close(9.995, 10.005)


@pytest.mark.parametrize("given_values", [(None, 5, None, 5), (1.0, None, 1.0, None), (None, None, None, None)])
def test_nothing_known_is_nothing_bounded(given_values: tuple[float | None, ...]) -> None:
    assert bounds(*given_values) == (None, None, False)  # type: ignore[arg-type]


def test_a_cost_per_nothing_says_nothing() -> None:
    assert bounds(0.0, 0, 0.0, 0) == (None, None, False)
    assert bounds(0.0, 0, 10.0, 1000) == close(9.995, 10.005)
    assert bounds(5.0, -3, 10.0, 1000) == close(9.995, 10.005)


def test_spend_is_never_below_0() -> None:
    assert bounds(cpe=0.0, engagements=100) == close(0, 0.5)
    assert bounds(cpe=0.003, engagements=100) == close(0, 0.8)


def test_intervals_that_do_not_meet_contradict_each_other_and_bound_nothing() -> None:
    assert bounds(9.0, 100, 10.0, 10_000) == (None, None, True)
    assert bounds(10.0, 100, 10.0, 10_000) == (None, None, True)
    assert bounds(cpe=-1.0, engagements=100) == (None, None, True)
    assert bounds(1.0, 100, 11.0, 10_000) == (None, None, True)
    assert bounds(1.1, 100, 10.0, 10_000) == (None, None, True)


def test_intervals_that_touch_in_one_point_meet_there() -> None:
    # 0.015 × 200 is the upper bound of one and 2.995 + 0.005 the lower bound of the other.
    assert bounds(0.01, 200, 3.005, 1000) == close(3.0, 3.0)


@given(
    cost=st.integers(0, 10_000_000).map(lambda cents: cents / 100),
    engagements=st.integers(1, 10**7),
    impressions=st.integers(1, 10**9),
)
def test_the_true_cost_of_correctly_rounded_unit_costs_is_always_within_the_bounds(
    cost: float, engagements: int, impressions: int
) -> None:
    cpe, cpm = round(cost / engagements, 2), round(cost / (impressions / 1000), 2)
    minimum, maximum, is_contradictory = bounds(cpe, engagements, cpm, impressions)
    assert not is_contradictory
    assert minimum is not None
    assert maximum is not None
    assert minimum * (1 - 1e-9) <= cost <= maximum * (1 + 1e-9)
    assert maximum - minimum <= min(engagements, impressions / 1000) * 0.01 + cost * 1e-9 + 1e-9


def test_many_posts_keep_their_order_and_their_own_bounds() -> None:
    posts = 200_000
    costs = pa.chunked_array([pa.array([post / 100 for post in range(posts)])])
    tens = pa.chunked_array([pa.array([10] * posts)])
    nothing = pa.nulls(posts)
    minimum, maximum, is_contradictory = spend_bounds(
        cpe=costs,
        engagements=tens,
        cpm=pa.chunked_array([nothing.cast(pa.float64())]),
        impressions=pa.chunked_array([nothing.cast(pa.int64())]),
    )
    assert [round(cost * 100) for cost in maximum.to_pylist()] == [10 * post + 5 for post in range(posts)]
    assert [round(cost * 100) for cost in minimum.to_pylist()] == [max(10 * post - 5, 0) for post in range(posts)]
    assert not any(is_contradictory.to_pylist())
