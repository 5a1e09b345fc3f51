"""The lines that `later-reporting quarantine` prints."""

from collections import Counter
from collections.abc import Iterator

from later_reporting_dagster.cli.terminal_text import in_one_line
from later_reporting_dagster.lake import Lake, QuarantinedRow


def quarantine_lines(lake: Lake, asset: str, *, raw: bool) -> Iterator[str]:
    """Yield a line per (day, instance) and reason: asset, both, how many rows, reason; with `raw`, then each row."""
    rows = lake.quarantine.rows(asset)
    counts = Counter((_place(row), row.reason) for row in rows)
    for (place, reason), count in counts.items():
        yield f"{asset}  {place}  {count}  {in_one_line(reason)}"
        if raw:
            yield from (f"    {in_one_line(row.raw)}" for row in rows if (_place(row), row.reason) == (place, reason))


def _place(row: QuarantinedRow) -> str:
    if row.partition is not None:
        return in_one_line(str(row.partition))
    if row.days is None:
        return "no partition"
    first, last = row.days
    return f"no partition, of {first}" if first == last else f"no partition, of {first} to {last}"
