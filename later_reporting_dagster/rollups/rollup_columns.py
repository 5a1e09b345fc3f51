"""Columns of the rollup tables: the meaning and computation of each. docs/tables.md is generated from them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from later_reporting_dagster.contract import CAMPAIGN_METRICS, DEFAULT_METRICS, Metric
from later_reporting_dagster.contract.metrics import Channel
from later_reporting_dagster.lake.tables import (
    CAMPAIGN_COLUMNS,
    CAMPAIGN_WINDOWS,
    POST_COLUMNS,
    POST_KEY,
    Column,
    ColumnType,
    metric_column_type,
)

# Window name -> its length in days; None: all days that have a file.
WINDOWS: Mapping[str, int | None] = {"7d": 7, "28d": 28, "90d": 90, "365d": 365, "all": None}
GRAIN = ("instance_id", "campaign_id", "platform", "content_type")
CHANNELS = (Channel.ORGANIC, Channel.PAID)
COMPARED_COUNTS = ("impressions", "engagements")
# Unit cost, its measure, and how many of them it is the cost of.
UNIT_COSTS = (("cpe", "engagements", 1), ("cpm", "impressions", 1000))
# A same-post rate ratio of fewer posts, or of posts of fewer creators, is null.
MINIMUM_SAME_POSTS, MINIMUM_SAME_POST_CREATORS = 20, 5
# The columns of the comparison that windows also have for the previous period.
PREVIOUS = (
    *("posts", "organic_impressions", "paid_impressions", "organic_engagements", "paid_engagements"),
    *("organic_estimated_value", "organic_engagement_rate", "paid_engagement_rate"),
)
# What the descriptions of api_… columns say.
NO_PRICE = (
    "The API's figure: the whole cost of each post that is active in the window over a part of its results, so it is no"
    " price; do not compare it with paid results or between windows"
)


def measure_of(metric: Metric) -> str:
    """Return the measure of a metric, without the channel: `impressions` for `impressions` and `paid_impressions`."""
    return metric.column.removeprefix(f"{metric.channel}_").removesuffix("_generated")


def sum_name(metric: Metric) -> str:
    """Return the name of the column that holds the sum of a metric: `organic_impressions` for `impressions`."""
    return f"{metric.channel}_{measure_of(metric)}"


def raw_column(channel: Channel, measure: str) -> str:
    """Return the column of the raw tables that holds a measure of a channel."""
    return measure if channel is Channel.ORGANIC else f"{channel}_{measure}"


def additive_metrics(metrics: Iterable[Metric]) -> list[Metric]:
    """Return the metrics that add up, with the channels of one measure next to each other."""
    additive = [metric for metric in metrics if metric.kind.adds_up_over_days]
    measures = [*dict.fromkeys(measure_of(metric) for metric in additive)]
    return sorted(additive, key=lambda metric: measures.index(measure_of(metric)))


def computed_column(name: str, unit: str, description: str, computation: str, made_from: Iterable[str] = ()) -> Column:
    """Return a column of numbers. Posts and days are counted, and never null."""
    is_count = unit in ("posts", "days")
    type_: ColumnType = "int64" if is_count or unit in COMPARED_COUNTS else "float64"
    return Column(name, type_, not is_count, description, unit, computation, tuple(made_from))


def _raw(*measures: str) -> list[str]:
    return [raw_column(channel, measure) for channel in CHANNELS for measure in measures]


# A column is a few lines of text.
# fmt: off

# Keys


def post_columns_named(names: Sequence[str], computed: str) -> Iterator[Column]:
    """Yield columns that are copied from posts. `computed` says from which row; key columns omit it."""
    post_columns = {column.name: column for column in POST_COLUMNS}
    for name in names:
        yield replace(post_columns[name], source_columns=(name,), computation="" if name in POST_KEY else computed)


def creator_labels(names: Sequence[str]) -> Iterator[Column]:
    return post_columns_named(names, "The value in the newest row of the creator's newest post: in posts_published, or"
        " in post_metrics_daily if the creator has no post there. If several posts have the same time, the highest"
        " campaign id, then post id")


def campaign_labels(names: Sequence[str]) -> Iterator[Column]:
    """Yield columns that are copied from `campaigns`; `campaign_status` is its `status`."""
    columns = {column.name: column for column in CAMPAIGN_COLUMNS}
    for name in names:
        source = "status" if name == "campaign_status" else name
        computed = "The value in campaigns; null if the API never listed the campaign"
        yield replace(columns[source], name=name, computation=computed, source_columns=(source,))


def window() -> Iterator[Column]:
    """Yield the columns that identify the window of a row."""
    yield Column("time_window", "string", False, f"Window: {', '.join(WINDOWS)}", "",
        "The last 7, 28, 90 or 365 days, or all days that have a file")
    yield Column("first_day", "date32[day]", False, "First day of the window", "", "last_day minus the window's length"
        " plus one day; for all, the oldest day that has a file")
    yield Column("last_day", "date32[day]", False, "Last day of the window", "",
        "The newest day that has a file of any instance")


def day_counts(*, of_all_instances: bool = False) -> Iterator[Column]:
    """Yield the number of days of a period, and how many of them have a file of the row's instance."""
    of_days, of_expected = "", ""
    if of_all_instances:
        of_days = "; for all instances, the sum over the instances"
        of_expected = "; for all instances, times the number of instances"
    yield computed_column("days", "days", "Days of the period that have a file of the instance",
        f"Number of days with a file, with or without posts{of_days}")
    yield computed_column("days_expected", "days", "Days of the period",
        f"Number of days, with or without a file{of_expected}")


# Comparison of the channels


def comparison(metrics: Sequence[Metric], *, of_one_creator: bool = False) -> Iterator[Column]:
    """Yield totals, rates and their ratios. One creator has no same-post rate ratio, which takes several."""
    yield from totals(metrics)
    for channel in CHANNELS:
        yield _rate(channel, "impressions")
        name = f"{channel}_engagement_rate"
        yield computed_column(f"{name}_posts", "posts", f"Posts included in {name}, and so in rate_ratio",
            "Posts with a row that is in the rate", (raw_column(channel, result) for result in COMPARED_COUNTS))
    yield computed_column("paid_share_of_impressions", "percent", "Paid share of all impressions",
        "100 × paid / (organic + paid), each over the posts that report it; null if one is null or the sum is not above"
        " 0. Compare organic_impressions_posts and paid_impressions_posts: a channel that fewer posts report is"
        " understated", _raw("impressions"))
    yield _ratio("impressions")
    if not of_one_creator:
        yield computed_column("same_post_rate_ratio", "ratio", "rate_ratio within the posts that have both rates",
            "Mantel-Haenszel rate ratio: Σ paid engagements × w(organic) / Σ organic engagements × w(paid), over"
            " same_posts; w: the channel's share of the post's impressions. The term of each post is exact to 18"
            f" decimals. Null below {MINIMUM_SAME_POSTS} same_posts, or if these are of fewer than"
            f" {MINIMUM_SAME_POST_CREATORS} creators, where each post without a creator counts as one",
            _raw(*COMPARED_COUNTS))
    yield computed_column("same_posts", "posts", "Posts that have both rates",
        "Posts whose impressions in the organic and in the paid rate are above 0", _raw(*COMPARED_COUNTS))
    yield computed_column("same_posts_paid_higher", "posts", "Posts of same_posts whose paid rate is higher than their"
        " organic rate", "Number of posts", _raw(*COMPARED_COUNTS))
    requested = {metric.column for metric in metrics}
    by_views = [channel for channel in CHANNELS if raw_column(channel, "views") in requested]
    yield from (_rate(channel, "views") for channel in by_views)
    if len(by_views) == len(CHANNELS):
        yield _ratio("views")


def totals(metrics: Iterable[Metric]) -> Iterator[Column]:
    """Yield the number of posts, and for each metric its sum and the number of posts that report it."""
    yield computed_column("posts", "posts", "Posts of the group, with or without metrics",
        "Number of posts, each counted once. If the grain has no campaign and a post is in several campaigns, only its"
        " row with the lowest campaign id is used on each day", ["post_id"])
    for metric in additive_metrics(metrics):
        name = sum_name(metric)
        yield _sum(metric, name, "Sum; null if no post of the group reports the metric, 0 is a measured zero")
        posts = computed_column(f"{name}_posts", "posts", f"Posts included in {name}", "Posts that report the metric",
            [metric.column])
        # Metrics of the API reference are in every file, so their post counts are never null.
        yield posts if metric in DEFAULT_METRICS else replace(posts, nullable=True)


def _sum(metric: Metric, name: str, computed: str) -> Column:
    return Column(name, metric_column_type(metric), True, metric.description, metric.unit, computed, (metric.column,))


def _suffix(measure: str) -> str:
    return "" if measure == "impressions" else f"_by_{measure}"


def _rate(channel: Channel, measure: str) -> Column:
    return computed_column(f"{channel}_engagement_rate{_suffix(measure)}", "percent",
        f"{channel.capitalize()} engagements per 100 {measure}", f"100 × sum / sum, over the rows (a post, or a post on"
        f" a day) that report engagements, and {measure} other than 0; null unless the divisor is above 0",
        [raw_column(channel, each) for each in (measure, "engagements")])


def _ratio(measure: str) -> Column:
    rate = f"engagement_rate{_suffix(measure)}"
    return computed_column(f"rate_ratio{_suffix(measure)}", "ratio", "Paid rate divided by organic rate",
        f"paid_{rate} / organic_{rate}; null if one is null or the organic rate is not above 0",
        _raw(measure, "engagements"))


def previous() -> Iterator[Column]:
    """Yield the columns of the period before a window, which has the same number of days."""
    computed = "over the same number of days before first_day. Null for the window all"
    yield Column("previous_days", "int64", True, "Days of the previous period that have a file of the instance", "days",
        f"Like days, {computed}")
    columns = {column.name: column for column in comparison(DEFAULT_METRICS)}
    for name in PREVIOUS:
        yield replace(columns[name], name=f"previous_{name}", nullable=True,
            description=f"{name} of the previous period",
            computation=f"Like {name}, {computed}, and if no day of the period has a file")


# Costs


def costs() -> Iterator[Column]:
    """Yield the spend, computed from the unit costs. The API does not report the spend itself."""
    yield computed_column("posts", "posts", "Posts published, with or without metrics",
        "Number of posts, each counted once. If the grain has no campaign, only the row of a post with the lowest"
        " campaign id is used", ["post_id"])
    for channel in CHANNELS:
        made_from = [raw_column(channel, name) for name in ("cpe", "engagements", "cpm", "impressions")]
        yield computed_column(f"{channel}_posts", "posts", f"Posts that report {channel} impressions or engagements",
            "Number of posts", made_from[1::2])
        yield from _spend(channel, f"Spend on {channel} results, of the posts in {channel}_spend_posts",
            "Sum of the middles of the posts' bounds. CPE × engagements and CPM × impressions / 1000 are the same cost;"
            " each unit cost is rounded to a cent, so it is known within half a cent. Null if no post has bounds",
            made_from)
        yield computed_column(
            f"{channel}_spend_posts", "posts", f"Posts whose {channel} spend has bounds", "Number of posts", made_from)
        yield computed_column(f"{channel}_contradictory_posts", "posts", f"Posts whose {channel} CPE and CPM contradict"
            " each other; they are not included in the spend", "Posts whose two cost intervals do not overlap",
            made_from)
        yield from _unit_costs(channel, f"Sum over the posts of {channel}_spend_posts that report", made_from)
    all_raw, added = _raw("cpe", "engagements", "cpm", "impressions"), "Organic plus paid; null if one is null"
    yield from _spend("total", "Spend on both channels", added, all_raw)
    yield from _unit_costs("total", f"{added}. Of the posts that report", all_raw)
    value = ["estimated_value_generated", *all_raw[:4]]
    both = "Sum over the posts that have both an estimated value and an organic spend; null if there are none"
    yield computed_column(
        "organic_value", "USD", "Estimated value of the posts whose organic spend has bounds", both, value)
    yield computed_column("organic_value_spend", "USD", "Spend on the organic results of these posts", both, value)
    yield computed_column("organic_value_per_spend", "ratio", "Estimated value per USD spent on organic results",
        "organic_value / organic_value_spend", value)


def _spend(prefix: str, description: str, computed: str, made_from: Sequence[str]) -> Iterator[Column]:
    yield computed_column(f"{prefix}_spend", "USD", description, computed, made_from)
    yield computed_column(f"{prefix}_spend_uncertainty_percent", "percent", f"By how many percent {prefix}_spend may be"
        " too high or too low", f"100 × half the distance of the bounds / {prefix}_spend", made_from)


def _unit_costs(prefix: str, computed: str, made_from: Sequence[str]) -> Iterator[Column]:
    for cost, measure, number in UNIT_COSTS:
        unit, times = (measure.removesuffix("s"), "") if number == 1 else (f"{number} {measure}", f"{number} × ")
        name = f"{prefix}_{cost}"
        yield computed_column(
            f"{name}_spend", "USD", f"Spend by which {name} is computed", f"{computed} {measure}", made_from)
        yield computed_column(f"{name}_{measure}", measure, f"{measure.capitalize()} by which {name} is computed",
            f"{computed} {measure}", made_from)
        yield computed_column(name, f"USD per {unit}", f"Spend per {unit}", f"{times}{name}_spend / {name}_{measure};"
            " null if there are none", made_from)


# Campaigns


def campaign_window() -> Iterator[Column]:
    """Yield the columns that identify the window of a row of campaign_results."""
    copied = "The value in campaign_performance_periods"
    yield Column("time_window", "string", False, f"Window: {', '.join(CAMPAIGN_WINDOWS)}", "", "Its period",
        ("period",))
    yield Column("first_day", "date32[day]", False, "First day of the window", "", copied, ("first_day",))
    yield Column("last_day", "date32[day]", False, "Last day of the window: the day before the newest fetch of it", "",
        copied, ("last_day",))


def campaign_results() -> Iterator[Column]:
    """Yield what a campaign spent and returned, as the API reports it for exactly the window."""
    metrics = {metric.column: metric for metric in CAMPAIGN_METRICS}

    def copied(*names: str, api: bool = False) -> Iterator[Column]:
        for name in names:
            metric = metrics[name]
            as_name = f"api_{name.removeprefix('estimated_')}" if api else name
            description = f"{metric.description}. {NO_PRICE}" if api else metric.description
            yield Column(as_name, metric_column_type(metric), True, description, metric.unit,
                "The API's value for the window", (name,))

    yield from copied("paid_ad_spend", "paid_return_on_ad_spend", "paid_clicks")
    yield computed_column("cost_per_click", "USD per click", "Ad spend per paid click", "paid_ad_spend / paid_clicks;"
        " null if one is null or there are no clicks", ("paid_ad_spend", "paid_clicks"))
    yield from copied("estimated_value_generated", "reach", "posts_count", "influencers_count")
    yield from copied(*(f"tracking_links_{name}" for name in ("clicks", "conversions", "conversion_value")))
    yield from copied(*(f"affiliate_links_{name}" for name in ("clicks", "conversions", "sales", "commission_earned")))
    yield from copied("estimated_content_cost", "cpe", "cpm", "estimated_roi", "affiliate_links_roi", api=True)
