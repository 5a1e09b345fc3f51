"""Dagster's own commands in a clone of the repository, each in a subprocess."""

from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from pathlib import Path

import pytest

from tests.e2e.dagster_dev import INSTANCES, clean_environment, run, sandbox_environment

pytestmark = pytest.mark.e2e


@pytest.fixture
def no_settings(tmp_path: Path) -> Mapping[str, str]:
    return clean_environment() | {"HOME": str(tmp_path), "COLUMNS": "300"}


@pytest.fixture
def sandbox_settings(tmp_path: Path) -> Iterator[Mapping[str, str]]:
    with sandbox_environment(tmp_path) as (_, environment):
        yield environment


def test_dg_checks_the_definitions_of_a_clone(no_settings: Mapping[str, str]) -> None:
    checked = run("dg", "check", "defs", environment=no_settings)

    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "All definitions loaded successfully" in checked.stdout


@pytest.mark.parametrize("days", [1, 3])
def test_dagster_materializes_a_raw_table_and_its_rollup(days: int, sandbox_settings: Mapping[str, str]) -> None:
    first = date.fromisoformat(sandbox_settings["LATER_START_DATE"])
    partitions = [str(first + timedelta(days=number)) for number in range(days)]

    materialized = run(
        *("dagster", "asset", "materialize", "-m", "later_reporting_dagster.definitions"),
        *("--select", "later/post_metrics_daily,later/organic_paid_daily"),
        *(("--partition", *partitions) if days == 1 else ("--partition-range", f"{partitions[0]}...{partitions[-1]}")),
        environment=sandbox_settings,
    )

    assert materialized.returncode == 0, materialized.stdout + materialized.stderr
    files = sorted(Path(sandbox_settings["LATER_LAKE_ROOT"]).rglob("*.parquet"))
    assert [file.parts[file.parts.index("lake") + 1 : -1] for file in files] == [
        *(("organic_paid_daily", f"date={day}") for day in partitions),
        *(
            ("post_metrics_daily", f"date={day}", f"instance_id={instance}")
            for day in partitions
            for instance in INSTANCES
        ),
    ]
    assert materialized.stderr.count("ASSET_CHECK_EVALUATION - ") == 7 + 2
