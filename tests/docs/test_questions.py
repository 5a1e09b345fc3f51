"""The queries of docs/questions.md on the lake of a demo of 100 days, as `later-reporting query` runs them."""

import subprocess
import sys

import pytest

from later_reporting_dagster import LaterReportingComponent, LaterReportingResource
from later_reporting_dagster.defs.io_manager import all_tables
from later_reporting_dagster.lake import Lake, Table
from later_reporting_dagster.lake.sql_query import run_query
from tests.rollups.test_questions import OTHERS, QUESTIONS, assert_equal_answers

pytestmark = pytest.mark.docs


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


@pytest.mark.parametrize("question", QUESTIONS)
def test_question_has_an_answer_without_a_note(question: str, lake: Lake, tables: list[Table]) -> None:
    notes: list[str] = []
    assert run_query(QUESTIONS[question], lake, tables, on_note=notes.append).num_rows
    assert notes == []


@pytest.mark.parametrize("question", OTHERS)
def test_two_tables_give_one_answer(question: str, lake: Lake, tables: list[Table]) -> None:
    assert_equal_answers(question, lambda sql: run_query(sql, lake, tables))
