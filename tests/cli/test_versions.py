"""`later-reporting versions`: what was replaced and kept, and how one of them is put back."""

from datetime import UTC, datetime, timedelta
from itertools import count

import dagster as dg
import pytest

from later_reporting_dagster.lake import POSTS_SCHEMA, Lake, Partition, content_hash_of
from tests.cli.conftest import User, said
from tests.lake.conftest import rows

PARTITION = Partition(datetime(2024, 3, 1, tzinfo=UTC).date(), "a/b")
CELL = ("--asset", "later/posts_published", "--partition", "2024-03-01|a%2Fb")
HASHES = {number: content_hash_of(rows(number))[:12] for number in (1, 2, 3)}


@pytest.fixture
def lake(user: User) -> Lake:
    """A lake in which one partition held 1 row at first, then 2, and 3 by now."""
    minutes = count()
    start = datetime(2024, 3, 11, 6, tzinfo=UTC)
    lake = Lake(str(user.lake), keep_versions=5, now=lambda: start + timedelta(minutes=next(minutes)))
    for number in (1, 2, 3):
        lake.write("posts_published", PARTITION, rows(number))
    return lake


def held(lake: Lake) -> int:
    return int(lake.read("posts_published", [PARTITION], schema=POSTS_SCHEMA).num_rows)


def test_they_are_listed_newest_first(user: User, lake: Lake) -> None:
    result = user.types("versions", *CELL)
    assert result.exit_code == 0
    newest, oldest = [line.split("  ") for line in result.stdout.splitlines()]
    assert newest[:4] == ["1", "2024-03-11T06:01:00+00:00", HASHES[2], "2 rows"]
    assert oldest[:4] == ["2", "2024-03-11T06:00:00+00:00", HASHES[1], "1 rows"]
    assert oldest[4].endswith(" bytes")


def test_where_none_is_kept_it_says_so(user: User) -> None:
    result = user.types("versions", "--asset", "organic_paid_daily", "--partition", "2024-03-01")
    assert (result.exit_code, result.stdout.partition(":")[0]) == (0, "No version of this partition is kept")


@pytest.mark.parametrize(("name", "number"), [("1", 2), ("2", 1), (HASHES[1], 1), (HASHES[2][:4], 2)])
def test_one_is_put_back_and_dagster_hears_of_it(name: str, number: int, user: User, lake: Lake) -> None:
    result = user.types("versions", *CELL, "--restore", name)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"posts_published  2024-03-01|a%2Fb  {number} rows, {HASHES[number]}, restored\n"
    assert held(lake) == number
    assert lake.versions("posts_published", PARTITION)[0].content_hash == HASHES[3]
    with dg.DagsterInstance.get() as instance:
        newest = instance.get_latest_materialization_event(dg.AssetKey(["later", "posts_published"]))
    assert newest is not None
    told = newest.asset_materialization
    assert told is not None
    assert told.partition == "2024-03-01|a%2Fb"
    assert told.tags["dagster/data_version"] == content_hash_of(rows(number))
    assert str(told.metadata["restored_version"].value).startswith("replaced at 2024-03-11T06:0")


def test_without_a_dagster_home_it_is_put_back_all_the_same(
    user: User, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DAGSTER_HOME")
    result = user.types("versions", *CELL, "--restore", "2")
    assert (result.exit_code, held(lake)) == (0, 1)
    assert "rollups do not follow" in result.stderr


def test_what_lies_there_already_is_no_news(user: User, lake: Lake) -> None:
    lake.write("posts_published", PARTITION, rows(2))
    result = user.types("versions", *CELL, "--restore", "2")
    assert result.stdout == f"posts_published  2024-03-01|a%2Fb  2 rows, {HASHES[2]}, lay there already\n"
    with dg.DagsterInstance.get() as instance:
        assert instance.get_latest_materialization_event(dg.AssetKey(["later", "posts_published"])) is None


@pytest.mark.parametrize("name", ["0", "3", "-1", HASHES[3], "abc", "no hash", ""])
def test_one_that_is_not_there_is_a_line_and_changes_nothing(name: str, user: User, lake: Lake) -> None:
    result = user.types("versions", *CELL, f"--restore={name}")
    assert result.exit_code == 2
    assert said(result).startswith(f"--restore {name}: ")
    assert said(result).endswith("leave --restore out to see those that are kept") or "2 versions" in said(result)
    assert held(lake) == 3


def test_one_that_is_damaged_is_a_line_and_changes_nothing(user: User, lake: Lake) -> None:
    for path in (user.lake / "_versions").rglob("*.parquet"):
        path.write_bytes(path.read_bytes()[:-9])
    assert user.types("versions", *CELL, "--restore", "1").exit_code == 1
    assert held(lake) == 3
