"""The example code location runs on one partition and on a range, and imports public names only."""

import runpy
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from later_reporting_dagster.defs.partitions import RANGE_END_TAG, RANGE_START_TAG
from tests.conftest import DAYS, INSTANCE_IDS, Truth
from tests.defs.conftest import QUIET_LOGGING, Project, fill_once, module_lake, next_day, project, settings  # noqa: F401 - some are fixtures

EXAMPLE = Path(__file__).parents[2] / "examples" / "creators.py"
Row = dict[str, Any]


@pytest.fixture
def example(settings: None) -> dg.Definitions:  # noqa: F811
    """The definitions of the example."""
    definitions: dg.Definitions = runpy.run_path(str(EXAMPLE))["defs"]
    return definitions


@pytest.fixture
def filled(project: Project, module_lake: Path) -> Project:  # noqa: F811
    """The project with raw tables and the daily rollup in its lake."""

    def fetch_and_roll_up(project: Project) -> bool:
        fetched = [project.fetch(asset, days=DAYS).success for asset in ("posts_published", "post_metrics_daily")]
        return all(fetched) and project.roll_up("organic_paid_daily", days=DAYS).success

    return fill_once(project, module_lake, fetch_and_roll_up)


def materialize(
    example: dg.Definitions,
    asset: str,
    filled: Project,
    *,
    partition: str | None = None,
    between: tuple[str, str] | None = None,
) -> tuple[int, list[Row]]:
    """Materialize an asset of the example; return its row count, and its first rows as text."""
    result = example.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=filled.instance,
        asset_selection=[dg.AssetKey(asset)],
        partition_key=partition,
        tags={RANGE_START_TAG: between[0], RANGE_END_TAG: between[1]} if between else None,
        run_config=QUIET_LOGGING,
    )
    first, *_ = result.asset_materializations_for_node(asset)
    table = first.metadata["rows"]
    assert isinstance(table, dg.TableMetadataValue)
    return int(first.metadata["dagster/row_count"].value), [dict(record.data) for record in table.records]  # type: ignore[arg-type]


def summed(rows: list[Row], by: list[str], *measures: str) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Return the sums of groups, or None where all values are None; a slow reference."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in by), []).append(row)
    return {
        key: tuple(
            sum(values) if (values := [row[name] for row in members if row[name] is not None]) else None
            for name in measures
        )
        for key, members in groups.items()
    }


def text(value: Any) -> str | None:
    return None if value is None else str(value)


def posts_of(truth: Truth, basis: str, days: list[date]) -> list[Row]:
    return [{"date": day, **row} for day in days for name in INSTANCE_IDS for row in truth.partition(basis, day, name)]


def test_pandas_example_sums_the_days_of_its_run(example: dg.Definitions, filled: Project, truth: Truth) -> None:
    expected = summed(
        posts_of(truth, "post_date", DAYS[1:3]), ["date", "instance_id", "platform"], "impressions", "paid_impressions"
    )
    count, rows = materialize(example, "reach_by_platform", filled, between=(str(DAYS[1]), str(DAYS[2])))
    assert count == len(expected)
    assert len(rows) == min(count, 10)
    found = {(row["date"][:10], row["instance_id"], row["platform"]): row for row in rows}
    for key, sums in sorted(expected.items())[: len(rows)]:
        row = found[str(key[0]), key[1], key[2]]
        assert (row["impressions"], row["paid_impressions"]) == tuple(map(text, sums))


def test_arrow_example_sums_the_day_of_its_run(example: dg.Definitions, filled: Project, truth: Truth) -> None:
    expected = summed(
        posts_of(truth, "performance_date", DAYS[1:2]),
        ["date", "creator_id", "creator_handle_name"],
        "engagements",
        "paid_engagements",
    )
    count, rows = materialize(example, "creators_of_the_day", filled, partition=str(DAYS[1]))
    assert count == len(expected)
    assert len(rows) == 10
    most = sorted((sums[0] for sums in expected.values() if sums[0] is not None), reverse=True)[:10]
    assert [row["engagements_sum"] for row in rows] == list(map(str, most))
    texts = {
        (str(day), text(creator), handle): tuple(map(text, sums)) for (day, creator, handle), sums in expected.items()
    }
    for row in rows:
        sums = texts[row["date"], row["creator_id"], row["creator_handle_name"]]
        assert (row["engagements_sum"], row["paid_engagements_sum"]) == sums


def test_polars_example_sums_the_weeks_of_its_run(example: dg.Definitions, filled: Project, truth: Truth) -> None:
    posts = [
        {**row, "week": row["date"] - timedelta(days=row["date"].weekday())}
        for row in posts_of(truth, "performance_date", DAYS)
    ]
    expected = summed(posts, ["week", "campaign_id"], "impressions", "paid_impressions")
    count, rows = materialize(example, "campaigns_of_the_week", filled, between=("2024-02-26", "2024-03-04"))
    assert count == len(expected) > 0
    assert [tuple(row.values()) for row in rows] == [
        tuple(map(text, (*key, *sums))) for key, sums in sorted(expected.items())[: len(rows)]
    ]
