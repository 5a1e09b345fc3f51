"""Real processes on an empty Dagster home and lake, against a server that shares no code with the package."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import pytest

from tests.conftest import partition_file, stored_rows
from tests.reliability.other_server import CLIENT_ID, CLIENT_SECRET, OtherServer, Posts, Row
from tests.reliability.truth import as_stored, key

FIRST_DAY = date(2024, 1, 1)
DAYS = [FIRST_DAY + timedelta(days=number) for number in range(30)]
INSTANCE_IDS = ("instance_000", "007", "a/b|c d [e]", "Zoë 😀 %2F")  # this server splits ids at a comma
ASSETS = ("post_metrics_daily", "posts_published")


@dataclass(frozen=True)
class Setup:
    """A server with its truth, and the environment of a user who has typed nothing yet."""

    posts: Posts
    environment: dict[str, str]

    @property
    def lake(self) -> Path:
        return Path(self.environment["LATER_LAKE_ROOT"])

    def run(self, *command: str) -> None:
        """Run a command of this Python in a process of its own, to a good end."""
        ended = subprocess.run(
            [sys.executable, "-m", *command],
            env=self.environment,
            cwd=self.lake.parent,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr

    def held(self, asset: str, day: date) -> list[Row]:
        """The rows that the server holds of a day, as the lake must hold them."""
        held = self.posts.reported(day) if asset == "post_metrics_daily" else self.posts.published(day, day)
        return [as_stored(row) for row in held]

    def stored(self, asset: str, day: date) -> list[Row]:
        """The rows of a day in the lake, whose files are those of all instances."""
        assert all(partition_file(self.lake, asset, day, instance_id).exists() for instance_id in INSTANCE_IDS)
        rows = [row for instance_id in INSTANCE_IDS for row in stored_rows(self.lake, asset, day, instance_id)]
        return [row | {"extra": row["extra"] and json.loads(row["extra"])} for row in rows]


@pytest.fixture(scope="module")
def posts() -> Posts:
    return Posts(first_day=FIRST_DAY - timedelta(days=10), days=45, instance_ids=INSTANCE_IDS, seed=11)


@pytest.fixture
def setup(posts: Posts, tmp_path: Path) -> Iterator[Setup]:
    (tmp_path / "dagster-home").mkdir()
    with OtherServer(posts, token_seconds=3600, faults={}).running() as base_url:
        yield Setup(
            posts,
            {
                **os.environ,
                "PYTHONPATH": str(Path(__file__).parents[2]),
                "DAGSTER_HOME": str(tmp_path / "dagster-home"),
                "LATER_BASE_URL": base_url,
                "LATER_CLIENT_ID": CLIENT_ID,
                "LATER_CLIENT_SECRET": CLIENT_SECRET,
                "LATER_LAKE_ROOT": str(tmp_path / "lake"),
                "LATER_REQUESTS_PER_MINUTE": "1000000",
            },
        )


def in_order(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=key)


def test_backfill_of_both_raw_assets_writes_exactly_what_the_server_holds(setup: Setup) -> None:
    for asset in ASSETS:
        days = ("--start", str(DAYS[0]), "--end", str(DAYS[-1]))
        setup.run("later_reporting_dagster.cli", "backfill", "--asset", f"later/{asset}", *days)
    for asset in ASSETS:
        for day in DAYS:
            assert in_order(setup.stored(asset, day)) == in_order(setup.held(asset, day))
        assert len(list((setup.lake / asset).rglob("*.parquet"))) == len(DAYS) * len(INSTANCE_IDS)


def test_dagster_materializes_a_day_of_all_instances(setup: Setup) -> None:
    definitions = ("-m", "later_reporting_dagster.definitions")
    setup.run(
        *("dagster", "asset", "materialize"),
        *("--select", "later/post_metrics_daily", "--partition", "2024-01-03"),
        *definitions,
    )
    day = date(2024, 1, 3)
    assert in_order(setup.stored("post_metrics_daily", day)) == in_order(setup.held("post_metrics_daily", day))
    assert len(list(setup.lake.rglob("*.parquet"))) == len(INSTANCE_IDS)
