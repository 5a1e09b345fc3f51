"""The 95 % intervals contain the true lift about that often: some of the scenarios of `make coverage`."""

from dataclasses import replace

import pytest

from benchmarks.coverage import (
    MIN_INTERVALS,
    OTHER_POSTS,
    SAME_POST_SELECTIONS,
    THIRD,
    WHOLE_CREATORS,
    Scenario,
    bias_failures,
    coverage_failures,
    simulate,
)

GROUPS = Scenario(boosted=THIRD, size="lognormal 1.0", posts=60, simulations=1_500)


@pytest.mark.parametrize(
    "scenario",
    [
        replace(GROUPS, boosted=OTHER_POSTS, size="Pareto 1.2"),
        replace(GROUPS, boosted=OTHER_POSTS, size="lognormal 1.4", posts=31, zeros="paid engagements"),
        replace(GROUPS, boosted=THIRD, zeros="engagements"),
        replace(GROUPS, boosted=WHOLE_CREATORS, posts=120),
    ],
    ids=lambda scenario: f"{scenario.boosted}, {scenario.size}, 80 % without {scenario.zeros}",
)
def test_intervals_contain_the_true_lift(scenario: Scenario) -> None:
    found = simulate(scenario)
    assert found["paid_lift"].intervals >= MIN_INTERVALS
    assert not [*coverage_failures(scenario, found)]


@pytest.mark.parametrize("boosted", SAME_POST_SELECTIONS)
def test_same_post_lift_is_not_biased_by_which_posts_are_boosted(boosted: str) -> None:
    scenario = replace(GROUPS, boosted=boosted, channel_spread=0)
    found = simulate(scenario)
    assert not [*bias_failures(scenario, found)]


def test_uncovered_names_a_biased_scenario() -> None:
    scenario = replace(GROUPS, boosted="best true rate", channel_spread=0)
    found = simulate(scenario)
    assert found["paid_lift"].mean > 1.5
    (sentence,) = coverage_failures(scenario, found)
    assert sentence.startswith("best true rate, lognormal 1.0, 60 posts")
