"""`later-reporting backfill`, as a user has it: with a Dagster home without runs, and settings."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import dagster as dg

from later_reporting_dagster.cli import in_process_runs as _launch  # noqa: F401 - with it comes all that the command imports
from later_reporting_dagster.cli import main
from tests.conftest import settings_of
from tests.crash.landings import DAYS
from tests.crash.nursery import REPOSITORY

DAGSTER_YAML = "telemetry:\n  enabled: false\n"


def user_environment(directory: Path, *, base_url: str, lake_root: str) -> dict[str, str]:
    """The environment of a user whose instance lies in `directory`; nothing of the surrounding settings is in it."""
    home = directory / "dagster-home"
    home.mkdir()
    (home / "dagster.yaml").write_text(DAGSTER_YAML, encoding="utf-8")
    # Two processes that create Dagster's SQLite schema at once fail.
    with dg.DagsterInstance.from_config(str(home)):
        pass
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LATER_", "DAGSTER_", "AWS_"))}
    return kept | {
        "DAGSTER_HOME": str(home),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        **settings_of(base_url, lake_root=lake_root),
        "XDG_CACHE_HOME": str(directory / "cache"),
    }


def arguments(asset: str) -> list[str]:
    """What the user types after `later-reporting` for the whole box."""
    return ["backfill", "--asset", f"later/{asset}", "--start", str(DAYS[0]), "--end", str(DAYS[-1])]


def command(*typed: str, environment: Mapping[str, str]) -> subprocess.Popen[str]:
    """`later-reporting` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "later_reporting_dagster.cli", *typed],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=REPOSITORY,
        env=environment,
    )


def backfill(asset: str) -> None:
    """The same in this process, with the environment that it has."""
    main(arguments(asset), standalone_mode=False)
