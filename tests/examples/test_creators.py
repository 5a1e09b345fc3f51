"""The example code location runs on one partition and on a range, and imports public names only."""

import runpy
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from itertools import product
from pathlib import Path

import dagster as dg
import pytest

from later_reporting_dagster.defs.partitions import range_tags
from tests.conftest import DAYS, INSTANCE_IDS, Truth
from tests.defs.conftest import (  # noqa: F401 - some are fixtures
    QUIET_LOGGING,
    Project,
    fill_once,
    freeze_clock,
    module_lake,
    next_day,
    project,
    settings,
)

EXAMPLE = Path(__file__).parents[2] / "examples" / "creators.py"


@pytest.fixture
def example(settings: None) -> dg.Definitions:  # noqa: F811
    """The definitions of the example."""
    definitions: dg.Definitions = runpy.run_path(str(EXAMPLE))["defs"]
    return definitions


@pytest.fixture
def filled(project: Project, module_lake: Path, monkeypatch: pytest.MonkeyPatch) -> Project:  # noqa: F811
    """The project with raw tables and a daily rollup in its lake."""
    freeze_clock(monkeypatch, datetime(2024, 3, 11, 6, tzinfo=UTC))

    def fetch_and_roll_up(project: Project) -> bool:
        fetched = [project.fetch(asset, days=DAYS).success for asset in ("posts_published", "post_metrics_daily")]
        return all(fetched) and project.roll_up("organic_paid_daily_by_campaign", days=DAYS).success

    return fill_once(project, module_lake, fetch_and_roll_up)


@pytest.mark.parametrize(
    ("asset", "basis", "days", "keys", "measures"),
    [
        ("reach_by_platform", "post_date", DAYS[1:3], ["date", "instance_id", "platform"], "impressions"),
        (
            "creators_of_the_day",
            "performance_date",
            DAYS[1:2],
            ["date", "instance_id", "creator_id", "creator_handle_name"],
            "engagements",
        ),
        ("campaigns_of_the_week", "performance_date", DAYS, ["week", "campaign_id"], "impressions"),
    ],
)
def test_asset_sums_the_days_of_its_run(
    asset: str,
    basis: str,
    days: list[date],
    keys: list[str],
    measures: str,
    example: dg.Definitions,
    filled: Project,
    truth: Truth,
) -> None:
    weeks = {day: day - timedelta(days=day.weekday()) for day in days}
    partitions = [*(weeks.values() if "week" in keys else days)]
    result = example.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=filled.instance,
        asset_selection=[dg.AssetKey(asset)],
        tags=range_tags(partitions[0], partitions[-1]),
        run_config=QUIET_LOGGING,
    )
    metadata = result.asset_materializations_for_node(asset)[0].metadata
    assert isinstance(metadata["rows"], dg.TableMetadataValue)
    # A time is at midnight.
    found = [
        [str(value).removesuffix(" 00:00:00") for value in record.data.values()] for record in metadata["rows"].records
    ]

    groups: dict[tuple[str, ...], list[tuple[int | None, int | None]]] = {}
    for day, name in product(days, INSTANCE_IDS):
        rows = truth.partition(basis, day, name)
        # A post of several campaigns counts in each of them, but only once in other groups.
        for row in rows if "campaign_id" in keys else {row["post_id"]: row for row in rows}.values():
            key = tuple(str({"date": day, "week": weeks[day], **row}[each]) for each in keys)
            groups.setdefault(key, []).append((row[measures], row[f"paid_{measures}"]))
    expected = [
        [*key, *(str(sum_or_none(values)) for values in zip(*group, strict=True))] for key, group in groups.items()
    ]
    assert len(found) == min(len(expected), 10)
    assert all(row[: len(keys) + 2] in expected for row in found)
    assert metadata["dagster/row_count"].value == len(expected) > 5


def sum_or_none(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
