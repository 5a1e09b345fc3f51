"""The command as a user types it: settings that point at the sandbox, a Dagster home, and a lake."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from later_reporting_dagster.cli import main
from later_reporting_dagster.definitions import definitions
from later_reporting_dagster.defs.settings import LoadSettings
from tests.conftest import Service, settings_of


@dataclass(frozen=True)
class User:
    """Who types commands; their environment is that of the test's process."""

    home: Path
    lake: Path

    def types(self, *arguments: str) -> Result:
        """Runs a command to its end. A traceback would be the test's own failure."""
        result = CliRunner().invoke(main, arguments, prog_name="later-reporting")
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert "Traceback" not in result.output
        return result


@pytest.fixture
def user(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> User:
    user = User(home=tmp_path / "dagster-home", lake=tmp_path / "lake")
    user.home.mkdir()
    (user.home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    monkeypatch.setenv("DAGSTER_HOME", str(user.home))
    for name, value in settings_of(service.base_url, lake_root=str(user.lake)).items():
        monkeypatch.setenv(name, value)
    load_definitions(monkeypatch)
    return user


def load_definitions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load the definitions as a process of its own would, from the environment as it is now."""
    monkeypatch.setattr(
        "later_reporting_dagster.cli.in_process_runs.defs", definitions(LoadSettings.from_environment())
    )


def error_line(result: Result) -> str:
    """Return the one error that a command ends with, without what click prints of its usage."""
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert result.stderr.splitlines()[-1] == line
    return line.removeprefix("Error: ")


def failed_lines(result: Result) -> list[tuple[str, str, str]]:
    """Return what a command lists as failed: asset, (day, instance) pair or day, and reason."""
    lines = [line.split("  ", 3) for line in result.stderr.splitlines()]
    assert all(line[0] == "failed" for line in lines)
    return [(asset, key, reason) for _, asset, key, reason in lines]


def environment() -> dict[str, str]:
    """What a process of its own needs to run as this one does."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
