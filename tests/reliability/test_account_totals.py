"""Posts and Later's own totals, fetched from the independent server, are held against each other.

What differs on purpose is named by day and instance, and nothing else is.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from itertools import product
from pathlib import Path

import dagster as dg
import pytest

from later_reporting_dagster.client import ClientCredentials, LaterClient, RateLimiter, RetryPolicy
from later_reporting_dagster.contract import API_VERSIONS, DEFAULT_METRICS
from later_reporting_dagster.contract.metrics import OVER_TIME_METRICS
from later_reporting_dagster.defs.checks.totals import evaluate_account_totals
from later_reporting_dagster.ingest.fetch_days import DayFetch, fetch_days
from later_reporting_dagster.lake import Lake
from later_reporting_dagster.lake.tables import INSTANCE_PERFORMANCE_DAILY, POST_METRICS_DAILY
from later_reporting_dagster.rollups.raw_reconciliation import AccountReconciliation, reconcile_accounts
from tests.independent_server import CLIENT_ID, CLIENT_SECRET, REPORTED_DAYS, IndependentServer, Posts

pytestmark = pytest.mark.faults

DAYS = [date(2024, 2, 10) + timedelta(days=offset) for offset in range(30)]
INSTANCE_IDS = ("north", "007", "Zoë")
METRICS = {POST_METRICS_DAILY: DEFAULT_METRICS, INSTANCE_PERFORMANCE_DAILY: OVER_TIME_METRICS}
COMPARED = {
    "impressions": "impressions",
    "engagements": "engagements",
    "paidImpressions": "paid_impressions",
    "paidEngagements": "paid_engagements",
}
Difference = tuple[date, str, str]

both_versions = pytest.mark.parametrize("version", API_VERSIONS)


def new_posts(*, seed: int = 1) -> Posts:
    """Return posts of which many are in several campaigns, with values that are null or negative, and days without."""
    first = DAYS[0] - timedelta(days=REPORTED_DAYS)
    posts = Posts(
        first_day=first, days=len(DAYS) + 6, instance_ids=INSTANCE_IDS, seed=seed, most=5, has_large_values=False
    )
    late = DAYS[12:18]
    posts.hidden = {number for day in late for number in posts.ids(day, "007")}
    return posts


def reported_once(posts: Posts) -> Posts:
    """Let posts compute each of their days only once; from now on, they must not change."""
    posts.reported = cache(posts.reported)  # type: ignore[method-assign]
    return posts


@dataclass
class Account:
    """A lake, and the server of its account.

    Attributes:
        twice: ids of posts that Later's totals count twice.
    """

    root: Path
    version: str
    listed: Posts
    totalled: Posts
    twice: tuple[int, ...] = ()
    post_counts_once: bool = True

    @property
    def lake(self) -> Lake:
        return Lake(str(self.root))

    def fetch(self) -> AccountReconciliation:
        """Fetch all days of both tables; return the comparison of what is stored."""
        server = IndependentServer(
            self.listed,
            by_cursor=self.version == "cursor",
            totalled=self.totalled,
            totalled_twice=self.twice,
            post_counts_once=self.post_counts_once,
        )
        with server.running() as base_url:
            asyncio.run(self._fetch(base_url))
        return reconcile_accounts(self.lake, last_day=DAYS[-1], memory_gb=1)

    async def _fetch(self, base_url: str) -> None:
        for table, metrics in METRICS.items():
            client = LaterClient(
                base_url=base_url,
                credentials=ClientCredentials(CLIENT_ID, CLIENT_SECRET),
                limiter=RateLimiter(requests=1_000_000, window_seconds=0.01),
                api_version=None,
                retry=RetryPolicy(max_attempts=2),
            )
            wanted = DayFetch(table=table, days=DAYS, metrics=metrics, run_id="run")
            async for day in fetch_days(wanted, client=client, lake=self.lake):
                assert not day.failed

    def true_differences(self) -> Iterator[Difference]:
        """Yield the days that differ by more than 1 % and 10, as the server adds them up."""
        for day, instance_id in product(DAYS, INSTANCE_IDS):
            of_posts, of_later = (
                [row for row in posts.reported(day, day) if row["instanceId"] == instance_id]
                for posts in (self.listed, self.totalled)
            )
            of_later += [row for row in of_later if row["postId"] in self.twice]
            sums, totals = (self.listed.totals(rows, day, day, post_counts_once=True) for rows in (of_posts, of_later))
            for name, column in COMPARED.items():
                total = totals[name] if of_later else 0
                if total is not None and abs(total - (sums[name] or 0)) > max(10, abs(total) / 100):
                    yield day, instance_id, column


def of_days(found: AccountReconciliation) -> set[Difference]:
    """Return the single days that differ."""
    return {
        (each["first_day"], each["instance_id"], each["metric"])
        for each in found.differing
        if each["first_day"] == each["last_day"]
    }


def judged(found: AccountReconciliation) -> tuple[bool, str]:
    result: dg.AssetCheckResult = evaluate_account_totals(found)
    return result.passed, str(result.description)


@both_versions
@pytest.mark.parametrize("seed", [1, 2])
def test_check_is_silent_if_posts_and_totals_agree(seed: int, version: str, tmp_path: Path) -> None:
    posts = reported_once(new_posts(seed=seed))
    rows = [row for day in DAYS for row in posts.reported(day, day)]
    assert len({(row["postId"], row["campaignId"]) for row in rows}) > len({row["postId"] for row in rows})
    values = [row["impressions"] for row in rows]
    assert None in values
    assert min(value for value in values if value is not None) < 0
    found = Account(tmp_path, version, posts, posts).fetch()
    assert (found.compared, of_days(found)) == (len(DAYS) * len(INSTANCE_IDS), set())
    assert judged(found) == (True, "The posts of 90 days of instances add up to Later's totals")


@both_versions
def test_check_says_that_totals_count_a_post_once_for_each_of_its_campaigns(version: str, tmp_path: Path) -> None:
    posts = reported_once(new_posts())
    found = Account(tmp_path, version, posts, posts, post_counts_once=False).fetch()
    passed, description = judged(found)
    assert passed
    assert description.endswith("if a post counts once for each of its campaigns")


@both_versions
@pytest.mark.parametrize("fault", ["hidden", "twice", "shifted"])
def test_check_names_the_days_and_instances_that_differ(fault: str, version: str, tmp_path: Path) -> None:
    listed, totalled, day = new_posts(seed=2), new_posts(seed=2), DAYS[20]
    post_id = largest_post(totalled, day, "north")
    listed.hidden |= {post_id} if fault == "hidden" else set()
    listed.hours_from_utc = 5 if fault == "shifted" else 0
    twice = (post_id,) if fault == "twice" else ()
    account = Account(tmp_path, version, reported_once(listed), reported_once(totalled), twice)
    expected = {*account.true_differences()}
    found = account.fetch()
    assert of_days(found) == expected
    passed, description = judged(found)
    assert not passed
    instances = {"north"} if fault != "shifted" else {*INSTANCE_IDS}
    assert {each["instance_id"] for each in found.differing} == instances
    named = [f"{metric} of {instance_id} on {day}" for day, instance_id, metric in sorted(expected)]
    assert named[0] in description
    assert fault == "shifted" or all(text in description for text in named)


def largest_post(posts: Posts, day: date, instance_id: str) -> int:
    """Return the post of an instance with the most impressions on a day."""
    rows = [row for row in posts.reported(day, day) if row["instanceId"] == instance_id]
    found: int = max(rows, key=lambda row: row["impressions"] or 0)["postId"]
    return found


@both_versions
def test_late_posts_differ_only_until_both_tables_have_them(version: str, tmp_path: Path) -> None:
    before, late = new_posts(), new_posts()
    late.hidden = set()
    of_before, of_late = reported_once(before), reported_once(late)
    assert judged(Account(tmp_path, version, of_before, of_before).fetch())[0]
    between = Account(tmp_path, version, of_before, of_late)
    found = between.fetch()
    assert of_days(found) == {*between.true_differences()} != set()
    assert {each["instance_id"] for each in found.differing} == {"007"}
    assert not judged(found)[0]
    assert judged(Account(tmp_path, version, of_late, of_late).fetch()) == (
        True,
        "The posts of 90 days of instances add up to Later's totals",
    )
