"""LATER_METRICS, run for real: partitions have the columns that were asked for, and the lake stays one table."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq
import pytest
from starlette.requests import Request

from later_reporting_dagster.contract import DOCUMENT_METRICS, METRICS, metrics_named
from later_reporting_dagster.definitions import definitions
from later_reporting_dagster.defs.partitions import range_tags
from later_reporting_dagster.defs.settings import LoadSettings
from later_reporting_dagster.lake import POST_COLUMNS, Partition, post_columns, posts_schema
from later_reporting_dagster.rollups.rollup_tables import BY_PUBLISH_DAY, TABLES
from tests.conftest import FIRST_DAY, Service, Truth, files
from tests.defs.conftest import Project, asset_key, failure

ASSET = "posts_published"
CELL = Partition(FIRST_DAY, "instance_000")
PATH = f"{ASSET}/date={FIRST_DAY}/instance_id=instance_000/part-0.parquet"


def fetched(project: Project, metrics: str) -> dg.ExecuteInProcessResult:
    """Materializes a day of an instance with metrics that the Launchpad names."""
    tags, config = range_tags(FIRST_DAY, FIRST_DAY), {"instances": [CELL.instance_id]}
    return project.run(ASSET, tags=tags, config=config, resource={"metrics": metrics})


def told(project: Project, result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    assert result.success
    (found,) = project.metadata(result).values()
    return found


def with_likes(_request: Request, document: Any) -> Any:
    """A service that tells, beside the document's fields, two more."""
    for row in document["data"]:
        row |= {"likes": row["postId"] % 7, "shares": 3}
    return document


def test_the_metrics_of_the_environment_are_columns(
    project: Project, service: Service, truth: Truth, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.edited = with_likes
    monkeypatch.setenv("LATER_METRICS", "likes, reach, impressions")
    chosen = metrics_named("impressions, likes, reach")
    found = told(project, project.again().fetch(ASSET, days=[FIRST_DAY], instances=["instance_000"]))
    rows = truth.partition("post_date", FIRST_DAY, "instance_000")
    table = pq.ParquetFile(project.root / PATH).read()
    assert table.column_names == posts_schema(chosen).names
    for row, expected in zip(table.to_pylist(), rows, strict=True):
        assert row["impressions"] == expected["impressions"]
        assert row["likes"] == row["post_id"] % 7
        assert row["reach"] is None
        # What came without having been asked for, whether or not its name is known.
        assert json.loads(row["extra"]).keys() == {
            "shares",
            *(metric.api_name for metric in DOCUMENT_METRICS if metric.api_name != "impressions"),
        }
    facts = project.lake.facts(ASSET, CELL)
    assert facts is not None
    assert json.loads(facts.facts["metrics"]) == ["impressions", "likes", "reach"]
    assert found["preview"].splitlines()[0] == (
        "| instance_id | post_id | content_type | creator_handle_name | impressions |"
    )


def test_a_change_of_metrics_is_no_restatement_and_loses_no_value(project: Project, service: Service) -> None:
    first = fetched(project, "")
    for metrics in ("all", "likes, reach, saves"):
        found = told(project, fetched(project, metrics))
        assert found["files_changed"] == 1
        assert not any(change for name, change in found.items() if name.startswith("change/"))
    before = files(project.root)
    assert told(project, fetched(project, "saves,reach,likes"))["files_changed"] == 0
    assert files(project.root) == before
    assert project.data_versions(fetched(project, "")) == project.data_versions(first)


def test_the_checks_work_with_whichever_columns_there_are(project: Project, service: Service) -> None:
    for metrics in ("likes, reach", "cpm, impressions", "all"):
        result = fetched(project, metrics)
        passed = project.passed(result)
        assert passed["rates_agree_with_counts"]
        assert passed["rows_unique_by_key"]
    assert project.check((ASSET, "rates_agree_with_counts"))[ASSET, "rates_agree_with_counts"].passed


def test_a_rollup_of_posts_that_were_asked_for_other_metrics_has_nulls_for_what_they_lack(project: Project) -> None:
    assert fetched(project, "likes, paid_impressions").success
    assert project.roll_up("organic_paid_by_publish_day", days=[FIRST_DAY]).success
    table = pq.ParquetFile(project.root / f"organic_paid_by_publish_day/date={FIRST_DAY}/part-0.parquet").read()
    assert table["organic_impressions"].null_count == table.num_rows > 0
    assert table["paid_impressions"].null_count < table.num_rows


def test_a_metric_that_is_none_fails_the_run_in_one_line_and_asks_for_nothing(
    project: Project, service: Service
) -> None:
    result = fetched(project, "like")
    description, _ = failure(result)
    assert description == "LATER_METRICS (metrics): 'like' is no metric that is known; the nearest is likes"
    assert service.requests == []


@pytest.mark.parametrize("metrics", [DOCUMENT_METRICS, METRICS])
def test_the_raw_assets_are_shown_with_the_columns_of_the_selection(metrics: Any, tmp_path: Path) -> None:
    defs = definitions(LoadSettings(metrics=metrics))
    for asset in ("posts_published", "post_metrics_daily"):
        metadata = defs.resolve_assets_def(asset_key(asset)).metadata_by_key[asset_key(asset)]
        shown = [column.name for column in metadata["dagster/column_schema"].columns]
        assert shown == [column.name for column in post_columns(metrics)]
    assert [column.name for column in POST_COLUMNS] == [column.name for column in post_columns(DOCUMENT_METRICS)]


ROLLUP = "organic_paid_by_publish_day"
ROLLED_UP = f"{ROLLUP}/date={FIRST_DAY}/part-0.parquet"


def test_the_rollups_sum_what_the_selection_names(project: Project, service: Service) -> None:
    service.edited = with_likes
    assert fetched(project, "all").success
    assert project.roll_up(ROLLUP, days=[FIRST_DAY]).success
    before = pq.ParquetFile(project.root / ROLLED_UP).read()
    assert before.column_names == [column.name for column in BY_PUBLISH_DAY.columns]
    everything = definitions(LoadSettings(start_date=FIRST_DAY, metrics=METRICS))
    wide = Project(everything, project.instance, project.root)
    # What was rolled up with fewer metrics is held against the posts as they are now.
    assert not wide.check((ROLLUP, "reconciles_with_raw_rows"))[ROLLUP, "reconciles_with_raw_rows"].passed
    result = wide.roll_up(ROLLUP, days=[FIRST_DAY])
    assert wide.passed(result)["reconciles_with_raw_rows"]
    table = pq.ParquetFile(project.root / ROLLED_UP).read()
    assert table.column_names == [column.name for column in BY_PUBLISH_DAY.of(METRICS).columns]
    assert table.select(before.column_names).equals(before)
    posts = pq.ParquetFile(project.root / PATH).read()
    assert sum(table["organic_likes"].to_pylist()) == sum(posts["likes"].to_pylist()) > 0
    assert table["organic_likes_posts"].to_pylist() == table["posts"].to_pylist()
    assert table["paid_likes"].null_count == table.num_rows
    assert wide.check((ROLLUP, "reconciles_with_raw_rows"))[ROLLUP, "reconciles_with_raw_rows"].passed


def test_every_rollup_is_shown_with_the_sums_of_the_selection() -> None:
    defs = definitions(LoadSettings(metrics=METRICS))
    for table in TABLES:
        metadata = defs.resolve_assets_def(asset_key(table.name)).metadata_by_key[asset_key(table.name)]
        shown = [column.name for column in metadata["dagster/column_schema"].columns]
        assert shown == [column.name for column in table.of(METRICS).columns]
