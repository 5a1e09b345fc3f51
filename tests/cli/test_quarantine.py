"""`later-reporting quarantine`: lists quarantined rows."""

import json
from datetime import date
from typing import Any

from later_reporting_dagster.contract import BadRow
from later_reporting_dagster.lake import Lake, Partition
from tests.cli.conftest import User
from tests.conftest import FIRST_DAY, INSTANCE_IDS

ASSET = "posts_published"
PARTITION = Partition(FIRST_DAY, INSTANCE_IDS[2])


def quarantine_rows(user: User, *rows: Any, reason: str = "r", asset: str = ASSET) -> None:
    bad_rows = [BadRow(reason=reason, raw=json.dumps(row)) for row in rows]
    Lake(str(user.lake)).quarantine.write(asset, PARTITION, bad_rows, query="q")


def test_quarantine_lists_rows_by_pair_and_reason(user: User) -> None:
    quarantine_rows(user, {"a": 1}, {"a": 2}, reason="postId is missing")
    lake = Lake(str(user.lake))
    for reason, last in (("no\nline", 5), ("s", 1)):
        day_range = (FIRST_DAY, date(2024, 3, last))
        lake.quarantine.write_rows_without_partition(
            "post_metrics_daily", [BadRow(reason=reason, raw="{}")], query="q", day_range=day_range
        )
    result = user.run("quarantine")
    assert result.exit_code == 0
    assert set(result.stdout.splitlines()) == {
        "post_metrics_daily  day or instance unknown, from the query of 2024-03-01 to 2024-03-05  1  no line",
        "post_metrics_daily  day or instance unknown, from the query of 2024-03-01  1  s",
        f"posts_published  2024-03-01 {INSTANCE_IDS[2]}  2  postId is missing",
    }
    (line,) = user.run("quarantine", "--asset", "later/posts_published").stdout.splitlines()
    assert line.startswith("posts_published")


def test_quarantine_raw_prints_the_json_of_each_row(user: User) -> None:
    quarantine_rows(user, {"a": 1}, {"b": "\x1b[31m"})
    assert user.run("quarantine", "--raw").stdout.splitlines()[1:] == ['    {"a": 1}', '    {"b": "\\u001b[31m"}']


def test_quarantine_without_rows_prints_that(user: User) -> None:
    result = user.run("quarantine")
    assert (result.exit_code, result.stdout) == (0, "No rows in quarantine.\n")
