"""LATER_METRICS: partitions have the selected columns, and tables with different selections stay readable."""

import json
from dataclasses import replace
from typing import Any

import dagster as dg
import pyarrow.parquet as pq
import pytest
from starlette.requests import Request

from later_reporting_dagster import LaterReportingComponent
from later_reporting_dagster.contract import DEFAULT_METRICS, METRICS, parse_metrics
from later_reporting_dagster.lake import Partition, posts_schema
from later_reporting_dagster.rollups.rollup_tables import DAILY
from tests.conftest import FIRST_DAY, Service, Truth, files
from tests.defs.conftest import Project

ASSET = "post_metrics_daily"
PARTITION = Partition(FIRST_DAY, "instance_000")
PATH = f"{ASSET}/date={FIRST_DAY}/instance_id=instance_000/part-0.parquet"


def fetch(project: Project, metrics: str) -> dg.ExecuteInProcessResult:
    defs = LaterReportingComponent.from_environment(start_date=FIRST_DAY, metrics=metrics).build_definitions()
    return replace(project, defs=defs).fetch(ASSET, days=[FIRST_DAY], instances=[PARTITION.instance_id])


def metadata_of(project: Project, result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    assert result.success
    (found,) = project.metadata(result).values()
    return found


def add_likes(_request: Request, document: Any) -> Any:
    """Edit a response: add two fields that the API reference does not have."""
    for row in document["data"]:
        row |= {"likes": row["postId"] % 7, "shares": 3}
    return document


def test_selected_metrics_are_columns(
    project: Project, service: Service, truth: Truth, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.transform = add_likes
    monkeypatch.setenv("LATER_METRICS", "likes, reach, impressions")
    chosen = parse_metrics("impressions, likes, reach")
    metadata_of(project, project.reloaded().fetch(ASSET, days=[FIRST_DAY], instances=["instance_000"]))
    rows = truth.partition("performance_date", FIRST_DAY, "instance_000")
    table = pq.ParquetFile(project.root / PATH).read()
    assert table.column_names == posts_schema(chosen).names
    for row, expected in zip(table.to_pylist(), rows, strict=True):
        assert row["impressions"] == expected["impressions"]
        assert row["likes"] == row["post_id"] % 7
        assert row["reach"] is None
        # Returned fields that were not requested, known or unknown.
        assert json.loads(row["extra"]).keys() == {
            "shares",
            *(metric.api_name for metric in DEFAULT_METRICS if metric.api_name != "impressions"),
        }
    file = project.lake.read_metadata(ASSET, PARTITION)
    assert file is not None
    assert json.loads(file.key_values["metrics"]) == ["impressions", "likes", "reach"]


def test_changed_metric_selection_is_no_restatement(project: Project, service: Service) -> None:
    first = fetch(project, "")
    for metrics in ("all", "likes, reach, saves"):
        found = metadata_of(project, fetch(project, metrics))
        assert found["files_changed"] == 1
        assert not any(change for name, change in found.items() if name.startswith("change/"))
    before = files(project.root)
    assert metadata_of(project, fetch(project, "saves,reach,likes"))["files_changed"] == 0
    assert files(project.root) == before
    assert project.data_versions(fetch(project, "")) == project.data_versions(first)


ROLLUP = "organic_paid_daily"
ROLLED_UP = f"{ROLLUP}/date={FIRST_DAY}/part-0.parquet"


def test_rollups_sum_the_selected_metrics(project: Project, service: Service) -> None:
    service.transform = add_likes
    assert fetch(project, "all").success
    assert project.roll_up(ROLLUP, days=[FIRST_DAY]).success
    before = pq.ParquetFile(project.root / ROLLED_UP).read()
    assert before.column_names == [column.name for column in DAILY.columns]
    all_metrics = LaterReportingComponent.from_environment(start_date=FIRST_DAY, metrics="all").build_definitions()
    wide = Project(all_metrics, project.instance, project.root)
    # A rollup of fewer metrics differs from the raw rows.
    assert not wide.check((ROLLUP, "reconciles_with_raw_rows"))[ROLLUP, "reconciles_with_raw_rows"].passed
    result = wide.roll_up(ROLLUP, days=[FIRST_DAY])
    assert wide.passed(result)["reconciles_with_raw_rows"]
    table = pq.ParquetFile(project.root / ROLLED_UP).read()
    assert table.column_names == [column.name for column in DAILY.with_metrics(METRICS).columns]
    assert table.select(before.column_names).equals(before)
    posts = pq.ParquetFile(project.root / PATH).read()
    assert sum(table["organic_likes"].to_pylist()) == sum(posts["likes"].to_pylist()) > 0
    assert table["organic_likes_posts"].to_pylist() == table["posts"].to_pylist()
    assert table["paid_likes"].null_count == table.num_rows
    assert wide.check((ROLLUP, "reconciles_with_raw_rows"))[ROLLUP, "reconciles_with_raw_rows"].passed
