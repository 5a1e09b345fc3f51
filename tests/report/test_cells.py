"""Each cell of the page, in each selection, equals the tables."""

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.report.conftest import report_and_tables
from tests.report.expected_page import ExpectedPage, Selection
from tests.report.report_browser import Report, open_report
from tests.rollups.conftest import row
from tests.rollups.reference import Row, World
from tests.rollups.worlds import NEWEST, Shape, world_of

# Of text, or of figures that are no sum of the rollup tables.
OTHER_COLUMNS = {
    *("detail", "Campaign", "Network", "Creator", "Post", "Month", "Published", "Missing", "0each post100"),
    *("Change", "Change a day", "Change per day", "Return on ads", "Per engagement"),
}


def world_of_one_instance() -> World:
    """Return a random world of one instance, with some posts to boost on its newest day, and the best one paid for."""
    world = world_of(Shape(days=40, posts=160, instances=("a",), missing=0, moved=0, creators=7, nulls=0.1), seed=1)
    published = datetime.combine(NEWEST, time(), UTC)
    young = [
        row(post_id=n, creator_id=n, creator_full_name="new", post_date=published, impressions=n, engagements=n - 1000)
        for n in range(1000, 1030)
    ]
    young[-1]["paid_impressions"] = 5
    for files in (world.recorded, world.published):
        files[NEWEST, "a"].extend(young)  # type: ignore[attr-defined]
    return world


@pytest.mark.parametrize("instances", [1, 2])
def test_every_cell_in_every_selection_equals_the_tables(
    instances: int, browser: Browser, world: World, tmp_path: Path
) -> None:
    data, tables = report_and_tables(world if instances == 2 else world_of_one_instance())
    expected = ExpectedPage(tables, data.instances)
    with open_report(browser, data, tmp_path) as report:
        report.open_all()
        found = {at: differences(report, expected, at) for at in choose_each(report, expected)}
    assert [f"{at}: {line}" for at, lines in found.items() for line in lines] == []
    assert {at.window for at in found} == {"7d", "28d", "90d", "this_month", "last_month"}
    assert len({at.campaign for at in found}) > 1
    assert instances == 2 or len(expected.boost(Selection("7d"))) > 3


def choose_each(report: Report, expected: ExpectedPage) -> Iterator[Selection]:
    """Choose each period with each instance and each campaign; yield the selection."""
    campaigns = sorted(expected.known_campaigns)
    for window in report.page.locator("#period option").evaluate_all("all => all.map(each => each.value)"):
        report.page.locator("#period").select_option(value=window)
        # A single instance is all of them.
        for instance in (None, *expected.instances) if len(expected.instances) > 1 else expected.instances:
            if len(expected.instances) > 1:
                report.page.locator("#instance").select_option(
                    value=str(expected.instances.index(instance)) if instance else ""
                )
            yield Selection(window, instance)
            for place, campaign in enumerate([each for each in campaigns if each[0] == instance], 1):
                report.page.locator("#campaign").select_option(index=place)
                yield Selection(window, instance, campaign)
            report.page.locator("#campaign").select_option(value="")


def differences(report: Report, expected: ExpectedPage, at: Selection) -> list[str]:
    report.open_all()
    shown, figures = report.tables(), expected.figures(at)
    lines = [
        f"{name}: {figures[name]} expected, {report.figure(name)} shown"
        for name in ("cost", "impressions", "engagements", "organic_engagement_rate", "paid_engagement_rate")
        if not is_same(report.figure(name), figures[name])
    ]
    for table, rows in (
        ("campaigns", named("detail", expected.campaigns(at))),
        ("networks", named("Network", expected.networks(at))),
        ("months", named("Month", expected.months(at))),
        ("days", named("Day", expected.over_time(at))),
        ("creators", expected.creators(at)),
        ("boost", expected.boost(at)),
    ):
        visible = shown[table] if report.page.locator(f"#{table}").is_visible() else []
        lines += [f"{table}: {line}" for line in unmatched(visible, rows)]
    lines += [f"book: {line}" for line in misranked(shown["book"], expected.booked(at))]
    return lines + report.misformatted() + report.cut_off()


def named(heading: str, rows: Mapping[str, Row]) -> list[Row]:
    return [{heading: name or None, **row} for name, row in rows.items()]


def misranked(shown: Sequence[Row], expected: Sequence[Row]) -> list[str]:
    """Return whether the creators to book again are not the best ones, best first, with their costs."""
    lines = unmatched(shown, expected[: len(shown)])
    ranks = [row["Median rank"] for row in shown]
    lines += [] if len(shown) >= min(len(expected), 10) else [f"{len(shown)} of {len(expected)} shown"]
    return lines + ([] if ranks == sorted(ranks, reverse=True) else [f"not in order: {ranks}"])


def unmatched(shown: Sequence[Row], expected: Sequence[Row]) -> list[str]:
    """Return the rows that are only on the page, and those that are only expected."""
    rows, lines = [*shown], []
    for wanted in expected:
        place = next((place for place, row in enumerate(rows) if is_row(row, wanted)), None)
        if place is None:
            lines.append(f"expected {wanted}")
        else:
            del rows[place]
    return lines + [f"shown {row}" for row in rows]


def is_row(shown: Row, expected: Row) -> bool:
    """Return whether a row of the page has the expected cells, and no other numbers."""
    heads = (shown.keys() - OTHER_COLUMNS) | expected.keys()
    return all(is_same(shown.get(head), expected.get(head)) for head in heads)


def is_same(shown: Any, expected: Any) -> bool:
    """Return whether a cell, whose numbers have seven digits, equals the expected value."""
    if shown is None or expected is None or isinstance(shown, str) or isinstance(expected, str):
        return bool(shown == expected)
    return math.isclose(shown, expected, rel_tol=1e-6, abs_tol=0.005 if abs(shown) >= 100_000 else 1e-9)
