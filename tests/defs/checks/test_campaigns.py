"""The checks that hold what the API reports for campaigns against their posts."""

from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from later_reporting_dagster.contract import DEFAULT_METRICS
from later_reporting_dagster.defs.checks.campaigns import (
    build_campaign_totals_check,
    evaluate_ad_spend,
    evaluate_campaign_totals,
)
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.defs.settings import DefinitionSettings
from later_reporting_dagster.lake import Lake, Partition, schema_of
from later_reporting_dagster.rollups.campaign_reconciliation import reconcile_campaigns
from later_reporting_dagster.rollups.lake_rollups import CAMPAIGN_PERFORMANCE, read_campaigns, roll_up_lake_windows
from later_reporting_dagster.rollups.rollup_tables import CAMPAIGN_RESULTS, COSTS_BY_CAMPAIGN
from tests.conftest import Row, Truth
from tests.defs.assets.test_rollups import reference_world
from tests.defs.conftest import DAYS, QUIET_LOGGING, Project, assert_success
from tests.rollups.conftest import row
from tests.rollups.reference import World
from tests.rollups.test_campaign_reconciliation import with_true_totals
from tests.rollups.worlds import NEWEST, campaign, differences, performance, write, write_campaigns

SPEND = (CAMPAIGN_RESULTS.name, "ad_spend_is_within_bounds")
PERFORMANCE = schema_of(CAMPAIGN_PERFORMANCE.columns)
BEFORE = NEWEST - timedelta(days=3)
# The unit costs of a post that cost about 300: its paid spend is 299.92 to 300.01.
COSTS = {"paid_impressions": 8500, "paid_engagements": 1240, "paid_cpm": 35.29, "paid_cpe": 0.24}


def test_totals_check_finds_the_campaign_whose_totals_were_altered(project: Project, truth: Truth) -> None:
    project.fetch("post_metrics_daily")
    world = with_true_totals(reference_world(truth))
    defs = dg.Definitions(
        asset_checks=[build_campaign_totals_check(DefinitionSettings())],
        resources={"later_reporting": LaterReportingResource.from_environment()},
    )
    job = defs.resolve_implicit_global_asset_job_def()
    altered = max(world.performance[DAYS[1]], key=lambda each: each["impressions"] or 0)
    for factor in (1.0, 1.02):
        altered["impressions"] = round(altered["impressions"] * factor)
        write_campaigns(project.lake, world, rng=None)
        run = job.execute_in_process(instance=project.instance, run_config=QUIET_LOGGING)
        (result,) = project.evaluations(run).values()
        metadata = {name: value.value for name, value in result.metadata.items()}
        assert result.passed is (factor == 1.0)
        assert result.severity is dg.AssetCheckSeverity.WARN
        assert (metadata["compared"], metadata["differing"]) == (
            sum(map(len, world.performance.values())),
            0 if result.passed else 1,
        )
        assert isinstance(metadata["difference_percent/impressions"], float)
    (example,) = metadata["examples"]
    assert example.startswith(
        f"impressions of campaign {altered['campaign_id']} on {DAYS[1]} ({altered['impressions']} "
    )
    assert example in (result.description or "")
    assert metadata["difference_percent/engagements"] == 0.0 < metadata["difference_percent/impressions"]


def spend_world(*spent: float | None, post: Row = COSTS, **of_campaign: object) -> World:
    """Return a world of one campaign with one post, published 3 days before the newest, and its spend since."""
    published = datetime(BEFORE.year, BEFORE.month, BEFORE.day, 12, tzinfo=UTC)
    posts = [row(post_date=published, **post)]
    days = [BEFORE + timedelta(days=age) for age in range(len(spent))]
    return World(
        {(NEWEST, "a"): posts, (BEFORE - timedelta(days=5), "a"): []},
        {(BEFORE, "a"): posts, (NEWEST, "a"): []},
        campaigns=[campaign(**{"first_post_date": published, **of_campaign})],
        performance={day: [performance(paid_ad_spend=each)] for day, each in zip(days, spent, strict=True)},
    )


def evaluated(world: World, folder: Path) -> dg.AssetCheckResult:
    """Roll up a world and evaluate the check of the ad spend."""
    lake = Lake(str(folder / str(len([*folder.iterdir()]))))
    for table, files in (("post_metrics_daily", world.recorded), ("posts_published", world.published)):
        write(lake, table, files, DEFAULT_METRICS, rng=None)
    write_campaigns(lake, world, rng=None)
    return evaluated_lake(lake, days=world.performance.keys())


def evaluated_lake(lake: Lake, *, days: Collection[date]) -> dg.AssetCheckResult:
    """Roll up a lake and evaluate the check of the ad spend."""
    tables = roll_up_lake_windows(lake, [CAMPAIGN_RESULTS, COSTS_BY_CAMPAIGN], memory_gb=1).tables
    results, costs = tables[CAMPAIGN_RESULTS.name], tables[COSTS_BY_CAMPAIGN.name]
    return evaluate_ad_spend(results, costs=costs, campaigns=read_campaigns(lake).rows, days=days)


def counts(result: dg.AssetCheckResult) -> tuple[object, ...]:
    """Return how many campaigns were compared, and how many are below and above their bounds."""
    return tuple(result.metadata[name].value for name in ("compared", "below_minimum", "above_maximum"))


@pytest.mark.parametrize(
    ("spend", "found"), [(296.9, (1, 1, 0)), (297.0, (1, 0, 0)), (303.0, (1, 0, 0)), (303.1, (1, 0, 1))]
)
def test_ad_spend_is_compared_with_both_bounds(spend: float, found: tuple[int, ...], tmp_path: Path) -> None:
    result = evaluated(spend_world(0.0, spend, None, 0.0), tmp_path)
    assert counts(result) == found
    assert result.passed is (sum(found) == 1)
    assert result.severity is dg.AssetCheckSeverity.WARN
    if not result.passed:
        assert result.metadata["examples"].value == [f"campaign 1 of a: {spend:.2f}, of posts 299.92 to 300.01"]


def test_ad_spend_may_be_above_the_maximum_if_a_paid_post_has_no_bounds(tmp_path: Path) -> None:
    world = spend_world(0.0, 900.0, 0.0, 0.0)
    for rows in (world.recorded[NEWEST, "a"], world.published[BEFORE, "a"]):
        rows.append(row(post_id=2, post_date=rows[0]["post_date"], paid_impressions=10))  # type: ignore[attr-defined]
    result = evaluated(world, tmp_path)
    assert (counts(result), result.metadata["compared_with_maximum"].value) == ((1, 0, 0), 0)


@pytest.mark.parametrize(
    "world",
    [
        spend_world(1.0, 1.0, 1.0),  # the newest day is missing
        spend_world(None, None, None, None),
        spend_world(1.0, 1.0, 1.0, 1.0, first_post_date=None),
        spend_world(1.0, 1.0, 1.0, 1.0, campaign_id=2),
        spend_world(1.0, 1.0, 1.0, 1.0, instance_id="b"),  # the campaign id is in two instances
        spend_world(1.0, 1.0, 1.0, 1.0, first_post_date=datetime(2024, 3, 2, 23, tzinfo=UTC)),  # before the first day
        spend_world(1.0, 1.0, 1.0, 1.0, post={"impressions": 5}),
        World({}, {}),
    ],
    ids=["day", "spend", "first post", "unknown", "instances", "first day", "bounds", "empty"],
)
def test_ad_spend_that_cannot_be_compared_passes(world: World, tmp_path: Path) -> None:
    result = evaluated(world, tmp_path)
    assert (result.passed, counts(result)) == (True, (0, 0, 0))
    assert (result.description or "").startswith("No campaign can be compared yet")


def test_ad_spend_of_a_table_made_from_other_days_is_not_compared(tmp_path: Path) -> None:
    world = spend_world(1.0, 1.0, 1.0)
    lake = Lake(str(tmp_path))
    for table, files in (("post_metrics_daily", world.recorded), ("posts_published", world.published)):
        write(lake, table, files, DEFAULT_METRICS, rng=None)
    write_campaigns(lake, world, rng=None)
    assert counts(evaluated_lake(lake, days={*world.performance, NEWEST})) == (0, 0, 0)


def test_fetched_campaigns_agree_with_their_posts(project: Project, truth: Truth) -> None:
    for asset in ("post_metrics_daily", "posts_published", "campaign_performance_daily"):
        assert_success(project.fetch(asset))
    assert_success(project.run("campaigns"))
    found = reconcile_campaigns(project.lake, memory_gb=1)
    assert found.compared > 0
    assert (found.differing, found.unknown, found.without_posts) == (0, 0, 0)
    assert evaluate_campaign_totals(found).passed
    result = project.roll_up_windows()
    assert_success(result)
    table = project.lake.read_table(CAMPAIGN_RESULTS.name, schema=schema_of(CAMPAIGN_RESULTS.columns))
    assert table is not None
    days = [project.lake.read("campaign_performance_daily", [Partition(day)], schema=PERFORMANCE) for day in DAYS]
    world = replace(
        reference_world(truth),
        campaigns=read_campaigns(project.lake).rows.to_pylist(),
        performance={day: rows.to_pylist() for day, rows in zip(DAYS, days, strict=True)},
    )
    assert differences({CAMPAIGN_RESULTS.name: table}, world) == []
    assert table["paid_ad_spend"].null_count < table.num_rows
