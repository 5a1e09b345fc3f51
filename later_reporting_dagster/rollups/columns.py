"""The grammar of the rolled-up tables, and their dictionaries, derived from the metric table.

A table is a grain, what it measures of each group, and a span of time. What is measured comes in blocks, each of which
says of its columns what they mean, how they are computed and which columns of the posts they are made from.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from later_reporting_dagster.contract import DOCUMENT_METRICS, METRICS, Channel, Metric
from later_reporting_dagster.lake.columns import POST_COLUMNS, Column, type_of
from later_reporting_dagster.rollups.spans import WINDOWS

GRAIN = ("instance_id", "campaign_id", "platform", "content_type")


def measure_of(metric: Metric) -> str:
    """What a metric measures, whatever its channel: `impressions` for both `impressions` and `paid_impressions`."""
    return metric.column.removeprefix(f"{metric.channel}_").removesuffix("_generated")


def summed(metrics: Iterable[Metric]) -> dict[str, list[Metric]]:
    """Measure -> its metric in each channel that has it, of those that add up."""
    by_measure: dict[str, list[Metric]] = {}
    for metric in metrics:
        if metric.kind.adds_up:
            by_measure.setdefault(measure_of(metric), []).append(metric)
    return by_measure


# Of the document's metrics, which every table has.
SUMMED = summed(DOCUMENT_METRICS)

# The two channels that are compared. Rates and unit costs are theirs, as the document defines them for both.
COMPARED = (Channel.ORGANIC, Channel.PAID)

# Channel -> measure -> the post's column.
OF_CHANNEL: dict[Channel, dict[str, str]] = {
    channel: {measure_of(metric): metric.column for metric in DOCUMENT_METRICS if metric.channel is channel}
    for channel in COMPARED
}
# What both channels are compared by: a post that reports one of them reports its channel.
RESULTS = ("impressions", "engagements")

# Cochran's working rule for ratio estimates: their large-sample variance may be used if the sample exceeds 30.
POSTS_TO_EXCEED = 30
# Of the normal distribution: 95 % of it lie so many standard deviations around its middle, or nearer.
STANDARD_DEVIATIONS = 1.96

PAID_BETTER, ORGANIC_BETTER, UNDECIDED = "paid_better", "organic_better", "undecided"


def sum_name(metric: Metric) -> str:
    """The column of a metric's sum."""
    return f"{metric.channel}_{measure_of(metric)}"


# The sums that the tables tell the number of posts of.
COUNTED = frozenset(
    {
        *(sum_name(metric) for metric in METRICS if metric.kind.adds_up),
        *(f"{channel}_spend_minimum" for channel in COMPARED),
    }
)

POSTS = "posts"


def is_number_of_posts(name: str) -> bool:
    """Whether a column counts posts, which is known where nothing else is; reposts are a metric."""
    return name == POSTS or name.endswith(f"_{POSTS}")


def _decimal(name: str, description: str, unit: str, *, computed: str, made_from: Sequence[str]) -> Column:
    return Column(name, "float64", True, description, unit, computed, tuple(made_from))


def _number_of_posts(name: str, description: str, *, computed: str, made_from: Sequence[str]) -> Column:
    return Column(name, "int64", False, description, "posts", computed, tuple(made_from))


def columns_of_posts(names: Sequence[str]) -> Iterator[Column]:
    """Columns that a table has from the posts as they are."""
    described = {column.name: column for column in POST_COLUMNS}
    return (replace(described[name], made_from=(name,)) for name in names)


def posts_columns() -> Iterator[Column]:
    """How many posts a group has."""
    yield _number_of_posts(
        POSTS,
        "Posts of the group, with or without metrics",
        computed="Number of posts, each once: a post of two campaigns is one of each",
        made_from=["post_id"],
    )


def sum_columns(metrics: Iterable[Metric] = DOCUMENT_METRICS) -> Iterator[Column]:
    """What adds up of some metrics, the channels side by side, each with its coverage: how many posts reported it."""
    for channels in summed(metrics).values():
        for metric in channels:
            yield Column(
                sum_name(metric),
                type_of(metric),
                True,
                metric.description,
                metric.unit,
                "Sum; null when no post of the group reports it, 0 is measured",
                (metric.column,),
            )
        for metric in channels:
            name = sum_name(metric)
            coverage = _number_of_posts(
                f"{name}_posts",
                f"Coverage: how many posts {name} is the sum of",
                computed="Number of posts that report it",
                made_from=[metric.column],
            )
            # What was rolled up without a metric has neither column, and reads as one table with what has them.
            yield coverage if metric in DOCUMENT_METRICS else replace(coverage, nullable=True)


def rate_columns() -> Iterator[Column]:
    """Rates from sums, shares and the paid lift."""
    for channel in COMPARED:
        yield _decimal(
            f"{channel}_engagement_rate",
            f"{channel.capitalize()} engagements per 100 impressions",
            "percent",
            computed="100 × engagements / impressions: sum by sum, over just the posts that report both; null when"
            " there are none, or no impressions",
            made_from=_both_results(channel),
        )
    for measure in RESULTS:
        yield _decimal(
            f"paid_share_of_{measure}",
            f"How much of all {measure} is paid",
            "percent",
            computed=f"100 × paid_{measure} / (organic_{measure} + paid_{measure}), each over the posts that report it;"
            " null when one of the two is null, because then the whole is not known, or when both are 0",
            made_from=[OF_CHANNEL[channel][measure] for channel in COMPARED],
        )
    yield _decimal(
        "paid_lift",
        "How much better paid engages than organic: above 1 it does",
        "ratio",
        computed="paid_engagement_rate / organic_engagement_rate; null when one of them is null or the organic rate is"
        " 0",
        made_from=_all_results(),
    )


def lift_columns() -> Iterator[Column]:
    """Whether the paid lift is more than noise."""
    for side, sign in (("low", "−"), ("high", "+")):
        yield _decimal(
            f"paid_lift_{side}",
            f"The {side} end of paid_lift's 95 % interval: how far chance alone could move it, had other posts of the"
            " kind been published",
            "ratio",
            computed=f"exp(log paid_lift {sign} {STANDARD_DEVIATIONS} × √v), v the linearised variance of the log of"
            " the two ratios with posts as clusters: v = n/(n−1) × Σ z² over the n posts of either rate, z = (e −"
            " r×i)/E of paid less the same of organic (Cochran, Sampling Techniques, ratio estimators; Deng et al."
            f" 2018, delta method). Null unless each rate is of more than {POSTS_TO_EXCEED} posts and above 0",
            made_from=_all_results(),
        )
    yield Column(
        "paid_lift_verdict",
        "string",
        True,
        f"Whether the difference is more than noise: {PAID_BETTER}, {ORGANIC_BETTER}, or {UNDECIDED}",
        "",
        f"{PAID_BETTER} where paid_lift_low is above 1, {ORGANIC_BETTER} where paid_lift_high is below 1, else"
        f" {UNDECIDED}; null without an interval",
        _all_results(),
    )


def channel_columns() -> Iterator[Column]:
    """How many posts are of one channel alone, and how many of both."""
    said = {
        "organic_only_posts": "report organic results and no paid ones",
        "paid_only_posts": "report paid results and no organic ones",
        "both_channels_posts": "report organic results and paid ones",
    }
    for name, how in said.items():
        yield _number_of_posts(
            name,
            f"Posts that {how}",
            computed="Number of posts; a channel's results are its impressions or engagements where they are not null,"
            " and 0 is one. Posts that report neither channel are in none of the three",
            made_from=_all_results(),
        )


def spend_columns() -> Iterator[Column]:
    """Bounds of what was spent, where a post's unit costs tell them."""
    for channel in COMPARED:
        column = OF_CHANNEL[channel]
        costs = tuple(column[measure] for measure in ("cpe", "engagements", "cpm", "impressions"))
        spend = f"{channel}_spend"
        for side, most in (("minimum", "least"), ("maximum", "most")):
            yield _decimal(
                f"{spend}_{side}",
                f"The {most} that the posts of {spend}_posts cost",
                "currency",
                computed="Sum of the posts' bounds: CPE × engagements and CPM × impressions / 1000 are the same cost,"
                " each unit cost known to half a cent; null when no post is bounded",
                made_from=costs,
            )
        yield _number_of_posts(
            f"{spend}_posts",
            f"Coverage: posts whose {channel} spend is bounded",
            computed="Number of posts that the bounds sum",
            made_from=costs,
        )
        yield _number_of_posts(
            f"{spend}_contradictory_posts",
            f"Posts whose {channel} CPE and CPM cannot both be true; they are in no bounds",
            computed="Number of posts whose two intervals do not meet",
            made_from=costs,
        )
        units = (("cpe", "engagements", "engagement"), ("cpm", "impressions", "1000 impressions"))
        for unit_cost, measure, unit in units:
            for side in ("minimum", "maximum"):
                yield _decimal(
                    f"{channel}_{unit_cost}_{side}",
                    f"The {side} of spend per {unit}",
                    f"currency per {unit}",
                    computed=f"Sum by sum, over just the posts whose spend is bounded and that report {measure}; null"
                    f" when there are none, or no {measure}",
                    made_from=costs,
                )


def _both_results(channel: Channel) -> tuple[str, ...]:
    return tuple(OF_CHANNEL[channel][measure] for measure in RESULTS)


def _all_results() -> tuple[str, ...]:
    return tuple(name for channel in COMPARED for name in _both_results(channel))


Block = Callable[[], Iterator[Column]]

# The numbers that a change is told of: coverage, bounds and intervals are read beside both periods.
_CHANGING = (posts_columns, rate_columns)
_NO_DAYS = "null where no day of the period is there"


def window_columns(grain: Sequence[str], labels: Sequence[str], blocks: Sequence[Block]) -> tuple[Column, ...]:
    """The dictionary of a table of all windows: each measure, then of the period before, then how it changed."""
    measures = [_over_days(column) for block in blocks for column in block()]
    return (
        Column(
            "window",
            "string",
            False,
            f"How many days are rolled up: {', '.join(WINDOWS)}",
            computed="The last so many days, or all that are there",
        ),
        Column(
            "date_basis",
            "string",
            False,
            "What a day is: performance_date, the day on which results were recorded, or post_date, the day on which"
            " posts were published, with their results to date",
            computed="performance_date is made from post_metrics_daily, post_date from posts_published",
        ),
        Column("first_day", "date32[day]", False, "First day of the window"),
        Column(
            "last_day",
            "date32[day]",
            False,
            "Last day of the window",
            computed="The newest day that is there of any instance, of this basis",
        ),
        *columns_of_posts(grain),
        *(
            replace(column, nullable=True, computed="As the newest post of the group that has one says")
            for column in columns_of_posts(labels)
        ),
        Column(
            "days",
            "int64",
            False,
            "How many days of the window are there for the instance",
            "days",
            "Number of days whose partition has landed, with or without posts",
        ),
        Column(
            "previous_days",
            "int64",
            True,
            "How many days of the previous period are there for the instance",
            "days",
            "As days, over as many days before first_day as the window has; null for the window all",
        ),
        *measures,
        *(_previous(column) for column in measures),
        *(_change(column) for column in measures if column.name in CHANGING),
    )


def change_name(name: str) -> str:
    """The column of a measure's change."""
    return f"{name}_change"


def previous_name(name: str) -> str:
    """The column of a measure in the period before."""
    return f"previous_{name}"


def is_difference(column: Column) -> bool:
    """Whether a measure's change is a difference; of what adds up it is a percentage."""
    return column.unit in ("percent", "ratio")


def _over_days(column: Column) -> Column:
    # A number of posts is known where a day is; what is null for another reason says so itself.
    is_known = is_number_of_posts(column.name) or not column.nullable
    return replace(column, nullable=True, computed=f"{column.computed}; {_NO_DAYS}") if is_known else column


def _previous(column: Column) -> Column:
    return replace(
        column,
        name=previous_name(column.name),
        description=f"{column.name} of the previous period",
        computed=f"As {column.name}, over as many days before first_day as the window has; null for the window all, and"
        " where none of these days is there",
    )


def _change(column: Column) -> Column:
    previous = previous_name(column.name)
    unequal = "null when one of them is null, or when days and previous_days are not the same"
    if is_difference(column):
        unit = "percentage points" if column.unit == "percent" else column.unit
        computed = f"{column.name} − {previous}; {unequal}"
    else:
        unit = "percent"
        computed = f"100 × ({column.name} − {previous}) / {previous}; {unequal}, or {previous} is 0"
    description = f"By how much {column.name} changed from the previous period"
    return _decimal(change_name(column.name), description, unit, computed=computed, made_from=column.made_from)


# What a change is told of: what adds up, rates, shares and the lift.
CHANGING = frozenset(
    {
        *(column.name for block in _CHANGING for column in block()),
        *(sum_name(metric) for metric in METRICS if metric.kind.adds_up),
    }
)
