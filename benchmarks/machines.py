"""Workload: processes of one machine, and of two, under one rate limit. A machine is a home and a cache folder."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from math import ceil
from pathlib import Path

from benchmarks.markdown_table import Table
from benchmarks.measurement import CREDENTIALS
from benchmarks.sandbox_server import Request, running_sandbox_process
from later_reporting_dagster.defs.partitions import range_tags

Limit = tuple[int, float]
"""Requests, and the seconds of the window."""

LIMIT: Limit = (40, 5.0)
INSTANCES, POSTS_PER_DAY = 8, 20
FIRST_DAY = date(2024, 1, 1)
# Machines, processes of each, the goal of the time as a multiple of the least, and of the share of refused requests.
CASES = ((1, 1, 1.2, 2.0), (1, 2, 1.2, 2.0), (1, 4, 1.2, 2.0), (2, 1, 2.0, 100.0))


@dataclass(frozen=True, slots=True)
class Result:
    """The requests that a sandbox received under a limit."""

    requests: Sequence[Request]
    limit: Limit

    @property
    def refused_percent(self) -> float:
        """Share of requests with a 429."""
        return 100 * sum(request.status == 429 for request in self.requests) / len(self.requests)

    @property
    def least_seconds(self) -> float:
        """The least time for the admitted requests under the limit."""
        requests, window = self.limit
        return (ceil(sum(request.status != 429 for request in self.requests) / requests) - 1) * window

    @property
    def fetching_seconds(self) -> float:
        """From the first request to the last."""
        return max(request.at for request in self.requests) - min(request.at for request in self.requests)


def machines(*, days: int = 24) -> Table:
    """Requests refused, and time, of processes under one rate limit, on one machine and on two."""
    rows: list[tuple[object, ...]] = []
    failures: list[str] = []
    for number, processes, most_time, most_refused in CASES:
        print(f"  {number} machines, {processes} processes each", file=sys.stderr, flush=True)
        result = run_machines(machines=number, processes=processes, days=days)
        ratio, refused = result.fetching_seconds / result.least_seconds, result.refused_percent
        seconds = (result.least_seconds, result.fetching_seconds, ratio)
        rows.append((number, processes, len(result.requests), refused, *seconds, most_time))
        if ratio > most_time or refused > most_refused:
            failures.append(f"machines: {number} × {processes}: {ratio:.2f} of the least time, {refused:.1f} % refused")
    return Table(
        title=f"Under one limit of {LIMIT[0]} requests in {LIMIT[1]:g} s, through Dagster",
        columns=("machines", "processes each", "requests", "refused %", "least s", "fetching s", "/ least", "goal"),
        rows=rows,
        note=f"Each process fetches both raw tables for {days} days of its own, × {INSTANCES} instances ×"
        f" {POSTS_PER_DAY} posts a day, by a run of Dagster that succeeds. Fetching is from the first request to the"
        " last. On one machine, at most 2 % may be refused.",
        failures=failures,
    )


def run_machines(*, machines: int, processes: int, days: int, limit: Limit = LIMIT) -> Result:
    """Let processes fetch both raw tables at once, each for other days, and assert that all end with 0."""
    last_day = FIRST_DAY + timedelta(days=days * machines * processes - 1)
    running_sandbox = partial(running_sandbox_process, first_day=FIRST_DAY, last_day=last_day, instances=INSTANCES)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LATER_", "DAGSTER_", "XDG_"))}
    with (
        tempfile.TemporaryDirectory(prefix="machines-") as root,
        running_sandbox(posts_per_day=POSTS_PER_DAY, requests=limit[0], window=limit[1]) as sandbox,
        ExitStack() as stack,
    ):
        folder = Path(root)
        settings = kept | {
            "LATER_BASE_URL": sandbox.base_url,
            "LATER_CLIENT_ID": CREDENTIALS["clientId"],
            "LATER_CLIENT_SECRET": CREDENTIALS["clientSecret"],
            "LATER_LAKE_ROOT": str(folder / "lake"),
            "LATER_START_DATE": str(FIRST_DAY),
            "LATER_REQUESTS_PER_MINUTE": "1000000",
            "PYTHONPATH": str(Path(__file__).parents[1]),
        }
        jobs = []
        for number in range(machines * processes):
            cache, home = folder / f"machine-{number % machines}", folder / f"dagster-{number}"
            home.mkdir()
            first = FIRST_DAY + timedelta(days=days * number)
            command = [sys.executable, "-m", "dagster", "job", "execute", "-m", "later_reporting_dagster.definitions"]
            tags = range_tags(first, first + timedelta(days=days - 1))
            command += ["-j", "later_posts", "--tags", json.dumps(tags)]
            environment = settings | {"XDG_CACHE_HOME": str(cache), "DAGSTER_HOME": str(home)}
            output = stack.enter_context((folder / f"{number}.log").open("wb"))
            job = subprocess.Popen(command, cwd=home, env=environment, stdout=output, stderr=output)
            stack.callback(job.kill)
            jobs.append(job)
        for number, job in enumerate(jobs):
            assert job.wait() == 0, (folder / f"{number}.log").read_text()[-2000:]
        return Result(sandbox.requests(), limit)
