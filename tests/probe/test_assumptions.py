"""Each assumption holds on the sandbox, and if a server breaks it, the probe names it with the two numbers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Any

import pytest

from later_reporting_dagster.contract import CURSOR, DEFAULT_METRICS, METRICS, PAGED, ApiVersion
from later_reporting_dagster.contract.page import ListResult
from later_reporting_dagster.probe.assumptions import ASSUMPTIONS, Result, judge
from later_reporting_dagster.probe.sample import MAX_REQUESTS, Fetched, Sample, rows_of
from tests.conftest import Service
from tests.probe.account import CAMPAIGNS, LAST_DAY, POSTS, TOTALS, Account, Asked, Change, broken, run_probe

Row = dict[str, Any]
Numbers = Mapping[str, float]
Honest = tuple[Sample, Mapping[str, Result]]
BY_PERFORMANCE, BY_POST_DATE = "performance_date", "post_date"
CAMPAIGN = 49761  # that the probe chooses


def total(page: Fetched, column: str) -> float:
    rows = [row for row in rows_of(page) if row.campaign_id == CAMPAIGN]
    return sum(getattr(row, column) or 0 for row in rows)


def change_if(is_asked: Callable[[Asked], bool], change: Callable[[Row], Row]) -> Change:
    return lambda asked, rows: [row | change(row) for row in rows] if is_asked(asked) else rows


def times(factor: float, *names: str) -> Callable[[Row], Row]:
    """Return a change that multiplies metrics which are not null."""
    return lambda row: {name: round(factor * row[name], 2) for name in names if row.get(name) is not None}


def posts(basis: str = "", days: int | None = None) -> Callable[[Asked], bool]:
    return lambda asked: asked.is_for(POSTS, basis, days=days)


def campaigns(basis: str = "", days: int | None = None) -> Callable[[Asked], bool]:
    return lambda asked: asked.is_for(CAMPAIGNS, basis, days=days)


def is_two_months(asked: Asked) -> bool:
    return asked.is_for(CAMPAIGNS, BY_POST_DATE) and asked.first.day == 1 and 56 < asked.days < 63


def over_all_results(row: Row) -> Row:
    """Return unit costs over organic and paid results."""

    def over_all(cost: str, count: str, paid: str) -> float | None:
        if row[cost] is None or not row[count]:
            return row[cost]
        return round(row[cost] * row[count] / (row[count] + (row[paid] or 0)), 2)

    return {
        "cpe": over_all("cpe", "engagements", "paidEngagements"),
        "cpm": over_all("cpm", "impressions", "paidImpressions"),
    }


def in_every_second_campaign(*names: str) -> Callable[[Row], Row]:
    """Return a change to null. A post of two campaigns is in the one after its first, too."""
    return lambda row: dict.fromkeys(names) if (row["campaignId"] - CAMPAIGN) // 41 % 2 else {}


def blended(row: Row) -> float | None:
    """Return the cost per engagement over both channels."""
    if not row["engagements"] or not row["estimatedContentCost"]:
        return row["cpe"]
    cost = row["estimatedContentCost"] + (row["paidAdSpend"] or 0)
    return round(cost / (row["engagements"] + (row["paidEngagements"] or 0)), 2)


def links(rate: float) -> Change:
    """Return a change of campaigns: every second click on affiliate links converts; the stated rate."""

    def change(asked: Asked, rows: list[Row]) -> list[Row]:
        values = {"Clicks": 2 * asked.days, "Conversions": asked.days, "ConversionRate": rate}
        of_links = {f"affiliateLinks{name}": value for name, value in values.items()}
        return [row | of_links for row in rows] if campaigns()(asked) else rows

    return change


is_one_day = posts(BY_POST_DATE, days=1)


def is_newest_day(asked: Asked) -> bool:
    return posts(BY_PERFORMANCE, days=1)(asked) and not asked.is_of_campaigns


def late_results(asked: Asked, rows: list[Row]) -> list[Row]:
    """Return the rows without those of TikTok that are younger than three days."""

    def is_late(row: Row) -> bool:
        return row["contentType"] == "tiktok" and row["postDate"] >= str(asked.first - timedelta(days=2))

    return [row for row in rows if not is_newest_day(asked) or not is_late(row)]


def entered_once(asked: Asked, rows: list[Row]) -> list[Row]:
    """Return the rows without posts of Facebook, YouTube and X, but for one day of each."""

    def is_entered(row: Row) -> bool:
        is_of_creator = row["contentType"].startswith(("facebook", "youtube", "twitter"))
        return not is_of_creator or (row["postId"] + asked.first.toordinal()) % 4 == 0

    return [row for row in rows if not is_newest_day(asked) or is_entered(row)]


def one_creator(handle: Callable[[str], str]) -> Change:
    """Return a change to posts of one creator of TikTok, whose handle depends on the instance."""

    def change(row: Row) -> Row:
        profile = row["creatorProfile"] | {"handleName": handle(row["instanceId"])}
        return {"creatorId": 7, "creatorProfile": profile} if row["contentType"] == "tiktok" else {}

    return change_if(posts(), change)


def in_new_york(asked: Asked, rows: list[Row]) -> list[Row]:
    """Return the posts of a day that were published on it in New York, in winter."""

    def day(row: Row) -> date:
        return (datetime.fromisoformat(row["postDate"]) - timedelta(hours=5)).date()

    return [row for row in rows if not is_one_day(asked) or day(row) == asked.first]


def first_row_twice(asked: Asked, rows: list[Row]) -> list[Row]:
    return [*rows[:-1], rows[0]] if asked.size < 100 and rows else rows


@dataclass(frozen=True)
class Break:
    """What a server does, and what the probe finds.

    Attributes:
        numbers: of the sample and the numbers of an honest server, and what is found.
        also: the other assumptions that no longer hold.
        not_testable: those that need what no longer comes.
    """

    name: str
    numbers: Callable[[Sample, Numbers, Numbers], Numbers]
    change: Change = lambda asked, rows: rows
    also: tuple[str, ...] = ()
    not_testable: tuple[str, ...] = ()
    text: str = ""
    server: Mapping[str, Any] = field(default_factory=dict)


BREAKS = [
    Break(
        "rows_can_be_read",
        lambda honest, numbers, _: {"can be read": numbers["rows"] - len(rows_of(honest.together))},
        change_if(lambda asked: len(asked.instance_ids) == 2, lambda row: {"postId": None}),
        also=("instances_add_up",),
        text=" rows cannot be read",
    ),
    Break(
        "instances_add_up",
        lambda honest, *_: {"of each of both": len(rows_of(honest.together))},
        lambda asked, rows: (
            [row for row in rows if row["instanceId"] == asked.instance_ids[0]]
            if len(asked.instance_ids) == 2
            else rows
        ),
    ),
    Break(
        "range_has_its_last_day",
        lambda honest, *_: {"of the last day": len(rows_of(honest.posts_of_days[1]))},
        server={"days_more": lambda asked: -int(posts(BY_PERFORMANCE, days=2)(asked))},
        also=("days_of_posts_add_up", "campaign_is_the_sum_of_its_posts"),
    ),
    Break(
        "older_posts_come_by_performance_date",
        lambda _, honest, __: {"by performance date": 0, "of the campaign's count": honest["by performance date"]},
        lambda asked, rows: [
            row
            for row in rows
            if not posts(BY_PERFORMANCE)(asked) or asked.days > 2 or row["postDate"] >= str(asked.first)
        ],
        also=("campaign_is_the_sum_of_its_posts", "content_cost_of_a_range_is_whole", "pages_have_all_rows"),
        not_testable=("days_of_posts_add_up", "self_reported_posts_change"),
    ),
    Break(
        "days_of_posts_add_up",
        lambda honest, *_: {
            "sum of two days": sum(total(page, "engagements") for page in honest.posts_of_days[:2]),
            "both days": 3 * total(honest.posts_of_days[2], "engagements"),
        },
        change_if(posts(BY_PERFORMANCE, days=2), times(3, "engagements")),
        also=("campaign_is_the_sum_of_its_posts",),
    ),
    Break(
        "days_of_campaigns_add_up",
        lambda honest, *_: {
            "sum of two days": sum(total(page, "engagements") for page in honest.of_days[:2]),
            "both days": 2 * total(honest.of_days[2], "engagements"),
        },
        change_if(campaigns(BY_PERFORMANCE, days=2), times(2, "engagements")),
        also=("campaign_is_the_sum_of_its_posts", "campaign_unit_costs_are_organic"),
    ),
    Break(
        "campaign_costs_of_months_add_up",
        lambda honest, *_: {
            "sum of two months": round(sum(total(page, "estimated_content_cost") for page in honest.of_months[:2]), 2),
            "both months": 7,
        },
        change_if(is_two_months, lambda row: {"estimatedContentCost": 7}),
    ),
    Break(
        "content_cost_of_a_range_is_whole",
        lambda honest, *_: {"stated": 100 * total(honest.of_days[2], "posts_count")},
        change_if(campaigns(BY_PERFORMANCE), lambda row: {"estimatedContentCost": 100 * row["postsCount"]}),
        also=("campaign_unit_costs_are_organic",),
        text="by share of the active posts",
    ),
    Break(
        "content_cost_of_a_range_is_whole",
        lambda *_: {"stated": 14},
        lambda asked, rows: (
            [row | {"estimatedContentCost": 7 * asked.days} for row in rows]
            if campaigns(BY_PERFORMANCE)(asked)
            else rows
        ),
        also=("campaign_unit_costs_are_organic",),
        text="the sum of its days",
    ),
    Break(
        "cpe_and_cpm_agree",
        lambda _, __, found: {"cpe × engagements": pytest.approx(2 * found["cpm × impressions / 1000"], rel=0.01)},
        change_if(posts(), times(2, "cpe")),
        also=("cpe_and_cpm_state_the_content_cost",),
    ),
    Break(
        "cpe_and_cpm_state_the_content_cost",
        lambda honest, *_: {"content cost": total(honest.of_cost_days, "estimated_content_cost")},
        change_if(posts(), over_all_results),
        also=("cpe_and_cpm_agree", "content_cost_of_a_range_is_whole"),
        text="fit with organic and paid results",
    ),
    Break(
        "campaign_unit_costs_are_organic",
        lambda honest, *_: {"content cost": pytest.approx(total(honest.of_weeks, "estimated_content_cost"), rel=1)},
        change_if(campaigns(BY_PERFORMANCE), lambda row: {"cpe": blended(row)}),
        text="it is blended",
    ),
    Break(
        "affiliate_rate_is_a_fraction",
        lambda *_: {"stated": 50, "conversions / clicks": 0.5},
        links(50),
        text="percentages",
    ),
    Break(
        "account_cost_heeds_the_date_basis",
        lambda honest, *_: {"of the campaign": total(honest.of_months[0], "estimated_content_cost")},
        change_if(lambda asked: asked.path == TOTALS, lambda row: {"estimatedContentCost": 7}),
        text="the route ignores dateBasis",
    ),
    Break(
        "campaigns_cost_is_of_the_range",
        lambda *_: {"of a month": 7.5, "of the month after": 0},
        change_if(lambda asked: asked.path == TOTALS, lambda row: {"campaignsCost": 7.5}),
        text="of all time",
    ),
    Break(
        "posts_have_one_id",
        lambda *_: {"with several ids": 2, "possible": 0},
        change_if(posts(BY_POST_DATE), lambda row: {"contentUrl": f"https://x.example/{row['instanceId']}"}),
        text="count twice",
    ),
    Break(
        "campaign_is_the_sum_of_its_posts",
        lambda honest, *_: {
            "sum of posts": total(honest.posts_of_days[2], "paid_impressions"),
            "campaign": 3 * total(honest.of_days[2], "paid_impressions"),
        },
        change_if(campaigns(BY_PERFORMANCE), times(3, "paidImpressions")),
    ),
    Break(
        "campaign_is_the_sum_of_its_posts",
        lambda honest, *_: {
            "sum of posts": pytest.approx(total(honest.of_days[2], "paid_ad_spend"), abs=1),
            "campaign": round(3 * total(honest.of_days[2], "paid_ad_spend"), 2),
        },
        change_if(campaigns(BY_PERFORMANCE), times(3, "paidAdSpend")),
        text="ad spend in USD",
    ),
    Break(
        "lifetime_is_the_result_to_date",
        lambda _, honest, __: {
            "to date": honest["to date"],
            "all days by performance date": 2 * honest["all days by performance date"],
        },
        change_if(lambda asked: posts(BY_PERFORMANCE)(asked) and asked.days > 9, times(2, "engagements")),
    ),
    Break(
        "post_days_are_utc",
        lambda honest, *_: {
            "posts of the day by postDate": len(rows_of(honest.posts_of_midnight)),
            "posts of a query for the day": len(of_midnight_in_new_york(honest)),
        },
        in_new_york,
        server={"days_more": lambda asked: int(is_one_day(asked))},
    ),
    Break(
        "pages_have_all_rows",
        lambda honest, *_: {
            "first": len(rows_of(honest.posts_of_days[2])),
            "requested again": len(rows_of(honest.posts_of_days[2])) - 2,
        },
        first_row_twice,
    ),
    Break(
        "campaigns_of_a_post_have_the_same_counts",
        lambda _, honest, __: {"least of its campaigns": 0, "greatest": honest["greatest"]},
        change_if(posts(BY_POST_DATE), in_every_second_campaign("paidEngagements", "paidEngagementRate")),
    ),
    Break(
        "campaigns_of_a_post_have_the_same_cost",
        lambda _, honest, __: {"least of its campaigns": 0, "greatest": honest["greatest"]},
        change_if(posts(BY_POST_DATE), in_every_second_campaign("cpe", "cpm")),
    ),
    Break(
        "rates_are_percentages",
        lambda _, __, found: {"stated": pytest.approx(found["100 × engagements / impressions"] / 100, abs=1e-3)},
        change_if(posts(), lambda row: {"engagementRate": row["engagementRate"] and row["engagementRate"] / 100}),
    ),
    Break(
        "nothing_paid_is_null",
        lambda _, honest, __: {"with null": 0, "in all": honest["in all"]},
        change_if(posts(), lambda row: {name: row[name] or 0 for name in ("paidEngagements", "paidImpressions")}),
    ),
    Break(
        "counts_to_date_are_not_negative",
        lambda *_: {"possible": 0},
        change_if(
            posts(BY_POST_DATE),
            lambda row: {"impressions": -5} if row["campaignId"] != CAMPAIGN and row["postId"] % 3 == 0 else {},
        ),
        also=("rows_can_be_read",),
    ),
    Break(
        "rate_limit_is_as_documented",
        lambda *_: {"stated": 100, "documented": 120},
        server={"headers": {"x-ratelimit-limit": "50", "x-ratelimit-window": "30"}},
    ),
    Break(
        "data_reach_yesterday",
        lambda *_: {"stated": -1, "documented": 0},
        lambda asked, rows: [] if asked.first == LAST_DAY else rows,
    ),
    Break(
        "first_results_come_by_age_2",
        lambda *_: {"greatest age of a network": 3, "at most": 2},
        late_results,
        text="tiktok at age 3 (100 % of what there is)",
    ),
    Break("self_reported_posts_change", lambda *_: {"of these on the day after": 0}, entered_once, text="entered once"),
    Break(
        "creator_ids_are_of_one_person",
        lambda *_: {"of several handles": 1, "possible": 0},
        one_creator(lambda instance_id: f"of_{instance_id}"),
        text="group by instance_id and creator_id",
    ),
    Break(
        "fields_are_known",
        lambda *_: {"unknown": 2, "expected": 0},
        change_if(posts(), lambda row: {"boosted": True, "labels": []}),
    ),
    Break(
        "content_types_are_known",
        lambda *_: {"unknown": 1, "expected": 0},
        change_if(posts(), lambda row: {"contentType": "threads_post"} if row["postId"] % 5 == 0 else {}),
    ),
]


def of_midnight_in_new_york(sample: Sample) -> list[Any]:
    of_day = Asked(POSTS, sample.midnight, sample.midnight, BY_POST_DATE, 100)
    rows = [{"postDate": post.post_date.isoformat(), "key": post.key} for post in rows_of(sample.published)]
    return in_new_york(of_day, rows)


def test_all_assumptions_hold_on_the_sandbox(account: Account, stage: Service) -> None:
    sample, results = run_probe(stage.base_url)
    assert {result.verdict for result in results.values()} == {"holds"}
    assert len(results) == 32
    assert len(account.requests) == sample.requests <= MAX_REQUESTS
    assert all(len(set(result.numbers.values())) in (1, 2) for result in results.values())


def test_each_assumption_is_broken_by_a_server() -> None:
    names = {judge.__name__ for judge in ASSUMPTIONS}
    assert {each.name for each in BREAKS} | {"tokens_last_as_documented"} == names


def test_tokens_of_two_hours_are_named(account: Account, stage: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("later_reporting_dagster.server.tokens.TOKEN_SECONDS", 7200)
    _, results = run_probe(stage.base_url)
    assert broken(results) == {"tokens_last_as_documented"}
    assert results["tokens_last_as_documented"].numbers == {"stated": 2, "documented": 12}


@pytest.mark.parametrize("case", BREAKS, ids=lambda case: case.name)
def test_broken_assumption_is_named_with_its_numbers(
    case: Break, account: Account, stage: Service, version: ApiVersion, honest: Mapping[ApiVersion, Honest]
) -> None:
    account.change = case.change
    for name, value in case.server.items():
        setattr(account, name, value)
    _, results = run_probe(stage.base_url)
    assert broken(results) == {case.name, *case.also}
    result, (sample, unbroken) = results[case.name], honest[version]
    others = results.keys() - {case.name, *case.also, *case.not_testable}
    assert {name: results[name].verdict for name in others} == {name: unbroken[name].verdict for name in others}
    assert {results[name].verdict for name in case.not_testable} <= {"not testable"}
    expected = case.numbers(sample, unbroken[case.name].numbers, result.numbers)
    assert {name: result.numbers[name] for name in expected} == expected
    assert len({*result.numbers.values()}) == len(result.numbers) == 2
    assert case.text in result.text


def test_values_that_do_not_come_are_not_testable(account: Account, stage: Service) -> None:
    nulls = {
        POSTS: ("contentUrl",),
        CAMPAIGNS: ("cpe", "affiliateLinksConversionRate"),
        TOTALS: ("estimatedContentCost", "campaignsCost", "paidAdSpend"),
    }
    account.change = lambda asked, rows: [row | dict.fromkeys(nulls[asked.path]) for row in rows]
    _, results = run_probe(stage.base_url)
    assert {name for name, result in results.items() if result.verdict == "not testable"} == {
        "campaign_unit_costs_are_organic",
        "affiliate_rate_is_a_fraction",
        "account_cost_heeds_the_date_basis",
        "campaigns_cost_is_of_the_range",
        "posts_have_one_id",
    }
    assert broken(results) == set()


def test_creator_in_two_instances_with_one_handle_is_one_person(account: Account, stage: Service) -> None:
    account.change = one_creator(lambda instance_id: "@Ann" if instance_id.endswith("0") else "ann")
    _, results = run_probe(stage.base_url)
    result = results["creator_ids_are_of_one_person"]
    assert (result.verdict, result.numbers) == ("holds", {"of several handles": 0, "possible": 0})


def test_newest_days_without_results_are_not_testable(account: Account, stage: Service) -> None:
    account.change = lambda asked, rows: [] if is_newest_day(asked) else rows
    _, results = run_probe(stage.base_url)
    assert {name for name, result in results.items() if result.verdict == "not testable"} >= {
        "data_reach_yesterday",
        "first_results_come_by_age_2",
        "self_reported_posts_change",
    }
    assert broken(results) == set()


def test_posts_without_a_date_by_performance_date_are_judged_as_before(account: Account, stage: Service) -> None:
    account.change = change_if(posts(BY_PERFORMANCE), lambda row: {"postDate": None} if row["postId"] % 2 else {})
    _, results = run_probe(stage.base_url)
    assert {result.verdict for result in results.values()} == {"holds"}


def test_assumption_that_cannot_be_judged_leaves_the_verdicts_of_others(
    version: ApiVersion, honest: Mapping[ApiVersion, Honest]
) -> None:
    sample, unbroken = honest[version]
    results = {each.name: each for each in judge(replace(sample, lifetime=ListResult([object()])))}
    failed = results.pop("lifetime_is_the_result_to_date")
    assert (failed.verdict, failed.text.partition(":")[0]) == (
        "not testable",
        "it could not be judged (AttributeError)",
    )
    of_rows = "rows_can_be_read"  # of which there are others
    assert {**results, of_rows: None} == {name: unbroken[name] for name in results} | {of_rows: None}


@pytest.mark.parametrize(
    ("cost_of_weeks", "verdict", "text"),
    [
        (200, "not testable", "these days fit several readings: whole, by share of the active posts"),
        (150, "holds", "content cost in USD is whole"),
    ],
)
def test_cost_of_the_same_posts_on_both_days_is_whole_only_if_weeks_are_no_share(
    cost_of_weeks: int,
    verdict: str,
    text: str,
    account: Account,
    stage: Service,
    version: ApiVersion,
    honest: Mapping[ApiVersion, Honest],
) -> None:
    first, second, _ = honest[version][0].posts_of_days
    active = {post.post_id for post in rows_of(first)} & {post.post_id for post in rows_of(second)}

    def on_both_days(asked: Asked, rows: list[Row]) -> list[Row]:
        if not asked.is_for(asked.path, BY_PERFORMANCE) or asked.days not in (1, 2, 28):
            return rows
        if asked.path == POSTS:
            return [row for row in rows if row["postId"] in active]
        count, cost = (2, cost_of_weeks) if asked.days == 28 else (1, 100)
        changed = {"postsCount": count * len(active), "estimatedContentCost": cost * len(active)}
        return [row | changed if row["campaignId"] == CAMPAIGN else row for row in rows]

    account.change = on_both_days
    sample, results = run_probe(stage.base_url)
    assert sample.campaign_id == CAMPAIGN
    result = results["content_cost_of_a_range_is_whole"]
    assert (result.verdict, result.text) == (verdict, text)


@pytest.mark.parametrize("version", [PAGED], indirect=True, ids=str)
def test_total_that_is_not_the_number_of_rows_is_named(account: Account, stage: Service) -> None:
    account.total = lambda asked: 1
    _, results = run_probe(stage.base_url)
    result = results["pages_have_all_rows"]
    assert result.verdict == "does not hold"
    assert result.numbers["stated total"] == result.numbers["distinct rows"] + 1


@pytest.mark.parametrize("version", [PAGED], indirect=True, ids=str)
def test_invalid_row_counts_as_a_row(account: Account, stage: Service) -> None:
    invalid = {"impressions": 10**12}
    account.change = change_if(posts(BY_PERFORMANCE, days=2), lambda row: invalid if row["postId"] % 7 == 0 else {})
    sample, results = run_probe(stage.base_url)
    assert sample.posts_of_days[2].bad_rows
    assert results["pages_have_all_rows"].verdict == "holds"


@pytest.mark.parametrize("version", [CURSOR], indirect=True, ids=str)
def test_metrics_that_the_api_refuses_are_left_out(account: Account, stage: Service) -> None:
    sample, results = run_probe(stage.base_url, metrics=METRICS)
    assert sample.metrics == DEFAULT_METRICS
    assert {result.verdict for result in results.values()} == {"holds"}
    assert sample.requests == len(account.requests) <= MAX_REQUESTS
