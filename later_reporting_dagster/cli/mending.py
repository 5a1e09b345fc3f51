"""The lines that `later-reporting quarantine` prints."""

from collections import Counter
from collections.abc import Iterator

from later_reporting_dagster.cli.text import in_one_line
from later_reporting_dagster.ingest.homeless import possible_of
from later_reporting_dagster.lake import Lake, QuarantinedRow


def quarantine_lines(lake: Lake, asset: str, *, raw: bool) -> Iterator[str]:
    """A line for each partition and reason: asset, partition, how many rows, reason; with `raw`, then each row."""
    rows = lake.quarantined(asset)
    counts = Counter((_place(row), row.reason) for row in rows)
    for (place, reason), count in counts.items():
        yield f"{asset}  {place}  {count}  {in_one_line(reason)}"
        if raw:
            yield from (f"    {in_one_line(row.raw)}" for row in rows if (_place(row), row.reason) == (place, reason))


def _place(row: QuarantinedRow) -> str:
    if row.partition is not None:
        return str(row.partition)
    possible = possible_of(row)
    if not possible:
        return "no partition"
    days = sorted({partition.day for partition in possible})
    instances = len({partition.instance_id for partition in possible})
    span = str(days[0]) if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return f"somewhere in {span} of {instances} instance{'s' * (instances != 1)}"
