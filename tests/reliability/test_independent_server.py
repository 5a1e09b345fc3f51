"""Backfill a month by the command, from servers that fail at random and whose tokens expire after 3 seconds."""

from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path

import pytest

from later_reporting_dagster.contract import CURSOR, PAGED, ApiVersion
from later_reporting_dagster.lake import Partition
from tests.cli.conftest import User
from tests.independent_server import CLIENT_ID, CLIENT_SECRET, METRICS, PAGED_METRICS, IndependentServer, Posts
from tests.reliability.lake_comparison import DATE_BASES, Differences, Row, TablePartition, compare_rows, read_partition

pytestmark = pytest.mark.faults

FIRST_DAY = date(2024, 2, 1)
DAYS = [FIRST_DAY + timedelta(days=offset) for offset in range(30)]
TOKEN_SECONDS = 3
FAULT_RATES = {"429": 0.03, "500": 0.03, "503": 0.02, "cut": 0.02, "dropped": 0.02}


def backfill(base_url: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Backfill both raw tables in a new Dagster home, and return the root of the lake."""
    user = User(home=home / "dagster-home", lake=home / "lake")
    user.home.mkdir()
    (user.home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n", encoding="utf-8")
    for name, value in {
        "DAGSTER_HOME": str(user.home),
        "LATER_BASE_URL": base_url,
        "LATER_CLIENT_ID": CLIENT_ID,
        "LATER_CLIENT_SECRET": CLIENT_SECRET,
        "LATER_LAKE_ROOT": str(user.lake),
        "LATER_REQUESTS_PER_MINUTE": "100000",
    }.items():
        monkeypatch.setenv(name, value)
    for table_name in DATE_BASES:
        result = user.run("backfill", "--asset", f"later/{table_name}", "--start", str(DAYS[0]), "--end", str(DAYS[-1]))
        assert result.exit_code == 0, result.output
    return user.lake


def assert_lake_equals(lake: Path, expected: Mapping[TablePartition, list[Row]]) -> None:
    for partition, rows in expected.items():
        stored = read_partition(lake, partition)
        assert stored is not None, partition
        assert compare_rows(stored, required=rows, allowed=rows) == Differences(), partition
    assert len(list(lake.rglob("*.parquet"))) == len(expected)


def expected_partitions(posts: Posts) -> dict[TablePartition, list[Row]]:
    """Return the rows of the server by partition, with the default metrics."""
    others = {*METRICS} - {*PAGED_METRICS}
    rows_by_table = {"posts_published": lambda day: posts.published(day, day), "post_metrics_daily": posts.reported}
    return {
        (table_name, Partition(day, instance_id)): [
            {name: value for name, value in row.items() if name not in others}
            for row in rows
            if row["instanceId"] == instance_id
        ]
        for table_name, rows_of in rows_by_table.items()
        for day in DAYS
        for rows in [rows_of(day)]
        for instance_id in posts.instance_ids
    }


@pytest.mark.parametrize("api_version", [PAGED, CURSOR], ids=str)
def test_backfill_from_failing_independent_server_is_complete(
    api_version: ApiVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    posts = Posts(
        first_day=FIRST_DAY - timedelta(days=10), days=45, instance_ids=("north", "007", "a/b c", "Zoë"), seed=1
    )
    by_cursor = api_version is CURSOR
    fault_rates = FAULT_RATES | ({"expired": 0.03} if by_cursor else {})
    server = IndependentServer(posts, token_seconds=TOKEN_SECONDS, faults=fault_rates, by_cursor=by_cursor)
    with server.running() as base_url:
        lake = backfill(base_url, tmp_path, monkeypatch)
    assert {*server.injected} == {*fault_rates}, server.injected
    assert server.issued > 1
    assert_lake_equals(lake, expected_partitions(posts))
