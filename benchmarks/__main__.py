"""Runs the workloads against the sandbox in its own process, and prints a table of each. `make bench`."""

import argparse
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from importlib.util import find_spec
from math import ceil
from pathlib import Path
from typing import Any

from benchmarks.automation import WRITTEN_DAYS
from benchmarks.compaction import compaction
from benchmarks.coverage import coverage
from benchmarks.in_dagster import PACED
from benchmarks.land import landed
from benchmarks.serve import sandbox
from benchmarks.tables import Table, with_section
from benchmarks.windows import windows_workload
from benchmarks.workload import SOURCES, Box

YEAR, LATENCIES, ROUNDS = 365, (0.0, 0.08), 3
# What a page costs by cursor shows in fewer days too where each has to be waited for.
DAYS_BY_CURSOR = {0.0: YEAR, 0.08: 120}
LIMIT, WINDOW_SECONDS = 40, 5.0
MANY_DAYS, MANY_INSTANCES = 1060, 200
LOADS = 5

YESTERDAY = datetime.now(UTC).date() - timedelta(days=1)


def box_of(days: int, instances: Sequence[int]) -> Box:
    """The newest days × instances, by number."""
    return Box(
        start=YESTERDAY - timedelta(days=days - 1),
        end=YESTERDAY,
        instance_ids=tuple(f"instance_{number:03}" for number in instances),
    )


def loading() -> Table:
    """How long the code location takes to load, beside Dagster itself."""
    ways = {
        "import dagster": "import dagster",
        "import later_reporting_dagster.definitions": "import later_reporting_dagster.definitions",
        "the same, resolved as a code server does": (
            "from later_reporting_dagster.definitions import defs; defs.get_repository_def()"
        ),
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(LOADS):
        for way, statement in ways.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", statement], check=True)
            times[way].append(time.perf_counter() - started)
    medians = {way: statistics.median(seconds) for way, seconds in times.items()}
    return Table(
        title=f"Loading, median of {LOADS} processes",
        columns=("process", "wall s", "/ import dagster"),
        rows=[(way, seconds, seconds / medians["import dagster"]) for way, seconds in medians.items()],
    )


def rate() -> Table:
    """A service that limits, asked by one process and by two at once; then at the real limit, through Dagster too."""
    library, dagster = "library, paced", "Dagster, paced"
    whole, halves = [range(8)], [range(4), range(4, 8)]
    rows = []
    for by, shares, days, limit, window in (
        (library, whole, 255, LIMIT, WINDOW_SECONDS),
        (library, halves, 255, LIMIT, WINDOW_SECONDS),
        (library, whole, 120, PACED, 60.0),
        (dagster, whole, 120, PACED, 60.0),
    ):
        first_day = YESTERDAY - timedelta(days=400)
        world: dict[str, Any] = {"first_day": first_day, "last_day": YESTERDAY, "instances": 8, "posts_per_day": 20}
        with sandbox(**world, requests=limit, window=window) as served:
            found = landed(by, *(box_of(days, share) for share in shares), sandbox=served, date_basis="post_date")
        least = (ceil(found.requests / limit) - 1) * window
        seconds = (found.seconds, least, found.seconds / least)
        refused = 100 * found.refused / found.requests
        rows.append((by, len(shares), f"{limit} in {window:g} s", days, found.requests, *seconds, refused))
    return Table(
        title="posts_published under the rate limit, 8 instances × 20 posts a day",
        columns=("by", "processes", "limit", "days", "requests", "wall s", "least s", "/ least", "refused %"),
        rows=rows,
        note="The limit is a sliding window, so the first requests of a full window may all start at once, and those of"
        " the last one as soon as it begins: the least is (⌈requests / limit⌉ - 1) windows. The wall time of Dagster"
        " has the imports and what comes before the run in it.",
    )


def cursor() -> Table:
    """The same days by numbered pages and by cursor."""
    rows = []
    for latency, days in DAYS_BY_CURSOR.items():
        box = box_of(days, range(8))
        world: dict[str, Any] = {
            "first_day": box.start - timedelta(days=30), "last_day": YESTERDAY, "instances": 8, "posts_per_day": 20,
        }  # fmt: skip
        for date_basis, table in SOURCES.items():
            with sandbox(**world, latency=latency) as served:
                least = served.least([box], date_basis=date_basis)
                numbered = landed("library", box, sandbox=served, date_basis=date_basis)
            with sandbox(**world, latency=latency, revision="cursor") as served:
                found = landed("library, by cursor", box, sandbox=served, date_basis=date_basis)
            for each, figures in (("numbered pages", numbered), ("cursor", found)):
                assert figures.rows == least.rows, f"{each}: {figures.rows} rows of {least.rows} landed"
                ratio = f"{figures.requests / least.requests:.3f}"
                compared = (figures.seconds, figures.seconds / numbered.seconds, f"{figures.peak_megabytes:.0f}")
                rows.append((table, days, f"{latency * 1000:.0f}", each, figures.requests, ratio, *compared))
    return Table(
        title="By cursor, beside numbered pages: days × 8 instances × 20 posts a day",
        columns=("table", "days", "latency ms", "by", "requests", "/ least", "wall s", "/ numbered", "peak MB"),
        rows=rows,
        note="The least is that of full pages and the fewest queries. By cursor a page has to come before the next can"
        " be asked for, so that days are shared out among several walks, each of which ends in a page that is seldom"
        " full.",
    )


def large() -> Table:
    """A day that no single query reaches, and memory that must not grow with the range."""
    rows = []
    for named, days, instances, posts_per_day in (
        ("one day of one instance", 1, 1, 124_000),
        ("two years of 8 instances", 730, 8, 17),
        ("two years of 8 instances", 730, 8, 86),
    ):
        box = box_of(days, range(instances))
        with sandbox(
            first_day=box.start, last_day=YESTERDAY, instances=instances, posts_per_day=posts_per_day
        ) as served:
            least = served.least([box], date_basis="post_date").requests
            found = landed("library", box, sandbox=served, date_basis="post_date")
        rows.append((named, found.rows, found.requests, f"{found.requests / least:.3f}", f"{found.peak_megabytes:.0f}"))
    return Table(
        title="Large responses, written by the library",
        columns=("posts", "rows", "requests", "/ least", "peak MB"),
        rows=rows,
    )


def backfill() -> Table:
    """A backfill as the UI launches it."""
    rows = []
    box = box_of(YEAR, range(8))
    first_day = box.start - timedelta(days=30)
    with sandbox(first_day=first_day, last_day=YESTERDAY, instances=8, posts_per_day=20) as served:
        for date_basis, table in SOURCES.items():
            least = served.least([box], date_basis=date_basis)
            found = landed("Dagster backfill", box, sandbox=served, date_basis=date_basis)
            assert found.rows == least.rows, f"{found.rows} rows of {least.rows} written"
            ratio = f"{found.requests / least.requests:.3f}"
            rows.append((table, YEAR, found.runs, found.requests, least.requests, ratio, found.seconds))
    return Table(
        title="A backfill from the UI, 8 instances × 20 posts a day",
        columns=("table", "days", "runs", "requests", "least", "/ least", "wall s"),
        rows=rows,
        note="The wall time is from the start of Dagster's daemon, which has its default settings, to the end of the"
        " last run; what follows by automation runs beside, and its requests count too.",
    )


def automation() -> Table:
    """Many instances and days, few of them written."""
    box = box_of(MANY_DAYS, range(MANY_INSTANCES))
    first_day = YESTERDAY - timedelta(days=WRITTEN_DAYS + 30)
    with (
        sandbox(first_day=first_day, last_day=YESTERDAY, instances=MANY_INSTANCES, posts_per_day=1) as served,
        tempfile.TemporaryDirectory() as root,
    ):
        landed("home", box, sandbox=served, date_basis="post_date", root=root)
        found = landed("ticks", box, sandbox=served, date_basis="post_date", root=root)
        planned = landed("first history", box, sandbox=served, date_basis="post_date")
    rows = [
        (f"automation tick, {name}", seconds, f"{found.peak_megabytes:.0f}") for name, seconds in found.ticks.items()
    ]
    rows.append(("from the sensor's tick to the last planned event of the first history", planned.seconds, ""))
    return Table(
        title=f"{MANY_INSTANCES} instances × {MANY_DAYS:,} days, of which {WRITTEN_DAYS} are written",
        columns=("what", "s", "peak MB"),
        rows=rows,
        note="The ticks are of one process that does nothing else; idle is the median of several.",
    )


def year() -> Table:
    """A year by each means, side by side."""
    once = ["plain script", "dlt rest_api"]
    if is_without_dlt := find_spec("dlt") is None:
        once.remove("dlt rest_api")
    box, day = box_of(YEAR, range(8)), box_of(1, range(8))
    world: dict[str, Any] = {
        "first_day": box.start - timedelta(days=30), "last_day": YESTERDAY, "instances": 8, "posts_per_day": 20,
    }  # fmt: skip
    rows = []
    for latency in LATENCIES:
        with sandbox(**world, latency=latency) as served:
            for date_basis, table in SOURCES.items():
                least = served.least([box], date_basis=date_basis)
                by = {each: landed(each, box, sandbox=served, date_basis=date_basis) for each in once}
                rounds = [
                    (
                        landed("library", box, sandbox=served, date_basis=date_basis),
                        landed("Dagster", box, sandbox=served, date_basis=date_basis),
                        landed("Dagster", day, sandbox=served, date_basis=date_basis).seconds,
                    )
                    for _ in range(ROUNDS)
                ]
                by["library"], by["Dagster"] = (
                    sorted((each[place] for each in rounds), key=lambda found: found.seconds)[ROUNDS // 2]
                    for place in (0, 1)
                )
                over = [(whole.seconds - one_day) / library.seconds for library, whole, one_day in rounds]
                for each, found in by.items():
                    assert found.rows == least.rows, f"{each}: {found.rows} rows of {least.rows} written"
                    of_dagster = (statistics.median(over), found.creating_seconds) if each == "Dagster" else ("", "")
                    rows.append(
                        (
                            *(table, f"{latency * 1000:.0f}", each),
                            *(found.requests, f"{found.requests / least.requests:.3f}", found.seconds),
                            *(found.seconds / by[other].seconds for other in ("plain script", "library")),
                            *(found.cpu_seconds, f"{found.peak_megabytes:.0f}", *of_dagster),
                        )
                    )
    return Table(
        title=f"{YEAR} days × 8 instances × 20 posts a day, by each means",
        columns=(
            *("table", "latency ms", "by", "requests", "/ least", "wall s", "/ plain", "/ library", "CPU s", "peak MB"),
            *("less one day's run, / library", "s before the run starts"),
        ),
        rows=rows,
        note=f"Library and Dagster are medians of {ROUNDS} rounds in which they take turns."
        + " Without dlt, which is not installed: `pip install dlt` adds its rows." * is_without_dlt,
    )


WORKLOADS = {
    "year": year,
    "backfill": backfill,
    "automation": automation,
    "large": large,
    "cursor": cursor,
    "rate": rate,
    "windows": windows_workload,
    "coverage": coverage,
    "loading": loading,
    "compaction": compaction,
}


def main() -> None:
    """Runs the named workloads, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("workloads", nargs="*", metavar="workload", help=f"of {', '.join(WORKLOADS)}; all by default")
    parser.add_argument("--write", type=Path, metavar="DOCUMENT", help="replaces the workloads' sections in it")
    given = parser.parse_args()
    if strangers := set(given.workloads) - set(WORKLOADS):
        parser.error(f"no such workload: {', '.join(sorted(strangers))}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what it started ends with it
    began = time.perf_counter()
    failures: list[str] = []
    for name in given.workloads or WORKLOADS:
        print(f"{name}:", file=sys.stderr, flush=True)
        started = time.perf_counter()
        table = WORKLOADS[name]()
        failures += table.failures
        section = table.markdown()
        section += (
            f"\n\nMeasured by `python -m benchmarks {name}` in {time.perf_counter() - started:.0f} s:"
            f" {os.cpu_count()} cores, Python {platform.python_version()}, dagster {version('dagster')}."
        )
        print(f"\n{section}\n", flush=True)
        if given.write:
            document = given.write.read_text(encoding="utf-8")
            given.write.write_text(with_section(document, name, section, order=WORKLOADS), encoding="utf-8")
    print(f"{time.perf_counter() - began:.0f} s in all", file=sys.stderr)
    sys.exit("\n".join(failures) or 0)


if __name__ == "__main__":
    main()
