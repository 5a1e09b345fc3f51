"""The jobs, schedules and sensors: when they run, and in which state they begin."""

from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
import pytest

from later_reporting_dagster import LaterReportingComponent
from later_reporting_dagster.defs.partitions import range_tags
from later_reporting_dagster.defs.resource import LaterReportingResource

METRICS, DAILY, REPORT = "post_metrics_daily", "organic_paid_daily", "organic_paid_report"
START = date(2024, 3, 1)


@pytest.mark.parametrize(
    ("at", "days"),
    [
        (datetime(2024, 6, 15, 6, tzinfo=UTC), (date(2024, 5, 18), date(2024, 6, 14))),
        (datetime(2024, 3, 3, 6, tzinfo=UTC), (START, date(2024, 3, 2))),  # not before the first partition
        (datetime(2024, 3, 1, 23, 59, tzinfo=UTC), None),
    ],
)
def test_schedule_requests_one_run_of_the_newest_days(
    at: datetime, days: tuple[date, date] | None, tmp_path: Path
) -> None:
    defs = LaterReportingComponent(start_date=START).build_definitions()
    resources = {"later_reporting": LaterReportingResource(lake_root=str(tmp_path))}
    with dg.build_schedule_context(scheduled_execution_time=at, resources=resources) as context:
        tick = defs.resolve_schedule_def("later_posts_daily").evaluate_tick(context)
    if days is None:
        assert not tick.run_requests
        assert tick.skip_message == "The first partition, 2024-03-01, is not over yet."
    else:
        (requested,) = tick.run_requests or ()
        assert range_tags(*days).items() <= requested.tags.items()
        assert (requested.partition_key, requested.run_key, requested.run_config) == (None, None, {})


def test_schedules_run_their_jobs_in_utc() -> None:
    repository = LaterReportingComponent().build_definitions().get_repository_def()
    schedules = {each.name: (each.cron_schedule, each.job_name) for each in repository.schedule_defs}
    assert schedules == {
        "later_posts_daily": ("0 6 * * *", "later_posts"),
        "later_checks_daily": ("0 12 * * *", "later_checks"),
    }
    assert {each.execution_timezone for each in repository.schedule_defs} == {"UTC"}
    sensors = {each.name: each for each in repository.sensor_defs}
    assert {name: each.minimum_interval_seconds for name, each in sensors.items()} == {
        "later_missing_files": 3600,
        "later_rollups": 30,
    }
    targets = [target.job_name for target in sensors["later_missing_files"].targets]
    assert targets == ["later_posts", "later_coverage"]


def test_schedule_fetches_nothing_to_a_lake_that_was_filled_and_is_empty(tmp_path: Path) -> None:
    defs = LaterReportingComponent(start_date=START).build_definitions()
    resources = {"later_reporting": LaterReportingResource(lake_root=str(tmp_path / "lake"))}
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        event = dg.AssetMaterialization(dg.AssetKey(["later", METRICS]), partition=str(START))
        instance.report_runless_asset_event(event)
        at = datetime(2024, 6, 15, 6, tzinfo=UTC)
        with dg.build_schedule_context(instance, scheduled_execution_time=at, resources=resources) as context:
            tick = defs.resolve_schedule_def("later_posts_daily").evaluate_tick(context)
    assert not tick.run_requests
    assert "is the disk mounted, and LATER_LAKE_ROOT right?" in str(tick.skip_message)


STOPPED_BY_DEFAULT = {"later_posts_daily", "later_missing_files"}


@pytest.mark.parametrize("automation", ["", "running", "stopped"])
def test_schedules_and_sensors_have_the_initial_state_that_is_set(
    automation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATER_AUTOMATION", automation)
    repository = LaterReportingComponent.from_environment().build_definitions().get_repository_def()
    states = {each.name: each.default_status.value for each in repository.schedule_defs}
    states |= {each.name: each.default_status.value for each in repository.sensor_defs}
    assert states.keys() > STOPPED_BY_DEFAULT
    assert states == {
        name: automation.upper() or ("STOPPED" if name in STOPPED_BY_DEFAULT else "RUNNING") for name in states
    }


def test_tables_that_are_not_fetched_have_the_schedule_of_their_checks_only() -> None:
    defs = LaterReportingComponent(tables=DAILY).build_definitions()
    assert [each.name for each in defs.schedules or []] == ["later_checks_daily"]
    assert not LaterReportingComponent(tables=REPORT).build_definitions().schedules
