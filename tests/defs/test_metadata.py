"""What the UI shows of a partition: the first rows as a table that no creator's name can break."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from later_reporting_dagster.defs.metadata import preview


def test_a_preview_shows_the_first_rows_and_how_many_more_there_are() -> None:
    table = pa.table({"name": [f"n{number}" for number in range(7)], "rate": [1234.5] * 7})
    assert preview(table).value.splitlines() == [
        "| name | rate |",
        "| --- | --- |",
        *(f"| n{number} | 1,234.50 |" for number in range(5)),
        "",
        "*2 more rows*",
    ]


def test_what_is_not_available_is_empty_and_a_measured_zero_is_not() -> None:
    table = pa.table({"impressions": pa.array([None, 0], pa.int64()), "rate": pa.array([None, 0.0], pa.float64())})
    assert preview(table).value.splitlines()[2:] == ["|  |  |", "| 0 | 0.00 |"]


def test_a_table_without_rows_says_so() -> None:
    assert preview(pa.table({"name": pa.array([], pa.string())})).value == "*no rows*"


@given(st.text(max_size=60))
def test_no_text_breaks_its_cell(name: str) -> None:
    *_, line = preview(pa.table({"name": [name]})).value.split("\n")
    assert line.startswith("| ")
    assert line.endswith(" |")
    bare = line[2:-2].replace("\\\\", "")
    assert all(bare[place - 1] == "\\" for place, character in enumerate(bare) if character in "|`*_{}[]<>#!")
    assert len(bare.replace("\\", "")) <= 40


@pytest.mark.parametrize(
    ("name", "shown"), [("a|b", "a\\|b"), ("<b>*x*", "\\<b\\>\\*x\\*"), ("two\nlines ", "two lines")]
)
def test_markup_is_shown_as_it_was_written(name: str, shown: str) -> None:
    assert preview(pa.table({"name": [name]})).value.endswith(f"\n| {shown} |")
