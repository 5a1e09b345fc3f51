"""`later-reporting quarantine`: what was set aside, and how it comes back."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

import click
import dagster as dg

from later_reporting_dagster.cli.text import in_one_line
from later_reporting_dagster.defs.partitions import partition_key
from later_reporting_dagster.defs.posts import POST_METRICS_DAILY, POSTS_PUBLISHED
from later_reporting_dagster.defs.runs.materializations import report_change_by_hand
from later_reporting_dagster.ingest.homeless import possible_of
from later_reporting_dagster.ingest.replay import Replayed, replay
from later_reporting_dagster.lake import Lake, QuarantinedRow

SOURCES = {source.asset: source for source in (POST_METRICS_DAILY, POSTS_PUBLISHED)}


def quarantine_lines(lake: Lake, asset: str, *, raw: bool) -> Iterator[str]:
    """A line for each partition and reason: asset, partition, how many rows, reason; with `raw`, then each row."""
    rows = lake.quarantined(asset)
    counts = Counter((_place(row), row.reason) for row in rows)
    for (place, reason), count in counts.items():
        yield f"{asset}  {place}  {count}  {in_one_line(reason)}"
        if raw:
            yield from (f"    {in_one_line(row.raw)}" for row in rows if (_place(row), row.reason) == (place, reason))


def replayed(lake: Lake, asset: str, *, instance: dg.DagsterInstance | None) -> bool:
    """Replays a table's quarantine and says what became of it; False when good rows could not be added."""
    whole = True
    for outcome in replay(lake, SOURCES[asset], now=datetime.now(UTC)):
        if instance is not None and outcome.written is not None and outcome.partition is not None:
            how = {"replayed_rows": outcome.merged}
            report_change_by_hand(instance, asset, outcome.partition, outcome.written, how=how)
        place = "no partition" if outcome.partition is None else partition_key(outcome.partition)
        click.echo(f"{asset}  {place}  {in_one_line(outcome.error) or _what_became(outcome)}", err=bool(outcome.error))
        whole = whole and not outcome.error
    return whole


def _place(row: QuarantinedRow) -> str:
    if row.partition is not None:
        return partition_key(row.partition)
    possible = possible_of(row)
    if not possible:
        return "no partition"
    days = sorted({partition.day for partition in possible})
    instances = len({partition.instance_id for partition in possible})
    span = str(days[0]) if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return f"somewhere in {span} of {instances} instance{'s' * (instances != 1)}"


def _what_became(outcome: Replayed) -> str:
    parts = {
        "merged": outcome.merged,
        "there already, and left as they lie there": outcome.already_there,
        "still bad": outcome.still_bad,
    }
    return ", ".join(f"{count} {what}" for what, count in parts.items() if count)
