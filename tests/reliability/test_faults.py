"""Whatever a server does, no row is lost, doubled, invented or changed: each fault once, and all hostile rows at once.

`python -m tests.reliability` does more of it, and tabulates it.
"""

import pytest

from later_reporting_dagster.client import page_number_paginator
from later_reporting_dagster.contract import CURSOR, PAGED, Revision
from later_reporting_dagster.sandbox import FAULTS, HOSTILE
from later_reporting_dagster.sandbox.faults import WireFault
from tests.reliability.__main__ import failures
from tests.reliability.trial import TOLD_BY_A_SECOND_LOOK, Trials

# More of them than of the command's, because there are fewer answers.
SHARE = 0.2
SHARES = {"token-route-down": 0.6, "token-revoked": 0.1, "page-short": 0.4, "slow": 0.1, "huge-body": 0.1}


# What becomes of an answer on its way is the same for both revisions: a few of these are enough by cursor.
ON_THE_WAY = ("http-429", "http-503", "body-cut", "json-truncated", "token-revoked")


@pytest.fixture(scope="module")
def trials() -> Trials:
    return Trials(posts_per_day=12)


@pytest.fixture(scope="module")
def trials_by_cursor() -> Trials:
    return Trials(posts_per_day=12, revision=CURSOR)


@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if PAGED in fault.revisions])
def test_a_fault_costs_no_row(trials: Trials, name: str) -> None:
    trial = trials.of_fault(name, share=SHARES.get(name, SHARE), seed=1)
    assert failures(name, trial) == []


def test_what_no_count_can_show_is_missed_until_the_next_fetch_at_most(trials: Trials) -> None:
    trial = trials.of_fault(TOLD_BY_A_SECOND_LOOK, share=0.4, seed=1, second_looks=0.0)
    assert failures(TOLD_BY_A_SECOND_LOOK, trial, may_miss=True) == []


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, fault in FAULTS.items()
        if CURSOR in fault.revisions and (name in ON_THE_WAY or not isinstance(fault, WireFault))
    ],
)
def test_a_fault_costs_no_row_by_cursor(trials_by_cursor: Trials, name: str) -> None:
    trial = trials_by_cursor.of_fault(name, share=SHARES.get(name, SHARE), seed=1)
    assert failures(name, trial) == []


@pytest.mark.parametrize("revision", [PAGED, CURSOR], ids=str)
def test_hostile_rows_land_as_they_are_or_are_set_aside(
    revision: Revision, trials: Trials, trials_by_cursor: Trials
) -> None:
    trials = trials if revision is PAGED else trials_by_cursor
    shares = {name: 0.003 if name == "megabyte-text" else 0.03 for name in HOSTILE}
    trial = trials.of_hostile_rows(shares, seed=1)
    assert failures("hostile rows", trial) == []
    assert 0 < trial.quarantined < trial.injected


def test_a_client_that_believes_every_page_would_be_found_out(trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_number_paginator, "problem_of", lambda *pages: None)
    monkeypatch.setattr(page_number_paginator, "problem_of_page", lambda *page, **more: None)
    trial = trials.of_fault("page-short", share=0.4, seed=1)
    assert trial.found.lost > 0
    assert failures("page-short", trial)
