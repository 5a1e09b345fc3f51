"""What is fetched: the raw tables' common description."""

from dataclasses import dataclass

from later_reporting_dagster.contract import DateBasis


@dataclass(frozen=True, slots=True)
class Source:
    """A raw table: its name in the lake and the date basis that its queries use."""

    asset: str
    date_basis: DateBasis
