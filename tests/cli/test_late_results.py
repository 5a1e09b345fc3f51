"""An account whose posts of TikTok come with their first results, on the third day: no table breaks."""

import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow.parquet as pq
import pytest

from later_reporting_dagster.contract.parameters import Platform
from later_reporting_dagster.defs.component_base import ASSET_NAMES
from later_reporting_dagster.report.report_data import REPORT
from later_reporting_dagster.server.sandbox import World, create_app
from tests.cli.conftest import User
from tests.conftest import NO_RATE_LIMIT, Service, sandbox_settings
from tests.rollups import reference
from tests.rollups.worlds import differences, rolled_up

AGE, DAYS = 3, 32
NEWEST = datetime.now(UTC).date() - timedelta(days=1)
FIRST = NEWEST - timedelta(days=DAYS - 1)


@pytest.fixture
def late(stage: Service, user: User, monkeypatch: pytest.MonkeyPatch) -> User:
    """A user with a lake of 32 days of such an account."""
    world = World(
        first_day=FIRST, last_day=NEWEST, instances=1, posts_per_day=9, late_results=((Platform.TIKTOK, AGE),)
    )
    stage.app = create_app(world, options=NO_RATE_LIMIT)
    for name, value in sandbox_settings(stage.base_url, lake_root=str(user.lake)).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LATER_START_DATE", str(FIRST))
    result = user.run("backfill", "--start", str(FIRST), "--end", str(NEWEST))
    assert result.exit_code == 0, result.output
    assert "failed" not in result.output
    return user


def query(user: User, sql: str) -> list[dict[str, Any]]:
    result = user.run("query", sql, "--format", "json")
    assert result.exit_code == 0, result.output
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


def test_late_first_results_break_no_table(late: User) -> None:
    for name in {*ASSET_NAMES} - {REPORT}:
        assert query(late, f"SELECT count(*) AS rows FROM {name}"), name
    assert rows_of(late, "organic_by_age", "platform") >= {"instagram"}
    assert "tiktok" not in rows_of(late, "organic_by_age", "platform")
    assert "tiktok" in rows_of(late, "organic_paid_by_platform", "platform")

    # A post has its results of the first days on the day of its first results, so that no result is lost.
    (found,) = query(
        late,
        f"""
        WITH days AS (
            SELECT instance_id, campaign_id, post_id, min(date) AS first_day, sum(impressions) AS impressions
            FROM post_metrics_daily GROUP BY ALL
        )
        SELECT
            count(*) AS posts, min(first_day - CAST(post_date AS DATE)) AS least,
            count(*) FILTER (days.impressions IS DISTINCT FROM published.impressions) AS differing
        FROM posts_published AS published LEFT JOIN days USING (instance_id, campaign_id, post_id)
        WHERE platform = 'tiktok' AND CAST(post_date AS DATE) > DATE '{FIRST}'
        """,
    )
    assert found["posts"] > DAYS
    assert (found["least"], found["differing"]) == (AGE, 0)

    world = reference.World(files_of(late, "post_metrics_daily"), files_of(late, "posts_published"))
    assert differences(rolled_up(world), world) == []


def rows_of(user: User, table: str, column: str) -> set[Any]:
    return {row[column] for row in query(user, f"SELECT DISTINCT {column} FROM {table}")}


def files_of(user: User, table: str) -> dict[tuple[date, str], list[dict[str, Any]]]:
    """Return the rows of each file of a table, by day and instance."""
    found = {}
    for path in sorted((user.lake / table).rglob("part-0.parquet")):
        day, instance_id = (part.partition("=")[2] for part in path.parts[-3:-1])
        found[date.fromisoformat(day), instance_id] = pq.ParquetFile(path).read().to_pylist()
    return found
