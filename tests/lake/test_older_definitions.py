"""Files that an older definition of a rollup made are left out, and counted: their rows may have another grain."""

from dataclasses import replace
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest

from later_reporting_dagster.lake import Column, Lake, Partition, Table
from later_reporting_dagster.lake.database import files_of_older_definitions
from later_reporting_dagster.lake.paths import table_path
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


def test_query_leaves_out_a_file_that_records_a_lower_version(lake: Lake) -> None:
    table = replace(TABLE, definition=4)
    rows = pa.table({"posts": [1], "ad_spend_posts": [1]})
    for day, definition in zip(DAYS, (3, 5), strict=True):
        metadata = {"made_from": f'{{"inputs": "x", "definition": {definition}}}'}
        lake.write(TABLE.name, Partition(day), rows, metadata=metadata, replaces_metadata=True)
    notes: list[str] = []
    found = run_query(f"SELECT date FROM {table.name}", lake, [table], on_note=notes.append)
    assert found["date"].to_pylist() == [DAYS[1]]
    assert notes == [f"{table.name}: 1 file of an older definition left out. Next step: `later-reporting refresh`"]


def test_names_of_columns_are_read_from_the_footer_alone(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lake.storage, "read", None)
    path = table_path(TOTAL.name)
    assert files_of_older_definitions(lake.storage, TOTAL, [path]) == {path}


@pytest.mark.parametrize(
    ("table", "rows", "left_out"),
    [
        (TABLE, 1, "1 file"),
        (TOTAL, 0, "1 file"),
        (replace(TABLE, definition=1), 0, "2 files"),
    ],  # these record no version
)
def test_query_leaves_out_files_of_an_older_definition(lake: Lake, table: Table, rows: int, left_out: str) -> None:
    notes: list[str] = []
    found = run_query(f"SELECT count(*) AS rows FROM {table.name}", lake, [table], on_note=notes.append)
    assert found.to_pylist() == [{"rows": rows}]
    assert notes == [f"{table.name}: {left_out} of an older definition left out. Next step: `later-reporting refresh`"]
