"""Whether paid engages better than organic, or chance alone would do: an interval around the paid lift.

The impressions of one post are not independent of each other: who sees a post sees the same post. So posts are what is
sampled, and each channel's rate is a ratio estimate over them. The log of the ratio of the two is linearised (Cochran,
Sampling Techniques, 3rd ed., ratio estimators; Deng, Knoblich and Lu 2018, Applying the Delta Method in Metric
Analytics): one residual a post, `z = (e − r·i)/E` of paid less the same of organic, whose sum of squares, times
`n/(n−1)`, is the variance. Posts that report both channels are in both parts of their residual, which takes care of
their covariance.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from later_reporting_dagster.contract import Channel
from later_reporting_dagster.rollups.columns import (
    COMPARED,
    ORGANIC_BETTER,
    PAID_BETTER,
    POSTS_TO_EXCEED,
    STANDARD_DEVIATIONS,
    UNDECIDED,
)
from later_reporting_dagster.rollups.measures import Columns, decimal

Numbers = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


class Results(NamedTuple):
    """What the posts of a channel got, a number a post; not a number where it does not report both."""

    engagements: Numbers
    impressions: Numbers


def lift_interval(results: Mapping[Channel, Results], *, group: Indices, groups: int) -> tuple[Numbers, Numbers]:
    """The low and high ends of the 95 % interval of each group's paid lift.

    Not a number where a rate is of too few posts or not above 0.

    Args:
        results: of each channel, as many numbers as there are posts.
        group: the number of each post's group, from 0 on. The order of posts decides the last bits.
        groups: how many groups there are.
    """

    def summed(values: Numbers) -> Numbers:
        return np.bincount(group, weights=values, minlength=groups).astype(np.float64, copy=False)

    residuals = np.zeros(len(group))
    is_known = np.ones(groups, dtype=bool)
    is_of_any = np.zeros(len(group), dtype=bool)
    rate: dict[Channel, Numbers] = {}
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for channel in COMPARED:
            reports = ~np.isnan(results[channel].engagements)
            engagements, impressions = (np.where(reports, values, 0.0) for values in results[channel])
            all_engagements, all_impressions = summed(engagements), summed(impressions)
            rate[channel] = all_engagements / all_impressions
            is_known &= (summed(reports.astype(float)) > POSTS_TO_EXCEED) & (rate[channel] > 0) & (all_impressions > 0)
            of_channel = engagements / all_engagements[group] - impressions / all_impressions[group]
            residuals += of_channel if channel is Channel.PAID else -of_channel
            is_of_any |= reports
        posts = summed(is_of_any.astype(float))
        deviation = np.sqrt(posts / (posts - 1) * summed(residuals**2))
        lift = rate[Channel.PAID] / rate[Channel.ORGANIC]
        low, high = (lift * np.exp(sign * STANDARD_DEVIATIONS * deviation) for sign in (-1, 1))
        return np.where(is_known, low, np.nan), np.where(is_known, high, np.nan)


def lift_columns_of(sums: Columns, *, group: Indices, groups: int) -> Columns:
    """The interval and the verdict of each group, from what is measured of each of its posts."""
    results = {
        channel: Results(*(decimal(sums[f"{channel}_rate_{part}"]).to_numpy() for part in Results._fields))
        for channel in COMPARED
    }
    low, high = lift_interval(results, group=group, groups=groups)
    verdict = np.where(low > 1, PAID_BETTER, np.where(high < 1, ORGANIC_BETTER, UNDECIDED)).astype(object)
    return {
        "paid_lift_low": pa.chunked_array([pa.array(low, from_pandas=True)]),
        "paid_lift_high": pa.chunked_array([pa.array(high, from_pandas=True)]),
        "paid_lift_verdict": pa.chunked_array([pa.array(verdict, pa.string(), mask=np.isnan(low))]),
    }
