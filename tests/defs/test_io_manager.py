"""Assets of others are given the tables by name and annotation: just the partitions that their run is of."""

from collections.abc import Callable, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from later_reporting_dagster.defs.io_manager import LaterLake
from later_reporting_dagster.defs.lake_tables import table_of, tables_of
from later_reporting_dagster.defs.partitions import RANGE_END_TAG, RANGE_START_TAG
from later_reporting_dagster.lake import POST_COLUMNS, posts_table, schema_of
from tests.conftest import FIRST_DAY, INSTANCE_IDS, Truth, partition_file
from tests.defs.conftest import DAYS, QUIETLY, Project, asset_key, filled_once
from tests.lake.conftest import post

FIRST, LAST = DAYS[0], DAYS[-1]
Cell = tuple[date, str]

# Each type, and the day, instance and impressions of its rows as plain Python.
KINDS: dict[type, Callable[[Any], list[dict[str, Any]]]] = {
    pd.DataFrame: lambda frame: pa.Table.from_pandas(frame, preserve_index=False).to_pylist(),
    pa.Table: lambda table: table.to_pylist(),
    ds.Dataset: lambda dataset: dataset.to_table().to_pylist(),
    pl.DataFrame: lambda frame: frame.to_dicts(),
    pl.LazyFrame: lambda frame: frame.collect().to_dicts(),
    duckdb.DuckDBPyRelation: lambda relation: relation.to_arrow_table().to_pylist(),
}
DAILY = dg.DailyPartitionsDefinition(start_date=str(FIRST_DAY), timezone="UTC")
MONTHLY = dg.MonthlyPartitionsDefinition(start_date=str(FIRST_DAY), timezone="UTC")
# Weeks that begin with the first day there is: of a week that begins sooner Dagster refuses the days before.
WEEKLY = dg.WeeklyPartitionsDefinition(start_date=str(FIRST_DAY), timezone="UTC", day_offset=FIRST_DAY.isoweekday() % 7)
SOONER = dg.WeeklyPartitionsDefinition(start_date="2024-02-01", timezone="UTC", day_offset=1)


class Downstream:
    """An asset of somebody else's, which keeps what it was given."""

    def __init__(
        self,
        kind: Any,
        *,
        partitions_def: dg.PartitionsDefinition | None = None,
        table: str = "posts_published",
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self.kind = kind
        self.given: list[Any] = []

        def mine(posts: Any) -> None:
            self.given.append(posts)

        mine.__annotations__["posts"] = kind
        self.asset = dg.asset(
            ins={"posts": dg.AssetIn(["later", table], metadata=dict(metadata or {}))},
            partitions_def=partitions_def,
            backfill_policy=dg.BackfillPolicy.single_run() if partitions_def else None,
        )(mine)

    def run(
        self,
        project: Project,
        *,
        partition: str | None = None,
        between: tuple[str, str] | None = None,
        defs: dg.Definitions | None = None,
    ) -> dg.ExecuteInProcessResult:
        """Runs it beside the project's own assets, or in `defs`."""
        defs = defs or dg.Definitions.merge(project.defs, dg.Definitions(assets=[self.asset]))
        return defs.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=project.instance,
            asset_selection=[self.asset.key],
            partition_key=partition,
            tags={RANGE_START_TAG: between[0], RANGE_END_TAG: between[1]} if between else None,
            run_config=QUIETLY,
            raise_on_error=False,
        )

    @property
    def rows(self) -> list[dict[str, Any]]:
        (given,) = self.given
        return KINDS[self.kind](given)


def told(result: dg.ExecuteInProcessResult) -> str:
    """The one line that a run failed with."""
    (event,) = [event for event in result.all_events if event.is_step_failure]
    data = event.step_failure_data.user_failure_data
    assert data is not None, event.step_failure_data.error
    assert data.description is not None
    assert "\n" not in data.description
    return data.description


def expected(truth: Truth, cells: list[Cell], basis: str = "post_date") -> list[dict[str, Any]]:
    return [{"date": day, **row} for day, name in cells for row in truth.partition(basis, day, name)]


def same(rows: list[dict[str, Any]], others: list[dict[str, Any]]) -> bool:
    """Whether they are the same rows, in whatever order, to the value and its type."""

    def plain(row: dict[str, Any]) -> str:
        shown = {name: value.isoformat() if isinstance(value, date) else value for name, value in row.items()}
        return repr(sorted((name, str(value)[:10] if name == "date" else value) for name, value in shown.items()))

    return sorted(map(plain, rows)) == sorted(map(plain, others))


@pytest.fixture
def landed(project: Project, kept_lake: Path) -> Project:
    """The project with the posts in its lake. Their events are of no account to who loads them."""
    return filled_once(project, kept_lake, lambda project: project.fetch("posts_published").success)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_a_day_is_given_its_day_and_a_range_its_days_as_each_type(kind: type, landed: Project, truth: Truth) -> None:
    one, several = Downstream(kind, partitions_def=DAILY), Downstream(kind, partitions_def=DAILY)
    assert one.run(landed, partition=str(DAYS[1])).success
    assert isinstance(one.given[0], kind)
    assert same(one.rows, expected(truth, [(DAYS[1], name) for name in INSTANCE_IDS]))
    assert several.run(landed, between=(str(FIRST), str(DAYS[1]))).success
    assert same(several.rows, expected(truth, [(day, name) for day in DAYS[:2] for name in INSTANCE_IDS]))


@pytest.mark.parametrize("partitions_def", [WEEKLY, MONTHLY], ids=["week", "month"])
def test_a_week_and_a_month_are_given_all_their_days_with_nothing_said(
    partitions_def: dg.PartitionsDefinition, landed: Project, truth: Truth
) -> None:
    whole = Downstream(pa.Table, partitions_def=partitions_def)
    assert whole.run(landed, partition=str(FIRST)).success
    assert same(whole.rows, expected(truth, [(day, name) for day in DAYS for name in INSTANCE_IDS]))
    sooner = Downstream(pa.Table, partitions_def=SOONER)
    assert "depends on invalid partitions" in str(sooner.run(landed, partition="2024-02-26").all_events)


def test_an_asset_without_partitions_is_given_everything_and_rollups_are_given_too(
    landed: Project, truth: Truth
) -> None:
    everything = Downstream(pl.LazyFrame)
    assert everything.run(landed).success
    assert same(everything.rows, expected(truth, [(day, name) for day in DAYS for name in INSTANCE_IDS]))
    assert landed.roll_up("organic_paid_by_publish_day").success
    rollup = Downstream(pa.Table, table="organic_paid_by_publish_day", partitions_def=DAILY)
    assert rollup.run(landed, partition=str(FIRST)).success
    assert sum(row["posts"] for row in rollup.rows) == len(truth.day("post_date", FIRST))
    assert {row["date"] for row in rollup.rows} == {FIRST}


def test_days_that_are_not_there_are_told_and_the_rest_is_given(project: Project, truth: Truth) -> None:
    assert project.fetch("posts_published", days=DAYS[:2], instances=list(INSTANCE_IDS[:2])).success
    mine = Downstream(pa.Table, partitions_def=DAILY)
    result = mine.run(project, between=(str(FIRST), str(LAST)))
    assert result.success
    assert same(mine.rows, expected(truth, [(day, name) for day in DAYS[:2] for name in INSTANCE_IDS[:2]]))
    (warning,) = [entry for entry in project.instance.all_logs(result.run_id) if entry.level == 30]
    assert warning.user_message == f"later/posts_published: 1 of 3 partitions are not there: {LAST}"
    strict = Downstream(pa.Table, partitions_def=DAILY, metadata={"allow_missing_partitions": False})
    assert told(strict.run(project, between=(str(FIRST), str(LAST)))) == (
        f"{warning.user_message}. Materialize it first"
    )
    assert strict.given == []


def test_nothing_landed_is_a_failure_and_no_empty_table(project: Project) -> None:
    mine, everything = Downstream(pd.DataFrame, partitions_def=DAILY), Downstream(pd.DataFrame)
    assert told(mine.run(project, partition=str(FIRST))) == (
        f"later/posts_published: 1 of 1 partitions are not there: {FIRST}. Materialize it first"
    )
    assert "partitions are not there: 2024-03-01, 2024-03-02, " in told(everything.run(project))


def test_no_file_of_another_partition_is_opened(landed: Project, truth: Truth) -> None:
    for day in DAYS[1:]:
        for name in INSTANCE_IDS:
            partition_file(landed.root, "posts_published", day, name).write_bytes(b"no Parquet")
    mine = Downstream(pa.Table, partitions_def=DAILY)
    assert mine.run(landed, partition=str(FIRST)).success
    assert same(mine.rows, expected(truth, [(FIRST, name) for name in INSTANCE_IDS]))
    assert "is damaged" in told(Downstream(pa.Table, partitions_def=DAILY).run(landed, partition=str(LAST)))


@pytest.mark.parametrize("kind", [dict, Any, pd.DataFrame | None])
def test_an_annotation_that_is_no_known_type_is_a_line_that_names_those(kind: Any, landed: Project) -> None:
    failure = told(Downstream(kind).run(landed))
    assert failure.startswith("later/posts_published: ")
    assert "is none of pandas.DataFrame, pyarrow.Table, pyarrow.Dataset, polars.DataFrame" in failure


def test_a_table_without_partitions_is_given_whole(project: Project) -> None:
    mine = Downstream(pa.Table, table="a_window")
    columns = table_of_posts(project)
    window = dg.AssetSpec(["later", "a_window"], metadata=columns).with_io_manager_key("later_lake")
    theirs = dg.Definitions(assets=[mine.asset, window], resources={"later_lake": LaterLake()})
    assert told(mine.run(project, defs=theirs)) == "later/a_window: nothing has landed. Materialize it first"
    rows = posts_table([post(1), post(2, impressions=0)])
    project.lake.write_table("a_window", rows)
    assert mine.run(project, defs=theirs).success
    assert mine.given == [rows]
    assert LaterLake().load(window, pa.Table) == rows
    assert LaterLake().load(window, pl.DataFrame)["impressions"].to_list() == [None, 0]
    with pytest.raises(dg.Failure, match="no partitions to choose from"):
        LaterLake().load(window, pa.Table, start=FIRST)


def table_of_posts(project: Project) -> Mapping[str, Any]:
    """The column schema of posts, as the UI has it."""
    metadata = tables_of(project.defs)["posts_published"].metadata
    return {"dagster/column_schema": metadata["dagster/column_schema"]}


def test_a_table_whose_columns_nobody_told_is_refused_with_what_to_do(landed: Project) -> None:
    mine = Downstream(pd.DataFrame)
    bare = dg.AssetSpec(["later", "posts_published"]).with_io_manager_key("later_lake")
    theirs = dg.Definitions(assets=[mine.asset, bare], resources={"later_lake": LaterLake()})
    assert told(mine.run(landed, defs=theirs)).endswith("put `*later_tables().values()` among the assets")


def test_another_lake_is_named_in_code(landed: Project, truth: Truth, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LATER_LAKE_ROOT")
    mine = Downstream(pa.Table)
    lake = LaterLake(lake_root=str(landed.root))
    theirs = dg.Definitions(assets=[mine.asset, *tables_of(landed.defs).values()], resources={"later_lake": lake})
    assert mine.run(landed, defs=theirs).success
    assert len(mine.rows) == sum(len(truth.day("post_date", day)) for day in DAYS)


def test_a_lake_that_cannot_be_is_a_line_with_its_setting(landed: Project) -> None:
    mine = Downstream(pa.Table)
    theirs = dg.Definitions(
        assets=[mine.asset, *tables_of(landed.defs).values()], resources={"later_lake": LaterLake(lake_root=" ")}
    )
    assert "LATER_LAKE_ROOT" in told(mine.run(landed, defs=theirs))


def test_it_only_loads(project: Project) -> None:
    @dg.asset(io_manager_key="later_lake")
    def mine() -> int:
        return 1

    defs = dg.Definitions.merge(project.defs, dg.Definitions(assets=[mine]))
    result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=project.instance, asset_selection=[mine.key], run_config=QUIETLY, raise_on_error=False
    )
    assert told(result) == "later_lake only loads Later's tables: give mine another io_manager_key"
    assert not project.root.exists()


def test_dagsters_own_way_to_load_an_asset_works(landed: Project, truth: Truth) -> None:
    theirs = dg.Definitions(assets=tables_of(landed.defs).values(), resources={"later_lake": LaterLake()})
    key = asset_key("posts_published")
    with theirs.get_asset_value_loader(landed.instance) as loader:
        everything = loader.load_asset_value(key, python_type=pd.DataFrame)
        one = loader.load_asset_value(key, python_type=pa.Table, partition_key=str(FIRST))
    assert len(everything) == sum(len(truth.day("post_date", day)) for day in DAYS)
    assert same(one.to_pylist(), expected(truth, [(FIRST, name) for name in INSTANCE_IDS]))


def test_a_window_of_ones_own_is_loaded_without_any_run(landed: Project, truth: Truth) -> None:
    table = tables_of(landed.defs)["posts_published"]
    lake = LaterLake()
    rows = lake.load(table, pa.Table, start=DAYS[1], end=LAST, instance_ids=["007"]).to_pylist()
    assert same(rows, expected(truth, [(day, "007") for day in DAYS[1:]]))
    assert len(lake.load(table, pd.DataFrame)) == sum(len(truth.day("post_date", day)) for day in DAYS)
    nothing = lake.load(table, pl.DataFrame, start=LAST + timedelta(days=1))
    assert nothing.columns == ["date", *(column.name for column in POST_COLUMNS)]
    assert nothing.height == 0
    with pytest.raises(dg.Failure, match="is none of"):
        lake.load(table, dict)
    assert landed.roll_up("organic_paid_by_publish_day", days=DAYS[:1]).success
    rollup = tables_of(landed.defs)["organic_paid_by_publish_day"]
    assert len(lake.load(rollup, pa.Table, end=FIRST)) > 0
    with pytest.raises(dg.Failure, match="hold all instances"):
        lake.load(rollup, pa.Table, instance_ids=["007"])


def test_an_asset_may_ask_for_the_lake_itself(landed: Project, truth: Truth) -> None:
    table = tables_of(landed.defs)["posts_published"]
    counts = []

    @dg.asset
    def mine(later_lake: dg.ResourceParam[LaterLake]) -> None:
        counts.append(later_lake.load(table, pl.LazyFrame, start=LAST).select(pl.len()).collect().item())

    defs = dg.Definitions.merge(landed.defs, dg.Definitions(assets=[mine]))
    job = defs.resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(instance=landed.instance, asset_selection=[mine.key], run_config=QUIETLY).success
    assert counts == [len(truth.day("post_date", LAST))]


def test_tables_are_found_by_their_columns(project: Project) -> None:
    tables = tables_of(project.defs)
    assert list(tables) == sorted(tables)
    spec = tables["posts_published"]
    known = table_of(spec.key, spec.metadata, is_partitioned=True)
    assert schema_of(known.columns).equals(schema_of(POST_COLUMNS))
    with pytest.raises(ValueError, match="it has no column schema"):
        table_of(dg.AssetKey("a report"), {}, is_partitioned=False)
