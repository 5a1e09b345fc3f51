"""What this project assumes of the API: the question of each assumption is the docstring of what answers it. No I/O.

docs/api.md and docs/numbers.md have the sources. Only `Result.details` has texts of the server.
"""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from importlib.metadata import version
from itertools import pairwise
from typing import Any, Literal

from later_reporting_dagster.contract import METRICS, Metric
from later_reporting_dagster.contract.metrics import Kind
from later_reporting_dagster.contract.page import ListResult
from later_reporting_dagster.contract.parameters import SELF_REPORTED, network_of
from later_reporting_dagster.contract.rows import NEGATIVE
from later_reporting_dagster.lake.tables import (
    CAMPAIGN_PERFORMANCE_TABLE,
    CAMPAIGN_PERIODS_TABLE,
    POST_METRICS_DAILY,
    POSTS_NAMES,
)
from later_reporting_dagster.probe.sample import (
    HOURS_FROM_MIDNIGHT,
    NEWEST_DAYS,
    Fetched,
    NotTestable,
    Sample,
    all_rows_of,
    found_in,
    has_results,
    is_complete,
    rows_of,
)
from later_reporting_dagster.rollups.rollup_tables import PERIOD_TABLES, WINDOW_TABLES

# Posts of this age should no longer change.
SETTLED_DAYS = 60
# Amounts are rounded to cents, and a few of them are added. Unit costs and rates are rounded to two decimals.
CENTS, HALF_A_CENT = 0.02, 0.005 + 1e-6
UNIT_COSTS = (("cpe", "engagements", 1), ("cpm", "impressions", 1000))
# Networks whose posts may be entered once, by their creators. So many results without one on the day after show it.
ENTERED, FEW_POSTS = ("facebook", "twitter", "youtube"), 3
LARGEST_LIMIT = 10**15  # a header may hold any number

Bounds = tuple[float, float]


Verdict = Literal["holds", "does not hold", "not testable"]


@dataclass(frozen=True, slots=True)
class Result:
    """What a sample shows of an assumption.

    Attributes:
        holds: None if it is not testable.
        text: what was compared, or why nothing was.
        numbers: the compared numbers, by what they are; two that should be equal, if the assumption does not hold.
        details: texts of the server, for the terminal.
        affected_tables: those whose numbers are wrong.
    """

    holds: bool | None
    text: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    details: Sequence[str] = ()
    name: str = ""
    question: str = ""
    affected_tables: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        return "not testable" if self.holds is None else "holds" if self.holds else "does not hold"


def rows_can_be_read(sample: Sample) -> Result:
    """Can all rows of posts be read?"""
    rows = sum(page.total_items for page in sample.pages_of_posts)
    if not rows:
        raise NotTestable("the account has no posts")
    unreadable, reasons = unreadable_rows(sample.pages_of_posts)
    text = f"{unreadable} of {rows} rows cannot be read" if unreadable else "rows"
    return Result(not unreadable, text, {"rows": rows, "can be read": rows - unreadable}, details=reasons)


def unreadable_rows(pages: Sequence[ListResult]) -> tuple[int, list[str]]:
    """Return how many rows would not be stored, and why, the most frequent reason first.

    A row is a bad one, or has a value of a metric most of whose values cannot be read.
    """
    reasons = Counter(row.reason for page in pages for row in page.bad_rows)
    count = reasons.total()
    excerpts = [columns for page in pages for columns in page.unreadable.values()]  # by column, of each row
    failing = set()
    for column in {metric.column for metric in METRICS}:
        values = [columns[column] for columns in excerpts if column in columns]
        sent = len(values) + sum(_value(row, column) is not None for page in pages for row in page.items)
        if 2 * len(values) > sent:
            failing.add(column)
            reasons[f"{len(values)} of {sent} values of {column}, such as {values[0]}"] = len(values)
    count += sum(not failing.isdisjoint(columns) for columns in excerpts)
    return count, [reason for reason, _ in reasons.most_common()]


def instances_add_up(sample: Sample) -> Result:
    """Has a query for two instances the posts of both, and no others?"""
    expected = {post.key for post in sample.of_two_instances}
    found = {post.key: post.instance_id for post in rows_of(sample.together)}
    others = sum(name not in {post.instance_id for post in sample.of_two_instances} for name in found.values())
    if others:
        return Result(False, "posts of one day", {"of other instances": others, "possible": 0})
    numbers = {"of each of both": len(expected), "of these, by a query for both": len(expected & found.keys())}
    return Result(expected <= found.keys(), "posts of one day", numbers)


def range_has_its_last_day(sample: Sample) -> Result:
    """Has a range the posts of its last day?"""
    first, last, both = ({post.key for post in all_rows_of(page)} for page in sample.posts_of_days)
    if both and not first and not last:
        return Result(False, "posts by performance date", {"of two days": len(both), "of each day alone": 0})
    if not last:
        raise NotTestable("the campaign has no results on the last day")
    numbers = {"of the last day": len(last), "of these in a range that ends with it": len(last & both)}
    return Result(last <= both, "posts by performance date", numbers)


def older_posts_come_by_performance_date(sample: Sample) -> Result:
    """Does a post that is older than the range come by performance date?"""
    if sample.days is None:
        raise NotTestable("no campaign with posts was found")
    first, rows = sample.days[0], all_rows_of(sample.posts_of_days[2])
    found = sum(post.post_date is not None and post.post_date.date() < first for post in rows)
    campaigns = [row for row in found_in(sample.of_days[2]) if row.campaign_id == sample.campaign_id]
    expected = sum(int(_value(campaign, "posts_count") or 0) for campaign in campaigns) - (len(rows) - found)
    if not found and expected <= 0:
        raise NotTestable("the campaign has no results of older posts")
    numbers = {"of the campaign's count": expected, "by performance date": found}
    return Result(found > 0, "posts older than two days, with results on them", numbers)


def days_of_posts_add_up(sample: Sample) -> Result:
    """Do the metrics of posts on two days add up to those of both days?"""
    return _days_add_up(sample.metrics, map(all_rows_of, sample.posts_of_days))


def days_of_campaigns_add_up(sample: Sample) -> Result:
    """Do the metrics of a campaign on two days add up to those of both days?"""
    return _days_add_up(sample.campaign_metrics, (_campaign(sample, page) for page in sample.of_days))


def _days_add_up(metrics: Iterable[Metric], days: Iterable[list[Any]]) -> Result:
    first, second, both = ({row.key: row for row in rows} for rows in days)
    if not first.keys() & second.keys():
        raise NotTestable("nothing has results on both days")
    pairs = []
    for metric in metrics:
        for key in first.keys() | second.keys() | both.keys() if metric.kind.adds_up_over_days else ():
            parts = (_value(day.get(key), metric.column) for day in (first, second))
            pairs.append((metric, sum(part or 0 for part in parts), _value(both.get(key), metric.column)))
    return _compare(pairs, "sum of two days", "both days")


def campaign_costs_of_months_add_up(sample: Sample) -> Result:
    """Do the content costs of a campaign in two months, by post date, add up to that of both months?"""
    first, second, both = (_content_cost(sample, page) for page in sample.of_months)
    if not first or not second:
        raise NotTestable("the campaign has no content cost in two adjacent months")
    numbers = {"sum of two months": round(first + second, 2), "both months": both}
    return Result(abs(first + second - both) <= CENTS, "content cost in USD", numbers)


def content_cost_of_a_range_is_whole(sample: Sample) -> Result:
    """Is a campaign's content cost of a range, by performance date, the whole cost of all active posts?"""
    first, second, both = (_content_cost(sample, page) for page in sample.of_days)
    if not first or not second or not both:
        raise NotTestable("the campaign has no content cost on both days")
    posts = [{post.key: post for post in all_rows_of(page)} for page in sample.posts_of_days]
    ended, new = (
        _sum_of_bounds(_cost(post) for key, post in one.items() if key not in other)
        for one, other in ((posts[0], posts[1]), (posts[1], posts[0]))
    )
    low, high = max(second + ended[0], first + new[0]), min(second + ended[1], first + new[1])
    shares = [cost / max(len(active), 1) for cost, active in zip((first, second, both), posts, strict=True)]
    weeks = ((_value(row, "estimated_content_cost"), row) for row in _campaign(sample, sample.of_weeks))
    shares += [(cost or 0) / count for cost, row in weeks if (count := _value(row, "posts_count"))]
    readings = {
        "whole": low - CENTS <= both <= high + CENTS,
        "by share of the active posts": max(shares) - min(shares) <= CENTS,
        "the sum of its days": abs(first + second - both) <= CENTS,
    }
    fitting = [name for name, fits in readings.items() if fits]
    if "whole" in fitting and len(fitting) > 1:
        raise NotTestable(f"these days fit several readings: {', '.join(fitting)}")
    numbers = {"whole": round(min(max(both, low), high), 2), "stated": both}
    return Result("whole" in fitting, f"content cost in USD is {', '.join(fitting) or 'none of the known'}", numbers)


def cpe_and_cpm_agree(sample: Sample) -> Result:
    """Are cpe × engagements and cpm × impressions / 1000 the same cost of a post?"""
    compared = {
        (prefix, post.key): intervals
        for post in sample.to_date
        for prefix in ("", "paid_")
        if len(intervals := _intervals(post, prefix)) == len(UNIT_COSTS)
    }
    if not compared:
        raise NotTestable("no post has both")
    (prefix, _), worst = max(compared.items(), key=lambda item: _gap(item[1]))
    cpe, cpm = (round(sum(interval) / 2, 2) for interval in worst)
    numbers = {f"{prefix}cpe × engagements": cpe, f"{prefix}cpm × impressions / 1000": cpm}
    return Result(not _gap(worst), f"USD by rounded unit costs, the worst of {len(compared)}", numbers)


def cpe_and_cpm_state_the_content_cost(sample: Sample) -> Result:
    """Do cpe and cpm, over organic results, state the content cost of the campaign?"""
    first, last = sample.cost_days or (date.max, date.min)
    posts = [post for post in rows_of(sample.published) if first <= post.post_date.date() <= last]
    if not posts or not (cost := _content_cost(sample, sample.of_cost_days)):
        raise NotTestable("there are no days on which the campaign has a cost, and all of its posts state one")
    organic, of_all = (_sum_of_bounds(_cost(post, of_all=of_all) for post in posts) for of_all in (False, True))
    fits_organic, fits_all = (low - CENTS <= cost <= high + CENTS for low, high in (organic, of_all))
    text = f"USD, {len(posts)} posts by post date"
    if fits_all:
        text += ", which fit with paid results, too" if fits_organic else ", which fit with organic and paid results"
    return Result(fits_organic, text, {"of cpe and cpm": round(sum(organic) / 2, 2), "content cost": cost})


def campaign_unit_costs_are_organic(sample: Sample) -> Result:
    """Is a campaign's cpe its content cost over its organic engagements?"""
    found = []
    for row in (each for page in (*sample.of_days, sample.of_weeks) for each in found_in(page)):
        cpe, cost, engagements = (_value(row, name) for name in ("cpe", "estimated_content_cost", "engagements"))
        if row.campaign_id != sample.campaign_id or cpe is None or not cost or not engagements or engagements < 0:
            continue
        low, high = ((cpe + half) * engagements for half in (-HALF_A_CENT, HALF_A_CENT))
        # What it would be if it was blended: both costs over the results of both channels.
        blended = (cost + (_value(row, "paid_ad_spend") or 0)) / (engagements + (_value(row, "paid_engagements") or 0))
        is_organic = low - CENTS <= cost <= high + CENTS
        is_blended = low - CENTS <= blended * engagements <= high + CENTS
        if not (is_organic and is_blended):
            found.append((is_organic, is_blended, round((low + high) / 2, 2), cost))
    if not found:
        raise NotTestable("the campaign has no cpe and content cost, or blended ones would be the same")
    _, is_blended, by_cpe, cost = min(found)
    text = "USD; it is blended: both costs over all engagements" if is_blended else "USD"
    return Result(
        all(is_organic for is_organic, *_ in found), text, {"cpe × engagements": by_cpe, "content cost": cost}
    )


def affiliate_rate_is_a_fraction(sample: Sample) -> Result:
    """Is the conversion rate of affiliate links conversions / clicks, as a fraction?"""
    compared = []
    for row in (each for page in (*sample.of_days, sample.of_weeks, sample.listed) for each in found_in(page)):
        names = ("conversion_rate", "conversions", "clicks")
        rate, conversions, clicks = (_value(row, f"affiliate_links_{name}") for name in names)
        # Rounded to two decimals, a small rate is the same as a percentage.
        if rate is not None and conversions and clicks and 99 * conversions / clicks > 2 * HALF_A_CENT:
            compared.append((rate, conversions / clicks))
    if not compared:
        raise NotTestable("no campaign of the sample has enough conversions of affiliate links")
    stated, fraction = max(compared, key=lambda pair: abs(pair[0] - pair[1]))
    are_percentages = all(abs(rate - 100 * of) <= HALF_A_CENT for rate, of in compared)
    text = "percentages: divide affiliate_links_conversion_rate by 100" if are_percentages else "the worst of all"
    numbers = {"stated": stated, "conversions / clicks": round(fraction, 4)}
    return Result(abs(stated - fraction) <= HALF_A_CENT, text, numbers)


def account_cost_heeds_the_date_basis(sample: Sample) -> Result:
    """Is an account's content cost by post date that of the posts published in the range?"""
    of_account = [_total_of(page, "estimated_content_cost") for page in sample.account_of_months[:2]]
    published, (by_post_date, by_performance_date) = _content_cost(sample, sample.of_months[0]), of_account
    if not published or by_post_date is None:
        raise NotTestable("the campaign has no content cost in a month of publication")
    if by_performance_date is not None and abs(published - by_performance_date) <= CENTS:
        raise NotTestable("the posts of the month have the same content cost by both date bases")
    is_ignored = by_performance_date is not None and abs(by_post_date - by_performance_date) <= CENTS
    text = "USD; the route ignores dateBasis, and answers by performance date" if is_ignored else "USD of one month"
    numbers = {"of the campaign": published, "of the account, for this campaign": by_post_date}
    return Result(abs(published - by_post_date) <= CENTS, text, numbers)


def campaigns_cost_is_of_the_range(sample: Sample) -> Result:
    """Is campaignsCost what was paid in the range, or that of all time?"""
    month, both = ((_total_of(page, "campaigns_cost"), page) for page in sample.account_of_months[1:])
    if not month[0] or not both[0]:
        raise NotTestable("the API has no campaignsCost of the campaign's months")
    spend = [_total_of(page, "paid_ad_spend") or 0 for page in (month[1], both[1])]
    costs = [_total_of(page, "estimated_content_cost") or 0 for page in (month[1], both[1])]
    if len({*spend}) == 1 and len({*costs}) == 1:
        raise NotTestable("nothing else of the campaign differs between a month and two")
    is_of_range = abs(month[0] - both[0]) > CENTS
    text = "USD" if is_of_range else "USD, of all time: campaigns_cost says the same in all periods, so read it once"
    numbers = {"of a month": month[0], "of the month after": round(both[0] - month[0], 2)}
    return Result(is_of_range, text, numbers)


def posts_have_one_id(sample: Sample) -> Result:
    """Has a post one id in all of its campaigns?"""
    ids: dict[tuple[str, str], set[int]] = defaultdict(set)
    for post in sample.to_date:
        if post.content_url:
            ids[post.instance_id, post.content_url].add(post.post_id)
    if not ids:
        raise NotTestable("no post of the sample has a URL")
    several = sum(len(found) > 1 for found in ids.values())
    text = "URLs; posts with several ids count twice: docs/questions.md finds them" if several else "URLs of posts"
    return Result(not several, text, {"with several ids": several, "possible": 0})


def campaign_is_the_sum_of_its_posts(sample: Sample) -> Result:
    """Does a campaign have the sum of the counts and of the ad spend of its posts?"""
    posts, campaigns = all_rows_of(sample.posts_of_days[2]), _campaign(sample, sample.of_days[2])
    if not posts or not campaigns:
        raise NotTestable("the campaign has no results on these days")
    campaign = campaigns[0]
    answer = _compare(
        (
            (metric, sum(_value(post, metric.column) or 0 for post in posts), _value(campaign, metric.column))
            for metric in sample.campaign_metrics
            if metric in sample.metrics and metric.kind is Kind.COUNT and _value(campaign, metric.column) is not None
        ),
        "sum of posts",
        "campaign",
    )
    spend = _value(campaign, "paid_ad_spend")
    low, high = _sum_of_bounds(_cost(post, prefix="paid_") for post in posts)
    cents = CENTS * len(posts)
    if answer.holds and spend is not None and not low - cents <= spend <= high + cents:
        numbers = {"sum of posts": round((low + high) / 2, 2), "campaign": spend}
        return Result(False, "ad spend in USD", numbers)
    return answer


def lifetime_is_the_result_to_date(sample: Sample) -> Result:
    """Do all days of a settled post add up to its metrics to date?"""
    lifetime = {post.key: post for post in rows_of(sample.lifetime)}
    # Posts that were published later may be on the next page.
    newest = max((post.post_date for post in lifetime.values() if post.post_date is not None), default=None)
    settled = [
        post
        for post in rows_of(sample.published)
        if (sample.newest - post.post_date.date()).days >= SETTLED_DAYS
        and (is_complete(sample.lifetime) or (newest is not None and post.post_date < newest))
    ]
    if not settled:
        raise NotTestable(f"the campaign has no post that is {SETTLED_DAYS} days old")
    metrics = [metric for metric in sample.metrics if metric.kind.adds_up_over_days]
    pairs = (
        (metric, _value(post, metric.column), _value(lifetime.get(post.key), metric.column))
        for metric in metrics
        for post in settled
    )
    return _compare(pairs, "to date", "all days by performance date")


def post_days_are_utc(sample: Sample) -> Result:
    """Are days by post date UTC days?"""
    expected = {post.key for post in rows_of(sample.published) if post.post_date.date() == sample.midnight}
    if not expected:
        raise NotTestable(f"no post of the campaign was published within {HOURS_FROM_MIDNIGHT} hours of midnight (UTC)")
    found = {post.key for post in all_rows_of(sample.posts_of_midnight)}
    count = len(found & expected) if len(found) == len(expected) else len(found)
    numbers = {"posts of the day by postDate": len(expected), "posts of a query for the day": count}
    text = "posts of one day" if found == expected else "posts of one day; set LATER_PADDING_DAYS to 1"
    return Result(found == expected, text, numbers)


def pages_have_all_rows(sample: Sample) -> Result:
    """Do pages have as many rows as they state, and the same ones when requested again?"""
    page = sample.posts_of_days[2]
    keys = [post.key for post in all_rows_of(page)]
    if len(keys) < 2:
        raise NotTestable("the query has no two rows")
    assert isinstance(page, ListResult)
    rows = len({*keys}) + len(page.bad_rows)
    if page.stated_total not in (None, rows):
        return Result(False, "rows of one query", {"stated total": page.stated_total or 0, "distinct rows": rows})
    again = [post.key for each in sample.again for post in rows_of(each)]
    count = len(again) if {*keys} <= {*again} else len({*keys} & {*again})
    return Result(sorted(keys) == sorted(again), "rows of one query", {"first": len(keys), "requested again": count})


def campaigns_of_a_post_have_the_same_counts(sample: Sample) -> Result:
    """Does a post of several campaigns have the same counts in each?"""
    return _compare_campaigns(sample, [metric for metric in sample.metrics if metric.kind is Kind.COUNT])


def campaigns_of_a_post_have_the_same_cost(sample: Sample) -> Result:
    """Does a post of several campaigns have the same cost in each?"""
    return _compare_campaigns(sample, [metric for metric in sample.metrics if metric.column in ("cpe", "cpm")])


def _compare_campaigns(sample: Sample, metrics: Sequence[Metric]) -> Result:
    posts: dict[tuple[str, int], list[Any]] = defaultdict(list)
    for post in sample.to_date:
        posts[post.instance_id, post.post_id].append(post)
    several = [rows for rows in posts.values() if len(rows) > 1]
    if not several:
        raise NotTestable("no post of the sample is in several campaigns")
    values = ((metric, [_value(row, metric.column) or 0 for row in rows]) for metric in metrics for rows in several)
    return _compare(((metric, min(of), max(of)) for metric, of in values), "least of its campaigns", "greatest")


def rates_are_percentages(sample: Sample) -> Result:
    """Are rates percentages of the counts?"""
    compared = []
    for post, prefix in ((post, prefix) for post in sample.to_date for prefix in ("", "paid_")):
        rate, count, of = (
            _value(post, f"{prefix}{name}") for name in ("engagement_rate", "engagements", "impressions")
        )
        if rate is not None and count and of:
            compared.append((rate, 100 * count / of))
    if not compared:
        raise NotTestable("no post has a rate, engagements and impressions")
    stated, percent = max(compared, key=lambda pair: abs(pair[0] - pair[1]))
    are_fractions = all(abs(100 * rate - percent) <= 100 * HALF_A_CENT for rate, percent in compared)
    text = "fractions" if are_fractions and percent > 100 * HALF_A_CENT else f"the worst of {len(compared)} rates"
    numbers = {"stated": stated, "100 × engagements / impressions": round(percent, 2)}
    return Result(abs(stated - percent) <= HALF_A_CENT + 1e-9 * abs(percent), text, numbers)


def nothing_paid_is_null(sample: Sample) -> Result:
    """Are paid metrics null, not 0, where nothing was paid for?"""
    paid = [(post.paid_engagements, post.paid_impressions) for post in sample.to_date]
    nulls = sum(values == (None, None) for values in paid)
    zeros = sum(values != (None, None) and not any(values) for values in paid)
    if not nulls and not zeros:
        raise NotTestable("all posts of the sample have paid results")
    return Result(nulls > 0, "posts without paid results", {"with null": nulls, "in all": nulls + zeros})


def counts_to_date_are_not_negative(sample: Sample) -> Result:
    """Are counts to date never negative? Those of a day may be."""
    pages = [page for page in (sample.published, sample.recent) if isinstance(page, ListResult)]
    if not any(page.total_items for page in pages):
        raise NotTestable("the sample has no posts")
    negative = sum(NEGATIVE in row.reason for page in pages for row in page.bad_rows)
    return Result(not negative, "posts", {"with negative counts": negative, "possible": 0})


def rate_limit_is_as_documented(sample: Sample) -> Result:
    """Does the API allow as many requests as it documents?"""
    limit, seconds = sample.service.limit, sample.service.window_seconds
    if not limit or not seconds or not math.isfinite(seconds):
        raise NotTestable("no response states it")
    return _documented(round(60 * min(limit, LARGEST_LIMIT) / seconds, 2), 120, "requests a minute")


def tokens_last_as_documented(sample: Sample) -> Result:
    """Is a token valid for as long as documented?"""
    if sample.token_seconds is None:
        raise NotTestable("the token does not state it")
    return _documented(round(sample.token_seconds / 3600, 1), 12, "hours")


def data_reach_yesterday(sample: Sample) -> Result:
    """Are there results of yesterday?"""
    for number, page in enumerate(sample.newest_days):
        if any(map(has_results, rows_of(page))):
            return _documented(-number, 0, "newest day with results, counted from yesterday")
    raise NotTestable("the newest days have no results")


def first_results_come_by_age_2(sample: Sample) -> Result:
    """Do the first results of each network come by two days after publication?"""
    of_days, since = sample.results_of_newest_days(), sample.seen_since()
    if len(of_days) < NEWEST_DAYS:
        raise NotTestable("a request for one of the newest days failed")
    first_day = min(of_days)
    posts = {key: post for of_day in of_days.values() for key, post in of_day.items() if post.post_date is not None}
    first_results: dict[str, list[tuple[int, float | None]]] = defaultdict(list)  # age, and share in what there is
    for key, post in posts.items():
        network, published = network_of(post.content_type), post.post_date.date()
        if network is None or network in SELF_REPORTED or published < first_day or post.post_date <= since:
            continue
        found = [(day, of_day[key]) for day, of_day in of_days.items() if key in of_day]
        earned = [_value(row, "impressions") or 0 for _, row in found]
        share = earned[0] / sum(earned) if sum(earned) > 0 else None
        first_results[network].append((max(0, (found[0][0] - published).days), share))
    if not first_results:
        raise NotTestable("no post of the newest four days has results")
    ages = {network: min(age for age, _ in found) for network, found in first_results.items()}
    late = {network for network, age in ages.items() if age > 2}
    text = "; ".join(
        f"{network} at age {ages[network]}{_mean_share(share for age, share in found if age == ages[network])}"
        for network, found in sorted(first_results.items())
    )
    if late:
        text += f"; organic_by_age has no {', '.join(sorted(late))}: the first day holds what those before earned"
    return Result(not late, f"days: {text}", {"greatest age of a network": max(ages.values()), "at most": 2})


def _mean_share(shares: Iterable[float | None]) -> str:
    """Return in words what share in the impressions of the newest days those of the first day have."""
    known = [share for share in shares if share is not None]
    return f" ({100 * sum(known) / len(known):.0f} % of what there is)" if known else ""


def self_reported_posts_change(sample: Sample) -> Result:
    """Do posts of Facebook, YouTube and X change from day to day?"""
    of_days, since = sample.results_of_newest_days(), sample.seen_since()
    seen, again = Counter[str](), Counter[str]()
    for of_day, of_next in pairwise(of_days.values()):
        for key, post in of_day.items():
            network = network_of(post.content_type)
            if network in ENTERED and post.post_date is not None and post.post_date > since:
                seen[network] += 1
                again[network] += key in of_next
    if not again.total() and seen.total() < FEW_POSTS:
        raise NotTestable("the newest days have too few results of such posts")
    changing = sorted(+again)
    text = f"{', '.join(changing)}: organic_by_age leaves these out, although they change"
    expected = "results, which are entered once: organic_by_age leaves them out"
    numbers = {"with results on a day": seen.total(), "of these on the day after": again.total()}
    return Result(bool(changing), text if changing else expected, numbers)


def creator_ids_are_of_one_person(sample: Sample) -> Result:
    """Has a creator id one handle of a network in all instances?"""
    handles: dict[tuple[int, str], dict[str, str]] = defaultdict(dict)
    for post in (*sample.to_date, *(post for page in sample.newest_days for post in found_in(page))):
        network, profile = network_of(post.content_type), post.creator_profile
        if network is not None and post.creator_id is not None and profile is not None and profile.handle_name:
            handles[post.creator_id, network][post.instance_id] = profile.handle_name.removeprefix("@").casefold()
    several = [{*of_instances.values()} for of_instances in handles.values() if len(of_instances) > 1]
    if not several:
        raise NotTestable("no creator of the sample has posts of a network in two instances")
    others = sum(len(found) > 1 for found in several)
    text = "creators in two instances"
    if others:
        text += "; group by instance_id and creator_id, as the tables do: an id alone is several people"
    return Result(not others, text, {"of several handles": others, "possible": 0})


def _documented(found: float, documented: float, text: str) -> Result:
    return Result(found >= documented, text, {"stated": found, "documented": documented})


def fields_are_known(sample: Sample) -> Result:
    """Are all fields of posts known? Others are kept in the column extra."""
    names = {name for post in sample.to_date for name in (json.loads(post.extra) if post.extra else ())}
    return _unknown(names - {metric.api_name for metric in METRICS}, "fields")


def content_types_are_known(sample: Sample) -> Result:
    """Are the networks of all content types known?"""
    names = {post.content_type for post in sample.to_date if post.content_type is not None}
    return _unknown({name for name in names if network_of(name) is None}, "content types")


def _unknown(names: Iterable[str], text: str) -> Result:
    found = sorted(names)
    return Result(not found, text, {"unknown": len(found), "expected": 0}, details=found)


_ORGANIC_PAID = tuple(table.name for table in (*PERIOD_TABLES, *WINDOW_TABLES))
_POSTS, _AGES = "posts", "organic_by_age"
_MONTHLY, _RESULTS, _PUBLISHED = "campaigns_monthly", "campaign_results", "posts_published"

ASSUMPTIONS: Mapping[Callable[[Sample], Result], tuple[str, ...]] = {
    rows_can_be_read: POSTS_NAMES,
    instances_add_up: POSTS_NAMES,
    range_has_its_last_day: POSTS_NAMES,
    older_posts_come_by_performance_date: (POST_METRICS_DAILY.name, *_ORGANIC_PAID, _POSTS, _AGES),
    days_of_posts_add_up: (*_ORGANIC_PAID, _POSTS, _AGES),
    days_of_campaigns_add_up: (CAMPAIGN_PERFORMANCE_TABLE,),
    campaign_costs_of_months_add_up: (_MONTHLY,),
    content_cost_of_a_range_is_whole: (),
    cpe_and_cpm_agree: (*_ORGANIC_PAID, _POSTS, _MONTHLY),
    cpe_and_cpm_state_the_content_cost: (_POSTS, _MONTHLY),
    campaign_unit_costs_are_organic: (_RESULTS,),
    affiliate_rate_is_a_fraction: (_RESULTS,),
    account_cost_heeds_the_date_basis: (),
    campaigns_cost_is_of_the_range: (),
    posts_have_one_id: (*_ORGANIC_PAID, _POSTS, _AGES),
    campaign_is_the_sum_of_its_posts: (_MONTHLY, _RESULTS),
    lifetime_is_the_result_to_date: (_POSTS, _AGES),
    post_days_are_utc: (_PUBLISHED, _POSTS, _AGES),
    pages_have_all_rows: (*POSTS_NAMES, CAMPAIGN_PERFORMANCE_TABLE, CAMPAIGN_PERIODS_TABLE),
    campaigns_of_a_post_have_the_same_counts: (*_ORGANIC_PAID, _POSTS, _AGES),
    campaigns_of_a_post_have_the_same_cost: (_POSTS, _MONTHLY),
    rates_are_percentages: POSTS_NAMES,
    nothing_paid_is_null: _ORGANIC_PAID,
    counts_to_date_are_not_negative: (_PUBLISHED, _POSTS),
    rate_limit_is_as_documented: (),
    tokens_last_as_documented: (),
    data_reach_yesterday: (),
    first_results_come_by_age_2: (_AGES,),
    self_reported_posts_change: (),
    creator_ids_are_of_one_person: (),
    fields_are_known: (),
    content_types_are_known: (),
}
"""All assumptions, and the tables whose numbers are wrong if one does not hold; none if no number depends on it."""


def judge(sample: Sample) -> list[Result]:
    """Return the result of each assumption. One that fails unexpectedly is not testable, and the others stand."""
    results = []
    for assumption, tables in ASSUMPTIONS.items():
        try:
            found = assumption(sample)
        except NotTestable as error:
            found = Result(None, str(error))
        except Exception as error:  # noqa: BLE001 - of responses that no one has foreseen
            text = f"it could not be judged ({type(error).__name__}): please report this, with what follows"
            found = Result(None, text, details=(str(error),))
        affected_tables, question = () if found.holds is not False else tables, assumption.__doc__ or ""
        results.append(replace(found, name=assumption.__name__, question=question, affected_tables=affected_tables))
    return results


def to_json(sample: Sample, results: Sequence[Result]) -> dict[str, Any]:
    """Return the results without ids, names, links and secrets."""
    shown = ("name", "question", "verdict", "text", "numbers", "affected_tables")
    return {
        "version": version("later-reporting-dagster"),
        "api_version": sample.service.api_version.name,
        "requests": sample.requests,
        "assumptions": [{name: getattr(result, name) for name in shown} for result in results],
    }


def _compare(pairs: Iterable[tuple[Metric, float | None, float | None]], expected: str, found: str) -> Result:
    """Compare values of metrics; null and 0 are the same. The numbers are totals: if values differ, of these."""
    compared = [(metric, one or 0, other or 0) for metric, one, other in pairs if one or other]
    if not compared:
        raise NotTestable("all values are null or 0")
    differing = [
        (metric, one, other)
        for metric, one, other in compared
        if abs(one - other) > (0 if metric.kind.is_integer else CENTS)
    ]
    (worst, _), *_ = Counter(metric for metric, _, _ in differing or compared).most_common()
    values = [(one, other) for metric, one, other in differing or compared if metric is worst]
    one, other = (round(sum(column), 2) for column in zip(*values, strict=True))
    text = f"{worst.api_name}; {len(differing)} of {len(compared)} values of all metrics differ"
    return Result(not differing, text, {expected: one, found: other})


def _value(row: Any, column: str) -> float | None:
    """Return a metric of a post or of a campaign; None if it is null or was not requested, or without a row."""
    value: float | None = getattr(row, column, None)
    return value


def _campaign(sample: Sample, page: Fetched) -> list[Any]:
    """Return the campaign's row, or none if it has no results."""
    return [row for row in rows_of(page) if row.campaign_id == sample.campaign_id]


def _content_cost(sample: Sample, page: Fetched) -> float:
    return sum(_value(row, "estimated_content_cost") or 0 for row in _campaign(sample, page))


def _total_of(page: Fetched, column: str) -> float | None:
    """Return a total of an account."""
    rows = rows_of(page)
    return _value(rows[0], column) if rows else None


def _intervals(post: Any, prefix: str, *, of_all: bool = False) -> list[Bounds]:
    """Return the cost that each unit cost states, between bounds, because unit costs are rounded.

    `of_all`: read the organic unit costs as those of organic and paid results.
    """
    found = []
    for cost, count, per in UNIT_COSTS:
        unit_cost, units = _value(post, f"{prefix}{cost}"), _value(post, f"{prefix}{count}") or 0
        units += (_value(post, f"paid_{count}") or 0) if of_all else 0
        if unit_cost is not None and units > 0:
            found.append(((unit_cost - HALF_A_CENT) * units / per, (unit_cost + HALF_A_CENT) * units / per))
    return found


def _gap(intervals: Sequence[Bounds]) -> float:
    """Return by how much intervals miss each other."""
    return max(0.0, max(low for low, _ in intervals) - min(high for _, high in intervals))


def _cost(post: Any, *, prefix: str = "", of_all: bool = False) -> Bounds:
    """Return bounds of a post's cost; 0 without unit costs. The content cost is unknown without results."""
    if intervals := _intervals(post, prefix, of_all=of_all):
        low, high = max(0.0, *(low for low, _ in intervals)), min(high for _, high in intervals)
        return min(low, high), max(low, high)
    has_units = any((_value(post, f"{prefix}{count}") or 0) > 0 for _, count, _ in UNIT_COSTS)
    return 0.0, 0.0 if prefix or has_units else math.inf


def _sum_of_bounds(bounds: Iterable[Bounds]) -> Bounds:
    all_bounds = [*bounds]
    return sum(low for low, _ in all_bounds), sum(high for _, high in all_bounds)
