"""Serves a world of any days for a benchmark, in a process of its own: `python -m tests.bench.serve`."""

import argparse
from datetime import date

from later_reporting_dagster.sandbox import SandboxOptions, World, create_app, serve


def main() -> None:
    """Prints the base URL once connections are accepted, and serves until it is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first-day", type=date.fromisoformat, required=True)
    parser.add_argument("--last-day", type=date.fromisoformat, required=True)
    parser.add_argument("--instances", type=int, required=True)
    parser.add_argument("--posts-per-day", type=int, required=True)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--requests", type=int, default=10**9)
    parser.add_argument("--window", type=float, default=60.0)
    given = parser.parse_args()
    world = World(
        first_day=given.first_day,
        last_day=given.last_day,
        instances=given.instances,
        posts_per_day=given.posts_per_day,
    )
    options = SandboxOptions(
        latency_seconds=given.latency, requests_per_window=given.requests, window_seconds=given.window
    )
    serve(create_app(world, options=options), port=0, on_ready=lambda base_url: print(base_url, flush=True))


if __name__ == "__main__":
    main()
