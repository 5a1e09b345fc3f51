"""Run benchmark workloads and print a Markdown table of each.

The fetch workloads compare requests with the smallest possible number and the wall time with a plain script, against a
sandbox in its own process. Every measurement runs in a fresh process.

Examples:
  python -m benchmarks rate loading     two workloads
  python -m benchmarks                  all of them (make bench)
"""

import argparse
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version

from benchmarks.completeness import completeness
from benchmarks.markdown_table import Table
from benchmarks.serving import serving
from benchmarks.windows import windows_workload
from benchmarks.workloads import automation, backfill, cursor, large, loading, rate, year

WORKLOADS: Mapping[str, Callable[[], Table]] = {
    "year": year,
    "backfill": backfill,
    "automation": automation,
    "large": large,
    "cursor": cursor,
    "completeness": completeness,
    "rate": rate,
    "windows": windows_workload,
    "serving": serving,
    "loading": loading,
}


def main() -> None:
    """Run the named workloads, or all; exit with the failures, if any."""
    arguments = _parse_arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that child processes are stopped too
    started = time.perf_counter()
    failures: list[str] = []
    for name in arguments.workloads or WORKLOADS:
        print(f"{name}:", file=sys.stderr, flush=True)
        table, section = _run(name)
        failures += table.failures
        print(f"\n{section}\n", flush=True)
    print(f"{time.perf_counter() - started:.0f} s in total", file=sys.stderr)
    sys.exit("\n".join(failures) or 0)


def _parse_arguments() -> argparse.Namespace:
    descriptions = {name: (workload.__doc__ or "").splitlines()[0] for name, workload in WORKLOADS.items()}
    listed = "\n".join(f"  {name:<14}{description}" for name, description in descriptions.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog=f"workloads:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("workloads", nargs="*", metavar="workload", help="name of a workload; default: all")
    arguments = parser.parse_args()
    if unknown := set(arguments.workloads) - set(WORKLOADS):
        parser.error(f"unknown workload: {', '.join(sorted(unknown))}")
    return arguments


def _run(name: str) -> tuple[Table, str]:
    """Run a workload; return its table and the Markdown section with it."""
    started = time.perf_counter()
    table = WORKLOADS[name]()
    measured = (
        f"Measured by `python -m benchmarks {name}` in {time.perf_counter() - started:.0f} s:"
        f" {os.cpu_count()} cores, Python {platform.python_version()}, dagster {version('dagster')}."
    )
    return table, f"{table.markdown()}\n\n{measured}"


if __name__ == "__main__":
    main()
