"""Workload: machines under one rate limit, as processes with their own home and cache."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from math import ceil
from pathlib import Path

import httpx

from benchmarks.markdown_table import Table
from benchmarks.measurement import CREDENTIALS, TABLE_NAMES
from benchmarks.sandbox_server import Request, Sandbox, running_sandbox_process
from later_reporting_dagster.defs.partitions import range_tags
from tests.conftest import Truth, partition_file, stored_rows
from tests.services import running_postgres

Limit = tuple[int, float]
"""Requests, and the seconds of the window."""

LIMIT: Limit = (40, 5.0)
MAX_REFUSED_PERCENT, MAX_TIME_RATIO = 1.0, 1.25
INSTANCES, POSTS_PER_DAY = 8, 20
# The machine that is to die is killed after this many of its own pages.
PAGES_UNTIL_KILLED = 40
TIMEOUT_SECONDS = 600
FIRST_DAY = date(2024, 1, 1)


def days_of(machine: int, *, days: int) -> tuple[date, date]:
    """Return the first and the last of the days that a machine fetches; those of machines do not overlap."""
    first = FIRST_DAY + timedelta(days=days * machine)
    return first, first + timedelta(days=days - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What machines did.

    Attributes:
        days: Days that each machine fetched.
        limit: Rate limit of the sandbox.
        machines: Numbers of the machines that were not killed.
        requests: All requests to the sandbox.
    """

    days: int
    limit: Limit
    machines: Sequence[int]
    requests: Sequence[Request]

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
        """From the first request to the last response."""
        return max(request.at for request in self.requests) - min(request.at for request in self.requests)

    @property
    def smallest_share_percent(self) -> float:
        """The smallest share of a machine in the pages of the time in which all machines have work.

        This is from the first page of the last one to begin to the last page of the first one to end.
        """
        pages = {machine: self._admitted_pages(machine) for machine in self.machines}
        first, last = max(min(times) for times in pages.values()), min(max(times) for times in pages.values())
        assert first < last, "no time in which all machines have work: fetch more days"
        counts = [sum(first <= at <= last for at in times) for times in pages.values()]
        return 100 * min(counts) / sum(counts)

    def _admitted_pages(self, machine: int) -> list[float]:
        first, last = days_of(machine, days=self.days)
        return [
            request.at
            for request in self.requests
            if request.status == 200 and request.first_day and str(first) <= request.first_day <= str(last)
        ]


Case = tuple[int, bool]
"""Number of machines, and whether one is killed."""

CASES: Sequence[Case] = ((2, False), (4, False), (4, True))


def machines(*, cases: Sequence[Case] = CASES, days: int = 24, limit: Limit = LIMIT) -> Table:
    """Requests refused, time and fairness of machines under one rate limit that they share through PostgreSQL."""
    rows: list[tuple[object, ...]] = []
    failures: list[str] = []
    with running_postgres("limits") as postgres:
        for number, kill in cases:
            name = f"{number}, one is killed" if kill else str(number)
            print(f"  {name} machines", file=sys.stderr, flush=True)
            result = run_machines(postgres, machines=number, days=days, limit=limit, kill=kill)
            survivors = number - kill
            share = result.smallest_share_percent
            ratio = result.fetching_seconds / result.least_seconds
            rows.append(
                (
                    *(name, len(result.requests), result.refused_percent, result.least_seconds),
                    *(result.fetching_seconds, ratio, f"{share:.0f} of {100 / survivors:.0f}"),
                )
            )
            failures += _failures(f"{name} machines", result, ratio=ratio, share=share * survivors / 100)
    return Table(
        title=f"Machines under one limit of {limit[0]} requests in {limit[1]:g} s, through Dagster",
        columns=("machines", "requests", "refused %", "least s", "fetching s", "/ least", "smallest share %"),
        rows=rows,
        note="A machine is a Dagster run by the command, in a process with its own home, cache and working folder. Each"
        f" fetches both raw tables for {days} days of its own, × {INSTANCES} instances × {POSTS_PER_DAY} posts a"
        " day; all files have the rows of the sandbox, except those of the killed machine. Fetching is from the first"
        " request to the last. The share is that of the time in which all machines have work."
        f" Goals: refused ≤ {MAX_REFUSED_PERCENT:g} %, / least ≤ {MAX_TIME_RATIO}, share ≥ half of an equal one.",
        failures=failures,
    )


def _failures(name: str, result: Result, *, ratio: float, share: float) -> list[str]:
    goals = {
        f"refused {result.refused_percent:.2f} %": result.refused_percent <= MAX_REFUSED_PERCENT,
        f"{ratio:.2f} times the least time": ratio <= MAX_TIME_RATIO,
        f"a machine got {share:.2f} of an equal share": share >= 0.5,
    }
    return [f"machines, {name}: {text}" for text, is_met in goals.items() if not is_met]


def run_machines(store: str, *, machines: int, days: int, limit: Limit = LIMIT, kill: bool = False) -> Result:
    """Let machines fetch both raw tables at once, each for other days, and assert that they write the truth.

    Args:
        store: `LATER_RATE_LIMIT_STORE`.
        machines: Number of machines.
        days: Days of each machine.
        limit: Rate limit of the sandbox.
        kill: Kill the last one, with SIGKILL, while it waits for its turn.
    """
    last_day = days_of(machines - 1, days=days)[1]
    running_sandbox = partial(
        running_sandbox_process,
        first_day=FIRST_DAY,
        last_day=last_day,
        instances=INSTANCES,
        posts_per_day=POSTS_PER_DAY,
    )
    requests, window = limit
    survivors = range(machines - kill)
    with (
        tempfile.TemporaryDirectory(prefix="machines-") as root,
        running_sandbox(requests=requests, window=window) as sandbox,
        ExitStack() as stack,
    ):
        folder = Path(root)
        settings = _settings(sandbox, store=store, lake=folder / "lake")
        jobs = []
        for machine in range(machines):
            jobs.append(_start_job(machine, folder, settings=settings, days=days))
            stack.callback(_kill_group, jobs[-1])
        if kill:
            _kill_after_pages(jobs.pop(), sandbox=sandbox, days=days_of(machines - 1, days=days))
        for job in jobs:
            assert job.wait(TIMEOUT_SECONDS) == 0, _logs(folder)
        result = Result(days=days, limit=limit, machines=survivors, requests=sandbox.requests())
        with running_sandbox() as unlimited:
            differences = _differences(folder / "lake", base_url=unlimited.base_url, machines=survivors, days=days)
        assert not differences, differences
        return result


def _settings(sandbox: Sandbox, *, store: str, lake: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LATER_", "DAGSTER_", "XDG_"))}
    return kept | {
        "LATER_BASE_URL": sandbox.base_url,
        "LATER_CLIENT_ID": CREDENTIALS["clientId"],
        "LATER_CLIENT_SECRET": CREDENTIALS["clientSecret"],
        "LATER_LAKE_ROOT": str(lake),
        "LATER_START_DATE": str(FIRST_DAY),
        "LATER_REQUESTS_PER_MINUTE": "1000000",
        "LATER_RATE_LIMIT_STORE": store,
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }


def _machine_environment(machine: int, folder: Path, *, settings: Mapping[str, str]) -> dict[str, str]:
    """Create the home, cache, working folder and `DAGSTER_HOME` of a machine; return its environment."""
    home = folder / f"machine-{machine}"
    for name in ("work", "dagster"):
        (home / name).mkdir(parents=True, exist_ok=True)
    return {
        **settings,
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "PWD": str(home / "work"),
        "DAGSTER_HOME": str(home / "dagster"),
    }


def _start_job(machine: int, folder: Path, *, settings: Mapping[str, str], days: int) -> subprocess.Popen[bytes]:
    """Execute the job for the days of a machine in a process."""
    tags = range_tags(*days_of(machine, days=days))
    command = [sys.executable, "-m", "dagster", "job", "execute", "-m", "later_reporting_dagster.definitions"]
    command += ["-j", "later_posts", "--tags", json.dumps(tags)]
    environment = _machine_environment(machine, folder, settings=settings)
    with (folder / f"job-{machine}.log").open("wb") as output:
        return subprocess.Popen(
            command, cwd=environment["PWD"], env=environment, stdout=output, stderr=output, start_new_session=True
        )


def _kill_after_pages(process: subprocess.Popen[bytes], *, sandbox: Sandbox, days: tuple[date, date]) -> None:
    first, last = days
    while process.poll() is None:
        pages = [each for each in sandbox.requests() if str(first) <= each.first_day <= str(last)]
        if len(pages) >= PAGES_UNTIL_KILLED:
            _kill_group(process)
            return
        time.sleep(0.1)
    raise AssertionError("the machine ended before it was killed")


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _logs(folder: Path) -> str:
    return "\n".join(log.read_text()[-2000:] for log in folder.glob("*.log"))


def _differences(lake: Path, *, base_url: str, machines: Iterable[int], days: int) -> list[str]:
    """Return the partitions whose rows differ from those of a sandbox, read without the package."""
    differences = []
    with httpx.Client(base_url=base_url, timeout=60) as client:
        truth = Truth(client)
        for machine in machines:
            first, _ = days_of(machine, days=days)
            for day in (first + timedelta(days=offset) for offset in range(days)):
                for instance_id in (f"instance_{number:03}" for number in range(INSTANCES)):
                    for date_basis, table in TABLE_NAMES.items():
                        expected = truth.partition(date_basis, day, instance_id)
                        is_written = partition_file(lake, table, day, instance_id).exists()
                        if not is_written or stored_rows(lake, table, day, instance_id) != expected:
                            differences.append(f"{table} {day} {instance_id}")
    return differences
