"""Format the output of `later-reporting quarantine`."""

from collections.abc import Iterator

from later_reporting_dagster.cli.terminal_text import one_line
from later_reporting_dagster.lake import Lake, QuarantinedRow


def quarantine_lines(lake: Lake, table: str, *, raw: bool) -> Iterator[str]:
    """Summarize the quarantined rows of a table by (day, instance) pair and reason.

    Args:
        lake: where the quarantine is stored.
        table: name of a raw table.
        raw: list the JSON of each row below its summary line.

    Yields:
        Lines `table  pair  count  reason`. If the day or instance of a row is unknown, the days of its query
        are shown instead.
    """
    groups: dict[tuple[str, str], list[QuarantinedRow]] = {}
    for row in lake.quarantine.rows(table):
        groups.setdefault((_origin(row), row.reason), []).append(row)
    for (origin, reason), rows in groups.items():
        yield f"{table}  {origin}  {len(rows)}  {one_line(reason)}"
        if raw:
            yield from (f"    {one_line(row.raw)}" for row in rows)


def _origin(row: QuarantinedRow) -> str:
    if row.partition is not None:
        return one_line(str(row.partition))
    if row.day_range is None:
        return "day or instance unknown"
    first, last = row.day_range
    days = str(first) if first == last else f"{first} to {last}"
    return f"day or instance unknown, from the query of {days}"
