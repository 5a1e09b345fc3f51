"""`later-reporting demo`, in a subprocess."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import click
import dagster as dg
import pyarrow.parquet as pq
import pytest

from later_reporting_dagster.cli.demo import commit_without_sync
from later_reporting_dagster.cli.run_report import check_summary
from later_reporting_dagster.definitions import defs
from later_reporting_dagster.defs.component_base import ASSET_NAMES
from tests.cli.conftest import environment
from tests.conftest import files
from tests.services import WAIT_SECONDS

pytestmark = pytest.mark.e2e
# As many that some were over for three days.
DAYS = 5


@dataclass(frozen=True)
class Demo:
    output: str
    directory: Path

    @property
    def lake(self) -> Path:
        return self.directory / "lake"


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """A run of the demo in a folder that did not exist before."""
    directory = tmp_path_factory.mktemp("demo") / "new"
    command = ["-m", "later_reporting_dagster.cli.main", "demo", "--directory", str(directory), "--days", str(DAYS)]
    result = subprocess.run(
        [sys.executable, *command], env=environment(), capture_output=True, text=True, timeout=WAIT_SECONDS, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    return Demo(result.stdout, directory)


def test_demo_writes_all_assets_for_all_days_and_instances(first: Demo) -> None:
    paths = files(first.lake)
    assert {path.partition("/")[0] for path in paths} == {*ASSET_NAMES}
    raw = {path.partition("date=")[2] for path in paths if path.startswith("posts_published/")}
    newest = date.fromisoformat(max(raw)[:10])
    assert newest in {datetime.now(UTC).date() - timedelta(days=age) for age in (1, 2)}
    assert raw == {
        f"{day}/instance_id={instance}/part-0.parquet"
        for day in (newest - timedelta(days=age) for age in range(DAYS))
        for instance in ("instance_000", "instance_001", "instance_002", "instance_003")
    }


def test_demo_ends_with_three_commands_that_can_be_typed(first: Demo) -> None:
    assert "SYNTHETIC DATA" in first.output.splitlines()[0]
    report = first.lake / "organic_paid_report" / "report.html"
    browser, query, ui = (line.strip() for line in first.output.splitlines()[-3:])
    assert browser == f"python3 -m webbrowser {report}"
    assert report.read_bytes().startswith(b"<!doctype html>")
    assert ui.endswith(f" demo --directory {first.directory} --days {DAYS} --ui")
    shell = subprocess.run(
        query, shell=True, env=environment(), capture_output=True, text=True, timeout=WAIT_SECONDS, check=False
    )
    assert shell.returncode == 0, shell.stderr
    assert "content_cost" in shell.stdout


def test_demo_prints_platforms_and_how_many_checks_passed(first: Demo) -> None:
    lines = first.output.splitlines()
    rows = pq.ParquetFile(first.lake / "organic_paid_by_platform" / "part-0.parquet").read().to_pylist()
    shown = [row for row in rows if (row["time_window"], row["scope"]) == ("28d", "all")]
    printed = {cells[1]: cells[3] for line in lines if len(cells := line.split()) > 3}
    assert shown
    assert all(printed[row["platform"] or "other"] == str(row["organic_impressions"]) for row in shown)
    assert lines[1] == f"{len(defs.resolve_asset_graph().asset_check_keys)} checks passed."


def test_first_run_of_the_demo_holds_posts_against_what_later_totals(
    first: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(first.directory / "dagster-home"))
    key = dg.AssetCheckKey(dg.AssetKey(["later", "post_metrics_daily"]), "posts_agree_with_later")
    with dg.DagsterInstance.get() as instance:
        logged = instance.all_logs(
            instance.get_runs(ascending=True)[0].run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
        )
    results = [each.get_dagster_event().asset_check_evaluation_data for each in logged]
    (result,) = [each for each in results if each.asset_check_key == key]
    assert (result.passed, int(result.metadata["compared"].value) > 0) == (True, True)


def test_commits_to_sqlite_do_not_wait_for_the_disk() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        commit_without_sync(connection, None)
        assert connection.execute("PRAGMA synchronous").fetchone() == (0,)
    commit_without_sync(object(), None)


def test_check_summary_names_what_did_not_pass() -> None:
    def result(name: str, *, passed: bool, severity: dg.AssetCheckSeverity) -> dg.AssetCheckEvaluation:
        return dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey("a"),
            check_name=name,
            passed=passed,
            severity=severity,
            description="why",
            metadata={},
        )

    error, warn = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN
    good = [result(name, passed=True, severity=error) for name in "bc"]
    assert check_summary(good) == "2 checks passed."
    bad = [result("d", passed=False, severity=warn), result("e", passed=False, severity=error)]
    lines = click.unstyle(check_summary([*good, *bad])).splitlines()
    assert lines == ["2 checks passed, 1 warning, 1 failed:", "  WARN  a: d: why", "  FAIL  a: e: why"]
