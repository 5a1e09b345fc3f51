"""Fixtures for the command line: settings that select the sandbox, a `DAGSTER_HOME`, and a lake."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from later_reporting_dagster.cli.main import main
from tests.conftest import Service, sandbox_settings


@dataclass(frozen=True)
class User:
    """Runs commands in the environment of the test process."""

    home: Path
    lake: Path

    def run(self, *arguments: str) -> Result:
        """Run a command to its end, and assert that it printed no traceback."""
        result = CliRunner().invoke(main, arguments, prog_name="later-reporting")
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert "Traceback" not in result.output
        return result


@pytest.fixture
def user(service: Service, dagster_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> User:
    """A user with an empty lake and a `DAGSTER_HOME` without runs, whose settings select the sandbox."""
    user = User(home=dagster_home, lake=tmp_path / "lake")
    for name, value in sandbox_settings(service.base_url, lake_root=str(user.lake)).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LATER_START_DATE", "2024-01-01")
    return user


@pytest.fixture
def give_away(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """A function that makes a file or folder belong to another user, or if only root could, this process."""

    def give(path: Path) -> None:
        if os.geteuid() == 0:
            os.chown(path, 12_345, -1)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: 12_345)

    return give


def error_line(result: Result) -> str:
    """Return the only error that a command printed, which is its last line, without `Error: `."""
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert result.stderr.splitlines()[-1] == line
    return line.removeprefix("Error: ")


def failed_lines(result: Result) -> list[tuple[str, str, str]]:
    """Return the failures that a command printed: asset, (day, instance) pair or day, and reason."""
    lines = [line.split("  ", 3) for line in result.stderr.splitlines()]
    assert all(line[0] == "failed" for line in lines), result.stderr
    return [(asset, key, reason) for _, asset, key, reason in lines]


def environment() -> dict[str, str]:
    """Return the environment of a subprocess that imports this checkout."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
