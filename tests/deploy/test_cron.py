"""deploy/cron.sh prints only what is wrong, and lets one run at a time work."""

import fcntl
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from later_reporting_dagster.lake import Lake
from later_reporting_dagster.server.sandbox import World, create_app, running_server
from tests.conftest import NO_RATE_LIMIT, sandbox_settings
from tests.deploy.composition import DEPLOY

pytestmark = pytest.mark.docs


def run_cron(settings: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run the script as cron does, with little else in the environment."""
    path = os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin", "/bin"])
    environment = {"PATH": path, "HOME": str(settings.parent)}
    arguments = [str(DEPLOY / "cron.sh"), str(settings), *command]
    return subprocess.run(arguments, cwd=settings.parent, env=environment, capture_output=True, text=True, check=False)


def test_cron_is_silent_until_something_is_wrong(tmp_path: Path) -> None:
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    start = yesterday - timedelta(days=40)
    world = World(first_day=start, last_day=yesterday, instances=2, posts_per_day=5)
    home, settings = tmp_path / "dagster", tmp_path / "later.env"
    home.mkdir()
    lake = Lake(str(tmp_path / "lake"))
    with running_server(create_app(world, options=NO_RATE_LIMIT)) as base_url:
        variables = sandbox_settings(base_url, lake_root=lake.root)
        variables |= {"DAGSTER_HOME": str(home), "LATER_START_DATE": str(start), "LATER_DUE_HOUR_UTC": "0"}
        lines = ["# of production", "", 'export QUOTED="$HOME and `date`"', *map("=".join, variables.items())]
        settings.write_text("\n".join(lines))
        send = """later-reporting page --output report.html && printf %s "$QUOTED" >quoted.txt"""
        first = run_cron(settings, send)
        assert (first.returncode, first.stdout, first.stderr) == (0, "", "")
        assert (tmp_path / "quoted.txt").read_text() == "$HOME and `date`"
        assert "</html>" in (tmp_path / "report.html").read_text()

        # An older day than those that are fetched again.
        partition = lake.partitions("posts_published")[0]
        Path(lake.url("posts_published", partition)).unlink()
        second = run_cron(settings)
        assert second.returncode == 1
        days = f"--start {partition.day} --end {partition.day}"
        assert f"run `later-reporting backfill --only-missing {days}`" in second.stdout
        assert second.stdout in (home / "cron.log").read_text()

    with (home / "cron.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        third = run_cron(settings)
    assert third.returncode == 1
    assert third.stdout.startswith("The run of an earlier day is still in progress")
