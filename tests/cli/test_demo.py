"""`later-reporting demo`: the whole way, twice, in processes of their own."""

import re
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from later_reporting_dagster.definitions import defs
from tests.cli.conftest import environment
from tests.conftest import files

# When it was fetched or made, as a file's metadata has it.
INSTANT = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00")


@dataclass(frozen=True)
class Twice:
    """A demo that was run twice: what it said first, and the lake after each run."""

    directory: Path
    said: str
    after_first: dict[str, tuple[bytes, int]]
    after_second: dict[str, tuple[bytes, int]]


def demo(directory: Path, *options: str, instances: int = 2) -> str:
    command = [sys.executable, "-m", "later_reporting_dagster.cli", "demo", "--directory", str(directory)]
    small = ["--days", "2", "--instances", str(instances), "--posts-per-day", "3"]
    result = subprocess.run(
        [*command, *small, *options], env=environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> Twice:
    directory = tmp_path_factory.mktemp("demo") / "never-was"
    said = demo(directory)
    first = files(directory / "lake")
    demo(directory)
    return Twice(directory, said, first, files(directory / "lake"))


def monday_of(day: str) -> date:
    found = date.fromisoformat(day)
    return found - timedelta(days=found.weekday())


def test_all_assets_are_there_for_all_days_and_instances(twice: Twice) -> None:
    newest = max(path.split("date=")[1][:10] for path in twice.after_first if "date=" in path)
    day = datetime.fromisoformat(newest).date()
    assert day in {datetime.now(UTC).date() - timedelta(days=age) for age in (1, 2)}
    days = [str(day - timedelta(days=1)), str(day)]
    assert set(twice.after_first) == {
        *(
            f"{asset}/date={day}/instance_id={instance}/part-0.parquet"
            for asset in ("post_metrics_daily", "posts_published")
            for day in days
            for instance in ("instance_000", "instance_001")
        ),
        *(
            f"{asset}/date={day}/part-0.parquet"
            for asset in ("organic_paid_daily", "organic_paid_by_publish_day")
            for day in days
        ),
        *(f"organic_paid_weekly/date={monday_of(day)}/part-0.parquet" for day in days),
        *(f"organic_paid_monthly/date={day[:8]}01/part-0.parquet" for day in days),
        *(f"organic_paid_by_{grain}/part-0.parquet" for grain in ("campaign", "creator", "platform")),
        "organic_paid_report/report.html",
        "instances/part-0.parquet",
    }


def test_a_second_run_touches_no_file(twice: Twice) -> None:
    assert twice.after_second == twice.after_first


def test_by_cursor_it_lands_the_same_bytes_but_for_the_clock(twice: Twice, tmp_path: Path) -> None:
    demo(tmp_path, "--revision", "cursor")

    def timeless(lake: dict[str, tuple[bytes, int]]) -> dict[str, bytes]:
        return {path: INSTANT.sub(b"", found) for path, (found, _) in lake.items() if path.endswith(".parquet")}

    found = timeless(files(tmp_path / "lake"))
    assert found == timeless(twice.after_first)
    raw = [path for path in found if path.startswith("post")]
    assert len(raw) == 2 * 2 * 2
    assert all(len(found[path]) < len(twice.after_first[path][0]) for path in raw)


def test_it_says_what_it_is_and_where_everything_lies(twice: Twice) -> None:
    assert "SYNTHETIC DATA" in twice.said.splitlines()[0]
    assert f"{twice.directory}/lake" in twice.said
    assert f"{twice.directory}/dagster-home" in twice.said


def test_it_ends_with_where_the_report_lies(twice: Twice) -> None:
    path = Path(twice.said.splitlines()[-1].removeprefix("The report:").strip())
    assert path == twice.directory / "lake" / "organic_paid_report" / "report.html"
    assert path.read_bytes().startswith(b"<!doctype html>")


def test_it_compares_organic_with_paid_by_platform(twice: Twice) -> None:
    assert "Organic against paid" in twice.said
    platforms = {
        row["platform"]
        for path in twice.after_first
        if path.startswith("organic_paid_daily")
        for row in pq.ParquetFile(twice.directory / "lake" / path).read(["platform"]).to_pylist()
    }
    assert platforms
    told = {line.split()[0] for line in twice.said.splitlines() if line.strip()}
    assert platforms <= told


def test_its_checks_are_told_and_green(twice: Twice) -> None:
    printed = [line for line in twice.said.splitlines() if line.startswith(("ok ", "FAIL "))]
    assert len(printed) == len(defs.resolve_asset_graph().asset_check_keys)
    assert all(line.startswith("ok ") for line in printed)


def test_it_can_be_run_again_with_fewer_instances(twice: Twice) -> None:
    printed = demo(twice.directory, instances=1)
    assert "2 days equal their raw rows" in printed
    assert "FAIL  instances: every_instance_is_still_listed: Not listed any more: instance_001." in printed
