"""Each cell of the page, in each selection, equals the tables."""

import math
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.report.conftest import report_and_tables
from tests.report.expected_page import ExpectedPage, Rows, Selection
from tests.report.report_browser import Report, open_report
from tests.rollups.conftest import row
from tests.rollups.reference import Row, World
from tests.rollups.worlds import NEWEST, Shape, world_of

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
        report.page.locator("#least-posts").select_option("1")
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
