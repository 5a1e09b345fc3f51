"""Markdown tables of results."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of results.

    Attributes:
        title: Heading above the table.
        columns: Column names.
        rows: Cells; floats are shown with two decimals.
        note: Text below the table.
        failures: One line for each result that is out of its limits.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    note: str = ""
    failures: Sequence[str] = ()

    def markdown(self) -> str:
        """Return the heading, the table and the note."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        table = "\n".join(f"| {' | '.join(map(_format, cells))} |" for cells in lines)
        return "\n\n".join(part for part in (f"## {self.title}", table, self.note) if part)


def _format(cell: object) -> str:
    return f"{cell:.2f}" if isinstance(cell, float) else str(cell)
