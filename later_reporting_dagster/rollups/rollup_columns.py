"""Columns of the rollup tables: the meaning and computation of each. docs/tables.md is generated from them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from later_reporting_dagster.contract import Channel, Metric
from later_reporting_dagster.lake.columns import POST_COLUMNS, POST_KEY, Column, metric_column_type
from later_reporting_dagster.rollups.periods import WINDOWS

GRAIN = ("instance_id", "campaign_id", "platform", "content_type")
CHANNELS = (Channel.ORGANIC, Channel.PAID)
RESULTS = ("impressions", "engagements")
# Unit cost, its measure, and the unit in words.
UNIT_COSTS = (("cpe", "engagements", "engagement"), ("cpm", "impressions", "1000 impressions"))

PAID_HIGHER, ORGANIC_HIGHER, UNDECIDED = "paid_higher", "organic_higher", "undecided"
# The macro `half_width` in duckdb_macros.sql has the same limit.
MIN_EFFECTIVE_CLUSTERS = 5


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
    """Return whether a column counts posts. Without posts it is 0, not null. Reposts are a metric, not a post count."""
    return name in ("posts", "post_campaigns") or name.endswith("_posts")


def is_difference(column: Column) -> bool:
    """Return whether the change of a measure is a difference; otherwise it is a percentage."""
    return column.unit in ("percent", "ratio")


def _number(name: str, description: str, unit: str, computed: str, made_from: Iterable[str]) -> Column:
    return Column(name, "float64", True, description, unit, computed, tuple(made_from))


def _post_count(name: str, description: str, computed: str, made_from: Iterable[str]) -> Column:
    return Column(name, "int64", False, description, "posts", computed, tuple(made_from))


def _raw(*measures: str) -> list[str]:
    return [raw_column(channel, measure) for channel in CHANNELS for measure in measures]


def post_columns_named(names: Sequence[str], computed: str) -> Iterator[Column]:
    """Yield columns that are copied from posts. `computed` says from which row; key columns omit it."""
    post_columns = {column.name: column for column in POST_COLUMNS}
    for name in names:
        yield replace(post_columns[name], source_columns=(name,), computation="" if name in POST_KEY else computed)


def totals(metrics: Iterable[Metric], always: Iterable[Metric]) -> Iterator[Column]:
    """Yield the number of posts, and for each metric its sum and the number of posts that report it.

    Args:
        metrics: the metrics of the table; only metrics that add up have columns.
        always: metrics that are in every file, so their post counts are never null.
    """
    computed = (
        "Number of posts, each counted once. If the grain has no campaign and a post is in several campaigns, only its"
        " row with the lowest campaign id is used on each day"
    )
    yield _post_count("posts", "Posts of the group, with or without metrics", computed, ["post_id"])
    for metric in additive_metrics(metrics):
        name, made_from = sum_name(metric), (metric.column,)
        computed = "Sum; null if no post of the group reports the metric, 0 is a measured zero"
        yield Column(name, metric_column_type(metric), True, metric.description, metric.unit, computed, made_from)
        coverage = _post_count(f"{name}_posts", f"Posts included in {name}", "Posts that report the metric", made_from)
        yield coverage if metric in always else replace(coverage, nullable=True)


def rates(metrics: Iterable[Metric]) -> Iterator[Column]:
    """Yield rates, shares and the paid lift."""
    pairing = "Sum divided by sum, over the rows (a post, or a post on a day) that report both and have more than 0"
    lift = (
        "Paid rate divided by organic rate; above 1, the paid rate is higher. An association, not an effect:"
        " advertisers choose which posts to pay for"
    )
    for channel in CHANNELS:
        yield _number(
            f"{channel}_engagement_rate", f"{channel.capitalize()} engagements per 100 impressions", "percent",
            f"{pairing} impressions; null if there are none", (raw_column(channel, result) for result in RESULTS),
        )  # fmt: skip
    for result in RESULTS:
        yield _number(
            f"paid_share_of_{result}", f"Paid share of all {result}", "percent",
            "100 × paid / (organic + paid), each over the posts that report it; null if one is null or both are 0."
            f" Compare organic_{result}_posts and paid_{result}_posts: a channel that fewer posts report is"
            " understated", _raw(result),
        )  # fmt: skip
    yield _number("paid_lift", lift, "ratio", "paid_engagement_rate / organic_engagement_rate; null if one is null or"
                  " the organic rate is 0", _raw(*RESULTS))  # fmt: skip
    requested = {metric.column for metric in metrics}
    by_views = [channel for channel in CHANNELS if raw_column(channel, "views") in requested]
    for channel in by_views:
        yield _number(
            f"{channel}_engagement_rate_by_views", f"{channel.capitalize()} engagements per 100 views", "percent",
            f"{pairing} views; null if there are none",
            [raw_column(channel, "views"), raw_column(channel, "engagements")],
        )  # fmt: skip
    if len(by_views) == len(CHANNELS):
        yield _number("paid_lift_by_views", f"{lift}. By views", "ratio", "paid_engagement_rate_by_views /"
                      " organic_engagement_rate_by_views", _raw("views", "engagements"))  # fmt: skip


def _interval(lift: str, *, effective: str, degrees: str) -> Iterator[Column]:
    """Yield the ends of a lift's 95 % interval, the effective number of clusters and the verdict.

    Args:
        lift: column of the lift.
        effective: how the effective number of clusters is computed.
        degrees: how the degrees of freedom are computed.
    """
    made_from = _raw(*RESULTS)
    for side, sign in (("low", "−"), ("high", "+")):
        yield _number(
            f"{lift}_{side}", f"The {side} end of the 95 % interval of {lift}", "ratio",
            f"exp(log {lift} {sign} t × √v). v: delete-one jackknife variance of the log over clusters. Clusters: each"
            " creator, and each post without a creator. But if all posts are of one creator, each post is a cluster."
            f" t: 97.5 % quantile of Student's t with {degrees} degrees of freedom. Null if {lift}_posts_effective is"
            f" below {MIN_EFFECTIVE_CLUSTERS}, v is 0, a channel has no engagements, or one cluster alone makes up"
            " a whole sum of the lift, so that nothing remains without it",
            made_from,
        )  # fmt: skip
    yield _number(f"{lift}_posts_effective", f"Effective number of clusters for {lift}: that many equal"
                  " clusters would be as informative. Clusters are usually creators; the computation of"
                  f" {lift}_low defines them", "clusters", effective, made_from)  # fmt: skip
    yield Column(
        f"{lift}_verdict", "string", True, f"{PAID_HIGHER}, {ORGANIC_HIGHER} or {UNDECIDED}: whether the difference is"
        " more than chance", "", f"{PAID_HIGHER} if {lift}_low is above 1, {ORGANIC_HIGHER} if {lift}_high is below 1,"
        f" else {UNDECIDED}; null without an interval", tuple(made_from),
    )  # fmt: skip


def comparison() -> Iterator[Column]:
    """Yield the interval of the paid lift, the same-post lift with its interval, and post counts by channel."""
    yield from _interval(
        "paid_lift",
        effective="(Σ x)² / Σ x² over the clusters, x: the impressions of a cluster in rows that also report"
        " engagements; the smaller of the two channels' values",
        degrees="min(n, max(7, m)) − 1 (n: paid_lift_posts_effective; m: the same for engagements)",
    )
    yield _number(
        "same_post_lift", "Paid lift within posts that report both channels: not affected by which posts are paid for,"
        " except if they are chosen for their results so far", "ratio", "Mantel-Haenszel rate ratio: Σ paid"
        " engagements × w(organic) / Σ organic engagements × w(paid), over the posts of same_post_lift_posts; w: the"
        " channel's share of the post's impressions. The term of each post is exact to 18 decimals", _raw(*RESULTS),
    )  # fmt: skip
    yield from _interval(
        "same_post_lift",
        effective="(Σ x)² / Σ x² over the clusters, x: a cluster's part of the numerator of same_post_lift plus its"
        " part of the denominator",
        degrees="same_post_lift_posts_effective − 1",
    )
    posts = {
        "same_post_lift_posts": "included in same_post_lift: they report engagements of both channels, and impressions"
        " above 0",
        "organic_only_posts": "that report organic results (impressions or engagements) and no paid ones",
        "paid_only_posts": "that report paid results and no organic ones",
        "both_channels_posts": "that report organic and paid results",
    }
    for name, which in posts.items():
        yield _post_count(name, f"Posts {which}", "Number of posts", _raw(*RESULTS))


def post_campaigns() -> Column:
    """Return the column that counts a post once in each of its campaigns."""
    return _post_count(
        "post_campaigns", "Pairs of post and campaign: a post in two campaigns counts once in posts and twice here",
        "Number of posts, each counted once in each of its campaigns", ["post_id", "campaign_id"],
    )  # fmt: skip


def platform_mix() -> Iterator[Column]:
    """Yield the columns that compare the channels with an equal mix of platforms."""
    yield _number(
        "paid_lift_mix_adjusted", "Paid lift if the organic impressions had the paid ones' mix of platforms", "ratio",
        "Σ paid engagements / Σ (paid impressions × the organic rate of their platform), over the platforms on which"
        " both channels have impressions",
        ["platform", *_raw(*RESULTS)],
    )  # fmt: skip
    yield _number(
        "paid_share_of_impressions_on_shared_platforms", "Paid share of all impressions, on the platforms that report"
        " both channels", "percent", "Like paid_share_of_impressions, over these platforms",
        ["platform", *_raw("impressions")],
    )  # fmt: skip


def costs() -> Iterator[Column]:
    """Yield bounds of the spend, computed from the unit costs. The API does not report the spend itself."""
    for channel in CHANNELS:
        yield from _channel_costs(channel)
    all_raw = _raw("cpe", "engagements", "cpm", "impressions")
    for cost, _, unit in UNIT_COSTS:
        for side in ("minimum", "maximum"):
            yield _number(f"blended_{cost}_{side}", f"The {side} spend per {unit} of both channels together",
                          f"USD per {unit}", f"Like {CHANNELS[0]}_{cost}_{side}, with the sums of both channels added;"
                          " null if one is null", all_raw)  # fmt: skip
    for side, other in (("minimum", "maximum"), ("maximum", "minimum")):
        yield _number(
            f"organic_value_per_spend_{side}", f"The {side} estimated value per USD spent on organic results",
            "ratio", f"Σ estimated value / Σ organic spend {other}, over the posts that have both",
            ["estimated_value_generated", *all_raw[:4]],
        )  # fmt: skip


def _channel_costs(channel: Channel) -> Iterator[Column]:
    made_from = [raw_column(channel, name) for name in ("cpe", "engagements", "cpm", "impressions")]
    for side in ("minimum", "maximum"):
        yield _number(
            f"{channel}_spend_{side}", f"The {side} spend on the posts of {channel}_spend_posts", "USD",
            "Sum of the posts' bounds. CPE × engagements and CPM × impressions / 1000 are the same cost; each unit cost"
            " is rounded to a cent, so it is known within half a cent. Null if no post has bounds", made_from,
        )  # fmt: skip
    yield _post_count(f"{channel}_spend_posts", f"Posts whose {channel} spend has bounds", "Number of posts", made_from)
    yield _post_count(
        f"{channel}_spend_contradictory_posts", f"Posts whose {channel} CPE and CPM contradict each other; they are not"
        " included in bounds", "Posts whose two cost intervals do not overlap", made_from,
    )  # fmt: skip
    for cost, measure, unit in UNIT_COSTS:
        for side in ("minimum", "maximum"):
            yield _number(
                f"{channel}_{cost}_{side}", f"The {side} spend per {unit}", f"USD per {unit}", "Sum divided by sum,"
                f" over the posts whose spend has bounds and that report {measure}; null if there are none", made_from,
            )  # fmt: skip


def day_count_columns() -> Iterator[Column]:
    """Yield the number of days of a period, and how many of them have a file of the row's instance."""
    yield Column("days", "int64", False, "Days of the period that have a file of the instance", "days", "Number of days"
                 " with a file, with or without posts")  # fmt: skip
    yield Column("days_expected", "int64", False, "Days of the period", "days", "Number of days, with or without a"
                 " file")  # fmt: skip


def window_columns(
    *,
    grain: Sequence[str],
    labels: Sequence[str],
    measures: Sequence[Column],
    compared_with_previous: Sequence[Column],
    campaign_labels: Iterable[Column] = (),
    campaign_results: Iterable[Column] = (),
) -> Iterator[Column]:
    """Yield the columns of a window table.

    Args:
        grain: columns that identify a group.
        labels: post columns that name the group.
        measures: columns that are computed for each group.
        compared_with_previous: the measures that also have a previous value and a change.
        campaign_labels: columns that name the campaign of the group.
        campaign_results: columns of the spend and return of this campaign.
    """
    yield from _window_identity(grain, labels, campaign_labels)
    cost_names = {column.name for column in costs()}
    for column in measures:
        null = "; null if no day of the window has a file" if is_post_count(column.name) else ""
        null += "; null by performance_date" if column.name in cost_names else ""
        yield replace(column, nullable=True, computation=f"{column.computation}{null}")
    yield from campaign_results
    previous = (
        "over the same number of days before first_day. By post_date: the posts of those days, with the results that"
        " post_metrics_daily recorded up to a cutoff (its newest day minus the window's length), so the posts of both"
        " periods have the same age. Null for the window all, and if no day of the previous period has a file. By"
        " post_date, also null if the cutoff is before the end of the previous period, or if a day from the start of"
        " the previous period to the cutoff has no file of post_metrics_daily"
    )
    for column in compared_with_previous:
        yield replace(
            column,
            name=f"previous_{column.name}",
            nullable=True,
            computation=f"Like {column.name}, {previous}",
            description=f"{column.name} of the previous period",
        )
    for column in compared_with_previous:
        if not is_post_count(column.name) or column.name == "posts":
            yield _change(column)


def _window_identity(
    grain: Sequence[str], labels: Sequence[str], campaign_labels: Iterable[Column]
) -> Iterator[Column]:
    """Yield the columns that identify a row of a window table, and the number of days that it is computed from."""
    yield Column("window", "string", False, f"Window: {', '.join(WINDOWS)}", "", "The last 7, 28, 90 or 365 days, or"
                 " all days that have a file")  # fmt: skip
    yield Column("date_basis", "string", False, "performance_date: results recorded on the days of the window;"
                 " post_date: posts published on these days, with their results to date", "", "performance_date is made"
                 " from post_metrics_daily, post_date from posts_published")  # fmt: skip
    yield Column("first_day", "date32[day]", False, "First day of the window", "", "last_day minus the window's length"
                 " plus one day; for all, the oldest day that has a file")  # fmt: skip
    yield Column("last_day", "date32[day]", False, "Last day of the window", "", "The newest day of the date basis that"
                 " has a file of any instance")  # fmt: skip
    yield from post_columns_named(grain, "The value in the post's row of the latest day")
    yield from post_columns_named(
        labels,
        "The value in the newest row of the creator's newest post: in posts_published, or in post_metrics_daily if the"
        " creator has no post there. If several posts have the same time, the highest campaign id, then post id",
    )
    yield from campaign_labels
    yield from day_count_columns()
    yield Column("previous_days", "int64", True, "Days of the previous period that have a file of the instance",
                 "days", "Like days, over the same number of days before first_day; null for the window all"
                 )  # fmt: skip


def _change(column: Column) -> Column:
    name, previous = column.name, f"previous_{column.name}"
    computed, unit = f"100 × ({name} − {previous}) / {previous}", "percent"
    if is_difference(column):
        computed, unit = f"{name} − {previous}", "percentage points" if column.unit == "percent" else column.unit
    return _number(f"{name}_change", f"Change of {name} from the previous period", unit, f"{computed}; null if one is"
                   " null, or if days and previous_days differ", column.source_columns)  # fmt: skip
