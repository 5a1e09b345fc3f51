"""The page in a browser: at each width, in light and dark, without network; its numbers equal the reference."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import Browser, expect

from later_reporting_dagster.lake import Partition
from later_reporting_dagster.report.report_data import MOST_CREATORS, QuarantinedRows, ReportData
from later_reporting_dagster.report.report_page import json_for_html, report_page, web_link
from tests.report.conftest import INSTANCES, report_of
from tests.report.report_browser import open_report
from tests.rollups.conftest import row
from tests.rollups.reference import Row, World, over_windows
from tests.rollups.worlds import NEWEST, agree, campaign, period


def one_post(**fields: Any) -> World:
    """Return a world of a week of one instance. The newest day has one post, published and recorded on it."""
    files: dict[Any, list[Row]] = {(NEWEST - timedelta(days=number), "a"): [] for number in range(7)}
    published = datetime(NEWEST.year, NEWEST.month, NEWEST.day, tzinfo=UTC)
    files[NEWEST, "a"] = [row(campaign_id=7, creator_id=1, post_date=published, **fields)]
    return World(files, files)


def share_of_engagements(overall: Row) -> Any:
    return 100 * overall["paid_engagements"] / (overall["organic_engagements"] + overall["paid_engagements"])


@pytest.fixture(scope="module")
def rows_of(world: World) -> Callable[..., list[Row]]:
    """A function that returns rows of the reference in a window that have posts, with the given values."""
    compute = cache(lambda table: [*over_windows(world, table)])

    def wanted(table: str, window: str, **scope: Any) -> list[Row]:
        rows = [each for each in compute(table) if each["time_window"] == window]
        return [each for each in rows if all(each[name] == value for name, value in scope.items())]

    return wanted


def test_chosen_campaign_is_counted_alone_and_what_it_does_not_filter_is_named(
    browser: Browser, report_of_world: ReportData, tmp_path: Path
) -> None:
    with open_report(browser, report_of_world, tmp_path) as report:
        note = report.page.locator("#of-instance")
        assert not note.is_visible()
        report.choose("campaign", report.page.locator("#campaign option").nth(1).inner_text())
        assert note.is_visible()
        (row,) = report.rows("campaigns")
        assert row[report.columns("campaigns")["Organic impressions"]][0] == report.figure("organic_impressions")


@pytest.mark.parametrize(("width", "scheme"), [(375, "dark"), (1280, "light")])
def test_page_is_accessible_and_fits(
    width: int, scheme: Literal["light", "dark"], browser: Browser, report_of_world: ReportData, tmp_path: Path
) -> None:
    with open_report(browser, report_of_world, tmp_path, width=width, scheme=scheme) as report:
        page = report.page
        assert page.evaluate("document.documentElement.scrollHeight") < 4000
        report.open_all()
        violations = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
        assert [(each["id"], each["nodes"][0]["html"]) for each in violations] == []
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert report.cut_off() == []


def test_first_screen_has_a_picture_the_rates_and_what_is_missing(
    browser: Browser, rows_of: Callable[..., list[Row]], report_of_world: ReportData, tmp_path: Path
) -> None:
    (overall,) = rows_of("organic_paid_overall", "28d", instance_id="")
    with open_report(browser, report_of_world, tmp_path) as report:
        shown = [float(each.get_attribute("value") or "") for each in report.page.locator("#headline data").all()]
        wanted = [
            *(overall["paid_share_of_impressions"], share_of_engagements(overall)),
            *(overall["ad_spend"], overall["ad_spend_per_engagement"]),
            *(overall["paid_engagement_rate"], overall["organic_engagement_rate"]),
        ]
        assert shown == pytest.approx([*map(float, wanted)], rel=1e-6)
        words = report.page.locator("body").inner_text()
        assert not re.search(r"\b(better|worse|higher|lower|lift|wins?)\b", words, re.IGNORECASE)
        first, last = NEWEST + timedelta(days=1), NEWEST + timedelta(days=2)
        assert report.missing() == [
            f"{first} to {last} are missing for {INSTANCES[0]} (daily metrics).",
            f"{first} is missing for {INSTANCES[1]} (published posts).",
            f"{first} is missing (campaign totals).",
            f"3 rows of {INSTANCES[1]} are invalid and not counted: impressions: 8500.5 is not a whole number.",
        ]
        for place in ("#headline", "#missing li:not(.aside)", "#kpis .value", "#chart-impressions", "#chart-rates"):
            for found in report.page.locator(place).all():
                box = found.bounding_box()
                assert box is not None
                assert box["y"] + box["height"] <= 800


def test_lines_are_drawn_to_scale_and_fit_any_width(
    browser: Browser, report_of_world: ReportData, tmp_path: Path
) -> None:
    with open_report(browser, report_of_world, tmp_path) as report:
        report.open_all()
        days, places = report.rows("days"), report.columns("days")
        for chart, measure in (("impressions", "impressions"), ("rates", "rate")):
            channels = ("Organic", "Paid")
            values = [[each[places[f"{channel} {measure}"]][0] for each in reversed(days)] for channel in channels]
            zero, highest = report.height_of(chart, "0"), max(value for line in values for value in line if value)
            heights = [[zero - y for _, y in line] for line in report.lines(chart)]
            scale = max(map(max, heights)) / highest
            for line, drawn in zip(values, heights, strict=True):
                assert drawn == pytest.approx([value * scale for value in line if value is not None])
        label = report.page.locator("#chart-rates .value").last.text_content() or ""
        assert zero - report.height_of("rates", label) == pytest.approx(float(label) * scale)
        tooltips = report.page.locator("#chart-impressions title").all_text_contents()
        assert len(tooltips) == len(days)
        assert tooltips[-1].startswith(f"{NEWEST}: organic ")
        report.page.set_viewport_size({"width": 375, "height": 740})
        assert report.cut_off() == []
        assert all(0 <= x <= 375 for line in report.lines("rates") for x, _ in line)


def test_line_has_a_gap_on_days_without_a_value_and_marks_incomplete_ones(browser: Browser, tmp_path: Path) -> None:
    world = one_post(impressions=5, engagements=1)
    (post,) = world.recorded[NEWEST, "a"]
    for age in (2, 3):
        world.recorded[NEWEST - timedelta(days=age), "a"].append(post)  # type: ignore[attr-defined]
    missing = {"post_metrics_daily": [Partition(NEWEST - timedelta(days=1), "b")]}
    with open_report(browser, report_of(world, expected=missing), tmp_path) as report:
        organic, paid = [report.page.locator(f"#chart-impressions path.{name}") for name in ("organic", "paid")]
        assert re.sub(r"[\d.,]", "", organic.get_attribute("d") or "") == "MLM"
        assert paid.get_attribute("d") == ""
        assert report.page.locator("#chart-impressions circle").count() == 1
        assert report.page.locator("#chart-impressions .incomplete").count() == 1


def test_bars_are_drawn_to_scale_beside_their_numbers(
    browser: Browser, report_of_world: ReportData, rows_of: Callable[..., list[Row]], tmp_path: Path
) -> None:
    rows = rows_of("organic_paid_by_platform", "28d", instance_id="")
    rates = {
        f"{each['platform'] or 'other'}, {channel}": each[f"{channel}_engagement_rate"]
        for each in rows
        for channel in ("organic", "paid")
    }
    highest = float(max(filter(None, rates.values())))
    with open_report(browser, report_of_world, tmp_path) as report:
        bars = report.bars()
        assert bars.keys() == rates.keys()
        longest = max(width for width, _ in bars.values())
        for name, (width, label) in bars.items():
            rate = rates[name]
            assert width == pytest.approx(longest * float(rate or 0) / highest, abs=0.1)
            assert label.startswith("–" if rate is None else f"{float(rate):.2f}\u00a0% · ")


# Days of files, and how old the oldest and the newest day with posts are.
FEW_DAYS = [
    *((files, files - 1, 0) for files in (1, 3, 5, 7, 8, 29, 30)),
    *((30, oldest, newest) for oldest, newest in ((0, 0), (4, 0), (29, 7), (29, 28))),
]


@pytest.mark.parametrize(("files", "oldest", "newest"), FEW_DAYS)
def test_any_few_days_of_files_and_posts_are_shown(
    files: int, oldest: int, newest: int, browser: Browser, tmp_path: Path
) -> None:
    posts_of = {age: [row(impressions=10, engagements=1)] for age in range(newest, oldest + 1)}
    days = {(NEWEST - timedelta(days=age), "a"): posts_of.get(age, []) for age in range(files)}
    with open_report(browser, report_of(World(days, days)), tmp_path) as report:
        ages = {f"Last {days} days": range(days) for days in (7, 28, 90) if days == 7 or files > (7, 28)[days > 28]}
        months = {"This month (March)": range(6), "Last month (February)": range(6, 35)}
        ages |= {name: of_month for name, of_month in months.items() if posts_of.keys() & {*of_month}}
        periods = report.page.locator("#period option").all_inner_texts()
        assert periods == [*ages]
        assert report.page.locator("#period").input_value() == ("28d" if files > 7 else "7d")
        for period in reversed(periods):
            report.choose("period", period)
            shown = len(posts_of.keys() & {*ages[period]})
            assert report.figure("organic_impressions") == (10 * shown or None)
            report.open_all()


def test_page_that_throws_says_so(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    page = browser.new_page()
    html = report_page(report_of(one_post(impressions=5, engagements=1))).decode()
    for text, failed in ((html, False), (html.replace('"window":"7d"', '"window":"28d"'), True)):
        file.write_text(text)
        page.goto(file.as_uri())
        assert page.locator("#failed").is_visible() is failed
    expect(page.locator("#failed")).to_contain_text("This page has failed, ")
    page.close()


def test_days_after_the_period_do_not_count_as_missing_in_it(
    browser: Browser, report_of_world: ReportData, tmp_path: Path
) -> None:
    missing = {**report_of_world.missing, "posts_published": {INSTANCES[1]: {NEWEST + timedelta(days=1), NEWEST}}}
    with open_report(browser, replace(report_of_world, missing=missing), tmp_path) as report:
        report.open_all()
        places = report.columns("received")
        counts = {
            each[0]: [each[places[f"Missing {label}"]][0] for label in ("daily metrics", "published posts")]
            for each in report.rows("received")
        }
        assert counts == {INSTANCES[0]: [0, 0], INSTANCES[1]: [0, 1]}


def test_missing_is_nothing_only_if_nothing_is(browser: Browser, tmp_path: Path) -> None:
    world = one_post(impressions=5, engagements=1)
    with open_report(browser, report_of(world), tmp_path) as report:
        assert report.missing() == ["Nothing."]
        assert report.page.locator("#missing .good").count() == 1
    silent = one_post(impressions=None, engagements=1)
    outdated = "Outdated: organic_paid_by_platform (missing)."
    old = period("7d", last_day=NEWEST - timedelta(days=3), campaign_id=7, paid_ad_spend=3.0)
    world = replace(silent, campaigns=[campaign(campaign_id=7)], periods=[old])
    with open_report(browser, report_of(world, outdated=[outdated]), tmp_path) as report:
        assert report.missing() == [
            outdated,
            "Ad spend, return, reach, clicks and conversions of 1 campaign are left out:"
            f" Later's totals are of {NEWEST - timedelta(days=9)} to {NEWEST - timedelta(days=3)}.",
            "No post of tiktok reports impressions (1 post), so it has no rate.",
        ]
        assert report.page.locator("#missing .good").count() == 0
        (row,) = report.rows("campaigns")
        assert row[report.columns("campaigns")["Ad spend"]] == [None]


@pytest.mark.parametrize(
    ("days", "period", "begin", "weeks"),
    [(203, 365, [f"The data begin on {NEWEST - timedelta(days=202)}: the period has 202 of 365 days."], 29),
     (730, 730, ["Nothing."], 104)],
)  # fmt: skip
def test_oldest_day_is_exact_although_old_days_are_shown_by_week(
    days: int, period: int, begin: list[str], weeks: int, browser: Browser, tmp_path: Path
) -> None:
    ages = [0, *range(2, days)]  # one day is missing
    world = World({(NEWEST - timedelta(days=age), "a"): [row(impressions=1, engagements=0)] for age in ages}, {})
    with open_report(browser, report_of(world), tmp_path) as report:
        report.choose("period", f"Last {period} days")
        report.open_all()
        assert report.missing() == begin
        assert len(report.rows("days")) == weeks


def test_changes_are_shown_if_both_periods_have_all_days(
    browser: Browser, report_of_world: ReportData, rows_of: Callable[..., list[Row]], tmp_path: Path
) -> None:
    with open_report(browser, report_of_world, tmp_path) as report:
        compared, change = report.page.locator("#compared"), report.page.locator("#change-organic_impressions")
        (overall,) = rows_of("organic_paid_overall", "28d", instance_id="")
        now, before = overall["organic_impressions"], overall["previous_organic_impressions"]
        difference = 100 * (now - before) / before
        sign = "+" if difference > 0 else "−"
        assert change.inner_text() == f"{sign}{abs(float(difference)):.1f}\u00a0%"
        first, last = overall["previous_first_day"], overall["previous_last_day"]
        assert compared.inner_text() == f"Changes: against {first} to {last}."
        report.choose("period", "Last 90 days")
        assert change.inner_text() == ""
        text = "No changes are shown: there are only 60 of the 90 days and 0 of the 90 days before."
        assert compared.inner_text() == text


def test_months_are_periods_with_their_days_and_changes_of_rates(browser: Browser, tmp_path: Path) -> None:
    days = [date(2024, 1, 1) + timedelta(days=number) for number in range((NEWEST - date(2024, 1, 1)).days + 1)]
    world = World({(day, "a"): [row(impressions=100, engagements=day.month)] for day in days}, {})
    with open_report(browser, report_of(world), tmp_path) as report:
        dates, compared = report.page.locator("#dates"), report.page.locator("#compared")
        impressions, rate = (
            report.page.locator(f"#change-organic_{name}") for name in ("impressions", "engagement_rate")
        )
        report.choose("period", "This month (March)")
        assert dates.inner_text() == "2024-03-01 to 2024-03-06"
        assert report.figure("organic_impressions") == 600
        assert compared.inner_text() == "Changes: against 2024-02-01 to 2024-02-06."
        assert (impressions.inner_text(), rate.inner_text()) == ("±0.0\u00a0%", "+1.00 points")
        report.choose("period", "Last month (February)")
        assert dates.inner_text() == "2024-02-01 to 2024-02-29"
        assert report.figure("organic_impressions") == 2900
        of_rates = "Changes of rates only, because months differ in length: against 2024-01-01 to 2024-01-31."
        assert compared.inner_text() == of_rates
        assert (impressions.inner_text(), rate.inner_text()) == ("", "+1.00 points")
        report.open_all()
        assert [each[0] for each in report.rows("days")] == [str(day) for day in reversed(days) if day.month == 2]


def test_sums_of_last_month_are_not_compared_even_if_both_months_have_31_days(browser: Browser, tmp_path: Path) -> None:
    days = [date(2023, 7, 1) + timedelta(days=number) for number in range(31 + 31 + 5)]
    world = World({(day, "a"): [row(impressions=100, engagements=day.month)] for day in days}, {})
    with open_report(browser, report_of(world), tmp_path) as report:
        report.choose("period", "Last month (August)")
        changes = [report.page.locator(f"#change-organic_{name}") for name in ("impressions", "engagement_rate")]
        assert [each.inner_text() for each in changes] == ["", "+1.00 points"]


def test_totals_of_other_days_than_the_posts_are_withheld_with_their_reason(
    browser: Browser, report_of_world: ReportData, tmp_path: Path
) -> None:
    with open_report(browser, report_of_world, tmp_path) as report:
        report.choose("period", "Last 90 days")
        reason = "Later's totals cover 90 days, and the lake has 60 of them"
        spend = report.columns("campaigns")["Ad spend"]
        assert {each[spend][0] for each in report.rows("campaigns")} == {None}
        titles = report.page.locator(f"#campaigns td:nth-child({spend + 1}) .null").evaluate_all(
            "all => all.map(each => each.title)"
        )
        assert {*titles} == {reason, "not available"}
        assert report.page.locator("#withheld").inner_text().endswith(f"are left out: {reason}.")
        assert report.figure("ad_spend") is not None  # of posts, and of the same days as all else
        withheld = report.page.locator("#campaigns tr").filter(has=report.page.locator(f'[title="{reason}"]'))
        report.choose("campaign", withheld.first.locator("th").inner_text())
        assert report.figure("ad_spend") is None
        assert f"Ad spend and return are left out: {reason}." in report.page.locator("#basis").inner_text()


def test_account_is_what_later_totals_for_exactly_the_days_of_the_posts(browser: Browser, tmp_path: Path) -> None:
    world = one_post(impressions=50, engagements=5)
    week = {"first_day": NEWEST - timedelta(days=6), "last_day": NEWEST}
    month = {"first_day": NEWEST.replace(day=1), "last_day": NEWEST - timedelta(days=1)}
    rows = [
        {"date_basis": basis, "period": name, **days, "scope": scope, "instance_id": instance,
         "fetched_at": datetime(2024, 3, 7, tzinfo=UTC), "reach": reach, "paid_ad_spend": 9.0, "impressions": 51}
        for basis, name, days, reach in (
            ("performance_date", "7d", week, 40), ("performance_date", "recorded_month", month, 30),
            ("post_date", "published_month", month | {"last_day": NEWEST}, 20),
        )
        for scope, instance in (("all", ""), ("instance", "a"))
    ]  # fmt: skip
    with open_report(browser, report_of(world, accounts=rows), tmp_path) as report:
        for instance in ("All", "a"):
            report.choose("instance", instance)
            report.choose("period", "Last 7 days")
            account = report.tables()["campaigns"][-1]
            assert account["Campaign"] == "Account, as Later totals it"
            assert [account[name] for name in ("Reach", "Ad spend", "Organic impressions")] == [40, 9, 51]
            report.choose("period", "This month (March)")
            account = report.tables()["campaigns"][-1]
            assert [account[name] for name in ("Reach", "Ad spend", "Organic impressions")] == [None, None, None]
            reason = f"Later's totals are of {month['first_day']} to {month['last_day']}"
            assert report.page.locator(f'#table-campaigns tfoot [title="{reason}"]').count() > 0
        report.choose("campaign", "7")
        assert len(report.tables()["campaigns"]) == 1


def test_posts_from_before_the_lake_are_not_counted_as_published(browser: Browser, tmp_path: Path) -> None:
    world, before = one_post(impressions=50, engagements=5), NEWEST - timedelta(days=3)
    published = {key: rows for key, rows in world.published.items() if key[0] != before}
    old = row(campaign_id=7, post_id=2, post_date=datetime(before.year, before.month, before.day, tzinfo=UTC), likes=1)
    recorded = {**world.recorded, (before, "a"): [old]}
    with open_report(browser, report_of(World(recorded, published)), tmp_path) as report:
        assert report.figure("published_posts") == 1
        assert report.figure("posts_of_unknown_cost") == 1
        report.open_all()
        assert [each[1] for each in report.rows("published")] == [[1]]


def test_creators_are_those_with_a_minimum_of_posts_and_the_list_says_how_many(
    browser: Browser, tmp_path: Path
) -> None:
    world = one_post(impressions=50, engagements=5)
    (post,) = world.recorded[NEWEST, "a"]
    posts_of = {1: 1, 2: 3, 3: 4} | dict.fromkeys(range(4, MOST_CREATORS + 2), 1)
    numbers = [(creator, number) for creator, posts in posts_of.items() for number in range(posts)]
    rows = [
        post | {"creator_id": creator, "post_id": 1000 * creator + number, "creator_handle_name": f"at{creator}"}
        for creator, number in numbers
    ]
    files = {**world.recorded, (NEWEST, "a"): rows}
    with open_report(browser, report_of(World(files, files)), tmp_path) as report:
        report.open_all()
        shown = report.page.locator("#creators-shown")
        handles = [each[report.columns("creators")["Handle"]] for each in report.rows("creators")]
        assert {*handles} == {"at2", "at3"}
        cut = " The page has the 100 with the most impressions of each instance."
        assert shown.inner_text() == f"2 of 101 creators are listed.{cut}"
        report.page.locator("#least-posts").select_option("1")
        assert shown.inner_text() == f"100 of 101 creators are listed.{cut}"


def test_null_is_a_dash_and_zero_is_not(browser: Browser, tmp_path: Path) -> None:
    dash = "–\nnot available"
    cases = {
        "null": ({"likes": 1}, dash, dash, "brought –"),
        "zero": ({"impressions": 0, "engagements": 0}, "0", dash, "brought 0 impressions and 0 engagements."),
        "present": ({"impressions": 1234, "engagements": 617}, "1,234", "50.00\u00a0%", "50.0 per 100 impressions."),
    }
    files = {}
    for name, (fields, *_) in cases.items():
        files |= {(day, name): rows for (day, _), rows in one_post(instance_id=name, **fields).recorded.items()}
    with open_report(browser, report_of(World(files, files)), tmp_path) as report:
        for name, (_, impressions, rate, text) in cases.items():
            report.choose("instance", name)
            names = ("organic_impressions", "paid_impressions", "organic_engagement_rate")
            shown = [report.page.locator(f"#figure-{each}").inner_text() for each in names]
            assert shown == [impressions, dash, rate]
            headline = report.page.locator("#headline").inner_text()
            assert headline.startswith("No paid results in this period. Organic posts brought ")
            assert text in headline
            assert "Paid impressions" not in report.columns("campaigns")


NAMES = (
    '</script><img src=x onerror="window.pwned=1"><b>\'${1}<!--',
    "line\r\nbreak\u2028 and\ttab",
    "השקת קיץ \u202e49,000",
    "A very long name of a campaign, with words and more words. " * 8,
    "Unbroken" * 60,
    '＝HYPERLINK("https://a.example")',
)


def test_names_are_text_of_two_lines_at_most(browser: Browser, tmp_path: Path) -> None:
    world = one_post(impressions=5, engagements=1)
    (post,) = world.recorded[NEWEST, "a"]
    posts = [
        post
        | dict.fromkeys(("creator_full_name", "creator_handle_name", "content_type"), name)
        | dict.fromkeys(("campaign_id", "creator_id", "post_id"), number)
        | {"creator_profile_link": "javascript:window.pwned=1"}
        for number, name in enumerate(NAMES, 1)
    ]
    files = {**world.recorded, (NEWEST, "a"): posts}
    campaigns = [campaign(campaign_id=number, campaign_name=name, status=name) for number, name in enumerate(NAMES, 1)]
    data = report_of(World(files, files, campaigns=campaigns))
    bad = [QuarantinedRows("post_metrics_daily", None, None, name, 1) for name in NAMES]
    with open_report(browser, replace(data, quarantined=bad), tmp_path, width=375) as report:
        report.open_all()
        report.page.locator("#least-posts").select_option("1")
        report.open_all()
        page = report.page
        assert page.evaluate("window.pwned") is None
        assert page.locator("img, a:not([href^='#'])").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") == 375
        for table in ("campaigns", "creators"):
            boxes = [each.bounding_box() for each in page.locator(f"#{table} th .name").all()]
            assert len(boxes) == len(NAMES)
            assert max(box["height"] for box in boxes if box) < 50
        found = {each[0] for each in report.download("creators")[1:]}
        assert found == {("'" if name.startswith("＝") else "") + name for name in NAMES}


def test_page_works_by_keyboard_and_announces_changes(
    browser: Browser, report_of_world: ReportData, tmp_path: Path
) -> None:
    with open_report(browser, report_of_world, tmp_path) as report:
        page = report.page
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the figures")).to_be_focused()
        page.locator("#instance").focus()
        page.keyboard.press("ArrowDown")
        expect(page.locator("#announcement")).to_contain_text(f"Last 28 days, {INSTANCES[0]}: Ads brought")
        report.open_all()
        heading = page.locator("[data-table=creators][data-sort=organic_impressions]")
        place = report.columns("creators")["Organic impressions"]
        for sign in (-1, 1):
            heading.focus()
            page.keyboard.press("Enter")
            expect(heading).to_be_focused()
            column = [each[place][0] for each in report.rows("creators")]
            assert column == sorted(column, key=lambda value: (value is None, sign * (value or 0)))


# What the page is made of, and the key figures in the metadata of its asset


@given(st.recursive(st.text(), lambda inner: st.dictionaries(st.text(), inner, max_size=3), max_leaves=5))
def test_json_for_html_has_no_markup_and_round_trips(value: object) -> None:
    text = json_for_html(value)
    assert not re.search("[<>&\u2028\u2029]", text)
    assert json.loads(text) == value


@pytest.mark.parametrize(
    "link",
    [
        *(
            None,
            "",
            "javascript:alert(1)",
            " https://a.example",
            "java\tscript:alert(1)",
            "data:text/html,<p>",
            "//a.example",
        ),
        *("/relative", "https:", "https:\\\\a.example", "http://[", "ftp://a.example"),
    ],
)
def test_web_link_rejects_other_addresses(link: str | None) -> None:
    assert web_link(link) is None
    for web in ("https://a.example", "HTTP://a.example/ü?q=<b>", "https://u@a.example:8080/#x"):
        assert web_link(web) == web


def test_report_page_policy_allows_only_its_own_scripts_and_style(report_of_world: ReportData) -> None:
    page = report_page(report_of_world).decode()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert not re.search("unsafe|http|\\*", policy)
    assert "src=" not in page.split("<script", 1)[0]


def test_key_figures_equal_the_reference(rows_of: Callable[..., list[Row]], report_of_world: ReportData) -> None:
    figures = report_of_world.key_figures
    (expected,) = rows_of("organic_paid_overall", "28d", instance_id="")
    compared = figures.keys() & expected.keys()
    assert len(compared) > 10
    assert not [name for name in compared if not agree(expected[name], figures[name], name)]
