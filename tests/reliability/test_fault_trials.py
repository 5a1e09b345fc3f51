"""No fault loses, doubles, invents or changes a row, and neither do posts that change between pages."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import pytest

from later_reporting_dagster.contract import API_VERSIONS
from later_reporting_dagster.lake import Partition
from tests.deviations import DAYS, INSTANCE_IDS, POSTS, Deviation, PlainPosts
from tests.faults import FAULTS, RandomFaults
from tests.independent_server import Asked, Reply, Row
from tests.reliability.lake_comparison import compare_rows, read_partition
from tests.reliability.trial import TABLES, Trial

pytestmark = pytest.mark.faults

# Of each fault.
TRIALS = int(os.environ.get("TRIALS", "1"))
SHARE = 0.2
# Requests for tokens and by post date are rare, and a time-out takes a second.
SHARES = {"no tokens": 0.9, "short page": 0.4, "post outside of the range": 0.6, "time-out": 0.1, "huge body": 0.1}


@pytest.fixture(scope="module")
def posts() -> PlainPosts:
    """Posts that take several pages: of all days by post date, and of each day by performance date."""
    return PlainPosts(most=60)


def fetch(trial: Trial) -> None:
    trial.days.clear()
    trial.error = None
    trial.fetch(timeout_seconds=1.0)


def assert_lake_has(trial: Trial, *, required: Callable[[Row], bool], allowed: Callable[[Row], bool]) -> int:
    """Assert that files have all required rows and no others than the allowed ones; return how many failed."""
    failed = 0
    for day, instance_id in product(DAYS, INSTANCE_IDS):
        stored = read_partition(trial.root, (trial.table_name, Partition(day, instance_id)))
        rows = trial.true_rows(day, instance_id)
        assert (stored is None) == (trial.failure(day, instance_id) is not None)
        wrong = compare_rows(stored or [], required=filter(required, rows), allowed=filter(allowed, rows))
        assert stored is None or not wrong, (day, instance_id, wrong)
        failed += stored is None
    return failed


def anything(_row: Row) -> bool:
    return True


@pytest.mark.parametrize(
    ("name", "version"), [(name, version) for name, (_, versions) in FAULTS.items() for version in versions]
)
def test_fault_loses_no_row(name: str, version: str, posts: PlainPosts, tmp_path: Path) -> None:
    injected = failed = 0
    for seed, table_name in product(range(TRIALS), TABLES):
        faults = RandomFaults({name: SHARES.get(name, SHARE)}, seed=seed)
        deviation = Deviation(change=faults)
        trial = Trial(deviation, posts, version, table_name, tmp_path / f"{seed}", max_attempts=5)
        fetch(trial)
        failed += assert_lake_has(trial, required=anything, allowed=anything)
        injected += faults.injected.total()
        faults.shares = {}
        fetch(trial)
        assert not assert_lake_has(trial, required=anything, allowed=anything)
    print(f"{name}, {version}: {injected} faults, {failed} files failed until the next fetch")
    assert injected


@dataclass
class ChangingPosts:
    """Hides or shows a post after some of the pages, as a change of responses and of the rows of a query.

    Attributes:
        shows, hides: whether a change shows a hidden post, and whether it hides one.
        left: how many changes are left.
        ever_hidden: the posts that were hidden at any time.
    """

    ids: list[int]
    shows: bool
    hides: bool
    by_cursor: bool
    seed: int
    left: int = 8
    hidden: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.hidden |= {*Random(self.seed).sample(self.ids, 12)}
        self.ever_hidden = {*self.hidden}

    def has(self, row: Row) -> bool:
        return row["postId"] not in self.hidden

    def had_always(self, row: Row) -> bool:
        return row["postId"] not in self.ever_hidden

    def rows(self, rows: list[Row]) -> list[Any]:
        """Return the rows of a query. With cursors, a change does not shift the rows of the next page."""
        return [row if self.has(row) else None for row in rows] if self.by_cursor else [*filter(self.has, rows)]

    def change(self, asked: Asked, reply: Reply) -> Reply:
        random = Random(f"{self.seed} {asked}")
        if asked.path == POSTS and self.left and random.random() < 0.6:
            self.left -= 1
            shown = random.choice(sorted(self.hidden))
            if self.hides:
                hidden = random.choice([number for number in self.ids if number not in self.hidden])
                self.hidden.add(hidden)
                self.ever_hidden.add(hidden)
            if self.shows:
                self.hidden.discard(shown)
        return reply


CHANGES: Mapping[str, Mapping[str, bool]] = {
    "appear": {"shows": True, "hides": False},
    "vanish": {"shows": False, "hides": True},
    # Of numbered pages, only a verification finds it: the total stays the same.
    "are exchanged": {"shows": True, "hides": True},
}


@pytest.mark.parametrize(("change", "version"), [*product(CHANGES, API_VERSIONS)])
def test_posts_that_change_between_pages_are_neither_lost_nor_doubled(
    change: str, version: str, posts: PlainPosts, tmp_path: Path
) -> None:
    ids = sorted({row["postId"] for row in posts.published(DAYS[0], DAYS[-1])})
    for seed, table_name in product(range(TRIALS), TABLES):
        changing = ChangingPosts(ids, **CHANGES[change], by_cursor=version == "cursor", seed=seed)
        deviation = Deviation(rows=changing.rows, change=changing.change)
        verifies = change == "are exchanged" and version == "paged"
        trial = Trial(deviation, posts, version, table_name, tmp_path / f"{seed}", max_attempts=5, verifies=verifies)
        fetch(trial)
        assert changing.left < 8
        assert_lake_has(trial, required=changing.had_always, allowed=anything)
        changing.left = 0
        fetch(trial)
        assert not assert_lake_has(trial, required=changing.has, allowed=changing.has)
