"""`later-reporting instances`: prints the instance dimension as of now, and writes nothing."""

from datetime import UTC, datetime

import pytest

from later_reporting_dagster.contract.days import expected_days
from later_reporting_dagster.defs.definition_settings import DefinitionSettings
from later_reporting_dagster.ingest.dimensions import instances_table
from later_reporting_dagster.lake import Lake, Partition
from later_reporting_dagster.lake.tables import INSTANCES_TABLE, RAW_TABLES
from tests.cli.conftest import User
from tests.conftest import INSTANCE_IDS, Service
from tests.defs.conftest import list_instances

TODAY = str(datetime.now(UTC).date())
SETTINGS = DefinitionSettings()
DAYS = len(expected_days(datetime.now(UTC), start_date=SETTINGS.start_date, due_hour_utc=SETTINGS.due_hour_utc))


def columns(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def printed(user: User) -> dict[str, dict[str, str]]:
    result = user.run("instances")
    assert result.exit_code == 0, result.output
    head, _, *rows = result.stdout.splitlines()
    records = [dict(zip(columns(head), columns(row), strict=True)) for row in rows]
    return {record["instance_id"]: record for record in records}


def test_instances_prints_newest_and_missing_days(user: User) -> None:
    user.run(
        "backfill", "--asset", "posts_published", "--start", "2024-03-01", "--end", "2024-03-02", "--instances", "007"
    )
    rows = printed(user)
    assert list(rows) == sorted(INSTANCE_IDS)
    assert rows["007"] == {
        "instance_id": "007",
        "first_seen": TODAY,
        "last_seen": TODAY,
        "listed_now": "true",
        "expected_now": "true",
        "post_metrics_daily_newest_day": "null",
        "post_metrics_daily_missing_days": str(DAYS),
        "posts_published_newest_day": "2024-03-02",
        "posts_published_missing_days": str(DAYS - 2),
    }
    assert rows["instance_000"]["posts_published_newest_day"] == "null"


def test_instances_keeps_instances_that_are_no_longer_listed(user: User, service: Service) -> None:
    files: dict[str, list[Partition]] = {table.name: [] for table in RAW_TABLES}
    today = datetime.now(UTC).date()
    rows = instances_table(INSTANCE_IDS, configured=(), previous=None, present=files, days=[], today=today)
    Lake(str(user.lake)).write_table(INSTANCES_TABLE, rows)
    service.override = list_instances("new")
    assert {name: row["listed_now"] for name, row in printed(user).items()} == {
        **dict.fromkeys(INSTANCE_IDS, "false"),
        "new": "true",
    }


def test_instances_writes_nothing_and_needs_no_dagster_home(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_HOME")
    assert user.run("instances").exit_code == 0
    assert not user.lake.exists()
