"""The campaign of the demo whose costs are all known."""

from datetime import date

import numpy as np

from later_reporting_dagster.server.sandbox import World
from later_reporting_dagster.server.sandbox.synthetic_world import CAMPAIGNS, NOT_AVAILABLE, campaign_numbers


def test_posts_of_the_last_campaign_have_a_cost_and_organic_results_at_once() -> None:
    world = World(first_day=date(2024, 1, 1), last_day=date(2024, 3, 1), instances=3, has_campaigns_of_known_cost=True)
    is_last = campaign_numbers(world.posts.campaign_id) == CAMPAIGNS - 1
    assert np.count_nonzero(is_last) > 50
    assert np.all(world.posts.cost[is_last] != NOT_AVAILABLE)
    assert np.all(world.posts.cost_day[is_last] == world.posts.day[is_last])
    assert np.all(world.posts.totals[0, is_last] >= 100)
    assert np.any(world.posts.cost_day[~is_last] > world.posts.day[~is_last])
