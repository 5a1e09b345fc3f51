"""The page in a browser: at each width, in light and dark, without network, with every number held to the raw rows."""

import re
from pathlib import Path
from random import SystemRandom
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from later_reporting_dagster.contract import DOCUMENT_METRICS
from later_reporting_dagster.report.data import ReportData, SetAside
from tests.report.posts import (
    CAMPAIGNS,
    INSTANCES,
    METRICS_TABLE,
    PUBLISHED_TABLE,
    day_before,
    drawn_rows,
    near,
    one_post,
    picked,
    report_data,
)
from tests.report.reading import WIDTHS, opened
from tests.rollups.reference import group_of, total

HEADLINES = (
    "organic_impressions",
    "paid_impressions",
    "paid_share_of_impressions",
    "organic_engagements",
    "paid_engagements",
    "paid_share_of_engagements",
    "organic_engagement_rate",
    "paid_engagement_rate",
    "paid_lift",
)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_is_accessible_and_fits_at_each_width(
    width: int, scheme: Literal["light", "dark"], browser: Browser, incomplete: ReportData, tmp_path: Path
) -> None:
    with opened(browser, incomplete, tmp_path, width=width, scheme=scheme) as report:
        page = report.page
        for summary in page.locator("summary").all():
            summary.click()
        page.screenshot(path=tmp_path / f"report-{width}-{scheme}.png", full_page=True)
        violations = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
        assert [(each["id"], each["nodes"][0]["html"]) for each in violations] == []
        assert page.evaluate("document.documentElement.scrollWidth") == width
        ink, paper = page.evaluate(
            "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
        )
        assert (_lightness(ink) > _lightness(paper)) is (scheme == "dark")
        assert _line_colour(page) == {"light": "rgb(11, 101, 163)", "dark": "rgb(98, 176, 236)"}[scheme]


def test_it_prints_in_light_whatever_the_screen(browser: Browser, incomplete: ReportData, tmp_path: Path) -> None:
    with opened(browser, incomplete, tmp_path, scheme="dark") as report:
        report.page.emulate_media(media="print")
        assert report.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        report.page.set_viewport_size({"width": 718, "height": 1000})  # A4 less its margins
        assert report.page.evaluate("document.documentElement.scrollWidth") == 718
        assert report.page.pdf().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("period", "instance", "campaign"),
    [(28, None, None), (28, INSTANCES[1], None), (7, None, CAMPAIGNS[0]), (90, INSTANCES[0], CAMPAIGNS[1])],
)
def test_every_number_is_that_of_the_raw_rows(
    period: int, instance: str | None, campaign: int | None, browser: Browser, tmp_path: Path
) -> None:
    seed = SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    cells = drawn_rows(seed)

    def of(table: str, ages: range) -> list[Any]:
        return picked(cells, table, ages, instance_id=instance, campaign_id=campaign)

    recorded, published = (of(table, range(period)) for table in (METRICS_TABLE, PUBLISHED_TABLE))
    with opened(browser, report_data(cells), tmp_path) as report:
        report.pick("period", f"Last {period} days")
        report.pick("instance", instance or "All")
        report.pick("campaign", str(campaign or "All"))

        now, before = group_of(recorded), _group_or_none(of(METRICS_TABLE, range(period, 2 * period)))
        for name in HEADLINES:
            assert report.figure(name) == near(now[name]), name
            if 2 * period <= 70:
                assert report.before(name) == near(before[name]), name

        days = {str(day_before(age)): of(METRICS_TABLE, range(age, age + 1)) for age in range(period)}
        assert [[row[0], *row[1], *row[2]] for row in report.rows("days")] == [
            [day, total(row["impressions"] for row in rows), total(row["paid_impressions"] for row in rows)]
            for day, rows in days.items()
        ]

        wanted = {
            (_named(name), key): [near(now[field]) for field in _RATE_FIELDS]
            for key in ("platform", "content_type")
            for name, rows in _by(recorded, key).items()
            for now in [group_of(rows)]
        }
        kinds = ["platform" if kind == "of-platform" else "content_type" for kind in _classes(report, "rates")]
        found = {(row[0], kind): _flat(row[1:]) for row, kind in zip(report.rows("rates"), kinds, strict=True)}
        assert found == wanted

        campaigns = _by(published, "campaign_id")
        shown = report.rows("campaigns")
        assert len(shown) == 2 * len(campaigns)
        for number, row in enumerate(shown):
            channel = ("organic", "paid")[number % 2]
            name = shown[number - number % 2][0]
            group = group_of(campaigns[int(name)])
            spend, impressions, engagements, cpe, cpm, posts = row[-6:]
            assert impressions == [group[f"{channel}_impressions"]]
            assert engagements == [group[f"{channel}_engagements"]]
            assert posts == [group[f"{channel}_spend_posts"], len(campaigns[int(name)])]
            for cell, cost in ((spend, "spend"), (cpe, "cpe"), (cpm, "cpm")):
                low, high = (near(group[f"{channel}_{cost}_{side}"]) for side in ("minimum", "maximum"))
                assert cell == ([None] if low is None else [low, high])

        if report.page.locator("#all-creators").is_visible():
            report.page.locator("#all-creators").click()
        creators = {
            f"Creator № {name}" if name else "Unknown creator": group_of(rows)
            for name, rows in _by(recorded, "creator_id").items()
        }
        ranked = report.rows("creators")
        assert {row[1]: _flat(row[2:]) for row in ranked} == {
            name: [total(group[f"{channel}_engagements"] for channel in ("organic", "paid"))]
            + [near(group[field]) for field in _CREATOR_FIELDS]
            for name, group in creators.items()
        }
        engagements = [row[2][0] for row in ranked]
        assert engagements == sorted(engagements, key=lambda value: (value is None, -(value or 0)))

        assert [_flat(row[1:]) for row in report.rows("coverage")] == [
            [sum(row[metric.column] is not None for row in published), len(published)] for metric in DOCUMENT_METRICS
        ]
        assert report.miswritten() == []
        bars = report.words_in("coverage")
        assert f"{sum(row['impressions'] is not None for row in published):,} of {len(published):,}" in bars


_RATE_FIELDS = (
    "organic_impressions",
    "organic_engagement_rate",
    "paid_impressions",
    "paid_engagement_rate",
    "paid_lift",
)
_CREATOR_FIELDS = (
    "organic_engagements",
    "paid_engagements",
    "organic_impressions",
    "paid_impressions",
    "organic_engagement_rate",
    "paid_engagement_rate",
    "paid_lift",
)


def test_what_is_missing_is_said_on_the_first_screen(browser: Browser, incomplete: ReportData, tmp_path: Path) -> None:
    with opened(browser, incomplete, tmp_path) as report:
        assert report.missing() == [
            f"{INSTANCES[2]} is stale: its newest day is {day_before(3)}, 3 days behind.",
            f"{day_before(9)} is missing for {INSTANCES[0]}.",
            f"{day_before(14)} is missing for all 3 instances.",
            f"3 rows of {INSTANCES[1]} are quarantined and in no figure: impressions: 8500.5 is not a whole number.",
        ]
        for place in ("#missing li", "#headline .value"):
            for found in report.page.locator(place).all():
                box = found.bounding_box()
                assert box is not None
                assert box["y"] + box["height"] <= 800
        report.pick("instance", INSTANCES[0])
        assert report.missing() == [f"{day_before(14)} and {day_before(9)} are missing for {INSTANCES[0]}."]
        assert "1 gap to know of" in report.page.locator("#told").inner_text()


def test_a_change_is_told_where_as_many_days_have_landed(
    browser: Browser, incomplete: ReportData, tmp_path: Path
) -> None:
    cells = drawn_rows(7, days=56)
    change = "#change-organic_impressions"
    with opened(browser, report_data(cells), tmp_path) as report:
        now, before = report.figure("organic_impressions"), report.before("organic_impressions")
        assert now is not None
        assert before is not None
        percent = (now - before) / before * 100
        sign = "+" if percent > 0 else "−"
        assert report.page.locator(change).inner_text() == f"{sign}{abs(percent):.1f} % from {before:,.0f}"
        now, before = report.figure("organic_engagement_rate"), report.before("organic_engagement_rate")
        assert now is not None
        assert before is not None
        sign = "+" if now > before else "−"
        told = report.page.locator("#change-organic_engagement_rate").inner_text()
        assert told == f"{sign}{abs(now - before):.2f} points from {before:.2f}\u00a0%"
    with opened(browser, incomplete, tmp_path) as report:
        assert report.page.locator(change).inner_text().startswith("before: ")
        said = report.page.locator("#missing").inner_text()
        assert "The periods differ in how many days have landed" in said


def test_a_metric_that_was_asked_for_is_told_of_where_a_post_reports_it(browser: Browser, tmp_path: Path) -> None:
    with opened(browser, report_data(one_post(likes=0)), tmp_path) as report:
        assert [row[0] for row in report.rows("coverage")][len(DOCUMENT_METRICS) :] == ["Likes"]


def test_where_nothing_is_missing_it_says_so(browser: Browser, tmp_path: Path) -> None:
    with opened(browser, report_data(drawn_rows(2, days=14)), tmp_path) as report:
        (said,) = report.missing()
        assert said.startswith("Nothing: ")


def test_an_instance_of_which_nothing_landed_is_named(browser: Browser, tmp_path: Path) -> None:
    data = report_data(one_post(), registered=["a", "never landed"])
    with opened(browser, data, tmp_path) as report:
        assert report.missing() == ["Nothing of never landed has landed."]


def test_what_there_is_too_much_of_is_counted_and_listed_below(browser: Browser, tmp_path: Path) -> None:
    data = report_data(one_post(), registered=[f"instance_{number}" for number in range(6)])
    with opened(browser, data, tmp_path) as report:
        *_, last = report.missing()
        assert last == "3 more of these, in Coverage and freshness."
        expect(report.page.locator("#all-missing li")).to_have_count(3)


@pytest.mark.parametrize(
    ("impressions", "shown"), [(None, "not available"), (0, "0"), (1234, "1,234")], ids=["null", "zero", "present"]
)
def test_null_zero_and_present_read_differently_everywhere(
    impressions: int | None, shown: str, browser: Browser, tmp_path: Path
) -> None:
    engagements = None if impressions is None else impressions // 2
    post = one_post(impressions=impressions, engagements=engagements, platform="tiktok", content_type="tiktok")
    with opened(browser, report_data(post), tmp_path) as report:
        page = report.page
        rate = {None: "not available", 0: "not available", 1234: "50.00\u00a0%"}[impressions]
        assert page.locator("#figure-organic_impressions").inner_text() == shown
        assert page.locator("#figure-organic_engagement_rate").inner_text() == rate
        assert page.locator("#figure-paid_impressions").inner_text() == "not available"
        page.locator("summary").first.click()
        assert page.locator("#days tr").first.locator("td").first.inner_text() == shown
        assert shown in page.locator("#creators td").all_inner_texts()
        assert shown in page.locator("#campaigns td").all_inner_texts()
        assert report.words_in("platform_rates") == ["tiktok", rate, "not available"]
        styles = {
            (found.inner_text() == "not available"): found.evaluate("each => getComputedStyle(each).fontStyle")
            for found in page.locator("#headline .value > *").all()
        }
        assert styles == ({True: "italic"} if impressions is None else {True: "italic", False: "normal"})


def test_a_headline_of_billions_fits(browser: Browser, tmp_path: Path) -> None:
    with opened(browser, report_data(one_post(impressions=12_345_678_901)), tmp_path, width=375) as report:
        assert report.page.locator("#figure-organic_impressions").inner_text() == "12.35\u00a0bn"
        assert report.figure("organic_impressions") == 12_345_678_901
        assert report.page.evaluate("document.documentElement.scrollWidth") == 375


def test_names_and_links_of_creators_are_data(browser: Browser, tmp_path: Path) -> None:
    hostile = '</script><script>window.pwned=1</script><img src=x onerror="window.pwned=1">\u202e${1}<!--'
    link = "javascript:window.pwned=1"
    data = report_data(
        one_post(
            impressions=5,
            engagements=1,
            creator_full_name=hostile,
            creator_handle_name=hostile,
            creator_profile_link=link,
            content_type=hostile,
        ),
        registered=["a", hostile],
        set_aside=[SetAside(METRICS_TABLE, None, None, hostile, 1)],
    )
    with opened(browser, data, tmp_path) as report:
        page = report.page
        assert page.evaluate("window.pwned") is None
        assert page.locator("img").count() == 0
        assert page.locator("a:not([href^='#'])").count() == 0
        assert page.locator("#creators bdi").first.text_content() == hostile
        report.pick("instance", hostile)
        assert page.evaluate("window.pwned") is None


def test_a_creator_is_linked_without_telling_where_from(browser: Browser, tmp_path: Path) -> None:
    data = report_data(one_post(impressions=5, creator_handle_name="jane", creator_profile_link="https://a.example/j"))
    with opened(browser, data, tmp_path) as report:
        link = report.page.locator("#creators a")
        assert link.get_attribute("href") == "https://a.example/j"
        assert link.get_attribute("rel") == "noopener noreferrer"


def test_it_works_by_keyboard_and_tells_of_changes(browser: Browser, incomplete: ReportData, tmp_path: Path) -> None:
    with opened(browser, incomplete, tmp_path) as report:
        page = report.page
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the figures")).to_be_focused()
        assert page.locator("#told").inner_text() == ""
        page.locator("#instance").focus()
        page.keyboard.press("ArrowDown")
        expect(page.locator("#told")).to_contain_text(f"The last 28 days, {INSTANCES[0]}, all campaigns")
        page.get_by_role("button", name="Paid engagements").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Paid engagements")).to_be_focused()
        column = [row[4][0] for row in report.rows("creators")]
        assert column == sorted(column, key=lambda value: (value is None, -(value or 0)))
        page.keyboard.press("Enter")
        expect(page.locator("th[aria-sort='ascending']")).to_contain_text("Paid engagements")
        column = [row[4][0] for row in report.rows("creators")]
        assert column == sorted(column, key=lambda value: (value is None, value or 0))


def _line_colour(page: Page) -> str:
    """The colour of the first line of the picture over time, as it is seen."""
    colour: str = page.locator("#picture-impressions path[stroke='var(--organic)']").first.evaluate(
        "line => getComputedStyle(line).stroke"
    )
    return colour


def _lightness(colour: str) -> int:
    return sum(map(int, re.findall(r"\d+", colour)[:3]))


def _flat(cells: list[list[Any]]) -> list[Any]:
    return [value for cell in cells for value in cell]


def _classes(report: Any, body: str) -> list[str]:
    found: list[str] = report.page.locator(f"#{body} tr").evaluate_all("rows => rows.map(row => row.className)")
    return found


def _named(name: str | None) -> str:
    return (name or "other").replace("_", " ")


def _by(rows: list[Any], key: str) -> dict[Any, list[Any]]:
    groups: dict[Any, list[Any]] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    return groups


def _group_or_none(rows: list[Any]) -> dict[str, Any]:
    return group_of(rows) if rows else dict.fromkeys(HEADLINES)
