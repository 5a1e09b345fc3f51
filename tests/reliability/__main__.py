"""Test the ingest library against every fault and malformation of the sandbox, and print a table of the results.

    python -m tests.reliability

For each fault, a sandbox with that fault is served over HTTP, both raw tables are fetched, and every partition is
compared with the rows of the sandbox. The exit code is 1 if a row was lost, doubled, invented or changed.
docs/reliability.md has a summary.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, replace
from functools import reduce
from itertools import starmap
from operator import add

from benchmarks.markdown_table import Table
from later_reporting_dagster.contract import CURSOR, PAGED, ApiVersion
from later_reporting_dagster.sandbox import FAULTS, MALFORMATIONS
from tests.reliability.trial import FOUND_BY_VERIFICATION, TrialResult, Trials

POSTS_PER_DAY = 24
SHARE = 0.1
# Token requests are rare, a revoked token affects all requests, and slow or huge responses take long.
SHARES = {"token-route-down": 0.6, "token-revoked": 0.05, "slow": 0.05, "huge-body": 0.05}
MALFORMED_SHARE = 0.05
MALFORMED_SHARES = {"megabyte-text": 0.01}
# Trials mostly wait.
CONCURRENCY = 3

COLUMNS = (
    "injected",
    "files written",
    "failed, lake untouched",
    "rows quarantined",
    "lost",
    "doubled",
    "invented",
    "changed",
)


def tables(
    paged: Mapping[str, TrialResult],
    by_cursor: Mapping[str, TrialResult],
    malformed: Mapping[str, TrialResult],
    *,
    unverified: TrialResult,
) -> list[Table]:
    """Return a table for each kind of trial; `unverified` is `FOUND_BY_VERIFICATION` without verification fetches."""
    return [
        Table(
            title="Faults in the paged API version",
            columns=("fault", "description", *COLUMNS),
            rows=[(f"`{name}`", FAULTS[name].description, *_cells(result)) for name, result in paged.items()],
            note=f"{SHARE:.0%} of all requests have the fault; {SHARES['slow']:.0%} if it is slow, huge or revokes the"
            f" token, and {SHARES['token-route-down']:.0%} of the token requests. Slow is twice the client's timeout,"
            " and huge is more than the client reads. If the fault adds or removes posts, a row is lost if it was there"
            " before and after the fetch; other posts may be written or not. Then failed partitions, or all if posts"
            " changed, were fetched again without faults, and all rows were correct."
            f" `{FOUND_BY_VERIFICATION}` is not visible in the totals, so every response was verified"
            f" (`LATER_VERIFY_PERCENT=100`). Without verification, {unverified.found.lost} rows were missing until the"
            f" next fetch, and {unverified.found_after.lost} after it.",
        ),
        Table(
            title="Faults in the cursor API version",
            columns=("fault", "description", *COLUMNS),
            rows=[(f"`{name}`", FAULTS[name].description, *_cells(result)) for name, result in by_cursor.items()],
            note="Without totals, a result is accepted if no row and no cursor occurs twice, all rows match the query"
            " and the last page was reached. A short page before the last one and a full last page are fetched again."
            " The cursors of the sandbox do not shift when posts are added or removed.",
        ),
        Table(
            title="Malformed rows",
            columns=("row", "description", *COLUMNS),
            rows=[
                (f"`{name}`", MALFORMATIONS[name].description, *_cells(result)) for name, result in malformed.items()
            ],
            note=f"{MALFORMED_SHARE:.0%} of all posts are malformed, {MALFORMED_SHARES['megabyte-text']:.0%} with 1 MB."
            " Rows that are not in quarantine are in the lake as they were sent: unusual but possible values are kept.",
        ),
    ]


def _cells(result: TrialResult) -> tuple[int, ...]:
    return (result.injected, result.written, result.failed, result.quarantined, *astuple(result.found))


def failures(name: str, result: TrialResult, *, may_miss: bool = False) -> list[str]:
    """Return a line for each error of a trial. With `may_miss`, rows may be missing until the next fetch."""
    found = [f"{name}: {problem}" for problem in result.problems]
    if not result.injected:
        found.append(f"{name}: nothing was injected")
    if replace(result.found, lost=0) if may_miss else result.found:
        found.append(f"{name}: {result.found}")
    if result.found_after:
        found.append(f"{name}: after one more fetch {result.found_after}")
    return found


def run_faults(
    workers: ThreadPoolExecutor, trials: Trials, *, names: Sequence[str], seeds: int, verify_share: float | None = None
) -> dict[str, TrialResult]:
    """Run trials of faults, one for each seed; return their sum by fault."""

    def run_fault(name: str, seed: int) -> TrialResult:
        return trials.run_fault(name, share=SHARES.get(name, SHARE), seed=seed, verify_share=verify_share)

    # With different seeds, the faults hit different requests.
    first_seeds = [100 * [*FAULTS].index(name) for name in names]
    by_seed = [workers.map(run_fault, names, [first + seed for first in first_seeds]) for seed in range(seeds)]
    return {name: reduce(add, results) for name, results in zip(names, zip(*by_seed, strict=True), strict=True)}


def run_malformation(trials: Trials, name: str) -> TrialResult:
    """Run a trial of one malformation."""
    return trials.run_malformed_rows({name: MALFORMED_SHARES.get(name, MALFORMED_SHARE)}, seed=1)


def _faults_of(api_version: ApiVersion) -> list[str]:
    return [name for name, fault in FAULTS.items() if api_version in fault.api_versions]


def main() -> None:
    """Run all trials and print their tables; exit with 1 if there were errors."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.reliability", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=4, help="trials of each fault (default: 4)")
    seeds = parser.parse_args().seeds
    paged, by_cursor = (Trials(posts_per_day=POSTS_PER_DAY, api_version=each) for each in (PAGED, CURSOR))
    unverified_name = f"{FOUND_BY_VERIFICATION} without verification"
    with ThreadPoolExecutor(CONCURRENCY) as workers:
        paged_results = run_faults(workers, paged, names=_faults_of(PAGED), seeds=seeds)
        cursor_results = run_faults(workers, by_cursor, names=_faults_of(CURSOR), seeds=seeds)
        malformed = workers.map(lambda name: run_malformation(paged, name), MALFORMATIONS)
        malformed_results = dict(zip(MALFORMATIONS, malformed, strict=True))
        unverified = run_faults(workers, paged, names=[FOUND_BY_VERIFICATION], seeds=seeds, verify_share=0.0)[
            FOUND_BY_VERIFICATION
        ]
    results = tables(paged_results, cursor_results, malformed_results, unverified=unverified)
    print("\n\n".join(table.markdown() for table in results))
    named = (*paged_results.items(), *cursor_results.items(), *malformed_results.items())
    errors = [line for lines in starmap(failures, named) for line in lines]
    errors += failures(unverified_name, unverified, may_miss=True)
    print("\n".join(errors), file=sys.stderr, end="\n" * bool(errors))
    sys.exit(bool(errors))


if __name__ == "__main__":
    main()
