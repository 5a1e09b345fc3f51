"""Files that an older definition of a rollup made are left out, and counted: their rows may have another grain."""

from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest

from later_reporting_dagster.lake import Column, Lake, Partition, Table
from later_reporting_dagster.lake.sql_query import run_query

DAYS = [date(2024, 1, 1), date(2024, 1, 2)]
POSTS = Column("posts", "int64", False, "")
TABLE = Table("organic_paid_daily", (POSTS, Column("ad_spend_posts", "int64", False, "")))
TOTAL = Table("organic_paid_overall", TABLE.columns, is_partitioned=False)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A lake with a day and a table of an older definition, and a day of the current one."""
    lake = Lake(str(tmp_path))
    older = pa.table({"posts": [100]}, pa.schema([pa.field("posts", pa.int64(), False)]))
    lake.write(TABLE.name, Partition(DAYS[0]), older)
    lake.write(TABLE.name, Partition(DAYS[1]), older.append_column("ad_spend_posts", pa.array([1])))
    lake.write_table(TOTAL.name, older)
    return lake


@pytest.mark.parametrize(("table", "rows"), [(TABLE, 1), (TOTAL, 0)])
def test_query_leaves_out_files_of_an_older_definition(lake: Lake, table: Table, rows: int) -> None:
    notes: list[str] = []
    found = run_query(f"SELECT count(*) AS rows FROM {table.name}", lake, [table], on_note=notes.append)
    assert found.to_pylist() == [{"rows": rows}]
    assert notes == [f"{table.name}: 1 file of an older definition left out. Next step: `later-reporting refresh`"]
