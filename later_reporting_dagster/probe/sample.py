"""What the assumptions are judged by: responses of one page each, and the choice of what to request.

Most queries are about one campaign with at most 100 active posts, so that a page has all of its rows.
"""

from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import groupby
from typing import Any

from later_reporting_dagster.client import LaterClient, LaterError, QueryRejected
from later_reporting_dagster.client.client import Probe
from later_reporting_dagster.contract import (
    CAMPAIGN_METRICS,
    DEFAULT_METRICS,
    METRICS,
    DateBasis,
    Metric,
    PerformanceQuery,
)
from later_reporting_dagster.contract.metrics import ACCOUNT_METRICS, CAMPAIGNS_COST, parse_metrics
from later_reporting_dagster.contract.page import ListResult
from later_reporting_dagster.contract.parameters import MAX_PAGE_SIZE, MAX_RANGE_YEARS, years_later
from later_reporting_dagster.contract.route import (
    CAMPAIGNS_PERFORMANCE,
    FIRST_PAGE,
    INSTANCES_PERFORMANCE,
    POSTS_PERFORMANCE,
    PageRequest,
    Route,
)

MAX_REQUESTS = 35
# Within so many hours of midnight, another time zone usually has another day.
HOURS_FROM_MIDNIGHT = 5
# So that a post is seen up to an age of three days.
NEWEST_DAYS = 4
# The oldest 100 posts of a campaign with so many active ones usually cover several months.
PREFERRED_POSTS = 20
FROM_END = PageRequest(1, from_end=True)
DAY = timedelta(days=1)
Metrics = tuple[Metric, ...]
# If the API refuses one of the metrics of a query, only these are requested.
_NEEDED: dict[Route, Metrics] = {
    POSTS_PERFORMANCE: DEFAULT_METRICS,
    CAMPAIGNS_PERFORMANCE: CAMPAIGN_METRICS[:8],
    INSTANCES_PERFORMANCE: parse_metrics("estimatedContentCost,paidAdSpend", known=ACCOUNT_METRICS),
}
# The attribute of the sample with the metrics that are requested.
_METRICS_OF = {
    POSTS_PERFORMANCE: "metrics",
    CAMPAIGNS_PERFORMANCE: "campaign_metrics",
    INSTANCES_PERFORMANCE: "account_metrics",
}


class NotTestable(Exception):  # noqa: N818 - a verdict
    """Why the account's data cannot show it, or why there is no page; without texts of the server."""


Fetched = ListResult | NotTestable


def rows_of(page: Fetched) -> list[Any]:
    """Return the rows of a page, or raise why there is none."""
    if isinstance(page, NotTestable):
        raise NotTestable(*page.args)
    return page.items


def all_rows_of(page: Fetched) -> list[Any]:
    """Return the rows of a page that has all of the query's."""
    rows = rows_of(page)
    if not is_complete(page):
        raise NotTestable(f"a query has more than {MAX_PAGE_SIZE} rows")
    return rows


def found_in(page: Fetched) -> list[Any]:
    """Return the rows of a page; none if there is no page."""
    return page.items if isinstance(page, ListResult) else []


def is_complete(page: Fetched) -> bool:
    if isinstance(page, NotTestable) or page.next_cursor is not None:
        return False
    return page.total_items < MAX_PAGE_SIZE or page.stated_total in (None, page.total_items)


_NOTHING = NotTestable("no campaign with posts was found")


@dataclass(kw_only=True)
class Sample:
    """The responses, of a page each. A range of days comes after its two parts."""

    service: Probe
    newest: date
    metrics: Metrics
    campaign_metrics: Metrics
    account_metrics: Metrics = (*_NEEDED[INSTANCES_PERFORMANCE], CAMPAIGNS_COST)
    requests: int = 0
    token_seconds: float | None = None
    # Of requests that failed; they may quote the server.
    problems: list[str] = field(default_factory=list)
    campaign_id: int | None = None
    # By performance date, on two adjacent days and on both: the campaign's posts, and the campaign; and in four weeks.
    days: tuple[date, date] | None = None
    posts_of_days: tuple[Fetched, ...] = (_NOTHING,) * 3
    of_days: tuple[Fetched, ...] = (_NOTHING,) * 3
    of_weeks: Fetched = _NOTHING
    # The posts of both days, requested again as two smaller pages.
    again: tuple[Fetched, ...] = (_NOTHING,)
    # The campaign's oldest posts of two years, with their metrics to date, and by performance date.
    published: Fetched = _NOTHING
    lifetime: Fetched = _NOTHING
    # The campaign's posts of a day on which some were published near midnight.
    midnight: date | None = None
    posts_of_midnight: Fetched = _NOTHING
    # By post date: the campaign in two adjacent months and in both; and on days whose posts all state their cost.
    of_months: tuple[Fetched, ...] = (_NOTHING,) * 3
    cost_days: tuple[date, date] | None = None
    of_cost_days: Fetched = _NOTHING
    # The account's totals of the campaign: in the first month by post date, in it and in both by performance date.
    account_of_months: tuple[Fetched, ...] = (_NOTHING,) * 3
    # All campaigns with results on the two days, of a page.
    listed: Fetched = _NOTHING
    # Posts of all campaigns, with their metrics to date; and those with results on each of the newest days, the newest
    # day first. A page has the posts that were published last.
    recent: Fetched = _NOTHING
    newest_days: list[Fetched] = field(default_factory=list)
    # Of the recent posts, those of a day and of two instances; and the posts that a query for both has on this day.
    of_two_instances: list[Any] = field(default_factory=list)
    together: Fetched = NotTestable("no day with posts of two instances was found")

    @property
    def to_date(self) -> list[Any]:
        """All posts with their metrics to date, each row once."""
        posts = {post.key: post for page in (self.published, self.recent) for post in found_in(page)}
        if not posts:
            raise NotTestable(*(self.recent.args if isinstance(self.recent, NotTestable) else _NOTHING.args))
        return [*posts.values()]

    def results_of_newest_days(self) -> dict[date, dict[Hashable, Any]]:
        """Return the posts with results on each of the newest days by key, the oldest day first."""
        days = (self.newest - number * DAY for number in range(len(self.newest_days)))
        found = {
            day: {post.key: post for post in rows_of(page) if has_results(post)}
            for day, page in zip(days, self.newest_days, strict=True)
        }
        return dict(reversed(found.items()))

    def seen_since(self) -> datetime:
        """Return since when all posts with results on the newest days were published that the pages have."""
        pages = [page for page in self.newest_days if not is_complete(page)]
        dates = [[post.post_date for post in rows_of(page) if post.post_date is not None] for page in pages]
        return max((min(of_page) for of_page in dates if of_page), default=datetime.min.replace(tzinfo=UTC))

    @property
    def pages_of_posts(self) -> list[ListResult]:
        """All pages of posts."""
        of_campaign = (*self.posts_of_days, *self.again, self.published, self.lifetime, self.posts_of_midnight)
        found = (*of_campaign, self.recent, *self.newest_days, self.together)
        return [each for each in found if isinstance(each, ListResult)]


async def fetch_sample(
    client: LaterClient,
    *,
    newest: date,
    metrics: Collection[Metric],
    campaign_metrics: Collection[Metric],
    instance_ids: tuple[str, ...] = (),
) -> Sample:
    """Fetch what an account has for the assumptions. A request that fails leaves out what needs it.

    Raises:
        LaterError: the first request failed.
    """
    wanted = {*metrics, *DEFAULT_METRICS}, {*campaign_metrics, *_NEEDED[CAMPAIGNS_PERFORMANCE]}
    sample = Sample(
        service=await client.probe(),
        newest=newest,
        metrics=tuple(metric for metric in METRICS if metric in wanted[0]),
        campaign_metrics=tuple(metric for metric in CAMPAIGN_METRICS if metric in wanted[1]),
        token_seconds=client.token_seconds,
    )
    fetch = _Fetch(client, sample, instance_ids)
    first, recent_days = month_after(years_later(newest, -MAX_RANGE_YEARS)), (newest - 45 * DAY, newest - 15 * DAY)
    await _fetch_campaign(sample, fetch, first)
    if isinstance(sample.recent, NotTestable):
        sample.recent = await fetch(POSTS_PERFORMANCE, *recent_days)
    if of_two := posts_of_two_instances(sample.recent):
        sample.of_two_instances, day = of_two, of_two[0].post_date.date()
        instance_ids = tuple(sorted({post.instance_id for post in of_two}))
        sample.together = await fetch(POSTS_PERFORMANCE, day, day, instance_ids=instance_ids)
    for day in (newest - days_ago * DAY for days_ago in range(NEWEST_DAYS)):
        posts = await fetch(POSTS_PERFORMANCE, day, day, date_basis=DateBasis.PERFORMANCE_DATE, page=FROM_END)
        sample.newest_days.append(posts)
        if isinstance(posts, NotTestable):
            break
    sample.requests = client.requests
    return sample


async def _fetch_campaign(sample: Sample, fetch: "_Fetch", first: date) -> None:
    newest, by_performance_date = sample.newest, DateBasis.PERFORMANCE_DATE
    # Results of TikTok come after two days (docs/api.md, "Freshness").
    one, two = newest - 3 * DAY, newest - 2 * DAY
    sample.listed = await fetch(CAMPAIGNS_PERFORMANCE, one, two, date_basis=by_performance_date)
    campaign_id = suitable_campaign(found_in(sample.listed))
    if campaign_id is None:
        sample.recent = await fetch(POSTS_PERFORMANCE, first, newest, page=FROM_END)
        if not (recent := in_order(sample.recent, first, newest)):
            return
        campaign_id, one = recent[-1].campaign_id, min(recent[-1].post_date.date(), newest - DAY)
        two = one + DAY
    sample.campaign_id, sample.days = campaign_id, (one, two)
    posts = partial(fetch, POSTS_PERFORMANCE, campaign_ids=(campaign_id,))
    campaign = partial(fetch, CAMPAIGNS_PERFORMANCE, campaign_ids=(campaign_id,))
    ranges = ((one, one), (two, two), (one, two))
    sample.posts_of_days = tuple([await posts(*days, date_basis=by_performance_date) for days in ranges])
    sample.of_days = tuple([await campaign(*days, date_basis=by_performance_date) for days in ranges])
    sample.of_weeks = await campaign(two - 27 * DAY, two, date_basis=by_performance_date)
    if isinstance(both := sample.posts_of_days[2], ListResult) and both.total_items > 1:
        half = partial(posts, one, two, date_basis=by_performance_date, size=-(-both.total_items // 2))
        start = await half()
        cursor = start.next_cursor if isinstance(start, ListResult) else None
        sample.again = start, await half(page=PageRequest(2, cursor=cursor))
    sample.published = await posts(first, newest)
    sample.lifetime = await posts(first, newest, date_basis=by_performance_date)
    if not (published := in_order(sample.published, first, newest)):
        return
    until = newest if is_complete(sample.published) else published[-1].post_date.date() - DAY
    known = [post for post in published if post.post_date.date() <= until]
    if day := day_with_posts_near_midnight(known):
        sample.midnight, sample.posts_of_midnight = day, await posts(day, day)
    if cost_days := days_with_stated_costs(known):
        sample.cost_days, sample.of_cost_days = cost_days, await campaign(*cost_days)
    month = adjacent_months(published, newest=newest)
    second, end = month_after(month), min(month_after(month_after(month)) - DAY, newest)
    ranges = ((month, second - DAY), (second, end), (month, end))
    sample.of_months = tuple([await campaign(*days) for days in ranges])
    account = partial(fetch, INSTANCES_PERFORMANCE, campaign_ids=(campaign_id,))
    sample.account_of_months = (
        await account(*ranges[0]),
        await account(*ranges[0], date_basis=by_performance_date),
        await account(*ranges[2], date_basis=by_performance_date),
    )


@dataclass(frozen=True)
class _Fetch:
    """Fetches a page of posts or of campaigns, or the totals of an account."""

    client: LaterClient
    sample: Sample
    instance_ids: tuple[str, ...]

    async def __call__(
        self,
        route: Route,
        first: date,
        last: date,
        *,
        page: PageRequest = FIRST_PAGE,
        size: int = MAX_PAGE_SIZE,
        **filters: Any,
    ) -> Fetched:
        sample, needed = self.sample, _NEEDED[route]
        wanted: Metrics = getattr(sample, _METRICS_OF[route])
        query = PerformanceQuery(
            start_date=first, end_date=last, metrics=wanted, **({"instance_ids": self.instance_ids} | filters)
        )
        try:
            return await self.client.fetch_page(route, query, page, page_size=size)
        except LaterError as error:
            # The cursor version may not offer all metrics (docs/api.md, "Cursor version").
            may_be_metrics = sample.service.api_version.uses_cursors and isinstance(error, QueryRejected)
            if not may_be_metrics or wanted == needed:
                sample.problems.append(str(error))
                return NotTestable(f"a request failed ({type(error).__name__})")
        setattr(sample, _METRICS_OF[route], needed)
        return await self(route, first, last, page=page, size=size, **filters)


def in_order(posts: Fetched, first: date, last: date) -> list[Any]:
    """Return the posts that were published in a range of days, by the time of their publication."""
    found = [post for post in found_in(posts) if post.post_date and first <= post.post_date.date() <= last]
    return sorted(found, key=lambda post: post.post_date)


def posts_of_two_instances(posts: Fetched) -> list[Any]:
    """Return the posts of two instances on a day on which both have some; the day with the fewest."""
    of_days: dict[date, list[Any]] = {}
    for post in found_in(posts):
        of_days.setdefault(post.post_date.date(), []).append(post)
    days = [of_day for of_day in of_days.values() if len({post.instance_id for post in of_day}) > 1]
    found = min(days, key=len, default=[])
    two = sorted({post.instance_id for post in found})[:2]
    return [post for post in found if post.instance_id in two]


def suitable_campaign(campaigns: Sequence[Any]) -> int | None:
    """Return the campaign that shows most: with both costs, if any has, and about as many posts as preferred."""

    def posts(campaign: Any) -> int:
        count: int | None = getattr(campaign, "posts_count", None)
        return MAX_PAGE_SIZE if count is None else count

    def value(campaign: Any) -> tuple[int, int]:
        costs = [getattr(campaign, name, None) for name in ("estimated_content_cost", "paid_ad_spend")]
        return sum(map(bool, costs)), -abs(posts(campaign) - PREFERRED_POSTS)

    fitting = [each for each in campaigns if 0 < posts(each) <= MAX_PAGE_SIZE]
    return max(fitting, key=value).campaign_id if fitting else None


def day_with_posts_near_midnight(posts: Collection[Any]) -> date | None:
    """Return the day with the most posts that were published near its start or end, if possible near both."""
    early, late = Counter[date](), Counter[date]()
    for instant in (post.post_date for post in posts):
        if instant.hour < HOURS_FROM_MIDNIGHT:
            early.update([instant.date(), instant.date() - DAY])
        elif instant.hour >= 24 - HOURS_FROM_MIDNIGHT:
            late.update([instant.date(), instant.date() + DAY])
    days = sorted({post.post_date.date() for post in posts} & (early + late).keys())
    return max(days, key=lambda day: (min(early[day], late[day]), early[day] + late[day]), default=None)


def days_with_stated_costs(posts: Iterable[Any]) -> tuple[date, date] | None:
    """Return the range of days with the most posts in which all state their cost; if possible, with paid ones."""
    runs: list[list[Any]] = [[]]
    for _, on_day in groupby(posts, key=lambda post: post.post_date.date()):
        of_day = [*on_day]
        if all((post.engagements or 0) > 0 or (post.impressions or 0) > 0 for post in of_day):
            runs[-1] += of_day
        else:
            runs.append([])
    run = max(runs, key=lambda run: (any(post.paid_engagements and post.cpe for post in run), len(run)))
    return (run[0].post_date.date(), run[-1].post_date.date()) if run else None


def adjacent_months(posts: Iterable[Any], *, newest: date) -> date:
    """Return the first of two adjacent months; the one with the most posts, of which both have some if possible."""
    count = Counter(post.post_date.date().replace(day=1) for post in posts)
    months = [month for month in count if month < newest.replace(day=1)]
    last = (newest.replace(day=1) - DAY).replace(day=1)
    return max(months, key=lambda month: (min(count[month], count[month_after(month)]), count[month]), default=last)


def month_after(day: date) -> date:
    return (day.replace(day=1) + 31 * DAY).replace(day=1)


def has_results(post: Any) -> bool:
    """Return whether a post has organic or paid results."""
    return any((post.engagements, post.impressions, post.paid_engagements, post.paid_impressions))
