"""Fetch a month of all tables by the command, from servers that fail at random and whose tokens expire after 3 seconds.

Nothing here uses the package's parsers: a mistake in shared code would not be found.
"""

import json
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from later_reporting_dagster.contract import CURSOR, DEFAULT_CAMPAIGN_METRICS, PAGED, ApiVersion
from later_reporting_dagster.lake import Partition
from tests.cli.conftest import User
from tests.conftest import sandbox_settings
from tests.faults import RandomFaults
from tests.independent_server import (
    CLIENT_ID,
    CLIENT_SECRET,
    METRICS,
    PAGED_CAMPAIGN_METRICS,
    PAGED_METRICS,
    IndependentServer,
    Posts,
)
from tests.reliability.lake_comparison import Row, compare_rows, read_partition
from tests.reliability.trial import TABLES

pytestmark = pytest.mark.faults

FIRST_DAY = date(2024, 2, 1)
DAYS = [FIRST_DAY + timedelta(days=offset) for offset in range(30)]
TOKEN_SECONDS = 3
FAULT_RATES = {"429": 0.03, "500": 0.03, "503": 0.02, "cut body": 0.02, "dropped connection": 0.02}
CAMPAIGNS, PERFORMANCE = "campaigns", "campaign_performance_daily"


def fetch_all(user: User) -> None:
    """Fetch posts, campaigns and their performance."""
    days = ("--start", str(DAYS[0]), "--end", str(DAYS[-1]))
    for table_name in (*TABLES, PERFORMANCE, CAMPAIGNS):
        result = user.run("backfill", "--asset", f"later/{table_name}", *(days if table_name != CAMPAIGNS else ()))
        assert result.exit_code == 0, result.output


def assert_posts_equal(lake: Path, posts: Posts) -> None:
    """Assert that the lake has the posts of the server, with the default metrics, and no other files of posts."""
    others = {*METRICS} - {*PAGED_METRICS}
    for table_name, rows_of in (("posts_published", posts.published), ("post_metrics_daily", posts.reported)):
        for day in DAYS:
            rows = [{name: value for name, value in row.items() if name not in others} for row in rows_of(day, day)]
            for instance_id in posts.instance_ids:
                expected = [row for row in rows if row["instanceId"] == instance_id]
                stored = read_partition(lake, (table_name, Partition(day, instance_id)))
                assert stored is not None, (table_name, day, instance_id)
                assert not compare_rows(stored, required=expected, allowed=expected)
        assert len([*(lake / table_name).rglob("*.parquet")]) == len(DAYS) * len(posts.instance_ids)


def stored_by_key(path: Path, *key: str) -> dict[tuple[Any, ...], Row]:
    """Return the rows of a file by their key, with `extra` as parsed JSON, and without what the API does not have."""
    rows = pq.ParquetFile(path).read().to_pylist()
    for row in rows:
        row["extra"] = row["extra"] and json.loads(row["extra"])
        for name in ("first_seen", "last_seen", "listed_now"):
            row.pop(name, None)
    found = {tuple(row[name] for name in key): row for row in rows}
    assert len(found) == len(rows), "a key is stored twice"
    return found


def expected_row(row: Row, *, stored: Sequence[str], times: Sequence[str] = ()) -> Row:
    """Return a row as it must be stored: known members in columns, others in `extra`."""
    columns = {name: row[name] and datetime.fromisoformat(row[name]).astimezone(UTC) for name in times}
    columns = {name: row[name] for name in stored} | columns
    return {
        **{re.sub("[A-Z]", lambda capital: f"_{capital[0].lower()}", name): value for name, value in columns.items()},
        "extra": {name: value for name, value in row.items() if name not in columns} or None,
    }


@pytest.mark.parametrize("api_version", [PAGED, CURSOR], ids=str)
def test_lake_fetched_from_a_failing_independent_server_is_complete(
    api_version: ApiVersion, dagster_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    posts = Posts(
        first_day=FIRST_DAY - timedelta(days=10),
        days=45,
        instance_ids=("north", "007", "a/b c", "Zoë"),
        seed=1,
        most=16,
        campaign_ids=range(1, 251),  # several pages of campaigns, and of their performance on a day
    )
    by_cursor = api_version is CURSOR
    faults = RandomFaults(FAULT_RATES)
    server = IndependentServer(posts, token_seconds=TOKEN_SECONDS, change=faults, by_cursor=by_cursor)
    user = User(home=dagster_home, lake=tmp_path / "lake")
    credentials = {"LATER_CLIENT_ID": CLIENT_ID, "LATER_CLIENT_SECRET": CLIENT_SECRET}
    with server.running() as base_url:
        for name, value in {**sandbox_settings(base_url, lake_root=str(user.lake)), **credentials}.items():
            monkeypatch.setenv(name, value)
        fetch_all(user)
    assert {*faults.injected} == {*FAULT_RATES}, faults.injected
    assert server.issued > 1
    assert_posts_equal(user.lake, posts)
    known = ("campaignId", "campaignName", "description", "instanceId", "status")
    times = ("firstPostDate", "lastPostDate", "startDate")
    campaigns = {
        (row["instanceId"], row["campaignId"]): expected_row(row, stored=known, times=times)
        for row in posts.campaigns()
    }
    assert len(campaigns) > 600
    assert stored_by_key(user.lake / CAMPAIGNS / "part-0.parquet", "instance_id", "campaign_id") == campaigns
    added_up = [metric.api_name for metric in DEFAULT_CAMPAIGN_METRICS if metric.kind.adds_up_over_days]
    # The paged version sends all metrics, the cursor version those that were requested.
    sent = ("campaignId", "name", "networks", *(added_up if by_cursor else PAGED_CAMPAIGN_METRICS))
    for day in DAYS:
        rows = [{name: row[name] for name in sent} for row in posts.campaigns_reported(day, day)]
        performance = {(row["campaignId"],): expected_row(row, stored=("campaignId", *added_up)) for row in rows}
        assert len(performance) > 100
        path = user.lake / PERFORMANCE / f"date={day}" / "part-0.parquet"
        assert stored_by_key(path, "campaign_id") == performance
