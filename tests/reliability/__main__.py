"""Test the ingest library against every fault of a server, and print what became of the rows.

    python -m tests.reliability

Exits with 1 when a row was lost, doubled, invented or changed, and says where. docs/reliability.md has the sums.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, replace
from functools import reduce
from itertools import starmap
from operator import add

from benchmarks.tables import Table
from later_reporting_dagster.contract import CURSOR, PAGED
from later_reporting_dagster.sandbox import FAULTS, HOSTILE
from tests.reliability.trial import TOLD_BY_A_SECOND_LOOK, Trial, Trials

POSTS_PER_DAY = 24
SHARE = 0.1
# A token is asked for but once, and all requests share it; what is slow or huge takes its time.
SHARES = {"token-route-down": 0.6, "token-revoked": 0.05, "slow": 0.05, "huge-body": 0.05}
HOSTILE_SHARE = 0.05
HOSTILE_SHARES = {"megabyte-text": 0.01}
# Most of a trial is waiting.
AT_ONCE = 3

COLUMNS = (
    "injected",
    "partitions landed",
    "refused, lake untouched",
    "rows quarantined",
    "lost",
    "doubled",
    "invented",
    "changed",
)


def tables(
    faults: Mapping[str, Trial], by_cursor: Mapping[str, Trial], hostile: Mapping[str, Trial], *, unseen: Trial
) -> list[Table]:
    """What was found, for people; `unseen` is the fault that takes a second look, without one."""
    return [
        Table(
            title="Faults of a server",
            columns=("fault", "what it does", *COLUMNS),
            rows=[(f"`{name}`", FAULTS[name].description, *_cells(trial)) for name, trial in faults.items()],
            note=f"{SHARE:.0%} of all answers are so, {SHARES['slow']:.0%} where they are slow or huge or revoke the"
            f" token, and {SHARES['token-route-down']:.0%} of those that bring one. Slow is here twice the client's"
            " time limit, and huge a little more than the 32 MB that it reads. Where posts come and go, those count as"
            " lost that were there before and after; what arrived or vanished meanwhile may be in or out. After the"
            " faults, what was refused was fetched again, and where posts come and go, everything was: then all of it"
            " equalled the truth."
            f" `{TOLD_BY_A_SECOND_LOOK}` is the one that no count can show, and each answer was looked at twice"
            f" (`LATER_SECOND_LOOK_PERCENT=100`): without, {unseen.found.lost} rows were missed until the next fetch,"
            f" and {unseen.found_after.lost} after it.",
        ),
        Table(
            title="Faults of a server that pages by cursor",
            columns=("fault", "what it does", *COLUMNS),
            rows=[(f"`{name}`", FAULTS[name].description, *_cells(trial)) for name, trial in by_cursor.items()],
            note="There are no totals here that an answer could be held against: it is good when no row and no cursor"
            " came twice, each row was asked for, and the end was reached; a page that is short amid others, or full at"
            " the end, is looked at once more. Cursors are of the last row before, so that what arrives or vanishes"
            " moves no other row.",
        ),
        Table(
            title="Hostile rows",
            columns=("row", "what it is", *COLUMNS),
            rows=[(f"`{name}`", HOSTILE[name].description, *_cells(trial)) for name, trial in hostile.items()],
            note=f"{HOSTILE_SHARE:.0%} of all posts are so, {HOSTILE_SHARES['megabyte-text']:.0%} of those of 1 MB."
            " What is not in quarantine is in the lake as it was sent: values that are odd but possible stay what they"
            " are.",
        ),
    ]


def _cells(trial: Trial) -> tuple[int, ...]:
    return (trial.injected, trial.landed, trial.refused, trial.quarantined, *astuple(trial.found))


def failures(name: str, trial: Trial, *, may_miss: bool = False) -> list[str]:
    """Why a trial breaks the promise; none when it keeps it. It may be one not to miss rows until the next fetch."""
    found = [f"{name}: {problem}" for problem in trial.problems]
    if not trial.injected:
        found.append(f"{name}: nothing was injected")
    if replace(trial.found, lost=0) if may_miss else trial.found:
        found.append(f"{name}: {trial.found}")
    if trial.found_after:
        found.append(f"{name}: after one more fetch {trial.found_after}")
    return found


def main() -> None:
    """Run all trials, print their tables, and fail when a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=4, help="trials of each fault")
    given = parser.parse_args()
    trials, trials_by_cursor = (Trials(posts_per_day=POSTS_PER_DAY, revision=each) for each in (PAGED, CURSOR))

    def of_faults(
        workers: ThreadPoolExecutor, trials: Trials, *, names: Sequence[str], second_looks: float | None = None
    ) -> dict[str, Trial]:
        def of_fault(name: str, seed: int) -> Trial:
            return trials.of_fault(name, share=SHARES.get(name, SHARE), seed=seed, second_looks=second_looks)

        # Each fault has seeds of its own, so that not all befall the same requests.
        first = [100 * [*FAULTS].index(name) for name in names]
        by_seed = [workers.map(of_fault, names, [each + seed for each in first]) for seed in range(given.seeds)]
        return {name: reduce(add, each) for name, each in zip(names, zip(*by_seed, strict=True), strict=True)}

    def of_hostile_rows(name: str) -> Trial:
        return trials.of_hostile_rows({name: HOSTILE_SHARES.get(name, HOSTILE_SHARE)}, seed=1)

    with ThreadPoolExecutor(AT_ONCE) as workers:
        by_number, by_cursor = (
            of_faults(workers, each, names=[name for name, fault in FAULTS.items() if revision in fault.revisions])
            for each, revision in ((trials, PAGED), (trials_by_cursor, CURSOR))
        )
        hostile = dict(zip(HOSTILE, workers.map(of_hostile_rows, HOSTILE), strict=True))
        unseen = of_faults(workers, trials, names=[TOLD_BY_A_SECOND_LOOK], second_looks=0.0)[TOLD_BY_A_SECOND_LOOK]
    print("\n\n".join(table.markdown() for table in tables(by_number, by_cursor, hostile, unseen=unseen)))
    broken = [
        line
        for found in starmap(failures, (*by_number.items(), *by_cursor.items(), *hostile.items()))
        for line in found
    ] + failures(f"{TOLD_BY_A_SECOND_LOOK} without a second look", unseen, may_miss=True)
    print("\n".join(broken), file=sys.stderr, end="\n" * bool(broken))
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
