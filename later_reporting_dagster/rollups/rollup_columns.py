"""The dictionaries of the rolled-up tables: what each column means and how it is computed."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from later_reporting_dagster.contract import Channel, Metric
from later_reporting_dagster.lake.columns import POST_COLUMNS, POST_KEY, Column, ColumnType, type_of
from later_reporting_dagster.rollups.periods import WINDOWS

GRAIN = ("instance_id", "campaign_id", "platform", "content_type")
COMPARED = (Channel.ORGANIC, Channel.PAID)
RESULTS = ("impressions", "engagements")
UNIT_COSTS = (("cpe", "engagements", "engagement"), ("cpm", "impressions", "1000 impressions"))

PAID_HIGHER, ORGANIC_HIGHER, UNDECIDED = "paid_higher", "organic_higher", "undecided"
FEWEST_EFFECTIVE = 5


def measure_of(metric: Metric) -> str:
    """Return what a metric measures, without its channel: `impressions` for `impressions` and `paid_impressions`."""
    return metric.column.removeprefix(f"{metric.channel}_").removesuffix("_generated")


def sum_name(metric: Metric) -> str:
    """Return the column of a metric's sum."""
    return f"{metric.channel}_{measure_of(metric)}"


def raw_column(channel: Channel, measure: str) -> str:
    """Return the column of posts that has a measure of a channel."""
    return measure if channel is Channel.ORGANIC else f"{channel}_{measure}"


def summed(metrics: Iterable[Metric]) -> list[Metric]:
    """Return the metrics that add up, those of one measure beside each other."""
    adding = [metric for metric in metrics if metric.kind.adds_up]
    measures = [*dict.fromkeys(measure_of(metric) for metric in adding)]
    return sorted(adding, key=lambda metric: measures.index(measure_of(metric)))


def is_number_of_posts(name: str) -> bool:
    """Return whether a column counts posts, which is 0 where there are none; reposts are a metric."""
    return name in ("posts", "post_campaigns") or name.endswith("_posts")


def _number(name: str, description: str, unit: str, computed: str, made_from: Iterable[str]) -> Column:
    return Column(name, "float64", True, description, unit, computed, tuple(made_from))


def _posts(name: str, description: str, computed: str, made_from: Iterable[str]) -> Column:
    return Column(name, "int64", False, description, "posts", computed, tuple(made_from))


def _raw(*measures: str) -> list[str]:
    return [raw_column(channel, measure) for channel in COMPARED for measure in measures]


def labels_of_posts(names: Sequence[str], computed: str) -> Iterator[Column]:
    """Yield columns that a table has from the posts as they are; `computed` says of which rows, if not of the key."""
    described = {column.name: column for column in POST_COLUMNS}
    for name in names:
        yield replace(described[name], made_from=(name,), computed="" if name in POST_KEY else computed)


def totals(metrics: Iterable[Metric], always: Iterable[Metric]) -> Iterator[Column]:
    """Yield the number of posts, and each sum with its coverage. Only those of `always` are in every file."""
    rule = (
        "Number of posts, each once. Where rows are not by campaign, the row of a post's lowest campaign id stands for"
        " its others, day by day"
    )
    yield _posts("posts", "Posts of the group, with or without metrics", rule, ["post_id"])
    for metric in summed(metrics):
        name, made_from = sum_name(metric), (metric.column,)
        rule = "Sum; null when no post of the group reports it, 0 is measured"
        yield Column(name, type_of(metric), True, metric.description, metric.unit, rule, made_from)
        coverage = _posts(f"{name}_posts", f"Posts that {name} is the sum of", "Posts that report it", made_from)
        yield coverage if metric in always else replace(coverage, nullable=True)


def rates(metrics: Iterable[Metric]) -> Iterator[Column]:
    """Yield rates, shares and the paid lift."""
    pairing = "Sum by sum, over the rows (a post, or a post on a day) that report both; null when there are none, or no"
    lifts = ("How much higher the paid rate is than the organic one, an association: which posts are paid for is a"
             " choice; above 1 it is higher")  # fmt: skip
    for channel in COMPARED:
        yield _number(
            f"{channel}_engagement_rate", f"{channel.capitalize()} engagements per 100 impressions", "percent",
            f"{pairing} impressions", (raw_column(channel, result) for result in RESULTS),
        )  # fmt: skip
    for result in RESULTS:
        yield _number(
            f"paid_share_of_{result}", f"How much of all {result} is paid", "percent",
            f"100 × paid / (organic + paid), each over the posts that report it; null when one is null or both are 0."
            f" Read it beside organic_{result}_posts and paid_{result}_posts: a channel that fewer posts report is"
            " understated", _raw(result),
        )  # fmt: skip
    yield _number("paid_lift", lifts, "ratio", "paid_engagement_rate / organic_engagement_rate; null when one is null"
                  " or the organic one is 0", _raw(*RESULTS))  # fmt: skip
    by_views = [channel for channel in COMPARED if raw_column(channel, "views") in {each.column for each in metrics}]
    for channel in by_views:
        yield _number(
            f"{channel}_engagement_rate_by_views", f"{channel.capitalize()} engagements per 100 views", "percent",
            f"{pairing} views", [raw_column(channel, "views"), raw_column(channel, "engagements")],
        )  # fmt: skip
    if len(by_views) == len(COMPARED):
        yield _number("paid_lift_by_views", f"{lifts}. By views", "ratio", "paid_engagement_rate_by_views /"
                      " organic_engagement_rate_by_views", _raw("views", "engagements"))  # fmt: skip


def _interval(lift: str, effective: str, degrees: str) -> Iterator[Column]:
    made_from = _raw(*RESULTS)
    for side, sign in (("low", "−"), ("high", "+")):
        yield _number(
            f"{lift}_{side}", f"The {side} end of {lift}'s 95 % interval", "ratio",
            f"exp(log {lift} {sign} t × √v): v the delete-one jackknife variance of the log over clusters, which are"
            " the creators where the group has several (a post without one is a cluster too), else the posts; t the"
            f" 97.5 % quantile of Student's t with {degrees} degrees of freedom. Null when {lift}_posts_effective is"
            f" below {FEWEST_EFFECTIVE}, v is 0, a channel has no engagements, or one cluster has all of a sum",
            made_from,
        )  # fmt: skip
    yield _number(f"{lift}_posts_effective", f"Of how many equal clusters {lift} tells as much", "clusters",
                  f"{effective}, over clusters", made_from)  # fmt: skip
    yield Column(
        f"{lift}_verdict", "string", True, f"{PAID_HIGHER}, {ORGANIC_HIGHER} or {UNDECIDED}: whether the difference is"
        " more than chance", "", f"{PAID_HIGHER} where {lift}_low is above 1, {ORGANIC_HIGHER} where {lift}_high is"
        f" below 1, else {UNDECIDED}; null without an interval", tuple(made_from),
    )  # fmt: skip


def comparison() -> Iterator[Column]:
    """Yield the intervals of the paid lift and the comparison within posts."""
    yield from _interval(
        "paid_lift", "The smaller of the channels' (Σ impressions)² / Σ impressions², of rows that report engagements"
        " too", "min(n, max(7, m)) − 1 (n is paid_lift_posts_effective, m the same of engagements)",
    )  # fmt: skip
    yield _number(
        "same_post_lift", "The paid lift within posts that report both channels: which posts were chosen does not move"
        " it, unless for their luck so far", "ratio", "Mantel-Haenszel rate ratio: Σ paid engagements × w(organic) /"
        " Σ organic engagements × w(paid), over the posts of same_post_lift_posts, w the channel's share of the post's"
        " impressions; each post's part to 18 decimals", _raw(*RESULTS),
    )  # fmt: skip
    yield from _interval("same_post_lift", "(Σ x)² / Σ x², x being what a cluster adds to both sums",
                         "same_post_lift_posts_effective − 1")  # fmt: skip
    described = {
        "same_post_lift_posts": "that same_post_lift is made from: they report the engagements of both channels, and"
        " impressions above 0",
        "organic_only_posts": "that report organic results (impressions or engagements) and no paid ones",
        "paid_only_posts": "that report paid results and no organic ones",
        "both_channels_posts": "that report organic and paid results",
    }
    for name, which in described.items():
        yield _posts(name, f"Posts {which}", "Number of posts", _raw(*RESULTS))


def post_campaigns() -> Column:
    """Return the column that says how often posts of several campaigns would count, did they count in each."""
    computed = "Number of posts, each once in each of its campaigns"
    return _posts("post_campaigns", "Campaigns of the posts: one of two campaigns counts once in posts, and twice here",
                  computed, ["post_id", "campaign_id"])  # fmt: skip


def platform_mix() -> Iterator[Column]:
    """Yield the comparison of groups that have several platforms."""
    yield _number(
        "paid_lift_mix_adjusted", "The paid lift, had the organic impressions the paid ones' mix of platforms", "ratio",
        "Σ paid engagements / Σ (paid impressions × the organic rate of their platform), over the platforms on which"
        " both channels have impressions",
        ["platform", *_raw(*RESULTS)],
    )  # fmt: skip
    yield _number(
        "paid_share_of_impressions_on_shared_platforms", "How much of all impressions is paid on the platforms that"
        " report both channels", "percent", "As paid_share_of_impressions, over these platforms",
        ["platform", *_raw("impressions")],
    )  # fmt: skip


def costs() -> Iterator[Column]:
    """Yield the bounds of what was spent, where unit costs imply it."""
    every = _raw("cpe", "engagements", "cpm", "impressions")
    for channel in COMPARED:
        made_from = [raw_column(channel, name) for name in ("cpe", "engagements", "cpm", "impressions")]
        for side, most in (("minimum", "least"), ("maximum", "most")):
            yield _number(
                f"{channel}_spend_{side}", f"The {most} that the posts of {channel}_spend_posts cost", "USD", "Sum of"
                " the posts' bounds: CPE × engagements and CPM × impressions / 1000 are the same cost, each unit cost"
                " known to half a cent; null when no post is bounded", made_from,
            )  # fmt: skip
        yield _posts(f"{channel}_spend_posts", f"Posts whose {channel} spend is bounded", "Number of posts", made_from)
        yield _posts(f"{channel}_spend_contradictory_posts", f"Posts whose {channel} CPE and CPM cannot both be true;"
                     " they are in no bounds", "Posts whose two intervals do not meet", made_from)  # fmt: skip
        for cost, measure, unit in UNIT_COSTS:
            for side in ("minimum", "maximum"):
                yield _number(
                    f"{channel}_{cost}_{side}", f"The {side} of spend per {unit}", f"USD per {unit}", "Sum by sum, over"
                    f" the posts whose spend is bounded and that report {measure}; null when there are none", made_from,
                )  # fmt: skip
    for cost, _, unit in UNIT_COSTS:
        for side in ("minimum", "maximum"):
            yield _number(f"blended_{cost}_{side}", f"The {side} of spend per {unit} of both channels", f"USD per"
                          f" {unit}", f"As {COMPARED[0]}_{cost}_{side}, both channels' sums added; null when one is"
                          " null", every)  # fmt: skip
    for side, other in (("minimum", "maximum"), ("maximum", "minimum")):
        yield _number(
            f"organic_value_per_spend_{side}", f"The {side} of estimated value per USD spent on organic results",
            "ratio", f"Σ estimated value / Σ organic spend {other}, over the posts that have both",
            ["estimated_value_generated", *every[:4]],
        )  # fmt: skip


def is_difference(column: Column) -> bool:
    """Return whether a measure's change is a difference; of what adds up it is a percentage."""
    return column.unit in ("percent", "ratio")


def days_columns() -> Iterator[Column]:
    """Yield how many days a group's period has, and of how many there are files."""
    whole: ColumnType = "int64"
    yield Column("days", whole, False, "Days of the period that there are of the instance", "days", "Number of days"
                 " with a file, with or without posts")  # fmt: skip
    yield Column("days_expected", whole, False, "Days of the period", "days", "Number of days, there or not")


def window_columns(grain: Sequence[str], labels: Sequence[str], measures: Sequence[Column], compared: Sequence[Column],
                   ) -> Iterator[Column]:  # fmt: skip
    """Yield the dictionary of a table of all windows: each measure, then `compared` of the period before, and changes.

    Args:
        grain: the columns that identify a group.
        labels: columns of posts that name it.
        measures: what is measured of a window.
        compared: those of them that have a previous period and a change.
    """
    yield Column("window", "string", False, f"How many days are rolled up: {', '.join(WINDOWS)}", "", "The last so many"
                 " days, or all that are there")  # fmt: skip
    yield Column("date_basis", "string", False, "performance_date: days are those of the results; post_date: those of"
                 " the posts, with their results to date", "", "performance_date is made from post_metrics_daily,"
                 " post_date from posts_published")  # fmt: skip
    yield Column("first_day", "date32[day]", False, "First day of the window", "", "As many days before last_day as the"
                 " window has, both included; of all, the oldest day that is there")  # fmt: skip
    yield Column("last_day", "date32[day]", False, "Last day of the window", "", "The newest day that is there of any"
                 " instance, of this basis")  # fmt: skip
    yield from labels_of_posts(grain, "As the newest row of the post in the window says, by day")
    newest = (
        "As the newest landed post of the creator says: in posts_published, or in post_metrics_daily if none is there;"
        " of several at one instant, the one of the highest campaign and post id"
    )
    yield from labels_of_posts(labels, newest)
    yield from days_columns()
    yield Column("previous_days", "int64", True, "Days of the previous period that there are of the instance", "days",
                 "As days, over as many days before first_day; null for the window all")  # fmt: skip
    of_costs = {column.name for column in costs()}
    for column in measures:
        null = "; null where no day of the window is there" if is_number_of_posts(column.name) else ""
        null += "; null by performance_date" if column.name in of_costs else ""
        yield replace(column, nullable=True, computed=f"{column.computed}{null}")
    before = (
        "over as many days before first_day as the window has. By post_date it is of the posts of those days, with what"
        " post_metrics_daily recorded of them until as many days before its newest day as the window has, so that posts"
        " are compared at the same age. Null for the window all, where no day of the period is there, and by post_date"
        " unless post_metrics_daily has each day from the first of the period until then"
    )
    for column in compared:
        yield replace(column, name=f"previous_{column.name}", nullable=True, computed=f"As {column.name}, {before}",
                      description=f"{column.name} of the previous period")  # fmt: skip
    for column in compared:
        if not is_number_of_posts(column.name) or column.name == "posts":
            yield _change(column)


def _change(column: Column) -> Column:
    name, previous = column.name, f"previous_{column.name}"
    computed, unit = f"100 × ({name} − {previous}) / {previous}", "percent"
    if is_difference(column):
        computed, unit = f"{name} − {previous}", "percentage points" if column.unit == "percent" else column.unit
    return _number(f"{name}_change", f"By how much {name} changed from the previous period", unit, f"{computed}; null"
                   " when one is null, or when days and previous_days differ", column.made_from)  # fmt: skip
