"""`later-reporting quarantine` and `versions`: what was set aside or replaced, and how it comes back."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import click
import dagster as dg

from later_reporting_dagster.cli.text import in_one_line
from later_reporting_dagster.defs.partitions import partition_key
from later_reporting_dagster.defs.posts import POST_METRICS_DAILY, POSTS_PUBLISHED
from later_reporting_dagster.defs.runs.materializations import report_change_by_hand
from later_reporting_dagster.ingest.homeless import possible_of
from later_reporting_dagster.ingest.replay import Replayed, replay
from later_reporting_dagster.lake import KeptVersion, Lake, Partition, QuarantinedRow

SOURCES = {source.asset: source for source in (POST_METRICS_DAILY, POSTS_PUBLISHED)}
FEWEST_HASH_CHARACTERS = 4


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


def version_lines(lake: Lake, asset: str, partition: Partition, kept: Sequence[KeptVersion]) -> Iterator[str]:
    """A line for each version: number, when it was replaced, start of the hash, rows and bytes."""
    for number, version in enumerate(kept, start=1):
        facts = lake.version_facts(asset, partition, version)
        if facts is not None:  # else it has been pruned just now
            replaced_at = version.replaced_at.isoformat(timespec="seconds")
            yield f"{number}  {replaced_at}  {version.content_hash}  {facts.rows:,} rows  {facts.bytes:,} bytes"


def version_named(name: str, kept: Sequence[KeptVersion]) -> KeptVersion:
    """The version of a number as listed, or else the newest whose hash begins so.

    Raises:
        ValueError: there is none.
    """
    if name.isascii() and name.isdigit() and len(name) < FEWEST_HASH_CHARACTERS:
        if 1 <= int(name) <= len(kept):
            return kept[int(name) - 1]
        raise ValueError(f"{len(kept)} versions of this partition are kept: leave --restore out to see them")
    for version in kept:
        if len(name) >= FEWEST_HASH_CHARACTERS and version.content_hash.startswith(name[: len(version.content_hash)]):
            return version
    raise ValueError(
        f"no version of this partition has a hash that begins so, by {FEWEST_HASH_CHARACTERS} characters or more:"
        " leave --restore out to see those that are kept"
    )


def restored(
    lake: Lake, asset: str, partition: Partition, version: KeptVersion, *, instance: dg.DagsterInstance | None
) -> str:
    """Puts a version back, and says so in a line.

    Raises:
        ValueError: it is not kept any more, or is not what was kept.
    """
    try:
        written = lake.restore(asset, partition, version)
    except KeyError:
        raise ValueError(
            "this version has just been replaced by newer ones: leave --restore out to see those"
        ) from None
    if instance is not None and written.changed:
        how = {"restored_version": f"replaced at {version.replaced_at.isoformat()}"}
        report_change_by_hand(instance, asset, partition, written, how=how)
    what = f"{written.rows:,} rows, {written.content_hash[: len(version.content_hash)]}"
    return f"{asset}  {partition_key(partition)}  {what}, {'restored' if written.changed else 'lay there already'}"


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
