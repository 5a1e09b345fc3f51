"""Workload: what is lost while posts appear or vanish between two pages."""

import tempfile
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.changing_posts import APPEAR, VANISH, Key
from benchmarks.markdown_table import Table
from benchmarks.measure import measure
from benchmarks.measurement import TABLE_NAMES
from benchmarks.sandbox_server import running_sandbox_process
from benchmarks.workloads import YESTERDAY, newest_partitions

_METHODS = {"plain script": "plain script", "dlt rest_api": "dlt rest_api", "library, changing": "library"}


def completeness(*, days: int = 68, changes: int = 20, pages: int = 5) -> Table:
    """Posts that are lost while others appear or vanish between two pages.

    Args:
        days: Days by `post_date`, of 8 instances with 20 posts a day.
        changes: Posts that appear or vanish.
        pages: Pages that are read before each change.
    """
    partitions = newest_partitions(days, range(8))
    methods = [name for name in _METHODS if name != "dlt rest_api" or find_spec("dlt")]
    rows: list[tuple[object, ...]] = []
    failures = []
    for change in (APPEAR, VANISH):
        for method in methods:
            with (
                running_sandbox_process(
                    first_day=partitions.start,
                    last_day=YESTERDAY,
                    instances=8,
                    posts_per_day=20,
                    change=change,
                    changes=changes,
                    pages=pages,
                ) as sandbox,
                tempfile.TemporaryDirectory() as root,
            ):
                at_first = sandbox.keys_of_posts()
                result = measure(method, partitions, sandbox=sandbox, date_basis="post_date", root=root)
                at_last, stored = sandbox.keys_of_posts(), _stored_keys(Path(root))
            name = _METHODS[method]
            throughout = at_first & at_last
            lost, twice = len(throughout - stored.keys()), stored.total() - len(stored)
            absent = len(at_last - throughout - stored.keys())
            rows.append((change, name, result.requests, len(throughout), lost, twice, absent, result.failed))
            if name == "library" and not result.failed and (lost or twice):
                failures.append(f"completeness, posts {change}: {lost} rows lost, {twice} twice")
    return Table(
        title=f"posts_published while posts change, {days} days × 8 instances × 20 posts a day",
        columns=(
            *("posts", "by", "requests", "rows there throughout", "lost of these", "stored twice"),
            *("appeared, and absent until the next fetch", "files that failed by name"),
        ),
        rows=rows,
        note=f"After every {pages} pages of posts that a method reads, one post appears or vanishes, {changes} in all."
        " Lost are posts that the server had from the first request to the last, and the files lack. The plain"
        " script and dlt end with success, whatever they lost. Goal: the library loses and doubles nothing."
        + " dlt is not installed: `pip install dlt` adds its rows."
        * (len(methods) < len(_METHODS)),
        failures=failures,
    )


def _stored_keys(root: Path) -> Counter[Key]:
    """Return how often the files have each row."""
    stored: Counter[Key] = Counter()
    for file in root.rglob("*.parquet"):
        if TABLE_NAMES["post_date"] in file.parts and "_fetches" not in file.parts:
            keys = pq.read_table(file, columns=["instance_id", "campaign_id", "post_id"], partitioning=None)
            stored.update(zip(*(column.to_pylist() for column in keys.columns), strict=True))
    return stored
