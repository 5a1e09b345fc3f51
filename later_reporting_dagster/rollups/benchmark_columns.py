"""Columns of the tables about single posts: what each post has earned, and what posts typically earn by an age."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from later_reporting_dagster.contract import Metric
from later_reporting_dagster.lake.tables import Column
from later_reporting_dagster.rollups.rollup_columns import (
    CHANNELS,
    COMPARED_COUNTS,
    comparison,
    computed_column,
    post_columns_named,
    raw_column,
    totals,
)

LABELS = (
    *("platform", "content_type", "creator_id", "creator_handle_name", "creator_full_name"),
    *("content_url", "post_date"),
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
_LAST_DAY = Column(
    *("last_day", "date32[day]", False, "The last day whose results count", ""),
    "The newest day of post_metrics_daily that has a file of any instance",
)


def _measures(metrics: Sequence[Metric]) -> list[Column]:
    rates = (column for column in comparison(metrics) if column.unit == "percent")
    return [
        *(column for column in totals(metrics) if column.unit != "posts"),
        *(column for column in rates if "_engagement_rate" in column.name),
    ]


def _curve_measures(metrics: Sequence[Metric]) -> list[Column]:
    counts = {f"{channel}_{unit}" for channel in CHANNELS for unit in (*COMPARED_COUNTS, "views")}
    return [column for column in _measures(metrics) if column.name in counts or "_engagement_rate" in column.name]


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


# A column is a few lines of text.
# fmt: off


def benchmark_columns(metrics: Sequence[Metric]) -> Iterator[Column]:
    """Yield the columns of `post_benchmarks`."""
    measures = {column.name: column for column in _measures(metrics)}
    yield _LAST_DAY
    yield from post_columns_named(("instance_id", "post_id", *LABELS), "The value in the post's newest row of"
        " posts_published; if the post is in several campaigns, in the row with the lowest campaign id")
    yield computed_column("age", "days", "Days since publication, 0 on the day",
        "last_day minus the day of publication")
    yield computed_column("days", "days", "Days from publication to last_day that have a file of the instance",
        "Number of days with a file of post_metrics_daily")
    yield computed_column("days_expected", "days", "Days from publication to last_day", "age + 1")
    summed = ("Sum of the post's days in post_metrics_daily; of each day, the row with the lowest campaign id. Null if"
        " no day reports it")
    for column in measures.values():
        computed = column.computation if column.unit == "percent" else summed
        yield replace(column, description=f"{column.description}, to last_day", computation=computed)
    for channel in CHANNELS:
        yield computed_column(f"{channel}_engagements_last_7_days", "engagements", f"{channel.capitalize()}"
            " engagements of the 7 days up to last_day", "Like the engagements", [raw_column(channel, "engagements")])
    yield computed_column("peers", "posts", "Other posts that the post is compared with", "Number of other posts of"
        " the same platform and content type, published in the 365 days up to last_day, that were seen at the same age:"
        f" {_SEEN}. {_SAMPLE}")
    for name in RANKED:
        yield computed_column(f"{name}_percentile", "percent", f"Where {name} stands among the peers at the same age:"
            " 0 is the lowest, 100 the highest", "Percentage of the peers reporting it that had less by that age;"
            f" peers with equally much count half. Null if fewer than {MINIMUM_PEERS} peers report it, if the post"
            " does not, or if days differs from days_expected", measures[name].source_columns)


def age_columns(metrics: Sequence[Metric]) -> Iterator[Column]:
    """Yield the columns of `organic_paid_by_age`."""
    yield _LAST_DAY
    yield from post_columns_named(LABELS[:2], "The value in the post's newest row of posts_published")
    yield computed_column("age", "days", "Days since publication, 0 on the day", f"0 to {MAXIMUM_AGE - 1}")
    yield computed_column("posts", "posts", "Posts seen at the age, with or without metrics", "Number of posts"
        f" published in the 365 days up to last_day of which {_SEEN}. {_SAMPLE}")
    for column in _curve_measures(metrics):
        yield computed_column(f"{column.name}_posts", "posts", f"Posts that had reported {column.name} by the age",
            "Number of posts", column.source_columns)
        for percent in QUARTILES:
            yield replace(column, name=f"{column.name}_p{percent}",
                description=f"{percent} % of the posts had at most this {column.name} by the age",
                computation=f"The smallest {column.name} that at least {percent} % of {column.name}_posts do not"
                " exceed, each summed from the publication to the age")
