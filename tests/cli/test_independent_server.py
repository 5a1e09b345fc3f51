"""Commands in subprocesses against a server that shares no code with the package."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.conftest import files, sandbox_settings
from tests.reliability.campaign_comparison import assert_campaign_tables_equal
from tests.reliability.independent_server import CAMPAIGN_METRICS, CLIENT_ID, CLIENT_SECRET, IndependentServer, Posts
from tests.reliability.test_independent_server import assert_lake_equals, expected_partitions
from tests.services import WAIT_SECONDS

pytestmark = pytest.mark.e2e

FIRST_DAY = date(2024, 1, 1)
DAYS = [FIRST_DAY + timedelta(days=number) for number in range(30)]
INSTANCE_IDS = (
    "instance_000",
    "007",
    "a/b|c d [e]",
    "Zoë 😀 %2F",
)  # without a comma, at which this server splits lists
POSTS = Posts(first_day=FIRST_DAY - timedelta(days=10), days=45, instance_ids=INSTANCE_IDS, seed=11)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Run a Python module in a subprocess, with an empty `DAGSTER_HOME` and lake, and assert that it succeeds."""
    (tmp_path / "dagster-home").mkdir()
    with IndependentServer(POSTS, token_seconds=3600, faults={}).running() as base_url:
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "DAGSTER_HOME": str(tmp_path / "dagster-home"),
            **sandbox_settings(base_url, lake_root=str(tmp_path / "lake")),
            "LATER_CLIENT_ID": CLIENT_ID,
            "LATER_CLIENT_SECRET": CLIENT_SECRET,
        }

        def run(*command: str) -> None:
            completed = subprocess.run(
                [sys.executable, "-m", *command],
                env=environment,
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=WAIT_SECONDS,
                check=False,
            )
            assert completed.returncode == 0, completed.stdout + completed.stderr

        yield run


def test_backfill_of_both_raw_assets_writes_exactly_the_posts_of_the_server(
    run: Callable[..., None], tmp_path: Path
) -> None:
    assets = ("post_metrics_daily", "posts_published")
    for asset in assets:
        days = ("--start", str(DAYS[0]), "--end", str(DAYS[-1]))
        run("later_reporting_dagster.cli", "backfill", "--asset", f"later/{asset}", *days)
    assert_lake_equals(tmp_path / "lake", expected_partitions(POSTS, DAYS, table_names=assets))


def test_dagster_materializes_one_day_of_all_instances(run: Callable[..., None], tmp_path: Path) -> None:
    command = ("dagster", "asset", "materialize", "-m", "later_reporting_dagster.definitions")
    run(*command, "--select", "later/post_metrics_daily", "--partition", "2024-01-03")
    assert_lake_equals(
        tmp_path / "lake", expected_partitions(POSTS, [date(2024, 1, 3)], table_names=("post_metrics_daily",))
    )


def test_campaigns_equal_the_server_and_change_no_other_file(run: Callable[..., None], tmp_path: Path) -> None:
    lake, days = tmp_path / "lake", DAYS[:5]
    options = ("--start", str(days[0]), "--end", str(days[-1]))
    run("later_reporting_dagster.cli", "backfill", "--asset", "later/post_metrics_daily", *options)
    posts = files(lake)
    run("later_reporting_dagster.cli", "backfill", "--asset", "later/campaign_performance_daily", *options)
    run("dagster", "asset", "materialize", "-m", "later_reporting_dagster.definitions", "--select", "later/campaigns")
    written = files(lake)
    assert {path: written[path] for path in posts} == posts
    performance = {day: f"campaign_performance_daily/date={day}/part-0.parquet" for day in days}
    assert written.keys() - posts.keys() == {"campaigns/part-0.parquet", *performance.values()}
    assert_campaign_tables_equal(
        pq.ParquetFile(lake / "campaigns" / "part-0.parquet").read(),
        {day: pq.ParquetFile(lake / path).read() for day, path in performance.items()},
        posts=POSTS,
        metrics=CAMPAIGN_METRICS,
    )
