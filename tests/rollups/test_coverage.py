"""The intervals hold the truth as often as they say, in a part of what `make coverage` simulates."""

from dataclasses import replace

import pytest

from benchmarks.coverage import (
    APART,
    CHOSEN,
    FEWEST_INTERVALS,
    THIRD,
    WHOLE_CREATORS,
    Scenario,
    biased,
    simulated,
    uncovered,
)

GROUPS = Scenario(boosted=THIRD, size="lognormal 1.0", posts=60, simulations=1_500)


@pytest.mark.parametrize(
    "scenario",
    [
        replace(GROUPS, boosted=APART, size="Pareto 1.2"),
        replace(GROUPS, boosted=APART, size="lognormal 1.4", posts=31, zeros="paid engagements"),
        replace(GROUPS, boosted=THIRD, zeros="engagements"),
        replace(GROUPS, boosted=WHOLE_CREATORS, posts=120),
    ],
    ids=lambda scenario: f"{scenario.boosted}, {scenario.size}, 80 % without {scenario.zeros}",
)
def test_intervals_hold_the_truth(scenario: Scenario) -> None:
    found = simulated(scenario)
    assert found["paid_lift"].given >= FEWEST_INTERVALS
    assert not [*uncovered(scenario, found)]


@pytest.mark.parametrize("boosted", CHOSEN)
def test_same_post_lift_is_one_whichever_posts_are_chosen(boosted: str) -> None:
    scenario = replace(GROUPS, boosted=boosted, channel_spread=0)
    found = simulated(scenario)
    assert not [*biased(scenario, found)]


def test_an_interval_that_misses_the_truth_is_named() -> None:
    scenario = replace(GROUPS, boosted="best true rate", channel_spread=0)
    found = simulated(scenario)
    assert found["paid_lift"].mean > 1.5
    (sentence,) = uncovered(scenario, found)
    assert sentence.startswith("best true rate, lognormal 1.0, 60 posts")
