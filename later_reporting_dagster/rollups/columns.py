"""The dictionaries of the rolled-up tables, derived from the metric table. Nothing here needs Arrow."""

from collections.abc import Iterator

from later_reporting_dagster.contract import DOCUMENT_METRICS, Channel, Metric
from later_reporting_dagster.lake.columns import POST_COLUMNS, Column, type_of

GRAIN = ("instance_id", "campaign_id", "platform", "content_type")


def measure_of(metric: Metric) -> str:
    """What a metric measures, whatever its channel: `impressions` for both `impressions` and `paid_impressions`."""
    return metric.column.removeprefix(f"{metric.channel}_").removesuffix("_generated")


# Measure -> its metric in each channel that has it, of those that add up.
SUMMED: dict[str, list[Metric]] = {}
for _metric in DOCUMENT_METRICS:
    if _metric.kind.adds_up:
        SUMMED.setdefault(measure_of(_metric), []).append(_metric)

# The two channels that are compared. Rates and unit costs are theirs, as the document defines them for both.
COMPARED = (Channel.ORGANIC, Channel.PAID)

# Channel -> measure -> the post's column.
OF_CHANNEL: dict[Channel, dict[str, str]] = {
    channel: {measure_of(metric): metric.column for metric in DOCUMENT_METRICS if metric.channel is channel}
    for channel in COMPARED
}


def sum_name(metric: Metric) -> str:
    """The column of a metric's sum."""
    return f"{metric.channel}_{measure_of(metric)}"


# The sums that the tables tell the number of posts of.
COUNTED = frozenset(
    {
        *(sum_name(metric) for metrics in SUMMED.values() for metric in metrics),
        *(f"{channel}_spend_minimum" for channel in COMPARED),
    }
)


def _money(name: str, description: str, unit: str = "currency") -> Column:
    return Column(name, "float64", True, description, unit)


def _number_of_posts(name: str, description: str) -> Column:
    return Column(name, "int64", False, description, "posts")


def _grain_columns() -> Iterator[Column]:
    described = {column.name: column for column in POST_COLUMNS}
    yield from (described[name] for name in GRAIN)
    yield _number_of_posts("posts", "Posts of the group, with or without metrics")


def _sum_columns() -> Iterator[Column]:
    for metrics in SUMMED.values():
        for metric in metrics:
            description = f"{metric.description}, summed; null when no post of the group reports it, 0 is measured"
            yield Column(sum_name(metric), type_of(metric), True, description, metric.unit)
        for metric in metrics:
            name = sum_name(metric)
            yield _number_of_posts(f"{name}_posts", f"How many posts {name} is the sum of")


def _rate_columns() -> Iterator[Column]:
    for channel in COMPARED:
        yield Column(
            f"{channel}_engagement_rate",
            "float64",
            True,
            f"{channel.capitalize()} engagements per 100 impressions: sum by sum, over just the posts that report both;"
            " null when there are none, or no impressions",
            "percent",
        )
    for measure in ("impressions", "engagements"):
        yield Column(
            f"paid_share_of_{measure}",
            "float64",
            True,
            f"paid_{measure} of organic_{measure} + paid_{measure}, each over the posts that report it; null when one"
            " of the two is null, because then the whole is not known, or when both are 0",
            "percent",
        )
    yield Column(
        "paid_lift",
        "float64",
        True,
        "paid_engagement_rate / organic_engagement_rate: above 1, paid engages better; null when one of them is null"
        " or the organic rate is 0",
        "ratio",
    )


def _spend_columns() -> Iterator[Column]:
    bounded = "bounded by the posts' CPE and CPM, each known to half a cent"
    for channel in COMPARED:
        spend = f"{channel}_spend"
        for side, most in (("minimum", "least"), ("maximum", "most")):
            yield _money(f"{spend}_{side}", f"The {most} that the posts of {spend}_posts cost, {bounded}")
        yield _number_of_posts(f"{spend}_posts", f"Posts whose {channel} spend is bounded: those that the bounds sum")
        yield _number_of_posts(
            f"{spend}_contradictory_posts",
            f"Posts whose {channel} CPE and CPM cannot both be true; they are in no bounds",
        )
        for unit_cost, measure, unit in (
            ("cpe", "engagements", "engagement"),
            ("cpm", "impressions", "1000 impressions"),
        ):
            for side in ("minimum", "maximum"):
                yield _money(
                    f"{channel}_{unit_cost}_{side}",
                    f"The {side} of spend per {unit}: sum by sum, over just the posts whose spend is bounded and that"
                    f" report {measure}; null when there are none, or no {measure}",
                    f"currency per {unit}",
                )


ORGANIC_PAID_DAILY_COLUMNS: tuple[Column, ...] = (*_grain_columns(), *_sum_columns(), *_rate_columns())
ORGANIC_PAID_BY_PUBLISH_DAY_COLUMNS: tuple[Column, ...] = (*ORGANIC_PAID_DAILY_COLUMNS, *_spend_columns())
