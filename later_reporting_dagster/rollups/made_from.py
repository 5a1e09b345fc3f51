"""What a rollup is made from: the files of the raw tables, as listed before they are read, and its definition.

A rollup file has it in its Parquet metadata, so the lake itself says which rollups are outdated.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from itertools import groupby

from later_reporting_dagster.contract.instances import Marks
from later_reporting_dagster.lake import CAMPAIGN_PERIODS_TABLE, CAMPAIGNS_TABLE, FileVersion, Lake, Partition
from later_reporting_dagster.lake.file_metadata import MadeFrom
from later_reporting_dagster.lake.tables import POST_METRICS_DAILY, POSTS_NAMES
from later_reporting_dagster.rollups.rollup_tables import RollupTable, days_of, first_day_of

# The sources that are one file.
_SINGLE_FILES = {CAMPAIGNS_TABLE, CAMPAIGN_PERIODS_TABLE}


@dataclass(frozen=True, slots=True)
class Inputs:
    """The tables that rollups are made from, as listed.

    Attributes:
        raw: the files of raw tables that are in the numbers, by name of the table.
        days: by raw table and day, a digest of these files; empty if none of the day's files is in the numbers.
        files: the version of each table that is one file; empty if it does not exist.
    """

    raw: Mapping[str, Mapping[Partition, FileVersion]]
    days: Mapping[str, Mapping[date, str]]
    files: Mapping[str, str]
    marks: Marks

    def can_make(self, table: RollupTable) -> bool:
        """Return whether there is anything to make a table from: posts, or periods of campaigns."""
        if CAMPAIGN_PERIODS_TABLE in table.sources:
            return bool(self.files[CAMPAIGN_PERIODS_TABLE])
        return any(self.days.get(name) for name in POSTS_NAMES)

    def first_days(self, table: RollupTable) -> list[date]:
        """Return the first day of each day, week or month with raw files."""
        return sorted({first_day_of(table.cadence, day) for day in self.days[POST_METRICS_DAILY.name]})

    def made_from(self, table: RollupTable, first_day: date | None = None) -> MadeFrom:
        """Return what a table, or the day, week or month that begins on `first_day`, is made from now."""
        lines: list[str] = []
        for name in table.sources:
            if name in self.files:
                lines.append(f"{name} {self.files[name]}")
                continue
            digests = self.days[name]
            days = digests if first_day is None else days_of(table.cadence, first_day)
            # A day without files in the numbers is one without files.
            lines += [f"{name} {day} {digests[day]}" for day in days if digests.get(day)]
        if CAMPAIGN_PERIODS_TABLE in table.sources:  # whose rows do not name instances
            lines += [f"retired {name!a}" for name in sorted(self.marks.retired)]
        return MadeFrom(inputs=digest_of(lines), definition=table.definition)


def list_inputs(lake: Lake, tables: Iterable[RollupTable], *, days: Collection[date] | None = None) -> Inputs:
    """List what some tables are made from, on `days` or on all days. Reads no files."""
    names = {name for table in tables for name in table.sources}
    marks = lake.retired.marks()
    singles = {name: lake.table_version(name) for name in names & _SINGLE_FILES}
    raw: dict[str, dict[Partition, FileVersion]] = {}
    digests: dict[str, dict[date, str]] = {}
    for name in names - _SINGLE_FILES:
        raw[name], digests[name] = {}, {}
        for day, of_day in groupby(lake.file_versions(name, days=days).items(), key=lambda item: item[0].day):
            files = [(file, version) for file, version in of_day if marks.is_in_numbers(file.instance_id)]
            lines = [f"{file.instance_id!a} {version.identity or version.bytes}" for file, version in files]
            raw[name] |= files
            digests[name][day] = digest_of(lines) if lines else ""
    versions = {name: str(each.identity or each.bytes) if each else "" for name, each in singles.items()}
    return Inputs(raw, digests, versions, marks)


def periods_without_raw_files(lake: Lake, table: RollupTable, inputs: Inputs, *, stored: Collection[date]) -> set[date]:
    """Return which stored days, weeks or months have lost all raw files, given their first days.

    None, if the raw table has no files at all: its folder may not be mounted.
    """
    lost = {day for day in stored if first_day_of(table.cadence, day) == day} - {*inputs.first_days(table)}
    if lost and (inputs.days[POST_METRICS_DAILY.name] or lake.partitions(POST_METRICS_DAILY.name)):
        return lost
    return set()


def digest_of(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]
