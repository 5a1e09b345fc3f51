"""The figures of a report as it opens, held against a slow reference over the raw rows."""

from fractions import Fraction
from random import SystemRandom
from typing import Any

import pytest

from later_reporting_dagster.contract import DOCUMENT_METRICS
from later_reporting_dagster.report import data as room
from later_reporting_dagster.report.figures import (
    coverage,
    headlines,
    headlines_in_markdown,
    impressions_by_day,
    rates,
    spending,
)
from tests.report.posts import (
    INSTANCES,
    METRICS_TABLE,
    PUBLISHED_TABLE,
    day_before,
    drawn_rows,
    one_post,
    picked,
    report_data,
    without,
)
from tests.rollups.reference import group_of, total

NOW, BEFORE = range(28), range(28, 56)


def near(value: Fraction | int | None) -> Any:
    return None if value is None else pytest.approx(float(value), rel=1e-9, abs=1e-4)


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


def test_days_rates_spend_and_coverage_are_those_of_the_raw_rows(cells: Any) -> None:
    data = report_data(cells)
    for day in impressions_by_day(data):
        rows = picked(cells, METRICS_TABLE, range(day.age, day.age + 1))
        assert day.organic == total(row["impressions"] for row in rows)
        assert day.paid == total(row["paid_impressions"] for row in rows)
        assert not day.incomplete
    for key in ("platform", "content_type"):
        groups: dict[str, list[Any]] = {}
        for row in picked(cells, METRICS_TABLE, NOW):
            groups.setdefault((row[key] or "other").replace("_", " "), []).append(row)
        found = {(bar.group, bar.channel): bar.low for bar in rates(data, key)}
        assert found == {
            (name, channel): near(group_of(rows)[f"{channel}_engagement_rate"])
            for name, rows in groups.items()
            for channel in ("organic", "paid")
        }
    published = picked(cells, PUBLISHED_TABLE, NOW)
    for bars, cost in zip(spending(data), ("spend", "cpe"), strict=True):
        for bar in bars:
            group = group_of([row for row in published if str(row["campaign_id"]) == bar.group])
            assert (bar.low, bar.high) == tuple(
                near(group[f"{bar.channel}_{cost}_{side}"]) for side in ("minimum", "maximum")
            )
    assert [bar.label for bar in coverage(data)] == [
        f"{sum(row[metric.column] is not None for row in published):,} of {len(published):,}"
        for metric in DOCUMENT_METRICS
    ]


def test_a_period_before_the_first_day_is_not_available() -> None:
    found = headlines(report_data(drawn_rows(1, days=13)))
    assert all(headline.before is None for headline in found)
    assert any(headline.value for headline in found)


def test_a_day_that_an_instance_has_not_landed_is_incomplete(cells: Any) -> None:
    without(cells, day=day_before(3), instance_id=INSTANCES[0])
    assert [day.age for day in impressions_by_day(report_data(cells)) if day.incomplete] == [3]


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
