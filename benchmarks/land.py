"""Lands boxes, each in a fresh process of its own, and says what it took."""

import os
import pkgutil
import resource
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import msgspec

from benchmarks.serve import Sandbox
from benchmarks.workload import Box, Figures, Means

MEANS = {
    "plain script": "benchmarks.plain:land",
    "dlt rest_api": "benchmarks.with_dlt:land",
    "library": "benchmarks.library:land",
    "library, by cursor": "benchmarks.library:land_by_cursor",
    "library, paced": "benchmarks.library:land_paced",
    "Dagster": "benchmarks.in_dagster:run",
    "Dagster, paced": "benchmarks.in_dagster:paced_run",
    "Dagster backfill": "benchmarks.in_dagster:backfill",
    "home": "benchmarks.automation:make_home",
    "ticks": "benchmarks.automation:ticks",
    "first history": "benchmarks.automation:first_history",
}


def landed(means: str, *boxes: Box, sandbox: Sandbox, date_basis: str, root: str | None = None) -> Figures:
    """Lands the boxes at once, in an empty folder each, or all in `root`.

    Gives the figures of the process that took longest, with all that the sandbox answered meanwhile.
    """
    print(f"  {means}, {date_basis}, {len(boxes[0].days)} days", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("LATER_", "DAGSTER_"))}
        environment["XDG_CACHE_HOME"] = scratch
        before = sandbox.answered()
        children: list[subprocess.Popen[bytes]] = []
        for number, box in enumerate(boxes):
            given = [
                means,
                sandbox.base_url,
                date_basis,
                root or f"{scratch}/{number}",
                msgspec.json.encode(box).decode(),
            ]
            command = [sys.executable, "-m", "benchmarks.land", *given]
            children.append(subprocess.Popen(command, stdout=subprocess.PIPE, env=environment))
        try:
            outputs = [child.communicate()[0] for child in children]
        finally:
            for child in children:
                child.terminate()
        if any(child.returncode for child in children):
            raise SystemExit(f"{means} failed")
        answered = sandbox.answered() - before
    figures = [msgspec.json.decode(output.splitlines()[-1], type=Figures) for output in outputs]
    longest = max(figures, key=lambda found: found.seconds)
    return replace(longest, requests=answered.total(), refused=answered["429"])


def main(means: str, base_url: str, date_basis: str, root: str, box: str) -> None:
    """Lands the box in this process, whose imports are not measured, and prints what it took as JSON."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what it started ends with it
    land: Means = pkgutil.resolve_name(MEANS[means])
    Path(root).mkdir(exist_ok=True)
    started, cpu = time.perf_counter(), time.process_time()
    figures = land(msgspec.json.decode(box, type=Box), base_url=base_url, date_basis=date_basis, root=Path(root))
    figures = replace(
        figures,
        seconds=figures.seconds or time.perf_counter() - started,
        cpu_seconds=figures.cpu_seconds or time.process_time() - cpu,
        peak_megabytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )
    print(msgspec.json.encode(figures).decode())


if __name__ == "__main__":
    main(*sys.argv[1:])
