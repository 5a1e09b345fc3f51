"""Which instances are fetched, expected and in the numbers, by the commands, on the independent server."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.cli.accounts import (
    ACCOUNT_DAYS,
    ACCOUNT_PERIODS,
    CAMPAIGN_DAYS,
    CAMPAIGN_PERIODS,
    FIRST_DAY,
    MONTHS,
    NEWEST,
    POSTS,
    Account,
    failures,
    month_before,
    new_posts,
    older_months,
    serving,
)
from tests.independent_server import IndependentServer

FETCHED = (*POSTS, ACCOUNT_DAYS, ACCOUNT_PERIODS, CAMPAIGN_DAYS, CAMPAIGN_PERIODS)
LISTS = ("instances", "campaigns", "coverage")
WINDOWS = ("7d", "28d", "90d", "365d", "730d")
ACCOUNT_PATH, DAYS_PATH = "/v2/instances/performance", "/v2/instances/performance-over-time"
# Of all together, or of the only instance.
ALL_PERIODS = len(WINDOWS) + len(WINDOWS) - 1 + MONTHS
OLDER_MONTHS = MONTHS - 3  # those that no run fetches again without a reason


@pytest.fixture
def account(dagster_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    """An account with the instances a, b and c, in the paged API version."""
    server = IndependentServer(new_posts("a", "b", "c"), by_cursor=False)
    with serving(server, home=dagster_home, folder=tmp_path, environment=monkeypatch) as account:
        yield account


def recorded(account: Account) -> set[tuple[str, ...] | None]:
    """Return whose total the rows of all together are."""
    found = [row.get("instance_ids") for row in account.totals(scope="all")]
    return {None if names is None else tuple(names) for names in found}


@pytest.mark.parametrize(
    "tables",
    [
        pytest.param((ACCOUNT_PERIODS,), id="one"),
        pytest.param(FETCHED, id="fetched", marks=pytest.mark.faults),
        pytest.param((*FETCHED, *LISTS), id="listed", marks=pytest.mark.faults),
    ],
)
def test_a_first_run_asks_nothing_of_an_instance_that_is_not_configured(
    tables: tuple[str, ...], account: Account
) -> None:
    account.configure("a", "b", tables=tables, months=True)
    for _ in range(2):
        account.backfill()
        assert account.asked_of("c") == []
        account.assert_totals("ab")
        assert account.periods("instance", "c") == set()
    assert older_months(account) == []
    assert recorded(account) == {("a", "b")}


@pytest.mark.parametrize(
    "change",
    ["retired", "not configured", *(pytest.param(each, marks=pytest.mark.faults) for each in ("new", "undone"))],
)
def test_totals_of_another_set_of_instances_are_fetched_again(change: str, account: Account) -> None:
    tables = (*FETCHED, *LISTS)
    account.configure(tables=tables, months=True)
    before, after = "abc", "ab"
    if change == "new":
        account.server.unlisted, before, after = {"c"}, "ab", "abc"
    account.backfill()
    if change == "undone":
        account.run("retire", "c")
        account.backfill()
        before, after = "ab", "abc"
    account.assert_totals(before)
    if change == "retired":
        account.run("retire", "c")
    elif change == "not configured":
        account.configure("a", "b", tables=tables, months=True)
    elif change == "undone":
        account.run("retire", "--undo", "c")
    account.server.unlisted = set()
    before_run = recorded(account)
    account.backfill()
    account.assert_totals(after)
    assert before_run == {tuple(before)}
    assert recorded(account) == {tuple(after)}
    assert {row["instance_ids"] for row in account.totals(scope="instance")} == {None}
    account.backfill()
    assert older_months(account) == []


def test_of_two_instances_of_which_one_is_retired_the_other_has_all_periods(account: Account) -> None:
    account.server.posts = new_posts("a", "b")
    account.configure(tables=(*FETCHED, *LISTS), months=True)
    account.backfill()
    account.assert_totals("ab")
    account.run("retire", "b")
    account.backfill()
    assert account.totals(scope="all") == []
    of_a = [row for row in account.totals(scope="instance") if row["instance_id"] == "a"]
    assert len(of_a) == ALL_PERIODS
    for row in of_a:
        truth = account.truth(row["first_day"], row["last_day"], "a")
        assert {name: row[name] for name in truth} == truth
    account.backfill()
    assert older_months(account) == []


@pytest.mark.parametrize("configured", [(), ("a",)], ids=["listed", "configured"])
def test_the_only_instance_has_all_windows_and_months(configured: tuple[str, ...], account: Account) -> None:
    account.server.posts = new_posts("a", *("b" for _ in configured))
    account.configure(*configured, tables=(*FETCHED, *LISTS), months=True)
    account.backfill()
    assert account.totals(scope="all") == []
    account.assert_totals("a", scope="instance")
    periods = account.periods("instance", "a")
    months = {("recorded_month", month_before(NEWEST, number)) for number in range(MONTHS)}
    assert {name for name, _ in periods} == {*WINDOWS, *(f"previous_{name}" for name in WINDOWS[:-1]), "recorded_month"}
    assert months <= periods
    assert account.requests(ACCOUNT_PATH) == ALL_PERIODS
    account.backfill()
    assert account.requests(ACCOUNT_PATH) == ALL_PERIODS - OLDER_MONTHS


@pytest.mark.parametrize(
    ("status", "version"),
    [
        *((403, "auto"), (404, "paged"), (500, "auto")),
        *(pytest.param(*each, marks=pytest.mark.faults) for each in ((403, "paged"), (404, "auto"), (500, "paged"))),
    ],
)
def test_commands_do_without_the_list_of_instances_if_they_are_configured(
    status: int, version: str, account: Account
) -> None:
    account.configure("a", "b", tables=(*FETCHED, *LISTS), LATER_API_VERSION=version)
    verdicts = account.user.run("probe").stdout
    account.server.refused = {"/v2/instances": status}
    assert account.user.run("probe").stdout.splitlines()[1:] == verdicts.splitlines()[1:]
    result = account.backfill()
    warnings = [line for line in result.stderr.splitlines() if line.startswith("Warning: ")]
    assert len([line for line in warnings if "instances" in line]) == 1, result.output
    account.assert_totals("ab")
    assert account.fetched(ACCOUNT_DAYS) == {"a", "b"}
    assert {row["instance_id"]: row["listed_now"] for row in account.rows("instances")} == {"a": None, "b": None}
    checks = account.doctor()
    assert "FAIL" not in {mark for mark, _ in checks.values()}
    assert checks["scope"][0] == "WARN"
    printed = json.loads(account.run("backfill", "--asset", "instances", "--format", "json").stdout)
    (listed,) = [check for check in printed["checks"] if check["check"] == "every_instance_is_still_listed"]
    assert listed["description"].startswith("Not known: ")
    account.run("refresh")


@pytest.mark.parametrize("status", [403, 500])
def test_commands_without_a_list_of_instances_fail_if_none_are_configured(status: int, account: Account) -> None:
    account.configure(tables=(*FETCHED, *LISTS))
    verdicts = account.user.run("probe").stdout.splitlines()[1:]
    account.server.refused = {"/v2/instances": status}
    result = account.backfill(exit_code=1)
    assert f"HTTP {status}" in result.stderr
    assert "set LATER_INSTANCE_IDS" in result.stderr
    assert account.files(POSTS[0]) == {}
    mark, message = account.doctor(exit_code=1)["scope"]
    assert mark == "FAIL"
    assert f"HTTP {status}" in message
    # No assumption needs the list.
    assert account.user.run("probe").stdout.splitlines()[1:] == verdicts


@pytest.mark.parametrize("reason", ["listed again", "no longer retired"])
def test_a_run_that_fetches_posts_of_an_instance_fetches_its_totals_too(reason: str, account: Account) -> None:
    account.configure(tables=(*FETCHED, *LISTS), months=True)
    account.backfill()
    before = account.rows(ACCOUNT_PERIODS)
    if reason == "listed again":
        account.server.unlisted = {"c"}
        account.backfill()
        # A total of the others is not asked for, because the list may be wrong for an hour.
        assert account.rows(ACCOUNT_PERIODS) == before
        account.server.unlisted = set()
    else:
        account.run("retire", "c")
        account.backfill()
        account.run("retire", "--undo", "c")
    account.server.posts = new_posts("a", "b", "c", seed=2)
    account.backfill()
    assert [target for target in account.asked_of("c") if DAYS_PATH in target]
    # Where the rows of all together stayed those of the three, older months are not due again.
    assert len(older_months(account)) == (0 if reason == "listed again" else OLDER_MONTHS)
    first_months = {month_before(NEWEST, number) for number in range(3, MONTHS)} if reason == "listed again" else set()
    account.assert_totals("abc", but=first_months)
    assert len(account.totals(scope="all")) == ALL_PERIODS
    for row in account.totals(scope="instance"):
        truth = account.truth(row["first_day"], row["last_day"], row["instance_id"])
        assert {name: row[name] for name in truth} == truth


def test_a_retired_instance_that_is_still_listed_costs_its_months_once(account: Account) -> None:
    account.configure(tables=POSTS)
    account.backfill()
    account.run("retire", "c")
    account.configure(tables=(*FETCHED, *LISTS), months=True)
    account.backfill()
    assert len(older_months(account)) == OLDER_MONTHS
    account.backfill()
    assert older_months(account) == []


def test_a_listed_instance_that_is_refused_costs_its_own_totals_and_those_of_all(account: Account) -> None:
    account.configure(tables=(*FETCHED, *LISTS))
    account.server.refused = {"c": 403}
    result = account.backfill(exit_code=1)
    assert "refuses its route" not in result.output
    failed = [subject for table, subject in failures(result.stderr) if table == ACCOUNT_PERIODS]
    assert [subject for subject in failed if subject.endswith(" of c")]
    assert [subject for subject in failed if " of " not in subject]
    assert not [subject for subject in failed if subject.endswith((" of a", " of b"))]
    assert {row["instance_id"] for row in account.totals()} == {"a", "b"}


def test_a_refused_instance_keeps_what_is_stored(account: Account) -> None:
    account.configure(tables=(*FETCHED, *LISTS))
    account.backfill()
    before = {(row["scope"], row["instance_id"]): row for row in account.totals()}
    account.server.posts = new_posts("a", "b", "c", seed=2)
    account.server.refused = {"c": 403}
    account.backfill(exit_code=1)
    after = {(row["scope"], row["instance_id"]): row for row in account.totals()}
    for key in (("all", ""), ("instance", "c")):
        assert after[key] == before[key]
    for name in "ab":
        rows = [row for row in account.totals(scope="instance") if row["instance_id"] == name]
        for row in rows:
            truth = account.truth(row["first_day"], row["last_day"], name)
            assert {column: row[column] for column in truth} == truth


def test_a_route_is_refused_if_two_instances_are(account: Account) -> None:
    account.configure(tables=(*FETCHED, *LISTS))
    account.server.refused = {ACCOUNT_PATH: 403}
    result = account.backfill()
    assert f"{ACCOUNT_PERIODS} was not updated, because the API refuses its route" in result.stderr


def test_of_the_only_instance_a_refusal_may_be_that_of_the_route(account: Account) -> None:
    account.configure("a", tables=(ACCOUNT_PERIODS, ACCOUNT_DAYS))
    for refused in ("a", ACCOUNT_PATH):
        account.server.refused = {refused: 403}
        result = account.backfill(exit_code=1)
        assert ACCOUNT_PERIODS in {table for table, _ in failures(result.stderr)}
        (line,) = [line for line in result.stderr.splitlines() if ACCOUNT_PERIODS in line and "403" in line]
        assert "the API refuses its route, or only 'a'" in line


def test_an_instance_that_is_no_longer_configured_stays_in_the_numbers_and_is_named(account: Account) -> None:
    account.configure()
    account.backfill()
    columns, of_c = "time_window, organic_impressions", "scope = 'instance' and instance_id = 'c'"
    by_instance = f"select {columns} from organic_paid_overall where {of_c}"
    before = account.query(by_instance)
    assert before
    account.configure("a", "b")
    result = account.backfill()
    assert account.query(by_instance) == before
    account.assert_totals("ab")
    (line,) = [line for line in result.stdout.splitlines() if "every_instance_in_the_numbers_is_fetched" in line]
    state = f"c (no day after {NEWEST})"
    assert all(text in line for text in ("WARN", "n the numbers", state, "later-reporting retire"))
    assert len([message for mark, message in account.doctor().values() if mark == "WARN" and state in message]) == 1
    assert state in (account.lake / "organic_paid_report" / "report.html").read_text()


def test_no_shell_is_told_that_files_are_missing_by_the_setting_of_another(account: Account) -> None:
    def missing() -> dict[str, str]:
        checks = account.doctor()
        return {name: message for name, (_, message) in checks.items() if "missing" in message}

    account.configure("a", "b", "c")
    account.backfill()
    account.configure("a", "b")
    account.backfill(days=1)
    assert missing() == {}
    account.configure("a", "b", "c")
    assert missing() == {}
    assert {row["instance_id"]: row["posts_published_missing_days"] for row in instances(account)} == dict.fromkeys(
        "abc", 0
    )
    # Of c, this shell has never fetched the first day.
    account.configure("a", "b", LATER_START_DATE=str(FIRST_DAY - timedelta(days=1)))
    account.backfill(days=3)
    assert missing() == {}
    account.configure("a", "b", "c", LATER_START_DATE=str(FIRST_DAY - timedelta(days=1)))
    assert {message.partition(": run ")[0] for message in missing().values()} == {
        f"1 file is missing: {FIRST_DAY - timedelta(days=1)} (1 day): c"
    }
    result = account.run("refresh")
    account.configure("a", "b", LATER_START_DATE=str(FIRST_DAY - timedelta(days=1)))
    assert missing() == {}
    result = account.backfill("--only-missing", days=3)
    assert "are missing" not in result.stdout
    assert "is missing" not in result.stdout


def instances(account: Account) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = json.loads(account.run("instances", "--format", "json").stdout)
    return rows


def test_doctor_names_no_command_for_files_of_an_instance_that_is_no_longer_listed(account: Account) -> None:
    account.configure(tables=(*FETCHED, *LISTS))
    account.backfill()
    for path in account.lake.glob(f"{POSTS[0]}/date={NEWEST}/instance_id=*/part-0.parquet"):
        if "=c" in str(path):
            path.unlink()
    subject = f"later/{POSTS[0]}"
    assert "--only-missing" in account.doctor()[subject][1]
    account.server.unlisted = {"c"}
    mark, message = account.doctor()[subject]
    assert mark == "WARN"
    assert message == (
        f"1 file is missing: {NEWEST} (1 day): c: not fetched, because the API no longer lists these instances"
    )
