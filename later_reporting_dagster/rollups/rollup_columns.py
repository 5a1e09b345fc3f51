"""Columns of the rollup tables: the meaning and computation of each. docs/tables.md is generated from them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from later_reporting_dagster.contract import CAMPAIGN_METRICS, DEFAULT_METRICS, Channel, Metric
from later_reporting_dagster.lake.campaign_tables import CAMPAIGN_COLUMNS
from later_reporting_dagster.lake.columns import POST_COLUMNS, POST_KEY, Column, metric_column_type
from later_reporting_dagster.rollups.periods import WINDOWS

GRAIN = ("instance_id", "campaign_id", "platform", "content_type")
CHANNELS = (Channel.ORGANIC, Channel.PAID)
RESULTS = ("impressions", "engagements")
# Unit cost, its measure, and how many of them it is the cost of.
UNIT_COSTS = (("cpe", "engagements", 1), ("cpm", "impressions", 1000))

PAID_HIGHER, ORGANIC_HIGHER, UNDECIDED = "paid_higher", "organic_higher", "undecided"
# The macro `half_width` in duckdb_macros.sql has the same limit.
MIN_EFFECTIVE_CLUSTERS = 5

_CAMPAIGN_METRICS = {metric.column: metric for metric in CAMPAIGN_METRICS}
# Rate of a campaign -> its description, its unit, how it is computed, and from which columns.
_CAMPAIGN_RATES = {
    "value_per_content_cost": (
        "Estimated value per USD of content cost",
        "ratio",
        "Σ estimated_value_generated / Σ estimated_content_cost",
        ("estimated_value_generated", "estimated_content_cost"),
    ),
    "cost_per_click": (
        "Ad spend per paid click",
        "USD per click",
        "Σ paid_ad_spend / Σ paid_clicks",
        ("paid_ad_spend", "paid_clicks"),
    ),
    "paid_return_on_ad_spend": (
        "Revenue per USD of ad spend",
        "ratio",
        "Σ (paid_return_on_ad_spend × paid_ad_spend) / Σ paid_ad_spend",
        ("paid_return_on_ad_spend", "paid_ad_spend"),
    ),
}
CAMPAIGN_RESULTS = (
    "paid_ad_spend",
    "paid_cost",
    "estimated_content_cost",
    "estimated_value_generated",
    "value_per_content_cost",
    "paid_clicks",
    "cost_per_click",
    "paid_return_on_ad_spend",
    "tracking_links_clicks",
    "tracking_links_conversions",
    "tracking_links_conversion_value",
    "affiliate_links_clicks",
    "affiliate_links_conversions",
    "affiliate_links_sales",
    "affiliate_links_commission_earned",
)
"""The columns of spend and return of campaigns, in stored order."""
CAMPAIGN_TOTALS = tuple(_CAMPAIGN_METRICS[name] for name in CAMPAIGN_RESULTS if name not in _CAMPAIGN_RATES)
"""The metrics among them; the others are rates."""


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
    additive = [metric for metric in metrics if metric.kind.is_additive]
    measures = [*dict.fromkeys(measure_of(metric) for metric in additive)]
    return sorted(additive, key=lambda metric: measures.index(measure_of(metric)))


def is_post_count(name: str) -> bool:
    """Return whether a column counts posts. Without posts it is 0, not null."""
    return name == "posts" or name.endswith("_posts")


def _number(name: str, description: str, unit: str, computed: str, made_from: Iterable[str]) -> Column:
    return Column(name, "float64", True, description, unit, computed, tuple(made_from))


def _post_count(name: str, description: str, computed: str, made_from: Iterable[str]) -> Column:
    return Column(name, "int64", False, description, "posts", computed, tuple(made_from))


def _raw(*measures: str) -> list[str]:
    return [raw_column(channel, measure) for channel in CHANNELS for measure in measures]


# Keys


def post_columns_named(names: Sequence[str], computed: str) -> Iterator[Column]:
    """Yield columns that are copied from posts. `computed` says from which row; key columns omit it."""
    post_columns = {column.name: column for column in POST_COLUMNS}
    for name in names:
        yield replace(post_columns[name], source_columns=(name,), computation="" if name in POST_KEY else computed)


def creator_labels() -> Iterator[Column]:
    """Yield the columns that name a creator."""
    yield from post_columns_named(
        ("creator_handle_name", "creator_full_name", "creator_profile_link"),
        "The value in the newest row of the creator's newest post: in posts_published, or in post_metrics_daily if the"
        " creator has no post there. If several posts have the same time, the highest campaign id, then post id",
    )


def campaign_labels(*names: str) -> Iterator[Column]:
    """Yield columns that are copied from `campaigns`; `campaign_status` is its `status`."""
    columns = {column.name: column for column in CAMPAIGN_COLUMNS}
    for name in names:
        source = "status" if name == "campaign_status" else name
        computed = "The value in campaigns; null if the API never listed the campaign"
        yield replace(columns[source], name=name, computation=computed, source_columns=(source,))


def window() -> Iterator[Column]:
    """Yield the columns that identify the window of a row."""
    yield Column("time_window", "string", False, f"Window: {', '.join(WINDOWS)}", "", "The last 7, 28, 90 or 365 days,"
                 " or all days that have a file")  # fmt: skip
    yield Column("first_day", "date32[day]", False, "First day of the window", "", "last_day minus the window's length"
                 " plus one day; for all, the oldest day that has a file")  # fmt: skip
    yield Column("last_day", "date32[day]", False, "Last day of the window", "", "The newest day that has a file of any"
                 " instance")  # fmt: skip


def day_counts(*, of_all_instances: bool = False) -> Iterator[Column]:
    """Yield the number of days of a period, and how many of them have a file of the row's instance."""
    days, expected = "Number of days with a file, with or without posts", "Number of days, with or without a file"
    if of_all_instances:
        days += "; for all instances, the sum over the instances"
        expected += "; for all instances, times the number of instances"
    yield Column("days", "int64", False, "Days of the period that have a file of the instance", "days", days)
    yield Column("days_expected", "int64", False, "Days of the period", "days", expected)


# Comparison of the channels


def comparison(metrics: Sequence[Metric], *, intervals: bool) -> Iterator[Column]:
    """Yield totals, rates and lifts of both channels.

    Args:
        metrics: the metrics of the table. Each that adds up has a sum, and a column with the number of its posts.
        intervals: whether the lifts have intervals and verdicts.
    """
    yield from totals(metrics)
    yield from _rates()
    if intervals:
        yield from _interval(
            "paid_lift",
            effective="the impressions of a cluster in its rate, of the channel with the smaller result",
            degrees="min(n, max(7, m)) − 1 (n: effective clusters; m: the same for engagements)",
        )
    yield _number(
        "same_post_lift", "Paid lift within posts that report both channels: not affected by which posts are paid for,"
        " except if they are chosen for their results so far", "ratio", "Mantel-Haenszel rate ratio: Σ paid"
        " engagements × w(organic) / Σ organic engagements × w(paid), over the posts of same_post_lift_posts; w: the"
        " channel's share of the post's impressions. The term of each post is exact to 18 decimals", _raw(*RESULTS),
    )  # fmt: skip
    yield _post_count("same_post_lift_posts", "Posts included in same_post_lift: they are in the rates of both"
                      " channels", "Number of posts", _raw(*RESULTS))  # fmt: skip
    if intervals:
        yield from _interval(
            "same_post_lift",
            effective="a cluster's part of the numerator of same_post_lift plus its part of the denominator",
            degrees="n − 1 (n: effective clusters)",
        )
    requested = {metric.column for metric in metrics}
    by_views = [channel for channel in CHANNELS if raw_column(channel, "views") in requested]
    for channel in by_views:
        yield _rate(channel, "views", suffix="_by_views")
    if len(by_views) == len(CHANNELS):
        yield _lift("_by_views", "views")


def totals(metrics: Iterable[Metric]) -> Iterator[Column]:
    """Yield the number of posts, and for each metric its sum and the number of posts that report it."""
    computed = (
        "Number of posts, each counted once. If the grain has no campaign and a post is in several campaigns, only its"
        " row with the lowest campaign id is used on each day"
    )
    yield _post_count("posts", "Posts of the group, with or without metrics", computed, ["post_id"])
    for metric in additive_metrics(metrics):
        name, made_from = sum_name(metric), (metric.column,)
        computed = "Sum; null if no post of the group reports the metric, 0 is a measured zero"
        yield Column(name, metric_column_type(metric), True, metric.description, metric.unit, computed, made_from)
        posts = _post_count(f"{name}_posts", f"Posts included in {name}", "Posts that report the metric", made_from)
        # Metrics of the API reference are in every file, so their post counts are never null.
        yield posts if metric in DEFAULT_METRICS else replace(posts, nullable=True)


def _rates() -> Iterator[Column]:
    for channel in CHANNELS:
        yield _rate(channel, "impressions")
        name = f"{channel}_engagement_rate"
        yield _post_count(f"{name}_posts", f"Posts included in {name}, and so in paid_lift", "Posts with a row that is"
                          " in the rate", (raw_column(channel, result) for result in RESULTS))  # fmt: skip
    yield _number(
        "paid_share_of_impressions", "Paid share of all impressions", "percent", "100 × paid / (organic + paid), each"
        " over the posts that report it; null if one is null or both are 0. Compare organic_impressions_posts and"
        " paid_impressions_posts: a channel that fewer posts report is understated", _raw("impressions"),
    )  # fmt: skip
    yield _lift("", "impressions")


def _rate(channel: Channel, measure: str, *, suffix: str = "") -> Column:
    return _number(
        f"{channel}_engagement_rate{suffix}", f"{channel.capitalize()} engagements per 100 {measure}", "percent",
        "100 × sum / sum, over the rows (a post, or a post on a day) that report engagements, and"
        f" {measure} above 0; null if there are none", [raw_column(channel, each) for each in (measure, "engagements")],
    )  # fmt: skip


def _lift(suffix: str, measure: str) -> Column:
    rate = f"engagement_rate{suffix}"
    return _number(
        f"paid_lift{suffix}", "Paid rate divided by organic rate; above 1, the paid rate is higher. An association, not"
        " an effect: advertisers choose which posts to pay for", "ratio", f"paid_{rate} / organic_{rate}; null if one"
        " is null or the organic rate is 0", _raw(measure, "engagements"),
    )  # fmt: skip


def _interval(lift: str, *, effective: str, degrees: str) -> Iterator[Column]:
    """Yield the ends of a lift's 95 % interval and the verdict.

    Args:
        lift: column of the lift.
        effective: the quantity of a cluster from which the effective number of clusters is computed.
        degrees: how the degrees of freedom are computed.
    """
    made_from = _raw(*RESULTS)
    for side, sign in (("low", "−"), ("high", "+")):
        yield _number(
            f"{lift}_{side}", f"The {side} end of the 95 % interval of {lift}", "ratio",
            f"exp(log {lift} {sign} t × √v). v: delete-one jackknife variance of the log over clusters. Clusters: each"
            " creator, and each post without a creator. But if all posts are of one creator, each post is a cluster."
            f" t: 97.5 % quantile of Student's t with {degrees} degrees of freedom. Effective clusters: (Σ x)² / Σ x²,"
            f" x: {effective}. Null if there are fewer than {MIN_EFFECTIVE_CLUSTERS} of them, v is 0, a channel has no"
            " engagements, or one cluster alone makes up a whole sum of the lift, so that nothing remains without it",
            made_from,
        )  # fmt: skip
    yield Column(
        f"{lift}_verdict", "string", True, f"{PAID_HIGHER}, {ORGANIC_HIGHER} or {UNDECIDED}: whether the difference is"
        " more than chance", "", f"{PAID_HIGHER} if {lift}_low is above 1, {ORGANIC_HIGHER} if {lift}_high is below 1,"
        f" else {UNDECIDED}; null without an interval", tuple(made_from),
    )  # fmt: skip


PREVIOUS = (
    "posts",
    *(f"{channel}_{result}" for result in RESULTS for channel in CHANNELS),
    "organic_estimated_value",
    *(f"{channel}_engagement_rate" for channel in CHANNELS),
)
"""The columns of the comparison that windows also have for the previous period."""


def previous() -> Iterator[Column]:
    """Yield the columns of the period before a window, which has the same number of days."""
    computed = "over the same number of days before first_day. Null for the window all"
    yield Column("previous_days", "int64", True, "Days of the previous period that have a file of the instance",
                 "days", f"Like days, {computed}")  # fmt: skip
    columns = {column.name: column for column in comparison(DEFAULT_METRICS, intervals=False)}
    for name in PREVIOUS:
        yield replace(
            columns[name],
            name=f"previous_{name}",
            nullable=True,
            description=f"{name} of the previous period",
            computation=f"Like {name}, {computed}, and if no day of the period has a file",
        )


# Costs


def costs() -> Iterator[Column]:
    """Yield the spend, computed from the unit costs. The API does not report the spend itself."""
    yield _post_count("posts", "Posts published, with or without metrics", "Number of posts, each counted once. If the"
                      " grain has no campaign, only the row of a post with the lowest campaign id is used", ["post_id"]
                      )  # fmt: skip
    for channel in CHANNELS:
        made_from = [raw_column(channel, name) for name in ("cpe", "engagements", "cpm", "impressions")]
        yield _post_count(f"{channel}_posts", f"Posts that report {channel} impressions or engagements",
                          "Number of posts", made_from[1::2])  # fmt: skip
        yield from _spend(
            channel, f"Spend on {channel} results, of the posts in {channel}_spend_posts", "Sum of the middles of the"
            " posts' bounds. CPE × engagements and CPM × impressions / 1000 are the same cost; each unit cost is"
            " rounded to a cent, so it is known within half a cent. Null if no post has bounds", made_from,
        )  # fmt: skip
        yield _post_count(f"{channel}_spend_posts", f"Posts whose {channel} spend has bounds", "Number of posts",
                          made_from)  # fmt: skip
        yield _post_count(
            f"{channel}_contradictory_posts", f"Posts whose {channel} CPE and CPM contradict each other; they are not"
            " included in the spend", "Posts whose two cost intervals do not overlap", made_from,
        )  # fmt: skip
        yield from _unit_costs(channel, f"Sum over the posts of {channel}_spend_posts that report", made_from)
    all_raw = _raw("cpe", "engagements", "cpm", "impressions")
    added = "Organic plus paid; null if one is null"
    yield from _spend("total", "Spend on both channels", added, all_raw)
    yield from _unit_costs("total", f"{added}. Of the posts that report", all_raw)
    value = ["estimated_value_generated", *all_raw[:4]]
    both = "Sum over the posts that have both an estimated value and an organic spend; null if there are none"
    yield _number("organic_value", "Estimated value of the posts whose organic spend has bounds", "USD", both, value)
    yield _number("organic_value_spend", "Spend on the organic results of these posts", "USD", both, value)
    yield _number("organic_value_per_spend", "Estimated value per USD spent on organic results", "ratio",
                  "organic_value / organic_value_spend", value)  # fmt: skip


def _spend(prefix: str, description: str, computed: str, made_from: Sequence[str]) -> Iterator[Column]:
    yield _number(f"{prefix}_spend", description, "USD", computed, made_from)
    yield _number(
        f"{prefix}_spend_uncertainty_percent", f"By how many percent {prefix}_spend may be too high or too low",
        "percent", f"100 × half the distance of the bounds / {prefix}_spend", made_from,
    )  # fmt: skip


def _unit_costs(prefix: str, computed: str, made_from: Sequence[str]) -> Iterator[Column]:
    for cost, measure, number in UNIT_COSTS:
        unit = measure.removesuffix("s") if number == 1 else f"{number} {measure}"
        yield _number(f"{prefix}_{cost}_spend", f"Spend by which {prefix}_{cost} is computed", "USD",
                      f"{computed} {measure}", made_from)  # fmt: skip
        yield Column(f"{prefix}_{cost}_{measure}", "int64", True, f"{measure.capitalize()} by which {prefix}_{cost} is"
                     " computed", measure, f"{computed} {measure}", tuple(made_from))  # fmt: skip
        times = "" if number == 1 else f"{number} × "
        yield _number(f"{prefix}_{cost}", f"Spend per {unit}", f"USD per {unit}", f"{times}{prefix}_{cost}_spend /"
                      f" {prefix}_{cost}_{measure}; null if there are none", made_from)  # fmt: skip


# Campaigns


def campaign_results() -> Iterator[Column]:
    """Yield the spend and return of a campaign, as the API reports them for the whole campaign."""
    for name in CAMPAIGN_RESULTS:
        if name in _CAMPAIGN_RATES:
            description, unit, computed, made_from = _CAMPAIGN_RATES[name]
            computed += ", over the days that report both; null if there are none or the divisor is 0"
            yield _number(name, description, unit, computed, made_from)
        else:
            metric = _CAMPAIGN_METRICS[name]
            computed = "Sum over the days of the window; null if no day reports it"
            type_ = metric_column_type(metric)
            yield Column(name, type_, True, metric.description, metric.unit, computed, (metric.column,))
