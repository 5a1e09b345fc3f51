"""Which rollups have to be made again, and whether the report has to. The lake says so, not Dagster's events."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date

from later_reporting_dagster.lake import FileDamaged, Lake, LakeUnavailable, Partition, partition_path
from later_reporting_dagster.lake.file_metadata import FileMetadata, MadeFrom
from later_reporting_dagster.lake.parquet_file import has_rows, parse_metadata
from later_reporting_dagster.lake.paths import table_path
from later_reporting_dagster.lake.storage import FileVersion
from later_reporting_dagster.lake.tables import COVERAGE_TABLE
from later_reporting_dagster.report.report_data import REPORT, REPORT_PATH, SHOWN_TABLES
from later_reporting_dagster.report.report_page import REPORT_DEFINITION, made_from_of_page
from later_reporting_dagster.rollups.made_from import digest_of, list_inputs, periods_without_raw_files
from later_reporting_dagster.rollups.rollup_tables import CADENCES, PERIOD_TABLES, RollupTable, first_day_of


@dataclass(frozen=True, slots=True)
class Outdated:
    """A file that has to be made again.

    Attributes:
        first_day: of the day, week or month; None for a table of one file, and for the report.
        reason: `missing`, `damaged`, `made from other files`, `made by an older definition` or `lacks columns`.
        inputs: the digest of what it would be made from now; see `MadeFrom`.
    """

    table: str
    first_day: date | None
    reason: str
    inputs: str


class Footers:
    """The metadata of files, read once for each version of a file: a sensor keeps them from tick to tick.

    Args:
        verify_rows: whether a file with other rows than were written counts as one that cannot be read.
    """

    def __init__(self, *, verify_rows: bool = True) -> None:
        self._verify_rows = verify_rows
        self._known: dict[str, tuple[FileVersion, FileMetadata]] = {}

    def of_file(self, lake: Lake, path: str) -> FileMetadata | None:
        """Return the metadata of a file, as `of_versions` does; None if there is none, or none that can be listed."""
        with suppress(LakeUnavailable):
            return self.of_versions(lake, lake.storage.versions([path])).get(path)
        return None

    def of_periods(
        self, lake: Lake, table: RollupTable, *, days: Collection[date] | None = None
    ) -> dict[date, FileMetadata]:
        """Return the metadata of the files of a table, as `of_versions` does, by first day."""
        # If a file stands in place of the folder, the table cannot be listed. No other table waits for it.
        with suppress(LakeUnavailable):
            versions = lake.file_versions(table.name, days=days)
            paths = {each.day: partition_path(table.name, each) for each in versions}
            found = self.of_versions(lake, dict(zip(paths.values(), versions.values(), strict=True)))
            return {day: found[path] for day, path in paths.items()}
        return {}

    def of_versions(self, lake: Lake, versions: Mapping[str, FileVersion]) -> dict[str, FileMetadata]:
        """Return the metadata of files, given by path; of a file that cannot be read, those without a hash."""
        known = {path: self._known[path][1] for path in versions if self._known.get(path, ())[:1] == (versions[path],)}
        unknown = [path for path in versions if path not in known]
        read = dict(zip(unknown, lake.storage.map(lambda path: self._read(lake, path), unknown), strict=True))
        # Without an identity, a file may be replaced by one of the same size.
        self._known |= {
            path: (versions[path], read[path]) for path in read if versions[path].identity and read[path].content_hash
        }
        return known | read

    def _read(self, lake: Lake, path: str) -> FileMetadata:
        with suppress(FileDamaged, LakeUnavailable):
            data = lake.storage.read(path) or b""
            if path != REPORT_PATH:
                metadata = parse_metadata(data)
                if not self._verify_rows or has_rows(data, metadata.content_hash):
                    return metadata
            elif made_from := made_from_of_page(data):
                return FileMetadata(0, made_from.inputs, made_from=made_from)
        return FileMetadata(0)


def describe_outdated(files: Iterable[Outdated]) -> str:
    """Return what is outdated and why, such as `3 days of organic_paid_daily (missing)`."""
    counts = Counter((file.table, file.reason) for file in files)
    return ", ".join(
        f"{count} {CADENCES[table]}{'s' * (count > 1)} of {table} ({reason})"
        if table in CADENCES
        else f"{table} ({reason})"
        for (table, reason), count in counts.items()
    )


def outdated(
    lake: Lake,
    tables: Sequence[RollupTable],
    *,
    start_date: date,
    newest_day: date,
    days: Collection[date] | None = None,
    with_report: bool = False,
    footers: Footers | None = None,
) -> list[Outdated]:
    """Return which files of rollup tables, and whether the report, have to be made again.

    A day, week or month that has lost all raw files is one without rows, unless the raw table has no files at all: then
    the lake may be half mounted. Tables of one file are left out if there is nothing to make them from.

    Args:
        start_date: before it, no file is missing, but those that exist may be outdated.
        newest_day: the newest day that is over.
        days: look only at raw files, and at days, weeks or months, of these days; default: at all.
    """
    footers = footers or Footers()
    inputs, found = list_inputs(lake, tables, days=days), list[Outdated]()

    def look(
        name: str, footer: FileMetadata | None, made_from: MadeFrom, table: RollupTable | None, day: date | None = None
    ) -> None:
        if reason := _reason(footer, made_from, table):
            found.append(Outdated(name, day, reason, made_from.inputs))

    for table in tables:
        if not table.table.is_partitioned:
            if inputs.can_make(table):
                look(table.name, footers.of_file(lake, table_path(table.name)), inputs.made_from(table), table)
            continue
        stored = footers.of_periods(lake, table, days=days)
        first, last = (first_day_of(table.cadence, day) for day in (start_date, newest_day))
        lost = periods_without_raw_files(lake, table, inputs, stored=stored)
        for first_day in sorted({*inputs.first_days(table), *lost}):
            if (first_day >= first or first_day in stored) and first_day <= last:
                look(table.name, stored.get(first_day), inputs.made_from(table, first_day), table, first_day)
    if with_report:
        look(REPORT, footers.of_file(lake, REPORT_PATH), report_inputs(lake, footers), None)
    return found


def _reason(footer: FileMetadata | None, current: MadeFrom, table: RollupTable | None) -> str:
    """Return why a file has to be made again; an empty text if it does not have to."""
    if footer is None:
        return "missing"
    if not footer.content_hash:
        return "damaged"
    made_from = footer.made_from
    if made_from is None or made_from.inputs != current.inputs:
        return "made from other files"
    # Not if it is higher: of two deployments, the older one would undo what the newer one does.
    if made_from.definition < current.definition:
        return "made by an older definition"
    if table and not {column.name for column in table.columns} <= set(footer.columns):
        return "lacks columns"
    return ""


def report_inputs(lake: Lake, footers: Footers | None = None) -> MadeFrom:
    """Return what the report is made from now: the tables that it shows, and what those are made from.

    The page names outdated tables, also if their rows stay the same when they are made again.
    """
    footers = footers or Footers()
    shown: dict[str, FileMetadata] = {}
    for table in PERIOD_TABLES:
        if table.name in SHOWN_TABLES:
            stored = footers.of_periods(lake, table)
            shown |= {partition_path(table.name, Partition(day)): footer for day, footer in stored.items()}
    for path in map(table_path, (*SHOWN_TABLES, COVERAGE_TABLE)):
        if footer := footers.of_file(lake, path):
            shown[path] = footer
    lines = []
    for path, file in sorted(shown.items()):
        content = file.hash_without_requests or file.content_hash
        lines.append(f"{path} {content} {file.made_from.inputs if file.made_from else ''}")
    return MadeFrom(inputs=digest_of(lines), definition=REPORT_DEFINITION)
