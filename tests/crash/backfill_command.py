"""`later-reporting backfill` with the Dagster home and the environment of a user."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import dagster as dg

from later_reporting_dagster.cli import in_process_runs as _preload  # noqa: F401 - all that the command imports
from later_reporting_dagster.cli.main import main
from tests.conftest import sandbox_settings
from tests.crash.restated_sandbox import DAYS

REPOSITORY = Path(__file__).parents[2]
DAGSTER_YAML = "telemetry:\n  enabled: false\n"


def user_environment(directory: Path, *, base_url: str, lake_root: str) -> dict[str, str]:
    """Return the environment of a user with a new Dagster home in a directory, without the current settings."""
    home = directory / "dagster-home"
    home.mkdir()
    (home / "dagster.yaml").write_text(DAGSTER_YAML, encoding="utf-8")
    # Creating Dagster's SQLite schema fails if two processes do so at once.
    with dg.DagsterInstance.from_config(str(home)):
        pass
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LATER_", "DAGSTER_", "AWS_"))}
    return kept | {
        "DAGSTER_HOME": str(home),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        **sandbox_settings(base_url, lake_root=lake_root),
        "XDG_CACHE_HOME": str(directory / "cache"),
    }


def backfill_arguments(asset: str) -> list[str]:
    """Return the arguments of `later-reporting` to backfill `DAYS` of an asset."""
    return ["backfill", "--asset", f"later/{asset}", "--start", str(DAYS[0]), "--end", str(DAYS[-1])]


def start_command(*arguments: str, environment: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "later_reporting_dagster.cli.main", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=REPOSITORY,
        env=environment,
    )


def backfill(asset: str, *, environment: Mapping[str, str]) -> None:
    """Run the backfill in this process, with these environment variables only."""
    os.environ.clear()
    os.environ.update(environment)
    main(backfill_arguments(asset), standalone_mode=False)
