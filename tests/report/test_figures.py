"""The figures of a report as it opens, held against a slow reference over the raw rows."""

from random import SystemRandom
from typing import Any

import pytest

from later_reporting_dagster.report import data as room
from later_reporting_dagster.report.figures import headlines, headlines_in_markdown
from tests.report.posts import METRICS_TABLE, day_before, drawn_rows, near, one_post, picked, report_data
from tests.rollups.reference import group_of

NOW, BEFORE = range(28), range(28, 56)


@pytest.fixture
def cells() -> Any:
    seed = SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    return drawn_rows(seed)


def test_headlines_are_those_of_the_raw_rows(cells: Any) -> None:
    now, before = (group_of(picked(cells, METRICS_TABLE, ages)) for ages in (NOW, BEFORE))
    found = headlines(report_data(cells))
    assert len(found) == 9
    for headline in found:
        assert headline.value == near(now[headline.name]), headline
        assert headline.before == near(before[headline.name]), headline


def test_a_fold_in_between_changes_nothing(cells: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = report_data(cells)
    monkeypatch.setattr(room, "_ROWS_AT_ONCE", 10)
    folded = report_data(cells)
    assert all(
        getattr(folded, name).equals(getattr(at_once, name))
        for name in ("daily", "by_content", "by_creator", "published")
    )


def test_a_period_before_the_first_day_is_not_available() -> None:
    found = headlines(report_data(drawn_rows(1, days=13)))
    assert all(headline.before is None for headline in found)
    assert any(headline.value for headline in found)


def test_nothing_landed_is_not_available_and_no_zero() -> None:
    data = report_data(one_post())
    assert {headline.value for headline in headlines(data)} == {None}
    zero = headlines(report_data(one_post(impressions=0, engagements=0)))
    assert [headline.value for headline in zero] == [0, None, None, 0, None, None, None, None, None]


def test_headlines_are_told_as_a_table() -> None:
    nothing = headlines_in_markdown(headlines(report_data(one_post(impressions=0))))
    assert "| Organic impressions | 0 | not available |" in nothing
    assert "| Paid lift | not available | not available |" in nothing


def test_creators_are_as_last_seen_whatever_the_order_of_days() -> None:
    cells = one_post(creator_content_type="tiktok", creator_full_name="New", creator_handle_name="n")
    cells[METRICS_TABLE, day_before(2), "a"] = [
        {**cells[METRICS_TABLE, day_before(0), "a"][0], "creator_full_name": "Old", "creator_handle_name": "o"}
    ]
    for order in (cells, dict(reversed(cells.items()))):
        (creator,) = report_data(order).creators
        assert (creator.name, [profile.handle for profile in creator.profiles]) == ("New", ["n"])
