"""`later-reporting quarantine`: what was set aside, and how it joins its partition after a fix."""

import json
from datetime import date
from typing import Any

import dagster as dg
import pytest
from starlette.requests import Request

from later_reporting_dagster.contract import BadRow
from later_reporting_dagster.lake import Lake, Partition
from tests.cli.conftest import User
from tests.conftest import FIRST_DAY, INSTANCE_IDS, Service, Truth, files, stored_rows
from tests.defs.conftest import KEYS

ASSET = "posts_published"
INSTANCE_ID, KEY = INSTANCE_IDS[2], KEYS[2]
CELL = Partition(FIRST_DAY, INSTANCE_ID)
FIRST_DAY_ALONE = ("--start", str(FIRST_DAY), "--end", str(FIRST_DAY))


def set_aside(user: User, *rows: Any, reason: str = "r", asset: str = ASSET) -> None:
    bad_rows = [BadRow(reason=reason, raw=json.dumps(row)) for row in rows]
    Lake(str(user.lake)).quarantine(asset, CELL, bad_rows, query="q")


@pytest.fixture
def fetched(user: User, service: Service, truth: Truth) -> User:
    """A user whose lake lacks each row of a cell that yesterday's reader would not have."""

    def edited(request: Request, document: Any) -> Any:
        for row in document["data"]:
            if row["instanceId"] == INSTANCE_ID and row["postId"] % 2:
                row["impressions"] = "many"
        return document

    with dg.DagsterInstance.get() as instance:
        instance.add_dynamic_partitions("later_instance", KEYS)
    service.edited = edited
    assert user.types("backfill", "--asset", ASSET, *FIRST_DAY_ALONE).exit_code == 0
    lake = Lake(str(user.lake))
    odd = [row for row in truth.day("post_date", FIRST_DAY) if row["instanceId"] == INSTANCE_ID and row["postId"] % 2]
    assert len(lake.quarantined(ASSET)) == len(odd) > 1
    # As if the present reader could read what the one of old could not.
    lake.quarantine(ASSET, CELL, [BadRow(reason="r", raw=json.dumps(row)) for row in odd], query="q")
    service.requests.clear()
    return user


def test_rows_are_listed_by_partition_and_reason(user: User) -> None:
    set_aside(user, {"a": 1}, {"a": 2}, reason="postId is missing")
    lake = Lake(str(user.lake))
    possible = {Partition(date(2024, 3, number), name) for number in (1, 5) for name in ("a", "b")}
    lake.quarantine_query("post_metrics_daily", [BadRow(reason="no\nline", raw="{}")], query="q", possible=possible)
    lake.quarantine_query("post_metrics_daily", [BadRow(reason="r", raw="{}")], query="other")
    lake.quarantine_query(
        "post_metrics_daily", [BadRow(reason="s", raw="{}")], query="third", possible=[Partition(FIRST_DAY, "a")]
    )
    result = user.types("quarantine")
    assert result.exit_code == 0
    assert set(result.stdout.splitlines()) == {
        "post_metrics_daily  somewhere in 2024-03-01 to 2024-03-05 of 2 instances  1  no line",
        "post_metrics_daily  somewhere in 2024-03-01 of 1 instance  1  s",
        "post_metrics_daily  no partition  1  r",
        f"posts_published  2024-03-01|{KEY}  2  postId is missing",
    }
    (line,) = user.types("quarantine", "--asset", "later/posts_published").stdout.splitlines()
    assert line.startswith("posts_published")


def test_rows_are_shown_as_they_came(user: User) -> None:
    set_aside(user, {"a": 1}, {"b": "\x1b[31m"})
    assert user.types("quarantine", "--raw").stdout.splitlines()[1:] == ['    {"a": 1}', '    {"b": "\\u001b[31m"}']


def test_an_empty_quarantine_says_so(user: User) -> None:
    result = user.types("quarantine")
    assert (result.exit_code, result.stdout) == (0, "No row lies in quarantine.\n")
    assert user.types("quarantine", "--replay").exit_code == 0


def test_what_is_good_now_joins_its_partition_without_a_request_and_dagster_hears_of_it(
    fetched: User, service: Service, truth: Truth
) -> None:
    lake = Lake(str(fetched.lake))
    count = len(lake.quarantined(ASSET))
    result = fetched.types("quarantine", "--replay")
    assert result.exit_code == 0
    assert result.stdout == f"{ASSET}  {FIRST_DAY}|{KEY}  {count} merged\n"
    wanted = truth.partition("post_date", FIRST_DAY, INSTANCE_ID)
    assert stored_rows(fetched.lake, ASSET, FIRST_DAY, INSTANCE_ID) == wanted
    assert lake.quarantined(ASSET) == []
    assert service.requests == []
    facts = lake.facts(ASSET, CELL)
    assert facts is not None
    with dg.DagsterInstance.get() as instance:
        newest = instance.get_latest_materialization_event(dg.AssetKey(["later", ASSET]))
    assert newest is not None
    assert newest.run_id == ""
    told = newest.asset_materialization
    assert told is not None
    assert (told.partition, told.tags["dagster/data_version"]) == (f"{FIRST_DAY}|{KEY}", facts.content_hash)
    assert (told.metadata["rows"].value, told.metadata["replayed_rows"].value) == (len(wanted), count)


def test_without_a_dagster_home_the_lake_is_mended_all_the_same(
    fetched: User, truth: Truth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DAGSTER_HOME")
    result = fetched.types("quarantine", "--replay")
    assert result.exit_code == 0
    assert "DAGSTER_HOME is not set" in result.stderr
    assert len(stored_rows(fetched.lake, ASSET, FIRST_DAY, INSTANCE_ID)) == len(
        truth.partition("post_date", FIRST_DAY, INSTANCE_ID)
    )


def test_what_is_still_bad_and_what_is_there_already_is_told(fetched: User, truth: Truth) -> None:
    even = next(
        row for row in truth.day("post_date", FIRST_DAY) if row["instanceId"] == INSTANCE_ID and not row["postId"] % 2
    )
    set_aside(fetched, even, {"surprise": True})
    before = files(fetched.lake / ASSET)
    result = fetched.types("quarantine", "--replay", "--asset", ASSET)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"{ASSET}  {FIRST_DAY}|{KEY}  1 there already, and left as they lie there",
        f"{ASSET}  {FIRST_DAY}|{KEY}  1 still bad",
    ]
    assert files(fetched.lake / ASSET) == before


def test_good_rows_that_cannot_be_added_are_named_with_exit_code_1(user: User) -> None:
    post = {"instanceId": INSTANCE_ID, "campaignId": 1, "postId": 1, "postDate": f"{FIRST_DAY}T00:00:00Z"}
    set_aside(user, post)
    result = user.types("quarantine", "--replay")
    assert result.exit_code == 1
    line = f"{ASSET}  {FIRST_DAY}|{KEY}  the partition has not landed yet: materialize it first"
    assert result.stderr.splitlines()[-1] == line
    assert len(Lake(str(user.lake)).quarantined(ASSET)) == 1
