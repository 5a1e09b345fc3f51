"""The Iceberg example, run by Dagster: its tables stay equal to the lake, read by PyIceberg and by DuckDB."""

import runpy
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pyarrow as pa
import pytest
from starlette.requests import Request

from later_reporting_dagster.contract.parameters import CURSOR
from later_reporting_dagster.defs.partitions import range_tags
from later_reporting_dagster.downstream import LaterLake, later_tables
from later_reporting_dagster.rollups.rollup_tables import Cadence
from tests.conftest import INSTANCE_IDS, Service
from tests.defs.conftest import DAYS, QUIET_LOGGING, Project, next_day, project, restate_one_post, settings  # noqa: F401 - some are fixtures

EXAMPLE = Path(__file__).parents[2] / "examples" / "iceberg.py"
pytestmark = [
    pytest.mark.filterwarnings("ignore:Delete operation did not match any records"),  # of a day that is new
    pytest.mark.filterwarnings("ignore:.*files? (is|are) missing"),
]


class Example:
    """The code location of the example, the project whose tables it copies, and the Iceberg tables."""

    def __init__(self, project: Project) -> None:  # noqa: F811
        loaded = runpy.run_path(str(EXAMPLE))
        self.project = project
        self.defs: dg.Definitions = loaded["defs"]
        self.catalog = loaded["load_catalog"]("later")
        self.cursor: Any = None

    def requested_days(self, table: str) -> set[str]:
        """Evaluate the automation conditions; return which days of a table they request."""
        result = dg.evaluate_automation_conditions(
            self.defs, self.project.instance, asset_selection=dg.AssetSelection.all(), cursor=self.cursor
        )
        self.cursor = result.cursor
        return set(result.get_requested_partitions(dg.AssetKey(["iceberg", table])))

    def copy(self, *tables: str, days: Sequence[date] = (), period: Cadence = Cadence.DAY) -> None:
        """Copy tables in one run: the partitions of these days, or tables without partitions."""
        result = self.defs.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=self.project.instance,
            asset_selection=[dg.AssetKey(["iceberg", table]) for table in tables],
            tags=range_tags(days[0], days[-1], period=period) if days else None,
            run_config=QUIET_LOGGING,
        )
        assert result.success

    def rows_equal_to_lake(self, table: str) -> pa.Table:
        """Return the rows of a table in the lake, after asserting that two readers of the copy find exactly these."""
        rows = LaterLake().load(later_tables()[table], pa.Table)
        copy = self.catalog.load_table(f"later.{table}")
        assert sorted_rows(copy.scan().to_arrow().select(rows.column_names)) == sorted_rows(rows)
        # DuckDB reads the files of the newest snapshot, because its extension for Iceberg would have to be downloaded.
        files = copy.inspect.files()["file_path"].to_pylist()
        found = duckdb.read_parquet(files, union_by_name=True).select(*rows.column_names).to_arrow_table()
        assert sorted_rows(found.cast(rows.schema)) == sorted_rows(rows)
        return rows


def sorted_rows(table: pa.Table) -> list[str]:
    return sorted(map(repr, table.to_pylist()))


@pytest.fixture
def example(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Example:  # noqa: F811
    (tmp_path / "iceberg").mkdir()
    monkeypatch.setenv("PYICEBERG_CATALOG__LATER__URI", f"sqlite:///{tmp_path}/iceberg/catalog.db")
    monkeypatch.setenv("PYICEBERG_CATALOG__LATER__WAREHOUSE", f"file://{tmp_path}/iceberg")
    return Example(project)


def without_posts(_request: Request, document: Any) -> Any:
    """Edit a response: it has no posts."""
    return {"data": [], "pagination": document["pagination"] | {"totalItems": 0, "totalPages": 0}}


def test_iceberg_example_follows_days_that_become_empty_or_are_restated(example: Example, service: Service) -> None:
    posts, fetch = "posts_published", example.project.fetch
    assert example.requested_days(posts) == set()
    assert fetch(posts).success
    assert example.requested_days(posts) == set(map(str, DAYS))
    example.copy(posts, days=DAYS)
    before = example.rows_equal_to_lake(posts)
    assert before["paid_impressions"].null_count > 0
    assert example.requested_days(posts) == set()

    service.transform = without_posts
    assert fetch(posts, days=DAYS[1:2], allow_row_loss=True).success
    service.transform = restate_one_post(DAYS[2], INSTANCE_IDS[0])
    assert fetch(posts, days=DAYS[2:]).success
    assert example.requested_days(posts) == set(map(str, DAYS[1:]))
    for days in (DAYS[1:2], DAYS[2:], DAYS[1:], DAYS):
        example.copy(posts, days=days)
    after = example.rows_equal_to_lake(posts)
    assert set(after["date"].to_pylist()) == {DAYS[0], DAYS[2]}
    assert len({*sorted_rows(after)} - {*sorted_rows(before)}) == 1  # the restated post


def test_iceberg_example_copies_rollups_and_tables_without_partitions(example: Example) -> None:
    fetch, roll_up = example.project.fetch, example.project.roll_up
    assert all(fetch(table).success for table in ("post_metrics_daily", "campaign_performance_daily"))
    assert all(roll_up(table).success for table in ("organic_paid_daily", "organic_paid_weekly"))
    assert example.project.run("instances", "campaigns").success
    daily, whole = ("organic_paid_daily", "campaign_performance_daily"), ("instances", "campaigns")
    example.copy(*daily, days=DAYS)
    example.copy("organic_paid_weekly", days=DAYS, period=Cadence.WEEK)
    for _ in range(2):
        example.copy(*whole)
    for table in (*daily, "organic_paid_weekly", *whole):
        assert example.rows_equal_to_lake(table).num_rows > 0


@pytest.mark.parametrize("service", [CURSOR], indirect=True)  # the version that reports likes
def test_iceberg_example_adds_columns(example: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    assert example.project.fetch("posts_published").success
    example.copy("posts_published", days=DAYS)
    monkeypatch.setenv("LATER_METRICS", "impressions,engagements,likes")
    reloaded = Example(example.project.reloaded())
    assert reloaded.project.fetch("posts_published", days=DAYS[:1]).success
    reloaded.copy("posts_published", days=DAYS[:1])
    rows = reloaded.rows_equal_to_lake("posts_published")
    assert 0 < rows["likes"].null_count < rows.num_rows
