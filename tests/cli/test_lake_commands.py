"""`later-reporting instances` and `quarantine`: what the lake has."""

import json
from datetime import UTC, date, datetime
from itertools import chain
from typing import Any

import pytest

from later_reporting_dagster.contract import BadRow
from later_reporting_dagster.contract.days import expected_days
from later_reporting_dagster.contract.instances import NO_MARKS
from later_reporting_dagster.defs.component_base import ComponentBase
from later_reporting_dagster.lake import Lake, Partition, posts_table
from tests.cli.conftest import User, error_line
from tests.conftest import FIRST_DAY, INSTANCE_IDS, Service, files, parameters


def columns(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_instances_prints_newest_and_missing_days_and_writes_nothing(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = ("--start", "2024-03-01", "--end", "2024-03-02")
    user.run("backfill", "--asset", "posts_published", *days, "--instances", "007")
    monkeypatch.delenv("DAGSTER_HOME")
    before, now, settings = files(user.lake), datetime.now(UTC), ComponentBase()
    result = user.run("instances")
    assert result.exit_code == 0, result.output
    assert files(user.lake) == before
    _, head, _, _, *lines, _ = result.stdout.splitlines()
    rows = {columns(line)[0]: dict(zip(columns(head), columns(line), strict=True)) for line in lines}
    assert list(rows) == sorted(INSTANCE_IDS)
    expected = len(expected_days(now, start_date=settings.start_date, due_hour_utc=settings.due_hour_utc))
    assert rows["007"] == {
        "instance_id": "007",
        "first_seen": str(now.date()),
        "last_seen": str(now.date()),
        "listed_now": "true",
        "expected_now": "true",
        "retired": "false",
        "post_metrics_daily_newest_day": "NULL",
        "post_metrics_daily_missing_days": str(expected),
        "posts_published_newest_day": "2024-03-02",
        "posts_published_missing_days": str(expected - 2),
        "stale_days": "0",
    }
    assert rows["instance_000"]["posts_published_newest_day"] == "NULL"
    printed = json.loads(user.run("instances", "--format", "json").stdout)
    assert {row["instance_id"]: row["posts_published_missing_days"] for row in printed} == {
        name: expected - 2 * (name == "007") for name in INSTANCE_IDS
    }


def test_retire_marks_an_instance_that_is_no_longer_fetched_until_it_is_undone(user: User, service: Service) -> None:
    name = "Zoë 😀 %2F"
    published = ("backfill", "--asset", "posts_published", "--start", "2024-03-01", "--end", "2024-03-01")
    user.run(*published)
    result = user.run("retire", name)
    assert (result.exit_code, result.stdout) == (0, f"{name} is retired.\nNext: later-reporting refresh\n")
    stored = files(user.lake)
    assert stored["_retired/instance_id=Zo%C3%AB%20%F0%9F%98%80%20%252F/retired.json"]
    service.requests.clear()
    user.run(*published)
    requested = [parameters(each).get("instanceIds", []) for each in service.requests if "performance" in each.url.path]
    assert {*chain(*requested)} == {*INSTANCE_IDS} - {name}
    assert files(user.lake) == stored
    named = user.run(*published, "--instances", f"{name},007")
    assert named.stderr.startswith(f"Warning: Retired, so not fetched: {name}. Leave them out, or undo it by")

    undone = user.run("retire", "--undo", name)
    assert undone.stdout.startswith(f"{name} is no longer retired.")
    assert Lake(str(user.lake)).retired.marks() == NO_MARKS


def test_retire_names_the_instances_that_there_are(user: User) -> None:
    lake = Lake(str(user.lake))
    for name in ("007", "acme", "ACME"):
        lake.write("posts_published", Partition(FIRST_DAY, name), posts_table([]))
    assert error_line(user.run("retire", "Acme")) == "Acme is not in this lake; there are: 007, ACME, acme"
    assert error_line(user.run("retire", "--undo", "acme")) == "acme is not retired; retired are: none"
    assert user.run("retire", "acme").exit_code == 0
    assert error_line(user.run("retire", "acme")) == "acme is already retired; there are: 007, ACME"
    assert error_line(user.run("retire", "--undo", "ACME")) == "ACME is not retired; retired are: acme"


def quarantine_rows(user: User, *rows: Any, reason: str = "r") -> None:
    bad_rows = [BadRow(reason=reason, raw=json.dumps(row)) for row in rows]
    quarantine = Lake(str(user.lake)).quarantine
    path = quarantine.path_of("posts_published", Partition(FIRST_DAY, INSTANCE_IDS[2]))
    quarantine.write(path, bad_rows, query="q")


def test_quarantine_lists_rows_by_pair_and_reason(user: User) -> None:
    quarantine_rows(user, {"a": 1}, {"a": 2}, reason="postId is missing")
    lake = Lake(str(user.lake))
    for reason, last in (("no\nline", 5), ("s", 1)):
        path = lake.quarantine.path_of_query("post_metrics_daily", "q", (FIRST_DAY, date(2024, 3, last)))
        lake.quarantine.write(path, [BadRow(reason=reason, raw="{}")], query="q")
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
