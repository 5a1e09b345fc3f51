"""The report asset, materialized from fetched posts."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from later_reporting_dagster.contract import BadRow
from later_reporting_dagster.defs.partitions import range_tags
from later_reporting_dagster.lake import POSTS_SCHEMA, Partition
from later_reporting_dagster.lake.tables import COVERAGE_TABLE, POST_METRICS_DAILY, POSTS_PUBLISHED
from later_reporting_dagster.rollups.rollup_tables import OVERALL, POSTS
from tests.conftest import INSTANCE_IDS, Truth
from tests.defs.conftest import DAYS, RAW_ASSETS, Project, assert_success, failure

REPORT = "organic_paid_report"


def write_report(project: Project) -> dict[str, Any]:
    assert project.run(OVERALL.name).success
    result = project.run(REPORT)
    assert result.success
    return project.metadata(result)["None"]


def page_data(project: Project) -> dict[str, Any]:
    page = (project.root / REPORT / "report.html").read_text("utf-8")
    (found,) = re.findall('<script type="application/json" id="report-data">(.*?)</script>', page, re.DOTALL)
    data: dict[str, Any] = json.loads(found)
    return data


def test_report_matches_the_fetched_posts(project: Project, truth: Truth) -> None:
    project.run(*RAW_ASSETS, tags=range_tags(DAYS[0], DAYS[-1]))
    metadata = write_report(project)
    by_post = {
        (day, name, row["post_id"]): row["impressions"]
        for day in DAYS
        for name in INSTANCE_IDS
        # A post of several campaigns counts once: the row of the lowest campaign id replaces the others.
        for row in sorted(truth.partition("performance_date", day, name), key=lambda row: -row["campaign_id"])
    }
    impressions = [value for value in by_post.values() if value is not None]
    assert metadata["organic_impressions"] == sum(impressions)
    assert {"cost", "ad_spend", "return_on_ad_spend"} <= metadata.keys()
    assert (metadata["as_of"], metadata["changed"]) == (str(DAYS[-1]), True)
    assert metadata["dagster/uri"] == str(project.root / REPORT / "report.html")
    data = page_data(project)
    assert data["instances"] == data["labels"] == sorted(INSTANCE_IDS)
    assert data["is_demo"] is False
    assert sum(impressions) in data["results"]["organic_impressions"]


def test_report_shows_the_labels_of_instances(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATER_INSTANCE_LABELS", f"{INSTANCE_IDS[1]} = Acme <shop>")
    project = project.reloaded()
    project.fetch("post_metrics_daily")
    write_report(project)
    data = page_data(project)
    labels = {name: "Acme <shop>" if name == INSTANCE_IDS[1] else name for name in INSTANCE_IDS}
    assert dict(zip(data["instances"], data["labels"], strict=True)) == labels


def test_report_without_the_table_of_all_posts_is_written(project: Project) -> None:
    project.fetch("post_metrics_daily")
    assert_success(project.roll_up("organic_paid_daily"))
    assert_success(project.run("organic_paid_by_campaign"))
    assert_success(project.run(REPORT))
    assert page_data(project)["instances"] == sorted(INSTANCE_IDS)


def test_report_without_results_says_so_and_what_to_run(project: Project) -> None:
    result = project.run(REPORT)
    assert_success(result)
    (warning,) = project.warnings(result)
    assert "fetch days of later/post_metrics_daily, then materialize later/organic_paid_overall" in warning
    assert warning in (project.root / REPORT / "report.html").read_text("utf-8")
    assert project.metadata(result)["None"].keys() == {"report", "dagster/uri", "changed"}


def test_report_names_a_damaged_table(project: Project) -> None:
    project.fetch("post_metrics_daily")
    assert project.run(OVERALL.name).success
    path = project.root / OVERALL.name / "part-0.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    description, _ = failure(project.run(REPORT))
    assert f"{path} is damaged" in description
    assert description.endswith("this table again, as `later-reporting backfill --asset organic_paid_overall` does")


def test_report_lists_missing_and_quarantined_data(project: Project) -> None:
    project.run("instances")
    project.fetch("posts_published", instances=list(INSTANCE_IDS[:2]))
    project.fetch("post_metrics_daily", instances=[INSTANCE_IDS[0]])
    bad = [BadRow(reason="impressions: -1 is below 0", raw="{}")] * 2
    quarantine = project.lake.quarantine
    of_partition = quarantine.path_of("post_metrics_daily", Partition(DAYS[0], INSTANCE_IDS[0]))
    quarantine.write(of_partition, bad, query="?")
    quarantine.write(quarantine.path_of_query("posts_published", "?", (DAYS[0], DAYS[1])), bad[:1], query="?")
    assert write_report(project)["as_of"] == str(DAYS[2])
    data = page_data(project)
    reason = "impressions: -1 is below 0"
    assert data["quarantined"] == [
        {"table": "post_metrics_daily", "age": 2, "instance": INSTANCE_IDS[0], "reason": reason, "rows": 2},
        {"table": "posts_published", "age": None, "instance": None, "reason": reason, "rows": 1},
    ]
    missing = {(each["table"], data["instances"][each["instance"]]): each["ages"] for each in data["missing"]}
    assert missing.keys() >= {("post_metrics_daily", name) for name in INSTANCE_IDS[1:]}
    fetched = missing.get(("post_metrics_daily", INSTANCE_IDS[0]), [])
    assert not [age for age in range(len(DAYS)) for first, last in fetched if first <= age <= last]


def test_report_names_outdated_tables_stale_files_and_those_that_cannot_be_read(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATER_LOOKBACK_DAYS", "1")
    project = project.reloaded()
    project.run(*RAW_ASSETS, tags=range_tags(DAYS[0], DAYS[-1]))
    stale, damaged = Partition(DAYS[0], INSTANCE_IDS[0]), Partition(DAYS[1], INSTANCE_IDS[0])
    lake = project.lake
    rows, results = (
        lake.read_table(name, stale, schema=POSTS_SCHEMA) for name in (POSTS_PUBLISHED.name, POST_METRICS_DAILY.name)
    )
    assert rows is not None
    assert results is not None
    late = min({*rows["post_id"].to_pylist()} & {*results["post_id"].to_pylist()})
    # As of a response that was recorded long ago.
    shutil.rmtree(project.root / "_fetches" / POSTS_PUBLISHED.name)
    lake.write(
        POSTS_PUBLISHED.name,
        stale,
        rows.filter(pc.not_equal(rows["post_id"], late)),
        metadata={"fetched_at": f"{DAYS[0]}T23:00:00+00:00"},
    )
    project.run(POSTS.name)
    Path(lake.url(POSTS_PUBLISHED.name, damaged)).write_bytes(b"no Parquet")
    project.run(COVERAGE_TABLE)
    write_report(project)
    data = page_data(project)
    assert "Outdated: 3 days of organic_paid_daily (missing)." in data["outdated"]
    assert not [text for text in data["outdated"] if OVERALL.name in text]
    assert f"Published posts: 1 file is stale: {stale} lacks post {late}, with results." in data["outdated"]
    missing = [each for each in data["missing"] if each["table"] == POSTS_PUBLISHED.name]
    ((age, _),) = next(each["ages"] for each in missing if data["instances"][each["instance"]] == damaged.instance_id)
    assert age == (DAYS[2] - DAYS[1]).days
