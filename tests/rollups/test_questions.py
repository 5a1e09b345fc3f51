"""Questions of an analyst, as SQL: each runs, and where two tables can answer, both answers are equal."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from later_reporting_dagster.rollups.sql_engine import FIRST_DAY
from tests.rollups.worlds import Shape, metrics_of, open_world, roll_up, world_of

QUESTIONS = {path.stem: path.read_text() for path in sorted(Path(__file__).with_name("questions").glob("*.sql"))}
# Which questions have the same answer by another table.
SAME = {
    "impressions_by_network_last_month": "impressions_by_network_last_month_from_days",
    "impressions_by_network_in_28_days": "impressions_by_network_in_28_days_from_days",
    "rate_of_28_days": "rate_of_28_days_computed_again",
}
# Of a random world, in which no post is seen on 29 days in a row, or in which no campaign has ad spend.
MAYBE_EMPTY = {"how_long_a_post_earns", "is_a_campaign_ahead_at_its_age", "missing_days", "posts_to_boost"}


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    """A random world of 60 days, with all its tables."""
    world = world_of(Shape(days=60, posts=500, missing=0, moved=0, several=0.3, creators=12, corrected=0.1), seed=5)
    with open_world(world) as database:
        for name, rows in roll_up(database, metrics_of(world)).items():
            is_by_period = rows.column_names[0] == FIRST_DAY
            database.connection.register(name, rows.rename_columns({FIRST_DAY: "date"}) if is_by_period else rows)
        yield database.connection


def answer(connection: duckdb.DuckDBPyConnection, question: str) -> list[tuple[Any, ...]]:
    return connection.sql(QUESTIONS[question]).fetchall()


@pytest.mark.parametrize("question", QUESTIONS)
def test_question_has_an_answer(question: str, connection: duckdb.DuckDBPyConnection) -> None:
    rows = answer(connection, question)
    assert rows or question in MAYBE_EMPTY


@pytest.mark.parametrize(("question", "other"), SAME.items())
def test_two_tables_give_one_answer(question: str, other: str, connection: duckdb.DuckDBPyConnection) -> None:
    one, two = answer(connection, question), answer(connection, other)
    assert len(one) == len(two) > 0
    for row, same in zip(one, two, strict=True):
        assert all(one == two or math.isclose(one, two, rel_tol=1e-9) for one, two in zip(row, same, strict=True))


def test_costs_of_campaigns_and_posts_agree_on_posts_without_cost(connection: duckdb.DuckDBPyConnection) -> None:
    by_campaign = connection.sql("SELECT sum(posts_without_cost) FROM campaign_costs_monthly").fetchall()
    of_posts = connection.sql(
        "SELECT count(*) FROM (SELECT *, unnest(campaign_ids) AS campaign_id FROM posts) AS posts"
        " JOIN campaign_costs_monthly USING (campaign_id)"
        " WHERE posts.content_cost IS NULL AND is_published AND date_trunc('month', post_date) = month"
    ).fetchall()
    assert by_campaign == of_posts
