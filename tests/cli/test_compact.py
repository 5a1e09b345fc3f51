"""`later-reporting compact`: closed months as one file an instance, told in a line a table."""

import os
from datetime import date
from pathlib import Path

import pytest

from later_reporting_dagster.lake import Lake, Partition, posts_table
from tests.cli.conftest import User, error_line

DAYS = [date(2024, 3, number) for number in range(1, 7)]


def fill(user: User, asset: str) -> None:
    lake = Lake(str(user.lake))
    for day in DAYS:
        lake.write(asset, Partition(day, "a/b"), posts_table([]))
        os.utime(lake.url(asset, Partition(day, "a/b")), (0, 0))


def months(user: User) -> list[str]:
    return sorted(path.relative_to(user.lake).as_posix() for path in user.lake.glob("_compacted/*/*/*/*.parquet"))


def test_both_tables_are_compacted_and_told_of(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_HOME")
    for asset in ("posts_published", "post_metrics_daily"):
        fill(user, asset)
    first = user.types("compact")
    assert first.exit_code == 0
    assert [line.partition(";")[0] for line in first.stdout.splitlines()] == [
        "post_metrics_daily: 1 months written, 0 left alone",
        "posts_published: 1 months written, 0 left alone",
    ]
    assert all(" 6 daily files " in line and " can be read as 1 of " in line for line in first.stdout.splitlines())
    assert months(user) == [
        f"_compacted/{asset}/month=2024-03/instance_id=a%2Fb/part-0.parquet"
        for asset in ("post_metrics_daily", "posts_published")
    ]
    again = user.types("compact")
    assert "posts_published: 0 months written, 1 left alone" in again.stdout


def test_one_table_alone_is_named_as_elsewhere(user: User) -> None:
    for asset in ("posts_published", "post_metrics_daily"):
        fill(user, asset)
    result = user.types("compact", "--asset", "later/posts_published")
    assert [line.partition(":")[0] for line in result.stdout.splitlines()] == ["posts_published"]
    assert len(months(user)) == 1
    assert user.types("compact", "--asset", "organic_paid_daily").exit_code == 2


def test_what_is_still_restated_is_not_compacted(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATER_RESTATE_DAYS", "730")
    lake = Lake(str(user.lake))
    today = date.today()  # noqa: DTZ011 - any day of about now
    for number in range(1, 7):
        lake.write("posts_published", Partition(today.replace(day=number), "a"), posts_table([]))
    assert "posts_published: 0 months written, 0 left alone" in user.types("compact").stdout
    assert months(user) == []


def test_a_lake_that_cannot_be_reached_is_one_line(user: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LATER_LAKE_ROOT", str(tmp_path / "file"))
    result = user.types("compact")
    assert result.exit_code == 1
    assert "a file stands where a directory is due" in error_line(result)
