"""Four machines under one rate limit: processes with their own home and cache, two of them Celery workers."""

import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from math import ceil
from pathlib import Path

import dagster as dg
import httpx

from benchmarks.markdown_table import Table
from benchmarks.measurement import CREDENTIALS, TABLE_NAMES
from benchmarks.sandbox_server import Request, Sandbox, running_sandbox_process
from later_reporting_dagster.client import RateLimiter, rate_limit_store
from later_reporting_dagster.defs.partitions import range_tags
from tests.conftest import Truth, partition_file, stored_rows
from tests.services import running_postgres, running_redis

LIMIT, WINDOW_SECONDS = 40, 5.0
# The goals of the workload. A share of a quarter is that of four equal machines.
MAX_REFUSED_PERCENT, MAX_TIME_RATIO, MIN_SHARE_PERCENT = 1.0, 1.25, 12.5
INSTANCES, POSTS_PER_DAY = 8, 20
DAYS_OF_A_MACHINE = 24
MACHINES = ("process 1", "process 2", "Celery worker 1", "Celery worker 2")
PROCESSES, CELERY_WORKERS, KILLED = (0, 1), (2, 3), 1
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
    """What four machines did.

    Attributes:
        days: Days that each machine fetched.
        requests: All requests to the sandbox.
        started_at: When the machines were started.
        ended_at: When the last one had written its last file.
        differences: (Table, day, instance) triples whose rows differ from those of the sandbox.
    """

    days: int
    requests: Sequence[Request]
    started_at: float
    ended_at: float
    differences: Sequence[str]

    @property
    def refused_percent(self) -> float:
        """Share of requests with a 429."""
        return 100 * sum(request.status == 429 for request in self.requests) / len(self.requests)

    @property
    def least_seconds(self) -> float:
        """The least time for the admitted requests under the limit."""
        return (ceil(sum(request.status != 429 for request in self.requests) / LIMIT) - 1) * WINDOW_SECONDS

    @property
    def fetching_seconds(self) -> float:
        """From the first request to the last response."""
        return max(request.at for request in self.requests) - min(request.at for request in self.requests)

    def fairness(self, *, machines: Sequence[int]) -> tuple[float, float]:
        """Return the smallest share in percent of a machine, and the longest time in seconds between two of its pages.

        Both are of the time in which all machines have work: from the first page of the last one to begin to the last
        page of the first one to end.
        """
        pages = {machine: self._admitted_pages(machine) for machine in machines}
        first, last = max(min(times) for times in pages.values()), min(max(times) for times in pages.values())
        within = {machine: [at for at in times if first <= at <= last] for machine, times in pages.items()}
        total = sum(len(times) for times in within.values())
        assert first < last, "no time in which all machines have work: fetch more days"
        gaps = [later - earlier for times in within.values() for earlier, later in pairwise([first, *times, last])]
        return min(100 * len(times) / total for times in within.values()), max(gaps)

    def _admitted_pages(self, machine: int) -> list[float]:
        first, last = days_of(machine, days=self.days)
        return [
            request.at
            for request in self.requests
            if request.status == 200 and request.first_day and str(first) <= request.first_day <= str(last)
        ]


def machines() -> Table:
    """Requests refused, time and fairness of four machines under one rate limit, by store and with a killed machine."""
    rows, failures = [], []
    with running_postgres("limits") as postgres, running_redis() as redis:
        for name, store, kill in (
            ("nothing (one file each)", "", False),
            ("Redis", redis, False),
            ("PostgreSQL", postgres, False),
            ("Redis, process 2 is killed", redis, True),
        ):
            print(f"  shared through {name}", file=sys.stderr, flush=True)
            result = run_machines(store, broker=redis, days=DAYS_OF_A_MACHINE, kill=kill)
            survivors = [machine for machine in range(len(MACHINES)) if not (kill and machine == KILLED)]
            share, gap = result.fairness(machines=survivors)
            wall = result.ended_at - result.started_at
            ratio = result.fetching_seconds / result.least_seconds
            expected = 100 / len(survivors)
            rows.append(
                (
                    *(name, len(result.requests), result.refused_percent, result.least_seconds),
                    *(result.fetching_seconds, ratio, wall, f"{share:.0f} of {expected:.0f}", gap),
                    len(result.differences),
                )
            )
            failures += _failures(name, result, ratio=ratio, share=share / expected) if store else result.differences
        latencies = [f"{name} {_reservation(store)}" for name, store in (("Redis", redis), ("PostgreSQL", postgres))]
    return Table(
        title=f"Four machines, one limit of {LIMIT} requests in {WINDOW_SECONDS:g} s, through Dagster",
        columns=(
            *("shared through", "requests", "refused %", "least s", "fetching s", "/ least", "wall s"),
            *("smallest share %", "longest gap s", "wrong files"),
        ),
        rows=rows,
        note="Machines are processes with their own home, cache and working folder: two Dagster runs by the command,"
        " and two Celery workers on a Redis broker, to which Dagster's CeleryRunLauncher sends a run each. Each fetches"
        f" both raw tables for {DAYS_OF_A_MACHINE} days of its own, × {INSTANCES} instances × {POSTS_PER_DAY} posts a"
        " day. Fetching is from the first request to the last; wall includes the start of all processes. The share and"
        " the gap between two pages of a machine are those of the time in which all machines have work. Wrong files"
        " differ from the sandbox in any value; those of the killed machine are not counted. One reservation takes: "
        + "; ".join(latencies)
        + f". Goals: refused ≤ {MAX_REFUSED_PERCENT:g} %, / least ≤ {MAX_TIME_RATIO}, share ≥ half of an equal one, no"
        " wrong file.",
        failures=failures,
    )


def _failures(name: str, result: Result, *, ratio: float, share: float) -> list[str]:
    goals = {
        f"refused {result.refused_percent:.2f} %": result.refused_percent <= MAX_REFUSED_PERCENT,
        f"{ratio:.2f} times the least time": ratio <= MAX_TIME_RATIO,
        f"a machine got {share:.2f} of an equal share": share >= 0.5,
        f"{len(result.differences)} wrong files: {result.differences[:3]}": not result.differences,
    }
    return [f"machines, {name}: {text}" for text, is_met in goals.items() if not is_met]


def run_machines(store: str, *, broker: str, days: int, kill: bool = False) -> Result:
    """Let four machines fetch both raw tables at once, each for other days.

    Args:
        store: `LATER_RATE_LIMIT_STORE`.
        broker: Redis server of the Celery workers.
        days: Days of each machine.
        kill: Kill one of them, with SIGKILL, while it waits for its turn.
    """
    last_day = days_of(len(MACHINES) - 1, days=days)[1]
    world = {"instances": INSTANCES, "posts_per_day": POSTS_PER_DAY, "first_day": FIRST_DAY, "last_day": last_day}
    with (
        tempfile.TemporaryDirectory(prefix="machines-") as root,
        running_sandbox_process(**world, requests=LIMIT, window=WINDOW_SECONDS) as sandbox,  # type: ignore[arg-type]
    ):
        folder = Path(root)
        settings = _settings(sandbox, store=store, lake=folder / "lake")
        with ExitStack() as stack:
            for machine in CELERY_WORKERS:
                stack.enter_context(_celery_worker(machine, folder, settings=settings, broker=broker))
            started_at = time.time()
            # Launching takes longer than starting, so the workers get their runs first.
            launches = {
                machine: _start_job(machine, folder, settings=settings, days=days, on_worker=True)
                for machine in CELERY_WORKERS
            }
            _wait(launches.values(), folder)
            jobs = {}
            for machine in PROCESSES:
                jobs[machine] = _start_job(machine, folder, settings=settings, days=days, on_worker=False)
                stack.callback(_kill_group, jobs[machine])
            if kill:
                _kill_after_pages(jobs.pop(KILLED), sandbox=sandbox, days=days)
            _wait(jobs.values(), folder)
            for machine in CELERY_WORKERS:
                _wait_for_run(folder / f"machine-{machine}" / "dagster", folder)
            ended_at = time.time()
        checked = [machine for machine in range(len(MACHINES)) if not (kill and machine == KILLED)]
        return Result(
            days=days,
            requests=sandbox.requests(),
            started_at=started_at,
            ended_at=ended_at,
            differences=_differences(folder / "lake", world=world, machines=checked, days=days),
        )


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


@contextmanager
def _celery_worker(machine: int, folder: Path, *, settings: Mapping[str, str], broker: str) -> Iterator[None]:
    """Run a machine's Celery worker while the block runs. It has its own queue, in its own database of the broker."""
    broker = f"{broker.rpartition('/')[0]}/{machine}"
    environment = _machine_environment(machine, folder, settings=settings)
    celery = {"broker": broker, "backend": broker, "default_queue": "dagster"}
    launcher = {"module": "dagster_celery.launcher", "class": "CeleryRunLauncher", "config": celery}
    # The default coordinator leaves the launch to a daemon.
    coordinator = {"module": "dagster._core.run_coordinator", "class": "DefaultRunCoordinator"}
    config = {"telemetry": {"enabled": False}, "run_launcher": launcher, "run_coordinator": coordinator}
    Path(environment["DAGSTER_HOME"], "dagster.yaml").write_text(json.dumps(config))
    command = [sys.executable, "-m", "celery", "-A", "dagster_celery.app", "-b", broker, "--result-backend", broker]
    command += ["worker", "--loglevel", "INFO"]
    command += ["--concurrency", "1", "--hostname", f"machine-{machine}"]
    log = folder / f"worker-{machine}.log"
    worker = _start(command, environment=environment, log=log)
    try:
        while " ready." not in log.read_text():
            assert worker.poll() is None, log.read_text()
            time.sleep(0.1)
        yield
    finally:
        _kill_group(worker)


def _start_job(
    machine: int, folder: Path, *, settings: Mapping[str, str], days: int, on_worker: bool
) -> subprocess.Popen[bytes]:
    """Execute the job for the days of a machine in a process; or launch it on the Celery worker of the machine."""
    tags = range_tags(*days_of(machine, days=days))
    command = [sys.executable, "-m", "dagster", "job", "launch" if on_worker else "execute"]
    command += ["-m", "later_reporting_dagster.definitions", "-j", "later_posts", "--tags", json.dumps(tags)]
    environment = _machine_environment(machine, folder, settings=settings)
    return _start(command, environment=environment, log=folder / f"job-{machine}.log")


def _start(command: Sequence[str], *, environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            command, cwd=environment["PWD"], env=environment, stdout=output, stderr=output, start_new_session=True
        )


def _kill_after_pages(process: subprocess.Popen[bytes], *, sandbox: Sandbox, days: int) -> None:
    first, last = days_of(KILLED, days=days)
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


def _wait(processes: Iterable[subprocess.Popen[bytes]], folder: Path) -> None:
    for process in processes:
        if process.wait(TIMEOUT_SECONDS):
            raise AssertionError(_logs(folder))


def _wait_for_run(dagster_home: Path, folder: Path) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    with dg.DagsterInstance.from_config(str(dagster_home)) as instance:
        while not (run := instance.get_runs()[0]).is_finished:
            assert time.monotonic() < deadline, _logs(folder)
            time.sleep(0.1)
    assert run.is_success, _logs(folder)


def _logs(folder: Path) -> str:
    return "\n".join(log.read_text()[-2000:] for log in folder.glob("*.log"))


def _differences(lake: Path, *, world: Mapping[str, object], machines: Sequence[int], days: int) -> list[str]:
    """Return the partitions whose rows differ from those of a sandbox without a limit, read without the package."""
    differences = []
    with (
        running_sandbox_process(**world) as unlimited,  # type: ignore[arg-type]
        httpx.Client(base_url=unlimited.base_url, timeout=60) as client,
    ):
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


def _reservation(store: str) -> str:
    """Return how long a reservation takes, alone and with eight at once, as text."""

    async def measure() -> tuple[float, float]:
        limiter = RateLimiter(requests=10**6, store=rate_limit_store(store, base_url="https://benchmark.example.com"))
        alone, together = [], []
        for _ in range(200):
            started = time.perf_counter()
            await limiter.acquire()
            alone.append(time.perf_counter() - started)
        for _ in range(50):
            started = time.perf_counter()
            await asyncio.gather(*(limiter.acquire() for _ in range(8)))
            together.append(time.perf_counter() - started)
        limiter.close()
        return statistics.median(alone), statistics.median(together)

    alone, together = asyncio.run(measure())
    return f"{1000 * alone:.1f} ms, eight at once {1000 * together:.1f} ms"
