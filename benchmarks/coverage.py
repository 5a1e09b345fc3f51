"""Workload: coverage of the confidence intervals of the lifts, simulated with the SQL of the rollups.

The exit code of `make coverage` is 1 if a coverage or mean is out of its limits.

Each simulation draws the posts of one group: heavy-tailed impressions, engagement rates that differ between posts and
between the channels of a post, and Poisson-distributed engagements. The simulations of a scenario are the campaigns of
one day, so that one query of `channel_comparison.sql` evaluates them all.
"""

import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from itertools import product

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from benchmarks.markdown_table import Table
from later_reporting_dagster.lake import POSTS_SCHEMA
from later_reporting_dagster.rollups.rollup_tables import BY_CAMPAIGN
from later_reporting_dagster.rollups.sql_engine import TEMPLATES, context_of, create_macros_and_row_views

SIMULATIONS, POSTS, CREATORS = 6_000, (31, 60, 120, 200), 12
MIN_COVERAGE, MAX_COVERAGE, MIN_INTERVALS, MAX_BIAS = 0.93, 0.99, 100, 0.03
LIFTS = ("paid_lift", "same_post_lift")

CHANNEL_SPREAD = 0.4
_MEAN_RATE, _POST_SPREAD, _CREATOR_SPREAD, _REACH_SPREAD = 0.03, 0.6, 0.5, 0.5
_SHARE_OF_ZEROS = 0.8
_INSTANCE, _DAY = "instance", date(2025, 1, 1)
_LIFTS_BY_CAMPAIGN = """
{%- import "measures.sql" as measures with context %}
{%- import "channel_comparison.sql" as channels with context %}
WITH groups AS (
    SELECT campaign_id, creator_id, {{ measures.group_totals_of_posts() }} FROM post_metrics_daily_rows GROUP BY ALL
),
{{ channels.channel_comparison(("campaign_id",), "groups", "post_metrics_daily_rows") }}
FROM compared
"""

Values = NDArray[np.float64]
Shape = tuple[int, ...]


def _lognormal(spread: float) -> Callable[[np.random.Generator, Shape], Values]:
    return lambda random, shape: 3000 * np.exp(spread * random.standard_normal(shape))


# Distributions of impressions.
IMPRESSIONS: dict[str, Callable[[np.random.Generator, Shape], Values]] = {
    "lognormal 1.0": _lognormal(1.0),
    "lognormal 1.4": _lognormal(1.4),
    "lognormal 2.0": _lognormal(2.0),
    "Pareto 1.2": lambda random, shape: 1000 * (1 - random.random(shape)) ** (-1 / 1.2),
}
# Selection of the boosted posts: other posts than the organic ones, a third of these, or all posts of half of the
# creators.
OTHER_POSTS, THIRD, WHOLE_CREATORS = "other posts", "random third", "whole creators"
RANDOM_SELECTIONS = (OTHER_POSTS, THIRD, WHOLE_CREATORS)
SAME_POST_SELECTIONS = (THIRD, "best true rate", "best observed rate", "most engagements", WHOLE_CREATORS)
# The quantity that 80 % of the posts have none of.
ZEROS = ("nothing", "engagements", "paid engagements")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Parameters of simulated groups. Channels do not differ, unless most posts have no paid engagements.

    Attributes:
        boosted: Selection of the boosted posts, of `RANDOM_SELECTIONS` or `SAME_POST_SELECTIONS`.
        size: Distribution of impressions, of `IMPRESSIONS`.
        posts: Number of organic posts of a group.
        zeros: Quantity that 80 % of the posts have none of, of `ZEROS`.
        channel_spread: Standard deviation of a channel's rate, relative to the rate of its post.
        simulations: Number of groups.
    """

    boosted: str
    size: str
    posts: int
    zeros: str = "nothing"
    channel_spread: float = CHANNEL_SPREAD
    simulations: int = SIMULATIONS

    @property
    def true_lift(self) -> float:
        """Ratio of the paid to the organic rate in the distributions."""
        return 1 - _SHARE_OF_ZEROS if self.zeros == "paid engagements" else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LiftResult:
    """Result of the simulations of one lift.

    Attributes:
        simulations: Number of simulations.
        intervals: Simulations with an interval.
        covering: Intervals that contain the true lift.
        mean: Mean lift.
    """

    simulations: int
    intervals: int
    covering: int
    mean: float

    @property
    def coverage(self) -> float:
        """Share of the intervals that contain the true lift; NaN if there are too few intervals."""
        return self.covering / self.intervals if self.intervals >= MIN_INTERVALS else math.nan

    @property
    def is_covered(self) -> bool:
        """Whether the coverage is within its limits and two standard errors, or unknown."""
        error = 2 * math.sqrt(self.coverage * (1 - self.coverage) / max(self.intervals, 1))
        return not (self.coverage < MIN_COVERAGE - error or self.coverage > MAX_COVERAGE + error)


def draw_posts(scenario: Scenario, random: np.random.Generator) -> pa.Table:
    """Draw the posts of all simulations as raw rows of one day. Each simulation is a campaign."""
    shape = (scenario.simulations, scenario.posts * (2 if scenario.boosted == OTHER_POSTS else 1))
    creator = np.arange(shape[1]) % (CREATORS if scenario.boosted == WHOLE_CREATORS else 1)
    impressions = [IMPRESSIONS[scenario.size](random, shape) for _ in range(2)]
    quality = _factor(random, _POST_SPREAD, shape)
    if scenario.boosted == WHOLE_CREATORS:
        quality *= _factor(random, _CREATOR_SPREAD, (shape[0], CREATORS))[:, creator]
        reach = np.exp(_REACH_SPREAD * random.standard_normal((shape[0], CREATORS)))[:, creator]
        impressions = [each * reach for each in impressions]
    impressions = [np.ceil(each) for each in impressions]
    rates = [_MEAN_RATE * quality * _factor(random, scenario.channel_spread, shape) for _ in range(2)]
    is_live = random.random(shape) >= _SHARE_OF_ZEROS
    for rate in {"nothing": (), "engagements": rates, "paid engagements": rates[1:]}[scenario.zeros]:
        rate *= is_live  # noqa: PLW2901 - in place
    engagements = random.poisson(rates[0] * impressions[0])
    is_paid = _select_boosted(
        scenario, random, quality=quality, engagements=engagements, impressions=impressions[0], creator=creator
    )
    is_organic = ~is_paid if scenario.boosted == OTHER_POSTS else np.ones(shape, bool)
    paid_engagements = random.poisson(rates[1] * impressions[1] * is_paid)
    rows = shape[0] * shape[1]
    columns = {
        "campaign_id": np.repeat(np.arange(shape[0]), shape[1]),
        "post_id": np.arange(rows),
        "creator_id": np.tile(creator, shape[0]),
        "impressions": _reported(impressions[0], is_organic),
        "engagements": _reported(engagements, is_organic),
        "paid_impressions": _reported(impressions[1], is_paid),
        "paid_engagements": _reported(paid_engagements, is_paid),
        **{name: pa.repeat(name, rows) for name in ("platform", "content_type")},
        "date": pa.repeat(_DAY, rows),
        "instance_id": pa.repeat(_INSTANCE, rows),
    }
    absent = {field.name: pa.nulls(rows, field.type) for field in POSTS_SCHEMA if field.name not in columns}
    return pa.table(columns | absent)


def _factor(random: np.random.Generator, spread: float, shape: Shape) -> Values:
    """Draw positive factors with mean 1 and standard deviation `spread`."""
    if not spread:
        return np.ones(shape)
    return random.gamma(1 / spread**2, spread**2, shape)


def _reported(values: NDArray[np.generic], where: NDArray[np.bool_]) -> pa.Array:
    return pa.array(values.astype(np.int64).ravel(), mask=~where.ravel())


def _select_boosted(
    scenario: Scenario,
    random: np.random.Generator,
    *,
    quality: Values,
    engagements: NDArray[np.int64],
    impressions: Values,
    creator: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Return which posts are boosted."""
    if scenario.boosted == OTHER_POSTS:
        return np.broadcast_to(np.arange(len(creator)) >= scenario.posts, quality.shape)
    if scenario.boosted == WHOLE_CREATORS:
        return np.broadcast_to(creator < CREATORS // 2, quality.shape)
    scores: dict[str, Values] = {
        THIRD: np.zeros(quality.shape),
        "best true rate": quality,
        "best observed rate": engagements / impressions,
        "most engagements": engagements.astype(np.float64),
    }
    score = scores[scenario.boosted] + 1e-9 * random.random(quality.shape)  # ties are broken at random
    threshold = np.partition(score, -(scenario.posts // 3), axis=1)[:, -(scenario.posts // 3), None]
    is_boosted: NDArray[np.bool_] = score >= threshold
    return is_boosted


def simulate(scenario: Scenario) -> dict[str, LiftResult]:
    """Simulate a scenario with a fixed seed; return the result of each lift."""
    names = (scenario.boosted, scenario.size, scenario.zeros)
    random = np.random.default_rng([scenario.posts, *(int.from_bytes(name.encode()) for name in names)])
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("post_metrics_daily", draw_posts(scenario, random))
        create_macros_and_row_views(connection, BY_CAMPAIGN, [BY_CAMPAIGN.raw_table])
        sql = TEMPLATES.from_string(_LIFTS_BY_CAMPAIGN).render(context_of(BY_CAMPAIGN))
        groups = connection.sql(sql).to_arrow_table()
    return {lift: _lift_result(groups, lift, scenario) for lift in LIFTS}


def _lift_result(groups: pa.Table, lift: str, scenario: Scenario) -> LiftResult:
    low, high = (groups[f"{lift}_{side}"] for side in ("low", "high"))
    covers = pc.and_(pc.less_equal(low, scenario.true_lift), pc.greater_equal(high, scenario.true_lift))
    return LiftResult(
        simulations=scenario.simulations,
        intervals=len(low) - low.null_count,
        covering=pc.sum(covers).as_py() or 0,
        mean=pc.mean(groups[lift]).as_py() or math.nan,
    )


def coverage_failures(scenario: Scenario, results: Mapping[str, LiftResult]) -> Iterator[str]:
    """Yield a message for each lift whose coverage is out of its limits."""
    for lift, result in results.items():
        if not result.is_covered:
            covered = f"{100 * result.coverage:.1f} % of {result.intervals} intervals of {lift}"
            yield f"{_describe(scenario)}: {covered} contain the true lift"


def bias_failures(scenario: Scenario, results: Mapping[str, LiftResult]) -> Iterator[str]:
    """Yield a message if the mean of same_post_lift is not 1."""
    mean = results["same_post_lift"].mean
    if abs(mean - 1) > MAX_BIAS:
        yield f"{_describe(scenario)}: the mean of same_post_lift is {mean:.3f}"


def _describe(scenario: Scenario) -> str:
    return f"{scenario.boosted}, {scenario.size}, {scenario.posts} posts, 80 % without {scenario.zeros}"


def coverage(*, simulations: int = SIMULATIONS, posts: Sequence[int] = POSTS) -> Table:
    """Coverage of the confidence intervals of the lifts, simulated for many distributions."""
    coverage_scenarios = [
        [
            Scenario(boosted=boosted, zeros=zeros, size=size, posts=number, simulations=simulations)
            for size, number in product(IMPRESSIONS, posts)
        ]
        for boosted, zeros in product(RANDOM_SELECTIONS, ZEROS)
    ]
    bias_scenarios = [
        [
            Scenario(boosted=boosted, channel_spread=0, size=size, posts=number, simulations=simulations)
            for size, number in product(IMPRESSIONS, posts)
        ]
        for boosted in SAME_POST_SELECTIONS
    ]
    rows: list[Sequence[object]] = []
    failures: list[str] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for scenarios in coverage_scenarios:
            results = _simulate_all(pool, scenarios)
            failures += (each for pair in zip(scenarios, results, strict=True) for each in coverage_failures(*pair))
            # No post is in both channels if other posts are boosted.
            lifts = LIFTS[: 1 if scenarios[0].boosted == OTHER_POSTS else 2]
            rows += (_row(scenarios[0], [each[lift] for each in results], lift) for lift in lifts)
        for scenarios in bias_scenarios:
            results = _simulate_all(pool, scenarios)
            failures += (each for pair in zip(scenarios, results, strict=True) for each in bias_failures(*pair))
            means = (_range([each[lift].mean for each in results]) for lift in ("same_post_lift", "paid_lift"))
            row = _row(scenarios[0], [each["same_post_lift"] for each in results], "same_post_lift")
            rows.append((*row[:-2], *means))
    return Table(
        title=f"Coverage of the 95 % intervals of the lifts, in {simulations:,} simulations each",
        columns=("lift", "boosted", "80 % without", *IMPRESSIONS, "mean same_post_lift", "mean paid_lift"),
        rows=rows,
        note=f"Cells have the coverage in percent for {', '.join(map(str, posts))} posts {_NOTE}",
        failures=failures,
    )


_NOTE = (
    f"(– for fewer than {MIN_INTERVALS} intervals), and in brackets the percentage of simulations with an interval."
    " In the rows without means, the rates"
    f" of the channels of a post differ randomly by {100 * CHANNEL_SPREAD:g} %, and the coverage must be from"
    f" {100 * MIN_COVERAGE:g} to {100 * MAX_COVERAGE:g}, give or take two standard errors. In the rows with"
    " means, both channels of a post have the same rate and differ only by the selection of posts: the mean of"
    f" same_post_lift must be 1 within {100 * MAX_BIAS:g} %. If channels differ and posts are selected by their"
    " best observed rate, same_post_lift is too low: their organic rate was high by chance, their paid rate is not."
)


def _simulate_all(pool: ThreadPoolExecutor, scenarios: Sequence[Scenario]) -> list[dict[str, LiftResult]]:
    print(f"  {scenarios[0].boosted}, 80 % without {scenarios[0].zeros}", file=sys.stderr, flush=True)
    return [*pool.map(simulate, scenarios)]


def _row(first: Scenario, results: Sequence[LiftResult], lift: str) -> tuple[str, ...]:
    """Return the table row of a lift: a cell for each distribution, with the coverage for all numbers of posts."""
    cells = []
    numbers = len(results) // len(IMPRESSIONS)
    for start in range(0, len(results), numbers):
        of_size = results[start : start + numbers]
        covered = " ".join("–" if math.isnan(each.coverage) else f"{100 * each.coverage:.1f}" for each in of_size)
        cells.append(f"{covered} ({' '.join(f'{100 * each.intervals / each.simulations:.0f}' for each in of_size)})")
    return (lift, first.boosted, first.zeros, *cells, "", "")


def _range(means: Sequence[float]) -> str:
    return f"{min(means):.3f} to {max(means):.3f}"
