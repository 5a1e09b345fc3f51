"""Where the documentation's commands run: the sandbox, a Dagster instance, and a lake with some history."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest
from click.testing import CliRunner

from later_reporting_dagster.cli import main
from later_reporting_dagster.contract import BadRow
from later_reporting_dagster.definitions import definitions
from later_reporting_dagster.defs.settings import LoadSettings
from later_reporting_dagster.lake import POSTS_SCHEMA, Lake, Partition
from later_reporting_dagster.sandbox import World, create_app, running_sandbox
from tests.conftest import UNHURRIED, settings_of

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted((ROOT / "docs").glob("*.md"))
# The days that the documents name, a file that lost a post, and one that is missing.
FIRST, LAST = date(2024, 1, 1), date(2024, 1, 7)
CHANGED = Partition(date(2024, 1, 3), "instance_000")
REMOVED = Partition(date(2024, 1, 5), "instance_001")


def commands(block: str) -> list[str]:
    """The commands of a block: its lines, of which some go on until a quotation ends."""
    found: list[str] = []
    for line in block.splitlines():
        if found and found[-1].count('"') % 2:
            found[-1] += f"\n{line}"
        else:
            found.append(line)
    return found


def blocks(document: Path, language: str) -> list[str]:
    """The code blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Place:
    """A folder to type in, and the environment that the README has its reader set."""

    folder: Path
    environment: dict[str, str]

    def type(self, command: str) -> str:
        """Has the shell run a command to a good end; returns what it printed."""
        program, *arguments = shlex.split(command)
        if program == "later-reporting" and not {"|", ">"} & set(command):
            # Nothing is left for the shell to do, and to load Dagster anew would take longer than the command.
            result = CliRunner().invoke(main, arguments)
            assert result.exit_code == 0, f"{command}: {result.output}"
            return result.stdout
        ended = self.run("bash", "-o", "pipefail", "-ec", command)
        assert ended.returncode == 0, f"{command}: {ended.stdout}{ended.stderr}"
        return ended.stdout

    def run(self, *command: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """Runs a program in this place."""
        return subprocess.run(
            command, input=text, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )

    @property
    def lake(self) -> Lake:
        return Lake(self.environment["LATER_LAKE_ROOT"])


@pytest.fixture(scope="package")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("place")
    home = folder / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    (folder / "examples").symlink_to(ROOT / "examples")
    world = World(first_day=FIRST, last_day=date(2024, 2, 1), instances=2, posts_per_day=3)
    with running_sandbox(create_app(world, options=UNHURRIED)) as base_url, pytest.MonkeyPatch.context() as patched:
        environment = {
            "DAGSTER_HOME": str(home),
            "HOME": str(folder),
            **settings_of(base_url, lake_root=str(folder / "lake")),
            "LATER_START_DATE": str(FIRST),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        for name, value in environment.items():
            patched.setenv(name, value)
        patched.chdir(folder)
        # A process of its own would load them from this environment.
        patched.setattr(
            "later_reporting_dagster.cli.in_process_runs.defs", definitions(LoadSettings.from_environment())
        )
        place = Place(folder, environment)
        _live_for_a_while(place.lake)
        yield place


def _live_for_a_while(lake: Lake) -> None:
    """Fetch and roll up a week, take a post from one file, remove another, and quarantine a row."""
    assets = ("posts_published", "post_metrics_daily", "organic_paid_by_publish_day", "organic_paid_daily")
    backfills = [["backfill", "--asset", asset, "--start", str(FIRST), "--end", str(LAST)] for asset in assets]
    for command in backfills:
        ended = CliRunner().invoke(main, command)
        assert ended.exit_code == 0, ended.output
    rows = lake.read("posts_published", [CHANGED], schema=POSTS_SCHEMA)
    lake.write("posts_published", CHANGED, rows.slice(1))
    Path(lake.url("posts_published", REMOVED)).unlink()
    bad = BadRow(reason="impressions counts something and is not negative: -1", raw='{"impressions":-1}')
    lake.quarantine.write("posts_published", Partition(date(2024, 1, 31), "instance_000"), [bad], query="a query")
