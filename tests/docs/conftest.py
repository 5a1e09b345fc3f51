"""Fixtures for documentation tests: the code blocks of a page, and a shell with a sandbox, a lake and Dagster."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest
from click.testing import CliRunner

from later_reporting_dagster.cli.main import main
from later_reporting_dagster.contract import BadRow
from later_reporting_dagster.lake import POSTS_SCHEMA, Lake, Partition
from later_reporting_dagster.server.sandbox import World, create_app, running_server
from tests.conftest import NO_RATE_LIMIT, sandbox_settings
from tests.services import DBT_FOLDER

ROOT = Path(__file__).parents[2]
DOCS_PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "examples" / "dbt" / "README.md"]
START, CONTRIBUTING = ROOT / "docs" / "start.md", ROOT / "CONTRIBUTING.md"
PAGES = [*DOCS_PAGES, ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "CHANGELOG.md", CONTRIBUTING]

# The days in the commands of the pages; a file that has one post less than the API; and a file that is missing.
FIRST_DAY, LAST_DAY = date(2024, 1, 1), date(2024, 1, 7)
SHRUNK_PARTITION = Partition(date(2024, 1, 3), "instance_000")
MISSING_PARTITION = Partition(date(2024, 1, 5), "instance_001")


def code_blocks(text: str, language: str = "") -> list[str]:
    """Return the code blocks of a language; by default, those without one."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [block for of_block, block in blocks if of_block == language]


def split_commands(block: str) -> list[str]:
    """Return the commands of a shell block: one per line, or several lines up to the end of a quotation."""
    found: list[str] = []
    for line in block.splitlines():
        if found and found[-1].count('"') % 2:
            found[-1] += f"\n{line}"
        else:
            found.append(line)
    return found


def section(page: Path, heading: str) -> str:
    """Return the text below a second-level heading."""
    text = page.read_text()
    assert f"\n## {heading}\n" in text, f"{page.name} has no section {heading!r}"
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


@dataclass(frozen=True)
class Shell:
    """A working directory, and the environment that docs/start.md describes."""

    directory: Path
    environment: Mapping[str, str]

    def run(self, command: str) -> str:
        """Run a shell command that must succeed, and return its standard output."""
        program, *arguments = shlex.split(command)
        if program == "later-reporting" and not {"|", ">"} & set(command):
            # In this process, because importing Dagster takes longer than most commands.
            result = CliRunner().invoke(main, arguments)
            assert result.exit_code == 0, f"{command}: {result.output}"
            return result.stdout
        return self.run_process("bash", "-o", "pipefail", "-ec", command)

    def run_process(self, *command: str, stdin: str = "") -> str:
        """Run a program in a process of its own, and return its standard output."""
        done = subprocess.run(
            command, input=stdin, cwd=self.directory, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    @property
    def lake(self) -> Lake:
        return Lake(self.environment["LATER_LAKE_ROOT"])


@pytest.fixture(scope="package")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A shell with a running sandbox, a Dagster home, and a lake with a week of posts and typical problems."""
    directory = tmp_path_factory.mktemp("shell")
    home = directory / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    (directory / "examples").symlink_to(ROOT / "examples")
    world = World(first_day=FIRST_DAY, last_day=date(2024, 2, 1), instances=2, posts_per_day=40)
    with running_server(create_app(world, options=NO_RATE_LIMIT)) as base_url, pytest.MonkeyPatch.context() as patched:
        environment = {
            "DAGSTER_HOME": str(home),
            "HOME": str(directory),
            **sandbox_settings(base_url, lake_root=str(directory / "lake")),
            "LATER_START_DATE": str(FIRST_DAY),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], str(DBT_FOLDER)]),
        }
        for name, value in environment.items():
            patched.setenv(name, value)
        patched.chdir(directory)
        shell = Shell(directory, environment)
        _fill_lake(shell)
        yield shell


def _fill_lake(shell: Shell) -> None:
    """Fetch and roll up a week; then remove a post from one file, remove another file, and quarantine a row."""
    shell.run(f"later-reporting backfill --start {FIRST_DAY} --end {LAST_DAY}")
    lake = shell.lake
    rows = lake.read("posts_published", [SHRUNK_PARTITION], schema=POSTS_SCHEMA)
    metadata = lake.read_metadata("posts_published", SHRUNK_PARTITION)
    assert metadata is not None
    lake.write("posts_published", SHRUNK_PARTITION, rows.slice(1), metadata=metadata.key_values)
    Path(lake.url("posts_published", MISSING_PARTITION)).unlink()
    bad_row = BadRow(reason="impressions must not be negative: -1", raw='{"impressions":-1}')
    partition = Partition(date(2024, 1, 31), "instance_000")
    lake.quarantine.write(lake.quarantine.path_of("posts_published", partition), [bad_row], query="a query")
