"""Run more trials than the tests: each fault and malformation of the sandbox, a row of results for each.

    python -m tests.reliability

The exit code is 1 if a row was lost, doubled, invented or changed. docs/reliability.md has a summary.
"""

import argparse
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from later_reporting_dagster.contract import CURSOR, PAGED
from later_reporting_dagster.server.sandbox import FAULTS, MALFORMATIONS
from tests.reliability.trial import Trials

POSTS_PER_DAY = 24
SHARE = 0.1
# Token requests are rare, a revoked token affects all requests, and slow or huge responses take long.
SHARES = {"token-route-down": 0.6, "token-revoked": 0.05, "slow": 0.05, "huge-body": 0.05}
MALFORMED_SHARE = 0.05
MALFORMED_SHARES = {"megabyte-text": 0.01}
# Trials mostly wait.
CONCURRENCY = 3


def main() -> None:
    """Run all trials and print their results; exit with 1 if there were errors."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description=__doc__)
    parser.add_argument("--seeds", type=int, default=4, help="trials of each fault (default: 4)")
    seeds = parser.parse_args().seeds
    by_version = {version: Trials(posts_per_day=POSTS_PER_DAY, api_version=version) for version in (PAGED, CURSOR)}
    trials = {
        f"{name}, {version}": [
            partial(by_version[version].run_fault, name, share=SHARES.get(name, SHARE), seed=100 * place + seed)
            for seed in range(seeds)
        ]
        for version in by_version
        for place, (name, fault) in enumerate(FAULTS.items())
        if version in fault.api_versions
    }
    trials |= {
        name: [
            partial(by_version[PAGED].run_malformed_rows, {name: MALFORMED_SHARES.get(name, MALFORMED_SHARE)}, seed=1)
        ]
        for name in MALFORMATIONS
    }
    has_failed = False
    with ThreadPoolExecutor(CONCURRENCY) as workers:
        for name, runs in trials.items():
            try:
                counts = sum(workers.map(lambda run: run(), runs), Counter[str]())
                assert counts["injected"], "nothing was injected"
                print(f"{name}: {dict(counts)}", flush=True)
            except AssertionError as error:
                print(f"{name}: {error}", file=sys.stderr)
                has_failed = True
    sys.exit(has_failed)


if __name__ == "__main__":
    main()
