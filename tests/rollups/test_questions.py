"""The questions of docs/questions.md: each query runs, and those that can be answered in another way agree with it."""

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from later_reporting_dagster.rollups.sql_engine import FIRST_DAY
from tests.rollups.worlds import Shape, metrics_of, open_world, roll_up, world_of

PAGE = Path(__file__).parents[2] / "docs" / "questions.md"
Query = Callable[[str], pa.Table]


def by_question(sql: str) -> dict[str, str]:
    """Return statements by the question in their first line."""
    statements = [statement.strip() for statement in sql.split(";\n") if statement.strip()]
    return {re.sub(r"^-- (\d+\. )?", "", each.partition("\n")[0]): each for each in statements}


BLOCKS = re.findall(r"^```sql\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
QUESTIONS = by_question("".join(BLOCKS))
# The same from other tables.
OTHERS = by_question(
    ";\n".join(path.read_text() for path in sorted(Path(__file__).with_name("questions").glob("*.sql")))
)
# A random world has none of these tables, or others than its posts add up to.
NOT_IN_A_WORLD = re.compile(
    r"\b(coverage|instances|instance_performance_\w+|campaign_results|campaign_performance_daily)\b"
)


# In a random world, in which posts are seen on too few days in a row.
MAYBE_EMPTY = {
    "Which posts should be boosted?",
    "How fast do posts, such as reels, earn their impressions?",
    "Is a campaign ahead, at its age?",
}


def in_a_world(questions: dict[str, str]) -> list[str]:
    return [question for question, sql in questions.items() if not NOT_IN_A_WORLD.search(sql + QUESTIONS[question])]


@pytest.fixture(scope="module")
def query() -> Iterator[Query]:
    """Run a query in a random world of two whole months and some days, with all its tables."""
    world = world_of(Shape(days=66, posts=500, missing=0, moved=0, several=0.3, creators=12, corrected=0.1), seed=5)
    with open_world(world) as database:
        for name, rows in roll_up(database, metrics_of(world)).items():
            is_by_period = rows.column_names[0] == FIRST_DAY
            database.connection.register(name, rows.rename_columns({FIRST_DAY: "date"}) if is_by_period else rows)
        yield lambda sql: database.connection.sql(sql).to_arrow_table()


def assert_equal_answers(question: str, query: Query) -> None:
    """Assert that both queries have the same rows, in the columns of the other one."""
    other = query(OTHERS[question])
    mine, theirs = query(QUESTIONS[question]).select(other.column_names).to_pylist(), other.to_pylist()
    assert len(mine) == len(theirs) > 0
    for row, same in zip(mine, theirs, strict=True):
        for name, value in row.items():
            assert value == same[name] or math.isclose(value, same[name], rel_tol=1e-9), (name, row, same)


def test_every_other_way_is_of_a_question() -> None:
    assert OTHERS.keys() <= QUESTIONS.keys()
    assert len(QUESTIONS) == len(re.findall(r"^-- \d+\. ", "".join(BLOCKS), re.MULTILINE))


@pytest.mark.parametrize("question", in_a_world(QUESTIONS))
def test_question_has_an_answer(question: str, query: Query) -> None:
    assert query(QUESTIONS[question]).num_rows or question in MAYBE_EMPTY


@pytest.mark.parametrize("question", in_a_world(OTHERS))
def test_two_tables_give_one_answer(question: str, query: Query) -> None:
    assert_equal_answers(question, query)


def test_campaigns_and_posts_agree_on_posts_of_unknown_cost(query: Query) -> None:
    by_campaign = query("SELECT sum(published_posts_of_unknown_own_cost) AS posts FROM campaigns_monthly")
    of_posts = query(
        "SELECT count(*) AS posts FROM (SELECT *, unnest(campaign_ids) AS campaign_id FROM posts) AS posts"
        " JOIN campaigns_monthly USING (campaign_id)"
        " WHERE posts.content_cost IS NULL AND is_published AND date_trunc('month', post_date) = month"
    )
    assert by_campaign.to_pylist() == of_posts.to_pylist()
