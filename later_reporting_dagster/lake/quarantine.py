"""Quarantine: bad rows with the reason for each, as JSON lines below `{root}/_quarantine/{table}/`.

Bad rows whose partition is known are in `date=…/instance_id=…`, all others in one directory for each query,
`query={first day}_{last day}_{digest}`. Other readers of the lake skip names that begin with an underscore.
"""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from itertools import chain

from later_reporting_dagster.contract import BadRow
from later_reporting_dagster.contract.rows import from_json
from later_reporting_dagster.lake.parquet_file import FileDamaged, damaged_file_error
from later_reporting_dagster.lake.paths import Partition, parse_directory, partition_directory, step_to_replace
from later_reporting_dagster.lake.storage import Storage

_DIRECTORY = "_quarantine"
_FILE_NAME = "part-0.jsonl"
_DAY = r"\d{4}-\d\d-\d\d"
_ID = re.compile(r"[0-9]{1,18}")
_QUERY_DIRECTORY = re.compile(rf"query=({_DAY})_({_DAY})_[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class QuarantineFile:
    """A file of bad rows, of a partition or of a query, whose first and last day are `day_range`.

    If its directory is neither of a partition nor of a query, both are None.
    """

    path: str
    partition: Partition | None = None
    day_range: tuple[date, date] | None = None


@dataclass(frozen=True, slots=True)
class QuarantinedRow:
    """A bad row, as JSON of the API. If its partition is unknown, `day_range` has the days of the query."""

    partition: Partition | None
    reason: str
    raw: str
    query: str
    day_range: tuple[date, date] | None = None

    @property
    def days(self) -> tuple[date, date]:
        """The first and the last day that it may be of."""
        return (self.partition.day, self.partition.day) if self.partition else self.day_range or (date.min, date.max)

    def id_in(self, field: str) -> int | None:
        """Return the id in a field of the row, such as `postId`; None if it cannot be read."""
        with suppress(ValueError):
            row = from_json(self.raw)
            text = str(row.get(field)).removesuffix(".0") if isinstance(row, dict) else ""
            return int(text) if _ID.fullmatch(text) else None
        return None


class Quarantine:
    """The bad rows of a lake's tables. Queries are stored without secrets."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def write(self, path: str, bad_rows: Sequence[BadRow], *, query: str) -> str:
        """Replace the bad rows of a partition or of a query by at least one; return the location of the file."""
        lines = [json.dumps({"reason": row.reason, "raw": row.raw, "query": query}) for row in bad_rows]
        self._storage.write(path, "".join(f"{line}\n" for line in lines).encode())
        return self._storage.location(path)

    def path_of(self, table_name: str, partition: Partition) -> str:
        return f"{_DIRECTORY}/{partition_directory(table_name, partition)}/{_FILE_NAME}"

    def path_of_query(self, table_name: str, query: str, day_range: tuple[date, date]) -> str:
        digest = hashlib.sha256(query.encode(errors="backslashreplace")).hexdigest()
        directory = f"query={day_range[0].isoformat()}_{day_range[1].isoformat()}_{digest[:32]}"
        return f"{_DIRECTORY}/{table_name}/{directory}/{_FILE_NAME}"

    def files(self, table_name: str) -> list[QuarantineFile]:
        """List the files of a table, sorted by path. It takes one listing."""
        root, files = f"{_DIRECTORY}/{table_name}", []
        for path in sorted(self._storage.named_files([root], _FILE_NAME)):
            directory = path.removeprefix(f"{root}/").removesuffix(f"/{_FILE_NAME}")
            files.append(QuarantineFile(path, parse_directory(directory), _parse_query_days(directory)))
        return files

    def rows(self, table_name: str) -> list[QuarantinedRow]:
        """Read the rows of all files. In place of the rows of a damaged file, there is one whose reason says so."""
        return list(chain.from_iterable(self._storage.map(self._rows_or_damage, self.files(table_name))))

    def _rows_or_damage(self, file: QuarantineFile) -> list[QuarantinedRow]:
        try:
            return self.rows_in(file)
        except FileDamaged as error:
            return [QuarantinedRow(file.partition, str(error), "", "", file.day_range)]

    def rows_in(self, file: QuarantineFile) -> list[QuarantinedRow]:
        """Read the rows of a file; none if it no longer exists. `FileDamaged`: something else has written it."""
        try:
            data = self._storage.read(file.path)
            return [] if data is None else [_parse_line(line, file) for line in data.splitlines() or [b""]]
        except ValueError as error:
            step = "materialize the days of the query again, or remove this file"
            if file.partition:
                step = step_to_replace(file.path.removeprefix(f"{_DIRECTORY}/"))
            raise damaged_file_error(self._storage.location(file.path), error, step=step) from error

    def rewrite(self, file: QuarantineFile, change: Callable[[QuarantinedRow], QuarantinedRow]) -> bool:
        """Replace each row of a file by `change` of it; return whether that made a difference."""
        rows = self.rows_in(file)
        if (changed := [change(row) for row in rows]) == rows:
            return False
        bad_rows = [BadRow(reason=row.reason, raw=row.raw) for row in changed]
        self.write(file.path, bad_rows, query=rows[0].query)  # all are of one query
        return True


def _parse_line(line: bytes, file: QuarantineFile) -> QuarantinedRow:
    """Return a row. `ValueError`: it is not one, as in an empty file, of which there are none."""
    values = from_json(line)
    found = [values.get(name) if isinstance(values, dict) else None for name in ("reason", "raw", "query")]
    texts = [text for text in found if isinstance(text, str)]
    if len(texts) < len(found):
        raise ValueError("a line has no reason, row or query")
    reason, raw, query = texts
    return QuarantinedRow(file.partition, reason, raw, query, file.day_range)


def _parse_query_days(directory: str) -> tuple[date, date] | None:
    match = _QUERY_DIRECTORY.fullmatch(directory)
    try:
        return None if match is None else (date.fromisoformat(match[1]), date.fromisoformat(match[2]))
    except ValueError:
        return None
