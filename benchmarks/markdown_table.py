"""Markdown tables of results, and a document with a section for each."""

import re
from collections.abc import Iterable, Sequence
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


def replace_section(document: str, name: str, text: str, *, order: Iterable[str]) -> str:
    """Replace or add a section of a document.

    A section starts with the comment `<!-- bench: NAME -->`. The text before the first section is kept.

    Args:
        document: Markdown document.
        name: Name of the section.
        text: New text of the section.
        order: Names of all sections in their order; others are removed.

    Returns:
        The changed document.
    """
    introduction, *parts = re.split(r"^<!-- bench: (\w+) -->\n", document, flags=re.MULTILINE)
    sections = dict(zip(parts[::2], parts[1::2], strict=True)) | {name: text}
    kept = [f"<!-- bench: {each} -->\n\n{sections[each].strip()}" for each in order if each in sections]
    return "\n\n".join([introduction.strip(), *kept]) + "\n"
