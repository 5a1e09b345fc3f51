"""The page in a browser: at each width, in light and dark, without network; its numbers equal the reference."""

import csv
import io
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
from later_reporting_dagster.report.report_data import QuarantinedRows, ReportData
from later_reporting_dagster.report.report_page import json_for_html, report_page, web_link
from tests.csv_cells import CSV_CELLS
from tests.report.conftest import INSTANCES, report_of
from tests.report.report_browser import WIDTHS, Report, open_report
from tests.rollups.conftest import row
from tests.rollups.reference import Row, World, over_windows
from tests.rollups.worlds import NEWEST, agree, campaign, period


def one_post(**fields: Any) -> World:
    """Return a world of a week of one instance. The newest day has one post, published and recorded on it."""
    files: dict[Any, list[Row]] = {(NEWEST - timedelta(days=number), "a"): [] for number in range(7)}
    published = datetime(NEWEST.year, NEWEST.month, NEWEST.day, tzinfo=UTC)
    files[NEWEST, "a"] = [row(campaign_id=7, creator_id=1, post_date=published, **fields)]
    return World(files, files)


@pytest.fixture(scope="module")
def rows_of(world: World) -> Callable[..., list[Row]]:
    """A function that returns rows of the reference in a window that have posts, with the given values."""
    compute = cache(lambda table: [*over_windows(world, table)])

    def wanted(table: str, window: str, **scope: Any) -> list[Row]:
        rows = [each for each in compute(table) if each["time_window"] == window]
        return [each for each in rows if all(each[name] == value for name, value in scope.items())]

    return wanted


def test_chosen_campaign_is_counted_alone_and_leads_back(
    browser: Browser, report_of_world: ReportData, tmp_path: Path
) -> None:
    with open_report(browser, report_of_world, tmp_path) as report:
        row = report.tables()["campaigns"][0]
        link = report.page.locator("#campaigns tbody a").first
        name = link.inner_text()
        link.click()
        expect(report.page.locator("#title")).to_have_text(f"{name} {row['detail']}")
        assert not report.page.locator("#campaigns").is_visible()
        assert not report.page.locator("#months").is_visible()
        assert report.figure("impressions") == row["Impressions"]
        assert report.text("networks-title") == "Networks of this campaign"
        report.page.get_by_role("link", name="All campaigns").click()
        expect(report.page.locator("#campaigns")).to_be_visible()


def test_selection_is_in_the_address_and_can_be_opened_and_gone_back_to(
    browser: Browser, report_of_world: ReportData, tmp_path: Path
) -> None:
    with open_report(browser, report_of_world, tmp_path) as report:
        report.page.locator("#period").select_option(value="7d")
        report.page.locator("#instance").select_option(label=INSTANCES[1])
        report.page.locator("#campaign").select_option(index=1)
        title, sentence = report.text("title"), report.text("sentence")
        fragment = report.page.evaluate("location.hash")
        report.page.go_back()
        expect(report.page.locator("#campaign")).to_have_value("")
        assert report.text("title") == f"Organic and paid results of {INSTANCES[1]}"
    assert re.fullmatch(r"#period=7d&instance=acme\+%26\+%3Csons%3E&campaign=\d+", fragment)
    with open_report(browser, report_of_world, tmp_path, fragment=fragment) as report:
        assert (report.text("title"), report.text("sentence")) == (title, sentence)
    with open_report(browser, report_of_world, tmp_path, fragment="#period=9d&instance=<b>&campaign=x") as report:
        assert report.text("title") == f"Organic and paid results of all {len(INSTANCES)} instances"


@pytest.mark.parametrize("width", WIDTHS)
def test_page_fits_any_width(width: int, browser: Browser, report_of_world: ReportData, tmp_path: Path) -> None:
    with open_report(browser, report_of_world, tmp_path, width=width) as report:
        report.open_all()
        for period in report.page.locator("#period option").evaluate_all("all => all.map(each => each.value)"):
            report.page.locator("#period").select_option(value=period)
            report.open_all()
            assert report.page.evaluate("document.documentElement.scrollWidth") == width
            assert report.cut_off() == []


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1400, "light")])
def test_page_is_accessible(
    width: int, scheme: Literal["light", "dark"], browser: Browser, report_of_world: ReportData, tmp_path: Path
) -> None:
    with open_report(browser, report_of_world, tmp_path, width=width, scheme=scheme) as report:
        report.open_all()
        violations = Axe().run(report.page, options={"resultTypes": ["violations"]}).response["violations"]
        assert [(each["id"], each["nodes"][0]["html"]) for each in violations] == []


def test_sentence_says_what_was_spent_and_recorded(
    browser: Browser, rows_of: Callable[..., list[Row]], report_of_world: ReportData, tmp_path: Path
) -> None:
    (overall,) = rows_of("organic_paid_overall", "28d", instance_id="")
    with open_report(browser, report_of_world, tmp_path) as report:
        found = report.page.locator("#sentence data").evaluate_all("all => all.map(each => Number(each.value))")
        sums = [
            sum(overall[f"{side}_{name}"] for side in ("organic", "paid")) for name in ("impressions", "engagements")
        ]
        wanted = [overall["ad_spend"], sums[0], overall["paid_share_of_impressions"], sums[1]]
        assert [found[0], *found[2:]] == pytest.approx([*map(float, wanted)], rel=1e-6)
        assert re.fullmatch(
            r"In the 28 days to 6 March 2024, all 2 instances spent \$[\d,.]+( M)? on ads( \(.\d+ %\))? and"
            r" (at least )?\$[\d,.]+ on creators, for the posts published in them\. Recorded in these days: "
            r"[\d,.]+( M)? impressions \(\d+ % by ads\) and [\d,.]+( M)? engagements\.",
            report.text("sentence"),
        )
        words = report.page.locator("body").inner_text()
        assert not re.search(r"\b(better|worse|higher|lower|lift|wins?)\b", words, re.IGNORECASE)


def test_what_is_missing_is_named_on_the_first_screen(
    browser: Browser, report_of_world: ReportData, tmp_path: Path
) -> None:
    with open_report(browser, report_of_world, tmp_path) as report:
        missing = report.missing()
        assert missing[:2] == [
            f"7 Mar 2024 – 8 Mar 2024 of {INSTANCES[0]} are missing. Daily metrics.".replace("7 Mar 2024 –", "7 Mar –"),
            f"7 Mar 2024 of {INSTANCES[1]} is missing. Published posts.",
        ]
        assert missing[2] == "7 Mar 2024 is missing. Campaign totals."
        for place in ("#sentence", "#cards", "#missing"):
            box = report.page.locator(place).bounding_box()
            assert box is not None
            assert box["y"] + box["height"] <= 900
        for place in ("#time", "#campaigns"):
            box = report.page.locator(place).bounding_box()
            assert box is not None
            assert box["y"] <= 1800


def test_columns_are_drawn_to_scale_and_say_their_values(
    browser: Browser, report_of_world: ReportData, tmp_path: Path
) -> None:
    with open_report(browser, report_of_world, tmp_path) as report:
        report.open_all()
        days = [*reversed(report.tables()["days"])]
        scales = []
        for channel in ("organic", "paid"):
            values = [
                day[f"{channel.capitalize()} impressions"] for day in days if day[f"{channel.capitalize()} impressions"]
            ]
            heights = [height for _, height in report.columns(f"{channel}:not(.spend)")]
            scales += [(height + 0.05) / value for value, height in zip(values, heights, strict=True)]
        assert max(scales) == pytest.approx(min(scales), rel=0.2)
        tips = report.tips()
        assert len(tips) == len(days)
        first = days[-1]
        total = first["Organic impressions"] + first["Paid impressions"]
        assert tips[-1].replace("\u00a0", " ").startswith(f"6 Mar 2024\nImpressions {total:,}\n")
        report.page.set_viewport_size({"width": 390, "height": 740})
        assert report.cut_off() == []
        assert all(0 <= x <= 390 for x, _ in report.columns("organic"))


def test_label_of_the_peak_covers_no_column(browser: Browser, report_of_world: ReportData, tmp_path: Path) -> None:
    with open_report(browser, report_of_world, tmp_path) as report:
        for period in ("7d", "28d", "90d", "last_month"):
            report.page.locator("#period").select_option(value=period)
            campaigns = report.page.locator("#campaign option").evaluate_all("all => all.map(each => each.value)")
            for campaign in campaigns:
                report.page.locator("#campaign").select_option(value=campaign)
                assert (period, campaign, report.covered_columns()) == (period, campaign, 0)


def test_highest_ad_spend_of_a_day_is_labelled(browser: Browser, report_of_world: ReportData, tmp_path: Path) -> None:
    was_not_at_the_peak = False
    with open_report(browser, report_of_world, tmp_path) as report:
        for campaign in report.page.locator("#campaign option").evaluate_all("all => all.map(each => each.value)"):
            report.page.locator("#campaign").select_option(value=campaign)
            days = [dict(line.rsplit(" ", 1) for line in tip.splitlines()[1:]) for tip in report.tips()]
            spend, impressions = (
                [float(day.get(name, "0").strip("$").replace(",", "")) for day in days]
                for name in ("Ad spend", "Impressions")
            )
            labels = report.page.locator("#chart text.label").all_text_contents()
            shown = [float(each.strip("$").replace(",", "")) for each in labels if each.startswith("$")]
            assert shown == ([round(max(spend))] if any(spend) else [])
            was_not_at_the_peak |= max(spend) > spend[impressions.index(max(impressions))]
    assert was_not_at_the_peak


def test_day_without_a_value_has_no_column_and_incomplete_ones_are_hatched(browser: Browser, tmp_path: Path) -> None:
    world = one_post(impressions=5, engagements=1)
    (post,) = world.recorded[NEWEST, "a"]
    for age in (2, 3):
        world.recorded[NEWEST - timedelta(days=age), "a"].append(post)  # type: ignore[attr-defined]
    missing = {"post_metrics_daily": [Partition(NEWEST - timedelta(days=1), "b")]}
    with open_report(browser, report_of(world, expected=missing), tmp_path) as report:
        assert len(report.columns("organic")) == 3
        assert report.columns("paid") == []
        assert len(report.columns("lacking")) == 1
        assert [tip.splitlines()[-1] for tip in report.tips() if "Missing" in tip] == ["Missing: b"]


def test_chart_is_read_by_arrow_keys(browser: Browser, report_of_world: ReportData, tmp_path: Path) -> None:
    with open_report(browser, report_of_world, tmp_path) as report:
        report.page.locator("#chart").focus()
        tips = report.tips()
        for key, place in (("ArrowLeft", -1), ("ArrowLeft", -2), ("ArrowRight", -1)):
            report.page.keyboard.press(key)
            expect(report.page.locator("#tip")).to_have_text(tips[place])
            assert report.page.locator("#announcement").inner_text() == tips[place].replace("\n", " ")
        report.page.keyboard.press("Escape")
        expect(report.page.locator("#tip")).not_to_be_visible()


def test_bars_of_cost_are_drawn_to_scale(browser: Browser, report_of_world: ReportData, tmp_path: Path) -> None:
    with open_report(browser, report_of_world, tmp_path) as report:
        report.open_all()
        widths = report.page.locator("#campaigns tbody .bar").evaluate_all(
            "bars => bars.map(bar => [...bar.children].map(part => parseFloat(part.style.width)))"
        )
        rows = [row for row in report.tables()["campaigns"][:-1] if row["Known cost"] is not None]
        longest = max(row["Known cost"] for row in rows)
        wanted = [
            [100 * (row[head] or 0) / longest for head in ("Creators, posts of known cost", "Ads")] for row in rows
        ]
        assert widths == [pytest.approx(each, abs=0.01) for each in wanted]


def test_rows_are_sorted_by_a_heading_and_cards_have_their_labels(
    browser: Browser, report_of_world: ReportData, tmp_path: Path
) -> None:
    with open_report(browser, report_of_world, tmp_path) as report:
        report.open_all()
        heading = report.page.locator("[data-table=creators][data-sort=organic_impressions]")
        for sign in (-1, 1):
            heading.click()
            column = [row["Organic impressions"] for row in report.tables()["creators"]]
            assert column == sorted(column, key=lambda value: (value is None, sign * (value or 0)))
        report.page.set_viewport_size({"width": 390, "height": 740})
        expect(report.page.locator("#creators thead")).not_to_be_visible()
        labels = report.page.locator("#creators td").evaluate_all("all => all.map(each => each.dataset.label)")
        assert all(labels)


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
        months = {"This month": range(6), "February": range(6, 35)}
        ages |= {name: of_month for name, of_month in months.items() if posts_of.keys() & {*of_month}}
        periods = report.page.locator("#period option").all_inner_texts()
        assert periods == [*ages]
        assert report.page.locator("#period").input_value() == ("28d" if files >= 28 else "7d")
        for period in reversed(periods):
            report.page.locator("#period").select_option(label=period)
            shown = len(posts_of.keys() & {*ages[period]})
            assert report.figure("impressions") == (10 * shown or None)
            report.open_all()


def test_page_that_throws_says_so(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    page = browser.new_page()
    html = report_page(report_of(one_post(impressions=5, engagements=1))).decode()
    for text, failed in ((html, False), (html.replace('"window":"7d"', '"window":"9d"'), True)):
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
        counts = [
            [row[f"Missing {label}"] for label in ("daily metrics", "published posts")]
            for row in report.tables()["received"]
        ]
        assert counts == [[0, 0], [0, 1]]


def test_missing_is_nothing_only_if_nothing_is(browser: Browser, tmp_path: Path) -> None:
    world = one_post(impressions=5, engagements=1, cpe=2.0)
    with open_report(browser, report_of(world), tmp_path) as report:
        assert report.missing() == ["Nothing is missing."]
        assert report.page.locator("#missing.good").count() == 1
    silent = one_post(impressions=None, engagements=1)
    outdated = "Outdated: organic_paid_by_platform (missing)."
    old = period("7d", last_day=NEWEST - timedelta(days=3), campaign_id=7, paid_ad_spend=3.0)
    world = replace(silent, campaigns=[campaign(campaign_id=7)], periods=[old])
    with open_report(browser, report_of(world, outdated=[outdated]), tmp_path) as report:
        missing = report.missing()
        assert outdated in missing
        assert "The cost of 1 of 1 post is not known yet. So what creators cost is the least it can be." in missing
        assert any(fact.startswith("Return of 1 campaign is left out. Later’s totals") for fact in missing)
        assert any(fact.startswith("No post of TikTok reports impressions.") for fact in missing)
        assert report.page.locator("#missing.good").count() == 0
        (row,) = report.tables()["campaigns"][:-1]
        assert row["Return on ads"] is None


def test_more_than_four_facts_are_in_data_received(browser: Browser, tmp_path: Path) -> None:
    outdated = [f"Outdated: table_{number} (missing)." for number in range(7)]
    with open_report(
        browser, report_of(one_post(impressions=5, engagements=1, cpe=2.0), outdated=outdated), tmp_path
    ) as report:
        assert report.missing() == [*outdated[:4], "and 3 more", *outdated[4:]]
        report.page.get_by_role("link", name="and 3 more").click()
        expect(report.page.locator("#all-missing li").last).to_be_visible()


@pytest.mark.parametrize(
    ("days", "period", "begin", "weeks"),
    [(203, 365, ["The data begin on 17 Aug 2023. The period has 202 of 365 days."], 29), (730, 730, [], 104)],
)
def test_oldest_day_is_exact_although_old_days_are_shown_by_week(
    days: int, period: int, begin: list[str], weeks: int, browser: Browser, tmp_path: Path
) -> None:
    ages = [0, *range(2, days)]  # one day is missing
    world = World({(NEWEST - timedelta(days=age), "a"): [row(impressions=1, engagements=0)] for age in ages}, {})
    with open_report(browser, report_of(world), tmp_path) as report:
        report.page.locator("#period").select_option(label=f"Last {period} days")
        report.open_all()
        assert [fact for fact in report.missing() if "begin" in fact] == begin
        assert len(report.tables()["days"]) == weeks


def test_changes_are_shown_if_both_periods_have_all_days(
    browser: Browser, report_of_world: ReportData, rows_of: Callable[..., list[Row]], tmp_path: Path
) -> None:
    with open_report(browser, report_of_world, tmp_path) as report:
        change = report.page.locator(".card.impressions .change-line")
        (overall,) = rows_of("organic_paid_overall", "28d", instance_id="")
        now, before = (
            sum(overall[f"{side}{channel}_impressions"] for channel in ("organic", "paid"))
            for side in ("", "previous_")
        )
        difference = 100 * (now - before) / before
        arrow = "↑\nup" if difference > 0 else "↓\ndown"
        assert re.sub(r"\s+", " ", change.inner_text()) == f"{arrow} {abs(float(difference)):.1f} %".replace("\n", " ")
        assert report.text("dates").startswith("8 Feb – 6 Mar 2024, 28 days. Changes are against 11 Jan – 7 Feb")
        assert [name for name in ("campaigns", "networks") if "Change" in report.tables()[name][0]] != []
        report.page.locator("#period").select_option(value="90d")
        assert change.inner_text() == ""
        text = "No changes: only 60 of the 90 days and 0 of the 90 days before are in the lake."
        assert report.text("dates").endswith(text)
        report.open_all()
        assert [name for name in ("campaigns", "networks") if "Change" in report.tables()[name][0]] == []


def test_months_are_periods_with_their_days_and_changes_per_day(browser: Browser, tmp_path: Path) -> None:
    days = [date(2024, 1, 1) + timedelta(days=number) for number in range((NEWEST - date(2024, 1, 1)).days + 1)]
    world = World({(day, "a"): [row(impressions=100, engagements=day.month)] for day in days}, {})
    with open_report(browser, report_of(world), tmp_path) as report:
        changes = report.page.locator(".card.impressions .change-line, .card.rate .change-line .organic")
        report.page.locator("#period").select_option(label="This month")
        assert report.text("dates") == "1 Mar – 6 Mar 2024, 6 days. Changes are against 1 Feb – 6 Feb."
        assert report.figure("impressions") == 600
        assert [re.sub(r"\s+", " ", each) for each in changes.all_inner_texts()] == ["0.0 %", "↑ up 1.0 pts"]
        report.page.locator("#period").select_option(label="February")
        assert (
            report.text("dates") == "February 2024, 29 days. Changes are per day, against January: 29 against 31 days."
        )
        assert report.text("sentence").startswith("In February 2024, a ")
        assert report.figure("impressions") == 2900
        assert [re.sub(r"\s+", " ", each) for each in changes.all_inner_texts()] == ["0.0 % a day", "↑ up 1.0 pts"]
        report.open_all()
        assert len(report.tables()["days"]) == 29
        months = report.tables()["months"]
        assert [row["Month"] for row in months] == ["March 2024", "February 2024", "January 2024"]
        assert [row["Impressions"] for row in months] == [600, 2900, 3100]


def test_totals_of_other_days_than_the_posts_are_withheld_with_their_reason(
    browser: Browser, report_of_world: ReportData, tmp_path: Path
) -> None:
    with open_report(browser, report_of_world, tmp_path) as report:
        report.page.locator("#period").select_option(value="90d")
        report.open_all()
        rows = report.tables()["campaigns"]
        assert {row["Return on ads"] for row in rows} == {None}
        assert rows[-1]["Ads"] is not None  # of posts, and of the same days as all else
        assert report.tables()["later"] == []
        (fact,) = [fact for fact in report.missing() if "left out" in fact]
        reason = fact.split(" left out. ", 1)[1].rstrip(".")
        tips = report.page.locator("#campaigns tbody .null").evaluate_all("all => all.map(each => each.dataset.tip)")
        assert reason in tips


def of_return(report: Report) -> str:
    """Return the text of the card of the return on ad spend."""
    return re.sub(r"\s+", " ", report.page.locator(".card.return").inner_text())


def test_account_is_what_later_totals_for_exactly_the_days_of_the_posts(browser: Browser, tmp_path: Path) -> None:
    world = one_post(impressions=50, engagements=5)
    week = {"first_day": NEWEST - timedelta(days=6), "last_day": NEWEST}
    month = {"first_day": NEWEST.replace(day=1), "last_day": NEWEST - timedelta(days=1)}
    rows = [
        {"date_basis": basis, "period": name, **days, "scope": scope, "instance_id": instance,
         "fetched_at": datetime(2024, 3, 7, tzinfo=UTC), "paid_ad_spend": 9.0, "impressions": 51,
         "paid_return_on_ad_spend": ratio}
        for basis, name, days, ratio in (
            ("performance_date", "7d", week, 4.0), ("performance_date", "recorded_month", month, 3.0),
            ("post_date", "published_month", month | {"last_day": NEWEST}, 2.0),
        )
        for scope, instance in (("all", ""), ("instance", "a"))
    ]  # fmt: skip
    with open_report(browser, report_of(world, accounts=rows), tmp_path) as report:
        assert report.figure("return_on_ad_spend") == 4
        report.open_all()
        compared = {row["Figure"]: row for row in report.tables()["later"]}
        impressions = compared["Organic impressions"]
        assert (impressions["Here"], impressions["Later"]) == (50, 51)
        assert compared["Ad spend"]["Later"] == 9
        report.page.locator("#period").select_option(label="This month")
        assert report.figure("return_on_ad_spend") is None
        assert of_return(report).endswith("Later’s totals are of 1 Mar – 5 Mar 2024")
        assert report.tables()["later"] == []


def test_missing_total_of_the_instances_is_the_reason_why_there_is_no_return(browser: Browser, tmp_path: Path) -> None:
    with open_report(browser, report_of(one_post(impressions=50, engagements=5)), tmp_path) as report:
        assert report.figure("return_on_ad_spend") is None
        assert of_return(report).endswith("Later’s totals of these instances and days are not fetched")


def test_posts_from_before_the_lake_are_not_counted_as_published(browser: Browser, tmp_path: Path) -> None:
    world, before = one_post(impressions=50, engagements=5), NEWEST - timedelta(days=3)
    published = {key: rows for key, rows in world.published.items() if key[0] != before}
    old = row(campaign_id=7, post_id=2, post_date=datetime(before.year, before.month, before.day, tzinfo=UTC), likes=1)
    recorded = {**world.recorded, (before, "a"): [old]}
    with open_report(browser, report_of(World(recorded, published)), tmp_path) as report:
        assert report.missing()[0].startswith("The cost of 1 of 1 post is not known yet.")


def test_costs_are_at_least_their_known_part_or_unknown_or_none(browser: Browser, tmp_path: Path) -> None:
    day = datetime(NEWEST.year, NEWEST.month, NEWEST.day, tzinfo=UTC)
    known = {"impressions": 100, "engagements": 10, "cpe": 2.0, "cpm": 200.0}
    instances = {"part": [known, {"impressions": 1}], "full": [known], "unknown": [{"impressions": 1}]}
    published = {
        (NEWEST - timedelta(days=age), name): [
            row(instance_id=name, campaign_id=7, post_id=number, post_date=day, **post)
            for number, post in enumerate(posts, 1) if not age
        ]
        for name, posts in {**instances, "none": []}.items() for age in range(7)
    }  # fmt: skip
    old = row(instance_id="none", campaign_id=7, post_id=9, post_date=day - timedelta(days=30), impressions=1)
    files = {**published, (NEWEST, "none"): [old]}
    with open_report(browser, report_of(World(files, published)), tmp_path) as report:
        for name, (figure, creators) in {
            "part": ("≥ $20", "≥ $20"), "full": ("$20", "$20"), "unknown": ("–", "unknown"), "none": ("–", "no post"),
        }.items():  # fmt: skip
            report.page.locator("#instance").select_option(label=name)
            lines = report.page.locator(".card.cost .figure").inner_text().split("\n")
            assert re.sub(r"\s+", " ", lines[0]) == figure
            part = report.page.locator(".card.cost .part").first.inner_text()
            assert re.sub(r"\s+", " ", part) == f"Creators {creators}"


def test_demo_says_so_on_the_page_and_in_names_of_files(
    browser: Browser, report_of_world: ReportData, tmp_path: Path
) -> None:
    for is_demo in (True, False):
        with open_report(browser, replace(report_of_world, is_demo=is_demo), tmp_path) as report:
            assert report.page.locator("#demo").is_visible() is is_demo
            assert report.page.title().startswith("DEMO – ") is is_demo
            report.page.emulate_media(media="print")
            report.wait_for_the_chart()
            assert report.page.locator("#demo").is_visible() is is_demo
            report.page.emulate_media(media="screen")
            with report.page.expect_download() as event:
                report.page.locator("[data-csv=campaigns]").click()
            assert event.value.suggested_filename.startswith("demo-") is is_demo


def test_csv_has_no_formulas_in_texts(browser: Browser, report_of_world: ReportData, tmp_path: Path) -> None:
    with open_report(browser, report_of_world, tmp_path) as report:
        cells = report.page.evaluate("texts => texts.map(csvValue)", [text for text, _ in CSV_CELLS])
        assert next(csv.reader(io.StringIO(",".join(cells), newline=""))) == [cell for _, cell in CSV_CELLS]
        assert report.page.evaluate("[-1, -0.5, null].map(csvValue)") == ["-1", "-0.5", ""]


def test_null_is_a_dash_and_zero_is_not(browser: Browser, tmp_path: Path) -> None:
    dash = "– not available"
    cases = {
        "null": ({"likes": 1}, dash, dash),
        "zero": ({"impressions": 0, "engagements": 0}, "0", dash),
        "present": ({"impressions": 1234, "engagements": 617}, "1,234", "50.0 %"),
    }
    files = {}
    for name, (fields, *_) in cases.items():
        files |= {(day, name): rows for (day, _), rows in one_post(instance_id=name, **fields).recorded.items()}
    with open_report(browser, report_of(World(files, files)), tmp_path) as report:
        for name, (_, impressions, rate) in cases.items():
            report.page.locator("#instance").select_option(label=name)
            shown = [report.text(f"figure-{each}") for each in ("impressions", "organic_engagement_rate")]
            assert shown == [impressions, rate]
            assert "by ads" not in report.text("sentence")


NAMES = (
    '</script><img src=x onerror="window.pwned=1"><b>\'${1}<!--',
    "line\r\nbreak\u2028 and\ttab",
    "השקת קיץ \u202e49,000",
    "A very long name of a campaign, with words and more words. " * 8,
    "Unbroken" * 60,
    '＝HYPERLINK("https://a.example")',
)


@pytest.mark.parametrize("width", [320, 1400])
def test_names_are_text_and_do_not_hide_the_ids(width: int, browser: Browser, tmp_path: Path) -> None:
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
    with open_report(browser, replace(data, quarantined=bad), tmp_path, width=width) as report:
        report.open_all()
        page = report.page
        assert page.evaluate("window.pwned") is None
        assert page.locator("img, a:not([href^='#'])").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") == width
        details = page.locator("#campaigns tbody .detail").all()
        assert len(details) == len(NAMES)
        for detail in details:
            box = detail.bounding_box()
            assert box is not None
            assert 0 <= box["x"] < box["x"] + box["width"] <= width
        found = {each[0] for each in report.download("creators")[1:]}
        assert found == {("'" if name.startswith("＝") else "") + name for name in NAMES}


def test_long_label_of_an_instance_does_not_hide_the_id_of_a_campaign(
    browser: Browser, report_of_world: ReportData, tmp_path: Path
) -> None:
    labels = dict.fromkeys(INSTANCES, "A very long name of a brand, " * 5)
    with open_report(browser, replace(report_of_world, labels=labels), tmp_path) as report:
        report.open_all()
        details = report.page.locator("#campaigns tbody .detail").all_inner_texts()
        assert [text for text in details if not re.fullmatch(r"A very long name.*… · \d+", text)] == []


def test_page_works_by_keyboard_and_announces_changes(
    browser: Browser, report_of_world: ReportData, tmp_path: Path
) -> None:
    with open_report(browser, report_of_world, tmp_path) as report:
        page = report.page
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the figures")).to_be_focused()
        page.locator("#instance").focus()
        page.keyboard.press("ArrowDown")
        expect(page.locator("#announcement")).to_contain_text(f"Last 28 days, {INSTANCES[0]}: In the 28 days to")
        report.open_all()
        heading = page.locator("[data-table=creators][data-sort=organic_impressions]")
        for _ in range(2):
            heading.focus()
            page.keyboard.press("Enter")
            expect(heading).to_be_focused()
        page.get_by_role("button", name="About Cost", exact=True).focus()
        expect(page.get_by_role("tooltip")).to_contain_text("Ads: spent on the days of the period")


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
    assert len(compared) >= 10
    assert not [name for name in compared if not agree(expected[name], figures[name], name)]
