"""Names, spend and return of campaigns: the report's data and its section, compared with a slow reference."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from random import Random
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from later_reporting_dagster.report.report_data import CAMPAIGN_MEASURES, ReportData, UnreadableFile
from later_reporting_dagster.report.report_page import page_data, report_page
from tests.report.posts import (
    AS_OF,
    CAMPAIGNS,
    INSTANCES,
    METRICS_TABLE,
    PUBLISHED_TABLE,
    FileKey,
    Row,
    campaign_row,
    day_before,
    one_post,
    own_campaign,
    random_files,
    random_performance,
    report_data,
    with_own_campaigns,
)
from tests.report.report_browser import Report, open_report
from tests.report.report_reference import campaign_totals, published, select_rows

SHARED = CAMPAIGNS[-1]  # an id that all instances have
WITHOUT_POSTS, OF_NO_INSTANCE = 77, 5


@dataclass(frozen=True)
class World:
    """A random lake."""

    files: dict[FileKey, list[Row]]
    campaigns: list[Row] | None
    performance: dict[date, list[Row]]

    def report(self) -> ReportData:
        return report_data(self.files, campaigns=self.campaigns, performance=self.performance)

    def instances_of(self, campaign_id: int) -> set[str]:
        """Return the instances that have a campaign id, in posts or in the table of campaigns."""
        rows = [*(self.campaigns or []), *(row for rows in self.files.values() for row in rows)]
        return {row["instance_id"] for row in rows if row["campaign_id"] == campaign_id}

    def rows_of(self, campaign_id: int, ages: range) -> list[Row]:
        """Return the rows of a campaign on the days of a period."""
        return [row for row in self.rows(ages) if row["campaign_id"] == campaign_id]

    def rows(self, ages: range) -> list[Row]:
        return [row for day, rows in self.performance.items() if (AS_OF - day).days in ages for row in rows]

    def stored_days(self, ages: range) -> int:
        return sum((AS_OF - day).days in ages for day in self.performance)

    def totals(self, ages: range) -> dict[tuple[str, int], dict[str, Any]]:
        """Return the totals of each campaign that belongs to one instance."""
        found = {}
        for campaign_id in {row["campaign_id"] for row in self.rows(ages)}:
            instances = self.instances_of(campaign_id)
            if len(instances) == 1:
                found[min(instances), campaign_id] = campaign_totals(self.rows_of(campaign_id, ages))
        return found

    def unassigned(self, ages: range) -> list[int]:
        return sorted(
            {row["campaign_id"] for row in self.rows(ages) if len(self.instances_of(row["campaign_id"])) != 1}
        )


def random_world(seed: int) -> World:
    random = Random(seed)
    files = with_own_campaigns(random_files(seed))
    campaigns = [
        campaign_row(instance_id, own_campaign(instance_id, campaign_id), random.choice(["Summer", None, "Late"]))
        for instance_id in INSTANCES
        for campaign_id in CAMPAIGNS
        if random.random() < 0.8
    ]
    campaigns.append(campaign_row(INSTANCES[0], WITHOUT_POSTS, "Without posts", status="draft"))
    ids = sorted({each["campaign_id"] for each in campaigns} | {OF_NO_INSTANCE, SHARED})
    has_campaigns = random.random() < 0.8
    return World(files, campaigns if has_campaigns else None, random_performance(seed, ids))


@pytest.fixture
def seed() -> int:
    return 7


def near(value: Any) -> Any:
    return None if value is None else pytest.approx(float(value), rel=1e-6, abs=1e-6)


def as_float(value: Any) -> float | None:
    return None if value is None else float(value)


@pytest.mark.parametrize("number", range(4))
def test_campaign_totals_equal_the_reference(number: int, seed: int) -> None:
    world = random_world(seed + number)
    tables = world.report().tables
    for window, days in (("7d", 7), ("28d", 28), ("90d", 90), ("365d", 365)):
        found = {
            (row["instance_id"], row["campaign_id"]): {name: as_float(row[name]) for name in CAMPAIGN_MEASURES}
            for row in tables["campaigns"].to_pylist()
            if row["window"] == window
        }
        wanted = world.totals(range(days))
        assert found == {
            key: {name: near(totals[name]) for name in CAMPAIGN_MEASURES} for key, totals in wanted.items()
        }
        unassigned = [row for row in tables["unassigned_campaigns"].to_pylist() if row["window"] == window]
        assert sorted(row["campaign_id"] for row in unassigned) == world.unassigned(range(days))
        (stored,) = [row["days"] for row in tables["campaign_days"].to_pylist() if row["window"] == window]
        assert stored == world.stored_days(range(days))


def test_campaign_totals_have_the_period_of_published_posts_without_daily_metrics(seed: int) -> None:
    world = random_world(seed)
    files = {key: rows for key, rows in world.files.items() if key[0] == PUBLISHED_TABLE and key[1] <= day_before(3)}
    data = replace(world, files=files).report()
    weeks = {row["window"]: row["days"] for row in data.tables["campaign_days"].to_pylist()}
    assert weeks["7d"] == world.stored_days(range(3, 10))


def test_campaign_totals_do_not_change_the_rest_of_the_page(seed: int) -> None:
    world = random_world(seed)
    added = {"campaigns", "campaign_totals", "campaign_days", "unassigned_campaigns"}
    # A campaign without posts has totals only, and adds to the numbers of the scopes.
    campaigns = [each for each in world.campaigns or [] if each["campaign_id"] != WITHOUT_POSTS]
    with_totals = page_data(replace(world, campaigns=campaigns).report())
    without = page_data(report_data(world.files))
    assert {name for name in with_totals if with_totals[name] != without[name]} <= added
    assert (without["campaign_totals"], without["unassigned_campaigns"]) == (None, {})


def test_report_with_campaigns_has_the_same_bytes_in_any_order_of_rows(seed: int) -> None:
    world = random_world(seed)
    backwards = World(
        files={key: rows[::-1] for key, rows in reversed(world.files.items())},
        campaigns=world.campaigns and world.campaigns[::-1],
        performance={day: rows[::-1] for day, rows in reversed(world.performance.items())},
    )
    assert report_page(world.report()) == report_page(backwards.report())


@pytest.mark.e2e
def test_page_of_two_thousand_campaigns_stays_small(browser: Browser, tmp_path: Path) -> None:
    """Measured: 6.7 MB, of which names and totals are 0.6 MB. A page of one campaign has 0.7 MB."""
    files = one_post(impressions=5, engagements=3, cpe=1.2)
    ids = range(1, 2001)
    performance = {day_before(age): [{"campaign_id": each} | _totals(each) for each in ids] for age in range(7)}
    campaigns = [campaign_row("a", each, f"Campaign number {each} of the year", status="live") for each in ids]
    for table in (METRICS_TABLE, PUBLISHED_TABLE):
        (post,) = files[table, AS_OF, "a"]
        files[table, AS_OF, "a"] = [post | {"campaign_id": each, "post_id": each} for each in ids]
    data = report_data(files, campaigns=campaigns, performance=performance)
    size, without = len(report_page(data)), len(report_page(report_data(files)))
    print(f"{size:,} bytes, {without:,} without names and totals")
    assert size < 8_000_000
    assert size - without < 1_000_000
    with open_report(browser, data, tmp_path) as report:
        assert (
            "the 200 campaigns with the highest ad spend, of 2,000" in report.page.locator("#totals-notes").inner_text()
        )
        assert [row[0] for row in report.rows("totals")[:2]] == [
            f"Campaign number {number} of the year ({number})" for number in (2000, 1999)
        ]
        assert len(report.rows("totals")) == 200
        assert len(report.download("totals")) == 2001


def _totals(number: int) -> Row:
    money = {"paid_ad_spend": number * 1.37, "estimated_content_cost": number * 0.91}
    return money | {"estimated_value_generated": number * 2.11, "paid_clicks": number, "paid_return_on_ad_spend": 1.4}


@dataclass
class Selection:
    """A page of a random lake with filters chosen."""

    report: Report
    world: World
    period: int
    instance: str | None
    campaign: int | None

    @property
    def campaigns(self) -> dict[tuple[str, int], dict[str, Any]]:
        """The selected campaigns that have totals or published posts, with their totals and costs."""
        ages = range(self.period)
        totals = self.world.totals(ages)
        posts = {key: select_rows(self.world.files, PUBLISHED_TABLE, ages, **_filters(key)) for key in self._keys()}
        return {
            key: {"totals": totals.get(key, {}), "posts": posts[key]}
            for key in self._keys()
            if key in totals or posts[key]
        }

    def _keys(self) -> list[tuple[str, int]]:
        pairs = {(row["instance_id"], row["campaign_id"]) for rows in self.world.files.values() for row in rows}
        pairs |= {(each["instance_id"], each["campaign_id"]) for each in self.world.campaigns or []}
        return [key for key in sorted(pairs) if self.instance in {None, key[0]} and self.campaign in {None, key[1]}]

    def name(self, key: tuple[str, int]) -> str:
        instance_id, campaign_id = key
        names = {
            (each["instance_id"], each["campaign_id"]): each["campaign_name"] for each in self.world.campaigns or []
        }
        name = names.get(key)
        shown = str(campaign_id) if name is None else f"{name} ({campaign_id})"
        return (
            shown
            if self.instance and self.report.page.locator("#instance").input_value()
            else f"{shown} · {instance_id}"
        )


def _filters(key: tuple[str, int]) -> dict[str, Any]:
    return {"instance": key[0], "campaign": key[1]}


FILTERS = [(28, None, None), (7, INSTANCES[1], None), (90, INSTANCES[0], CAMPAIGNS[0]), (28, INSTANCES[2], SHARED)]


@pytest.fixture(params=FILTERS, ids=str)
def selection(request: pytest.FixtureRequest, browser: Browser, tmp_path: Path, seed: int) -> Iterator[Selection]:
    period, instance, campaign = request.param
    world = random_world(seed)
    with open_report(browser, world.report(), tmp_path) as report:
        chosen = Selection(report, world, period, instance, campaign)
        report.choose("period", f"Last {period} days")
        report.choose("instance", instance or "All")
        if campaign is not None:
            report.choose("campaign", chosen.name((instance, campaign)))
        yield chosen
        assert report.misformatted() == []


@pytest.mark.e2e
def test_section_of_campaigns_equals_the_reference(selection: Selection) -> None:
    world, ages = selection.world, range(selection.period)
    shown = selection.report.rows("totals")
    assert {row[0]: row[2:] for row in shown} == {
        selection.name(key): cells(found["totals"], found["posts"]) for key, found in selection.campaigns.items()
    }
    spend = [row[2][0] for row in shown]
    assert spend == sorted(spend, key=lambda value: (value is None, -(value or 0)))
    notes = selection.report.page.locator("#totals-notes li").all_inner_texts()
    days = world.stored_days(ages)
    assert ([f"Known totals cover {days} of {selection.period} days" in note for note in notes[:1]] == [True]) is (
        days < selection.period
    )
    unassigned = [each for each in world.unassigned(ages) if selection.campaign in {None, each}]
    assert any("totals that are not shown" in note for note in notes) is bool(unassigned)

    figures = selection.report.page.locator("#campaign-figures")
    assert figures.is_visible() is (selection.campaign is not None)
    if selection.campaign is not None:
        (found,) = selection.campaigns.values()
        for name in CAMPAIGN_MEASURES:
            assert selection.report.figure(name) == near(found["totals"].get(name)), name
        if days < selection.period:
            assert f"{days} of {selection.period} days" in figures.inner_text()
        is_unassigned = bool(unassigned and selection.campaign == SHARED)
        assert ("totals that are not shown" in figures.inner_text()) is is_unassigned


def cells(totals: Mapping[str, Any], posts: list[Row]) -> list[Any]:
    """Return the cells of a campaign's row, after its name and status."""
    bounds, known = (None, None), [None]
    if posts:
        costs = published(posts)
        bounds, known = costs["paid_spend"], [costs["paid_spend_posts"], len(posts)]
    low, high = (near(each) for each in bounds)
    return [*([near(totals.get(name))] for name in CAMPAIGN_MEASURES), [None] if low is None else [low, high], known]


@pytest.mark.e2e
def test_section_of_campaigns_without_totals_is_one_sentence(browser: Browser, tmp_path: Path) -> None:
    named = [campaign_row("a", 7, "Summer")]
    with open_report(browser, report_data(one_post(impressions=5), campaigns=named), tmp_path) as report:
        assert "are not in the lake" in report.page.locator("#no-totals").inner_text()
        report.choose("campaign", "Summer (7)")
        for hidden in ("#known-totals", "#campaign-figures"):
            assert not report.page.locator(hidden).is_visible()


@pytest.mark.e2e
def test_null_and_zero_totals_look_different(browser: Browser, tmp_path: Path) -> None:
    totals = {"campaign_id": 7, "paid_ad_spend": 0.0, "affiliate_links_sales": 3.0, "tracking_links_conversions": 0}
    with open_report(browser, report_data(one_post(impressions=5), performance={AS_OF: [totals]}), tmp_path) as report:
        (row,) = report.page.locator("#totals tr").all()
        texts = row.locator("td").all_inner_texts()
        absent = "not available"
        assert texts[:7] == [absent, "$0", absent, absent, absent, absent, absent]
        assert texts[7:] == ["0", absent, absent, "3", "no paid activity", "0 of 1"]
        assert "1 of 7 days" in report.page.locator("#totals-notes").inner_text()


@pytest.mark.e2e
def test_unreadable_names_and_totals_are_listed_as_missing(browser: Browser, tmp_path: Path) -> None:
    data = replace(
        report_data(one_post(impressions=5), performance={AS_OF: []}),
        are_campaigns_unreadable=True,
        unreadable=[UnreadableFile("campaign_performance_daily", day_before(2), None)],
    )
    with open_report(browser, data, tmp_path) as report:
        assert report.missing() == [
            "The names of campaigns cannot be read: only their numbers are shown.",
            f"{day_before(2)} of all instances cannot be read (campaign totals).",
        ]


@pytest.mark.e2e
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_figures_of_a_campaign_are_accessible_and_fit(
    width: int, scheme: Literal["light", "dark"], browser: Browser, incomplete: ReportData, tmp_path: Path
) -> None:
    with open_report(browser, incomplete, tmp_path, width=width, scheme=scheme) as report:
        page = report.page
        report.choose("campaign", f"Summer launch ({CAMPAIGNS[0]}) · {INSTANCES[0]}")
        for summary in page.locator("summary").all():
            summary.click()
        assert page.locator("#campaign-figures").is_visible()
        violations = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
        assert [(each["id"], each["nodes"][0]["html"]) for each in violations] == []
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert report.cut_off() == []


@pytest.mark.e2e
def test_headings_of_campaign_totals_are_grouped(browser: Browser, incomplete: ReportData, tmp_path: Path) -> None:
    with open_report(browser, incomplete, tmp_path) as report:
        table = report.page.locator("#table-totals table")
        groups = table.locator("th[scope=colgroup]").evaluate_all(
            "all => all.map(each => [each.textContent, each.colSpan])"
        )
        assert [name.partition(":")[0] for name, _ in groups] == ["Known", "Known", "Known", "Bounded"]
        assert [span for _, span in groups] == [6, 2, 2, 2]
        spans = table.locator("colgroup").evaluate_all("all => all.map(each => each.span)")
        assert spans == [2, 6, 2, 2, 2]
        assert table.locator("thead th[scope=col]").count() == sum(spans)
        assert table.locator("tbody th[scope=row]").count() == table.locator("tbody tr").count()
        assert table.locator("caption").inner_text() == "Spend and return by campaign"
