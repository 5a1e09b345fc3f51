"""Combinations of configured, listed, stored, retired and refused instances, by the commands on the independent server.

Each begins with a lake that an earlier run has filled, and metrics that have changed since. What must hold is computed
from what the server knows, and from the lake before.
"""

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Literal

import pytest

from tests.cli.accounts import (
    ACCOUNT_DAYS,
    ACCOUNT_PERIODS,
    CAMPAIGN_DAYS,
    CAMPAIGN_PERIODS,
    CAMPAIGNS,
    NEWEST,
    Account,
    failures,
    new_posts,
    older_months,
    serving,
)
from tests.independent_server import IndependentServer

INSTANCES = ("a", "b", "c")
TABLES = ("posts_published", ACCOUNT_DAYS, ACCOUNT_PERIODS, CAMPAIGN_DAYS, CAMPAIGN_PERIODS, "instances")
Ids = frozenset[str]
NONE: Ids = frozenset()


@dataclass(frozen=True, kw_only=True)
class Case:
    """One combination.

    Attributes:
        configured: `LATER_INSTANCE_IDS`; none: not set.
        listed: what the API lists; None: it refuses.
        fails: how the API answers for the instance c.
        names_instances: whether rows of campaigns name their instance.
        lists_campaigns: whether the lake has the table `campaigns`.
    """

    configured: Ids
    listed: Ids | None
    stored: Ids
    retired: Ids
    fails: Literal["", "refused", "empty"]
    names_instances: bool
    lists_campaigns: bool

    def __str__(self) -> str:
        sets = (self.configured, self.listed, self.stored, self.retired)
        texts = ["refused" if names is None else "".join(sorted(names)) or "none" for names in sets]
        others = (self.fails, "instanceId" * self.names_instances, "campaigns" * self.lists_campaigns)
        return "-".join([*texts, *filter(None, others)])

    @cached_property
    def to_fetch(self) -> Ids:
        return (self.configured or self.listed or NONE) - self.retired

    @cached_property
    def expected(self) -> Ids:
        return (self.configured or self.stored | (self.listed or NONE)) - self.retired

    @cached_property
    def failing(self) -> Ids:
        """The instances whose files and totals cannot be replaced."""
        if self.fails == "refused":
            return self.to_fetch & {"c"}
        return self.to_fetch & self.stored & {"c"} if self.fails else NONE


def combinations() -> Iterator[Case]:
    sets = [frozenset(text) for text in ("", "ab", "abc", "a")]
    lists = [frozenset("abc"), frozenset("ab"), None]
    lakes = [("", ""), ("ab", ""), ("ab", "b"), ("abc", ""), ("abc", "b"), ("abc", "c")]
    fails: tuple[Literal["", "refused", "empty"], ...] = ("", "refused", "empty")
    found = [each for each in product(sets, lists, lakes, fails) if each[0] or each[1]]
    for number, (configured, listed, (stored, retired), failure) in enumerate(found):
        yield Case(
            configured=configured,
            listed=listed,
            stored=frozenset(stored),
            retired=frozenset(retired),
            fails=failure,
            names_instances=bool(number % 2),
            lists_campaigns=bool(number // 2 % 2),
        )


CASES = [*combinations()]
# Each value of each set at least once; in the second tier, some more. All take half an hour: COMBINATIONS=all.
FEW = CASES[3::29]
MORE = CASES if os.environ.get("COMBINATIONS") == "all" else CASES[4::16]
CHOSEN = [*FEW, *(pytest.param(case, marks=pytest.mark.faults) for case in MORE if case not in FEW)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[Ids, bool], Path]:
    """Lakes by their instances, and by whether they have the table of campaigns; filled when they are first needed."""
    return {}


@pytest.fixture
def account(dagster_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    server = IndependentServer(new_posts(*INSTANCES), by_cursor=False)
    with serving(server, home=dagster_home, folder=tmp_path, environment=monkeypatch) as account:
        yield account


def tables_of(case: Case) -> tuple[str, ...]:
    return (*TABLES, *(("campaigns",) if case.lists_campaigns else ()))


def fill(account: Account, case: Case, prepared: dict[tuple[Ids, bool], Path], folder: Path) -> None:
    """Fill the lake by a run that the instances of the case are configured for; then let all metrics change."""
    if case.stored:
        key = case.stored, case.lists_campaigns
        if key not in prepared:
            account.configure(*sorted(case.stored), tables=tables_of(case), months=True)
            account.server.unlisted = {*INSTANCES} - case.stored  # so that the others are new, if they are listed now
            account.backfill(days=1)
            prepared[key] = Path(shutil.copytree(account.lake, folder / f"lake {len(prepared)}"))
        else:
            shutil.copytree(prepared[key], account.lake)
    for instance_id in sorted(case.retired):
        account.run("retire", instance_id)
    posts = account.server.posts
    for post_id in sorted({post["postId"] for post in posts.published(NEWEST.replace(year=2000), NEWEST)}):
        posts.restate(post_id)


def rows_of(account: Account, instance_id: str) -> dict[tuple[object, ...], object]:
    """Return what the lake has of an instance, by key: files, totals, and rows of its campaigns."""
    files: dict[tuple[object, ...], object] = {
        (table, str(each.parent)): each.read_bytes()
        for table in ("posts_published", ACCOUNT_DAYS)
        for each in (account.lake / table).rglob(f"instance_id={instance_id}/part-0.parquet")
    }
    totals = {
        (row["period"], row["first_day"]): row
        for row in account.totals(scope="instance")
        if row["instance_id"] == instance_id
    }
    campaigns = {
        (row["date_basis"], row["period"], row["first_day"], row["campaign_id"]): row
        for row in account.rows(CAMPAIGN_PERIODS)
        if row["campaign_id"] in CAMPAIGNS[instance_id]
    }
    return {**files, **totals, **campaigns}


def without(keys: set[tuple[object, ...]], rows: Mapping[tuple[object, ...], object]) -> dict[object, object]:
    return {key: row for key, row in rows.items() if key not in keys}


@pytest.mark.parametrize("case", CHOSEN, ids=str)
def test_what_a_run_fetches_keeps_and_names(
    case: Case, account: Account, prepared: dict[tuple[Ids, bool], Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    fill(account, case, prepared, tmp_path_factory.mktemp("prepared"))
    account.configure(*sorted(case.configured), tables=tables_of(case), months=True)
    server = account.server
    server.names_instances = case.names_instances
    server.unlisted = {*INSTANCES} - (frozenset(INSTANCES) if case.listed is None else case.listed)
    server.refused = {"/v2/instances": 403} if case.listed is None else {}
    if case.fails == "refused":
        server.refused = {**server.refused, "c": 403}
    elif case.fails == "empty":
        server.empty = {"c"}
    before = {name: rows_of(account, name) for name in INSTANCES}
    all_before = {(row["period"], row["first_day"]): row for row in account.totals(scope="all")}
    if not case.to_fetch:
        assert account.run("backfill", "--start", str(NEWEST), exit_code=1).stderr
        assert {name: rows_of(account, name) for name in INSTANCES} == before
        return

    result = account.run("backfill", "--start", str(NEWEST), exit_code=int(bool(case.failing)))

    after = {name: rows_of(account, name) for name in INSTANCES}
    for name in INSTANCES:
        assert before[name].keys() <= after[name].keys(), f"lost of {name}: {before[name].keys() - after[name].keys()}"
        if name not in case.to_fetch:
            assert account.asked_of(name) == []
            # A query that names no instance is also for the campaigns of those that are retired and still listed.
            is_in_response = name in case.retired & (case.listed or NONE) and not case.configured
            of_campaigns = {key for key in after[name] if len(key) == 4} if is_in_response else set()
            assert without(of_campaigns, after[name]) == without(of_campaigns, before[name]), f"new rows of {name}"
        elif name in case.failing:
            assert after[name] == before[name], f"{name} was replaced, in spite of its failure"
            assert name in named(result.stderr)
        else:
            assert_true(account, name)
    assert_totals_of_all(account, case, all_before)
    for name in sorted(case.expected - case.to_fetch):
        lines = [line for line in result.stdout.splitlines() if re.search(rf"\b{name}\b", line)]
        assert [line for line in lines if "WARN" in line or "FAIL" in line], result.stdout

    requests = answered_requests(account, case)
    months = older_months(account)
    again = account.run("backfill", "--start", str(NEWEST), exit_code=int(bool(case.failing)))
    assert named(again.stderr) == named(result.stderr)
    assert answered_requests(account, case) <= requests
    if not case.failing:
        assert older_months(account) == [], f"fetched before: {months}"
        assert {name: rows_of(account, name) for name in INSTANCES} == after


def answered_requests(account: Account, case: Case) -> int:
    """Return how many requests the last command sent, but for those that are refused.

    How many of these are sent before the first response is a matter of time. So is how often the list is requested.
    """
    refused = {*(account.asked_of("c") if case.fails == "refused" else ())}
    targets = (target for target in account.asked.elements() if target.startswith("GET ") and target not in refused)
    return sum(not (refused and target.startswith("GET /v2/instances?")) for target in targets)


def named(stderr: str) -> set[str]:
    """Return the instances that failures name as their subject."""
    subjects = [subject for _, subject in failures(stderr)]
    return {name for name in CAMPAIGNS for subject in subjects if f" {subject}".endswith(f" {name}")}


def assert_true(account: Account, instance_id: str) -> None:
    """Assert that all newest totals of an instance are those of the server now."""
    rows = [row for row in account.totals(scope="instance") if row["instance_id"] == instance_id]
    assert rows
    for row in rows:
        truth = account.truth(row["first_day"], row["last_day"], instance_id)
        assert {name: row[name] for name in truth} == truth, (row["period"], row["first_day"])
    assert instance_id in account.fetched(ACCOUNT_DAYS)


def assert_totals_of_all(account: Account, case: Case, before: dict[object, dict[str, object]]) -> None:
    """Assert that each total of all together is that of the instances it names, or as it was."""
    rows = {(row["period"], row["first_day"]): row for row in account.totals(scope="all")}
    # With a list that lacks an expected instance, no total of all can be asked for honestly.
    is_asked = len(case.to_fetch) > 1 and case.to_fetch == case.expected and not case.failing
    is_asked &= case.listed is None or case.expected <= case.listed
    if is_asked:
        assert rows
        assert {tuple(row["instance_ids"] or ()) for row in rows.values()} == {tuple(sorted(case.to_fetch))}
    if len(case.stored - case.retired | case.expected) == 1:
        assert rows == {}
        return
    assert before.keys() <= rows.keys()
    for key, row in rows.items():
        if row != before.get(key):
            truth = account.truth(row["first_day"], row["last_day"], row["instance_ids"])
            assert {name: row[name] for name in truth} == truth, key
            assert is_asked
