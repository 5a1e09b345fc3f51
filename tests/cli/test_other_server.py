"""Real processes on an empty Dagster home and lake, against a server that shares no code with the package."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest

from tests.conftest import settings_of
from tests.reliability.other_server import CLIENT_ID, CLIENT_SECRET, OtherServer, Posts
from tests.reliability.test_mixture import assert_equal, held_by

FIRST_DAY = date(2024, 1, 1)
DAYS = [FIRST_DAY + timedelta(days=number) for number in range(30)]
INSTANCE_IDS = ("instance_000", "007", "a/b|c d [e]", "Zoë 😀 %2F")  # this server splits ids at a comma
POSTS = Posts(first_day=FIRST_DAY - timedelta(days=10), days=45, instance_ids=INSTANCE_IDS, seed=11)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Runs a command of this Python in a process of its own, to a good end; nothing was typed before."""
    (tmp_path / "dagster-home").mkdir()
    with OtherServer(POSTS, token_seconds=3600, faults={}).running() as base_url:
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "DAGSTER_HOME": str(tmp_path / "dagster-home"),
            **settings_of(base_url, lake_root=str(tmp_path / "lake")),
            "LATER_CLIENT_ID": CLIENT_ID,
            "LATER_CLIENT_SECRET": CLIENT_SECRET,
        }

        def run(*command: str) -> None:
            typed = [sys.executable, "-m", *command]
            ended = subprocess.run(
                typed, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
            )
            assert ended.returncode == 0, ended.stdout + ended.stderr

        yield run


def test_backfill_of_both_raw_assets_writes_exactly_what_the_server_holds(
    run: Callable[..., None], tmp_path: Path
) -> None:
    assets = ("post_metrics_daily", "posts_published")
    for asset in assets:
        days = ("--start", str(DAYS[0]), "--end", str(DAYS[-1]))
        run("later_reporting_dagster.cli", "backfill", "--asset", f"later/{asset}", *days)
    assert_equal(tmp_path / "lake", held_by(POSTS, DAYS, assets=assets))


def test_dagster_materializes_a_day_of_all_instances(run: Callable[..., None], tmp_path: Path) -> None:
    command = ("dagster", "asset", "materialize", "-m", "later_reporting_dagster.definitions")
    run(*command, "--select", "later/post_metrics_daily", "--partition", "2024-01-03")
    assert_equal(tmp_path / "lake", held_by(POSTS, [date(2024, 1, 3)], assets=("post_metrics_daily",)))
