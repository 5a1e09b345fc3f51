"""The daily run over old days: what the schedule requests, what the run fetches, and which files it checks."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from later_reporting_dagster.defs.partitions import range_tags
from later_reporting_dagster.lake import Partition, partition_path
from later_reporting_dagster.lake.tables import RAW_NAMES
from tests.conftest import INSTANCE_IDS, Service, parameters
from tests.defs.conftest import DAYS, Project, assert_success, asset_key, failure
from tests.defs.test_missing_files import tick

# With a restated day, the days before it are old.
SETTINGS = {"lookback_days": 1, "refetch_factor": 2.0}
NOW = datetime(2024, 3, 4, 6, tzinfo=UTC)


def old_days(request: dg.RunRequest, *, names: Sequence[str] = RAW_NAMES) -> list[str]:
    """Return the old days that a request names for each table that is fetched by day: those with these names."""
    ops = dict(request.run_config.get("ops", {}))
    days: list[str] = next(iter(ops.values()))["config"]["old_days"] if ops else []
    assert ops == ({f"later__{name}": {"config": {"old_days": days}} for name in names} if ops else {})
    return days


def test_daily_run_fetches_old_days_whose_turn_it_is_and_requests_them_once(project: Project, service: Service) -> None:
    project = project.configured(**SETTINGS)
    assert old_days(project.scheduled(NOW)) == []  # of an empty lake
    project.write_empty(at=NOW - timedelta(days=2))
    project.update_coverage()
    request = project.scheduled(NOW)
    assert old_days(request) == ["2024-03-01 to 2024-03-02"]
    assert request.tags.items() >= range_tags(DAYS[2], DAYS[2]).items()
    service.requests.clear()
    result = project.execute(request)
    assert_success(result)
    logged = project.logged(result)
    assert {partition for name, partition in logged if name == "posts_published"} == {*map(str, DAYS)}
    by_post_date = [
        (values["startDate"], values["endDate"])
        for values in map(parameters, service.requests)
        if "pageNumber" in values and values.get("dateBasis") == ["post_date"] and "metrics" not in values
    ]
    assert ([str(DAYS[0])], [str(DAYS[2])]) in by_post_date  # one query with the restated day
    # The checks of files look at the old days as well.
    rows = project.evaluations(result)["posts_published", "rows_belong_to_partition"]
    assert rows.metadata["files"].value == len(DAYS) * len(INSTANCE_IDS)
    totals = ("campaign_performance_daily", "totals_agree_with_posts")
    compared = project.evaluations(result)[totals].metadata["compared"].value
    assert compared == project.check(totals)[totals].metadata["compared"].value
    project.update_coverage()
    assert old_days(project.scheduled(NOW)) == []


@pytest.mark.parametrize(
    ("days", "problem"),
    [
        (["2024-03"], "'2024-03' is neither a day"),
        (["2024-02-29"], "there is no partition 2024-02-29"),
        (["2999-01-01"], "there is no partition 2999-01-01"),
    ],
)
def test_old_days_that_are_no_partitions_fail_the_run(days: list[str], problem: str, project: Project) -> None:
    description, _ = failure(project.fetch("posts_published", old_days=days))
    assert description.startswith(f"Run config old_days: {problem}")


def test_schedule_requests_the_restated_days_if_the_lake_cannot_be_read(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LATER_LAKE_ROOT", str(tmp_path / "file"))
    request = project.configured(**SETTINGS).scheduled(NOW)
    assert request.tags.items() >= range_tags(DAYS[2], DAYS[2]).items()
    assert old_days(request) == []


def test_sensor_requests_no_missing_file_of_an_old_day_that_a_run_is_fetching(project: Project) -> None:
    project = project.configured(**SETTINGS)
    project.write_empty(at=NOW - timedelta(days=2))
    project.update_coverage()
    (project.root / partition_path("posts_published", Partition(DAYS[0], "007"))).unlink()
    request = project.scheduled(NOW)
    request = request._replace(asset_selection=[asset_key("posts_published")])
    run = project.record(request, dg.DagsterRunStatus.STARTED)

    def requested() -> list[dg.RunRequest]:
        return [each for each in tick(project).run_requests or [] if each.job_name == "later_posts"]

    assert not requested()
    project.instance.report_run_canceled(run)
    mistyped = {"ops": {"later__posts_published": {"config": {"old_days": ["1 March"]}}}}
    project.record(request._replace(run_config=mistyped), dg.DagsterRunStatus.STARTED)
    assert requested()
