"""No fault loses, doubles, invents or changes a row: trials of each fault, and one of all malformations."""

import os
from collections import Counter

import pytest

from later_reporting_dagster.contract import CURSOR, PAGED, ApiVersion
from tests.faulty_sandbox import FAULTS, MALFORMATIONS, PAGE_FAULTS
from tests.reliability.trial import FOUND_BY_VERIFICATION, Trials

pytestmark = pytest.mark.faults

# Of each fault.
TRIALS = int(os.environ.get("TRIALS", "1"))
SHARE = 0.2
# Requests for tokens and by post date are rare, a revoked token affects all requests, and slow or huge responses take
# long.
SHARES = {
    "token-route-down": 0.6,
    "token-revoked": 0.1,
    "page-short": 0.4,
    "post-outside-range": 0.6,
    "slow": 0.1,
    "huge-body": 0.1,
}

# Response faults do not depend on the API version: a few suffice in the cursor version.
CURSOR_FAULTS = [
    *("http-429", "http-503", "body-cut", "json-truncated", "token-revoked", "switch-api-version"),
    *(name for name, fault in PAGE_FAULTS.items() if CURSOR in fault.api_versions),
]


@pytest.fixture(scope="module")
def paged_trials() -> Trials:
    return Trials(posts_per_day=12)


@pytest.fixture(scope="module")
def cursor_trials() -> Trials:
    # One query covers several days and instances: this many posts make it some ten pages.
    return Trials(posts_per_day=60, api_version=CURSOR)


def assert_no_row_is_lost(trials: Trials, name: str) -> None:
    seeds = range(1, TRIALS + 1)
    runs = [trials.run_fault(name, share=SHARES.get(name, SHARE), seed=seed) for seed in seeds]
    counts = sum(runs, Counter[str]())
    print(name, dict(counts))
    assert counts["injected"]


@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if PAGED in fault.api_versions])
def test_fault_loses_no_row_in_the_paged_version(paged_trials: Trials, name: str) -> None:
    assert_no_row_is_lost(paged_trials, name)


@pytest.mark.parametrize("name", CURSOR_FAULTS)
def test_fault_loses_no_row_in_the_cursor_version(cursor_trials: Trials, name: str) -> None:
    assert_no_row_is_lost(cursor_trials, name)


def test_unverified_exchange_of_posts_is_missed_only_until_the_next_fetch(paged_trials: Trials) -> None:
    # With this seed, two rows are missed.
    paged_trials.run_fault(FOUND_BY_VERIFICATION, share=0.4, seed=8, verify_share=0.0, may_miss=True)


@pytest.mark.parametrize("api_version", [PAGED, CURSOR], ids=str)
def test_malformed_rows_are_stored_unchanged_or_quarantined(
    api_version: ApiVersion, paged_trials: Trials, cursor_trials: Trials
) -> None:
    trials = paged_trials if api_version is PAGED else cursor_trials
    shares = {name: 0.003 if name == "megabyte-text" else 0.03 for name in MALFORMATIONS}
    counts = trials.run_malformed_rows(shares, seed=2)  # with this seed, every malformation occurs
    print("malformed rows", dict(counts))
    assert 0 < counts["quarantined"] < counts["injected"]
