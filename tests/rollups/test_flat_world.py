"""In a world in which every day is alike, no measure changes from one period to the next."""

from datetime import UTC, datetime, time, timedelta

import pytest

from later_reporting_dagster.rollups.rollup_tables import WINDOW_TABLES
from tests.rollups.conftest import Row, row
from tests.rollups.reference import World
from tests.rollups.worlds import NEWEST, rolled_up

DAYS, AGES, POSTS = 735, 25, 2


def recorded_metrics(post: int, first_age: int, last_age: int) -> Row:
    """Return the metrics that a post records between two ages: most on the first day, and some for weeks."""
    share = sum(1 / (1 + age) for age in range(first_age, min(last_age, AGES - 1) + 1))
    amounts = {"impressions": 6000, "engagements": 300, "paid_impressions": 9000, "paid_engagements": 700}
    measured: Row = {name: round(amount * (1 + post) * share) for name, amount in amounts.items()}
    return measured | {"estimated_value_generated": round(50 * share, 2)}


@pytest.fixture(scope="module")
def flat_world() -> World:
    """Two years with the same posts every day."""
    days = [NEWEST - timedelta(days=number) for number in range(DAYS)]
    recorded, published = {}, {}
    for number, day in enumerate(days):
        published[day, "a"] = [post_of(number, post, recorded_metrics(post, 0, number)) for post in range(POSTS)]
        recorded[day, "a"] = [
            post_of(number + age, post, recorded_metrics(post, age, age))
            for age in range(AGES)
            for post in range(POSTS)
        ]
    return World(recorded, published)


def post_of(days_ago: int, post: int, measured: Row) -> Row:
    """Return the row of the post with a number, published some days before the newest."""
    published = datetime.combine(NEWEST - timedelta(days=days_ago), time(12), UTC)
    return row(post_id=POSTS * days_ago + post, post_date=published, creator_id=post, **measured)


def test_window_changes_are_about_zero_if_every_day_is_alike(flat_world: World) -> None:
    found = rolled_up(flat_world)
    for table in WINDOW_TABLES:
        units = {column.name: column.unit for column in table.columns}
        rows = found[table.name].to_pylist()
        windows = {(each["window"], each["date_basis"]) for each in rows}
        assert len(windows) == 10
        for each in rows:
            for name, value in each.items():
                if not name.endswith("_change") or each["window"] == "all":
                    continue
                whole = 100 if units[name] == "percent" else each[name.removesuffix("_change")]
                assert abs(value) <= 0.03 * whole, (table.name, each["window"], each["date_basis"], name)
