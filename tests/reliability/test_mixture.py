"""A month through the command, as users type it, from services that fail at random and whose tokens live 3 seconds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import pytest

from later_reporting_dagster.contract import CURSOR, PAGED, Revision
from later_reporting_dagster.definitions import definitions
from later_reporting_dagster.defs.settings import LoadSettings
from later_reporting_dagster.lake import Partition
from tests.cli.conftest import User
from tests.reliability import other_server
from tests.reliability.other_server import OtherServer, Posts
from tests.reliability.truth import DATE_BASES, Cell, Differences, Row, differences, in_the_lake

FIRST_DAY = date(2024, 2, 1)
DAYS = [FIRST_DAY + timedelta(days=offset) for offset in range(30)]
TOKEN_SECONDS = 3
SHARES = {"429": 0.03, "500": 0.03, "503": 0.02, "cut": 0.02, "dropped": 0.02}
SEED_OF_THE_OTHER_SERVER = 291


@dataclass(frozen=True)
class Reporter:
    """A user with an empty Dagster instance and an empty lake."""

    user: User
    environment: pytest.MonkeyPatch

    def fetches(self, base_url: str, *, client_id: str, client_secret: str) -> Path:
        """Fetches both raw tables, by commands that all succeed; the lake then."""
        for name, value in {
            "LATER_BASE_URL": base_url,
            "LATER_CLIENT_ID": client_id,
            "LATER_CLIENT_SECRET": client_secret,
            "LATER_REQUESTS_PER_MINUTE": "100000",
        }.items():
            self.environment.setenv(name, value)
        # A process of its own would load them from this environment.
        self.environment.setattr(
            "later_reporting_dagster.cli.in_process_runs.defs", definitions(LoadSettings.from_environment())
        )
        days = ("--start", str(DAYS[0]), "--end", str(DAYS[-1]))
        for asset in DATE_BASES:
            result = self.user.types("backfill", "--asset", f"later/{asset}", *days)
            assert result.exit_code == 0, result.output
        return self.user.lake


@pytest.fixture
def reporter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reporter:
    user = User(home=tmp_path / "dagster-home", lake=tmp_path / "lake")
    user.home.mkdir()
    (user.home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n", encoding="utf-8")
    monkeypatch.setenv("DAGSTER_HOME", str(user.home))
    monkeypatch.setenv("LATER_LAKE_ROOT", str(user.lake))
    return Reporter(user, monkeypatch)


def assert_equal(lake: Path, truth: Mapping[Cell, list[Row]]) -> None:
    """Each partition is in the lake and equals the truth, and there is no other."""
    for cell, rows in truth.items():
        stored = in_the_lake(lake, cell)
        assert stored is not None, cell
        assert differences(stored, due=rows, ever=rows) == Differences(), cell
    assert len(list(lake.rglob("*.parquet"))) == len(truth)


def held_by(posts: Posts, days: Sequence[date], *, assets: Sequence[str]) -> dict[Cell, list[Row]]:
    """The rows that each partition of these tables has on the server."""
    rows_of = {"posts_published": lambda day: posts.published(day, day), "post_metrics_daily": posts.reported}
    return {
        (asset, Partition(day, instance_id)): [row for row in rows if row["instanceId"] == instance_id]
        for asset in assets
        for day in days
        for rows in [rows_of[asset](day)]
        for instance_id in posts.instance_ids
    }


@pytest.mark.parametrize("revision", [PAGED, CURSOR], ids=str)
def test_a_month_lands_from_another_server_that_fails_at_random(revision: Revision, reporter: Reporter) -> None:
    posts = Posts(
        first_day=FIRST_DAY - timedelta(days=10), days=45, instance_ids=("north", "007", "a/b c", "Zoë"), seed=1
    )
    faults = SHARES | ({"expired": 0.03} if revision is CURSOR else {})
    server = OtherServer(
        posts, token_seconds=TOKEN_SECONDS, faults=faults, seed=SEED_OF_THE_OTHER_SERVER, by_cursor=revision is CURSOR
    )
    with server.running() as base_url:
        lake = reporter.fetches(base_url, client_id=other_server.CLIENT_ID, client_secret=other_server.CLIENT_SECRET)
    assert {*server.injected} == {*faults}, server.injected
    assert server.issued > 1
    assert_equal(lake, held_by(posts, DAYS, assets=("posts_published", "post_metrics_daily")))
