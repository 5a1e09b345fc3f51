"""The interval around the paid lift: against the slow reference in `test_periods`, and here against chance itself."""

import math

import numpy as np
import pyarrow as pa
import pytest

from later_reporting_dagster.contract import Channel
from later_reporting_dagster.rollups.columns import ORGANIC_BETTER, PAID_BETTER, UNDECIDED
from later_reporting_dagster.rollups.lift import Numbers, Results, lift_columns_of, lift_interval

ORGANIC, PAID = Channel.ORGANIC, Channel.PAID


def interval_of(results: dict[Channel, Results]) -> tuple[Numbers, Numbers]:
    return lift_interval(results, group=np.zeros(len(results[PAID].impressions), dtype=np.int64), groups=1)


def drawn(chance: np.random.Generator, posts: int, *, lift: float) -> dict[Channel, Results]:
    """Posts of both channels whose rates differ from post to post, on average by `lift` between the channels."""
    found = {}
    for channel, rate in ((ORGANIC, 0.03), (PAID, 0.03 * lift)):
        impressions = np.floor(chance.lognormal(8, 0.7, posts))
        of_posts = rate * chance.lognormal(-(0.4**2) / 2, 0.4, posts)
        found[channel] = Results(chance.binomial(impressions.astype(int), of_posts).astype(float), impressions)
    return found


@pytest.mark.parametrize("lift", [1.0, 1.5])
def test_ninety_five_of_a_hundred_intervals_hold_the_truth(lift: float) -> None:
    chance = np.random.default_rng(7)
    held = 0
    for _ in range(1000):
        low, high = interval_of(drawn(chance, 120, lift=lift))
        held += bool(low[0] <= lift <= high[0])
    assert 920 <= held <= 975  # a little less than 950, as with any large-sample interval


def test_posts_of_both_channels_that_go_together_are_known_better() -> None:
    """What makes a post engaging organically does so when it is paid for: the ratio of the two hardly moves."""
    chance = np.random.default_rng(3)
    impressions, rate = np.full(60, 10_000.0), chance.lognormal(-3.5, 0.5, 60)
    together = {ORGANIC: Results(impressions * rate, impressions), PAID: Results(1.2 * impressions * rate, impressions)}
    apart = together | {PAID: Results(1.2 * impressions * rate[::-1], impressions)}
    assert interval_of(together)[0][0] == pytest.approx(1.2)
    assert interval_of(apart)[0][0] < 1.1


@pytest.mark.parametrize("channel", [ORGANIC, PAID])
def test_each_rate_needs_more_than_thirty_posts(channel: Channel) -> None:
    results = drawn(np.random.default_rng(5), 60, lift=1)
    for posts, is_told in ((30, False), (31, True)):
        is_cut = np.arange(60) >= posts
        cut = Results(*(np.where(is_cut, np.nan, values) for values in results[channel]))
        low, high = interval_of(results | {channel: cut})
        assert math.isfinite(low[0]) is is_told
        assert math.isfinite(high[0]) is is_told


@pytest.mark.parametrize("channel", [ORGANIC, PAID])
def test_a_rate_of_nothing_has_no_interval(channel: Channel) -> None:
    results = drawn(np.random.default_rng(5), 60, lift=1)
    for zeroed in ({"engagements": np.zeros(60)}, {"engagements": np.zeros(60), "impressions": np.zeros(60)}):
        low, high = interval_of(results | {channel: results[channel]._replace(**zeroed)})
        assert np.isnan([low[0], high[0]]).all()


def test_the_verdict_is_told_by_where_the_interval_lies() -> None:
    chance = np.random.default_rng(11)
    lifts = (3.0, 1.0, 1 / 3)
    of_lift = [drawn(chance, 60, lift=lift) for lift in lifts]
    sums = {
        f"{channel}_rate_{part}": pa.chunked_array([np.concatenate([getattr(each[channel], part) for each in of_lift])])
        for channel in (ORGANIC, PAID)
        for part in Results._fields
    }
    found = lift_columns_of(sums, group=np.repeat([0, 1, 2], 60), groups=4)
    assert found["paid_lift_verdict"].to_pylist() == [PAID_BETTER, UNDECIDED, ORGANIC_BETTER, None]
    low, high = (found[f"paid_lift_{end}"].to_pylist() for end in ("low", "high"))
    assert all(least < lift < most for least, lift, most in zip(low, lifts, high, strict=False))
    assert (low[3], high[3]) == (None, None)


def test_groups_do_not_mix() -> None:
    chance = np.random.default_rng(9)
    first, second = drawn(chance, 40, lift=2), drawn(chance, 50, lift=0.5)
    mixed = {
        channel: Results(*(np.concatenate(pair) for pair in zip(first[channel], second[channel], strict=True)))
        for channel in first
    }
    order = chance.permutation(90)
    shuffled = {channel: Results(*(values[order] for values in each)) for channel, each in mixed.items()}
    group = np.repeat([0, 2], [40, 50])[order]
    low, high = lift_interval(shuffled, group=group, groups=3)
    for number, alone in ((0, first), (2, second)):
        assert (low[number], high[number]) == pytest.approx(tuple(float(end[0]) for end in interval_of(alone)))
    assert np.isnan([low[1], high[1]]).all()
