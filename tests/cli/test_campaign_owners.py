"""Whose a campaign is, and that no campaign of an instance is lost, by the commands, on the independent server."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.cli.accounts import (
    ACCOUNT_PERIODS,
    CAMPAIGN_DAYS,
    CAMPAIGN_PERIODS,
    CAMPAIGNS,
    NEWEST,
    POSTS,
    Account,
    failures,
    new_posts,
    serving,
)
from tests.independent_server import Asked, IndependentServer, Reply

FETCHED = (*POSTS, CAMPAIGN_DAYS, CAMPAIGN_PERIODS)
ROLLUPS = ("campaign_results", "campaigns_monthly")
OTHER_CAMPAIGNS = (24, 25, 26)


# Rows of campaigns do not name their instances, or do.
with_or_without_names = pytest.mark.parametrize(
    "account", [False, pytest.param(True, marks=pytest.mark.faults)], indirect=True, ids=["plain", "instanceId"]
)


@pytest.fixture
def account(
    request: pytest.FixtureRequest, dagster_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Account]:
    """An account with the instances a, b and c; parametrized, with rows of campaigns that name theirs."""
    server = IndependentServer(
        new_posts("a", "b", "c"), by_cursor=False, names_instances=getattr(request, "param", False)
    )
    with serving(server, home=dagster_home, folder=tmp_path, environment=monkeypatch) as account:
        yield account


both_versions = pytest.mark.parametrize(
    "by_cursor", [False, pytest.param(True, marks=pytest.mark.faults)], ids=["paged", "cursor"]
)


def stored(account: Account, instance_id: str) -> set[tuple[str, str, int]]:
    """Return the stored days and periods of the campaigns of an instance."""
    found = {
        (CAMPAIGN_DAYS, path.parent.name, number)
        for path in (account.lake / CAMPAIGN_DAYS).rglob("part-0.parquet")
        for number in pq.ParquetFile(path).read(["campaign_id"])["campaign_id"].to_pylist()
    } | {
        (CAMPAIGN_PERIODS, f"{row['period']} {row['first_day']}", row["campaign_id"])
        for row in account.rows(CAMPAIGN_PERIODS)
    }
    return {key for key in found if key[2] in CAMPAIGNS[instance_id]}


@with_or_without_names
@pytest.mark.parametrize("lists", [(), ("campaigns",)], ids=["without the list", "with it"])
def test_campaigns_of_an_instance_that_is_not_listed_stay(lists: tuple[str, ...], account: Account) -> None:
    account.configure(tables=(*FETCHED, *lists))
    account.backfill()
    before = stored(account, "c")
    assert {table for table, _, _ in before} == {CAMPAIGN_DAYS, CAMPAIGN_PERIODS}
    account.server.unlisted = {"c"}
    account.backfill()
    assert stored(account, "c") == before


@with_or_without_names
def test_a_campaign_of_an_unknown_instance_stays_unless_all_instances_answered(account: Account) -> None:
    account.configure(tables=FETCHED)
    # No post of any of them was ever recorded.
    account.server.posts.moved = dict(zip(CAMPAIGNS["c"], OTHER_CAMPAIGNS, strict=True))
    account.backfill()
    before = stored(account, "c")
    assert before
    account.server.unlisted = {"c"}
    account.backfill()
    assert stored(account, "c") == before
    account.server.unlisted, account.server.refused = set(), {"c": 403}
    account.backfill(exit_code=1)
    assert stored(account, "c") == before


def without_campaign(number: int) -> Callable[[Asked, Reply], Reply]:
    """Leave a campaign out of all performance of campaigns, as if it had been deleted."""

    def change(asked: Asked, reply: Reply) -> Reply:
        if asked.path == "/v2/campaigns/performance" and reply.status == 200:
            document = reply.document
            rows = [row for row in document["data"] if row["campaignId"] != number]
            document["data"] = rows
            document["pagination"]["totalItems"] = len(rows)
        return reply

    return change


def test_a_deleted_campaign_of_an_unknown_instance_goes_if_all_instances_answered(account: Account) -> None:
    account.configure(tables=FETCHED)
    account.server.posts.moved = {21: 24}
    account.backfill()
    assert 21 in {number for _, _, number in stored(account, "c")}
    account.server.change = without_campaign(21)
    account.backfill()
    assert 21 not in {number for _, _, number in stored(account, "c")}


@with_or_without_names
@pytest.mark.parametrize("lists", [("instances", "campaigns"), ()], ids=["with lists", "without lists"])
def test_campaigns_of_a_listed_instance_that_answers_with_nothing_stay(
    lists: tuple[str, ...], account: Account
) -> None:
    account.configure(tables=(*FETCHED, ACCOUNT_PERIODS, *lists))
    account.backfill()
    before, totals = stored(account, "c"), account.totals()
    account.server.empty = {"c"}
    result = account.backfill(exit_code=1)
    assert stored(account, "c") == before
    of_c = [row for row in account.totals() if row["instance_id"] == "c"]
    assert of_c == [row for row in totals if row["instance_id"] == "c"]
    failed = {table for table, _ in failures(result.stderr)}
    assert {CAMPAIGN_DAYS, CAMPAIGN_PERIODS, ACCOUNT_PERIODS} <= failed
    assert stored(account, "a")
    account.server.empty = set()
    account.backfill()
    assert stored(account, "c") == before


def test_the_newest_week_of_an_instance_may_be_empty(account: Account) -> None:
    """A campaign has ended: its instance has others in the month, and a second answer for the week is empty, too."""
    account.configure(tables=(*FETCHED, "instances", "campaigns"))
    account.backfill()
    posts = account.server.posts
    newest = {post["postId"] for post in posts.published(date(2000, 1, 1), NEWEST) if post["instanceId"] == "c"}
    old = {
        post["postId"]
        for post in posts.published(date(2000, 1, 1), date.fromordinal(NEWEST.toordinal() - 14))
        if post["instanceId"] == "c"
    }
    assert old
    assert newest - old
    posts.hidden |= newest - old
    account.backfill("--allow-row-loss")
    periods = {period.split()[0] for table, period, _ in stored(account, "c") if table == CAMPAIGN_PERIODS}
    assert "7d" not in periods
    assert "90d" in periods


def campaigns_in(account: Account, table: str) -> set[int]:
    return {row["campaign_id"] for row in account.query(f"select distinct campaign_id from {table}")}


@with_or_without_names
@pytest.mark.parametrize("lists", [(), ("campaigns",)], ids=["without the list", "with it"])
def test_campaigns_of_a_retired_instance_are_not_in_the_numbers(lists: tuple[str, ...], account: Account) -> None:
    account.configure(tables=(*FETCHED, *lists, *ROLLUPS))
    account.backfill()
    assert campaigns_in(account, "campaign_results") & {*CAMPAIGNS["c"]}
    account.run("retire", "c")
    account.run("refresh")
    for table in ROLLUPS:
        found = campaigns_in(account, table)
        assert not found & {*CAMPAIGNS["c"]}, table
        assert found & {*CAMPAIGNS["a"]}


def test_a_campaign_of_an_unknown_instance_is_named(account: Account) -> None:
    account.configure(tables=(*FETCHED, *ROLLUPS))
    account.server.posts.moved = {21: 24}
    account.server.names_instances = False
    account.backfill()
    account.run("retire", "c")
    result = account.backfill()
    named = [line for line in result.stdout.splitlines() if "WARN" in line and "instance" in line]
    assert [line for line in named if re.search(r"\b21\b", line)], result.stdout


def test_a_campaign_whose_posts_have_moved_is_that_of_the_instance_that_recorded_them(account: Account) -> None:
    first = NEWEST - timedelta(days=3)
    account.configure(tables=(*FETCHED, "instances", "campaigns", *ROLLUPS), LATER_START_DATE=str(first))
    account.server.unlisted_campaigns = {*CAMPAIGNS["c"]}
    account.backfill(days=4)
    account.server.posts.moved = dict(zip(CAMPAIGNS["c"], OTHER_CAMPAIGNS, strict=True))
    # The newest rows of all posts are in other campaigns, but not those of earlier days.
    account.run("backfill", "--asset", "posts_published", "--start", str(first), "--end", str(NEWEST))
    account.backfill(days=1)
    for table in ROLLUPS:
        rows = account.query(f"select distinct campaign_id, instance_id from {table}")
        owners = {row["campaign_id"]: row["instance_id"] for row in rows}
        assert {number: owners.get(number) for number in CAMPAIGNS["c"]} == dict.fromkeys(CAMPAIGNS["c"], "c"), table


@pytest.mark.parametrize("status", [403, 404])
def test_a_refused_list_of_campaigns_is_a_warning(status: int, account: Account) -> None:
    account.configure(tables=(*FETCHED, "instances", "campaigns"))
    account.server.refused = {"/v2/campaigns": status}
    result = account.backfill()
    warnings = [line for line in result.stderr.splitlines() if line.startswith("Warning: ")]
    assert [line for line in warnings if "later/campaigns was not updated" in line], result.output
    refreshed = account.run("refresh")
    assert "later/campaigns was not updated" in refreshed.stderr, refreshed.output


def without_values(data: Any) -> Any:
    """Return an object of metrics, or rows, with null in place of each metric."""
    if isinstance(data, list):
        return [without_values(row) for row in data]
    kept = ("campaignId", "instanceId", "campaignName", "name", "networks")
    return {
        name: value if name in kept else without_values(value) if name == "metrics" else None
        for name, value in data.items()
    }


def answer(path: str, change: Callable[[Any], Any]) -> Callable[[Asked, Reply], Reply]:
    """Change the `data` of each successful response of a path."""

    def changed(asked: Asked, reply: Reply) -> Reply:
        if asked.path != path or reply.status != 200:
            return reply
        return replace(reply, document=reply.document | {"data": change(reply.document["data"])})

    return changed


@both_versions
@pytest.mark.parametrize("form", ["nulls", "empty"])
def test_totals_of_an_account_that_are_null_replace_nothing(form: str, by_cursor: bool, account: Account) -> None:
    account.server.by_cursor = by_cursor
    account.configure(tables=(ACCOUNT_PERIODS,))
    account.backfill()
    before = account.rows(ACCOUNT_PERIODS)
    forms: dict[str, Callable[[Any], Any]] = {
        "nulls": without_values,
        "empty": lambda data: {"metrics": {}} if "metrics" in data else {},
    }
    account.server.change = answer("/v2/instances/performance", forms[form])
    result = account.backfill(exit_code=1)
    assert account.rows(ACCOUNT_PERIODS) == before
    failed = {subject for _, subject in failures(result.stderr)}
    week = [row for row in before if (row["period"], row["scope"]) == ("7d", "instance")]
    assert {f"7d {row['first_day']} to {row['last_day']} of {row['instance_id']}" for row in week} <= failed
    times = {number for target, number in account.asked.items() if f"startDate={week[0]['first_day']}" in target}
    assert times == {2}, "each is asked for again, alone"


@both_versions
def test_totals_of_campaigns_that_are_null_replace_nothing(by_cursor: bool, account: Account) -> None:
    account.server.by_cursor = by_cursor
    account.configure(tables=(CAMPAIGN_PERIODS,))
    account.backfill()
    before = account.rows(CAMPAIGN_PERIODS)
    account.server.change = answer("/v2/campaigns/performance", without_values)
    result = account.backfill(exit_code=1)
    assert account.rows(CAMPAIGN_PERIODS) == before
    failed = {subject for _, subject in failures(result.stderr)}
    assert [subject for subject in failed if subject.startswith("7d ")]
