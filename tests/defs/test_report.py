"""The report asset, run for real on what has landed."""

import base64
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest
from dagster._core.test_utils import freeze_time

from later_reporting_dagster.contract import BadRow
from later_reporting_dagster.lake import Partition
from tests.conftest import INSTANCE_IDS, Service, Truth, files
from tests.defs.conftest import DAYS, KEYS, RAW_ASSETS, ROLLUPS, Project, asset_key, failure, values
from tests.defs.test_automation import one_engagement_more

REPORT = "organic_paid_report"


def reported(project: Project) -> dict[str, Any]:
    """Writes the report, and gives its metadata."""
    result = project.run("later_report", REPORT)
    assert result.success
    return values(project.materializations(result)["None"])


def page_data(project: Project) -> dict[str, Any]:
    """What the page that was written holds."""
    page = (project.root / REPORT / "report.html").read_text("utf-8")
    (found,) = re.findall('<script type="application/json" id="report-data">(.*?)</script>', page, re.DOTALL)
    data: dict[str, Any] = json.loads(found)
    return data


def test_it_reports_what_has_landed(project: Project, truth: Truth) -> None:
    for asset in RAW_ASSETS:
        project.fetch(asset)
    told = reported(project)
    rows = [row for day in DAYS for name in INSTANCE_IDS for row in truth.partition("performance_date", day, name)]
    impressions = [row["impressions"] for row in rows if row["impressions"] is not None]
    assert told["organic_impressions"] == sum(impressions)
    assert (told["as_of"], told["changed"]) == (str(DAYS[-1]), True)
    assert told["path"] == str(project.root / REPORT / "report.html")
    assert told["bytes"] == (project.root / REPORT / "report.html").stat().st_size
    assert f"| Organic impressions | {sum(impressions):,} | not available |" in told["preview"]
    pictures = re.findall(r"!\[[^]]+\]\(data:image/svg\+xml;base64,([^)]+)\)", told["preview"])
    assert len(pictures) == 6
    assert all(base64.b64decode(picture).startswith(b"<svg") for picture in pictures)
    data = page_data(project)
    assert data["instances"] == sorted(INSTANCE_IDS)
    assert sum(value or 0 for value in data["daily"]["sums"]["organic_impressions"]) == sum(impressions)


def test_written_again_unchanged_it_touches_nothing_and_keeps_its_version(project: Project) -> None:
    project.fetch(RAW_ASSETS[0], days=DAYS[:1])
    first = project.run("later_report", REPORT)
    before = files(project.root)
    again = project.run("later_report", REPORT)
    assert files(project.root) == before
    assert values(project.materializations(again)["None"])["changed"] is False
    assert project.data_versions(first) == project.data_versions(again)


def test_before_anything_has_landed_it_says_what_to_do(project: Project) -> None:
    description, _ = failure(project.run("later_report", REPORT))
    assert "materialize later/post_metrics_daily and later/posts_published first" in description
    assert not project.root.exists()


def test_it_names_what_is_missing_damaged_and_set_aside(project: Project) -> None:
    project.fetch("posts_published", keys=KEYS[:2])
    project.fetch("post_metrics_daily", days=DAYS[:2], keys=KEYS[:1])
    damaged = project.root / "posts_published" / f"date={DAYS[1]}" / f"instance_id={KEYS[0]}" / "part-0.parquet"
    damaged.write_bytes(b"no Parquet")
    bad = [BadRow(reason="impressions: -1 is below 0", raw="{}")] * 2
    project.lake.quarantine("post_metrics_daily", Partition(DAYS[0], INSTANCE_IDS[0]), bad, query="?")
    project.lake.quarantine_query("posts_published", bad[:1], query="?", days=(DAYS[0], DAYS[1]))
    assert reported(project)["as_of"] == str(DAYS[2])
    data = page_data(project)
    assert data["unread"] == [{"table": "posts_published", "age": 1, "instance": INSTANCE_IDS[0]}]
    reason = "impressions: -1 is below 0"
    assert data["set_aside"] == [
        {"table": "post_metrics_daily", "age": 2, "instance": INSTANCE_IDS[0], "reason": reason, "rows": 2},
        {"table": "posts_published", "age": None, "instance": None, "reason": reason, "rows": 1},
    ]
    landed = dict(zip(data["instances"], data["landed"]["post_metrics_daily"], strict=True))
    assert landed == {INSTANCE_IDS[0]: [[1, 2]], **dict.fromkeys(INSTANCE_IDS[1:], [])}


def test_a_lake_that_cannot_be_written_leaves_the_page_as_it_was(project: Project) -> None:
    project.fetch("posts_published", days=DAYS[:1])
    (project.root / REPORT).write_bytes(b"a file where a directory is due")
    description, _ = failure(project.run("later_report", REPORT))
    assert "report.html" in description


class Automation:
    """The automation sensor's ticks, one after the other, without the runs that it requests."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._cursor: Any = None

    def tick(self) -> bool:
        """Whether this tick requests the report."""
        result = dg.evaluate_automation_conditions(
            self._project.defs, self._project.instance, asset_selection=dg.AssetSelection.all(), cursor=self._cursor
        )
        self._cursor = result.cursor
        return result.get_num_requested(asset_key(REPORT)) == 1


@pytest.fixture
def automation(project: Project) -> Iterator[Automation]:
    with freeze_time(datetime(2024, 3, 6, tzinfo=UTC)):
        yield Automation(project)


def test_it_follows_the_rollups_once_for_all_their_days(
    automation: Automation, project: Project, service: Service
) -> None:
    assert not automation.tick()
    project.fetch(RAW_ASSETS[1])
    assert not automation.tick()  # what it shows is rolled up first
    project.roll_up(ROLLUPS[1])
    assert [automation.tick() for _ in range(3)] == [True, False, False]
    reported(project)
    assert not automation.tick()
    service.edited = one_engagement_more(DAYS[1], INSTANCE_IDS[0])
    project.fetch(RAW_ASSETS[1])
    project.roll_up(ROLLUPS[1])
    assert [automation.tick() for _ in range(2)] == [True, False]


def test_a_rollup_that_changed_nothing_requests_no_report(automation: Automation, project: Project) -> None:
    project.fetch(RAW_ASSETS[1])
    project.roll_up(ROLLUPS[1])
    automation.tick()
    reported(project)
    automation.tick()
    project.roll_up(ROLLUPS[1])
    assert not automation.tick()


def test_while_days_are_being_rolled_up_it_waits(automation: Automation, project: Project) -> None:
    project.fetch(RAW_ASSETS[1])
    automation.tick()
    project.roll_up(ROLLUPS[1], days=DAYS[:1])
    under_way = project.instance.create_run_for_job(
        project.defs.resolve_job_def("later_organic_paid"),
        asset_selection=frozenset({asset_key(ROLLUPS[1])}),
        tags={"dagster/asset_partition_range_start": str(DAYS[1]), "dagster/asset_partition_range_end": str(DAYS[2])},
        status=dg.DagsterRunStatus.STARTED,
    )
    assert [automation.tick() for _ in range(2)] == [False, False]
    project.instance.report_run_canceled(under_way)
    assert [automation.tick() for _ in range(2)] == [True, False]
