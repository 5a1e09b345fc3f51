"""The checks that hold what the API reports for campaigns against their posts."""

from dataclasses import replace

import dagster as dg

from later_reporting_dagster.defs.checks.campaigns import build_campaign_totals_check, evaluate_campaign_totals
from later_reporting_dagster.defs.definition_settings import DefinitionSettings
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.lake import Partition, schema_of
from later_reporting_dagster.rollups.lake_rollups import CAMPAIGN_PERFORMANCE, read_campaigns
from later_reporting_dagster.rollups.raw_reconciliation import reconcile_campaigns
from later_reporting_dagster.rollups.rollup_tables import CAMPAIGN_RESULTS
from tests.conftest import Truth
from tests.defs.assets.test_rollups import reference_world
from tests.defs.conftest import DAYS, QUIET_LOGGING, Project, assert_success
from tests.rollups.test_campaign_reconciliation import with_true_totals
from tests.rollups.worlds import differences, write_campaigns

PERFORMANCE = schema_of(CAMPAIGN_PERFORMANCE.columns)


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
