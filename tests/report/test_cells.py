"""Each cell of the page, in each selection, equals the tables."""

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.report.confounded_worlds import PAID, confounded_world
from tests.report.conftest import report_and_tables
from tests.report.expected_page import ExpectedPage, Rows, Selection
from tests.report.report_browser import Report, open_report
from tests.rollups.reference import Row, World

FIGURES = (
    "organic_impressions", "paid_impressions", "paid_share_of_impressions", "organic_engagements", "paid_engagements",
    "paid_share_of_engagements", "organic_engagement_rate", "paid_engagement_rate", "rate_ratio", "ad_spend",
    "ad_spend_per_engagement", "return_on_ad_spend",
)  # fmt: skip


COSTS = {
    "published_posts": "Posts published",
    "content_cost": "Content cost so far",
    "posts_of_unknown_cost": "Posts of unknown cost",
    "content_cost_per_engagement": "Content cost per organic engagement",
}
# Of text that no rollup table has.
OTHER_COLUMNS = {"Status", "Missing", "Post"}


@pytest.mark.parametrize("name", ["random", *PAID])
def test_every_cell_in_every_selection_equals_the_tables(
    name: str, browser: Browser, world: World, tmp_path: Path
) -> None:
    data, tables = report_and_tables(world if name == "random" else confounded_world(name))
    expected = ExpectedPage(tables, data.instances)
    with open_report(browser, data, tmp_path) as report:
        report.open_all()
        report.page.locator("#least-posts").select_option("1")
        found = {at: differences(report, expected, at) for at in choose_each(report, expected)}
    assert [f"{at}: {line}" for at, lines in found.items() for line in lines] == []
    assert {at.window for at in found} == {"7d", "28d", "90d", "this_month", "last_month"}
    assert len({at.campaign for at in found}) > 1


def choose_each(report: Report, expected: ExpectedPage) -> Iterator[Selection]:
    """Choose each period with each instance and each campaign; yield the selection."""
    campaigns = sorted(expected.known_campaigns)
    for window in report.page.locator("#period option").evaluate_all("all => all.map(each => each.value)"):
        report.page.locator("#period").select_option(value=window)
        for instance in (None, *expected.instances):
            report.choose("instance", instance or "All")
            yield Selection(window, instance)
            for place, campaign in enumerate([each for each in campaigns if each[0] == instance], 1):
                report.page.locator("#campaign").select_option(index=place)
                yield Selection(window, instance, campaign)
            report.choose("campaign", "All")


def differences(report: Report, expected: ExpectedPage, at: Selection) -> list[str]:
    report.open_all()
    shown, figures, labels = report.tables(), expected.figures(at), report.tooltips()
    lines = [
        f"{name}: {figures.get(name)} expected, {report.figure(name)} shown"
        for name in FIGURES
        if not is_same(report.figure(name), figures.get(name))
    ]
    for table, rows in (
        ("campaigns", named(expected.campaigns(at), "Campaign")),
        ("published", named(expected.published(at), "Campaign")),
        ("days", named(expected.over_time(at), "Day (UTC)")),
        ("parts", expected.parts(at)),
        ("creators", expected.creators(at, least_posts=1)),
        ("boost", expected.boost(at)),
    ):
        lines += [f"{table}: {line}" for line in unmatched(shown[table], rows)]
    cost = expected.cost(at)
    for name, head in COSTS.items():
        lines += [] if is_same(report.figure(name), cost[head]) else [f"{name}: {cost[head]} expected"]
    lines += [f"{name}: {labels[name]}" for name, end in expected.bars(at).items() if not labels[name].endswith(end)]
    return lines + report.misformatted() + report.cut_off()


def named(rows: Rows, heading: str) -> list[Row]:
    return [{heading: name, **row} for name, row in rows.items()]


def unmatched(shown: Sequence[Row], expected: Sequence[Row]) -> list[str]:
    """Return the rows that are only on the page, and those that are only expected."""
    rows = [row | {"Campaign": short_name(row["Campaign"])} if "Campaign" in row else row for row in shown]
    lines = []
    for wanted in expected:
        place = next((place for place, row in enumerate(rows) if is_row(row, wanted)), None)
        if place is None:
            lines.append(f"expected {wanted}")
        else:
            del rows[place]
    return lines + [f"shown {row}" for row in rows]


def short_name(campaign: str) -> str:
    """Return a campaign's id, with its instance if it is shown."""
    return re.sub(r"^.* \((\d+)\)", r"\1", campaign, flags=re.DOTALL)


def is_row(shown: Row, expected: Row) -> bool:
    """Return whether a row of the page has the expected cells. Headings are capitalized, other values are not shown."""
    cells = {head: value for head, value in expected.items() if head[0].isupper() or head[0].isdigit()}
    heads = (shown.keys() | cells.keys()) - OTHER_COLUMNS
    return all(is_same(shown.get(head), cells.get(head)) for head in heads)


def is_same(shown: Any, expected: Any) -> bool:
    """Return whether a cell, whose numbers have seven digits, equals the expected value."""
    if shown is None or expected is None or isinstance(shown, str) or isinstance(expected, str):
        return bool(shown == expected)
    return math.isclose(shown, expected, rel_tol=1e-6, abs_tol=0.005 if abs(shown) >= 100_000 else 1e-9)
