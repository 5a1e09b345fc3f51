"""Backfill a month by the command, from servers that fail at random and whose tokens expire after 3 seconds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
SERVER_SEED = 291  # with this seed, every fault occurs


@dataclass(frozen=True)
class BackfillUser:
    """A user with an empty Dagster instance and an empty lake."""

    user: User
    environment: pytest.MonkeyPatch

    def backfill(self, base_url: str) -> Path:
        """Backfill both raw tables, assert that the commands succeed, and return the root of the lake."""
        for name, value in {
            "LATER_BASE_URL": base_url,
            "LATER_CLIENT_ID": CLIENT_ID,
            "LATER_CLIENT_SECRET": CLIENT_SECRET,
            "LATER_REQUESTS_PER_MINUTE": "100000",
        }.items():
            self.environment.setenv(name, value)
        days = ("--start", str(DAYS[0]), "--end", str(DAYS[-1]))
        for table_name in DATE_BASES:
            result = self.user.run("backfill", "--asset", f"later/{table_name}", *days)
            assert result.exit_code == 0, result.output
        return self.user.lake


@pytest.fixture
def backfill_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BackfillUser:
    """A user whose Dagster home and lake are in the test's folder."""
    user = User(home=tmp_path / "dagster-home", lake=tmp_path / "lake")
    user.home.mkdir()
    (user.home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n", encoding="utf-8")
    monkeypatch.setenv("DAGSTER_HOME", str(user.home))
    monkeypatch.setenv("LATER_LAKE_ROOT", str(user.lake))
    return BackfillUser(user, monkeypatch)


def assert_lake_equals(lake: Path, expected: Mapping[TablePartition, list[Row]]) -> None:
    """Assert that a lake has exactly the expected partitions and rows."""
    for partition, rows in expected.items():
        stored = read_partition(lake, partition)
        assert stored is not None, partition
        assert compare_rows(stored, required=rows, allowed=rows) == Differences(), partition
    assert len(list(lake.rglob("*.parquet"))) == len(expected)


def expected_partitions(
    posts: Posts, days: Sequence[date], *, table_names: Sequence[str]
) -> dict[TablePartition, list[Row]]:
    """Return the rows of the server by partition, with the default metrics."""
    others = {*METRICS} - {*PAGED_METRICS}
    rows_by_table = {"posts_published": lambda day: posts.published(day, day), "post_metrics_daily": posts.reported}
    return {
        (table_name, Partition(day, instance_id)): [
            {name: value for name, value in row.items() if name not in others}
            for row in rows
            if row["instanceId"] == instance_id
        ]
        for table_name in table_names
        for day in days
        for rows in [rows_by_table[table_name](day)]
        for instance_id in posts.instance_ids
    }


@pytest.mark.parametrize("api_version", [PAGED, CURSOR], ids=str)
def test_backfill_from_failing_independent_server_is_complete(
    api_version: ApiVersion, backfill_user: BackfillUser
) -> None:
    posts = Posts(
        first_day=FIRST_DAY - timedelta(days=10), days=45, instance_ids=("north", "007", "a/b c", "Zoë"), seed=1
    )
    by_cursor = api_version is CURSOR
    fault_rates = FAULT_RATES | ({"expired": 0.03} if by_cursor else {})
    server = IndependentServer(
        posts, token_seconds=TOKEN_SECONDS, faults=fault_rates, seed=SERVER_SEED, by_cursor=by_cursor
    )
    with server.running() as base_url:
        lake = backfill_user.backfill(base_url)
    assert {*server.injected} == {*fault_rates}, server.injected
    assert server.issued > 1
    assert_lake_equals(lake, expected_partitions(posts, DAYS, table_names=("posts_published", "post_metrics_daily")))
