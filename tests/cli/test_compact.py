"""`later-reporting compact`: copies closed months to one file per instance, and prints one line per table."""

import os
from datetime import date

import pytest

from later_reporting_dagster.lake import Lake, Partition, posts_table
from tests.cli.conftest import User

DAYS = [date(2024, 3, number) for number in range(1, 7)]


def fill(user: User, asset: str) -> None:
    lake = Lake(str(user.lake))
    for day in DAYS:
        lake.write(asset, Partition(day, "a/b"), posts_table([]))
        os.utime(lake.url(asset, Partition(day, "a/b")), (0, 0))


def months(user: User) -> list[str]:
    return sorted(path.relative_to(user.lake).as_posix() for path in user.lake.glob("_compacted/*/*/*/*.parquet"))


def test_compact_prints_one_line_per_table(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_HOME")
    for asset in ("posts_published", "post_metrics_daily"):
        fill(user, asset)
    first = user.run("compact")
    assert first.exit_code == 0
    assert [line.partition(";")[0] for line in first.stdout.splitlines()] == [
        "post_metrics_daily: 1 months written, 0 unchanged",
        "posts_published: 1 months written, 0 unchanged",
    ]
    assert all(" read 1 monthly files instead of 6 daily files" in line for line in first.stdout.splitlines())
    assert months(user) == [
        f"_compacted/{asset}/month=2024-03/instance_id=a%2Fb/part-0.parquet"
        for asset in ("post_metrics_daily", "posts_published")
    ]
    again = user.run("compact")
    assert "posts_published: 0 months written, 1 unchanged" in again.stdout


def test_compact_skips_months_that_are_still_restated(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATER_RESTATE_DAYS", "730")
    lake = Lake(str(user.lake))
    today = date.today()  # noqa: DTZ011 - any recent day will do
    for number in range(1, 7):
        lake.write("posts_published", Partition(today.replace(day=number), "a"), posts_table([]))
    assert "posts_published: 0 months written, 0 unchanged" in user.run("compact").stdout
    assert months(user) == []
