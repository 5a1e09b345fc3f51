"""Closed months become one file per instance: missing copies with the asset `coverage`, all with the job."""

import os
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import pytest
from dagster import ExecuteInProcessResult

from tests.conftest import DAYS, INSTANCE_IDS, files
from tests.defs.conftest import Project, failure, freeze_clock

RAW = "post_metrics_daily"


def age_files(root: Path) -> None:
    """Set the modification times of all files to about an hour ago, each to a different one."""
    for number, path in enumerate(sorted(root.rglob("*.parquet"))):
        stamp = path.stat().st_mtime - 3600 + number
        os.utime(path, (stamp, stamp))


def logged(project: Project, result: ExecuteInProcessResult) -> set[str]:
    """Return the messages in a run's log, up to the number of bytes."""
    entries = project.instance.all_logs(result.run_id)
    return {entry.user_message.partition(";")[0] for entry in entries if entry.dagster_event is None}


@pytest.fixture
def filled(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The project with five days of a raw table, written an hour ago, whose month is closed."""
    freeze_clock(monkeypatch, datetime.now(UTC))
    project.fetch(RAW, days=DAYS)
    age_files(project.root)
    return project


def test_job_compacts_both_raw_tables_and_logs_a_summary(filled: Project) -> None:
    before = files(filled.root)
    result = filled.run_job("later_compaction")
    assert result.success
    months = list((filled.root / "_compacted" / RAW / "month=2024-03").rglob("part-0.parquet"))
    assert len(months) == len(INSTANCE_IDS)
    assert {name: stored for name, stored in files(filled.root).items() if "_compacted" not in name} == before
    assert logged(filled, result) == {
        "Compacted later/post_metrics_daily: 4 months written, 0 unchanged",
        "Compacted later/posts_published: 0 months written, 0 unchanged",
    }

    after = files(filled.root)
    assert "Compacted later/post_metrics_daily: 0 months written, 4 unchanged" in logged(
        filled, filled.run_job("later_compaction")
    )
    assert files(filled.root) == after


def test_job_fails_with_advice_when_the_lake_is_no_directory(project: Project) -> None:
    project.root.write_text("")
    assert "Not a directory" in failure(project.run_job("later_compaction"))[0]


def copies(project: Project, asset: str = RAW) -> list[str]:
    """Return the instances of the copied months of a table."""
    return sorted(path.parent.name for path in (project.root / "_compacted" / asset).rglob("part-0.parquet"))


def test_coverage_copies_closed_months_that_have_no_copy(filled: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    copied = f"Copied {len(DAYS) * len(INSTANCE_IDS)} daily files of {RAW} to {len(INSTANCE_IDS)} monthly files"
    for path in (filled.root / RAW).rglob("*.parquet"):
        os.utime(path, (0, 0))
    last_restated = datetime.combine(DAYS[-1].replace(day=31), time(12), UTC) + timedelta(days=28)
    freeze_clock(monkeypatch, last_restated)
    assert copied not in logged(filled, filled.run("coverage"))
    assert copies(filled) == []
    freeze_clock(monkeypatch, last_restated + timedelta(days=1))
    assert copied in logged(filled, filled.run("coverage"))
    assert (len(copies(filled)), copies(filled, "posts_published")) == (len(INSTANCE_IDS), [])

    before = files(filled.root / "_compacted")
    for path in (filled.root / RAW).rglob("*.parquet"):
        os.utime(path, (1, 1))  # so the copies are outdated
    assert filled.run("coverage").success
    assert files(filled.root / "_compacted") == before


def test_coverage_is_updated_if_no_month_can_be_copied(filled: Project) -> None:
    (filled.root / "_compacted").write_text("")
    result = filled.run("coverage")
    assert result.success
    assert any(
        line.startswith(f"Not all closed months of {RAW} are copied: cannot list ") for line in logged(filled, result)
    )
    assert filled.lake.table_exists("coverage")
