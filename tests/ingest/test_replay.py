"""Quarantined rows are read again: what is good by now joins its partition, what is not stays, and nothing is lost."""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from later_reporting_dagster.contract import BadRow, DateBasis, Post, metrics_named, post_type
from later_reporting_dagster.ingest.replay import Replayed, replay
from later_reporting_dagster.ingest.source import Source
from later_reporting_dagster.lake import POSTS_SCHEMA, Lake, LakeUnavailable, Partition, posts_schema, posts_table
from tests.conftest import files
from tests.lake.conftest import post

PUBLISHED = Source("posts_published", DateBasis.POST_DATE)
DAILY = Source("post_metrics_daily", DateBasis.PERFORMANCE_DATE)
DAY = date(2024, 3, 2)
CELL = Partition(DAY, "a")
NOON = datetime(2024, 3, 2, 12, tzinfo=UTC)
NOW = datetime(2024, 3, 11, 6, tzinfo=UTC)


def row(post_id: int = 1, **fields: Any) -> dict[str, Any]:
    """A row as the service sends it, good but for what a test makes of it."""
    return {"instanceId": "a", "campaignId": 7, "postId": post_id, "postDate": "2024-03-02T10:00:00.000Z", **fields}


def set_aside(rows: list[Any], reason: str = "a reader of old would not have it") -> list[BadRow]:
    return [BadRow(reason=reason, raw=json.dumps(each)) for each in rows]


def of_cell(*post_ids: int, **fields: Any) -> list[Post]:
    given = {"instance_id": "a", "post_date": datetime(2024, 3, 2, 10, tzinfo=UTC)} | fields
    return [post(each, **given) for each in post_ids]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A lake that holds posts 2 and 4 of the cell in both tables."""
    lake = Lake(str(tmp_path))
    for source in (PUBLISHED, DAILY):
        lake.write(source.asset, CELL, posts_table(of_cell(2, 4)), facts={"fetched_at": "once", "queries": "[]"})
    return lake


def replayed(lake: Lake, source: Source = PUBLISHED) -> list[Replayed]:
    return list(replay(lake, source, now=NOW))


def test_what_is_good_now_joins_its_partition_and_what_is_bad_stays(lake: Lake) -> None:
    rows = [row(3, impressions=8500.0), row(1), row(9, impressions=8500.5)]
    lake.quarantine(PUBLISHED.asset, CELL, set_aside(rows), query="q")
    merged, bad = replayed(lake)
    facts = lake.facts(PUBLISHED.asset, CELL)
    assert facts is not None
    assert (merged.partition, merged.merged, merged.already_there, merged.error) == (CELL, 2, 0, "")
    assert merged.written is not None
    assert (merged.written.content_hash, merged.written.rows) == (facts.content_hash, 4)
    assert (bad.partition, bad.still_bad) == (CELL, 1)
    assert facts.facts == {"fetched_at": "once", "queries": "[]", "replayed_at": "2024-03-11T06:00:00.000+00:00"}
    wanted = [*of_cell(1, 2), *of_cell(3, impressions=8500), *of_cell(4)]
    assert lake.read(PUBLISHED.asset, [CELL], schema=POSTS_SCHEMA).equals(posts_table(wanted))
    (left,) = lake.quarantined(PUBLISHED.asset)
    assert (json.loads(left.raw), left.query, left.partition) == (rows[2], "q", CELL)
    assert "impressions" in left.reason


def test_a_row_whose_key_lies_there_already_replaces_nothing(lake: Lake, tmp_path: Path) -> None:
    before = files(tmp_path)
    lake.quarantine(PUBLISHED.asset, CELL, set_aside([row(2, impressions=5), row(4)]), query="q")
    assert replayed(lake) == [Replayed(partition=CELL, already_there=2)]
    assert files(tmp_path) == before


def test_what_joins_a_partition_is_told_from_what_lies_there_already(lake: Lake) -> None:
    lake.quarantine(PUBLISHED.asset, CELL, set_aside([row(1), row(2), row(3)]), query="q")
    (found,) = replayed(lake)
    assert (found.merged, found.already_there, found.still_bad) == (2, 1, 0)


def test_what_stays_bad_touches_no_byte(lake: Lake, tmp_path: Path) -> None:
    lake.quarantine(PUBLISHED.asset, CELL, set_aside([None], "a post is an object, not null"), query="q")
    before = files(tmp_path)
    assert replayed(lake) == [Replayed(partition=CELL, still_bad=1)]
    assert files(tmp_path) == before


def test_a_replay_that_was_cut_short_is_done_by_the_next(lake: Lake) -> None:
    lake.quarantine(PUBLISHED.asset, CELL, set_aside([row(1)]), query="q")
    outcomes = replay(lake, PUBLISHED, now=NOW)
    assert next(outcomes).merged == 1
    outcomes.close()  # type: ignore[attr-defined]
    assert len(lake.quarantined(PUBLISHED.asset)) == 1
    assert [(each.merged, each.already_there) for each in replayed(lake)] == [(0, 1)]
    assert lake.quarantined(PUBLISHED.asset) == []


def test_rows_of_a_partition_that_has_not_landed_do_not_make_one(lake: Lake) -> None:
    other = Partition(date(2024, 3, 3), "a")
    rows = set_aside([row(1, postDate="2024-03-03T00:00:00Z")])
    lake.quarantine(PUBLISHED.asset, other, rows, query="q")
    (outcome,) = replayed(lake)
    assert (outcome.partition, outcome.merged) == (other, 0)
    assert outcome.error == "the partition has not landed yet: materialize it first"
    assert lake.partitions(PUBLISHED.asset) == [CELL]
    assert len(lake.quarantined(PUBLISHED.asset)) == 1


def damaged(lake: Lake, source: Source) -> None:
    Path(lake.url(source.asset, CELL)).write_bytes(b"no Parquet")


def test_a_damaged_partition_keeps_its_rows_in_quarantine_and_the_others_are_merged(lake: Lake) -> None:
    other = Partition(DAY, "b")
    lake.write(PUBLISHED.asset, other, posts_table([]))
    lake.quarantine(PUBLISHED.asset, CELL, set_aside([row(1)]), query="q")
    lake.quarantine(PUBLISHED.asset, other, set_aside([row(1, instanceId="b")]), query="q")
    damaged(lake, PUBLISHED)
    outcomes = {outcome.partition: outcome for outcome in replayed(lake)}
    assert "is damaged" in outcomes[CELL].error
    assert outcomes[other].merged == 1
    assert [left.partition for left in lake.quarantined(PUBLISHED.asset)] == [CELL]


def test_what_is_bad_stays_beside_what_cannot_be_merged(lake: Lake) -> None:
    rows = [row(1), row(9, impressions=8500.5)]
    lake.quarantine(PUBLISHED.asset, CELL, set_aside(rows), query="q")
    damaged(lake, PUBLISHED)
    failed, bad = replayed(lake)
    assert "is damaged" in failed.error
    assert bad == Replayed(partition=CELL, still_bad=1)
    assert sorted(json.loads(left.raw)["postId"] for left in lake.quarantined(PUBLISHED.asset)) == [1, 9]


@pytest.mark.parametrize(
    ("source", "given"),
    [
        (PUBLISHED, {"instanceId": "b"}),
        (PUBLISHED, {"postDate": "2024-03-03T00:00:00Z"}),
        (PUBLISHED, {"postDate": "2024-03-03T00:30:00+00:00"}),
        (DAILY, {"instanceId": "b"}),
        (DAILY, {"postDate": "2024-03-03T00:00:00Z"}),
    ],
)
def test_a_good_row_of_another_partition_stays_in_quarantine(source: Source, given: dict[str, Any], lake: Lake) -> None:
    lake.quarantine(source.asset, CELL, set_aside([row(1, **given)]), query="q")
    assert replayed(lake, source) == [Replayed(partition=CELL, still_bad=1)]
    (left,) = lake.quarantined(source.asset)
    assert left.reason == "it belongs to another partition, or tells none"


def test_by_performance_date_a_post_of_any_age_belongs_to_the_day(lake: Lake) -> None:
    lake.quarantine(DAILY.asset, CELL, set_aside([row(1, postDate="2019-01-01T00:00:00Z")]), query="q")
    assert [outcome.merged for outcome in replayed(lake, DAILY)] == [1]


@pytest.mark.parametrize(
    ("source", "possible", "merged"),
    [
        (PUBLISHED, {CELL, Partition(date(2024, 3, 3), "a")}, True),
        (PUBLISHED, {Partition(date(2024, 3, 3), "a")}, False),
        (DAILY, {CELL, Partition(DAY, "b")}, True),
        (DAILY, {CELL, Partition(date(2024, 3, 3), "a")}, False),
        (DAILY, set(), False),
    ],
)
def test_rows_that_told_no_partition_join_it_once_they_do(
    source: Source, possible: set[Partition], merged: bool, lake: Lake
) -> None:
    lake.quarantine_query(source.asset, set_aside([row(1), None]), query="q", possible=possible)
    outcomes = replayed(lake, source)
    assert sum(outcome.merged for outcome in outcomes) == merged
    assert outcomes[-1] == Replayed(partition=None, still_bad=2 - merged)
    left = lake.quarantined(source.asset)
    assert [(each.partition, each.possible) for each in left] == [(None, frozenset(possible))] * (2 - merged)


def test_what_a_newer_reader_reads_need_not_be_json_any_more(lake: Lake) -> None:
    lake.quarantine(PUBLISHED.asset, CELL, [BadRow(reason="r", raw="{")], query="q")
    assert replayed(lake) == [Replayed(partition=CELL, still_bad=1)]
    (left,) = lake.quarantined(PUBLISHED.asset)
    assert left.reason.startswith("its raw JSON cannot be read: ")
    assert left.raw == "{"


def test_an_unwritable_partition_keeps_its_rows_in_quarantine(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.quarantine(PUBLISHED.asset, CELL, set_aside([row(1)]), query="q")

    def full(*_: object, **__: object) -> None:
        raise LakeUnavailable("no space left")

    write: Callable[..., Any] = full
    monkeypatch.setattr(lake, "write", write)
    assert replayed(lake) == [Replayed(partition=CELL, error="no space left")]
    assert len(lake.quarantined(PUBLISHED.asset)) == 1


def test_a_row_is_read_for_the_metrics_that_its_partition_was_asked_for(lake: Lake) -> None:
    likes = metrics_named("likes, impressions")
    there = post_type(likes)(post_id=2, instance_id="a", campaign_id=7, post_date=NOON, likes=9)
    lake.write(PUBLISHED.asset, CELL, posts_table([there], metrics=likes), facts={"metrics": "as it was"})
    beside = row(1, likes=3.0, impressions=4, cpm=5.0)
    within = row(3, metrics={"likes": 6, "reach": 7})
    bad = row(5, likes=0.5, cpm="was not asked for, so it may be anything")
    lake.quarantine(PUBLISHED.asset, CELL, set_aside([beside, within, bad]), query="q")
    merged, left = replayed(lake)
    assert (merged.merged, left.still_bad) == (2, 1)
    table = lake.read(PUBLISHED.asset, [CELL], schema=posts_schema(likes))
    facts = lake.facts(PUBLISHED.asset, CELL)
    assert facts is not None
    assert list(facts.columns) == posts_schema(likes).names
    assert facts.facts["metrics"] == "as it was"
    assert table.select(["post_id", "impressions", "likes", "extra"]).to_pylist() == [
        {"post_id": 1, "impressions": 4, "likes": 3, "extra": '{"cpm":5.0}'},
        {"post_id": 2, "impressions": None, "likes": 9, "extra": None},
        {"post_id": 3, "impressions": None, "likes": 6, "extra": '{"reach":7}'},
    ]
    assert [each.reason for each in lake.quarantined(PUBLISHED.asset)] == ["likes is a whole number, not 0.5"]


def test_a_row_that_told_no_partition_is_read_for_the_metrics_of_the_one_that_it_is_found_to_be_of(lake: Lake) -> None:
    likes = metrics_named("likes")
    lake.write(PUBLISHED.asset, CELL, posts_table([], metrics=likes))
    query = "startDate=2024-03-02&endDate=2024-03-02&instanceIds=a&dateBasis=post_date"
    lake.quarantine_query(PUBLISHED.asset, set_aside([row(1, likes=3), row(2, likes=-3)]), query=query)
    merged, left = replayed(lake)
    assert (merged.partition, merged.merged, left.still_bad) == (CELL, 1, 1)
    assert lake.read(PUBLISHED.asset, [CELL], schema=posts_schema(likes))["likes"].to_pylist() == [3]
