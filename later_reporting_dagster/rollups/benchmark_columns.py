"""Columns of the tables about single posts: what each post has earned, and what posts typically earn by an age."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from later_reporting_dagster.contract import Metric
from later_reporting_dagster.lake.columns import Column
from later_reporting_dagster.rollups.rollup_columns import (
    CHANNELS,
    RESULTS,
    comparison,
    is_post_count,
    post_columns_named,
    totals,
)

LABELS = (
    "platform",
    "content_type",
    "creator_id",
    "creator_handle_name",
    "creator_full_name",
    "content_url",
    "post_date",
)
# Curves end, and posts are no longer benchmarked, at this age in days.
MAXIMUM_AGE = 90
MAXIMUM_PEERS, MINIMUM_PEERS = 1000, 20
QUARTILES = (25, 50, 75)
# The measures by which a post is ranked among its peers.
RANKED = ("organic_impressions", "organic_engagement_rate")

_SEEN = "every day from the publication to the age has a file of the instance in post_metrics_daily"
_SAMPLE = (
    f"If posts_published has more than {MAXIMUM_PEERS:,} rows of the platform and content type in these days, a sample"
    f" of about {MAXIMUM_PEERS:,} posts, which depends on their ids only"
)
_LAST_DAY = Column("last_day", "date32[day]", False, "The last day whose results count", "", "The newest day of"
                   " post_metrics_daily that has a file of any instance")  # fmt: skip


def _measures(metrics: Sequence[Metric]) -> list[Column]:
    """Return the sums and the engagement rates of a post."""
    rates = (column for column in comparison(metrics, intervals=False) if column.unit == "percent")
    return [
        *(column for column in totals(metrics) if not is_post_count(column.name)),
        *(column for column in rates if "_engagement_rate" in column.name),
    ]


def _curve_measures(metrics: Sequence[Metric]) -> list[Column]:
    counts = {f"{channel}_{unit}" for channel in CHANNELS for unit in (*RESULTS, "views")}
    return [column for column in _measures(metrics) if column.name in counts or "_engagement_rate" in column.name]


def benchmark_columns(metrics: Sequence[Metric]) -> Iterator[Column]:
    """Yield the columns of `post_benchmarks`."""
    yield _LAST_DAY
    yield from post_columns_named(
        ("instance_id", "post_id", *LABELS), "The value in the post's newest row of posts_published; if the post is in"
        " several campaigns, in the row with the lowest campaign id",
    )  # fmt: skip
    yield Column("age", "int64", False, "Days since publication, 0 on the day", "days", "last_day minus the day of"
                 " publication")  # fmt: skip
    yield Column("days", "int64", False, "Days from publication to last_day that have a file of the instance", "days",
                 "Number of days with a file of post_metrics_daily")  # fmt: skip
    yield Column("days_expected", "int64", False, "Days from publication to last_day", "days", "age + 1")
    for column in _measures(metrics):
        yield replace(
            column, description=f"{column.description}, to last_day", computation="Sum of the post's days in"
            " post_metrics_daily; of each day, the row with the lowest campaign id. Null if no day reports it"
            if column.unit != "percent" else column.computation,
        )  # fmt: skip
    for channel in CHANNELS:
        raw = "engagements" if channel is CHANNELS[0] else "paid_engagements"
        yield Column(f"{channel}_engagements_last_7_days", "int64", True, f"{channel.capitalize()} engagements of the"
                     " 7 days up to last_day", "engagements", "Like the engagements", (raw,))  # fmt: skip
    yield Column("peers", "int64", False, "Other posts that the post is compared with", "posts", "Number of other posts"
                 " of the same platform and content type, published in the 365 days up to last_day, that were seen at"
                 f" the same age: {_SEEN}. {_SAMPLE}")  # fmt: skip
    for name in RANKED:
        (measure,) = (column for column in _measures(metrics) if column.name == name)
        yield Column(
            f"{name}_percentile", "float64", True, f"Where {name} stands among the peers at the same age: 0 is the"
            " lowest, 100 the highest", "percent", "Percentage of the peers reporting it that had less by that age;"
            f" peers with equally much count half. Null if fewer than {MINIMUM_PEERS} peers report it, if the post does"
            " not, or if days differs from days_expected", measure.source_columns,
        )  # fmt: skip


def age_columns(metrics: Sequence[Metric]) -> Iterator[Column]:
    """Yield the columns of `organic_paid_by_age`."""
    yield _LAST_DAY
    yield from post_columns_named(LABELS[:2], "The value in the post's newest row of posts_published")
    yield Column("age", "int64", False, "Days since publication, 0 on the day", "days", f"0 to {MAXIMUM_AGE - 1}")
    yield Column("posts", "int64", False, "Posts seen at the age, with or without metrics", "posts", "Number of posts"
                 f" published in the 365 days up to last_day of which {_SEEN}. {_SAMPLE}")  # fmt: skip
    for column in _curve_measures(metrics):
        yield Column(f"{column.name}_posts", "int64", False, f"Posts that had reported {column.name} by the age",
                     "posts", "Number of posts", column.source_columns)  # fmt: skip
        for percent in QUARTILES:
            yield replace(
                column, name=f"{column.name}_p{percent}", description=f"{percent} % of the posts had at most this"
                f" {column.name} by the age", computation=f"The smallest {column.name} that at least {percent} % of"
                f" {column.name}_posts do not exceed, each summed from the publication to the age",
            )  # fmt: skip


def template_variables(metrics: Sequence[Metric]) -> dict[str, Any]:
    """Return the variables of post_curves.sql and of the SQL files of both tables."""
    return {
        "post_labels": LABELS,
        "maximum_age": MAXIMUM_AGE,
        "maximum_peers": MAXIMUM_PEERS,
        "minimum_peers": MINIMUM_PEERS,
        "quartiles": QUARTILES,
        "ranked": RANKED,
        "post_rates": [column.name for column in _measures(metrics) if column.unit == "percent"],
        "curve_measures": [column.name for column in _curve_measures(metrics)],
    }
