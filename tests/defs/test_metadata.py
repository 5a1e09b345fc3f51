"""Materialization metadata: the preview of the first rows, with any text escaped."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from later_reporting_dagster.defs.metadata import preview


def test_preview_shows_the_first_rows_and_counts_the_rest() -> None:
    table = pa.table({"name": [f"n{number}" for number in range(7)], "rate": [1234.5] * 7})
    assert preview(table).value.splitlines() == [
        "| name | rate |",
        "| --- | --- |",
        *(f"| n{number} | 1,234.50 |" for number in range(5)),
        "",
        "*2 more rows*",
    ]


def test_preview_shows_nulls_as_empty_cells() -> None:
    table = pa.table({"impressions": pa.array([None, 0], pa.int64()), "rate": pa.array([None, 0.0], pa.float64())})
    assert preview(table).value.splitlines()[2:] == ["|  |  |", "| 0 | 0.00 |"]


def test_preview_of_an_empty_table() -> None:
    assert preview(pa.table({"name": pa.array([], pa.string())})).value == "*no rows*"


@given(st.text(max_size=60))
def test_preview_escapes_any_text(name: str) -> None:
    *_, line = preview(pa.table({"name": [name]})).value.split("\n")
    assert line.startswith("| ")
    assert line.endswith(" |")
    text = line[2:-2].replace("\\\\", "")
    assert all(text[index - 1] == "\\" for index, character in enumerate(text) if character in "|`*_{}[]<>#!")
    assert len(text.replace("\\", "")) <= 40


@pytest.mark.parametrize(
    ("name", "shown"), [("a|b", "a\\|b"), ("<b>*x*", "\\<b\\>\\*x\\*"), ("two\nlines ", "two lines")]
)
def test_preview_escapes_markup(name: str, shown: str) -> None:
    assert preview(pa.table({"name": [name]})).value.endswith(f"\n| {shown} |")
