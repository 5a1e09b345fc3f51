"""What the tables' dictionaries say to those who read them in the UI: one column of each kind, word for word."""

import pytest

from later_reporting_dagster.contract import DateBasis
from later_reporting_dagster.lake import Column
from later_reporting_dagster.rollups import (
    BY_CREATOR,
    BY_PUBLISH_DAY,
    DAILY,
    GRAIN,
    MONTHLY,
    WEEKLY,
    Span,
)

SUM = "Sum; null when no post of the group reports it, 0 is measured"
OF_PAID_SPEND = ("paid_cpe", "paid_engagements", "paid_cpm", "paid_impressions")

IN_BOTH = [
    Column("campaign_id", "int64", False, "The campaign; part of the row key", made_from=("campaign_id",)),
    Column(
        "posts",
        "int64",
        False,
        "Posts of the group, with or without metrics",
        "posts",
        "Number of posts, each once: a post of two campaigns is one of each",
        ("post_id",),
    ),
    Column("paid_impressions", "int64", True, "Paid impressions", "impressions", SUM, ("paid_impressions",)),
    Column(
        "paid_impressions_posts",
        "int64",
        False,
        "Coverage: how many posts paid_impressions is the sum of",
        "posts",
        "Number of posts that report it",
        ("paid_impressions",),
    ),
    Column(
        "organic_estimated_value",
        "float64",
        True,
        "Estimated value",
        "currency",
        SUM,
        ("estimated_value_generated",),
    ),
    Column(
        "organic_engagement_rate",
        "float64",
        True,
        "Organic engagements per 100 impressions",
        "percent",
        "100 × engagements / impressions: sum by sum, over just the posts that report both; null when there are none,"
        " or no impressions",
        ("impressions", "engagements"),
    ),
    Column(
        "paid_share_of_engagements",
        "float64",
        True,
        "How much of all engagements is paid",
        "percent",
        "100 × paid_engagements / (organic_engagements + paid_engagements), each over the posts that report it; null"
        " when one of the two is null, because then the whole is not known, or when both are 0",
        ("engagements", "paid_engagements"),
    ),
    Column(
        "paid_lift",
        "float64",
        True,
        "How much better paid engages than organic: above 1 it does",
        "ratio",
        "paid_engagement_rate / organic_engagement_rate; null when one of them is null or the organic rate is 0",
        ("impressions", "engagements", "paid_impressions", "paid_engagements"),
    ),
]
OF_PUBLISH_DAYS = [
    *(
        Column(
            f"paid_spend_{side}",
            "float64",
            True,
            f"The {most} that the posts of paid_spend_posts cost",
            "currency",
            "Sum of the posts' bounds: CPE × engagements and CPM × impressions / 1000 are the same cost, each unit cost"
            " known to half a cent; null when no post is bounded",
            OF_PAID_SPEND,
        )
        for side, most in (("minimum", "least"), ("maximum", "most"))
    ),
    Column(
        "paid_spend_posts",
        "int64",
        False,
        "Coverage: posts whose paid spend is bounded",
        "posts",
        "Number of posts that the bounds sum",
        OF_PAID_SPEND,
    ),
    Column(
        "organic_spend_contradictory_posts",
        "int64",
        False,
        "Posts whose organic CPE and CPM cannot both be true; they are in no bounds",
        "posts",
        "Number of posts whose two intervals do not meet",
        ("cpe", "engagements", "cpm", "impressions"),
    ),
    *(
        Column(
            f"paid_{unit_cost}_{side}",
            "float64",
            True,
            f"The {side} of spend per {unit}",
            f"currency per {unit}",
            f"Sum by sum, over just the posts whose spend is bounded and that report {measure}; null when there are"
            f" none, or no {measure}",
            OF_PAID_SPEND,
        )
        for unit_cost, measure, unit in (
            ("cpe", "engagements", "engagement"),
            ("cpm", "impressions", "1000 impressions"),
        )
        for side in ("minimum", "maximum")
    ),
]

ALL_RESULTS = ("impressions", "engagements", "paid_impressions", "paid_engagements")
PERIOD_BEFORE = "over as many days before first_day as the window has; null for the window all"
NO_DAYS = "null where no day of the period is there"
OF_WINDOWS = [
    Column(
        "window",
        "string",
        False,
        "How many days are rolled up: 7d, 28d, 90d, 365d, all",
        computed="The last so many days, or all that are there",
    ),
    Column(
        "date_basis",
        "string",
        False,
        "What a day is: performance_date, the day on which results were recorded, or post_date, the day on which posts"
        " were published, with their results to date",
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
    Column(
        "creator_handle_name",
        "string",
        True,
        "The creator's handle on the network",
        computed="As the newest post of the group that has one says",
        made_from=("creator_handle_name",),
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
        f"As days, {PERIOD_BEFORE}",
    ),
    Column(
        "posts",
        "int64",
        True,
        "Posts of the group, with or without metrics",
        "posts",
        f"Number of posts, each once: a post of two campaigns is one of each; {NO_DAYS}",
        ("post_id",),
    ),
    Column("paid_impressions", "int64", True, "Paid impressions", "impressions", SUM, ("paid_impressions",)),
    *(
        Column(
            f"paid_lift_{side}",
            "float64",
            True,
            f"The {side} end of paid_lift's 95 % interval: how far chance alone could move it, had other posts of the"
            " kind been published",
            "ratio",
            f"exp(log paid_lift {sign} 1.96 × √v), v the linearised variance of the log of the two ratios with posts as"
            " clusters: v = n/(n−1) × Σ z² over the n posts of either rate, z = (e − r×i)/E of paid less the same of"
            " organic (Cochran, Sampling Techniques, ratio estimators; Deng et al. 2018, delta method). Null unless"
            " each rate is of more than 30 posts and above 0",
            ALL_RESULTS,
        )
        for side, sign in (("low", "−"), ("high", "+"))
    ),
    Column(
        "paid_lift_verdict",
        "string",
        True,
        "Whether the difference is more than noise: paid_better, organic_better, or undecided",
        "",
        "paid_better where paid_lift_low is above 1, organic_better where paid_lift_high is below 1, else undecided;"
        " null without an interval",
        ALL_RESULTS,
    ),
    Column(
        "previous_paid_lift",
        "float64",
        True,
        "paid_lift of the previous period",
        "ratio",
        f"As paid_lift, {PERIOD_BEFORE}, and where none of these days is there",
        ALL_RESULTS,
    ),
    Column(
        "posts_change",
        "float64",
        True,
        "By how much posts changed from the previous period",
        "percent",
        "100 × (posts − previous_posts) / previous_posts; null when one of them is null, or when days and previous_days"
        " are not the same, or previous_posts is 0",
        ("post_id",),
    ),
    Column(
        "paid_lift_change",
        "float64",
        True,
        "By how much paid_lift changed from the previous period",
        "ratio",
        "paid_lift − previous_paid_lift; null when one of them is null, or when days and previous_days are not the"
        " same",
        ALL_RESULTS,
    ),
]


@pytest.mark.parametrize(
    ("columns", "described"),
    [
        (DAILY.columns, IN_BOTH),
        (BY_PUBLISH_DAY.columns, [*IN_BOTH, *OF_PUBLISH_DAYS]),
        (BY_CREATOR.columns, OF_WINDOWS),
    ],
)
def test_a_dictionary_says_what_a_column_holds_in_what_unit_and_when_it_is_null(
    columns: tuple[Column, ...], described: list[Column]
) -> None:
    by_name = {column.name: column for column in columns}
    assert [by_name[column.name] for column in described] == described


def test_a_dictionary_begins_with_what_is_grouped_by_and_names_each_column_once() -> None:
    for columns in (DAILY.columns, BY_PUBLISH_DAY.columns):
        names = [column.name for column in columns]
        assert tuple(names[: len(GRAIN)]) == GRAIN
        assert len({*names}) == len(names)


def test_what_publish_days_tell_beyond_is_spend() -> None:
    beyond = BY_PUBLISH_DAY.columns[len(DAILY.columns) :]
    assert BY_PUBLISH_DAY.columns[: len(DAILY.columns)] == DAILY.columns
    assert [column.name for column in beyond] == [
        f"{channel}_{name}"
        for channel in ("organic", "paid")
        for name in (
            *("spend_minimum", "spend_maximum", "spend_posts", "spend_contradictory_posts"),
            *("cpe_minimum", "cpe_maximum", "cpm_minimum", "cpm_maximum"),
        )
    ]


def test_what_was_spent_is_made_from_publish_days_alone() -> None:
    names = [column.name for column in BY_CREATOR.columns_from(DateBasis.PERFORMANCE_DATE)]
    assert BY_CREATOR.columns_from(DateBasis.POST_DATE) == [*BY_CREATOR.columns]
    spend = ("spend", "cpe", "cpm")
    assert names == [column.name for column in BY_CREATOR.columns if not any(each in column.name for each in spend)]


def test_weeks_and_months_are_of_recorded_days() -> None:
    assert (WEEKLY.span, MONTHLY.span) == (Span.WEEK, Span.MONTH)
    assert WEEKLY.bases == MONTHLY.bases == (DateBasis.PERFORMANCE_DATE,)
