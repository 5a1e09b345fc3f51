"""What a workload found, as Markdown, and the document that keeps the newest of each."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows under columns; a number that is no whole one is shown with two decimals, any other cell as it is.

    `failures` are what the rows show that must not be.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    note: str = ""
    failures: Sequence[str] = ()

    def markdown(self) -> str:
        """The table under its title, and its note below it."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        table = "\n".join(f"| {' | '.join(map(_shown, cells))} |" for cells in lines)
        return "\n\n".join(part for part in (f"## {self.title}", table, self.note) if part)


def _shown(cell: object) -> str:
    return f"{cell:.2f}" if isinstance(cell, float) else str(cell)


def with_section(document: str, name: str, text: str, *, order: Iterable[str]) -> str:
    """The document with the text of one of its sections replaced, or added in its place.

    A section begins with a comment of its own. What stands above the first one is the introduction, which is kept, as
    are the other sections that `order` names.
    """
    introduction, *parts = re.split(r"^<!-- bench: (\w+) -->\n", document, flags=re.MULTILINE)
    sections = dict(zip(parts[::2], parts[1::2], strict=True)) | {name: text}
    kept = [f"<!-- bench: {each} -->\n\n{sections[each].strip()}" for each in order if each in sections]
    return "\n\n".join([introduction.strip(), *kept]) + "\n"
