"""Posts are compared with what Later totals for each instance and day."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pytest

from later_reporting_dagster.lake import Lake, Partition, partition_path
from later_reporting_dagster.lake.file_metadata import FETCHED_AT
from later_reporting_dagster.lake.tables import INSTANCE_PERFORMANCE_DAILY, POST_METRICS_DAILY
from later_reporting_dagster.rollups.raw_reconciliation import (
    COMPARED_METRICS,
    AccountReconciliation,
    reconcile_accounts,
)
from tests.rollups.conftest import Row, count_reads, in_parts, posts_of, row

LAST_DAY = date(2024, 3, 31)
NOON = datetime(2024, 4, 4, 12, tzinfo=UTC)
Files = Mapping[Partition, list[Row]]


def reconciled(
    folder: Path, posts: Files, accounts: Files, *, hours_apart: float = 1, days: list[date] | None = None
) -> AccountReconciliation:
    """Return the comparison of the files of a new lake, which were requested so many hours apart."""
    lake = written(folder, posts, accounts, hours_apart=hours_apart)
    return in_parts(lambda: reconcile_accounts(lake, last_day=LAST_DAY, memory_gb=1, days=days))


def written(folder: Path, posts: Files, accounts: Files, *, hours_apart: float = 1) -> Lake:
    lake = Lake(str(folder / f"[{len([*folder.iterdir()])}]"))
    schema = INSTANCE_PERFORMANCE_DAILY.table.schema
    tables = {each: pa.Table.from_pylist(rows, schema) for each, rows in accounts.items()}
    for name, files, at in (
        (POST_METRICS_DAILY.name, {each: posts_of(*rows) for each, rows in posts.items()}, NOON),
        (INSTANCE_PERFORMANCE_DAILY.name, tables, NOON + timedelta(hours=hours_apart)),
    ):
        lake.write_all(name, files, metadata={FETCHED_AT: at.isoformat()})
    return lake


def account(instance_id: str, **metrics: int | None) -> Row:
    return {"instance_id": instance_id, **metrics}


def of_posts(rows: list[Row], *, by_campaign: bool = False) -> dict[str, int]:
    """Return the totals of posts, of which each counts once, or once for each of its campaigns."""
    counted = rows if by_campaign else [*{each["post_id"]: each for each in rows}.values()]
    return {name: sum(each[name] or 0 for each in counted) for name in COMPARED_METRICS}


def world(*, days: int = 30) -> dict[Partition, list[Row]]:
    """Return days of two instances: posts of several campaigns, unlikes, and days without posts."""
    random, files = Random(5), dict[Partition, list[Row]]()
    for number in range(days):
        for name in ("north", "south"):
            rows = []
            for post in range(random.choice([0, 8, 9])):
                values = {metric: random.randint(-5, 9_000) for metric in COMPARED_METRICS}
                of_post = row(instance_id=name, post_id=post, **values)
                rows += [of_post | {"campaign_id": number} for number in range(1 + (post % 4 == 0))]
            files[Partition(LAST_DAY - timedelta(days=number), name)] = rows
    return files


def totals(posts: Files, *, by_campaign: bool = False) -> dict[Partition, list[Row]]:
    """Return what Later would total; days without posts are left out of its answer."""
    return {
        each: [account(str(each.instance_id), **of_posts(rows, by_campaign=by_campaign))] if rows else []
        for each, rows in posts.items()
    }


def differences(found: AccountReconciliation) -> list[tuple[Any, ...]]:
    return [(each["first_day"], each["last_day"], each["instance_id"], each["metric"]) for each in found.differing]


def test_posts_that_agree_do_not_differ(tmp_path: Path) -> None:
    posts = world()
    found = reconciled(tmp_path, posts, totals(posts))
    assert (found.compared, found.differing, found.counts_by_campaign) == (60, [], False)
    assert reconciled(tmp_path, posts, totals(posts), days=[LAST_DAY]).compared == 2


def test_each_file_is_read_for_its_footer_and_its_rows_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    posts = world(days=4)
    lake = written(tmp_path, posts, totals(posts))
    reads = count_reads(lake, monkeypatch)
    assert reconcile_accounts(lake, last_day=LAST_DAY, memory_gb=1).compared
    for name in (POST_METRICS_DAILY.name, INSTANCE_PERFORMANCE_DAILY.name):
        assert {each: reads[partition_path(name, each)] for each in posts} == dict.fromkeys(posts, 2)


def test_a_hidden_and_a_doubled_post_are_named_by_day_and_instance(tmp_path: Path) -> None:
    posts = world()
    accounts = totals(posts)
    hidden, doubled = [each for each, rows in posts.items() if len(rows) > 4][:2]
    hidden_posts = [each for each in posts[hidden] if each["post_id"] != 1]
    lacking = {**posts, hidden: hidden_posts, doubled: [*posts[doubled], posts[doubled][-1] | {"post_id": 99}]}
    found = reconciled(tmp_path, lacking, accounts)
    of_days = {(first, name) for first, last, name, _ in differences(found) if first == last}
    assert of_days == {(each.day, each.instance_id) for each in (hidden, doubled)}
    assert not found.counts_by_campaign


def test_small_differences_of_days_add_up(tmp_path: Path) -> None:
    names = [Partition(LAST_DAY - timedelta(days=number), "north") for number in range(28)]
    posts = {each: [row(instance_id="north", **dict.fromkeys(COMPARED_METRICS, 10_000))] for each in names}
    accounts = {each: [account("north", **dict.fromkeys(COMPARED_METRICS, 10_000))] for each in names}
    for each in names:
        accounts[each][0]["impressions"] = 10_009
    assert differences(reconciled(tmp_path, posts, accounts)) == []
    for each in names:
        accounts[each][0]["impressions"] = 10_011
    assert differences(reconciled(tmp_path, posts, accounts)) == [(names[-1].day, LAST_DAY, "north", "impressions")]
    accounts[names[3]][0]["engagements"] = 10_102
    assert (names[3].day, names[3].day, "north", "engagements") in differences(reconciled(tmp_path, posts, accounts))


def test_a_day_that_later_omits_is_one_of_zeros(tmp_path: Path) -> None:
    day = Partition(LAST_DAY, "north")
    posts = {day: [row(instance_id="north", **dict.fromkeys(COMPARED_METRICS, 0) | {"impressions": 11})]}
    assert differences(reconciled(tmp_path, posts, {day: []})) == [(LAST_DAY, LAST_DAY, "north", "impressions")]
    posts[day][0]["impressions"] = 10
    assert differences(reconciled(tmp_path, posts, {day: []})) == []


def test_what_cannot_be_compared_is_left_out(tmp_path: Path) -> None:
    day, after = Partition(LAST_DAY, "north"), Partition(LAST_DAY + timedelta(days=1), "north")
    counts = dict.fromkeys(COMPARED_METRICS, 500)
    posts = [row(instance_id="north", **counts)]
    other = dict.fromkeys(COMPARED_METRICS, 5_000)
    assert reconciled(tmp_path, {after: posts}, {after: [account("north", **other)]}).compared == 0
    assert reconciled(tmp_path, {day: posts}, {day: [account("north", **other)]}, hours_apart=25).compared == 0
    found = reconciled(tmp_path, {day: posts}, {day: [account("north", **other | {"engagements": None})]})
    assert {metric for _, _, _, metric in differences(found)} == {*COMPARED_METRICS} - {"engagements"}


def test_null_counts_as_nothing(tmp_path: Path) -> None:
    day, counts = Partition(LAST_DAY, "north"), dict.fromkeys(COMPARED_METRICS, 500)
    posts = [row(instance_id="north", **counts), row(instance_id="north", post_id=2, **counts | {"impressions": None})]
    agreeing = dict.fromkeys(COMPARED_METRICS, 1_000) | {"impressions": 500}
    assert differences(reconciled(tmp_path, {day: posts}, {day: [account("north", **agreeing)]})) == []
    found = reconciled(tmp_path, {day: posts}, {day: [account("north", **agreeing | {"impressions": 900})]})
    assert [(each["metric"], each["lacking"]) for each in found.differing] == [("impressions", 1)]


def test_of_a_post_of_several_campaigns_the_row_with_the_lowest_id_counts_even_if_null(tmp_path: Path) -> None:
    """As in the rollups, so that its other rows are no result of the post."""
    day, counts = Partition(LAST_DAY, "north"), dict.fromkeys(COMPARED_METRICS, 500)
    several = [row(instance_id="north", campaign_id=2, **counts | {"impressions": None})]
    several.append(row(instance_id="north", campaign_id=3, **counts))
    accounts = {day: [account("north", **counts | {"impressions": 0})]}
    assert differences(reconciled(tmp_path, {day: several}, accounts)) == []


def test_totals_may_count_a_post_once_for_each_of_its_campaigns(tmp_path: Path) -> None:
    posts = world()
    found = reconciled(tmp_path, posts, totals(posts, by_campaign=True))
    assert found.differing
    assert found.counts_by_campaign


def test_totals_count_by_campaign_only_if_those_of_each_instance_do(tmp_path: Path) -> None:
    posts = world()
    once, by_campaign = totals(posts), totals(posts, by_campaign=True)
    found = reconciled(
        tmp_path, posts, {each: (once if each.instance_id == "south" else by_campaign)[each] for each in posts}
    )
    assert found.differing
    assert not found.counts_by_campaign
