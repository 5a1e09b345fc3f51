"""The page in a browser: at each width, in light and dark, without network; every number equals the reference."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from later_reporting_dagster.contract import DEFAULT_METRICS
from later_reporting_dagster.report.report_data import QuarantinedRows, ReportData
from tests.report.posts import (
    AS_OF,
    CAMPAIGNS,
    INSTANCES,
    METRICS_TABLE,
    PUBLISHED_TABLE,
    campaign_row,
    day_before,
    one_post,
    random_files,
    remove_day,
    report_data,
    row,
)
from tests.report.report_browser import WIDTHS, Report, open_report
from tests.report.report_reference import CHANNELS, by, published, recorded, select_rows

pytestmark = pytest.mark.e2e

KPIS = (
    "organic_impressions",
    "paid_impressions",
    "paid_share_of_impressions",
    "organic_engagements",
    "paid_engagements",
    "paid_share_of_engagements",
    "organic_engagement_rate",
    "paid_engagement_rate",
    "paid_lift",
    "organic_estimated_value",
)
RESULTS = tuple(
    f"{channel}_{result}" for result in ("impressions", "engagements", "engagement_rate") for channel in CHANNELS
)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_page_is_accessible_and_fits_at_each_width(
    width: int, scheme: Literal["light", "dark"], browser: Browser, incomplete: ReportData, tmp_path: Path
) -> None:
    with open_report(browser, incomplete, tmp_path, width=width, scheme=scheme) as report:
        page = report.page
        for summary in page.locator("summary").all():
            summary.click()
        page.screenshot(path=tmp_path / f"report-{width}-{scheme}.png", full_page=True)
        violations = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
        assert [(each["id"], each["nodes"][0]["html"]) for each in violations] == []
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert report.cut_off() == []
        ink, paper = page.evaluate(
            "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
        )
        assert (_lightness(ink) > _lightness(paper)) is (scheme == "dark")
        assert _line_colour(page) == {"light": "rgb(11, 101, 163)", "dark": "rgb(98, 176, 236)"}[scheme]


def test_page_prints_in_light_colours(browser: Browser, incomplete: ReportData, tmp_path: Path) -> None:
    with open_report(browser, incomplete, tmp_path, scheme="dark") as report:
        report.page.emulate_media(media="print")
        assert report.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        report.page.set_viewport_size({"width": 718, "height": 1000})  # A4 less its margins
        assert report.page.evaluate("document.documentElement.scrollWidth") == 718
        assert report.page.pdf().startswith(b"%PDF")


FILTERS = [
    (28, None, None),
    (28, INSTANCES[1], None),
    (7, None, (0, CAMPAIGNS[0])),
    (90, INSTANCES[0], (0, CAMPAIGNS[1])),
]


@dataclass
class Selection:
    """The filters chosen on a page of random posts, and the rows that they select."""

    report: Report
    files: dict[Any, list[Any]]
    period: int
    instance: str | None
    campaign: int | None

    def recorded(self, ages: range | None = None, *, campaign: int | None = None, instance: str | None = None) -> Any:
        found = {"campaign": campaign or self.campaign, "instance": instance or self.instance}
        return select_rows(self.files, METRICS_TABLE, range(self.period) if ages is None else ages, **found)

    def published(self, *, campaign: int | None = None, instance: str | None = None) -> Any:
        found = {"campaign": campaign or self.campaign, "instance": instance or self.instance}
        return select_rows(self.files, PUBLISHED_TABLE, range(self.period), **found)

    @property
    def campaigns(self) -> dict[str, dict[str, Any]]:
        """The selected campaigns, by the name that the page shows."""
        found = {}
        for instance in [self.instance] if self.instance else INSTANCES:
            for campaign in [self.campaign] if self.campaign else CAMPAIGNS:
                name = str(campaign) if self.alone else f"{campaign} · {instance}"
                found[name] = {"campaign": campaign, "instance": instance}
        return found

    @property
    def alone(self) -> bool:
        return self.report.page.locator("#instance").input_value() != ""


@pytest.fixture(params=FILTERS, ids=str)
def selection(request: pytest.FixtureRequest, browser: Browser, tmp_path: Path) -> Iterator[Selection]:
    period, instance, campaign = request.param
    files = random_files(FILTERS.index(request.param))
    with open_report(browser, report_data(files), tmp_path) as report:
        report.choose("period", f"Last {period} days")
        report.choose("instance", instance or "All")
        if campaign is not None:
            place, number = campaign
            report.choose("campaign", str(number) if instance else f"{number} · {INSTANCES[place]}")
            instance = INSTANCES[place]
        yield Selection(report, files, period, instance, campaign and campaign[1])
        assert report.misformatted() == []


def test_key_figures_equal_the_reference(selection: Selection) -> None:
    report, period = selection.report, selection.period
    now, before = recorded(selection.recorded()), recorded(selection.recorded(range(period, 2 * period)))
    for name in KPIS:
        assert report.figure(name) == near(now[name]), name
        if 2 * period <= 70:
            assert report.previous(name) == near(before[name]), name
            now_and_then = now[name], before[name]
            assert_change(report.page.locator(f"#change-{name} b"), name, *now_and_then)
    assert (
        lift_of(report.page.locator("td:has(> #figure-paid_lift)"), "#interval-paid_lift")
        == wanted_lift(now, "paid_lift")[1:]
    )
    same_post = report.page.locator("#figure-same_post_lift")
    if now["same_post_lift"] is not None:
        values = [float(each.get_attribute("value") or "") for each in same_post.locator("data").all()]
        assert values == shown_lift(now, "same_post_lift")
    if now["paid_lift_mix_adjusted"] is not None:
        assert report.figure("paid_lift_mix_adjusted") == near(now["paid_lift_mix_adjusted"])


def test_days_and_rates_equal_the_reference(selection: Selection) -> None:
    report = selection.report
    days = {str(day_before(age)): recorded(selection.recorded(range(age, age + 1))) for age in range(selection.period)}
    assert [[row[0], *flat(row[1:7])] for row in report.rows("days")] == [
        [day, *(near(found[field]) for field in RESULTS)] for day, found in days.items()
    ]
    wanted = {}
    for platform, of_platform in by(selection.recorded(), "platform").items():
        wanted[named(platform), "of-platform", platform] = of_platform
        for content_type, rows in by(of_platform, "content_type").items():
            wanted[named(content_type), "of-type", platform] = rows
    shown = zip(report.rows("rates"), classes(report, "rates"), strict=True)
    found, platforms = {}, {named(platform): platform for platform in {key[2] for key in wanted}}
    platform = None
    for (name, *cells), kind in shown:
        platform = platforms[name] if kind == "of-platform" else platform
        found[name, kind, platform] = flat(cells)
    assert found == {key: compared(recorded(rows)) for key, rows in wanted.items()}


def test_campaigns_and_spend_equal_the_reference(selection: Selection) -> None:
    report = selection.report
    wanted = {}
    for name, of in selection.campaigns.items():
        if selection.recorded(**of):
            found = recorded(selection.recorded(**of))
            if any(found[field] is not None for field in RESULTS[:4]):
                wanted[name] = [*compared(found), *shown_lift(found, "same_post_lift")]
    assert {row[0]: flat(row[1:9]) for row in report.rows("campaigns")} == wanted

    groups = {} if selection.campaign else {"All campaigns": selection.published()}
    groups |= {name: rows for name, of in selection.campaigns.items() if (rows := selection.published(**of))}
    found = {name: published(rows) for name, rows in groups.items()}
    shown = report.rows("spend")
    assert len(shown) == 3 * len(found)
    for number, (name, _, posts, cost, engagements, cpe, impressions, cpm) in enumerate(shown):
        of, channel = found[name], ("organic", "paid", "both")[number % 3]
        assert cost == shown_bounds(of[f"{channel}_spend"])
        assert [engagements, impressions] == [[of[f"{channel}_{unit}_units"]] for unit in ("cpe", "cpm")]
        assert [cpe, cpm] == [shown_bounds(of[f"{channel}_{unit}"]) for unit in ("cpe", "cpm")]
        assert posts == ("" if channel == "both" else [of[f"{channel}_spend_posts"], of["posts"]])
    for name, value, of_known, cost, ratio in report.rows("value"):
        of = found[name]
        assert [value, of_known] == [[near(of["organic_estimated_value"])], [near(of["value_of_spend"])]]
        assert [cost, ratio] == [shown_bounds(of["valued_spend"]), shown_bounds(of["value_per_spend"])]


def test_creators_and_coverage_equal_the_reference(selection: Selection) -> None:
    report = selection.report
    if report.page.locator("#all-creators").is_visible():
        report.page.locator("#all-creators").click()
    wanted = {
        (f"Creator № {creator} of {instance}" if creator else "Unknown creator", found["impressions"]): compared(found)
        for (instance, creator), rows in by(selection.recorded(), "instance_id", "creator_id").items()
        for found in [recorded(rows)]
    }
    shown = [[row[1], *flat(row[2:])] for row in report.rows("creators")]
    assert {(row[0], row[1]): row[2:] for row in shown} == wanted
    impressions = [row[1] for row in shown]
    assert impressions == sorted(impressions, key=lambda value: (value is None, -(value or 0)))

    rows = selection.published()
    assert [flat(row[1:]) for row in report.rows("coverage")] == [
        [sum(row[metric.column] is not None for row in rows), len(rows)] for metric in DEFAULT_METRICS
    ]
    if rows:
        label = f"{sum(row['impressions'] is not None for row in rows):,} of {len(rows):,}"
        assert label in report.labels_in("coverage")


@pytest.mark.parametrize(
    "table", ["days", "rates", "campaigns", "totals", "spend", "value", "creators", "coverage", "received"]
)
def test_download_equals_the_table(table: str, browser: Browser, incomplete: ReportData, tmp_path: Path) -> None:
    with open_report(browser, incomplete, tmp_path) as report:
        report.page.eval_on_selector_all("details", "all => all.forEach(each => each.open = true)")
        head, *rows = report.download(table)
        shown = report.rows(table)
        assert len(rows) == len(shown) > 0
        assert all(len(row) == len(head) for row in rows)
        for row, of in zip(rows, shown, strict=True):
            numbers = [float(value) for value in row if re.fullmatch(r"-?[\d.]+(e[+-]?\d+)?", value)]
            for value in (value for cell in of if isinstance(cell, list) for value in cell if value is not None):
                assert value in numbers
            texts = {text.removeprefix("'") for text in row} | {""}
            # The cell of a day may have a remark in brackets; the name of a campaign has its number in brackets.
            assert all({cell, cell.partition(" (")[0]} & texts for cell in of if isinstance(cell, str))


@pytest.mark.parametrize("sign", "=+-@＝＋－＠")  # Excel reads full-width signs as formulas, too
def test_download_contains_no_formula(sign: str, browser: Browser, tmp_path: Path) -> None:
    malicious = f'{sign}HYPERLINK("https://a.example";"x")'
    data = report_data(one_post(impressions=5, engagements=1, creator_full_name=malicious, content_type='a",\r\n=b'))
    with open_report(browser, data, tmp_path) as report:
        assert report.download("creators")[1][1] == "'" + malicious
        report.page.locator("summary", has_text="Engagement rates").click()
        assert [row[0] for row in report.download("rates")[1:]] == ["tiktok", 'a",\r\n=b']
        assert ["paid_lift", "", "", "", "", "", ""] in report.download("kpis")


def test_no_paid_activity_differs_from_not_available(browser: Browser, tmp_path: Path) -> None:
    with open_report(
        browser, report_data(one_post(impressions=50, engagements=5, paid_impressions=0)), tmp_path
    ) as report:
        shown = {name: report.page.locator(f"#figure-{name}").inner_text() for name in KPIS}
        assert shown["paid_impressions"] == "0"
        assert shown["paid_engagements"] == shown["paid_engagement_rate"] == shown["paid_lift"] == "no paid activity"
        assert shown["organic_estimated_value"] == "not available"
        assert "no paid activity" in report.labels_in("platform_rates")
    with open_report(browser, report_data(one_post(likes=1)), tmp_path) as report:
        assert report.page.locator("#figure-paid_impressions").inner_text() == "not available"


def test_lift_without_an_interval_is_labelled_and_not_ranked(browser: Browser, tmp_path: Path) -> None:
    few = {"impressions": 10, "engagements": 1, "paid_impressions": 10, "paid_engagements": 9}
    files = one_post(**few)
    files[METRICS_TABLE, AS_OF, "a"] += [
        row(
            campaign_id=7,
            creator_id=2,
            post_id=number,
            impressions=9,
            engagements=number % 3,
            paid_impressions=8,
            paid_engagements=1,
        )
        for number in range(2, 20)
    ]
    with open_report(browser, report_data(files), tmp_path) as report:
        report.page.get_by_role("button", name="Paid lift", exact=True).click()
        assert [(row[0], len(row[9])) for row in report.rows("creators")] == [("1", 3), ("2", 1)]
        texts = report.page.locator("#creators tr td:last-child").all_inner_texts()
        assert re.fullmatch(r"[\d.]+\s×\s*[\d.]+ to [\d.]+, undecided", texts[0])
        assert re.fullmatch(r"9.00\s×\s*no interval", texts[1])


def test_missing_data_is_listed_on_the_first_screen(browser: Browser, incomplete: ReportData, tmp_path: Path) -> None:
    with open_report(browser, incomplete, tmp_path) as report:
        assert report.missing() == [
            f"{INSTANCES[2]} is out of date: its newest day is {day_before(3)}, 3 days behind.",
            f"{day_before(9)} is missing for {INSTANCES[0]}.",
            f"{day_before(14)} is missing for all 3 instances.",
            f"3 rows of {INSTANCES[1]} are invalid and not counted: impressions: 8500.5 is not a whole number.",
        ]
        for place in ("#missing li", "#kpis .value"):
            for found in report.page.locator(place).all():
                box = found.bounding_box()
                assert box is not None
                assert box["y"] + box["height"] <= 800
        report.choose("instance", INSTANCES[0])
        assert report.missing() == [f"{day_before(14)} and {day_before(9)} are missing for {INSTANCES[0]}."]
        assert "What is missing: 1 entry." in report.page.locator("#announcement").inner_text()


def test_gap_is_listed_in_the_oldest_days_of_an_outdated_table(browser: Browser, tmp_path: Path) -> None:
    files = random_files(7, days=20, most_posts=1)
    for instance_id in INSTANCES:
        for age in (0, 1, 8):
            remove_day(files, day=day_before(age), instance_id=instance_id, tables=[PUBLISHED_TABLE])
    with open_report(browser, report_data(files), tmp_path) as report:
        assert f"{day_before(8)} is missing for all 3 instances (published posts)." in report.missing()
        assert report.rows("received")[0][3] == [6, 7]


def test_change_is_shown_if_both_periods_have_equally_many_days(
    browser: Browser, incomplete: ReportData, tmp_path: Path
) -> None:
    files = random_files(7, days=56)
    change = "#change-organic_impressions"
    with open_report(browser, report_data(files), tmp_path) as report:
        now, before = report.figure("organic_impressions"), report.previous("organic_impressions")
        assert now is not None
        assert before is not None
        percent = (now - before) / before * 100
        sign = "+" if percent > 0 else "−"
        assert report.page.locator(change).inner_text() == f"{sign}{abs(percent):.1f} % from {before:,.0f}"
        now, before = report.figure("organic_engagement_rate"), report.previous("organic_engagement_rate")
        assert now is not None
        assert before is not None
        sign = "+" if now > before else "−"
        text = report.page.locator("#change-organic_engagement_rate").inner_text()
        assert text == f"{sign}{abs(now - before):.2f} points from {before:.2f}\u00a0%"
    with open_report(browser, incomplete, tmp_path) as report:
        assert report.page.locator(change).inner_text().startswith("before: ")
        text = report.page.locator("#missing").inner_text()
        assert "because the two periods have data for different numbers of days" in text


def test_coverage_shows_a_requested_metric_if_a_post_reports_it(browser: Browser, tmp_path: Path) -> None:
    with open_report(browser, report_data(one_post(likes=0)), tmp_path) as report:
        assert [row[0] for row in report.rows("coverage")][len(DEFAULT_METRICS) :] == ["Likes"]


def test_missing_data_is_nothing_if_all_days_are_stored(browser: Browser, tmp_path: Path) -> None:
    with open_report(browser, report_data(random_files(2, days=14)), tmp_path) as report:
        (text,) = report.missing()
        assert text.startswith("Nothing: ")


def test_missing_data_names_an_instance_without_files(browser: Browser, tmp_path: Path) -> None:
    data = report_data(one_post(), registered=["a", "never landed"])
    with open_report(browser, data, tmp_path) as report:
        assert report.missing() == ["never landed: no data received yet."]


def test_missing_data_counts_further_entries_and_lists_them_below(browser: Browser, tmp_path: Path) -> None:
    data = report_data(one_post(), registered=[f"instance_{number}" for number in range(6)])
    with open_report(browser, data, tmp_path) as report:
        *_, last = report.missing()
        assert last == "3 more, in Data coverage and freshness."
        expect(report.page.locator("#all-missing li")).to_have_count(3)


@pytest.mark.parametrize(
    ("impressions", "shown"), [(None, "not available"), (0, "0"), (1234, "1,234")], ids=["null", "zero", "present"]
)
def test_null_zero_and_numbers_look_different_everywhere(
    impressions: int | None, shown: str, browser: Browser, tmp_path: Path
) -> None:
    engagements = None if impressions is None else impressions // 2
    post = one_post(impressions=impressions, engagements=engagements, platform="tiktok", content_type="tiktok")
    with open_report(browser, report_data(post), tmp_path) as report:
        page = report.page
        rate = {None: "not available", 0: "not available", 1234: "50.00\u00a0%"}[impressions]
        assert page.locator("#figure-organic_impressions").inner_text() == shown
        assert page.locator("#figure-organic_engagement_rate").inner_text() == rate
        absent = "not available" if impressions is None else "no paid activity"
        assert page.locator("#figure-paid_impressions").inner_text() == absent
        page.locator("summary").first.click()
        assert page.locator("#days tr").first.locator("td").first.inner_text() == shown
        assert shown in page.locator("#creators td").all_inner_texts()
        assert shown in page.locator("#campaigns td").all_inner_texts()
        assert report.labels_in("platform_rates") == ["tiktok", rate, absent]
        styles = {
            (found.inner_text() in {"not available", absent}): found.evaluate(
                "each => getComputedStyle(each).fontStyle"
            )
            for found in page.locator("#kpis .value > *").all()
        }
        assert styles == ({True: "italic"} if impressions is None else {True: "italic", False: "normal"})


def test_key_figure_of_billions_fits(browser: Browser, tmp_path: Path) -> None:
    with open_report(browser, report_data(one_post(impressions=12_345_678_901)), tmp_path, width=360) as report:
        assert report.page.locator("#figure-organic_impressions").inner_text() == "12.35\u00a0bn"
        assert report.figure("organic_impressions") == 12_345_678_901
        assert report.page.evaluate("document.documentElement.scrollWidth") == 360


def test_names_and_links_of_creators_are_text(browser: Browser, tmp_path: Path) -> None:
    malicious = '</script><script>window.pwned=1</script><img src=x onerror="window.pwned=1">\u202e${1}<!--'
    link = "javascript:window.pwned=1"
    data = report_data(
        one_post(
            impressions=5,
            engagements=1,
            creator_full_name=malicious,
            creator_handle_name=malicious,
            creator_profile_link=link,
            content_type=malicious,
        ),
        registered=["a", malicious],
        quarantined=[QuarantinedRows(METRICS_TABLE, None, None, malicious, 1)],
    )
    with open_report(browser, data, tmp_path) as report:
        page = report.page
        assert page.evaluate("window.pwned") is None
        assert page.locator("img").count() == 0
        assert page.locator("a:not([href^='#'])").count() == 0
        assert page.locator("#creators bdi").first.text_content() == malicious
        report.choose("instance", malicious)
        assert page.evaluate("window.pwned") is None


def test_campaigns_are_named_beside_their_numbers(browser: Browser, tmp_path: Path) -> None:
    files = random_files(3, days=14)
    names = [
        campaign_row(INSTANCES[0], CAMPAIGNS[0], "Summer launch"),
        campaign_row(INSTANCES[1], CAMPAIGNS[1], " \n "),
    ]
    with open_report(browser, report_data(files, campaigns=names), tmp_path) as report:
        named = f"Summer launch ({CAMPAIGNS[0]}) · {INSTANCES[0]}"
        unnamed = f"{CAMPAIGNS[1]} · {INSTANCES[1]}"
        for table in ("campaigns", "spend", "value"):
            assert {named, unnamed} <= {row[0] for row in report.rows(table)}
        assert any(text.startswith("Summer launch") for text in report.labels_in("spend"))
        assert {named, unnamed} <= set(report.page.locator("#campaign option").all_inner_texts())
        report.choose("instance", INSTANCES[0])
        report.choose("campaign", f"Summer launch ({CAMPAIGNS[0]})")
        assert f"campaign Summer launch ({CAMPAIGNS[0]}):" in report.page.locator("#announcement").inner_text()
        assert [row[0] for row in report.download("campaigns")[1:]] == [f"Summer launch ({CAMPAIGNS[0]})"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ('</script><img src=x onerror="window.pwned=1"><b>\'${1}<!--', None),
        ("line\r\nbreak\u2028 and\ttab", "line break and tab"),
        ("השקת קיץ \u202e49,000", "\u2068השקת קיץ 49,000\u2069"),
        ("\u2069\u202eevil", "evil"),
        ("A very long name of a campaign, with words and more words. " * 8, None),
        ("Unbroken" * 60, None),
        ('=HYPERLINK("https://a.example")', None),
    ],
    ids=["markup", "line breaks", "right to left", "bidi controls", "long", "unbroken", "formula"],
)
@pytest.mark.parametrize("width", [360, 1280])
def test_campaign_names_are_text_and_fit(
    name: str, shown: str | None, width: int, browser: Browser, tmp_path: Path
) -> None:
    named = campaign_row("a", 7, name, status=name, description=name)
    data = report_data(one_post(impressions=5, engagements=1, cpe=2.5), campaigns=[named])
    text = f"{(shown or name).strip()} (7)"
    with open_report(browser, data, tmp_path, width=width) as report:
        page = report.page
        assert page.evaluate("window.pwned") is None
        assert page.locator("img").count() == 0
        assert [report.rows(table)[0][0] for table in ("campaigns", "spend")] == [text, "All campaigns"]
        assert page.locator("#campaigns bdi").first.text_content() == text
        option = page.locator("#campaign option").last.inner_text()
        assert option == text or (option.endswith("… (7)") and len(option) < 80)
        report.choose("campaign", option)
        for summary in page.locator("summary").all():
            summary.click()
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert report.cut_off() == []
        (row,) = report.download("campaigns")[1:]
        assert row[0] == ("'" if text.startswith("=") else "") + text
        assert page.evaluate("window.pwned") is None


def test_creator_link_sends_no_referrer(browser: Browser, tmp_path: Path) -> None:
    data = report_data(one_post(impressions=5, creator_handle_name="jane", creator_profile_link="https://a.example/j"))
    with open_report(browser, data, tmp_path) as report:
        link = report.page.locator("#creators a")
        assert link.get_attribute("href") == "https://a.example/j"
        assert link.get_attribute("rel") == "noopener noreferrer"


def test_page_works_by_keyboard_and_announces_changes(browser: Browser, incomplete: ReportData, tmp_path: Path) -> None:
    with open_report(browser, incomplete, tmp_path) as report:
        page = report.page
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the figures")).to_be_focused()
        assert page.locator("#announcement").inner_text() == ""
        page.locator("#instance").focus()
        page.keyboard.press("ArrowDown")
        expect(page.locator("#announcement")).to_contain_text(f"The last 28 days, {INSTANCES[0]}, all campaigns")
        page.get_by_role("button", name="Paid engagements").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Paid engagements")).to_be_focused()
        column = [row[6][0] for row in report.rows("creators")]
        assert column == sorted(column, key=lambda value: (value is None, -(value or 0)))
        page.keyboard.press("Enter")
        expect(page.locator("th[aria-sort='ascending']")).to_contain_text("Paid engagements")
        column = [row[6][0] for row in report.rows("creators")]
        assert column == sorted(column, key=lambda value: (value is None, value or 0))


def _line_colour(page: Page) -> str:
    """Return the rendered colour of the organic line in the first chart."""
    colour: str = page.locator("#chart-impressions path[stroke='var(--organic)']").first.evaluate(
        "line => getComputedStyle(line).stroke"
    )
    return colour


def _lightness(colour: str) -> int:
    return sum(map(int, re.findall(r"\d+", colour)[:3]))


def near(value: Any) -> Any:
    return None if value is None else pytest.approx(float(value), rel=1e-6, abs=1e-5)


def near_end(value: Any) -> Any:
    """Compare an end of an interval: the quantile of Student's t, in its exponent, has an error of 0.04 %."""
    return None if value is None else pytest.approx(float(value), rel=5e-3)


def flat(cells: list[Any]) -> list[Any]:
    return [value for cell in cells for value in cell]


def wanted_lift(found: dict[str, Any], name: str) -> list[Any]:
    return [found[name], *(found[f"{name}_{part}"] for part in ("low", "high", "verdict"))]


def shown_lift(found: dict[str, Any], name: str) -> list[Any]:
    """Return the numbers of a cell with a lift: with or without an interval."""
    lift, *ends = wanted_lift(found, name)[:3]
    return [near(lift), *(near_end(end) for end in ends if end is not None)]


def compared(found: dict[str, Any]) -> list[Any]:
    return [*(near(found[field]) for field in RESULTS), *shown_lift(found, "paid_lift")]


def shown_bounds(bounds: list[Any]) -> list[Any]:
    low, high = bounds
    return [None] if low is None else [near(low), near(high)] if high is not None else [near(low)]


def lift_of(place: Any, interval: str) -> list[Any]:
    """Return an interval and its verdict; None if there is no interval."""
    shown = place.locator(interval)
    ends = [near_end(float(each.get_attribute("value") or "")) for each in shown.locator("data").all()]
    return [*ends, shown.inner_text().rpartition(", ")[2]] if ends else [None, None, None]


def assert_change(shown: Any, name: str, now: Any, before: Any) -> None:
    if now is None or before is None:
        assert shown.count() == 0
        return
    if "_rate" in name or "_share_" in name or "lift" in name:
        assert shown.inner_text().replace("−", "-").split(" ")[0].lstrip("+±") == written(float(now - before))
    elif before:
        change = float(100 * (now - before) / before)
        # The page has seven digits of the change, which may round to the other decimal.
        texts = {f"{change * factor:,.1f}" for factor in (1 - 1e-6, 1, 1 + 1e-6)}
        assert shown.inner_text().replace("−", "-").removesuffix(" %").lstrip("+±") in texts


def written(difference: float) -> str:
    return "0" if difference == 0 else f"{difference:,.2f}" if abs(difference) >= 0.005 else shown_as_small(difference)


def shown_as_small(difference: float) -> str:
    return "<0.01" if difference > 0 else "-<0.01"


def classes(report: Report, body: str) -> list[str]:
    found: list[str] = report.page.locator(f"#{body} tr").evaluate_all("rows => rows.map(row => row.className)")
    return found


def named(name: str | None) -> str:
    return (name or "other").replace("_", " ")
