"""The IO manager: downstream assets receive the partitions of their run, as the annotated type."""

import re
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from later_reporting_dagster.contract.days import due_day
from later_reporting_dagster.defs.component_base import ComponentBase
from later_reporting_dagster.defs.io_manager import LaterLake, table_specs
from later_reporting_dagster.defs.partitions import RANGE_END_TAG, RANGE_START_TAG
from later_reporting_dagster.lake import POST_COLUMNS, Partition, posts_table, schema_of
from later_reporting_dagster.lake.file_metadata import MadeFrom
from later_reporting_dagster.rollups.rollup_tables import DAILY as ROLLUP
from later_reporting_dagster.rollups.rollup_tables import PERIOD_TABLES
from tests.conftest import FIRST_DAY, INSTANCE_IDS, Row, Truth, partition_file
from tests.defs.conftest import DAYS, QUIET_LOGGING, Project, asset_key, failure, fill_once
from tests.lake.conftest import post

FIRST, LAST = DAYS[0], DAYS[-1]
KEY = ("date", "instance_id", "campaign_id", "post_id")

DAILY = dg.DailyPartitionsDefinition(start_date=str(FIRST_DAY), timezone="UTC")
MONTHLY = dg.MonthlyPartitionsDefinition(start_date=str(FIRST_DAY), timezone="UTC")
WEEKLY_FROM_FEBRUARY = dg.WeeklyPartitionsDefinition(start_date="2024-02-01", timezone="UTC", day_offset=1)


def tables_of(project: Project) -> Mapping[str, dg.AssetSpec]:
    return table_specs(project.defs, ComponentBase())


class Downstream:
    def __init__(
        self,
        kind: Any,
        *,
        partitions_def: dg.PartitionsDefinition | None = None,
        table: str = "posts_published",
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self.kind = kind
        self.inputs: list[Any] = []

        def mine(posts: Any) -> None:
            self.inputs.append(posts)

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
        """Run the asset together with the project's assets, or in `defs`."""
        defs = defs or dg.Definitions.merge(project.defs, dg.Definitions(assets=[self.asset]))
        return defs.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=project.instance,
            asset_selection=[self.asset.key],
            partition_key=partition,
            tags={RANGE_START_TAG: between[0], RANGE_END_TAG: between[1]} if between else None,
            run_config=QUIET_LOGGING,
            raise_on_error=False,
        )

    @property
    def rows(self) -> list[Row]:
        (loaded,) = self.inputs
        return in_order(loaded)


def in_order(table: pa.Table) -> list[Row]:
    rows: list[Row] = table.sort_by([(name, "ascending") for name in KEY]).to_pylist()
    return rows


def expected(truth: Truth, days: Sequence[date], instances: Sequence[str] = INSTANCE_IDS) -> list[Row]:
    rows = [
        {"date": day, **row} for day in days for name in instances for row in truth.partition("post_date", day, name)
    ]
    return sorted(rows, key=lambda row: [row[name] for name in KEY])


@pytest.fixture
def filled(project: Project, module_lake: Path) -> Project:
    """The project with posts in its lake, without their Dagster events, which loading does not need."""
    return fill_once(project, module_lake, lambda project: project.fetch("posts_published").success)


def test_io_manager_loads_the_days_of_the_run(filled: Project, truth: Truth) -> None:
    downstream = Downstream(pa.Table, partitions_def=DAILY)
    assert downstream.run(filled, between=(str(FIRST), str(DAYS[1]))).success
    assert downstream.rows == expected(truth, DAYS[:2])


def test_asset_loads_a_table_that_the_same_run_writes(project: Project, truth: Truth) -> None:
    downstream = Downstream(pa.Table, partitions_def=DAILY)
    defs = dg.Definitions.merge(project.defs, dg.Definitions(assets=[downstream.asset]))
    result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=project.instance,
        asset_selection=[asset_key("posts_published"), downstream.asset.key],
        partition_key=str(DAYS[1]),
        run_config=QUIET_LOGGING,
    )
    assert result.success
    assert downstream.rows == expected(truth, DAYS[1:2])


def test_io_manager_loads_all_days_of_a_month_or_into_an_unpartitioned_asset(filled: Project, truth: Truth) -> None:
    for partitions_def, partition in ((MONTHLY, str(FIRST)), (None, None)):
        downstream = Downstream(pa.Table, partitions_def=partitions_def)
        assert downstream.run(filled, partition=partition).success
        assert downstream.rows == expected(truth, DAYS)
    earlier = Downstream(pa.Table, partitions_def=WEEKLY_FROM_FEBRUARY)
    assert "depends on invalid partitions" in str(earlier.run(filled, partition="2024-02-26").all_events)


def test_io_manager_loads_a_day_of_a_rollup(filled: Project, truth: Truth) -> None:
    assert filled.fetch("post_metrics_daily", days=DAYS[:1]).success
    assert filled.roll_up("organic_paid_daily", days=DAYS[:1]).success
    rollup = Downstream(pa.Table, table="organic_paid_daily", partitions_def=DAILY)
    assert rollup.run(filled, partition=str(FIRST)).success
    (rows,) = rollup.inputs
    recorded = [(name, truth.partition("performance_date", FIRST, name)) for name in INSTANCE_IDS]
    posts = {(name, row["post_id"]) for name, of_instance in recorded for row in of_instance}
    assert sum(rows["posts"].to_pylist()) == len(posts)
    assert {*rows["date"].to_pylist()} == {FIRST}


def test_definitions_load_a_whole_table_without_a_run(filled: Project, truth: Truth) -> None:
    rows: Any = filled.defs.load_asset_value(asset_key("posts_published"), python_type=pa.Table)
    assert rows.num_rows == len(expected(truth, DAYS))


def test_io_manager_logs_missing_files_and_loads_the_rest(project: Project, truth: Truth) -> None:
    assert project.fetch("posts_published", days=DAYS[:2], instances=list(INSTANCE_IDS[:2])).success
    mine = Downstream(pa.Table, partitions_def=DAILY)
    result = mine.run(project, between=(str(FIRST), str(LAST)))
    assert result.success
    assert mine.rows == expected(truth, DAYS[:2], INSTANCE_IDS[:2])
    (warning,) = [entry for entry in project.instance.all_logs(result.run_id) if entry.level == 30]
    names = ", ".join(sorted(INSTANCE_IDS[:2]))
    assert warning.user_message == f"later/posts_published: 2 files are missing: {LAST} (1 day): {names}"
    strict = Downstream(pa.Table, partitions_def=DAILY, metadata={"allow_missing_partitions": False})
    description, _ = failure(strict.run(project, between=(str(FIRST), str(LAST))))
    assert description == f"{warning.user_message}. Materialize these days first"
    assert strict.inputs == []


def test_load_warns_of_missing_files_or_raises(filled: Project) -> None:
    table, lake = tables_of(filled)["posts_published"], LaterLake()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # Dagster has a deprecated call on Python 3.12
        lake.load(table, pa.Table, end=LAST, allow_missing=False)
        # A week is expected if all of its days are.
        assert filled.fetch("post_metrics_daily").success
        assert filled.roll_up("organic_paid_daily").success
        assert filled.roll_up("organic_paid_weekly").success
        lake.load(tables_of(filled)["organic_paid_weekly"], pa.Table, end=LAST, allow_missing=False)
    partition_file(filled.root, "posts_published", DAYS[1], "007").unlink()
    message = f"later/posts_published: 1 file is missing: {DAYS[1]} (1 day): 007"
    with pytest.warns(UserWarning, match=re.escape(message)) as caught:
        rows = lake.load(table, pd.DataFrame, end=LAST)
    assert caught[0].filename == __file__
    assert len(rows)
    with pytest.raises(dg.Failure, match=re.escape(message)):
        lake.load(table, pl.LazyFrame, end=LAST, allow_missing=False)
    with pytest.warns(UserWarning, match=r"1 file is missing"):
        lake.load(table, pl.LazyFrame, end=LAST, instance_ids=["007"])
    lake.load(table, pa.Table, end=LAST, instance_ids=[INSTANCE_IDS[0]], allow_missing=False)
    # Without an end, every day up to the newest due day is expected.
    due = due_day(datetime.now(UTC), due_hour_utc=12)
    with pytest.warns(UserWarning, match=rf"2024-03-04 to {due} \("):
        lake.load(table, pa.Table)
    (filled.root / "organic_paid_daily" / f"date={DAYS[1]}" / "part-0.parquet").unlink()
    # Also of a table that is optional, and has no file at all.
    for name in ("organic_paid_daily", "campaign_performance_daily"):
        with pytest.raises(dg.Failure, match=re.escape(f"missing: {DAYS[1]} (1 day). Materialize these days first")):
            lake.load(tables_of(filled)[name], pa.Table, start=DAYS[1], end=DAYS[1], allow_missing=False)


@pytest.mark.parametrize("cadence", ["week", "month"])
def test_weeks_and_months_are_named_as_such_and_the_current_one_is_not_expected(cadence: str, project: Project) -> None:
    table = tables_of(project)[f"organic_paid_{cadence}ly"]
    partitions_def = table.partitions_def
    assert partitions_def is not None
    *_, third, second, last, current = partitions_def.get_partition_keys()
    rollup = next(each for each in PERIOD_TABLES if each.cadence == cadence)
    rows = schema_of(rollup.columns).empty_table()
    metadata = MadeFrom(inputs="", definition=rollup.definition).key_values
    project.lake.write(table.key.path[-1], Partition(date.fromisoformat(last)), rows, metadata=metadata)
    LaterLake().load(table, pa.Table, start=date.fromisoformat(last), allow_missing=False)
    mine = Downstream(pa.Table, table=table.key.path[-1], partitions_def=partitions_def)
    result = mine.run(project, between=(last, current))
    assert result.success
    assert project.warnings(result) == []
    message = f"later/{table.key.path[-1]}: 2 files are missing: {third} to {second} (2 {cadence}s)"
    with pytest.warns(UserWarning, match=f"^{re.escape(message)}$"):
        LaterLake().load(table, pa.Table, start=date.fromisoformat(third))
    with pytest.raises(dg.Failure, match=re.escape(f"{second} (1 {cadence}). Materialize these {cadence}s first")):
        LaterLake().load(table, pa.Table, start=date.fromisoformat(second), allow_missing=False)


def test_io_manager_fails_without_any_files(project: Project) -> None:
    mine = Downstream(pd.DataFrame, partitions_def=DAILY)
    assert failure(mine.run(project, partition=str(FIRST)))[0] == (
        f"later/posts_published: 1 file is missing: {FIRST} (1 day). Materialize these days first"
    )


def test_io_manager_loads_unpartitioned_tables(project: Project) -> None:
    mine = Downstream(pa.Table, table="a_window")
    metadata = tables_of(project)["posts_published"].metadata  # with the columns of posts
    window = dg.AssetSpec(["later", "a_window"], metadata=metadata).with_io_manager_key("later_lake")
    downstream = dg.Definitions(assets=[mine.asset, window], resources={"later_lake": LaterLake()})
    assert failure(mine.run(project, defs=downstream))[0] == "later/a_window: it has no files. Materialize it first"
    rows = posts_table([post(1), post(2, impressions=0)])
    project.lake.write_table("a_window", rows)
    assert mine.run(project, defs=downstream).success
    assert mine.inputs == [rows]
    assert LaterLake().load(window, pa.Table) == rows
    assert LaterLake().load(window, pl.DataFrame)["impressions"].to_list() == [None, 0]
    with pytest.raises(dg.Failure, match="no partitions to select"):
        LaterLake().load(window, pa.Table, start=FIRST)
    project.lake.write_table("a_window", rows.drop_columns(["post_id"]))
    older = "later/a_window: 1 of 1 files are of an older definition"
    assert failure(mine.run(project, defs=downstream))[0].startswith(older)
    with pytest.raises(dg.Failure, match=older):
        LaterLake().load(window, pa.Table)


@pytest.mark.parametrize("older", [1, 2])
def test_io_manager_refuses_files_of_an_older_definition(older: int, project: Project) -> None:
    table, name = tables_of(project)["organic_paid_daily"], "organic_paid_daily"
    rows = schema_of(ROLLUP.columns).empty_table()
    for number, day in enumerate(DAYS[:2]):
        made_from = MadeFrom(inputs="", definition=ROLLUP.definition - (number < older))
        project.lake.write(name, Partition(day), rows, metadata=made_from.key_values)
    message = f"later/{name}: {older} of 2 files are of an older definition, .*`later-reporting refresh`"
    mine = Downstream(pa.Table, table=name, partitions_def=DAILY)
    assert re.fullmatch(message, failure(mine.run(project, between=(str(FIRST), str(DAYS[1]))))[0])
    with pytest.raises(dg.Failure, match=message):
        LaterLake().load(table, pa.Table, end=DAYS[1])
    assert LaterLake().load(table, pa.Table, start=LAST, end=FIRST).num_rows == 0


def test_io_manager_needs_the_column_schema(filled: Project) -> None:
    mine = Downstream(pd.DataFrame)
    bare = dg.AssetSpec(["later", "posts_published"]).with_io_manager_key("later_lake")
    downstream = dg.Definitions(assets=[mine.asset, bare], resources={"later_lake": LaterLake()})
    description, _ = failure(mine.run(filled, defs=downstream))
    assert description.endswith("add `*later_tables().values()` to the assets of your definitions")


def test_load_selects_days_and_instances_without_a_run(filled: Project, truth: Truth) -> None:
    table = tables_of(filled)["posts_published"]
    lake = LaterLake()
    rows = lake.load(table, pa.Table, start=DAYS[1], end=LAST, instance_ids=["007"])
    assert in_order(rows) == expected(truth, DAYS[1:], ["007"])
    assert rows == lake.load(table, pa.Table, start=DAYS[1], end=LAST, instance_ids="007", allow_missing=False)
    with pytest.warns(UserWarning, match=r"\(3 days\): 0071"):
        assert lake.load(table, pa.Table, end=LAST, instance_ids="0071").num_rows == 0
    assert len(lake.load(table, pd.DataFrame, end=LAST)) == sum(len(truth.day("post_date", day)) for day in DAYS)
    nothing = lake.load(table, pl.DataFrame, start=LAST + timedelta(days=1), end=LAST)
    assert nothing.columns == ["date", *(column.name for column in POST_COLUMNS)]
    assert nothing.height == 0
    with pytest.raises(dg.Failure, match="is not supported: use one of"):
        lake.load(table, dict, end=LAST)
    assert filled.fetch("post_metrics_daily", days=DAYS[:1]).success
    assert filled.roll_up("organic_paid_daily", days=DAYS[:1]).success
    rollup = tables_of(filled)["organic_paid_daily"]
    assert len(lake.load(rollup, pa.Table, end=FIRST)) > 0
    with pytest.raises(dg.Failure, match="contain all instances"):
        lake.load(rollup, pa.Table, instance_ids=["007"])
