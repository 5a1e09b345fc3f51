"""The page of lakes that commands have made: each figure beside another is of the same instances and days."""

from collections.abc import Collection, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from later_reporting_dagster.report.report_data import REPORT_PATH
from tests.cli.accounts import NEWEST, Account, new_posts, serving
from tests.independent_server import IndependentServer
from tests.report.conftest import running_browser
from tests.report.report_browser import open_page

DAYS = 28
# Those that add up over posts, so that the page and the totals of the account are equal.
FIGURES = {"Impressions": "impressions", "Engagements": "engagements"}


@pytest.fixture
def account(dagster_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    """An account with the instances a, b and c, and a lake that begins with the newest windows."""
    server = IndependentServer(new_posts("a", "b", "c"), by_cursor=False)
    with serving(server, home=dagster_home, folder=tmp_path, environment=monkeypatch) as account:
        yield account


def prepare(case: str, account: Account) -> None:
    """Fetch the windows, after which the instances in the numbers are other than those that the API lists."""
    if case == "one":
        account.server.posts = new_posts("a")
    configure(account, *("ab" if case == "configured" else ""))
    account.backfill(days=DAYS)
    if case == "retired":
        account.run("retire", "c")
        account.backfill()
    if case == "narrowed":
        configure(account, "a", "b")
        account.backfill()


def configure(account: Account, *instance_ids: str) -> None:
    account.configure(*instance_ids, LATER_START_DATE=str(NEWEST - timedelta(days=DAYS - 1)))


@pytest.mark.parametrize(("case", "names"), [("one", "a"), ("configured", "ab"), ("retired", "ab"), ("narrowed", None)])
def test_figures_that_stand_in_a_row_are_of_the_same_instances_and_days(
    case: str, names: Collection[str] | None, account: Account
) -> None:
    prepare(case, account)
    with running_browser() as browser:
        for window, days in (("7d", 7), ("28d", 28)):
            with open_page(browser, account.lake / REPORT_PATH, fragment=f"#period={window}") as report:
                report.open_all()
                rows = {row["Figure"]: row for row in report.tables()["later"]}
                shown = {figure: report.figure(figure.lower()) for figure in FIGURES}
            if names is None:  # the newest total of all lacks an instance that is in the numbers
                assert rows.keys() <= {None}
                continue
            truth = account.truth(NEWEST - timedelta(days=days - 1), NEWEST, names)
            for figure, metric in FIGURES.items():
                organic, paid = (rows[f"{kind} {figure.lower()}"] for kind in ("Organic", "Paid"))
                assert (organic["Here"], organic["Later"]) == (truth[metric], truth[metric])
                assert (paid["Here"], paid["Later"]) == (truth[f"paid_{metric}"], truth[f"paid_{metric}"])
                assert shown[figure] == truth[metric] + truth[f"paid_{metric}"]
