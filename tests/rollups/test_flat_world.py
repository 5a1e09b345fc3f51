"""Where every day is alike, nothing has changed."""

from datetime import UTC, datetime, time, timedelta

import pytest

from later_reporting_dagster.rollups.rollup_tables import BY_WINDOW
from tests.rollups.conftest import Row, row
from tests.rollups.reference import World
from tests.rollups.worlds import NEWEST, rolled_up

DAYS, AGES, POSTS = 735, 25, 2


def earned(post: int, first_age: int, last_age: int) -> Row:
    """What each post earns from one age to another: most at first, and something for weeks."""
    share = sum(1 / (1 + age) for age in range(first_age, min(last_age, AGES - 1) + 1))
    amounts = {"impressions": 6000, "engagements": 300, "paid_impressions": 9000, "paid_engagements": 700}
    measured: Row = {name: round(amount * (1 + post) * share) for name, amount in amounts.items()}
    return measured | {"estimated_value_generated": round(50 * share, 2)}


@pytest.fixture(scope="module")
def flat() -> World:
    days = [NEWEST - timedelta(days=number) for number in range(DAYS)]
    recorded, published = {}, {}
    for number, day in enumerate(days):
        published[day, "a"] = [post_of(number, post, earned(post, 0, number)) for post in range(POSTS)]
        recorded[day, "a"] = [
            post_of(number + age, post, earned(post, age, age)) for age in range(AGES) for post in range(POSTS)
        ]
    return World(recorded, published)


def post_of(days_ago: int, post: int, measured: Row) -> Row:
    published = datetime.combine(NEWEST - timedelta(days=days_ago), time(12), UTC)
    return row(post_id=POSTS * days_ago + post, post_date=published, creator_id=post, **measured)


def test_nothing_changes_in_any_window_by_either_date_basis(flat: World) -> None:
    found = rolled_up(flat)
    for table in BY_WINDOW:
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
