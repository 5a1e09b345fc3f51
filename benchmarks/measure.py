"""Run a method in fresh processes and measure it."""

import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import msgspec

from benchmarks.measurement import Measurement, Method, PartitionRange, peak_megabytes
from benchmarks.sandbox_server import Sandbox

METHODS = {
    "plain script": "benchmarks.plain_script:fetch",
    "dlt rest_api": "benchmarks.with_dlt:fetch",
    "library": "benchmarks.library:fetch",
    "library, by cursor": "benchmarks.library:fetch_by_cursor",
    "library, changing": "benchmarks.library:fetch_changing",
    "library, paced": "benchmarks.library:fetch_paced",
    "Dagster": "benchmarks.in_dagster:run",
    "Dagster, paced": "benchmarks.in_dagster:paced_run",
    "Dagster backfill": "benchmarks.in_dagster:backfill",
    "home": "benchmarks.automation:make_home",
    "ticks": "benchmarks.automation:ticks",
}
"""Import paths of the functions that are measured, of type `Method`."""


def measure(
    method: str, *ranges: PartitionRange, sandbox: Sandbox, date_basis: str, root: str | None = None, machines: int = 1
) -> Measurement:
    """Fetch ranges by a method, each in its own process, all at once.

    Args:
        method: Name in `METHODS`.
        *ranges: Partitions of each process.
        sandbox: Sandbox to fetch from.
        date_basis: `post_date` or `performance_date`.
        root: Folder to write to; None: an empty folder for each process.
        machines: Number of cache folders, which the processes take in turns.

    Returns:
        The measurement of the slowest process, with the requests of all.
    """
    print(f"  {method}, {date_basis}, {len(ranges[0].days)} days", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("LATER_", "DAGSTER_"))}
        before = sandbox.responses_by_status()
        children: list[subprocess.Popen[bytes]] = []
        for number, partitions in enumerate(ranges):
            folder = root or f"{scratch}/{number}"
            arguments = [method, sandbox.base_url, date_basis, folder, msgspec.json.encode(partitions).decode()]
            command = [sys.executable, "-m", "benchmarks.measure", *arguments]
            cache = {"XDG_CACHE_HOME": f"{scratch}/cache-{number % machines}"}
            children.append(subprocess.Popen(command, stdout=subprocess.PIPE, env=environment | cache))
        try:
            outputs = [child.communicate()[0] for child in children]
        finally:
            for child in children:
                child.terminate()
        if any(child.returncode for child in children):
            raise SystemExit(f"{method} failed")
        responses = sandbox.responses_by_status() - before
    measurements = [msgspec.json.decode(output.splitlines()[-1], type=Measurement) for output in outputs]
    slowest = max(measurements, key=lambda measurement: measurement.seconds)
    return replace(slowest, requests=responses.total(), rejected=responses["429"])


def main(method: str, base_url: str, date_basis: str, root: str, partitions: str) -> None:
    """Run a method in this process and print the measurement as JSON; imports are not measured."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that child processes are stopped too
    fetch: Method = pkgutil.resolve_name(METHODS[method])
    Path(root).mkdir(exist_ok=True)
    partition_range = msgspec.json.decode(partitions, type=PartitionRange)
    started, cpu = time.perf_counter(), time.process_time()
    measurement = fetch(partition_range, base_url=base_url, date_basis=date_basis, root=Path(root))
    measurement = replace(
        measurement,
        seconds=measurement.seconds or time.perf_counter() - started,
        cpu_seconds=measurement.cpu_seconds or time.process_time() - cpu,
        peak_megabytes=peak_megabytes(),
    )
    print(msgspec.json.encode(measurement).decode())


if __name__ == "__main__":
    main(*sys.argv[1:])
