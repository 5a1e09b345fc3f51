"""The questions of docs/questions.md: each query has an answer on the lake of a demo of 100 days, as
`later-reporting query` runs it, and those that can be answered in another way agree with it.
"""

import math
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from later_reporting_dagster import LaterReportingComponent, LaterReportingResource
from later_reporting_dagster.defs.io_manager import all_tables
from later_reporting_dagster.lake import Lake, Table
from later_reporting_dagster.lake.sql_query import run_query
from tests.docs.conftest import ROOT, code_blocks

pytestmark = pytest.mark.docs


def by_question(sql: str) -> dict[str, str]:
    """Return statements by the question in their first line."""
    statements = [statement.strip() for statement in sql.split(";\n") if statement.strip()]
    return {re.sub(r"^-- (\d+\. )?", "", each.partition("\n")[0]): each for each in statements}


PAGE = "".join(code_blocks((ROOT / "docs" / "questions.md").read_text(), "sql"))
QUESTIONS = by_question(PAGE)
# The same from other tables.
OTHERS = by_question(
    ";\n".join(path.read_text() for path in sorted(Path(__file__).with_name("questions").glob("*.sql")))
)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    directory = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "later_reporting_dagster.cli.main", "demo", "--days", "100"]
    subprocess.run([*command, "--directory", str(directory)], check=True, capture_output=True)
    return Lake(str(directory / "lake"))


@pytest.fixture(scope="module")
def tables() -> list[Table]:
    component = LaterReportingComponent(resource=LaterReportingResource(demo_mode=True))
    return all_tables(component.build_definitions(), component)


def test_every_other_way_is_of_a_question() -> None:
    assert OTHERS.keys() <= QUESTIONS.keys()
    assert len(QUESTIONS) == len(re.findall(r"^-- \d+\. ", PAGE, re.MULTILINE)) == 29


@pytest.mark.parametrize("question", QUESTIONS)
def test_question_has_an_answer_without_a_note(question: str, lake: Lake, tables: list[Table]) -> None:
    notes: list[str] = []
    mine: pa.Table = run_query(QUESTIONS[question], lake, tables, on_note=notes.append)
    assert mine.num_rows
    assert notes == []
    if question in OTHERS:
        other = run_query(OTHERS[question], lake, tables)
        rows, same = mine.select(other.column_names).to_pylist(), other.to_pylist()
        for row, equal in zip(rows, same, strict=True):
            for name, value in row.items():
                assert value == equal[name] or math.isclose(value, equal[name], rel_tol=1e-9), (name, row, equal)
