"""Rolls up ten million posts, beside pyarrow's bare group-by over the same columns: `python -m tests.bench.rollup`.

Bare is a sum and a count of each metric that adds up, and the number of rows, by the same keys: no rates, nothing that
keeps a sum from wrapping, and money whose last bits depend on the order of rows.
"""

import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import pyarrow as pa

from later_reporting_dagster.contract import DOCUMENT_METRICS, Channel, ContentType, platform_of
from later_reporting_dagster.contract.metrics import Kind
from later_reporting_dagster.lake import POSTS_SCHEMA
from later_reporting_dagster.rollups.columns import GRAIN
from later_reporting_dagster.rollups.periods import organic_paid
from later_reporting_dagster.rollups.tables import DAILY

ROWS, ROWS_A_CHUNK, ROUNDS = 10_000_000, 1_000_000, 7
INSTANCES, CAMPAIGNS = 8, 28
SUMMED = [metric for metric in DOCUMENT_METRICS if metric.kind.adds_up]
NOT_AVAILABLE = {Channel.ORGANIC: 0.1, Channel.PAID: 0.6}


@dataclass(frozen=True, slots=True, kw_only=True)
class RollupFigures:
    """Medians of rounds in which the two took turns; the ratio is the median of the rounds' ratios."""

    rows: int
    seconds: float
    bare_seconds: float
    ratio: float
    peak_megabytes: float


def raw_rows(rows: int) -> pa.Table:
    """Shuffled posts of 2,240 groups in the columns that the daily rollup reads, in chunks as files make them."""
    chance = np.random.default_rng(1)
    return pa.concat_tables(_chunk(min(ROWS_A_CHUNK, rows - start), chance) for start in range(0, rows, ROWS_A_CHUNK))


def _chunk(rows: int, chance: np.random.Generator) -> pa.Table:
    def drawn(values: Sequence[str], indices: np.ndarray) -> pa.Array:
        return pa.array(values).take(pa.array(indices))

    instances = [f"instance_{index:03}" for index in range(INSTANCES)]
    content_types = [str(content_type) for content_type in ContentType]
    of_content_type = chance.integers(0, len(content_types), rows)
    columns = {
        "instance_id": drawn(instances, chance.integers(0, len(instances), rows)),
        "campaign_id": pa.array(chance.integers(1000, 1000 + CAMPAIGNS, rows)),
        "content_type": drawn(content_types, of_content_type),
        "platform": drawn([str(platform_of(content_type)) for content_type in content_types], of_content_type),
    }
    # A channel reports all its counts or none; money comes and goes on its own.
    is_missing = {channel: chance.random(rows) < share for channel, share in NOT_AVAILABLE.items()}
    for metric in SUMMED:
        if metric.kind is Kind.COUNT:
            columns[metric.column] = pa.array(chance.integers(0, 50_000, rows), mask=is_missing[metric.channel])
        else:
            columns[metric.column] = pa.array(chance.integers(0, 100_000, rows) / 100, mask=chance.random(rows) < 0.3)
    schema = pa.schema([field for field in POSTS_SCHEMA if field.name in columns])
    return pa.table(columns, schema=schema)


def bare_group_by(posts: pa.Table) -> pa.Table:
    """What pyarrow alone takes to sum and count."""
    of_each = [(metric.column, how) for metric in SUMMED for how in ("sum", "count")]
    return posts.group_by(list(GRAIN)).aggregate([*of_each, ([], "count_all")])


def rollup_workload(*, rows: int = ROWS, rounds: int = ROUNDS) -> RollupFigures:
    """Measures in this process, whose peak memory holds the raw rows and their making too."""
    posts = raw_rows(rows)
    bare, ours = [], []
    for _ in range(rounds):
        bare.append(_seconds(lambda: bare_group_by(posts)))
        ours.append(_seconds(lambda: organic_paid(posts, DAILY)))
    return RollupFigures(
        rows=rows,
        seconds=statistics.median(ours),
        bare_seconds=statistics.median(bare),
        ratio=statistics.median(mine / theirs for mine, theirs in zip(ours, bare, strict=True)),
        peak_megabytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Measures, and prints the figures as JSON."""
    print(msgspec.json.encode(rollup_workload()).decode())


if __name__ == "__main__":
    main()
