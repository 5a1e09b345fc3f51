"""Print how long the demo takes, and what the posts of its sandbox are like: `python -m benchmarks.sandbox_world`."""

import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from benchmarks.markdown_table import Table
from later_reporting_dagster.server.sandbox import World
from later_reporting_dagster.server.sandbox.sandbox_app import demo_world
from later_reporting_dagster.server.sandbox.synthetic_world import MAX_LIFETIME_DAYS, NOT_AVAILABLE


def describe(world: World) -> list[tuple[object, ...]]:
    """Return shares of the posts, and of the days of posts."""
    posts, everything, last = world.posts, np.arange(len(world.posts)), world.last_day.toordinal()
    to_date = world.accrued(everything, since=1, until=last)
    is_boosted = (to_date["paidImpressions"] != NOT_AVAILABLE) & (to_date["engagements"] != NOT_AVAILABLE)
    days, rows, negative = np.zeros(len(posts), dtype=np.int64), 0, 0
    for day in range(world.first_day.toordinal(), last + 1):
        active = np.flatnonzero((posts.day <= day) & (posts.day + posts.lifetime_days > day))
        values = np.stack([*world.accrued(active, since=day, until=day).values()][:-1])  # without the cost
        days[active] += (values > 0).any(axis=0)
        rows += len(active)
        negative += int(((values < 0) & (values != NOT_AVAILABLE)).any(axis=0).sum())
    whole = days[posts.day <= last - MAX_LIFETIME_DAYS]
    return [
        ("posts", len(posts)),
        (
            "organic posts that are boosted at age 2 days or later, of those boosted",
            _percent(posts.boost_age[is_boosted] > 1),
        ),
        (
            "days that a post earns: mean, median, 95 %",
            f"{whole.mean():.1f}, {np.median(whole):.0f}, {np.quantile(whole, 0.95):.0f}",
        ),
        ("posts without cost", _percent(to_date["cost"] == NOT_AVAILABLE)),
        ("posts without cost, of the last 30 days", _percent(to_date["cost"][posts.day > last - 30] == NOT_AVAILABLE)),
        ("days of posts with a negative value", f"{100 * negative / rows:.2f} %"),
    ]


def _percent(is_counted: NDArray[np.bool_]) -> str:
    return f"{100 * is_counted.mean():.1f} %"


def demo_seconds(directory: Path) -> float:
    """Return the wall time of the demo in a folder."""
    started = time.perf_counter()
    command = [str(Path(sys.executable).with_name("later-reporting")), "demo", "--directory", str(directory)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    """Print the table."""
    with TemporaryDirectory() as folder:
        seconds = [demo_seconds(Path(folder) / "demo") for _ in range(2)]
    times = [
        (f"demo {name}, in s", f"{each:.1f}") for name, each in zip(("from nothing", "again"), seconds, strict=True)
    ]
    world = demo_world(datetime.now(UTC).date() - timedelta(days=1))
    print(Table(title="The demo and its sandbox", columns=("", "value"), rows=[*times, *describe(world)]).markdown())


if __name__ == "__main__":
    main()
