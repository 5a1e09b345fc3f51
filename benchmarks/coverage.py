"""Simulates how often the intervals of the lifts hold the truth, by the rollups' own SQL: `make coverage`.

Each simulation draws the posts of one group: heavy-tailed impressions, a rate of engagement that differs between posts,
and between the channels of a post, and engagements by chance. A scenario's simulations are the campaigns of one month,
which `organic_paid_monthly.sql` compares at once.
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

from benchmarks.tables import Table
from later_reporting_dagster.contract import DateBasis
from later_reporting_dagster.lake import POSTS_SCHEMA
from later_reporting_dagster.rollups.rollup_tables import MONTHLY
from later_reporting_dagster.rollups.sql_engine import roll_up_days

SIMULATIONS, POSTS, CREATORS = 6_000, (31, 60, 120, 200), 12
LOWEST, HIGHEST, FEWEST_INTERVALS, MOST_BIAS = 0.93, 0.99, 100, 0.03
LIFTS = ("paid_lift", "same_post_lift")

CHANNEL_SPREAD = 0.4
_MEAN_RATE, _POST_SPREAD, _CREATOR_SPREAD, _REACH_SPREAD = 0.03, 0.6, 0.5, 0.5
_SHARE_OF_ZEROS = 0.8
_INSTANCE, _MONTH = "instance", date(2025, 1, 1)

Values = NDArray[np.float64]
Shape = tuple[int, ...]


def _lognormal(spread: float) -> Callable[[np.random.Generator, Shape], Values]:
    return lambda chance, shape: 3000 * np.exp(spread * chance.standard_normal(shape))


# By what law impressions differ between posts.
SIZES: dict[str, Callable[[np.random.Generator, Shape], Values]] = {
    "lognormal 1.0": _lognormal(1.0),
    "lognormal 1.4": _lognormal(1.4),
    "lognormal 2.0": _lognormal(2.0),
    "Pareto 1.2": lambda chance, shape: 1000 * (1 - chance.random(shape)) ** (-1 / 1.2),
}
# Which posts are boosted: others than the organic ones, a third of these, or all posts of half of the creators.
APART, THIRD, WHOLE_CREATORS = "other posts", "random third", "whole creators"
BY_CHANCE = (APART, THIRD, WHOLE_CREATORS)
CHOSEN = (THIRD, "best true rate", "best observed rate", "most engagements", WHOLE_CREATORS)
# What 80 % of the posts have none of.
ZEROS = ("nothing", "engagements", "paid engagements")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Groups without a true difference between the channels, unless most posts have no paid engagements.

    Attributes:
        boosted: which posts are: of `BY_CHANCE` or `CHOSEN`.
        size: the law of impressions, of `SIZES`.
        posts: how many organic posts a group has.
        zeros: what 80 % of the posts have none of, of `ZEROS`.
        channel_spread: by how much the rate of a channel of a post differs from the post's own.
        simulations: how many groups.
    """

    boosted: str
    size: str
    posts: int
    zeros: str = "nothing"
    channel_spread: float = CHANNEL_SPREAD
    simulations: int = SIMULATIONS

    @property
    def truth(self) -> float:
        """The ratio of the rates that posts are drawn from."""
        return 1 - _SHARE_OF_ZEROS if self.zeros == "paid engagements" else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """In how many simulations an interval is given, and holds the truth, and the mean of the lift by the truth."""

    simulations: int
    given: int
    holding: int
    mean: float

    @property
    def coverage(self) -> float:
        """The share of the intervals given that hold the truth; not a number where they are too few to tell."""
        return self.holding / self.given if self.given >= FEWEST_INTERVALS else math.nan

    @property
    def is_covered(self) -> bool:
        """Whether the coverage is within its limits, allowing two standard errors, or cannot be told."""
        error = 2 * math.sqrt(self.coverage * (1 - self.coverage) / max(self.given, 1))
        return not (self.coverage < LOWEST - error or self.coverage > HIGHEST + error)


def posts_of(scenario: Scenario, chance: np.random.Generator) -> pa.Table:
    """Draw the posts of all simulations as raw rows of a day, of which each simulation is a campaign."""
    shape = (scenario.simulations, scenario.posts * (2 if scenario.boosted == APART else 1))
    creator = np.arange(shape[1]) % (CREATORS if scenario.boosted == WHOLE_CREATORS else 1)
    impressions = [SIZES[scenario.size](chance, shape) for _ in range(2)]
    quality = _factor(chance, _POST_SPREAD, shape)
    if scenario.boosted == WHOLE_CREATORS:
        quality *= _factor(chance, _CREATOR_SPREAD, (shape[0], CREATORS))[:, creator]
        reach = np.exp(_REACH_SPREAD * chance.standard_normal((shape[0], CREATORS)))[:, creator]
        impressions = [each * reach for each in impressions]
    impressions = [np.ceil(each) for each in impressions]
    rates = [_MEAN_RATE * quality * _factor(chance, scenario.channel_spread, shape) for _ in range(2)]
    is_live = chance.random(shape) >= _SHARE_OF_ZEROS
    for rate in {"nothing": (), "engagements": rates, "paid engagements": rates[1:]}[scenario.zeros]:
        rate *= is_live  # noqa: PLW2901 - in place
    engagements = chance.poisson(rates[0] * impressions[0])
    is_paid = _boosted(scenario, quality, engagements, impressions[0], creator, chance)
    is_organic = ~is_paid if scenario.boosted == APART else np.ones(shape, bool)
    paid_engagements = chance.poisson(rates[1] * impressions[1] * is_paid)
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
        "date": pa.repeat(_MONTH, rows),
        "instance_id": pa.repeat(_INSTANCE, rows),
    }
    absent = {field.name: pa.nulls(rows, field.type) for field in POSTS_SCHEMA if field.name not in columns}
    return pa.table(columns | absent)


def _factor(chance: np.random.Generator, spread: float, shape: Shape) -> Values:
    """Positive factors of mean 1 and standard deviation `spread`."""
    if not spread:
        return np.ones(shape)
    return chance.gamma(1 / spread**2, spread**2, shape)


def _reported(values: NDArray[np.generic], where: NDArray[np.bool_]) -> pa.Array:
    return pa.array(values.astype(np.int64).ravel(), mask=~where.ravel())


def _boosted(
    scenario: Scenario,
    quality: Values,
    engagements: NDArray[np.int64],
    impressions: Values,
    creator: NDArray[np.int64],
    chance: np.random.Generator,
) -> NDArray[np.bool_]:
    """Which posts are boosted, from what whoever chooses them knows."""
    if scenario.boosted == APART:
        return np.broadcast_to(np.arange(len(creator)) >= scenario.posts, quality.shape)
    if scenario.boosted == WHOLE_CREATORS:
        return np.broadcast_to(creator < CREATORS // 2, quality.shape)
    known = {
        THIRD: 0,
        "best true rate": quality,
        "best observed rate": engagements / impressions,
        "most engagements": engagements,
    }
    score = known[scenario.boosted] + 1e-9 * chance.random(quality.shape)  # ties are broken at random
    least = np.partition(score, -(scenario.posts // 3), axis=1)[:, -(scenario.posts // 3), None]
    return score >= least


def simulated(scenario: Scenario) -> dict[str, Found]:
    """Simulate a scenario, the same way each time, and return what was found of each lift."""
    names = (scenario.boosted, scenario.size, scenario.zeros)
    chance = np.random.default_rng([scenario.posts, *(int.from_bytes(name.encode()) for name in names)])
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("post_metrics_daily", posts_of(scenario, chance))
        groups = roll_up_days(connection, MONTHLY, {DateBasis.PERFORMANCE_DATE: {_INSTANCE: {_MONTH}}})
    return {lift: _found(groups, lift, scenario) for lift in LIFTS}


def _found(groups: pa.Table, lift: str, scenario: Scenario) -> Found:
    low, high = (groups[f"{lift}_{side}"] for side in ("low", "high"))
    holds = pc.and_(pc.less_equal(low, scenario.truth), pc.greater_equal(high, scenario.truth))
    return Found(
        simulations=scenario.simulations,
        given=len(low) - low.null_count,
        holding=pc.sum(holds).as_py() or 0,
        mean=pc.mean(groups[lift]).as_py() or math.nan,
    )


def uncovered(scenario: Scenario, found: Mapping[str, Found]) -> Iterator[str]:
    """Yield the lifts whose intervals do not hold the truth as often as they must."""
    for lift, each in found.items():
        if not each.is_covered:
            yield f"{_named(scenario)}: {100 * each.coverage:.1f} % of {each.given} intervals of {lift} hold the truth"


def biased(scenario: Scenario, found: Mapping[str, Found]) -> Iterator[str]:
    """Yield the same-post lift if it is not 1 on average."""
    mean = found["same_post_lift"].mean
    if abs(mean - 1) > MOST_BIAS:
        yield f"{_named(scenario)}: same_post_lift is {mean:.3f} on average"


def _named(scenario: Scenario) -> str:
    return f"{scenario.boosted}, {scenario.size}, {scenario.posts} posts, 80 % without {scenario.zeros}"


def coverage() -> Table:
    """Simulate all scenarios, on a thread a processor."""
    by_chance = [
        [Scenario(boosted=boosted, zeros=zeros, size=size, posts=posts) for size, posts in product(SIZES, POSTS)]
        for boosted, zeros in product(BY_CHANCE, ZEROS)
    ]
    chosen = [
        [Scenario(boosted=boosted, channel_spread=0, size=size, posts=posts) for size, posts in product(SIZES, POSTS)]
        for boosted in CHOSEN
    ]
    rows: list[Sequence[object]] = []
    failures: list[str] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for scenarios in by_chance:
            found = _all_simulated(pool, scenarios)
            failures += (each for pair in zip(scenarios, found, strict=True) for each in uncovered(*pair))
            # Other posts are never in both channels.
            lifts = LIFTS[: 1 if scenarios[0].boosted == APART else 2]
            rows += (_row(scenarios[0], [each[lift] for each in found], lift) for lift in lifts)
        for scenarios in chosen:
            found = _all_simulated(pool, scenarios)
            failures += (each for pair in zip(scenarios, found, strict=True) for each in biased(*pair))
            means = (_range([each[lift].mean for each in found]) for lift in ("same_post_lift", "paid_lift"))
            rows.append(
                (*_row(scenarios[0], [each["same_post_lift"] for each in found], "same_post_lift")[:-2], *means)
            )
    return Table(
        title=f"Of how many 95 % intervals hold the truth, in {SIMULATIONS:,} simulations each",
        columns=("lift", "boosted", "80 % without", *SIZES, "mean same_post_lift", "mean paid_lift"),
        rows=rows,
        note=_NOTE,
        failures=failures,
    )


_NOTE = (
    f"In each cell: of {', '.join(map(str, POSTS))} posts the percentage of the intervals given that hold the truth (–"
    f" under {FEWEST_INTERVALS} intervals), and in brackets how often one is given. It must be {100 * LOWEST:g} to"
    f" {100 * HIGHEST:g}, allowing two standard errors, in the rows without means, where the rates of the channels of a"
    f" post differ by chance by {100 * CHANNEL_SPREAD:g} %. In the rows with means both channels of a post have one"
    f" rate, so that nothing but the choice of posts distinguishes them: the mean of same_post_lift must be 1 within"
    f" {100 * MOST_BIAS:g} %. Posts chosen for a lucky organic channel lose that luck in the paid one, so that"
    " same_post_lift comes out too low where channels differ and the best observed rate is boosted."
)


def _all_simulated(pool: ThreadPoolExecutor, scenarios: Sequence[Scenario]) -> list[dict[str, Found]]:
    print(f"  {scenarios[0].boosted}, 80 % without {scenarios[0].zeros}", file=sys.stderr, flush=True)
    return [*pool.map(simulated, scenarios)]


def _row(first: Scenario, found: Sequence[Found], lift: str) -> tuple[str, ...]:
    """The coverage of the sizes, each of all numbers of posts."""
    cells = []
    for start in range(0, len(found), len(POSTS)):
        of_size = found[start : start + len(POSTS)]
        covered = " ".join("–" if math.isnan(each.coverage) else f"{100 * each.coverage:.1f}" for each in of_size)
        cells.append(f"{covered} ({' '.join(f'{100 * each.given / each.simulations:.0f}' for each in of_size)})")
    return (lift, first.boosted, first.zeros, *cells, "", "")


def _range(means: Sequence[float]) -> str:
    return f"{min(means):.3f} to {max(means):.3f}"


def main() -> None:
    """Simulate, print the table, and fail with what is outside its limits."""
    table = coverage()
    print(table.markdown())
    sys.exit("\n".join(table.failures) or 0)


if __name__ == "__main__":
    main()
