"""Rollups follow by themselves: the days whose posts changed, once, and no others."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
import pytest
from dagster._core.test_utils import freeze_time
from starlette.requests import Request

from later_reporting_dagster.defs.partitions import RANGE_END_TAG, RANGE_START_TAG, box_tags
from later_reporting_dagster.rollups import BY_WINDOW
from tests.conftest import INSTANCE_IDS, Service
from tests.defs.conftest import DAYS, KEYS, Project, asset_key

RAW, ROLLUP = "posts_published", "organic_paid_by_publish_day"


@dataclass
class Automation:
    """The automation sensor's ticks, one after the other, without the runs that it requests."""

    project: Project
    cursor: Any = None

    def tick(self, rollup: str = ROLLUP, *others: str) -> set[date]:
        """The partitions of a rollup that this tick requests; no other asset is, but for windows and the report."""
        result = self.ticked()
        found = {asset: result.get_requested_partitions(asset_key(asset)) for asset in (rollup, *others)}
        besides = sum(result.get_num_requested(asset_key(asset)) for asset in (*ALL_WINDOWS, "organic_paid_report"))
        assert result.total_requested == sum(map(len, found.values())) + besides
        return {date.fromisoformat(str(key)) for key in found[rollup]}

    def tick_of_windows(self) -> set[str]:
        """The tables of windows that this tick requests."""
        result = self.ticked()
        return {table.name for table in BY_WINDOW if result.get_num_requested(asset_key(table.name))}

    def ticked(self) -> Any:
        result = dg.evaluate_automation_conditions(
            self.project.defs, self.project.instance, asset_selection=dg.AssetSelection.all(), cursor=self.cursor
        )
        self.cursor = result.cursor
        return result


@pytest.fixture
def automation(project: Project) -> Iterator[Automation]:
    """Automation soon after the days of the tests: each day of the grid costs each tick its time."""
    with freeze_time(datetime(2024, 3, 6, tzinfo=UTC)):
        yield Automation(project)


def one_engagement_more(day: date, instance_id: str) -> Callable[[Request, Any], Any]:
    def edited(_request: Request, document: Any) -> Any:
        for row in document["data"]:
            if (row["postDate"][:10], row["instanceId"]) == (str(day), instance_id):
                row["engagements"] = (row["engagements"] or 0) + 1
        return document

    return edited


def test_what_landed_is_rolled_up_once(automation: Automation, project: Project) -> None:
    assert automation.tick() == set()
    project.fetch(RAW, days=DAYS[:2])
    assert automation.tick() == set(DAYS[:2])
    assert automation.tick() == set()
    project.roll_up(ROLLUP, days=DAYS[:2])
    assert automation.tick() == set()


def test_one_instance_is_enough(automation: Automation, project: Project) -> None:
    automation.tick()
    project.fetch_one(RAW, DAYS[1], KEYS[0])
    assert automation.tick() == {DAYS[1]}


def test_a_rerun_that_changed_nothing_requests_nothing(automation: Automation, project: Project) -> None:
    automation.tick()
    project.fetch(RAW)
    automation.tick()
    project.roll_up(ROLLUP)
    automation.tick()
    assert project.fetch(RAW).success
    assert automation.tick() == set()


def test_a_restatement_requests_the_days_that_changed(
    automation: Automation, project: Project, service: Service
) -> None:
    automation.tick()
    project.fetch(RAW)
    automation.tick()
    project.roll_up(ROLLUP)
    service.edited = one_engagement_more(DAYS[1], INSTANCE_IDS[0])
    project.fetch(RAW)
    assert automation.tick() == {DAYS[1]}
    project.roll_up(ROLLUP, days=[DAYS[1]])
    assert automation.tick() == set()


def test_a_lake_that_was_filled_before_is_rolled_up_once(automation: Automation, project: Project) -> None:
    project.fetch(RAW)
    assert automation.tick() == set(DAYS)
    project.roll_up(ROLLUP)
    assert automation.tick() == set()
    assert automation.tick() == set()


def test_what_was_rolled_up_by_hand_before_is_left_alone(automation: Automation, project: Project) -> None:
    project.fetch(RAW)
    project.roll_up(ROLLUP, days=DAYS[:2])
    assert automation.tick() == {DAYS[2]}


def test_a_rollup_that_fails_is_not_requested_again_and_again(automation: Automation, project: Project) -> None:
    project.fetch(RAW)
    assert automation.tick() == set(DAYS)
    (project.root / ROLLUP).write_bytes(b"a file where a directory is due")
    assert not project.roll_up(ROLLUP).success
    assert [automation.tick() for _ in range(3)] == [set(), set(), set()]


def test_a_day_that_failed_is_requested_when_its_posts_change(
    automation: Automation, project: Project, service: Service
) -> None:
    project.fetch(RAW)
    automation.tick()
    (project.root / ROLLUP).write_bytes(b"a file where a directory is due")
    project.roll_up(ROLLUP)
    automation.tick()
    service.edited = one_engagement_more(DAYS[0], INSTANCE_IDS[0])
    project.fetch(RAW)
    assert automation.tick() == {DAYS[0]}


@pytest.mark.parametrize(
    ("job", "asset", "tags"),
    [
        ("later_organic_paid", ROLLUP, {RANGE_START_TAG: str(DAYS[0]), RANGE_END_TAG: str(DAYS[-1])}),
        # A backfill is a run an instance: each would roll the days up again.
        ("later_posts", RAW, box_tags(DAYS[0], DAYS[-1], KEYS[1:2])),
    ],
    ids=["of the rollup", "of another instance's posts"],
)
def test_a_change_while_a_run_is_under_way_is_requested_when_it_is_over(
    job: str, asset: str, tags: dict[str, str], automation: Automation, project: Project, service: Service
) -> None:
    project.fetch(RAW)
    automation.tick()
    project.roll_up(ROLLUP)
    automation.tick()
    under_way = project.instance.create_run_for_job(
        project.defs.resolve_job_def(job),
        asset_selection=frozenset({asset_key(asset)}),
        tags=tags,
        status=dg.DagsterRunStatus.STARTED,
    )
    service.edited = one_engagement_more(DAYS[2], INSTANCE_IDS[0])
    project.fetch(RAW, keys=KEYS[:1])
    assert [automation.tick() for _ in range(2)] == [set(), set()]
    project.instance.report_run_canceled(under_way)
    assert automation.tick() == {DAYS[2]}
    assert automation.tick() == set()


# Weeks and months, which follow the days' rollup, and windows, which follow the posts.

DAILY, WEEKLY, MONTHLY = "organic_paid_daily", "organic_paid_weekly", "organic_paid_monthly"
WEEK, MONTH = (
    date(2024, 2, 26),
    date(2024, 3, 1),
)  # the first ones, of which the days before the first are no partitions
ALL_WINDOWS = {table.name for table in BY_WINDOW}


def test_weeks_and_months_follow_their_days(automation: Automation, project: Project, service: Service) -> None:
    def tick() -> tuple[set[date], set[date], set[date]]:
        result = automation.ticked()
        days, weeks, months = (
            {date.fromisoformat(str(key)) for key in result.get_requested_partitions(asset_key(asset))}
            for asset in (DAILY, WEEKLY, MONTHLY)
        )
        return days, weeks, months

    tick()
    project.fetch("post_metrics_daily")
    assert tick() == (set(DAYS), set(), set())
    project.roll_up(DAILY)
    assert tick() == (set(), {WEEK}, {MONTH})
    assert project.roll_up_span(WEEKLY, WEEK, WEEK).success
    assert project.roll_up_span(MONTHLY, MONTH, MONTH).success
    assert tick() == (set(), set(), set())

    assert project.fetch("post_metrics_daily").success  # and nothing has changed
    assert tick() == (set(), set(), set())

    service.edited = lambda _request, document: {
        **document,
        "data": [{**post, "impressions": 1_000_000, "engagements": 5} for post in document["data"]],
    }
    project.fetch("post_metrics_daily", days=DAYS[:1], keys=KEYS[:1])
    assert tick() == ({DAYS[0]}, set(), set())
    project.roll_up(DAILY, days=DAYS[:1])
    assert tick() == (set(), {WEEK}, {MONTH})


def test_windows_follow_once_whatever_the_number_of_days(automation: Automation, project: Project) -> None:
    assert automation.tick_of_windows() == set()
    project.fetch(RAW)
    assert automation.tick_of_windows() == ALL_WINDOWS
    assert automation.tick_of_windows() == set()
    project.roll_up_windows()
    assert [automation.tick_of_windows() for _ in range(2)] == [set(), set()]


def test_windows_wait_until_nothing_that_brings_posts_is_under_way(automation: Automation, project: Project) -> None:
    """A backfill is a run an instance, or a run a day: the tables are made when the last one is over."""
    automation.tick_of_windows()
    runs = [
        project.instance.create_run_for_job(
            project.defs.resolve_job_def("later_posts"),
            asset_selection=frozenset({asset_key(asset)}),
            tags=box_tags(DAYS[0], DAYS[-1], [key]),
            status=dg.DagsterRunStatus.STARTED,
        )
        for asset, key in (("post_metrics_daily", KEYS[1]), (RAW, KEYS[2]))
    ]
    for key in KEYS[:1]:
        project.fetch(RAW, keys=[key])
        assert automation.tick_of_windows() == set()
    project.instance.report_run_canceled(runs[0])
    assert automation.tick_of_windows() == set()
    project.instance.report_run_canceled(runs[1])
    assert automation.tick_of_windows() == ALL_WINDOWS
    assert automation.tick_of_windows() == set()


def test_a_restatement_that_changed_nothing_makes_no_windows(
    automation: Automation, project: Project, service: Service
) -> None:
    automation.tick_of_windows()
    project.fetch(RAW)
    automation.tick_of_windows()
    project.roll_up_windows()
    automation.tick_of_windows()
    project.fetch(RAW)
    assert automation.tick_of_windows() == set()
    service.edited = one_engagement_more(DAYS[0], INSTANCE_IDS[0])
    project.fetch(RAW)
    assert automation.tick_of_windows() == ALL_WINDOWS


def test_windows_that_fail_are_not_requested_again_and_again(automation: Automation, project: Project) -> None:
    project.fetch(RAW)
    assert automation.tick_of_windows() == ALL_WINDOWS
    (project.root / "organic_paid_by_creator").write_bytes(b"a file where a directory is due")
    assert not project.roll_up_windows().success
    assert [automation.tick_of_windows() for _ in range(3)] == [set(), set(), set()]


def test_the_automation_is_on_by_default(project: Project) -> None:
    sensor = project.defs.resolve_sensor_def("later_automation")
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    assert sensor.minimum_interval_seconds == 30
